//! Errors of TLS, as alerts.

use rustls::{AlertDescription, Error, InvalidMessage};

use crate::connection::ProtocolFailure;
use crate::metrics::tls::{TlsCounts, alert_name};

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
        Error::AlertReceived(alert) => {
            let alert = u8::from(*alert);
            counts.add_received(alert);
            (
                alert,
                format!("the peer sent the alert {}", alert_name(alert)),
            )
        }
        error => {
            let alert = sent.unwrap_or_else(|| u8::from(alert_of(error)));
            counts.add_sent(alert);
            (alert, format!("{error} (alert {})", alert_name(alert)))
        }
    };
    ProtocolFailure { alert, words }
}

/// The alert in a record that is not encrypted.
pub(super) fn plain_alert(record: &[u8]) -> Option<u8> {
    match record {
        [0x15, 3, _, 0, 2, _, alert] => Some(*alert),
        _ => None,
    }
}
