//! What a peer sends behind its handshake, to records of our own and to rustls: the same plaintext, the same end.
#![no_main]

use std::io::{self, Read as _};

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use rustls::{ExtractedSecrets, ServerConnection, SupportedCipherSuite};
use umbel::internals::tls::fuzzed::Reader;
use umbel_fuzz::tls_peer::{Agreed, Keys};

const DATA: u8 = 23;
const HANDSHAKE: u8 = 22;
const ALERT: u8 = 21;

/// Memory of what was received and is not given: what one read brings, and a record that has begun.
const RECEIVED_BYTES_MAX: usize = 65_536 + 16_645;

/// Memory of what was sealed and is not sent: a `Vec` may have grown to twice of what it holds.
const SEALED_BYTES_MAX: usize = 2 * 16_640 + 256;

#[derive(Arbitrary, Debug)]
struct Input {
    suite: u8,
    /// Where the bytes are cut, and how much is read at once.
    cuts: Vec<u16>,
    room: Vec<u16>,
    items: Vec<Item>,
}

#[derive(Arbitrary, Debug)]
enum Item {
    /// Application data.
    Data {
        length: u16,
        padding: u16,
    },
    /// A record of any content.
    Sealed {
        content: u8,
        bytes: Vec<u8>,
        padding: u8,
    },
    /// A KeyUpdate, in one or two records.
    KeyUpdate {
        asks: bool,
        first: u8,
    },
    Alert {
        level: u8,
        description: u8,
    },
    /// A record of about the length that is allowed at most.
    Long {
        beyond: i8,
        padding: u16,
    },
    /// Records without content.
    Empty {
        count: u8,
        padding: u8,
    },
    /// A record of which one bit is wrong.
    Broken {
        at: u16,
        bit: u8,
        length: u16,
    },
    /// A record that came before.
    Again,
    Raw(Vec<u8>),
    /// What the server does meanwhile.
    Write(u16),
    /// What its socket takes.
    Room(u16),
    End,
}

/// How it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    Open,
    /// By close_notify or the end of TCP.
    Closed,
    /// By an alert of the peer, or without one.
    Ended,
    /// By an alert to the peer.
    Failed(u8),
}

struct Own {
    reader: Reader,
    stand: Stand,
    plaintext: Vec<u8>,
    written: Vec<u8>,
    sent: Vec<u8>,
    opener: Keys,
    opened: Vec<u8>,
    alerts: Vec<[u8; 2]>,
    out: Vec<u8>,
}

fn reader(
    secrets: ExtractedSecrets,
    suite: SupportedCipherSuite,
    traffic: &[Vec<u8>; 2],
) -> Reader {
    let [client, server] = traffic;
    let traffic = suite
        .tls13()
        .map(|suite| (suite, [&client[..], &server[..]]));
    Reader::new(secrets, traffic).expect("a suite of rustls")
}

impl Own {
    fn new(reader: Reader, opener: Keys) -> Own {
        Own {
            reader,
            stand: Stand::Open,
            plaintext: Vec::new(),
            written: Vec::new(),
            sent: Vec::new(),
            opener,
            opened: Vec::new(),
            alerts: Vec::new(),
            out: vec![0; 70_000],
        }
    }

    /// Reads until no more is called for.
    fn read(&mut self, room: usize) {
        loop {
            let was = self.stand;
            let goes_on = match self.reader.read(&mut self.out[..room]) {
                Ok(0) if was == Stand::Ended => panic!("an end behind an error"),
                Ok(0) => {
                    self.stand = Stand::Closed;
                    return;
                }
                Ok(count) => {
                    assert_eq!(was, Stand::Open, "plaintext behind the end");
                    self.plaintext.extend_from_slice(&self.out[..count]);
                    count == room || self.reader.holds_input()
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
                Err(error) => {
                    assert!(was != Stand::Ended || error.kind() == io::ErrorKind::NotConnected);
                    self.stand = Stand::Ended;
                    false
                }
            };
            let (received, sealed) = self.reader.waiting_bytes();
            assert!(received <= RECEIVED_BYTES_MAX, "{received}");
            assert!(sealed <= SEALED_BYTES_MAX, "{sealed}");
            if !goes_on && !self.reader.is_called() {
                return;
            }
        }
    }

    fn write(&mut self, length: usize) {
        let bytes: Vec<u8> = (0..length).map(|n| n as u8).collect();
        if let Ok(count) = self.reader.write(&bytes) {
            assert!(self.stand == Stand::Open || self.stand == Stand::Closed);
            self.written.extend_from_slice(&bytes[..count]);
        }
    }

    /// Opens what was sent.
    fn take(&mut self) {
        self.sent.extend(self.reader.take_sent());
        for (content, bytes) in self.opener.open(&mut self.sent) {
            assert!(
                self.alerts.iter().all(|alert| alert[0] != 2),
                "it has ended"
            );
            match content {
                DATA => self.opened.extend(bytes),
                ALERT => self.alerts.push(bytes[..].try_into().expect("an alert")),
                _ => assert_eq!(content, HANDSHAKE),
            }
        }
    }

    /// How it has come to stand at the end, when all is sent.
    fn end(&mut self) -> Stand {
        let _ = self.reader.make_room(usize::MAX);
        self.read(self.out.len());
        self.take();
        assert!(self.sent.is_empty());
        assert!(
            self.opened == self.written,
            "what was written is what comes"
        );
        let stand = match (self.stand, self.alerts.last()) {
            (Stand::Ended, Some([2, alert])) => Stand::Failed(*alert),
            (stand, _) => stand,
        };
        self.reader.close();
        self.read(self.out.len());
        assert!(self.stand != Stand::Open, "the end is told");
        stand
    }
}

struct Rustls {
    server: ServerConnection,
    plaintext: Vec<u8>,
    stand: Stand,
}

impl Rustls {
    fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.stand == Stand::Open {
            if self.server.read_tls(&mut bytes).expect("room") == 0 {
                self.stand = Stand::Closed;
            }
            match self.server.process_new_packets() {
                Ok(state) if state.peer_has_closed() => self.stand = Stand::Closed,
                Ok(_) => {}
                Err(_) => self.stand = Stand::Ended,
            }
            // Its end is known.
            let _ = self.server.reader().read_to_end(&mut self.plaintext);
        }
    }

