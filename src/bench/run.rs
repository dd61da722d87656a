//! One run, from the first connection to the counts of all threads: connect, warm up, measure, drain.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mio::{Poll, Waker};

use super::arguments::Mode;
use super::connection::{Connection, Role};
use super::exchange::spare_places;
use super::load::{Load, Outcome, WAKER};
use super::number::grouped;
use super::pace::{self, Paced};
use super::process::{Busy, CpuSample, CpuUse, resident_bytes};
use super::progress::ProgressLine;
use super::publisher::{Publisher, Sender};
use super::record::Record;
use super::settings::{Length, Publish, Settings};
use super::shared::{Shared, Stage, ticks};
use super::stamp::{RUN_MASK, TICK_NS};

/// Time in which at least one more connection must be made.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// Pause after connecting, for subscriptions to take effect and memory to settle.
const SETTLE: Duration = Duration::from_millis(300);
/// Time without any receipt after which what has not come counts as lost.
const DRAIN_PATIENCE: Duration = Duration::from_secs(2);
/// The same where some do not read, and nobody knows how much is to come.
const DRAIN_PATIENCE_STALL: Duration = Duration::from_secs(1);
/// How often the run is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// The server's side, as its processes tell it.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServerUse {
    pub cpu: CpuUse,
    pub resident_before_bytes: u64,
    pub resident_connected_bytes: u64,
    pub resident_after_bytes: u64,
}

/// All that a run has brought.
pub struct Run {
    pub settings: Settings,
    pub record: Record,
    pub sender: Sender,
    /// The measured part.
    pub window: Duration,
    pub attempted: u64,
    pub opened: u64,
    pub failed: u64,
    /// Time to make the initial connections.
    pub connect_time: Duration,
    pub published: u64,
    pub refused: u64,
    /// Publications that were due and could not be sent in time.
    pub unsent: u64,
    pub server: Option<ServerUse>,
    /// Busy share of each thread, from 0 to 1.
    pub busy: Vec<f64>,
    /// CPU time of all threads.
    pub own_cpu_us: u64,
    pub was_interrupted: bool,
    pub first_failure: Option<String>,
}

/// The threads of a run.
struct Threads {
    shared: Arc<Shared>,
    loads: Vec<JoinHandle<io::Result<Outcome>>>,
    pacers: Vec<JoinHandle<Paced>>,
}

impl Threads {
    fn start(settings: &Settings) -> Result<Threads, String> {
        let failed =
            |error: io::Error| format!("the system has no room for an event loop: {error}");
        let polls: io::Result<Vec<Poll>> = (0..settings.threads).map(|_| Poll::new()).collect();
        let polls = polls.map_err(failed)?;
        let wakers = polls.iter().map(|poll| Waker::new(poll.registry(), WAKER));
        let wakers = wakers.collect::<io::Result<Vec<Waker>>>().map_err(failed)?;
        let roles = roles(settings);
        let publishers = publishers(settings, &roles)?;
        let mut run = [0; 2];
        getrandom::fill(&mut run).map_err(|error| format!("the system has no entropy: {error}"))?;
        let run = u16::from_le_bytes(run) & RUN_MASK;
        let shared = Arc::new(Shared::new(settings.clone(), run, publishers, wakers));
        let mut loads = Vec::new();
        for (index, poll) in polls.into_iter().enumerate() {
            let numbered = roles.iter().copied().enumerate();
            let own = numbered.filter(|(number, _)| number % settings.threads == index);
            let mut connections: Vec<Connection> = own
                .map(|(number, role)| Connection::new(settings, role, number))
                .collect();
            let initial = connections.len();
            for spare in 0..spare_places(settings) {
                let number = roles.len() + spare * settings.threads + index;
                let topic = number % settings.topics;
                connections.push(Connection::new(settings, Role::Idle { topic }, number));
            }
            let load = Load::new(Arc::clone(&shared), index, poll, connections, initial);
            let name = format!("bench-load-{index}");
            loads.push(spawn(name, move || load.run())?);
        }
        Ok(Threads {
            shared,
            loads,
            pacers: Vec::new(),
        })
    }

    fn start_pacers(&mut self) -> Result<(), String> {
        if !pace::is_needed(&self.shared) {
            return Ok(());
        }
        for index in 0..self.loads.len() {
            let shared = Arc::clone(&self.shared);
            let pacer = spawn(format!("bench-pace-{index}"), move || {
                pace::run(&shared, index)
            });
            self.pacers.push(pacer?);
        }
        Ok(())
    }

