//! The admit rule (CORE-PROTOCOL R2): THE place where order and duplicates are decided, for every reader of a log.
//!
//! It looks at nothing but what the log says before the entry in question: per replica id the last admitted number and the
//! newest [`limits::WINDOW`] commits of its line, and the current generation of the segments a commit touches. What a
//! relay adds to it (rights, limits, guard, claims: R10, R11) is refused *by an entry*, so this rule sees it in the log. So relays that
//! share one log would come to the same verdicts by it, each acting on what it reads back (R9); as yet a store belongs to one relay.
//!
//! ```text
//!   frame ──► R2a seen? ─► R2b same line? ─► R2c next? ─► R2d after what it needs? ─► R2e current generation? ──► R2f append
//!             Duplicate     Conflict          Unknown,      Ignored                     Rebase
//!             Refused                         Ignored
//! ```
//!
//! Next: `relay/sequencer/place.rs`, which calls it and appends.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::commit::After;
use crate::id::{GenId, Offset, ReplicaId, SegmentId, Seq, Uid};
use crate::limits;
use crate::log::AuthorInfo;
use crate::mutate::{self, Mutation};
use crate::wire::codec::{Malformed, Reader, Write};
use crate::wire::frame::down::{Fate, Row};
use crate::wire::frame::restore::Content;

/// What the rule says about a commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The next of its line: append it (R2f).
    Admit,
    /// The log has it: acknowledge it when it is durable (R2a, R3).
    Duplicate,
    /// The log had it, lost it, and knows its line and this of its content by a Restored (D4): with the same content its parts
    /// are taken in, since they may be in no segment that was given back; otherwise it is a duplicate.
    Hollow {
        /// The hash of its content.
        hash: u64,
    },
    /// The log has it as void: say so again (R11).
    Refused {
        /// Why it was refused.
        code: u64,
    },
    /// The log has another commit in its place, or another one before it (R2a, R2b).
    Conflict {
        /// The uid of the line's last commit in the log.
        uid: Uid,
    },
    /// The id has sent commits before, but the log knows nothing of them (R2c).
    Unknown,
    /// Not now: the author will send it again, or has given it up.
    Ignored(Ignored),
    /// Made against a generation that is no longer current (R2e).
    Rebase {
        /// The segment.
        segment: SegmentId,
        /// Its current generation.
        generation: GenId,
    },
}

/// Why a commit is passed over without an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ignored {
    /// Commits before it are missing (R2c): one of them was not admitted.
    Gap,
    /// It was sent before its author knew that the one before it was refused (R11).
    BehindRefused,
    /// The commit it must come after is not in the log (R2d).
    After,
}

/// What the rule has to know of a commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// Whose line.
    pub owner: ReplicaId,
    /// Its number there.
    pub seq: Seq,
    /// Its identity.
    pub uid: Uid,
    /// The uid before it in its line.
    pub prev: Uid,
    /// A commit that must be in the log before it.
    pub after: Option<After>,
}

/// One part's generation beside the segment's current one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartGeneration {
    /// The segment.
    pub segment: SegmentId,
    /// What the part was made against.
    pub given: GenId,
    /// What the segment is at.
    pub current: GenId,
}

/// Listed commits of a stored line that are put into its map together.
const LISTED_AT_ONCE: usize = 2048;

/// What the log knows of one line.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AdmitRow {
    /// The newest commits, oldest first, numbers without a gap; never empty once the line has begun.
    ring: VecDeque<Row>,
    /// Who the replica says it is, and what its token proved.
    pub author: AuthorInfo,
    /// When it last appended, in Unix milliseconds of the relay; for the retention of rows only.
    pub seen_ms: u64,
    /// Its newest entry: every entry that speaks of the line is there or earlier.
    at: Offset,
    /// Commits that are not in the log by themselves, and whose parts a Restored holds: what becomes of them is shown already (D4).
    /// The hash is of what it holds of them; 0: not known.
    listed: BTreeMap<Uid, (Seq, u64)>,
    /// Those of the ring, ascending, that the log knows by a Restored alone: it has no entry of them.
    hollow: Vec<Seq>,
}

