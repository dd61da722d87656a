//! Lists of topics: what somebody may, and what is closed to it.

use std::fmt;

use crate::topic::template::Template;

/// Most patterns of one [`RightsLists`].
pub const RIGHTS_PATTERNS_MAX: usize = 256;

/// Bytes of all patterns of one [`RightsLists`].
pub const RIGHTS_BYTES_MAX: usize = 16 * 1024;

/// Rights as lists of topics. Each text is a pattern, in which a whole segment may be a variable: `{sub}`, `{meta.NAME}` or
/// `{claim.NAME}`, and `{sub|hex}` or `{sub|base64url}` for values that are no plain segment.
///
/// ```
/// use umbel::config::RightsLists;
///
/// let mut rights = RightsLists::default();
/// rights.subscribe = vec!["news/**".to_owned(), "user/{sub}/**".to_owned()];
/// rights.deny.subscribe = vec!["news/internal/**".to_owned()];
/// assert_eq!(rights.to_string(), "subscribe=news/**,user/{sub}/** deny.subscribe=news/internal/**");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RightsLists {
    /// Topics to subscribe to.
    pub subscribe: Vec<String>,
    /// Topics to publish to.
    pub publish: Vec<String>,
    /// Topics whose members may be asked for. None: those that may be subscribed to.
    pub presence: Option<Vec<String>>,
    /// Topics whose history may be read without subscribing. None: those that may be subscribed to.
    pub history: Option<Vec<String>>,
    /// Topics that the control API may be used for. `**` also means all that concerns no topic.
    pub manage: Vec<String>,
    /// Whether metrics, topics and console may be seen.
    pub observe: bool,
    /// Topics that are closed, whatever is allowed here or elsewhere.
    pub deny: DenyLists,
}

/// Topics that are closed, as lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DenyLists {
    /// To subscriptions. Presence and history are closed too where they follow the subscription.
    pub subscribe: Vec<String>,
    /// To publications.
    pub publish: Vec<String>,
    /// To questions about members.
    pub presence: Vec<String>,
    /// To readers of the history.
    pub history: Vec<String>,
    /// To the control API.
    pub manage: Vec<String>,
}

impl RightsLists {
    /// Whether it allows anything at all.
    #[must_use]
    pub fn allows_anything(&self) -> bool {
        let allowed = self.named().into_iter();
        self.observe
            || allowed
                .filter(|(name, _)| !name.starts_with("deny."))
                .any(|(_, list)| !list.is_empty())
    }

    /// All lists, with their names in the file.
    #[must_use]
    pub fn named(&self) -> [(&'static str, &[String]); 10] {
        let deny = &self.deny;
        [
            ("publish", &self.publish),
            ("subscribe", &self.subscribe),
            ("presence", self.presence.as_deref().unwrap_or_default()),
            ("history", self.history.as_deref().unwrap_or_default()),
            ("manage", &self.manage),
            ("deny.publish", &deny.publish),
            ("deny.subscribe", &deny.subscribe),
            ("deny.presence", &deny.presence),
            ("deny.history", &deny.history),
            ("deny.manage", &deny.manage),
        ]
    }

    fn list(&mut self, name: &str) -> Option<&mut Vec<String>> {
        Some(match name {
            "publish" => &mut self.publish,
            "subscribe" => &mut self.subscribe,
            "presence" => self.presence.get_or_insert_default(),
            "history" => self.history.get_or_insert_default(),
            "manage" => &mut self.manage,
            "deny.publish" => &mut self.deny.publish,
            "deny.subscribe" => &mut self.deny.subscribe,
            "deny.presence" => &mut self.deny.presence,
            "deny.history" => &mut self.deny.history,
            "deny.manage" => &mut self.deny.manage,
            _ => return None,
        })
    }

    /// Adds to a right by its name in the file. A list is there then, even without a text.
    ///
    /// # Errors
    /// Problem and remedy, and the number of the value that it is about.
    pub(crate) fn set<'t>(
        &mut self,
        name: &str,
        mut values: impl Iterator<Item = &'t str>,
    ) -> Result<(), (usize, String)> {
        if name == "observe" {
            self.observe = match values.next() {
                Some("true") => true,
                Some("false") => false,
                _ => return Err((0, "observe is true or false".to_owned())),
            };
            return Ok(());
        }
        let Some(list) = self.list(name) else {
            let rights = "publish, subscribe, presence, history, manage, observe, and deny. before each but the last";
            return Err((0, format!("there is no right `{name}`: there are {rights}")));
        };
        for (number, text) in values.enumerate() {
            Template::parse(text).map_err(|problem| {
                (
                    number,
                    format!("{name}: `{}`: {problem}", text.escape_debug()),
                )
            })?;
            list.push(text.to_owned());
        }
        Ok(())
    }

    /// Whether it has as many patterns and bytes as it may.
    ///
    /// # Errors
    /// The number that there is, and the most that there may be.
    pub fn check_size(&self) -> Result<(), String> {
        let lists = self.named();
        let count: usize = lists.iter().map(|(_, list)| list.len()).sum();
        if count > RIGHTS_PATTERNS_MAX {
            return Err(format!(
                "it has {count} patterns, and may have {RIGHTS_PATTERNS_MAX}"
            ));
        }
        let bytes = lists.iter().flat_map(|(_, list)| *list).map(String::len);
        match bytes.sum::<usize>() > RIGHTS_BYTES_MAX {
            true => Err(format!("its patterns have over {RIGHTS_BYTES_MAX} bytes")),
            false => Ok(()),
        }
    }

    /// Whether it can stand.
    ///
    /// # Errors
    /// Problem and remedy.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.check_size()?;
        for (name, list) in self.named() {
            for text in list {
                Template::parse(text)
                    .map_err(|problem| format!("{name}: `{}`: {problem}", text.escape_debug()))?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for RightsLists {
    /// In the form of flags: names and lists, between blanks.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (name, list) in self.named() {
            let is_there = match name {
                "presence" => self.presence.is_some(),
                "history" => self.history.is_some(),
                _ => !list.is_empty(),
            };
            if is_there {
                write!(f, "{separator}{name}={}", list.join(","))?;
                separator = " ";
            }
        }
        match self.observe {
            true => write!(f, "{separator}observe=true"),
            false => Ok(()),
        }
    }
}
