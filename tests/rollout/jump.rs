//! Hosts that are reached through another one only: a real sshd in between.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use regionwise_lab::account;
use regionwise_remote::host_key;
use regionwise_remote::jump::Jump;
use regionwise_remote::root::{RootError, RootLogin};
use regionwise_remote::ssh::OpenError;
use regionwise_rollout::Verdict;

use crate::support::{DEPLOY, Run, World, deploy_args};

const REGION: &str = "ap-singapore";
const HOST: &str = "sin-1";

/// An sshd that the deploy key opens.
struct Bastion {
    sshd: Child,
    port: u16,
    user: String,
    home: tempfile::TempDir,
}

impl Bastion {
    /// With further lines of its configuration.
    fn start(world: &World, more: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let path = |name: &str| home.path().join(name);
        key(&path("host_key"));
        key(&path("other_key"));
        let public = public_half(&world.lab.directory().deploy_key());
        fs::write(path("authorized_keys"), public).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let shown = |name: &str| path(name).display().to_string();
        let config = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {}\nPidFile none\nAuthorizedKeysFile {}\nUsePAM no\nStrictModes no\nLogLevel DEBUG1\n{more}\n",
            shown("host_key"),
            shown("authorized_keys"),
        );
        fs::write(path("config"), config).unwrap();
        let log = fs::File::create(path("log")).unwrap();
        // As the lab's own: an sshd of root's wants a directory of the system's.
        let account = account::choose().unwrap();
        let mut command = Command::new("setpriv");
        if account.drop {
            command
                .arg(format!("--reuid={}", account.uid))
                .arg(format!("--regid={}", account.gid))
                .arg("--clear-groups");
        }
        for name in ["", "host_key", "authorized_keys", "config"] {
            chown(path(name), Some(account.uid), Some(account.gid)).unwrap();
        }
        let sshd = command
            .arg("/usr/sbin/sshd")
            .args(["-D", "-e", "-f", &shown("config")])
            .stderr(log)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let bastion = Self {
            sshd,
            port,
            user: account.name,
            home,
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        while !bastion.log().contains("Server listening") {
            assert!(Instant::now() < deadline, "{}", bastion.log());
            thread::sleep(Duration::from_millis(20));
        }
        bastion
    }

    fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).unwrap()
    }

    /// regions.toml of the lab, by way of this one, whose key is that of the file.
    fn config(&self, world: &World, name: &str, pinned: &str) -> PathBuf {
        let directory = world.lab.directory();
        let known = fs::read_to_string(directory.known_hosts()).unwrap();
        let public = fs::read_to_string(self.home.path().join(format!("{pinned}.pub"))).unwrap();
        let line = format!("[127.0.0.1]:{} {public}", self.port);
        fs::write(
            directory.path().join(format!("{name}.known")),
            known + &line,
        )
        .unwrap();
        world.config_of(&format!("{name}.toml"), |file| {
            file["ssh"]["known_hosts"] = format!("{name}.known").into();
            let jump = [
                ("address", "127.0.0.1".into()),
                ("user", self.user.as_str().into()),
                ("port", i64::from(self.port).into()),
            ];
            let jump: toml::Table = jump
                .map(|(name, value)| (name.to_owned(), value))
                .into_iter()
                .collect();
            file["ssh"]
                .as_table_mut()
                .unwrap()
                .insert("jump".to_owned(), jump.into());
        })
    }
}

impl Drop for Bastion {
    fn drop(&mut self) {
        let _ = self.sshd.kill();
        let _ = self.sshd.wait();
    }
}

fn key(path: &Path) {
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(path)
        .status();
    assert!(made.unwrap().success());
}

fn public_half(private: &Path) -> String {
    let output = Command::new("ssh-keygen").arg("-yf").arg(private).output();
    String::from_utf8(output.unwrap().stdout).unwrap()
}

