//! Faults put into the machines on purpose, one at a time and by name: what the checks of the simulator are worth shows in how
//! soon they notice each of them (`cargo xtask mutate`, `tests/README.md`).
//!
//! Only with the feature `mutate`, which nothing that ships has. Without it [`on`] is `false` when the compiler sees it, and
//! nothing of a mutation is left in the code.

#[cfg(feature = "mutate")]
use std::cell::Cell;

/// A rule that is not kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Mutation {
    /// R3: acknowledge what has been appended, before the disk has synced.
    AckBeforeSync,
    /// R4: deliver up to the head, not up to what is durable.
    DeliverUndurable,
    /// R4: pass over an entry now and then.
    SkipEntry,
    /// R4: answer two entries in each other's place when the log is read from the disk.
    ReplayOutOfOrder,
    /// P3: deliver the first part of a commit alone.
    SplitCommit,
    /// R5: leave the parts out of every entry of a connection's own ids, also of one that another connection brought.
    OwnPartsLeftOut,
    /// R1: let an earlier connection of the same replica go on.
    NoFence,
    /// R1: take a life of the log to go on up to the head, not up to where the next one began.
    EndlessEpoch,
    /// R2a: append what the log has already.
    ForgetAdmitted,
    /// R2a: of several appends that are written together, keep a line as the first of them has it.
    OldestRow,
    /// R2b: take the next number of a line whatever comes before it.
    AnyPrev,
    /// R2d: take a commit whatever it must come after.
    AnyAfter,
    /// R6: answer a Hello before the epoch is on the disk.
    HelloBeforeEpoch,
    /// R6: go on in the epoch of the life before.
    SameEpoch,
    /// R7: give a load the durable state, not the one at its stream's position.
    SnapshotAtDurable,
    /// R8: drop log that a stream still needs.
    FoldPastStreams,
    /// R8: drop, with the deltas below a fold's position, the one at it.
    FoldOneMore,
    /// Lose the newest delta when deltas are folded into a snapshot, and check that snapshot against the rest alone.
    FoldLoses,
    /// P5: do not sync what the store writes.
    NoSync,
    /// Read a record of the store whatever its checksum says.
    SkipChecksum,
    /// Read records of the store one after another whatever their chain says.
    SkipChain,
    /// P5: take a write that the disk had no room for, for written.
    FullIsWritten,
    /// C2: forget what is not acknowledged when the connection is lost.
    ForgetUnacknowledged,
    /// C3: do not send again after a reconnect what was sent before.
    NoResend,
    /// C4: apply what an entry does to one segment, and not what it does to the others.
    ApplyOneSegment,
    /// C4: lose a delta now and then.
    LoseDelta,
    /// R10: admit what comes whatever its clocks are.
    RelayTakesAnyClock,
    /// R10, C4: apply what comes whatever its clocks are.
    ReplicaTakesAnyClock,
    /// C6: put the cut one entry ahead of what is applied.
    CutAhead,
    /// C5: after a fold that overtook a catch-up, read the rest of it at a later position.
    CatchUpInParts,
    /// C7: send again what was made anew in another generation, and not what lies behind it.
    ResendRedoneOnly,
    /// L5: take every stored copy for what the log has below its position.
    AnyCopy,
    /// L2: take any answer to a load, not only that to the newest request.
    AnyNonce,
    /// L3: let a document that is loaded anew stand still until its answer is here.
    LoadingStandsStill,
    /// L3: send a snapshot without saying how far the stream is.
    SnapshotUntold,
    /// L3: show a loaded segment without what came while it was loading.
    LoadWithoutBuffer,
    /// L3: show a loaded segment without own unacknowledged commits.
    LoadWithoutOwn,
    /// L6: forget what came to a segment while it was packed.
    PackedWithoutQueue,
    /// R11: keep showing what was refused.
    KeepRefused,
    /// R11: let the line behind a refused commit name that commit.
    KeepPrev,
    /// R11: apply a redone commit beside its first version.
    RedoBeside,
    /// R11: take a claim that nobody holds any more for current.
    LapsedClaim,
    /// R12: leave a part out, and let its client id go on.
    BarNobody,
    /// R12: do not report again what the relay had no time to look at.
    ReportOnce,
    /// T1: end a flush when its commits have been sent.
    FlushWhenSent,
    /// T2: compare the positions of versions without their epochs.
    VersionWithoutEpoch,
    /// D1: do not give back what the relay's disk has lost.
    GiveNothingBack,
    /// F1: take what a copy of this process did for this process's own.
    CopyUnseen,
    /// G5, §2: send again what a log that has dropped idle lines may have had.
    ForgetUnsaid,
    /// L4: evict a segment that an unacknowledged commit touches.
    EvictPending,
    /// R2e: admit a commit that was made against an older generation.
    AnyGeneration,
    /// G1: append a generation that was made before the newest entries of its segment.
    RollOverEntries,
    /// G1: say of every line that it was one shorter.
    StaleIncluded,
    /// G3: make every pending commit anew in a new generation, also one that is in it.
    RedoIncluded,
    /// D6: make generations right after a start, and after a restore.
    RollWhileHeld,
    /// D4: adopt a generation over what was written since.
    AdoptOverEntries,
    /// D4: take an adopted generation's header for one that has every line.
    AdoptedIsWhole,
    /// D4: answer every other generation with a conflict.
    AdoptNothing,
    /// R4: do not say how far the stream is to who has nothing of an entry.
    NoAdvance,
    /// R4: take the number of a segment for declared when an entry with a part of it went out without that part.
    NamedUnseen,
    /// R3: acknowledge what comes again after a reconnect at once, whether or not its first is durable.
    DuplicateAtOnce,
    /// R1: know a life of the log by its counter alone.
    EpochByCounter,
    /// C10: do not let who creates a segment follow it.
    CreatorLeftOut,
    /// L1: let a connection follow a segment when its state is sent, not when it is asked for.
    FollowLate,
    /// R5: remember where commits of a connection were that the disk had no room for.
    MineWhenFull,
    /// R11: let a line go on from the uid of a refused commit, not from its complement.
    VoidKeepsUid,
    /// G1: do not put a segment's new generation into its row on the disk.
    GenerationUnwritten,
    /// D4: do not tell who follows a segment by its id that a Restored has created it.
    RestoredUnborn,
    /// C2: take an Ack for every line of this replica.
    AckOfAnyLine,
    /// C1: let a new commit come after the oldest pending one of older ids, not after the newest.
    AfterOldest,
    /// R11: after a Busy, send that commit again, and nothing that was sent behind it.
    BusyAlone,
    /// T3: take a version at the very end of its epoch for lost.
    LostAtEnd,
    /// T1: keep the position of the newest Ack when the log that it is of is lost.
    AckedOfLostLog,
    /// C9: send the pending commits of a store under the new id.
    StoredAsOwn,
    /// C4: tell of an entry segment by segment.
    TellBySegment,
    /// G3: let a commit that was made anew name the generation that it was first made for.
    RedoNamesOld,
    /// F2: move to the new id also what lies before the place where the lines part.
    MoveWholeLine,
    /// D4: see nothing new in what was given back if it has only removed something.
    MergeWithoutRemovals,
    /// G4: leave the generation's header out when a segment is folded.
    FoldWithoutHeader,
    /// R7: answer with the newest snapshot when it is of a later position than was asked for.
    StateOfFold,
    /// R8: take the log to begin at 0 after a start.
    FloorForgotten,
    /// R10: of several appends that are written together, keep the clock tables of the last one alone.
    NewestClocks,
    /// R4: let who is no longer live because of a Roll or a Restored go on behind it, not at it.
    RollPassedBy,
    /// R7, L3: say of a snapshot that it is of the position at which it is sent, not of the one at which it was read.
    SnapshotDatedLate,
    /// R7: make a catch-up at the head, not at what is durable.
    CatchUpAtHead,
    /// R3: go on owing the Acks of commits that the disk had no room for.
    OwedWhenFull,
    /// R11: do not put a refused commit into its line's row on the disk.
    VoidUnwritten,
    /// R10, D4: do not count in a segment's clock table what was given back of it.
    RestoredUncounted,
    /// R8: move the floor by what the folded segment needs of the log, whatever the others need.
    FloorOfOne,
    /// L5: go on from a copy of before a fold, with what that has left of the deltas.
    SinceOverFold,
    /// R6: know after a start no life of the log but the last one before it.
    OneEpoch,
    /// T1: take the newest life on the disk for the lineage, not the first.
    LineageOfNewest,
    /// R11, C7: send what lies behind a refused commit before it is made anew.
    SendUnmade,
    /// T2: take a version of an epoch that is not known here for lost, without waiting for an answer of the relay.
    LostUnasked,
    /// P5: fail for a refused commit a flush that waits for just that one, and not one that waits for later ones, too.
    FlushPastRefusal,
    /// L2: take a segment that was evicted and loaded again for one that is still given up, when its Roll comes.
    GivenUpForGood,
    /// C2: let an Ack end what stands at the front of all pending commits, and not what lies behind another line.
    AckAtFront,
    /// P1: do not show that somebody else has deleted a key that its map was created with.
    DeletionUnseen,
    /// P1: leave what was added here out of a counter's total when somebody else adds to it.
    OwnSumUncounted,
    /// G3: of several additions to one counter that are made anew, keep the last one alone.
    RedoAddsOnce,
}

