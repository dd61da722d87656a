//! Settings of an embedded server: what several calls of the builder say is added up or refused, never lost.

mod support;

use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::mpsc;

use support::PATIENCE;
use support::embedded::{Embedded, builder, config};
use support::peers::WebSocket;
use umbel::handler::{self, Echo};
use umbel::{
    Access, AccessRequest, Authorizer, Builder, Config, Identity, Message, Position,
    PublishOptions, Server, TopicRule, Verdict,
};

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn rule(text: &str) -> TopicRule {
    text.parse().expect("a rule")
}

#[test]
fn listeners_and_rules_before_and_after_config() {
    let mut settings = config();
    settings.topic_rules = vec![rule("a history=1")];
    // Several listeners are never open by themselves.
    settings.insecure = true;
    let server = Server::builder()
        .listen(loopback())
        .topic_rule(rule("b history=2"))
        .config(settings)
        .listen(loopback())
        .topic_rule(rule("c history=3"))
        .bind()
        .expect("free ports");
    assert_eq!(server.listeners().len(), 3);
    drop(server);
    // Rules count from both: the same pattern again is refused, whichever call it came by.
    let twice = builder()
        .topic_rule(rule("a history=1"))
        .topic_rule(rule("a history=2"));
    assert!(refusal(twice).contains("an earlier rule has the same pattern"));
}

#[test]
fn reload_keeps_rules_of_builder() {
    let server = Embedded::start(
        Server::builder()
            .listen(loopback())
            .topic_rule(rule("kept history=10")),
    );
    let mut other = Config::default();
    other.limits.publication_bytes_max = 10;
    let reloaded = server.handle.reload(other).expect("it stands");
    assert_eq!(reloaded.needs_restart, [""; 0]);
    for text in ["1", "2"] {
        let published = server.handle.publish("kept", Message::Text(text));
        published.expect("room");
    }
    let mut late = WebSocket::open(server.address, "/ws/kept?last=2");
    assert_eq!((late.text(), late.text()), ("1".into(), "2".into()));
    drop(late);
    server.end();
}

/// Lets everybody do everything.
struct Anyone;

impl Authorizer for Anyone {
    fn authorize(&self, _: &AccessRequest<'_>) -> Verdict {
        Verdict::Allow(Identity::anonymous())
    }
}

fn refusal(builder: Builder) -> String {
    let refused = builder.bind().expect_err("it contradicts itself");
    refused.to_string()
}

#[test]
fn contradictions_are_refused() {
    let config_twice = refusal(builder().config(config()));
    assert!(config_twice.starts_with("config = "), "{config_twice}");
    let two_authorizers = refusal(builder().authorizer(Anyone).authorizer(Anyone));
    assert!(
        two_authorizers.starts_with("authorizer = "),
        "{two_authorizers}"
    );
    let same_path = refusal(builder().handler("/a", Echo).handler("/a", Echo));
    assert!(same_path.starts_with("handler = /a: "), "{same_path}");
    // The server's own may be replaced, once.
    drop(builder().handler("/echo", Echo).bind().expect("it stands"));
    let own_twice = builder().handler("/echo", Echo).handler("/echo", Echo);
    assert!(refusal(own_twice).starts_with("handler = /echo: "));
}

#[test]
fn authorizer_decides_beside_configured_rights() {
    let mut settings = config();
    settings.publish = Some(Access::Nobody);
    settings.subscribe = Some(Access::Nobody);
    let builder = Server::builder().authorizer(Anyone).config(settings);
    let server = Embedded::start(builder);
    let mut peer = WebSocket::open(server.address, "/ws/a");
    peer.send_text("I may");
    assert_eq!(peer.text(), "I may");
    drop(peer);
    server.end();
}

