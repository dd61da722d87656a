//! Messages to whoever supervises the process: datagrams to `NOTIFY_SOCKET`, as `sd_notify(3)` describes them.
//!
//! | when | message |
//! | --- | --- |
//! | every reactor has had its first tick | `READY=1`, and a `STATUS=` |
//! | a reload begins, and ends in either way | `RELOADING=1` with `MONOTONIC_USEC=`; then `READY=1` |
//! | the end begins | `STOPPING=1`, `EXTEND_TIMEOUT_USEC=`, and a `STATUS=` each second |
//! | half of `WATCHDOG_USEC` is over, and every reactor has ticked meanwhile | `WATCHDOG=1` |
//!
//! Without `NOTIFY_SOCKET` nothing is sent, and no thread is there for it.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::sync::Once;
use std::thread;
use std::time::Duration;

use sd_notify::NotifyState;
use umbel::Handle;

/// How often the first ticks of all reactors are looked for.
const START_INTERVAL: Duration = Duration::from_millis(5);

/// How often it is told how many connections are left.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// Time beyond that of a drain after which whoever supervises may end the process.
const STOP_MARGIN: Duration = Duration::from_secs(5);

/// Tells when the server is ready. From then on it tells that it is alive, if it is to.
///
/// # Errors
/// As of `pthread_create(3)`.
pub fn watch(handle: Handle, listeners: usize) -> io::Result<()> {
    if !is_heard() {
        return Ok(());
    }
    let attend = move || {
        if await_first_ticks(&handle) {
            let reactors = handle.ticks().len();
            let status = format!(
                "{}, {}",
                counted(reactors, "reactor"),
                counted(listeners, "listener")
            );
            tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
            if let Some(within) = sd_notify::watchdog_enabled() {
                keep_alive(&handle, within / 2);
            }
        }
    };
    let named = thread::Builder::new().name("umbel-notify".to_owned());
    named.spawn(attend).map(|_| ())
}

fn counted(count: usize, name: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {name}{plural}")
}

/// False: the server has ended before.
fn await_first_ticks(handle: &Handle) -> bool {
    while handle.ticks().contains(&0) {
        if handle.is_closed() {
            return false;
        }
        thread::sleep(START_INTERVAL);
    }
    true
}

/// Tells of each interval in which every reactor has ticked.
fn keep_alive(handle: &Handle, interval: Duration) {
    let mut before = handle.ticks();
    let mut is_stuck = false;
    while !handle.is_closed() {
        // One that has nothing to do ticks all the same.
        handle.nudge();
        thread::sleep(interval);
        let now = handle.ticks();
        match stuck(&before, &now) {
            None => {
                is_stuck = false;
                tell(&[NotifyState::Watchdog]);
            }
            Some(reactor) if !is_stuck => {
                is_stuck = true;
                log::error!(reactor; "a reactor is stuck: whoever supervises is not told that the server is alive");
            }
            Some(_) => {}
        }
        before = now;
    }
}

/// The first reactor that has not ticked.
fn stuck(before: &[u64], now: &[u64]) -> Option<usize> {
    before
        .iter()
        .zip(now)
        .position(|(before, now)| before == now)
}

/// Reload that goes on until this is dropped.
#[must_use]
pub struct Reloading(());

/// Tells that a reload begins.
pub fn reloading() -> Reloading {
    if is_heard() {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(_) => tell(&[NotifyState::Reloading]),
        }
    }
    Reloading(())
}

impl Drop for Reloading {
    fn drop(&mut self) {
        tell(&[NotifyState::Ready]);
    }
}

/// Tells that the end begins. How far it is follows, until the process has ended.
pub fn stopping(handle: &Handle) {
    if !is_heard() {
        return;
    }
    let within = handle.drain_time() + STOP_MARGIN;
    let within_us = u32::try_from(within.as_micros()).unwrap_or(u32::MAX);
    tell(&[
        NotifyState::Stopping,
        NotifyState::ExtendTimeoutUsec(within_us),
        NotifyState::Status(&left(handle)),
    ]);
    let handle = handle.clone();
    let named = thread::Builder::new().name("umbel-notify-end".to_owned());
    let spawned = named.spawn(move || {
        loop {
            thread::sleep(STATUS_INTERVAL);
            tell(&[NotifyState::Status(&left(&handle))]);
        }
    });
    if let Err(error) = spawned {
        log::debug!("how far the end is cannot be told: {error}");
    }
}

fn left(handle: &Handle) -> String {
    format!("draining, {} left", grouped(handle.counts().connections))
}

/// A number with commas: `41,200`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Whether somebody listens to messages.
fn is_heard() -> bool {
    env::var_os("NOTIFY_SOCKET").is_some_and(|place| !place.is_empty())
}

/// Sends one message. The first failure is logged.
fn tell(states: &[NotifyState<'_>]) {
    static FAILED: Once = Once::new();
    let Some(place) = env::var_os("NOTIFY_SOCKET").filter(|place| !place.is_empty()) else {
        return;
    };
    let lines: String = states.iter().map(|state| format!("{state}\n")).collect();
    if let Err(error) = send(&place, lines.as_bytes()) {
        FAILED.call_once(|| log::warn!("NOTIFY_SOCKET hears nothing: {error}"));
    }
}

/// The crate knows no abstract sockets, whose names begin with `@`.
fn send(place: &OsStr, message: &[u8]) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    #[cfg(target_os = "linux")]
    if let [b'@', name @ ..] = place.as_encoded_bytes() {
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::net::SocketAddr;

        socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?;
        return socket.send(message).map(|_| ());
    }
    socket.connect(place)?;
    socket.send(message).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_commas() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (41_200, "41,200"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(number), text);
        }
        assert_eq!(
            (counted(1, "reactor"), counted(2, "listener")),
            ("1 reactor".into(), "2 listeners".into())
        );
    }

    #[test]
    fn one_stuck_reactor_is_enough() {
        assert_eq!(stuck(&[1, 5], &[2, 6]), None);
        assert_eq!(stuck(&[1, 5], &[2, 5]), Some(1));
        assert_eq!(stuck(&[1, 5], &[1, 5]), Some(0));
    }
}
