//! Anchored edits as bytes, for a packed replica. The one place where edits leave the core, towards another instance of it.
//!
//! ```text
//! edit    := 1 set object key new · 2 delete object key · 3 insert list after list(element:u64 new) · 4 remove list list(element)
//!          · 5 put list element new · 6 move list element after slot:u64 · 7 splice text index:varint removed:varint str
//!          · 8 add counter f64 · 9 include set value · 10 exclude set value · 11 root content · 12 default object key new
//!          · 13 mark group:str run:str · 14 near object:16 content
//! new     := 0 value · 1 object:16 content (an id of its own) · 2 life:varint content (a derived one)
//! value   := bytes, tagged (`SEGMENT.md` §3)         after := 0 | 1 element
//! content := kind:u8, then  map list(key new) · list list(element new) · text str · counter f64 · set list(value)
//! ```

use crate::edit::{Content, Edit, ElementId, New};
use crate::id::ObjectId;
use crate::limits;
use crate::value::{Identity, Kind, Value};
use crate::wire::codec::{Malformed, Reader, Write};

use super::COUNT;

/// Deeper than any edit gets: literals of the greatest depth.
const DEPTH: usize = limits::VALUE_DEPTH_MAX + 2;

/// Appends an edit.
pub(super) fn pack(edit: &Edit, out: &mut Vec<u8>) {
    let head = |out: &mut Vec<u8>, kind: u8, object: &ObjectId| {
        out.push(kind);
        out.extend_from_slice(&object.0);
    };
    match edit {
        Edit::Set { object, key, value } => {
            head(out, 1, object);
            out.str(key);
            pack_new(value, out);
        }
        Edit::Delete { object, key } => {
            head(out, 2, object);
            out.str(key);
        }
        Edit::Insert { list, after, values } => {
            head(out, 3, list);
            pack_after(*after, out);
            pack_elements(values, out);
        }
        Edit::Remove { list, elements } => {
            head(out, 4, list);
            out.varint(elements.len() as u64);
            for element in elements {
                Write::u64(out, element.0);
            }
        }
        Edit::Put { list, element, value } => {
            head(out, 5, list);
            Write::u64(out, element.0);
            pack_new(value, out);
        }
        Edit::Move { list, element, after, slot } => {
            head(out, 6, list);
            Write::u64(out, element.0);
            pack_after(*after, out);
            Write::u64(out, *slot);
        }
        Edit::Splice { text, index, removed, inserted } => {
            head(out, 7, text);
            out.varint(u64::from(*index));
            out.varint(u64::from(*removed));
            out.str(inserted);
        }
        Edit::Add { counter, by } => {
            head(out, 8, counter);
            Write::f64(out, *by);
        }
        Edit::Include { set, member } => {
            head(out, 9, set);
            pack_value(member, out);
        }
        Edit::Exclude { set, member } => {
            head(out, 10, set);
            pack_value(member, out);
        }
        Edit::Root { content } => {
            out.push(11);
            pack_content(content, out);
        }
        Edit::Default { object, key, value } => {
            head(out, 12, object);
            out.str(key);
            pack_new(value, out);
        }
        Edit::Mark { group, run } => {
            out.push(13);
            out.str(group);
            out.str(run);
        }
        Edit::Near { object, content } => {
            head(out, 14, object);
            pack_content(content, out);
        }
    }
}

fn pack_after(after: Option<ElementId>, out: &mut Vec<u8>) {
    out.push(u8::from(after.is_some()));
    if let Some(element) = after {
        Write::u64(out, element.0);
    }
}

fn pack_value(value: &Value, out: &mut Vec<u8>) {
    let mut bytes = Vec::new();
    value.encode_tagged(&mut bytes);
    Write::bytes(out, &bytes);
}

fn pack_new(new: &New, out: &mut Vec<u8>) {
    match new {
        New::Scalar(value) => {
            out.push(0);
            pack_value(value, out);
        }
        New::Container(identity, content) => {
            match identity {
                Identity::Fresh(id) => {
                    out.push(1);
                    out.extend_from_slice(&id.0);
                }
                Identity::Derived(life) => {
                    out.push(2);
                    out.varint(*life);
                }
            }
            pack_content(content, out);
        }
    }
}

fn pack_elements(elements: &[(ElementId, New)], out: &mut Vec<u8>) {
    out.varint(elements.len() as u64);
    for (element, value) in elements {
        Write::u64(out, element.0);
        pack_new(value, out);
    }
}

fn pack_content(content: &Content, out: &mut Vec<u8>) {
    out.push(content.kind().code());
    match content {
        Content::Map(entries) => {
            out.varint(entries.len() as u64);
            for (key, value) in entries {
                out.str(key);
                pack_new(value, out);
            }
        }
        Content::List(elements) => pack_elements(elements, out),
        Content::Text(text) => out.str(text),
        Content::Counter(base) => Write::f64(out, *base),
        Content::Set(members) => {
            out.varint(members.len() as u64);
            for member in members {
                pack_value(member, out);
            }
        }
    }
}

