//! An entry of the log as it goes to one connection.

use bytes::Bytes;

use crate::id::{Offset, Seq, Uid};
use crate::limits;
use crate::wire::codec::{Malformed, Reader, Write};
use crate::wire::frame::PartFrame;
use crate::wire::list::List;

/// An entry of the log as one connection sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EntryFrame {
    /// Its place in the log.
    pub offset: Offset,
    /// Admitted on this connection: the parts are left out.
    pub yours: bool,
    /// A refused commit.
    pub void: bool,
    /// Its author, as declared.
    pub author: u64,
    /// Its number in its line.
    pub seq: Seq,
    /// Its uid.
    pub uid: Uid,
    /// What its program called it.
    pub label: Option<String>,
    /// The parts of followed segments.
    pub parts: List<PartFrame>,
}

impl EntryFrame {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.varint(self.offset.0);
        out.varint(u64::from(self.yours) | u64::from(self.label.is_some()) << 1 | u64::from(self.void) << 2);
        out.varint(self.author);
        out.varint(self.seq.0);
        Write::u64(out, self.uid.0);
        if let Some(label) = &self.label {
            out.str(label);
        }
        self.parts.encode(out);
    }

    pub(super) fn decode(body: &Bytes, r: &mut Reader<'_>) -> Result<EntryFrame, Malformed> {
        let offset = Offset(r.varint()?);
        let flags = r.varint()?;
        if flags > 7 {
            return Err(Malformed::Field("flags"));
        }
        let author = r.varint()?;
        let (seq, uid) = (Seq(r.varint()?), Uid(r.u64()?));
        let label = if flags & 2 != 0 { Some(r.str(limits::LABEL_BYTES_MAX, "label")?.to_owned()) } else { None };
        let parts = List::decode(body, r, limits::PARTS_MAX, "parts")?;
        Ok(EntryFrame { offset, yours: flags & 1 != 0, void: flags & 4 != 0, author, seq, uid, label, parts })
    }
}
