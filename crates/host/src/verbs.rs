//! What a controller, the dead-man and the boot ask of a host, one file per verb.

mod commit;
mod drain;
mod lock;
mod prepare;
mod settle;
mod status;
mod target;

pub(crate) use prepare::Health;
