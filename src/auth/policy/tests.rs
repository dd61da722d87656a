//! Tests of the policy of a configuration.

use super::super::tests::head;
use super::*;
use crate::auth::identity::IdentityParts;
use crate::config::{Config, Grant as GrantRow, Origins, Token, TokenValue};

const NEWS_TOKEN: &str = "news-token-of-the-test";
const PUBLISH_TOKEN: &str = "publish-token-of-the-test";

fn policy_of(change: impl FnOnce(&mut Config)) -> AccessPolicy {
    let mut config = Config {
        publish: Some(Access::Nobody),
        subscribe: Some(Access::Nobody),
        origins: Some(Origins::Any),
        query_token: Some(QueryToken::Allow),
        ..Config::default()
    };
    change(&mut config);
    config.check().expect("it can stand");
    AccessPolicy::new(&config.rights().expect("rights"), Arc::default())
}

fn caller_of(policy: &AccessPolicy, request: &str) -> Result<Caller<'static>, Denied> {
    policy.authenticate(head(request).view(), &RequestFacts::at(0))
}

fn with_token(policy: &AccessPolicy, token: &str) -> Caller<'static> {
    Caller::Known(policy.identify(token, 0).expect("a token of the server"))
}

fn row(text: &str, token: &str) -> Token {
    let mut row = Token::parse(&format!("{text} sha256={}", "0".repeat(64))).expect("a token");
    row.value = TokenValue::Secret(token.into());
    row
}

fn grants(rows: &[&str]) -> Vec<GrantRow> {
    let rows = rows
        .iter()
        .map(|row| GrantRow::parse(row).expect("a grant"));
    rows.collect()
}

#[test]
fn token_in_header_or_query() {
    let policy = policy_of(|config| config.publish = Some(Access::Token(PUBLISH_TOKEN.into())));
    let token = PUBLISH_TOKEN;
    for (target, lines) in [
        ("/pub/a", format!("Authorization: Bearer {token}\r\n")),
        ("/pub/a", format!("authorization: bearer  {token}\r\n")),
        (&*format!("/pub/a?token={token}"), String::new()),
        (
            &*format!("/pub/a?x=1&access_token=%70{}", &token[1..]),
            String::new(),
        ),
        (
            &*format!("/pub/a?token={token}"),
            format!("Authorization: Bearer {token}\r\n"),
        ),
    ] {
        let request = format!("POST {target} HTTP/1.1\r\nHost: x\r\n{lines}\r\n");
        let caller = caller_of(&policy, &request).expect("a good token");
        assert_eq!(
            policy.authorize(&caller, Action::Publish("a")),
            Ok(()),
            "{request}"
        );
    }
}

#[test]
fn bad_credentials_are_refused_and_never_none() {
    let policy = policy_of(|config| {
        config.publish = Some(Access::Token(PUBLISH_TOKEN.into()));
        config.subscribe = Some(Access::Anyone);
    });
    let (invalid, scheme) = (
        Denied::Invalid(TokenFault::Invalid),
        Denied::Invalid(TokenFault::Scheme),
    );
    let malformed = |denied: &Denied| matches!(denied, Denied::Malformed(_));
    for (target, line, wanted) in [
        ("/sse/a", "Authorization: Basic abc\r\n", Some(&scheme)),
        ("/sse/a", "Authorization: Bearer abd\r\n", Some(&invalid)),
        ("/sse/a?token=abcabc", "", Some(&invalid)),
        ("/sse/a?token=", "", Some(&invalid)),
        ("/sse/a", "Authorization: Bearer\r\n", None),
        ("/sse/a", "Authorization: Bearer a,b\r\n", None),
        ("/sse/a", "Authorization: Bearer a b\r\n", None),
        ("/sse/a?token=a", "Authorization: Bearer b\r\n", None),
        ("/sse/a?token=a&access_token=b", "", None),
        ("/sse/a?token=a&token=a", "", None),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\n{line}\r\n");
        let denied = caller_of(&policy, &request).expect_err(&request);
        assert!(
            wanted.map_or(malformed(&denied), |it| *it == denied),
            "{request}: {denied:?}"
        );
    }
    // Where nobody can show a credential, nobody looks for one.
    let open = policy_of(|config| config.subscribe = Some(Access::Anyone));
    let request = "GET /sse/a HTTP/1.1\r\nHost: x\r\nAuthorization: Basic abc\r\n\r\n";
    let caller = caller_of(&open, request).expect("nobody looks");
    assert_eq!(open.authorize(&caller, Action::Subscribe("a")), Ok(()));
}

#[test]
fn settings_are_grants() {
    let policy = policy_of(|config| {
        config.publish = Some(Access::Token(PUBLISH_TOKEN.into()));
        config.subscribe = Some(Access::Token(NEWS_TOKEN.into()));
        config.observe = Some(Access::Token(PUBLISH_TOKEN.into()));
    });
    let actions = [
        Action::Publish("a"),
        Action::PublishMany,
        Action::Observe,
        Action::Subscribe("a"),
        Action::SubscribePattern("**"),
        Action::Presence("a"),
        Action::History("a"),
        Action::Open("/echo"),
        Action::Connect,
        Action::Manage(Some("a")),
    ];
    let publisher = [
        true, true, true, false, false, false, false, false, true, false,
    ];
    let reader = [
        false, false, false, true, true, true, true, true, true, false,
    ];
    for (token, allowed) in [(PUBLISH_TOKEN, publisher), (NEWS_TOKEN, reader)] {
        let caller = with_token(&policy, token);
        let may = actions.map(|action| policy.authorize(&caller, action).is_ok());
        assert_eq!(may, allowed, "{token}");
    }
    let denied = policy.authorize(&with_token(&policy, PUBLISH_TOKEN), actions[3]);
    let words = "the token for publish and observe does not allow subscribing";
    assert_eq!(denied, Err(Denied::InsufficientScope(words.into())));
    for action in &actions[..9] {
        let denied = policy.authorize(&Caller::Anonymous, *action);
        assert!(
            matches!(denied, Err(Denied::Unauthenticated(_))),
            "{action:?}"
        );
    }
    // Nobody has it, so no credential would help.
    let denied = policy.authorize(&Caller::Anonymous, actions[9]);
    assert!(matches!(denied, Err(Denied::Forbidden(_))));
    assert!(policy.authorize(&Caller::Unknown, actions[0]).is_err());
}

