//! The binary as a process: run to its end, or beside a test.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use crate::support::wait_until;

/// `umbel` with these arguments, and without the variables of whoever runs the tests.
pub fn umbel(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_umbel"));
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("UMBEL_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs to the end: the exit code, standard output and standard error.
pub fn run(command: &mut Command) -> (i32, String, String) {
    outcome(&command.output().expect("umbel can be started"))
}

pub fn outcome(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().expect("it ends by itself");
    (code, text(&output.stdout), text(&output.stderr))
}

/// Runs with this on standard input.
pub fn run_with_input(command: &mut Command, input: &[u8]) -> (i32, String, String) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("umbel can be started");
    let mut stdin = child.stdin.take().expect("standard input is piped");
    stdin.write_all(input).expect("it reads");
    drop(stdin);
    outcome(&child.wait_with_output().expect("it can be waited for"))
}

/// A command that runs beside the test, and is killed with it.
pub struct Running {
    pub child: Child,
    pub stdin: Option<ChildStdin>,
    pub out: Lines,
    pub err: Lines,
}

/// The lines that came out so far.
pub struct Lines {
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Lines {
    fn read(source: impl Read + Send + 'static) -> Lines {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&lines);
        let reader = thread::spawn(move || {
            for line in BufReader::new(source).lines().map_while(Result::ok) {
                sink.lock()
                    .expect("the lines are never left locked")
                    .push(line);
            }
        });
        Lines {
            lines,
            reader: Some(reader),
        }
    }

    pub fn get(&self) -> Vec<String> {
        self.lines
            .lock()
            .expect("the lines are never left locked")
            .clone()
    }
}

impl Running {
    pub fn start(command: &mut Command) -> Running {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("umbel can be started");
        Running {
            stdin: child.stdin.take(),
            out: Lines::read(child.stdout.take().expect("it is piped")),
            err: Lines::read(child.stderr.take().expect("it is piped")),
            child,
        }
    }

    /// `umbel sub`, once it is subscribed.
    pub fn subscribe(arguments: &[&str]) -> Running {
        let running = Running::start(umbel(&["sub", "--verbose"]).args(arguments));
        wait_until("umbel sub is subscribed", || {
            running
                .err
                .get()
                .iter()
                .any(|line| line.contains("subscribed"))
        });
        running
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(status.expect("kill can be started").success());
    }

    /// Waits for its end: the exit code, standard output and standard error.
    pub fn end(mut self) -> (i32, Vec<String>, String) {
        let mut code = None;
        wait_until("it ends", || {
            let status = self.child.try_wait().expect("a child can be asked");
            code = status.map(|status| status.code().unwrap_or(-1));
            code.is_some()
        });
        for lines in [&mut self.out, &mut self.err] {
            let reader = lines.reader.take().expect("it is joined once");
            reader.join().expect("a reader does not panic");
        }
        let code = code.expect("it has ended");
        (code, self.out.get(), self.err.get().join("\n"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself, and then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
