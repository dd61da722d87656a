//! Flags, variables and range checks of [`Limits::ALL`].

use clap::builder::TypedValueParser;
use clap::{Arg, ArgMatches, Command};
use umbel::ConfigError;
use umbel::config::{LimitInfo, Limits};
use umbel::internals::units::Unit;

/// The headings in the help, each with the first limit that stands under it.
const HEADINGS: [(&str, &str); 9] = [
    ("head_bytes_max", "Limits of requests"),
    ("message_bytes_max", "Limits of messages"),
    ("ping_interval_ms", "Times of connections"),
    ("outbox_bytes_max", "Limits of memory"),
    (
        "send_buffer_bytes",
        "Sockets (0 leaves a setting to the system)",
    ),
    ("backlog", "Connections and reactors"),
    ("mailbox_messages_max", "Queues between threads"),
    ("history_bytes_total_max", "History, umbel.v1 and presence"),
    ("deflate_bytes_min", "Limits of compression"),
];

/// The heading that the drain time stands under.
const SHUTDOWN: &str = "Shutdown";

/// Adds all limits, which only the long help lists.
pub fn add_arguments(mut command: Command) -> Command {
    let mut heading = HEADINGS[0].1;
    for info in Limits::ALL {
        if let Some((_, next)) = HEADINGS.iter().find(|(first, _)| *first == info.name) {
            heading = next;
        }
        let heading = match info.name {
            "drain_timeout_ms" => SHUTDOWN,
            _ => heading,
        };
        command = command.arg(argument(info).help_heading(heading).hide_short_help(true));
    }
    command
}

/// The flag of one limit, which its variable stands in for.
pub fn argument(info: &'static LimitInfo) -> Arg {
    Arg::new(info.name)
        .long(info.flag())
        .env(info.variable())
        .hide_env(true)
        .allow_negative_numbers(true)
        .value_name(match Unit::of_setting(info.name) {
            Unit::Millis => "MS",
            Unit::Bytes => "BYTES",
            Unit::Count => "COUNT",
        })
        .value_parser(parser(info))
        .help(format!("{} [default: {}]", info.doc, info.default))
}

/// Takes a number in the limit's range, with a unit or without. What it says otherwise stands behind clap's own "invalid
/// value".
fn parser(info: &'static LimitInfo) -> impl TypedValueParser<Value = u64> {
    |text: &str| -> Result<u64, String> {
        let unit = Unit::of_setting(info.name);
        let value = unit.parse(text);
        let value = value.filter(|value| (info.min..=info.max).contains(value));
        value.ok_or_else(|| {
            let tip = match value.is_none().then(|| unit.tip(text)).flatten() {
                Some(tip) => format!("{tip}; "),
                None => String::new(),
            };
            format!(
                "{tip}it must be a whole number from {} to {} (the default is {}); set it with --{} or {}",
                info.min,
                info.max,
                info.default,
                info.flag(),
                info.variable()
            )
        })
    }
}

/// The limits after those that were given are set.
///
/// # Errors
/// When one lies outside its range.
pub fn limits(matches: &ArgMatches) -> Result<Limits, ConfigError> {
    let mut limits = Limits::default();
    for info in Limits::ALL {
        if let Some(&value) = matches.get_one::<u64>(info.name) {
            limits.set(info.name, value)?;
        }
    }
    Ok(limits)
}

#[cfg(test)]
mod tests {
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
            let limits = limits(&command.get_matches_from(["test", &flag]));
            let mut expected = Limits::default();
            expected.set(info.name, value).expect("it is in the range");
            assert_ne!(expected, Limits::default(), "{}", info.name);
            assert_eq!(limits, Ok(expected));
        }
    }

    #[test]
    fn headings_begin_at_limits_that_exist() {
        for (first, heading) in HEADINGS {
            let exists = Limits::ALL.iter().any(|info| info.name == first);
            assert!(exists, "{heading} begins at {first}");
        }
    }
}
