//! Something is there once, whatever became of the answer that said so.

use std::time::Duration;

use tokio::time::sleep;

use crate::error::{Error, Kind};

/// A list that is read right after a write may not show it yet.
const SETTLE: Duration = Duration::from_secs(1);
/// What is lost twice will be lost again.
const TRIES: u32 = 2;

/// How it came to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ensured<T> {
    Already(T),
    Made(T),
}

impl<T> Ensured<T> {
    pub fn get(&self) -> &T {
        match self {
            Self::Already(value) | Self::Made(value) => value,
        }
    }
}

/// Looks, makes what is not there, and after a lost answer looks again before it makes anything a second time.
pub(crate) async fn ensure<T>(
    say: &dyn Fn(&str),
    look: impl AsyncFn() -> Result<Option<T>, Error>,
    make: impl AsyncFn() -> Result<T, Error>,
) -> Result<Ensured<T>, Error> {
    if let Some(there) = look().await? {
        return Ok(Ensured::Already(there));
    }
    for tries in 1.. {
        let lost = match make().await {
            Ok(made) => return Ok(Ensured::Made(made)),
            Err(error) if error.kind != Kind::Lost => return Err(error),
            Err(error) => error,
        };
        say(&format!("{lost}; looking whether it arrived."));
        sleep(SETTLE).await;
        if let Some(there) = look().await? {
            return Ok(Ensured::Made(there));
        }
        if tries >= TRIES {
            return Err(lost);
        }
    }
    // The loop has no end of its own.
    Err(Error::new(Kind::Lost, "nothing was sent".to_owned()))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::{Ensured, ensure};
    use crate::error::{Error, Kind};

    /// How often it was made, and how it ended, in a world where each try to make it goes as told:
    /// whether it arrives, and whether the answer does.
    async fn world(there: bool, tries: &[(bool, bool)]) -> (usize, Result<Ensured<()>, Error>) {
        let (there, made) = (Cell::new(there), Cell::new(0));
        let ended = ensure(
            &|_| {},
            async || Ok(there.get().then_some(())),
            async || {
                let (arrives, answered) = tries[made.get()];
                made.set(made.get() + 1);
                there.set(there.get() || arrives);
                if answered {
                    Ok(())
                } else {
                    Err(Error::new(Kind::Lost, "lost".to_owned()))
                }
            },
        )
        .await;
        (made.get(), ended)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_there_is_not_made_and_what_arrived_is_not_made_again() {
        assert_eq!(world(true, &[]).await, (0, Ok(Ensured::Already(()))));
        assert_eq!(
            world(false, &[(true, true)]).await,
            (1, Ok(Ensured::Made(())))
        );
        assert_eq!(
            world(false, &[(true, false)]).await,
            (1, Ok(Ensured::Made(())))
        );
        let second = world(false, &[(false, false), (true, true)]).await;
        assert_eq!(second, (2, Ok(Ensured::Made(()))));
        let (made, ended) = world(false, &[(false, false), (false, false)]).await;
        assert_eq!((made, ended.unwrap_err().kind), (2, Kind::Lost));
    }
}