#[test]
fn grants_are_added_together() {
    let policy = policy_of(|config| {
        config.tokens = vec![
            row("news subject=42 publish=out", NEWS_TOKEN),
            row("other subject=a.b", PUBLISH_TOKEN),
        ];
        config.grants = grants(&[
            "anonymous=true subscribe=news/**",
            "subject=true subscribe=news/**,user/{sub}/** deny.subscribe=news/internal/**",
            "source=news publish=user/{sub}/in presence=rooms/*",
            "subject=true publish=u/{sub|base64url}",
        ]);
    });
    let (known, dotted) = (
        with_token(&policy, NEWS_TOKEN),
        with_token(&policy, PUBLISH_TOKEN),
    );
    for (action, of_known, of_dotted, of_nobody) in [
        (Action::Subscribe("news/eu"), true, false, true),
        (Action::Subscribe("news/internal/x"), false, false, true),
        (Action::SubscribePattern("news/**"), false, false, true),
        (Action::Subscribe("user/42/x"), true, false, false),
        (Action::Subscribe("user/43/x"), false, false, false),
        (Action::Publish("out"), true, false, false),
        (Action::Publish("user/42/in"), true, false, false),
        (Action::Publish("u/YS5i"), false, true, false),
        (Action::Publish("u/NDI"), true, false, false),
        (Action::Presence("rooms/a"), true, false, false),
        (Action::Presence("news/eu"), true, false, true),
    ] {
        let callers = [&known, &dotted, &Caller::Anonymous];
        let may = callers.map(|caller| policy.authorize(caller, action).is_ok());
        assert_eq!(may, [of_known, of_dotted, of_nobody], "{action:?}");
    }
    // One grant of the other's is not made, for its subject has a dot.
    assert_eq!(policy.counts.templates_refused(), 1);
    let denied = policy.authorize(&known, Action::Subscribe("news/internal/x"));
    let words = "a deny of grant 2 closes it, or a part of it";
    assert_eq!(denied, Err(Denied::InsufficientScope(words.into())));
}

#[test]
fn token_ends_at_its_time() {
    let policy = policy_of(|config| {
        config.tokens = vec![row(
            "news expires=2027-01-15T08:00:00Z subscribe=a",
            NEWS_TOKEN,
        )];
    });
    let end_ms = 1_800_000_000_000;
    let identity = policy
        .identify(NEWS_TOKEN, end_ms - 1)
        .expect("not over yet");
    assert_eq!(identity.expires_at_ms(), Some(end_ms));
    let denied = policy.identify(NEWS_TOKEN, end_ms);
    assert_eq!(denied.err(), Some(Denied::Invalid(TokenFault::Expired)));
    let counts = &policy.of_tokens;
    assert_eq!(counts.get(AuthResult::Ok), 1);
    assert_eq!(counts.get(AuthResult::Expired), 1);
}

#[test]
fn claims_that_are_asked_for_are_named() {
    let policy = policy_of(|config| {
        config.grants = grants(&[
            "claim=groups has=x subscribe=a",
            "subject=true subscribe=t/{claim.org}/**,t/{claim.groups}",
        ]);
    });
    let names: Vec<_> = policy.wanted_claims().iter().map(|name| &**name).collect();
    assert_eq!(names, ["groups", "org"]);
}

#[test]
fn tokens_in_urls() {
    let request = format!("GET /sse/a?token={NEWS_TOKEN} HTTP/1.1\r\nHost: x\r\n\r\n");
    for (query_token, is_taken) in [
        (None, false),
        (Some(QueryToken::Allow), true),
        (Some(QueryToken::Short), false),
        (Some(QueryToken::Off), false),
    ] {
        let policy = policy_of(|config| {
            config.query_token = query_token;
            config.subscribe = Some(Access::Token(NEWS_TOKEN.into()));
        });
        let caller = caller_of(&policy, &request);
        assert_eq!(caller.is_ok(), is_taken, "{query_token:?}");
        if let Err(denied) = caller {
            assert_eq!(denied, Denied::Invalid(TokenFault::InUrl));
        }
        let made_at = |issued_at, expires_at_ms| {
            let identity = Identity::new(IdentityParts {
                issued_at,
                expires_at_ms,
                ..IdentityParts::of(Source::Jwt("app".into()))
            });
            policy.may_stand_in_url(&identity.expect("an identity"))
        };
        let is_short = !matches!(query_token, Some(QueryToken::Off));
        assert_eq!(made_at(Some(1000), Some(1_300_000)), is_short);
        for (issued, end) in [
            (Some(1000), Some(1_300_001)),
            (None, Some(1)),
            (Some(1), None),
        ] {
            assert_eq!(made_at(issued, end), is_taken, "{issued:?} {end:?}");
        }
    }
}
