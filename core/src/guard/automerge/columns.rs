//! The operations of a change: rows stored by column, each column packed in its own way.
//!
//! ```text
//! 01 02    object     actor, counter      run lengths; absent or null: the root
//! 11 13 15 key        actor, counter (delta), string
//! 34       insert     lengths of runs of false, true, false …
//! 42       action     run lengths: 1 set · 3 delete
//! 56 57    value      run lengths of length * 16 + type; the bytes
//! 70 71 73 replaced   how many; actor, counter (delta) of each
//! run lengths: n > 0: the value that follows, n times · n < 0: −n values follow · 0: as many nulls as follows
//! ```
//!
//! A row is a write or removal at the root, or an insertion or removal in one of the delta's objects: that is all that our
//! replicas write. What it names lies before it. Nothing is kept but the place in each column.

use super::super::GuardError;
use super::super::read::Cursor;
use super::is_object;

/// Rows of one change: a column of equal rows is a few bytes however many they are.
const ROWS_MAX: u64 = 1 << 20;
const SET: u64 = 1;
const DELETE: u64 = 3;

/// An actor as rows may name it.
pub(super) enum Named<'a> {
    /// One who writes; how its bytes sort.
    Writer(&'a [u8]),
    /// What an object's canonical change is made by.
    Object(&'a str),
}

/// Walks all rows; gives how many there are.
pub(super) fn rows<'a>(
    column: impl Fn(u64) -> &'a [u8],
    actors: &[Named<'_>],
    start_op: u64,
) -> Result<u64, GuardError> {
    let mut object = (Runs::new(column(0x01)), Runs::new(column(0x02)));
    let mut key = (Runs::new(column(0x11)), Runs::new(column(0x13)), Runs::new(column(0x15)));
    let mut insert = Flags::new(column(0x34));
    let mut action = Runs::new(column(0x42));
    let mut meta = Runs::new(column(0x56));
    let mut value = Cursor::new(column(0x57));
    let mut pred = (Runs::new(column(0x70)), Runs::new(column(0x71)), Runs::new(column(0x73)));
    let (mut key_clock, mut pred_clock) = (0_i64, 0_i64);

    let before = |actor: Option<u64>, counter: u64, own: u64| -> Result<&[u8], GuardError> {
        let named = actor.and_then(|n| actors.get(usize::try_from(n).ok()?)).ok_or(GuardError::BadClient)?;
        match named {
            Named::Writer(actor) if counter > 0 && counter < own => Ok(actor),
            Named::Writer(_) => Err(GuardError::UnknownClock),
            Named::Object(_) => Err(GuardError::TornItem),
        }
    };

    let mut count = 0_u64;
    while let Some(act) = action.next(Cursor::var_u64)? {
        let own = start_op + count;
        count += 1;
        if count > ROWS_MAX || !matches!(act, Some(SET | DELETE)) {
            return Err(if count > ROWS_MAX { GuardError::TooMany } else { GuardError::BadContent });
        }
        let (sets, inserts) = (act == Some(SET), insert.next()?);
        let place = (object.0.row(Cursor::var_u64)?, object.1.row(Cursor::var_u64)?);
        let key_actor = key.0.row(Cursor::var_u64)?;
        let key_counter = key.1.row(signed)?;
        let name = key.2.row(Cursor::string)?;
        let space = match place {
            (None, None) => None,
            (Some(actor), Some(1)) => match usize::try_from(actor).ok().and_then(|n| actors.get(n)) {
                Some(Named::Object(key)) => Some(key.starts_with('t')),
                _ => return Err(GuardError::Nested),
            },
            _ => return Err(GuardError::Nested),
        };
        match (space, name) {
            (None, Some(name)) if !is_object(name) && !inserts && key_actor.is_none() && key_counter.is_none() => {}
            (Some(_), None) => {
                let delta = key_counter.ok_or(GuardError::BadContent)?;
                key_clock = key_clock.checked_add(delta).ok_or(GuardError::BadNumber)?;
                let counter = u64::try_from(key_clock).map_err(|_| GuardError::BadNumber)?;
                // The head of the object, or an element.
                if key_actor.is_some() || counter > 0 || !inserts {
                    before(key_actor, counter, own)?;
                }
            }
            _ => return Err(GuardError::TornItem),
        }
        // In objects, what is set is new, and what is new is set.
        if space.is_some() && sets != inserts {
            return Err(GuardError::BadContent);
        }
        let meta = meta.row(Cursor::var_u64)?.ok_or(GuardError::BadContent)?;
        scalar(meta, &mut value, sets, space)?;

        let replaced = pred.0.row(Cursor::var_u64)?.unwrap_or(0);
        if inserts && replaced > 0 || !sets && replaced == 0 {
            return Err(GuardError::BadContent);
        }
        let mut last: Option<(u64, &[u8])> = None;
        for _ in 0..replaced {
            // The columns end where they end: a count cannot make this long.
            let (actor, delta) = (pred.1.next(Cursor::var_u64)?.flatten(), pred.2.next(signed)?.flatten());
            let delta = delta.ok_or(GuardError::Truncated)?;
            pred_clock = pred_clock.checked_add(delta).ok_or(GuardError::BadNumber)?;
            let counter = u64::try_from(pred_clock).map_err(|_| GuardError::BadNumber)?;
            let this = (counter, before(actor, counter, own)?);
            if last.is_some_and(|last| last >= this) {
                return Err(GuardError::BadRange);
            }
            last = Some(this);
        }
    }
    let ended = object.0.ended()
        && object.1.ended()
        && key.0.ended()
        && key.1.ended()
        && key.2.ended()
        && insert.ended()
        && meta.ended()
        && value.remaining() == 0
        && pred.0.ended()
        && pred.1.ended()
        && pred.2.ended();
    match (count, ended) {
        (0, _) => Err(GuardError::Empty),
        (_, true) => Ok(count),
        _ => Err(GuardError::Trailing),
    }
}

/// A value of a type that we write, and nothing where nothing is set.
fn scalar(meta: u64, bytes: &mut Cursor<'_>, sets: bool, text: Option<bool>) -> Result<(), GuardError> {
    let length = usize::try_from(meta >> 4).map_err(|_| GuardError::Truncated)?;
    let value = bytes.take(length)?;
    if !sets {
        return if meta == 0 { Ok(()) } else { Err(GuardError::BadContent) };
    }
    let mut cursor = Cursor::new(value);
    match (meta & 15, text) {
        (6, _) => {
            let string = std::str::from_utf8(value).map_err(|_| GuardError::BadString)?;
            // A text's elements are its characters.
            if text == Some(true) && string.chars().count() != 1 {
                return Err(GuardError::BadContent);
            }
            return Ok(());
        }
        (_, Some(true)) => return Err(GuardError::BadContent),
        (0..=2, _) => {}
        // An anchor.
        (3, Some(false)) if value == [0] => return Ok(()),
        (4, _) => {
            signed(&mut cursor)?;
        }
        (5, _) => {
            cursor.take(8)?;
        }
        (7, _) => return Ok(()),
        _ => return Err(GuardError::BadContent),
    }
    cursor.end()
}

/// A two's complement varint in its shortest form.
fn signed(cursor: &mut Cursor<'_>) -> Result<i64, GuardError> {
    let (mut value, mut shift, mut last) = (0_i64, 0_u32, None);
    loop {
        let byte = cursor.u8()?;
        if shift == 63 && byte != 0 && byte != 0x7f {
            return Err(GuardError::BadNumber);
        }
        value |= i64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            let negative = byte & 0x40 != 0;
            if negative && shift < 64 {
                value |= -1 << shift;
            }
            // A last byte that only repeats the sign is padding.
            let padded = last.is_some_and(|last: u8| byte == if last & 0x40 != 0 { 0x7f } else { 0 });
            return if padded { Err(GuardError::BadNumber) } else { Ok(value) };
        }
        if shift > 63 {
            return Err(GuardError::BadNumber);
        }
        last = Some(byte);
    }
}

