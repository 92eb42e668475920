//! The layout of a yrs v1 update, and the walk that judges it.
//!
//! ```text
//! update   = count(clients) section* deletes
//! section  = count(structs) client clock struct+            clocks count up from `clock`, struct by struct
//! struct   = info origin? right? root? content              0x80 origin, 0x40 right origin, 0x20 has a key, low nibble kind
//! origin   = client clock                                   right origin alike
//! root     = 1 name key?                                    only without origin and right origin; the key only with 0x20
//! content  = 1: length | 4: string | 8: count value+        deleted, text, values
//! deletes  = count(clients) ( client count(ranges) (clock length)* )*
//! value    = 127 undefined | 126 null | 121 120 bool | 125 int | 124 f32 | 123 f64 | 122 i64
//!          | 119 string | 116 bytes | 117 count value* | 118 count (key value)*
//! ```
//!
//! A quirk: 0x20 is set on every item that has a key, but the key is written only where the root is. With an origin
//! the engine takes root and key from the neighbour. Our documents hold root types with plain values and text, nothing
//! else, and yrs writes for those just the three contents above: no GC (0; only ever made below nested types), no skip
//! (10; only in updates with holes), no JSON, binary, embed, format, type or subdocument. `core/tests/guard.rs` checks
//! this against yrs itself. Values cost the guard no memory.
//!
//! What a [`Summary`] remembers has less than four times the bytes of the delta. An item of four bytes can ask for more than that,
//! if client ids are numbers of one digit; drawn at random they take eight bytes, and then the room is enough whatever the delta
//! does ([`Room`]).

use super::read::Cursor;
use super::space::{Beside, Claim, Runs, Says, Space, push};
use super::{CLIENT_END, CLOCK_END, GuardError, OwnRange, ROOT_NAME_MAX, Summary, VALUE_DEPTH_MAX};

const HAS_ORIGIN: u8 = 0x80;
const HAS_RIGHT: u8 = 0x40;
const HAS_KEY: u8 = 0x20;
const UNUSED: u8 = 0x10;
const KIND: u8 = 0x0f;

pub(super) const DELETED: u8 = 1;
pub(super) const TEXT: u8 = 4;
const VALUES: u8 = 8;

/// The shortest struct (info, origin, a deleted length), section, client of deletes, range of deletes.
const STRUCT_MIN: usize = 4;
const SECTION_MIN: usize = 3 + STRUCT_MIN;
const DELETES_MIN: usize = 2;
const RANGE_MIN: usize = 2;

/// A place in the history of a document.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Id {
    pub client: u64,
    pub clock: u32,
}

/// Where a struct was put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Head {
    /// The one or two items it lies beside; none for the first of its chain, which bears the root's name.
    pub left: Option<Id>,
    pub right: Option<Id>,
    /// Its name space, unless it lost its content and only its neighbours can tell: sequences or texts.
    pub space: Option<Space>,
    kind: u8,
}

impl Head {
    /// [`DELETED`], [`TEXT`], or else values.
    pub fn kind(self) -> u8 {
        self.kind
    }
}

/// One struct of a section.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item<'a> {
    /// The update from this struct on, for [`head`] to read again.
    pub bytes: &'a [u8],
    pub head: Head,
    pub start: u32,
    pub end: u32,
}

/// Judges a delta.
pub(super) fn delta(bytes: &[u8]) -> Result<Summary, GuardError> {
    let mut cursor = Cursor::new(bytes);
    let mut outside = Outside { room: Room::of(bytes.len()), ..Outside::default() };
    let own = match cursor.count(SECTION_MIN)? {
        0 => None,
        1 => {
            let (mut spaces, mut first) = (Runs::default(), None);
            let own = section(&mut cursor, &mut |client, item| {
                let first = *first.get_or_insert(item.start);
                let claim = place(client, first, item, &spaces, &mut outside)?;
                if spaces.tell(item.start, claim) { outside.room.take(size_of::<(u32, Claim)>()) } else { Ok(()) }
            })?;
            outside.spaces = spaces;
            Some(own)
        }
        _ => return Err(GuardError::SeveralClients),
    };
    deletes(&mut cursor, &mut |client, end| match own {
        Some(own) if own.client == client && end > own.end => Err(GuardError::UnknownClock),
        _ => outside.delete(client, end),
    })?;
    cursor.end()?;
    let Outside { mut deleted, beside, spaces, .. } = outside;
    once_each(&mut deleted)?;
    let named = named(own, &beside, &deleted);
    Ok(Summary { own, named, spaces, beside })
}

