//! The answer to a Hello, and the rows of a line that it carries.

use bytes::Bytes;

use crate::id::{EpochId, Offset, Seq, Uid};
use crate::limits;
use crate::wire::codec::{Malformed, Reader, Write};
use crate::wire::frame::{Bulk, VERSION, flag};

/// The answer to a Hello.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Welcome {
    /// Feature bits of the relay.
    pub features: u64,
    /// The heap has a commit.
    pub exists: bool,
    /// The replica holds what this log has lost: it is to restore first.
    pub restore: bool,
    /// The bulk is a catch-up at `position`.
    pub catchup: bool,
    /// The relay's clock, Unix milliseconds.
    pub time_ms: u64,
    /// The first epoch of this heap's log: its lineage.
    pub lineage: EpochId,
    /// The lives of the log and where each began.
    pub epochs: Vec<(EpochId, Offset)>,
    /// From here the stream goes on.
    pub position: Offset,
    /// Lines of ids that were idle for long are not known any more: all their entries are below this position (CORE-PROTOCOL §2).
    pub forgotten: Offset,
    /// How many unacknowledged commits the relay takes.
    pub window: u64,
    /// Per own id (index) its newest commits in the log.
    pub ring: Vec<(u64, Vec<Row>)>,
    /// A catch-up, or nothing.
    pub bulk: Bulk,
}

/// What the log remembers of one commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// Its number.
    pub seq: Seq,
    /// Its uid (of a refused one: the uid it had).
    pub uid: Uid,
    /// What became of it.
    pub fate: Fate,
}

/// What became of a commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// Admitted, with this content hash.
    Admitted(u64),
    /// Refused, with this code.
    Void(u64),
}

impl Welcome {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        out.varint(self.features);
        let has_forgotten = self.forgotten > Offset(0);
        let flags = [self.exists, self.restore, self.catchup, has_forgotten];
        out.varint((0..).zip(flags).map(|(bit, set)| u64::from(set) << bit).sum());
        out.varint(self.time_ms);
        out.epoch(self.lineage);
        out.varint(self.epochs.len() as u64);
        for (epoch, start) in &self.epochs {
            out.epoch(*epoch);
            out.varint(start.0);
        }
        out.varint(self.position.0);
        if has_forgotten {
            out.varint(self.forgotten.0);
        }
        out.varint(self.window);
        out.varint(self.ring.len() as u64);
        for (owner, rows) in &self.ring {
            out.varint(*owner);
            out.varint(rows.len() as u64);
            for row in rows {
                out.varint(row.seq.0);
                Write::u64(out, row.uid.0);
                let (kind, value) = match row.fate {
                    Fate::Admitted(hash) => (0, hash),
                    Fate::Void(code) => (1, code),
                };
                out.push(kind);
                Write::u64(out, value);
            }
        }
        self.bulk.encode(out);
    }

    pub(super) fn decode(body: &Bytes, r: &mut Reader<'_>) -> Result<Welcome, Malformed> {
        if r.u8()? != VERSION {
            return Err(Malformed::Field("version"));
        }
        let features = r.varint()?;
        let flags = r.varint()?;
        let time_ms = r.varint()?;
        let lineage = r.epoch()?;
        let count = r.count(limits::EPOCHS_MAX, 10, "epochs")?;
        let mut epochs = Vec::with_capacity(count);
        for _ in 0..count {
            epochs.push((r.epoch()?, Offset(r.varint()?)));
        }
        let position = Offset(r.varint()?);
        let forgotten = Offset(if flags & 8 != 0 { r.varint()? } else { 0 });
        if flags & 8 != 0 && forgotten == Offset(0) {
            return Err(Malformed::Field("forgotten"));
        }
        let window = r.varint()?;
        let count = r.count(limits::OWN_IDS_MAX, 2, "ring")?;
        let mut ring = Vec::with_capacity(count);
        for _ in 0..count {
            let owner = r.varint()?;
            let rows_count = r.count(limits::WINDOW, 18, "rows")?;
            let mut rows = Vec::with_capacity(rows_count);
            for _ in 0..rows_count {
                let (seq, uid) = (Seq(r.varint()?), Uid(r.u64()?));
                let fate = match (flag(r.u8()?)?, r.u64()?) {
                    (false, hash) => Fate::Admitted(hash),
                    (true, code) => Fate::Void(code),
                };
                rows.push(Row { seq, uid, fate });
            }
            ring.push((owner, rows));
        }
        let bulk = Bulk::decode(body, r)?;
        Ok(Welcome {
            features,
            exists: flags & 1 != 0,
            restore: flags & 2 != 0,
            catchup: flags & 4 != 0,
            time_ms,
            lineage,
            epochs,
            position,
            forgotten,
            window,
            ring,
            bulk,
        })
    }
}