    /// Ends the threads and gives what they have counted: a record, what was sent, and how busy each was.
    fn end(self) -> Result<(Record, Sender, Vec<Busy>), String> {
        self.shared.advance(Stage::Ended);
        let mut record = Record::new();
        let mut sender = Sender::new();
        let mut busy = Vec::new();
        let mut add = |other: &Sender, of_thread| {
            sender
                .lateness
                .add(&other.lateness)
                .expect("both have the same bounds");
            busy.push(of_thread);
        };
        for load in self.loads {
            let outcome = load.join().map_err(|_| "a thread of the load panicked")?;
            let outcome = outcome.map_err(|error| format!("an event loop failed: {error}"))?;
            record.merge(&outcome.record);
            add(&outcome.sender, outcome.busy);
        }
        for pacer in self.pacers {
            let paced = pacer.join().map_err(|_| "a pacing thread panicked")?;
            add(&paced.sender, paced.busy);
        }
        Ok((record, sender, busy))
    }
}

fn spawn<T: Send + 'static>(
    name: String,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, String> {
    let spawned = thread::Builder::new().name(name).spawn(run);
    spawned.map_err(|error| format!("--threads: the system has no room for a thread: {error}"))
}

/// What the connections are for, in the order in which they are made: subscribers first.
fn roles(settings: &Settings) -> Vec<Role> {
    let stalled = (settings.connections as f64 * settings.stalled).ceil() as usize;
    let subscriber = |number: usize| Role::Subscriber {
        topic: number % settings.topics,
        // Spread evenly: as many before each number as the share of all asks for.
        is_stalled: (number + 1) * stalled / settings.connections
            > number * stalled / settings.connections,
    };
    let connections = 0..settings.connections;
    match settings.mode {
        Mode::Echo => connections
            .map(|number| Role::Echo(number as u32))
            .collect(),
        Mode::Idle | Mode::Storm => {
            let topics = connections.map(|number| number % settings.topics);
            topics.map(|topic| Role::Idle { topic }).collect()
        }
        Mode::Fanout | Mode::Stall => {
            let publishers = 0..settings.publisher_count() as u32;
            let publishers = publishers.map(|index| match settings.publish {
                Publish::Message(_) => Role::Publisher(index),
                Publish::Post(_) => Role::Poster(index),
            });
            connections.map(subscriber).chain(publishers).collect()
        }
    }
}

fn publishers(settings: &Settings, roles: &[Role]) -> Result<Vec<Publisher>, String> {
    let mut readers = vec![0; settings.topics];
    for role in roles {
        if let Role::Subscriber {
            topic,
            is_stalled: false,
        } = role
        {
            readers[*topic] += 1;
        }
    }
    let numbered = roles.iter().enumerate();
    let numbered = numbered.filter_map(|(number, role)| Some((number, role.publisher()?)));
    let publishers = numbered.map(|(number, index)| {
        let (topic, readers) = match settings.mode {
            Mode::Echo => (0, 1),
            _ => (
                index / settings.publishers,
                readers[index / settings.publishers],
            ),
        };
        let thread = number % settings.threads;
        Publisher::new(settings, index as u32, topic, thread, readers)
    });
    publishers.collect()
}

/// Runs. `stop` ends the run early, with what there is.
///
/// # Errors
/// When there is nothing to report: the connections could not be made, or a process is not there.
pub fn run(settings: &Settings, stop: &AtomicBool) -> Result<Run, String> {
    let before = server_resident(settings)?;
    let mut threads = Threads::start(settings)?;
    let shared = Arc::clone(&threads.shared);
    let mut line = ProgressLine::new();
    let connect_time = match connect(&shared, stop, &mut line) {
        Ok(connect_time) => connect_time,
        Err(error) => {
            threads.end()?;
            return Err(error);
        }
    };
    thread::sleep(SETTLE);
    let connected = server_resident(settings)?;
    threads.start_pacers()?;
    let cpu = measure(&shared, stop, &mut line)?;
    let after = server_resident(settings)?;
    drain(&shared, &mut line);
    let start_ticks = shared.measure_start_ticks();
    let window_ticks = shared.measure_end_ticks().saturating_sub(start_ticks);
    let unsent = unsent(&shared);
    let (record, sender, busy) = threads.end()?;
    let sent = shared.publishers.iter().map(Publisher::sent);
    Ok(Run {
        settings: settings.clone(),
        record,
        sender,
        window: Duration::from_nanos(window_ticks * TICK_NS),
        attempted: shared.total(|progress| &progress.attempted),
        opened: shared.total(|progress| &progress.opened),
        failed: shared.total(|progress| &progress.failed),
        connect_time,
        published: sent.clone().map(|sent| sent.measured).sum(),
        refused: sent.map(|sent| sent.refused).sum(),
        unsent,
        server: cpu.map(|cpu| ServerUse {
            cpu,
            resident_before_bytes: before,
            resident_connected_bytes: connected,
            resident_after_bytes: after,
        }),
        own_cpu_us: busy.iter().map(|busy| busy.cpu_us).sum(),
        busy: busy.into_iter().map(Busy::share).collect(),
        was_interrupted: stop.load(Ordering::Relaxed),
        first_failure: shared.first_failure(),
    })
}

