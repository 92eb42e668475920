//! A replica's side by hand: its commits, with deltas that an engine would make, and what is read from the frames that it gets.

use std::collections::BTreeMap;

use bytes::Bytes;
use coheap_core::commit::EngineKind;
use coheap_core::id::*;
use coheap_core::wire::frame::down::EntryFrame;
use coheap_core::wire::frame::up::CommitFrame;
use coheap_core::wire::frame::{Down, PART_CREATE, PART_DELTA, PartFrame, SegRef, Up};
use yrs::{Doc, Map, OffsetKind, Options, ReadTxn, StateVector, Transact};

/// Makes the commits of one replica, with deltas that an engine would make.
pub struct Writer {
    pub id: u8,
    pub seq: u64,
    pub prev: Uid,
    pub owner: u64,
    docs: BTreeMap<SegmentId, Doc>,
}

impl Writer {
    pub fn new(id: u8) -> Writer {
        Writer { id, seq: 0, prev: Uid::NONE, owner: 0, docs: BTreeMap::new() }
    }

    /// A delta that continues this writer's document of a segment.
    pub fn delta(&mut self, segment: SegmentId) -> Bytes {
        self.delta_with(segment, "")
    }

    /// The same, with a value of some size.
    pub fn delta_with(&mut self, segment: SegmentId, value: &str) -> Bytes {
        let client = u64::from(self.id) * 1000 + u64::from(segment.0[1]) + 1;
        let doc = self.docs.entry(segment).or_insert_with(|| {
            Doc::with_options(Options {
                client_id: yrs::block::ClientID::new(client),
                offset_kind: OffsetKind::Utf16,
                ..Options::default()
            })
        });
        let before = doc.transact().state_vector();
        let map = doc.get_or_insert_map("r");
        map.insert(&mut doc.transact_mut(), format!("k{}", self.seq), format!("{}{value}", self.seq));
        let delta: Bytes = doc.transact().encode_diff_v1(&before).into();
        let passes = coheap_core::guard::structure(coheap_core::guard::Engine::Yrs, &delta);
        assert!(passes.is_ok(), "{passes:?} {delta:?}");
        delta
    }

    pub fn commit(&mut self, segments: &[SegmentId]) -> Up {
        Up::Commit(self.frame(segments))
    }

    pub fn frame(&mut self, segments: &[SegmentId]) -> CommitFrame {
        let parts: Vec<_> = segments.iter().map(|segment| part(*segment, self.delta(*segment))).collect();
        self.frame_of(parts)
    }

    pub fn frame_of(&mut self, parts: Vec<PartFrame>) -> CommitFrame {
        self.seq += 1;
        let uid = Uid(u64::from(self.id) * 1_000_000 + self.seq);
        let prev = std::mem::replace(&mut self.prev, uid);
        CommitFrame {
            owner: self.owner,
            seq: Seq(self.seq),
            uid,
            prev: Some(prev),
            after: None,
            claim: None,
            label: None,
            parts: parts.into(),
        }
    }

    /// Its document of a segment, whole.
    pub fn whole(&self, segment: SegmentId) -> Bytes {
        self.docs[&segment].transact().encode_state_as_update_v1(&StateVector::default()).into()
    }
}

pub fn part(segment: SegmentId, bytes: Bytes) -> PartFrame {
    PartFrame { kind: PART_DELTA, segment: SegRef::Id(segment), generation: GenId::ZERO_YRS, create: None, bytes }
}

/// Changes the first part of a commit.
pub fn change_part(frame: &mut CommitFrame, how: impl FnOnce(&mut PartFrame)) {
    let mut parts = frame.parts.to_vec();
    how(&mut parts[0]);
    frame.parts = parts.into();
}

pub fn create(segment: SegmentId, bytes: Bytes) -> PartFrame {
    PartFrame { kind: PART_CREATE, create: Some((EngineKind::Yrs, 1)), ..part(segment, bytes) }
}

pub fn entries(frames: &[Down]) -> Vec<&EntryFrame> {
    frames
        .iter()
        .filter_map(|frame| match frame {
            Down::Entry(entry) => Some(entry),
            _ => None,
        })
        .collect()
}

pub fn offsets(frames: &[Down]) -> Vec<u64> {
    entries(frames).iter().map(|entry| entry.offset.0).collect()
}

/// The newest acknowledgement.
pub fn acked(frames: &[Down]) -> Option<u64> {
    let acks = frames.iter().filter_map(|frame| match frame {
        Down::Ack { seq, .. } => Some(seq.0),
        _ => None,
    });
    acks.last()
}
