//! What a commit in doubt did, as JSON for `details.edits` of the error that tells of it (G5): something a program can show,
//! or do again itself. One object per edit: `op`, `ref` of the object it changed, and what the op takes.
//!
//! Values as in `SEMANTICS` S9; a bigint is its decimal string, bytes are a list of numbers, a number that JSON has none for is null.

use std::fmt::Write as _;

use crate::edit::{Content, Edit, New};
use crate::id::{ObjectId, SegmentId};
use crate::value::Value;

/// A JSON list of all edits.
pub(super) fn describe(edits: &[(SegmentId, Vec<Edit>)]) -> String {
    let all = edits.iter().flat_map(|(id, edits)| edits.iter().map(|edit| describe_one(*id, edit)));
    format!("[{}]", all.collect::<Vec<_>>().join(","))
}

fn describe_one(id: SegmentId, edit: &Edit) -> String {
    let (op, object, rest) = match edit {
        Edit::Set { object, key, value } => ("set", *object, fields(key, value)),
        Edit::Default { object, key, value } => ("default", *object, fields(key, value)),
        Edit::Delete { object, key } => ("delete", *object, format!(",\"key\":{}", text(key))),
        Edit::Insert { list, values, .. } => {
            ("insert", *list, format!(",\"values\":[{}]", joined(values.iter().map(|(_, value)| new(value)))))
        }
        Edit::Remove { list, elements } => ("remove", *list, format!(",\"count\":{}", elements.len())),
        Edit::Put { list, value, .. } => ("put", *list, format!(",\"value\":{}", new(value))),
        Edit::Move { list, .. } => ("move", *list, String::new()),
        Edit::Splice { text: of, index, removed, inserted } => {
            ("splice", *of, format!(",\"index\":{index},\"removed\":{removed},\"inserted\":{}", text(inserted)))
        }
        Edit::Add { counter, by } => ("add", *counter, format!(",\"by\":{}", number(*by))),
        Edit::Include { set, member } => ("include", *set, format!(",\"value\":{}", scalar(member))),
        Edit::Exclude { set, member } => ("exclude", *set, format!(",\"value\":{}", scalar(member))),
        Edit::Root { content: made } => ("create", id.first(), format!(",\"value\":{}", content(made))),
        Edit::Mark { group, run } => ("done", id.first(), format!(",\"group\":{},\"run\":{}", text(group), text(run))),
        Edit::Near { object, content: made } => ("create", *object, format!(",\"value\":{}", content(made))),
    };
    format!("{{\"op\":\"{op}\",\"ref\":\"{}\"{rest}}}", name(id, object))
}

fn name(id: SegmentId, object: ObjectId) -> String {
    if object == id.first() { format!("coheap:{id}") } else { format!("coheap:{id}#{object}") }
}

fn fields(key: &str, value: &New) -> String {
    format!(",\"key\":{},\"value\":{}", text(key), new(value))
}

fn new(value: &New) -> String {
    match value {
        New::Scalar(value) => scalar(value),
        New::Container(_, made) => content(made),
    }
}

fn content(made: &Content) -> String {
    match made {
        Content::Map(entries) => {
            format!("{{{}}}", joined(entries.iter().map(|(key, value)| format!("{}:{}", text(key), new(value)))))
        }
        Content::List(values) => format!("[{}]", joined(values.iter().map(|(_, value)| new(value)))),
        Content::Set(members) => format!("[{}]", joined(members.iter().map(scalar))),
        Content::Text(characters) => text(characters),
        Content::Counter(base) => number(*base),
    }
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(",")
}

fn scalar(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(value) => value.to_string(),
        Value::Number(value) | Value::Date(value) => number(*value),
        Value::Str(value) => text(value),
        Value::BigInt(value) => format!("\"{value}\""),
        Value::Bytes(bytes) => format!("[{}]", joined(bytes.iter().map(u8::to_string))),
        // A container is in an edit as `New::Container`.
        Value::Container(..) => "null".into(),
        Value::Ref(target) => format!("{{\"$ref\":\"{}\"}}", name(target.segment, target.object)),
    }
}

fn number(value: f64) -> String {
    if value.is_finite() { format!("{value}") } else { "null".into() }
}

fn text(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 2);
    out.push('"');
    for c in value.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => drop(write!(out, "\\u{:04x}", u32::from(c))),
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
    fn an_edit_in_doubt_reads_as_json() {
        let id = SegmentId([0; 16]);
        let map = Content::Map(vec![("a\"\n".into(), New::Scalar(Value::Number(1.5)))]);
        let edits = vec![
            Edit::Root { content: map },
            Edit::Add { counter: ObjectId([255; 16]), by: f64::NAN },
            Edit::Set { object: id.first(), key: "k".into(), value: New::Scalar(Value::BigInt(-3)) },
        ];
        let first = "AAAAAAAAAAAAAAAAAAAAAA";
        let expected = format!(
            "[{{\"op\":\"create\",\"ref\":\"coheap:{first}\",\"value\":{{\"a\\\"\\u000a\":1.5}}}},\
             {{\"op\":\"add\",\"ref\":\"coheap:{first}#{}\",\"by\":null}},\
             {{\"op\":\"set\",\"ref\":\"coheap:{first}\",\"key\":\"k\",\"value\":\"-3\"}}]",
            ObjectId([255; 16])
        );
        assert_eq!(describe(&[(id, edits)]), expected);
    }
}
