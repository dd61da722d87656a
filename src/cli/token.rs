//! `umbel token new`: a token for `[[token]]`.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};
use sha2::{Digest, Sha256};
use umbel::config::{Token, TokenValue};

/// What every token begins with, so that scanners of repositories know it.
const PREFIX: &str = "umbel_";

/// Digits of 32 random bytes.
const SECRET_DIGITS: usize = 43;

/// Digits of the checksum.
const CHECKSUM_DIGITS: usize = 6;

const BASE_62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The arguments.
pub fn command() -> Command {
    let name = Arg::new("name")
        .value_name("NAME")
        .required(true)
        .help("Name of the token in the log: letters, digits and -_.");
    let new = Command::new("new")
        .about("Make a token, and print it with its row for the configuration file")
        .after_help(
            "The token is shown this once: the file needs its SHA-256 alone. Its row may publish and subscribe everywhere; \
             change that to what it is for. One for operators has observe = true and manage = [\"**\"].\n\n\
             For example: umbel token new backend",
        )
        .arg(name);
    Command::new("token")
        .about("Make tokens")
        .subcommand_required(true)
        .subcommand(new)
}

/// Makes a token and prints it.
pub fn run(matches: &ArgMatches) -> Result<ExitCode, Box<dyn Error>> {
    let new = matches
        .subcommand_matches("new")
        .ok_or("umbel token new is the command")?;
    let name = new.get_one::<String>("name").map_or("", String::as_str);
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(io::Error::other)?;
    let token = text_of(secret);
    let digest: [u8; 32] = Sha256::digest(&token).into();
    let mut row = Token::new(name, TokenValue::Sha256(digest));
    row.rights.publish.push("**".to_owned());
    row.check()?;
    let text = format!(
        "{token}\n\n[[token]]\nname = \"{name}\"\nsha256 = \"{}\"\npublish = [\"**\"]\nsubscribe = [\"**\"]\n",
        hex(&digest)
    );
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// The token that 32 random bytes are: the prefix, their digits, and a checksum of those.
fn text_of(secret: [u8; 32]) -> String {
    let mut number = secret;
    let mut digits = base_62::<SECRET_DIGITS>(&mut number);
    let checksum = crc32(digits.as_bytes());
    let mut checksum = checksum.to_be_bytes();
    digits.push_str(&base_62::<CHECKSUM_DIGITS>(&mut checksum));
    format!("{PREFIX}{digits}")
}

/// The digits of a number with its highest byte first, which is divided down to nothing.
fn base_62<const DIGITS: usize>(number: &mut [u8]) -> String {
    let mut digits = [0; DIGITS];
    for digit in digits.iter_mut().rev() {
        let mut rest = 0;
        for byte in number.iter_mut() {
            let part = rest << 8 | u32::from(*byte);
            *byte = (part / 62) as u8;
            rest = part % 62;
        }
        *digit = BASE_62[rest as usize];
    }
    digits.iter().copied().map(char::from).collect()
}

/// CRC-32 as ISO 3309 has it, by bits: one token is no load.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| match crc & 1 {
        1 => crc >> 1 ^ 0xedb8_8320,
        _ => crc >> 1,
    };
    let of_byte = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc));
    !bytes.iter().fold(u32::MAX, of_byte)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_of_the_standard_check_value() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn digits_of_the_least_and_the_greatest() {
        assert_eq!(
            text_of([0; 32])[..PREFIX.len() + SECRET_DIGITS],
            format!("{PREFIX}{}", "0".repeat(43))
        );
        let greatest = text_of([0xff; 32]);
        assert_eq!(
            greatest.len(),
            PREFIX.len() + SECRET_DIGITS + CHECKSUM_DIGITS
        );
        let mut one = [0; 32];
        one[31] = 61;
        assert_eq!(&text_of(one)[PREFIX.len() + 42..][..1], "z");
        assert_ne!(greatest, text_of([0xfe; 32]));
    }
}
