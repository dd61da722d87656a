//! Several listeners of one server, from outside: what each shows, unix sockets, inherited sockets, and the paths of
//! systems that lack what Linux has.

#[path = "listeners/proxies.rs"]
mod proxies;
#[path = "listeners/supervised.rs"]
mod supervised;
mod support;

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::json;
use support::peers::{Http, WebSocket};
use support::umbel_v1::{JSON, Peer};
use support::{PATIENCE, Server, wait_until};

/// Rights for everybody, as several listeners ask for them.
const OPEN: [&str; 6] = [
    "--publish",
    "anyone",
    "--subscribe",
    "anyone",
    "--origin",
    "any",
];

/// A server with these listeners and flags.
fn start(listeners: &[&str], flags: &[&str]) -> Server {
    let listeners = listeners.iter().flat_map(|listener| ["--listen", listener]);
    let flags: Vec<_> = listeners.chain(flags.iter().copied()).collect();
    Server::start(&flags)
}

/// Its addresses with what they show, as its log tells them.
fn surfaces(server: &Server) -> Vec<(SocketAddr, String)> {
    let log = server.log();
    let told = log.lines().filter_map(|line| {
        let (_, rest) = line.split_once(": http://")?;
        let (address, surface) = rest.split_once(", surface ")?;
        // The line's fields stand behind its words.
        let (surface, _) = surface.split_once(' ').unwrap_or((surface, ""));
        Some((address.parse().ok()?, surface.to_owned()))
    });
    told.collect()
}

/// The status of a request on a connection of its own.
fn status(address: SocketAddr, method: &str, target: &str) -> u16 {
    let stream = TcpStream::connect(address).expect("the server accepts");
    let (status, _) = exchange(stream, method, target);
    status
}

/// Sends one request, and reads the answer to the end: the status and all of it.
fn exchange(stream: impl Read + Write, method: &str, target: &str) -> (u16, String) {
    let body = if method == "POST" {
        "Content-Length: 1\r\n\r\nx"
    } else {
        "\r\n"
    };
    let request =
        format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{body}");
    exchange_text(stream, &request)
}

/// Sends what is to be one request, and reads the answer to the end: the status and all of it.
fn exchange_text(mut stream: impl Read + Write, request: &str) -> (u16, String) {
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = Vec::new();
    stream
        .read_to_end(&mut answer)
        .expect("it answers and ends");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.get(9..12).and_then(|status| status.parse().ok());
    (
        status.unwrap_or_else(|| panic!("{answer:?} has a status")),
        answer,
    )
}

/// A folder for the sockets of one test, empty.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

fn connect_unix(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).expect("the server accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream
}

/// What a server says that does not start.
fn refused(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_umbel"));
    let output = command.arg("serve").args(arguments).output();
    let Output { status, stderr, .. } = output.expect("it can be started");
    assert!(!status.success(), "{arguments:?} must not start");
    String::from_utf8_lossy(&stderr).into_owned()
}

#[test]
fn admin_listener_takes_the_figures_off_the_others() {
    let flags = ["--observe-token", "secret", "--query-token", "allow"];
    let flags = [&OPEN[..], &flags].concat();
    let server = start(&["127.0.0.1:0", "127.0.0.1:0#admin"], &flags);
    let told = surfaces(&server);
    let [(public, public_surface), (admin, admin_surface)] = &told[..] else {
        panic!("{told:?} are not two");
    };
    assert_eq!((&**public_surface, &**admin_surface), ("public", "admin"));
    for (target, on_public, on_admin) in [
        ("/", 404, 200),
        ("/console/console.js", 404, 200),
        ("/metrics", 404, 200),
        ("/topics", 404, 200),
        ("/umbel.js", 200, 200),
        ("/health", 200, 200),
        ("/ready", 200, 200),
        ("/nothing", 404, 404),
        ("/sse/", 404, 404),
    ] {
        let with_token = format!("{target}?token=secret");
        assert_eq!(status(*public, "GET", &with_token), on_public, "{target}");
        assert_eq!(status(*admin, "GET", &with_token), on_admin, "{target}");
        // The console asks for a token itself.
        let expected = if target == "/metrics" { 401 } else { on_admin };
        if !target.starts_with("/topics") {
            assert_eq!(status(*admin, "GET", target), expected, "{target}");
        }
    }
    // Neither a method nor a question before it tells more of what is hidden.
    assert_eq!(status(*public, "OPTIONS", "/metrics"), 404);
    assert_eq!(status(*public, "POST", "/metrics"), 404);
    assert_eq!(status(*admin, "GET", "/sse/a?token=secret"), 404);
    assert_eq!(status(*admin, "GET", "/echo?token=secret"), 404);
    assert_eq!(status(*admin, "POST", "/pub/a"), 401);

    let mut subscriber = WebSocket::open(*public, "/ws/a");
    let mut observer = WebSocket::open(*admin, "/ws/a?token=secret");
    let stream = TcpStream::connect(*admin).expect("the server accepts");
    assert_eq!(WebSocket::try_open_on(stream, "/ws/a").0, 401);
    // A page's connection shows its token by its first message.
    let stream = TcpStream::connect(*admin).expect("the server accepts");
    let mut page = Peer::open_on(stream, "/ws", JSON);
    assert_eq!(
        page.error(&json!({"type": "subscribe", "id": 1, "topic": "a"})),
        "unauthorized"
    );
    let signed_in = page.ask(&json!({"type": "auth", "id": 2, "token": "secret"}));
    assert_eq!(signed_in["type"], "authenticated", "{signed_in}");
    assert_eq!(status(*admin, "POST", "/pub/a?token=secret"), 200);
    assert_eq!(subscriber.text(), "x");
    assert_eq!(observer.text(), "x");
    assert_eq!(status(*public, "GET", "/topics/a"), 404);
    assert_eq!(status(*admin, "GET", "/topics/a?token=secret"), 200);
}

