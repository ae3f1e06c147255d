//! From the key that a server was born with to one that never left it, whatever is killed in between.

use std::fs;
use std::process::Command;
use std::time::Duration;

use regionwise_lab::hetzner::Counted;
use serde_json::json;

use crate::machines::copies_of_a_key;
use crate::world::{Run, World, new_key};

const REGION: [&str; 2] = ["--region", "ap-singapore"];
const SERVER: &str = "shop-sin-1";

/// One host and nothing else, ordered and booted; nobody has logged in yet.
fn ordered() -> World {
    let world = World::new();
    for line in ["database = ", "redis = ", "load_balancer = "] {
        let text = world.file();
        let kept = text.lines().filter(|known| !known.starts_with(line));
        world.write(&kept.map(|line| format!("{line}\n")).collect::<String>());
    }
    world.pack();
    world.provision("ap-singapore");
    world.boot();
    world
}

fn run(world: &World, more: &[&str]) -> Run {
    let args: Vec<&str> = REGION.iter().chain(more).copied().collect();
    Run::of(&mut world.setting_up(&args))
}

/// Everything that a first session is for.
#[track_caller]
fn is_settled(world: &World, born_with: &str, why: &str) {
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

#[test]
fn killed_after_every_write_it_converges_from_a_machine_without_known_hosts() {
    // The final key is announced; the one-time key is taken away.
    for n in 1..=2 {
        let world = ordered();
        let birth = world.shown(SERVER);
        let held = world.hetzner.hold_after(n, Counted::Writes);
        let mut child = world.setting_up(&REGION).spawn().unwrap();
        let seen = held.reached(Duration::from_secs(60)).unwrap();
        assert_eq!(seen.method, "PUT", "{seen:?}");
        child.kill().unwrap();
        child.wait().unwrap();
        drop(held);
        let _ = fs::remove_file(world.path("known_hosts"));
        run(&world, &[]).ends(0);
        is_settled(&world, &birth, &format!("killed after write {n}"));
    }
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
    let birth = world.hetzner.servers()[0].user_data.clone().unwrap();
    let public = birth
        .lines()
        .find_map(|line| line.strip_prefix("  ed25519_public: "));
    fs::write(
        machine.join("etc/ssh/regionwise-birth-key.pub"),
        public.unwrap(),
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
        refused.hints().contains("delete the server"),
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
fn a_signal_keeps_the_list_of_what_was_done() {
    let world = ordered();
    fs::write(world.path("endless"), "").unwrap();
    let child = world
        .setting_up(&REGION)
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
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let steps = said["result"]["servers"].as_array().unwrap();
    let has = |name: &str| {
        steps
            .iter()
            .any(|step| step["step"] == name && step["state"] == "changed")
    };
    assert!(has("first-session") && has("packages"), "{said:#}");
    assert_eq!(said["result"]["changed"], true);
}
