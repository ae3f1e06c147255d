//! One lab per test, the binaries run as a controller runs them, and what is observed on the hosts afterwards.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use regionwise_lab::layout::REGIONS;
use regionwise_lab::load::{Load, Rate, Summary, Target};
use regionwise_lab::processes::marked;
use regionwise_lab::{Lab, Options};
use regionwise_rollout::Verdict;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::oneshot;

pub(crate) const DEPLOY: &str = env!("CARGO_BIN_EXE_deploy-region");
pub(crate) const ROLLBACK: &str = env!("CARGO_BIN_EXE_rollback-region");

/// Nothing here takes this long unless it is broken.
const PATIENCE: Duration = Duration::from_secs(40);

/// A lab, and a regions.toml with windows as short as the test can bear.
pub(crate) struct World {
    pub(crate) lab: Lab,
    pub(crate) config: PathBuf,
    files: TempDir,
}

/// Windows of most tests: a deploy of a good release takes less than a second.
const QUICK: &[(&str, &str, &str)] = &[
    ("rollout", "verify", "300ms"),
    ("health", "interval", "100ms"),
];

impl World {
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// With other windows: section (`rollout` or `health`), key, value.
    pub(crate) fn with(windows: &[(&str, &str, &str)]) -> Self {
        let lab = Lab::start(&Options::hosts(env!("CARGO_BIN_EXE_lab")))
            .unwrap_or_else(|error| panic!("{error}"));
        let mut world = Self {
            config: PathBuf::new(),
            lab,
            files: tempfile::tempdir().unwrap(),
        };
        world.config = world.config_with("quick.toml", windows);
        world
    }

    /// Another regions.toml beside the lab's own, because its paths are relative to it.
    pub(crate) fn config_with(&self, name: &str, windows: &[(&str, &str, &str)]) -> PathBuf {
        self.config_of(name, |file| {
            for (section, key, value) in QUICK.iter().chain(windows) {
                let table = match *section {
                    "health" => &mut file["gates"]["health"],
                    other => &mut file[other],
                };
                table[*key] = (*value).into();
            }
        })
    }

    pub(crate) fn config_of(&self, name: &str, change: impl Fn(&mut toml::Table)) -> PathBuf {
        let text = fs::read_to_string(self.lab.regions_toml()).unwrap();
        let mut file: toml::Table = text.parse().unwrap();
        change(&mut file);
        let path = self.lab.directory().path().join(name);
        fs::write(&path, file.to_string()).unwrap();
        path
    }

    /// A release file around the reference API. Its artefact is a script that becomes the API: the API itself has tens
    /// of megabytes, and every host of every test would be sent them.
    pub(crate) fn release(&self, name: &str, env: &[(&str, &str)]) -> PathBuf {
        let api = self.lab.directory().program("reference-api");
        let script = format!("#!/bin/sh\nexec {}\n", api.display());
        let artifact = self.file("api", script.as_bytes());
        self.release_of(name, &artifact, env)
    }

    pub(crate) fn release_of(&self, name: &str, artifact: &Path, env: &[(&str, &str)]) -> PathBuf {
        let config = format!("greeting = \"{name}\"\n");
        let config = self.file(&format!("{name}.config"), config.as_bytes());
        let pairs = env.iter().map(|(name, value)| (*name, *value));
        let file = toml::Table::from_iter([
            ("name".to_owned(), name.into()),
            ("artifact".to_owned(), artifact.to_str().unwrap().into()),
            ("config".to_owned(), config.to_str().unwrap().into()),
            (
                "env".to_owned(),
                toml::Table::from_iter(pairs.map(|(n, v)| (n.to_owned(), v.into()))).into(),
            ),
        ]);
        self.file(&format!("{name}.toml"), file.to_string().as_bytes())
    }

    /// In a directory of its own: regions of one test that make a file of the same name do not see each other's.
    pub(crate) fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = tempfile::tempdir_in(&self.files).unwrap().keep().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// A binary with this world in its environment and nothing else.
    pub(crate) fn command(&self, binary: &str, args: &[&str]) -> Command {
        let mut command = Command::new(binary);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("TMPDIR", self.files.path())
            .env("REGIONWISE_FORMAT", "json")
            .env("REGIONWISE_CONFIG", &self.config)
            .args(args);
        command
    }

    pub(crate) fn run(&self, binary: &str, args: &[&str]) -> Run {
        Run::of(self.command(binary, args))
    }

