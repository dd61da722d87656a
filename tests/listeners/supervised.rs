//! A server under whoever supervises it: what it tells by `NOTIFY_SOCKET`, and sockets that are handed over.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};
use std::process::{Command, Stdio};

use super::{OPEN, folder, status};
use crate::support::peers::WebSocket;
use crate::support::{PATIENCE, Server};

/// Whoever supervises: what is told, message by message.
struct Supervisor(UnixDatagram);

impl Supervisor {
    fn new(socket: UnixDatagram) -> Supervisor {
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Supervisor(socket)
    }

    /// The next message that has this line.
    fn hear(&self, line: &str) -> String {
        let mut message = [0; 4096];
        loop {
            let count = self
                .0
                .recv(&mut message)
                .unwrap_or_else(|error| panic!("{line} is not told: {error}"));
            let text = String::from_utf8_lossy(&message[..count]).into_owned();
            if text.lines().any(|it| it.starts_with(line)) {
                return text;
            }
        }
    }
}

fn supervised(place: &str, more: &[(&str, &str)], flags: &[&str]) -> Server {
    let mut command = Command::new(env!("CARGO_BIN_EXE_umbel"));
    command.env("NOTIFY_SOCKET", place);
    command.envs(more.iter().copied());
    Server::start_command(command, flags)
}

fn signal(server: &Server, name: &str) {
    let sent = Command::new("kill")
        .args([&format!("-{name}"), &server.pid().to_string()])
        .status();
    assert!(sent.expect("kill is there").success());
}

#[test]
fn ready_reloading_and_stopping_are_told() {
    let folder = folder("supervised");
    let place = folder.join("notify");
    let supervisor = Supervisor::new(UnixDatagram::bind(&place).expect("a socket"));
    let file = folder.join("umbel.toml");
    std::fs::write(&file, "[limits]\ndrain_timeout_ms = 1500\n").expect("a file");
    let file = file.to_str().expect("a path");
    let flags = [
        &[
            "--config",
            file,
            "--drain-timeout-ms",
            "1500",
            "--pre-stop-ms",
            "200",
        ][..],
        &OPEN,
    ]
    .concat();
    let server = supervised(place.to_str().expect("a path"), &[], &flags);
    assert_eq!(
        supervisor.hear("READY=1"),
        "READY=1\nSTATUS=2 reactors, 1 listener\n"
    );
    // A reload that fails ends too.
    for text in [
        "[limits]\ndrain_timeout_ms = 1500\n",
        "[limits]\ndrain_timeout_ms = -1\n",
    ] {
        std::fs::write(file, text).expect("a file");
        signal(&server, "HUP");
        let begun = supervisor.hear("RELOADING=1");
        let moment = begun
            .lines()
            .find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
        assert!(
            moment.is_some_and(|it| it.parse::<u64>().is_ok_and(|us| us > 0)),
            "{begun}"
        );
        assert_eq!(supervisor.hear("READY=1"), "READY=1\n");
    }
    // A peer that does not answer the Close keeps the drain going.
    let _peer = WebSocket::open(server.address(), "/ws/a");
    signal(&server, "TERM");
    let stopping = supervisor.hear("STOPPING=1");
    assert!(
        stopping.contains("\nEXTEND_TIMEOUT_USEC=6700000\n"),
        "{stopping}"
    );
    assert!(
        stopping.contains("\nSTATUS=draining, 1 left\n"),
        "{stopping}"
    );
    assert!(
        supervisor
            .hear("STATUS=draining")
            .starts_with("STATUS=draining, ")
    );
}

/// As often as half of the time allows, and by an abstract socket.
#[test]
fn liveness_is_told() {
    let name = format!("umbel-liveness-{}", std::process::id());
    let address = UnixAddress::from_abstract_name(&name).expect("a name");
    let supervisor = Supervisor::new(UnixDatagram::bind_addr(&address).expect("a socket"));
    let watchdog = [("WATCHDOG_USEC", "200000")];
    let server = supervised(&format!("@{name}"), &watchdog, &["--reactors", "3"]);
    supervisor.hear("READY=1");
    for _ in 0..3 {
        assert_eq!(supervisor.hear("WATCHDOG=1"), "WATCHDOG=1\n");
    }
    drop(server);
    // It is another process's time.
    let other = [("WATCHDOG_USEC", "200000"), ("WATCHDOG_PID", "1")];
    let server = supervised(&format!("@{name}"), &other, &[]);
    supervisor.hear("READY=1");
    signal(&server, "TERM");
    let mut message = [0; 4096];
    let count = supervisor.0.recv(&mut message).expect("the next message");
    assert!(
        message[..count].starts_with(b"STOPPING=1\n"),
        "nothing stands between"
    );
}

/// `umbel serve` with two descriptors handed over.
fn with_two(sockets: [OwnedFd; 2], names: &str, arguments: &[&str]) -> Command {
    let [first, second] = sockets;
    let mut command = Command::new("sh");
    let script = "exec 3<&0 4<&1 </dev/null >/dev/null; LISTEN_PID=$$ exec \"$0\" serve \"$@\"";
    command
        .args(["-c", script, env!("CARGO_BIN_EXE_umbel")])
        .args(arguments)
        .env("LISTEN_FDS", "2")
        .env("LISTEN_FDNAMES", names)
        .stdin(Stdio::from(first))
        .stdout(Stdio::from(second));
    command
}

#[test]
fn several_sockets_of_one_name_are_one_listener() {
    let sockets = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    let [first, second] = [0, 1].map(|at| sockets[at].local_addr().expect("bound"));
    let arguments = [&["--listen", "fd:web", "--reactors", "2"], &OPEN[..]].concat();
    let mut child = with_two(sockets.map(OwnedFd::from), "web:web", &arguments)
        .stderr(Stdio::null())
        .spawn()
        .expect("it can be started");
    for address in [first, second] {
        assert_eq!(status(address, "GET", "/health"), 200);
    }
    child.kill().expect("it runs");
    child.wait().expect("it ends");
}

#[test]
fn each_name_is_its_listener() {
    let sockets = || [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    let both = sockets();
    let [web, admin] = [0, 1].map(|at| both[at].local_addr().expect("bound"));
    let listeners = [
        "--listen",
        "fd:web",
        "--listen",
        "fd:admin#admin",
        "--observe",
        "anyone",
    ];
    let arguments = [&listeners[..], &OPEN].concat();
    let mut child = with_two(both.map(OwnedFd::from), "web:admin", &arguments)
        .stderr(Stdio::null())
        .spawn()
        .expect("it can be started");
    assert_eq!(
        (
            status(web, "GET", "/metrics"),
            status(admin, "GET", "/metrics")
        ),
        (404, 200)
    );
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    // One that nobody takes, and fewer names than sockets.
    for (names, word) in [
        ("web:other", "add fd:other"),
        ("web", "LISTEN_FDNAMES"),
        ("web:", "add fd:unknown"),
    ] {
        let arguments = [&["--listen", "fd:web"], &OPEN[..]].concat();
        let output = with_two(sockets().map(OwnedFd::from), names, &arguments).output();
        let output = output.expect("it can be started");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && error.contains(word),
            "{names}: {error}"
        );
    }
}
