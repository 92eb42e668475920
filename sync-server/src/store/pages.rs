//! The pages of the database file, read beside the library: do they have the checksums that it gave them?
//!
//! ```text
//!   header ── primary slot ─┬─ data root ──► tree of tables ──► a tree for each table ──► leaves
//!                           └─ system root ─► the same, for what the library keeps for itself
//! ```
//!
//! A slot and a table's row hold the number and the checksum of a root page, a branch those of its children. So a page
//! whose checksum is right has numbers and lengths that the library wrote; one whose checksum is wrong is damaged, and nothing
//! below it is looked at. The layout is redb's format 3 (its `docs/design.md`); that this file reads it as the
//! library does is tested by flipping bits (at the end). What is read is not kept: memory is one branch page for each level of
//! a tree, and `CHUNK` bytes.

use std::cmp::Ordering;
use std::io::ErrorKind;

use twox_hash::XxHash3_128;

use super::StoreError;
use super::disk::Look;

/// Bytes of a page that are read at once.
pub(super) const CHUNK: usize = 64 << 10;
/// The length of the library's header, and of one of its two commit slots.
pub(super) const HEADER: usize = 320;
const SLOT: usize = 128;
const MAGIC: &[u8] = b"redb\x1A\x0A\xA9\x0D\x0A";
/// Bits of the byte behind it: which slot counts; that it was synced before it counted.
const PRIMARY: u8 = 1;
const TWO_PHASE: u8 = 4;
/// The layout that is read here.
const VERSION: u8 = 3;
const PAGE: u64 = 4096;
/// Pages are 2^n times `PAGE`; the library makes none larger than this.
const ORDER_MAX: u64 = 20;
/// A branch is split when it is larger than a page, and keys have at most some hundred bytes.
const BRANCH_BYTES_MAX: usize = 1 << 20;
/// Levels of a tree. Each has at least twice the leaves of the one below.
const DEPTH_MAX: usize = 64;
/// Tables that are looked at; a store has far fewer.
const TABLES_MAX: usize = 64;

/// What is wrong with a page of which the disk has lost a sector.
pub(super) const LOST: &str = "the disk cannot read it";

/// How the keys of a table are ordered.
pub(super) type Order = fn(&[u8], &[u8]) -> Ordering;

/// A page, and the checksum that it has to have.
#[derive(Clone, Copy, Debug)]
struct Child {
    number: u64,
    checksum: u128,
}

/// Where pages lie: redb's regions.
#[derive(Clone, Copy, Debug)]
struct Geometry {
    header_pages: u64,
    region_pages: u64,
}

impl Geometry {
    /// The first byte and the length of a page; `None`: there can be no such page.
    fn place(self, number: u64) -> Option<(u64, u64)> {
        let order = number >> 59;
        if order > ORDER_MAX {
            return None;
        }
        let (index, region) = (number & (0xF_FFFF >> order), (number >> 20) & 0xF_FFFF);
        let first = (index << order) + self.header_pages;
        // At most 2^20 regions of 2^21 pages.
        let page = 1 + region * (self.header_pages + self.region_pages) + first;
        (first < self.header_pages + self.region_pages).then_some((page * PAGE, PAGE << order))
    }
}

/// The header, read and found whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    geometry: Geometry,
    data: Option<Child>,
    system: Option<Child>,
}

impl Header {
    /// Reads it. `Err`: what is damaged.
    pub fn read(look: &dyn Look) -> Result<Result<Header, String>, StoreError> {
        let mut bytes = [0; HEADER];
        match fill(look, 0, &mut bytes)? {
            Ok(()) => Header::decode(&bytes),
            Err(why) => Ok(Err(format!("the file's header: {why}"))),
        }
    }

