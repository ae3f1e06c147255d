//! Servers that are directories: programs named `ssh` and `ssh-keyscan` stand for the way to them, and the scripts of the first
//! session run in there. The steps of a set-up do not: they would change this machine. Those run on real guests, in `tests/guests`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::world::World;

const SCAN: &str = r#"#!/bin/sh
for address; do :; done
machine=$(dirname "$0")/../machines/$address
[ -d "$machine" ] || exit 1
echo "$address $(cat "$machine/shown")"
"#;

/// The address and the command are its last two words.
const SSH: &str = r#"#!/bin/sh
base=$(dirname "$0")/..
for word; do
  case $word in UserKnownHostsFile=*) known=$(echo "${word#*=}" | tr -d '"') ;; esac
done
while [ $# -gt 2 ]; do shift; done
machine=$base/machines/$1
if [ ! -d "$machine" ]; then
  echo "ssh: connect to host $1 port 22: Connection refused" >&2
  exit 255
fi
# What a killed run has left at work there ends only now.
case $2 in
  *sshd_config.d*) ! rm "$base/late" 2> /dev/null || cut -d ' ' -f 1,2 "$machine/etc/ssh/ssh_host_ed25519_key.pub" > "$machine/shown" ;;
esac
if ! grep -qF "$1 $(cat "$machine/shown")" "$known"; then
  echo 'Host key verification failed.' >&2
  exit 255
fi
echo call >> "$base/calls"
calls=$(wc -l < "$base/calls")
case $2 in
  *'"$d/script"'*)
    echo 'regionwise: begun'
    echo "$1" >> "$base/scripts"
    cat > "$machine/sent"
    ! grep -qaF 'command_step database-renewed ' "$machine/sent" || echo yes >> "$machine/renewed"
    printf 'fact\twireguard\t%s=\n' "$(printf '%-32s' "$1" | base64 | cut -c 1-43)"
    printf 'fact\tcertificate\t%s\n' "$(cat "$machine/certificate" 2> /dev/null || echo MIIB)"
    printf 'fact\trenewal\t%s\n' "$(cat "$machine/renewal" 2> /dev/null || echo none)"
    printf 'fact\trows\tno\n'
    printf 'fact\tanswers\t%s\n' "$(cat "$machine/answers" 2> /dev/null || echo no-release)"
    case $2 in
      *'"$d/script" check '*) did=would ;;
      *) did=changed ;;
    esac
    [ ! -e "$machine/as-it-was" ] || did=ok
    printf 'step\t%s\tpackages\t\n' "$did"
    echo "$did" >> "$base/did"
    [ ! -e "$base/endless" ] || exec sleep 600
    if [ -e "$base/no-login" ] && grep -qaF 'command_step bouncer-logins ' "$machine/sent"; then
      printf 'step\tfailed\tbouncer-logins\tnot let in\nend\tfailed\n'
    elif [ -e "$base/armed" ]; then
      mkdir "$machine/guard" && echo "rm -r '$machine/guard'" > "$machine/guard/confirm"
      printf 'end\tarmed\n'
    else
      printf 'end\tdone\n'
    fi
    ;;
  *)
    command=$(printf '%s' "$2" | sed "s#/etc/#$machine/etc/#g; s#/var/lib/cloud#$machine/cloud#g; s#/var/lib/postgresql#$machine/postgresql#g; s#/run/#$machine/run/#g; s#/var/lib/regionwise-guard#$machine/guard#g")
    MACHINE=$machine PATH=$base/server:$PATH sh -c "$command"
    ;;
esac
status=$?
# What was confirmed is so, and nobody hears of it.
case $2 in
  *regionwise-guard/confirm*) ! rm "$base/lost" 2> /dev/null || exit 255 ;;
esac
if [ "$calls" = "$(cat "$base/crash" 2> /dev/null)" ]; then
  kill -9 $PPID
fi
exit $status
"#;

/// A restart of sshd shows the key that is in the file by then.
const SYSTEMCTL: &str = r#"#!/bin/sh
cut -d ' ' -f 1,2 "$MACHINE/etc/ssh/ssh_host_ed25519_key.pub" > "$MACHINE/shown"
"#;

impl World {
    /// What a person has who sets servers up.
    pub(crate) fn pack(&self) {
        let program = |path: &str, text: &str| {
            let path = self.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        };
        program("programs/ssh", SSH);
        program("programs/ssh-keyscan", SCAN);
        program("server/systemctl", SYSTEMCTL);
        for name in ["sshd", "cloud-init"] {
            program(&format!("server/{name}"), "#!/bin/sh\n");
        }
        fs::create_dir_all(self.path("machines")).unwrap();
        fs::write(self.path("shop.env"), "REGION=ap\n").unwrap();
        fs::write(self.path("region-host"), b"\x7fELF").unwrap();
        crate::world::new_key(&self.path("key"));
    }

