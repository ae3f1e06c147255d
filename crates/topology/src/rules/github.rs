//! Rules of `[github]`.

use crate::file::{File, GithubFile};
use crate::problem::{Finding, Key, quoted};

use super::{names, twice, unknown};

/// A misspelt region would be the one whose protection nobody checks.
pub(crate) fn protected_region_unknown(
    key: &Key,
    section: &GithubFile,
    file: &File,
) -> Vec<Finding> {
    let list = key.name("protected");
    section
        .protected
        .iter()
        .enumerate()
        .filter(|(_, name)| !file.regions.contains_key(name))
        .map(|(at, name)| unknown(&list.index(at), name, "region", names(&file.regions)))
        .collect()
}

pub(crate) fn protected_region_twice(key: &Key, section: &GithubFile) -> Vec<Finding> {
    let list = key.name("protected");
    let members = section
        .protected
        .iter()
        .enumerate()
        .map(|(at, name)| (name.0.clone(), list.index(at)));
    twice(members)
        .map(|(first, key, name)| {
            let found = format!("{}, as is `{first}`", quoted(&name));
            Finding::new(&key, found, "each region once")
        })
        .collect()
}
