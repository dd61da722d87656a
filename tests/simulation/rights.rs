//! Identities and their rights, as a run gives them out and as the model knows them.
//!
//! Tokens are signed here and verified by the server's own code. They are drawn from a generator of their own, so that a run
//! without them is the same as ever. Who shows no token may do everything, as all peers may in a run without rights.

pub mod denied;
pub mod held;
pub mod scopes;

use std::collections::{BTreeMap, BTreeSet};
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
use super::records::Records;
use denied::Denied;
use scopes::{Action, Lists, allow};

const SECRET: &str = "umbel-test-secret-0123456789abcdef";

/// Who the tokens of a run are for.
const SUBJECTS: usize = 4;

/// Tokens were issued so long before the run at most, in seconds.
const ISSUED_AGO_S_MAX: u64 = 90;

/// Time that the server may take to do what is due, in milliseconds: a reactor may be kept from running.
pub const SLACK_MS: u64 = 140;

/// The same for a denial, which goes from reactor to reactor.
const DENIAL_SLACK_MS: u64 = 450;

/// A token, as the model knows it.
#[derive(Debug)]
pub struct Badge {
    pub subject: usize,
    lists: Lists,
    /// In seconds since 1970.
    issued_at: u64,
    /// When it ends, on the clock of the run. None: after the run.
    pub end_ms: Option<u64>,
    pub token: String,
}

/// Rights of the configuration for all who are somebody.
#[derive(Debug)]
struct Grants {
    lists: Lists,
    from_ms: u64,
    /// When all reactors had newer ones.
    until_ms: Option<u64>,
}

/// Whether something is so, by what may be in force in a span.
#[derive(Clone, Copy, Debug)]
pub struct May {
    pub perhaps: bool,
    pub surely: bool,
}

impl May {
    pub const ALWAYS: May = May {
        perhaps: true,
        surely: true,
    };
    pub const NEVER: May = May {
        perhaps: false,
        surely: false,
    };

    fn of(all: impl Iterator<Item = bool>) -> May {
        let none = May {
            perhaps: false,
            surely: true,
        };
        all.fold(none, |may, it| May {
            perhaps: may.perhaps || it,
            surely: may.surely && it,
        })
    }
}

/// Tokens of a run, and what they allow.
pub struct Rights {
    pub random: Random,
    badges: Vec<Badge>,
    grants: Vec<Grants>,
    /// What a reload brings.
    draft: Lists,
    /// Clocks may differ by so much: tokens end so long after their second.
    leeway_ms: u64,
    /// Time behind the end of a token in which its connection is still delivered to.
    pub grace_ms: u64,
    /// Those who are let in no more.
    pub denials: Vec<Denied>,
    /// Publishes that nobody had the right to when they were sent.
    forbidden: BTreeSet<usize>,
    /// Views that have no right any more, with the steps at which every reactor knew that.
    lost: BTreeMap<usize, u64>,
}

impl Rights {
    /// None given out yet.
    pub fn new(seed: u64) -> Rights {
        let mut random = Random::new(seed ^ 0x7269_6768_7473);
        let grants = Grants {
            lists: Lists::granted(&mut random),
            from_ms: 0,
            until_ms: None,
        };
        Rights {
            badges: Vec::new(),
            grants: vec![grants],
            draft: Lists::default(),
            leeway_ms: random.within(20, 300),
            grace_ms: *random.pick(&[40, 150, 400]),
            denials: Vec::new(),
            forbidden: BTreeSet::new(),
            lost: BTreeMap::new(),
            random,
        }
    }

    /// What the server judges by, with the newest grants.
    pub fn authority(&self) -> Arc<Authority> {
        let newest = self.grants.last().expect("there are some at any time");
        self.authority_by(&newest.lists)
    }

