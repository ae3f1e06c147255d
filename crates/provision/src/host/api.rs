//! `region-host`, its account and state, and the units that bring them up at a boot.

use std::net::IpAddr;

use super::{DEPLOY_KEY, ENV, Tool, command, fact, look, packages, text};
use crate::script::quoted;
use crate::step::Step;
use crate::upgrade;

/// Where `region-host` lies on a server: the deploy key's forced command names it.
const HELPER: &str = "/usr/local/bin/region-host";
const TOOL: Tool = Tool("/usr/local/lib/regionwise/region-host");
/// Ports of the two slots, on loopback.
const SLOT_PORTS: [u16; 2] = [3001, 3002];

/// What makes a server a region host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// The product's name: also that of its state directory and of its units.
    pub app: String,
    /// The account that the deploy key opens.
    pub account: String,
    /// Where controllers reach the server; HAProxy listens on all addresses of that family.
    pub address: IpAddr,
    /// Where the host's own HAProxy listens.
    pub http_port: u16,
    pub health_path: String,
    /// Of the `region-host` that is uploaded, hexadecimal.
    pub region_host_sha256: String,
}

pub(super) fn steps(api: &Api) -> Vec<Step> {
    let Api { app, account, .. } = api;
    let sha256 = &api.region_host_sha256;
    let root = format!("/var/lib/regionwise/{app}");
    let proxy = format!("regionwise-{app}-proxy.service");
    let reconcile = format!("regionwise-{app}-reconcile.service");
    let port = api.http_port;
    vec![
        packages("haproxy", "HAProxy switches the slots", &["haproxy"]),
        command(
            "haproxy-service-off",
            "the host has an HAProxy of its own, and two would want port 80",
            "! systemctl -q is-active haproxy.service && ! systemctl -q is-enabled haproxy.service",
            "if dpkg -V haproxy | grep -q /etc/haproxy/haproxy.cfg; then\n  \
             echo 'haproxy.service has a configuration of yours here: move it away, or choose another server'\n  return 1\nfi\n\
             systemctl --quiet disable --now haproxy.service",
            &["haproxy"],
        ),
        text(
            "region-host-tool",
            "what needs a look at the server is looked at there",
            TOOL.0,
            0o755,
            upgrade::SCRIPT,
        ),
        TOOL.step(
            "region-host",
            "controllers speak to it, and to nothing else on this server; the one before is kept",
            &format!("so {sha256}"),
            &format!("place {sha256} \"$staged\""),
            &[],
        ),
        look(
            "region-host-notes",
            "what somebody should know",
            &format!("{TOOL} notes {sha256}"),
        ),
        install(api, &root),
        text(
            "proxy-unit",
            "port 80 must answer after a boot, as the account that owns the state",
            format!("/etc/systemd/system/{proxy}"),
            0o644,
            proxy_unit(app, account, &root),
        ),
        text(
            "reconcile-unit",
            "the release that served must serve again after a boot",
            format!("/etc/systemd/system/{reconcile}"),
            0o644,
            reconcile_unit(app, account, &root, &proxy),
        ),
        command(
            "proxy",
            "requests are answered from now on",
            format!("systemctl -q is-active {proxy} && systemctl -q is-enabled {proxy}"),
            format!(
                "systemctl daemon-reload && systemctl --quiet enable {proxy} && systemctl restart {proxy}"
            ),
            &["proxy-unit"],
        ),
        command(
            "proxy-config",
            "a running HAProxy reads its configuration only when it is told, and drops no request then",
            format!(
                "cmp -s {root}/haproxy.cfg /run/regionwise-{app}/read.cfg && ss -Hltn 'sport = :{port}' | grep -q ."
            ),
            // A reload ends before the new process listens.
            format!(
                "systemctl reload {proxy} || return 1\nfor _ in 1 2 3 4 5 6 7 8 9 10; do\n  \
                 ! ss -Hltn 'sport = :{port}' | grep -q . || return 0\n  sleep 0.5\ndone\n\
                 echo 'nothing listens on port {port}'\nreturn 1"
            ),
            &["install"],
        ),
        command(
            "reconcile",
            "what a crash left is settled now and at every boot",
            format!("systemctl -q is-active {reconcile} && systemctl -q is-enabled {reconcile}"),
            format!(
                "systemctl daemon-reload && systemctl --quiet enable {reconcile} && systemctl restart {reconcile}"
            ),
            &["reconcile-unit"],
        ),
        text(
            "log-rotation",
            "a release that prints much must not fill the disk",
            format!("/etc/logrotate.d/regionwise-{app}"),
            0o644,
            log_rotation(account, &root),
        ),
    ]
}

