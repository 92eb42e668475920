//! The clock table: per (segment, generation), who owns each engine client id and where its clock stands.
//!
//! A function of the log: relay and replica hold the same table at the same position, so both judge a delta alike
//! (CORE-PROTOCOL R10). The order of use is `structure`, then [`Clocks::check`], and once the commit is in the log
//! [`Clocks::record`] with the same arguments. The table does not look at bytes.
//!
//! Stored form, little-endian base-128 varints in their shortest form, clients ascending:
//!
//! ```text
//! table = count entry*
//! entry = client owner(16 bytes) next count turn*      client < 2^53, 0 < next <= CLOCK_END
//! turn  = the first clock of a run of keyed clocks, or of unkeyed ones, in turn; each as its distance from the turn
//!         before (the first from 0); all below next
//! ```

use std::collections::BTreeMap;

use super::read::Cursor;
use super::{CLIENT_END, CLOCK_END, GuardError, Runs, Summary};
use crate::id::ReplicaId;

const ENTRY_MIN: usize = 19;

/// How a delta's structs stand to the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Continuity {
    /// It continues its client's clocks, or has no structs.
    New,
    /// Its structs are all known already: a copy, which changes no clock. Its deletes may still be new.
    Copy,
}

/// Client id → (owner, next clock).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Clocks {
    clients: BTreeMap<u64, Client>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Client {
    owner: ReplicaId,
    next: u32,
    /// Which clocks below `next` are entries under a key.
    keyed: Runs,
}

impl Clocks {
    /// Whether `owner` may commit a delta of this summary here. Changes nothing.
    pub fn check(&self, owner: ReplicaId, summary: &Summary) -> Result<Continuity, GuardError> {
        let mut continuity = Continuity::New;
        if let Some(own) = summary.own {
            let next = match self.clients.get(&own.client) {
                Some(client) if client.owner != owner => return Err(GuardError::ForeignClient),
                Some(client) => client.next,
                None => 0,
            };
            if own.end <= next {
                continuity = Continuity::Copy;
            } else if own.start != next {
                return Err(GuardError::ClockGap);
            }
        }
        for (client, end) in &summary.named {
            if *end > self.next(*client) {
                return Err(GuardError::UnknownClock);
            }
        }
        for (client, clock, keyed) in &summary.beside {
            match self.clients.get(client) {
                Some(known) if *clock < known.next && known.keyed.keyed(*clock) == *keyed => {}
                Some(known) if *clock < known.next => return Err(GuardError::TornItem),
                _ => return Err(GuardError::UnknownClock),
            }
        }
        Ok(continuity)
    }

    /// Takes in a delta that [`Clocks::check`] has passed, at its place in the log. A copy changes nothing.
    pub fn record(&mut self, owner: ReplicaId, summary: &Summary) {
        if let Some(own) = summary.own {
            let fresh = Client { owner, next: 0, keyed: Runs::default() };
            let client = self.clients.entry(own.client).or_insert(fresh);
            if own.end > client.next {
                debug_assert!(client.owner == owner && own.start == client.next, "recorded without a check");
                client.keyed.extend(own.start, &summary.keyed);
                client.next = own.end;
            }
        }
    }

    /// One past the highest clock of a client; 0 for one never seen.
    pub fn next(&self, client: u64) -> u32 {
        self.clients.get(&client).map_or(0, |client| client.next)
    }

    /// How many clients have written here.
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Whether nobody has written here.
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// Clients with owner and next clock, by client.
    pub fn iter(&self) -> impl Iterator<Item = (u64, ReplicaId, u32)> + '_ {
        self.clients.iter().map(|(id, client)| (*id, client.owner, client.next))
    }

    /// Appends the stored form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let put = |out: &mut Vec<u8>, mut value: u64| {
            while value >= 0x80 {
                out.push((value & 0x7f) as u8 | 0x80);
                value >>= 7;
            }
            out.push(value as u8);
        };
        put(out, self.clients.len() as u64);
        for (id, client) in &self.clients {
            put(out, *id);
            out.extend_from_slice(&client.owner.0);
            put(out, u64::from(client.next));
            put(out, client.keyed.turns().len() as u64);
            let mut last = 0;
            for turn in client.keyed.turns() {
                put(out, u64::from(turn - last));
                last = *turn;
            }
        }
    }

    /// Reads exactly one stored table.
    pub fn decode(bytes: &[u8]) -> Result<Clocks, GuardError> {
        let mut cursor = Cursor::new(bytes);
        let mut clients = BTreeMap::new();
        let mut last = None;
        for _ in 0..cursor.count(ENTRY_MIN)? {
            let id = cursor.var_u64()?;
            let owner = <[u8; 16]>::try_from(cursor.take(16)?).map_err(|_| GuardError::Truncated)?;
            let next = cursor.var_u32()?;
            if id >= CLIENT_END || last.is_some_and(|last| id <= last) || next == 0 || next > CLOCK_END {
                return Err(GuardError::BadTable);
            }
            last = Some(id);
            let (mut turns, mut turn) = (Vec::new(), 0_u32);
            for _ in 0..cursor.count(1)? {
                turn = turn.checked_add(cursor.var_u32()?).ok_or(GuardError::BadTable)?;
                turns.push(turn);
            }
            let keyed = Runs::of_turns(turns, next).ok_or(GuardError::BadTable)?;
            clients.insert(id, Client { owner: ReplicaId(owner), next, keyed });
        }
        cursor.end()?;
        Ok(Clocks { clients })
    }
}
