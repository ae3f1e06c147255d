//! What the program for Redis makes of a real one, in a directory instead of a server.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

const TOOL: &str = include_str!("../../crates/provision/src/host/redis/redis.sh");
const PASSWORD: &str = "password-of-redis";

/// One that runs with the file of users that the program made, and is reached through a socket.
struct Redis {
    home: TempDir,
    server: Child,
}

impl Redis {
    fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let path = |name: &str| home.path().join(name).display().to_string();
        let tool = TOOL
            .replace("=/etc/regionwise/redis", &format!("={}", path("")))
            .replace("-h 127.0.0.1", &format!("-s {}", path("socket")));
        fs::write(path("tool"), tool).unwrap();
        fs::write(path("server"), "account=shop\n").unwrap();
        fs::create_dir_all(path("bin")).unwrap();
        // Whoever runs the test is no root, and may not give files away.
        fs::write(path("bin/chown"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(path("bin/chown"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(path("redis-password"), format!("{PASSWORD}\n")).unwrap();
        said_by(home.path(), &["set_users"]).unwrap();
        let mut redis = Self {
            server: serve(home.path()),
            home,
        };
        redis.wait();
        redis
    }

    /// Until it answers.
    fn wait(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.cli("regionwise", &["PING"]) != "PONG" {
            assert!(Instant::now() < deadline, "Redis does not answer");
            assert!(self.server.try_wait().unwrap().is_none(), "Redis ended");
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn restart(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
        self.server = serve(self.home.path());
        self.wait();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn command(&self, user: &str, password: &str, words: &[&str]) -> Command {
        let mut command = Command::new("redis-cli");
        command.env("REDISCLI_AUTH", password);
        command.arg("-s").arg(self.path("socket"));
        command.args(["--no-auth-warning", "--user", user]);
        command.args(words);
        command
    }

    fn cli(&self, user: &str, words: &[&str]) -> String {
        let password = match user {
            "regionwise" => fs::read_to_string(self.path("admin")).unwrap(),
            _ => PASSWORD.to_owned(),
        };
        let output = self.command(user, password.trim(), words).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn admin(&self, words: &[&str]) {
        assert_eq!(self.cli("regionwise", words), "OK");
    }

    fn is_so(&self) -> bool {
        said_by(self.home.path(), &["logins_so"]).is_ok()
    }

    #[track_caller]
    fn gives(&self) {
        said_by(self.home.path(), &["give_users"]).unwrap();
        assert!(self.is_so());
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn serve(home: &std::path::Path) -> Child {
    Command::new("redis-server")
        .args(["--port", "0", "--save", "", "--unixsocket"])
        .arg(home.join("socket"))
        .arg("--aclfile")
        .arg(home.join("users.acl"))
        .current_dir(home)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// `Err`: it failed, and said this.
fn said_by(home: &std::path::Path, verb: &[&str]) -> Result<String, String> {
    let path = std::env::var("PATH").unwrap();
    let output = Command::new("sh")
        .arg(home.join("tool"))
        .args(verb)
        .arg(home)
        .env("PATH", format!("{}:{path}", home.join("bin").display()))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    match output.status.success() {
        true => Ok(said),
        false => Err(said),
    }
}

#[test]
fn whatever_somebody_changed_in_the_running_one_is_found_and_taken_back() {
    let mut redis = Redis::start();
    // Nobody has looked yet.
    assert!(!redis.is_so());
    redis.gives();
    for change in [
        &["other", "on", "nopass", "~*", "+@all"][..],
        &["default", "on", "nopass", "~*", "+@all"],
        &["default", "on", ">backdoor", "~*", "&*", "+@all"],
        &["shop", "+@all"],
        &["shop", "+flushall", ">second"],
        &["regionwise", "nopass"],
    ] {
        redis.admin(&[&["ACL", "SETUSER"], change].concat());
        assert!(!redis.is_so(), "{change:?}");
        redis.gives();
    }
    assert_eq!(
        redis.cli("shop", &["FLUSHALL"]).split(' ').next(),
        Some("NOPERM")
    );
    // It read the same from its file.
    redis.restart();
    assert!(redis.is_so());
}

#[test]
fn nobody_is_disconnected_by_a_look_or_by_another_password() {
    let redis = Redis::start();
    let waiting = |redis: &Redis| {
        let clients = redis.cli("regionwise", &["INFO", "clients"]);
        clients.contains("blocked_clients:1")
    };
    let mut blocked = redis.command("shop", PASSWORD, &["BLPOP", "queue", "60"]);
    let blocked = blocked.stdout(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while !waiting(&redis) {
        assert!(Instant::now() < deadline, "nobody waits");
        thread::sleep(Duration::from_millis(20));
    }
    redis.gives();
    fs::write(redis.path("redis-password"), "another-password\n").unwrap();
    assert!(!redis.is_so());
    said_by(redis.home.path(), &["set_users"]).unwrap();
    redis.gives();
    assert!(waiting(&redis));
    let refused = redis.cli("shop", &["PING"]);
    assert!(refused.contains("NOAUTH"), "the old password: {refused}");
    assert_eq!(redis.cli("regionwise", &["LPUSH", "queue", "job"]), "1");
    let got = blocked.wait_with_output().unwrap().stdout;
    assert_eq!(String::from_utf8(got).unwrap(), "queue\njob\n");
}
