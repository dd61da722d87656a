//! Topics: their names, the patterns and rules over them, and tables by topic.

pub mod name;
pub mod pattern;
pub mod presence;
pub mod rule;
pub mod table;
pub mod template;

pub use name::{TOPIC_BYTES_MAX, Topic, TopicError};
pub use pattern::{PATTERN_BYTES_MAX, Pattern, PatternError, PatternTable};
pub use presence::{PresenceOf, PresenceSubject};
pub use rule::{HistoryLimits, Rule, SlowConsumer, TopicRule, TopicRuleError, TopicRules};
pub use table::TopicTable;