impl AdmitRow {
    /// The number admitted last; 0 if none.
    pub fn last(&self) -> Seq {
        self.ring.back().map_or(Seq(0), |row| row.seq)
    }

    /// Its newest entry: every entry that speaks of the line is there or earlier.
    pub fn at(&self) -> Offset {
        self.at
    }

    /// The newest commits of the line, oldest first.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &Row> {
        self.ring.iter()
    }

    /// The uid that the next commit of the line must name: the last one's, or its complement if that was refused (R11).
    pub fn line_uid(&self) -> Uid {
        self.ring.back().map_or(Uid::NONE, line_uid)
    }

    fn row(&self, seq: Seq) -> Option<&Row> {
        let first = self.ring.front()?.seq;
        self.ring.get(usize::try_from(seq.0.checked_sub(first.0)?).ok()?)
    }

    fn push(&mut self, row: Row) {
        if mutate::on(Mutation::ForgetAdmitted) && row.seq <= self.last() {
            return;
        }
        assert!(row.seq == self.last().next(), "a line is appended to in order");
        if self.ring.len() == limits::WINDOW {
            self.ring.pop_front();
        }
        self.ring.push_back(row);
        // Another one in the place of a listed one is a copy's: that goes to another line (F2), and is still held.
        self.listed.remove(&row.uid);
        let last = self.last();
        let first = self.ring.front().map_or(last, |row| row.seq);
        self.hollow.retain(|seq| *seq >= first);
    }

    /// An entry speaks of the line.
    fn is_seen(&mut self, at: Offset, seen_ms: u64) {
        (self.at, self.seen_ms) = (at, seen_ms);
    }

    /// Whether a Restored holds this commit, which is not in the log by itself.
    pub fn lists(&self, seq: Seq, uid: Uid) -> bool {
        self.listed.get(&uid).is_some_and(|(of, _)| *of == seq)
    }

    /// Whether a Restored holds any commit of the line that is not in the log by itself.
    pub fn lists_any(&self) -> bool {
        !self.listed.is_empty()
    }

    /// Those of its commits that the log knows by a Restored alone, ascending.
    pub fn hollow(&self) -> &[Seq] {
        &self.hollow
    }

    /// Whether the log has this commit as void.
    pub fn is_void(&self, seq: Seq, uid: Uid) -> bool {
        self.row(seq).is_some_and(|row| row.uid == uid && matches!(row.fate, Fate::Void(_)))
    }

    /// Appends the stored form (`sync-server/STORE.md`).
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.varint(self.seen_ms);
        out.varint(self.at.0);
        out.str(&self.author.name);
        out.str(&self.author.subject);
        out.varint(self.last().0);
        out.varint(self.ring.len() as u64);
        for row in &self.ring {
            Write::u64(out, row.uid.0);
            let (kind, value) = match row.fate {
                Fate::Admitted(hash) => (0, hash),
                Fate::Void(code) => (1, code),
            };
            out.push(kind);
            Write::u64(out, value);
        }
        if !self.listed.is_empty() || !self.hollow.is_empty() {
            out.varint(self.listed.len() as u64);
            for (uid, (seq, _)) in &self.listed {
                out.varint(seq.0);
                Write::u64(out, uid.0);
            }
            out.varint(self.hollow.len() as u64);
            for seq in &self.hollow {
                out.varint(seq.0);
            }
            for (_, hash) in self.listed.values() {
                Write::u64(out, *hash);
            }
        }
    }

    /// Reads exactly one stored row.
    pub fn decode(bytes: &[u8]) -> Result<AdmitRow, Malformed> {
        let mut reader = Reader::new(bytes);
        let seen_ms = reader.varint()?;
        let at = Offset(reader.varint()?);
        let name = reader.str(limits::NAME_BYTES_MAX, "name")?.to_owned();
        let subject = reader.str(limits::NAME_BYTES_MAX, "subject")?.to_owned();
        let last = reader.varint()?;
        let count = reader.count(limits::WINDOW, 17, "rows")?;
        let first = last.checked_sub(count as u64).ok_or(Malformed::Field("rows"))?;
        let mut ring = VecDeque::with_capacity(count);
        for seq in first + 1..=last {
            let uid = Uid(reader.u64()?);
            let fate = match (reader.u8()?, reader.u64()?) {
                (0, hash) => Fate::Admitted(hash),
                (1, code) => Fate::Void(code),
                _ => return Err(Malformed::Field("fate")),
            };
            ring.push_back(Row { seq: Seq(seq), uid, fate });
        }
        let (mut listed, mut hollow) = (BTreeMap::new(), Vec::new());
        if !reader.is_empty() {
            // One by one, in order, each would take room for almost two.
            let mut left = reader.count(limits::RESTORE_PENDING_MAX, 9, "listed")?;
            while left > 0 {
                let mut some = Vec::with_capacity(left.min(LISTED_AT_ONCE));
                for _ in 0..left.min(LISTED_AT_ONCE) {
                    let seq = Seq(reader.varint()?);
                    some.push((Uid(reader.u64()?), (seq, 0)));
                }
                left -= some.len();
                listed.append(&mut some.into_iter().collect());
            }
        }
        if !reader.is_empty() {
            for _ in 0..reader.count(limits::WINDOW, 1, "hollow")? {
                hollow.push(Seq(reader.varint()?));
            }
            for (_, hash) in listed.values_mut() {
                *hash = reader.u64()?;
            }
        }
        reader.end()?;
        Ok(AdmitRow { ring, author: AuthorInfo { name, subject }, seen_ms, at, listed, hollow })
    }
}

