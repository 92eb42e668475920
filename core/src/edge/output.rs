//! Records: from [`Output`] to bytes.

use crate::edit::{Patch, Shown};
use crate::id::EpochId;
use crate::replica::{Keep, LoadStatus, Output, WaitError, js_code};
use crate::value::{Value, exact_integer};
use crate::wire::codec::Write;
use crate::wire::frame::down::ClaimState;

/// Appends one record.
pub fn write(output: &Output, out: &mut Vec<u8>) {
    let mut body = Vec::new();
    let kind = record(output, &mut body);
    out.push(kind);
    Write::bytes(out, &body);
}

fn record(output: &Output, b: &mut Vec<u8>) -> u8 {
    match output {
        Output::Send(message) => {
            b.extend_from_slice(message);
            1
        }
        Output::Apply { offset, author, label, segments } => {
            b.varint(offset.0);
            b.extend_from_slice(&author.replica.0);
            b.str(&author.name);
            b.str(&author.subject);
            b.str(label);
            sections(segments, b);
            2
        }
        Output::Loaded { segment, status, bytes, reset, patches } => {
            b.varint(u64::from(segment.0));
            b.push(match status {
                LoadStatus::There => 0,
                LoadStatus::Missing => 1,
                LoadStatus::Deleted => 2,
                LoadStatus::Quarantined => 3,
            });
            b.varint(*bytes as u64);
            b.push(u8::from(*reset));
            patch_list(patches, b);
            3
        }
        Output::Committed { seq, unsaved, unsaved_bytes, corrections } => {
            for value in [seq.0, *unsaved as u64, *unsaved_bytes as u64] {
                b.varint(value);
            }
            sections(corrections, b);
            4
        }
        Output::Acked { seq, unsaved, unsaved_bytes } => {
            for value in [seq.0, *unsaved as u64, *unsaved_bytes as u64] {
                b.varint(value);
            }
            5
        }
        Output::Online { exists, time_ms, epoch } => {
            b.push(u8::from(*exists));
            b.varint(*time_ms);
            b.str(&epoch_text(*epoch));
            6
        }
        Output::Restoring { begins } => {
            b.push(u8::from(*begins));
            29
        }
        Output::Done { ticket, version } => {
            b.varint(*ticket);
            b.str(version);
            7
        }
        Output::Failed { ticket, error } => {
            b.varint(*ticket);
            b.str(match error {
                WaitError::NotAVersion => "ERR_NOT_A_VERSION",
                WaitError::VersionLost => "ERR_VERSION_LOST",
                WaitError::Refused(_) => "ERR_REFUSED",
                WaitError::InDoubt => "ERR_CONFLICT",
            });
            match error {
                WaitError::Refused(code) => b.str(&format!("{error} ({})", js_code(*code))),
                _ => b.str(&error.to_string()),
            }
            8
        }
        Output::Refused { seq, code, label, segments } => {
            b.varint(seq.0);
            b.str(js_code(*code));
            b.str(label);
            b.varint(segments.len() as u64);
            for segment in segments {
                b.varint(u64::from(segment.0));
            }
            9
        }
        Output::Problem { code, message } => {
            b.str(code);
            b.str(message);
            10
        }
        Output::Deadline(ms) => {
            b.varint(*ms);
            11
        }
        Output::Indexed { segment, index } => {
            b.extend_from_slice(&segment.0);
            b.varint(u64::from(index.0));
            12
        }
        Output::Evicted(index) => {
            b.varint(u64::from(index.0));
            13
        }
        Output::Derived(ids) => {
            b.varint(ids.len() as u64);
            for id in ids {
                b.extend_from_slice(&id.0);
            }
            14
        }
        Output::Object { handle, object, kind } => {
            b.varint(handle.map_or(0, |handle| u64::from(handle.0) + 1));
            b.extend_from_slice(&object.0);
            b.push(kind.code());
            15
        }
        Output::Joined { group, run, member } => {
            b.str(group);
            b.str(run);
            b.varint(*member);
            16
        }
        Output::Group { group, run, members, done, held } => {
            b.str(group);
            b.str(run);
            b.varint(members.len() as u64);
            for member in members {
                b.extend_from_slice(&member.0);
            }
            b.varint(done.len() as u64);
            for key in done {
                b.str(key);
            }
            b.varint(held.len() as u64);
            for (key, member) in held {
                b.str(key);
                b.varint(*member);
            }
            17
        }
        Output::Claimed { ticket, group, run, key, grant, state } => {
            b.varint(*ticket);
            b.str(group);
            b.str(run);
            b.str(key);
            b.varint(*grant);
            b.push(match state {
                ClaimState::Granted => 0,
                ClaimState::Held => 1,
                ClaimState::Done => 2,
            });
            18
        }
        Output::Lost { group, run, key, grant } => {
            b.str(group);
            b.str(run);
            b.str(key);
            b.varint(*grant);
            19
        }
        Output::Member { group, replica, gone, since_ms, name, subject, state } => {
            b.str(group);
            b.extend_from_slice(&replica.0);
            b.push(u8::from(*gone));
            b.varint(*since_ms);
            b.str(name);
            b.str(subject);
            Write::bytes(b, state);
            20
        }
        Output::Stats(stats) => {
            let list = stats.to_list();
            b.varint(list.len() as u64);
            for value in list {
                b.varint(value);
            }
            21
        }
        Output::NeedsFull(index) => {
            b.varint(u64::from(index.0));
            23
        }
        Output::Packed(packed) => {
            b.extend_from_slice(packed);
            24
        }
        Output::Overruled(index, overruled) => {
            b.varint(u64::from(index.0));
            b.varint(u64::from(overruled.parent.0));
            b.str(&overruled.key);
            b.varint(u64::from(overruled.lost.0));
            b.push(overruled.kept.code());
            25
        }
        Output::Forked { id, moved, copied } => {
            b.extend_from_slice(&id.0);
            b.varint(*moved as u64);
            b.push(u8::from(*copied));
            26
        }
        Output::InDoubt(commits) => {
            b.varint(commits.len() as u64);
            for commit in commits {
                b.varint(commit.seq.0);
                b.str(&commit.label);
                b.str(&super::doubt::describe(&commit.edits));
            }
            27
        }
        Output::Reconnect => 28,
        Output::Conflict(index) => {
            b.varint(u64::from(index.0));
            31
        }
        Output::Copied(index, copy) => {
            b.varint(u64::from(index.0));
            b.extend_from_slice(copy);
            32
        }
        Output::AtRest(index) => {
            b.varint(u64::from(index.0));
            33
        }
        Output::Awake(index) => {
            b.varint(u64::from(index.0));
            34
        }
        Output::Keep(keep) => {
            kept(keep, b);
            30
        }
        Output::Error { code, message } => {
            b.str(code);
            b.str(message);
            255
        }
    }
}

