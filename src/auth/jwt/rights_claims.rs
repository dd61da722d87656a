//! Claims of the server's own: rights, roles, and what else a token may say of a connection.

use std::fmt;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::json::{Name, object, present};
use super::numeric_date::NumericDate;
use crate::auth::identity::IdentityLimits;
use crate::auth::rights::Rights;
use crate::config::{DenyLists, RIGHTS_PATTERNS_MAX, RightsLists};

/// Roles of a token, and topics that it joins: so many of each.
pub const NAMES_MAX: usize = 64;

/// Bytes of the name of a role.
const ROLE_BYTES_MAX: usize = 128;

/// Bytes of the name of a topic, its templates not filled in.
const JOIN_BYTES_MAX: usize = 255;

/// Version of these claims.
const VERSION: u64 = 1;

/// All that may stand there. Any other member refuses the token, for it might have been meant to deny something.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Members {
    #[serde(default, deserialize_with = "present")]
    v: Option<u64>,
    #[serde(default, deserialize_with = "patterns")]
    subscribe: Vec<String>,
    #[serde(default, deserialize_with = "patterns")]
    publish: Vec<String>,
    #[serde(default, deserialize_with = "some_patterns")]
    presence: Option<Vec<String>>,
    #[serde(default, deserialize_with = "some_patterns")]
    history: Option<Vec<String>>,
    #[serde(default, deserialize_with = "patterns")]
    manage: Vec<String>,
    #[serde(default)]
    observe: bool,
    #[serde(default, deserialize_with = "object")]
    deny: Option<Denied>,
    #[serde(default, deserialize_with = "names")]
    roles: Vec<Box<str>>,
    #[serde(default, deserialize_with = "names")]
    join: Vec<Box<str>>,
    info: Option<Box<RawValue>>,
    meta: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "object")]
    limits: Option<LimitClaims>,
    #[serde(default, deserialize_with = "present")]
    connection_expires_at: Option<NumericDate>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Denied {
    #[serde(default, deserialize_with = "patterns")]
    subscribe: Vec<String>,
    #[serde(default, deserialize_with = "patterns")]
    publish: Vec<String>,
    #[serde(default, deserialize_with = "patterns")]
    presence: Vec<String>,
    #[serde(default, deserialize_with = "patterns")]
    history: Vec<String>,
    #[serde(default, deserialize_with = "patterns")]
    manage: Vec<String>,
}

/// Limits that a token may lower. A field is here once the server enforces it; any other refuses the token.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitClaims {
    #[serde(default, deserialize_with = "present")]
    subscriptions: Option<u32>,
    #[serde(default, deserialize_with = "present")]
    messages_per_second: Option<u32>,
}

/// The server's own claims, read but not weighed.
#[derive(Debug)]
pub struct UmbelClaims {
    version: u64,
    lists: RightsLists,
    /// Roles.
    pub roles: Vec<Box<str>>,
    /// Topics to be subscribed to.
    pub join: Vec<Box<str>>,
    /// Limits lower than the server's.
    pub limits: IdentityLimits,
    /// Information that presence shows.
    pub info: Option<Box<RawValue>>,
    /// Information that only the server sees.
    pub meta: Option<Box<RawValue>>,
    /// End of the connection, where that is not the token's.
    pub connection_expires_at: Option<NumericDate>,
}

impl<'de> Deserialize<'de> for UmbelClaims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<UmbelClaims, D::Error> {
        let members = Members::deserialize(deserializer)?;
        let deny = members.deny.unwrap_or_default();
        let limits = members.limits.map(|limits| IdentityLimits {
            subscriptions: limits.subscriptions,
            messages_per_second: limits.messages_per_second,
        });
        Ok(UmbelClaims {
            version: members.v.unwrap_or(VERSION),
            lists: RightsLists {
                subscribe: members.subscribe,
                publish: members.publish,
                presence: members.presence,
                history: members.history,
                manage: members.manage,
                observe: members.observe,
                deny: DenyLists {
                    subscribe: deny.subscribe,
                    publish: deny.publish,
                    presence: deny.presence,
                    history: deny.history,
                    manage: deny.manage,
                },
            },
            roles: members.roles,
            join: members.join,
            limits: limits.unwrap_or_default(),
            info: members.info,
            meta: members.meta,
            connection_expires_at: members.connection_expires_at,
        })
    }
}

impl UmbelClaims {
    /// Lists of rights to topics. None: something else is said too.
    pub fn rights_alone(&self) -> Option<&RightsLists> {
        let lists = &self.lists;
        let is_alone = self.version == VERSION
            && self.roles.is_empty()
            && self.join.is_empty()
            && self.info.is_none()
            && self.meta.is_none()
            && self.connection_expires_at.is_none()
            && lists.manage.is_empty()
            && !lists.observe;
        is_alone.then_some(lists)
    }

    /// Rights that it brings.
    ///
    /// # Errors
    /// A part of it cannot stand.
    pub fn rights(&self, may_manage: bool) -> Result<Rights, String> {
        if self.version != VERSION {
            return Err(format!("v is {}, and only 1 is known", self.version));
        }
        let lists = &self.lists;
        if !may_manage && (lists.observe || !lists.manage.is_empty()) {
            return Err("manage and observe are taken only with may_manage = true".to_owned());
        }
        let limits = &self.limits;
        for (name, limit) in [
            ("subscriptions", limits.subscriptions),
            ("messages_per_second", limits.messages_per_second),
        ] {
            if limit == Some(0) {
                return Err(format!("limits: {name} is 1 at least"));
            }
        }
        check_names("roles", &self.roles, ROLE_BYTES_MAX)?;
        check_names("join", &self.join, JOIN_BYTES_MAX)?;
        if self.join.iter().any(|topic| topic.contains('*')) {
            return Err("join lists topics, not patterns".to_owned());
        }
        Rights::from_lists(lists).map_err(|problem| problem.to_string())
    }
}

fn check_names(list: &str, names: &[Box<str>], bytes_max: usize) -> Result<(), String> {
    let is_good = |name: &str| {
        (1..=bytes_max).contains(&name.len()) && !name.chars().any(|letter| letter.is_control())
    };
    match names.iter().all(|name| is_good(name)) {
        true => Ok(()),
        false => Err(format!(
            "{list} has one of 0 bytes, of over {bytes_max}, or with a control character"
        )),
    }
}

fn patterns<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    deserializer.deserialize_seq(ListVisitor {
        count_max: RIGHTS_PATTERNS_MAX,
        read: |text: &str| text.to_owned(),
    })
}

fn some_patterns<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<String>>, D::Error> {
    patterns(deserializer).map(Some)
}

fn names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Box<str>>, D::Error> {
    deserializer.deserialize_seq(ListVisitor {
        count_max: NAMES_MAX,
        read: |text: &str| text.into(),
    })
}

/// Reads a list of strings, of which there may be so many.
struct ListVisitor<T> {
    count_max: usize,
    read: fn(&str) -> T,
}

impl<'de, T> Visitor<'de> for ListVisitor<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of strings")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(Name(text)) = seq.next_element::<Name<'de>>()? {
            if list.len() == self.count_max {
                let problem = format_args!("a list has over {} entries", self.count_max);
                return Err(A::Error::custom(problem));
            }
            list.push((self.read)(&text));
        }
        Ok(list)
    }
}