    fn authority_by(&self, granted: &Lists) -> Arc<Authority> {
        let mut jwt = Jwt::new("app");
        jwt.algorithms = vec![Algorithm::Hs256];
        jwt.keys = Some(JwtKeys::secret(SECRET));
        jwt.leeway_ms = self.leeway_ms;
        let everybody = Grant::parse("anonymous=true subscribe=** publish=**");
        let mut config = Config::default();
        config.jwts = vec![jwt];
        config.grants = vec![everybody.expect("a grant")];
        if *granted != Lists::default() {
            let grant = Grant::parse(&format!("subject=true {}", granted.text()));
            config.grants.push(grant.expect("a grant"));
        }
        config.origins = Some(Origins::Any);
        let rights = config.rights().expect("it stands");
        Arc::new(Authority::Policy(AccessPolicy::new(
            &rights,
            Arc::default(),
        )))
    }

    /// Other grants, for a reload that may be refused.
    pub fn draft(&mut self) -> Arc<Authority> {
        self.draft = Lists::granted(&mut self.random);
        self.authority_by(&self.draft)
    }

    /// The reload is under way.
    pub fn reload(&mut self, now_ms: u64) {
        self.grants.push(Grants {
            lists: self.draft.clone(),
            from_ms: now_ms,
            until_ms: None,
        });
        // What is on its way may be allowed by now.
        self.forbidden.clear();
    }

    /// Whether older grants may still be in force.
    pub fn is_reloading(&self) -> bool {
        let earlier = self.grants.split_last().map(|(_, earlier)| earlier);
        earlier.is_some_and(|earlier| earlier.iter().any(|grants| grants.until_ms.is_none()))
    }

    /// Every reactor has the newest ones.
    pub fn end_reload(&mut self, now_ms: u64) {
        if let Some((_, earlier)) = self.grants.split_last_mut() {
            for grants in earlier {
                grants.until_ms.get_or_insert(now_ms);
            }
        }
    }

    /// The node died, and another one knows nothing of whom it denied.
    pub fn restart(&mut self, now_ms: u64) {
        self.end_reload(now_ms);
        for denied in &mut self.denials {
            denied.until_ms.get_or_insert(now_ms);
        }
    }

    /// Gives out a token to anybody.
    pub fn issue(&mut self, now_ms: u64) -> usize {
        let subject = self.random.below(SUBJECTS);
        let lists = Lists::some(&mut self.random);
        self.add(subject, lists, now_ms)
    }

    /// Gives out a token of the subject of another, with any rights.
    pub fn issue_to_same(&mut self, badge: usize, now_ms: u64) -> usize {
        let subject = self.badges[badge].subject;
        let lists = Lists::some(&mut self.random);
        self.add(subject, lists, now_ms)
    }

    /// Gives out a token of another subject.
    pub fn issue_to_other(&mut self, badge: usize, now_ms: u64) -> usize {
        let subject = (self.badges[badge].subject + 1) % SUBJECTS;
        let lists = Lists::some(&mut self.random);
        self.add(subject, lists, now_ms)
    }

    /// Gives out a token that allows what another does.
    pub fn issue_again(&mut self, badge: usize, now_ms: u64) -> usize {
        let (subject, lists) = (self.badges[badge].subject, self.badges[badge].lists.clone());
        self.add(subject, lists, now_ms)
    }

    fn add(&mut self, subject: usize, lists: Lists, now_ms: u64) -> usize {
        let number = self.badges.len();
        let began = BEGAN_MS / 1000;
        let issued_at = began - self.random.within(0, ISSUED_AGO_S_MAX);
        // Behind the end of its second, by the leeway.
        let life = match self.random.below(10) {
            0..3 if now_ms < self.leeway_ms => 0,
            3 => 1,
            _ => 3600,
        };
        let token = signed(&json!({
            "sub": format!("u{subject}"),
            "jti": format!("j{number}"),
            "iat": issued_at,
            "exp": began + life,
            "umbel": lists.claims(),
        }));
        self.badges.push(Badge {
            subject,
            lists,
            issued_at,
            end_ms: (life < 3600).then_some(life * 1000 + self.leeway_ms),
            token,
        });
        number
    }

    pub fn badge(&self, number: usize) -> &Badge {
        &self.badges[number]
    }

