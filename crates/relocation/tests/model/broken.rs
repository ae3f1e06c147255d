//! Rules that are left out or done wrongly, one at a time: each must make the model fail, alone or with its partner.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    // The fence.
    /// Writers take no home lock.
    WriterNoLock,
    /// The owner is not looked up again after its home lock was had (A1).
    NoSecondLookup,
    /// A change of owner takes the home locks shared (A1).
    GiveShared,
    /// A change of owner takes the home locks shared and upgrades them: deadlock.
    GiveUpgrades,
    /// A new owner's lock is waited for although it sorts before one that is held: deadlock.
    WaitOutOfOrder,
    /// A change of owner does not touch `rev`: no 40001 under REPEATABLE READ.
    NoRevBump,

    // change().
    /// The digest comes from a snapshot older than the lock.
    OldSnapshot,
    /// The lock is not taken: at the release, when the token is raised, at the activation.
    ReleaseNoLock,
    RaiseNoLock,
    ActivateNoLock,
    /// No digest is compared: at the release, at the activation.
    ReleaseNoDigest,
    ActivateNoDigest,
    /// The batch's claim is not checked: at the release, at a reopening.
    ReleaseNoClaim,
    ReopenNoClaim,
    /// The release or the reopening sets whatever it finds.
    ReleaseAnyState,
    ReopenAnyState,
    /// The activation accepts any token, an epoch that is not above the target's, any state.
    ActivateAnyToken,
    ActivateAnyEpoch,
    ActivateAnyState,
    /// Staging does not look at the row that is there, or at its token.
    StageAnyState,
    StageAnyToken,

    // The order of steps.
    /// The target is activated before the source has released.
    ActivateFirst,
    /// The source is opened again before the target is cancelled.
    ReopenFirst,
    /// A take-over that finds a cancel stages again.
    RestageCancelled,
    /// The cancel keeps the target's epoch instead of taking the release's.
    CancelKeepsEpoch,
    /// The release keeps the source's epoch.
    ReleaseKeepsEpoch,
    /// The new epoch is only above the source's.
    ReleaseBehindTarget,
    /// Rows are purged before the target is active.
    PurgeEarly,

    // The mover's rows.
    /// The mover writes at the target without the home lock (A2).
    CopyNoLock,
    /// ... in any state, with any token.
    CopyAnyState,
    CopyAnyToken,
    /// A mover that lost a connection goes on with the same token, although its call or its COMMIT may still arrive.
    KeepsToken,
    PurgeNoLock,
    /// ... with any token, of any run; for any epoch; in any state.
    PurgeAnyToken,
    PurgeAnyEpoch,
    PurgeAnyState,
    /// That a purge has begun is not journalled with its first delete.
    PurgeForgets,
    /// The last delta's fence and the release are on two connections.
    FenceElsewhere,
    /// A take-over terminates the older backends before it raises the token.
    TerminateFirst,

    // After a promotion.
    /// S opens at once.
    NoReconcile,
    /// S opens after the epochs were compared.
    EpochsOnly,
    /// S opens at once, but every session declares the epoch that its router remembers.
    Declared,
    /// The token is raised to one above what is left, not to a new generation.
    NoGeneration,
}