    fn end(&mut self, mut opener: Keys) -> Stand {
        let mut sent = Vec::new();
        while self.server.wants_write() {
            self.server.write_tls(&mut sent).expect("memory");
        }
        let all = opener.open(&mut sent);
        match all.last().map(|(content, bytes)| (*content, &bytes[..])) {
            Some((ALERT, [2, alert])) => Stand::Failed(*alert),
            _ => self.stand,
        }
    }
}

/// The peer: what it sends, and what it has sealed of application data.
struct Peer {
    sealer: Keys,
    wire: Vec<u8>,
    sealed: Vec<u8>,
    /// Bytes that are no record, or not the next one, are among what it sent.
    is_wrong: bool,
    /// Handshake messages are among it that are no KeyUpdate.
    is_odd: bool,
    updates: usize,
    /// Records without application data, and alerts.
    empties: usize,
    next_byte: u8,
    last: Vec<u8>,
}

impl Peer {
    fn new(sealer: Keys) -> Peer {
        Peer {
            sealer,
            wire: Vec::new(),
            sealed: Vec::new(),
            is_wrong: false,
            is_odd: false,
            updates: 0,
            empties: 0,
            next_byte: 0,
            last: Vec::new(),
        }
    }

    fn seal(&mut self, content: u8, bytes: &[u8], padding: usize) {
        if content == DATA {
            self.sealed.extend_from_slice(bytes);
        }
        self.empties += usize::from(content != DATA || bytes.is_empty());
        self.last = self.sealer.seal(content, bytes, padding);
        self.wire.extend_from_slice(&self.last);
    }

