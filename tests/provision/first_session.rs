//! From the key that a server was born with to one that never left it, whatever is killed in between.

use std::fs;
use std::process::Command;
use std::time::Duration;

use regionwise_lab::hetzner::Counted;
use serde_json::json;

use crate::machines::copies_of_a_key;
use crate::world::{Run, World, new_key};

pub(crate) const REGION: [&str; 2] = ["--region", "ap-singapore"];
pub(crate) const SERVER: &str = "shop-sin-1";

/// One host and nothing else, ordered and booted; nobody has logged in yet.
pub(crate) fn ordered() -> World {
    let world = World::new();
    world.booted(
        "ap-singapore",
        &["database = ", "redis = ", "load_balancer = "],
    );
    world
}

pub(crate) fn run(world: &World, more: &[&str]) -> Run {
    let args: Vec<&str> = REGION.iter().chain(more).copied().collect();
    Run::of(&mut world.setting_up(&args))
}

/// Everything that a first session is for.
#[track_caller]
pub(crate) fn is_settled(world: &World, born_with: &str, why: &str) {
    let shown = world.shown(SERVER);
    assert_ne!(shown, born_with, "{why}");
    assert_eq!(world.label(SERVER, "regionwise-host-key"), None, "{why}");
    let bytes = data_encoding::BASE64
        .decode(shown.split(' ').nth(1).unwrap().as_bytes())
        .unwrap();
    let digest = <sha2::Sha256 as sha2::Digest>::digest(bytes);
    let label = data_encoding::BASE32_NOPAD.encode(&digest);
    assert_eq!(
        world.label(SERVER, "regionwise-final-key"),
        Some(label),
        "{why}"
    );
    let known_hosts = fs::read_to_string(world.path("known_hosts")).unwrap();
    let line = format!("{} {shown}\n", world.address_of(SERVER));
    assert_eq!(known_hosts, line, "{why}");
    let machine = world.machine(SERVER);
    assert_eq!(
        copies_of_a_key(&machine),
        Vec::<std::path::PathBuf>::new(),
        "{why}"
    );
    assert!(
        machine.join("etc/cloud/cloud-init.disabled").exists(),
        "{why}"
    );
    assert!(!machine.join("etc/ssh/ssh_host_rsa_key").exists(), "{why}");
}

#[test]
fn a_server_gets_a_host_key_that_never_left_it_and_a_second_run_changes_nothing() {
    let world = ordered();
    let birth = world.shown(SERVER);
    let made = run(&world, &[]).ends(0);
    assert!(
        made.summary().contains("Every server of it is set up"),
        "{}",
        made.json
    );
    assert!(
        made.stderr
            .contains("one that knows only the one-time key is refused"),
        "{}",
        made.stderr
    );
    is_settled(&world, &birth, "made");
    let writes = world.hetzner.writes();
    let shown = world.shown(SERVER);
    let again = run(&world, &[]).ends(0);
    assert_eq!(world.hetzner.writes(), writes, "{}", again.json);
    assert_eq!(world.shown(SERVER), shown);
    assert_eq!(
        world.hetzner.invalid().len(),
        0,
        "{:?}",
        world.hetzner.invalid()
    );
}

#[test]
fn killed_after_every_login_it_converges_from_a_machine_without_known_hosts() {
    let mut killed = 0;
    for n in 1.. {
        let world = ordered();
        let birth = world.shown(SERVER);
        fs::write(world.path("crash"), n.to_string()).unwrap();
        let ended = world.setting_up(&REGION).output().unwrap();
        fs::remove_file(world.path("crash")).unwrap();
        if ended.status.success() {
            break;
        }
        assert_eq!(ended.status.code(), None, "killed after login {n}");
        killed += 1;
        let _ = fs::remove_file(world.path("known_hosts"));
        let why = format!("killed after login {n}");
        run(&world, &[]).ends(0);
        is_settled(&world, &birth, &why);
    }
    assert!(
        killed >= 5,
        "{killed} logins are too few for a first session"
    );
}

