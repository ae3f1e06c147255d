//! Opens sessions again that broke, or that somebody kept waiting for a lock: how often in a row, and for how long.

use std::time::Duration;

use regionwise_postgres::{Error, Kind};
use tokio::time::{Instant, sleep};

/// Sessions in a row that break before anything came of them, over a longer time than [`Patience::within`]: the next one
/// would break too. It takes both: what breaks at once may be over soon, and sessions may break rarely in a long time.
const IN_VAIN: u32 = 8;

/// The first and the longest pause between two attempts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// The pause after attempts that were in vain for `since`: it grows with them, and is a little different every time, so that
/// those who wait for the same thing do not come together again.
pub(crate) fn pause(since: Duration) -> Duration {
    let mut dice = [u8::MAX];
    // Without random bytes it is the longest one.
    let _ = getrandom::fill(&mut dice);
    let longest = (since / 4).clamp(PAUSES.0, PAUSES.1);
    longest / 2 + longest / 2 * u32::from(dice[0]) / u32::from(u8::MAX)
}

/// What is left to try before a broken connection ends a run.
pub(crate) struct Patience {
    /// From the moment of the first error in a row, and of each on that sessions cannot be opened after.
    within: Duration,
    in_vain: u32,
    since: Option<Instant>,
}

impl Patience {
    pub(crate) const fn lasting(within: Duration) -> Self {
        Self {
            within,
            in_vain: 0,
            since: None,
        }
    }

    /// The last sessions were good for something.
    pub(crate) const fn renew(&mut self) {
        self.in_vain = 0;
        self.since = None;
    }

    /// Opens again what broke with `error`, with growing pauses. `tell` hears of it when it is tried at all.
    ///
    /// # Errors
    /// `error` itself where new sessions would not help, else the last one in opening.
    pub(crate) async fn open_again<T, F: Future<Output = Result<T, Error>>>(
        &mut self,
        error: Error,
        tell: impl FnOnce(&Error),
        open: impl Fn() -> F,
    ) -> Result<T, Error> {
        self.in_vain += 1;
        let since = *self.since.get_or_insert_with(Instant::now);
        let in_vain = self.in_vain > IN_VAIN && since.elapsed() > self.within;
        if !is_passing(error.kind) || in_vain {
            return Err(error);
        }
        tell(&error);
        // Not the first time: users may be between two homes.
        if self.in_vain > 1 {
            sleep(pause(since.elapsed())).await;
        }
        let broke = Instant::now();
        loop {
            match open().await {
                Ok(opened) => return Ok(opened),
                Err(again) if broke.elapsed() > self.within => return Err(again),
                Err(_) => sleep(pause(broke.elapsed())).await,
            }
        }
    }
}

const fn is_passing(kind: Kind) -> bool {
    match kind {
        Kind::Timeout
        | Kind::Lost
        | Kind::Refused
        | Kind::StartingUp
        | Kind::ShuttingDown
        | Kind::TooManyConnections
        | Kind::Conflict => true,
        Kind::Dns
        | Kind::Tls
        | Kind::Auth
        | Kind::Permission
        | Kind::Missing
        | Kind::ReadOnly
        | Kind::Protocol
        | Kind::Server
        | Kind::Unexpected => false,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use regionwise_postgres::{Dsn, Error, Kind};
    use tokio::time::{Instant, sleep};

    use super::{IN_VAIN, PAUSES, Patience, pause};
    use crate::ends::{End, Purpose};

    const WITHIN: Duration = Duration::from_millis(50);

    /// As it comes from a server that does not listen.
    async fn refused() -> Error {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let end = End {
            cluster: "us".to_owned(),
            dsn: Dsn::parse(&format!("postgres://mover@127.0.0.1:{port}/shop")).unwrap(),
            allow_plaintext: true,
            connect_within: Duration::from_secs(5),
        };
        let error = end.open(Purpose::Change, "test").await.err().unwrap();
        assert_eq!(error.kind, Kind::Refused);
        error
    }

    /// Fails `times` times, then opens.
    async fn opened(patience: &mut Patience, error: &Error, times: u32) -> Result<(), Error> {
        let left = Cell::new(times);
        let open = || {
            let fails = left.get() > 0;
            left.set(left.get().saturating_sub(1));
            let answer = if fails { Err(error.clone()) } else { Ok(()) };
            async move { answer }
        };
        patience.open_again(error.clone(), |_| {}, open).await
    }

    #[tokio::test]
    async fn sessions_that_lasted_long_are_opened_again_like_new_ones() {
        let error = refused().await;
        let mut patience = Patience::lasting(WITHIN);
        // The subject: more time than `WITHIN` passes before anything breaks.
        sleep(WITHIN * 2).await;
        assert!(opened(&mut patience, &error, 1).await.is_ok());
    }

    #[test]
    fn pauses_grow_up_to_the_longest() {
        assert!(pause(Duration::ZERO) <= PAUSES.0);
        assert!(pause(Duration::from_secs(2)) > PAUSES.0 * 10);
        let longest = pause(Duration::from_secs(60));
        assert!(longest >= PAUSES.1 / 2 && longest <= PAUSES.1);
    }

    #[tokio::test]
    async fn a_server_that_stays_away_ends_it() {
        let error = refused().await;
        let mut patience = Patience::lasting(WITHIN);
        assert!(opened(&mut patience, &error, u32::MAX).await.is_err());
    }

    #[tokio::test]
    async fn sessions_that_break_again_and_again_for_nothing_end_it_when_the_time_is_over() {
        let error = refused().await;
        let within = WITHIN * 8;
        let mut patience = Patience::lasting(within);
        let (began, mut times) = (Instant::now(), 0);
        while opened(&mut patience, &error, 0).await.is_ok() {
            times += 1;
        }
        assert!(began.elapsed() > within);
        assert!(times >= IN_VAIN, "{times}");
        patience.renew();
        assert!(opened(&mut patience, &error, 0).await.is_ok());
    }
}
