//! Certificates of a server that runs: their choice, their renewal, tickets, and those of clients.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, CertificateRevocationListParams, CertifiedIssuer, ExtendedKeyUsagePurpose,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use rustls_pki_types::CertificateDer;
use tungstenite::Message;

use super::support::{Server, wait_until};
use super::tls::{Certificate, TlsServer, connect};

/// An authority of a test, and what it signs, in a folder.
struct Authority {
    folder: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&folder).expect("a folder can be made");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority");
        let authority = Authority { folder, issuer };
        fs::write(authority.path("ca.pem"), authority.issuer.pem()).expect("writable");
        authority
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Writes a certificate for these hosts, whose files are called so. They take the place of older ones at once.
    fn sign(&self, name: &str, hosts: &[&str], change: impl FnOnce(&mut CertificateParams)) {
        let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).expect("names of hosts");
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let leaf = params.signed_by(&key, &self.issuer).expect("a certificate");
        for (end, text) in [("key", key.serialize_pem()), ("pem", leaf.pem())] {
            let beside = self.path(&format!("{name}.{end}.new"));
            fs::write(&beside, text).expect("writable");
            fs::rename(&beside, self.path(&format!("{name}.{end}"))).expect("it can be renamed");
        }
    }

    /// Writes the list of the certificates that it has revoked, by their serial numbers.
    fn revoke(&self, list: u64, serials: &[u64]) {
        let (now, day) = (SystemTime::now(), Duration::from_secs(86_400));
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: now.into(),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: now.into(),
            next_update: (now + day).into(),
            crl_number: SerialNumber::from(list),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer).expect("a list");
        let text = list.pem().expect("PEM");
        put(&self.folder.join("revoked.pem"), text);
    }

    /// As `--certificate` takes the files of a certificate.
    fn flag(&self, name: &str) -> String {
        let (certificate, key) = (format!("{name}.pem"), format!("{name}.key"));
        format!("{},{}", self.path(&certificate), self.path(&key))
    }

    /// A client that trusts it.
    fn client(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("an authority");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .expect("versions");
        Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
    }
}

/// The certificate that a server shows to a new connection.
fn shown(address: SocketAddr, client: &Arc<ClientConfig>) -> CertificateDer<'static> {
    let mut fresh = ClientConfig::clone(client);
    fresh.resumption = rustls::client::Resumption::disabled();
    let mut stream = connect(address, Arc::new(fresh));
    stream
        .conn
        .complete_io(&mut stream.sock)
        .expect("a handshake");
    stream.conn.peer_certificates().expect("certificates")[0]
        .clone()
        .into_owned()
}

/// Puts a file in the place of another at once.
fn put(path: &Path, bytes: impl AsRef<[u8]>) {
    let beside = path.with_extension("new");
    fs::write(&beside, bytes).expect("writable");
    fs::rename(&beside, path).expect("it can be renamed");
}

#[test]
fn renewal_without_a_signal() {
    let server = TlsServer::start("tls-renewal", &["--certificate-check-ms", "50"]);
    let mut old = server.websocket("/ws/news");
    let reloads = |result: &str| {
        server.metric(&format!(
            "umbel_tls_certificate_reloads_total{{result=\"{result}\"}}"
        ))
    };
    assert_eq!((reloads("succeeded"), reloads("failed")), (0, 0));
    let end =
        server.metric("umbel_tls_certificate_not_after_timestamp_seconds{name=\"localhost\"}");
    assert!(end > 1_700_000_000, "{end}");
    // A key that is of no certificate there: all stays as it was, and the server goes on.
    let key = KeyPair::generate().expect("a key").serialize_pem();
    let kept = fs::read(&server.certificate.key_file).expect("it is there");
    put(&server.certificate.key_file, key);
    wait_until("the wrong key is told", || reloads("failed") > 0);
    wait_until("the log says why", || {
        let log = server.server.log();
        log.contains("is not that of the certificate")
    });
    put(&server.certificate.key_file, kept);
    wait_until("the right key is taken", || reloads("succeeded") == 1);
    let before = shown(
        server.server.address(),
        &Arc::new(server.certificate.client()),
    );
    let renewed = Certificate::write("tls-renewal");
    let client = Arc::new(renewed.client());
    wait_until("the new certificate is shown", || {
        let mut stream = connect(server.server.address(), Arc::clone(&client));
        stream.conn.complete_io(&mut stream.sock).is_ok()
    });
    assert_ne!(shown(server.server.address(), &client), before);
    // The stream from before goes on.
    old.send(Message::text("still here")).expect("it is open");
    assert_eq!(old.read().expect("it is open"), Message::text("still here"));
}