/// For every other client that is named, one past the highest clock.
fn named(own: Option<OwnRange>, beside: &[Beside], deleted: &[(u64, u32)]) -> Vec<(u64, u32)> {
    let beside = beside.iter().map(|beside| (beside.client, beside.clock.saturating_add(1)));
    let all = beside.chain(deleted.iter().copied()).filter(|(client, _)| own.is_none_or(|own| own.client != *client));
    let mut named = Vec::with_capacity(all.clone().count());
    named.extend(all);
    named.sort_unstable();
    named.dedup_by(|later, kept| {
        let same = later.0 == kept.0;
        if same {
            kept.1 = kept.1.max(later.1);
        }
        same
    });
    named
}

/// Sorts what is deleted by client; no client has two lists of ranges.
pub(super) fn once_each(deleted: &mut [(u64, u32)]) -> Result<(), GuardError> {
    deleted.sort_unstable();
    if deleted.windows(2).any(|pair| matches!(pair, [a, b] if a.0 == b.0)) {
        return Err(GuardError::RepeatedClient);
    }
    Ok(())
}

/// What a summary may still come to. Each list may have an eighth more room than items, and while one is moved to make room for
/// more there are two of it; with that, 3.5 times the bytes of the delta and 56 KiB stay below four times and 64 KiB.
#[derive(Default)]
struct Room(usize);

impl Room {
    fn of(len: usize) -> Room {
        Room(len / 2 * 7 + (56 << 10))
    }

    fn take(&mut self, bytes: usize) -> Result<(), GuardError> {
        self.0 = self.0.checked_sub(bytes).ok_or(GuardError::TooMany)?;
        Ok(())
    }
}

/// What a delta says of things outside it.
#[derive(Default)]
struct Outside {
    deleted: Vec<(u64, u32)>,
    beside: Vec<Beside>,
    spaces: Runs<Claim>,
    room: Room,
}

impl Outside {
    /// Notes a client of which something is deleted; it may come to be named, too.
    fn delete(&mut self, client: u64, end: u32) -> Result<(), GuardError> {
        self.room.take(2 * size_of::<(u64, u32)>())?;
        push(&mut self.deleted, (client, end));
        Ok(())
    }

    /// Notes that an item outside must be what its claim says, and may come to be named. `Like` the next number leaves it open.
    fn claim(&mut self, beside: Beside) -> Result<(), GuardError> {
        self.room.take(size_of::<Beside>() + size_of::<(u64, u32)>())?;
        push(&mut self.beside, beside);
        Ok(())
    }

    /// Two items of the delta lie in one chain.
    fn same(&mut self, a: Claim, b: Claim) -> Result<(), GuardError> {
        let (n, claim) = match (a.says(), b.says()) {
            (a, b) if a == b => return Ok(()),
            (Says::Like(n), _) => (n, b),
            (_, Says::Like(n)) => (n, a),
            _ => return Err(GuardError::TornItem),
        };
        let known = *self.beside.get(n).ok_or(GuardError::TornItem)?;
        self.claim(Beside { claim, ..known })
    }
}

/// The name space of an item of a delta, which has told `spaces` of its clocks from `first` on so far.
fn place(
    client: u64,
    first: u32,
    item: Item<'_>,
    spaces: &Runs<Claim>,
    outside: &mut Outside,
) -> Result<Claim, GuardError> {
    let neighbours = [item.head.left, item.head.right].into_iter().flatten();
    let inside = |id: Id| id.client == client && id.clock >= first;
    // Items are made beside what exists: a client's own later clocks cannot be neighbours.
    if neighbours.clone().any(|id| inside(id) && id.clock >= item.start) {
        return Err(GuardError::UnknownClock);
    }
    let claim = match item.head.space {
        Some(space) => Claim::is(space),
        None => match neighbours.clone().find(|id| inside(*id)).and_then(|id| spaces.at(id.clock)) {
            Some(claim) if claim == Claim::is(Space::Registers) => return Err(GuardError::TornItem),
            Some(claim) => claim,
            None => Claim::like(outside.beside.len()).ok_or(GuardError::TooMany)?,
        },
    };
    for id in neighbours {
        if inside(id) {
            outside.same(claim, spaces.at(id.clock).ok_or(GuardError::UnknownClock)?)?;
        } else {
            outside.claim(Beside { client: id.client, clock: id.clock, claim })?;
        }
    }
    Ok(claim)
}

