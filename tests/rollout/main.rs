//! deploy-region, rollback-region and region-host against real sshds, HAProxies and processes: what they bring, what
//! they refuse, and what is true after something broke in the middle.

#![expect(
    clippy::unwrap_used,
    reason = "clippy allows it in test functions, not in what they call"
)]

mod bad_input;
mod bad_release;
mod cancelled;
mod commit;
mod deploy;
mod github;
mod host_state;
mod jump;
mod killed;
mod lock;
mod rollback;
mod ssh;
mod support;
mod under_load;
