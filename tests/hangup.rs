//! SIGHUP: a server that was started by hand ends with its terminal, every other one reloads.
#![cfg(target_os = "linux")]

mod support;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use support::peers::{Http, Incoming, WebSocket};
use support::wait_until;

/// A server in a session of its own, with a terminal or without one.
struct Hosted {
    /// What holds the terminal, if there is one.
    holder: Child,
    pid: u32,
    address: SocketAddr,
    log: PathBuf,
}

/// Shell lines that make a server the leader of its session, and note its number and its log.
const LEADER: &str =
    r#"echo $$ >"$FOLDER/pid"; exec "$UMBEL" serve --listen 127.0.0.1:0 2>"$FOLDER/log""#;

/// The same as a child of the leader, as from a shell.
const CHILD: &str =
    r#""$UMBEL" serve --listen 127.0.0.1:0 2>"$FOLDER/log" & echo $! >"$FOLDER/pid"; wait"#;

/// As `nohup` starts programs.
const IGNORING: &str = r#"trap '' HUP; echo $$ >"$FOLDER/pid"; exec "$UMBEL" serve --listen 127.0.0.1:0 2>"$FOLDER/log""#;

impl Hosted {
    fn start(name: &str, program: &str, arguments: &[&str]) -> Hosted {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("hangup_{name}"));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a folder");
        let holder = Command::new(program)
            .args(arguments)
            .env("FOLDER", &folder)
            .env("UMBEL", env!("CARGO_BIN_EXE_umbel"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}, of util-linux: {error}"));
        let log = folder.join("log");
        let mut address = None;
        wait_until("it listens", || {
            let told = fs::read_to_string(&log).unwrap_or_default();
            address = told
                .split_once("listening on http://")
                .and_then(|(_, rest)| rest.split([' ', '\n']).next()?.parse().ok());
            address.is_some()
        });
        let pid = fs::read_to_string(folder.join("pid")).expect("it is noted");
        Hosted {
            holder,
            pid: pid.trim().parse().expect("a number"),
            address: address.expect("it listens"),
            log,
        }
    }

    fn on_terminal(name: &str, lines: &str) -> Hosted {
        Hosted::start(name, "script", &["-qec", lines, "/dev/null"])
    }

    fn without_terminal(name: &str) -> Hosted {
        Hosted::start(name, "setsid", &["--wait", "sh", "-c", LEADER])
    }

    fn hang_up(&mut self) {
        self.holder.kill().expect("it runs");
        self.holder.wait().expect("it ends");
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args(["-s", name, &self.pid.to_string()])
            .status();
        assert!(status.expect("kill can be started").success());
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("it is written")
    }

    fn runs(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid));
        stat.is_ok_and(|stat| {
            let state = stat.rsplit_once(") ").map(|(_, rest)| &rest[..1]);
            state.is_some_and(|state| state != "Z" && state != "X")
        })
    }

    /// Sends SIGHUP, and checks that it serves on.
    fn reloads(&self, times: usize) {
        let count = || self.log().matches("nothing to reload").count();
        let before = count();
        self.signal("HUP");
        wait_until("it says that there is nothing to reload", || {
            count() == before + 1
        });
        assert_eq!(before + 1, times);
        assert_eq!(Http::connect(self.address).get("/ready").status, 200);
    }

    fn ends_by(mut self, signal: &str) {
        self.signal(signal);
        wait_until("it ends", || !self.runs());
        let _ = self.holder.wait();
    }
}

fn check_drain_with_the_terminal(name: &str, lines: &str) {
    let mut server = Hosted::on_terminal(name, lines);
    let mut socket = WebSocket::open(server.address, "/ws/a");
    server.reloads(1);
    server.hang_up();
    let close = socket.next();
    assert!(
        matches!(&close, Incoming::Close(1001, reason) if reason.contains("shutting down")),
        "{close:?}"
    );
    socket.answer_close(1001);
    wait_until("it ends", || !server.runs());
    let log = server.log();
    assert!(log.contains("the terminal is gone"), "{log}");
    assert!(log.contains("the server has ended"), "{log}");
    assert_eq!(log.matches("nothing to reload").count(), 1, "{log}");
}

#[test]
fn server_drains_when_its_terminal_is_gone() {
    check_drain_with_the_terminal("leader", LEADER);
}

#[test]
fn server_drains_with_the_terminal_of_its_shell() {
    check_drain_with_the_terminal("child", CHILD);
}

#[test]
fn server_without_a_terminal_reloads() {
    let server = Hosted::without_terminal("none");
    server.reloads(1);
    server.reloads(2);
    server.ends_by("TERM");
}

#[test]
fn server_that_ignores_hangups_outlives_its_terminal() {
    let mut server = Hosted::on_terminal("ignoring", IGNORING);
    server.hang_up();
    // The end of the terminal is told by a SIGHUP too, at some time.
    wait_until("it is told", || server.log().contains("nothing to reload"));
    assert_eq!(Http::connect(server.address).get("/ready").status, 200);
    server.ends_by("TERM");
}
