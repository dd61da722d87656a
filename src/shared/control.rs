//! State of the control API: the deny list with the file that it is kept in, and answers that are remembered.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::replays::Replays;
use crate::auth::deny::{Denial, DenyCell, DenyList};
use crate::config::{Config, ConfigError};
use crate::trace::Traces;

/// Name of the file in the directory of state.
const DENY_FILE: &str = "deny.json";

/// Changes that wait for the file at a time. More are refused.
const WAITING_MAX: usize = 1024;

/// Callback for the outcome of writing the file.
pub type OnKept = dyn FnOnce(io::Result<()>) + Send;

/// State of the control API.
#[derive(Default)]
pub struct ControlState {
    /// The deny list.
    pub deny: Arc<DenyCell>,
    /// Where it is kept. None: in memory alone.
    keeper: Option<Keeper>,
    replays: Mutex<Replays>,
    config_text: OnceLock<Box<ConfigText>>,
    /// Each setting with its source, as JSON. None: they come from a program.
    settings: Mutex<Option<Arc<str>>>,
    reloader: OnceLock<Arc<Reload>>,
    /// The traces.
    pub traces: Traces,
}

/// Callback for the settings in force: JSON, with secrets as `set`.
pub type ConfigText = dyn Fn() -> String + Send + Sync;

/// Number of a reload, and the settings that need a restart; or all that is wrong, and nothing has changed.
pub type ReloadOutcome = Result<(u64, Vec<&'static str>), Vec<String>>;

/// Callback for a reload.
pub type Reload = dyn Fn() -> ReloadOutcome + Send + Sync;

/// Entries of the deny list that stand in `deny_file`.
///
/// # Errors
/// The file cannot be read, or a line of it is none.
pub fn fixed_denials(config: &Config) -> Result<Vec<Denial>, ConfigError> {
    let Some(path) = &config.deny_file else {
        return Ok(Vec::new());
    };
    let wrong = |problem: String| ConfigError::new("deny_file", path.display(), problem);
    let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    DenyList::parse_fixed(&text).map_err(wrong)
}

/// Whether `state_directory` can be read. A list that is there has to be whole.
///
/// # Errors
/// There is no such directory, or its list is not whole.
pub fn check_directory(config: &Config) -> Result<(), ConfigError> {
    let Some(directory) = &config.state_directory else {
        return Ok(());
    };
    let wrong = |problem: String| ConfigError::new("state_directory", directory.display(), problem);
    if !directory.is_dir() {
        return Err(wrong("there is no such directory".to_owned()));
    }
    let list = read_list(&directory.join(DENY_FILE));
    list.map(drop).map_err(|error| wrong(error.to_string()))
}

impl ControlState {
    /// State that is kept in a directory, if there is one. `fixed`: entries of the configuration.
    ///
    /// # Errors
    /// When the file of the list is there and cannot be read, or the directory cannot be written.
    pub fn open(directory: Option<&Path>, fixed: Vec<Denial>) -> io::Result<ControlState> {
        let mut list = match directory {
            Some(directory) => read_list(&directory.join(DENY_FILE))?,
            None => DenyList::default(),
        };
        list.set_fixed(fixed);
        let deny = Arc::new(DenyCell::new(list));
        let keeper = directory.map(|directory| Keeper::start(directory, &deny));
        Ok(ControlState {
            deny,
            keeper: keeper.transpose()?,
            ..ControlState::default()
        })
    }

    /// Whether the deny list outlives the process.
    pub fn is_persistent(&self) -> bool {
        self.keeper.is_some()
    }

    /// Calls back once the deny list is in its file. Where there is none, that is at once.
    pub fn keep(&self, on_kept: Box<OnKept>) {
        match &self.keeper {
            None => on_kept(Ok(())),
            Some(keeper) => {
                if let Err(refused) = keeper.changes.try_send(on_kept) {
                    let busy = io::Error::other("more is changed than can be written");
                    refused.into_inner()(Err(busy));
                }
            }
        }
    }

    /// Sets what tells the settings in force. The first one stands.
    pub fn tell_config_by(&self, tell: Box<ConfigText>) {
        let _ = self.config_text.set(tell);
    }

    /// Settings in force, as JSON. None: nobody tells them yet.
    pub fn config_text(&self) -> Option<String> {
        self.config_text.get().map(|tell| tell())
    }

    /// Sets each setting with its source, as JSON.
    pub fn tell_settings(&self, settings: String) {
        let kept = self.settings.lock();
        *kept.unwrap_or_else(PoisonError::into_inner) = Some(settings.into());
    }

    /// Each setting with its source, as JSON. None: they come from a program.
    pub fn settings(&self) -> Option<Arc<str>> {
        let kept = self.settings.lock();
        kept.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets what reads the settings anew. The first one stands.
    pub fn reload_by(&self, reload: Arc<Reload>) {
        let _ = self.reloader.set(reload);
    }

    /// Reader of the settings, where they come from a file.
    pub fn reloader(&self) -> Option<Arc<Reload>> {
        self.reloader.get().cloned()
    }

    /// Answers that are remembered.
    pub fn replays(&self) -> MutexGuard<'_, Replays> {
        self.replays.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread that writes the deny list. It ends with its sender.
struct Keeper {
    changes: Sender<Box<OnKept>>,
}

impl Keeper {
    fn start(directory: &Path, deny: &Arc<DenyCell>) -> io::Result<Keeper> {
        let (sender, changes) = bounded(WAITING_MAX);
        let (directory, deny) = (directory.to_owned(), Arc::clone(deny));
        // Better now than at the first change.
        write_list(&directory, &deny.read().encode())?;
        thread::Builder::new()
            .name("umbel-keeper".to_owned())
            .spawn(move || keep(&changes, &directory, &deny))?;
        Ok(Keeper { changes: sender })
    }
}

/// Writes the list for the changes that wait, all of them at once.
fn keep(changes: &Receiver<Box<OnKept>>, directory: &Path, deny: &DenyCell) {
    while let Ok(first) = changes.recv() {
        let waiting: Vec<_> = std::iter::once(first).chain(changes.try_iter()).collect();
        let text = deny.read().encode();
        let outcome = write_list(directory, &text);
        if let Err(error) = &outcome {
            log::error!("the deny list could not be written: {error}");
        }
        for on_kept in waiting {
            on_kept(match &outcome {
                Ok(()) => Ok(()),
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
            });
        }
    }
}

fn read_list(path: &Path) -> io::Result<DenyList> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(DenyList::default()),
        Err(error) => return Err(at(path, &error)),
    };
    DenyList::decode(&bytes).map_err(|error| at(path, &io::Error::other(error)))
}

/// Writes the file beside, and puts it in its place, so that there is always a whole one.
fn write_list(directory: &Path, text: &[u8]) -> io::Result<()> {
    let (path, beside): (PathBuf, _) = (directory.join(DENY_FILE), directory.join("deny.json.new"));
    let write = || -> io::Result<()> {
        let mut file = File::create(&beside)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&beside, &path)?;
        File::open(directory)?.sync_all()
    };
    write().map_err(|error| at(&path, &error))
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
