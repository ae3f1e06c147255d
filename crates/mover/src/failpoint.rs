//! Named points at which a test can hold a mover and kill it, stop it or cut its connections.
//!
//! `REGIONWISE_HOLD_AT=NAME` or `NAME#3` (the third time) makes the process create the file `REGIONWISE_HOLD_FILE` when
//! it comes to that point, and wait until somebody removes the file. Without the two variables every point is one look
//! at an empty option. The points stand in [`Point`], in the order of the protocol; the crash matrix goes through all.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A place in the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// C1: the run is written down, no batch is claimed.
    Prepared,
    /// C2: a batch is claimed, nothing is at the target.
    Claimed,
    /// C3: the target's routes say `staging`, no row is there.
    Staged,
    /// C4: the first table is copied, in an open transaction.
    Copying,
    /// C4: every row is copied and proven, not committed.
    Copied,
    /// C5, C6: the copy is committed.
    Shipped,
    /// C7, C9: before the commit point is sent.
    Releasing,
    /// C10: the source has let go, the target has not taken over.
    Released,
    /// C11: the target serves, nothing is written down about it.
    Activated,
    /// C8: rows that changed since the copy are at the target, in an open transaction.
    Mending,
    /// C8: they are committed.
    Mended,
    /// P7 failed: the target's route is cancelled, the source's not yet open again.
    Cancelled,
    /// C12: the batch's users are written down as moved.
    Recorded,
    /// C13: a chunk of the purge is deleted, not committed.
    Purging,
    /// C13: a chunk of the purge is committed.
    Purged,
}

impl Point {
    pub const ALL: [Self; 15] = [
        Self::Prepared,
        Self::Claimed,
        Self::Staged,
        Self::Copying,
        Self::Copied,
        Self::Shipped,
        Self::Releasing,
        Self::Released,
        Self::Activated,
        Self::Mending,
        Self::Mended,
        Self::Cancelled,
        Self::Recorded,
        Self::Purging,
        Self::Purged,
    ];

    pub const fn word(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Claimed => "claimed",
            Self::Staged => "staged",
            Self::Copying => "copying",
            Self::Copied => "copied",
            Self::Shipped => "shipped",
            Self::Releasing => "releasing",
            Self::Released => "released",
            Self::Activated => "activated",
            Self::Mending => "mending",
            Self::Mended => "mended",
            Self::Cancelled => "cancelled",
            Self::Recorded => "recorded",
            Self::Purging => "purging",
            Self::Purged => "purged",
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Where to hold, if anywhere.
#[derive(Debug, Default)]
pub struct Hold(Option<Armed>);

#[derive(Debug)]
struct Armed {
    point: Point,
    /// Visits that are let through before.
    before: AtomicU32,
    file: PathBuf,
}

/// The two variables do not make sense.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` names no point; accepted are {1}, with #N for the N-th time, and REGIONWISE_HOLD_FILE beside it"
)]
pub struct UnknownPoint(String, String);

impl Hold {
    /// `at` and `file` are the values of the two variables.
    ///
    /// # Errors
    /// When `at` names no point, or only one of the two is given.
    pub fn parse(at: Option<&str>, file: Option<&str>) -> Result<Self, UnknownPoint> {
        let Some(at) = at else {
            return Ok(Self(None));
        };
        let unknown = || {
            let words: Vec<&str> = Point::ALL.iter().map(|point| point.word()).collect();
            UnknownPoint(at.to_owned(), words.join(", "))
        };
        let (word, nth) = at.split_once('#').unwrap_or((at, "1"));
        let point = Point::ALL
            .into_iter()
            .find(|point| point.word() == word)
            .ok_or_else(unknown)?;
        let nth = u32::from_str(nth)
            .ok()
            .filter(|nth| *nth > 0)
            .ok_or_else(unknown)?;
        let file = file.ok_or_else(unknown)?;
        Ok(Self(Some(Armed {
            point,
            before: AtomicU32::new(nth - 1),
            file: PathBuf::from(file),
        })))
    }

    /// Waits here when this is the visit that was asked for.
    pub(crate) async fn at(&self, point: Point) {
        let Some(armed) = self.0.as_ref().filter(|armed| armed.point == point) else {
            return;
        };
        let due = armed
            .before
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                Some(left.wrapping_sub(1))
            });
        if due != Ok(0) {
            return;
        }
        if std::fs::write(&armed.file, point.word()).is_err() {
            return;
        }
        while armed.file.exists() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Hold, Point};

    #[test]
    fn every_point_is_found_by_its_word() {
        for point in Point::ALL {
            assert!(
                Hold::parse(Some(point.word()), Some("/tmp/x")).is_ok(),
                "{point}"
            );
        }
    }

    #[test]
    fn a_point_that_is_not_there_is_named_with_those_that_are() {
        let error = Hold::parse(Some("nowhere"), Some("/tmp/x")).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("nowhere") && text.contains("released"),
            "{text}"
        );
        assert!(Hold::parse(Some("claimed#0"), Some("/tmp/x")).is_err());
        assert!(Hold::parse(Some("claimed"), None).is_err());
    }

    #[tokio::test]
    async fn only_the_visit_that_was_asked_for_is_held() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("held");
        let hold = Hold::parse(Some("staged#2"), file.to_str()).unwrap();
        hold.at(Point::Staged).await;
        hold.at(Point::Claimed).await;
        assert!(!file.exists());
        let held = hold.at(Point::Staged);
        let release = async {
            while !file.exists() {
                tokio::task::yield_now().await;
            }
            std::fs::remove_file(&file).unwrap();
        };
        tokio::join!(held, release);
        hold.at(Point::Staged).await;
        assert!(!file.exists());
    }
}
