//! The guide: one page a task.
//!
//! To run a server: [first_hour], [deploy], [tls], [certificates], [configuration], [access], [tokens], [identity_provider], [hook], [control],
//! [throwing_out], [proxies], [limits], [metrics], [observing],
//! [troubleshooting], [shutdown], [security].
//! To use one: [http], [command_line], [event_streams], [messages], [umbel.v1](crate::umbel_v1), [umbel_js], [history], [patterns],
//! [presence], [slow_consumers], [compression].
//! To embed it: [embed], and [chat] as a whole program. To measure it: [measure]. To work on it: [contributing], [releases], [source_map].

/// Declares the pages. Links by name lead to modules here, and to the files where the text is read as Markdown: of two
/// definitions of a link the first one counts, and each file has its own at its end.
macro_rules! pages {
    ($( $(#[doc = $summary:literal])+ $page:ident = $file:literal; )+) => {
        $(
            $(#[doc = $summary])+
            ///
            #[doc = include_str!("links.md")]
            #[doc = include_str!($file)]
            pub mod $page {}
        )+
    };
}

pages! {
    /// Tokens, rights and web origins.
    access = "access.md";
    /// Certificates, their renewal, and those of clients.
    certificates = "certificates.md";
    /// `umbel sub`, `umbel pub` and the other commands.
    command_line = "command_line.md";
    /// permessage-deflate, for all subscribers at once.
    compression = "compression.md";
    /// One file with all settings, its sources, errors and secrets.
    configuration = "configuration.md";
    /// Build, test, bench; add a dialect, a setting, a metric, a limit, a transport.
    contributing = "contributing.md";
    /// Connections, subscriptions, topics and rights by HTTP.
    control = "control.md";
    /// Address, service unit, proxy, descriptors and kernel settings.
    deploy = "deploy.md";
    /// `umbel::Server` in a program of your own.
    embed = "embed.md";
    /// `GET /sse/{topic}` for `EventSource`.
    event_streams = "event_streams.md";
    /// From a package to a server with TLS, tokens, a dashboard and alerts.
    first_hour = "first_hour.md";
    /// Positions, history and recovery after a disconnect.
    history = "history.md";
    /// An application that says who somebody is, and what it may.
    hook = "hook.md";
    /// Every HTTP request, its answer and its status codes.
    http = "http.md";
    /// Tokens of an identity provider, and keys that rotate.
    identity_provider = "identity_provider.md";
    /// Kernel settings for a million connections.
    kernel = "kernel.md";
    /// Every limit with its default.
    limits = "limits.md";
    /// Bench, floor, peers and counts that repeat.
    measure = "measure.md";
    /// Fields of a message: key, event, id, content type, tags.
    messages = "messages.md";
    /// Prometheus metrics and log lines.
    metrics = "metrics.md";
    /// Dashboard and alerts.
    observing = "observing.md";
    /// Topic names, patterns and topic rules.
    patterns = "patterns.md";
    /// Proxies in front: whose address and scheme count.
    proxies = "proxies.md";
    /// Members of a topic, joins and leaves.
    presence = "presence.md";
    /// Reports of vulnerabilities, and promises against hostile input.
    security = "security.md";
    /// Drain, restart and upgrade.
    shutdown = "shutdown.md";
    /// Subscribers that read too slowly.
    slow_consumers = "slow_consumers.md";
    /// `https://` and `wss://`: certificates, handshakes, ends.
    tls = "tls.md";
    /// Tokens that a backend signs, in six languages.
    tokens = "tokens.md";
    /// Packages, and the way to a release.
    releases = "releases.md";
    /// Rooms of the source, and the way of a byte.
    source_map = "source_map.md";
    /// Connections that are ended, and kept away.
    throwing_out = "throwing_out.md";
    /// Symptoms, and figures that explain them.
    troubleshooting = "troubleshooting.md";
    /// The JavaScript client.
    umbel_js = "umbel_js.md";
}

/// A chat with a login of its own and a kick: a whole program.
///
#[doc = concat!("```no_run\n", include_str!("chat.rs"), "```")]
pub mod chat {}
