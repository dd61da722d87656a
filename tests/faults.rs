//! System calls that fail now and then: nothing hangs, nobody is hurt whose call did not fail for good, and once it is
//! over all is as before. The calls are those that the server makes on Linux; strace lets them fail.
//!
//! EAGAIN is tried only where it can happen. On a socket with bytes to read, or room to write, the kernel never says
//! it; an event loop that is told of edges rightly takes it for the truth and waits.

#![cfg(target_os = "linux")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;

use support::peers::{Http, Incoming, WebSocket, connect};
use support::process::open_descriptors;
use support::{Server, wait_until};

/// strace on the server, for as long as this lives.
struct Faults {
    strace: Child,
    trace: PathBuf,
}

impl Faults {
    /// Lets every `when`th call fail, as strace understands it: `10+7` is the 10th and then every 7th of a thread.
    fn inject(server: &Server, call: &str, error: &str, when: &str) -> Faults {
        let name = format!("faults-{}-{call}-{error}", server.pid());
        let trace = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        let mut strace = Command::new("strace")
            .args(["-f", "-p", &server.pid().to_string(), "-o"])
            .arg(&trace)
            .args(["-e", &format!("trace={call}")])
            .args(["-e", &format!("inject={call}:error={error}:when={when}")])
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace is installed (apt-get install strace)");
        let mut lines = BufReader::new(strace.stderr.take().expect("it is piped")).lines();
        let attached = lines
            .by_ref()
            .map_while(Result::ok)
            .find(|line| line.contains("attached"));
        assert!(attached.is_some(), "strace may not attach");
        // What it says later must not block it.
        thread::spawn(move || lines.for_each(drop));
        Faults { strace, trace }
    }

