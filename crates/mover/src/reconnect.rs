//! Opens sessions again that broke: how often in a row, and for how long.

use std::time::Duration;

use regionwise_postgres::{Error, Kind};
use tokio::time::{Instant, sleep};

/// Sessions in a row that break before anything came of them: the next one would break too.
const IN_VAIN: u32 = 8;

/// The first and the longest pause between two attempts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// What is left to try before a broken connection ends a run.
pub(crate) struct Patience {
    /// From the moment of each error, however long the sessions had lasted.
    within: Duration,
    in_vain: u32,
}

impl Patience {
    pub(crate) const fn lasting(within: Duration) -> Self {
        Self { within, in_vain: 0 }
    }

    /// The last sessions were good for something.
    pub(crate) const fn renew(&mut self) {
        self.in_vain = 0;
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
        if !is_passing(error.kind) || self.in_vain > IN_VAIN {
            return Err(error);
        }
        tell(&error);
        let broke = Instant::now();
        let mut pause = PAUSES.0;
        loop {
            match open().await {
                Ok(opened) => return Ok(opened),
                Err(again) if broke.elapsed() > self.within => return Err(again),
                Err(_) => sleep(pause).await,
            }
            pause = (pause * 2).min(PAUSES.1);
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
    use tokio::time::sleep;

    use super::{IN_VAIN, Patience};
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

    #[tokio::test]
    async fn a_server_that_stays_away_ends_it() {
        let error = refused().await;
        let mut patience = Patience::lasting(WITHIN);
        assert!(opened(&mut patience, &error, u32::MAX).await.is_err());
    }

    #[tokio::test]
    async fn sessions_that_break_again_and_again_for_nothing_end_it() {
        let error = refused().await;
        let mut patience = Patience::lasting(WITHIN);
        for _ in 0..IN_VAIN {
            assert!(opened(&mut patience, &error, 0).await.is_ok());
        }
        assert!(opened(&mut patience, &error, 0).await.is_err());
        patience.renew();
        assert!(opened(&mut patience, &error, 0).await.is_ok());
    }
}
