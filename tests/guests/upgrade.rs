//! `provision-region upgrade` on a host that serves: a new region-host, one that does not run, one that no controller understands,
//! and the way back.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use regionwise_rollout::Verdict;

use crate::setting_up::{DEPLOY, Desk, PROVISION, Run};

const SUMS: &str = "sha256sum /usr/local/bin/region-host /usr/local/bin/region-host.previous 2> /dev/null | cut -c 1-64; true";

pub(crate) fn a_new_one_comes_a_bad_one_goes_and_the_one_before_comes_back(desk: &Desk<'_>) {
    let sums = || {
        let said = desk.guest().ssh(SUMS).unwrap();
        said.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let upgrade = |words: &[&str], wanted| {
        let key = desk.guest().root_key.display().to_string();
        let words = [&["upgrade", "--root-key", &key], words].concat();
        desk.run(PROVISION, &words, wanted)
    };
    let changed = |run: &Run| run.said["result"]["changed"].clone();
    let serves = || {
        let status = desk.run(DEPLOY, &["status"], Verdict::Proceed);
        assert!(status.text().contains("serves"), "{}", status.text());
    };
    let first = sums().remove(0);

    let run = upgrade(&["--region-host", "region-host"], Verdict::Proceed);
    assert_eq!(changed(&run), false, "it is there: {}", run.text());
    let run = upgrade(&["--back"], Verdict::Refused);
    assert_eq!(run.said["reason"], "nothing-kept");

    // The same program, and another file.
    let new = desk.path("region-host-2");
    fs::copy(desk.path("region-host"), &new).unwrap();
    let mut file = OpenOptions::new().append(true).open(&new).unwrap();
    file.write_all(b"another build").unwrap();
    drop(file);
    let run = upgrade(&["--region-host", "region-host-2"], Verdict::Proceed);
    assert_eq!(changed(&run), true);
    let [second, kept] = sums().try_into().unwrap();
    assert_ne!(second, first);
    assert_eq!(kept, first, "the one before is kept");
    serves();

    // For another machine.
    let mut foreign = fs::read(&new).unwrap();
    foreign[18] = 0xb7;
    fs::write(desk.path("region-host-arm"), foreign).unwrap();
    let run = upgrade(&["--region-host", "region-host-arm"], Verdict::Refused);
    assert_eq!(run.said["reason"], "does-not-run", "{}", run.text());
    assert_eq!(sums(), [second.clone(), first.clone()]);

    // It has a version, and no controller gets an answer.
    let reference = fs::read(desk.path("shop-api")).unwrap();
    let mute = desk.path("region-host-mute");
    fs::write(&mute, reference).unwrap();
    fs::set_permissions(&mute, fs::Permissions::from_mode(0o755)).unwrap();
    let run = upgrade(&["--region-host", "region-host-mute"], Verdict::RolledBack);
    assert_eq!(run.said["reason"], "does-not-answer", "{}", run.text());
    assert_eq!(sums()[0], second, "it has again what it had");
    serves();

    upgrade(&["--region-host", "region-host-2"], Verdict::Proceed);
    let run = upgrade(&["--region-host", "region-host"], Verdict::Proceed);
    assert_eq!(changed(&run), true);
    assert_eq!(sums(), [first.clone(), second.clone()]);
    let run = upgrade(&["--back"], Verdict::Proceed);
    assert_eq!(changed(&run), true);
    assert_eq!(sums(), [second.clone(), first.clone()]);
    let run = upgrade(&["--back"], Verdict::Proceed);
    assert_eq!(changed(&run), false, "back twice does not lead forwards");
    assert_eq!(sums(), [second, first.clone()]);
    serves();

    // As everything else on this host expects it.
    upgrade(&["--region-host", "region-host"], Verdict::Proceed);
    assert_eq!(sums()[0], first);
}
