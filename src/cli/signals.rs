//! Signals of `umbel serve`, and what each of them does.
//!
//! | signal | does |
//! | --- | --- |
//! | SIGTERM, SIGINT | drain; another one of these, or SIGQUIT, ends the process at once |
//! | SIGQUIT | drain without the time for whoever probes |
//! | SIGHUP | reload; drain, where the terminal that the process was started from is gone |
//! | SIGUSR1 | a line in the log that sums the server up |
//! | SIGUSR2 | a line in the log: there is no handover |

use std::error::Error;
use std::fs;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use umbel::Handle;

use super::{log_output, notify};

/// Name of whatever terminal controls the calling process.
const TERMINAL: &str = "/dev/tty";

/// How long a terminal is looked for before it counts as still there, and how often. The end of a shell sends SIGHUP a
/// moment before its terminal is gone.
const LOOKS: u32 = 10;
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Watches for signals from here on. `reload` is called for a SIGHUP that asks for it, on a thread of its own.
///
/// # Errors
/// As of `sigaction(2)`, and where no thread can be had.
pub fn watch(
    handle: Handle,
    mut reload: impl FnMut() + Send + 'static,
) -> Result<(), Box<dyn Error>> {
    // Asked before the handler replaces what was inherited.
    let drains_on_hangup = has_terminal() && !is_hangup_ignored();
    let signals = Signals::new([SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2])?;
    // A reload takes a while, and a drain is not to wait for it. One that waits is enough for all that ask.
    let (asking, asked) = mpsc::sync_channel(1);
    thread::Builder::new()
        .name("umbel-reload".to_owned())
        .spawn(move || asked.iter().for_each(|()| reload()))?;
    let ask = move || {
        let _ = asking.try_send(());
    };
    thread::Builder::new()
        .name("umbel-signals".to_owned())
        .spawn(move || obey(signals, &handle, drains_on_hangup, ask))?;
    Ok(())
}

fn obey(mut signals: Signals, handle: &Handle, drains_on_hangup: bool, reload: impl Fn()) {
    let mut is_draining = false;
    for signal in signals.forever() {
        match (signal, is_draining) {
            (SIGUSR1, _) => log_summary(handle),
            (SIGUSR2, _) => log::warn!(
                "there is no handover to a new process yet, and nothing was done: restart the service, which drains"
            ),
            // Shell and kernel may both tell of the same terminal.
            (SIGHUP, true) => {}
            (SIGHUP, false) if drains_on_hangup && is_terminal_gone() => {
                log::info!(event = "draining";
                    "shutting down, for the terminal is gone: no new connections, open ones are closed with 1001"
                );
                is_draining = true;
                handle.shutdown();
                notify::stopping(handle);
            }
            (SIGHUP, false) => reload(),
            (_, false) => {
                log::info!(event = "draining";
                    "shutting down: /ready says so, then no new connections, and open ones are closed; a second signal ends at once"
                );
                is_draining = true;
                match signal {
                    SIGQUIT => handle.drain(),
                    _ => handle.shutdown(),
                }
                notify::stopping(handle);
            }
            (signal, true) => {
                log::warn!("ending at once");
                log_output::flush();
                // The one exit beside main: a server that hangs must end too.
                std::process::exit(128 + signal);
            }
        }
    }
}

/// One line with the figures of the server.
fn log_summary(handle: &Handle) {
    let counts = handle.counts();
    log::info!(
        connections = counts.connections, accepted = counts.accepted, publications = counts.publications,
        messages_received = counts.messages_received, deliveries = counts.deliveries,
        slow_consumers = counts.slow_consumers, outbox_bytes = counts.outbox_bytes,
        is_ready = handle.is_ready(), generation = handle.generation();
        "summary"
    );
}

/// Whether a terminal controls this process. It is not kept open: that would keep its other side waiting.
fn has_terminal() -> bool {
    fs::File::open(TERMINAL).is_ok()
}

fn is_terminal_gone() -> bool {
    (0..LOOKS).any(|look| {
        if look > 0 {
            thread::sleep(LOOK_INTERVAL);
        }
        // Other errors, such as that of a process without a free descriptor, tell nothing.
        fs::File::open(TERMINAL).is_err_and(|error| {
            matches!(
                error.raw_os_error(),
                Some(libc::ENXIO | libc::EIO | libc::ENODEV)
            )
        })
    })
}

/// Whether the process was started with SIGHUP ignored, as `nohup` does: it is to outlive its terminal. Told by Linux.
fn is_hangup_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignored_signals(&status) >> (SIGHUP - 1) & 1 == 1
}

/// The set of ignored signals in a `status` file of `proc(5)`.
fn ignored_signals(status: &str) -> u64 {
    let mut lines = status.lines();
    let set = lines.find_map(|line| line.strip_prefix("SigIgn:"));
    set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_of_a_process() {
        let status =
            "Name:\tumbel\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\nSigCgt:\t0\n";
        assert_eq!(ignored_signals(status), 0x1001);
        assert_eq!(ignored_signals("Name:\tx\n"), 0);
    }
}
