//! Memory of an idle connection: resident bytes of the whole process past its start.

mod support;

use std::time::Duration;

use support::peers::{Http, WebSocket, connect};
use support::process::{own_bytes, rss_bytes};
use support::umbel_v1::{JSON, offer};
use support::{Server, wait_until, wait_within};
use umbel::config::RightsLists;
use umbel::internals::auth::caller::Caller;
use umbel::internals::auth::identity::{Identity, IdentityParts, Source, TokenDigest};
use umbel::internals::auth::rights::Rights;
use umbel::internals::auth::table::{Identities, IdentityHandle};

/// Enough for what the process grows by once, such as a read buffer, to weigh little.
const CONNECTIONS: usize = 8000;

/// Bytes that scrapes of metrics and the log may move.
const NOISE_BYTES: u64 = 128 * 1024;

/// Resident bytes that each may cost.
const BYTES_MAX: u64 = 400;

fn wait_for_subscribers(server: &Server, count: usize) {
    let subscribers = "umbel_connections{state=\"open\",dialect=\"raw\"}";
    wait_until("all are counted", || {
        server.metric(subscribers) == count as f64
    });
}

#[test]
fn idle_subscriber_memory() {
    rlimit::increase_nofile_limit(CONNECTIONS as u64 + 1000).expect("descriptors for the peers");
    // At debug the log follows each connection, which costs more.
    let server = Server::start(&["--reactors", "1", "--log-level", "info"]);
    let before = own_bytes(server.pid());
    let mut peers: Vec<_> = (0..CONNECTIONS)
        .map(|_| WebSocket::open(server.address(), "/ws/idle"))
        .collect();
    wait_for_subscribers(&server, CONNECTIONS);
    let all = own_bytes(server.pid()).saturating_sub(before);
    assert!(
        all <= BYTES_MAX * CONNECTIONS as u64,
        "{all} bytes for {CONNECTIONS} connections"
    );
    peers.truncate(CONNECTIONS / 2);
    wait_for_subscribers(&server, CONNECTIONS / 2);
    let half = own_bytes(server.pid()).saturating_sub(before);
    assert!(
        half <= all + NOISE_BYTES,
        "{half} bytes for the half that is left, {all} for all"
    );
    // Who comes back finds the places of those that left.
    peers.extend((0..CONNECTIONS / 2).map(|_| WebSocket::open(server.address(), "/ws/idle")));
    wait_for_subscribers(&server, CONNECTIONS);
    let again = own_bytes(server.pid()).saturating_sub(before);
    assert!(
        again <= BYTES_MAX * CONNECTIONS as u64,
        "{again} bytes for {CONNECTIONS} connections, half of them new"
    );
}

/// The opener of a connection of many topics is known by a token, or not at all: its request is not kept.
#[test]
fn connection_of_many_topics_keeps_no_head() {
    const MANY: usize = 1000;
    const HEAD_BYTES: usize = 12_000;
    let server = Server::start(&["--reactors", "1", "--subscribe-token", "t"]);
    let lines = format!(
        "Authorization: Bearer t\r\nX-Pad: {}\r\n{}",
        "x".repeat(HEAD_BYTES),
        offer(JSON)
    );
    let open = || {
        let stream = connect(server.address(), 0);
        let (head, socket) = WebSocket::offer_on(stream, "/ws", &lines);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        socket
    };
    let _first = open();
    let before = rss_bytes(server.pid());
    let _peers: Vec<_> = (0..MANY).map(|_| open()).collect();
    let grown = rss_bytes(server.pid()).saturating_sub(before);
    assert!(
        grown < (MANY * HEAD_BYTES / 4) as u64,
        "{grown} bytes for {MANY} connections with heads of {HEAD_BYTES}"
    );
}

/// Resident bytes of a server that is idle again.
fn idle_bytes_max(before: u64) -> u64 {
    before + before / 10 + (10 << 20)
}

/// Pieces of each size fill the outboxes of readers that stand still.
#[test]
fn memory_of_outboxes_comes_back() {
    const READERS_MAX: usize = 600;
    rlimit::increase_nofile_limit(READERS_MAX as u64 + 1000).expect("descriptors for the peers");
    let server = Server::start(&["--outbox-bytes-max", "2MiB", "--log-level", "info"]);
    let before = rss_bytes(server.pid());
    let mut http = Http::connect(server.address());
    for (piece_bytes, count, readers) in [
        (9_000, 60, 200),
        (150_000, 6, 200),
        (900_000, 1, READERS_MAX),
    ] {
        let sockets: Vec<_> = (0..readers)
            .map(|reader| {
                let stream = connect(server.address(), 4096);
                WebSocket::open_on(stream, &format!("/ws/reader/{reader}"))
            })
            .collect();
        let data = "x".repeat(piece_bytes);
        for reader in 0..readers {
            let topic = format!("reader/{reader}");
            (0..count).for_each(|_| {
                http.publish(&topic, data.as_bytes());
            });
        }
        let full = rss_bytes(server.pid());
        // What the kernel takes of each is not the server's.
        let least = (readers * piece_bytes * count / 2) as u64;
        assert!(full > before + least, "{full} bytes with full outboxes");
        drop(sockets);
        wait_within(
            Duration::from_secs(5),
            "the memory of those that are gone comes back",
            || rss_bytes(server.pid()) <= idle_bytes_max(before),
        );
    }
}

/// Identities of connections, as one reactor's table holds them: of one role, and of a subject each with equal rights.
#[test]
fn identities_of_connections() {
    const IDENTITIES: u64 = 100_000;
    let rights = || {
        let mut lists = RightsLists::default();
        lists
            .subscribe
            .extend(["news/**", "user/{sub}/**"].map(str::to_owned));
        Rights::from_lists(&lists).expect("rights")
    };
    let parts = |subject: Option<String>| IdentityParts {
        subject: subject.map(Into::into),
        expires_at_ms: Some(1_800_003_600_000),
        rights: rights(),
        ..IdentityParts::of(Source::Jwt("app".into()))
    };
    let mut identities = Identities::default();
    let mut bytes_of = |mut next: Box<dyn FnMut(u64) -> Caller<'static>>| {
        let mut handles = vec![IdentityHandle::ANONYMOUS; IDENTITIES as usize];
        let before = rss_bytes(std::process::id());
        for (number, handle) in handles.iter_mut().enumerate() {
            identities.replace(handle, next(number as u64));
        }
        let bytes = rss_bytes(std::process::id()).saturating_sub(before);
        handles.into_iter().for_each(|it| identities.release(it));
        bytes / IDENTITIES
    };
    let role = Identity::new(IdentityParts {
        credential: Some(TokenDigest::of("role")),
        ..parts(None)
    });
    let role = role.expect("an identity");
    let of_one_role = bytes_of(Box::new(move |_| Caller::Known(role.clone())));
    let app: std::sync::Arc<str> = "app".into();
    let of_subjects = bytes_of(Box::new(move |number| {
        let identity = Identity::new(IdentityParts {
            source: Source::Jwt(app.clone()),
            ..parts(Some(format!("user-{number:08}")))
        });
        Caller::Known(identity.expect("an identity"))
    }));
    println!("{of_one_role} bytes of one role, {of_subjects} of a subject each");
    assert!(of_one_role <= 24, "{of_one_role} bytes of one role");
    assert!(of_subjects <= 200, "{of_subjects} bytes of a subject each");
}
