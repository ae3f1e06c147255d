//! The host's clocks: time since boot for deadlines, the wall clock for people.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use regionwise_protocol::Denial;
use regionwise_rollout::lease::BootTime;
use rustix::time::{ClockId, clock_gettime};

use crate::deny::OrDeny;

/// Time since boot, suspend included, and which boot it was.
pub(crate) fn boot_time() -> Result<BootTime, Denial> {
    let path = "/proc/sys/kernel/random/boot_id";
    let boot_id = fs::read_to_string(path).or_host(|| format!("cannot read `{path}`"))?;
    let now = clock_gettime(ClockId::Boottime);
    let ms = u64::try_from(now.tv_sec).unwrap_or(0) * 1000
        + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000;
    Ok(BootTime {
        boot_id: boot_id.trim().to_owned(),
        ms,
    })
}

/// RFC 3339 with milliseconds, UTC.
pub(crate) fn stamp() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

/// Milliseconds since 1970.
pub(crate) fn wall_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