    pub(crate) fn deploy(&self, region: &str, release: &Path, operation: &str) -> Run {
        self.run(DEPLOY, &deploy_args(region, release, operation))
    }

    /// Deploys a release and closes the operation: it is verified from then on.
    pub(crate) fn settle(&self, region: &str, name: &str, operation: &str) {
        let release = self.release(name, &[]);
        self.deploy(region, &release, operation)
            .expect(Verdict::Proceed);
        self.close(region, operation).expect(Verdict::Proceed);
    }

    pub(crate) fn close(&self, region: &str, operation: &str) -> Run {
        self.run(
            DEPLOY,
            &["close", "--region", region, "--operation", operation],
        )
    }

    pub(crate) fn status(&self, region: &str) -> Run {
        self.run(DEPLOY, &["status", "--region", region])
    }

    pub(crate) fn rollback(&self, region: &str, args: &[&str]) -> Run {
        self.run(ROLLBACK, &[&["--region", region], args].concat())
    }

    /// A deploy that the test watches, signals or kills.
    pub(crate) fn begin(&self, region: &str, release: &Path, operation: &str) -> Running {
        Running::of(self.command(DEPLOY, &deploy_args(region, release, operation)))
    }

    pub(crate) fn root(&self, host: &str) -> PathBuf {
        self.lab.directory().host(host)
    }

    pub(crate) fn address(&self, part: &str) -> SocketAddr {
        self.lab
            .address(part)
            .unwrap_or_else(|| panic!("no {part}"))
    }

    /// What every host of the region, and the region's own URL, answer as.
    pub(crate) fn serves(&self, region: &str) -> Vec<String> {
        let hosts = hosts(region).iter().map(|host| format!("{host}/http"));
        hosts
            .chain([region.to_owned()])
            .map(|part| release_at(self.address(&part)))
            .collect()
    }

    #[track_caller]
    pub(crate) fn assert_serves(&self, region: &str, release: &str) {
        let found = self.serves(region);
        assert!(
            found.iter().all(|found| found == release),
            "{region} serves {found:?}, not {release}"
        );
    }

    /// `kind operation release` of every event of a host, oldest first.
    pub(crate) fn events(&self, host: &str) -> Vec<String> {
        let text = fs::read_to_string(self.root(host).join("history.jsonl")).unwrap_or_default();
        text.lines()
            .map(|line| {
                let event = serde_json::from_str::<Value>(line).unwrap()["event"].take();
                let field = |name: &str| event[name].as_str().unwrap().to_owned();
                format!(
                    "{} {} {}",
                    field("kind"),
                    field("operation"),
                    field("release")
                )
            })
            .collect()
    }

    /// The histories of every other region, byte by byte.
    pub(crate) fn other_histories(&self, region: &str) -> Vec<(String, Option<String>)> {
        REGIONS
            .iter()
            .filter(|other| other.name != region)
            .flat_map(|other| other.hosts)
            .map(|host| {
                let path = self.root(host).join("history.jsonl");
                ((*host).to_owned(), fs::read_to_string(path).ok())
            })
            .collect()
    }

    /// A JSON file of a host; `Null` while it is not there or not whole.
    pub(crate) fn json(&self, host: &str, path: &str) -> Value {
        fs::read(self.root(host).join(path))
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or(Value::Null)
    }

    /// Pid of what runs in a slot.
    pub(crate) fn slot_pid(&self, host: &str, slot: &str) -> u32 {
        let record = self.json(host, &format!("slots/{slot}.json"));
        record["process"]["pid"]
            .as_u64()
            .and_then(|pid| pid.try_into().ok())
            .unwrap_or_else(|| panic!("no process in {slot} of {host}: {record}"))
    }

    /// Command lines of every living process that runs a release on the host, or is about to.
    pub(crate) fn release_processes(&self, host: &str) -> Vec<String> {
        self.release_pids(host)
            .into_iter()
            .map(command_line)
            .collect()
    }

    pub(crate) fn release_pids(&self, host: &str) -> Vec<u32> {
        let releases = self.root(host).join("releases");
        let in_release = |pid: &u32| {
            let directory = fs::read_link(format!("/proc/{pid}/cwd"));
            directory.is_ok_and(|directory| directory.starts_with(&releases))
        };
        self.pids_of("").into_iter().filter(in_release).collect()
    }