fn kept(keep: &Keep, b: &mut Vec<u8>) {
    match keep {
        Keep::Lives(kept) => {
            b.push(0);
            b.extend_from_slice(kept);
        }
        Keep::Place(kept) => {
            b.push(1);
            b.extend_from_slice(kept);
        }
        Keep::Commit(seq, kept) => {
            b.push(2);
            b.varint(seq.0);
            b.extend_from_slice(kept);
        }
        Keep::Segment { segment, anew, kept } => {
            b.push(3);
            b.varint(u64::from(segment.0));
            b.push(u8::from(*anew));
            b.extend_from_slice(kept);
        }
        Keep::Made { anew, kept } => {
            b.push(4);
            b.push(u8::from(*anew));
            b.extend_from_slice(kept);
        }
    }
}

fn epoch_text(epoch: EpochId) -> String {
    format!("{}-{:016x}", epoch.counter, epoch.random)
}

fn sections(segments: &[(crate::heap::Index, Vec<Patch>)], out: &mut Vec<u8>) {
    out.varint(segments.len() as u64);
    for (index, patches) in segments {
        out.varint(u64::from(index.0));
        patch_list(patches, out);
    }
}

fn patch_list(patches: &[Patch], out: &mut Vec<u8>) {
    let mut bytes = Vec::new();
    for one in patches {
        patch(one, &mut bytes);
    }
    Write::bytes(out, &bytes);
}

