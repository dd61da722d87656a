//! Memory that identities take, for the figures.

use super::{Claim, Identity, More};

impl Identity {
    /// Bytes that it takes, about. Rights that others have too are theirs.
    pub fn bytes(&self) -> usize {
        let texts = [&self.subject, &self.token_id].into_iter().flatten();
        let more = self.more.as_ref().map_or(0, |more| more.bytes());
        let counts = 2 * size_of::<usize>();
        let texts = texts.map(|text| text.len()).sum::<usize>();
        counts + size_of::<Identity>() + texts + more + self.rights.own_bytes()
    }
}

impl More {
    fn bytes(&self) -> usize {
        let info = self.info.as_ref().map_or(0, |text| text.len() + 16);
        let meta = self.meta.as_ref().map_or(0, |json| json.get().len());
        let lists = self.roles.iter().chain(&self.join);
        let claims = self.claims.iter();
        size_of::<More>()
            + info
            + meta
            + lists.map(|text| text.len() + 16).sum::<usize>()
            + claims
                .map(|(name, claim)| name.len() + claim.bytes() + size_of::<(Box<str>, Claim)>())
                .sum::<usize>()
    }
}

impl Claim {
    /// Bytes of its texts.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Claim::Text(text) => text.len(),
            Claim::List(texts) => texts.iter().map(|text| text.len() + 16).sum(),
        }
    }
}
