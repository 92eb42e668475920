//! What a new generation of a segment brings (CORE-PROTOCOL G1, G4): its header, which says whose commits it holds, and the
//! frame Roll.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Bulk, slice};
use crate::id::{GenId, Offset, ReplicaId, Seq, Uid};
use crate::limits;
use crate::wire::codec::{Malformed, Reader, Write};

/// The form of header that this version writes and reads.
const FORMAT: u8 = 1;

/// What a generation is made of. Every generation but the first has one, with its bytes in the log, in the store, and at
/// replicas.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GenerationHeader {
    /// The generation.
    pub generation: GenId,
    /// The one before it, of whose values it was made.
    pub parent: GenId,
    /// The log that it was made in was lost, and whoever gave it back knew only some of its lines: of a commit of another
    /// line, nobody can say whether it is in.
    pub partial: bool,
    /// The lines of the log at the place where it was made. On the wire: those of the connection's own ids.
    pub included: Lines,
}

/// Lines by the id of their owner. They are as many as whoever sent them chose, so they lie in a list with no room to spare.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Lines(Vec<(ReplicaId, Included)>);

impl Lines {
    /// The line of an owner.
    pub fn get(&self, owner: ReplicaId) -> Option<&Included> {
        let at = self.0.binary_search_by_key(&owner, |(owner, _)| *owner).ok()?;
        self.0.get(at).map(|(_, line)| line)
    }

    /// All of them, by owner.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (ReplicaId, &Included)> {
        self.0.iter().map(|(owner, line)| (*owner, line))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<BTreeMap<ReplicaId, Included>> for Lines {
    fn from(lines: BTreeMap<ReplicaId, Included>) -> Lines {
        Lines(lines.into_iter().collect())
    }
}

/// How far one line was then.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Included {
    /// The last number that was admitted or refused.
    pub last: Seq,
    /// The uids of the refused ones among the newest: what they did is not in.
    pub voids: Vec<Uid>,
}

impl GenerationHeader {
    /// Whether the effect of a commit that was made against the parent is in the new generation's document (G3).
    pub fn includes(&self, owner: ReplicaId, seq: Seq, uid: Uid) -> bool {
        self.included.get(owner).is_some_and(|line| seq <= line.last && !line.voids.contains(&uid))
    }

    /// Whether nobody can say if a commit that a relay may have admitted to the parent is in.
    pub fn is_in_doubt(&self, owner: ReplicaId, seq: Seq) -> bool {
        self.partial && self.included.get(owner).is_none_or(|line| seq > line.last)
    }

    /// The same with the lines of some ids only (G4).
    #[must_use]
    pub fn of_lines(&self, is_own: impl Fn(ReplicaId) -> bool) -> GenerationHeader {
        let own = self.included.iter().filter(|(id, _)| is_own(*id));
        let included = own.map(|(id, line)| (id, line.clone())).collect();
        GenerationHeader { included: Lines(included), ..*self }
    }

    /// Its encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT, u8::from(self.partial)];
        out.generation(self.generation);
        out.generation(self.parent);
        out.varint(self.included.len() as u64);
        for (owner, line) in self.included.iter() {
            out.extend_from_slice(&owner.0);
            out.varint(line.last.0);
            out.varint(line.voids.len() as u64);
            for uid in &line.voids {
                Write::u64(&mut out, uid.0);
            }
        }
        out
    }

    /// Reads one that fills `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<GenerationHeader, Malformed> {
        if bytes.len() > limits::GENERATION_HEADER_BYTES_MAX {
            return Err(Malformed::Limit("header"));
        }
        let r = &mut Reader::new(bytes);
        if r.u8()? != FORMAT {
            return Err(Malformed::Field("header"));
        }
        let partial = super::flag(r.u8()?)?;
        let (generation, parent) = (r.generation()?, r.generation()?);
        if generation.is_zero() || generation == parent {
            return Err(Malformed::Field("generation"));
        }
        let count = r.count(usize::MAX, 18, "lines")?;
        let mut included: Vec<(ReplicaId, Included)> = Vec::with_capacity(count);
        for _ in 0..count {
            let owner = ReplicaId(r.array()?);
            let last = Seq(r.varint()?);
            let count = r.count(limits::WINDOW, 8, "voids")?;
            let mut voids = Vec::with_capacity(count);
            for _ in 0..count {
                voids.push(Uid(r.u64()?));
            }
            // One form for one header: ascending, each line once.
            if included.last().is_some_and(|(before, _)| *before >= owner) {
                return Err(Malformed::Field("lines"));
            }
            included.push((owner, Included { last, voids }));
        }
        r.end()?;
        Ok(GenerationHeader { generation, parent, partial, included: Lines(included) })
    }
}

