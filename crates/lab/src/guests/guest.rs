//! One guest: a Debian under software emulation, reached by ssh with a host key that was known before it booted.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::image::Image;
use super::network::{self, Network};
use super::{GuestError, run};

/// A boot takes 45 s on an idle machine, and three at once 80 s; a busy one is slower.
const BOOT: Duration = Duration::from_secs(300);
/// Between two looks at a guest that does not answer yet.
const POLL: Duration = Duration::from_millis(500);
const MEMORY_MIB: u32 = 1024;
/// Sparse.
const VOLUME_BYTES: u64 = 2 << 30;

/// A guest to boot.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Its host name.
    pub name: String,
    /// What its cloud hands to cloud-init. `users` and `ssh_keys` are given by the lab unless they are in it.
    pub user_data: String,
    /// The number of a blank volume that is attached, in the same way as at Hetzner.
    pub volume: Option<u32>,
}

impl Machine {
    /// A server as it comes from a cloud when nobody gives user data.
    pub fn bare(name: &str) -> Self {
        Self::born(name, "#cloud-config\n{}\n")
    }

    /// One with user data.
    pub fn born(name: &str, user_data: &str) -> Self {
        Self {
            name: name.to_owned(),
            user_data: user_data.to_owned(),
            volume: None,
        }
    }
}

/// A running guest; ends with this value.
pub struct Guest {
    pub name: String,
    pub address: Ipv4Addr,
    /// Opens root's login.
    pub root_key: PathBuf,
    /// The guest's host key, pinned.
    pub known_hosts: PathBuf,
    console: PathBuf,
    qemu: Child,
    network: Arc<Network>,
}

impl Guest {
    pub(super) fn boot(
        network: &Arc<Network>,
        image: &Image,
        directory: &Path,
        machine: &Machine,
        number: u8,
    ) -> Result<Self, GuestError> {
        let address = network::address(number);
        let here = directory.join(&machine.name);
        let _ = fs::remove_dir_all(&here);
        fs::create_dir_all(&here)
            .map_err(GuestError::io(format!("create `{}`", here.display())))?;
        let seed = seed(&here, machine, address)?;
        let tap = network.tap(number)?;
        let console = here.join("console");
        let mut command = network.command(Path::new("qemu-system-x86_64"));
        // Without a bound on translated code one guest grows to 1.5 GB.
        command.args([
            "-accel",
            "tcg,thread=multi,tb-size=128",
            "-cpu",
            "max",
            "-smp",
            "1",
        ]);
        command.args([
            "-m",
            &MEMORY_MIB.to_string(),
            "-display",
            "none",
            "-monitor",
            "none",
        ]);
        command
            .arg("-kernel")
            .arg(&image.kernel)
            .arg("-initrd")
            .arg(&image.initrd);
        // Where every process has addresses of its own, little that was translated is used again: a fork takes twice as long.
        command.args([
            "-append",
            "root=/dev/vda rw console=ttyS0 net.ifnames=0 mitigations=off norandmaps",
        ]);
        command.args([
            "-drive",
            &format!(
                "file={},if=virtio,format=raw,snapshot=on",
                image.root.display()
            ),
        ]);
        for disk in [&seed, &image.packages] {
            command.args([
                "-drive",
                &format!("file={},if=virtio,format=raw,readonly=on", disk.display()),
            ]);
        }
        command.args([
            "-netdev",
            &format!("tap,id=n,ifname={tap},script=no,downscript=no"),
        ]);
        command.args([
            "-device",
            &format!("virtio-net-pci,netdev=n,mac=52:54:00:77:00:{number:02x}"),
        ]);
        command.args(["-serial", &format!("file:{}", console.display())]);
        if let Some(number) = machine.volume {
            attach(&mut command, &here.join("volume"), number)?;
        }
        let log =
            File::create(here.join("qemu.log")).map_err(GuestError::io("write the log of qemu"))?;
        let qemu = command
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(GuestError::io("start qemu"))?;
        Ok(Self {
            name: machine.name.clone(),
            address,
            root_key: here.join("root_key"),
            known_hosts: here.join("known_hosts"),
            console,
            qemu,
            network: Arc::clone(network),
        })
    }

    /// Waits until root can log in and cloud-init has ended.
    ///
    /// # Errors
    /// With the end of the console when that does not happen within five minutes.
    pub fn wait_until_ready(&self) -> Result<(), GuestError> {
        self.wait_for("answer ssh", "true")?;
        // Its exit status is that of cloud-init's modules, which is no matter of a boot.
        self.ssh("cloud-init status --wait > /dev/null; true")
            .map(drop)
    }

