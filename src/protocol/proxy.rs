//! Headers of the PROXY protocol, versions 1 and 2: a load balancer says who the client of a connection is, before all else.
//!
//! Bytes in, a header out. Nothing is believed here: whether its sender may say such a thing is asked before.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Most bytes of a header of either version.
pub const HEADER_BYTES_MAX: usize = 2048;

/// Most bytes of a header of version 1, with its line end.
const LINE_BYTES_MAX: usize = 107;

/// How a header of version 1 begins.
const LINE_BEGIN: &[u8] = b"PROXY ";

/// How a header of version 2 begins.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Bytes of version 2 before the addresses.
const FIXED_BYTES: usize = 16;

/// Most bytes of a unique id.
const UNIQUE_ID_BYTES_MAX: usize = 128;

/// A whole header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header<'a> {
    /// Its length in bytes. What follows is the client's.
    pub length: usize,
    /// Address of the client. None: that of the socket stands, as for a health check of the load balancer itself.
    pub client: Option<SocketAddr>,
    /// Whether the client speaks TLS with the load balancer.
    pub is_secure: bool,
    /// Name of the connection, by which the load balancer logs it.
    pub unique_id: Option<&'a [u8]>,
}

/// Fault of bytes that are to be a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Malformed {}

/// Reads a header off the front of what has arrived. None: more of it is to come.
///
/// # Errors
/// The bytes begin no header, or one that is malformed or over [`HEADER_BYTES_MAX`].
pub fn parse(bytes: &[u8]) -> Result<Option<Header<'_>>, Malformed> {
    let begins = |whole: &[u8]| {
        let length = whole.len().min(bytes.len());
        bytes[..length] == whole[..length]
    };
    if begins(SIGNATURE) {
        return parse_binary(bytes);
    }
    if begins(LINE_BEGIN) {
        return parse_line(bytes);
    }
    Err(Malformed("there is no PROXY header"))
}

fn parse_line(bytes: &[u8]) -> Result<Option<Header<'_>>, Malformed> {
    let seen = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let Some(end) = seen.iter().position(|&byte| byte == b'\n') else {
        return match seen.len() < LINE_BYTES_MAX {
            true => Ok(None),
            false => Err(Malformed("the line is longer than 107 bytes")),
        };
    };
    let line = seen[..end].strip_suffix(b"\r");
    let line = line.filter(|line| !line.contains(&b'\r'));
    let line = line.ok_or(Malformed("the line does not end in CRLF"))?;
    let line = std::str::from_utf8(&line[LINE_BEGIN.len()..]);
    let line = line.map_err(|_| Malformed("the line is not text"))?;
    let client = match line.split_once(' ') {
        Some(("TCP4", addresses)) => Some(line_client::<Ipv4Addr>(addresses)?),
        Some(("TCP6", addresses)) => Some(line_client::<Ipv6Addr>(addresses)?),
        _ if line.starts_with("UNKNOWN") => None,
        _ => return Err(Malformed("the line is of none of TCP4, TCP6 and UNKNOWN")),
    };
    Ok(Some(Header {
        length: end + 1,
        client,
        ..Header::default()
    }))
}

/// The source of `SRC DST SPORT DPORT`, all of which have to be right.
fn line_client<A>(addresses: &str) -> Result<SocketAddr, Malformed>
where
    A: std::str::FromStr + Into<IpAddr>,
{
    let mut words = addresses.split(' ');
    let mut word = || words.next().unwrap_or_default();
    let addresses = (word().parse::<A>(), word().parse::<A>());
    let ports = (line_port(word()), line_port(word()));
    match (addresses, ports, words.next()) {
        ((Ok(source), Ok(_)), (Some(port), Some(_)), None) => Ok(canonical(source.into(), port)),
        _ => Err(Malformed(
            "the line has no two addresses of its family and two ports",
        )),
    }
}

fn line_port(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let is_plain = text == "0" || !text.starts_with('0');
    text.parse().ok().filter(|_| is_number && is_plain)
}

/// An IPv4 address in the form of IPv6 becomes what it is.
fn canonical(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address.to_canonical(), port)
}

