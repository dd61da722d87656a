//! Grants: rights of the configuration for all whom a condition fits.

use super::identity::Identity;
use super::rights::Rights;
use crate::config::{self, When};

/// A compiled `[[grant]]`.
#[derive(Clone, Debug)]
pub struct Grant {
    when: When,
    rights: Rights,
}

impl Grant {
    /// Compiles one. What cannot be compiled gives nothing; the configuration was checked for that.
    pub fn new(grant: &config::Grant) -> Grant {
        let rights = Rights::from_lists(&grant.rights);
        debug_assert!(rights.is_ok(), "the configuration was checked");
        Grant {
            when: grant.when.clone(),
            rights: rights.unwrap_or_else(|_| Rights::none()),
        }
    }

    /// The rights that it gives.
    pub fn rights(&self) -> &Rights {
        &self.rights
    }

    /// Whether it is for this identity, or for nobody in particular.
    pub fn is_for(&self, identity: Option<&Identity>) -> bool {
        let when = &self.when;
        let Some(identity) = identity else {
            return when.anonymous;
        };
        let fits =
            |wanted: &Option<String>, has: &dyn Fn(&str) -> bool| wanted.as_deref().is_none_or(has);
        let claim = when.claim.as_deref().zip(when.has.as_deref());
        !when.anonymous
            && (!when.subject || identity.subject().is_some())
            && fits(&when.source, &|name| identity.source().name() == name)
            && fits(&when.role, &|role| identity.has_role(role))
            && claim.is_none_or(|(name, has)| identity.claim_has(name, has))
    }

    /// Whether it is for those without a credential.
    pub fn is_for_anonymous(&self) -> bool {
        self.when.anonymous
    }

    /// Name of the claim that it asks for.
    pub fn claim(&self) -> Option<&str> {
        self.when.claim.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::super::identity::{Claim, IdentityParts, Source};
    use super::*;

    #[test]
    fn all_that_is_said_has_to_fit() {
        let trader = Identity::new(IdentityParts {
            subject: Some("42".into()),
            roles: vec!["trader".into()],
            claims: vec![(
                "groups".into(),
                Claim::List(["a".into(), "b".into()].into()),
            )],
            ..IdentityParts::of(Source::Jwt("app".into()))
        });
        let trader = trader.expect("an identity");
        let bot = Identity::new(IdentityParts::of(Source::Token("bot".into())));
        let bot = bot.expect("an identity");
        for (when, of_trader, of_bot, of_nobody) in [
            ("anonymous=true", false, false, true),
            ("subject=true", true, false, false),
            ("source=app", true, false, false),
            ("source=bot", false, true, false),
            ("source=hook", false, false, false),
            ("role=trader", true, false, false),
            ("role=trade", false, false, false),
            ("claim=groups has=b", true, false, false),
            ("claim=groups has=c", false, false, false),
            (
                "source=app role=trader claim=groups has=a",
                true,
                false,
                false,
            ),
            ("source=bot role=trader", false, false, false),
        ] {
            let grant = config::Grant::parse(&format!("{when} subscribe=a")).expect(when);
            let grant = Grant::new(&grant);
            let is_for = [Some(&*trader), Some(&*bot), None].map(|it| grant.is_for(it));
            assert_eq!(is_for, [of_trader, of_bot, of_nobody], "{when}");
        }
    }
}
