//! Lives of credentials: until when one has to be denied.

use super::deny::Denial;
use crate::config::Rights;

/// Longest lives of the credentials of a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lives {
    /// Of each issuer: its name, and the longest life of its tokens in milliseconds. 0: it has no bound.
    issuers: Vec<(String, u64)>,
    /// Of each static token: its name, its subject, and its end in milliseconds of the Unix epoch.
    tokens: Vec<(String, Option<String>, Option<u64>)>,
}

impl Lives {
    /// Those of the sources that rights name.
    pub fn of(rights: &Rights) -> Lives {
        let issuers = rights.jwts.iter();
        let tokens = rights.tokens.iter();
        Lives {
            issuers: issuers
                .map(|jwt| (jwt.name.clone(), jwt.life_max_ms))
                .collect(),
            tokens: tokens
                .map(|token| {
                    let subject = token.subject.as_ref().map(|subject| {
                        format!("{}{subject}", token.subject_prefix.as_deref().unwrap_or(""))
                    });
                    let end_ms = token.expires_at.map(|seconds| seconds * 1000);
                    (token.name.clone(), subject, end_ms)
                })
                .collect(),
        }
    }

    /// End of all credentials that are denied now. In milliseconds of the Unix epoch; None: there is none.
    pub fn end_ms(&self, denial: &Denial, now_ms: u64) -> Option<u64> {
        let life_ms = match denial {
            Denial::Token(name) => {
                let mut tokens = self.tokens.iter();
                return tokens.find(|(it, ..)| **it == **name)?.2;
            }
            Denial::Peer(_) => return None,
            Denial::Source(name) => self.issuers.iter().find(|(it, _)| **it == **name)?.1,
            Denial::Subject(subject) if self.has_static(subject) => return None,
            Denial::TokenId(_) | Denial::Subject(_) => {
                let lives = self.issuers.iter().map(|(_, life_ms)| *life_ms);
                // One without a bound outlives all others.
                lives.max_by_key(|life_ms| life_ms.wrapping_sub(1))?
            }
        };
        (life_ms > 0).then(|| now_ms.saturating_add(life_ms))
    }

    fn has_static(&self, subject: &str) -> bool {
        let mut tokens = self.tokens.iter();
        tokens.any(|(_, of, _)| of.as_deref() == Some(subject))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lives(issuers: &[(&str, u64)]) -> Lives {
        let issuers = issuers
            .iter()
            .map(|(name, life)| ((*name).to_owned(), *life));
        Lives {
            issuers: issuers.collect(),
            tokens: vec![
                ("feed".to_owned(), Some("anna".to_owned()), None),
                ("old".to_owned(), None, Some(7000)),
            ],
        }
    }

    #[test]
    fn denied_until_no_credential_lives() {
        let two = lives(&[("a", 500), ("b", 900)]);
        let endless = lives(&[("a", 500), ("b", 0)]);
        for (lives, kind, value, end_ms) in [
            (&two, "jti", "x", Some(1900)),
            (&two, "subject", "bert", Some(1900)),
            (&two, "subject", "anna", None),
            (&two, "source", "a", Some(1500)),
            (&two, "source", "hook", None),
            (&two, "token", "old", Some(7000)),
            (&two, "token", "feed", None),
            (&two, "peer", "10.0.0.0/8", None),
            (&endless, "jti", "x", None),
            (&endless, "source", "b", None),
            (&lives(&[]), "jti", "x", None),
        ] {
            let denial = Denial::parse(kind, value).expect("one");
            assert_eq!(lives.end_ms(&denial, 1000), end_ms, "{kind} {value}");
        }
    }
}
