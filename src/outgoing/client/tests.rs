//! Tests of the client, against servers on threads.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::thread;

use super::*;

/// A server on a thread: it answers each request of each connection by what `answer` makes of its head.
fn serve(answer: impl Fn(&str, &mut TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = Arc::clone(&answer);
            thread::spawn(move || serve_one(stream, &*answer));
        }
    });
    address
}

fn serve_one(mut stream: TcpStream, answer: &dyn Fn(&str, &mut TcpStream)) {
    let (mut got, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(count) = stream.read(&mut buffer) {
        if count == 0 {
            return;
        }
        got.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&got).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.parse::<usize>().expect("a length"))
        });
        if body.len() >= length.unwrap_or(0) {
            answer(&text, &mut stream);
            got.clear();
        }
    }
}

fn send(stream: &mut TcpStream, head: &str, body: &str) {
    let length = body.len();
    let text = format!("HTTP/1.1 {head}\r\nContent-Length: {length}\r\n\r\n{body}");
    // The client may have gone.
    let _ = stream.write_all(text.as_bytes());
}

fn client(url: &str) -> Client {
    let settings = ClientSettings {
        target: Target::parse(url, Plain::Private).expect("a target"),
        timeout: Duration::from_millis(500),
        body_bytes_max: 1000,
        redirects_max: 3,
        ca_file: None,
        proxy: None,
        idle_max: 4,
    };
    Client::new(settings).expect("a client")
}

#[test]
fn answers_come_with_status_headers_and_body() {
    let ports = Arc::new(Mutex::new(HashSet::new()));
    let seen = Arc::clone(&ports);
    let address = serve(move |request, stream| {
        let port = stream.peer_addr().expect("an address").port();
        seen.lock().expect("no panic").insert(port);
        assert!(request.contains("umbel-signature: t=1"), "{request}");
        assert!(request.ends_with("\r\n\r\n{\"a\":1}"), "{request}");
        send(stream, "403 Forbidden\r\nRetry-After: 7", "no");
    });
    let client = client(&format!("http://{address}/x"));
    for _ in 0..3 {
        let answered = client
            .post("connect", &[("Umbel-Signature", "t=1")], b"{\"a\":1}")
            .expect("an answer");
        assert_eq!((answered.status, &*answered.body), (403, &b"no"[..]));
        assert_eq!(answered.header("retry-after"), Some("7"));
    }
    let connections = ports.lock().expect("no panic").len();
    assert_eq!(connections, 1, "the connection is kept");
}

#[test]
fn redirects_are_followed_within_the_origin_and_never_by_a_post() {
    let other = serve(|_, stream| send(stream, "200 OK", "stolen"));
    let address = serve(move |request, stream| {
        let path = request.split(' ').nth(1).unwrap_or_default();
        match path {
            "/1" => send(stream, "302 Found\r\nLocation: /2", ""),
            "/2" => send(stream, "307 Moved\r\nLocation: 3", ""),
            "/3" => send(stream, "200 OK", "here"),
            "/loop" => send(stream, "302 Found\r\nLocation: /loop", ""),
            _ => {
                let head = format!("302 Found\r\nLocation: http://{other}/");
                send(stream, &head, "");
            }
        }
    });
    let get = |path: &str| client(&format!("http://{address}{path}")).get(&[]);
    assert_eq!(get("/1").expect("an answer").body, b"here");
    for path in ["/loop", "/away"] {
        let error = get(path).expect_err("not followed");
        assert!(matches!(error, RequestError::Redirected(_)), "{error}");
    }
    let answered = client(&format!("http://{address}/")).post("1", &[], b"{}");
    assert_eq!(answered.expect("an answer").status, 302);
}

#[test]
fn long_and_late_answers_are_refused() {
    let address = serve(|request, stream| {
        if request.starts_with("GET /long") {
            return send(stream, "200 OK", &"x".repeat(1001));
        }
        if request.starts_with("GET /fits") {
            return send(stream, "200 OK", &"x".repeat(1000));
        }
        if request.starts_with("GET /flood") {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            while stream.write_all(b"3e8\r\n").is_ok()
                && stream.write_all(&[b'x'; 1000]).is_ok()
                && stream.write_all(b"\r\n").is_ok()
            {}
            return;
        }
        if request.starts_with("GET /drip") {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
        }
        // A byte now and then does not help: the limit is of all.
        for _ in 0..100 {
            thread::sleep(Duration::from_millis(50));
            if stream.write_all(b"H").is_err() {
                return;
            }
        }
    });
    let get = |path: &str| client(&format!("http://{address}{path}")).get(&[]);
    assert_eq!(get("/fits").expect("an answer").body.len(), 1000);
    for path in ["/long", "/flood"] {
        let error = get(path).expect_err("too long");
        assert!(matches!(error, RequestError::TooLong), "{error}");
    }
    for path in ["/drip", "/hang"] {
        let begun = Instant::now();
        let error = get(path).expect_err("too late");
        assert!(!matches!(error, RequestError::TooLong), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(3), "{path}");
    }
}

#[test]
fn names_are_checked_once_they_are_resolved() {
    let resolver = |plain| CheckedResolver {
        plain,
        via_proxy: None,
        resolver: DefaultResolver::default(),
    };
    let config = Config::default();
    let resolve = |plain, url: &str| {
        let uri: Uri = url.parse().expect("a URL");
        let timeout = NextTimeout::default();
        resolver(plain)
            .resolve(&uri, &config, timeout)
            .map(|it| it.len())
    };
    assert!(resolve(Some(Plain::Loopback), "http://localhost:1/").is_ok());
    for (plain, url) in [
        (None, "https://169.254.169.254/"),
        (None, "https://[::ffff:169.254.169.254]/"),
        (Some(Plain::Loopback), "http://10.0.0.1/"),
        (Some(Plain::Private), "http://203.0.113.9/"),
    ] {
        let error = resolve(plain, url).expect_err("refused");
        assert!(matches!(error, Error::Io(_)), "{url}: {error}");
    }
}

#[cfg(unix)]
#[test]
fn unix_sockets_are_reached() {
    use std::os::unix::net::UnixListener;
    let folder = std::env::temp_dir().join(format!("umbel-unix-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("app.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        for _ in 0..2 {
            let (mut got, mut buffer) = (Vec::new(), [0; 4096]);
            while !got.ends_with(b"\r\n\r\n{}") {
                let count = stream.read(&mut buffer).expect("a request");
                got.extend_from_slice(&buffer[..count]);
            }
            assert!(got.starts_with(b"POST /umbel/connect HTTP/1.1\r\n"));
            stream
                .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
                .expect("the client is there");
        }
    });
    let client = client(&format!("unix:{}:/umbel", path.display()));
    for _ in 0..2 {
        let answered = client.post("connect", &[], b"{}").expect("an answer");
        assert_eq!(answered.status, 204);
    }
    std::fs::remove_dir_all(&folder).expect("it is there");
}