#[test]
fn rights_must_be_set_for_a_second_listener() {
    let both = ["--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0#admin"];
    let error = refused(&both);
    assert!(error.contains("there are 2 listeners"), "{error}");
    assert!(
        error.contains("set --publish, --subscribe and --origin"),
        "{error}"
    );
    let error = refused(&[&both[..], &["--publish", "nobody", "--origin", "any"]].concat());
    assert!(error.contains("set --subscribe, or --insecure"), "{error}");
    let server = start(&["127.0.0.1:0,127.0.0.1:0#all"], &["--insecure"]);
    let told = surfaces(&server);
    assert_eq!(told.len(), 2, "{told:?}");
    for (address, surface) in told {
        assert_eq!(
            (status(address, "GET", "/metrics"), &*surface),
            (200, "all")
        );
    }
}

#[test]
fn admin_listener_alone() {
    let server = start(&["127.0.0.1:0#admin"], &[]);
    assert_eq!(status(server.address(), "GET", "/metrics"), 200);
    assert_eq!(status(server.address(), "GET", "/"), 200);
    assert_eq!(status(server.address(), "GET", "/sse/a"), 404);
}

#[test]
fn localhost_is_both_loopback_addresses() {
    let server = start(&["localhost:0"], &[]);
    let port = server.address().port();
    assert_eq!(status(server.address(), "GET", "/health"), 200);
    let has_ipv6 = TcpListener::bind("[::1]:0").is_ok();
    let second = TcpStream::connect(format!("[::1]:{port}"));
    assert_eq!(second.is_ok(), has_ipv6);
    if let Ok(second) = second {
        assert_eq!(
            exchange(second, "GET", "/metrics").0,
            200,
            "it is open to this machine"
        );
    }
}

#[test]
fn unix_sockets_serve_as_tcp_does() {
    let path = folder("unix_serves").join("umbel.sock");
    let place = format!("unix:{}", path.display());
    let mut server = start(&["127.0.0.1:0", &place], &OPEN);
    let metadata = fs::symlink_metadata(&path).expect("it is there");
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o660);
    assert!(server.log().contains(&place), "{}", server.log());

    let (code, answer) = exchange(connect_unix(&path), "GET", "/health");
    assert_eq!(code, 200, "{answer}");
    let over_unix = || TcpStream::from(OwnedFd::from(connect_unix(&path)));
    let mut subscriber = WebSocket::open_on(over_unix(), "/ws/news");
    let mut others: Vec<_> = (0..20)
        .map(|_| WebSocket::open_on(over_unix(), "/ws/news"))
        .collect();
    let mut echo = WebSocket::open_on(over_unix(), "/echo");
    echo.send_text("hello");
    assert_eq!(echo.text(), "hello");
    Http::connect(server.address()).publish("news", b"over tcp");
    Http::new(over_unix()).publish("news", b"over unix");
    for peer in others.iter_mut().chain([&mut subscriber]) {
        assert_eq!(
            (peer.text(), peer.text()),
            ("over tcp".into(), "over unix".into())
        );
    }
    let log = server.whole_log();
    let accepted = log.lines().filter(|line| line.contains("accepted"));
    let user = metadata.uid();
    let peer = format!("peer=unix:{}/{user} ", std::process::id());
    let from_unix = accepted.filter(|line| line.contains(&peer) && line.contains(&place));
    assert!(from_unix.count() >= 23, "{log}");

    server.signal("TERM");
    assert!(server.wait_for_exit(PATIENCE).success());
    let left: Vec<_> = fs::read_dir(path.parent().expect("a folder"))
        .expect("a folder")
        .collect();
    assert!(left.is_empty(), "{left:?} is left");
}

