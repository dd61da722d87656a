//! Tickets, by which peers that come back skip most of a handshake (RFC 8446 section 4.6.1, RFC 5077).
//!
//! The keys are random, or those of a file that all nodes share: then a peer may come back to any of them. A listener does
//! not take them as they are. It derives its own with a digest of what it asks of client certificates, for resumption skips
//! that check: a ticket of other terms is not taken.
//!
//! A ticket is a name of 16 bytes, a salt of 16, a nonce of 12, and the state, sealed with AES-256-GCM. The key of a ticket
//! is made from its salt, so that no number of tickets wears a key of a file out.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use rustls::server::ProducesTickets;
use zeroize::Zeroizing;

/// Bytes of a key.
pub const TICKET_KEY_BYTES: usize = 80;

/// Most keys of a file.
pub const TICKET_KEYS_MAX: usize = 16;

/// Life of a ticket, in seconds.
const LIFETIME_S: u32 = 12 * 60 * 60;

/// Age at which a random key makes room for another. Its tickets are taken as long again.
const ROLL_INTERVAL: Duration = Duration::from_secs(6 * 60 * 60);

const NAME_BYTES: usize = 16;
const SALT_BYTES: usize = 16;
const HEAD_BYTES: usize = NAME_BYTES + SALT_BYTES + NONCE_LEN;

/// Keys in force: the first encrypts, all decrypt.
type Ring = Vec<Zeroizing<[u8; TICKET_KEY_BYTES]>>;

/// Keys of tickets, of all listeners.
#[derive(Debug)]
pub struct TicketKeys {
    /// Another one takes its place where keys change, by which listeners see it.
    ring: ArcSwap<Held>,
    /// Held by whoever makes another one.
    rolling: Mutex<()>,
}

struct Held {
    keys: Ring,
    /// Moment from which random keys make room. None: they are of a file.
    roll_at: Option<Instant>,
}

impl std::fmt::Debug for Held {
    /// Without the keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held")
            .field("keys", &self.keys.len())
            .field("roll_at", &self.roll_at)
            .finish()
    }
}

/// Reads keys of a file: one behind the other, 80 bytes each.
///
/// # Errors
/// The number of bytes is another.
pub fn read_ticket_keys(bytes: &[u8]) -> Result<Vec<[u8; TICKET_KEY_BYTES]>, String> {
    let (keys, rest) = bytes.as_chunks::<TICKET_KEY_BYTES>();
    if keys.is_empty() || !rest.is_empty() || keys.len() > TICKET_KEYS_MAX {
        return Err(format!(
            "it has {} bytes, and holds 1 to {TICKET_KEYS_MAX} keys of {TICKET_KEY_BYTES} bytes each: \
             `openssl rand -out FILE {TICKET_KEY_BYTES}` makes one",
            bytes.len()
        ));
    }
    Ok(keys.to_vec())
}

fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).ok()?;
    Some(bytes)
}

impl TicketKeys {
    /// A random key. Without entropy there is none, and no ticket.
    pub fn random() -> TicketKeys {
        TicketKeys {
            ring: ArcSwap::from_pointee(Held::random(Vec::new(), Instant::now())),
            rolling: Mutex::new(()),
        }
    }

    /// Takes keys of a file in place of those there are. None: random ones, which stay if they are that already.
    pub fn replace(&self, keys: Option<&[[u8; TICKET_KEY_BYTES]]>) {
        let _rolling = self.rolling.lock().unwrap_or_else(PoisonError::into_inner);
        let held = self.ring.load();
        let ring = match keys {
            Some(keys) => keys.iter().map(|key| Zeroizing::new(*key)).collect(),
            None if held.roll_at.is_some() => return,
            None => Vec::new(),
        };
        match keys {
            // Listeners need not derive theirs again.
            Some(_) if held.roll_at.is_none() && held.keys == ring => {}
            Some(_) => self.ring.store(Arc::new(Held {
                keys: ring,
                roll_at: None,
            })),
            None => self
                .ring
                .store(Arc::new(Held::random(ring, Instant::now()))),
        }
    }

