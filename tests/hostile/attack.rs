//! Attackers, and what others notice of them.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::process::rss_bytes;
use crate::support::umbel_v1::Peer;
use crate::support::{Server, frames};

/// Time of one measurement.
pub fn measured() -> Duration {
    Duration::from_secs(match is_long() {
        true => 5,
        false => 1,
    })
}

/// Whether `scripts/test-hostile` asks for the long form.
pub fn is_long() -> bool {
    std::env::var_os("UMBEL_HOSTILE_LONG").is_some()
}

/// Reactors of the server: as many as `UMBEL_HOSTILE_REACTORS` says, or else so many.
pub fn reactors(otherwise: usize) -> String {
    std::env::var("UMBEL_HOSTILE_REACTORS").unwrap_or_else(|_| otherwise.to_string())
}

/// A connection of umbel.v1 that sends the same bytes again and again, as fast as they are taken.
pub struct Flood {
    stream: TcpStream,
    threads: Vec<JoinHandle<()>>,
}

impl Flood {
    /// Begins. `reads`: it takes its answers, else nothing.
    pub fn start(address: SocketAddr, message: &str, reads: bool) -> Flood {
        Flood::start_on(&Peer::open(address), message, reads)
    }

    /// Begins on a connection that is open.
    pub fn start_on(peer: &Peer, message: &str, reads: bool) -> Flood {
        let stream = peer.socket.stream().try_clone().expect("a second handle");
        let frame = frames::masked(frames::FIN | frames::TEXT, message.as_bytes());
        let mut writer = stream.try_clone().expect("a handle");
        writer.set_write_timeout(None).expect("settable");
        let mut threads = vec![thread::spawn(
            move || {
                while writer.write_all(&frame).is_ok() {}
            },
        )];
        if reads {
            let mut reader = stream.try_clone().expect("a handle");
            reader.set_read_timeout(None).expect("settable");
            threads.push(thread::spawn(move || {
                let mut chunk = vec![0; 256 << 10];
                while reader.read(&mut chunk).is_ok_and(|count| count > 0) {}
            }));
        }
        Flood { stream, threads }
    }

    /// Ends it.
    pub fn stop(self) {
        let _ = self.stream.shutdown(Shutdown::Both);
        for thread in self.threads {
            thread.join().expect("it ends with its connection");
        }
    }
}

/// What others notice.
#[derive(Clone, Copy, Debug)]
pub struct Notice {
    /// Half of the time, their pings were answered within so long. Each counts for as long as it took, for there are
    /// fewer of those that take long.
    pub half: Duration,
    /// Bytes that the server has grown by, at most.
    pub grown_bytes: u64,
}

/// Asks for pongs on a connection of its own for a while.
pub fn notice(server: &Server) -> Notice {
    let base_bytes = rss_bytes(server.pid());
    notice_since(server, base_bytes)
}

/// As [`notice`], with the server's size before it all began.
pub fn notice_since(server: &Server, base_bytes: u64) -> Notice {
    let mut peer = Peer::open(server.address());
    let (mut took, mut grown_bytes) = (Vec::new(), 0);
    let deadline = Instant::now() + measured();
    while Instant::now() < deadline {
        let asked = Instant::now();
        let pong = peer.ask(&json!({"type": "ping", "id": 1}));
        assert_eq!(pong["type"], "pong");
        took.push(asked.elapsed());
        grown_bytes = grown_bytes.max(rss_bytes(server.pid()).saturating_sub(base_bytes));
    }
    took.sort_unstable();
    let half_of_all = took.iter().sum::<Duration>() / 2;
    let mut sum = Duration::ZERO;
    let half = took.into_iter().find(|it| {
        sum += *it;
        sum >= half_of_all
    });
    Notice {
        half: half.expect("at least one"),
        grown_bytes,
    }
}
