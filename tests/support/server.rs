//! The real binary, started for one test and ended with it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tungstenite::WebSocket;

use super::wire::Wire;
use super::{PATIENCE, wait_until};

/// A running server. Dropping it kills it, fails the test if a thread of it panicked, and shows its log if the test
/// failed.
pub struct Server {
    child: Child,
    address: SocketAddr,
    log: Arc<Mutex<String>>,
    log_reader: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts `umbel serve` on 127.0.0.1, a free port, with 2 reactors and 1 worker, unless the flags say otherwise,
    /// and waits until it listens. Where one flag is about access, what is not said of it is open to this machine.
    pub fn start(flags: &[&str]) -> Server {
        Server::start_command(Command::new(env!("CARGO_BIN_EXE_umbel")), flags)
    }

    /// As [`Server::start`], with at most so many descriptors.
    pub fn start_with_descriptors(descriptors_max: usize, flags: &[&str]) -> Server {
        let mut command = Command::new("prlimit");
        command
            .arg(format!("--nofile={descriptors_max}:{descriptors_max}"))
            .arg(env!("CARGO_BIN_EXE_umbel"));
        Server::start_command(command, flags)
    }

    /// As [`Server::start`], by this command.
    pub fn start_command(mut command: Command, flags: &[&str]) -> Server {
        #[cfg(feature = "tls")]
        let over_tls =
            super::tls_front::is_wanted() && !flags.contains(&"--listen") && !has_listeners(flags);
        #[cfg(not(feature = "tls"))]
        let over_tls = false;
        command
            .arg("serve")
            .args(flags)
            .args(unsaid_rights(flags, over_tls));
        #[cfg(feature = "tls")]
        if over_tls {
            let (certificate, key) = super::tls_front::certificate();
            let files = format!("{},{}", certificate.display(), key.display());
            command.args(["--listen", "https://127.0.0.1:0", "--certificate", &files]);
        }
        for (flag, value) in [
            ("--listen", "127.0.0.1:0"),
            ("--log-level", "debug"),
            ("--reactors", "2"),
            ("--workers", "1"),
        ] {
            let is_said = flag == "--listen" && (over_tls || has_listeners(flags));
            if !flags.contains(&flag) && !is_said {
                command.args([flag, value]);
            }
        }
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("UMBEL_") {
                command.env_remove(name);
            }
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server can be started");
        let stderr = child.stderr.take().expect("stderr is piped");
        let log = Arc::new(Mutex::new(String::new()));
        let sink = Arc::clone(&log);
        let log_reader = thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                let mut log = sink.lock().expect("the log is never left locked");
                log.push_str(&String::from_utf8_lossy(&line));
                log.push('\n');
            }
        });
        let mut server = Server {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            log,
            log_reader: Some(log_reader),
        };
        let mut address = None;
        wait_until("the server says where it listens", || {
            address = server.listening_on();
            address.is_some() || server.has_exited()
        });
        server.address = address.unwrap_or_else(|| panic!("it did not start:\n{}", server.log()));
        #[cfg(feature = "tls")]
        if over_tls {
            server.address = super::tls_front::start(server.address);
        }
        server
    }

    /// The first address that it says it listens on; port 0 where it has none.
    fn listening_on(&self) -> Option<SocketAddr> {
        let log = self.log();
        let (_, rest) = log.split_once("listening on ")?;
        let places = rest.lines().next()?.split([' ', ',']);
        let address = places
            .filter_map(|place| {
                let tls = place.strip_prefix("https://");
                tls.or_else(|| place.strip_prefix("http://"))
            })
            .next();
        address.map_or(Some(([127, 0, 0, 1], 0).into()), |address| {
            address.parse().ok()
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its log as far as it was read. Lines are written by a thread of the server's own and read by one here: of a line
    /// whose cause was just seen it has to be waited for.
    pub fn log(&self) -> String {
        self.log
            .lock()
            .expect("the log is never left locked")
            .clone()
    }

    /// Its log with every line of before this call: a line of now was read, and it stands behind them. At the levels from
    /// `info` on.
    pub fn whole_log(&self) -> String {
        let lines = |log: &str| log.matches("summary").count();
        let before = lines(&self.log());
        self.signal("USR1");
        wait_until("the log has a line of now", || lines(&self.log()) > before);
        self.log()
    }

    /// Whether the process has ended.
    pub fn has_exited(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("a child can be asked")
            .is_some()
    }

    /// Whether the process that was started still runs.
    pub fn runs(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()));
        stat.is_ok_and(|stat| {
            let state = stat.rsplit_once(") ").map(|(_, rest)| &rest[..1]);
            state.is_some_and(|state| state != "Z" && state != "X")
        })
    }

    /// Sends a signal by its name without `SIG`, as `kill` takes it.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args(["-s", name, &self.pid().to_string()])
            .status()
            .expect("kill can be started");
        assert!(status.success(), "kill -s {name}: {status}");
    }

    /// Waits for the process to end by itself, and for the last line of its log.
    pub fn wait_for_exit(&mut self, within: Duration) -> ExitStatus {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be asked") {
                self.finish_log();
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "it did not end within {within:?}"
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for the end of its log, which is that of its process.
    fn finish_log(&mut self) {
        if let Some(reader) = self.log_reader.take() {
            // A panic of the reader would show in what it did not read.
            let _ = reader.join();
        }
    }

    /// A TCP connection to it.
    pub fn connect(&self) -> Wire {
        Wire::connect(self.address)
    }

    /// Sends a request on a connection of its own, and reads the response.
    pub fn request(&self, request: &str) -> super::Response {
        let mut wire = self.connect();
        wire.send(request.as_bytes());
        wire.read_response_to(request)
    }

    /// A WebSocket by tungstenite to a target such as `/ws/news`.
    pub fn websocket(&self, target: &str) -> WebSocket<TcpStream> {
        let stream = TcpStream::connect(self.address).expect("the server accepts");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a timeout can be set");
        stream.set_nodelay(true).expect("an option can be set");
        let url = format!("ws://{}{target}", self.address);
        let (websocket, _) =
            tungstenite::client(url, stream).expect("the server agrees to the upgrade");
        websocket
    }

    /// Publishes by HTTP, on a connection of its own.
    pub fn publish(&self, topic: &str, content_type: &str, body: &[u8]) -> super::Response {
        let mut request = format!(
            "POST /pub/{topic} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        let mut wire = self.connect();
        wire.send(&request);
        wire.read_response()
    }

    /// The samples of `/metrics`, by name with labels as they are written.
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let response =
            self.request("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        assert_eq!(response.status, 200, "{response:?}");
        let text = String::from_utf8(response.body).expect("metrics are text");
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        samples
            .filter_map(|line| {
                let (name, value) = line.rsplit_once(' ')?;
                Some((name.to_owned(), value.parse().ok()?))
            })
            .collect()
    }

    /// One sample of `/metrics`; the name is written with its labels.
    pub fn metric(&self, name: &str) -> f64 {
        let samples = self.metrics();
        *samples
            .get(name)
            .unwrap_or_else(|| panic!("there is no {name} among {:?}", samples.keys()))
    }
}

/// Whether a file that the flags name has listeners.
fn has_listeners(flags: &[&str]) -> bool {
    let mut pairs = flags.windows(2);
    let file = pairs.find(|pair| pair[0] == "--config").map(|pair| pair[1]);
    let text = file.and_then(|path| std::fs::read_to_string(path).ok());
    text.is_some_and(|text| text.contains("[[listener]]"))
}

/// What is to be said besides, where one thing about access is said: that everything else stays open to this machine.
fn unsaid_rights<'a>(flags: &[&str], over_tls: bool) -> Vec<&'a str> {
    let is_said = |name: &str| {
        let names = flags
            .iter()
            .map(|flag| flag.split('=').next().unwrap_or(flag));
        names
            .map(|flag| flag.trim_end_matches("-token"))
            .any(|flag| flag == name)
    };
    let rights = [
        ("--publish", "anyone"),
        ("--subscribe", "anyone"),
        ("--observe", "anyone"),
        ("--origin", "localhost"),
    ];
    let is_said_of_any = rights.iter().any(|(name, _)| is_said(name));
    let about_access = over_tls || is_said_of_any || is_said("--hosts");
    if is_said("--listen") || is_said("--insecure") || !about_access {
        return Vec::new();
    }
    let unsaid = rights.iter().filter(|(name, _)| !is_said(name));
    unsaid.flat_map(|(name, value)| [*name, *value]).collect()
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, and then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.finish_log();
        let log = self.log();
        if thread::panicking() {
            let from = log.len().saturating_sub(20_000);
            let from = (from..).find(|&at| log.is_char_boundary(at)).unwrap_or(0);
            eprintln!("the server's log:\n{}", &log[from..]);
        } else {
            assert!(!log.contains("panicked"), "the server panicked:\n{log}");
        }
    }
}
