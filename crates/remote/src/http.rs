//! HTTP probes of a region: every host through its own proxy, and the address where users arrive.
//!
//! A probe is one request on one fresh connection, with a deadline over all and a limit on the body. It follows no
//! redirect and uses no proxy from the environment. Its errors tell two things apart that must not be mixed up: somebody
//! answered, and badly ([`ProbeError::is_answer`]), or nobody could be asked.

use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use regionwise_topology::{Host, Region};
use reqwest::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName};
use reqwest::{Client, Response, redirect};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use url::Url;

/// A health answer that is longer is no health answer; the rest of it is not even read.
pub const BODY_LIMIT: usize = 64 * 1024;

/// Not HTTP and not TLS. Every server and proxy that is alive has something to say to it: 400, or an alert.
const NONSENSE: &[u8] = b"?\r\n\r\n";

/// Asks one address of a region.
pub struct Probe {
    name: String,
    /// Scheme, host and port to connect to.
    url: Url,
    /// What users write: the `Host` header.
    authority: String,
    /// `None` is what the region's URL resolves to.
    address: Option<SocketAddr>,
    limit: Duration,
    client: Client,
}

/// What came back, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// `X-Release`
    pub release: Option<String>,
    pub content_type: Option<String>,
    pub body: Vec<u8>,
    /// From the first packet of the connection to the last byte of the body.
    pub latency: Duration,
}

impl Answer {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Why there is no whole answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    #[error("no address for `{0}`")]
    Dns(String),
    #[error("connection refused by {0}")]
    Refused(String),
    /// No way there, or no connection within the deadline.
    #[error("no connection to {0}: {1}")]
    Unreachable(String, String),
    #[error("no trusted TLS connection to {0}: {1}")]
    Tls(String, String),
    /// The connection ended before an answer began.
    #[error("connection to {0} closed without an answer")]
    Closed(String),
    /// Connected, and not one byte, not even to nonsense: the network may be cut behind a proxy.
    #[error("not one byte within {1} from {0}")]
    Silent(String, String),
    /// Somebody is there, and this request got no answer.
    #[error("no answer within {1} from {0}")]
    NoAnswer(String, String),
    /// An answer began and did not end in time.
    #[error("an answer from {0} that does not end within {1}")]
    TooSlow(String, String),
    #[error("an answer from {0} that is longer than 64 KiB")]
    TooLarge(String),
    /// An answer began and broke off.
    #[error("an answer from {0} that breaks off")]
    CutOff(String),
    #[error("an answer from {0} that is not HTTP: {1}")]
    NotHttp(String, String),
    #[error("cannot ask {0}: {1}")]
    Unusable(String, String),
}

impl ProbeError {
    /// Whether somebody answered, and badly. Everything else is a problem between us and them.
    pub fn is_answer(&self) -> bool {
        match self {
            Self::NoAnswer(..)
            | Self::TooSlow(..)
            | Self::TooLarge(_)
            | Self::CutOff(_)
            | Self::NotHttp(..) => true,
            Self::Dns(_)
            | Self::Refused(_)
            | Self::Unreachable(..)
            | Self::Tls(..)
            | Self::Closed(_)
            | Self::Silent(..)
            | Self::Unusable(..) => false,
        }
    }

    /// A word for programs.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Dns(_) => "dns",
            Self::Refused(_) => "refused",
            Self::Unreachable(..) => "unreachable",
            Self::Tls(..) => "tls",
            Self::Closed(_) => "closed",
            Self::Silent(..) => "silent",
            Self::NoAnswer(..) => "no-answer",
            Self::TooSlow(..) => "too-slow",
            Self::TooLarge(_) => "too-large",
            Self::CutOff(_) => "cut-off",
            Self::NotHttp(..) => "not-http",
            Self::Unusable(..) => "unusable",
        }
    }
}