#[test]
fn unix_socket_has_mode_and_group() {
    let path = folder("unix_mode").join("umbel.sock");
    let place = format!("unix:{}", path.display());
    // Any process may give a file to its own group; only that of root any other.
    let own = fs::metadata("/proc/self").expect("it is there").gid();
    let group = if own == 0 { 33 } else { own };
    let _server = start(&[&format!("{place}?mode=0640&group={group}")], &OPEN);
    let metadata = fs::symlink_metadata(&path).expect("it is there");
    assert_eq!((metadata.mode() & 0o777, metadata.gid()), (0o640, group));
    let error = refused(
        &[
            &["--listen", &format!("{place}.2?group=no-such-group")],
            &OPEN[..],
        ]
        .concat(),
    );
    assert!(
        error.contains("/etc/group has no group no-such-group"),
        "{error}"
    );
    assert!(!Path::new(&format!("{}.2", path.display())).exists());
}

/// A socket for both families gets IPv4 peers as `::ffff:127.0.0.1`.
#[test]
fn ipv4_peers_of_ipv6_listeners_are_told_as_such() {
    if TcpListener::bind("[::1]:0").is_err() {
        return;
    }
    let both = start(&[":0"], &OPEN);
    let over_ipv4 = SocketAddr::from(([127, 0, 0, 1], both.address().port()));
    assert_eq!(status(over_ipv4, "GET", "/health"), 200);
    let log = both.whole_log();
    assert!(log.contains("peer=127.0.0.1:"), "{log}");
    assert!(!log.contains("ffff"), "{log}");

    let one = start(&["[::]:0?ipv6_only=true"], &OPEN);
    let port = one.address().port();
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    assert_eq!(
        status(
            SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port)),
            "GET",
            "/health"
        ),
        200
    );
}

#[test]
fn only_the_socket_of_a_dead_server_is_replaced() {
    let path = folder("unix_taken").join("umbel.sock");
    let place = format!("unix:{}", path.display());
    let server = start(&[&place], &OPEN);
    server.signal("KILL");
    wait_until("it is dead", || !server.runs());
    drop(server);
    assert!(path.exists(), "a server that was killed removes nothing");

    let mut second = start(&[&place], &OPEN);
    assert_eq!(exchange(connect_unix(&path), "GET", "/health").0, 200);
    let error = refused(&[&["--listen", &place], &OPEN[..]].concat());
    assert!(error.contains("another server runs there"), "{error}");
    assert!(error.contains(&place), "{error}");
    assert_eq!(exchange(connect_unix(&path), "GET", "/health").0, 200);

    // Somebody else has the path by the time that it ends.
    fs::remove_file(&path).expect("it is there");
    let _other = UnixListener::bind(&path).expect("the path is free");
    second.signal("TERM");
    assert!(second.wait_for_exit(PATIENCE).success());
    assert!(
        path.exists(),
        "it removes what is its own, and nothing else"
    );
}

#[test]
fn files_that_are_no_sockets_are_left_alone() {
    let folder = folder("unix_wrong");
    let file = folder.join("notes");
    fs::write(&file, "mine").expect("a file");
    let listen = |path: &Path| {
        let place = format!("unix:{}", path.display());
        refused(&[&["--listen", &place], &OPEN[..]].concat())
    };
    let error = listen(&file);
    assert!(error.contains("no socket"), "{error}");
    assert_eq!(fs::read(&file).expect("it is there"), b"mine");
    let error = listen(&folder.join("no/umbel.sock"));
    assert!(error.contains("no such folder"), "{error}");
    let error = listen(&folder.join("x".repeat(120)));
    assert!(
        error.contains("longer than the path of a socket may be"),
        "{error}"
    );
    let error = refused(&["--listen", &format!("unix:{}", folder.join("a").display())]);
    assert!(error.contains("is not open by itself"), "{error}");
    assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 1);
}

