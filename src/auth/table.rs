//! The identities of one reactor's connections.
//!
//! Connections that are the same identity share one entry, which goes with the last of them. So there are at most as many
//! entries as connections, and the anonymous, however many, need none.

use std::collections::HashMap;

use slab::Slab;

use super::caller::Caller;
use super::identity::TokenDigest;
use crate::shrink::Shrink;

/// The place of an identity in its reactor's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdentityHandle(u32);

impl IdentityHandle {
    /// That of who showed nothing.
    pub const ANONYMOUS: IdentityHandle = IdentityHandle(0);
    /// That of who showed what nobody knows.
    const UNKNOWN: IdentityHandle = IdentityHandle(1);
    /// The first that stands for an entry.
    const COUNTED: u32 = 2;

    fn of_entry(index: usize) -> IdentityHandle {
        IdentityHandle(index as u32 + IdentityHandle::COUNTED)
    }

    /// The entry that it stands for, if it does.
    fn entry(self) -> Option<usize> {
        let index = self.0.checked_sub(IdentityHandle::COUNTED)?;
        Some(index as usize)
    }
}

struct Entry {
    caller: Caller<'static>,
    /// Handles that stand for it.
    handles: u32,
    /// Bytes that it counts as.
    bytes: u32,
}

impl Entry {
    fn of(caller: Caller<'static>) -> Entry {
        let identity = caller.identity().map_or(0, |identity| identity.bytes());
        let bytes = u32::try_from(identity + ENTRY_BYTES);
        Entry {
            bytes: bytes.unwrap_or(u32::MAX),
            caller,
            handles: 1,
        }
    }
}

/// Bytes that an entry counts as besides its identity: here, in the lists of subjects and of ends.
const ENTRY_BYTES: usize = 128;

/// The identities of one reactor's connections.
#[derive(Default)]
pub struct Identities {
    entries: Slab<Entry>,
    by_token: HashMap<TokenDigest, IdentityHandle>,
    shrink: Shrink,
    bytes: usize,
}

static ANONYMOUS: Caller<'static> = Caller::Anonymous;
static UNKNOWN: Caller<'static> = Caller::Unknown;

impl Identities {
    /// Entries. Who is anonymous or unknown has none.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes that the entries count as.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Caller of a handle. A handle that stands for nothing is that of somebody unknown.
    pub fn get(&self, handle: IdentityHandle) -> &Caller<'static> {
        if handle == IdentityHandle::ANONYMOUS {
            return &ANONYMOUS;
        }
        let entry = handle.entry().and_then(|index| self.entries.get(index));
        entry.map_or(&UNKNOWN, |entry| &entry.caller)
    }

    /// Makes a handle stand for this caller, not its former one.
    pub fn replace(&mut self, handle: &mut IdentityHandle, caller: Caller<'static>) {
        let new = match &caller {
            Caller::Anonymous => IdentityHandle::ANONYMOUS,
            Caller::Unknown => IdentityHandle::UNKNOWN,
            Caller::Known(identity) => match identity.credential() {
                Some(digest) => self.share(digest, caller),
                None => self.insert(caller),
            },
            Caller::Embedder(_) => self.insert(caller),
        };
        self.release(std::mem::replace(handle, new));
    }

    /// To be called once a handle is not used any more.
    pub fn release(&mut self, handle: IdentityHandle) {
        let Some(index) = handle.entry() else { return };
        let Some(entry) = self.entries.get_mut(index) else {
            return;
        };
        entry.handles -= 1;
        if entry.handles > 0 {
            return;
        }
        let entry = self.entries.remove(index);
        self.bytes -= entry.bytes as usize;
        if let Some(digest) = entry.caller.identity().and_then(|it| it.credential()) {
            self.by_token.remove(&digest);
        }
        self.shrink.shrink(&mut self.entries);
    }

    fn share(&mut self, digest: TokenDigest, caller: Caller<'static>) -> IdentityHandle {
        let known = self.by_token.get(&digest).copied();
        let entry = known.and_then(|handle| self.entries.get_mut(handle.entry()?));
        if let (Some(handle), Some(entry)) = (known, entry) {
            let handles = entry.handles + 1;
            self.bytes -= entry.bytes as usize;
            // After a reload the same token may be a newer identity.
            *entry = Entry {
                handles,
                ..Entry::of(caller)
            };
            self.bytes += entry.bytes as usize;
            return handle;
        }
        let handle = self.insert(caller);
        self.by_token.insert(digest, handle);
        handle
    }

    fn insert(&mut self, caller: Caller<'static>) -> IdentityHandle {
        let entry = Entry::of(caller);
        self.bytes += entry.bytes as usize;
        IdentityHandle::of_entry(self.entries.insert(entry))
    }
}

