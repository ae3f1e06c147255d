//! Brings a project of the provider to where a plan wants it, and back.
//!
//! What is decided is decided in `regionwise-provision`; here orders are sent, in the order in which resources need each
//! other, and every doubt about one is settled by a look before it is sent again. There is no state file: a run that was
//! killed anywhere is gone on with by planning anew. A new server's first session is in `session.rs`.

mod apply;
mod birth;
mod destroy;
mod purse;
mod rebuild;
mod session;
mod stopped;

pub use apply::{Done, Run, apply};
pub use birth::{Birth, NoKey};
pub use destroy::{Doomed, Gone, destroy, doomed};
pub use purse::Purse;
pub use rebuild::rebuild;
pub use session::{Seat, Settled, Unmet, first_session, relabel};
pub use stopped::{Stopped, Why};

use regionwise_hetzner::Hetzner;
use regionwise_provision::{Inventory, Wanted};

/// A line for whoever watches.
pub type Narrator<'a> = &'a dyn Fn(&str);

/// One project as it stands.
pub struct Project<'a> {
    pub hetzner: Hetzner<'a>,
    pub wanted: Vec<Wanted>,
    pub inventory: Inventory,
    /// Id of the certificate that the load balancer names.
    pub certificate: Option<i64>,
}