    /// Runs a shell command as root inside and returns what it printed.
    ///
    /// # Errors
    /// When there is no connection, or the command fails; its stderr stands in the error.
    pub fn ssh(&self, script: &str) -> Result<String, GuestError> {
        let output = run(
            &format!("run `{script}` on `{}`", self.name),
            &mut self.ssh_command(script),
        )?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Boots the guest again from inside, and waits until the new system is ready.
    ///
    /// # Errors
    /// As [`Guest::wait_until_ready`].
    pub fn reboot(&self) -> Result<(), GuestError> {
        self.reboot_after("true").map(drop)
    }

    /// As [`Guest::reboot`], after a shell command in the same login; returns what it printed.
    ///
    /// # Errors
    /// As [`Guest::wait_until_ready`].
    pub fn reboot_after(&self, script: &str) -> Result<String, GuestError> {
        let before = self.ssh("cat /proc/sys/kernel/random/boot_id")?;
        // The connection may end before the command does, and that is no failure.
        let output = self
            .ssh_command(&format!("{script}\nsystemctl --no-block reboot"))
            .output()
            .map_err(GuestError::io("start ssh"))?;
        let another = format!(
            "[ \"$(cat /proc/sys/kernel/random/boot_id)\" != {} ]",
            before.trim()
        );
        self.wait_for("come back", &another)?;
        self.ssh("systemctl is-system-running --wait > /dev/null; true")?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The end of what the guest wrote to its serial console.
    pub fn console(&self) -> String {
        let text = fs::read(&self.console).unwrap_or_default();
        let end = &text[text.len().saturating_sub(4096)..];
        String::from_utf8_lossy(end).into_owned()
    }

    fn wait_for(&self, what: &str, script: &str) -> Result<(), GuestError> {
        let deadline = Instant::now() + BOOT;
        loop {
            let output = self
                .ssh_command(script)
                .output()
                .map_err(GuestError::io("start ssh"))?;
            if output.status.success() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(GuestError::Said {
                    doing: format!("see `{}` {what} within {} s", self.name, BOOT.as_secs()),
                    said: format!(
                        "{}\n{}",
                        String::from_utf8_lossy(&output.stderr),
                        self.console()
                    ),
                });
            }
            sleep(POLL);
        }
    }

    fn ssh_command(&self, script: &str) -> Command {
        let mut command = self.network.command(Path::new("ssh"));
        let pinned = format!("UserKnownHostsFile={}", self.known_hosts.display());
        for setting in [
            &pinned,
            "GlobalKnownHostsFile=/dev/null",
            "StrictHostKeyChecking=yes",
            "BatchMode=yes",
        ] {
            command.args(["-o", setting]);
        }
        command.args([
            "-F",
            "none",
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "ConnectTimeout=30",
            "-o",
            "LogLevel=ERROR",
        ]);
        command
            .args(["-o", "ServerAliveInterval=5"])
            .arg("-i")
            .arg(&self.root_key);
        command.arg(format!("root@{}", self.address)).arg(script);
        command
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // `snapshot=on`: there is nothing to save.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// A blank disk, which udev names /dev/disk/by-id/scsi-0HC_Volume_NUMBER.
fn attach(command: &mut Command, path: &Path, number: u32) -> Result<(), GuestError> {
    File::create(path)
        .and_then(|file| file.set_len(VOLUME_BYTES))
        .map_err(GuestError::io(format!("make `{}`", path.display())))?;
    command.args([
        "-drive",
        &format!("file={},if=none,id=volume,format=raw", path.display()),
        "-device",
        "virtio-scsi-pci",
        "-device",
        &format!("scsi-hd,drive=volume,vendor=HC,product=Volume,serial={number}"),
    ]);
    Ok(())
}

/// The disk that cloud-init reads. Keys come as vendor data, so that the caller's user data is only what it gave.
fn seed(here: &Path, machine: &Machine, address: Ipv4Addr) -> Result<PathBuf, GuestError> {
    let host_key = key(&here.join("host_key"))?;
    let root_key = key(&here.join("root_key"))?;
    let write = |name: &str, text: String| {
        let path = here.join(name);
        fs::write(&path, text).map_err(GuestError::io(format!("write `{}`", path.display())))?;
        Ok(path)
    };
    write("known_hosts", format!("{address} {host_key}\n"))?;
    let private =
        fs::read_to_string(here.join("host_key")).map_err(GuestError::io("read a new key"))?;
    let indented: String = private
        .lines()
        .map(|line| format!("    {line}\n"))
        .collect();
    let vendor_data = write(
        "vendor-data",
        format!(
            "#cloud-config\ndisable_root: false\nssh_deletekeys: true\nssh_genkeytypes: []\nssh_keys:\n  ed25519_private: |\n{indented}  \
         ed25519_public: {host_key}\nusers:\n  - name: root\n    ssh_authorized_keys: ['{root_key}']\n"
        ),
    )?;
    let user_data = write("user-data", machine.user_data.clone())?;
    let meta_data = write(
        "meta-data",
        format!("instance-id: {0}\nlocal-hostname: {0}\n", machine.name),
    )?;
    let net = format!(
        "version: 2\nethernets:\n  eth0:\n    addresses: [{address}/24]\n    gateway4: {}\n",
        network::OURS
    );
    let net = write("network-config", net)?;
    let disk = here.join("seed.iso");
    let mut localds = Command::new("cloud-localds");
    localds
        .arg("-N")
        .arg(net)
        .arg("-V")
        .arg(vendor_data)
        .arg(&disk)
        .arg(user_data)
        .arg(meta_data);
    run("make the disk for cloud-init", &mut localds)?;
    Ok(disk)
}

/// A new key pair; returns the public half.
fn key(path: &Path) -> Result<String, GuestError> {
    let mut keygen = Command::new("ssh-keygen");
    keygen
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f"])
        .arg(path);
    run("make a key", &mut keygen)?;
    let public =
        fs::read_to_string(path.with_extension("pub")).map_err(GuestError::io("read a new key"))?;
    Ok(public.trim().to_owned())
}
