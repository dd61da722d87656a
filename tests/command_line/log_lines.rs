//! Log lines that nobody takes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Stdio;
use std::thread;

use super::process::umbel;

/// More lines than may wait, and than a pipe holds.
const REQUESTS: usize = 12_000;

/// Asks for the metrics; the samples.
fn metrics(address: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("it answers");
    text
}

fn sample(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.unwrap_or_else(|| panic!("no {name} in {text}"));
    value.trim().parse().expect("a number")
}

#[test]
fn server_serves_while_nobody_takes_its_log() {
    let arguments = [
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--log-level",
        "debug",
        "--reactors",
        "1",
    ];
    let mut child = umbel(&arguments)
        .stderr(Stdio::piped())
        .spawn()
        .expect("umbel can be started");
    let mut log = BufReader::new(child.stderr.take().expect("it is piped"));
    let address = loop {
        let mut line = String::new();
        assert!(log.read_line(&mut line).expect("UTF-8") > 0, "it ended");
        if let Some((_, rest)) = line.split_once("listening on http://") {
            break rest.split([' ', ',']).next().expect("a word").to_owned();
        }
    };
    // Nobody reads the log from here on. Each of these requests is refused, and logged.
    let mut stream = TcpStream::connect(&address).expect("it listens");
    let mut answers = BufReader::new(stream.try_clone().expect("a second handle"));
    let reader = thread::spawn(move || {
        let mut text = Vec::new();
        answers.read_to_end(&mut text).expect("it answers all");
        String::from_utf8_lossy(&text)
            .matches("HTTP/1.1 404")
            .count()
    });
    let request = "GET /no-such-page HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for _ in 0..REQUESTS / 100 {
        stream
            .write_all(request.repeat(100).as_bytes())
            .expect("it reads");
    }
    stream.shutdown(Shutdown::Write).expect("it is open");
    assert_eq!(reader.join().expect("it counts"), REQUESTS);
    let text = metrics(&address);
    assert!(sample(&text, "umbel_log_lines_dropped_total") > 0.0);
    assert!(text.contains("umbel_build_info{version=\""), "{text}");
    assert_eq!(sample(&text, "umbel_limit{name=\"headers_max\"}"), 100.0);
    if cfg!(target_os = "linux") {
        assert!(sample(&text, "process_resident_memory_bytes") > 1e6);
        assert!(sample(&text, "process_start_time_seconds") > 1.7e9);
        assert!(sample(&text, "process_threads") >= 2.0);
        let open = sample(&text, "process_open_fds");
        assert!((3.0..sample(&text, "process_max_fds")).contains(&open));
        assert!(sample(&text, "process_cpu_seconds_total") >= 0.0);
    }
    child.kill().expect("it runs");
    child.wait().expect("it can be waited for");
}
