//! The first session: a server that was born with a one-time host key makes its final one, and forgets the other.
//!
//! Three short scripts, each in a login of its own. All may be cut off anywhere, and run again: what they find says where to go
//! on. Lines `fact`, name and value, with tabs between, say what is public.

/// The fact with the public half of the host key that is to be shown: `ssh-ed25519 AAAA..`
pub const SSH: &str = "ssh";
/// The fact with the public half of the key that the server was born with.
pub const BIRTH: &str = "birth";

const COMMON: &str = r#"set -u
umask 022
export LC_ALL=C
key=/etc/ssh/ssh_host_ed25519_key
next=/etc/ssh/regionwise-next-key
public() {
  ssh-keygen -y -P '' -f "$1" | cut -d ' ' -f 1,2
}
fingerprint() {
  public "$1" 2> /dev/null | ssh-keygen -lf - 2> /dev/null | cut -d ' ' -f 2
}
fail() {
  printf 'fail\t%s\n' "$1"
  exit 1
}
# Two runs at once would announce two keys.
exec 9> /run/regionwise-first-session.lock
flock -w 60 9 || fail 'another run has its first session with this server'
"#;

/// Waits for the end of cloud-init, which would write the one-time key again, and makes the final key beside the other one:
/// nobody is shown it yet. A server that does not show the one-time key (`None`, or another one) keeps what it has. Prints
/// [`SSH`].
pub fn prepare(birth: Option<&str>) -> String {
    let birth = birth.unwrap_or("none");
    format!(
        r#"if command -v cloud-init > /dev/null; then cloud-init status --wait > /dev/null 2>&1; fi
{COMMON}
birth=/etc/ssh/regionwise-birth-key.pub
[ "$(fingerprint "$key")" ] || fail "there is no usable $key"
from=$key
if [ "$(fingerprint "$key")" = '{birth}' ]; then
  from=$next
  public "$key" > "$birth"
  if [ -z "$(fingerprint "$next")" ]; then
    rm -f "$next" "$next.new" "$next.new.pub"
    ssh-keygen -q -t ed25519 -N '' -C '' -f "$next.new" || fail 'cannot make a host key in /etc/ssh'
    rm -f "$next.new.pub"
    mv "$next.new" "$next" || fail "cannot write $next"
    sync
  fi
fi
printf 'fact\t{SSH}\t%s\n' "$(public "$from")"
"#
    )
}

/// Shows the announced key, whose fingerprint is `last`, and no other: that of the birth is gone with its file.
pub fn exchange(last: &str) -> String {
    format!(
        r#"{COMMON}
if [ "$(fingerprint "$key")" != '{last}' ]; then
  [ "$(fingerprint "$next")" = '{last}' ] || fail 'the host key that was announced is not there any more'
  mv -f "$next" "$key" || fail "cannot replace $key"
fi
public "$key" > "$key.pub.new" || fail "cannot write $key.pub.new"
mv -f "$key.pub.new" "$key.pub" || fail "cannot write $key.pub"
find /etc/ssh -maxdepth 1 -name 'ssh_host_*_key*' ! -name ssh_host_ed25519_key ! -name ssh_host_ed25519_key.pub -delete
# An update of the package would make keys of the other kinds again.
mkdir -p /etc/ssh/sshd_config.d /run/sshd
printf 'HostKey %s\n' "$key" > /etc/ssh/sshd_config.d/00-regionwise-host-key.conf
sshd -t > /dev/null 2>&1 || fail "sshd does not take its configuration: $(sshd -t 2>&1 | tail -n 1)"
sync
systemctl restart ssh.service 9>&- || fail 'ssh.service does not start again'
"#
    )
}

/// Takes away every copy of the one-time key that cloud-init keeps, and cloud-init with it: at each boot it would fetch its
/// user data again and write them down anew. Prints [`SSH`], and [`BIRTH`] where there was one.
pub fn forget() -> String {
    format!(
        r#"{COMMON}
birth=/etc/ssh/regionwise-birth-key.pub
if [ -d /etc/cloud ]; then : > /etc/cloud/cloud-init.disabled; fi
copies() {{
  for place in /var/lib/cloud /run/cloud-init; do
    if [ -d "$place" ]; then grep -rlaF -e 'OPENSSH PRIVATE KEY' "$place"; fi
  done
}}
copies | while read -r copy; do rm -f "$copy"; done
rm -f "$next" "$next.new" "$next.new.pub"
sync
[ -z "$(copies)" ] || fail "cannot delete $(copies | head -n 1), which holds the key that this server was born with"
printf 'fact\t{SSH}\t%s\n' "$(public "$key")"
if [ -s "$birth" ]; then printf 'fact\t{BIRTH}\t%s\n' "$(cat "$birth")"; fi
"#
    )
}
