//! Rights: for each action the topics that are allowed, and those that are denied.
//!
//! A deny wins over an allow, whatever the order; what is not allowed is denied. [`decide`] judges by several [`Rights`] at
//! once: those of a token, and those of the grants that it gets.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use sha2::{Digest, Sha256};

use super::access::Action;
pub use crate::config::{DenyLists, RIGHTS_PATTERNS_MAX, RightsLists};
use crate::topic::Pattern;
use crate::topic::pattern::{covers_text, matches_text, meets_text};
use crate::topic::template::{Template, TemplateError, Values, Variable};

/// Reason that lists are no rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RightsError {
    /// Name of the list, as in `deny.subscribe`. Empty: it is about all lists together.
    pub list: &'static str,
    /// Number of the text in the list, from 0.
    pub index: usize,
    /// Problem and remedy, with the text.
    pub problem: String,
}

impl fmt::Display for RightsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.list {
            "" => f.write_str(&self.problem),
            list => write!(f, "{list}: {}", self.problem),
        }
    }
}

impl std::error::Error for RightsError {}

/// Right to one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicRight {
    /// To subscribe to it.
    Subscribe,
    /// To publish to it.
    Publish,
}

impl TopicRight {
    /// Its name in signatures and lists.
    pub fn name(self) -> &'static str {
        match self {
            TopicRight::Subscribe => "subscribe",
            TopicRight::Publish => "publish",
        }
    }
}

/// Compiled rights. A clone copies a pointer, and rights of the same text share one memory.
#[derive(Clone)]
pub struct Rights(Arc<Table>);

#[derive(Default)]
struct Table {
    subscribe: PatternList,
    publish: PatternList,
    presence: Option<PatternList>,
    history: Option<PatternList>,
    manage: PatternList,
    observe: bool,
    deny_subscribe: PatternList,
    deny_publish: PatternList,
    deny_presence: PatternList,
    deny_history: PatternList,
    deny_manage: PatternList,
    /// Whether a pattern has variables.
    has_variables: bool,
    /// Bytes of the patterns.
    bytes: usize,
}

/// Rights in use by the digest of their texts. What nobody uses any more is swept out as the map grows.
static IN_USE: Mutex<Option<InUse>> = Mutex::new(None);

#[derive(Default)]
struct InUse {
    tables: HashMap<[u8; 32], Weak<Table>>,
    /// Entries at which the map is swept.
    sweep_at: usize,
}

/// Entries below which the map is not swept.
const SWEEP_MIN: usize = 64;

impl Rights {
    /// Compiles rights. Costs a lookup where rights of the same text are in use.
    ///
    /// # Errors
    /// The first list and text that is no template; or there are over 256 patterns or 16 KiB of them.
    pub fn from_lists(lists: &RightsLists) -> Result<Rights, RightsError> {
        lists.check_size().map_err(|problem| RightsError {
            list: "",
            index: 0,
            problem,
        })?;
        let digest = digest_of(lists);
        let mut in_use = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
        let in_use = in_use.get_or_insert_default();
        if let Some(table) = in_use.tables.get(&digest).and_then(Weak::upgrade) {
            return Ok(Rights(table));
        }
        let table = Arc::new(Table::compile(lists)?);
        if in_use.tables.len() >= in_use.sweep_at.max(SWEEP_MIN) {
            in_use.tables.retain(|_, table| table.strong_count() > 0);
            in_use.sweep_at = 2 * in_use.tables.len();
            in_use.tables.shrink_to(in_use.sweep_at);
        }
        in_use.tables.insert(digest, Arc::downgrade(&table));
        Ok(Rights(table))
    }

    /// Rights that allow and deny nothing.
    pub fn none() -> Rights {
        static NONE: OnceLock<Rights> = OnceLock::new();
        NONE.get_or_init(|| Rights(Arc::default())).clone()
    }

    /// Bytes that they take, where at most two identities have them. None are counted where more do.
    pub fn own_bytes(&self) -> usize {
        match Arc::strong_count(&self.0) <= 2 {
            true => size_of::<Table>() + self.0.bytes,
            false => 0,
        }
    }