fn patch(patch: &Patch, b: &mut Vec<u8>) {
    let mut head = |kind: u8, handle: &crate::edit::Handle| {
        b.push(kind);
        b.varint(u64::from(handle.0));
    };
    match patch {
        Patch::Set { object, key, value } => {
            head(1, object);
            b.str(key);
            shown(value, b);
        }
        Patch::Delete { object, key } => {
            head(2, object);
            b.str(key);
        }
        Patch::Insert { object, index, values } => {
            head(4, object);
            b.varint(u64::from(*index));
            b.varint(values.len() as u64);
            for value in values {
                shown(value, b);
            }
        }
        Patch::Remove { object, index, count } => {
            head(5, object);
            b.varint(u64::from(*index));
            b.varint(u64::from(*count));
        }
        Patch::Put { object, index, value } => {
            head(6, object);
            b.varint(u64::from(*index));
            shown(value, b);
        }
        Patch::Move { object, from, to } => {
            head(7, object);
            b.varint(u64::from(*from));
            b.varint(u64::from(*to));
        }
        Patch::Splice { object, index, removed, inserted } => {
            head(8, object);
            b.varint(u64::from(*index));
            b.varint(u64::from(*removed));
            b.str(inserted);
        }
        Patch::Total { object, value } => {
            head(9, object);
            Write::f64(b, *value);
        }
        Patch::Include { object, member } => {
            head(10, object);
            scalar(member, b);
        }
        Patch::Exclude { object, member } => {
            head(11, object);
            scalar(member, b);
        }
        Patch::Root { kind } => {
            b.push(12);
            b.push(kind.code());
        }
        Patch::Clear { object } => head(13, object),
        Patch::Mark { group, run } => {
            b.push(15);
            b.str(group);
            b.str(run);
        }
        Patch::Near { id, kind, object } => {
            b.push(16);
            b.extend_from_slice(&id.0);
            b.push(kind.code());
            b.varint(u64::from(object.0));
        }
    }
}

fn shown(value: &Shown, b: &mut Vec<u8>) {
    match value {
        Shown::Scalar(value) => scalar(value, b),
        Shown::Object(kind, handle) => {
            b.push(10);
            b.push(kind.code());
            b.varint(u64::from(handle.0));
        }
    }
}

fn scalar(value: &Value, b: &mut Vec<u8>) {
    match value {
        Value::Null | Value::Container(..) => b.push(0),
        Value::Bool(false) => b.push(1),
        Value::Bool(true) => b.push(2),
        Value::Number(number) => match exact_integer(*number) {
            Some(integer) => {
                b.push(4);
                b.signed(integer);
            }
            None => {
                b.push(3);
                Write::f64(b, *number);
            }
        },
        Value::Str(text) => {
            b.push(5);
            b.str(text);
        }
        Value::BigInt(integer) => {
            b.push(6);
            b.signed(*integer);
        }
        Value::Date(ms) => {
            b.push(7);
            Write::f64(b, *ms);
        }
        Value::Bytes(bytes) => {
            b.push(8);
            Write::bytes(b, bytes);
        }
        Value::Ref(target) => {
            b.push(9);
            b.extend_from_slice(&target.segment.0);
            if target.object == target.segment.first() {
                b.push(0);
            } else {
                b.push(1);
                b.extend_from_slice(&target.object.0);
            }
        }
    }
}
