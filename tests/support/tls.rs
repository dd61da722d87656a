//! Servers and clients that speak TLS.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tungstenite::WebSocket;

use super::{PATIENCE, Server};

/// A certificate for `localhost` and 127.0.0.1, signed by itself, as files.
pub struct Certificate {
    pub certificate_file: PathBuf,
    pub key_file: PathBuf,
}

impl Certificate {
    /// Writes one into a folder of this name.
    pub fn write(name: &str) -> Certificate {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&folder).expect("a folder can be made");
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        let files = Certificate {
            certificate_file: folder.join("certificate.pem"),
            key_file: folder.join("key.pem"),
        };
        fs::write(&files.certificate_file, made.cert.pem()).expect("it can be written");
        fs::write(&files.key_file, made.signing_key.serialize_pem()).expect("it can be written");
        files
    }

    /// As `--certificate` takes it.
    pub fn flag(&self) -> String {
        let (certificate, key) = (self.certificate_file.display(), self.key_file.display());
        format!("{certificate},{key}")
    }

    /// Settings of a client that trusts it alone.
    pub fn client(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        let der = CertificateDer::from_pem_file(&self.certificate_file).expect("it is PEM");
        roots.add(der).expect("it is a certificate");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth()
    }
}

/// A TLS connection of a client, which blocks.
pub type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// A server with one listener, which speaks TLS.
pub struct TlsServer {
    pub server: Server,
    pub certificate: Certificate,
    config: Arc<ClientConfig>,
}

impl TlsServer {
    /// Starts one with these flags; open to everybody.
    pub fn start(name: &str, flags: &[&str]) -> TlsServer {
        TlsServer::start_on(name, &["--listen", "https://127.0.0.1:0"], flags)
    }

    /// As [`start`](TlsServer::start), with these listeners.
    pub fn start_on(name: &str, listeners: &[&str], flags: &[&str]) -> TlsServer {
        let certificate = Certificate::write(name);
        let files = certificate.flag();
        let open = ["--publish", "anyone", "--subscribe", "anyone"];
        let open = open
            .iter()
            .chain(&["--observe", "anyone", "--origin", "any"]);
        let mut all: Vec<&str> = vec!["--certificate", &files];
        all.extend(listeners);
        all.extend(open);
        all.extend(flags);
        TlsServer {
            server: Server::start(&all),
            config: Arc::new(certificate.client()),
            certificate,
        }
    }

    /// A connection whose handshake is yet to come.
    pub fn connect(&self) -> TlsStream {
        self.connect_as(Arc::clone(&self.config))
    }

    /// A connection with other settings.
    pub fn connect_as(&self, config: Arc<ClientConfig>) -> TlsStream {
        connect(self.server.address(), config)
    }

    /// A WebSocket.
    pub fn websocket(&self, target: &str) -> WebSocket<TlsStream> {
        let url = format!("wss://localhost{target}");
        let (websocket, _) =
            tungstenite::client(url, self.connect()).expect("the server agrees to the upgrade");
        websocket
    }

    /// Sends a request on a connection of its own, and reads the answer to the end.
    pub fn request(&self, request: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = Vec::new();
        stream
            .read_to_end(&mut answer)
            .expect("it answers, and ends by close_notify");
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Gets a target; the answer as it is on the wire.
    pub fn get(&self, target: &str) -> String {
        self.request(&format!(
            "GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        ))
    }

    /// Publishes.
    pub fn publish(&self, topic: &str, body: &str) {
        let answer = self.request(&format!(
            "POST /pub/{topic} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }

    /// One sample of `/metrics`, 0 if it is not there.
    pub fn metric(&self, name: &str) -> u64 {
        let answer = self.get("/metrics");
        let line = answer
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().expect("a whole number"))
    }
}

/// A connection to an address, in the name of `localhost`.
pub fn connect(address: SocketAddr, config: Arc<ClientConfig>) -> TlsStream {
    let stream = TcpStream::connect(address).expect("the server accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("settable");
    stream.set_write_timeout(Some(PATIENCE)).expect("settable");
    stream.set_nodelay(true).expect("settable");
    let name = ServerName::try_from("localhost").expect("a name");
    let client = ClientConnection::new(config, name).expect("a client");
    StreamOwned::new(client, stream)
}