impl Probe {
    /// Through a host's own proxy, without the region's load balancer in between.
    ///
    /// # Errors
    /// When no client can be made for it.
    pub fn of_host(region: &Region, host: &Host, limit: Duration) -> Result<Self, ProbeError> {
        let address = SocketAddr::new(host.address, host.http_port);
        let mut url = region.url.clone();
        // Cannot fail between the two schemes that `regions.toml` accepts.
        let _ = url.set_scheme(if host.tls { "https" } else { "http" });
        let probe = Self::new(host.name.clone(), &url, Some(address), limit)?;
        // Whatever ends TLS, users write the region's name and port.
        Ok(Self {
            authority: region.url.authority().to_owned(),
            ..probe
        })
    }

    /// Where users arrive.
    ///
    /// # Errors
    /// When no client can be made for it.
    pub fn of_region(region: &Region, limit: Duration) -> Result<Self, ProbeError> {
        Self::new(
            region.url.as_str().trim_end_matches('/').to_owned(),
            &region.url,
            None,
            limit,
        )
    }

    fn new(
        name: String,
        url: &Url,
        address: Option<SocketAddr>,
        limit: Duration,
    ) -> Result<Self, ProbeError> {
        let mut builder = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            // Every probe proves again that connecting works.
            .pool_max_idle_per_host(0)
            .user_agent(concat!("regionwise/", env!("CARGO_PKG_VERSION")));
        // Over TLS the name in the certificate stays, only the address changes.
        if let (Some(address), Some(domain)) = (address, url.domain()) {
            builder = builder.resolve(domain, address);
        }
        let client = builder
            .build()
            .map_err(|error| ProbeError::Unusable(name.clone(), chain(&error)))?;
        let authority = url.authority().to_owned();
        Ok(Self {
            name,
            url: at(url, address),
            authority,
            address,
            limit,
            client,
        })
    }

    /// The host's name, or the region's URL.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// One GET.
    ///
    /// # Errors
    /// Within the limit, and up to as much again to find out whether anybody is there at all.
    pub async fn get(&self, path: &str) -> Result<Answer, ProbeError> {
        let place = self.place();
        let mut url = self.url.clone();
        url.set_path(path);
        let start = Instant::now();
        let request = self.client.get(url).header(HOST, &self.authority).send();
        let mut response = match timeout(self.limit, request).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(before_an_answer(place, &error)),
            Err(_) => return Err(self.who_is_there(place).await),
        };
        let left = self.limit.saturating_sub(start.elapsed());
        match timeout(left, body(&mut response, &place)).await {
            Ok(body) => Ok(Answer {
                status: response.status().as_u16(),
                release: text(response.headers(), &HeaderName::from_static("x-release")),
                content_type: text(response.headers(), &CONTENT_TYPE),
                body: body?,
                latency: start.elapsed(),
            }),
            Err(_) => Err(ProbeError::TooSlow(place, spoken(self.limit))),
        }
    }

    fn place(&self) -> String {
        self.address
            .map_or_else(|| self.authority.clone(), |address| address.to_string())
    }

    /// After a deadline: a hanging product behind a living proxy, or a network that swallows everything?
    async fn who_is_there(&self, place: String) -> ProbeError {
        let limit = spoken(self.limit);
        let ask = async {
            let addresses: Vec<SocketAddr> = match self.address {
                Some(address) => vec![address],
                None => {
                    let port = self.url.port_or_known_default().unwrap_or(80);
                    lookup_host((self.url.host_str().unwrap_or_default(), port))
                        .await?
                        .collect()
                }
            };
            let mut stream = TcpStream::connect(addresses.as_slice()).await?;
            stream.write_all(NONSENSE).await?;
            stream.read(&mut [0]).await
        };
        match timeout(self.limit, ask).await {
            Ok(Ok(1..)) => ProbeError::NoAnswer(place, limit),
            Ok(Ok(_)) => ProbeError::Closed(place),
            Ok(Err(error)) => unreachable(place, &error),
            Err(_) => ProbeError::Silent(place, limit),
        }
    }
}

