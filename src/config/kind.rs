//! Kinds of settings' values.

/// Kind of a setting's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A whole number, in the unit of its name.
    Number {
        /// Smallest value.
        min: u64,
        /// Largest value.
        max: u64,
    },
    /// A share: a decimal number from 0 to 1.
    Share,
    /// `true` or `false`.
    Bool,
    /// `true` or `false`, as a flag without a value.
    Switch,
    /// `true`, `false`, or one of these words.
    Flag(&'static [&'static str]),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Text.
    Text,
    /// A secret: text, or where it is found.
    Secret,
    /// Texts, as a flag by commas or repeated.
    Texts,
    /// Listeners: `--listen`, `[[listener]]`.
    Listeners,
    /// Topic rules: `--topic-rule`, `[[topic]]`.
    TopicRules,
    /// A time with its offset, as in `2027-01-01T00:00:00Z`.
    Time,
    /// Named tokens: `--token`, `[[token]]`.
    Tokens,
    /// Grants: `--grant`, `[[grant]]`.
    Grants,
    /// Keys of signed URLs: `[[url_key]]`.
    UrlKeys,
    /// Issuers of JSON web tokens: `--jwt`, `[[jwt]]`.
    Jwts,
    /// Certificates: `--certificate`, `[[certificate]]`.
    Certificates,
}
