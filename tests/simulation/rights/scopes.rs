//! Patterns of rights, and what they allow and deny. Which of them matches, covers or meets what is said here by hand, for
//! the model must not ask what it holds to account.

use serde_json::{Value, json};

use crate::random::Random;
use crate::topics::Target;

/// A pattern of a right.
struct Scope {
    text: &'static str,
    /// Numbers of the topics that it matches.
    topics: &'static [usize],
    /// Numbers of the patterns that it covers: all that they match, it matches.
    covers: &'static [usize],
    /// Numbers of the patterns that it meets: they have a topic in common.
    meets: &'static [usize],
}

const fn scope(
    text: &'static str,
    topics: &'static [usize],
    covers: &'static [usize],
    meets: &'static [usize],
) -> Scope {
    Scope {
        text,
        topics,
        covers,
        meets,
    }
}

/// By the numbers of topics.rs: the topics `t0`, `a/t1`, `a/b.t2`, `c`, `a/c/d`, and the patterns `**`, `*`, `a/**`, `a/*`,
/// `a/b.*`, `*/t1`, `a/*.t2`, `a/*/d`.
const SCOPES: &[Scope] = &[
    scope(
        "**",
        &[0, 1, 2, 3, 4],
        &[0, 1, 2, 3, 4, 5, 6, 7],
        &[0, 1, 2, 3, 4, 5, 6, 7],
    ),
    scope("a/**", &[1, 2, 4], &[2, 3, 4, 6, 7], &[0, 2, 3, 4, 5, 6, 7]),
    scope("*", &[0, 3], &[1], &[0, 1]),
    scope("t0", &[0], &[], &[0, 1]),
    scope("a/*", &[1], &[3], &[0, 2, 3, 5]),
    scope("a/b.*", &[2], &[4], &[0, 2, 4, 6]),
    scope("a/c/d", &[4], &[], &[0, 2, 7]),
    scope("*/t1", &[1], &[5], &[0, 2, 3, 5]),
    scope("a/*/d", &[4], &[7], &[0, 2, 7]),
    scope("c", &[3], &[], &[0, 1]),
];

/// What a right is needed for.
#[derive(Clone, Copy, Debug)]
pub enum Action {
    /// Members and history of a topic too.
    Subscribe(Target),
    Publish(usize),
}

/// Rights, by the numbers of their patterns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    subscribe: Vec<usize>,
    publish: Vec<usize>,
    deny_subscribe: Vec<usize>,
    deny_publish: Vec<usize>,
}

impl Lists {
    /// Some, of which most allow much.
    pub fn some(random: &mut Random) -> Lists {
        fn list(random: &mut Random, low: u64, high: u64) -> Vec<usize> {
            let count = random.within(low, high);
            (0..count).map(|_| random.below(SCOPES.len())).collect()
        }
        let all = || vec![0];
        let denies_max = if random.chance(35) { 2 } else { 0 };
        // Who may nothing at all is not let in.
        Lists {
            subscribe: match random.chance(30) {
                true => all(),
                false => list(random, 1, 4),
            },
            publish: match random.chance(30) {
                true => all(),
                false => list(random, 0, 3),
            },
            deny_subscribe: list(random, 0, denies_max),
            deny_publish: list(random, 0, denies_max),
        }
    }

    /// Some, of which most allow and deny little.
    pub fn granted(random: &mut Random) -> Lists {
        let mut list = |percent: u64| -> Vec<usize> {
            let count = random.chance(percent);
            (0..u8::from(count))
                .map(|_| random.below(SCOPES.len()))
                .collect()
        };
        Lists {
            subscribe: list(60),
            publish: list(60),
            deny_subscribe: list(40),
            deny_publish: list(40),
        }
    }

    /// As flags have them, for a grant.
    pub fn text(&self) -> String {
        let lists = [
            ("subscribe", &self.subscribe),
            ("publish", &self.publish),
            ("deny.subscribe", &self.deny_subscribe),
            ("deny.publish", &self.deny_publish),
        ];
        let lists = lists.iter().filter(|(_, list)| !list.is_empty());
        let texts = lists.map(|(name, list)| {
            let texts: Vec<_> = list.iter().map(|at| SCOPES[*at].text).collect();
            format!("{name}={}", texts.join(","))
        });
        texts.collect::<Vec<_>>().join(" ")
    }

    fn allows(&self, action: Action) -> bool {
        let is_in = |scopes: &[usize], list: fn(&Scope) -> &[usize], number: usize| {
            scopes.iter().any(|at| list(&SCOPES[*at]).contains(&number))
        };
        match action {
            Action::Subscribe(Target::Topic(topic)) => {
                is_in(&self.subscribe, |it| it.topics, topic)
            }
            Action::Subscribe(Target::Pattern(pattern)) => {
                is_in(&self.subscribe, |it| it.covers, pattern)
            }
            Action::Publish(topic) => is_in(&self.publish, |it| it.topics, topic),
        }
    }

    fn denies(&self, action: Action) -> bool {
        let is_in = |scopes: &[usize], list: fn(&Scope) -> &[usize], number: usize| {
            scopes.iter().any(|at| list(&SCOPES[*at]).contains(&number))
        };
        match action {
            Action::Subscribe(Target::Topic(topic)) => {
                is_in(&self.deny_subscribe, |it| it.topics, topic)
            }
            Action::Subscribe(Target::Pattern(pattern)) => {
                is_in(&self.deny_subscribe, |it| it.meets, pattern)
            }
            Action::Publish(topic) => is_in(&self.deny_publish, |it| it.topics, topic),
        }
    }

    /// As a token has them.
    pub fn claims(&self) -> Value {
        let texts =
            |scopes: &[usize]| -> Vec<&str> { scopes.iter().map(|at| SCOPES[*at].text).collect() };
        json!({
            "v": 1,
            "subscribe": texts(&self.subscribe),
            "publish": texts(&self.publish),
            "deny": {
                "subscribe": texts(&self.deny_subscribe),
                "publish": texts(&self.deny_publish),
            },
        })
    }
}

/// Whether all of these rights together allow something: a deny of any wins.
pub fn allow(parts: &[&Lists], action: Action) -> bool {
    parts.iter().any(|lists| lists.allows(action))
        && !parts.iter().any(|lists| lists.denies(action))
}