fn server_resident(settings: &Settings) -> Result<u64, String> {
    resident_bytes(&settings.pids).map_err(|error| no_process(settings, &error))
}

fn server_cpu(settings: &Settings) -> Result<CpuSample, String> {
    CpuSample::take(&settings.pids).map_err(|error| no_process(settings, &error))
}

fn no_process(settings: &Settings, error: &io::Error) -> String {
    let pids: Vec<String> = settings.pids.iter().map(u32::to_string).collect();
    format!(
        "--pid {}: /proc does not tell of it ({error}); is it the server's?",
        pids.join(",")
    )
}

/// Waits for the connections that the run begins with, and says how long it took.
fn connect(
    shared: &Shared,
    stop: &AtomicBool,
    line: &mut ProgressLine,
) -> Result<Duration, String> {
    let settings = &shared.settings;
    let wanted = match settings.mode.has_publishers() {
        true => settings.sockets() as u64,
        false => settings.connections as u64,
    };
    let start = Instant::now();
    let mut last = (0, start);
    loop {
        let opened = shared.total(|progress| &progress.opened);
        let failed = shared.total(|progress| &progress.failed);
        line.show(|| format!("connecting: {} of {}", grouped(opened), grouped(wanted)));
        if opened != last.0 {
            last = (opened, Instant::now());
        }
        let reason = shared.first_failure().unwrap_or_default();
        if failed > 0 {
            return Err(format!(
                "{}: {reason} (after {} that were)",
                settings.url,
                grouped(opened)
            ));
        }
        if opened >= wanted {
            return Ok(start.elapsed());
        }
        if stop.load(Ordering::Relaxed) {
            return Err("interrupted before anything was measured".to_owned());
        }
        if last.1.elapsed() > CONNECT_PATIENCE {
            return Err(format!(
                "{}: {} of {} connections were made, and none in the last {} s",
                settings.url,
                grouped(opened),
                grouped(wanted),
                CONNECT_PATIENCE.as_secs()
            ));
        }
        thread::sleep(LOOK);
    }
}

/// Lets the load run for its time or count, and says what CPU time the server took, if its processes are known.
fn measure(
    shared: &Shared,
    stop: &AtomicBool,
    line: &mut ProgressLine,
) -> Result<Option<CpuUse>, String> {
    let settings = &shared.settings;
    let start_ticks = shared.now_ticks();
    let measure_start_ticks = start_ticks + ticks(settings.warmup);
    let measure_end_ticks = match settings.length {
        Length::Time(duration) => measure_start_ticks + ticks(duration),
        Length::Count(_) => u64::MAX,
    };
    shared.schedule(start_ticks, measure_start_ticks, measure_end_ticks);
    shared.advance(Stage::Loading);
    wait(
        shared,
        stop,
        line,
        "warming up",
        measure_start_ticks,
        || false,
    );
    shared.wake_all();
    let before = server_cpu(settings)?;
    let mut quiet = Quiet::new(DRAIN_PATIENCE);
    let is_counted = matches!(settings.length, Length::Count(_));
    let is_done = || is_counted && is_counted_out(shared, &mut quiet);
    wait(shared, stop, line, "measuring", measure_end_ticks, is_done);
    let now_ticks = shared.now_ticks();
    if now_ticks < measure_end_ticks {
        let last_ticks = shared.progress.iter();
        let last_ticks = last_ticks.map(|progress| progress.last_ticks.load(Ordering::Relaxed));
        let last_ticks = last_ticks.max().unwrap_or(0) + 1;
        shared.set_measure_end(match is_counted {
            true => last_ticks.max(measure_start_ticks + 1),
            false => now_ticks.max(measure_start_ticks + 1),
        });
    }
    let after = server_cpu(settings)?;
    shared.wake_all();
    Ok((!settings.pids.is_empty()).then(|| after.since(&before)))
}

