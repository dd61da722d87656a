//! Rights as they hold, and what has to be said for them.

use std::fmt;

use super::{
    Access, Config, ConfigError, Grant, Jwt, Listeners, Origins, QueryToken, Token, UrlKey,
};
use crate::protocol::HostList;

/// Hosts that requests may be sent to, by their `Host` header.
#[derive(Clone, Debug)]
pub enum Hosts {
    /// Names and addresses of this machine, by programs that run on it: nothing that a proxy says it has passed on.
    Loopback,
    /// All.
    Any,
    /// These, on any port.
    List(HostList),
}

/// The rights that hold after the defaults are filled in.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Rights {
    /// Right to publish.
    pub publish: Access,
    /// Right to subscribe, and to use handler endpoints.
    pub subscribe: Access,
    /// Right to see the console, metrics and topics.
    pub observe: Access,
    /// Web origins that may connect.
    pub origins: Origins,
    /// Hosts that requests may be sent to.
    pub hosts: Hosts,
    /// Tokens with rights of their own.
    pub tokens: Vec<Token>,
    /// Rights for all whom a condition fits.
    pub grants: Vec<Grant>,
    /// Issuers of JSON web tokens.
    pub jwts: Vec<Jwt>,
    /// Tokens that may stand in the query.
    pub query_token: QueryToken,
    /// Name of the cookie that holds a token.
    pub cookie: Option<String>,
    /// Keys of signed topic URLs.
    pub url_keys: Vec<UrlKey>,
    /// Longest life of a signed URL from now on, in milliseconds.
    pub signed_url_age_max_ms: u64,
}

impl Rights {
    /// Reach of an open server, in words. None of any other.
    pub fn reach(&self, address: &str) -> Option<String> {
        matches!(self.hosts, Hosts::Loopback).then(|| {
            format!("open to everything that reaches {address}, a proxy in front included")
        })
    }
}

impl fmt::Display for Rights {
    /// For the line in the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origins = match &self.origins {
            Origins::Loopback => "this machine",
            Origins::Any => "any",
            Origins::List(_) => "listed",
        };
        let Rights {
            publish,
            subscribe,
            observe,
            ..
        } = self;
        write!(
            f,
            "publish: {publish}, subscribe: {subscribe}, observe: {observe}, origins: {origins}"
        )?;
        if !self.tokens.is_empty() {
            write!(f, ", tokens: {}", self.tokens.len())?;
        }
        if !self.grants.is_empty() {
            write!(f, ", grants: {}", self.grants.len())?;
        }
        if !self.jwts.is_empty() {
            write!(f, ", issuers: {}", self.jwts.len())?;
        }
        match &self.hosts {
            Hosts::Loopback | Hosts::Any => Ok(()),
            Hosts::List(_) => f.write_str(", hosts: listed"),
        }
    }
}

impl Config {
    /// Rights after the defaults of the listeners are filled in.
    #[doc(hidden)]
    pub fn rights(&self) -> Result<Rights, ConfigError> {
        let listeners = Listeners::of(&self.listeners);
        let why = listeners.why_rights_must_be_set().or_else(|| {
            let name = self.first_set()?;
            Some(format!("{name} is set, so that nothing is open by itself"))
        });
        if let (Some(why), false) = (&why, self.insecure) {
            self.check_rights_are_set(why)?;
        }
        let open = why.is_none() || self.insecure;
        let unsaid = if open { Access::Anyone } else { Access::Nobody };
        let said = |access: &Option<Access>| access.clone().unwrap_or_else(|| unsaid.clone());
        Ok(Rights {
            publish: said(&self.publish),
            subscribe: said(&self.subscribe),
            observe: said(&self.observe),
            origins: match &self.origins {
                Some(origins) => origins.clone(),
                None if listeners.are_loopback() => Origins::Loopback,
                None => Origins::Any,
            },
            tokens: self.tokens.clone(),
            grants: self.grants.clone(),
            jwts: self.jwts.clone(),
            query_token: self.query_token.unwrap_or(match why {
                None => QueryToken::Allow,
                Some(_) => QueryToken::Short,
            }),
            cookie: self.cookie.clone(),
            url_keys: self.url_keys.clone(),
            signed_url_age_max_ms: self.signed_url_age_max_ms,
            hosts: match &self.hosts {
                Some(hosts) => Hosts::List(hosts.clone()),
                None if why.is_none() && !self.insecure => Hosts::Loopback,
                None => Hosts::Any,
            },
        })
    }

