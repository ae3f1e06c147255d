//! What the program for a node's certificate makes of what lies there, in a directory instead of a server, with real
//! certificates of any age.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

const TOOL: &str = include_str!("../../crates/provision/src/host/postgres/certificate.sh");

/// A function of the shell: `aged KEY CERTIFICATE DAYS DAYS` signs the key from so many days from now until so many, for the name
/// in the certificate.
pub(crate) const AGED: &str = r#"aged() {
  made=$(mktemp -d) && : > "$made/index" && echo 01 > "$made/serial"
  for word in '[ca]' 'default_ca = c' '[c]' "database = $made/index" "serial = $made/serial" "new_certs_dir = $made" \
    'default_md = sha256' 'preserve = yes' 'policy = p' '[p]' 'commonName = supplied' 'serialNumber = optional'; do echo "$word"; done > "$made/ca"
  name=$(openssl x509 -noout -subject -nameopt compat -in "$2") && name=/${name#*/}
  openssl req -new -key "$1" -config "$settings/certificate.conf" -subj "$name" -out "$made/request" 2> /dev/null \
    && openssl ca -batch -selfsign -notext -config "$made/ca" -in "$made/request" -keyfile "$1" -out "$2" \
      -startdate "$(date -u -d "$3 days" +%Y%m%d%H%M%SZ)" -enddate "$(date -u -d "$4 days" +%Y%m%d%H%M%SZ)" \
      -extfile "$settings/certificate.conf" -extensions extensions 2> /dev/null
}
"#;

struct Node(TempDir);

