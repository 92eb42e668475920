//! Every bound in the system, with its reason. Nothing that comes from the network or a disk is allocated, counted or
//! followed before it was compared with one of these. Read beside `WIRE.md`.

/// One WebSocket message. Large enough for a commit of [`COMMIT_BYTES_MAX_RELAY`] with room for its header.
pub const FRAME_BYTES_MAX: usize = 2 << 20;
/// One commit, encoded, at the replica that makes it.
pub const COMMIT_BYTES_MAX: usize = 1 << 20;
/// One commit at the relay: a redo may have made it larger than the writer's bound.
pub const COMMIT_BYTES_MAX_RELAY: usize = 3 << 19;
/// One value (string, bytes), encoded.
pub const VALUE_BYTES_MAX: usize = 256 * 1024;
/// A key of a map or of a `BigMap`, in UTF-8.
pub const KEY_BYTES_MAX: usize = 4096;
/// A segment past this raises an event.
pub const SEGMENT_BYTES_SOFT: usize = 8 << 20;
/// A segment past this takes no more writes.
pub const SEGMENT_BYTES_HARD: usize = 64 << 20;
/// One piece of a long message: small enough that live commits wait little behind it.
pub const CHUNK_BYTES_MAX: usize = 256 * 1024;
/// A whole long message: one hard-limit segment with its deltas.
pub const LONG_BYTES_MAX: usize = 80 << 20;
/// Long messages under way in one direction of one connection.
pub const LONG_STREAMS_MAX: usize = 64;
/// Pieces of Restores that one heap's relay keeps, and those that it is merging, over which the next one waits. One alone may be
/// as long as any long message.
pub const RESTORE_BYTES_MAX: usize = 3 * LONG_BYTES_MAX;
/// The states of one Restored with their headers: a long message to who follows all of them. One state of
/// [`SEGMENT_BYTES_HARD`] always has room.
pub const RESTORED_BYTES_MAX: usize = LONG_BYTES_MAX - 64;
/// Commits that a Restore lists as held by its states and not acknowledged.
pub const RESTORE_PENDING_MAX: usize = 65_536;
/// Commits that have ended and that a replica remembers, of all its lines.
pub const ENDED_MAX: usize = 2 * WINDOW;
/// Commits of which a Restore says what is in them: those and the pending ones.
pub const RESTORE_KNOWN_MAX: usize = ENDED_MAX + RESTORE_PENDING_MAX;
/// The header of a generation.
pub const GENERATION_HEADER_BYTES_MAX: usize = 1 << 20;
/// Own ids a session may present: its own and the dead ones whose unsaved commits it took over.
pub const OWN_IDS_MAX: usize = 64;
/// Segments one connection may follow.
pub const FOLLOWS_MAX: usize = 65_536;
/// Segments a replica has here or asks for: under [`FOLLOWS_MAX`], so that its relay never has to decline one.
pub const FOLLOWS_MAX_REPLICA: usize = FOLLOWS_MAX - 2;
/// Bytes queued for one connection that has not taken them, over which it is closed. What the log and loads have for it waits
/// at a sixteenth of this; the rest is for answers, which are sent at once.
pub const QUEUED_BYTES_MAX: usize = 16 << 20;
/// Acks, refusals and answers to Syncs that wait for one connection's stream. An honest one has at most [`WINDOW`] commits under
/// way for each of its [`OWN_IDS_MAX`] ids.
pub const OWED_MAX: usize = 4 * WINDOW * OWN_IDS_MAX;
/// Later parts of a quarantined client id that one entry names: a segment is folded long before it has so many deltas.
pub const QUARANTINE_LATER_MAX: usize = 65_536;
/// Quarantined parts that a segment's table names, so that they are left out of entries that are sent from the log. What is
/// older than these is reported again, and its reporter loads the segment without it.
pub const QUARANTINED_MAX: usize = 4096;
/// Deltas that a worker process takes of one segment. A relay asks for a fold when there are 256, and after each that fails when there
/// are twice as many: this many have failed twelve times.
pub const WORKER_DELTAS_MAX: usize = 1 << 20;
/// Segments that one connection may have reported and not been answered about.
pub const REPORTS_MAX: usize = 64;
/// Parts of one commit.
pub const PARTS_MAX: usize = 4096;
/// A commit's label.
pub const LABEL_BYTES_MAX: usize = 1024;
/// A replica's display name.
pub const NAME_BYTES_MAX: usize = 256;
/// A token.
pub const TOKEN_BYTES_MAX: usize = 8192;
/// A heap's name, as in the URL, percent-encoded.
pub const HEAP_NAME_BYTES_MAX: usize = 128 * 3;
/// A group's or run's name, and a claimed key.
pub const CLAIM_NAME_BYTES_MAX: usize = 512;
/// Claims one group keeps.
pub const CLAIMS_MAX: usize = 65_536;
/// Groups one connection may be a member of, and as many that it may show itself to.
pub const GROUPS_PER_CONN_MAX: usize = 64;
/// Groups one heap keeps at one time.
pub const GROUPS_MAX: usize = 16_384;
/// Memory for the claims of one heap, about.
pub const CLAIM_MEMORY_MAX: usize = 64 << 20;
/// Joins and claims that wait for the end of the time after a restart in which nothing is granted anew, about.
pub const DEFERRED_BYTES_MAX: usize = 8 << 20;
/// What the answers to the claims of one Join may come to: it names each with its group and run.
pub const JOIN_ANSWER_BYTES_MAX: usize = 4 << 20;
/// A member's presence state.
pub const PRESENCE_BYTES_MAX: usize = 16 * 1024;
/// Commits a replica may have sent without an acknowledgement; also the relay's memory of a line (CORE-PROTOCOL `W`).
pub const WINDOW: usize = 256;
/// How long the line of an id is kept after its last entry (CORE-PROTOCOL §2), in milliseconds: 30 days. Who comes back later
/// with commits that it has no answer for is told that they are in doubt (§14.5).
pub const ROW_RETENTION_MS: u64 = 30 * 24 * 3_600_000;
/// So many idle lines are dropped at once, in one transaction of the store; the others a minute later.
pub const LINES_DROPPED_MAX: usize = 4096;
/// Epochs kept in the table that an Ok carries.
pub const EPOCHS_MAX: usize = 4096;
/// Depth of a value: containers within containers, in one assignment.
pub const VALUE_DEPTH_MAX: usize = 64;
/// Own creations that a segment remembers, to tell the program of one that another kind won over. They are kept in a list that is
/// searched; older ones are seldom met by anybody who has not seen them.
pub const CREATIONS_MAX: usize = 1024;
/// Edits in one engine transaction (yrs takes quadratic time over long ones).
pub const EDITS_PER_TRANSACTION_MAX: usize = 1000;
/// Bytes of deltas that are queued for a segment that a replica holds packed; more are merged into it.
pub const PACKED_QUEUE_BYTES_MAX: usize = 64 * 1024;
/// How many such entries; to keep one apart costs some hundred bytes.
pub const PACKED_QUEUE_MAX: usize = 256;
