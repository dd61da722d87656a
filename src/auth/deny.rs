//! The deny list: credentials, subjects and peers that are let in no more.
//!
//! It is pure: what is denied, and the time, come as arguments. [`DenyCell`] is the list as all threads share it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::identity::{Identity, Source};

/// Leeway of clocks, in milliseconds. An entry stays for twice as long behind its end, for so long its tokens may live.
pub const LEEWAY_MS: u64 = 30_000;

/// Longest value of an entry, in bytes.
pub const VALUE_BYTES_MAX: usize = 255;

/// Entries that a removal or an addition looks at for those that are over.
const EXPIRED_PER_CHANGE: usize = 64;

/// Target of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Denial {
    /// The token of this id.
    TokenId(Box<str>),
    /// All tokens of this subject.
    Subject(Box<str>),
    /// The static token of this name.
    Token(Box<str>),
    /// All of this source.
    Source(Box<str>),
    /// All peers in this network.
    Peer(IpNet),
}

impl Denial {
    /// Names of the kinds.
    pub const KINDS: [&'static str; 5] = ["jti", "subject", "token", "source", "peer"];

    /// One of a kind.
    ///
    /// # Errors
    /// Why it cannot stand.
    pub fn parse(kind: &str, value: &str) -> Result<Denial, &'static str> {
        if value.is_empty() || value.len() > VALUE_BYTES_MAX {
            return Err("it has 1 to 255 bytes");
        }
        Ok(match kind {
            "jti" => Denial::TokenId(value.into()),
            "subject" => Denial::Subject(value.into()),
            "token" => Denial::Token(value.into()),
            "source" => Denial::Source(value.into()),
            "peer" => Denial::Peer(
                parse_network(value).ok_or("it is an address, or a network as 203.0.113.0/24")?,
            ),
            _ => return Err("there is no such kind"),
        })
    }

    /// Name of its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Denial::TokenId(_) => "jti",
            Denial::Subject(_) => "subject",
            Denial::Token(_) => "token",
            Denial::Source(_) => "source",
            Denial::Peer(_) => "peer",
        }
    }

    /// Its value as text.
    pub fn value(&self) -> String {
        match self {
            Denial::TokenId(text)
            | Denial::Subject(text)
            | Denial::Token(text)
            | Denial::Source(text) => text.to_string(),
            Denial::Peer(network) => network.to_string(),
        }
    }
}

/// A network: an address alone is one of one address. One of IPv4 in the form of IPv6 is one of IPv4, as peers' addresses are.
pub fn parse_network(text: &str) -> Option<IpNet> {
    let network: Option<IpNet> = text.parse().ok();
    let network = network.or_else(|| IpAddr::from_str(text).ok().map(IpNet::from))?;
    let mapped = network.prefix_len().checked_sub(96);
    let network = match (network.addr().to_canonical(), mapped) {
        (address @ IpAddr::V4(_), Some(bits)) if network.addr().is_ipv6() => {
            IpNet::new(address, bits).ok()?
        }
        _ => network,
    };
    Some(network.trunc())
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whom it denies.
    pub denial: Denial,
    /// Of a subject: tokens made at or before this, in seconds since 1970. None: all.
    pub issued_before: Option<u64>,
    /// End of it, in milliseconds since 1970. None: never.
    pub until_ms: Option<u64>,
    /// It comes from the configuration's file, and goes with that.
    pub is_fixed: bool,
    /// It ends open connections too. Who denies and ends otherwise, with exceptions, says false.
    pub ends_open: bool,
}

impl Entry {
    /// Whether it denies somebody. `peer`: the address, if it is known.
    pub fn denies(&self, identity: Option<&Identity>, peer: Option<IpAddr>) -> bool {
        let is = |text: Option<&str>, wanted: &str| text == Some(wanted);
        match &self.denial {
            Denial::Peer(network) => peer.is_some_and(|peer| network.contains(&peer)),
            Denial::TokenId(wanted) => is(identity.and_then(Identity::token_id), wanted),
            Denial::Subject(wanted) => {
                is(identity.and_then(Identity::subject), wanted) && self.is_before(identity)
            }
            Denial::Token(wanted) => identity.is_some_and(
                |identity| matches!(identity.source(), Source::Token(name) if **name == **wanted),
            ),
            Denial::Source(wanted) => {
                identity.is_some_and(|identity| identity.source().name() == &**wanted)
            }
        }
    }

