//! Variables that nobody knows.

use super::nearest::nearest;
use super::problem::Problem;
use crate::config::table::settings;

/// What all variables of the server begin with.
const PREFIX: &str = "UMBEL_";

/// Transports as Kubernetes names them.
const TRANSPORTS: [&str; 3] = ["TCP", "UDP", "SCTP"];

/// Variables named as the server's own that are none of `known`. Those that Kubernetes sets for
/// a service called `umbel`, or `umbel-` and more, are none of anybody's.
pub fn unknown_variables<'a>(
    environment: impl Iterator<Item = (&'a str, &'a str)>,
    known: &[String],
) -> Vec<Problem> {
    let ours = environment.filter(|(name, _)| name.starts_with(PREFIX));
    let unknown = ours.filter(|(name, value)| {
        !known.iter().any(|it| it == name) && !is_of_kubernetes(name, value)
    });
    let mut problems: Vec<_> = unknown.map(|(name, _)| name).collect();
    problems.sort_unstable();
    let problems = problems.into_iter().map(|name| {
        let tip = match nearest_variable(name, known) {
            _ if name == "UMBEL_PORT" => {
                ": the port is a part of UMBEL_LISTEN, as in 127.0.0.1:8080".to_owned()
            }
            Some(near) => format!(": did you mean {near}?"),
            None => "; `umbel serve --help` lists the settings, each of which has one".to_owned(),
        };
        Problem::elsewhere(format!("unknown variable {}{tip}", name.escape_debug()))
    });
    problems.collect()
}

/// The variable whose name is the nearest. A key of the file with its table in front, as in `LIMITS_BACKLOG`, is a name too.
fn nearest_variable(name: &str, known: &[String]) -> Option<String> {
    // What all begin with makes none of them nearer.
    let name = name.strip_prefix(PREFIX).unwrap_or(name);
    let in_tables = settings().filter(|info| !info.key.table.is_empty());
    let mut names: Vec<_> = in_tables
        .map(|info| {
            let key = format!("{}_{}", info.key.table, info.key.name);
            (key.to_uppercase(), info.variable())
        })
        .collect();
    let own = known.iter().filter_map(|known| {
        let name = known.strip_prefix(PREFIX)?;
        Some((name.to_owned(), known.clone()))
    });
    names.extend(own);
    let near = nearest(name, names.iter().map(|(name, _)| name.as_str()))?.to_owned();
    let (_, variable) = names.into_iter().find(|(name, _)| *name == near)?;
    Some(variable)
}

/// Whether Kubernetes sets it for a service: the name has one of its shapes, and the value the one that belongs to it.
/// <https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>
fn is_of_kubernetes(name: &str, value: &str) -> bool {
    let is_address = |text: &str| text.parse::<std::net::IpAddr>().is_ok();
    let is_url = |text: &str| {
        let Some((scheme, rest)) = text.split_once("://") else {
            return false;
        };
        let is_transport = TRANSPORTS
            .iter()
            .any(|transport| transport.eq_ignore_ascii_case(scheme));
        is_transport && rest.rsplit_once(':').is_some_and(|(_, port)| is_port(port))
    };
    // `UMBEL_SERVICE_HOST`, and `UMBEL_WEB_SERVICE_HOST` of a service `umbel-web`.
    let Some(rest) = name.strip_prefix("UMBEL") else {
        return false;
    };
    if !is_of_names(rest) {
        return false;
    }
    if rest.ends_with("_SERVICE_HOST") {
        return is_address(value);
    }
    if rest.ends_with("_SERVICE_PORT") || rest.contains("_SERVICE_PORT_") {
        return is_port(value);
    }
    if rest.ends_with("_PORT") && is_url(value) {
        return true;
    }
    let words: Vec<&str> = rest.split('_').collect();
    match &words[..] {
        [.., "PORT", port, transport] if is_link(port, transport) => is_url(value),
        [.., "PORT", port, transport, "PROTO"] if is_link(port, transport) => {
            transport.eq_ignore_ascii_case(value)
        }
        [.., "PORT", port, transport, "PORT"] if is_link(port, transport) => *port == value,
        [.., "PORT", port, transport, "ADDR"] if is_link(port, transport) => is_address(value),
        _ => false,
    }
}