    /// `Err`: what is damaged; a version that is not known is no damage.
    fn decode(bytes: &[u8; HEADER]) -> Result<Result<Header, String>, StoreError> {
        let (head, slots) = bytes.split_at(64);
        let broken = |what: &str| Ok(Err(format!("the file's header: {what}")));
        if !head.starts_with(MAGIC) {
            return broken("it is not a database's");
        }
        let state = head[MAGIC.len()];
        let (first, second) = slots.split_at(SLOT);
        let (primary, other) = if state & PRIMARY == 0 { (first, second) } else { (second, first) };
        let whole = |slot: &[u8]| XxHash3_128::oneshot(&slot[..SLOT - 16]).to_le_bytes() == slot[SLOT - 16..];
        if !whole(primary) {
            return broken("the newest commit's checksum is wrong");
        }
        if primary[0] != VERSION {
            return Err(StoreError::Failed(format!("pages of version {} are not known here", primary[0])));
        }
        // Without two phases the newer one counts after a crash. With two there may be one that never came to count.
        if state & TWO_PHASE == 0 && whole(other) && number(other, 104) > number(primary, 104) {
            return broken("it shows an older commit");
        }
        let geometry = Geometry { header_pages: small(head, 16), region_pages: small(head, 20) };
        if small(head, 12) != PAGE || geometry.header_pages > 1 << 20 || !(1..=1 << 20).contains(&geometry.region_pages)
        {
            return broken("sizes that there are not");
        }
        let root = |there: usize, at: usize| (primary[there] != 0).then(|| child(primary, at));
        Ok(Ok(Header { geometry, data: root(1, 8), system: root(2, 40) }))
    }
}

/// Integers of a page that is long enough; 0 beyond its end.
fn number(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn small(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u64::from(u32::from_le_bytes(*bytes)))
}

/// A page's number and, behind it, its checksum.
fn child(bytes: &[u8], at: usize) -> Child {
    Child { number: number(bytes, at), checksum: wide(bytes, at + 8) }
}

fn wide(bytes: &[u8], at: usize) -> u128 {
    u128::from(number(bytes, at)) | u128::from(number(bytes, at + 8)) << 64
}

/// The widths of keys and values, where all have the same.
#[derive(Clone, Copy, Debug)]
struct Shape {
    key: Option<usize>,
    value: Option<usize>,
}

/// A page whose checksum is right.
enum Node {
    Leaf,
    /// Its bytes, and how many keys are in it.
    Branch(Vec<u8>, usize),
}

/// A table of a tree of tables.
#[derive(Debug)]
struct Table {
    name: String,
    shape: Shape,
    root: Option<Child>,
}

/// How far a look through all trees has come; it goes on from there in the trees of a later commit.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Place {
    /// The table that is being looked at; those before it are done.
    table: String,
    /// In it, all up to this key is.
    key: Option<Vec<u8>>,
}

/// A page that is not as it was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Broken {
    /// Of this table; `None`: of the trees that tell where the tables are.
    pub table: Option<String>,
    /// It holds keys behind the first of these, up to the second, or leads to them.
    pub keys: (Option<Vec<u8>>, Option<Vec<u8>>),
    pub what: String,
}

/// A look through the trees of one commit.
pub(super) struct Looking<'a> {
    look: &'a dyn Look,
    header: Header,
    /// Ends when so many bytes were read; at least one leaf further than it began.
    step_bytes: u64,
    /// Ends there also in a table that has no order, whose rest is left out then.
    cuts: bool,
    pub bytes: u64,
    pub pages: u64,
    pub broken: Vec<Broken>,
    chunk: Vec<u8>,
}

/// Where in a tree: keys behind the first, up to the second.
type Keys<'k> = (Option<&'k [u8]>, Option<&'k [u8]>);