    /// Whether a token was made early enough to be denied. One that does not say when counts as older.
    fn is_before(&self, identity: Option<&Identity>) -> bool {
        let issued_at = identity.and_then(Identity::issued_at);
        match (self.issued_before, issued_at) {
            (Some(before), Some(issued_at)) => issued_at <= before + LEEWAY_MS / 1000,
            _ => true,
        }
    }

    fn is_over(&self, now_ms: u64) -> bool {
        self.until_ms
            .is_some_and(|until_ms| until_ms.saturating_add(2 * LEEWAY_MS) < now_ms)
    }
}

/// One entry as a file has it.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    id: u64,
    kind: String,
    value: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    issued_before: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until_ms: Option<u64>,
}

/// A file as it is written.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct StoredList {
    version: u32,
    next_id: u64,
    entries: Vec<Stored>,
}

/// Reason that nothing was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DenyListFull;

/// Reason that an entry stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTakenOff {
    /// There is none of this id.
    Unknown,
    /// It stands in the configuration's file, and goes with its line there.
    Fixed,
}

/// All entries.
#[derive(Debug, Default)]
pub struct DenyList {
    entries: BTreeMap<u64, Entry>,
    /// Ids of those that were added by calls.
    ids: HashMap<Denial, u64>,
    /// Ids of those of the configuration's file. They stand beside the others, so that neither changes the other.
    fixed_ids: HashMap<Denial, u64>,
    /// Those of peers, which are compared one by one.
    peers: Vec<(IpNet, u64)>,
    next_id: u64,
    /// Where the next look for entries that are over begins.
    expire_from: u64,
}

impl DenyList {
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds an entry, and gives its id. One that denies the same is widened instead, if it comes from the same place.
    ///
    /// # Errors
    /// There are as many as there may be.
    pub fn add(
        &mut self,
        entry: Entry,
        entries_max: usize,
        now_ms: u64,
    ) -> Result<u64, DenyListFull> {
        self.expire(now_ms);
        if let Some(id) = self.ids_of(entry.is_fixed).get(&entry.denial).copied()
            && let Some(known) = self.entries.get_mut(&id)
        {
            let later = |a: Option<u64>, b: Option<u64>| a.zip(b).map(|(a, b)| a.max(b));
            known.until_ms = later(known.until_ms, entry.until_ms);
            known.issued_before = later(known.issued_before, entry.issued_before);
            known.ends_open |= entry.ends_open;
            return Ok(id);
        }
        // The configuration's own are not counted.
        if !entry.is_fixed && self.ids.len() >= entries_max {
            return Err(DenyListFull);
        }
        let id = self.next_id;
        self.insert(id, entry);
        Ok(id)
    }

    fn insert(&mut self, id: u64, entry: Entry) {
        self.next_id = self.next_id.max(id + 1);
        if let Denial::Peer(network) = entry.denial {
            self.peers.push((network, id));
        }
        self.ids_of(entry.is_fixed).insert(entry.denial.clone(), id);
        self.entries.insert(id, entry);
    }

    fn ids_of(&mut self, is_fixed: bool) -> &mut HashMap<Denial, u64> {
        match is_fixed {
            true => &mut self.fixed_ids,
            false => &mut self.ids,
        }
    }

    /// Takes an entry off that a call added.
    ///
    /// # Errors
    /// There is none of this id, or it is the file's.
    pub fn take_off(&mut self, id: u64) -> Result<(), NotTakenOff> {
        match self.entries.get(&id) {
            None => Err(NotTakenOff::Unknown),
            Some(entry) if entry.is_fixed => Err(NotTakenOff::Fixed),
            Some(_) => {
                self.remove(id);
                Ok(())
            }
        }
    }

