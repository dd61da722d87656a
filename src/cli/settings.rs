//! Settings of `umbel serve`: flags and variables by the table of settings, and all sources together.

use std::env;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use umbel::Config;
use umbel::config::file::{self, FileSettings, Problem, Problems, Source, Value, Values};
use umbel::config::table::{Kind, SettingInfo, heading, settings};

use super::setting_value::{Read, SettingParser};

/// A second name for the variable of topic rules, as a flag that no help lists.
const TOPIC_RULE_ALIAS: &str = "topic-rules";
const TOPIC_RULE_ALIAS_VARIABLE: &str = "UMBEL_TOPIC_RULE";

/// Adds a flag for each setting, with its variable.
pub fn add_arguments(command: Command) -> Command {
    let config = Arg::new("config")
        .long("config")
        .env("UMBEL_CONFIG")
        .hide_env(true)
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help_heading(heading::LISTENING)
        .help("A TOML file with settings, over which variables and flags go; SIGHUP has it read again");
    let alias = Arg::new(TOPIC_RULE_ALIAS)
        .long(TOPIC_RULE_ALIAS)
        .env(TOPIC_RULE_ALIAS_VARIABLE)
        .hide(true)
        .action(ArgAction::Append);
    let all = settings();
    let rules = all.filter(|info| info.kind == Kind::TopicRules);
    let alias = rules.fold(alias, |alias, info| alias.value_parser(SettingParser(info)));
    command
        .arg(config)
        .args(settings().map(argument))
        .arg(alias)
}

/// The flag of one setting, which its variable stands in for.
pub fn argument(info: SettingInfo) -> Arg {
    let argument = Arg::new(info.name)
        .long(info.flag())
        .env(info.variable())
        .hide_env(true)
        .hide_short_help(info.is_advanced)
        .help_heading(info.heading)
        .help(match &*info.unset_words() {
            "" => info.doc.to_owned(),
            _ if info.kind == Kind::Switch => info.doc.to_owned(),
            unset => format!("{} [default: {unset}]", info.doc),
        });
    let argument = match info.long_doc {
        "" => argument,
        long => argument.long_help(long),
    };
    let argument = argument.value_parser(SettingParser(info));
    match info.kind {
        Kind::Switch => argument.num_args(0).default_missing_value("true"),
        Kind::Choice(_) | Kind::Bool => argument
            .hide_possible_values(true)
            .value_name(info.value_name),
        Kind::Number { .. } => argument
            .value_name(info.value_name)
            .allow_negative_numbers(true),
        _ => argument
            .value_name(info.value_name)
            .action(ArgAction::Append),
    }
}

/// The number of a flag that [`argument`] made, if it was given.
///
/// # Errors
/// It is no number that the setting takes.
pub fn number(matches: &ArgMatches, info: &SettingInfo) -> Result<Option<u64>, Problems> {
    match given(matches, info) {
        Some(Ok((Value::Number(number), _))) => Ok(Some(number)),
        Some(Err(problems)) => Err(Problems(problems)),
        _ => Ok(None),
    }
}

/// Values of all sources, with problems and warnings.
#[derive(Debug)]
pub struct Gathered {
    /// The values that can be read.
    pub values: Values,
    /// Errors: values that cannot be read, and unknown names.
    pub problems: Vec<Problem>,
    /// Warnings about where secrets are.
    pub warnings: Vec<Problem>,
    /// Whether a secret is a credential of the service.
    pub has_credentials: bool,
}

/// Reads the file, and puts variables and flags over it. `command` is the whole command line, whose variables are known.
pub fn gather(matches: &ArgMatches, command: &Command) -> Gathered {
    let FileSettings {
        mut values,
        mut problems,
        warnings,
        secret_variables,
        has_credentials,
    } = match matches.get_one::<PathBuf>("config") {
        Some(path) => file::read(path),
        None => FileSettings::default(),
    };
    for info in settings() {
        match given(matches, &info) {
            Some(Ok((value, source))) => values.set(info.name, value, source),
            Some(Err(bad)) => problems.extend(bad),
            None => {}
        }
    }
    let environment: Vec<_> = env::vars_os()
        .map(|(name, value)| [name, value].map(|text| text.to_string_lossy().into_owned()))
        .collect();
    let environment = environment
        .iter()
        .map(|[name, value]| (name.as_str(), value.as_str()));
    let mut known = secret_variables;
    known.extend(variables(command));
    problems.extend(file::unknown_variables(environment, &known));
    Gathered {
        values,
        problems,
        warnings,
        has_credentials,
    }
}

