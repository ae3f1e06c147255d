//! The disks of the guests: a bare system as a cloud has it, and a package repository that it installs from.
//!
//! Made once and kept for as long as the recipe is the same. Guests never write to them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{GuestError, run};

/// What a cloud's image has beside the base system and a kernel. Nothing that a host needs for our sake.
const BARE: &str =
    "cloud-init,openssh-server,systemd-sysv,dbus,sudo,python3,curl,ca-certificates,locales";
/// Sparse: only what is written to it takes space.
const ROOT_SIZE: &str = "3G";
/// Where the second disk is mounted inside.
const REPOSITORY: &str = "/srv/packages";

/// What guests run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    Debian12,
    Debian13,
    Ubuntu2404,
}

impl System {
    /// As ID and VERSION_ID of os-release.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Debian12 => "debian-12",
            Self::Debian13 => "debian-13",
            Self::Ubuntu2404 => "ubuntu-24.04",
        }
    }

    const fn kernel(self) -> &'static str {
        match self {
            Self::Debian12 | Self::Debian13 => "linux-image-cloud-amd64",
            Self::Ubuntu2404 => "linux-image-virtual,initramfs-tools",
        }
    }

    /// How mmdebstrap finds it and checks it; `TARGET` is what it makes.
    const fn words(self) -> &'static str {
        match self {
            Self::Debian12 => "bookworm TARGET",
            Self::Debian13 => "trixie TARGET",
            Self::Ubuntu2404 => {
                "--keyring=\"$PWD\"/keyring/usr/share/keyrings/ubuntu-archive-keyring.gpg noble TARGET \
                 'deb http://archive.ubuntu.com/ubuntu noble main universe'"
            }
        }
    }

    /// Before that. Debian has no package of Ubuntu's keys.
    const fn preparation(self) -> &'static str {
        match self {
            Self::Debian12 | Self::Debian13 => "",
            Self::Ubuntu2404 => {
                "curl -fsS -o keyring.deb http://archive.ubuntu.com/ubuntu/pool/main/u/ubuntu-keyring/ubuntu-keyring_2023.11.28.1_all.deb
echo '36de43b15853ccae0028e9a767613770c704833f82586f28eb262f0311adb8a8  keyring.deb' | sha256sum --check --quiet
dpkg-deb -x keyring.deb keyring && rm keyring.deb
"
            }
        }
    }
}

/// Disks that guests boot from.
#[derive(Clone, Debug)]
pub struct Image {
    pub(super) kernel: PathBuf,
    pub(super) initrd: PathBuf,
    pub(super) root: PathBuf,
    pub(super) packages: PathBuf,
}

impl Image {
    /// The same system with all packages installed, for tests in which installing them is not the point. Nothing of `more` runs.
    #[must_use]
    pub fn installed(mut self) -> Self {
        self.root.set_file_name("installed.img");
        self
    }

    /// A bare system, and beside it a repository from which `apt-get install` of `packages` and `more` works without a network.
    /// Made in `directory` by the first caller, in a minute or two; needs a mirror of the system then.
    ///
    /// # Errors
    /// When the mirror cannot be reached, or a program fails.
    pub fn bare(
        system: System,
        directory: &Path,
        packages: &[&str],
        more: &[&str],
    ) -> Result<Self, GuestError> {
        let doing = || format!("make an image in `{}`", directory.display());
        fs::create_dir_all(directory).map_err(GuestError::io(doing()))?;
        let lock = File::create(directory.join("lock")).map_err(GuestError::io(doing()))?;
        lock.lock().map_err(GuestError::io(doing()))?;
        let image = Self {
            kernel: directory.join("vmlinuz"),
            initrd: directory.join("initrd"),
            root: directory.join("root.img"),
            packages: directory.join("packages.img"),
        };
        let script = script(system, packages, more);
        let made = directory.join("made-by.sh");
        if fs::read_to_string(&made).is_ok_and(|there| there == script) {
            return Ok(image);
        }
        let _ = fs::remove_file(&made);
        let mut bash = Command::new("bash");
        bash.args(["-euc", &script]).current_dir(directory);
        bash.env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        );
        run(&doing(), &mut bash)?;
        fs::write(&made, script).map_err(GuestError::io(doing()))?;
        Ok(image)
    }
}

/// The recipe is also the key of the cache.
fn script(system: System, packages: &[&str], more: &[&str]) -> String {
    let (packages, more) = (packages.join(" "), more.join(" "));
    let kernel = system.kernel();
    let words = system.words().replace("TARGET", "installed.tar");
    format!(
        r#"rm -rf root debs keyring root.img installed.img packages.img && mkdir debs
{preparation}# Whatever installs must run inside, with chroot: apt with that configuration reads there, and its dpkg writes to this machine.
# apt knows what the bare system has, so it downloads exactly what the packages need beside it.
mmdebstrap --quiet --variant=important --mode=root --aptopt='APT::Sandbox::User "root"' --include={kernel},{BARE} \
  --customize-hook='rm -f "$1"/var/cache/apt/archives/*.deb' \
  --customize-hook='APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get -qq -y --no-install-recommends --download-only install {packages} {more}' \
  --customize-hook='cp "$1"/var/cache/apt/archives/*.deb debs/' \
  --customize-hook='tar -C "$1" --one-file-system -cf bare.tar --exclude=./var/cache/apt/archives --exclude=./dev .' \
  --customize-hook='mkdir -p "$1"/etc/postgresql-common/createcluster.d' \
  --customize-hook='echo "create_main_cluster = false" > "$1"/etc/postgresql-common/createcluster.d/regionwise.conf' \
  --customize-hook='chroot "$1" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends --no-download install {packages} {more}' \
  --customize-hook='chroot "$1" dpkg -L {more} | sed -n "s|^\(/usr\)\?/lib/systemd/system/||p" | grep -E "^[a-z-]+\.(service|socket)$" | xargs chroot "$1" systemctl --quiet disable' \
  --customize-hook='rm -f "$1"/var/cache/apt/archives/*.deb' \
  {words}
(cd debs && apt-ftparchive packages . > Packages && apt-ftparchive release . > Release)
for name in bare installed; do
  mkdir root && tar -C root -xf $name.tar --exclude='./dev/*' && rm $name.tar
  mkdir -p root/dev root/proc root/sys root/var/cache/apt/archives/partial
  printf 'LABEL=packages {REPOSITORY} ext4 ro,nofail 0 0\n' > root/etc/fstab
  printf 'deb [trusted=yes] file:{REPOSITORY} ./\n' > root/etc/apt/sources.list && rm -f root/etc/apt/sources.list.d/*
  printf 'apt: {{preserve_sources_list: true}}\nlocale: false\ndatasource_list: [NoCloud]\n' > root/etc/cloud/cloud.cfg.d/99-lab.cfg
  mkdir -p root{REPOSITORY}
  # Every guest is a machine of its own, as a cloud's image is.
  rm -f root/etc/ssh/ssh_host_* && : > root/etc/machine-id
  cp root/boot/vmlinuz-* vmlinuz && cp root/boot/initrd.img-* initrd
  mke2fs -q -t ext4 -d root -L root $name.img {ROOT_SIZE}
  rm -rf root
done
mv bare.img root.img
mke2fs -q -t ext4 -d debs -L packages packages.img 512M
rm -rf debs
"#,
        preparation = system.preparation()
    )
}
