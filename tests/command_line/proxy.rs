//! A TCP proxy that cuts connections off.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A proxy between a client and a server, until its test ends.
pub struct Proxy {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Connections are hung up on at once.
    is_closed: bool,
    /// Both ends of those that stand.
    streams: Vec<TcpStream>,
    accepted: usize,
}

impl Proxy {
    pub fn start(server: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let mut state = shared.lock().expect("never left locked");
                state.accepted += 1;
                if state.is_closed {
                    continue;
                }
                let server = TcpStream::connect(server).expect("the server runs");
                forward(&client, &server);
                forward(&server, &client);
                state.streams.extend([client, server]);
            }
        });
        Proxy { address, state }
    }

    /// Ends all connections, without a word, and takes no others.
    pub fn cut(&self) {
        let mut state = self.state.lock().expect("never left locked");
        state.is_closed = true;
        for stream in state.streams.drain(..) {
            // It may have ended already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Takes connections again.
    pub fn mend(&self) {
        self.state.lock().expect("never left locked").is_closed = false;
    }

    /// Connections that were tried.
    pub fn accepted(&self) -> usize {
        self.state.lock().expect("never left locked").accepted
    }
}

fn forward(from: &TcpStream, to: &TcpStream) {
    let (mut from, mut to) = (
        from.try_clone().expect("a socket can be cloned"),
        to.try_clone().expect("a socket can be cloned"),
    );
    thread::spawn(move || {
        // Either end may go at any time.
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    });
}