#[cfg(test)]
mod tests {
    use super::super::identity::{Identity, IdentityParts, Source};
    use super::*;

    fn token(text: &str) -> Caller<'static> {
        let identity = Identity::new(IdentityParts {
            credential: Some(TokenDigest::of(text)),
            ..IdentityParts::of(Source::Token(text.into()))
        });
        Caller::Known(identity.expect("an identity"))
    }

    fn digest(identities: &Identities, handle: IdentityHandle) -> Option<TokenDigest> {
        identities.get(handle).identity()?.credential()
    }

    #[test]
    fn the_same_identity_is_shared_and_goes_with_the_last() {
        let mut identities = Identities::default();
        let mut handles = [IdentityHandle::ANONYMOUS; 3];
        for handle in &mut handles {
            identities.replace(handle, token("a"));
        }
        assert_eq!(identities.len(), 1);
        let mut other = IdentityHandle::ANONYMOUS;
        identities.replace(&mut other, token("b"));
        assert_eq!(digest(&identities, other), Some(TokenDigest::of("b")));
        for handle in handles {
            assert_eq!(digest(&identities, handle), Some(TokenDigest::of("a")));
            identities.release(handle);
        }
        assert_eq!((identities.len(), identities.by_token.len()), (1, 1));
        // Its place is another's now.
        let mut next = IdentityHandle::ANONYMOUS;
        identities.replace(&mut next, token("c"));
        assert_eq!(digest(&identities, next), Some(TokenDigest::of("c")));
        identities.replace(&mut next, token("b"));
        assert_eq!((next, identities.len()), (other, 1));
        identities.release(next);
        identities.release(other);
        assert!(identities.is_empty() && identities.by_token.is_empty());
        assert_eq!(identities.bytes(), 0);
    }

    #[test]
    fn bytes_are_those_of_all_entries() {
        let mut identities = Identities::default();
        let meta = format!("\"{}\"", "m".repeat(4000));
        let large = || {
            let meta = serde_json::value::RawValue::from_string(meta.clone());
            let identity = Identity::new(IdentityParts {
                meta: Some(meta.expect("JSON")),
                ..IdentityParts::of(Source::Hook)
            });
            Caller::Known(identity.expect("an identity"))
        };
        let mut handles = [IdentityHandle::ANONYMOUS; 10];
        for handle in &mut handles {
            identities.replace(handle, large());
        }
        assert!(
            (40_000..50_000).contains(&identities.bytes()),
            "{}",
            identities.bytes()
        );
        for handle in &mut handles {
            identities.replace(handle, token("a"));
        }
        assert!(identities.bytes() < 1000, "{}", identities.bytes());
        handles
            .into_iter()
            .for_each(|handle| identities.release(handle));
        assert_eq!(identities.bytes(), 0);
    }

    /// A handle that is replaced by its own identity keeps its entry.
    #[test]
    fn replacing_by_the_same_changes_nothing() {
        let mut identities = Identities::default();
        let mut handle = IdentityHandle::ANONYMOUS;
        identities.replace(&mut handle, token("a"));
        let before = handle;
        identities.replace(&mut handle, token("a"));
        assert_eq!((handle, identities.len()), (before, 1));
        identities.release(handle);
        assert!(identities.is_empty());
    }

    #[test]
    fn who_shows_nothing_or_nothing_known_has_no_entry() {
        let mut identities = Identities::default();
        let mut handle = IdentityHandle::ANONYMOUS;
        let shown = |identities: &Identities, handle| match identities.get(handle) {
            Caller::Anonymous => "anonymous",
            Caller::Unknown => "unknown",
            _ => "known",
        };
        assert_eq!(shown(&identities, handle), "anonymous");
        identities.replace(&mut handle, Caller::Unknown);
        assert_eq!(shown(&identities, handle), "unknown");
        assert!(identities.is_empty());
        identities.release(handle);
        // One that stands for nothing any more is nobody's.
        identities.replace(&mut handle, token("a"));
        identities.release(handle);
        assert_eq!(shown(&identities, handle), "unknown");
        assert_eq!(size_of::<IdentityHandle>(), 4);
    }
}
