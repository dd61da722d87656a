//! A chat in one process with its server: a login of its own, rooms, and a host who can kick.
//!
//! `POST /login` with `name:password` answers with a cookie. With it, `/chat/{room}` is a WebSocket where every line goes to
//! everybody in the room. The host writes `/kick bob`, and bob has to log in again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use umbel::{
    AccessRequest, Action, Authorizer, Builder, CloseCode, CloseReason, ConnectionId, Identity,
};
use umbel::{
    Denied, Error, Handler, Message, Peer, PeerHandle, Request, Response, Server, Verdict,
};

/// Names and passwords. A real chat keeps them elsewhere, and hashed.
const USERS: [(&str, &str); 3] = [("ann", "apple"), ("bob", "banana"), ("host", "hops")];

/// The chat. The server calls it on several threads.
#[derive(Default)]
struct Chat(Mutex<People>);

#[derive(Default)]
struct People {
    /// Names by the cookies that were given out.
    logins: HashMap<String, &'static str>,
    /// Whoever is in a room.
    members: HashMap<ConnectionId, Member>,
}

struct Member {
    name: &'static str,
    room: String,
    peer: PeerHandle,
}

impl Chat {
    fn people(&self) -> MutexGuard<'_, People> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn login(&self, request: &Request<'_>) -> Response {
        let shown = String::from_utf8_lossy(request.body());
        let shown = shown.split_once(':').unwrap_or_default();
        let (Some((name, _)), Ok(secret)) =
            (USERS.iter().find(|user| **user == shown), getrandom::u64())
        else {
            return Response::text(403, "no such name and password\n");
        };
        let cookie = format!("{secret:016x}");
        let header = format!("login={cookie}; HttpOnly; SameSite=Strict; Path=/");
        self.people().logins.insert(cookie, name);
        Response::text(200, "welcome\n").header("Set-Cookie", header)
    }
}

impl People {
    fn say(&self, room: &str, line: &str) {
        for member in self.members.values().filter(|member| member.room == room) {
            if member.peer.send(Message::Text(line)).is_err() {
                // Lines come faster than it takes them. If it is gone already, this changes nothing.
                let _ = member.peer.close(CloseCode::TRY_AGAIN_LATER, "too slow");
            }
        }
    }

    fn kick(&mut self, name: &str) {
        self.logins.retain(|_, user| *user != name);
        for member in self.members.values().filter(|member| member.name == name) {
            let _ = member.peer.close(CloseCode::POLICY_VIOLATION, "kicked");
        }
    }
}

impl Authorizer for Chat {
    fn authorize(&self, request: &AccessRequest<'_>) -> Verdict {
        let login = request.cookie("login").unwrap_or("");
        match request.action() {
            Action::Open("/login") => Verdict::Allow(Identity::anonymous()),
            Action::Open(_) if self.people().logins.contains_key(login) => {
                Verdict::Allow(Identity::anonymous())
            }
            _ => Verdict::Deny(Denied::Unauthenticated("log in first".into())),
        }
    }
}

impl Handler for Chat {
    fn open(&self, peer: &mut Peer<'_>, request: &Request<'_>) {
        let (mut people, id) = (self.people(), peer.id());
        let login = request.cookie("login").unwrap_or("");
        let Some(&name) = people.logins.get(login) else {
            return peer.close(CloseCode::POLICY_VIOLATION, "kicked");
        };
        let (room, peer) = (request.rest().to_owned(), peer.handle());
        people.members.insert(id, Member { name, room, peer });
    }

    fn message(&self, peer: &mut Peer<'_>, message: Message<'_>) {
        let mut people = self.people();
        match (people.members.get(&peer.id()), message) {
            (Some(member), Message::Text(text)) => match text.strip_prefix("/kick ") {
                Some(name) if member.name == "host" => people.kick(name),
                _ => people.say(&member.room, &format!("{}: {text}", member.name)),
            },
            _ => peer.close(CloseCode::UNSUPPORTED_DATA, "text only"),
        }
    }

    fn close(&self, connection: ConnectionId, _: CloseReason) {
        self.people().members.remove(&connection);
    }
}

/// Everything but the address.
pub fn server() -> Builder {
    let chat = Arc::new(Chat::default());
    let door = Arc::clone(&chat);
    Server::builder()
        .authorizer(Arc::clone(&chat))
        .route("/login", move |request: &Request<'_>| door.login(request))
        .handler("/chat/*", chat)
}

fn main() -> Result<(), Error> {
    server().listen(([127, 0, 0, 1], 8080).into()).bind()?.run()
}
