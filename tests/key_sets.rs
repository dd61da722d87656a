//! Key sets by address: fetched at the start, at intervals and for an unknown `kid`, and kept while fetches fail.
#![cfg(all(feature = "jwt", feature = "outgoing"))]

#[path = "config_file/file.rs"]
mod file;
mod support;

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use file::Folder;
use serde_json::json;
use support::app::{App, Reaction};
use support::peers::{WebSocket, connect};
use support::{Server, wait_until};

/// A key of the identity provider, with its name.
struct SigningKey {
    kid: &'static str,
    pair: EcdsaKeyPair,
}

impl SigningKey {
    fn new(kid: &'static str) -> SigningKey {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        SigningKey { kid, pair }
    }

    fn jwk(&self) -> serde_json::Value {
        // An uncompressed point: 4, x, y.
        let point = self.pair.public_key().as_ref();
        let [x, y] = [&point[1..33], &point[33..]].map(|part| URL_SAFE_NO_PAD.encode(part));
        json!({ "kty": "EC", "crv": "P-256", "kid": self.kid, "x": x, "y": y, "use": "sig" })
    }

    fn token_named(&self, kid: &str) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.expect("after 1970").as_secs();
        let header = json!({ "alg": "ES256", "kid": kid }).to_string();
        let claims = json!({
            "iss": "https://idp.example", "aud": "umbel", "sub": "42", "iat": now, "exp": now + 600,
            "umbel": { "v": 1, "subscribe": ["**"] },
        });
        let parts = [header, claims.to_string()];
        let signed = parts.map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
        let random = SystemRandom::new();
        let signature = self.pair.sign(&random, signed.as_bytes()).expect("signed");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn token(&self) -> String {
        self.token_named(self.kid)
    }
}

/// An identity provider: it answers with this text, and counts how often, and how often it says that nothing has changed.
struct Provider {
    address: SocketAddr,
    answer: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
    unchanged: Arc<AtomicUsize>,
}

impl Provider {
    fn start() -> Provider {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let provider = Provider {
            address: listener.local_addr().expect("an address"),
            answer: Arc::default(),
            asked: Arc::default(),
            unchanged: Arc::default(),
        };
        let (answer, asked) = (Arc::clone(&provider.answer), Arc::clone(&provider.asked));
        let unchanged = Arc::clone(&provider.unchanged);
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut request = [0; 4096];
                let count = stream.read(&mut request).unwrap_or_default();
                let request = String::from_utf8_lossy(&request[..count]).to_lowercase();
                asked.fetch_add(1, Ordering::Relaxed);
                let body = answer.lock().expect("no panic").clone();
                let tag = format!("\"{}\"", body.len());
                let head = if body.is_empty() {
                    "500 Internal Server Error".to_owned()
                } else if request.contains(&format!("if-none-match: {tag}")) {
                    unchanged.fetch_add(1, Ordering::Relaxed);
                    "304 Not Modified".to_owned()
                } else {
                    format!("200 OK\r\nETag: {tag}\r\nContent-Length: {}", body.len())
                };
                let body = if head.starts_with("200") { &*body } else { "" };
                let text = format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n{body}");
                // The fetcher may have gone.
                let _ = stream.write_all(text.as_bytes());
            }
        });
        provider
    }

    fn serve(&self, keys: &[&SigningKey]) {
        let keys: Vec<_> = keys.iter().map(|key| key.jwk()).collect();
        *self.answer.lock().expect("no panic") = json!({ "keys": keys }).to_string();
    }

    fn fail(&self) {
        self.answer.lock().expect("no panic").clear();
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// A folder with the configuration of a server that takes its tokens. `limits`: lines of the table.
    fn folder(&self, limits: &str, tables: &str) -> Folder {
        let text = format!(
            "origins = [\"any\"]\nobserve = \"anyone\"\n\
             [[jwt]]\nname = \"idp\"\nalgorithms = [\"ES256\", \"RS256\"]\njwks_url = \"http://{}/keys\"\n\
             subject_prefix = \"\"\nissuer = \"https://idp.example\"\naudience = [\"umbel\"]\n[limits]\n{limits}\n\
             auth_failures_per_address_per_minute = 0\n{tables}",
            self.address
        );
        Folder::with("umbel.toml", &text)
    }

    fn server(&self, limits: &str) -> (Folder, Server) {
        self.server_with(limits, "")
    }

    /// As [`server`](Provider::server), with more tables.
    fn server_with(&self, limits: &str, tables: &str) -> (Folder, Server) {
        let folder = self.folder(&format!("{limits}\n"), tables);
        let server = Server::start(&["--config", &folder.path("umbel.toml")]);
        (folder, server)
    }
}

/// Logins of the test that counts them. 5,000 are asked for by `scripts/test-long`.
fn logins() -> u64 {
    let count = std::env::var("UMBEL_LOGINS");
    count.map_or(200, |count| count.parse().expect("a number"))
}

