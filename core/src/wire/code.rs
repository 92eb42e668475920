//! The numbered outcomes of `WIRE.md` §7: why a connection was closed or a commit was not taken.

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        /// Why a connection ends or a commit is not taken.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        #[non_exhaustive]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// Its number.
            pub fn number(self) -> u16 { match self { $(Code::$name => $code,)* } }
            /// The code of a number.
            pub fn from_number(number: u64) -> Option<Code> { match number { $($code => Some(Code::$name),)* _ => None } }
            /// One line for people.
            pub fn text(self) -> &'static str { match self { $(Code::$name => $text,)* } }
        }
    };
}

codes! {
    /// Text, or a message without frames.
    BadMessage = 1, "the message is not a coheap message";
    /// A frame that does not parse.
    BadFrame = 2, "a frame does not parse";
    /// Another protocol version.
    Version = 3, "this relay does not speak that version of the protocol";
    /// Over the limit of a message.
    MessageTooLarge = 4, "the message is too large";
    /// Token missing or wrong.
    Auth = 5, "the token is missing or not accepted";
    /// Known, but not allowed.
    Forbidden = 6, "not allowed";
    /// The heap does not exist, and was not to be created.
    NotFound = 7, "no such heap";
    /// No Hello in time.
    HelloTimeout = 8, "no hello came in time";
    /// Another connection of the same replica took over (R1).
    Replaced = 9, "another connection of this replica took over";
    /// A frame or situation this relay does not serve.
    Unsupported = 10, "not supported by this relay";
    /// The store failed.
    StoreFailed = 11, "the store failed";
    /// A heap name outside S17.
    BadName = 12, "that heap name is not allowed";
    /// The reader is too slow.
    SlowReader = 13, "the connection reads too slowly";
    /// The relay lost part of the log that this replica has.
    LogLost = 14, "the relay lost part of the log";
    /// What the relay has stored of the heap is damaged.
    Corrupt = 15, "the heap is damaged in the relay's store";
    /// The structure half of the guard.
    GuardStructure = 32, "a delta is not well formed";
    /// The clocks half of the guard.
    GuardClocks = 33, "a delta does not continue its author's clock";
    /// Over a limit.
    TooLarge = 34, "the commit is too large";
    /// The claim it stands on is no longer current.
    ClaimLost = 35, "the claim is no longer current";
    /// No right to write.
    NoRight = 36, "no right to write here";
    /// The segment is quarantined.
    Quarantined = 37, "the segment is quarantined";
    /// Over a number that a connection, or a heap, may have.
    TooMany = 38, "too many at one time";
    /// No room on disk.
    DiskFull = 48, "the relay's disk is full";
    /// Too fast.
    Rate = 49, "too many requests";
}

impl Code {
    /// The WebSocket close code, for codes that close.
    pub fn close_code(self) -> u16 {
        4000 + self.number()
    }
}