    /// The keys, after random ones made room if it is time.
    fn held(&self, now: Instant) -> Arc<Held> {
        let held = self.ring.load_full();
        let is_due = |held: &Held| held.roll_at.is_some_and(|at| now >= at);
        if !is_due(&held) {
            return held;
        }
        let _rolling = self.rolling.lock().unwrap_or_else(PoisonError::into_inner);
        let held = self.ring.load_full();
        if !is_due(&held) {
            return held;
        }
        let is_late = held.roll_at.is_some_and(|at| now >= at + ROLL_INTERVAL);
        let kept = held.keys.iter().take(usize::from(!is_late));
        let rolled = Arc::new(Held::random(kept.cloned().collect(), now));
        self.ring.store(Arc::clone(&rolled));
        rolled
    }
}

impl Held {
    /// A random key before these.
    fn random(mut keys: Ring, now: Instant) -> Held {
        if let Some(key) = random() {
            keys.insert(0, Zeroizing::new(key));
        }
        Held {
            keys,
            roll_at: Some(now + ROLL_INTERVAL),
        }
    }
}

/// Keys as one listener takes them.
struct Derived {
    /// Keys that they are made from.
    of: Arc<Held>,
    keys: Vec<DerivedKey>,
}

struct DerivedKey {
    name: [u8; NAME_BYTES],
    secret: hmac::Key,
}

impl DerivedKey {
    fn of(key: &[u8; TICKET_KEY_BYTES], terms: &[u8; 32]) -> DerivedKey {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        let derive = |purpose: &[u8]| hmac::sign(&key, &[purpose, terms].concat());
        let mut name = [0; NAME_BYTES];
        name.copy_from_slice(&derive(b"umbel ticket name").as_ref()[..NAME_BYTES]);
        let secret = derive(b"umbel ticket key");
        DerivedKey {
            name,
            secret: hmac::Key::new(hmac::HMAC_SHA256, secret.as_ref()),
        }
    }

    fn of_ticket(&self, salt: &[u8]) -> Option<LessSafeKey> {
        let key = hmac::sign(&self.secret, salt);
        let key = UnboundKey::new(&AES_256_GCM, key.as_ref()).ok()?;
        Some(LessSafeKey::new(key))
    }
}

/// Tickets of one listener.
pub struct Tickets {
    keys: Arc<TicketKeys>,
    terms: [u8; 32],
    derived: ArcSwap<Derived>,
}

impl Tickets {
    /// Tickets by these keys. `terms`: a digest of what the listener asks of client certificates.
    pub fn new(keys: Arc<TicketKeys>, terms: [u8; 32]) -> Tickets {
        let derived = ArcSwap::from_pointee(Derived::of(keys.held(Instant::now()), &terms));
        Tickets {
            keys,
            terms,
            derived,
        }
    }

    fn derived(&self, now: Instant) -> Arc<Derived> {
        let (held, derived) = (self.keys.held(now), self.derived.load_full());
        if Arc::ptr_eq(&held, &derived.of) {
            return derived;
        }
        let derived = Arc::new(Derived::of(held, &self.terms));
        self.derived.store(Arc::clone(&derived));
        derived
    }

    fn seal(&self, plain: &[u8], now: Instant) -> Option<Vec<u8>> {
        let derived = self.derived(now);
        let key = derived.keys.first()?;
        let salt: [u8; SALT_BYTES] = random()?;
        let nonce: [u8; NONCE_LEN] = random()?;
        let mut sealed = plain.to_vec();
        let of_ticket = key.of_ticket(&salt)?;
        let nonce_of = Nonce::assume_unique_for_key(nonce);
        let sealing =
            of_ticket.seal_in_place_append_tag(nonce_of, Aad::from(&key.name), &mut sealed);
        sealing.ok()?;
        let mut ticket = Vec::with_capacity(HEAD_BYTES + sealed.len());
        ticket.extend_from_slice(&key.name);
        ticket.extend_from_slice(&salt);
        ticket.extend_from_slice(&nonce);
        ticket.append(&mut sealed);
        Some(ticket)
    }