/// The uid by which a line goes on from this commit.
fn line_uid(row: &Row) -> Uid {
    match row.fate {
        Fate::Admitted(_) => row.uid,
        Fate::Void(_) if mutate::on(Mutation::VoidKeepsUid) => row.uid,
        Fate::Void(_) => row.uid.voided(),
    }
}

/// Replica id → its line, as the log has it at one place.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AdmitTable {
    rows: BTreeMap<ReplicaId, AdmitRow>,
    /// Every listed commit of the rows, and its line: [`AdmitTable::held`] is asked for each commit that comes.
    listed: BTreeSet<(Uid, ReplicaId)>,
}

impl AdmitTable {
    /// A table of stored rows.
    pub fn from_rows(rows: impl IntoIterator<Item = (ReplicaId, AdmitRow)>) -> Self {
        let rows: BTreeMap<ReplicaId, AdmitRow> = rows.into_iter().collect();
        let listed = rows.iter().flat_map(|(owner, line)| line.listed.keys().map(|uid| (*uid, *owner))).collect();
        AdmitTable { rows, listed }
    }

    /// One line.
    pub fn get(&self, owner: ReplicaId) -> Option<&AdmitRow> {
        self.rows.get(&owner)
    }

    /// Every line, by id.
    pub fn iter(&self) -> impl Iterator<Item = (ReplicaId, &AdmitRow)> {
        self.rows.iter().map(|(owner, line)| (*owner, line))
    }

    /// The whole rule, R2a to R2e: whether this commit is the next entry of the log. Changes nothing.
    pub fn admit(&self, commit: &Candidate, parts: impl IntoIterator<Item = PartGeneration>) -> Verdict {
        match self.line(commit) {
            Verdict::Admit => generations(parts),
            verdict => verdict,
        }
    }

