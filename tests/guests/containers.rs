//! What Docker publishes on a host, and what its containers reach.

use std::process::{Child, Stdio};

use regionwise_rollout::Verdict;

use crate::ports;
use crate::setting_up::Desk;

/// A container with the server's own programs, and nothing else of it.
const RUN: &str = "docker run -v /usr:/usr:ro";
const METADATA: &str = "169.254.169.254";

/// Of the host that the desk has set up.
pub(crate) fn what_docker_publishes_is_closed_and_containers_see_no_metadata(desk: &Desk<'_>) {
    let guest = desk.guest();
    guest.ssh("systemctl start docker").unwrap();
    guest
        .ssh("mkdir -p /tmp/i/etc && cd /tmp/i && ln -s usr/bin bin && ln -s usr/lib lib && ln -s usr/lib64 lib64 \
              && echo root:x:0:0::/:/bin/sh > etc/passwd && tar -c . | docker import - lab")
        .unwrap();
    guest
        .ssh(&format!(
            "{RUN} -d -p 8080:8080 lab python3 -m http.server 8080"
        ))
        .unwrap();
    guest
        .ssh("timeout 60 sh -c 'until curl -sf -o /dev/null http://127.0.0.1:8080/; do sleep 1; done'")
        .unwrap();

    let asked = ports::worth_asking(guest);
    assert!(asked.contains(&8080), "{asked:?}");
    let documented = ports::documented(&["every server", "host"], &["anywhere"]);
    let address = guest.address.to_string();
    let outside = || {
        let scan = ports::scan(&address, &asked);
        let mut python = desk.guests.command("python3");
        ports::answered(&python.args(["-c", &scan]).output().unwrap().stdout)
    };
    let inside = |to: &str| {
        let scan = ports::scan(to, &asked);
        let said = guest.ssh(&format!("{RUN} --rm lab python3 -c '{scan}'"));
        ports::answered(said.unwrap().as_bytes())
    };
    assert_eq!(outside(), documented, "from outside");
    assert_eq!(inside(&address), documented, "from a container");

    let _cloud = Cloud::answers(desk);
    let ask = format!("curl -s -m 5 http://{METADATA}/");
    let user_data = |who: &str| guest.ssh(&format!("{who} {ask} || true")).unwrap();
    assert!(user_data("").contains("Directory listing"), "root may ask");
    assert_eq!(user_data("runuser -u nobody --"), "");
    let container = format!("{RUN} --rm lab");
    assert_eq!(user_data(&container), "");
    let said = desk.provision(&["--dry-run"], Verdict::Proceed).text();
    let wanted = "a container listens on tcp/8080 at 0.0.0.0, and the firewall lets nobody to it";
    assert!(said.contains(wanted), "{said}");

    // It is our chain that does it.
    guest
        .ssh("nft delete chain inet regionwise forward && nft flush chain inet regionwise output")
        .unwrap();
    assert!(outside().contains(&8080));
    assert!(user_data("runuser -u nobody --").contains("Directory listing"));
    assert!(user_data(&container).contains("Directory listing"));
    guest.ssh("systemctl reload regionwise-firewall").unwrap();
    assert_eq!(outside(), documented);
}

/// What answers at the address of the metadata, until it goes.
struct Cloud(Child);

impl Cloud {
    /// It is reached as in a cloud: by a route over the public interface.
    fn answers(desk: &Desk<'_>) -> Self {
        let mut ip = desk.guests.command("ip");
        let added = ip.args(["addr", "add", &format!("{METADATA}/32"), "dev", "br0"]);
        assert!(added.status().unwrap().success());
        let empty = desk.path("metadata");
        std::fs::create_dir_all(&empty).unwrap();
        let mut python = desk.guests.command("python3");
        python.args(["-m", "http.server", "--bind", METADATA, "80"]);
        python.stdout(Stdio::null()).stderr(Stdio::null());
        let cloud = Self(python.current_dir(empty).spawn().unwrap());
        desk.guest()
            .ssh(&format!("ip route replace {METADATA} dev eth0"))
            .unwrap();
        cloud
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