    fn open(&self, ticket: &[u8], now: Instant) -> Option<Vec<u8>> {
        let (head, sealed) = ticket.split_at_checked(HEAD_BYTES)?;
        let (name, rest) = head.split_at(NAME_BYTES);
        let (salt, nonce) = rest.split_at(SALT_BYTES);
        let derived = self.derived(now);
        // The name is no secret: it stands in every ticket.
        let key = derived.keys.iter().find(|key| key.name == name)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut opened = sealed.to_vec();
        let of_ticket = key.of_ticket(salt)?;
        let plain = of_ticket.open_in_place(nonce, Aad::from(&key.name), &mut opened);
        let bytes = plain.ok()?.len();
        opened.truncate(bytes);
        Some(opened)
    }
}

impl Derived {
    fn of(held: Arc<Held>, terms: &[u8; 32]) -> Derived {
        let keys = held.keys.iter();
        Derived {
            keys: keys.map(|key| DerivedKey::of(key, terms)).collect(),
            of: held,
        }
    }
}

impl std::fmt::Debug for Tickets {
    /// Without keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tickets").field("keys", &self.keys).finish()
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME_S
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, Instant::now())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.open(ticket, Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: [u8; 32] = [1; 32];

    fn of_file(keys: &[[u8; TICKET_KEY_BYTES]], terms: [u8; 32]) -> Tickets {
        let held = TicketKeys::random();
        held.replace(Some(keys));
        Tickets::new(Arc::new(held), terms)
    }

    #[test]
    fn first_key_seals_and_all_open() {
        let [a, b, c] = [1, 2, 3].map(|digit| [digit; TICKET_KEY_BYTES]);
        let old = of_file(&[a], TERMS);
        let ticket = old.encrypt(b"state").expect("sealed");
        let again = old.encrypt(b"state").expect("sealed");
        assert_ne!(ticket, again);
        assert_eq!(old.decrypt(&ticket).as_deref(), Some(&b"state"[..]));
        // Another node with the same file, and one that has a newer key before it.
        assert!(of_file(&[a], TERMS).decrypt(&ticket).is_some());
        let newer = of_file(&[b, a], TERMS);
        assert!(newer.decrypt(&ticket).is_some());
        let of_newer = newer.encrypt(b"state").expect("sealed");
        assert!(old.decrypt(&of_newer).is_none());
        assert!(of_file(&[c], TERMS).decrypt(&ticket).is_none());
        // Other terms for client certificates.
        assert!(of_file(&[a], [2; 32]).decrypt(&ticket).is_none());
    }

    #[test]
    fn changed_and_cut_tickets_are_refused() {
        let tickets = of_file(&[[7; TICKET_KEY_BYTES]], TERMS);
        let ticket = tickets.encrypt(b"some state").expect("sealed");
        for end in 0..ticket.len() {
            assert!(tickets.decrypt(&ticket[..end]).is_none());
        }
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert!(tickets.decrypt(&changed).is_none(), "{at}");
        }
    }

    #[test]
    fn random_keys_make_room() {
        let keys = Arc::new(TicketKeys::random());
        let tickets = Tickets::new(Arc::clone(&keys), TERMS);
        let now = Instant::now();
        let ticket = tickets.seal(b"a", now).expect("sealed");
        keys.replace(None);
        assert!(tickets.open(&ticket, now).is_some(), "random keys stay");
        let later = now + ROLL_INTERVAL;
        assert!(tickets.open(&ticket, later).is_some(), "still among them");
        let newer = tickets.seal(b"b", later).expect("sealed");
        assert_ne!(ticket[..NAME_BYTES], newer[..NAME_BYTES]);
        let late = later + ROLL_INTERVAL;
        assert!(tickets.open(&ticket, late).is_none(), "12 hours old");
        assert!(tickets.open(&newer, late).is_some());
        // A night without a handshake.
        assert!(tickets.open(&newer, late + 3 * ROLL_INTERVAL).is_none());
    }

    #[test]
    fn files_of_whole_keys() {
        assert_eq!(read_ticket_keys(&[0; 160]).map(|keys| keys.len()), Ok(2));
        for bytes in [0, 48, 79, 81, 80 * 17] {
            let error = read_ticket_keys(&vec![0; bytes]).expect_err("no whole keys");
            assert!(error.contains(&format!("{bytes} bytes")), "{error}");
        }
    }
}