    /// R2a to R2d, what concerns lines. Apart from [`generations`], since a refusal (R11) is decided between the two. R9: the rows
    /// say what the log says before this place, but for lines that were idle for long and are dropped (§2); nothing else is looked at:
    /// whoever has read it up to here, and dropped the same, decides the same.
    pub fn line(&self, commit: &Candidate) -> Verdict {
        let row = self.rows.get(&commit.owner);
        let last = row.map_or(Seq(0), AdmitRow::last);
        // R2a: in the log already. Under another uid it is another commit: a clone's [X36].
        if commit.seq <= last && !mutate::on(Mutation::ForgetAdmitted) {
            let Some(row) = row else { return Verdict::Duplicate };
            return match row.row(commit.seq) {
                None => Verdict::Duplicate,
                Some(known) if known.uid != commit.uid => Verdict::Conflict { uid: row.line_uid() },
                Some(Row { fate: Fate::Void(code), .. }) => Verdict::Refused { code: *code },
                Some(Row { fate: Fate::Admitted(hash), .. }) if row.hollow.contains(&commit.seq) => {
                    Verdict::Hollow { hash: *hash }
                }
                Some(_) => Verdict::Duplicate,
            };
        }
        let line = row.map_or(Uid::NONE, AdmitRow::line_uid);
        if commit.seq == last.next() {
            if commit.prev != line && !mutate::on(Mutation::AnyPrev) {
                // R11: in flight when the one before it was refused; not a sign of a clone.
                let refused = row.and_then(|row| row.ring.back()).is_some_and(|row| matches!(row.fate, Fate::Void(_)));
                if refused && commit.prev == line.voided() {
                    return Verdict::Ignored(Ignored::BehindRefused);
                }
                // R2b: the next number, but of another line [X39].
                return Verdict::Conflict { uid: line };
            }
        } else if mutate::on(Mutation::ForgetAdmitted) && commit.seq <= last {
            return Verdict::Admit;
        } else if row.is_none() {
            // R2c: an id that has sent commits, and a log that knows none of them (G5).
            return Verdict::Unknown;
        } else {
            // R2c: behind one that was not admitted [X9].
            return Verdict::Ignored(Ignored::Gap);
        }
        // R2d: what it must come after is in the log, and is the very commit that is meant [X32, X42].
        if let Some(after) = commit.after.filter(|_| !mutate::on(Mutation::AnyAfter)) {
            let Some(row) = self.rows.get(&after.owner) else { return Verdict::Ignored(Ignored::After) };
            let meant = row.row(after.seq).is_none_or(|known| line_uid(known) == after.uid);
            if after.seq > row.last() || !meant {
                return Verdict::Ignored(Ignored::After);
            }
        }
        Verdict::Admit
    }

    /// R2f: an admitted or voided commit takes its place in its line, by this entry.
    pub fn record(&mut self, owner: ReplicaId, row: Row, at: Offset, seen_ms: u64) -> &mut AdmitRow {
        let line = self.rows.entry(owner).or_default();
        line.push(row);
        if !line.listed.contains_key(&row.uid) {
            self.listed.remove(&(row.uid, owner));
        }
        line.is_seen(at, seen_ms);
        line
    }

    /// D4: a line goes on from a commit that the log has lost, unless it has one that is as new [X13]. What the log has of the
    /// line stays as it is where everything between is `known`; else it is forgotten, and counts as seen. `None`: nothing changes.
    pub fn raise(
        &mut self,
        owner: ReplicaId,
        (seq, uid): (Seq, Uid),
        known: &[Content<ReplicaId>],
        at: Offset,
        seen_ms: u64,
    ) -> Option<&mut AdmitRow> {
        let line = self.rows.get(&owner);
        if seq == Seq(0) || line.is_some_and(|line| line.last() >= seq) {
            return None;
        }
        let line = self.rows.entry(owner).or_default();
        let (rows, hollow) = raised(line.last(), (seq, uid), known.iter().filter(|(of, ..)| *of == owner));
        if rows.front().is_none_or(|first| first.seq != line.last().next()) {
            line.ring.clear();
        }
        line.ring.extend(rows);
        line.ring.drain(..line.ring.len().saturating_sub(limits::WINDOW));
        line.hollow.extend(hollow);
        let first = line.ring.front().map_or(seq, |row| row.seq);
        line.hollow.retain(|seq| *seq >= first);
        line.listed.retain(|uid, (of, _)| {
            let stays = *of > seq;
            if !stays {
                self.listed.remove(&(*uid, owner));
            }
            stays
        });
        line.is_seen(at, seen_ms);
        Some(line)
    }

    /// D4: a commit that the log had lost has its entry. `None`: it was not hollow.
    pub fn fill(&mut self, owner: ReplicaId, seq: Seq, at: Offset, seen_ms: u64) -> Option<&mut AdmitRow> {
        let line = self.rows.get_mut(&owner)?;
        let place = line.hollow.iter().position(|hollow| *hollow == seq)?;
        line.hollow.remove(place);
        line.is_seen(at, seen_ms);
        Some(line)
    }