    fn remove(&mut self, id: u64) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        self.ids_of(entry.is_fixed).remove(&entry.denial);
        self.peers.retain(|(_, of)| *of != id);
        Some(entry)
    }

    /// Takes off some of those that are over.
    fn expire(&mut self, now_ms: u64) {
        let looked_at = self.entries.range(self.expire_from..);
        let looked_at: Vec<(u64, bool)> = looked_at
            .take(EXPIRED_PER_CHANGE)
            .map(|(id, entry)| (*id, entry.is_over(now_ms)))
            .collect();
        self.expire_from = looked_at.last().map_or(0, |(id, _)| id + 1);
        for (id, is_over) in looked_at {
            if is_over {
                self.remove(id);
            }
        }
    }

    /// Entries from an id on that are not over.
    pub fn page(&self, from: u64, now_ms: u64) -> impl Iterator<Item = (u64, &Entry)> {
        let entries = self.entries.range(from..);
        let entries = entries.filter(move |(_, entry)| !entry.is_over(now_ms));
        entries.map(|(id, entry)| (*id, entry))
    }

    /// Entry that denies a peer.
    pub fn denies_peer(&self, peer: IpAddr, now_ms: u64) -> bool {
        self.denies_peer_by(peer, now_ms, |_| true)
    }

    fn denies_peer_by(&self, peer: IpAddr, now_ms: u64, counts: impl Fn(&Entry) -> bool) -> bool {
        let holds = |id: &u64| {
            let entry = self.entries.get(id);
            entry.is_some_and(|entry| !entry.is_over(now_ms) && counts(entry))
        };
        self.peers
            .iter()
            .any(|(network, id)| network.contains(&peer) && holds(id))
    }

    /// Whether an identity is denied.
    pub fn denies(&self, identity: &Identity, now_ms: u64) -> bool {
        self.denies_by(identity, now_ms, |_| true)
    }

    /// Whether an open connection is to end. `peer`: its address, if it is known.
    pub fn ends(
        &self,
        identity: Option<&Identity>,
        peer: impl FnOnce() -> Option<IpAddr>,
        now_ms: u64,
    ) -> bool {
        let ends_open = |entry: &Entry| entry.ends_open;
        identity.is_some_and(|identity| self.denies_by(identity, now_ms, ends_open))
            || !self.peers.is_empty()
                && peer().is_some_and(|peer| self.denies_peer_by(peer, now_ms, ends_open))
    }

    fn denies_by(&self, identity: &Identity, now_ms: u64, counts: impl Fn(&Entry) -> bool) -> bool {
        let source = match identity.source() {
            Source::Token(name) => Some(Denial::Token((**name).into())),
            _ => None,
        };
        let wanted = [
            identity.token_id().map(|id| Denial::TokenId(id.into())),
            identity.subject().map(|it| Denial::Subject(it.into())),
            Some(Denial::Source(identity.source().name().into())),
            source,
        ];
        wanted.into_iter().flatten().any(|denial| {
            let ids = [self.ids.get(&denial), self.fixed_ids.get(&denial)];
            let entries = ids.into_iter().flatten();
            let mut entries = entries.filter_map(|id| self.entries.get(id));
            entries.any(|entry| {
                !entry.is_over(now_ms) && counts(entry) && entry.denies(Some(identity), None)
            })
        })
    }

    /// The list for a file, without what comes from the configuration.
    pub fn encode(&self) -> Vec<u8> {
        let entries = self.entries.iter().filter(|(_, entry)| !entry.is_fixed);
        let list = StoredList {
            version: 1,
            next_id: self.next_id,
            entries: entries
                .map(|(id, entry)| Stored {
                    id: *id,
                    kind: entry.denial.kind().to_owned(),
                    value: entry.denial.value(),
                    issued_before: entry.issued_before,
                    until_ms: entry.until_ms,
                })
                .collect(),
        };
        // Texts and numbers can always be written.
        serde_json::to_vec(&list).unwrap_or_default()
    }

    /// The list of a file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<DenyList, String> {
        let stored: StoredList =
            serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if stored.version != 1 {
            return Err(format!(
                "it is of version {}, and 1 is known",
                stored.version
            ));
        }
        let mut list = DenyList {
            next_id: stored.next_id,
            ..DenyList::default()
        };
        for stored in stored.entries {
            let denial = Denial::parse(&stored.kind, &stored.value)
                .map_err(|error| format!("entry {}: {error}", stored.id))?;
            if list.entries.contains_key(&stored.id) || list.ids.contains_key(&denial) {
                return Err(format!("entry {} stands twice", stored.id));
            }
            let entry = Entry {
                denial,
                issued_before: stored.issued_before,
                until_ms: stored.until_ms,
                is_fixed: false,
                ends_open: true,
            };
            list.insert(stored.id, entry);
        }
        Ok(list)
    }

    /// Replaces what comes from the configuration.
    pub fn set_fixed(&mut self, fixed: Vec<Denial>) {
        let old: Vec<u64> = self.fixed_ids.values().copied().collect();
        for id in old {
            self.remove(id);
        }
        for denial in fixed {
            let entry = Entry {
                denial,
                issued_before: None,
                until_ms: None,
                is_fixed: true,
                ends_open: true,
            };
            let _ = self.add(entry, usize::MAX, 0);
        }
    }

    /// Entries of the configuration's file: lines of `jti:`, `sub:` and `peer:`.
    ///
    /// # Errors
    /// The first line that is none.
    pub fn parse_fixed(text: &str) -> Result<Vec<Denial>, String> {
        let mut fixed = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (kind, value) = line.split_once(':').unwrap_or((line, ""));
            let kind = match kind {
                "sub" => "subject",
                "jti" | "peer" => kind,
                _ => {
                    return Err(format!(
                        "line {number} begins with none of jti:, sub:, peer:"
                    ));
                }
            };
            let denial = Denial::parse(kind, value.trim());
            fixed.push(denial.map_err(|error| format!("line {number}: {error}"))?);
        }
        Ok(fixed)
    }
}

