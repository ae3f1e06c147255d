//! act and the linters.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::venv;

const REQUIREMENTS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/workflows/requirements.txt"
);

/// The directory of their executables.
pub(crate) fn tools() -> &'static Path {
    static TOOLS: OnceLock<PathBuf> = OnceLock::new();
    TOOLS.get_or_init(|| venv::installed("workflow-tools", REQUIREMENTS))
}

/// The environment's PATH with the tools before it.
pub(crate) fn path() -> String {
    format!(
        "{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        tools().display()
    )
}