    /// Whether they are [`none`](Rights::none): nothing was said about rights, not even that there are none.
    pub fn is_none(&self) -> bool {
        Arc::ptr_eq(&self.0, &Rights::none().0)
    }

    /// Right to this one topic, whatever characters are in it. Its history and members stay closed.
    pub fn of_topic(right: TopicRight, topic: &str) -> Rights {
        let list = PatternList {
            literals: HashSet::from([Box::from(topic)]),
            others: Box::default(),
        };
        let mut table = Table {
            presence: Some(PatternList::default()),
            history: Some(PatternList::default()),
            ..Table::default()
        };
        match right {
            TopicRight::Subscribe => table.subscribe = list,
            TopicRight::Publish => table.publish = list,
        }
        Rights(Arc::new(table))
    }

    /// Whether a pattern has variables. What it allows depends on the identity then.
    pub fn has_variables(&self) -> bool {
        self.0.has_variables
    }

    /// Variables of its patterns.
    pub fn variables(&self) -> impl Iterator<Item = &Variable> {
        let others = self.0.lists().flat_map(|list| &list.others);
        others.flat_map(Template::variables)
    }

    /// Whether each variable has a value that can stand. If not, nothing is allowed, and denies hold for every value.
    pub fn can_be_filled(&self, values: &dyn Values) -> bool {
        let table = &*self.0;
        !table.has_variables
            || table
                .lists()
                .all(|list| list.others.iter().all(|it| it.can_be_filled(values)))
    }

    /// Whether both are the same memory. Rights of the same text are.
    #[cfg(test)]
    pub fn is_shared_with(&self, other: &Rights) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn denied(&self, action: Action<'_>, values: &dyn Values) -> Option<&str> {
        let table = &*self.0;
        match action {
            Action::Subscribe(topic) => table.deny_subscribe.find_denied(topic, values),
            Action::SubscribePattern(pattern) => table.deny_subscribe.find_meeting(pattern, values),
            Action::Publish(topic) => table.deny_publish.find_denied(topic, values),
            Action::Presence(topic) => table.deny_presence.find_denied(topic, values),
            Action::History(topic) => table.deny_history.find_denied(topic, values),
            Action::Manage(Some(text)) if is_pattern(text) => {
                table.deny_manage.find_meeting(text, values)
            }
            Action::Manage(Some(topic)) => table.deny_manage.find_denied(topic, values),
            Action::Manage(None) => table.deny_manage.find_meeting("**", values),
            Action::Connect | Action::PublishMany | Action::Open(_) | Action::Observe => None,
        }
    }

    fn allowed(&self, action: Action<'_>, values: &dyn Values) -> Option<&str> {
        let table = &*self.0;
        let any = |list: &'_ PatternList| list.first().is_some();
        match action {
            Action::Subscribe(topic) => table.subscribe.find(topic, values),
            Action::SubscribePattern(pattern) => table.subscribe.find_covering(pattern, values),
            Action::Publish(topic) => table.publish.find(topic, values),
            Action::Presence(topic) => table.presence.as_ref()?.find(topic, values),
            Action::History(topic) => table.history.as_ref()?.find(topic, values),
            Action::Manage(Some(text)) if is_pattern(text) => {
                table.manage.find_covering(text, values)
            }
            Action::Manage(Some(topic)) => table.manage.find(topic, values),
            Action::Manage(None) => table.manage.find_covering("**", values),
            Action::PublishMany => table.publish.first(),
            Action::Open(_) => table.subscribe.first(),
            Action::Connect if any(&table.subscribe) => table.subscribe.first(),
            Action::Connect => table.publish.first(),
            Action::Observe => table.observe.then_some("observe"),
        }
    }

    /// The topic, where this action follows the subscription here.
    fn followed<'a>(&self, action: Action<'a>) -> Option<&'a str> {
        match action {
            Action::Presence(topic) if self.0.presence.is_none() => Some(topic),
            Action::History(topic) if self.0.history.is_none() => Some(topic),
            _ => None,
        }
    }
}

/// Whether a text that is managed may be a pattern. A topic with a star is judged as one too, which allows no more.
fn is_pattern(text: &str) -> bool {
    text.contains('*')
}

