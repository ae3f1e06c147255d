//! One step: what has to be true on a server, why, and how to make it so.

/// A step. Steps run in order, and the first that fails ends the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// `[a-z-]+`, unique in a list.
    pub name: &'static str,
    /// Why a host needs it: one sentence without its period.
    pub reason: &'static str,
    pub action: Action,
    /// Set where a mistake could lock everybody out: the change is undone unless a fresh login confirms it.
    pub guard: Option<Guard>,
}

/// What a guarded step does besides its action.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    /// Shell that makes the server use the files from before, which are back in their places when it runs.
    pub undo: String,
    /// Shell that makes the change last over a reboot, once it is confirmed.
    pub keep: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Debian packages. `a|b` is satisfied by either, and `a` is installed when neither is there.
    Packages(Vec<&'static str>),
    /// A file with exactly this content, mode and owner.
    File(File),
    /// Something that a shell command can see and another can bring about.
    Command(Command),
    /// Shell that changes nothing: each line that it prints is a note for whoever runs this. When it fails, the step has.
    Look(String),
    /// Something public that only the server knows.
    Fact(Fact),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// `[a-z-]+`
    pub fact: &'static str,
    /// Shell that prints the value, one line.
    pub shell: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub path: String,
    pub mode: u32,
    /// `user:group`
    pub owner: &'static str,
    /// Stands in the script: never a secret. Ends with a line feed.
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Succeeds when there is nothing to do. Changes nothing.
    pub check: String,
    pub apply: String,
    /// Names of earlier steps whose change makes this one run, whatever `check` says.
    pub after: Vec<&'static str>,
}