/// `umbel serve` with one descriptor handed over, as systemd does it.
fn with_inherited(socket: OwnedFd, names: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("sh");
    let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ exec \"$0\" serve \"$@\"";
    command
        .args(["-c", script, env!("CARGO_BIN_EXE_umbel")])
        .args(arguments)
        .env("LISTEN_FDS", "1")
        .env("LISTEN_FDNAMES", names)
        .stdin(Stdio::from(socket));
    command
}

#[test]
fn inherited_sockets_are_served_by_name() {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("bound");
    let arguments = [&["--listen", "fd:web"], &OPEN[..]].concat();
    let mut child = with_inherited(socket.into(), "web", &arguments)
        .stderr(Stdio::null())
        .spawn()
        .expect("it can be started");
    // The socket listens already, so nobody has to wait until the server does.
    assert_eq!(status(address, "GET", "/health"), 200);
    let mut peers: Vec<_> = (0..30).map(|_| WebSocket::open(address, "/ws/a")).collect();
    assert_eq!(status(address, "POST", "/pub/a"), 200);
    for peer in &mut peers {
        assert_eq!(peer.text(), "x");
    }
    child.kill().expect("it runs");
    child.wait().expect("it ends");

    let path = folder("unix_inherited").join("given.sock");
    let socket = UnixListener::bind(&path).expect("a socket");
    let mut child = with_inherited(socket.into(), "web", &arguments)
        .stderr(Stdio::null())
        .spawn()
        .expect("it can be started");
    assert_eq!(exchange(connect_unix(&path), "GET", "/health").0, 200);
    child.kill().expect("it runs");
    child.wait().expect("it ends");
}

/// What a parent was handed is none of a child's, whose environment still tells of it.
#[test]
fn sockets_of_another_process_are_ignored() {
    for pid in [Some("1"), None] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_umbel"));
        command
            .args(["serve", "--listen", "127.0.0.1:0"])
            .env("LISTEN_FDS", "2")
            .env("LISTEN_FDNAMES", "web:admin")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        match pid {
            Some(pid) => command.env("LISTEN_PID", pid),
            None => command.env_remove("LISTEN_PID"),
        };
        let mut child = command.spawn().expect("it can be started");
        let errors = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut said = errors.lines().map_while(Result::ok);
        assert!(
            said.any(|line| line.contains("listening on http://")),
            "{pid:?}"
        );
        child.kill().expect("it runs");
        child.wait().expect("it ends");
    }
}

#[test]
fn inherited_sockets_and_their_names_belong_together() {
    let error = refused(&[&["--listen", "fd:web"], &OPEN[..]].concat());
    assert!(
        error.contains("no socket of the name web was handed over"),
        "{error}"
    );
    let socket = || TcpListener::bind("127.0.0.1:0").expect("a port");
    let failed = |socket: OwnedFd, arguments: &[&str]| {
        let output = with_inherited(socket, "web", arguments).output();
        let Output { status, stderr, .. } = output.expect("it can be started");
        assert!(!status.success());
        String::from_utf8_lossy(&stderr).into_owned()
    };
    let error = failed(socket().into(), &["--listen", "127.0.0.1:0"]);
    assert!(error.contains("add fd:web"), "{error}");
    let (end, _other) = UnixStream::pair().expect("a pair");
    let error = failed(end.into(), &[&["--listen", "fd:web"], &OPEN[..]].concat());
    assert!(error.contains("does not listen"), "{error}");
}

/// One listening socket for all reactors, and sends one by one: what a server does where there is neither SO_REUSEPORT
/// as Linux has it nor io_uring.
#[test]
fn reactors_share_connections_without_what_linux_has() {
    let server = start(&["127.0.0.1:0"], &["--portable", "--reactors", "3"]);
    let mut peers: Vec<_> = (0..90)
        .map(|_| WebSocket::open(server.address(), "/ws/a"))
        .collect();
    let mut echo = WebSocket::open(server.address(), "/echo");
    echo.send_text("hello");
    assert_eq!(echo.text(), "hello");
    Http::connect(server.address()).publish("a", b"to all");
    for peer in &mut peers {
        assert_eq!(peer.text(), "to all");
    }
    let log = server.whole_log();
    let accepted = log.lines().filter(|line| line.contains("accepted"));
    let reactors: HashSet<_> = accepted
        .filter_map(|line| line.split_once("connection=")?.1.split('-').next())
        .collect();
    assert_eq!(reactors.len(), 3, "{log}");
    assert!(!log.contains("io_uring"), "it is not even asked for");
}