fn status(server: &Server, token: &str) -> u16 {
    let line = format!("Authorization: Bearer {token}\r\n");
    let stream = connect(server.address(), 0);
    let (head, _) = WebSocket::offer_on(stream, "/ws/a", &line);
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    status.expect("a status")
}

#[test]
fn keys_rotate_and_stay_while_fetches_fail() {
    let provider = Provider::start();
    let (old, new) = (SigningKey::new("k1"), SigningKey::new("k2"));
    provider.serve(&[&old]);
    let (_folder, server) = provider.server("jwks_refresh_min_ms = 100");
    wait_until("the set is there", || status(&server, &old.token()) == 101);
    // Another's key of that name, and a name that stands in no set.
    assert_eq!(status(&server, &new.token_named("k1")), 401);
    // A set that is fetched then decides; where none may be fetched yet, nobody can.
    let asked = Cell::new(0);
    // A name that was looked for in vain asks for no fetch for ten seconds, so each time another is asked for.
    let unknown = || {
        asked.set(asked.get() + 1);
        status(
            &server,
            &new.token_named(&format!("unknown-{}", asked.get())),
        )
    };
    assert!([401, 503].contains(&unknown()));
    provider.serve(&[&old, &new]);
    wait_until("the new key is fetched", || {
        assert!([401, 503].contains(&unknown()));
        status(&server, &new.token()) == 101
    });
    assert_eq!(status(&server, &old.token()), 101);
    provider.serve(&[&new]);
    let before = provider.asked();
    wait_until("the old key is gone", || {
        assert!([401, 503].contains(&unknown()));
        status(&server, &old.token()) != 101
    });
    assert!(provider.asked() > before);
    provider.fail();
    let before = provider.asked();
    wait_until("a fetch fails", || {
        assert_eq!(unknown(), 503);
        provider.asked() > before + 1
    });
    assert_eq!(status(&server, &new.token()), 101, "{}", server.log());
    wait_until("it is told", || {
        server.log().contains("the keys fetched last stay")
    });
    let failed = server.metric("umbel_jwks_fetches_total{source=\"idp\",result=\"failed\"}");
    let ok = server.metric("umbel_jwks_fetches_total{source=\"idp\",result=\"ok\"}");
    assert!(failed >= 1.0 && ok >= 3.0, "{failed} {ok}");
}

#[test]
fn new_keys_are_waited_for_while_the_hook_hangs() {
    let provider = Provider::start();
    // For as long as the logins take.
    let hangs_ms = 2000 + 2 * logins();
    let app = App::start(move |_| Reaction::Hang(Duration::from_millis(hangs_ms + 1000)));
    let (old, new) = (SigningKey::new("k1"), SigningKey::new("k2"));
    provider.serve(&[&old]);
    let hook = format!(
        "[hook]\nurl = \"{}\"\nsubject_prefix = \"app:\"\ntimeout_ms = {hangs_ms}\n",
        app.url("/umbel")
    );
    let (_folder, server) = provider.server_with("jwks_refresh_min_ms = 100", &hook);
    wait_until("the set is there", || status(&server, &old.token()) == 101);
    let fetched = Instant::now();
    // More than the hook has threads.
    let mut hanging: Vec<_> = (0..40)
        .map(|_| {
            let mut wire = server.connect();
            wire.send(b"GET /sse/a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer opaque\r\n\r\n");
            wire
        })
        .collect();
    wait_until("the hook hangs", || app.asked().len() >= 32);
    wait_until("the next fetch may begin", || {
        fetched.elapsed() > Duration::from_millis(100)
    });
    provider.serve(&[&old, &new]);
    let begun = Instant::now();
    for number in 0..logins() {
        let key = if number % 2 == 0 { &new } else { &old };
        assert_eq!(status(&server, &key.token()), 101, "login {number}");
    }
    let took = begun.elapsed();
    println!("{} logins took {took:?}", logins());
    assert!(took < Duration::from_secs(2 + logins() / 200), "{took:?}");
    assert_eq!(hanging.remove(0).read_response().status, 503);
}

#[test]
fn unknown_names_ask_for_few_fetches() {
    let provider = Provider::start();
    let key = SigningKey::new("k1");
    provider.serve(&[&key]);
    let (_folder, server) = provider.server("");
    wait_until("the set is there", || status(&server, &key.token()) == 101);
    assert_eq!(provider.asked(), 1);
    for number in 0..1000 {
        let token = key.token_named(&format!("guess-{number}"));
        assert_eq!(status(&server, &token), 503);
    }
    assert_eq!(provider.asked(), 1);
    assert_eq!(status(&server, &key.token()), 101);
}