/// How many sections follow: the head of an update.
pub(super) fn sections(cursor: &mut Cursor<'_>) -> Result<u32, GuardError> {
    cursor.count(SECTION_MIN)
}

/// Reads one client's structs, and shows each to `visit` in the order of their clocks.
pub(super) fn section<'a>(
    cursor: &mut Cursor<'a>,
    visit: &mut dyn FnMut(u64, Item<'a>) -> Result<(), GuardError>,
) -> Result<OwnRange, GuardError> {
    let count = cursor.count(STRUCT_MIN)?;
    if count == 0 {
        return Err(GuardError::Empty);
    }
    let client = client(cursor)?;
    let start = cursor.var_u32()?;
    let mut clock = start;
    for _ in 0..count {
        let bytes = cursor.rest();
        let head = head(cursor)?;
        let end = advance(clock, content(cursor, head.kind)?)?;
        visit(client, Item { bytes, head, start: clock, end })?;
        clock = end;
    }
    Ok(OwnRange { client, start, end: clock })
}

/// The structs of the section that these bytes begin with, in the order of their clocks.
pub(super) fn structs(bytes: &[u8]) -> Result<impl Iterator<Item = Result<Item<'_>, GuardError>>, GuardError> {
    let mut cursor = Cursor::new(bytes);
    let count = cursor.count(STRUCT_MIN)?;
    client(&mut cursor)?;
    let mut clock = cursor.var_u32()?;
    let next = move |_| {
        let bytes = cursor.rest();
        let head = head(&mut cursor)?;
        let start = clock;
        clock = advance(start, content(&mut cursor, head.kind)?)?;
        Ok(Item { bytes, head, start, end: clock })
    };
    Ok((0..count).map(next))
}

/// Reads a struct up to its content.
pub(super) fn head(cursor: &mut Cursor<'_>) -> Result<Head, GuardError> {
    let info = cursor.u8()?;
    let (keyed, kind) = (info & HAS_KEY != 0, info & KIND);
    let space = match kind {
        DELETED | VALUES if keyed => Some(Space::Registers),
        DELETED => None,
        VALUES => Some(Space::Sequences),
        TEXT if !keyed => Some(Space::Texts),
        _ => return Err(GuardError::BadContent),
    };
    if info & UNUSED != 0 {
        return Err(GuardError::BadContent);
    }
    let left = if info & HAS_ORIGIN != 0 { Some(id(cursor)?) } else { None };
    let right = if info & HAS_RIGHT != 0 { Some(id(cursor)?) } else { None };
    if left.is_none() && right.is_none() {
        let space = Some(root(cursor, keyed, space)?);
        return Ok(Head { left, right, space, kind });
    }
    // A register's newest entry is the right end of its chain: nothing was ever to the right of a new one.
    if keyed && right.is_some() {
        return Err(GuardError::TornItem);
    }
    Ok(Head { left, right, space, kind })
}

/// Reads the root that the first item of a chain bears. Its name tells the space, and must tell what the item says.
fn root(cursor: &mut Cursor<'_>, keyed: bool, said: Option<Space>) -> Result<Space, GuardError> {
    match cursor.var_u32()? {
        0 => return Err(GuardError::Nested),
        1 => {}
        _ => return Err(GuardError::BadNumber),
    }
    let name = cursor.string()?.as_bytes();
    let space = match name {
        b"r" => Space::Registers,
        [b'q', ..] if name.len() <= ROOT_NAME_MAX => Space::Sequences,
        [b't', ..] if name.len() <= ROOT_NAME_MAX => Space::Texts,
        _ => return Err(GuardError::BadRoot),
    };
    if said.is_some_and(|said| said != space) || keyed != (space == Space::Registers) {
        return Err(GuardError::TornItem);
    }
    if keyed {
        cursor.string()?;
    }
    Ok(space)
}