/// Plain HTTP has the host's address in its URL; TLS needs the region's name there.
fn at(url: &Url, address: Option<SocketAddr>) -> Url {
    let mut url = url.clone();
    if let Some(address) = address {
        // Neither can fail: `regions.toml` accepts only http and https URLs, which have a host.
        if url.scheme() == "http" {
            let _ = url.set_ip_host(address.ip());
        }
        let _ = url.set_port(Some(address.port()));
    }
    url
}

async fn body(response: &mut Response, place: &str) -> Result<Vec<u8>, ProbeError> {
    let too_large = || ProbeError::TooLarge(place.to_owned());
    if response
        .content_length()
        .is_some_and(|length| length > BODY_LIMIT as u64)
    {
        return Err(too_large());
    }
    let mut body = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|_| ProbeError::CutOff(place.to_owned()))?
    {
        if body.len() + chunk.len() > BODY_LIMIT {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn before_an_answer(place: String, error: &reqwest::Error) -> ProbeError {
    let text = chain(error);
    // The resolver's error has no type of its own; its text is all that tells it from a refused connection.
    if text.contains("dns error") {
        return ProbeError::Dns(place);
    }
    match (io_cause(error), error.is_connect()) {
        (Some(cause), true) if is_tls(cause) => ProbeError::Tls(place, cause.to_string()),
        (Some(cause), true) => unreachable(place, cause),
        (None, true) => ProbeError::Unreachable(place, text),
        (Some(_), false) => ProbeError::Closed(place),
        (None, false) if text.contains("connection closed") => ProbeError::Closed(place),
        (None, false) => ProbeError::NotHttp(place, text),
    }
}

/// While connecting, only the TLS handshake reads anything that could be invalid or end too early.
fn is_tls(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
    )
}

fn unreachable(place: String, error: &io::Error) -> ProbeError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ProbeError::Refused(place),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => ProbeError::Closed(place),
        _ => ProbeError::Unreachable(place, error.to_string()),
    }
}

/// The innermost error of the system; the layers above wrap it in `io::Error`s of their own.
fn io_cause(error: &reqwest::Error) -> Option<&io::Error> {
    let mut innermost = None;
    let mut cause = error.source();
    while let Some(found) = cause {
        let mut io = found.downcast_ref::<io::Error>();
        while let Some(found) = io {
            innermost = Some(found);
            io = found.get_ref().and_then(|inner| inner.downcast_ref());
        }
        cause = found.source();
    }
    innermost
}