#[test]
fn certificate_by_host_for_openssl() {
    let authority = Authority::new("tls-hosts");
    authority.sign("one", &["one.example"], |_| {});
    authority.sign("two", &["two.example", "*.two.example"], |_| {});
    let files = format!("{};{}", authority.flag("one"), authority.flag("two"));
    let server = |strict: &str| {
        Server::start(&[
            "--listen",
            "https://127.0.0.1:0",
            "--certificate",
            &files,
            "--sni-strict",
            strict,
            "--publish",
            "anyone",
            "--subscribe",
            "anyone",
            "--origin",
            "any",
        ])
    };
    let asked = |server: &Server, name: &str| {
        let place = server.address().to_string();
        let mut arguments = vec!["s_client", "-connect", &place];
        match name {
            "" => arguments.push("-noservername"),
            name => arguments.extend(["-servername", name]),
        }
        let mut command = Command::new("openssl");
        let output = command.args(&arguments).stdin(Stdio::null()).output();
        let output = output.expect("openssl is on this machine");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let lenient = server("false");
    for (name, subject) in [
        ("one.example", "CN = one"),
        ("two.example", "CN = two"),
        ("A.Two.Example", "CN = two"),
        ("a.b.two.example", "CN = one"),
        ("other.example", "CN = one"),
        ("", "CN = one"),
    ] {
        let text = asked(&lenient, name);
        assert!(
            text.contains(&format!("subject={subject}")),
            "{name}: {text}"
        );
    }
    let strict = server("true");
    for (name, is_known) in [
        ("b.two.example", true),
        ("other.example", false),
        ("", false),
    ] {
        let text = asked(&strict, name);
        assert_eq!(
            text.contains("unrecognized name"),
            !is_known,
            "{name}: {text}"
        );
        assert_eq!(
            text.contains("subject=CN = two"),
            is_known,
            "{name}: {text}"
        );
    }
}

#[test]
fn tickets_of_another_node() {
    let authority = Authority::new("tls-tickets");
    authority.sign("node", &["localhost"], |_| {});
    let keys = authority.path("keys");
    fs::write(&keys, [7; 80]).expect("writable");
    let files = authority.flag("node");
    let node = || {
        Server::start(&[
            "--listen",
            "https://127.0.0.1:0",
            "--certificate",
            &files,
            "--tls-ticket-key-file",
            &keys,
            "--certificate-check-ms",
            "50",
            "--publish",
            "anyone",
            "--subscribe",
            "anyone",
            "--origin",
            "any",
        ])
    };
    let (one, other) = (node(), node());
    let client = authority.client();
    let kind = |server: &Server| {
        let mut stream = connect(server.address(), Arc::clone(&client));
        let request = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        std::io::Write::write_all(&mut stream, request).expect("it reads");
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut stream, &mut answer).expect("an answer");
        stream.conn.handshake_kind().expect("it is made")
    };
    assert_eq!(kind(&one), HandshakeKind::Full);
    assert_eq!(kind(&other), HandshakeKind::Resumed);
    // A new key seals, and the old one still opens.
    fs::write(&keys, [[8; 80], [7; 80]].concat()).expect("writable");
    let is_read = |server: &Server| server.log().contains("were read anew");
    wait_until("both nodes read the keys", || {
        is_read(&one) && is_read(&other)
    });
    assert_eq!(kind(&one), HandshakeKind::Resumed);
    assert_eq!(kind(&other), HandshakeKind::Resumed);
    let third = node();
    fs::write(&keys, [9; 80]).expect("writable");
    let count = |server: &Server| server.log().matches("were read anew").count();
    wait_until("the first node reads the keys", || count(&one) == 2);
    assert_eq!(kind(&one), HandshakeKind::Full, "the key is gone");
    drop(third);
}

/// `curl` to a server with this certificate, if one: the status and the body, or what curl says.
fn curl(authority: &Authority, server: &Server, certificate: Option<&str>, path: &str) -> String {
    let mut command = Command::new("curl");
    command.args([
        "-sS",
        "--max-time",
        "20",
        "-w",
        " %{http_code}",
        "--data",
        "x",
    ]);
    command.args(["--cacert", &authority.path("ca.pem")]);
    if let Some(name) = certificate {
        let files = [format!("{name}.pem"), format!("{name}.key")];
        let [certificate, key] = files.map(|file| authority.path(&file));
        command.args(["--cert", &certificate, "--key", &key]);
    }
    command.arg(format!(
        "https://localhost:{}{path}",
        server.address().port()
    ));
    let output = command.output().expect("curl is on this machine");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
fn client_certificates_admit_and_identify() {
    let authority = Authority::new("tls-clients");
    let of_client = |name: &'static str| {
        move |params: &mut CertificateParams| {
            let uri = format!("urn:{name}").as_str().try_into().expect("ASCII");
            params.subject_alt_names.push(SanType::URI(uri));
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        }
    };
    authority.sign("server", &["localhost"], |_| {});
    authority.sign("one", &[], of_client("one"));
    let day = Duration::from_secs(86_400);
    authority.sign("old", &[], |params| {
        of_client("old")(params);
        params.not_before = (SystemTime::now() - 9 * day).into();
        params.not_after = (SystemTime::now() - day).into();
    });
    let stranger = Authority::new("tls-clients-of-others");
    stranger.sign("stranger", &[], of_client("one"));
    for end in ["pem", "key"] {
        let name = format!("stranger.{end}");
        fs::copy(stranger.path(&name), authority.path(&name)).expect("a copy");
    }
    let start = |auth: &str| {
        let config = format!(
            "publish = \"nobody\"\nsubscribe = \"nobody\"\norigins = []\n\
             [[listener]]\naddress = \"127.0.0.1:0\"\ntls = true\nclient_auth = \"{auth}\"\nclient_ca_file = \"ca.pem\"\n\
             client_identity = \"subject-cn\"\n\
             [[certificate]]\ncertificate_file = \"server.pem\"\nkey_file = \"server.key\"\n\
             [[grant]]\nwhen = {{ source = \"certificate\", subject = true }}\npublish = [\"from/{{sub}}\"]\n"
        );
        let path = authority.path(&format!("{auth}.toml"));
        fs::write(&path, config).expect("writable");
        Server::start(&["--config", &path])
    };
    let required = start("required");
    let to = |certificate, path| curl(&authority, &required, certificate, path);
    let answer = to(Some("one"), "/pub/from/one");
    assert!(answer.ends_with(" 200"), "{answer}");
    let answer = to(Some("one"), "/pub/from/two");
    assert!(answer.ends_with(" 403"), "{answer}");
    for certificate in [None, Some("old"), Some("stranger")] {
        let answer = to(certificate, "/pub/from/one");
        assert!(
            !answer.contains(" 200") && answer.contains(" 000"),
            "{certificate:?}: {answer}"
        );
    }
    let optional = start("optional");
    let to = |certificate, path| curl(&authority, &optional, certificate, path);
    assert!(to(Some("one"), "/pub/from/one").ends_with(" 200"));
    let answer = to(None, "/pub/from/one");
    assert!(answer.ends_with(" 401"), "{answer}");
    assert!(to(Some("stranger"), "/pub/from/one").contains(" 000"));
}

