//! Rules of the fence, each with the text that it stands in and what is left when it is taken out. An attack that holds
//! must succeed once its rule is gone; else it shows nothing.

use crate::servers::Database;

/// Functions (a pattern of names), the text, and what replaces it.
pub(crate) type Rule = &'static [(&'static str, &'static str, &'static str)];

/// Whoever re-parents holds both users' locks exclusively.
pub(crate) const EXCLUSIVE: Rule = &[(
    "fence_.*",
    "    IF v_old = v_new THEN\n      v_above := regionwise.hold(v_new, false, v_above);",
    "    IF true THEN v_above := regionwise.hold(v_old, false, v_above);\n      v_above := regionwise.hold(v_new, false, v_above);",
)];

/// After the locks, users are looked up again.
pub(crate) const SECOND_LOOK: Rule = &[
    (
        "fence_.*",
        "EXIT WHEN v_old = v_held_old AND v_new = v_held_new;",
        "EXIT WHEN v_held_old IS NOT NULL;",
    ),
    (
        "fence_.*",
        "AND CASE TG_OP WHEN",
        "AND CASE 'none' WHEN 'none' THEN true WHEN",
    ),
];

/// A change of owner makes both routes newer.
pub(crate) const REVISION: Rule = &[
    (
        "fence_.*",
        "UPDATE regionwise.route r SET rev = r.rev + 1 WHERE r.usr = v_old RETURNING r.state, r.epoch, r.watch INTO v_old_state, v_old_epoch, v_old_watch",
        "SELECT r.state, r.epoch, r.watch INTO v_old_state, v_old_epoch, v_old_watch FROM regionwise.route r WHERE r.usr = v_old",
    ),
    (
        "fence_.*",
        "UPDATE regionwise.route r SET rev = r.rev + 1 WHERE r.usr = v_new RETURNING r.state, r.epoch, r.watch INTO v_state, v_epoch, v_watch",
        "SELECT r.state, r.epoch, r.watch INTO v_state, v_epoch, v_watch FROM regionwise.route r WHERE r.usr = v_new",
    ),
];

/// Snapshots of a transaction read the route FOR SHARE.
pub(crate) const SHARE: Rule = &[(
    "fence_.*",
    "    IF v_committed THEN\n",
    "    IF true THEN\n",
)];

/// The mover's transactions hold the home locks.
pub(crate) const MOVER_LOCK: Rule = &[(
    "enter",
    "PERFORM pg_advisory_xact_lock_shared(7701, hashtext(o.usr))",
    "PERFORM hashtext(o.usr)",
)];

/// Writers hold the home lock.
pub(crate) const WRITER_LOCK: Rule = &[
    (
        "fence_.*",
        "AND pg_try_advisory_xact_lock_shared(7701, hashtext(v_new)) THEN",
        "THEN",
    ),
    (
        "fence_.*",
        "v_above := regionwise.hold(v_new, false, v_above);",
        "NULL;",
    ),
];

/// One lock for all users after 256.
pub(crate) const GATE: Rule = &[
    (
        "fence_.*",
        "AND coalesce(left(current_setting('regionwise.last', true), 4), '') < '1256' COLLATE \"C\"",
        "",
    ),
    (
        "fence_.*",
        "(coalesce(nullif(left(current_setting('regionwise.last', true), 4), ''), '1000')::int + 1)",
        "1001",
    ),
];

/// A deleted row whose parent is gone passes.
pub(crate) const CASCADE_DELETE: Rule = &[(
    "fence_.*",
    "IF TG_OP = 'DELETE' THEN\n        RETURN OLD;",
    "IF TG_OP = 'DELETE' THEN\n        RAISE EXCEPTION 'no' USING ERRCODE = '23503';",
)];

/// A row that a foreign key updates belongs to the user who is still found.
pub(crate) const CASCADE_UPDATE: Rule = &[(
    "fence_.*",
    "ELSIF TG_OP = 'UPDATE' AND pg_trigger_depth() > 1 THEN",
    "ELSIF false THEN",
)];

/// What is remembered is forgotten with the transaction.
pub(crate) const FORGET: Rule = &[(
    "fence_.*",
    "|| '=' || v_new, true)",
    "|| '=' || v_new, false)",
)];

/// A declared session's statement compares its own snapshot with what holds under the lock.
pub(crate) const SNAPSHOT: Rule = &[(
    "declared_snapshot",
    "IF p_now IS DISTINCT FROM r.state || ':' || r.epoch THEN",
    "IF false THEN",
)];

/// Whoever waited is refused when the home has changed meanwhile.
pub(crate) const WAITED: Rule = &[(
    "hold",
    "IF v_before IS DISTINCT FROM v_after THEN",
    "IF false THEN",
)];

/// A sign-up tolerates that another one made the route.
pub(crate) const SIGN_UP: Rule = &[(
    "fence_0",
    "VALUES (v_new, 'home') ON CONFLICT DO NOTHING;",
    "VALUES (v_new, 'home');",
)];

/// The commit point does not wait for standbys.
pub(crate) const LOCAL_COMMIT: Rule = &[(
    "change",
    "PERFORM set_config('synchronous_commit', 'local', true);",
    "",
)];

/// A mover that has lost its claim is refused.
pub(crate) const CLAIM: Rule = &[(
    "change",
    "IF NOT FOUND THEN\n      RAISE EXCEPTION 'the claim",
    "IF false THEN\n      RAISE EXCEPTION 'the claim",
)];

/// The commit point and the activation compare digests, or seals.
pub(crate) const DIGEST: Rule = &[(
    "change",
    "AND CASE WHEN w.seal IS NULL THEN w.digest IS DISTINCT FROM d.digest ELSE w.seal IS DISTINCT FROM s.seal END THEN 'differs'",
    "AND false THEN 'differs'",
)];

impl Database {
    /// Takes rules out.
    pub(crate) async fn without(&self, rules: &[Rule]) {
        for (function, old, new) in rules.iter().copied().flatten() {
            self.weaken(function, old, new).await;
        }
    }
}