    /// §2: drops lines that `is_idle` says nobody goes on with, this many at most, and says where the newest entry of each is. Lines of which a
    /// Restored says more than the log stay: that is told to nobody else (D4).
    pub fn drop_idle(
        &mut self,
        max: usize,
        is_idle: impl Fn(ReplicaId, &AdmitRow) -> bool,
    ) -> Vec<(ReplicaId, Offset)> {
        let stays = |line: &AdmitRow| line.lists_any() || !line.hollow.is_empty();
        let idle = self.rows.iter().filter(|(owner, line)| !stays(line) && is_idle(**owner, line));
        let dropped: Vec<_> = idle.map(|(owner, line)| (*owner, line.at)).take(max).collect();
        for (owner, _) in &dropped {
            self.rows.remove(owner);
        }
        dropped
    }

    /// D4: a Restored holds the parts of this commit, with this content. `None`: the log has it by itself, or knows that it is held.
    pub fn list(&mut self, owner: ReplicaId, (seq, uid): (Seq, Uid), hash: u64) -> Option<&mut AdmitRow> {
        let line = self.rows.get(&owner);
        if line.is_some_and(|line| line.last() >= seq) || self.held(uid).is_some() {
            return None;
        }
        let line = self.rows.entry(owner).or_default();
        if line.listed.len() < limits::RESTORE_PENDING_MAX {
            line.listed.insert(uid, (seq, hash));
            self.listed.insert((uid, owner));
        }
        Some(line)
    }

    /// D4: the hash of what a Restored holds of a commit that is not in the log by itself, in whatever line it comes.
    pub fn held(&self, uid: Uid) -> Option<u64> {
        let (_, owner) = self.listed.range((uid, ReplicaId([0; 16]))..).next().filter(|(of, _)| *of == uid)?;
        self.rows.get(owner)?.listed.get(&uid).map(|(_, hash)| *hash)
    }

    /// Whether the log has, or holds, this commit with other content: both would count.
    pub fn has_otherwise(&self, (owner, seq, uid, hash): &Content<ReplicaId>) -> bool {
        let row = self.rows.get(owner).and_then(|line| line.row(*seq)).filter(|row| row.uid == *uid);
        let held = match row.map(|row| row.fate) {
            Some(Fate::Admitted(hash)) => Some(hash),
            Some(Fate::Void(_)) | None => self.held(*uid),
        };
        held.is_some_and(|held| held != 0 && held != *hash)
    }
}

/// The rows that come to a line of which the log has everything up to `has`, and which goes on from `last`, and which of them are
/// hollow: `last`, and those right before it, as far as what was in them is known. What was in `last` need not be.
pub fn raised<'a>(
    has: Seq,
    last: (Seq, Uid),
    known: impl Iterator<Item = &'a Content<ReplicaId>>,
) -> (VecDeque<Row>, Vec<Seq>) {
    let known: BTreeMap<Seq, (Uid, u64)> = known.map(|(_, seq, uid, hash)| (*seq, (*uid, *hash))).collect();
    let (mut ring, mut hollow) = (VecDeque::new(), Vec::new());
    for seq in (0..limits::WINDOW as u64).map_while(|back| last.0.0.checked_sub(back).map(Seq)) {
        let content = known.get(&seq).filter(|(uid, hash)| *hash != 0 && (seq != last.0 || *uid == last.1));
        match content {
            // What the log has by itself is not hollow, whoever gives it back as well.
            _ if seq <= has => break,
            Some((uid, hash)) => {
                ring.push_front(Row { seq, uid: *uid, fate: Fate::Admitted(*hash) });
                hollow.insert(0, seq);
            }
            _ if seq == last.0 => ring.push_front(Row { seq, uid: last.1, fate: Fate::Admitted(0) }),
            _ => break,
        }
    }
    (ring, hollow)
}

