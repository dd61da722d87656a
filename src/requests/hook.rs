//! Questions to the application's hook about requests.

use std::collections::BTreeMap;

use crate::application::{Application, CommandContext};
use crate::asking::Client;
use crate::auth::access::Denied;
use crate::auth::caller::Caller;
use crate::auth::hook::{Hook, Question};
use crate::auth::verdict::Decision;
use crate::config::HookEvent;
use crate::dialect::{Dialects, Encoding};
use crate::http::query::Query;
use crate::http::refusal::Refusal;
use crate::http::request::Head;
use crate::protocol::parse_upgrade;
use crate::route::Route;

/// Key of the question who somebody is.
const WHO: &str = "connect";

/// What the hook is told of who speaks no dialect.
const HTTP: &str = "http";

/// Dialect of a request whose caller is the hook's to tell, by its name in metrics. None: its caller shows a token of the
/// configuration, or needs none.
fn dialect_of(dialects: &Dialects, head: &Head<'_>, route: &Route<'_>) -> Option<&'static str> {
    let encoding = match route {
        // One that will be refused has none.
        Route::Commands(path) => {
            let upgrade = parse_upgrade(head).ok();
            let chosen = upgrade.and_then(|it| dialects.choose(path, it.offers()).ok());
            chosen.map(|(encoding, _)| encoding)
        }
        Route::TopicUpgrade(_) => Some(Encoding::PAYLOAD),
        Route::TopicStream(encoding, _) | Route::JoinedStream(encoding) => Some(*encoding),
        Route::Publish(_) | Route::PublishMany | Route::History(_) => None,
        Route::Path(path) if *path != "*" => None,
        _ => return None,
    };
    Some(encoding.map_or(HTTP, |encoding| dialects.get(encoding).label()))
}

/// The client of the connection that is being dealt with, as the application is told of it.
pub(super) fn client_of(
    application: &Application,
    current: &CommandContext<'_>,
    dialect: &'static str,
) -> Client {
    let word = super::proxies::client_of(application, current);
    Client {
        peer: word.client.map(|client| client.ip().to_canonical()),
        tls: word.is_secure,
        dialect,
    }
}

/// Caller of a request by the word of the hook, if it is the hook's to tell.
///
/// # Errors
/// The hook refuses it, or has yet to answer.
pub(super) fn ask_who(
    application: &Application,
    current: &CommandContext<'_>,
    head: &Head<'_>,
    route: &Route<'_>,
    cookie_counts: bool,
) -> Result<Option<Caller<'static>>, Refusal> {
    let Some(hook) = &application.shared.hook else {
        return Ok(None);
    };
    let dialect = dialect_of(&application.shared.settings.dialects, head, route);
    let mut client = client_of(application, current, dialect.unwrap_or(HTTP));
    client.tls = head.known.is_secure;
    application.asking.set_client(client);
    let Some(dialect) = dialect.filter(|_| hook.has(HookEvent::Connect)) else {
        return Ok(None);
    };
    let authority = &application.shared.authority;
    let Some(token) = authority.token_for_hook(head, cookie_counts)? else {
        return Ok(None);
    };
    let may_sign_in = token.is_none() && matches!(route, Route::Commands(_));
    let decided = application.asking.decided(&WHO, |decision| match decision {
        Decision::Caller(outcome) => Some(outcome.clone()),
        Decision::Access(Err(denied)) => Some(Err(denied.clone())),
        _ => None,
    });
    match decided {
        Some(Ok(Some(identity))) => Ok(Some(Caller::Known(identity))),
        Some(Ok(None)) => Ok(Some(Caller::Anonymous)),
        // It may show a token yet.
        Some(Err(Denied::Unauthenticated(_))) if may_sign_in => Ok(Some(Caller::Unknown)),
        Some(Err(denied)) => Err(denied.into()),
        None => {
            let id = current.id.to_string();
            let mut question = Question::new(HookEvent::Connect, id);
            let address = (current.peer_address)().ok().flatten();
            question.peer = address.map(|it| it.ip().to_canonical());
            question.tls = head.known.is_secure;
            question.dialect = dialect;
            question.token = token;
            describe(
                &mut question,
                &**hook,
                head,
                super::hosts::cookie_counts(application, head),
            );
            let pending = hook.ask(HookEvent::Connect, question);
            application.asking.note(&WHO, pending)?;
            Err(Refusal::unavailable("the application is asked"))
        }
    }
}

/// Fills in what the request says of itself. All of it is the peer's word.
fn describe(question: &mut Question, hook: &dyn Hook, head: &Head<'_>, may_show_cookies: bool) {
    let (path, query) = crate::route::split_target(head.target);
    question.path = path.to_owned();
    question.origin = head.known.origin.text().map(str::to_owned);
    for name in hook.headers() {
        // Any page could have sent them in the name of whoever looks at it.
        if name == "cookie" && !may_show_cookies {
            continue;
        }
        if let Some(value) = head.header(name) {
            question.headers.insert(name.clone(), value.to_owned());
        }
    }
    let pairs = Query(query.unwrap_or_default()).pairs().flatten();
    let pairs = pairs.filter(|(name, _)| {
        !matches!(&**name, "token" | "access_token") && !name.starts_with("umbel_")
    });
    let pairs = pairs.map(|(name, value)| (name.into_owned(), value.into_owned()));
    question.query = pairs.collect::<BTreeMap<_, _>>();
}
