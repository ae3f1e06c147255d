//! A server boots from the very user data that `provision-region --region` ordered it with, and is set up by the same command:
//! killed on the way, from machines that know nothing, and through a reboot.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use regionwise_lab::guests::{Guest, Machine};
use regionwise_lab::hetzner::Hetzner;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::setting_up::PROVISION;
use crate::world;

const TOKEN: &str = "hunter2hunter2hunter2hunter2";
const REGIONS: &str = r#"[product]
name = "shop"

[ssh]
known_hosts = "known_hosts"
identity = "file:deploy"

[regions.home]
location = "fsn1"
traffic = 1.0
cluster = "one"
url = "http://shop.example"
hosts = { web-1 = {} }

[clusters.one]
primary = { name = "db", location = "fsn1", dsn = "env:DB_DSN" }
standbys = []

[provision]
root_keys = ["root.pub"]
ssh_from = ["10.77.0.1/32"]
api = { types = ["cx43", "cpx42"] }
"#;

/// Beside whatever else the machine does.
const BOOT: Duration = Duration::from_secs(400);

/// Lines of the run at which it is killed, in the order in which they come.
const KILLED_AT: [&str; 4] = [
    "waits for the end of cloud-init",
    "its final host key is",
    "shows its final host key from now on",
    "one that knows only the one-time key is refused",
];

struct Desk {
    directory: PathBuf,
    hetzner: Hetzner,
}

impl Desk {
    fn new(runtime: &Runtime) -> Self {
        let directory = world::directory("first-session-desk");
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        let hetzner = runtime.block_on(Hetzner::start(TOKEN)).unwrap();
        // That of the first guest.
        hetzner.project(|project| project.addresses = vec![Ipv4Addr::new(10, 77, 0, 11)]);
        let desk = Self { directory, hetzner };
        fs::write(desk.path("regions.toml"), REGIONS).unwrap();
        fs::write(desk.path("shop.env"), "PASSWORD=not-in-any-report\n").unwrap();
        for key in ["root", "deploy"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"])
                .arg(desk.path(key))
                .status();
            assert!(made.unwrap().success());
        }
        // Emulated, a debug build takes long to travel and to be hashed.
        let stripped = Command::new("strip")
            .arg("-o")
            .arg(desk.path("region-host"))
            .arg(env!("CARGO_BIN_EXE_region-host"))
            .status();
        assert!(stripped.unwrap().success());
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// `provision-region --region home`, here or inside the namespace.
    fn run(&self, mut command: Command, root_key: Option<&Path>) -> Command {
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("REGIONWISE_")) {
            if name != "REGIONWISE_LAB" {
                command.env_remove(name);
            }
        }
        command
            .args(["--region", "home", "--format", "json", "--ci", "none"])
            .env("HCLOUD_TOKEN", TOKEN)
            .env("REGIONWISE_HCLOUD_ENDPOINT", self.hetzner.url())
            .env("REGIONWISE_TICK", "20ms")
            .current_dir(&self.directory)
            .stdin(Stdio::null());
        match root_key {
            None => command.arg("--servers-only"),
            Some(key) => command
                .args(["--env-file", "shop.env", "--region-host", "region-host"])
                .arg("--root-key")
                .arg(key),
        };
        command
    }

    #[track_caller]
    fn ends_well(&self, mut command: Command) -> Value {
        let output = command.output().unwrap();
        let (stdout, stderr) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(output.status.success(), "{stdout}\n{stderr}");
        for secret in [TOKEN, "not-in-any-report", "PRIVATE KEY"] {
            assert!(
                !stdout.contains(secret) && !stderr.contains(secret),
                "a secret"
            );
        }
        serde_json::from_str(&stdout).unwrap()
    }