/// The frame Roll: at this place of the log a segment goes over to another generation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RollFrame {
    /// Its place in the log.
    pub offset: Offset,
    /// A [`GenerationHeader`] with the lines of the connection's own ids.
    pub header: Bytes,
    /// One [`super::SegmentState`] at the position behind it, whose own header is empty: many connections share its bytes.
    pub bulk: Bulk,
}

impl RollFrame {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.varint(self.offset.0);
        Write::bytes(out, &self.header);
        self.bulk.encode(out);
    }

    pub(super) fn decode(body: &Bytes, r: &mut Reader<'_>) -> Result<RollFrame, Malformed> {
        let offset = Offset(r.varint()?);
        let header = slice(body, r.bytes(limits::GENERATION_HEADER_BYTES_MAX, "header")?);
        Ok(RollFrame { offset, header, bulk: Bulk::decode(body, r)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> GenerationHeader {
        let line = |last, voids: &[u64]| Included { last: Seq(last), voids: voids.iter().copied().map(Uid).collect() };
        let included = [(ReplicaId([1; 16]), line(7, &[55, 66])), (ReplicaId([9; 16]), line(1, &[]))];
        let (generation, parent) = (GenId([3; 16]), GenId::ZERO_YRS);
        GenerationHeader { generation, parent, partial: false, included: BTreeMap::from(included).into() }
    }

    #[test]
    fn g4_a_header_reads_back_and_every_cut_one_is_refused() {
        let bytes = header().encode();
        assert_eq!(GenerationHeader::decode(&bytes).unwrap(), header());
        for end in 0..bytes.len() {
            assert!(GenerationHeader::decode(&bytes[..end]).is_err(), "cut at {end}");
        }
        let long = [&bytes[..], &[0]].concat();
        assert!(GenerationHeader::decode(&long).is_err());
        // A count that no bytes stand for is not allocated.
        let mut huge = bytes[..bytes.len()].to_vec();
        huge.splice(20.., [0xff, 0xff, 0xff, 0xff, 0x7f]);
        assert!(GenerationHeader::decode(&huge).is_err());
        // Lines out of order, or twice, would be another form of the same header.
        let zero = GenerationHeader { generation: GenId::ZERO_YRS, ..header() };
        assert!(GenerationHeader::decode(&zero.encode()).is_err(), "generation 0 has no header");
    }

    #[test]
    fn g3_a_commit_is_included_by_number_unless_it_was_refused() {
        let header = header();
        let (a, b) = (ReplicaId([1; 16]), ReplicaId([2; 16]));
        assert!(header.includes(a, Seq(7), Uid(1)));
        assert!(!header.includes(a, Seq(8), Uid(1)), "it came later");
        assert!(!header.includes(a, Seq(5), Uid(55)), "it was refused");
        assert!(!header.includes(b, Seq(1), Uid(1)), "nothing of that line was there");
        let own = header.of_lines(|id| id == a);
        assert_eq!((own.included.len(), own.parent), (1, header.parent));
        assert!(own.includes(a, Seq(7), Uid(1)));
    }
}
