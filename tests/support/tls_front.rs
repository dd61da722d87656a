//! A front that speaks TLS with a server, so that tests of plain HTTP and WebSockets run over its TLS too.
//!
//! With `UMBEL_TEST_TLS=1` each server that a test starts without a listener of its own has one with TLS alone, and the test
//! speaks with this front. What a test says of addresses, ports and socket options is of the front then.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::thread;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use socket2::{Domain, Socket, Type};

/// Bytes that the front holds in the kernel for each side.
const BUFFER_BYTES: usize = 16 * 1024;

/// Whether servers are to be tested over TLS.
pub fn is_wanted() -> bool {
    std::env::var_os("UMBEL_TEST_TLS").is_some()
}

/// Files of a certificate for `localhost` and of its key, which are made once.
pub fn certificate() -> (PathBuf, PathBuf) {
    static MADE: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let name = |kind| folder.join(format!("front-{}-{kind}.pem", std::process::id()));
        let (certificate, key) = (name("certificate"), name("key"));
        // A certificate of its own configuration is that of an authority, which no server has.
        let settings = name("settings");
        let text = "[req]\ndistinguished_name=dn\nx509_extensions=v3\nprompt=no\n[dn]\nCN=localhost\n\
                    [v3]\nbasicConstraints=CA:FALSE\nsubjectAltName=DNS:localhost\n";
        fs::write(&settings, text).expect("it can be written");
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
            .args(["-nodes", "-days", "30", "-config"])
            .arg(&settings)
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .output();
        let made = made.expect("openssl is on this machine");
        assert!(made.status.success(), "{made:?}");
        (certificate, key)
    });
    made.clone()
}

/// Settings of a client that trusts it alone.
fn client() -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let der = CertificateDer::from_pem_file(certificate().0).expect("it is PEM");
    roots.add(der).expect("it is a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// Listens, and hands all that comes to a server, over TLS. It ends with the test.
pub fn start(server: SocketAddr) -> SocketAddr {
    let config = client();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let config = Arc::clone(&config);
            thread::spawn(move || carry(&stream, server, config));
        }
    });
    address
}

/// One connection of both sides.
struct Both {
    plain: TcpStream,
    tls: TcpStream,
    connection: Mutex<ClientConnection>,
    /// Whoever sends records holds it, for they are sent in the order in which they were made.
    sending: Mutex<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("never left locked")
}

fn connect(server: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
    socket.set_recv_buffer_size(BUFFER_BYTES)?;
    socket.connect(&server.into())?;
    Ok(socket.into())
}

fn carry(plain: &TcpStream, server: SocketAddr, config: Arc<ClientConfig>) {
    // The server may be gone, and then the test hears of it.
    let Ok(mut tls) = connect(server) else {
        return reset(plain);
    };
    // A reader that stops is to be felt behind the front.
    let sized = socket2::SockRef::from(plain).set_send_buffer_size(BUFFER_BYTES);
    sized.expect("settable");
    let name = ServerName::try_from("localhost").expect("a name");
    let mut connection = ClientConnection::new(config, name).expect("a client");
    connection.set_buffer_limit(None);
    for stream in [plain, &tls] {
        let _ = stream.set_nodelay(true);
    }
    if connection.complete_io(&mut tls).is_err() {
        return reset(plain);
    }
    let both = Arc::new(Both {
        plain: plain.try_clone().expect("a socket"),
        tls,
        connection: Mutex::new(connection),
        sending: Mutex::new(()),
    });
    let other = Arc::clone(&both);
    let up = thread::spawn(move || other.carry_up());
    both.carry_down();
    let _ = up.join();
}

impl Both {
    fn carry_up(&self) {
        let mut chunk = vec![0; 65_536];
        loop {
            match (&self.plain).read(&mut chunk) {
                Ok(0) => {
                    self.send(|connection| connection.send_close_notify());
                    let _ = self.tls.shutdown(Shutdown::Write);
                    return;
                }
                Ok(count) => {
                    let is_sent = self.send(|connection| {
                        let mut rest = &chunk[..count];
                        while let Ok(taken) = connection.writer().write(rest)
                            && taken > 0
                        {
                            rest = &rest[taken..];
                        }
                    });
                    if !is_sent {
                        return reset(&self.plain);
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return reset(&self.tls),
            }
        }
    }

    fn carry_down(&self) {
        let mut chunk = vec![0; 65_536];
        loop {
            let count = match (&self.tls).read(&mut chunk) {
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return reset(&self.plain),
            };
            let (mut plaintext, mut is_over) = (Vec::new(), count == 0);
            let mut rest = &chunk[..count];
            {
                let mut connection = lock(&self.connection);
                while !rest.is_empty() && !is_over {
                    is_over = !matches!(connection.read_tls(&mut rest), Ok(1..));
                    let Ok(state) = connection.process_new_packets() else {
                        return reset(&self.plain);
                    };
                    is_over |= state.peer_has_closed();
                    // WouldBlock: there is no more.
                    let _ = connection.reader().read_to_end(&mut plaintext);
                }
            }
            if (&self.plain).write_all(&plaintext).is_err() {
                return reset(&self.tls);
            }
            if is_over {
                let _ = self.plain.shutdown(Shutdown::Write);
                return;
            }
        }
    }

    /// Makes records, and sends them.
    fn send(&self, make: impl FnOnce(&mut ClientConnection)) -> bool {
        let _sending = lock(&self.sending);
        let mut records = Vec::new();
        {
            let mut connection = lock(&self.connection);
            make(&mut connection);
            while connection.wants_write() {
                connection.write_tls(&mut records).expect("memory");
            }
        }
        (&self.tls).write_all(&records).is_ok()
    }
}

/// Ends a connection as the other side was ended.
fn reset(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
    let _ = stream.shutdown(Shutdown::Both);
}