/// All of them.
pub const ALL: [Mutation; 100] = {
    use Mutation::*;
    [
        AckBeforeSync,
        DeliverUndurable,
        SkipEntry,
        ReplayOutOfOrder,
        SplitCommit,
        OwnPartsLeftOut,
        NoFence,
        EndlessEpoch,
        ForgetAdmitted,
        OldestRow,
        AnyPrev,
        AnyAfter,
        HelloBeforeEpoch,
        SameEpoch,
        SnapshotAtDurable,
        FoldPastStreams,
        FoldOneMore,
        FoldLoses,
        NoSync,
        SkipChecksum,
        SkipChain,
        FullIsWritten,
        ForgetUnacknowledged,
        NoResend,
        ApplyOneSegment,
        LoseDelta,
        RelayTakesAnyClock,
        ReplicaTakesAnyClock,
        CutAhead,
        CatchUpInParts,
        ResendRedoneOnly,
        AnyCopy,
        AnyNonce,
        LoadingStandsStill,
        SnapshotUntold,
        LoadWithoutBuffer,
        LoadWithoutOwn,
        PackedWithoutQueue,
        KeepRefused,
        KeepPrev,
        RedoBeside,
        LapsedClaim,
        BarNobody,
        ReportOnce,
        FlushWhenSent,
        VersionWithoutEpoch,
        GiveNothingBack,
        CopyUnseen,
        ForgetUnsaid,
        EvictPending,
        AnyGeneration,
        RollOverEntries,
        StaleIncluded,
        RedoIncluded,
        RollWhileHeld,
        AdoptOverEntries,
        AdoptedIsWhole,
        AdoptNothing,
        NoAdvance,
        NamedUnseen,
        DuplicateAtOnce,
        EpochByCounter,
        CreatorLeftOut,
        FollowLate,
        MineWhenFull,
        VoidKeepsUid,
        GenerationUnwritten,
        RestoredUnborn,
        AckOfAnyLine,
        AfterOldest,
        BusyAlone,
        LostAtEnd,
        AckedOfLostLog,
        StoredAsOwn,
        TellBySegment,
        RedoNamesOld,
        MoveWholeLine,
        MergeWithoutRemovals,
        FoldWithoutHeader,
        StateOfFold,
        FloorForgotten,
        NewestClocks,
        RollPassedBy,
        SnapshotDatedLate,
        CatchUpAtHead,
        OwedWhenFull,
        VoidUnwritten,
        RestoredUncounted,
        FloorOfOne,
        SinceOverFold,
        OneEpoch,
        LineageOfNewest,
        SendUnmade,
        LostUnasked,
        FlushPastRefusal,
        GivenUpForGood,
        AckAtFront,
        DeletionUnseen,
        OwnSumUncounted,
        RedoAddsOnce,
    ]
};

#[cfg(feature = "mutate")]
thread_local! {
    static NOW: Cell<Option<Mutation>> = const { Cell::new(None) };
}

/// From here on this thread's machines have this fault, or none.
#[cfg(feature = "mutate")]
pub fn set(mutation: Option<Mutation>) {
    NOW.set(mutation);
}

/// Whether the machines of this thread have this fault.
#[cfg(feature = "mutate")]
pub fn on(mutation: Mutation) -> bool {
    NOW.get() == Some(mutation)
}

/// No machine has any.
#[cfg(not(feature = "mutate"))]
#[inline(always)]
pub const fn on(_: Mutation) -> bool {
    false
}
