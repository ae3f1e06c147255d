//! Decisions of a rollout: verdicts, switch, health, lag, history. Pure: facts and time are arguments.

pub mod deployment;
pub mod health;
pub mod history;
pub mod jobs;
pub mod lag;
pub mod lease;
pub mod paused;
pub mod protection;
pub mod region;
pub mod release;
pub mod slot;
mod spoken;
pub mod streak;
pub mod switch;
pub mod verdict;

pub use spoken::spoken;
pub use verdict::Verdict;
