//! A store for the backups of guests, as somebody's cloud would run it.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use regionwise_lab::guests::Guests;
use regionwise_provision::host::Backup;

use crate::venv;

const STORE: &str = "s3.lab.example";
const ADDRESS: &str = "10.77.0.1";
const BUCKET: &str = "shop-eu-backup";

/// A store that speaks S3 over TLS, in the network of the guests. It forgets everything with its process.
pub(crate) struct Store {
    s3: Child,
    proxy: Child,
    authority: String,
}

impl Store {
    /// Only the guests know its name.
    pub(crate) fn start(guests: &Guests) -> Self {
        let requirements = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/guests/s3/requirements.txt"
        );
        let moto = venv::installed("s3", requirements).join("moto_server");
        let home = guests.directory();
        let authority = certificates(home);
        let quiet = |mut command: Command| {
            let command = command.stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().unwrap()
        };
        let mut s3 = guests.command(moto);
        s3.args(["-H", "127.0.0.1", "-p", "5000"]);
        // Its own TLS ends a connection in a way that OpenSSL takes for an attack, and it goes by the name that it is called.
        let config = home.join("store.cfg");
        let both = home.join("store.both").display().to_string();
        let text = format!(
            "defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
             listen s3\n  bind {ADDRESS}:443 ssl crt {both}\n  http-request set-header Host localhost:5000\n  server s3 127.0.0.1:5000\n"
        );
        fs::write(&config, text).unwrap();
        let mut proxy = guests.command("haproxy");
        proxy.arg("-f").arg(&config);
        let store = Self {
            s3: quiet(s3),
            proxy: quiet(proxy),
            authority,
        };
        for guest in guests.all() {
            let known = format!("echo '{ADDRESS} {STORE}' >> /etc/hosts");
            guest.ssh(&known).unwrap();
        }
        let begun = Instant::now();
        while !Self::make_bucket(guests) {
            assert!(begun.elapsed() < Duration::from_mins(1), "no store");
            std::thread::sleep(Duration::from_millis(200));
        }
        store
    }

    pub(crate) fn backup(&self) -> Backup {
        Backup {
            product: "shop".to_owned(),
            host: STORE.to_owned(),
            port: 443,
            bucket: BUCKET.to_owned(),
            region: "hel1".to_owned(),
            keep_days: 14,
            authority: Some(self.authority.clone()),
        }
    }

    fn make_bucket(guests: &Guests) -> bool {
        let mut curl = guests.command("curl");
        let url = format!("https://{STORE}/{BUCKET}");
        let resolve = format!("{STORE}:443:{ADDRESS}");
        curl.args(["-sfk", "-X", "PUT", "--resolve", &resolve, &url]);
        curl.output().unwrap().status.success()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        for child in [&mut self.proxy, &mut self.s3] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A throw-away authority and a certificate of its for the store. Returns the authority's.
fn certificates(home: &Path) -> String {
    let script = format!(
        "new='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
         openssl req -x509 $new -subj /CN=lab -days 2 -keyout ca.key -out ca.pem
         openssl req $new -subj /CN={STORE} -keyout store.key -out store.csr
         echo 'subjectAltName=DNS:{STORE}' > store.ext
         openssl x509 -req -in store.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile store.ext -days 2 -out store.pem
         cat store.pem store.key > store.both"
    );
    let mut bash = Command::new("bash");
    let output = bash.args(["-euc", &script]).current_dir(home).output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    fs::read_to_string(home.join("ca.pem")).unwrap()
}
