//! The engine of `migrate-eu-users`: carries out what `relocation` decides, on two live clusters.
//!
//! A run is written down in the source's journal and nowhere else, so it goes on from any machine. Lanes claim batches
//! and lead each user from home to home: stage, copy, prove, release, activate.

mod batch;
mod change;
mod collect;
mod control;
mod ends;
mod event;
mod failpoint;
mod handover;
pub mod journal;
mod lane;
mod layout;
mod mend;
mod mismatch;
mod older;
pub mod plan;
mod purge;
mod reconcile;
mod reconnect;
mod referred;
mod rows;
mod run;
mod shared;
mod ship;
pub mod status;
pub mod survey;
mod terms;
mod throttle;
mod verify;
mod work;

pub use ends::{End, Ends, MOVER_ROLE, Purpose};
pub use event::Event;
pub use failpoint::{Hold, Point, UnknownPoint};
pub use journal::{Chosen, Remaining};
pub use mismatch::{Difference, Mismatch, Row};
pub use purge::{Ending, Erased, Erasure, Evidence, Slot, Step, TableEvidence, Unquiet, purge};
pub use reconcile::{Reconciled, reconcile_routes};
pub use run::{Ended, How, Pause, Task, run};
pub use terms::{MOST_USERS, Terms};
pub use throttle::Throttle;
pub use verify::{Check, Found, Only, Selection, Strangers, Verified, Wrong, verify};
