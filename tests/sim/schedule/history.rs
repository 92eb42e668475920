//! What the programs of one heap did and saw, in the order it happened: all that [`super::checker`] is given. Nothing here
//! knows a replica, a relay or a log; processes, segments and commits are numbers.

use super::marks::Marks;

/// One process that had the heap open, ever; a restarted one is another.
pub type ProcessNo = usize;
/// A segment of the heap.
pub type SegmentNo = usize;
/// A commit of the heap.
pub type CommitNo = usize;

/// What a commit did to one segment.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Touch {
    /// Where.
    pub segment: SegmentNo,
    /// What it added to the segment's counter; 0 where it saw none.
    pub adds: i64,
    /// It made the segment's counter.
    pub makes_counter: bool,
    /// It did nothing but take away what this commit had left ([`super::removals`]).
    pub removes: Option<CommitNo>,
}

/// Something that somebody outside can see.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// A program made a commit, on top of what it had been shown until now.
    Made {
        /// Whose.
        process: ProcessNo,
        /// Which.
        commit: CommitNo,
        /// What it did.
        places: Vec<Touch>,
    },
    /// A program is shown a segment, all of it: marks, and the counter's value, if there is one.
    Shown {
        /// Whose.
        process: ProcessNo,
        /// Which.
        segment: SegmentNo,
        /// Whose marks are there.
        marks: Marks,
        /// The counter.
        sum: Option<i64>,
    },
    /// A segment is no longer here.
    Hidden {
        /// Whose.
        process: ProcessNo,
        /// Which.
        segment: SegmentNo,
    },
    /// One step of its replica is over: the program may look.
    Looks {
        /// Whose.
        process: ProcessNo,
    },
    /// It was told that its commit is durable.
    Acked {
        /// Whose.
        process: ProcessNo,
        /// Which.
        commit: CommitNo,
    },
    /// It was told that its commit is undone; segments in `still` show it until they are made anew.
    Refused {
        /// Whose.
        process: ProcessNo,
        /// Which.
        commit: CommitNo,
    },
    /// It was told that nobody can say whether the log has its commit (G5); it does not make that again.
    Doubted {
        /// Whose.
        process: ProcessNo,
        /// Which.
        commit: CommitNo,
    },
    /// It was given a version, by which another can wait for what it has seen.
    Version {
        /// Whose.
        process: ProcessNo,
        /// Numbers versions.
        version: usize,
    },
    /// A wait for a version ended well.
    Reached {
        /// Whose.
        process: ProcessNo,
        /// The version.
        version: usize,
    },
    /// A `flush()` of all it had made ended well.
    Flushed {
        /// Whose.
        process: ProcessNo,
        /// The last commit it had made, if any, when it asked.
        upto: Option<CommitNo>,
    },
    /// The process is gone.
    Ended {
        /// Which.
        process: ProcessNo,
    },
    /// A process was copied with all that it remembers; the copy is another process.
    Copied {
        /// Which.
        from: ProcessNo,
        /// The copy.
        process: ProcessNo,
    },
    /// A process begins over what another one had stored: what that one had made and was not told of is its own now.
    Reopened {
        /// Which.
        process: ProcessNo,
        /// All that was in the store and not known to be durable; refused ones that the store still showed, too.
        made: Marks,
    },
    /// The relay has lost its disk, or got an older one: these commits were durable, and are not on it.
    Lost {
        /// All of them.
        commits: Marks,
    },
    /// A generation was given back that has no part of these, and nobody was told that they are durable: their authors make that part
    /// anew, and until then the others show alone, and not to everybody who was shown all (§14.2).
    Superseded {
        /// All of them so far.
        commits: Marks,
    },
    /// The world has come to rest, and everybody who is left shows everything.
    Rest {
        /// What is in each segment, by number.
        log: Vec<Marks>,
    },
}

/// The label of a commit.
pub fn label(commit: CommitNo) -> String {
    format!("c{commit}")
}

/// The commit of a label, or of the key of its mark.
pub fn commit_of(label: &str) -> Option<CommitNo> {
    label.strip_prefix('c')?.parse().ok()
}
