//! TLS of the floor: a bare loop that seals and sends one by one, or one over rustls.

use std::io::{self, Read, Write};
use std::sync::Arc;

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use mio::net::TcpStream;
use rustls::{ConnectionTrafficSecrets, ServerConfig, ServerConnection};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

const HEAD_BYTES: usize = 5;
const FRAGMENT_BYTES_MAX: usize = 1 << 14;

/// Content type of application data.
const DATA: u8 = 23;

/// Terms of handshakes, and what comes behind them.
pub struct Terms {
    config: Arc<ServerConfig>,
    /// rustls carries a connection to its end.
    is_rustls: bool,
}

impl Terms {
    /// Terms with the certificate and the key in these files. TLS 1.3 alone, so that there is one kind of record.
    pub fn read(certificate: &str, key: &str, is_rustls: bool) -> Terms {
        let chain = CertificateDer::pem_file_iter(certificate).expect("a file in PEM");
        let chain = chain.collect::<Result<Vec<_>, _>>().expect("certificates");
        let key = PrivateKeyDer::from_pem_file(key).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("a version")
            .with_no_client_auth()
            .with_single_cert(chain, key);
        let mut config = config.expect("a pair");
        config.enable_secret_extraction = !is_rustls;
        Terms {
            config: Arc::new(config),
            is_rustls,
        }
    }

    /// A connection of which nothing has come.
    pub fn begin(&self) -> io::Result<Tls> {
        let connection = ServerConnection::new(Arc::clone(&self.config));
        let connection = Box::new(connection.map_err(io::Error::other)?);
        Ok(Tls(match self.is_rustls {
            true => Carrier::Rustls(connection),
            false => Carrier::Handshake(Some(connection)),
        }))
    }
}

/// TLS of one connection.
pub struct Tls(Carrier);

enum Carrier {
    /// rustls, from the first byte to the last.
    Rustls(Box<ServerConnection>),
    /// rustls, until the keys are agreed on.
    Handshake(Option<Box<ServerConnection>>),
    /// The keys alone.
    Sealed(Box<Sealed>),
}

impl Tls {
    /// Reads plaintext. WouldBlock: nothing of it has come.
    pub fn read(&mut self, socket: &mut TcpStream, into: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Carrier::Rustls(connection) => read_by_rustls(connection, socket, into),
            Carrier::Handshake(connection) => {
                let Some(agreed) = connection else {
                    return Err(io::ErrorKind::NotConnected.into());
                };
                let outcome = read_by_rustls(agreed, socket, into);
                let is_done = !agreed.is_handshaking() && !agreed.wants_write();
                if is_done && let Some(agreed) = connection.take() {
                    self.0 = Carrier::Sealed(Box::new(Sealed::of(*agreed)?));
                }
                outcome
            }
            Carrier::Sealed(sealed) => sealed.read(socket, into),
        }
    }

    /// Sends what the socket takes at once. `records` is room for them.
    pub fn send(&mut self, socket: &mut TcpStream, bytes: &[u8], records: &mut Vec<u8>) {
        match &mut self.0 {
            Carrier::Rustls(connection) => {
                let _ = connection.writer().write(bytes);
                let _ = connection.write_tls(socket);
            }
            Carrier::Handshake(_) => {}
            Carrier::Sealed(sealed) => {
                sealed.sealer.seal(bytes, records);
                let _ = socket.write(records);
            }
        }
    }
}

fn read_by_rustls(
    connection: &mut ServerConnection,
    socket: &mut TcpStream,
    into: &mut [u8],
) -> io::Result<usize> {
    let mut filled = 0;
    loop {
        match connection.read_tls(socket) {
            Ok(0) => return Ok(filled),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
        connection.process_new_packets().map_err(io::Error::other)?;
        match connection.reader().read(&mut into[filled..]) {
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        while connection.wants_write() {
            connection.write_tls(socket)?;
        }
    }
    match filled {
        0 => Err(io::ErrorKind::WouldBlock.into()),
        filled => Ok(filled),
    }
}

/// The keys of both directions.
struct Sealed {
    sealer: Direction,
    opener: Direction,
}

impl Sealed {
    fn of(agreed: ServerConnection) -> io::Result<Sealed> {
        let secrets = agreed.dangerous_extract_secrets();
        let secrets = secrets.map_err(io::Error::other)?;
        Ok(Sealed {
            sealer: Direction::of(secrets.tx)?,
            opener: Direction::of(secrets.rx)?,
        })
    }

    /// Receives once, and opens what came.
    fn read(&mut self, socket: &mut TcpStream, into: &mut [u8]) -> io::Result<usize> {
        let count = socket.read(into)?;
        let (mut at, mut filled) = (0, 0);
        while at < count {
            let (length, plaintext) = self.opener.open(&mut into[at..count])?;
            into.copy_within(at + HEAD_BYTES..at + HEAD_BYTES + plaintext, filled);
            filled += plaintext;
            at += length;
        }
        Ok(filled)
    }
}

/// Key of one direction, and the number of its next record.
struct Direction {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

impl Direction {
    fn of((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> io::Result<Direction> {
        let (algorithm, key, iv) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(io::ErrorKind::Unsupported.into()),
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(io::Error::other)?;
        Ok(Direction {
            key: LessSafeKey::new(key),
            iv: iv.as_ref().try_into().map_err(io::Error::other)?,
            sequence,
        })
    }

    fn next_nonce(&mut self) -> Nonce {
        let mut nonce = self.iv;
        for (byte, of_sequence) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= of_sequence;
        }
        self.sequence += 1;
        Nonce::assume_unique_for_key(nonce)
    }

    /// Puts the records of these bytes into `out`, in place of what is there.
    fn seal(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        out.clear();
        for fragment in bytes.chunks(FRAGMENT_BYTES_MAX) {
            let [high, low] = ((fragment.len() + 1 + 16) as u16).to_be_bytes();
            let head = [DATA, 3, 3, high, low];
            out.extend_from_slice(&head);
            let from = out.len();
            out.extend_from_slice(fragment);
            out.push(DATA);
            let nonce = self.next_nonce();
            let sealed =
                self.key
                    .seal_in_place_separate_tag(nonce, Aad::from(head), &mut out[from..]);
            let tag = sealed.expect("a record's length");
            out.extend_from_slice(tag.as_ref());
        }
    }

    /// Opens the record at the front of these bytes: its length, and that of the data in it.
    fn open(&mut self, bytes: &mut [u8]) -> io::Result<(usize, usize)> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        let head = *bytes.first_chunk::<HEAD_BYTES>().ok_or_else(invalid)?;
        let length = HEAD_BYTES + usize::from(u16::from_be_bytes([head[3], head[4]]));
        let record = bytes.get_mut(HEAD_BYTES..length).ok_or_else(invalid)?;
        let nonce = self.next_nonce();
        let opened = self.key.open_in_place(nonce, Aad::from(head), record);
        let opened = opened.map_err(io::Error::other)?;
        let end = opened.iter().rposition(|&byte| byte != 0);
        let end = end.ok_or_else(invalid)?;
        match opened[end] {
            DATA => Ok((length, end)),
            _ => Ok((length, 0)),
        }
    }
}