impl Node {
    /// One that has made its key and its certificate.
    fn new() -> Self {
        let node = Self(tempfile::tempdir().unwrap());
        let program = |name: &str, text: &str| {
            let path = node.path(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        };
        fs::create_dir(node.path("bin")).unwrap();
        let settings = node.path("").display().to_string();
        let tool = TOOL.replace("=/etc/regionwise/postgres", &format!("={settings}"));
        program("tool", &tool);
        // Whoever runs the test is no root, and may not give files away.
        program("bin/chown", "#!/bin/sh\n");
        program(
            "bin/stat",
            "#!/bin/sh\ncase $2 in %U) echo root ;; *) /usr/bin/stat \"$@\" ;; esac\n",
        );
        fs::write(
            node.path("certificate.conf"),
            "[req]\nprompt = no\ndistinguished_name = name\nx509_extensions = extensions\n[name]\nCN = eu-1\n\
             [extensions]\nbasicConstraints = critical, CA:FALSE\n",
        )
        .unwrap();
        assert!(!node.is("own_so"));
        node.does("own");
        assert!(node.is("own_so") && node.is("next_so") && node.is("taken_so"));
        node
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Whether it succeeded, and what it said.
    fn asked(&self, verb: &str) -> (bool, String) {
        let path = std::env::var("PATH").unwrap();
        let output = Command::new("sh")
            .arg(self.path("tool"))
            .args([verb, "eu-1"])
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        (output.status.success(), said.trim().to_owned())
    }

    fn is(&self, verb: &str) -> bool {
        self.asked(verb).0
    }

    #[track_caller]
    fn does(&self, verb: &str) -> String {
        let (well, said) = self.asked(verb);
        assert!(well, "{verb}: {said}");
        said
    }

    /// The certificates that others are to trust.
    fn trusted(&self) -> Vec<String> {
        let said = self.does("trusted");
        said.split(' ').map(str::to_owned).collect()
    }

    /// Signs the key of that name anew, from so many days from now until so many.
    fn aged(&self, name: &str, from: i32, until: i32) {
        let script = format!(
            "{AGED}\nsettings={}\naged \"$settings/{name}.key\" \"$settings/{name}.crt\" {from} {until}",
            self.path("").display()
        );
        let status = Command::new("sh").args(["-c", &script]).status();
        assert!(status.unwrap().success());
    }
}

#[test]
fn the_next_certificate_is_told_a_month_before_it_takes_over_and_the_old_one_goes() {
    let node = Node::new();
    assert_eq!(node.trusted().len(), 1);
    assert_eq!(node.does("notes"), "");
    node.aged("server", -3560, 91);
    assert!(node.is("own_so") && node.is("next_so"));
    node.aged("server", -3561, 89);
    assert!(node.is("own_so") && !node.is("next_so"));
    node.does("make_next");
    assert!(node.is("next_so"));
    let both = node.trusted();
    assert_eq!(both.len(), 2);
    // Who trusts both accepts each: OpenSSL, too.
    let bundle = node.path("bundle").display().to_string();
    fs::write(&bundle, regionwise_provision::host::pem(&both.join(" "))).unwrap();
    for shown in ["server.crt", "next.crt"] {
        let mut openssl = Command::new("openssl");
        openssl.args(["verify", "-CAfile", &bundle]);
        let verified = openssl.arg(node.path(shown)).output().unwrap();
        assert!(verified.status.success(), "{shown}: {verified:?}");
    }
    assert!(node.does("notes").contains("the next one is told"));
    node.aged("next", -29, 3600);
    assert_eq!(node.does("renewal"), "none");
    assert!(node.is("taken_so"));
    node.aged("next", -31, 3600);
    let both = node.trusted();
    assert_eq!(node.does("renewal"), "due");
    assert!(!node.is("taken_so"));
    node.does("take");
    assert!(node.is("taken_so") && node.is("own_so") && node.is("next_so"));
    assert_eq!(node.trusted(), both[1..]);
    assert_eq!(node.does("notes"), "");
}

#[test]
fn a_certificate_that_cannot_be_read_is_not_told() {
    let node = Node::new();
    node.aged("server", -3600, 50);
    node.does("make_next");
    assert_eq!(node.trusted().len(), 2);
    for name in ["next.crt", "server.crt"] {
        let real =
            "#!/bin/sh\ncase \"$*\" in *NAME*DER*) exit 1 ;; esac\nexec /usr/bin/openssl \"$@\"\n";
        let openssl = node.path("bin/openssl");
        fs::write(&openssl, real.replace("NAME", name)).unwrap();
        fs::set_permissions(&openssl, fs::Permissions::from_mode(0o755)).unwrap();
        let (well, said) = node.asked("trusted");
        assert!(!well && said.contains(name), "{said}");
    }
}

#[test]
fn a_take_over_that_was_cut_off_between_its_two_files_is_finished() {
    let node = Node::new();
    node.aged("server", -3600, 50);
    node.does("make_next");
    let both = node.trusted();
    fs::rename(node.path("next.key"), node.path("server.key")).unwrap();
    assert!(!node.is("own_so"));
    node.does("own");
    assert!(node.is("own_so"));
    assert_eq!(node.trusted(), both[1..]);
}

#[test]
fn one_that_has_ended_makes_way_for_the_next_one_that_others_trust_already() {
    let node = Node::new();
    node.aged("server", -3600, 50);
    node.does("make_next");
    let both = node.trusted();
    node.aged("server", -3651, -1);
    assert!(!node.is("own_so"));
    node.does("own");
    assert!(node.is("own_so"));
    assert_eq!(node.trusted(), both[1..]);
}

#[test]
fn a_certificate_that_has_ended_or_is_of_another_key_or_name_is_made_anew() {
    for spoil in ["ended", "key", "name"] {
        let node = Node::new();
        let before = node.trusted();
        match spoil {
            "ended" => node.aged("server", -3650, -1),
            "key" => {
                let other = Node::new();
                fs::copy(other.path("server.key"), node.path("server.key"))
                    .map(drop)
                    .unwrap();
            }
            _ => {
                let tool = fs::read_to_string(node.path("tool")).unwrap();
                let other = tool.replace("node=${2:-}", "node=eu-2");
                fs::write(node.path("tool"), other).unwrap();
                fs::remove_file(node.path("server.crt")).unwrap();
                node.does("own");
                fs::write(node.path("tool"), tool).unwrap();
            }
        }
        assert!(!node.is("own_so"), "{spoil}");
        node.does("own");
        assert!(node.is("own_so"), "{spoil}");
        assert_ne!(node.trusted(), before, "{spoil}");
    }
}
