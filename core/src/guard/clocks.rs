//! The clock table: per (segment, generation), who owns each engine client id and where its clock stands.
//!
//! A function of the log: relay and replica hold the same table at the same position, so both judge a delta alike
//! (CORE-PROTOCOL R10). The order of use is `structure`, then [`Clocks::check`], and once the commit is in the log
//! [`Clocks::record`] with the same arguments. The table does not look at bytes.
//!
//! Stored form, little-endian base-128 varints in their shortest form, clients ascending:
//!
//! ```text
//! table = count entry* [count distance*]              the second list, if there is one: entries whose part is quarantined
//! entry = client owner(16 bytes) next count run*      client < 2^53, 0 < next <= CLOCK_END; 0, without runs, of one that is barred
//! run   = distance * 4 + space                        from the run before (the first from 0, with distance 0) to this
//!                                                     one's first clock, which is below next
//! space = 0 registers | 1 sequences | 2 texts         runs that follow one another differ
//! ```

use std::collections::{BTreeMap, BTreeSet};

use super::read::Cursor;
use super::space::{Beside, Claim, Says, Space, Spaces};
use super::{CLIENT_END, CLOCK_END, GuardError, Summary};
use crate::id::{Offset, ReplicaId};
use crate::limits;

const ENTRY_MIN: usize = 19;

/// The owner of clients that came in a whole state, which does not say whose they are: the first commit that goes on as one
/// of them binds it.
pub const UNBOUND: ReplicaId = ReplicaId([0; 16]);

/// The owner of clients of which a part is quarantined: nobody goes on as one of them (CORE-PROTOCOL R12).
pub const BARRED: ReplicaId = ReplicaId([0xff; 16]);

/// The owner of the client that a relay writes a new generation's document under (CORE-PROTOCOL G1). No connection may declare
/// this id, so nobody goes on as that client. Another one than [`BARRED`]: what it wrote counts.
pub const RELAY: ReplicaId = ReplicaId([0xfe; 16]);

/// How a delta's structs stand to the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Continuity {
    /// It continues its client's clocks, or has no structs.
    New,
    /// Its structs are all known already: a copy, which changes no clock. Its deletes may still be new.
    Copy,
}

/// Client id → (owner, next clock); and which entries' parts are left out.
#[derive(Clone, Debug, Default)]
pub struct Clocks {
    /// Those of a table or a state that was read, by id: as many as somebody else chose to send, so with no room to spare.
    read: Vec<(u64, Client)>,
    /// Those that came since.
    fresh: BTreeMap<u64, Client>,
    skipped: BTreeSet<Offset>,
}

impl PartialEq for Clocks {
    fn eq(&self, other: &Clocks) -> bool {
        self.len() == other.len() && self.clients().eq(other.clients()) && self.skipped == other.skipped
    }
}

impl Eq for Clocks {}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Client {
    pub owner: ReplicaId,
    pub next: u32,
    /// The name spaces of all clocks below `next`.
    pub spaces: Spaces,
}

impl Clocks {
    /// A table of these clients, by id.
    pub(super) fn of(read: Vec<(u64, Client)>) -> Clocks {
        Clocks { read, fresh: BTreeMap::new(), skipped: BTreeSet::new() }
    }

    fn client(&self, id: u64) -> Option<&Client> {
        let at = self.read.binary_search_by_key(&id, |(id, _)| *id);
        let read = at.ok().and_then(|at| self.read.get(at)).map(|(_, client)| client);
        read.or_else(|| self.fresh.get(&id))
    }

    fn client_mut(&mut self, id: u64) -> Option<&mut Client> {
        match self.read.binary_search_by_key(&id, |(id, _)| *id) {
            Ok(at) => self.read.get_mut(at).map(|(_, client)| client),
            Err(_) => self.fresh.get_mut(&id),
        }
    }

    /// A client; one that is not known yet is this one's from here on, with no clock.
    fn client_or_new(&mut self, id: u64, owner: ReplicaId) -> &mut Client {
        match self.read.binary_search_by_key(&id, |(id, _)| *id).ok().and_then(|at| self.read.get_mut(at)) {
            Some((_, client)) => client,
            None => self.fresh.entry(id).or_insert_with(|| Client { owner, next: 0, spaces: Spaces::default() }),
        }
    }

    /// All clients, by id.
    fn clients(&self) -> impl Iterator<Item = (u64, &Client)> {
        let (mut read, mut fresh) = (self.read.iter().peekable(), self.fresh.iter().peekable());
        std::iter::from_fn(move || {
            let first = match (read.peek(), fresh.peek()) {
                (Some((read, _)), Some((fresh, _))) => read < *fresh,
                (read, _) => read.is_some(),
            };
            match first {
                true => read.next().map(|(id, client)| (*id, client)),
                false => fresh.next().map(|(id, client)| (*id, client)),
            }
        })
    }

