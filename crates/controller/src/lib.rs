//! The controller of one region: connects to its hosts and leads them through a switch as one.
//!
//! `deploy-region`, `rollback-region` and `preflight` share it. It talks to `region-host` over ssh and to the product
//! over HTTP; what the answers mean is decided in `regionwise-rollout`. It prints nothing: every step is told to a
//! [`Narrator`], every operation ends in an [`Ending`].

mod close;
mod deploy;
mod ending;
mod hosts;
mod obstacles;
mod release;
mod rollback;
mod status;
mod unreached;
mod verify;

pub use close::close;
pub use deploy::{Deploy, deploy};
pub use ending::{Ending, HostEnding};
pub use hosts::{Access, Hosts, NotOpened, Operation, outcome};
pub use obstacles::{Limits, Obstacle, obstacles};
pub use release::{Release, ReleaseError};
pub use rollback::{Rollback, rollback};
pub use status::{Consistency, consistency, drifted};
pub use unreached::not_opened;

/// Is told what happens, one sentence at a time.
pub type Narrator<'a> = &'a (dyn Fn(&str) + Sync);
