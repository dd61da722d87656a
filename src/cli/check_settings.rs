//! `umbel check --config`: what a configuration comes to, with the source of each value.

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Command;
use serde_json::{Value as Json, json};
use umbel::Config;
use umbel::config::Listeners;
use umbel::config::file::{Problem, Problems, Source};
use umbel::config::table::settings as all_settings;
use umbel::internals::net::memory;

#[cfg(feature = "tls")]
use super::check_certificates;
use super::check_files;
use super::settings::{self, Gathered};

/// What a stop takes beside its two settings, in milliseconds: the last closes, and the end of the process.
const STOP_REST_MS: u64 = 5000;

/// Order to check a file.
pub struct Wanted<'a> {
    /// The file.
    pub file: &'a Path,
    /// Warnings are errors.
    pub is_strict: bool,
    /// One JSON object in place of words.
    pub is_json: bool,
    /// Warnings and errors alone.
    pub is_quiet: bool,
}

/// What was found.
struct Checked {
    gathered: Gathered,
    config: Option<Config>,
    /// Certificates in words.
    certificates: Vec<String>,
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
}

/// Prints the settings that `umbel serve` would take. It binds nothing. The exit code says whether they can stand.
pub fn run(wanted: &Wanted<'_>, command: &Command) -> Result<ExitCode, Box<dyn Error>> {
    let gathered = gather(wanted.file, command)?;
    let (config, mut errors) = match gathered.config() {
        Ok(config) => (Some(config), Vec::new()),
        Err(Problems(errors)) => (None, errors),
    };
    let mut warnings = gathered.warnings.clone();
    warnings.extend(
        config
            .iter()
            .flat_map(|config| gathered.values.warnings(config)),
    );
    let unreadable = config.as_ref().map(check_files::look);
    let unreadable = unreadable.unwrap_or_default().into_iter();
    errors.extend(unreadable.map(|error| gathered.values.problem(&error)));
    #[cfg(feature = "tls")]
    let certificates = {
        let found = config
            .as_ref()
            .map(check_certificates::look)
            .unwrap_or_default();
        let problem = |error| gathered.values.problem(&error);
        errors.extend(found.errors.into_iter().map(problem));
        warnings.extend(found.warnings.into_iter().map(problem));
        found.certificates
    };
    #[cfg(not(feature = "tls"))]
    let certificates = Vec::new();
    let is_bad = !errors.is_empty() || (wanted.is_strict && !warnings.is_empty());
    let checked = Checked {
        gathered,
        config,
        certificates,
        errors,
        warnings,
    };
    let text = match wanted.is_json {
        true => format!("{:#}\n", checked.json(is_bad)),
        false if wanted.is_quiet => checked.problems(),
        false => checked.words(),
    };
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(error.into()),
        _ => {}
    }
    Ok(ExitCode::from(u8::from(is_bad)))
}

/// Values of a file and of the variables, as `umbel serve` would take them.
pub(super) fn gather(file: &Path, command: &Command) -> Result<Gathered, Box<dyn Error>> {
    let serve = command.find_subcommand("serve");
    let serve = serve.ok_or("umbel serve is a command")?.clone();
    let arguments = [
        "umbel serve".as_ref(),
        "--config".as_ref(),
        file.as_os_str(),
    ];
    // A variable that cannot stand is one error more, and not a matter of the command line.
    let matches = serve.try_get_matches_from(arguments).map_err(|error| {
        let text = error.to_string();
        let text = text.strip_prefix("error: ").unwrap_or(&text);
        text.split("\n\nFor more").next().unwrap_or(text).to_owned()
    })?;
    Ok(settings::gather(&matches, command))
}

/// Who may come by each listener, in words.
fn listeners(config: &Config) -> Vec<(String, String)> {
    let policy = match config.rights() {
        Ok(rights) => rights.to_string(),
        Err(error) => error.to_string(),
    };
    let reach = |address: &str| match config.rights() {
        Ok(rights) => rights.reach(address).map(|reach| format!("; {reach}")),
        Err(_) => None,
    };
    let listeners = Listeners::of(&config.listeners);
    let shown = listeners.with_surfaces().map(|(listener, surface)| {
        let address = match listener.name == listener.address.to_string() {
            true => listener.name.clone(),
            false => format!("{} ({})", listener.name, listener.address),
        };
        let reach = reach(&listener.address.to_string()).unwrap_or_default();
        let by = match listener.tls {
            true => ", by https and wss alone",
            false => "",
        };
        (
            address,
            format!("shows {}{by}; {policy}{reach}", surface.words()),
        )
    });
    shown.collect()
}

/// Longest time that a stop takes, in milliseconds.
fn stop_ms(config: &Config) -> u64 {
    config.limits.pre_stop_ms + config.limits.drain_timeout_ms + STOP_REST_MS
}

