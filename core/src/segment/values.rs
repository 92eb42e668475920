//! A segment's registers, sequences and texts as plain data: for comparing two documents, not for reading values.

use std::collections::BTreeMap;

use super::Segment;
use super::engine::Raw;
use super::layout;
use crate::edit::Patch;

/// What a document says: its registers, and everything a mirror would show of it (but totals, which follow from registers).
#[derive(PartialEq, Debug)]
pub struct Values {
    registers: BTreeMap<String, String>,
    shown: Vec<Patch>,
}

impl Segment {
    /// All that this document says; equal for documents that say the same.
    pub fn values(&mut self) -> Values {
        let mut registers = BTreeMap::new();
        self.engine.scan(&mut |name, raw: Raw| {
            // A base counts by its entries, whatever their order was.
            if let Some((_, layout::BASE, _)) = layout::parse_name(self.id, name) {
                let mut entries = BTreeMap::new();
                layout::each_base_entry(&raw, &mut |key, value| {
                    entries.insert(key.to_owned(), value.to_vec());
                    true
                });
                registers.insert(name.to_owned(), format!("{entries:?} {:?}", layout::number_of(&raw)));
                return;
            }
            registers.insert(name.to_owned(), format!("{raw:?}"));
        });
        let mut shown = self.show();
        shown.retain(|patch| !matches!(patch, Patch::Total { .. }));
        Values { registers, shown }
    }
}