#[test]
fn old_keys_end_and_an_unchanged_set_is_not_sent_again() {
    let provider = Provider::start();
    let key = SigningKey::new("k1");
    provider.fail();
    let limits = "jwks_refresh_ms = 100\njwks_refresh_min_ms = 100\njwks_stale_max_ms = 500";
    let (_folder, server) = provider.server(limits);
    // It starts without keys, and cannot judge.
    assert_eq!(status(&server, &key.token()), 503);
    provider.serve(&[&key]);
    wait_until("the set is there", || status(&server, &key.token()) == 101);
    wait_until("nothing has changed", || {
        provider.unchanged.load(Ordering::Relaxed) > 1
    });
    assert_eq!(status(&server, &key.token()), 101);
    provider.fail();
    wait_until("the keys are too old", || {
        status(&server, &key.token()) == 503
    });
    wait_until("it is told", || server.log().contains("refused with 503"));
}

/// A copy serves a start without the network, and ends with the age of what it is a copy of.
#[test]
fn copy_outlives_the_process() {
    let provider = Provider::start();
    let key = SigningKey::new("k1");
    provider.serve(&[&key]);
    let folder = provider.folder("jwks_stale_max_ms = 3600000", "");
    let (config, state) = (folder.path("umbel.toml"), folder.path("state"));
    std::fs::create_dir(&state).expect("a folder");
    let start = || Server::start(&["--config", &config, "--state-directory", &state]);
    let copy = folder.path("state/jwks-idp.json");
    let server = start();
    wait_until("the set is there", || status(&server, &key.token()) == 101);
    wait_until("the copy is there", || std::fs::metadata(&copy).is_ok());
    drop(server);
    provider.fail();
    let server = start();
    wait_until("the copy is taken", || status(&server, &key.token()) == 101);
    wait_until("the fetch fails", || {
        server.log().contains("the keys fetched last stay")
    });
    assert_eq!(status(&server, &key.token()), 101);
    drop(server);
    let text = std::fs::read_to_string(&copy).expect("text");
    let mut kept: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let at = kept["fetched_at"].as_u64().expect("seconds");
    kept["fetched_at"] = (at - 3601).into();
    std::fs::write(&copy, kept.to_string()).expect("it is ours");
    let server = start();
    wait_until("the fetch fails", || {
        server.log().contains("refused with 503")
    });
    assert_eq!(status(&server, &key.token()), 503);
}

#[test]
fn changed_file_is_read_again() {
    let (old, new) = (SigningKey::new("old"), SigningKey::new("new"));
    let set = |keys: &[&SigningKey]| {
        let keys: Vec<_> = keys.iter().map(|key| key.jwk()).collect();
        json!({ "keys": keys }).to_string()
    };
    let text = "origins = [\"any\"]\n[[jwt]]\nname = \"idp\"\nalgorithms = [\"ES256\"]\njwks_file = \"keys.json\"\n\
                issuer = \"https://idp.example\"\naudience = [\"umbel\"]\n[limits]\ncertificate_check_ms = 50\n\
                auth_failures_per_address_per_minute = 0\n";
    let folder = Folder::with("umbel.toml", text);
    let (path, beside) = (folder.path("keys.json"), folder.path("keys.new"));
    let write = |text: &str| {
        std::fs::write(&beside, text).expect("written");
        std::fs::rename(&beside, &path).expect("renamed");
    };
    write(&set(&[&old]));
    let server = Server::start(&["--config", &folder.path("umbel.toml")]);
    assert_eq!(
        (status(&server, &old.token()), status(&server, &new.token())),
        (101, 401)
    );
    write(&set(&[&old, &new]));
    wait_until("the new key is there", || {
        status(&server, &new.token()) == 101
    });
    // What is no set, has no key that fits, or is not there leaves the keys as they are.
    let lines = |words: &str| server.log().matches(words).count();
    for (number, broken) in [Some("{"), Some(r#"{"keys":[]}"#), None].iter().enumerate() {
        let told = || lines("the keys read last stay");
        match broken {
            Some(text) => write(text),
            None => std::fs::remove_file(&path).expect("removed"),
        }
        wait_until("it is told", || told() == number + 1);
        for key in [&old, &new] {
            assert_eq!(status(&server, &key.token()), 101);
        }
        let read = lines("has changed");
        write(&format!("{}{}", set(&[&old, &new]), " ".repeat(number + 1)));
        wait_until("a set is there again", || lines("has changed") > read);
    }
    write(&set(&[&new]));
    wait_until("the old key is gone", || {
        status(&server, &old.token()) == 401
    });
    assert_eq!(status(&server, &new.token()), 101);
}

#[test]
fn start_without_the_keys_that_it_requires() {
    let provider = Provider::start();
    let folder = provider.folder("", "[identity]\njwks_required_at_start = true\n");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_umbel"));
    let path = folder.path("umbel.toml");
    let output = command
        .args(["--config", &path, "--listen", "127.0.0.1:0"])
        .output();
    let output = output.expect("it runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{told}");
    assert!(
        told.contains("jwks_required_at_start") && told.contains("idp"),
        "{told}"
    );
    let key = SigningKey::new("a");
    provider.serve(&[&key]);
    let server = Server::start(&["--config", &path]);
    assert_eq!(
        status(&server, &key.token()),
        101,
        "they were there from the first moment"
    );
}
