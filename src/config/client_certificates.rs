//! Certificates that clients show, and what a listener makes of them.

use std::fmt;
use std::path::PathBuf;

/// Whether a listener asks clients for a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientAuth {
    /// It does not.
    #[default]
    Off,
    /// A client may have none. One that is wrong ends the handshake.
    Optional,
    /// A handshake without one ends.
    Required,
}

/// Name of a client's certificate that is its subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientIdentity {
    /// The first URI of its alternative names, as SPIFFE has it.
    SanUri,
    /// The first name of a host of its alternative names.
    SanDns,
    /// The first address of e-mail of its alternative names.
    SanEmail,
    /// The common name of its subject.
    SubjectCn,
}

/// Certificates that a listener with TLS asks of clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientCertificates {
    /// Whether it asks.
    pub auth: ClientAuth,
    /// Authorities that they are verified by, in PEM.
    pub ca_file: Option<PathBuf>,
    /// Lists of those that are revoked, in PEM.
    pub crl_file: Option<PathBuf>,
    /// Name that is the subject. None: they only admit.
    pub identity: Option<ClientIdentity>,
    /// Text before subjects. Needed where another source names subjects too.
    pub subject_prefix: Option<String>,
}

impl ClientAuth {
    /// Words of the configuration.
    pub const WORDS: &'static [&'static str] = &["off", "optional", "required"];

    /// Reads one of [`WORDS`](ClientAuth::WORDS).
    pub fn parse(text: &str) -> Option<ClientAuth> {
        match text {
            "off" => Some(ClientAuth::Off),
            "optional" => Some(ClientAuth::Optional),
            "required" => Some(ClientAuth::Required),
            _ => None,
        }
    }
}

impl fmt::Display for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ClientAuth::Off => "off",
            ClientAuth::Optional => "optional",
            ClientAuth::Required => "required",
        })
    }
}

impl ClientIdentity {
    /// Words of the configuration.
    pub const WORDS: &'static [&'static str] = &["san-uri", "san-dns", "san-email", "subject-cn"];

    /// Reads one of [`WORDS`](ClientIdentity::WORDS).
    pub fn parse(text: &str) -> Option<ClientIdentity> {
        match text {
            "san-uri" => Some(ClientIdentity::SanUri),
            "san-dns" => Some(ClientIdentity::SanDns),
            "san-email" => Some(ClientIdentity::SanEmail),
            "subject-cn" => Some(ClientIdentity::SubjectCn),
            _ => None,
        }
    }
}

impl fmt::Display for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ClientIdentity::SanUri => "san-uri",
            ClientIdentity::SanDns => "san-dns",
            ClientIdentity::SanEmail => "san-email",
            ClientIdentity::SubjectCn => "subject-cn",
        })
    }
}

impl ClientCertificates {
    /// Whether its parts can stand together, on a listener with TLS or without.
    ///
    /// # Errors
    /// Problem and remedy.
    pub(super) fn check(&self, speaks_tls: bool) -> Result<(), String> {
        let is_said = *self != ClientCertificates::default();
        if is_said && !speaks_tls {
            return Err("client certificates are for TLS: add tls = true".to_owned());
        }
        match (self.auth, &self.ca_file) {
            (ClientAuth::Off, _) if is_said => Err(
                "client_ca_file, client_crl_file and client_identity stand beside client_auth = \"optional\" or \"required\""
                    .to_owned(),
            ),
            _ if self.subject_prefix.is_some() && self.identity.is_none() => {
                Err("client_subject_prefix stands beside client_identity".to_owned())
            }
            (ClientAuth::Optional | ClientAuth::Required, None) => Err(
                "client_auth needs the authorities that clients' certificates are verified by: client_ca_file"
                    .to_owned(),
            ),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_that_stand_together() {
        let with = |auth: &str, ca: &str, identity: Option<&str>, prefix: Option<&str>| {
            ClientCertificates {
                auth: ClientAuth::parse(auth).expect("a word"),
                ca_file: (!ca.is_empty()).then(|| ca.into()),
                crl_file: None,
                identity: identity.map(|word| ClientIdentity::parse(word).expect("a word")),
                subject_prefix: prefix.map(str::to_owned),
            }
        };
        let none = ClientCertificates::default();
        assert!(none.check(true).is_ok() && none.check(false).is_ok());
        assert!(with("required", "ca", None, None).check(true).is_ok());
        let whole = with("optional", "ca", Some("san-uri"), Some("cert:"));
        assert!(whole.check(true).is_ok());
        for (clients, speaks_tls, told) in [
            (whole, false, "tls = true"),
            (with("required", "", None, None), true, "client_ca_file"),
            (with("off", "ca", None, None), true, "client_auth"),
            (
                with("off", "", Some("subject-cn"), None),
                true,
                "client_auth",
            ),
            (
                with("required", "ca", None, Some("x")),
                true,
                "client_identity",
            ),
        ] {
            let error = clients.check(speaks_tls).expect_err(told);
            assert!(error.contains(told), "{error}");
        }
        for word in ClientAuth::WORDS {
            let auth = ClientAuth::parse(word);
            assert_eq!(auth.map(|auth| auth.to_string()).as_deref(), Some(*word));
        }
        for word in ClientIdentity::WORDS {
            let identity = ClientIdentity::parse(word);
            assert_eq!(identity.map(|it| it.to_string()).as_deref(), Some(*word));
        }
    }
}