    /// A region without what these lines of the file are for, ordered and booted; nobody has logged in yet.
    pub(crate) fn booted(&self, region: &str, without: &[&str]) {
        for line in without {
            let text = self.file();
            let kept = text.lines().filter(|known| !known.starts_with(line));
            self.write(&kept.map(|line| format!("{line}\n")).collect::<String>());
        }
        self.pack();
        self.provision(region);
        self.boot();
    }

    /// Every server that was ordered boots: what cloud-init makes of its user data.
    pub(crate) fn boot(&self) {
        for server in self.hetzner.servers() {
            let address = self.address_of(&server.name);
            let machine = self.path("machines").join(address);
            if machine.join("shown").exists() {
                continue;
            }
            let data = server.user_data.clone().unwrap();
            let private: String = data
                .lines()
                .skip_while(|line| *line != "  ed25519_private: |")
                .skip(1)
                .take_while(|line| line.starts_with("    "))
                .map(|line| format!("{}\n", line.trim()))
                .collect();
            let public = data
                .lines()
                .find_map(|line| line.strip_prefix("  ed25519_public: "))
                .unwrap();
            for directory in ["etc/ssh", "etc/cloud", "run", "cloud/instances/1"] {
                fs::create_dir_all(machine.join(directory)).unwrap();
            }
            let key = machine.join("etc/ssh/ssh_host_ed25519_key");
            fs::write(&key, private).unwrap();
            fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
            fs::write(machine.join("etc/ssh/ssh_host_rsa_key"), "").unwrap();
            fs::write(machine.join("cloud/instances/1/user-data.txt"), &data).unwrap();
            fs::write(machine.join("shown"), format!("{public}\n")).unwrap();
        }
    }

    pub(crate) fn address_of(&self, server: &str) -> String {
        self.hetzner.project(|project| {
            let found = project.servers.iter().find(|known| known.name == server);
            let id = found.unwrap().id;
            let mut all = project.primary_ips.iter();
            let ip = all.find(|ip| ip.assignee == Some(id) && ip.version == "ipv4");
            ip.unwrap().ip.clone()
        })
    }

    /// The directory of the machine.
    pub(crate) fn machine(&self, server: &str) -> PathBuf {
        self.path("machines").join(self.address_of(server))
    }

    /// The key that it shows: type and base64.
    pub(crate) fn shown(&self, server: &str) -> String {
        let text = fs::read_to_string(self.machine(server).join("shown")).unwrap();
        text.trim().to_owned()
    }

    pub(crate) fn label(&self, server: &str, key: &str) -> Option<String> {
        let servers = self.hetzner.servers();
        let found = servers.iter().find(|known| known.name == server);
        found.unwrap().labels.get(key).cloned()
    }

    /// A run that logs in.
    pub(crate) fn setting_up(&self, args: &[&str]) -> std::process::Command {
        let mut command = self.command(args);
        let path = std::env::var("PATH").unwrap();
        let programs = self.path("programs");
        command
            .env_remove("REGIONWISE_SERVERS_ONLY")
            .env("PATH", format!("{}:{path}", programs.display()))
            .env("REGIONWISE_ENV_FILE", self.path("shop.env"))
            .env("REGIONWISE_REGION_HOST", self.path("region-host"));
        command
    }

    /// The servers that got a script, in their order, by the provider's name.
    pub(crate) fn scripts(&self) -> Vec<String> {
        let servers = self.hetzner.servers();
        let named = |address: &str| {
            let mut servers = servers.iter();
            let found = servers.find(|server| self.address_of(&server.name) == address);
            found.unwrap().name.clone()
        };
        let text = fs::read_to_string(self.path("scripts")).unwrap_or_default();
        text.lines().map(named).collect()
    }

    /// How many logins have been made so far.
    pub(crate) fn logins(&self) -> usize {
        let text = fs::read_to_string(self.path("calls")).unwrap_or_default();
        text.lines().count()
    }
}

/// Whether any file below holds a private key, other than that of sshd.
pub(crate) fn copies_of_a_key(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(copies_of_a_key(&path));
        } else if String::from_utf8_lossy(&fs::read(&path).unwrap()).contains("PRIVATE KEY")
            && !path.ends_with("etc/ssh/ssh_host_ed25519_key")
        {
            found.push(path);
        }
    }
    found
}
