//! Shell completions and man pages, from the same definitions as the arguments.

use std::io;

use clap::{Arg, ArgAction, ArgMatches, Command, ValueEnum};
use clap_complete::Shell;

/// Adds the hidden flags that print a document instead of running.
pub(crate) fn with_flags(command: Command) -> Command {
    command
        .arg(
            Arg::new("completions")
                .long("completions")
                .value_parser(clap::builder::EnumValueParser::<Shell>::new())
                .exclusive(true)
                .hide(true),
        )
        .arg(
            Arg::new("man")
                .long("man")
                .action(ArgAction::SetTrue)
                .exclusive(true)
                .hide(true),
        )
}

/// Prints the document that the arguments ask for; `false` when they ask for none.
pub(crate) fn print(matches: &ArgMatches, mut command: Command) -> io::Result<bool> {
    let name = command.get_name().to_owned();
    if let Some(shell) = matches.get_one::<Shell>("completions") {
        clap_complete::generate(*shell, &mut command, name, &mut io::stdout());
        return Ok(true);
    }
    if matches.get_flag("man") {
        clap_mangen::Man::new(command).render(&mut io::stdout())?;
        return Ok(true);
    }
    Ok(false)
}

/// The shells there are completions for.
pub(crate) fn shells() -> Vec<String> {
    Shell::value_variants()
        .iter()
        .filter_map(|shell| Some(shell.to_possible_value()?.get_name().to_owned()))
        .collect()
}
