//! Commands for a connection that others than its peer bring: a connection of another reactor, and a thread of the
//! embedding program.

mod support;

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use serde_json::json;

use support::peers::WebSocket;
use support::umbel_v1::{Peer as ManyTopics, text};
use support::{PATIENCE, wait_until};
use umbel::internals::dialect::{Command, Target};
use umbel::internals::hub::{Kind, PublishOptions, Start};
use umbel::internals::shared::brought::{BroughtCommand, Fate};
use umbel::internals::topic::Topic;
use umbel::{
    Config, ConnectionId, Error, Handle, Handler, Message, Peer, Request, Server, TopicRule,
};

/// Brings what it is told to the connection that it is told, from the reactor of its own connections.
#[derive(Default)]
struct Courier(Mutex<Option<(Handle, Sender<Fate>)>>);

impl Handler for Courier {
    fn open(&self, peer: &mut Peer<'_>, _: &Request<'_>) {
        let name = peer.id().to_string();
        peer.send(Message::Text(&name)).expect("room");
    }

    fn message(&self, _: &mut Peer<'_>, message: Message<'_>) {
        let Message::Text(text) = message else {
            panic!("it is told in text");
        };
        let words: Vec<&str> = text.split(' ').collect();
        let connection = words[0].parse().expect("a connection");
        let way = self.0.lock().expect("nobody panics");
        let (handle, fates) = way.as_ref().expect("it was set");
        bring(handle, connection, command(&words[1..]), fates);
    }
}

fn command(words: &[&str]) -> Command<'static> {
    let topic = |text| Topic::from_text(text).expect("a topic");
    match *words {
        ["subscribe", name] => Command::Subscribe {
            id: Some(70),
            target: Target::Topic(topic(name)),
            echo: true,
            start: Start::Now,
            signature: None,
        },
        ["publish", name, text] => Command::Publish {
            id: Some(71),
            topic: topic(name),
            kind: Kind::Text,
            payload: text.as_bytes().to_vec().into(),
            options: PublishOptions::default(),
            once: None,
            wants_receipt: false,
        },
        ["unsubscribe", name] => Command::Unsubscribe {
            id: Some(72),
            target: Target::Topic(topic(name)),
        },
        _ => panic!("{words:?}"),
    }
}

fn bring(handle: &Handle, id: ConnectionId, command: Command<'static>, fates: &Sender<Fate>) {
    let fates = fates.clone();
    let brought = BroughtCommand::new(id, command, move |fate| {
        fates.send(fate).expect("the test waits");
    });
    handle.bring(brought).expect("room");
}

/// A server of two reactors on a thread of this process.
struct World {
    handle: Handle,
    address: SocketAddr,
    told: Sender<Fate>,
    fates: Receiver<Fate>,
    thread: JoinHandle<Result<(), Error>>,
}

impl World {
    fn start() -> World {
        let mut config = Config::default();
        config.reactors = 2;
        config.topic_rules = vec![TopicRule::parse("room presence=on").expect("a rule")];
        let courier = Arc::new(Courier::default());
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let builder = Server::builder().config(config).listen(any_port);
        let builder = builder.handler("/courier", Shared(Arc::clone(&courier)));
        let server = builder.bind().expect("a free port");
        let (handle, address) = (server.handle(), server.local_addr());
        let (told, fates) = channel();
        *courier.0.lock().expect("nobody panics") = Some((handle.clone(), told.clone()));
        let thread = thread::spawn(move || server.run());
        World {
            handle,
            address,
            told,
            fates,
            thread,
        }
    }

    /// A connection of many topics, with its name.
    fn connect(&self) -> (ManyTopics, String) {
        let mut peer = ManyTopics::open(self.address);
        peer.subscribe("room");
        let list = peer.ask(&json!({"type": "presence", "id": 2, "topic": "room"}));
        let name = text(&list["members"][0]["connection"]);
        (peer, name)
    }

    fn fate(&self) -> Fate {
        self.fates.recv_timeout(PATIENCE).expect("a fate")
    }

    fn end(self) {
        self.handle.shutdown();
        wait_until("the server ends", || self.thread.is_finished());
        let outcome = self.thread.join().expect("no panic");
        outcome.expect("nothing failed");
    }
}

struct Shared(Arc<Courier>);

impl Handler for Shared {
    fn open(&self, peer: &mut Peer<'_>, request: &Request<'_>) {
        self.0.open(peer, request);
    }

    fn message(&self, peer: &mut Peer<'_>, message: Message<'_>) {
        self.0.message(peer, message);
    }
}

fn reactor_of(name: &str) -> &str {
    name.split('-').next().expect("a reactor")
}

#[test]
fn commands_from_another_reactor() {
    let world = World::start();
    let (mut peer, name) = world.connect();
    let couriers = std::iter::repeat_with(|| {
        let mut courier = WebSocket::open(world.address, "/courier");
        let own_name = courier.text();
        (courier, own_name)
    });
    let mut others = couriers
        .take(200)
        .filter(|(_, own_name)| reactor_of(own_name) != reactor_of(&name));
    let (mut courier, own_name) = others.next().expect("a connection of the other reactor");

    courier.send_text(&format!("{name} subscribe news"));
    let reply = peer.next();
    assert_eq!(
        (&reply["type"], &reply["id"]),
        (&json!("subscribed"), &json!(70))
    );
    courier.send_text(&format!("{name} publish news hello"));
    let mut types: Vec<_> = [peer.next(), peer.next()]
        .map(|it| text(&it["type"]))
        .into();
    types.sort_unstable();
    assert_eq!(types, ["publication", "published"]);
    courier.send_text(&format!("{name} unsubscribe news"));
    assert_eq!(peer.next()["type"], "unsubscribed");
    // Refused, and it is the connection that is told why.
    courier.send_text(&format!("{name} unsubscribe news"));
    let refused = peer.next();
    assert_eq!(
        (&refused["id"], &refused["code"]),
        (&json!(72), &json!("not_subscribed"))
    );
    assert_eq!([(); 4].map(|()| world.fate()), [Fate::CarriedOut; 4]);
    // One without commands is as good as none.
    courier.send_text(&format!("{own_name} subscribe news"));
    assert_eq!(world.fate(), Fate::Gone);
    drop(peer);
    world.end();
}

#[test]
fn commands_from_a_thread_for_who_is_gone() {
    let world = World::start();
    let (mut peer, name) = world.connect();
    let id: ConnectionId = name.parse().expect("a connection");
    bring(
        &world.handle,
        id,
        command(&["subscribe", "news"]),
        &world.told,
    );
    assert_eq!(peer.next()["type"], "subscribed");
    assert_eq!(world.fate(), Fate::CarriedOut);
    drop(peer);
    wait_until("the connection is gone", || {
        world.handle.counts().connections == 0
    });
    bring(
        &world.handle,
        id,
        command(&["subscribe", "news"]),
        &world.told,
    );
    assert_eq!(world.fate(), Fate::Gone);
    world.end();
}
