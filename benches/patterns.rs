//! Memory of subscriptions by pattern: 100,000 connections in memory, one pattern each, on 2 reactors and on 64.
//!
//! It measures by how much the process grows, without the connections: the table of the hub, those of the reactors and what
//! a connection notes. In two shapes: `user/{id}/**` with an id for each connection, and the same pattern for all. The
//! transports are four bytes, as in `million`.
//!
//! What decides is repeatable: resident bytes each. On 64 reactors they have to be those on 2, within a tenth.
//!
//! ```sh
//! cargo bench --bench patterns [-- SHAPE REACTORS]
//! ```
//!
//! The exit code is 1 if a pattern takes more than 400 bytes and its text, or a further subscriber more than 100.

#[path = "../tests/support/node.rs"]
mod node;

use std::cell::RefCell;
use std::fs;
use std::io::{self, IoSlice};
use std::process::{Command, ExitCode};

use node::{Node, upgrade};
use umbel::ConnectionId;
use umbel::config::Limits;
use umbel::internals::connection::Settings;
use umbel::internals::net::byte_stream::ByteStream;

const CONNECTIONS: usize = 100_000;

/// Shapes, and the bytes that a subscription may take in each, its text excepted.
const SHAPES: [(&str, f64); 2] = [("own", 400.0), ("same", 100.0)];

const REACTORS: [u16; 2] = [2, 64];

thread_local! {
    /// What the next read of whichever transport gives.
    static ARRIVING: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A transport of the size of a file descriptor.
struct Descriptor(#[expect(dead_code, reason = "it is there for its size")] u32);

impl ByteStream for Descriptor {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        ARRIVING.with_borrow_mut(|arriving| {
            if arriving.is_empty() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            buffer[..arriving.len()].copy_from_slice(arriving);
            Ok(std::mem::take(arriving).len())
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(pieces.iter().map(|piece| piece.len()).sum())
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn resident_bytes() -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<usize>().ok());
    kib.expect("a resident set") * 1024
}

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    if let [shape, reactors] = &wanted[..] {
        let reactors = reactors.parse().expect("a number of reactors");
        println!("{}", run(shape == "own", reactors));
        return ExitCode::SUCCESS;
    }
    // Each in a process of its own, so that none finds memory that another one left.
    let program = std::env::current_exe().expect("a path");
    let mut is_within = true;
    for (shape, bytes_max) in SHAPES {
        let each = REACTORS.map(|reactors| {
            let mut command = Command::new(&program);
            let output = command.args([shape, &reactors.to_string()]).output();
            let text = String::from_utf8(output.expect("it runs").stdout).expect("a number");
            let bytes: f64 = text.trim().parse().expect("a number");
            println!("{shape}, {reactors} reactors: {bytes:.1} bytes each (at most {bytes_max})");
            bytes
        });
        is_within &= each.iter().all(|bytes| *bytes <= bytes_max);
        let ratio = each[1] / each[0];
        println!("{shape}: {ratio:.3} on 64 reactors of that on 2");
        is_within &= (0.9..=1.1).contains(&ratio) || shape != "own";
    }
    ExitCode::from(u8::from(!is_within))
}

/// Bytes that a subscription took, its text excepted.
fn run(is_own: bool, reactors: u16) -> f64 {
    let settings = Settings::new(&Limits::default());
    let mut nodes: Vec<Node<Descriptor>> = Node::several(settings, reactors);
    let mut ids = Vec::with_capacity(CONNECTIONS);
    for number in 0..CONNECTIONS {
        let node = &mut nodes[number % usize::from(reactors)];
        ids.push(open(node, number));
    }
    nodes.iter_mut().for_each(Node::tick);
    let subscribe = |node: &mut Node<Descriptor>, id, kind: &str, pattern: &str| {
        send(
            node,
            id,
            &format!("{{\"type\":\"{kind}\",\"pattern\":\"{pattern}\"}}"),
        );
        node.tick();
    };
    // What the first one brings with it is not that of each.
    for (node, id) in nodes.iter_mut().zip(&ids) {
        for kind in ["subscribe", "unsubscribe"] {
            subscribe(node, *id, kind, "x/y");
        }
    }
    let before = resident_bytes();
    let mut text_bytes = 0;
    for (number, id) in ids.iter().enumerate() {
        let pattern = match is_own {
            true => format!("user/{}/**", 100_000 + number),
            false => "user/1/**".to_owned(),
        };
        text_bytes += if is_own { pattern.len() } else { 0 };
        let node = &mut nodes[number % usize::from(reactors)];
        subscribe(node, *id, "subscribe", &pattern);
    }
    let counts = nodes[0].shards.counts();
    assert_eq!(counts.patterns, if is_own { CONNECTIONS } else { 1 });
    let grown = resident_bytes().saturating_sub(before + text_bytes);
    grown as f64 / CONNECTIONS as f64
}

fn open(node: &mut Node<Descriptor>, number: usize) -> ConnectionId {
    let mut head = upgrade("/ws");
    head.truncate(head.len() - 2);
    head.extend_from_slice(b"Sec-WebSocket-Protocol: umbel.v1\r\n\r\n");
    ARRIVING.set(head);
    let id = node.insert(Descriptor(number as u32));
    node.handle_readable(id, false);
    id
}

/// A text of less than 126 bytes comes from a connection's peer, with a mask of zeros.
fn send(node: &mut Node<Descriptor>, id: ConnectionId, text: &str) {
    let mut frame = vec![0x81, 0x80 | text.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(text.as_bytes());
    ARRIVING.set(frame);
    node.handle_readable(id, false);
}
