//! A segment without its document (CORE-PROTOCOL L6): what stays in memory of one that is here as bytes.

use bytes::Bytes;

use super::engine::EngineError;
use super::objects::Objects;
use super::{Segment, blank};

impl Segment {
    /// Takes the document out: its bytes, which [`Segment::stand_up`] makes it of again. With `mirrored` the objects keep their
    /// handles; else they get others when they are shown again. After an error nothing has changed.
    pub fn lay_down(&mut self, mirrored: bool) -> Result<Bytes, EngineError> {
        let empty = blank(self.engine.kind(), self.writer)?;
        let snapshot = Bytes::from(self.encode());
        (self.engine, self.table, self.size) = (empty, None, snapshot.len());
        if !mirrored {
            self.forget_handles();
        }
        Ok(snapshot)
    }

    /// There is no mirror of one that is laid down any more.
    pub fn forget_handles(&mut self) {
        // What it made here may still be won over by others (S2).
        let creations = std::mem::take(&mut self.objects.creations);
        self.objects = Objects::new(self.id, self.writer);
        self.objects.creations = creations;
        self.told = 1;
    }

    /// Puts the document back in, to be written under this client id. [`Segment::show_as_before`] comes next if there is a mirror;
    /// else [`Segment::show`], once all is in that came meanwhile.
    pub fn stand_up(&mut self, writer: u64, snapshot: &[u8]) -> Result<(), EngineError> {
        self.replace(self.generation, writer, snapshot, &[])
    }

    /// The document that was laid down is back: its mirror shows it already.
    pub fn show_as_before(&mut self) -> Result<(), EngineError> {
        let handles = self.objects.handles();
        self.show();
        // What a mirror shows has a handle; a new one here would be one that it never hears of.
        if self.objects.handles() != handles {
            return Err(EngineError::Failed("a packed document shows what it did not show before".into()));
        }
        Ok(())
    }

    /// Bytes that came to the document while it was away from here.
    pub fn grow(&mut self, bytes: usize) {
        self.size += bytes;
    }
}