fn parse_binary(bytes: &[u8]) -> Result<Option<Header<'_>>, Malformed> {
    let is_local = match bytes.get(SIGNATURE.len()) {
        None => return Ok(None),
        Some(0x20) => true,
        Some(0x21) => false,
        Some(_) => {
            return Err(Malformed(
                "its version is not 2, or its command is neither LOCAL nor PROXY",
            ));
        }
    };
    let Some((fixed, rest)) = bytes.split_at_checked(FIXED_BYTES) else {
        return Ok(None);
    };
    let length = FIXED_BYTES + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if length > HEADER_BYTES_MAX {
        return Err(Malformed("it is longer than 2,048 bytes"));
    }
    let Some(block) = rest.get(..length - FIXED_BYTES) else {
        return Ok(None);
    };
    let mut header = Header {
        length,
        ..Header::default()
    };
    // Of the load balancer's own connections the rest is to be passed over.
    if is_local {
        return Ok(Some(header));
    }
    let addresses_length = match fixed[13] {
        0x00 => 0,
        0x11 | 0x12 => 12,
        0x21 | 0x22 => 36,
        0x31 | 0x32 => 216,
        _ => return Err(Malformed("its address family is not known")),
    };
    let (addresses, mut values) = block
        .split_at_checked(addresses_length)
        .ok_or(Malformed("it is too short for its addresses"))?;
    header.client = binary_client(fixed[13], addresses);
    let (mut has_checksum, mut has_tls) = (false, false);
    while !values.is_empty() {
        let (kind, value, behind) = next_value(values)?;
        match kind {
            0x03 => {
                let at = length - behind.len() - value.len();
                if std::mem::replace(&mut has_checksum, true)
                    || !is_intact(&bytes[..length], at, value)
                {
                    return Err(Malformed("its checksum is wrong"));
                }
            }
            0x05 if value.len() > UNIQUE_ID_BYTES_MAX => {
                return Err(Malformed("its unique id is longer than 128 bytes"));
            }
            0x05 => header.unique_id = Some(value),
            0x20 => {
                if std::mem::replace(&mut has_tls, true) {
                    return Err(Malformed("it tells of TLS twice"));
                }
                header.is_secure = speaks_tls(value)?;
            }
            _ => {}
        }
        values = behind;
    }
    Ok(Some(header))
}

/// The source of a TCP connection. None of any other.
fn binary_client(family: u8, addresses: &[u8]) -> Option<SocketAddr> {
    let port = |at: usize| {
        Some(u16::from_be_bytes(
            addresses.get(at..at + 2)?.try_into().ok()?,
        ))
    };
    match family {
        0x11 => {
            let source: [u8; 4] = addresses.get(..4)?.try_into().ok()?;
            Some(canonical(source.into(), port(8)?))
        }
        0x21 => {
            let source: [u8; 16] = addresses.get(..16)?.try_into().ok()?;
            Some(canonical(source.into(), port(32)?))
        }
        _ => None,
    }
}

/// Cuts off one value: a byte of its kind, two of its length, itself.
fn next_value(values: &[u8]) -> Result<(u8, &[u8], &[u8]), Malformed> {
    let too_long = Malformed("a value in it is longer than it is");
    let (&[kind, high, low], rest) = values.split_first_chunk().ok_or(too_long)?;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let (value, behind) = rest.split_at_checked(length).ok_or(too_long)?;
    Ok((kind, value, behind))
}

/// Whether the client speaks TLS with the load balancer: flags, the outcome of its certificate, and values.
fn speaks_tls(value: &[u8]) -> Result<bool, Malformed> {
    let Some((fixed, mut values)) = value.split_at_checked(5) else {
        return Err(Malformed("what it tells of TLS is too short"));
    };
    while !values.is_empty() {
        (_, _, values) = next_value(values)?;
    }
    Ok(fixed[0] & 1 == 1)
}

/// Whether the checksum is that of the header with zeros in its place, which is `at`.
fn is_intact(header: &[u8], at: usize, checksum: &[u8]) -> bool {
    let (Ok(told), Some((before, rest))) =
        (<[u8; 4]>::try_from(checksum), header.split_at_checked(at))
    else {
        return false;
    };
    let behind = rest.get(4..).unwrap_or_default();
    let crc = [before, &[0; 4], behind]
        .iter()
        .fold(!0, |crc, part| crc32c(crc, part));
    !crc == u32::from_be_bytes(told)
}

/// One step of CRC-32C for each byte (RFC 3720, appendix B.4), by its reflected polynomial.
fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut index = 0;
        while index < 256 {
            let mut value = index as u32;
            let mut bit = 0;
            while bit < 8 {
                value = (value >> 1) ^ (0x82f6_3b78 & (value & 1).wrapping_neg());
                bit += 1;
            }
            table[index] = value;
            index += 1;
        }
        table
    };
    bytes.iter().fold(crc, |crc, &byte| {
        (crc >> 8) ^ TABLE[usize::from(crc as u8 ^ byte)]
    })
}

#[cfg(test)]
mod tests;