/// SHA-256 over all that the lists say.
fn digest_of(lists: &RightsLists) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update([
        u8::from(lists.observe),
        u8::from(lists.presence.is_some()),
        u8::from(lists.history.is_some()),
    ]);
    for (_, list) in lists.named() {
        hash.update((list.len() as u32).to_le_bytes());
        for text in list {
            hash.update((text.len() as u32).to_le_bytes());
            hash.update(text);
        }
    }
    hash.finalize().into()
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rights").finish_non_exhaustive()
    }
}

/// One of the rights that an identity has, with its owner.
#[derive(Clone, Copy, Debug)]
pub struct Part<'r, L> {
    /// Owner: its own, or a grant.
    pub owner: L,
    /// The rights.
    pub rights: &'r Rights,
    /// Whether only its denies count.
    pub denies_only: bool,
}

/// Answer to a question about an action. It has the owner and the pattern that decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision<'r, L> {
    /// It is allowed by this pattern.
    Allowed(L, &'r str),
    /// It is denied by this pattern.
    Denied(L, &'r str),
    /// Nothing allows it.
    NotAllowed,
}

/// Judges an action by all of these rights together.
pub fn decide<'r, L: Copy>(
    parts: &(impl Iterator<Item = Part<'r, L>> + Clone),
    action: Action<'_>,
    values: &dyn Values,
) -> Decision<'r, L> {
    let denied = |action| {
        parts
            .clone()
            .find_map(|part| Some((part.owner, part.rights.denied(action, values)?)))
    };
    if let Some((owner, pattern)) = denied(action) {
        return Decision::Denied(owner, pattern);
    }
    let made = || {
        parts
            .clone()
            .filter(|part| !part.denies_only && part.rights.can_be_filled(values))
    };
    let allowed = made().find_map(|part| Some((part.owner, part.rights.allowed(action, values)?)));
    if let Some((owner, pattern)) = allowed {
        return Decision::Allowed(owner, pattern);
    }
    let followed = made().find_map(|part| {
        let action = Action::Subscribe(part.rights.followed(action)?);
        Some((part.owner, part.rights.allowed(action, values)?, action))
    });
    match followed {
        None => Decision::NotAllowed,
        Some((owner, pattern, action)) => match denied(action) {
            Some((owner, pattern)) => Decision::Denied(owner, pattern),
            None => Decision::Allowed(owner, pattern),
        },
    }
}

/// Whether a right to read follows the subscription. It is [`Action::Presence`] or [`Action::History`], and does where no list
/// says it, and what somebody brings leaves it out, or a subscription gives it.
pub fn follows_subscription<'r, L: Copy>(
    parts: &(impl Iterator<Item = Part<'r, L>> + Clone),
    action: Action<'_>,
    values: &dyn Values,
) -> bool {
    let mut made = parts
        .clone()
        .filter(|part| !part.denies_only && part.rights.can_be_filled(values));
    if made.any(|part| part.rights.allowed(action, values).is_some()) {
        return false;
    }
    match decide(parts, action, values) {
        Decision::Allowed(..) => true,
        Decision::Denied(..) => false,
        Decision::NotAllowed => {
            let own = parts.clone().next();
            own.is_some_and(|part| part.rights.followed(action).is_some())
        }
    }
}

impl Table {
    fn compile(lists: &RightsLists) -> Result<Table, RightsError> {
        let list = PatternList::compile;
        let optional = |name, texts: &Option<Vec<String>>| {
            texts.as_deref().map(|texts| list(name, texts)).transpose()
        };
        let deny = &lists.deny;
        let mut table = Table {
            subscribe: list("subscribe", &lists.subscribe)?,
            publish: list("publish", &lists.publish)?,
            presence: optional("presence", &lists.presence)?,
            history: optional("history", &lists.history)?,
            manage: list("manage", &lists.manage)?,
            observe: lists.observe,
            deny_subscribe: list("deny.subscribe", &deny.subscribe)?,
            deny_publish: list("deny.publish", &deny.publish)?,
            deny_presence: list("deny.presence", &deny.presence)?,
            deny_history: list("deny.history", &deny.history)?,
            deny_manage: list("deny.manage", &deny.manage)?,
            has_variables: false,
            bytes: 0,
        };
        let has_variables = table
            .lists()
            .flat_map(|list| &list.others)
            .any(|it| it.variables().next().is_some());
        table.has_variables = has_variables;
        table.bytes = table.lists().map(PatternList::bytes).sum();
        Ok(table)
    }

