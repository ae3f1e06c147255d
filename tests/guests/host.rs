//! `provision-region host`: docs/first-server.md on a real server, from bare to serving, and through a reboot.

use std::fs;
use std::process::Command;
use std::time::Instant;

use regionwise_lab::guests::{Guest, Machine, System};
use regionwise_rollout::Verdict;

use crate::setting_up::{DEPLOY, Desk, PREFLIGHT, ROLLBACK, SMOKE};
use crate::{ports, upgrade, world};

/// Everything that a provisioning could change. The journal, caches and lists of apt change by themselves.
const STATE: &str = r"
places='/etc /usr/local /root /var/lib/regionwise'
{
  dpkg-query -W
  find $places -xdev ! -type d ! -name '*.cache' -printf '%p %m %u %l\n'
  find $places -xdev -type f ! -name '*.cache' -exec sha256sum {} +
  nft list ruleset
  systemctl list-unit-files --state enabled --no-legend
} 2> /dev/null | sort
";

#[test]
#[ignore = "guests: scripts/test runs them as root"]
fn one_command_makes_a_bare_server_a_host_and_what_it_serves_comes_back_after_a_reboot() {
    becomes_a_host(System::Debian12, "host");
}

#[test]
#[ignore = "guests: scripts/test runs them as root"]
fn a_bare_debian_13_becomes_a_host_too() {
    becomes_a_host(System::Debian13, "host-debian-13");
}

#[test]
#[ignore = "guests: scripts/test runs them as root"]
fn a_bare_ubuntu_24_04_becomes_a_host_too() {
    becomes_a_host(System::Ubuntu2404, "host-ubuntu-24.04");
}

fn becomes_a_host(system: System, test: &str) {
    let Some(guests) = world::boot(system, test, &[Machine::bare("web-1")]) else {
        return;
    };
    let desk = Desk::new(&guests);
    let guest = desk.guest();
    let bare = guest.ssh(STATE).unwrap();
    for program in ["haproxy", "psql", "docker"] {
        let there = guest.ssh(&format!("command -v {program}"));
        assert!(there.is_err(), "a bare server has no {program}");
    }

    let fingerprint = unknown_and_wrong_host_keys_are_refused(&desk);
    let dry = desk.provision(&["--host-key", &fingerprint, "--dry-run"], Verdict::Proceed);
    for step in [
        "packages",
        "region-host",
        "install",
        "proxy",
        "reconcile",
        "firewall",
        "sshd-config",
    ] {
        assert!(dry.steps("would").contains(&step), "{}", dry.text());
    }
    assert_eq!(dry.said["result"]["changed"], false, "{}", dry.text());
    assert!(!desk.path("known_hosts").exists(), "a dry run pins nothing");
    assert_eq!(
        guest.ssh(STATE).unwrap(),
        bare,
        "refusals and a dry run change nothing"
    );

    // Somebody forgot a database that listens everywhere.
    guest
        .ssh("systemd-run --quiet --unit=forgotten python3 -m http.server 5432")
        .unwrap();
    let started = Instant::now();
    let made = desk.provision(&["--host-key", &fingerprint], Verdict::Proceed);
    println!(
        "a bare server became a host in {:.0} s",
        started.elapsed().as_secs_f64()
    );
    assert_eq!(made.said["result"]["changed"], true);
    let named = "python3 listens on tcp/5432 at 0.0.0.0, and the firewall lets nobody to it";
    assert!(made.text().contains(named), "{}", made.text());
    assert!(
        made.text().contains("deploy-region --region home"),
        "it says what comes next: {}",
        made.text()
    );
    assert!(
        fs::read_to_string(desk.path("known_hosts"))
            .unwrap()
            .contains("ssh-ed25519")
    );
    assert_eq!(
        made.steps("changed"),
        dry.steps("would")
            .into_iter()
            .filter(|step| made.steps("changed").contains(step))
            .collect::<Vec<_>>()
    );

    let after = guest.ssh(STATE).unwrap();
    let again = desk.provision(&[], Verdict::Proceed);
    assert_eq!(
        (
            again.steps("changed").len(),
            &again.said["result"]["changed"]
        ),
        (0, &false.into()),
        "{}",
        again.text()
    );
    assert_eq!(
        guest.ssh(STATE).unwrap(),
        after,
        "a second run changes nothing"
    );
    a_changed_host_key_is_refused(&desk);
    a_secret_that_others_can_read_is_seen(&desk);

    only_the_documented_ports_answer(&desk);
    the_system_is_as_documented(guest, system);
    a_release_serves_and_one_command_leads_back(&desk);
    upgrade::a_new_one_comes_a_bad_one_goes_and_the_one_before_comes_back(&desk);
    guest.reboot().unwrap();
    let status = desk.run(DEPLOY, &["status"], Verdict::Proceed);
    assert!(status.text().contains("`v1` serves"), "{}", status.text());
    desk.run(
        SMOKE,
        &[
            "--region",
            "home",
            "--endpoints",
            "basic",
            "--expect-release",
            "v1",
        ],
        Verdict::Proceed,
    );
    guest.ssh("nft list table inet regionwise").unwrap();
    let again = desk.provision(&[], Verdict::Proceed);
    assert!(
        again.steps("changed").is_empty(),
        "after a reboot: {}",
        again.text()
    );
}