    /// Content that a record has: of TLS 1.3 the last byte that is not 0.
    fn meaning<'b>(&self, content: u8, bytes: &'b [u8]) -> (u8, &'b [u8]) {
        match bytes.iter().rposition(|&byte| byte != 0) {
            Some(end) if content == 0 && self.sealer.is_13() => (bytes[end], &bytes[..end]),
            _ => (content, bytes),
        }
    }

    fn data(&mut self, length: usize) -> Vec<u8> {
        let from = self.next_byte;
        self.next_byte = from.wrapping_add(31);
        (0..length).map(|n| from.wrapping_add(n as u8)).collect()
    }

    fn send(&mut self, item: &Item) {
        match item {
            Item::Data { length, padding } => {
                let length = usize::from(*length) % 16_385;
                let room = 16_384 - length;
                let bytes = self.data(length);
                self.seal(DATA, &bytes, usize::from(*padding) % (room + 1));
            }
            Item::Sealed {
                content,
                bytes,
                padding,
            } => {
                let (meant, inside) = self.meaning(*content, bytes);
                self.is_odd |= meant == HANDSHAKE;
                if meant == DATA && *content != DATA {
                    self.sealed.extend_from_slice(inside);
                }
                self.seal(*content, bytes, usize::from(*padding));
            }
            Item::KeyUpdate { asks, first } => {
                let message = [24, 0, 0, 1, u8::from(*asks)];
                let (first, rest) = message.split_at(usize::from(first % 5));
                for bytes in [first, rest].iter().filter(|bytes| !bytes.is_empty()) {
                    self.seal(HANDSHAKE, bytes, 0);
                }
                if self.sealer.is_13() {
                    self.sealer.update();
                    self.updates += 1;
                }
            }
            Item::Alert { level, description } => self.seal(ALERT, &[*level, *description], 0),
            Item::Long { beyond, padding } => {
                let bytes = self.data((16_384 + isize::from(*beyond)) as usize);
                self.seal(DATA, &bytes, usize::from(*padding) % 300);
            }
            Item::Empty { count, padding } => {
                for _ in 0..count % 40 {
                    self.seal(DATA, &[], usize::from(*padding));
                }
            }
            Item::Broken { at, bit, length } => {
                let bytes = self.data(usize::from(*length) % 2000);
                let mut record = self.sealer.seal(DATA, &bytes, 0);
                let at = usize::from(*at) % record.len();
                record[at] ^= 1 << (bit % 8);
                // The minor version of a record of TLS 1.3 is passed over.
                match at {
                    2 if self.sealer.is_13() => self.sealed.extend_from_slice(&bytes),
                    _ => self.is_wrong = true,
                }
                self.wire.extend_from_slice(&record);
            }
            Item::Again => {
                self.is_wrong |= !self.last.is_empty();
                self.wire.extend_from_slice(&self.last);
            }
            Item::Raw(bytes) => {
                self.is_wrong |= !bytes.is_empty();
                self.wire.extend_from_slice(bytes);
            }
            Item::Write(_) | Item::Room(_) | Item::End => {}
        }
    }

    /// Whether it ran into bounds, of which each has its own.
    fn is_flood(&self) -> bool {
        self.updates > 16 || self.empties > 4
    }

    /// Whether both may stand so at the end.
    fn allows(&self, own: Stand, rustls: Stand) -> bool {
        let is_13 = self.sealer.is_13();
        match (own, rustls) {
            (own, rustls) if own == rustls => true,
            // rustls says nothing of a flood, nor of what comes between the parts of a message.
            (Stand::Failed(10), _) => {
                self.updates > 16 || self.empties > 32 || self.is_wrong || self.is_odd
                    // No such content, or an alert without one: that is unexpected_message.
                    || matches!(rustls, Stand::Ended | Stand::Failed(50))
            }
            (_, Stand::Ended) if self.is_flood() => true,
            // It is an alert in TLS 1.3, whatever it calls itself.
            (Stand::Ended, Stand::Failed(50)) => is_13,
            // A head that cannot be is seen before what follows it.
            (Stand::Failed(22), _) => self.is_wrong,
            (Stand::Failed(20), Stand::Failed(10 | 50)) => self.is_wrong,
            // And here only once it is whole.
            (Stand::Open, Stand::Failed(50)) => self.is_wrong,
            // So is the beginning of a message.
            (Stand::Failed(50), _) => self.is_odd,
            // An attempt to negotiate anew is answered without its rest.
            (_, _) => self.is_odd && !is_13,
        }
    }
}

fn check(input: &Input) {
    let agreed = Agreed::new(input.suite);
    let (sealer, opener) = agreed.peer();
    let (_, opener_of_rustls) = agreed.peer();
    let mut own = Own::new(
        reader(agreed.secrets, agreed.suite, &agreed.traffic),
        opener,
    );
    let mut rustls = Rustls {
        server: agreed.server,
        plaintext: Vec::new(),
        stand: Stand::Open,
    };
    let mut peer = Peer::new(sealer);
    let (mut cuts, mut rooms) = (input.cuts.iter().cycle(), input.room.iter().cycle());
    for item in &input.items {
        match item {
            Item::Write(length) => own.write(usize::from(*length)),
            Item::Room(bytes) => drop(own.reader.make_room(usize::from(*bytes))),
            Item::End => drop(own.reader.shutdown_write()),
            item => peer.send(item),
        }
        let wire = std::mem::take(&mut peer.wire);
        let mut rest = &wire[..];
        while !rest.is_empty() {
            let cut = cuts.next().map_or(usize::MAX, |cut| 1 + usize::from(*cut));
            let room = rooms.next().map_or(70_000, |room| 64 + usize::from(*room));
            let (bytes, behind) = rest.split_at(cut.min(rest.len()));
            own.reader.arrive(bytes);
            own.read(room);
            rustls.take(bytes);
            rest = behind;
        }
        own.take();
    }
    let stands = (own.end(), rustls.end(opener_of_rustls));
    assert!(
        peer.sealed.starts_with(&own.plaintext),
        "it is not the peer's"
    );
    // An alert has no way behind the end of the server's side.
    let has_ended = input.items.iter().any(|item| matches!(item, Item::End));
    assert!(has_ended || peer.allows(stands.0, stands.1), "{stands:?}");
    if !peer.is_flood() && !peer.is_odd {
        assert!(rustls.plaintext.starts_with(&own.plaintext));
        let is_same = stands.0 == stands.1 && stands.0 != Stand::Failed(10);
        assert!(
            !is_same || own.plaintext == rustls.plaintext,
            "all of it comes"
        );
    }
}

fuzz_target!(|input: Input| check(&input));
