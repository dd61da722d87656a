//! A client of the control API, and a server that lets its tokens manage.

use std::net::SocketAddr;

use serde_json::Value;
use umbel::{AccessRequest, Action, Authorizer, Denied, Verdict};

use crate::support::embedded::{Embedded, builder};
use crate::support::peers::{Answer, Http};

/// Lets everybody connect and publish, and whoever has the token manage.
struct Operators;

impl Authorizer for Operators {
    fn authorize(&self, request: &AccessRequest<'_>) -> Verdict {
        judge(request).into()
    }
}

fn judge(request: &AccessRequest<'_>) -> Result<(), Denied> {
    let token = request.token();
    match (request.action(), token.as_deref()) {
        (Action::Manage(_) | Action::Observe, Some("operator")) => Ok(()),
        (Action::Manage(Some("rooms/a")), Some("host")) => Ok(()),
        (Action::Observe, Some("viewer")) => Ok(()),
        (Action::Manage(_) | Action::Observe, Some(_)) => {
            Err(Denied::Forbidden("not allowed".into()))
        }
        (Action::Manage(_) | Action::Observe, None) => {
            Err(Denied::Unauthenticated("a token is needed".into()))
        }
        _ => Ok(()),
    }
}

pub fn start() -> Embedded {
    let builder = builder().authorizer(Operators);
    let rule = "rooms/** history=10 presence=on".parse().expect("a rule");
    Embedded::start(builder.topic_rule(rule))
}

/// Ends a server at once, whose peers need not be waited for.
pub fn finish(server: Embedded) {
    server.handle.shutdown_now();
    server.end();
}

/// A client of the API with this token.
pub struct Api {
    pub http: Http,
    token: &'static str,
}

impl Api {
    pub fn of(address: SocketAddr, token: &'static str) -> Api {
        let http = Http::connect(address);
        Api { http, token }
    }

    pub fn ask(&mut self, method: &str, target: &str, body: Option<&Value>) -> (Answer, Value) {
        let body = body.map_or(String::new(), Value::to_string);
        let (token, len) = (self.token, body.len());
        let lines = match method {
            "POST" => format!("Content-Type: application/json\r\nContent-Length: {len}\r\n"),
            _ => String::new(),
        };
        let head = format!("{method} /api/v1{target} HTTP/1.1\r\nHost: localhost\r\n");
        let shown = match token {
            "" => String::new(),
            token => format!("Authorization: Bearer {token}\r\n"),
        };
        let head = format!("{head}{shown}{lines}\r\n");
        self.http.send(head.as_bytes());
        self.http.send(body.as_bytes());
        let answer = self.http.answer().expect("an answer");
        let value = serde_json::from_slice(&answer.body).expect("JSON");
        (answer, value)
    }

    /// Asks until the machine was fast enough for the 100 ms of a page.
    pub fn get(&mut self, target: &str) -> Value {
        for _ in 0..20 {
            let (answer, value) = self.ask("GET", target, None);
            match answer.status {
                200 => return value,
                503 => self.http = Http::connect(self.http.peer()),
                status => panic!("{target}: {status} {value}"),
            }
        }
        panic!("{target}: there was no answer in time");
    }

    pub fn post(&mut self, target: &str, body: &Value) -> Value {
        let (answer, value) = self.ask("POST", target, Some(body));
        assert_eq!(answer.status, 200, "{target} {body}: {value}");
        value
    }

    pub fn error(&mut self, method: &str, target: &str, body: Option<&Value>) -> (u16, String) {
        let (answer, value) = self.ask(method, target, body);
        let code = value["error"]["code"].as_str().unwrap_or_default();
        assert!(value["error"]["reason"].is_string(), "{value}");
        (answer.status, code.to_owned())
    }

    /// Rows of all pages.
    pub fn connections(&mut self, query: &str) -> Vec<Value> {
        let (mut rows, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = self.get(&format!("/connections?limit=2{query}{cursor}"));
            rows.extend(
                page["connections"]
                    .as_array()
                    .expect("a list")
                    .iter()
                    .cloned(),
            );
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return rows,
            }
        }
    }
}