    /// Ends them; gives the number of calls that failed.
    fn end(mut self) -> usize {
        let interrupted = Command::new("kill")
            .args(["-s", "INT", &self.strace.id().to_string()])
            .status();
        assert!(interrupted.expect("kill").success());
        // It exits with the signal that ended it.
        let _ = self.strace.wait().expect("it was started");
        let trace = fs::read_to_string(&self.trace).expect("strace wrote it");
        fs::remove_file(&self.trace).expect("it is ours");
        trace.matches("(INJECTED)").count()
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        // Only a test that failed leaves it running.
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

/// One subscriber of a topic of its own, and a few publishes there by HTTP. True if both were served to the end;
/// either way what came is without a gap, and what was acknowledged came unless the subscriber's stream ended.
fn round(address: SocketAddr, http: &mut Http, topic: &str, bytes: usize) -> bool {
    const MESSAGES: usize = 4;
    let target = format!("/ws/{topic}");
    let (status, mut socket) = WebSocket::try_open_on(connect(address, 0), &target);
    if status != 101 {
        return false;
    }
    let (mut acknowledged, mut served) = (0, true);
    for number in 0..MESSAGES {
        let text = format!("{number} {}", "x".repeat(bytes));
        match http.try_publish(topic, text.as_bytes()) {
            Some(answer) => {
                assert_eq!(answer.status, 200);
                acknowledged = number + 1;
            }
            None => {
                *http = Http::connect(address);
                served = false;
                break;
            }
        }
    }
    for number in 0..acknowledged {
        match socket.next() {
            Incoming::Text(text) => assert!(text.starts_with(&format!("{number} ")), "a gap"),
            Incoming::End => return false,
            other => panic!("{other:?}"),
        }
    }
    served
}

/// Rounds on a few threads; gives how many were served to the end, of how many.
fn load(address: SocketAddr, rounds: usize, bytes: usize) -> (usize, usize) {
    const THREADS: usize = 3;
    let threads: Vec<_> = (0..THREADS)
        .map(|name| {
            thread::spawn(move || {
                let mut http = Http::connect(address);
                let rounds = (0..rounds)
                    .map(|number| round(address, &mut http, &format!("{name}-{number}"), bytes));
                rounds.filter(|served| *served).count()
            })
        })
        .collect();
    let served = threads
        .into_iter()
        .map(|thread| thread.join().expect("nothing hangs"));
    (served.sum(), THREADS * rounds)
}

/// Effects that a fault may have.
#[derive(Clone, Copy, PartialEq)]
enum Effect {
    /// Nobody notices.
    None,
    /// The connection whose call it was ends.
    EndsOne,
}

fn check(call: &str, faults: &[(&str, &str, Effect)], bytes: usize) {
    let server = Server::start(&["--log-level", "info", "--inline-shards", "false"]);
    let descriptors = open_descriptors(server.pid());
    for &(error, when, effect) in faults {
        let faults = Faults::inject(&server, call, error, when);
        let (served, all) = load(server.address(), 6, bytes);
        let injected = faults.end();
        eprintln!("{call} {error}: {injected} failed, {served} of {all} served");
        assert!(injected > 0, "{call} never failed with {error}");
        let hurt_max = match effect {
            Effect::None => 0,
            Effect::EndsOne => injected,
        };
        assert!(all - served <= hurt_max, "{call} {error} hurt others");
        assert!(served > 0, "{call} {error}");
        let (served, all) = load(server.address(), 3, bytes);
        assert_eq!(served, all, "after {call} {error}");
    }
    wait_until("the descriptors are back", || {
        open_descriptors(server.pid()) <= descriptors
    });
}

#[test]
fn accept_fault() {
    let faults = [
        ("EINTR", "1+2", Effect::None),
        ("ECONNABORTED", "1+2", Effect::None),
        ("EMFILE", "2+5", Effect::None),
        ("ENOMEM", "2+5", Effect::None),
        ("ENOBUFS", "2+5", Effect::None),
    ];
    check("accept4", &faults, 10);
}

#[test]
fn read_fault() {
    let faults = [
        ("EINTR", "1+2", Effect::None),
        ("ECONNRESET", "5+10", Effect::EndsOne),
        ("ETIMEDOUT", "5+10", Effect::EndsOne),
        ("ENOMEM", "5+10", Effect::EndsOne),
    ];
    check("recvfrom", &faults, 10);
}

#[test]
fn write_fault() {
    let faults = [
        ("EINTR", "1+2", Effect::None),
        ("ECONNRESET", "5+10", Effect::EndsOne),
        ("EPIPE", "5+10", Effect::EndsOne),
        ("ENOBUFS", "5+10", Effect::EndsOne),
    ];
    check("sendto", &faults, 10);
}

#[test]
fn outbox_write_fault() {
    let faults = [
        ("EINTR", "1+2", Effect::None),
        ("ECONNRESET", "20+60", Effect::EndsOne),
        ("ENOMEM", "20+60", Effect::EndsOne),
    ];
    // More than the kernel takes at once.
    check("writev", &faults, 150_000);
}

#[test]
fn wait_fault() {
    let faults = [
        ("EINTR", "1+2", Effect::None),
        ("ENOMEM", "3+4", Effect::None),
    ];
    check("epoll_wait", &faults, 10);
}

#[test]
fn wake_fault() {
    let faults = [
        ("EAGAIN", "1+2", Effect::None),
        ("EINTR", "1+2", Effect::None),
        ("ENOMEM", "1+2", Effect::None),
    ];
    check("write", &faults, 10);
}

#[test]
fn register_fault() {
    let faults = [
        ("ENOMEM", "3+4", Effect::EndsOne),
        ("ENOSPC", "3+4", Effect::EndsOne),
    ];
    check("epoll_ctl", &faults, 10);
}

/// Subscribers of one topic, enough of them for their sends to be handed over together.
fn check_fan_out(address: SocketAddr, subscribers: &mut [WebSocket], round: &str) {
    const MESSAGES: usize = 20;
    let mut http = Http::connect(address);
    for number in 0..MESSAGES {
        http.publish("many", format!("{round} {number}").as_bytes());
    }
    for subscriber in subscribers {
        for number in 0..MESSAGES {
            assert_eq!(subscriber.text(), format!("{round} {number}"));
        }
    }
}

#[test]
fn io_uring_submit_fault() {
    let server = Server::start(&["--log-level", "info", "--reactors", "1"]);
    let address = server.address();
    let open = |_| WebSocket::open(address, "/ws/many");
    let mut subscribers: Vec<_> = (0..20).map(open).collect();
    if server.log().contains("there is no io_uring") {
        // Then each send is a call of its own, whose faults `write_fault` tries.
        return check_fan_out(address, &mut subscribers, "one by one");
    }
    for (error, when) in [("EINTR", "1+2"), ("EAGAIN", "1+2"), ("ENOMEM", "3+2")] {
        let faults = Faults::inject(&server, "io_uring_enter", error, when);
        check_fan_out(address, &mut subscribers, error);
        assert!(faults.end() > 0, "io_uring_enter never failed with {error}");
    }
    assert!(!server.whole_log().contains("io_uring failed"));
    // It fails for good: what it did not take is sent all the same, and so is everything from then on.
    let faults = Faults::inject(&server, "io_uring_enter", "ENOMEM", "1+1");
    check_fan_out(address, &mut subscribers, "for good");
    assert!(faults.end() > 0, "io_uring_enter never failed");
    wait_until("it is given up", || {
        server.log().contains("io_uring failed")
    });
    let faults = Faults::inject(&server, "io_uring_enter", "ENOMEM", "1+1");
    check_fan_out(address, &mut subscribers, "afterwards");
    assert_eq!(faults.end(), 0, "it is not asked again");
}