/// Waits until then, or until something is done.
fn wait(
    shared: &Shared,
    stop: &AtomicBool,
    line: &mut ProgressLine,
    what: &str,
    until_ticks: u64,
    mut is_done: impl FnMut() -> bool,
) {
    let began_ticks = shared.now_ticks();
    let received_before = shared.total(|progress| &progress.received);
    loop {
        let now_ticks = shared.now_ticks();
        if now_ticks >= until_ticks || stop.load(Ordering::Relaxed) || is_done() {
            return;
        }
        line.show(|| {
            let seconds = |ticks: u64| ticks as f64 * TICK_NS as f64 / 1e9;
            let passed = seconds(now_ticks - began_ticks);
            let received = shared.total(|progress| &progress.received) - received_before;
            let total = match until_ticks {
                u64::MAX => String::new(),
                until_ticks => format!(" of {:.1}", seconds(until_ticks - began_ticks)),
            };
            format!(
                "{what}: {passed:.1}{total} s, {} received, {} a second",
                grouped(received),
                grouped((received as f64 / passed.max(0.001)) as u64)
            )
        });
        shared.sleep_until(until_ticks.min(now_ticks + ticks(LOOK)));
    }
}

/// Whether nothing has come for a while.
struct Quiet {
    patience: Duration,
    received: u64,
    since: Instant,
}

impl Quiet {
    fn new(patience: Duration) -> Quiet {
        Quiet {
            patience,
            received: 0,
            since: Instant::now(),
        }
    }

    fn is_quiet(&mut self, shared: &Shared) -> bool {
        let received = shared.total(|progress| &progress.received);
        if received != self.received {
            self.received = received;
            self.since = Instant::now();
        }
        self.since.elapsed() > self.patience
    }
}

/// Whether as much was sent as was asked for and has arrived, or nothing moves any more.
fn is_counted_out(shared: &Shared, quiet: &mut Quiet) -> bool {
    let is_sent = shared.publishers.iter().all(Publisher::is_done);
    (is_sent && has_arrived(shared)) || quiet.is_quiet(shared)
}

/// Whether every reader has all that was sent.
fn has_arrived(shared: &Shared) -> bool {
    shared.publishers.iter().all(|publisher| {
        let (received, expected) = publisher.receipts();
        received >= expected
    })
}

/// Ends the load and waits for what is on its way.
fn drain(shared: &Shared, line: &mut ProgressLine) {
    let now_ticks = shared.now_ticks();
    shared.set_measure_end(shared.measure_end_ticks().min(now_ticks));
    shared.advance(Stage::Draining);
    let is_stall = shared.settings.mode == Mode::Stall;
    let mut quiet = Quiet::new(match is_stall {
        true => DRAIN_PATIENCE_STALL,
        false => DRAIN_PATIENCE,
    });
    loop {
        line.show(|| "waiting for what is on its way".to_owned());
        let made =
            shared.total(|progress| &progress.opened) + shared.total(|progress| &progress.failed);
        let is_connecting = shared.total(|progress| &progress.attempted) > made;
        let is_complete = has_arrived(shared) && !is_connecting && !is_stall;
        if is_complete || quiet.is_quiet(shared) {
            return;
        }
        thread::sleep(LOOK);
    }
}

/// Messages of the measured part that were due and were not sent: the server, or this program, did not keep up.
fn unsent(shared: &Shared) -> u64 {
    let (Length::Time(_), Some(_)) = (shared.settings.length, shared.intended_ticks(0)) else {
        return 0;
    };
    let sent = shared.publishers.iter().enumerate();
    let unsent = sent.map(|(index, publisher)| {
        let publishers = shared.publishers.len() as u64;
        let next = publisher.sent().messages;
        let due = |sequence: u64| {
            shared
                .intended_ticks(sequence * publishers + index as u64)
                .is_some_and(|ticks| ticks < shared.measure_end_ticks())
        };
        (next..).take_while(|sequence| due(*sequence)).count() as u64
    });
    unsent.sum()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::bench::arguments::command;

    fn settings(arguments: &[&str]) -> Settings {
        let line = std::iter::once("bench").chain(arguments.iter().copied());
        Settings::from_matches(&command().get_matches_from(line)).unwrap()
    }

    #[test]
    fn roles_are_spread_over_topics_and_the_stalled_over_all() {
        let settings = settings(&["stall", "-c", "10", "--topics", "2", "--stalled", "30%"]);
        let roles = roles(&settings);
        assert_eq!(roles.len(), 12);
        assert_eq!(roles[10..], [Role::Publisher(0), Role::Publisher(1)]);
        let stalled = roles.iter().map(|role| role.is_stalled());
        let stalled: Vec<usize> = stalled
            .enumerate()
            .filter_map(|(number, is)| is.then_some(number))
            .collect();
        assert_eq!(stalled, [3, 6, 9]);
        let publishers = publishers(&settings, &roles).unwrap();
        assert_eq!(publishers[1].topic, 1);
    }
}
