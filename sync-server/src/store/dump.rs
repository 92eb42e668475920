//! A heap's log for people and their tools: one line of JSON an entry. What a part's bytes say is not shown.

use std::fmt::Write as _;
use std::io::Write;

use coheap_core::id::{Offset, encode_id};
use coheap_core::log::LogEntry;
use coheap_core::wire::frame::{PART_CREATE, PART_DELETE, PART_DELTA};

use super::StoreError;
use super::handle::Store;

/// Bytes of log that are read at a time.
const STEP_BYTES: usize = 1 << 20;

impl Store {
    /// Writes the log of a heap; where it ends, or what stopped it. Errors of the writing are not the store's, and end it.
    pub fn dump(&self, heap: &str, out: &mut impl Write) -> Result<Offset, StoreError> {
        let recovered = self.recover(heap)?;
        let mut at = recovered.floor;
        while at < recovered.head {
            let entries = self.read_log(heap, at, recovered.head, STEP_BYTES)?;
            for (offset, entry) in &entries {
                if writeln!(out, "{}", line(heap, *offset, entry)).is_err() {
                    return Ok(*offset);
                }
            }
            at = entries.last().map_or(recovered.head, |(offset, _)| Offset(offset.0 + 1));
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
