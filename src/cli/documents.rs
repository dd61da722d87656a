//! `umbel completions`, `umbel man` and `umbel sample`: what is made from the description of commands and settings.

use std::error::Error;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use clap_complete::Shell;
use clap_mangen::Man;
use umbel::config::file;

/// The arguments of `umbel completions`.
pub fn completions_command() -> Command {
    Command::new("completions")
        .about("Print the completions for a shell")
        .after_help("For example: umbel completions bash > /etc/bash_completion.d/umbel")
        .arg(
            Arg::new("shell")
                .value_name("SHELL")
                .required(true)
                .value_parser(value_parser!(Shell))
                .help("The shell"),
        )
}

/// The arguments of `umbel man`.
pub fn man_command() -> Command {
    Command::new("man")
        .about("Print the manual page, or write all pages to a directory")
        .after_help(
            "For example: umbel man | man -l -\n             umbel man /usr/local/share/man/man1",
        )
        .arg(
            Arg::new("directory")
                .value_name("DIR")
                .value_parser(value_parser!(PathBuf))
                .help("Write umbel.1 and a page for each command there; it is made if need be"),
        )
}

/// The arguments of `umbel sample`.
pub fn sample_command() -> Command {
    Command::new("sample")
        .about("Print a configuration file with every setting, its meaning and its default")
        .after_help("For example: umbel sample > /etc/umbel/umbel.toml")
        .arg(
            Arg::new("schema")
                .long("schema")
                .action(ArgAction::SetTrue)
                .help("Print the JSON schema of such files, which editors take"),
        )
}

/// Prints the sample, or the schema.
pub fn print_sample(matches: &ArgMatches) -> Result<ExitCode, Box<dyn Error>> {
    match matches.get_flag("schema") {
        true => print(format!("{:#}\n", file::schema()).as_bytes()),
        false => print(file::sample().as_bytes()),
    }
}

/// Prints completions.
pub fn print_completions(
    matches: &ArgMatches,
    mut command: Command,
) -> Result<ExitCode, Box<dyn Error>> {
    let shell: Shell = *matches.get_one("shell").expect("it is required");
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "umbel", &mut script);
    print(&script)
}

/// Prints the page of `umbel`, or writes all of them.
pub fn write_pages(matches: &ArgMatches, command: Command) -> Result<ExitCode, Box<dyn Error>> {
    let command = in_full(command);
    let Some(directory) = matches.get_one::<PathBuf>("directory") else {
        let mut page = Vec::new();
        Man::new(command).render(&mut page)?;
        return print(&page);
    };
    let explain = |error| format!("{}: {error}", directory.display());
    fs::create_dir_all(directory).map_err(explain)?;
    clap_mangen::generate_to(command, directory).map_err(explain)?;
    Ok(ExitCode::SUCCESS)
}

/// With what only the long help says: a manual page leaves out the words of arguments that the short one hides.
fn in_full(command: Command) -> Command {
    command
        .mut_args(|argument| argument.hide_short_help(false))
        .mut_subcommands(in_full)
}

/// Whoever reads what is printed may stop at any time, as `head` does.
fn print(bytes: &[u8]) -> Result<ExitCode, Box<dyn Error>> {
    match io::stdout().lock().write_all(bytes) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}