    /// The first setting about who may connect that is set. Where one is, the server is for others than this machine.
    fn first_set(&self) -> Option<&'static str> {
        let settings = [
            ("publish", self.publish.is_some()),
            ("subscribe", self.subscribe.is_some()),
            ("observe", self.observe.is_some()),
            ("origin", self.origins.is_some()),
            ("hosts", self.hosts.is_some()),
            ("token", !self.tokens.is_empty()),
            ("grant", !self.grants.is_empty()),
            ("jwt", !self.jwts.is_empty()),
            ("url_key", !self.url_keys.is_empty()),
            ("hook_url", self.hook.is_some()),
            (
                "trusted_proxies",
                Listeners::of(&self.listeners).have_proxies(),
            ),
        ];
        settings
            .iter()
            .find_map(|(name, is_set)| is_set.then_some(*name))
    }

    /// Lists what is missing of what must be said.
    fn check_rights_are_set(&self, why: &str) -> Result<(), ConfigError> {
        // Tokens and grants say who may, and nobody else does.
        let has_tokens = self.has_identities();
        let said = [
            ("publish", self.publish.is_some() || has_tokens),
            ("subscribe", self.subscribe.is_some() || has_tokens),
            ("origin", self.origins.is_some()),
        ];
        let missing: Vec<_> = said
            .iter()
            .filter_map(|(name, is_said)| (!is_said).then_some(*name))
            .collect();
        let Some(first) = missing.first() else {
            return Ok(());
        };
        let flags: Vec<_> = missing.iter().map(|name| format!("--{name}")).collect();
        let flags = match &flags[..] {
            [others @ .., last] if !others.is_empty() => {
                format!("{} and {last}", others.join(", "))
            }
            flags => flags.concat(),
        };
        let way_out = format!("{why}: set {flags}, or --insecure to leave everything open");
        Err(ConfigError::new(*first, "(not set)", way_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_listener_ends_open() {
        let with = |listeners: &[&str]| Config {
            listeners: listeners
                .iter()
                .map(|text| text.parse().expect("a listener"))
                .collect(),
            ..Config::default()
        };
        for open in [&["127.0.0.1:1"][..], &["[::1]:1#all"], &["localhost:1"]] {
            let rights = with(open).rights().expect("it is open to this machine");
            assert_eq!(rights.publish, Access::Anyone);
            assert!(matches!(rights.hosts, Hosts::Loopback));
        }
        for (closed, why) in [
            (
                &["127.0.0.1:1", "127.0.0.1:2#admin"][..],
                "there are 2 listeners",
            ),
            (&["0.0.0.0:1"], "0.0.0.0:1 is not a loopback address"),
            (&["unix:/a"], "unix:/a is not open by itself"),
            (&["fd:a"], "fd:a is not open by itself"),
        ] {
            let mut config = with(closed);
            config.subscribe = Some(Access::Anyone);
            let error = config.rights().expect_err("more must be said").to_string();
            let missing = ": set --publish and --origin, or --insecure";
            assert!(error.contains(why) && error.contains(missing), "{error}");
            config.publish = Some(Access::Nobody);
            config.origins = Some(Origins::Any);
            let rights = config.rights().expect("all is said");
            assert_eq!(rights.observe, Access::Nobody);
            assert!(matches!(rights.hosts, Hosts::Any));
        }
        let mut config = with(&["127.0.0.1:1", "[::1]:2"]);
        config.insecure = true;
        let rights = config.rights().expect("it was asked for");
        assert!(matches!(rights.origins, Origins::Loopback));
        assert!(matches!(rights.hosts, Hosts::Any));
    }

    #[test]
    fn any_setting_about_access_ends_open() {
        type Set = fn(&mut Config);
        let settings: [(&str, Set, &str); 5] = [
            (
                "publish",
                |config| config.publish = Some(Access::Nobody),
                "--subscribe and --origin",
            ),
            (
                "subscribe",
                |config| config.subscribe = Some(Access::Anyone),
                "--publish and --origin",
            ),
            (
                "observe",
                |config| config.observe = Some(Access::Nobody),
                "--publish, --subscribe and --origin",
            ),
            (
                "origin",
                |config| config.origins = Some(Origins::Any),
                "--publish and --subscribe",
            ),
            (
                "hosts",
                |config| config.hosts = HostList::parse(&["a.example"]).ok(),
                "--publish, --subscribe and --origin",
            ),
        ];
        for (name, set, missing) in settings {
            let mut config = Config::default();
            set(&mut config);
            let error = config.rights().expect_err("the others must be said");
            let told = format!(
                "{name} is set, so that nothing is open by itself: set {missing}, or --insecure"
            );
            assert!(error.to_string().contains(&told), "{error}");
            config.insecure = true;
            config.rights().expect("it was asked for");
        }
    }

    #[test]
    fn a_policy_that_is_said_in_full_stands_elsewhere() {
        let config = Config {
            listeners: vec!["0.0.0.0:80".parse().expect("a listener")],
            publish: Some(Access::Token("s3cret, and longer".into())),
            subscribe: Some(Access::Anyone),
            origins: Some(Origins::Any),
            ..Config::default()
        };
        let rights = config.rights().expect("all three are said");
        assert_eq!(rights.observe, Access::Nobody);
        assert!(
            !format!("{config:?}").contains("s3cret"),
            "a token must not reach a log"
        );
    }
}