#[test]
fn receipt_by_callback() {
    let server = Embedded::start(builder());
    let (sender, receiver) = mpsc::channel();
    let options = PublishOptions::new()
        .key("k")
        .on_receipt(move |report| sender.send(report).expect("somebody waits"));
    assert!(format!("{options:?}").contains("\"k\""));
    let published = server.handle.publish_with("a", Message::Text("x"), options);
    published.expect("room");
    let report = receiver.recv_timeout(PATIENCE).expect("a report");
    assert_eq!((report.position.offset, report.matched), (1, 0));
    server.end();
}

#[test]
fn positions_are_read_as_written() {
    let position = Position {
        epoch: 0xa1,
        offset: 7,
    };
    assert_eq!(position.to_string().parse(), Ok(position));
    let error = "a1:7".parse::<Position>().expect_err("too few digits");
    assert!(error.to_string().contains("epoch:offset"));
}

/// Compiles if each of the types has `Debug`.
macro_rules! have_debug {
    ($($type:ty),+ $(,)?) => {{
        fn check<T: Debug>() {}
        $(check::<$type>();)+
    }};
}

#[test]
fn public_types_have_debug() {
    have_debug!(
        handler::ConnectionIdError,
        handler::Echo,
        handler::PeerFull,
        umbel::Access,
        umbel::AccessRequest<'_>,
        umbel::Action<'_>,
        umbel::BoundListener,
        umbel::Builder,
        umbel::CloseCode,
        umbel::CloseReason,
        umbel::Config,
        umbel::ConfigError,
        umbel::ConnectionId,
        umbel::Counts,
        umbel::Deflate,
        umbel::Delivery,
        umbel::Denied,
        umbel::Error,
        umbel::Handle,
        umbel::History,
        umbel::HistoryStart,
        umbel::HistoryLimits,
        umbel::HostError,
        umbel::HostList,
        umbel::InheritedSocket,
        umbel::ListenAddress,
        umbel::Listener,
        umbel::Message<'_>,
        umbel::OriginError,
        umbel::OriginList,
        umbel::Origins,
        umbel::Pattern,
        umbel::PatternError,
    );
}

#[test]
fn more_public_types_have_debug() {
    have_debug!(
        umbel::Peer<'_>,
        umbel::PeerError,
        umbel::PeerHandle,
        umbel::PendingReceipt,
        umbel::Position,
        umbel::PositionError,
        umbel::Presence,
        umbel::PresentMember,
        umbel::ProtocolError,
        umbel::PublishError,
        umbel::PublishOptions,
        umbel::Publishing<'_>,
        umbel::QueryError,
        umbel::ReceiptError,
        umbel::ReceivedPublication,
        umbel::ReloadError,
        umbel::Reloaded,
        umbel::Report,
        umbel::Request<'_>,
        umbel::Response,
        umbel::RunningServer,
        umbel::Server,
        umbel::SlowConsumer,
        umbel::SubscribeError,
        umbel::SubscribeOptions,
        umbel::Subscription,
        umbel::SubscriptionEnd,
        umbel::SubscriptionEvent<'_>,
        umbel::Surface,
        umbel::TopicInfo,
        umbel::TopicRule,
        umbel::TopicRuleError,
        umbel::WhenFull,
    );
}

/// What the program's code decided stands: nothing of the request is left to judge by again.
#[test]
fn reload_leaves_decisions_of_authorizer() {
    let builder = builder()
        .authorizer(Anyone)
        .handler("/own", Echo)
        .topic_rule(rule("kept/** history=10"));
    let server = Embedded::start(builder);
    let mut own = WebSocket::open(server.address, "/own");
    let mut topic = WebSocket::open(server.address, "/ws/a");
    let mut other = config();
    other.limits.publication_bytes_max = 2000;
    server.handle.reload(other).expect("it stands");
    support::wait_until("it has reached all", || !server.handle.is_reloading());
    own.send_text("x");
    assert_eq!(own.text(), "x");
    topic.send_text("y");
    assert_eq!(topic.text(), "y");
    // Nor does it concern whoever comes later.
    let mut late = WebSocket::open(server.address, "/ws/kept/a?last=1");
    late.send_text("z");
    assert_eq!(late.text(), "z");
    drop((own, topic, late));
    server.end();
}