impl<'a> Looking<'a> {
    pub fn new(look: &'a dyn Look, header: Header, step_bytes: u64) -> Looking<'a> {
        let chunk = vec![0; CHUNK];
        Looking { look, header, step_bytes, cuts: false, bytes: 0, pages: 0, broken: Vec::new(), chunk }
    }

    /// The library's own trees, in one go: they are overwritten with the next commit. False: there was more than a step, which
    /// was left out.
    pub fn system(&mut self) -> Result<bool, StoreError> {
        let tables = self.tables(self.header.system)?;
        self.cuts = true;
        for table in tables {
            if self.bytes >= self.step_bytes || !self.table(&table, None, &mut None)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The trees of the store's tables, from a place on: where the next step begins; `None`: all are done.
    pub fn data(&mut self, from: &Place, order: impl Fn(&str) -> Option<Order>) -> Result<Option<Place>, StoreError> {
        let mut tables = self.tables(self.header.data)?;
        tables.retain(|table| table.name >= from.table);
        for table in tables {
            let name = table.name.clone();
            let mut key = if name == from.table { from.key.clone() } else { None };
            let order = order(&name);
            if !self.table(&table, order, &mut key)? {
                return Ok(Some(Place { table: name, key }));
            }
        }
        Ok(None)
    }

    /// The tables that a tree of tables tells of, by name.
    fn tables(&mut self, root: Option<Child>) -> Result<Vec<Table>, StoreError> {
        let mut tables = Vec::new();
        if let Some(root) = root {
            let shape = Shape { key: None, value: None };
            self.tree(root, shape, None, None, &mut None, (None, None), 0, &mut |leaf| {
                read_tables(leaf, &mut tables);
            })?;
        }
        Ok(tables)
    }

    /// One table. False: there is more of it, behind `done`. Without an order it is looked at as a whole.
    fn table(&mut self, table: &Table, order: Option<Order>, done: &mut Option<Vec<u8>>) -> Result<bool, StoreError> {
        let Some(root) = table.root else { return Ok(true) };
        self.tree(root, table.shape, Some(&table.name), order, done, (None, None), 0, &mut |_| {})
    }

    /// A tree, from a page down. `leaf` is shown leaves of one chunk.
    #[allow(clippy::too_many_arguments, reason = "one recursion")]
    fn tree(
        &mut self,
        at: Child,
        shape: Shape,
        table: Option<&str>,
        order: Option<Order>,
        done: &mut Option<Vec<u8>>,
        keys: Keys<'_>,
        depth: usize,
        leaf: &mut dyn FnMut(&[u8]),
    ) -> Result<bool, StoreError> {
        let node = if depth < DEPTH_MAX { self.node(at, shape)? } else { Err("a tree has too many levels".to_owned()) };
        match node {
            Ok(Node::Branch(bytes, count)) => {
                let key = |n: usize| branch_key(&bytes, count, shape.key, n);
                for n in 0..=count {
                    let behind = if n == 0 { keys.0 } else { key(n - 1) };
                    let up_to = if n == count { keys.1 } else { key(n) };
                    // `done` is where a child ended, here or in the tree as it was.
                    let is_done = match (order, up_to, done.as_deref()) {
                        (Some(order), Some(up_to), Some(done)) => order(up_to, done) != Ordering::Greater,
                        _ => false,
                    };
                    if is_done {
                        continue;
                    }
                    let child = Child {
                        number: number(&bytes, 8 + 16 * (count + 1) + 8 * n),
                        checksum: wide(&bytes, 8 + 16 * n),
                    };
                    if !self.tree(child, shape, table, order, done, (behind, up_to), depth + 1, leaf)? {
                        return Ok(false);
                    }
                }
                return Ok(true);
            }
            Ok(Node::Leaf) => leaf(&self.chunk),
            Err(what) => {
                let keys = (keys.0.map(<[u8]>::to_vec), keys.1.map(<[u8]>::to_vec));
                self.broken.push(Broken { table: table.map(str::to_owned), keys, what });
            }
        }
        if self.bytes < self.step_bytes {
            return Ok(true);
        }
        match keys.1.filter(|_| order.is_some()) {
            Some(up_to) => {
                *done = Some(up_to.to_vec());
                Ok(false)
            }
            None => Ok(!self.cuts),
        }
    }

    /// Reads a page. `Err` within: how it is damaged.
    fn node(&mut self, at: Child, shape: Shape) -> Result<Result<Node, String>, StoreError> {
        let Some((offset, len)) = self.header.geometry.place(at.number) else {
            return Ok(Err("a page lies where none can be".to_owned()));
        };
        self.pages += 1;
        let damaged = |what: &str| Ok(Err(format!("the page at byte {offset}: {what}")));
        let first = usize::try_from(len).map_or(CHUNK, |len| len.min(CHUNK));
        if let Err(why) = self.read(offset, first)? {
            return damaged(why);
        }
        let count = usize::from(u16::from_le_bytes([self.chunk[2], self.chunk[3]]));
        let is_branch = match self.chunk[0] {
            1 => false,
            2 => true,
            _ => return damaged("it is of no kind"),
        };
        let Some(ends) = count.checked_sub(1).map(|last| end(is_branch, count, shape, last)) else {
            return damaged("nothing is in it");
        };
        let end = match ends {
            End::Of(end) => end,
            // Where the last of them ends stands in the page.
            End::At(at, more) => {
                let mut four = [0; 4];
                match self.chunk.get(at..at + 4).filter(|_| at + 4 <= first) {
                    Some(bytes) => four.copy_from_slice(bytes),
                    None if at as u64 + 4 > len => return damaged("it ends beyond its end"),
                    None => {
                        self.bytes += 4;
                        if let Err(why) = fill(self.look, offset + at as u64, &mut four)? {
                            return damaged(why);
                        }
                    }
                }
                u32::from_le_bytes(four) as usize + more
            }
        };
        if end as u64 > len || is_branch && end > BRANCH_BYTES_MAX {
            return damaged("it ends beyond its end");
        }
        let mut branch = Vec::new();
        let mut hash = XxHash3_128::new();
        let mut done = 0;
        while done < end {
            let piece = (end - done).min(first);
            if let Err(why) = if done > 0 { self.read(offset + done as u64, piece)? } else { Ok(()) } {
                return damaged(why);
            }
            hash.write(&self.chunk[..piece]);
            if is_branch {
                branch.extend_from_slice(&self.chunk[..piece]);
            }
            done += piece;
        }
        if hash.finish_128() != at.checksum {
            return damaged("its checksum is wrong");
        }
        Ok(Ok(if is_branch { Node::Branch(branch, count) } else { Node::Leaf }))
    }

    /// Fills the first bytes of the chunk. `Err` within: why they are not there.
    fn read(&mut self, offset: u64, len: usize) -> Result<Result<(), &'static str>, StoreError> {
        self.bytes += len as u64;
        fill(self.look, offset, &mut self.chunk[..len])
    }
}

/// Reads from the file. `Err` within: why it is not there, which is damage.
fn fill(look: &dyn Look, offset: u64, out: &mut [u8]) -> Result<Result<(), &'static str>, StoreError> {
    match look.read(offset, out) {
        Ok(()) => Ok(Ok(())),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(Err("the file ends before it")),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => Ok(Err(LOST)),
        Err(error) => Err(StoreError::io(error)),
    }
}

/// Where what counts of a page ends.
enum End {
    Of(usize),
    /// At the number that stands there, and so many bytes.
    At(usize, usize),
}

fn end(is_branch: bool, count: usize, shape: Shape, last: usize) -> End {
    if is_branch {
        let children = 8 + 24 * (count + 1);
        return match shape.key {
            Some(width) => End::Of(children + width * count),
            None => End::At(children + 4 * last, 0),
        };
    }
    let keys = if shape.key.is_none() { 4 * count } else { 0 };
    let values = if shape.value.is_none() { 4 * count } else { 0 };
    match (shape.key, shape.value) {
        (_, None) => End::At(4 + keys + 4 * last, 0),
        (None, Some(width)) => End::At(4 + 4 * last, width * count),
        (Some(key), Some(value)) => End::Of(4 + keys + values + (key + value) * count),
    }
}

/// A key of a branch whose checksum is right.
fn branch_key(bytes: &[u8], count: usize, width: Option<usize>, n: usize) -> Option<&[u8]> {
    let children = 8 + 24 * (count + 1);
    match width {
        Some(width) => bytes.get(children + width * n..children + width * (n + 1)),
        None => {
            let begins = if n == 0 { children + 4 * count } else { small(bytes, children + 4 * (n - 1)) as usize };
            bytes.get(begins..small(bytes, children + 4 * n) as usize)
        }
    }
}

/// The rows of a leaf whose checksum is right, of a tree of tables. A larger one than a chunk there is not.
fn read_tables(leaf: &[u8], tables: &mut Vec<Table>) {
    let count = usize::from(u16::from_le_bytes([leaf[2], leaf[3]]));
    let (keys, values) = (4, 4 + 4 * count);
    let mut key = values + 4 * count;
    let mut value = small(leaf, keys + 4 * (count - 1)) as usize;
    for n in 0..count {
        let (key_end, value_end) = (small(leaf, keys + 4 * n) as usize, small(leaf, values + 4 * n) as usize);
        let row = leaf.get(key..key_end).zip(leaf.get(value..value_end));
        if let Some((name, row)) = row.filter(|_| tables.len() < TABLES_MAX) {
            let width = |at: usize| (row.get(at) == Some(&1)).then(|| small(row, at + 1) as usize);
            tables.push(Table {
                name: String::from_utf8_lossy(name).into_owned(),
                shape: Shape { key: width(42), value: width(47) },
                // Of a kind of table that is not used here, the root is not looked at.
                root: (row.first() == Some(&3) && row.get(9) == Some(&1)).then(|| child(row, 10)),
            });
        }
        (key, value) = (key_end, value_end);
    }
}

#[cfg(test)]
mod tests;
