//! Settings of `umbel serve`: flags and variables by the table of settings, and all sources together.

use std::env;
use std::path::PathBuf;

use clap::builder::{BoolValueParser, BoolishValueParser, PossibleValuesParser, TypedValueParser};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use umbel::Config;
use umbel::config::file::{self, FileSettings, Problem, Problems, Source, Value, Values};
use umbel::config::table::{Kind, SettingInfo, heading, settings};

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
    let alias = rules.fold(alias, |alias, info| alias.value_parser(parser(info)));
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
    match info.kind {
        Kind::Switch => argument
            .action(ArgAction::SetTrue)
            .value_parser(BoolishValueParser::new()),
        Kind::Choice(words) => argument
            .hide_possible_values(true)
            .value_name(info.value_name)
            .value_parser(PossibleValuesParser::new(words.iter().copied()).map(Value::Choice)),
        Kind::Bool => argument
            .hide_possible_values(true)
            .value_name(info.value_name)
            .value_parser(BoolValueParser::new().map(Value::Bool)),
        Kind::Number { .. } => argument
            .value_name(info.value_name)
            .allow_negative_numbers(true)
            .value_parser(parser(info)),
        _ => argument
            .value_name(info.value_name)
            .action(ArgAction::Append)
            .value_parser(parser(info)),
    }
}

/// What it says stands behind clap's own "invalid value".
fn parser(info: SettingInfo) -> impl TypedValueParser<Value = Value> {
    move |text: &str| -> Result<Value, String> {
        let (flag, variable) = (info.flag(), info.variable());
        Value::parse(&info, text)
            .map_err(|problem| format!("{problem}; set it with --{flag} or {variable}"))
    }
}

/// The number of a flag that [`argument`] made, if it was given.
pub fn number(matches: &ArgMatches, name: &str) -> Option<u64> {
    match matches.get_one::<Value>(name) {
        Some(Value::Number(number)) => Some(*number),
        _ => None,
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
        if let Some((value, source)) = given(matches, &info) {
            values.set(info.name, value, source);
        }
        if info.kind == Kind::TopicRules
            && let Some(value) = all_of(matches, TOPIC_RULE_ALIAS)
        {
            values.set(
                info.name,
                value,
                Source::Variable(TOPIC_RULE_ALIAS_VARIABLE.to_owned()),
            );
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

/// The value that a flag or a variable gives, and which.
fn given(matches: &ArgMatches, info: &SettingInfo) -> Option<(Value, Source)> {
    let source = match matches.value_source(info.name)? {
        ValueSource::CommandLine => Source::Flag(format!("--{}", info.flag())),
        ValueSource::EnvVariable => Source::Variable(info.variable()),
        _ => return None,
    };
    let value = match info.kind {
        Kind::Switch => Value::Bool(matches.get_flag(info.name)),
        _ => all_of(matches, info.name)?,
    };
    Some((value, source))
}

/// What all uses of a flag say together.
fn all_of(matches: &ArgMatches, name: &str) -> Option<Value> {
    let given = matches.get_many::<Value>(name)?;
    given.cloned().reduce(|mut all, one| {
        all.append(one);
        all
    })
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
            let (given, source) = given(&matches, &info).expect("it is given");
            assert_eq!(given, Value::Number(value));
            assert_eq!(source.to_string(), format!("--{}", info.flag()));
        }
    }
}
