//! Reload of the configuration file while the server runs.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use clap::{ArgMatches, Command};
use umbel::config::file::{Problem, Problems};
use umbel::{Handle, ReloadError, Reloaded};

use super::in_force::InForce;
use super::log_output;
#[cfg(unix)]
use super::notify;
use super::settings::{self, Gathered};

/// How often, and how many times, a reload is tried while an earlier one is not through.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);
const RETRIES_MAX: u32 = 3000;

/// Reloads for a server.
pub struct Reloader {
    handle: Handle,
    matches: ArgMatches,
    /// The whole command line, whose variables are known.
    command: Command,
    /// The log's format, which stays.
    log_format: String,
    /// Settings in force.
    in_force: Mutex<InForce>,
}

impl Reloader {
    /// Reloader for a server that was started with these flags.
    pub fn new(
        handle: Handle,
        matches: &ArgMatches,
        command: &Command,
        gathered: &Gathered,
    ) -> Reloader {
        let in_force = InForce::of(&gathered.values);
        handle.tell_settings(in_force.json());
        Reloader {
            handle,
            matches: matches.clone(),
            command: command.clone(),
            log_format: gathered.values.choice("log_format"),
            in_force: Mutex::new(in_force),
        }
    }

    /// Reads the file anew and goes on by it. Where something is wrong, all settings stay as they were. What came of it is
    /// in the log; and its number with the names of settings that need a restart, or all that is wrong.
    pub fn reload(&self) -> Result<(u64, Vec<&'static str>), Vec<String>> {
        #[cfg(unix)]
        let _reloading = notify::reloading();
        let Some(path) = self.matches.get_one::<PathBuf>("config") else {
            let words = "nothing to reload: the settings come from no file";
            log::info!("{words}");
            return Err(vec![words.to_owned()]);
        };
        let gathered = settings::gather(&self.matches, &self.command);
        match self.apply(&gathered) {
            Ok(reloaded) => {
                let needs_restart = self.tell(path, &gathered, &reloaded);
                Ok((reloaded.generation, needs_restart))
            }
            Err(problems) => {
                for problem in &problems {
                    log::error!(event = "reload_failed"; "reload failed, and all settings are as they were: {problem}");
                }
                Err(problems)
            }
        }
    }

    fn apply(&self, gathered: &Gathered) -> Result<Reloaded, Vec<String>> {
        let in_lines = |problems: Problems| -> Vec<String> {
            problems.0.iter().map(Problem::in_a_line).collect()
        };
        let config = gathered.config().map_err(|problems| {
            self.handle.note_failed_reload();
            in_lines(problems)
        })?;
        for _ in 0..RETRIES_MAX {
            match self.handle.reload(config.clone()) {
                Err(ReloadError::Busy) => thread::sleep(RETRY_INTERVAL),
                outcome => return outcome.map_err(|error| vec![error.to_string()]),
            }
        }
        Err(vec![ReloadError::Busy.to_string()])
    }

    /// Says what came of it. Gives the names of settings that need a restart.
    fn tell(&self, path: &Path, gathered: &Gathered, reloaded: &Reloaded) -> Vec<&'static str> {
        log_output::set_level(&gathered.values.choice("log_level"));
        for warning in &gathered.warnings {
            log::warn!("{}", warning.in_a_line());
        }
        if gathered.has_credentials {
            log::info!(
                "credentials are those that the service was started with: a restart reads them anew"
            );
        }
        let mut stay = reloaded.needs_restart.clone();
        if gathered.values.choice("log_format") != self.log_format {
            stay.push("log_format");
        }
        let mut in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = in_force
            .take(InForce::of(&gathered.values), &stay)
            .join(",");
        self.handle.tell_settings(in_force.json());
        let (path, changed) = (path.display(), &*changed);
        match stay.is_empty() {
            true => {
                log::info!(event = "reloaded", generation = reloaded.generation, changed; "reloaded {path}");
            }
            false => {
                log::warn!(event = "reloaded", generation = reloaded.generation, changed, needs_restart = &*stay.join(",");
                    "reloaded {path}; until a restart these stay as they were: {}",
                    stay.join(", ")
                );
            }
        }
        stay
    }
}
