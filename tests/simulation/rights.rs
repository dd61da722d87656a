//! Identities and their rights, as a run gives them out and as the model knows them.
//!
//! Tokens are signed here and verified by the server's own code. They are drawn from a generator of their own, so that a run
//! without them is the same as ever. Who shows no token may do everything, as all peers may in a run without rights.

pub mod held;
pub mod scopes;

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use umbel::Origins;
use umbel::config::{Algorithm, Config, Grant, Jwt, JwtKeys};
use umbel::internals::auth::Authority;
use umbel::internals::auth::policy::AccessPolicy;

use super::driver::BEGAN_MS;
use super::random::Random;
use scopes::{Action, Lists, allow};

const SECRET: &str = "umbel-test-secret-0123456789abcdef";

/// Who the tokens of a run are for.
const SUBJECTS: usize = 4;

/// A token, as the model knows it.
#[derive(Debug)]
pub struct Badge {
    pub subject: usize,
    lists: Lists,
    pub token: String,
}

/// Tokens of a run, and what they allow.
pub struct Rights {
    pub random: Random,
    badges: Vec<Badge>,
    /// Publishes that nobody had the right to when they were sent.
    forbidden: BTreeSet<usize>,
}

impl Rights {
    /// None given out yet.
    pub fn new(seed: u64) -> Rights {
        Rights {
            random: Random::new(seed ^ 0x7269_6768_7473),
            badges: Vec::new(),
            forbidden: BTreeSet::new(),
        }
    }

    /// What the server judges by.
    pub fn authority() -> Arc<Authority> {
        let mut jwt = Jwt::new("app");
        jwt.algorithms = vec![Algorithm::Hs256];
        jwt.keys = Some(JwtKeys::secret(SECRET));
        let everybody = Grant::parse("anonymous=true subscribe=** publish=**");
        let mut config = Config::default();
        config.jwts = vec![jwt];
        config.grants = vec![everybody.expect("a grant")];
        config.origins = Some(Origins::Any);
        let rights = config.rights().expect("it stands");
        Arc::new(Authority::Policy(AccessPolicy::new(
            &rights,
            Arc::default(),
        )))
    }

    /// Gives out a token to anybody.
    pub fn issue(&mut self) -> usize {
        let subject = self.random.below(SUBJECTS);
        let lists = Lists::some(&mut self.random);
        self.add(subject, lists)
    }

    /// Gives out a token of the subject of another, with any rights.
    pub fn issue_to_same(&mut self, badge: usize) -> usize {
        let subject = self.badges[badge].subject;
        let lists = Lists::some(&mut self.random);
        self.add(subject, lists)
    }

    /// Gives out a token of another subject.
    pub fn issue_to_other(&mut self, badge: usize) -> usize {
        let subject = (self.badges[badge].subject + 1) % SUBJECTS;
        let lists = Lists::some(&mut self.random);
        self.add(subject, lists)
    }

    /// Gives out a token that allows what another does.
    pub fn issue_again(&mut self, badge: usize) -> usize {
        let (subject, lists) = (self.badges[badge].subject, self.badges[badge].lists.clone());
        self.add(subject, lists)
    }

    fn add(&mut self, subject: usize, lists: Lists) -> usize {
        let number = self.badges.len();
        let began = BEGAN_MS / 1000;
        let token = signed(&json!({
            "sub": format!("u{subject}"),
            "jti": format!("j{number}"),
            "iat": began,
            "exp": began + 3600,
            "umbel": lists.claims(),
        }));
        self.badges.push(Badge {
            subject,
            lists,
            token,
        });
        number
    }

    pub fn badge(&self, number: usize) -> &Badge {
        &self.badges[number]
    }

    /// Whether a token allows something; None stands for none.
    pub fn may(&self, badge: Option<usize>, action: Action) -> bool {
        badge.is_none_or(|number| allow(&[&self.badges[number].lists], action))
    }

    /// Whether two tokens allow the same.
    pub fn is_equal(&self, one: usize, other: usize) -> bool {
        self.badges[one].lists == self.badges[other].lists
    }

    /// Notes a publish that is sent without the right to it.
    pub fn forbid(&mut self, number: usize) {
        self.forbidden.insert(number);
    }

    /// It is sent again, by whoever may have the right.
    pub fn unforbid(&mut self, number: usize) {
        self.forbidden.remove(&number);
    }

    /// A publish has its place.
    pub fn check_placed(&self, number: usize) {
        assert!(
            !self.forbidden.contains(&number),
            "{number} was placed, and nobody had the right to it"
        );
    }
}

/// HMAC of RFC 2104 with SHA-256; the key has at most 64 bytes.
fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let pad = |mask: u8| -> Vec<u8> {
        let mut block = [0; 64];
        block[..key.len()].copy_from_slice(key);
        block.iter().map(|byte| byte ^ mask).collect()
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(text);
    let outer = Sha256::new().chain_update(pad(0x5c));
    outer.chain_update(inner.finalize()).finalize().into()
}

fn signed(claims: &Value) -> String {
    let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", encode(&json!({"alg": "HS256"})), encode(claims));
    let mac = hmac(SECRET.as_bytes(), text.as_bytes());
    format!("{text}.{}", BASE64_URL_SAFE_NO_PAD.encode(mac))
}