/// The same in words, against what may end the process before.
fn stop_budget(config: &Config) -> String {
    let seconds = stop_ms(config).div_ceil(1000);
    let mut words = format!(
        "stop: up to {seconds} s (pre_stop_ms, drain_timeout_ms and 5 s): TimeoutStopSec of systemd and \
         terminationGracePeriodSeconds of Kubernetes have to be more"
    );
    for (granted, of) in [(30, "Kubernetes grants 30 s"), (90, "systemd grants 90 s")] {
        if seconds >= granted {
            words.push_str(&format!("; {of} where nothing is set"));
        }
    }
    words
}

/// Memory, and who may use how much of it.
struct Shares {
    there_is: u64,
    budget: u64,
    histories: usize,
    outboxes: usize,
    inbound: usize,
}

impl Shares {
    /// Those of a configuration on this machine. None: nothing tells what memory there is.
    fn of(config: &Config) -> Option<Shares> {
        let mut filled = config.clone();
        memory::fill(&mut filled);
        let limits = &filled.limits;
        Some(Shares {
            there_is: memory::there_is()?,
            budget: limits.memory_budget_bytes,
            histories: limits.history_bytes_total_max,
            outboxes: limits.outbox_bytes_total_max,
            inbound: limits.inbound_bytes_total_max,
        })
    }

    fn json(&self) -> Json {
        json!({
            "there_is_bytes": self.there_is,
            "budget_bytes": self.budget,
            "history_bytes": self.histories,
            "outbox_bytes": self.outboxes,
            "inbound_bytes": self.inbound,
        })
    }
}

impl fmt::Display for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes >> 20;
        write!(
            f,
            "memory: a budget of {} MiB of {} MiB (memory_budget_bytes); histories {} MiB, outboxes {} MiB, messages that \
             come {} MiB; above 90 % of the budget new connections are refused, and these are shed",
            mib(self.budget),
            mib(self.there_is),
            mib(self.histories as u64),
            mib(self.outboxes as u64),
            mib(self.inbound as u64),
        )
    }
}

impl Checked {
    fn words(&self) -> String {
        let mut text = String::new();
        let width = all_settings()
            .map(|info| info.key.to_string().len())
            .max()
            .unwrap_or(0);
        let values = &self.gathered.values;
        for info in all_settings() {
            let (value, source) = (values.words(&info), values.source(info.name));
            let value = if value.is_empty() {
                "(not set)"
            } else {
                &value
            };
            text.push_str(&format!(
                "{:<width$}  {value}  [{source}]\n",
                info.key.to_string()
            ));
        }
        text.push('\n');
        for (address, words) in self.config.iter().flat_map(listeners) {
            text.push_str(&format!("{address}: {words}\n"));
        }
        for certificate in &self.certificates {
            text.push_str(&format!("{certificate}\n"));
        }
        for words in self.config.iter().map(stop_budget) {
            text.push_str(&format!("{words}\n"));
        }
        if let Some(shares) = self.config.as_ref().and_then(Shares::of) {
            text.push_str(&format!("{shares}\n"));
        }
        text.push_str(&self.problems());
        let (errors, warnings) = (self.errors.len(), self.warnings.len());
        text.push_str(&format!("{errors} errors, {warnings} warnings\n"));
        text
    }

    /// Warnings and errors, a line each or more.
    fn problems(&self) -> String {
        let mut text = String::new();
        for (kind, problems) in [("warning", &self.warnings), ("error", &self.errors)] {
            for problem in problems {
                text.push_str(&format!("{kind}: {problem}\n"));
            }
        }
        text
    }

    fn json(&self, is_bad: bool) -> Json {
        let values = &self.gathered.values;
        let settings: Vec<_> = all_settings()
            .map(|info| {
                let source = values.source(info.name);
                json!({
                    "name": info.name,
                    "key": info.key.to_string(),
                    "value": values.words(&info),
                    "is_set": !matches!(source, Source::Unset),
                    "source": source.to_string(),
                    "reload": info.reload.to_string(),
                })
            })
            .collect();
        let listeners: Vec<_> = self
            .config
            .iter()
            .flat_map(listeners)
            .map(|(name, holds)| json!({ "listener": name, "holds": holds }))
            .collect();
        json!({
            "verdict": if is_bad { "failed" } else { "ok" },
            "errors": self.errors.iter().map(problem).collect::<Vec<_>>(),
            "warnings": self.warnings.iter().map(problem).collect::<Vec<_>>(),
            "listeners": listeners,
            "certificates": self.certificates,
            "stop_ms": self.config.as_ref().map(stop_ms),
            "memory": self.config.as_ref().and_then(Shares::of).map(|shares| shares.json()),
            "settings": settings,
        })
    }
}

fn problem(problem: &Problem) -> Json {
    let mut shown = json!({ "message": problem.message() });
    if let Some(place) = problem.place() {
        let (line, column) = place.position();
        shown["file"] = place.path().to_string_lossy().into();
        shown["line"] = line.into();
        shown["column"] = column.into();
    }
    shown
}
