//! An application on a thread, which answers the server's requests: as it should, or not at all.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Method and target.
    pub line: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(each, _)| each.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn path(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

/// What the application does.
#[derive(Clone, Debug)]
pub enum Reaction {
    /// Answers with this status, these header lines and this body.
    Answer(u16, String, String),
    /// Says nothing for this long, and ends.
    Hang(Duration),
    /// Ends in the midst of its answer.
    BreakOff,
    /// Answers without end.
    Flood,
}

impl Reaction {
    pub fn status(status: u16) -> Reaction {
        Reaction::Answer(status, String::new(), String::new())
    }

    pub fn json(status: u16, body: &str) -> Reaction {
        Reaction::Answer(status, String::new(), body.to_owned())
    }
}

/// Makes a reaction of a request.
type React = dyn Fn(&Asked) -> Reaction + Send + Sync;

/// The application.
pub struct App {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    react: Arc<Mutex<Arc<React>>>,
}

impl App {
    pub fn start(react: impl Fn(&Asked) -> Reaction + Send + Sync + 'static) -> App {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let app = App {
            address: listener.local_addr().expect("an address"),
            asked: Arc::default(),
            react: Arc::new(Mutex::new(Arc::new(react))),
        };
        let (asked, react) = (Arc::clone(&app.asked), Arc::clone(&app.react));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (asked, react) = (Arc::clone(&asked), Arc::clone(&react));
                thread::spawn(move || serve(stream, &asked, &react));
            }
        });
        app
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Reacts like this from here on.
    pub fn react(&self, react: impl Fn(&Asked) -> Reaction + Send + Sync + 'static) {
        *self.react.lock().expect("no panic") = Arc::new(react);
    }

    /// What was asked, in order.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no panic").clone()
    }
}

fn serve(mut stream: TcpStream, asked: &Mutex<Vec<Asked>>, react: &Mutex<Arc<React>>) {
    let (mut got, mut buffer) = (Vec::new(), [0; 16384]);
    loop {
        while let Some((request, taken)) = take_request(&got) {
            got.drain(..taken);
            asked.lock().expect("no panic").push(request.clone());
            let react = Arc::clone(&react.lock().expect("no panic"));
            if !carry_out(&mut stream, react(&request)) {
                return;
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(count) => got.extend_from_slice(&buffer[..count]),
        }
    }
}

fn take_request(got: &[u8]) -> Option<(Asked, usize)> {
    let end = got.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&got[..end]).expect("a head");
    let mut lines = head.lines();
    let line = lines.next()?.to_owned();
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let mut asked = Asked {
        line,
        headers,
        body: Vec::new(),
    };
    let length = asked
        .header("content-length")
        .map_or(0, |it| it.parse().expect("a length"));
    asked.body = got.get(end..end + length)?.to_vec();
    Some((asked, end + length))
}

/// Whether the connection goes on.
fn carry_out(stream: &mut TcpStream, reaction: Reaction) -> bool {
    match reaction {
        Reaction::Answer(status, lines, body) => {
            let length = match status {
                204 => String::new(),
                _ => format!("Content-Length: {}\r\n", body.len()),
            };
            let text = format!("HTTP/1.1 {status} X\r\n{length}{lines}\r\n{body}");
            stream.write_all(text.as_bytes()).is_ok()
        }
        Reaction::Hang(time) => {
            thread::sleep(time);
            false
        }
        Reaction::BreakOff => {
            let _ =
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"subject\":");
            false
        }
        Reaction::Flood => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            let piece = [b"400\r\n".to_vec(), vec![b' '; 1024], b"\r\n".to_vec()].concat();
            while stream.write_all(&piece).is_ok() {}
            false
        }
    }
}