    /// Whether `owner` may commit a delta of this summary here. Changes nothing.
    pub fn check(&self, owner: ReplicaId, summary: &Summary) -> Result<Continuity, GuardError> {
        let mut continuity = Continuity::New;
        if let Some(own) = summary.own {
            let next = match self.client(own.client) {
                // Whoever says that it is this id.
                Some(client) if client.owner == BARRED => return Err(GuardError::Quarantined),
                Some(client) if client.owner != owner && client.owner != UNBOUND => {
                    return Err(GuardError::ForeignClient);
                }
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
                return Err(self.unknown(*client));
            }
        }
        for beside in &summary.beside {
            let found = self.space(beside).ok_or_else(|| self.unknown(beside.client))?;
            if self.settle(beside.claim, summary) != Some(found) {
                return Err(GuardError::TornItem);
            }
        }
        Ok(continuity)
    }

    /// Why a clock of this client cannot be named.
    fn unknown(&self, client: u64) -> GuardError {
        match self.client(client) {
            Some(client) if client.owner == BARRED => GuardError::Quarantined,
            _ => GuardError::UnknownClock,
        }
    }

    /// R12: what this client wrote from that clock on counts for nothing, and nobody goes on as it.
    pub fn bar(&mut self, client: u64, from: u32) {
        let client = self.client_or_new(client, BARRED);
        client.owner = BARRED;
        client.next = client.next.min(from);
        client.spaces.cut(client.next);
    }

    /// R12: the part of that entry is left out.
    pub fn skip(&mut self, offset: Offset) {
        self.skipped.insert(offset);
        while self.skipped.len() > limits::QUARANTINED_MAX {
            self.skipped.pop_first();
        }
    }

    /// The entries whose part is left out, ascending.
    pub fn skipped(&self) -> impl ExactSizeIterator<Item = Offset> + '_ {
        self.skipped.iter().copied()
    }

    /// Whether that entry's part is left out.
    pub fn skips(&self, offset: Offset) -> bool {
        self.skipped.contains(&offset)
    }

    /// The log below this is gone: nobody reads it any more.
    pub fn forget_below(&mut self, floor: Offset) {
        self.skipped = self.skipped.split_off(&floor);
    }

    /// Takes in a delta that [`Clocks::check`] has passed, at its place in the log. A copy changes nothing.
    pub fn record(&mut self, owner: ReplicaId, summary: &Summary) {
        if let Some(own) = summary.own {
            let spaces: Vec<(u32, Option<Space>)> =
                summary.spaces.iter().map(|(clock, claim)| (clock, self.settle(claim, summary))).collect();
            let client = self.client_or_new(own.client, owner);
            if own.end > client.next {
                if client.owner == UNBOUND {
                    client.owner = owner;
                }
                debug_assert!(client.owner == owner && own.start == client.next, "recorded without a check");
                for (clock, space) in spaces {
                    debug_assert!(space.is_some(), "recorded without a check");
                    client.spaces.tell(clock, space.unwrap_or(Space::Registers));
                }
                client.next = own.end;
            }
        }
    }

    /// Takes in the table of a state that was merged with the document of this one. Owners stay.
    pub fn merge(&mut self, other: Clocks) {
        for (id, theirs) in other.read.into_iter().chain(other.fresh) {
            match self.client_mut(id) {
                None => drop(self.fresh.insert(id, theirs)),
                Some(ours) => {
                    if ours.owner == UNBOUND {
                        ours.owner = theirs.owner;
                    }
                    // Both begin at clock 0, so the longer one holds the other.
                    if theirs.next > ours.next {
                        (ours.next, ours.spaces) = (theirs.next, theirs.spaces);
                    }
                }
            }
        }
    }

    /// Clients that are nobody's are this owner's from here on.
    pub fn bind(&mut self, owner: ReplicaId) {
        let all = self.read.iter_mut().map(|(_, client)| client).chain(self.fresh.values_mut());
        for client in all.filter(|client| client.owner == UNBOUND) {
            client.owner = owner;
        }
    }

    /// This client is this owner's from here on, if it is nobody's.
    pub fn bind_client(&mut self, client: u64, owner: ReplicaId) {
        if let Some(client) = self.client_mut(client).filter(|client| client.owner == UNBOUND) {
            client.owner = owner;
        }
    }

    /// The space that a claim comes down to. Registers always say so themselves: nothing may be like one.
    fn settle(&self, claim: Claim, summary: &Summary) -> Option<Space> {
        match claim.says() {
            Says::Is(space) => Some(space),
            Says::Like(n) => self.space(summary.beside.get(n)?).filter(|space| *space != Space::Registers),
        }
    }

    fn space(&self, beside: &Beside) -> Option<Space> {
        let client = self.client(beside.client).filter(|client| beside.clock < client.next)?;
        client.spaces.at(beside.clock)
    }

    /// One past the highest clock of a client; 0 for one never seen.
    pub fn next(&self, client: u64) -> u32 {
        self.client(client).map_or(0, |client| client.next)
    }

    /// How many clients have written here.
    pub fn len(&self) -> usize {
        self.read.len() + self.fresh.len()
    }

    /// Whether nobody has written here.
    pub fn is_empty(&self) -> bool {
        self.read.is_empty() && self.fresh.is_empty()
    }

    /// Clients with owner and next clock, by client.
    pub fn iter(&self) -> impl Iterator<Item = (u64, ReplicaId, u32)> + '_ {
        self.clients().map(|(id, client)| (id, client.owner, client.next))
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
        put(out, self.len() as u64);
        for (id, client) in self.clients() {
            put(out, id);
            out.extend_from_slice(&client.owner.0);
            put(out, u64::from(client.next));
            put(out, client.spaces.len() as u64);
            out.extend_from_slice(client.spaces.bytes());
        }
        if !self.skipped.is_empty() {
            put(out, self.skipped.len() as u64);
            let mut last = 0;
            for offset in &self.skipped {
                put(out, offset.0 - last);
                last = offset.0;
            }
        }
    }

    /// Reads exactly one stored table.
    pub fn decode(bytes: &[u8]) -> Result<Clocks, GuardError> {
        // Whether it is one is seen first: what it says of its own length is not to be believed.
        let mut cursor = Cursor::new(bytes);
        let count = entries(&mut cursor, &mut |_, _, _, _| ())?;
        let skipped = if cursor.remaining() == 0 { BTreeSet::new() } else { skipped(&mut cursor)? };
        cursor.end()?;
        let mut read = Vec::with_capacity(count);
        entries(&mut Cursor::new(bytes), &mut |id, owner, next, runs| {
            read.push((id, Client { owner, next, spaces: Spaces::read(runs) }));
        })?;
        Ok(Clocks { skipped, ..Clocks::of(read) })
    }
}