/// Bash has sockets, and is on every server; curl is not. Words: address, port, path.
const ASK: &str =
    r#"exec 3<> "/dev/tcp/$1/$2" && printf "GET %s HTTP/1.0\r\n\r\n" "$3" >&3 && head -n 1 <&3"#;

/// As a load balancer asks: over HTTP, through the host's own proxy.
pub(super) fn answers(api: &Api) -> Step {
    let any = match api.address {
        IpAddr::V4(_) => "127.0.0.1",
        IpAddr::V6(_) => "::1",
    };
    let shell = format!(
        "said=$(timeout 10 bash -c '{ASK}' ask {any} {port} {path} 2>&1 | tr -d '\\r')\n\
         case $said in\n  'HTTP/1.'?' 2'*)\n    echo release\n    return\n    ;;\n  \
         'HTTP/1.'?' 503'*)\n    if grep -qx 'active bk_unset' /var/lib/regionwise/{app}/traffic/active.map; then\n      \
         echo no-release\n      return\n    fi\n    ;;\nesac\n\
         echo \"no ${{said:-answer within 10 s}}\"",
        port = api.http_port,
        path = quoted(&api.health_path),
        app = api.app,
    );
    fact(
        "answers",
        "whoever asks it over HTTP gets an answer",
        "answers",
        shell,
    )
}

fn install(api: &Api, root: &str) -> Step {
    let Api {
        app,
        account,
        health_path,
        ..
    } = api;
    let any = if api.address.is_ipv4() {
        "0.0.0.0"
    } else {
        "[::]"
    };
    let [blue, green] = SLOT_PORTS;
    let install = format!(
        "{HELPER} install --user {account} --root {root} --app {app} --listen '{any}:{port}' \\\n  \
         --slot-port {blue} --slot-port {green} --health-path {path} --helper {HELPER} \\\n  \
         --authorized-key \"$staged/{DEPLOY_KEY}\" --env-file \"$staged/{ENV}\"",
        port = api.http_port,
        path = quoted(health_path),
    );
    command(
        "install",
        "account, deploy key, state directory and haproxy.cfg",
        format!("{install} --dry-run > \"$work/install\" && ! grep '^would ' \"$work/install\""),
        install,
        &["region-host"],
    )
}

fn proxy_unit(app: &str, account: &str, root: &str) -> String {
    format!(
        "[Unit]
Description=HAProxy of {app}
After=network-online.target
Wants=network-online.target

[Service]
Type=notify
User={account}
AmbientCapabilities=CAP_NET_BIND_SERVICE
RuntimeDirectory=regionwise-{app}
# What it has read, for whoever wants to know whether that is what the file says now.
ExecStartPre=/bin/cp {root}/haproxy.cfg /run/regionwise-{app}/read.cfg
ExecStart=/usr/sbin/haproxy -Ws -f {root}/haproxy.cfg
ExecReload=/usr/sbin/haproxy -c -q -f {root}/haproxy.cfg
ExecReload=/bin/kill -USR2 $MAINPID
ExecReload=/bin/cp {root}/haproxy.cfg /run/regionwise-{app}/read.cfg
KillMode=mixed
Restart=always

[Install]
WantedBy=multi-user.target
"
    )
}

/// A release is a child of the `region-host` that started it, and would end with its unit.
fn reconcile_unit(app: &str, account: &str, root: &str, proxy: &str) -> String {
    format!(
        "[Unit]
Description=Bring traffic, proxy and release of {app} together
After={proxy}
Wants={proxy}

[Service]
Type=oneshot
User={account}
ExecStart={HELPER} reconcile --root {root}
# A release is its child, and must outlive it.
KillMode=process
RemainAfterExit=yes

[Install]
WantedBy=multi-user.target
"
    )
}

/// The names must not be those of `region-host`, which keeps the log of the process before as `.1`.
fn log_rotation(account: &str, root: &str) -> String {
    format!(
        "{root}/log/*.log {{
  su {account} {account}
  daily
  maxsize 100M
  rotate 7
  dateext
  dateformat -%Y%m%d-%s
  compress
  copytruncate
  missingok
  notifempty
}}
"
    )
}