    fn lists(&self) -> impl Iterator<Item = &PatternList> {
        let lists = [
            Some(&self.subscribe),
            Some(&self.publish),
            self.presence.as_ref(),
            self.history.as_ref(),
            Some(&self.manage),
            Some(&self.deny_subscribe),
            Some(&self.deny_publish),
            Some(&self.deny_presence),
            Some(&self.deny_history),
            Some(&self.deny_manage),
        ];
        lists.into_iter().flatten()
    }
}

/// Patterns of one list.
#[derive(Default)]
struct PatternList {
    /// Those that match one topic.
    literals: HashSet<Box<str>>,
    /// All others.
    others: Box<[Template]>,
}

impl PatternList {
    fn compile(list: &'static str, texts: &[String]) -> Result<PatternList, RightsError> {
        let (mut literals, mut others) = (HashSet::new(), Vec::new());
        for (index, text) in texts.iter().enumerate() {
            let refused = |error: TemplateError| RightsError {
                list,
                index,
                problem: format!("`{}`: {error}", text.escape_debug()),
            };
            let template = Template::parse(text).map_err(refused)?;
            if template.is_literal() {
                literals.insert(text.as_str().into());
            } else {
                others.push(template);
            }
        }
        Ok(PatternList {
            literals,
            others: others.into(),
        })
    }

    /// Bytes beside those in its table.
    fn bytes(&self) -> usize {
        let literals = self.literals.capacity() * (size_of::<Box<str>>() + 1);
        let others = size_of_val(&*self.others);
        let texts = self.literals.iter().map(|text| text.len());
        let texts = texts.chain(self.others.iter().map(|it| it.as_str().len() + 32));
        literals + others + texts.sum::<usize>()
    }

    /// Any of its patterns.
    fn first(&self) -> Option<&str> {
        let literal = self.literals.iter().next().map(|text| &**text);
        literal.or_else(|| self.others.first().map(Template::as_str))
    }

    /// The pattern that matches a topic.
    fn find(&self, topic: &str, values: &dyn Values) -> Option<&str> {
        self.search(topic, values, None, |pattern| matches_text(pattern, topic))
    }

    /// As [`find`](PatternList::find), where a variable without a value stands for every segment.
    fn find_denied(&self, topic: &str, values: &dyn Values) -> Option<&str> {
        self.search(topic, values, Some("*"), |pattern| {
            matches_text(pattern, topic)
        })
    }

    /// The pattern that covers another. What is no pattern is covered by none.
    fn find_covering(&self, wanted: &str, values: &dyn Values) -> Option<&str> {
        Pattern::parse(wanted).ok()?;
        // A topic whose name has a star covers that name alone.
        let wanted_name = if wanted.contains('*') { "" } else { wanted };
        self.search(wanted_name, values, None, |pattern| {
            covers_text(pattern, wanted)
        })
    }

    /// The pattern that meets another.
    fn find_meeting(&self, wanted: &str, values: &dyn Values) -> Option<&str> {
        let literal = self.literals.iter().find(|it| meets_text(it, wanted));
        literal.map(|text| &**text).or_else(|| {
            self.search(wanted, values, Some("*"), |pattern| {
                meets_text(pattern, wanted)
            })
        })
    }

    fn search(
        &self,
        literal: &str,
        values: &dyn Values,
        unknown: Option<&str>,
        is_it: impl Fn(&str) -> bool,
    ) -> Option<&str> {
        if let Some(found) = self.literals.get(literal) {
            return Some(found);
        }
        let mut others = self.others.iter();
        let found = others.find(|it| it.fill(values, unknown).is_some_and(|text| is_it(&text)));
        found.map(Template::as_str)
    }
}

#[cfg(test)]
mod tests;