/// Reads the clients, and shows each: id, owner, next clock and runs, which stay where they are. How many there are.
fn entries<'a>(
    cursor: &mut Cursor<'a>,
    show: &mut dyn FnMut(u64, ReplicaId, u32, &'a [u8]),
) -> Result<usize, GuardError> {
    let count = cursor.count(ENTRY_MIN)?;
    let mut last = None;
    for _ in 0..count {
        let id = cursor.var_u64()?;
        let owner = <[u8; 16]>::try_from(cursor.take(16)?).map_err(|_| GuardError::Truncated)?;
        let next = cursor.var_u32()?;
        let owner = ReplicaId(owner);
        let none = next == 0 && owner != BARRED;
        if id >= CLIENT_END || last.is_some_and(|last| id <= last) || none || next > CLOCK_END {
            return Err(GuardError::BadTable);
        }
        last = Some(id);
        show(id, owner, next, runs(cursor, next)?);
    }
    usize::try_from(count).map_err(|_| GuardError::TooMany)
}

/// Reads the offsets that are left out; at least one.
fn skipped(cursor: &mut Cursor<'_>) -> Result<BTreeSet<Offset>, GuardError> {
    let count = cursor.count(1)?;
    if count == 0 || usize::try_from(count).is_ok_and(|count| count > limits::QUARANTINED_MAX) {
        return Err(GuardError::BadTable);
    }
    let (mut skipped, mut last) = (BTreeSet::new(), 0_u64);
    for n in 0..count {
        let distance = cursor.var_u64()?;
        last = last.checked_add(distance).filter(|_| n == 0 || distance > 0).ok_or(GuardError::BadTable)?;
        skipped.insert(Offset(last));
    }
    Ok(skipped)
}

/// Passes over the stored runs of a client whose clock stands at `next`; these bytes behind their number.
fn runs<'a>(cursor: &mut Cursor<'a>, next: u32) -> Result<&'a [u8], GuardError> {
    let (mut clock, mut last) = (0_u32, None);
    let count = cursor.count(1)?;
    let from = cursor.rest();
    for n in 0..count {
        let (distance, code) = {
            let run = cursor.var_u64()?;
            (run >> 2, run & 3)
        };
        clock = u32::try_from(distance).ok().and_then(|d| clock.checked_add(d)).ok_or(GuardError::BadTable)?;
        let space = Space::of_code(code).ok_or(GuardError::BadTable)?;
        // Two that are alike should have been one.
        if (n == 0) != (distance == 0) || clock >= next || last.replace(space) == Some(space) {
            return Err(GuardError::BadTable);
        }
    }
    // Only a barred client has no clock, and so no runs.
    if (count == 0) != (next == 0) {
        return Err(GuardError::BadTable);
    }
    from.get(..from.len() - cursor.remaining()).ok_or(GuardError::Truncated)
}