/// A run that is killed once the provider has carried out so many of its writes.
fn killed_after_write(world: &World, n: usize) {
    let held = world.hetzner.hold_after(n, Counted::Writes);
    let mut child = world.setting_up(&REGION).spawn().unwrap();
    let seen = held.reached(Duration::from_secs(60)).unwrap();
    assert_eq!(seen.method, "PUT", "{seen:?}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn killed_after_every_write_it_converges_from_a_machine_without_known_hosts() {
    // The final key is announced; the one-time key is taken away.
    for n in 1..=2 {
        let world = ordered();
        let birth = world.shown(SERVER);
        killed_after_write(&world, n);
        let _ = fs::remove_file(world.path("known_hosts"));
        run(&world, &[]).ends(0);
        is_settled(&world, &birth, &format!("killed after write {n}"));
    }
}

#[test]
fn a_server_that_stops_between_the_new_key_and_its_sshd_is_gone_on_with() {
    let world = ordered();
    let birth = world.shown(SERVER);
    let systemctl = world.path("server/systemctl");
    let works = fs::read_to_string(&systemctl).unwrap();
    fs::write(&systemctl, "#!/bin/sh\nexit 1\n").unwrap();
    let failed = run(&world, &[]).ends(10);
    assert!(
        failed
            .summary()
            .contains("ssh.service does not start again"),
        "{}",
        failed.json
    );
    assert_eq!(world.shown(SERVER), birth);
    fs::write(&systemctl, works).unwrap();
    run(&world, &[]).ends(0);
    is_settled(&world, &birth, "after a failed restart");
}

#[test]
fn a_key_that_a_killed_run_shows_only_while_the_next_one_is_at_work_is_that_which_was_announced() {
    let world = ordered();
    let birth = world.shown(SERVER);
    let systemctl = world.path("server/systemctl");
    let works = fs::read_to_string(&systemctl).unwrap();
    fs::write(&systemctl, "#!/bin/sh\nexit 1\n").unwrap();
    run(&world, &[]).ends(10);
    fs::write(&systemctl, works).unwrap();
    fs::write(world.path("late"), "").unwrap();
    run(&world, &[]).ends(0);
    assert!(!world.path("late").exists());
    is_settled(&world, &birth, "after a late restart");
}

#[test]
fn an_announced_key_that_is_lost_is_announced_anew() {
    let world = ordered();
    let birth = world.shown(SERVER);
    killed_after_write(&world, 1);
    assert!(world.label(SERVER, "regionwise-final-key").is_some());
    // As after a restored backup.
    let next = world.machine(SERVER).join("etc/ssh/regionwise-next-key");
    fs::remove_file(next).unwrap();
    run(&world, &[]).ends(0);
    is_settled(&world, &birth, "announced anew");
}

#[test]
fn a_key_that_nothing_vouches_for_is_refused_and_nothing_is_sent() {
    let world = ordered();
    let machine = world.machine(SERVER);
    new_key(&machine.join("other"));
    let other = fs::read_to_string(machine.join("other.pub")).unwrap();
    fs::write(machine.join("shown"), &other).unwrap();
    let refused = run(&world, &[]).ends(12);
    refused.because("host-key");
    assert!(
        refused.summary().contains("its label says SHA256:"),
        "{}",
        refused.json
    );
    assert_eq!(world.logins(), 0);
    // A person who compared it puts it into the file: then it is kept, and its label says so.
    let line = format!("{} {other}", world.address_of(SERVER));
    fs::write(world.path("known_hosts"), line).unwrap();
    fs::copy(
        machine.join("other"),
        machine.join("etc/ssh/ssh_host_ed25519_key"),
    )
    .unwrap();
    fs::remove_file(machine.join("other")).unwrap();
    run(&world, &[]).ends(0);
    assert_eq!(world.shown(SERVER), other.trim());
    assert_eq!(world.label(SERVER, "regionwise-host-key"), None);
}

#[test]
fn a_server_rebuilt_with_its_old_user_data_is_refused_and_a_new_one_of_its_name_is_not() {
    let world = ordered();
    run(&world, &[]).ends(0);
    fs::remove_dir_all(world.machine(SERVER)).unwrap();
    world.boot();
    let logins = world.logins();
    let refused = run(&world, &[]).ends(12);
    assert!(
        refused.hints().contains("--rebuild HOST"),
        "{}",
        refused.json
    );
    assert_eq!(world.logins(), logins);

    let id = world.hetzner.servers()[0].id;
    let path = format!("/servers/{id}");
    fs::remove_dir_all(world.machine(SERVER)).unwrap();
    world
        .hetzner
        .project(|project| project.elsewhere("DELETE", &path, &json!({})));
    world.provision("ap-singapore");
    world.boot();
    // known_hosts still has the key of the one before, for the address that stayed.
    let birth = world.shown(SERVER);
    run(&world, &[]).ends(0);
    is_settled(&world, &birth, "made anew");
}

#[test]
fn a_server_that_does_not_answer_is_unreachable_and_what_is_needed_is_asked_for_before_anything_is_ordered()
 {
    let world = ordered();
    fs::rename(world.machine(SERVER), world.path("off")).unwrap();
    run(&world, &["--boot-within", "1s"])
        .ends(20)
        .because("no-ssh");
    let world = World::new();
    let mut command = world.command(&REGION);
    command.env_remove("REGIONWISE_SERVERS_ONLY");
    let invalid = Run::of(&mut command).ends(2);
    assert!(invalid.hints().contains("--env-file"), "{}", invalid.json);
    assert_eq!(world.hetzner.writes(), 0);
}

#[test]
fn a_confirmation_whose_answer_is_lost_is_asked_for_again() {
    let world = ordered();
    for name in ["armed", "lost"] {
        fs::write(world.path(name), "").unwrap();
    }
    run(&world, &[]).ends(0);
    assert!(!world.path("lost").exists(), "one was lost");
    assert!(!world.machine(SERVER).join("guard").exists());
}

#[test]
fn a_signal_keeps_the_list_of_what_was_done() {
    let world = ordered();
    fs::write(world.path("endless"), "").unwrap();
    let said = stopped_in_a_step(world.setting_up(&REGION));
    let steps = said["result"]["servers"].as_array().unwrap();
    let has = |name: &str| {
        let mut changed = steps.iter().filter(|step| step["state"] == "changed");
        changed.any(|step| step["step"] == name)
    };
    assert!(has("first-session") && has("packages"), "{said:#}");
    assert_eq!(said["result"]["changed"], true);
}

#[test]
fn a_signal_keeps_the_list_of_what_was_done_on_one_host_too() {
    let world = ordered();
    run(&world, &[]).ends(0);
    // Every other host is there already.
    for (host, address) in [("us-1", "192.0.2.1"), ("us-2", "192.0.2.2")] {
        let given = format!("{host} = {{ address = \"{address}\" }}");
        world.change(&format!("{host} = {{}}"), &given);
    }
    for (host, address) in [("eu-1", "192.0.2.3"), ("eu-2", "192.0.2.4")] {
        let header = format!("[regions.eu-central.hosts.{host}]");
        world.change(&header, &format!("{header}\naddress = \"{address}\""));
    }
    fs::write(world.path("endless"), "").unwrap();
    let server = format!("root@{}", world.address_of(SERVER));
    let said = stopped_in_a_step(world.setting_up(&["host", &server]));
    assert_eq!(said["result"]["steps"][0]["step"], "packages", "{said:#}");
    assert_eq!(said["result"]["changed"], true);
}

/// Sends a signal once the server has said its first step, and returns the report.
fn stopped_in_a_step(mut command: Command) -> serde_json::Value {
    let child = command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn();
    let mut child = child.unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    assert!(lines.any(|line| line.unwrap().contains("packages: changed")));
    let term = Command::new("kill").arg(child.id().to_string()).status();
    assert!(term.unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Everything but load balancers, with the secrets of the clusters.
fn run_with_secrets(world: &World, region: &str) -> Run {
    let mut command = world.setting_up(&["--region", region, "--boot-within", "1s"]);
    command.env("SHOP_DSN", "postgres://shop:swordfish9@127.0.0.1:6432/shop");
    for (name, node) in [("US_PRIMARY_DSN", 1), ("US_SIN_DSN", 2), ("US_DR_DSN", 3)] {
        command.env(
            name,
            format!("postgres://lag:hunter2hunter2@[fd00::{node}]/shop"),
        );
    }
    let run = Run::of(&mut command);
    assert!(!run.json.to_string().contains("hunter2hunter2@"));
    run
}

#[test]
fn a_region_is_joined_to_those_that_are_there_and_its_primary_comes_before_the_standbys() {
    let world = World::new();
    world.change("load_balancer = { types = [\"lb11\"] }\n", "");
    world.change(
        "volume_gb = 200 }",
        "volume_gb = 200, app = \"env:SHOP_DSN\" }",
    );
    world.pack();
    world.provision("ap-singapore");
    world.boot();
    let first = run_with_secrets(&world, "ap-singapore").ends(0);
    let waits = "standby `us-sin` waits for its primary `us-primary`";
    assert!(first.json.to_string().contains(waits), "{}", first.json);
    for server in ["shop-sin-1", "shop-us-sin", "shop-ap-singapore-redis"] {
        let label = world.label(server, "regionwise-wireguard").unwrap();
        assert_eq!(label.len(), 52, "{server}");
    }

    world.provision("us-east");
    world.boot();
    let before = world.scripts().len();
    let joined = run_with_secrets(&world, "us-east").ends(0);
    assert!(
        joined.hints().contains("certificates/us-primary.pem"),
        "{}",
        joined.json
    );
    let scripts = world.scripts().split_off(before);
    let (us, sin) = (
        [
            "shop-us-1",
            "shop-us-2",
            "shop-us-east-redis",
            "shop-us-primary",
        ],
        ["shop-ap-singapore-redis", "shop-sin-1", "shop-us-sin"],
    );
    // Keys, peers, the region itself, the standby and the host that depend on it, the logins of all hosts, the primary once
    // more, and whether the region's hosts answer.
    let dependents = ["shop-us-sin", "shop-sin-1"];
    let hosts = ["shop-sin-1", "shop-us-1", "shop-us-2"];
    let expected: Vec<&str> = [
        &us[..],
        &sin,
        &sin,
        &us[3..],
        &us[..3],
        &dependents,
        &hosts,
        &us[3..],
        &us[..2],
    ]
    .concat();
    assert_eq!(scripts, expected);

    // The nodes are known by their certificates, which are public.
    let certificate = fs::read_to_string(world.path("certificates/us-primary.pem")).unwrap();
    assert_eq!(
        certificate,
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    );
    let mesh = joined.json["result"]["mesh"].as_object().unwrap();
    assert_eq!(mesh.len(), 7, "{mesh:?}");

    // The product does not get through: that is said, and nothing else is left undone for it.
    fs::write(world.path("no-login"), "").unwrap();
    let before = world.scripts().len();
    let alone = run_with_secrets(&world, "us-east").ends(10);
    alone.because("step-bouncer-logins");
    for host in ["sin-1", "us-1", "us-2"] {
        let failed = format!("step `bouncer-logins` failed on `{host}`");
        assert!(
            alone.json.to_string().contains(&failed),
            "{host}: {}",
            alone.json
        );
    }
    assert_eq!(world.scripts().split_off(before), expected);
    fs::remove_file(world.path("no-login")).unwrap();

    // Its next certificate is told to all and then takes over, in a script of its own; not in the run that has its file first.
    let primary = world.machine("shop-us-primary");
    fs::write(primary.join("certificate"), "MIIB MIIC").unwrap();
    fs::write(primary.join("renewal"), "due").unwrap();
    let new = run_with_secrets(&world, "us-east").ends(0);
    let kept =
        "its next certificate has not taken over: its file here did not have it before this run";
    assert!(new.json.to_string().contains(kept), "{}", new.json);
    let before = world.scripts().len();
    run_with_secrets(&world, "us-east").ends(0);
    let scripts = world.scripts().split_off(before);
    let (earlier, later) = expected.split_at(expected.len() - hosts.len() - 3);
    assert_eq!(scripts, [earlier, &us[3..], later].concat());
    let renewed = || fs::read_to_string(primary.join("renewed")).unwrap_or_default();
    assert_eq!(renewed(), "yes\n");
    let sent = |server: &str| {
        let sent = fs::read(world.machine(server).join("sent")).unwrap();
        String::from_utf8_lossy(&sent).into_owned()
    };
    let both = regionwise_provision::host::pem("MIIB MIIC");
    assert!(sent("shop-us-sin").contains(&both));
    let certificate = fs::read_to_string(world.path("certificates/us-primary.pem")).unwrap();
    assert_eq!(certificate, both);

    // Singapore is down: the region is set up all the same, and what it could not tell is said.
    for server in sin {
        fs::rename(world.machine(server), world.path(server)).unwrap();
    }
    let alone = run_with_secrets(&world, "us-east").ends(20);
    alone.because("no-ssh");
    let steps = alone.json["result"]["servers"].as_array().unwrap();
    let made = steps
        .iter()
        .filter(|step| step["server"] == "us-primary" && step["step"] == "packages");
    assert!(made.count() >= 2, "{}", alone.json);
    let kept = "its next certificate has not taken over: some servers were not told of it";
    assert!(alone.json.to_string().contains(kept), "{}", alone.json);
    assert_eq!(renewed(), "yes\n");
    // Its standby there is still let in: the certificate is kept beside regions.toml.
    let script = || {
        let sent = fs::read(world.machine("shop-us-primary").join("sent")).unwrap();
        String::from_utf8_lossy(&sent).into_owned()
    };
    let pinned = |script: &str| script.contains("us-sin") && script.contains("MIIB");
    assert!(pinned(&script()), "{}", script());
    // Without the file the primary is left as it is.
    fs::remove_file(world.path("certificates/us-sin.pem")).unwrap();
    let unasked = run_with_secrets(&world, "us-east").ends(20);
    let left = "primary `us-primary` is left as it is: its standby `us-sin` could not be asked";
    assert!(unasked.json.to_string().contains(left), "{}", unasked.json);
    assert!(!script().contains("MIIB"), "{}", script());
}

#[test]
fn a_dry_run_logs_in_nowhere_and_needs_no_secret() {
    let world = ordered();
    let mut command = world.setting_up(&["--region", "ap-singapore", "--dry-run"]);
    command.env_remove("REGIONWISE_ENV_FILE");
    Run::of(&mut command).ends(0);
    assert_eq!(world.logins(), 0);
}
