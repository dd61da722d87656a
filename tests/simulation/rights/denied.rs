//! Those who are let in no more, and when that is.

use umbel::internals::auth::deny::{Denial, Entry};

use super::{BEGAN_MS, Badge, ISSUED_AGO_S_MAX, May, Rights, SUBJECTS};

/// Whom an entry denies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whom {
    /// All tokens of a subject; or those issued in this second or before, and in the leeway of clocks after it.
    Subject(usize, Option<u64>),
    /// The token of this number.
    Token(usize),
}

/// Leeway of clocks where the time of issue counts, in seconds.
const ISSUE_LEEWAY_S: u64 = 30;

/// An entry of the deny list, as the model knows it.
#[derive(Debug)]
pub struct Denied {
    whom: Whom,
    /// Its number in the list.
    pub id: u64,
    from_ms: u64,
    /// When it was taken off again.
    pub until_ms: Option<u64>,
}

impl Denied {
    /// Whether it denies a token in a span: perhaps at some moment of it, surely at each.
    pub(super) fn denies(
        &self,
        (number, badge): (usize, &Badge),
        (from_ms, to_ms): (u64, u64),
    ) -> May {
        let is_meant = match self.whom {
            Whom::Subject(subject, before) => {
                let is_older = before.is_none_or(|it| badge.issued_at <= it + ISSUE_LEEWAY_S);
                badge.subject == subject && is_older
            }
            Whom::Token(of) => of == number,
        };
        let until_ms = self.until_ms.unwrap_or(u64::MAX);
        May {
            perhaps: is_meant && self.from_ms <= to_ms && until_ms >= from_ms,
            surely: is_meant && self.from_ms < from_ms && until_ms > to_ms,
        }
    }
}

impl Rights {
    /// An entry that denies somebody, for the server's list. None: all are denied already.
    pub fn deny(&mut self) -> Option<(Entry, impl FnOnce(&mut Rights, u64, u64) + use<>)> {
        let whom = match self.random.chance(60) || self.badges.is_empty() {
            true => {
                let ago = self.random.within(0, ISSUED_AGO_S_MAX + 2 * ISSUE_LEEWAY_S);
                let before = BEGAN_MS / 1000 - ago;
                let before = self.random.chance(60).then_some(before);
                Whom::Subject(self.random.below(SUBJECTS), before)
            }
            false => Whom::Token(self.random.below(self.badges.len())),
        };
        let is_same = |denied: &&Denied| match (denied.whom, whom) {
            (Whom::Subject(one, _), Whom::Subject(other, _)) => one == other,
            (one, other) => one == other,
        };
        let active = self.denials.iter().filter(|it| it.until_ms.is_none());
        if active.into_iter().any(|it| is_same(&it)) {
            return None;
        }
        let (denial, issued_before) = match whom {
            Whom::Subject(subject, before) => {
                (Denial::Subject(format!("u{subject}").into()), before)
            }
            Whom::Token(number) => (Denial::TokenId(format!("j{number}").into()), None),
        };
        let entry = Entry {
            denial,
            issued_before,
            until_ms: None,
            is_fixed: false,
            ends_open: true,
        };
        let note = move |rights: &mut Rights, id, from_ms| {
            rights.denials.push(Denied {
                whom,
                id,
                from_ms,
                until_ms: None,
            });
        };
        Some((entry, note))
    }
}
