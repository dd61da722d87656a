//! The floor: the least that a server can do, to hold others against.
//!
//! A WebSocket server that promises nothing: one thread, one epoll instance, no limits, no queues, no topics. A
//! message on `/ws/...` goes to every connection on any `/ws/...` by one `send` each; a message on `/echo` goes back.
//! What a socket does not take at once is lost. It reads frames only as far as it must, and expects each read to end
//! at a frame's end, as it does with a load generator that waits for its answers.
//!
//! What is measured against it is the cost of everything else: order, promises, limits, several topics. Noise: the
//! kernel's share is nearly all of it and differs between machines, so only ratios taken in one run mean anything.
//!
//! ```sh
//! cargo bench --bench floor -- --listen 127.0.0.1:9100 [--coalesce] [--tls CERTIFICATE KEY [--rustls]]
//! ```
//!
//! With `--coalesce` the messages of one read leave in one `send` to each connection. With `--tls` it seals a record for each
//! connection and sends it by one `send`: rustls has the handshake alone, and nothing of it is on the way of a delivery. With
//! `--rustls` it is the bare rustls loop in its place: each connection is a buffered `ServerConnection`, which encrypts by
//! `write` and sends by `write_tls`. The files are PEM.

#[path = "floor/tls.rs"]
mod tls;

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use umbel::internals::protocol::{Header, accept_key, encode_server_header, mask_in_place};

use tls::{Terms, Tls};

const LISTEN: Token = Token(usize::MAX);
const BUFFER_BYTES: usize = 512 * 1024;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Handshake,
    Subscriber,
    Echo,
    Closed,
}

/// A connection: plain, or with what TLS keeps for it.
struct Stream {
    socket: TcpStream,
    tls: Option<Tls>,
}

impl Stream {
    /// Reads plaintext. WouldBlock: nothing of it has come.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.socket.read(into),
            Some(tls) => tls.read(&mut self.socket, into),
        }
    }

    /// Sends what the socket takes at once. `records` is room for those of TLS.
    fn send(&mut self, bytes: &[u8], records: &mut Vec<u8>) {
        match &mut self.tls {
            None => drop(self.socket.write(bytes)),
            Some(tls) => tls.send(&mut self.socket, bytes, records),
        }
    }
}

struct Floor {
    poll: Poll,
    listener: TcpListener,
    terms: Option<Terms>,
    sockets: Vec<(Stream, State)>,
    coalesce: bool,
    input: Vec<u8>,
    output: Vec<u8>,
    records: Vec<u8>,
}

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let Some(at) = arguments.iter().position(|argument| argument == "--listen") else {
        // Run among all benches, it has nothing to measure by itself.
        println!(
            "floor: a server; start it with --listen 127.0.0.1:PORT [--coalesce] [--tls CERTIFICATE KEY [--rustls]]"
        );
        return Ok(());
    };
    let address: SocketAddr = arguments
        .get(at + 1)
        .and_then(|text| text.parse().ok())
        .expect("an address:port");
    let mut listener = TcpListener::bind(address)?;
    let is_rustls = arguments.iter().any(|argument| argument == "--rustls");
    let tls = arguments.iter().position(|argument| argument == "--tls");
    let terms = tls.map(|at| Terms::read(&arguments[at + 1], &arguments[at + 2], is_rustls));
    let scheme = if terms.is_some() { "https" } else { "http" };
    eprintln!("listening on {scheme}://{}", listener.local_addr()?);
    let poll = Poll::new()?;
    poll.registry()
        .register(&mut listener, LISTEN, Interest::READABLE)?;
    let coalesce = arguments.iter().any(|argument| argument == "--coalesce");
    let (input, output) = (vec![0; BUFFER_BYTES], Vec::with_capacity(2 * BUFFER_BYTES));
    Floor {
        poll,
        listener,
        terms,
        sockets: Vec::new(),
        coalesce,
        input,
        output,
        records: Vec::new(),
    }
    .run()
}

impl Floor {
    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        loop {
            self.poll.poll(&mut events, None)?;
            for event in &events {
                match event.token() {
                    LISTEN => self.accept()?,
                    Token(index) => self.handle_readable(index),
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        while let Ok((mut socket, _)) = self.listener.accept() {
            socket.set_nodelay(true)?;
            self.poll.registry().register(
                &mut socket,
                Token(self.sockets.len()),
                Interest::READABLE,
            )?;
            let tls = self.terms.as_ref().map(Terms::begin).transpose()?;
            self.sockets
                .push((Stream { socket, tls }, State::Handshake));
        }
        Ok(())
    }

    fn handle_readable(&mut self, index: usize) {
        let (stream, state) = &mut self.sockets[index];
        let count = match stream.read(&mut self.input) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Ok(0) | Err(_) => {
                *state = State::Closed;
                return;
            }
            Ok(count) => count,
        };
        let input = &mut self.input[..count];
        match *state {
            State::Handshake => *state = shake_hands(stream, input, &mut self.records),
            State::Subscriber if self.coalesce => {
                reframe(input, &mut self.output, usize::MAX);
                self.send_all();
            }
            State::Subscriber => {
                let mut rest = 0;
                while rest < count {
                    rest += reframe(&mut self.input[rest..count], &mut self.output, 1);
                    self.send_all();
                }
            }
            State::Echo => {
                reframe(input, &mut self.output, usize::MAX);
                stream.send(&self.output, &mut self.records);
                self.output.clear();
            }
            State::Closed => {}
        }
    }

    fn send_all(&mut self) {
        for (stream, state) in &mut self.sockets {
            if *state == State::Subscriber {
                stream.send(&self.output, &mut self.records);
            }
        }
        self.output.clear();
    }
}

/// Answers a request that came in one piece.
fn shake_hands(stream: &mut Stream, request: &[u8], records: &mut Vec<u8>) -> State {
    let text = String::from_utf8_lossy(request);
    let key = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key")
            .then(|| value.trim().to_owned())
    });
    let Some(key) = key else { return State::Closed };
    let accept = accept_key(&key);
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        String::from_utf8_lossy(&accept)
    );
    stream.send(answer.as_bytes(), records);
    if text.starts_with("GET /echo") {
        State::Echo
    } else {
        State::Subscriber
    }
}

/// Appends up to `count_max` frames as a server sends them; gives the bytes that they took.
fn reframe(input: &mut [u8], output: &mut Vec<u8>, count_max: usize) -> usize {
    let mut at = 0;
    for _ in 0..count_max {
        let Ok(Some((header, header_len))) = Header::parse(&input[at..]) else {
            break;
        };
        let end = at + header_len + header.payload_len as usize;
        if end > input.len() {
            break;
        }
        let payload = &mut input[at + header_len..end];
        mask_in_place(payload, header.mask.unwrap_or_default(), 0);
        let (head, len) = encode_server_header(header.opcode, header.fin, header.payload_len);
        output.extend_from_slice(&head[..len]);
        output.extend_from_slice(payload);
        at = end;
    }
    if at == 0 { input.len() } else { at }
}
