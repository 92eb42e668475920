//! The edge: the byte buffers that cross between JavaScript and wasm, one in, one out, per call.
//!
//! Crossing per property is what makes wasm CRDTs slow, so a whole transaction crosses as one *batch*, and everything that
//! came of a call comes back as one buffer of *records*. JavaScript keeps a mirror of plain values; objects are named on the
//! edge by small numbers (*handles*, per segment; 0 is the segment's first object), segments by an *index* (0 is the root).
//! Primitives are those of `WIRE.md` §2. `js/src/edge.ts` is the other end of this page.
//!
//! # Calls
//!
//! An instance that trapped is not called again: JavaScript makes another, which goes on from what it was told to keep.
//!
//! `new Replica(options)`, then `call(op, input) → records`. Every input starts with `now_ms:varint` (a monotonic clock).
//!
//! ```text
//! options := seed:32 bytes of entropy  heap:str  name:str  flags:varint (bit 0: must exist)  max_unsaved:varint (bytes, 0: no limit)
//! op  0 tick
//! op  1 commit      entropy:8 bytes  label:str  sections:list(section)
//!                                                           → Committed | Error (then nothing happened)
//! op  2 receive     message: the rest                        one WebSocket message
//! op  3 connected   entropy:32 bytes  token:str              → Send(hello)
//! op  4 disconnected
//! op  5 load        list(segment:id derived:u8)              → Index for each, Loaded now or later; derived 1: a missing one is an empty map;
//!                                                           or Error: there is no room for so many
//! op  6 evict       segment:varint                           → Evicted, or nothing if it may not go (unacknowledged edits)
//! op  7 wait        ticket:varint kind:u8 [version:str]      kind 0 flush · 1 sync · 2 version · 3 reach(version) → Done | Failed, now or later
//! op  8 cancel      ticket:varint
//! op  9 dump        segment:varint                           → Loaded with the whole state as the engine has it (tests compare mirrors with it)
//! op 10 derive      parent:id count:varint name:str          → Derived: segments of a partitioned map, number 0 … count−1
//! op 11 join        ticket:varint group:str run:str total:varint held:list(key:str grant:varint) done:list(str)
//!                                                           → Joined or Failed later
//! op 12 leave       group:str run:str
//! op 13 claim       ticket:varint group:str run:str key:str  → Claimed later
//! op 14 release     group:str run:str key:str grant:varint
//! op 15 presence    group:str clear:u8 state:bytes
//! op 16 object      segment:varint handle:varint             → Object with the object's id
//! op 17 find        segment:varint object:id                 → Object with its handle
//! op 18 stats                                                → Stats
//! op 19 export                                               → Packed: all of this replica (`replica/packed.rs`)
//! op 20 import      packed: the rest                         the first call of a replica in another instance: it goes on from there.
//!                                                           → Loaded (reset) for every segment, then as after `disconnected`; or Error
//! op 21 replaced                                             as `disconnected`, by a close with code 4009
//! op 22 resume      what was kept: the rest (`replica/outside.rs`)   the first call of a replica whose instance is lost; restores
//!                                                           follow; then as after `disconnected`; or Error
//! op 23 restore     segment:varint kept: the rest            → Loaded (reset) | Error
//! op 24 keep        segment:varint                           → Keep of all of it, in few bytes
//! op 25 pack        segment:varint mirrored:u8               it may be here as bytes; 0: its mirror is forgotten → AtRest, or nothing, as
//!                                                           with what is not saved or not here
//!
//! Entropy is the operating system's, drawn for that call: a copy of the process (a restored snapshot of its machine) has the
//! same memory, and must not draw the same ids.
//!
//! section := target claim?:u8 [group:str run:str key:str grant:varint] edits:bytes
//! target  := index+1:varint | 0 segment:id engine:u8
//!            0: a new segment, its first edit is `root`; it gets an index (Index record); engine 0 yrs · 1 automerge (history)
//! ```
//!
//! # Values and edits
//!
//! ```text
//! value := 0 null · 1 false · 2 true · 3 f64 · 4 zigzag:varint (a number that is an integer) · 5 str · 6 zigzag:varint (a bigint)
//!        · 7 f64 (a Date, its ms) · 8 bytes · 9 segment:id has_object:u8 [object:id] (a Ref)
//!   in a batch:  10 kind:u8 content   a new container; it takes the next handle of its segment, before what is in it
//!                content: map list(key:str value) · list list(value) · text str · counter f64 · set list(value)
//!   in patches:  10 kind:u8 handle:varint
//! kind  := 0 map · 1 list · 2 text · 3 counter · 4 set
//!
//! edit := 1 set      handle key:str value          a key of a map
//!       | 2 delete   handle key:str
//!       | 4 insert   handle index:varint list(value)
//!       | 5 remove   handle index:varint count:varint
//!       | 6 put      handle index:varint value     replaces the element there
//!       | 7 move     handle from:varint to:varint  `to` is the index it has afterwards
//!       | 8 splice   handle index:varint removed:varint inserted:str      a text; UTF-16 units
//!       | 9 add      handle f64                    a counter
//!       | 10 include handle value                  a set
//!       | 11 exclude handle value
//!       | 12 root    value                         what a new segment's first object is: a container (handle 0)
//!       | 14 default handle key:str value          `initial`: only if the key has neither a value nor a default
//!       | 15 mark    group:str run:str             `done()`: the segment's work for this run is done
//!       | 16 near    object:id value               a container that nothing holds, under a fresh id that the caller drew
//! ```
//!
//! The handles of a batch continue where the segment's last handle ended; both sides count. Patches name the handles of
//! objects that came from elsewhere (always the next free numbers too).
//!
//! ```text
//! patch := 1 set · 2 delete · 4 insert · 5 remove · 6 put · 7 move · 8 splice · 10 include · 11 exclude   as above, values with handles
//!        | 9 total  handle f64       a counter's new value
//!        | 12 root  kind:u8          kind of handle 0
//!        | 13 clear handle           forget the content of this object: all of it follows
//!        | 15 mark  group:str run:str
//!        | 16 near  object:id kind:u8 handle:varint   an object that is there although nothing holds it
//! ```
//!
//! # Records
//!
//! ```text
//! record := kind:u8 body:bytes
//!  1 Send       message                                     to the socket, as it is
//!  2 Apply      offset:varint author:id name:str subject:str label:str list(segment:varint patches:bytes)
//!                                                           a commit of another replica became visible, all at once
//!  3 Loaded     segment:varint status:u8 bytes:varint reset:u8 patches:bytes
//!                                                           status 0 there · 1 never existed · 2 deleted · 3 quarantined · 4 forbidden; `bytes`: its encoded size;
//!                                                           reset 1: it was there before, the patches are all it holds now
//!  4 Committed  seq:varint unsaved:varint unsaved_bytes:varint list(segment:varint patches:bytes)
//!                                                           patches: where the result is not what was asked for
//!  5 Acked      seq:varint unsaved:varint unsaved_bytes:varint   of this replica: durable
//!  6 Online     exists:u8 time_ms:varint epoch:str
//!  7 Done       ticket:varint version:str
//!  8 Failed     ticket:varint code:str message:str
//!  9 Refused    seq:varint code:str label:str list(segment:varint)       undone; Loaded records (reset) follow
//! 10 Problem    code:str message:str                        an `error` event
//! 11 Deadline   ms:varint                                   call `tick` at this time
//! 12 Index      segment:id index:varint
//! 13 Evicted    segment:varint
//! 14 Derived    list(id)
//! 15 Object     handle+1:varint (0: not there) object:id kind:u8
//! 16 Joined     group:str run:str member:varint
//! 17 Group      group:str run:str members:list(id) done:list(str) held:list(key:str member:varint)
//! 18 Claimed    ticket:varint group:str run:str key:str grant:varint state:u8 (0 granted · 1 held · 2 done)
//! 19 Lost       group:str run:str key:str grant:varint
//! 20 Member     group:str replica:id gone:u8 since_ms:varint name:str subject:str state:bytes
//! 21 Stats      list(varint): commits, refused, quarantined, deltas in, deltas out, bytes in, bytes out, rebuilds, segments, live bytes
//! 22 Fatal      code:str message:str                        the connection is not to be opened again (refused credentials …)
//! 23 NeedsFull segment:varint                               its engine is not in this module: a loaded one stays as loading,
//!                                                           a commit that was to make it did nothing (Error ERR_ENGINE
//!                                                           follows). Export, go on in the full module, repeat that commit
//! 24 Packed     bytes                                       for `import`
//! 25 Overruled segment:varint parent:varint key:str lost:varint kept:kind
//!                                                           under `key` of `parent`, at once with the own container `lost`, another
//!                                                           replica made one of the kind `kept`, which is there now; told once.
//!                                                           What was lost is what the mirror's node of `lost` last showed
//! 26 Forked    replica:id moved:varint copied:u8            this replica's id from here on: another process used the old one
//!                                                           (`copied` 1), or the relay knows nothing of that any more. Its
//!                                                           connection is over, `moved` unsaved commits went with it
//! 27 InDoubt   list(seq:varint label:str edits:str)         the relay cannot say whether it has these commits; they are not made
//!                                                           again, Loaded records (reset) follow. `edits` is JSON (`edge/doubt.rs`)
//! 28 Reconnect                                              the connection is over: another is to be opened at once
//! 29 Restoring begins:u8                                    1: what is here is being given back to a relay that has lost it; until 0, no wait
//!                                                           ends, and nothing is evicted
//! 30 Keep      0 lives | 1 place | 2 seq:varint commit | 3 segment:varint anew:u8 segment | 4 anew:u8 made     (the rest of the record each)
//!                                                           kept outside of the instance, for `resume` and `restore`. lives, place,
//!                                                           commit of a seq: in the place of the last one; segment, made: behind
//!                                                           what is kept of it, or, anew 1, in its place. A commit goes
//!                                                           with its Acked, Refused or InDoubt, or where nothing is in it;
//!                                                           a segment with Evicted, or Loaded with a status that is not 0
//! 31 Conflict  segment:varint                              the relay has lost part of its log, and what it has of this segment stays: Loaded
//!                                                           (reset) follows. What the mirror shows until then is nowhere else
//! 32 Copied    segment:varint copy: the rest               no call asks for one yet: copies are for stores, which are to come
//! 33 AtRest    segment:varint                              it is here as bytes, as `pack` asked. Without a mirror it is loaded to be read, which
//!                                                           answers at once; Loaded also comes where its document is needed otherwise
//! 34 Awake     segment:varint                              it was here as bytes, with a mirror, and is decoded again
//! 255 Error     code:str message:str                        the call did nothing
//! ```

mod doubt;
mod input;
mod output;

pub use input::{BadCall, options, read};
pub use output::write;
