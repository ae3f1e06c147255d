//! The same steps as user data at the first boot, and the way back when a change lets nobody in.

use std::fs;
use std::time::Instant;

use regionwise_lab::guests::Machine;
use regionwise_provision::host::{Opening, Server, System, steps};
use regionwise_provision::{cloud_config, script};
use regionwise_rollout::Verdict;

use crate::boot::nothing_of_them_outlives_a_panic;
use crate::containers::what_docker_publishes_is_closed_and_containers_see_no_metadata;
use crate::setting_up::Desk;
use crate::world;

/// No change waits to be confirmed, and nothing would undo one later.
const NOTHING_ARMED: &str = "[ ! -e /var/lib/regionwise-guard ] && ! systemctl -q is-active regionwise-revert.timer \
  && [ ! -e /etc/systemd/system/regionwise-revert-at-boot.service ]";

/// What a server does at its first boot.
fn script_with(ssh_port: u16) -> String {
    script::render(&steps(&Server::bare(System {
        ssh_port,
        open: [80, 443].map(Opening::anywhere).to_vec(),
    })))
}

#[test]
#[ignore = "guests: scripts/test runs them as root"]
fn user_data_sets_a_server_up_at_its_first_boot_and_a_change_that_lets_nobody_in_is_undone() {
    let script = script_with(22);
    let user_data = cloud_config::render(&script).unwrap();
    let machine = Machine::born("web-1", &user_data);
    let Some(guests) = world::boot_installed("first-boot", &[machine]) else {
        return;
    };
    let desk = Desk::new(&guests);
    let guest = desk.guest();

    // cloud-init itself finds nothing wrong, and YAML gives back the script byte for byte.
    guest
        .ssh("cloud-init schema -c /var/lib/cloud/instance/user-data.txt")
        .unwrap();
    assert_eq!(guest.ssh("cat /var/lib/regionwise-setup").unwrap(), script);
    let log = guest.ssh("cat /var/log/cloud-init-output.log").unwrap();
    assert!(log.lines().any(|line| line == "end\tarmed"), "{log}");
    assert!(!log.contains("step\tfailed"), "{log}");
    let before = guest
        .ssh("nft list table inet regionwise && systemctl is-enabled regionwise-firewall")
        .unwrap();
    guest.ssh(NOTHING_ARMED).unwrap();

    // The rest needs region-host and secrets. What user data did is done.
    let known_host = fs::read_to_string(&guest.known_hosts).unwrap();
    desk.write("known_hosts", &known_host);
    let rest = desk.provision(&["--dry-run"], Verdict::Proceed);
    assert!(rest.steps("would").contains(&"install"), "{}", rest.text());
    for step in ["packages", "firewall", "sshd", "security-updates"] {
        assert!(rest.steps("ok").contains(&step), "{}", rest.text());
    }

    // Somebody's redirection leads port 2222 to sshd, so the rules of a host with `ssh_port = 2222` let nobody in.
    guest
        .ssh("nft add table ip somebody && nft add chain ip somebody in '{ type nat hook prerouting priority -100; }' && nft add rule ip somebody in tcp dport 2222 redirect to 22")
        .unwrap();
    let right = fs::read_to_string(desk.path("regions.toml")).unwrap();
    let address = format!("\"{}\"", guest.address);
    desk.write(
        "regions.toml",
        &right.replace(&address, &format!("{address}\nssh_port = 2222")),
    );
    let line = known_host.replace(
        &guest.address.to_string(),
        &format!("[{}]:2222", guest.address),
    );
    desk.write("known_hosts", &format!("{known_host}{line}"));
    let started = Instant::now();
    let locked_out = desk.provision(&[], Verdict::RolledBack);
    println!(
        "locked out and back after {:.0} s",
        started.elapsed().as_secs_f64()
    );
    assert_eq!(
        locked_out.said["reason"],
        "locked-out",
        "{}",
        locked_out.text()
    );
    let now = guest
        .ssh("nft list table inet regionwise && systemctl is-enabled regionwise-firewall")
        .unwrap();
    assert_eq!(now, before, "the rules of before are back");

    // With the right port it goes on where it was, and leaves somebody's table alone.
    desk.write("regions.toml", &right);
    let made = desk.provision(&[], Verdict::Proceed);
    assert!(
        made.steps("ok").contains(&"install"),
        "what was done before the lock-out stays: {}",
        made.text()
    );
    guest.ssh("nft list table ip somebody").unwrap();

    an_sshd_that_does_not_take_its_settings_ends_the_run_and_nothing_stays_armed(&desk);
    a_reboot_before_the_confirmation_undoes_the_change_too(&desk);
    what_docker_publishes_is_closed_and_containers_see_no_metadata(&desk);
    nothing_of_them_outlives_a_panic(guests);
}

fn an_sshd_that_does_not_take_its_settings_ends_the_run_and_nothing_stays_armed(desk: &Desk<'_>) {
    let guest = desk.guest();
    guest
        .ssh("cp -p /etc/ssh/sshd_config /root/kept && sed -i '/^Include/d' /etc/ssh/sshd_config")
        .unwrap();
    let failed = desk.provision(&[], Verdict::Pause);
    assert_eq!(failed.said["reason"], "step-sshd");
    for words in [
        "sshd does not take 'passwordauthentication no'",
        "were put back as they were",
    ] {
        assert!(failed.text().contains(words), "{}", failed.text());
    }
    guest.ssh(NOTHING_ARMED).unwrap();
    guest.ssh("mv /root/kept /etc/ssh/sshd_config").unwrap();
    let mended = desk.provision(&[], Verdict::Proceed);
    assert!(mended.steps("changed").is_empty(), "{}", mended.text());
}

/// The controller and the server both die in the worst minute.
fn a_reboot_before_the_confirmation_undoes_the_change_too(desk: &Desk<'_>) {
    let guest = desk.guest();
    let rules = "nft list table inet regionwise; sha256sum /etc/regionwise/firewall.nft";
    let before = guest.ssh(rules).unwrap();
    let without_ssh = script_with(2222);
    let sent = guest
        .reboot_after(&format!(
            "cat > /root/script << 'SENT'\n{without_ssh}\nSENT\nsh /root/script apply; nft list table inet regionwise"
        ))
        .unwrap();
    assert!(
        sent.contains("end\tarmed") && sent.contains("tcp dport 2222 accept"),
        "{sent}"
    );
    assert_eq!(guest.ssh(rules).unwrap(), before);
    guest.ssh(NOTHING_ARMED).unwrap();
}