/// A list that is renewed holds without a signal.
#[test]
fn revoked_client_certificates_are_refused() {
    let authority = Authority::new("tls-revoked");
    let of_client = |serial: u64| {
        move |params: &mut CertificateParams| {
            params.serial_number = Some(SerialNumber::from(serial));
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        }
    };
    authority.sign("server", &["localhost"], |_| {});
    authority.sign("one", &[], of_client(4001));
    authority.sign("two", &[], of_client(4002));
    authority.revoke(1, &[4001]);
    let config = "publish = \"anyone\"\nsubscribe = \"anyone\"\nobserve = \"anyone\"\norigins = []\n\
                  [limits]\ncertificate_check_ms = 50\n\
                  [[listener]]\naddress = \"127.0.0.1:0\"\ntls = true\nclient_auth = \"required\"\n\
                  client_ca_file = \"ca.pem\"\nclient_crl_file = \"revoked.pem\"\n\
                  [[certificate]]\ncertificate_file = \"server.pem\"\nkey_file = \"server.key\"\n";
    let path = authority.path("umbel.toml");
    fs::write(&path, config).expect("writable");
    let server = Server::start(&["--config", &path]);
    let is_let_in = |name| curl(&authority, &server, Some(name), "/pub/a").ends_with(" 200");
    assert_eq!((is_let_in("one"), is_let_in("two")), (false, true));
    authority.revoke(2, &[4001, 4002]);
    wait_until("the other one is revoked", || !is_let_in("two"));
    authority.revoke(3, &[4002]);
    wait_until("the first one is not any more", || is_let_in("one"));
    assert!(!is_let_in("two"));
}

#[test]
fn commands_are_clients_of_tls() {
    let server = TlsServer::start("tls-commands", &["--topic-rule", "news history=9"]);
    let place = format!("https://localhost:{}", server.server.address().port());
    let own = server.certificate.certificate_file.display().to_string();
    let umbel = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_umbel"));
        let output = command.args(arguments).output().expect("it can be started");
        let code = output.status.code();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (code, text)
    };
    let good = ["--server", &*place, "--ca", &*own];
    let with = |arguments: &[&str]| umbel(&[arguments, &good[..]].concat());
    assert_eq!(with(&["pub", "news", "one"]), (Some(0), String::new()));
    assert_eq!(with(&["history", "news"]), (Some(0), "one\n".to_owned()));
    assert_eq!(
        with(&["sub", "-n", "1", "news?last=1"]),
        (Some(0), "one\n".to_owned())
    );
    let (code, text) = with(&["sub", "-n", "1", "news?last=1", "other"]);
    assert_eq!((code, &*text), (Some(0), "news\tone\n"));
    let events = format!("{place}/sse/news?last=1");
    let (code, text) = umbel(&["sub", "-n", "1", &events, "--ca", &own]);
    assert_eq!((code, &*text), (Some(0), "one\n"));
    let wss = format!("wss://localhost:{}/ws/news", server.server.address().port());
    assert_eq!(
        umbel(&["pub", &wss, "two", "--insecure-tls"]),
        (Some(0), String::new())
    );
    let (code, text) = umbel(&[
        "bench", "fanout", &wss, "--ca", &own, "-c", "5", "--count", "20", "--warmup", "0s",
    ]);
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = umbel(&["pub", "--server", &place, "news", "x"]);
    assert_eq!(code, Some(1));
    assert!(
        text.contains("not trusted here: name its certificate with --ca"),
        "{text}"
    );
}