/// Reason that somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeniedBy {
    /// Its address is denied.
    Peer,
    /// Its credential, or who it says, is denied.
    Identity,
}

/// The list, for all threads.
#[derive(Debug, Default)]
pub struct DenyCell {
    list: RwLock<DenyList>,
    /// Whether there is any entry: so a server without a list takes no lock for it.
    is_used: AtomicBool,
    /// Number of changes after which open connections have to be looked at.
    generation: AtomicU64,
}

impl DenyCell {
    /// One with these entries.
    pub fn new(list: DenyList) -> DenyCell {
        let is_used = AtomicBool::new(!list.is_empty());
        DenyCell {
            list: RwLock::new(list),
            is_used,
            generation: AtomicU64::new(0),
        }
    }

    /// The list to read.
    pub fn read(&self) -> RwLockReadGuard<'_, DenyList> {
        self.list.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of changes by [`change_for_open`](DenyCell::change_for_open).
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Changes the list, and has each reactor look at its open connections.
    pub fn change_for_open<R>(&self, change: impl FnOnce(&mut DenyList) -> R) -> R {
        let outcome = self.change(change);
        self.generation.fetch_add(1, Ordering::AcqRel);
        outcome
    }

    /// Changes the list.
    pub fn change<R>(&self, change: impl FnOnce(&mut DenyList) -> R) -> R {
        let mut list: RwLockWriteGuard<'_, DenyList> =
            self.list.write().unwrap_or_else(PoisonError::into_inner);
        let outcome = change(&mut list);
        self.is_used.store(!list.is_empty(), Ordering::Release);
        outcome
    }

    /// Whether somebody is let in.
    ///
    /// # Errors
    /// What denies it.
    pub fn check(
        &self,
        identity: Option<&Identity>,
        peer: impl FnOnce() -> Option<IpAddr>,
        now_ms: u64,
    ) -> Result<(), DeniedBy> {
        if !self.is_used.load(Ordering::Acquire) {
            return Ok(());
        }
        let list = self.read();
        if !list.peers.is_empty() && peer().is_some_and(|peer| list.denies_peer(peer, now_ms)) {
            return Err(DeniedBy::Peer);
        }
        match identity.is_some_and(|identity| list.denies(identity, now_ms)) {
            true => Err(DeniedBy::Identity),
            false => Ok(()),
        }
    }
}

impl fmt::Display for DeniedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DeniedBy::Peer => "this address is denied",
            DeniedBy::Identity => "the token is revoked",
        })
    }
}

#[cfg(test)]
mod tests;
