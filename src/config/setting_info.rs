//! Descriptions of settings: names, kinds, values and meanings.

use std::borrow::Cow;
use std::fmt;

use super::Reload;
use super::kind::Kind;
use crate::units::Unit;

/// Value of a setting that nobody set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unset {
    /// This value.
    Value(&'static str),
    /// This number.
    Number(u64),
    /// What the words say.
    Words(&'static str),
}

/// One setting: its names, its values and its meaning.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SettingInfo {
    /// Name. With dashes it is the flag, in capitals behind `UMBEL_` the variable.
    pub name: &'static str,
    /// Key in the file, with its table: `log.level`.
    pub key: Key,
    /// Heading in the help.
    pub heading: &'static str,
    /// Kind of its value.
    pub kind: Kind,
    /// Value when nothing is set.
    pub unset: Unset,
    /// Value that the sample shows. Empty where it shows the default.
    pub example: &'static str,
    /// Effect of a reload on it.
    pub reload: Reload,
    /// Stand-in for a value in the help.
    pub value_name: &'static str,
    /// Meaning, with units and consequences.
    pub doc: &'static str,
    /// Meaning in full, for the long help. Empty where `doc` is all.
    pub long_doc: &'static str,
    /// Whether only the long help lists it.
    pub is_advanced: bool,
}

/// Key of the file: the table that it stands in, empty for none, and its name there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The table.
    pub table: &'static str,
    /// The name there.
    pub name: &'static str,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.table {
            "" => f.write_str(self.name),
            table => write!(f, "{table}.{}", self.name),
        }
    }
}

impl SettingInfo {
    /// The command-line flag, without the two dashes in front.
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// The environment variable.
    pub fn variable(&self) -> String {
        match self.kind {
            Kind::TopicRules => TOPIC_RULES_VARIABLE.to_owned(),
            // UMBEL_TOKEN is the token that clients show.
            Kind::Tokens => TOKENS_VARIABLE.to_owned(),
            Kind::Grants => GRANTS_VARIABLE.to_owned(),
            Kind::Jwts => JWTS_VARIABLE.to_owned(),
            _ => format!("UMBEL_{}", self.name.to_uppercase()),
        }
    }

    /// Unit of a number.
    pub fn unit(&self) -> Unit {
        Unit::of_setting(self.name)
    }

    /// Its value when nothing is set, in words. Empty where there is nothing to be said.
    pub fn unset_words(&self) -> Cow<'static, str> {
        match self.unset {
            Unset::Value(text) | Unset::Words(text) => text.into(),
            Unset::Number(number) => number.to_string().into(),
        }
    }
}

/// The variable of `--topic-rule`, which holds several.
const TOPIC_RULES_VARIABLE: &str = "UMBEL_TOPIC_RULES";

/// The variable of `--jwt`, which holds several.
const JWTS_VARIABLE: &str = "UMBEL_JWTS";

/// The variable of `--token`, which holds several.
const TOKENS_VARIABLE: &str = "UMBEL_TOKENS";

/// The variable of `--grant`, which holds several.
const GRANTS_VARIABLE: &str = "UMBEL_GRANTS";

/// Headings of the help.
pub mod heading {
    /// Addresses and threads.
    pub const LISTENING: &str = "Address and threads";
    /// Rights and origins.
    pub const ACCESS: &str = "Access";
    /// permessage-deflate.
    pub const DEFLATE: &str = "Compression";
    /// Topic rules.
    pub const TOPICS: &str = "Topics";
    /// The application that is asked, and the server's own requests.
    pub const HOOK: &str = "Hook";
    /// Exemptions from limits.
    pub const LIMITS: &str = "Reach of limits";
    /// Certificates and TLS.
    pub const TLS: &str = "TLS";
    /// Log lines.
    pub const LOGGING: &str = "Logging";
}

/// A setting of a number, a choice and so on, from which the table's rows are made by what differs.
pub(super) const PLAIN: SettingInfo = SettingInfo {
    name: "",
    key: Key {
        table: "",
        name: "",
    },
    heading: heading::LISTENING,
    kind: Kind::Text,
    unset: Unset::Words(""),
    example: "",
    reload: Reload::Restart,
    value_name: "",
    doc: "",
    long_doc: "",
    is_advanced: false,
};