#[test]
fn a_region_is_deployed_through_the_host_in_between_and_nothing_goes_around_it() {
    let world = World::start();
    let v1 = world.release("v1", &[]);
    let bastion = Bastion::start(&world, "");
    let config = bastion.config(&world, "jump", "host_key");
    let mut command = world.command(DEPLOY, &deploy_args(REGION, &v1, "o1"));
    command.env("REGIONWISE_CONFIG", config);
    Run::of(command).expect(Verdict::Proceed);
    world.assert_serves(REGION, "v1");
    let to = world.address(&format!("{HOST}/ssh"));
    let forwarded = format!(
        "server_request_direct_tcpip: originator 127.0.0.1 port 65535, target {} port {}",
        to.ip(),
        to.port()
    );
    assert!(bastion.log().contains(&forwarded), "{}", bastion.log());
    // The host's sshd sees the bastion's account come from nowhere else.
    let came = |text: &str| text.matches("Accepted publickey").count();
    let logins = fs::read_to_string(
        world
            .lab
            .directory()
            .path()
            .join(format!("logs/{HOST}/sshd.log")),
    )
    .unwrap();
    assert_eq!(
        came(&logins),
        bastion.log().matches(&forwarded).count(),
        "{logins}"
    );
}

#[test]
fn a_host_in_between_with_another_key_or_that_forwards_nothing_is_told_and_nothing_is_changed() {
    let world = World::start();
    let v1 = world.release("v1", &[]);
    let deploys = |config: PathBuf| {
        let mut command = world.command(DEPLOY, &deploy_args(REGION, &v1, "o1"));
        command.env("REGIONWISE_CONFIG", config);
        Run::of(command)
    };
    let bastion = Bastion::start(&world, "");
    let run = deploys(bastion.config(&world, "other", "other_key")).expect(Verdict::Refused);
    let whose = "the host key of 127.0.0.1, the host in between, is not the pinned one";
    assert!(run.summary().contains(whose), "{run}");
    let closed = Bastion::start(&world, "AllowTcpForwarding no");
    let run = deploys(closed.config(&world, "closed", "host_key")).expect(Verdict::Unreachable);
    assert!(
        run.summary().contains("administratively prohibited"),
        "{run}"
    );
    let lease = world.root(HOST).join("lease.json");
    assert!(!lease.exists(), "it was locked");
}

#[test]
fn roots_login_and_the_look_at_a_host_key_go_through_it_too() {
    let world = World::start();
    let bastion = Bastion::start(&world, "");
    let directory = world.lab.directory();
    let to = world.address(&format!("{HOST}/ssh"));
    let config = bastion.config(&world, "jump", "host_key");
    let known_hosts = config.with_file_name("jump.known");
    let jump = Jump {
        user: bastion.user.clone(),
        address: [127, 0, 0, 1].into(),
        port: bastion.port,
        known_hosts: known_hosts.clone(),
    };
    let identity = directory.deploy_key();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let look = |jump: Option<&Jump>| {
        let shown = host_key::shown(to.ip(), to.port(), jump, Some(&identity));
        runtime.block_on(shown).unwrap().unwrap()
    };
    assert_eq!(look(Some(&jump)), look(None));
    let stranger = Jump {
        known_hosts: directory.known_hosts(),
        ..jump.clone()
    };
    let shown = host_key::shown(to.ip(), to.port(), Some(&stranger), Some(&identity));
    let refused = runtime.block_on(shown);
    assert!(
        matches!(refused, Err(OpenError::JumpKey { .. })),
        "{refused:?}"
    );
    let before = bastion.log().matches("direct_tcpip").count();
    let login = RootLogin {
        address: to.ip(),
        port: to.port(),
        known_hosts,
        identity: Some(identity),
        jump: Some(jump),
    };
    // The lab's host lets nobody in as root: its sshd was asked, and says so.
    let mut quiet = |_: &str| {};
    let said = runtime.block_on(login.run("true", b"", Duration::from_secs(20), &mut quiet));
    assert!(
        matches!(said, Err(RootError::Open(OpenError::Key { .. }))),
        "{said:?}"
    );
    assert!(bastion.log().matches("direct_tcpip").count() > before);
}