    /// Command lines of the lab's processes that begin with `prefix`.
    pub(crate) fn processes_of(&self, prefix: &str) -> Vec<String> {
        self.pids_of(prefix).into_iter().map(command_line).collect()
    }

    pub(crate) fn pids_of(&self, prefix: &str) -> Vec<u32> {
        marked(self.lab.directory().path())
            .into_iter()
            .filter_map(|pid| u32::try_from(pid.as_raw_nonzero().get()).ok())
            .filter(|pid| command_line(*pid).starts_with(prefix))
            .collect()
    }

    /// Every release on the host gets this variable from the next start on.
    pub(crate) fn host_env(&self, host: &str, line: &str) {
        let path = self.root(host).join("env");
        let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
        writeln!(file, "{line}").unwrap();
    }

    /// Writes into a host's state as its own account would.
    pub(crate) fn overwrite(&self, host: &str, path: &str, content: &[u8]) -> PathBuf {
        let path = self.root(host).join(path);
        fs::write(&path, content).unwrap();
        let owner = fs::metadata(self.root(host)).unwrap();
        chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
        path
    }

    /// `region-host VERB` on the host, as its own account.
    pub(crate) fn region_host(&self, host: &str, verb: &str) -> Command {
        let program = self.lab.directory().program("region-host");
        let owner = fs::metadata(self.root(host)).unwrap();
        let mut command = if owner.uid() == fs::metadata("/proc/self").unwrap().uid() {
            Command::new(program)
        } else {
            let mut command = Command::new("setpriv");
            command
                .arg(format!("--reuid={}", owner.uid()))
                .arg(format!("--regid={}", owner.gid()))
                .arg("--clear-groups")
                .arg(program);
            command
        };
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("REGIONWISE_LAB", self.lab.directory().path())
            .args([verb, "--root"])
            .arg(self.root(host));
        command
    }

    /// Nobody holds the lock of a host of the region.
    #[track_caller]
    pub(crate) fn assert_unlocked(&self, region: &str) {
        for host in hosts(region) {
            let lease = self.json(host, "lease.json");
            assert!(lease["holder"].is_null(), "{host}: {lease}");
        }
    }

    /// Constant requests to each part until the load is stopped.
    pub(crate) fn load(&self, parts: &[&str], per_second: &str) -> RunningLoad {
        let target = |part: &&str| Target {
            region: (*part).to_owned(),
            url: format!("http://{}/", self.address(part)).parse().unwrap(),
        };
        let load = Load {
            targets: parts.iter().map(target).collect(),
            rate: Rate::parse(per_second).unwrap(),
            duration: None,
            writes: false,
            log: None,
        };
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime
                .block_on(load.run(async {
                    // An error means that the test is over, and so is the load.
                    let _ = stopped.await;
                }))
                .unwrap()
        });
        RunningLoad { stop, thread }
    }
}

pub(crate) struct RunningLoad {
    stop: oneshot::Sender<()>,
    thread: thread::JoinHandle<Summary>,
}

impl RunningLoad {
    pub(crate) fn stop(self) -> Summary {
        self.stop.send(()).unwrap();
        self.thread.join().unwrap()
    }

    /// Stops, and wants every request answered well.
    #[track_caller]
    pub(crate) fn assert_unharmed(self) -> u64 {
        let summary = self.stop();
        let failed: u64 = summary.regions.iter().map(|region| region.failed).sum();
        assert_eq!(failed, 0, "{}", serde_json::to_string(&summary).unwrap());
        summary.regions.iter().map(|region| region.served).sum()
    }
}

pub(crate) fn deploy_args<'a>(
    region: &'a str,
    release: &'a Path,
    operation: &'a str,
) -> [&'a str; 6] {
    let release = release.to_str().unwrap();
    [
        "--region",
        region,
        "--release",
        release,
        "--operation",
        operation,
    ]
}

pub(crate) fn hosts(region: &str) -> &'static [&'static str] {
    let found = REGIONS.iter().find(|known| known.name == region);
    found.unwrap_or_else(|| panic!("no region {region}")).hosts
}

/// How a binary ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    /// `Null` when stdout was not one JSON object.
    pub(crate) json: Value,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

impl Run {
    pub(crate) fn of(command: Command) -> Self {
        let begun = Instant::now();
        let output = assert_cmd::Command::from_std(command)
            .timeout(PATIENCE * 2)
            .output()
            .unwrap();
        Self::new(
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
            begun,
        )
    }