/// Reads an edit.
pub(super) fn unpack(r: &mut Reader<'_>) -> Result<Edit, Malformed> {
    Ok(match r.u8()? {
        1 => Edit::Set { object: object(r)?, key: text(r)?, value: new(r, DEPTH)? },
        2 => Edit::Delete { object: object(r)?, key: text(r)? },
        3 => Edit::Insert { list: object(r)?, after: after(r)?, values: elements(r, DEPTH)? },
        4 => {
            let list = object(r)?;
            let mut elements = Vec::new();
            for _ in 0..r.count(COUNT, 1, "elements")? {
                elements.push(element(r)?);
            }
            Edit::Remove { list, elements }
        }
        5 => Edit::Put { list: object(r)?, element: element(r)?, value: new(r, DEPTH)? },
        6 => Edit::Move { list: object(r)?, element: element(r)?, after: after(r)?, slot: r.u64()? },
        7 => Edit::Splice { text: object(r)?, index: small(r)?, removed: small(r)?, inserted: text(r)? },
        8 => Edit::Add { counter: object(r)?, by: r.f64()? },
        9 => Edit::Include { set: object(r)?, member: value(r)? },
        10 => Edit::Exclude { set: object(r)?, member: value(r)? },
        11 => Edit::Root { content: content(r, DEPTH)? },
        12 => Edit::Default { object: object(r)?, key: text(r)?, value: new(r, DEPTH)? },
        13 => Edit::Mark { group: text(r)?, run: text(r)? },
        14 => Edit::Near { object: object(r)?, content: content(r, DEPTH)? },
        other => return Err(Malformed::Kind(other)),
    })
}

fn object(r: &mut Reader<'_>) -> Result<ObjectId, Malformed> {
    r.array().map(ObjectId)
}

fn element(r: &mut Reader<'_>) -> Result<ElementId, Malformed> {
    r.u64().map(ElementId)
}

fn after(r: &mut Reader<'_>) -> Result<Option<ElementId>, Malformed> {
    match r.u8()? {
        0 => Ok(None),
        _ => element(r).map(Some),
    }
}

fn small(r: &mut Reader<'_>) -> Result<u32, Malformed> {
    u32::try_from(r.varint()?).map_err(|_| Malformed::Limit("number"))
}

fn text(r: &mut Reader<'_>) -> Result<String, Malformed> {
    r.str(limits::LONG_BYTES_MAX, "text").map(str::to_owned)
}

fn value(r: &mut Reader<'_>) -> Result<Value, Malformed> {
    Value::decode_tagged(r.bytes(limits::LONG_BYTES_MAX, "value")?)
}

fn new(r: &mut Reader<'_>, depth: usize) -> Result<New, Malformed> {
    Ok(match r.u8()? {
        0 => New::Scalar(value(r)?),
        1 => New::Container(Identity::Fresh(object(r)?), content(r, depth)?),
        2 => New::Container(Identity::Derived(r.varint()?), content(r, depth)?),
        other => return Err(Malformed::Kind(other)),
    })
}

fn elements(r: &mut Reader<'_>, depth: usize) -> Result<Vec<(ElementId, New)>, Malformed> {
    let mut out = Vec::new();
    for _ in 0..r.count(COUNT, 1, "elements")? {
        out.push((element(r)?, new(r, depth)?));
    }
    Ok(out)
}

fn content(r: &mut Reader<'_>, depth: usize) -> Result<Content, Malformed> {
    let depth = depth.checked_sub(1).ok_or(Malformed::Limit("depth"))?;
    Ok(match Kind::from_code(r.u8()?).ok_or(Malformed::Field("kind"))? {
        Kind::Map => {
            let mut entries = Vec::new();
            for _ in 0..r.count(COUNT, 1, "entries")? {
                entries.push((text(r)?, new(r, depth)?));
            }
            Content::Map(entries)
        }
        Kind::List => Content::List(elements(r, depth)?),
        Kind::Text => Content::Text(text(r)?),
        Kind::Counter => Content::Counter(r.f64()?),
        Kind::Set => {
            let mut members = Vec::new();
            for _ in 0..r.count(COUNT, 1, "members")? {
                members.push(value(r)?);
            }
            Content::Set(members)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_come_back_as_they_were_and_shorter_bytes_are_refused() {
        let (object, element) = (ObjectId([3; 16]), ElementId(9));
        let scalar = || New::Scalar(Value::Number(-0.0));
        let deep = New::Container(
            Identity::Derived(2),
            Content::Map(vec![
                ("l".into(), New::Container(Identity::Fresh(object), Content::List(vec![(element, scalar())]))),
                ("t".into(), New::Container(Identity::Derived(0), Content::Text("é".into()))),
                ("c".into(), New::Container(Identity::Derived(0), Content::Counter(1.5))),
                ("s".into(), New::Container(Identity::Derived(0), Content::Set(vec![Value::Str("x".into())]))),
            ]),
        );
        let all = [
            Edit::Set { object, key: "k".into(), value: deep.clone() },
            Edit::Delete { object, key: String::new() },
            Edit::Insert { list: object, after: Some(element), values: vec![(element, scalar()), (element, deep)] },
            Edit::Remove { list: object, elements: vec![element, ElementId(u64::MAX)] },
            Edit::Put { list: object, element, value: scalar() },
            Edit::Move { list: object, element, after: None, slot: 7 },
            Edit::Splice { text: object, index: 1, removed: u32::MAX, inserted: "😀".into() },
            Edit::Add { counter: object, by: f64::NEG_INFINITY },
            Edit::Include { set: object, member: Value::Bool(true) },
            Edit::Exclude { set: object, member: Value::Number(4.0) },
            Edit::Root { content: Content::List(Vec::new()) },
            Edit::Default { object, key: "d".into(), value: scalar() },
            Edit::Mark { group: "g".into(), run: "r".into() },
            Edit::Near { object, content: Content::Map(vec![("n".into(), scalar())]) },
        ];
        for edit in &all {
            let mut bytes = Vec::new();
            pack(edit, &mut bytes);
            let mut r = Reader::new(&bytes);
            assert_eq!(unpack(&mut r).as_ref(), Ok(edit));
            assert!(r.is_empty());
            for end in 0..bytes.len() {
                assert!(unpack(&mut Reader::new(&bytes[..end])).is_err(), "{edit:?} cut at {end}");
            }
        }
    }
}
