//! Grants: rights for all whom a condition fits. `[[grant]]` in the file, `--grant`.

use std::fmt;

use super::RightsLists;
use super::named_token::texts_of;

/// Most grants, for they are tried one by one.
pub const GRANTS_MAX: usize = 256;

/// Rights for whoever the condition fits. Those of all grants that fit are added together, and a deny of any of them wins.
///
/// ```
/// use umbel::config::Grant;
///
/// let grant = Grant::parse("subject=true subscribe=news/**,user/{sub}/**")?;
/// assert!(grant.when.subject);
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Grant {
    /// Condition.
    pub when: When,
    /// Rights.
    pub rights: RightsLists,
}

/// Condition of a grant. All that is said has to fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct When {
    /// There was no credential. Nothing else can be said beside it.
    pub anonymous: bool,
    /// There is a subject.
    pub subject: bool,
    /// Name of the source: of a `[[token]]` or a `[[jwt]]`, or `hook`, `certificate` or `signed_url`.
    pub source: Option<String>,
    /// A role that the token has.
    pub role: Option<String>,
    /// A claim of the token, which is or has what `has` says.
    pub claim: Option<String>,
    /// Text that the claim is or has.
    pub has: Option<String>,
}

impl When {
    /// Sets a part by its name in the file.
    ///
    /// # Errors
    /// Problem and remedy.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let flag = || match value {
            "true" => Ok(true),
            _ => Err(format!("{name} can only be true: leave it out otherwise")),
        };
        let text = || match value {
            "" => Err(format!("{name} is empty: leave it out, or say which")),
            text => Ok(Some(text.to_owned())),
        };
        match name {
            "anonymous" => self.anonymous = flag()?,
            "subject" => self.subject = flag()?,
            "source" => self.source = text()?,
            "role" => self.role = text()?,
            "claim" => self.claim = text()?,
            "has" => self.has = text()?,
            _ => {
                return Err(format!(
                    "there is no condition `{}`: there are anonymous, subject, source, role, claim and has",
                    name.escape_debug()
                ));
            }
        }
        Ok(())
    }

    /// Whether `name` is the name of a part.
    pub(crate) fn has_part(name: &str) -> bool {
        ["anonymous", "subject", "source", "role", "claim", "has"].contains(&name)
    }

    fn check(&self) -> Result<(), String> {
        let of_signed_in = self.subject
            || self.source.is_some()
            || self.role.is_some()
            || self.claim.is_some()
            || self.has.is_some();
        match (self.anonymous, of_signed_in) {
            (true, true) => Err(
                "whoever is anonymous has no subject, source, role or claim: make two grants of it".to_owned(),
            ),
            (false, false) => Err(
                "it says nobody whom it is for: write when = { subject = true } for all who have signed in, or \
                 when = { anonymous = true }"
                    .to_owned(),
            ),
            _ if self.claim.is_some() != self.has.is_some() => Err(
                "claim and has belong together, as in when = { claim = \"groups\", has = \"traders\" }".to_owned(),
            ),
            _ => Ok(()),
        }
    }

    /// Whether it asks for what another source may say with another meaning.
    pub(crate) fn needs_source(&self) -> bool {
        self.source.is_none() && (self.role.is_some() || self.claim.is_some())
    }
}

impl Grant {
    /// Reads the form of flags: parts of the condition, as `subject=true` or `role=trader`, and rights, as
    /// `publish=PATTERN,PATTERN`, between blanks.
    ///
    /// # Errors
    /// Problem and remedy.
    pub fn parse(text: &str) -> Result<Grant, String> {
        let mut grant = Grant::default();
        for word in text.split_whitespace() {
            let (key, value) = word.split_once('=').ok_or_else(|| {
                format!("`{word}` says nothing: write subject=true or publish=PATTERN")
            })?;
            match When::has_part(key) {
                true => grant.when.set(key, value)?,
                false => {
                    let set = grant.rights.set(key, texts_of(value));
                    set.map_err(|(_, problem)| problem)?;
                }
            }
        }
        Ok(grant)
    }

    /// Whether it can stand by itself.
    ///
    /// # Errors
    /// Problem and remedy.
    pub fn check(&self) -> Result<(), String> {
        self.when.check()?;
        self.rights.check()?;
        let gives_manage = !self.rights.manage.is_empty();
        if self.when.anonymous && gives_manage {
            return Err("whoever is anonymous never manages: take manage out".to_owned());
        }
        match self.rights == RightsLists::default() {
            true => Err("it gives no rights: add subscribe or publish".to_owned()),
            false => Ok(()),
        }
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flag = |name, is_set: bool| is_set.then(|| format!("{name}=true"));
        let text = |name, value: &Option<String>| value.as_ref().map(|it| format!("{name}={it}"));
        let parts = [
            flag("anonymous", self.anonymous),
            flag("subject", self.subject),
            text("source", &self.source),
            text("role", &self.role),
            text("claim", &self.claim),
            text("has", &self.has),
        ];
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        f.write_str(&parts.join(" "))
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.when, self.rights)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_flags() {
        for text in [
            "anonymous=true subscribe=news/**",
            "subject=true publish=user/{sub}/out subscribe=news/**,user/{sub}/** presence=rooms/*",
            "source=app claim=groups has=traders subscribe=** deny.subscribe=a",
            "role=trader presence= observe=true",
        ] {
            let grant = Grant::parse(text).expect(text);
            grant.check().expect(text);
            assert_eq!(grant.to_string(), text);
        }
    }

    #[test]
    fn wrong_forms_are_told() {
        for (text, told) in [
            ("subscribe=a", "nobody whom it is for"),
            ("anonymous=true subject=true subscribe=a", "make two grants"),
            ("anonymous=true", "gives no rights"),
            ("anonymous=true manage=**", "never manages"),
            ("anonymous=false subscribe=a", "can only be true"),
            ("claim=groups subscribe=a", "belong together"),
            ("has=x subscribe=a", "belong together"),
            ("role= subscribe=a", "is empty"),
            ("subject=true write=a", "no right `write`"),
            ("subject=true subscribe", "says nothing"),
            ("subject=true subscribe=user/{id}", "no such variable"),
        ] {
            let error = Grant::parse(text).and_then(|grant| grant.check());
            let error = error.expect_err(text);
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}
