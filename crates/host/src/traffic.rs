//! The two map files. The active one is the truth about traffic; a switch exchanges them in one step.

use std::fs;

use regionwise_protocol::Denial;
use regionwise_rollout::slot::Slot;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::deny::{OrDeny, corrupt};
use crate::durable;
use crate::layout::Layout;

/// What a map file says: a slot, or that nothing serves.
pub(crate) fn text(slot: Option<Slot>) -> String {
    format!("active {}\n", backend(slot))
}

/// HAProxy's name of a slot. `bk_unset` answers 503.
pub(crate) fn backend(slot: Option<Slot>) -> &'static str {
    match slot {
        Some(Slot::Blue) => "bk_blue",
        Some(Slot::Green) => "bk_green",
        None => "bk_unset",
    }
}

/// Reads a backend's name; the outer `None` is a name that we never wrote.
pub(crate) fn slot_of(backend: &str) -> Option<Option<Slot>> {
    [Some(Slot::Blue), Some(Slot::Green), None]
        .into_iter()
        .find(|slot| self::backend(*slot) == backend)
}

/// The slot that the active map names.
pub(crate) fn active(layout: &Layout) -> Result<Option<Slot>, Denial> {
    let path = layout.active_map();
    let text = fs::read_to_string(&path).or_host(|| format!("cannot read `{}`", path.display()))?;
    text.trim_end()
        .strip_prefix("active ")
        .and_then(slot_of)
        .ok_or_else(|| {
            // HAProxy takes an empty map for "use the default": 503 for everybody.
            corrupt(format!("`{}` does not name a slot", path.display()))
                .with_hint("region-host reconcile")
        })
}

/// Writes the standby map: where the next exchange leads.
pub(crate) fn prepare(layout: &Layout, slot: Option<Slot>) -> Result<(), Denial> {
    durable::replace(layout, &layout.standby_map(), text(slot).as_bytes(), 0o644)
}

/// Exchanges the maps. Needs no space: both files exist.
pub(crate) fn exchange(layout: &Layout) -> Result<(), Denial> {
    let action = || "cannot exchange the traffic maps".to_owned();
    renameat_with(
        CWD,
        layout.active_map(),
        CWD,
        layout.standby_map(),
        RenameFlags::EXCHANGE,
    )
    .or_host(action)?;
    durable::sync_directory(&layout.root().join("traffic")).or_host(action)
}