/// Whether names of services and ports in capitals can stand there: they are DNS labels, with `_` for `-`, so none ends
/// with it.
fn is_of_names(rest: &str) -> bool {
    let is_of_name = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    rest.bytes().all(is_of_name) && !rest.ends_with('_')
}

fn is_link(port: &str, transport: &str) -> bool {
    is_port(port) && TRANSPORTS.contains(&transport)
}

/// Whether it is the number of a port as Kubernetes writes it: without a sign, and without zeros in front.
fn is_port(text: &str) -> bool {
    text.parse::<u16>()
        .is_ok_and(|port| port.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(variables: &[(&str, &str)]) -> Vec<String> {
        let known = ["UMBEL_BACKLOG", "UMBEL_LISTEN", "UMBEL_LOG_LEVEL"].map(str::to_owned);
        let unknown = unknown_variables(variables.iter().copied(), &known);
        unknown.iter().map(Problem::to_string).collect()
    }

    #[test]
    fn unknown_ones_get_the_nearest_name() {
        assert_eq!(
            problems(&[
                ("UMBEL_LISTEM", "x"),
                ("HOME", "/"),
                ("UMBEL_BACKLOG", "1"),
                ("UMBEL_LOG", "x")
            ]),
            [
                "unknown variable UMBEL_LISTEM: did you mean UMBEL_LISTEN?",
                "unknown variable UMBEL_LOG: did you mean UMBEL_LOG_LEVEL?",
            ]
        );
        assert!(problems(&[("UMBEL_PORT", "8080")])[0].contains("UMBEL_LISTEN"));
        // As keys of the file are called, with their table.
        for (name, meant) in [
            ("UMBEL_LIMITS_MESSAGE_BYTES_MAX", "UMBEL_MESSAGE_BYTES_MAX"),
            ("UMBEL_LIMITS_OUTBOX_BYTE_MAX", "UMBEL_OUTBOX_BYTES_MAX"),
            ("UMBEL_LOG_ACCESS_LOG", "UMBEL_ACCESS_LOG"),
        ] {
            let expected = format!("unknown variable {name}: did you mean {meant}?");
            assert_eq!(problems(&[(name, "1")]), [expected]);
        }
    }

    #[test]
    fn those_of_kubernetes_services_are_left_alone() {
        for (name, value) in [
            ("UMBEL_SERVICE_HOST", "10.96.0.7"),
            ("UMBEL_SERVICE_PORT", "8080"),
            ("UMBEL_SERVICE_PORT_HTTP", "8080"),
            ("UMBEL_PORT", "tcp://10.96.0.7:8080"),
            ("UMBEL_PORT_8080_TCP", "tcp://10.96.0.7:8080"),
            ("UMBEL_PORT_8080_TCP_PROTO", "tcp"),
            ("UMBEL_PORT_8080_TCP_PORT", "8080"),
            ("UMBEL_PORT_8080_TCP_ADDR", "10.96.0.7"),
            ("UMBEL_ADMIN_SERVICE_HOST", "fd00::7"),
            ("UMBEL_ADMIN_PORT", "tcp://[fd00::7]:8081"),
        ] {
            assert!(problems(&[(name, value)]).is_empty(), "{name}");
        }
        for (name, value) in [
            ("UMBEL_SERVICE", "x"),
            ("UMBEL_SERVICE_HOST", "example.com"),
            ("UMBEL_PORT_8080", "8080"),
            ("UMBEL_PORT_8080_TCP_PORT", "81"),
            ("UMBEL_PORT_X_TCP_PORT", "81"),
            ("UMBEL_SERVICE_PORT_", "8080"),
            ("UMBEL_SERVICE_PORT_http", "8080"),
            ("UMBEL_SERVICE_PORT", "+8080"),
            ("UMBEL_PORT_08080_TCP_PORT", "08080"),
            ("UMBELS_PORT", "tcp://10.96.0.7:8080"),
        ] {
            let expected = usize::from(name.starts_with("UMBEL_"));
            assert_eq!(problems(&[(name, value)]).len(), expected, "{name}");
        }
    }
}