/// Variables of a command and of those below it.
fn variables(command: &Command) -> Vec<String> {
    let own = command.get_arguments().filter_map(Arg::get_env);
    let own = own.map(|name| name.to_string_lossy().into_owned());
    own.chain(command.get_subcommands().flat_map(variables))
        .collect()
}

/// The value that flags or variables give, and the first of them; or why they cannot stand.
fn given(
    matches: &ArgMatches,
    info: &SettingInfo,
) -> Option<Result<(Value, Source), Vec<Problem>>> {
    let own = source(matches, info.name, &info.flag(), info.variable());
    let alias = match info.kind {
        Kind::TopicRules => source(
            matches,
            TOPIC_RULE_ALIAS,
            TOPIC_RULE_ALIAS,
            TOPIC_RULE_ALIAS_VARIABLE.to_owned(),
        ),
        _ => None,
    };
    let (name, source) = match (own, alias) {
        (Some(own @ Source::Flag(_)), Some(Source::Variable(_))) | (Some(own), None) => {
            (info.name, own)
        }
        (Some(Source::Variable(_)), Some(alias @ Source::Flag(_))) | (None, Some(alias)) => {
            (TOPIC_RULE_ALIAS, alias)
        }
        (Some(own), Some(alias)) => {
            let words =
                format!("{own} and {alias} are two names of one setting: write one of them");
            return Some(Err(vec![Problem::elsewhere(words)]));
        }
        (None, None) => return None,
    };
    Some(all_of(matches, name, &source).map(|value| (value, source)))
}

/// What gives a setting a value on the command line or among the variables.
fn source(matches: &ArgMatches, name: &str, flag: &str, variable: String) -> Option<Source> {
    match matches.try_contains_id(name) {
        Ok(true) => {}
        _ => return None,
    }
    match matches.value_source(name)? {
        ValueSource::CommandLine => Some(Source::Flag(format!("--{flag}"))),
        ValueSource::EnvVariable => Some(Source::Variable(variable)),
        _ => None,
    }
}

/// What all uses of a flag say together, or all that is wrong with them.
fn all_of(matches: &ArgMatches, name: &str, source: &Source) -> Result<Value, Vec<Problem>> {
    let (mut all, mut problems) = (None::<Value>, Vec::new());
    for read in matches.get_many::<Read>(name).into_iter().flatten() {
        match (&read.0, &mut all) {
            (Ok(value), Some(all)) => all.append(value.clone()),
            (Ok(value), None) => all = Some(value.clone()),
            (Err(words), _) => problems.push(Problem::elsewhere(format!("{source}: {words}"))),
        }
    }
    match (all, problems.is_empty()) {
        (Some(all), true) => Ok(all),
        _ => Err(problems),
    }
}

impl Gathered {
    /// The configuration, checked.
    ///
    /// # Errors
    /// All that is wrong with the settings.
    pub fn config(&self) -> Result<Config, Problems> {
        if !self.problems.is_empty() {
            return Err(Problems(self.problems.clone()));
        }
        let mut config = self.values.config()?;
        if config.state_directory.is_none() {
            // systemd gives several with colons between them.
            let given = env::var("STATE_DIRECTORY").unwrap_or_default();
            let first = given.split(':').next().filter(|first| !first.is_empty());
            config.state_directory = first.map(PathBuf::from);
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use umbel::config::Limits;

    use super::*;

    #[test]
    fn every_limit_is_a_flag_that_sets_it() {
        for info in Limits::ALL {
            let value = if info.default == info.max {
                info.min
            } else {
                info.max
            };
            let flag = format!("--{}={value}", info.flag());
            let command = add_arguments(Command::new("test"));
            let matches = command.get_matches_from(["test", &flag]);
            let info = settings().find(|setting| setting.name == info.name);
            let info = info.expect("each limit is a setting");
            let given = given(&matches, &info).expect("it is given");
            let (given, source) = given.expect("it can be read");
            assert_eq!(given, Value::Number(value));
            assert_eq!(source.to_string(), format!("--{}", info.flag()));
        }
    }
}
