//! A segment's registers, sequences and texts as plain data: for comparing two documents, not for reading values.
//!
//! It needs no objects, so it compares also what nothing shows any more or a reader of another segment's id would not find.

use std::collections::BTreeMap;

use super::Segment;
use super::engine::Raw;
use super::layout;

/// What a document says: all that its engine holds.
#[derive(PartialEq, Debug)]
pub struct Values {
    registers: BTreeMap<String, String>,
    runs: BTreeMap<String, String>,
}

impl Segment {
    /// All that this document says; equal for documents that say the same.
    pub fn values(&self) -> Values {
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
        let mut runs = BTreeMap::new();
        self.engine.scan_runs(&mut |name, run| {
            // A name that holds nothing says nothing: a snapshot may leave it out.
            if run.iter().any(|raw| *raw != Raw::Str(String::new())) {
                runs.insert(name.to_owned(), format!("{run:?}"));
            }
        });
        Values { registers, runs }
    }
}
