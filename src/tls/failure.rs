//! Errors of TLS, as alerts.

use rustls::{AlertDescription, Error, InvalidMessage};

use crate::connection::ProtocolFailure;
use crate::metrics::tls::{TlsCounts, alert_name};

/// Alert of the library for a hello that no certificate is for, and the one that RFC 6066 section 3 has.
pub(super) const ACCESS_DENIED: u8 = 49;
pub(super) const UNRECOGNIZED_NAME: u8 = 112;

/// Alert that rustls answers an error with.
fn alert_of(error: &Error) -> AlertDescription {
    match error {
        Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
            AlertDescription::UnexpectedMessage
        }
        Error::InvalidMessage(InvalidMessage::MessageTooLarge) | Error::PeerSentOversizedRecord => {
            AlertDescription::RecordOverflow
        }
        Error::InvalidMessage(why) => (*why).into(),
        Error::DecryptError => AlertDescription::BadRecordMac,
        Error::PeerIncompatible(_) => AlertDescription::HandshakeFailure,
        Error::PeerMisbehaved(_) => AlertDescription::IllegalParameter,
        Error::NoCertificatesPresented => AlertDescription::CertificateRequired,
        Error::InvalidCertificate(why) => why.clone().into(),
        Error::NoApplicationProtocol => AlertDescription::NoApplicationProtocol,
        _ => AlertDescription::InternalError,
    }
}

/// Counts an error that ended a connection, and says it in words. `sent`: the alert that was put on the wire, if its bytes
/// could be read.
pub(super) fn failure(error: &Error, sent: Option<u8>, counts: &TlsCounts) -> ProtocolFailure {
    let (alert, words) = match error {
        Error::AlertReceived(alert) => return peer_failure(u8::from(*alert), counts),
        error => {
            let alert = sent.unwrap_or_else(|| u8::from(alert_of(error)));
            counts.add_sent(alert);
            (alert, format!("{error} (alert {})", alert_name(alert)))
        }
    };
    ProtocolFailure { alert, words }
}

/// Counts an alert of the peer's that ended a connection, and says it in words.
pub(super) fn peer_failure(alert: u8, counts: &TlsCounts) -> ProtocolFailure {
    counts.add_received(alert);
    let words = format!("the peer sent the alert {}", alert_name(alert));
    ProtocolFailure { alert, words }
}

/// Counts an alert that answers a record, and says it in words.
pub(super) fn record_failure(alert: u8, counts: &TlsCounts) -> ProtocolFailure {
    counts.add_sent(alert);
    let words = format!("a record cannot be taken (alert {})", alert_name(alert));
    ProtocolFailure { alert, words }
}

/// The alert in a record that is not encrypted.
pub(super) fn plain_alert(record: &[u8]) -> Option<u8> {
    match record {
        [0x15, 3, _, 0, 2, _, alert] => Some(*alert),
        _ => None,
    }
}