    fn new(code: Option<i32>, stdout: String, stderr: String, begun: Instant) -> Self {
        Self {
            code,
            json: serde_json::from_str(&stdout).unwrap_or(Value::Null),
            stdout,
            stderr,
            took: begun.elapsed(),
        }
    }

    /// Exit code, `verdict` and `exit_code` say the same.
    #[track_caller]
    pub(crate) fn expect(self, verdict: Verdict) -> Self {
        let code = i32::from(verdict.exit_code());
        assert!(
            self.code == Some(code)
                && self.json["verdict"] == verdict.word()
                && self.json["exit_code"] == code,
            "expected {verdict} ({code}), found {self}"
        );
        self
    }

    pub(crate) fn result(&self, field: &str) -> &Value {
        &self.json["result"][field]
    }

    pub(crate) fn summary(&self) -> &str {
        self.json["summary"].as_str().unwrap_or_default()
    }

    /// The release of every host in the report.
    pub(crate) fn releases(&self) -> Vec<Option<&str>> {
        let hosts = self.json["result"]["hosts"].as_array().unwrap();
        hosts.iter().map(|host| host["release"].as_str()).collect()
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { stdout, stderr, .. } = self;
        let code = self
            .code
            .map_or("a signal".to_owned(), |code| code.to_string());
        let seconds = self.took.as_secs_f64();
        write!(f, "{code} after {seconds:.1} s\n{stdout}\n{stderr}")
    }
}

/// A binary under way.
pub(crate) struct Running {
    child: Child,
    begun: Instant,
    lines: Receiver<String>,
    seen: String,
}

impl Running {
    pub(crate) fn of(mut command: Command) -> Self {
        let begun = Instant::now();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (send, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                // The test may have seen enough.
                let _ = send.send(line);
            }
        });
        Self {
            child,
            begun,
            lines,
            seen: String::new(),
        }
    }

    /// Waits until a line of its progress holds `text`.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, text: &str) {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    writeln!(self.seen, "{line}").unwrap();
                    if line.contains(text) {
                        return;
                    }
                }
                Err(error) => panic!("no {text:?} ({error}): {}", self.seen),
            }
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// SIGKILL, and waits until it is gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Whether it is gone by then.
    pub(crate) fn ends_within(&mut self, limit: Duration) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < limit {
            if self.child.try_wait().unwrap().is_some() {
                return true;
            }
            thread::sleep(Duration::from_millis(5));
        }
        false
    }

    pub(crate) fn finish(mut self) -> Run {
        let mut stdout = String::new();
        self.child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut stdout)
            .unwrap();
        let status = self.child.wait().unwrap();
        for line in self.lines {
            writeln!(self.seen, "{line}").unwrap();
        }
        Run::new(status.code(), stdout, self.seen, self.begun)
    }
}

pub(crate) fn signal(pid: u32, name: &str) {
    let status = Command::new("kill")
        .args([name, &pid.to_string()])
        .status()
        .unwrap();
    assert!(status.success(), "kill {name} {pid}");
}

pub(crate) fn command_line(pid: u32) -> String {
    let raw = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&raw)
        .replace('\0', " ")
        .trim_end()
        .to_owned()
}

/// Waits for something that an event elsewhere brings about.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut happened: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !happened() {
        assert!(
            begun.elapsed() < PATIENCE,
            "not within {PATIENCE:?}: {what}"
        );
        thread::sleep(Duration::from_millis(5));
    }
    begun.elapsed()
}

/// `X-Release` of a GET, or its status without one.
pub(crate) fn release_at(address: SocketAddr) -> String {
    let (head, _) = get(address, "/health/basic");
    let release = head
        .lines()
        .find_map(|line| line.strip_prefix("x-release: "));
    match release {
        Some(release) if head.starts_with("HTTP/1.1 200") => release.to_owned(),
        _ => head.lines().next().unwrap_or("no answer").to_owned(),
    }
}

/// Head and body of a GET, on a connection of its own.
pub(crate) fn get(address: SocketAddr, path: &str) -> (String, String) {
    let ask = || -> std::io::Result<String> {
        let mut socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        write!(
            socket,
            "GET {path} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().unwrap_or_default();
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) => (head.to_owned(), body.to_owned()),
        None => (answer, String::new()),
    }
}