/// The root that the first item of a chain bears, and its key there.
pub(super) fn root_of(item: &[u8]) -> Result<(&str, Option<&str>), GuardError> {
    let mut cursor = Cursor::new(item);
    let keyed = cursor.u8()? & HAS_KEY != 0;
    cursor.var_u32()?;
    Ok((cursor.string()?, if keyed { Some(cursor.string()?) } else { None }))
}

/// Passes over an item's content, and says how many clocks it takes.
fn content(cursor: &mut Cursor<'_>, kind: u8) -> Result<u32, GuardError> {
    let len = match kind {
        DELETED => cursor.var_u32()?,
        TEXT => utf16_len(cursor.string()?)?,
        _ => {
            let count = cursor.count(1)?;
            for _ in 0..count {
                value(cursor, 0)?;
            }
            count
        }
    };
    if len == 0 { Err(GuardError::Empty) } else { Ok(len) }
}

/// Text takes a clock per UTF-16 unit: one per character, two beyond the basic plane (four bytes in UTF-8).
fn utf16_len(text: &str) -> Result<u32, GuardError> {
    let units: usize = text.bytes().map(|b| usize::from(b & 0xc0 != 0x80) + usize::from(b >= 0xf0)).sum();
    u32::try_from(units).map_err(|_| GuardError::ClockOverflow)
}

pub(super) fn value(cursor: &mut Cursor<'_>, depth: usize) -> Result<(), GuardError> {
    match cursor.u8()? {
        120 | 121 | 126 | 127 => {}
        125 => cursor.skip_int()?,
        124 => _ = cursor.take(4)?,
        122 | 123 => _ = cursor.take(8)?,
        119 => _ = cursor.string()?,
        116 => _ = cursor.buffer()?,
        tag @ (117 | 118) => {
            if depth == VALUE_DEPTH_MAX {
                return Err(GuardError::TooDeep);
            }
            let keyed = tag == 118;
            let count = cursor.count(if keyed { 2 } else { 1 })?;
            for _ in 0..count {
                if keyed {
                    cursor.string()?;
                }
                value(cursor, depth + 1)?;
            }
        }
        _ => return Err(GuardError::BadContent),
    }
    Ok(())
}

/// Reads the delete set, and shows each client in it with one past the highest clock deleted; whether a client comes twice is
/// for the caller to see.
pub(super) fn deletes(
    cursor: &mut Cursor<'_>,
    visit: &mut dyn FnMut(u64, u32) -> Result<(), GuardError>,
) -> Result<(), GuardError> {
    let clients = cursor.count(DELETES_MIN)?;
    for _ in 0..clients {
        let client = client(cursor)?;
        let ranges = cursor.count(RANGE_MIN)?;
        let mut end = 0;
        for n in 0..ranges {
            let start = cursor.var_u32()?;
            if n > 0 && start < end {
                return Err(GuardError::BadRange);
            }
            let len = cursor.var_u32()?;
            if len == 0 {
                return Err(GuardError::Empty);
            }
            end = advance(start, len)?;
        }
        visit(client, end)?;
    }
    Ok(())
}

fn id(cursor: &mut Cursor<'_>) -> Result<Id, GuardError> {
    let client = client(cursor)?;
    let clock = cursor.var_u32()?;
    if clock < CLOCK_END { Ok(Id { client, clock }) } else { Err(GuardError::ClockOverflow) }
}

fn client(cursor: &mut Cursor<'_>) -> Result<u64, GuardError> {
    let client = cursor.var_u64()?;
    if client < CLIENT_END { Ok(client) } else { Err(GuardError::BadClient) }
}

fn advance(clock: u32, len: u32) -> Result<u32, GuardError> {
    clock.checked_add(len).filter(|end| *end <= CLOCK_END).ok_or(GuardError::ClockOverflow)
}