/// R2e: every part was made against its segment's current generation [X23].
pub fn generations(parts: impl IntoIterator<Item = PartGeneration>) -> Verdict {
    for part in parts {
        if part.given != part.current {
            return Verdict::Rebase { segment: part.segment, generation: part.current };
        }
    }
    Verdict::Admit
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a table says is held, found by looking at every line.
    fn looked_for(table: &AdmitTable, uid: Uid) -> Option<u64> {
        table.rows.values().find_map(|line| line.listed.get(&uid)).map(|(_, hash)| *hash)
    }

    /// §2, D4: what a Restored says of a line, nobody says again.
    #[test]
    fn s2_lines_stay_of_which_a_restored_says_more_than_the_log() {
        let mut table = AdmitTable::default();
        let id = |n: u8| ReplicaId([n; 16]);
        let row = |seq| Row { seq: Seq(seq), uid: Uid(seq), fate: Fate::Admitted(seq) };
        table.record(id(1), row(1), Offset(4), 0);
        table.record(id(2), row(1), Offset(5), 0);
        table.list(id(2), (Seq(2), Uid(2)), 7);
        table.raise(id(3), (Seq(3), Uid(3)), &[(id(3), Seq(3), Uid(3), 9)], Offset(6), 0);
        table.record(id(4), row(1), Offset(7), 0);
        assert_eq!(table.drop_idle(9, |owner, _| owner != id(4)), [(id(1), Offset(4))]);
        // What was lost has its entry: from here on it is a line as any other, as of that entry.
        assert!(table.fill(id(3), Seq(3), Offset(8), 0).is_some());
        table.record(id(2), row(2), Offset(9), 0);
        assert_eq!(table.drop_idle(2, |_, _| true), [(id(2), Offset(9)), (id(3), Offset(8))]);
        assert_eq!(table.drop_idle(2, |_, _| true), [(id(4), Offset(7))]);
        assert_eq!(table, AdmitTable::default());
    }

    /// D4: nothing that happens to a line makes [`AdmitTable::held`] say anything else than its lines do.
    #[test]
    fn d4_what_is_held_is_what_the_lines_list() {
        let (mut table, mut state, mut held) = (AdmitTable::default(), 1_u64, 0);
        let mut draw = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for step in 0..20_000_u64 {
            let (owner, uid) = (ReplicaId([draw(6) as u8; 16]), Uid(1 + draw(40)));
            let last = table.get(owner).map_or(Seq(0), AdmitRow::last);
            match draw(8) {
                // The next commit of the line, admitted or refused.
                0 => {
                    let fate = if draw(3) == 0 { Fate::Void(1) } else { Fate::Admitted(step) };
                    table.record(owner, Row { seq: last.next(), uid, fate }, Offset(step), step);
                }
                1 => {
                    let to = (Seq(last.0 + draw(4)), uid);
                    let known: Vec<_> =
                        (0..draw(4)).map(|back| (owner, Seq(to.0.0.saturating_sub(back)), uid, step)).collect();
                    table.raise(owner, to, &known, Offset(step), step);
                }
                2 => {
                    table.fill(owner, last, Offset(step), step);
                }
                // As it is when the store is read again.
                3 if step % 50 == 0 => {
                    let rows = table.iter().map(|(owner, line)| {
                        let mut bytes = Vec::new();
                        line.encode(&mut bytes);
                        (owner, AdmitRow::decode(&bytes).unwrap())
                    });
                    let again = AdmitTable::from_rows(rows.collect::<Vec<_>>());
                    assert_eq!(again, table);
                    table = again;
                }
                _ => {
                    table.list(owner, (Seq(last.0 + 1 + draw(5)), uid), step);
                }
            }
            for uid in (0..=41).map(Uid) {
                assert_eq!(table.held(uid), looked_for(&table, uid), "step {step}, {uid:?}");
                held += usize::from(table.held(uid).is_some());
            }
            let listed = table.rows.values().map(|line| line.listed.len()).sum::<usize>();
            assert_eq!(table.listed.len(), listed, "step {step}: no more is kept than the lines list");
        }
        assert!(held > 20_000, "{held}: commits are listed all the time");
    }
}