    /// Whether a token allows something in a span; None stands for none.
    pub fn may(&self, badge: Option<usize>, action: Action, (from_ms, to_ms): (u64, u64)) -> May {
        let Some(badge) = badge else {
            return May::ALWAYS;
        };
        let in_force = self.grants.iter().filter(|grants| {
            grants.from_ms <= to_ms && grants.until_ms.is_none_or(|until_ms| until_ms >= from_ms)
        });
        let own = &self.badges[badge].lists;
        May::of(in_force.map(|grants| allow(&[own, &grants.lists], action)))
    }

    /// Whether a token is denied in a span.
    pub fn is_denied(&self, badge: usize, span_ms: (u64, u64)) -> May {
        let badge = (badge, &self.badges[badge]);
        let all = self
            .denials
            .iter()
            .map(|denied| denied.denies(badge, span_ms));
        all.fold(May::NEVER, |may, it| May {
            perhaps: may.perhaps || it.perhaps,
            surely: may.surely || it.surely,
        })
    }

    /// Whether a token lets somebody in within a span.
    pub fn admits(&self, badge: usize, (from_ms, to_ms): (u64, u64)) -> May {
        let end_ms = self.badges[badge].end_ms.unwrap_or(u64::MAX);
        let denied = self.is_denied(badge, (from_ms, to_ms));
        May {
            perhaps: from_ms < end_ms && !denied.surely,
            surely: to_ms < end_ms && !denied.perhaps,
        }
    }

    /// Whether a token has ended, and for so long that this is known everywhere.
    pub fn has_ended(&self, badge: Option<usize>, now_ms: u64) -> bool {
        let end_ms = badge.and_then(|badge| self.badges[badge].end_ms);
        end_ms.is_some_and(|end_ms| end_ms + SLACK_MS < now_ms)
    }

    /// Whoever is over at a moment, and had been for a while, gets and does nothing then.
    pub fn check_over(&self, badge: usize, at_ms: u64, what: &str) {
        let end_ms = self.badges[badge].end_ms;
        let is_over = end_ms.is_some_and(|end_ms| end_ms + self.grace_ms + SLACK_MS < at_ms);
        let span_ms = (at_ms.saturating_sub(DENIAL_SLACK_MS), at_ms);
        let is_denied = self.is_denied(badge, span_ms).surely;
        let of = &self.badges[badge];
        assert!(!is_over, "{what}, though it ended: {of:?}");
        assert!(!is_denied, "{what}, though it is denied: {of:?}");
    }

    /// A token for whoever takes over from this one's: the same, or another of the same subject.
    pub fn successor(&mut self, badge: usize, now_ms: u64) -> usize {
        let is_good = self.admits(badge, (now_ms, now_ms)).surely;
        match self.random.below(10) {
            0..5 if is_good => badge,
            // It is refused, and comes again.
            0 => badge,
            1..7 => self.issue_again(badge, now_ms),
            _ => self.issue_to_same(badge, now_ms),
        }
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

    /// A view has no right any more, and every reactor knows that.
    pub fn lose(&mut self, view: usize, step: u64) {
        self.lost.entry(view).or_insert(step);
    }

    /// The step at which a view had lost its right everywhere.
    pub fn lost_step(&self, view: usize) -> Option<u64> {
        self.lost.get(&view).copied()
    }
}

impl Records {
    /// Somebody gets a publication: not one from behind the end of its right, or of itself.
    pub fn check_seen(&self, badge: Option<usize>, (view, number): (usize, usize)) {
        let Some(rights) = &self.rights else { return };
        let publish = &self.publishes[number];
        let lost_step = rights.lost_step(view);
        assert!(
            lost_step.is_none_or(|lost_step| publish.sent_step <= lost_step),
            "{publish:?} is newer than the end of the right at {lost_step:?}: {:?}",
            self.views[view]
        );
        if let Some(badge) = badge.filter(|_| publish.sendings == 1) {
            let what = "it gets what was published behind its end";
            rights.check_over(badge, publish.sent_ms, what);
        }
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