    /// Runs until it says these words, and kills it there. Another machine goes on, which has no known_hosts.
    fn killed_at(&self, mut command: Command, words: &str) {
        let report = fs::File::create(self.path("report")).unwrap();
        let mut child = command
            .stdout(report)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = String::new();
        for line in lines.map(Result::unwrap) {
            said += &line;
            said.push('\n');
            if line.contains(words) {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let report = fs::read_to_string(self.path("report")).unwrap();
        assert!(said.contains(words), "never `{words}`: {said}\n{report}");
        let _ = fs::remove_file(self.path("known_hosts"));
    }

    /// What the cloud does with the ssh keys of an order.
    fn let_root_in(&self, guest: &Guest, birth: &str) {
        fs::write(&guest.known_hosts, format!("{} {birth}\n", guest.address)).unwrap();
        let public = fs::read_to_string(self.path("root.pub")).unwrap();
        let add = format!("echo '{}' >> /root/.ssh/authorized_keys", public.trim());
        let deadline = Instant::now() + BOOT;
        while let Err(error) = guest.ssh(&add) {
            assert!(Instant::now() < deadline, "{error}");
            thread::sleep(Duration::from_millis(500));
        }
    }

    fn label(&self, key: &str) -> Option<String> {
        self.hetzner.servers()[0].labels.get(key).cloned()
    }
}

#[test]
#[ignore = "guests: scripts/test runs them as root"]
fn a_server_shows_a_key_of_its_own_after_the_first_session_and_the_one_it_was_born_with_is_refused_for_good()
 {
    let runtime = Runtime::new().unwrap();
    let desk = Desk::new(&runtime);
    desk.ends_well(desk.run(Command::new(PROVISION), None));
    let server = desk.hetzner.servers().remove(0);
    let user_data = server.user_data.clone().unwrap();
    let machine = Machine::born("web-1", &user_data);
    let Some(guests) = world::start_installed("first-session", &[machine]) else {
        return;
    };
    let guest = &guests.all()[0];
    let url = desk.hetzner.url();
    let port = url.trim_end_matches("/v1").rsplit(':').next().unwrap();
    let inside = guests.listener(([127, 0, 0, 1], port.parse().unwrap()).into());
    runtime
        .block_on(desk.hetzner.also_on(inside.unwrap()))
        .unwrap();
    let set_up = || desk.run(guests.command(PROVISION), Some(&desk.path("root")));
    let birth = line(&user_data, "  ed25519_public: ");
    let started = Instant::now();
    let passed = |what: &str| println!("{what} after {:.0} s", started.elapsed().as_secs_f64());
    desk.let_root_in(guest, birth);
    passed("booted");
    for words in KILLED_AT {
        desk.killed_at(set_up(), words);
        passed(&format!("killed at `{words}`"));
    }
    let made = desk.ends_well(set_up());
    passed("set up");
    let steps = made["result"]["servers"].as_array().unwrap();
    let changed = |name: &str| {
        steps
            .iter()
            .any(|step| step["step"] == name && step["state"] == "changed")
    };
    assert!(changed("region-host") && changed("proxy"), "{made:#}");
    assert_eq!(desk.label("regionwise-host-key"), None);

    let known_hosts = fs::read_to_string(desk.path("known_hosts")).unwrap();
    assert_eq!(known_hosts.lines().count(), 1, "{known_hosts}");
    let fragment = user_data
        .lines()
        .skip_while(|line| !line.contains("ed25519_private"))
        .nth(4);
    let fragment = fragment.unwrap().trim();
    only_its_own_key_is_accepted(guest, &known_hosts, birth, fragment);
    guest.reboot().unwrap();
    passed("again after a reboot");
    only_its_own_key_is_accepted(guest, &known_hosts, birth, fragment);

    let writes = desk.hetzner.writes();
    let again = desk.ends_well(set_up());
    assert_eq!(again["result"]["changed"], false, "{again:#}");
    assert_eq!(desk.hetzner.writes(), writes);
}

fn line<'t>(text: &'t str, begin: &str) -> &'t str {
    text.lines()
        .find_map(|line| line.strip_prefix(begin))
        .unwrap()
}

fn only_its_own_key_is_accepted(guest: &Guest, known_hosts: &str, birth: &str, fragment: &str) {
    fs::write(&guest.known_hosts, format!("{} {birth}\n", guest.address)).unwrap();
    let refused = guest.ssh("true").unwrap_err().to_string();
    assert!(
        refused.contains("Host key verification failed"),
        "{refused}"
    );
    fs::write(&guest.known_hosts, known_hosts).unwrap();
    let keys = guest.ssh("ls /etc/ssh | grep key").unwrap();
    assert_eq!(
        keys,
        "regionwise-birth-key.pub\nssh_host_ed25519_key\nssh_host_ed25519_key.pub\n"
    );
    // Its metadata, a disk of its own here, has them still; no file does.
    let copies = format!("grep -rlaF -e '{fragment}' /etc /root /run /tmp /var; true");
    assert_eq!(
        guest.ssh(&copies).unwrap(),
        "",
        "a copy of the one-time key"
    );
}
