//! A heap's log for people and their tools: one line of JSON an entry. What a part's bytes say is not shown.

use std::fmt::Write as _;
use std::io::Write;

use coheap_core::id::{Offset, encode_id};
use coheap_core::log::LogEntry;
use coheap_core::wire::frame::roll::GenerationHeader;
use coheap_core::wire::frame::{PART_CREATE, PART_DELETE, PART_DELTA};

use super::StoreError;
use super::handle::Store;
use super::read::{meta_of, number_of};

/// Bytes of log that are read at a time.
const STEP_BYTES: usize = 1 << 20;

impl Store {
    /// Writes the log of a heap as far as it can be read; where it ends, or what stopped it. Errors of the writing are not the
    /// store's, and end it.
    pub fn dump(&self, heap: &str, out: &mut impl Write) -> Result<Offset, StoreError> {
        let meta = self.read(|transaction| {
            let number = number_of(transaction, heap)?.ok_or(StoreError::Gone)?;
            meta_of(transaction, number)
        })?;
        if meta.forgotten > Offset(0) {
            let line = format!("{{\"heap\":{},\"kind\":\"forgotten\",\"below\":{}}}", text(heap), meta.forgotten.0);
            if writeln!(out, "{line}").is_err() {
                return Ok(meta.floor);
            }
        }
        let mut at = meta.floor;
        while at < meta.head {
            let entries = match self.read_log(heap, at, meta.head, STEP_BYTES) {
                // One record at a time up to the one that cannot be read.
                Err(StoreError::Damaged(_)) => self.read_log(heap, at, Offset(at.0 + 1), 1)?,
                other => other?,
            };
            for (offset, entry) in &entries {
                if writeln!(out, "{}", line(heap, *offset, entry)).is_err() {
                    return Ok(*offset);
                }
            }
            at = entries.last().map_or(meta.head, |(offset, _)| Offset(offset.0 + 1));
        }
        Ok(at)
    }
}

fn line(heap: &str, offset: Offset, entry: &LogEntry) -> String {
    let mut out = format!("{{\"heap\":{},\"offset\":{}", text(heap), offset.0);
    match entry {
        LogEntry::Commit(commit) => {
            let (owner, seq, uid) = (encode_id(&commit.owner.0), commit.seq.0, commit.uid.0);
            let _ = write!(out, ",\"kind\":\"commit\",\"author\":\"{owner}\",\"seq\":{seq},\"uid\":\"{uid:016x}\"");
            if let Some(author) = &commit.author {
                let _ = write!(out, ",\"name\":{},\"subject\":{}", text(&author.name), text(&author.subject));
            }
            if let Some(label) = &commit.label {
                let _ = write!(out, ",\"label\":{}", text(label));
            }
            out.push_str(",\"parts\":[");
            for (at, part) in commit.parts.iter().enumerate() {
                let kind = match part.kind {
                    PART_DELTA => "delta".to_owned(),
                    PART_CREATE => "create".to_owned(),
                    PART_DELETE => "delete".to_owned(),
                    other => other.to_string(),
                };
                let comma = if at == 0 { "" } else { "," };
                let (segment, bytes) = (part.segment.0, part.bytes.len());
                let _ = write!(out, "{comma}{{\"segment\":{segment},\"kind\":\"{kind}\",\"bytes\":{bytes}");
                if let Some(created) = part.creates {
                    let id = encode_id(&created.id.0);
                    let _ = write!(out, ",\"creates\":\"{id}\",\"engine\":{}", created.engine.code());
                }
                out.push('}');
            }
            out.push(']');
        }
        LogEntry::Void { owner, seq, uid, code } => {
            let (owner, seq, uid) = (encode_id(&owner.0), seq.0, uid.0);
            let _ = write!(out, ",\"kind\":\"void\",\"author\":\"{owner}\",\"seq\":{seq},\"uid\":\"{uid:016x}\"");
            let _ = write!(out, ",\"code\":{code}");
        }
        LogEntry::Restored(restore) => {
            let _ = write!(out, ",\"kind\":\"restored\",\"by\":\"{}\",\"parts\":[", encode_id(&restore.by.0));
            for (at, part) in restore.segments.iter().enumerate() {
                let comma = if at == 0 { "" } else { "," };
                let _ = write!(out, "{comma}{{\"segment\":{},\"bytes\":{}", part.segment.0, part.state.len());
                if part.adopts {
                    let _ = write!(out, ",\"adopts\":\"{}\"", encode_id(&part.generation.0));
                }
                if let Some(created) = part.creates {
                    let id = encode_id(&created.id.0);
                    let _ = write!(out, ",\"creates\":\"{id}\",\"engine\":{}", created.engine.code());
                }
                out.push('}');
            }
            out.push(']');
        }
        LogEntry::Quarantine(quarantine) => {
            let (segment, at) = (quarantine.segment.0, quarantine.offset.0);
            let _ = write!(out, ",\"kind\":\"quarantine\",\"segment\":{segment},\"at\":{at}");
            if let Some((client, clock)) = quarantine.client {
                // A client id may have more digits than a reader of JSON keeps.
                let _ = write!(out, ",\"client\":\"{client}\",\"clock\":{clock}");
            }
            let later: Vec<String> = quarantine.later().map(|offset| offset.0.to_string()).collect();
            let _ = write!(out, ",\"later\":[{}]", later.join(","));
        }
        LogEntry::Roll(roll) => {
            let (segment, generation) = (roll.segment.0, encode_id(&roll.generation.0));
            let (parent, bytes) = (encode_id(&roll.parent.0), roll.snapshot.len());
            let lines = GenerationHeader::decode(&roll.header).map_or(0, |header| header.included.len());
            let _ = write!(out, ",\"kind\":\"roll\",\"segment\":{segment},\"generation\":\"{generation}\"");
            let _ = write!(out, ",\"parent\":\"{parent}\",\"lines\":{lines},\"bytes\":{bytes}");
        }
    }
    out.push('}');
    out
}

/// A JSON string.
fn text(said: &str) -> String {
    let mut out = String::with_capacity(said.len() + 2);
    out.push('"');
    for c in said.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c < ' ' || c == '\u{7f}' || c == '\u{2028}' || c == '\u{2029}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_comes_out_as_json() {
        assert_eq!(text("a\"b\\c\n\u{1b}ä"), "\"a\\\"b\\\\c\\u000a\\u001bä\"");
    }
}
