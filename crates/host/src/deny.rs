//! From an I/O error to a denial that says what could not be done.

use std::fmt;

use regionwise_protocol::{Denial, DenialKind};

/// The host, not the release: disk, proxy, process.
pub(crate) fn host(text: impl Into<String>) -> Denial {
    Denial::new(DenialKind::Host, text)
}

/// The request does not fit this host.
pub(crate) fn invalid(text: impl Into<String>) -> Denial {
    Denial::new(DenialKind::Invalid, text)
}

/// A safety rule forbids it.
pub(crate) fn refused(text: impl Into<String>) -> Denial {
    Denial::new(DenialKind::Refused, text)
}

/// State that cannot be read; never taken for an empty host.
pub(crate) fn corrupt(text: impl Into<String>) -> Denial {
    Denial::new(DenialKind::Corrupt, text)
}

/// Names the failed action of an error.
pub(crate) trait OrDeny<T> {
    fn or_host(self, action: impl FnOnce() -> String) -> Result<T, Denial>;
}

impl<T, E: fmt::Display> OrDeny<T> for Result<T, E> {
    fn or_host(self, action: impl FnOnce() -> String) -> Result<T, Denial> {
        self.map_err(|error| host(format!("{}: {error}", action())))
    }
}