/// The causes below the outermost text, which would repeat the URL.
fn chain(error: &reqwest::Error) -> String {
    let mut texts = Vec::new();
    let mut cause = error.source();
    while let Some(found) = cause {
        texts.push(found.to_string());
        cause = found.source();
    }
    texts.dedup();
    texts.join(": ")
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers
        .get(name)
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

fn spoken(limit: Duration) -> String {
    match limit.as_millis() {
        millis if millis % 1000 == 0 => format!("{} s", millis / 1000),
        millis => format!("{millis} ms"),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;

    use super::*;

    /// A server that answers every connection in its own way.
    struct Server {
        address: SocketAddr,
        url: Url,
        task: JoinHandle<()>,
    }

    impl Drop for Server {
        fn drop(&mut self) {
            self.task.abort();
        }
    }

    async fn server<F: Future<Output = io::Result<()>> + Send>(
        talk: impl Fn(TcpStream, String) -> F + Send + Sync + Clone + 'static,
    ) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let talk = talk.clone();
                tokio::spawn(async move {
                    let mut request = vec![0; 4096];
                    let length = stream.read(&mut request).await.unwrap_or(0);
                    let request = String::from_utf8_lossy(&request[..length]).into_owned();
                    let _ = talk(stream, request).await;
                });
            }
        });
        let url = Url::parse(&format!("http://region.example:{}", address.port())).unwrap();
        Server { address, url, task }
    }

    async fn says(answer: &'static [u8]) -> Server {
        server(move |mut stream, _| async move { stream.write_all(answer).await }).await
    }

    const LIMIT: Duration = Duration::from_millis(300);

    fn probe(url: &Url, address: Option<SocketAddr>) -> Probe {
        Probe::new("host".to_owned(), url, address, LIMIT).unwrap()
    }

    async fn get(server: &Server) -> Result<Answer, ProbeError> {
        let start = Instant::now();
        let answer = probe(&server.url, Some(server.address))
            .get("/health/basic")
            .await;
        assert!(
            start.elapsed() < LIMIT * 3,
            "{:?} is not bounded",
            start.elapsed()
        );
        answer
    }

    async fn error(server: &Server) -> ProbeError {
        get(server).await.expect_err("no answer can be good here")
    }

    #[tokio::test]
    async fn an_answer_comes_whole_with_the_regions_name_in_the_request() {
        let server = server(|mut stream, request| async move {
            let host = request.lines().find(|line| line.to_lowercase().starts_with("host:")).unwrap_or_default();
            assert!(request.starts_with("GET /health/basic HTTP/1.1"), "{request}");
            let body = format!("{{\"{host}\":1}}");
            let head = "HTTP/1.1 200 OK\r\nX-Release: v2\r\nContent-Type: application/json\r\nConnection: close";
            stream.write_all(format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).await
        })
        .await;
        let answer = get(&server).await.unwrap();
        assert!(answer.is_success());
        assert_eq!(answer.release.as_deref(), Some("v2"));
        assert_eq!(answer.content_type.as_deref(), Some("application/json"));
        let body = String::from_utf8(answer.body).unwrap().to_lowercase();
        assert!(body.contains(server.url.authority()), "{body}");
    }

    #[tokio::test]
    async fn a_host_behind_a_balancer_that_ends_tls_is_asked_in_plain_http_with_the_regions_name() {
        let server = server(|mut stream, request| async move {
            let named = request
                .to_lowercase()
                .contains("\r\nhost: shop.example\r\n");
            let status = if named {
                "200 OK"
            } else {
                "421 Misdirected Request"
            };
            let answer =
                format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            stream.write_all(answer.as_bytes()).await
        })
        .await;
        let host = Host {
            name: "web-1".to_owned(),
            address: server.address.ip(),
            ssh_port: 22,
            http_port: server.address.port(),
            tls: false,
        };
        let mut region = Region {
            name: "home".to_owned(),
            location: "fsn1".to_owned(),
            traffic: 1.0,
            fallback_locations: Vec::new(),
            cluster: "main".to_owned(),
            url: Url::parse("https://shop.example").unwrap(),
            hosts: vec![host],
            unaddressed: Vec::new(),
        };
        let ask = async |region: &Region| {
            let probe = Probe::of_host(region, &region.hosts[0], LIMIT).unwrap();
            probe.get("/health/basic").await
        };
        assert_eq!(ask(&region).await.map(|answer| answer.status), Ok(200));
        region.hosts[0].tls = true;
        assert_eq!(ask(&region).await.unwrap_err().word(), "tls");
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer_that_is_not_followed() {
        let moved = says(
            b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n",
        )
        .await;
        let answer = get(&moved).await.unwrap();
        assert_eq!(answer.status, 302);
        assert!(!answer.is_success());
    }

    #[tokio::test]
    async fn a_long_body_is_not_read_to_its_end() {
        let announced = says(b"HTTP/1.1 200 OK\r\nContent-Length: 10485760\r\n\r\n").await;
        assert_eq!(error(&announced).await.word(), "too-large");
        let endless = server(|mut stream, _| async move {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
            loop {
                stream.write_all(&[b' '; 8192]).await?;
            }
        })
        .await;
        assert_eq!(error(&endless).await.word(), "too-large");
        assert!(error(&endless).await.is_answer());
    }

    #[tokio::test]
    async fn a_hanging_product_is_told_from_a_network_that_swallows_everything() {
        let hangs = server(|mut stream, request| async move {
            if !request.starts_with("GET") {
                return stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            }
            std::future::pending().await
        })
        .await;
        let answer = error(&hangs).await;
        assert_eq!((answer.word(), answer.is_answer()), ("no-answer", true));
        let swallows = server(|stream, _| async move {
            std::future::pending::<()>().await;
            drop(stream);
            Ok(())
        })
        .await;
        let silence = error(&swallows).await;
        assert_eq!((silence.word(), silence.is_answer()), ("silent", false));
        assert_eq!(
            silence.to_string(),
            format!("not one byte within 300 ms from {}", swallows.address)
        );
    }

    #[tokio::test]
    async fn an_answer_that_drips_is_too_slow() {
        let drips = server(|mut stream, _| async move {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n")
                .await?;
            loop {
                stream.write_all(b" ").await?;
                tokio::time::sleep(LIMIT / 10).await;
            }
        })
        .await;
        let slow = error(&drips).await;
        assert_eq!((slow.word(), slow.is_answer()), ("too-slow", true));
    }

    #[tokio::test]
    async fn what_is_no_answer_has_a_name() {
        let closes = server(|_stream, _| async { Ok(()) }).await;
        assert_eq!(
            (
                error(&closes).await.word(),
                error(&closes).await.is_answer()
            ),
            ("closed", false)
        );
        let breaks_off = says(b"HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\nhalf").await;
        assert_eq!(
            (
                error(&breaks_off).await.word(),
                error(&breaks_off).await.is_answer()
            ),
            ("cut-off", true)
        );
        let garbage = says(b"\xff\xfe this is not a web server\r\n\r\n").await;
        assert_eq!(
            (
                error(&garbage).await.word(),
                error(&garbage).await.is_answer()
            ),
            ("not-http", true)
        );
    }

    #[tokio::test]
    async fn an_address_that_cannot_be_reached_is_not_an_answer() {
        // Bound and not listening: nobody else can take the port meanwhile.
        let held = tokio::net::TcpSocket::new_v4().unwrap();
        held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = held.local_addr().unwrap();
        let region = Url::parse("http://region.example").unwrap();
        let refused = probe(&region, Some(address)).get("/").await.unwrap_err();
        assert_eq!(refused, ProbeError::Refused(address.to_string()));
        assert!(!refused.is_answer());
        let nowhere = Url::parse("http://nothing.invalid").unwrap();
        let patient = Probe::new("region".to_owned(), &nowhere, None, LIMIT * 10).unwrap();
        let unknown = patient.get("/").await.unwrap_err();
        assert_eq!((unknown.word(), unknown.is_answer()), ("dns", false));
    }

    #[tokio::test]
    async fn a_server_without_a_certificate_is_a_tls_problem() {
        let plain = says(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let mut url = plain.url.clone();
        url.set_scheme("https").unwrap();
        let problem = probe(&url, Some(plain.address)).get("/").await.unwrap_err();
        assert_eq!(
            (problem.word(), problem.is_answer()),
            ("tls", false),
            "{problem}"
        );
    }

    #[test]
    fn over_tls_the_name_stays_and_the_address_changes() {
        let host = Some("10.0.0.7:8443".parse().unwrap());
        let url = |text: &str| Url::parse(text).unwrap();
        let (tls, plain) = (
            url("https://eu.shop.example"),
            url("http://eu.shop.example:8080"),
        );
        assert_eq!(at(&tls, host).as_str(), "https://eu.shop.example:8443/");
        assert_eq!(at(&plain, host).as_str(), "http://10.0.0.7:8443/");
        assert_eq!(at(&tls, None), tls);
        assert_eq!(probe(&plain, host).authority, "eu.shop.example:8080");
    }
}