/// Returns the right fingerprint.
fn unknown_and_wrong_host_keys_are_refused(desk: &Desk<'_>) -> String {
    let public = desk.guest().known_hosts.with_file_name("host_key.pub");
    let output = Command::new("ssh-keygen")
        .arg("-lf")
        .arg(public)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let fingerprint = text.split_whitespace().nth(1).unwrap().to_owned();

    let refused = desk.provision(&[], Verdict::Refused);
    for words in [
        &fingerprint,
        "on the server's own console: ssh-keygen -lf",
        "--host-key SHA256:",
    ] {
        assert!(
            refused.text().contains(words),
            "{words}: {}",
            refused.text()
        );
    }
    let other = format!("SHA256:{}", "A".repeat(43));
    let refused = desk.provision(&["--host-key", &other], Verdict::Refused);
    assert!(
        refused.text().contains("somebody may be in between"),
        "{}",
        refused.text()
    );
    assert!(!desk.path("known_hosts").exists());
    fingerprint
}

fn a_changed_host_key_is_refused(desk: &Desk<'_>) {
    let pinned = fs::read_to_string(desk.path("known_hosts")).unwrap();
    let other = fs::read_to_string(desk.path("deploy.pub")).unwrap();
    let key = other.split_whitespace().nth(1).unwrap();
    desk.write(
        "known_hosts",
        &format!("{} ssh-ed25519 {key}\n", desk.guest().address),
    );
    let refused = desk.provision(&[], Verdict::Refused);
    assert!(
        refused
            .text()
            .contains("take its old line out of known_hosts"),
        "{}",
        refused.text()
    );
    desk.write("known_hosts", &pinned);
}

fn a_secret_that_others_can_read_is_seen(desk: &Desk<'_>) {
    let env = "/var/lib/regionwise/shop/env";
    let guest = desk.guest();
    guest
        .ssh(&format!("chmod 644 {env}; chown nobody: {env}"))
        .unwrap();
    let mended = desk.provision(&[], Verdict::Proceed);
    // The proxy reads its configuration again, as after every install.
    assert_eq!(
        mended.steps("changed"),
        ["install", "proxy-config"],
        "{}",
        mended.text()
    );
    let owner = guest.ssh(&format!("stat -c '%a %U:%G' {env}")).unwrap();
    assert_eq!(owner, "600 regionwise:regionwise\n");
}

