//! The disks of the guests: a bare Debian as a cloud has it, and a package repository that it installs from.
//!
//! Made once and kept for as long as the recipe is the same. Guests never write to them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{GuestError, run};

/// What a cloud's image of Debian 12 has beside the base system. Nothing that a host needs for our sake.
const BARE: &str = "linux-image-cloud-amd64,cloud-init,openssh-server,systemd-sysv,dbus,sudo,python3,curl,ca-certificates,locales";
const SUITE: &str = "bookworm";
/// Sparse: only what is written to it takes space.
const ROOT_SIZE: &str = "3G";
/// Where the second disk is mounted inside.
const REPOSITORY: &str = "/srv/packages";

/// Disks that guests boot from.
#[derive(Clone, Debug)]
pub struct Image {
    pub(super) kernel: PathBuf,
    pub(super) initrd: PathBuf,
    pub(super) root: PathBuf,
    pub(super) packages: PathBuf,
}

impl Image {
    /// A bare Debian 12, and beside it a repository from which `apt-get install` of `packages` works without a network.
    /// Made in `directory` by the first caller, in a minute or two; needs a Debian mirror then.
    ///
    /// # Errors
    /// When the mirror cannot be reached, or a program fails.
    pub fn bare(directory: &Path, packages: &[&str]) -> Result<Self, GuestError> {
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
        let script = script(packages);
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
fn script(packages: &[&str]) -> String {
    let packages = packages.join(" ");
    format!(
        r#"rm -rf root debs root.img packages.img && mkdir debs
# apt knows what the bare system has, so it downloads exactly what the packages need beside it.
mmdebstrap --quiet --variant=important --mode=root --aptopt='APT::Sandbox::User "root"' --include={BARE} \
  --customize-hook='rm -f "$1"/var/cache/apt/archives/*.deb' \
  --customize-hook='APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get -qq -y --no-install-recommends --download-only install {packages}' \
  --customize-hook='mv "$1"/var/cache/apt/archives/*.deb debs/' \
  {SUITE} root.tar
mkdir root && tar -C root -xf root.tar --exclude='./dev/*' && rm root.tar
(cd debs && apt-ftparchive packages . > Packages && apt-ftparchive release . > Release)
printf 'LABEL=packages {REPOSITORY} ext4 ro,nofail 0 0\n' > root/etc/fstab
printf 'deb [trusted=yes] file:{REPOSITORY} ./\n' > root/etc/apt/sources.list
printf 'apt: {{preserve_sources_list: true}}\nlocale: false\ndatasource_list: [NoCloud]\n' > root/etc/cloud/cloud.cfg.d/99-lab.cfg
mkdir -p root{REPOSITORY}
# Every guest is a machine of its own, as a cloud's image is.
rm -f root/etc/ssh/ssh_host_* && : > root/etc/machine-id
cp root/boot/vmlinuz-* vmlinuz && cp root/boot/initrd.img-* initrd
mke2fs -q -t ext4 -d root -L root root.img {ROOT_SIZE}
mke2fs -q -t ext4 -d debs -L packages packages.img 512M
rm -rf root debs
"#
    )
}
