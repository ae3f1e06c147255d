//! docs/first-server.md, step by step: a bare machine becomes a host, and the first release serves from it.
//!
//! As root in a mount namespace of its own, with a copy of /etc, so that the account it makes is gone with it; the sshd
//! is the system's, with its ordinary checks of home and key file.

use std::path::Path;
use std::process::Command;

use regionwise_lab::skipped;

const SCRIPT: &str = r#"
set -eu
work=$1 bin=$2 root=$work/lib/shop
export PATH=/usr/sbin:/sbin:$PATH
cp -a /etc "$work/etc" && mount --bind "$work/etc" /etc
mkdir -p /run/sshd
printf '%s\n' REGION=home HOST=web-1 > "$work/shop.env"
ssh-keygen -q -t ed25519 -N '' -f "$work/deploy"
ssh-keygen -q -t ed25519 -N '' -f "$work/hostkey"

# On the server.
install="$bin/region-host install --user rw-first --root $root --app shop --listen 127.93.7.1:8080
  --slot-port 3001 --slot-port 3002 --authorized-key $work/deploy.pub --env-file $work/shop.env"
$install --dry-run > "$work/dry"
if [ -e "$root" ] || getent passwd rw-first > /dev/null; then echo 'a dry run changed something'; exit 1; fi
$install > "$work/first"
$install > "$work/again"
if grep -vq '^unchanged ' "$work/again"; then echo 'a second install wrote again:'; cat "$work/again"; exit 1; fi
# Neither an account that somebody logs in with nor root becomes one.
keys=$work/lib/.ssh/authorized_keys && cp -p "$keys" "$work/keys" && echo 'ssh-ed25519 AAAA admin@laptop' >> "$keys"
if $install 2> "$work/refused"; then echo 'install replaced a foreign key'; exit 1; fi
grep "line 2, is not of an install" "$work/refused" && grep -q admin@laptop "$keys"
cp -p "$work/keys" "$keys"
if ${install/--user rw-first/--user root} 2> "$work/refused"; then echo 'install gave the key to root'; exit 1; fi
grep "is root" "$work/refused"
as_user() { setpriv --reuid rw-first --regid rw-first --clear-groups "$@"; }
setpriv --reuid rw-first --regid rw-first --clear-groups haproxy -db -f "$root/haproxy.cfg" & haproxy=$!
"$(command -v sshd)" -D -e -f /dev/null -p 2222 -h "$work/hostkey" -o ListenAddress=127.93.7.1 -o PidFile=none \
  -o UsePAM=no -o PasswordAuthentication=no 2> "$work/sshd.log" & sshd=$!
slots() { sed -n 's/^ *"pid": \([0-9]*\),*$/\1/p' "$root"/slots/*.json 2> /dev/null || true; }
trap 'kill $haproxy $sshd $(slots) 2> /dev/null || true' EXIT
for _ in $(seq 100); do [ -S "$root/admin.sock" ] && ssh-keyscan -p 2222 127.93.7.1 2> /dev/null | grep -q ed25519 && break; sleep 0.05; done
as_user "$bin/region-host" reconcile --root "$root"

# On the other machine.
cd "$work"
printf '[127.93.7.1]:2222 %s\n' "$(cut -d' ' -f1,2 hostkey.pub)" > known_hosts
sed -e 's/203.0.113.7"/127.93.7.1"\nssh_port = 2222/' -e 's/http_port = 80/http_port = 8080/' -e 's#https://shop.example#http://127.93.7.1:8080#' \
  -e 's/user = "regionwise"/user = "rw-first"/' -e 's#file:~/.ssh/regionwise#file:deploy#' \
  -e '/^#:schema/d' "$3/examples/one-server.toml" > regions.toml
printf '[rollout]\nverify = "1s"\n' >> regions.toml
printf 'name = "v1"\nartifact = "%s"\n' "$bin/reference-api" > v1.toml
"$bin/preflight" --release v1.toml --skip-databases
"$bin/deploy-region" --region home --release v1.toml --operation first
"$bin/deploy-region" close --region home --operation first
"$bin/deploy-region" status
curl -fsS -o /dev/null -D - http://127.93.7.1:8080/health/basic | grep -i '^x-release: v1'
# The key can do nothing else.
if ssh -F none -o BatchMode=yes -o UserKnownHostsFile=known_hosts -i deploy -p 2222 rw-first@127.93.7.1 'touch /tmp/escaped' < /dev/null | grep -v '"reply"'; then
  echo 'the key ran a command'; exit 1
fi
[ ! -e /tmp/escaped ]
# A first release cannot be rolled back, and says so.
"$bin/rollback-region" --region home && exit 1
[ $? = 12 ]
# Another path of the health endpoint is one key for every gate; this product has nothing there.
sed 's#^.rollout.#[gates.health]\nbasic_path = "/nothing-here"\n&#' regions.toml > elsewhere.toml
sed 's/v1/v2/' v1.toml > v2.toml
"$bin/smoke-test" --region home --endpoints basic
"$bin/smoke-test" --region home --endpoints basic --config elsewhere.toml && exit 1
[ $? = 11 ]
"$bin/deploy-region" --region home --release v2.toml --operation second --config elsewhere.toml && exit 1
[ $? = 13 ]
"#;

#[test]
fn a_bare_machine_becomes_a_host_and_serves_its_first_release() {
    let work = tempfile::Builder::new()
        .prefix("rw-first-")
        .tempdir()
        .unwrap();
    // The account that the test makes has to get through.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(work.path(), open).unwrap();
    let built = Path::new(env!("CARGO_BIN_EXE_region-host"))
        .parent()
        .unwrap();
    // A build directory may be readable by its owner only; the host's copy lies where everybody can read.
    let bin = work.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    for name in [
        "region-host",
        "reference-api",
        "preflight",
        "deploy-region",
        "rollback-region",
        "smoke-test",
    ] {
        std::fs::copy(built.join(name), bin.join(name)).unwrap();
    }
    let root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    let mut command = Command::new("timeout");
    command.args(["--kill-after", "5", "60"]);
    if !root {
        command.args(["sudo", "-n"]);
    }
    command.args(["unshare", "--mount", "bash", "-c", SCRIPT, "first-server"]);
    command
        .arg(work.path())
        .arg(&bin)
        .arg(env!("CARGO_MANIFEST_DIR"));
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    if !root && said.starts_with("sudo:") {
        skipped(&format!(
            "making an account needs root, and sudo says: {said}"
        ));
        return;
    }
    if !root {
        // What root made below the directory, the test's own account cannot remove.
        Command::new("sudo")
            .args(["-n", "rm", "-rf"])
            .arg(work.path())
            .status()
            .unwrap();
    }
    assert!(
        output.status.success(),
        "{said}\n{}",
        std::fs::read_to_string(work.path().join("sshd.log")).unwrap_or_default()
    );
}