/// Answers every datagram.
const ECHO: &str = "import socket
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind((\"\", 5353))
while True:
    data, sender = udp.recvfrom(9)
    udp.sendto(data, sender)";

/// Sends one, and prints what comes back.
const ASK: &str = "import socket, sys
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.settimeout(5)
udp.connect((sys.argv[1], 5353))
udp.send(b\"x\")
try:
    print(udp.recv(9))
except TimeoutError:
    print(\"silence\")";

fn only_the_documented_ports_answer(desk: &Desk<'_>) {
    let guest = desk.guest();
    let listens = guest
        .ssh("curl -sf -o /dev/null http://127.0.0.1:5432/ && echo yes")
        .unwrap();
    assert_eq!(
        listens.trim(),
        "yes",
        "the forgotten database still listens"
    );
    let python = |words: &[&str]| {
        let output = desk.guests.command("python3").args(words).output().unwrap();
        let (stdout, stderr) = (output.stdout, String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{stderr}");
        String::from_utf8(stdout).unwrap().trim().to_owned()
    };
    let address = guest.address.to_string();
    let many = (1..=10_000).collect();
    let answers = python(&["-c", &ports::wide_scan(&address, &many)]);
    assert_eq!(answers, "22:open 80:open 443:refused");
    // sshd listens there, too; the proxy does not.
    let link_local =
        "ip -6 -o addr show dev eth0 scope link | awk '{ sub(\"/.*\", \"\", $4); print $4 }'";
    let address_6 = format!("{}%br0", guest.ssh(link_local).unwrap().trim());
    let some = (1..=200).chain([443, 5432]).collect();
    let answers = python(&["-c", &ports::scan(&address_6, &some)]);
    assert_eq!(answers, "22:open 80:refused 443:refused");

    let echo = format!("systemd-run --quiet --unit=echo python3 -c '{ECHO}'");
    guest.ssh(&echo).unwrap();
    guest
        .ssh("timeout 60 sh -c 'until ss -Hlun | grep -q :5353; do sleep 0.2; done'")
        .unwrap();
    let ask = format!("python3 -c '{ASK}' 127.0.0.1");
    assert_eq!(guest.ssh(&ask).unwrap().trim(), "b'x'");
    assert_eq!(python(&["-c", ASK, &address]), "silence");
    guest.ssh("systemctl stop echo").unwrap();
}

fn the_system_is_as_documented(guest: &Guest, system: System) {
    let sshd = guest.ssh("sshd -T").unwrap();
    assert!(
        sshd.lines().any(|line| line == "passwordauthentication no"),
        "{sshd}"
    );
    for (command, wanted) in [
        ("systemctl is-enabled haproxy.service || true", "disabled"),
        ("timedatectl show -p NTP --value", "yes"),
        ("systemctl is-active regionwise-disk-alarm.timer", "active"),
        (
            "apt-config dump Unattended-Upgrade::Automatic-Reboot",
            "Unattended-Upgrade::Automatic-Reboot \"false\";",
        ),
        (
            "stat -c '%a %U' /var/lib/regionwise/shop/env",
            "600 regionwise",
        ),
        (
            "ls /var/lib/regionwise-guard /run/regionwise-staged.* 2> /dev/null | wc -l",
            "0",
        ),
        ("systemctl --failed --no-legend | wc -l", "0"),
    ] {
        assert_eq!(guest.ssh(command).unwrap().trim(), wanted, "{command}");
    }
    let updates = guest.ssh("unattended-upgrade --dry-run -v 2>&1").unwrap();
    let security = match system {
        System::Debian12 | System::Debian13 => "label=Debian-Security, ",
        System::Ubuntu2404 => "origin=Ubuntu,archive=noble-security",
    };
    assert!(updates.contains(security), "{updates}");
    assert!(
        updates.contains("Initial blacklist: containerd docker"),
        "{updates}"
    );
    // With a df that tells of a full disk.
    let alarm = r#"sed 's#^df .*|#printf "h\\nx 1 1 1 86%% /data\\n" |#' /usr/local/lib/regionwise/disk-alarm | sh"#;
    assert!(
        guest
            .ssh(alarm)
            .unwrap()
            .contains("<4>only 14 % of /data is free")
    );
    assert_eq!(
        guest.ssh("/usr/local/lib/regionwise/disk-alarm").unwrap(),
        "",
        "this disk has room"
    );
}

fn a_release_serves_and_one_command_leads_back(desk: &Desk<'_>) {
    desk.run(
        PREFLIGHT,
        &["--release", "v1.toml", "--skip-databases"],
        Verdict::Proceed,
    );
    for release in ["v1", "v2"] {
        let file = format!("{release}.toml");
        desk.run(
            DEPLOY,
            &[
                "--region",
                "home",
                "--release",
                &file,
                "--operation",
                release,
            ],
            Verdict::Proceed,
        );
        desk.run(
            SMOKE,
            &[
                "--region",
                "home",
                "--endpoints",
                "basic",
                "--expect-release",
                release,
            ],
            Verdict::Proceed,
        );
        desk.run(
            DEPLOY,
            &["close", "--region", "home", "--operation", release],
            Verdict::Proceed,
        );
    }
    let back = desk.run(ROLLBACK, &["--region", "home"], Verdict::Proceed);
    assert_eq!(back.said["result"]["changed"], true, "{}", back.text());
    let rotate = "logrotate --force /etc/logrotate.d/regionwise-shop && cd /var/lib/regionwise/shop/log && wc -c blue.log && ls";
    let said = desk.guest().ssh(rotate).unwrap();
    assert!(
        said.starts_with("0 blue.log\n") && said.contains("blue.log-20"),
        "{said}"
    );
}