/// A column of run lengths.
struct Runs<'a, T> {
    rest: Cursor<'a>,
    run: Run<T>,
}

enum Run<T> {
    None,
    Same(u64, T),
    Each(u64),
    Nulls(u64),
}

impl<'a, T: Copy> Runs<'a, T> {
    fn new(bytes: &'a [u8]) -> Runs<'a, T> {
        Runs { rest: Cursor::new(bytes), run: Run::None }
    }

    /// The next row; `None` behind the last.
    fn next(
        &mut self,
        read: impl Fn(&mut Cursor<'a>) -> Result<T, GuardError>,
    ) -> Result<Option<Option<T>>, GuardError> {
        loop {
            match &mut self.run {
                Run::Same(left, value) if *left > 0 => {
                    *left -= 1;
                    return Ok(Some(Some(*value)));
                }
                Run::Each(left) if *left > 0 => {
                    *left -= 1;
                    return read(&mut self.rest).map(|value| Some(Some(value)));
                }
                Run::Nulls(left) if *left > 0 => {
                    *left -= 1;
                    return Ok(Some(None));
                }
                _ if self.rest.remaining() == 0 => return Ok(None),
                _ => {}
            }
            self.run = match signed(&mut self.rest)? {
                0 => Run::Nulls(nonzero(self.rest.var_u64()?)?),
                count if count > 0 => Run::Same(count.unsigned_abs(), read(&mut self.rest)?),
                count => Run::Each(count.unsigned_abs()),
            };
        }
    }

    /// The next row, of a column that may be shorter or absent: null there.
    fn row(&mut self, read: impl Fn(&mut Cursor<'a>) -> Result<T, GuardError>) -> Result<Option<T>, GuardError> {
        Ok(self.next(read)?.flatten())
    }

    fn ended(&self) -> bool {
        self.rest.remaining() == 0 && matches!(self.run, Run::None | Run::Same(0, _) | Run::Each(0) | Run::Nulls(0))
    }
}

fn nonzero(count: u64) -> Result<u64, GuardError> {
    if count == 0 { Err(GuardError::Empty) } else { Ok(count) }
}

/// A column of truth values.
struct Flags<'a> {
    rest: Cursor<'a>,
    left: u64,
    value: bool,
}

impl<'a> Flags<'a> {
    fn new(bytes: &'a [u8]) -> Flags<'a> {
        Flags { rest: Cursor::new(bytes), left: 0, value: true }
    }

    fn next(&mut self) -> Result<bool, GuardError> {
        let mut empty = 0;
        while self.left == 0 {
            if empty > 1 || self.rest.remaining() == 0 {
                return Err(GuardError::Truncated);
            }
            self.left = self.rest.var_u64()?;
            self.value = !self.value;
            empty += 1;
        }
        self.left -= 1;
        Ok(self.value)
    }

    fn ended(&self) -> bool {
        self.rest.remaining() == 0 && self.left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signed_numbers_are_read_in_their_shortest_form_only() {
        let read = |bytes: &[u8]| signed(&mut Cursor::new(bytes));
        assert_eq!(read(&[0x3f]), Ok(63));
        assert_eq!(read(&[0x40]), Ok(-64));
        assert_eq!(read(&[0xc0, 0]), Ok(64));
        assert_eq!(read(&[0x7f]), Ok(-1));
        assert_eq!(read(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x7f]), Ok(i64::MIN));
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]), Ok(i64::MAX));
        assert_eq!(read(&[0xff, 0x7f]), Err(GuardError::BadNumber), "padded −1");
        assert_eq!(read(&[0xbf, 0]), Err(GuardError::BadNumber), "padded 63");
        assert_eq!(read(&[0x80; 11]), Err(GuardError::BadNumber));
        assert_eq!(read(&[0x80]), Err(GuardError::Truncated));
    }
}
