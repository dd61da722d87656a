//! Peers that break the protocols or never do their part. Nothing is promised to them, but all of them must end, and
//! none may cost the others anything.

use super::peer::{Peer, Surroundings};
use super::topics::TOPICS;
use super::wire;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rogue {
    /// Any bytes.
    Garbage,
    /// A frame that may not be.
    BadFrame,
    /// A message over the limit, by its header.
    TooBig,
    /// A message that does not end.
    HalfMessage,
    /// Subscribes and reads nothing.
    NeverReads,
    /// Publishes much and reads nothing.
    Deaf,
    /// Uses the echo and reads nothing of it.
    NeverReadsEcho,
    /// Answers neither pings nor closes.
    Silent,
    /// A head, a byte now and then.
    SlowHead,
    /// A body that does not end.
    SlowBody,
    /// A second request that does not come.
    KeepsAlive,
    /// Nothing at all.
    Idle,
    /// Pings, and reads nothing.
    PingFlood,
    /// Many requests in one piece for the largest answer there is, and reads nothing.
    Pipelines,
    /// A body over the limit.
    BigBody,
}

pub const ROGUES: &[Rogue] = &[
    Rogue::Garbage,
    Rogue::BadFrame,
    Rogue::TooBig,
    Rogue::HalfMessage,
    Rogue::NeverReads,
    Rogue::Deaf,
    Rogue::NeverReadsEcho,
    Rogue::Silent,
    Rogue::SlowHead,
    Rogue::SlowBody,
    Rogue::KeepsAlive,
    Rogue::Idle,
    Rogue::PingFlood,
    Rogue::Pipelines,
    Rogue::BigBody,
];

/// Frames that fail the connection.
const BAD_FRAMES: &[&[u8]] = &[
    &[0xc1, 0x80, 0, 0, 0, 0],
    &[0x81, 0x01, b'x'],
    &[0x83, 0x80, 0, 0, 0, 0],
    &[0x80, 0x80, 0, 0, 0, 0],
    &[0x09, 0x80, 0, 0, 0, 0],
    &[0x89, 0xfe, 0, 126, 0, 0, 0, 0],
    &[0x81, 0xfe, 0, 1, 0, 0, 0, 0, b'x'],
    &[0x81, 0x81, 0, 0, 0, 0, 0xff],
    &[0x88, 0x81, 0, 0, 0, 0, 3],
    &[0x88, 0x82, 0, 0, 0, 0, 3, 237],
];

impl Rogue {
    pub fn reads(self) -> bool {
        !matches!(
            self,
            Rogue::NeverReads
                | Rogue::Deaf
                | Rogue::NeverReadsEcho
                | Rogue::PingFlood
                | Rogue::Pipelines
        )
    }

    /// Whether it does its part at the end.
    pub fn answers(self) -> bool {
        self != Rogue::Silent
    }
}

impl Peer {
    pub(super) fn misbehave(&mut self, rogue: Rogue, around: &mut Surroundings<'_>) {
        if self.left == 0 {
            self.next_ms = u64::MAX;
            return;
        }
        self.left -= 1;
        let is_first = !self.has_asked;
        self.has_asked = true;
        match rogue {
            Rogue::Garbage => {
                let len = around.random.below(200);
                let mut bytes: Vec<u8> = (0..len).map(|_| around.random.next() as u8).collect();
                // It must not publish by chance, for subscribers know all that is published.
                if let Some(first) = bytes.first_mut().filter(|first| **first & 15 < 3) {
                    *first |= 0x10;
                }
                if around.random.chance(50) && is_first {
                    (self.subscribes, self.topic) = (true, 0);
                    self.outgoing.extend(wire::upgrade_request("/ws/t0", ""));
                }
                self.outgoing.extend(bytes);
            }
            Rogue::Idle => self.left = 0,
            Rogue::SlowHead => {
                let head = b"GET /health HTTP/1.1\r\nHost: sim\r\n";
                self.outgoing.push(head[self.left as usize % head.len()]);
                self.next_ms += 20;
            }
            Rogue::SlowBody => self.outgoing.extend(match is_first {
                true => {
                    b"POST /pub/t0 HTTP/1.1\r\nHost: sim\r\nExpect: 100-continue\r\nContent-Length: 500\r\n\r\n".to_vec()
                }
                false => b"x".to_vec(),
            }),
            Rogue::BigBody => {
                self.left = 0;
                let request =
                    b"POST /pub/t0 HTTP/1.1\r\nHost: sim\r\nContent-Length: 5000\r\n\r\nxxxx";
                self.outgoing.extend(request);
            }
            Rogue::KeepsAlive => {
                self.left = 0;
                self.outgoing
                    .extend(b"GET /health HTTP/1.1\r\nHost: sim\r\n\r\n");
            }
            Rogue::Pipelines => {
                self.left = 0;
                for _ in 0..30 {
                    self.outgoing.extend(b"GET / HTTP/1.1\r\nHost: sim\r\n\r\n");
                }
            }
            _ if is_first => {
                let path = match rogue {
                    Rogue::NeverReadsEcho => "/echo".to_owned(),
                    _ => {
                        self.subscribes = true;
                        format!("/ws/{}", TOPICS[self.topic])
                    }
                };
                self.outgoing.extend(wire::upgrade_request(&path, ""));
            }
            _ => self.misbehave_in_frames(rogue, around),
        }
    }

    fn misbehave_in_frames(&mut self, rogue: Rogue, around: &mut Surroundings<'_>) {
        match rogue {
            Rogue::BadFrame => {
                let bad = *around.random.pick(BAD_FRAMES);
                self.outgoing.extend(bad);
                self.left = 0;
            }
            Rogue::TooBig => {
                self.outgoing
                    .extend([0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4, 5]);
                self.left = 0;
            }
            Rogue::HalfMessage => {
                self.outgoing.extend([0x82, 0xc0, 1, 2, 3, 4, 5]);
                self.left = 0;
            }
            Rogue::NeverReadsEcho => {
                let payload = vec![0; around.random.below(around.message_max)];
                self.send(0x82, &payload, around);
            }
            Rogue::PingFlood => {
                for _ in 0..20 {
                    self.send(0x89, b"answer this", around);
                }
            }
            Rogue::Deaf => self.publish(around),
            _ => self.left = 0,
        }
    }
}
