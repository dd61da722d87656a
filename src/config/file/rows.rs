//! Rows of tables that repeat: `[[listener]]` and `[[topic]]`.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::nearest::{nearest, place_tip, plain};
use super::parse::{Parser, kind_of, known, scalar};
use super::problem::Place;
use super::value::{Value, one_of, parse_number};
use crate::config::table::{CERTIFICATE_FIELDS, FieldInfo, Kind, LISTENER_FIELDS, TOPIC_FIELDS};
use crate::config::{CertificateFiles, ClientAuth, ClientCertificates, ClientIdentity};
use crate::config::{ListenAddress, Listener, Proxies, TrustedProxies};
use crate::topic::{Pattern, TopicRule};
use crate::units::Unit;

/// A row's fields that can stand by themselves, as texts, by name.
type Fields = BTreeMap<&'static str, (String, Range<usize>)>;

/// Reads all rows of `[[listener]]`.
pub(super) fn read_listeners(
    parser: &mut Parser<'_>,
    value: &Spanned<DeValue<'_>>,
) -> (Option<Value>, Vec<Place>) {
    let (listeners, rows) = read_rows(parser, "listener", LISTENER_FIELDS, value, read_listener);
    (listeners.map(Value::Listeners), rows)
}

/// Reads all rows of `[[topic]]`.
pub(super) fn read_topic_rules(
    parser: &mut Parser<'_>,
    value: &Spanned<DeValue<'_>>,
) -> (Option<Value>, Vec<Place>) {
    let (rules, rows) = read_rows(parser, "topic", TOPIC_FIELDS, value, read_topic_rule);
    (rules.map(Value::TopicRules), rows)
}

/// Reads all rows of `[[certificate]]`.
pub(super) fn read_certificates(
    parser: &mut Parser<'_>,
    value: &Spanned<DeValue<'_>>,
) -> (Option<Value>, Vec<Place>) {
    let fields = CERTIFICATE_FIELDS;
    let (files, rows) = read_rows(parser, "certificate", fields, value, |parser, fields, _| {
        let path = |name: &str| fields.get(name).map(|(text, _)| parser.path_of(text));
        let (certificate, key) = (path("certificate_file")?, path("key_file")?);
        Some(CertificateFiles::new(certificate, key))
    });
    (files.map(Value::Certificates), rows)
}

fn read_rows<T>(
    parser: &mut Parser<'_>,
    table: &str,
    fields: &'static [FieldInfo],
    value: &Spanned<DeValue<'_>>,
    read: fn(&mut Parser<'_>, &Fields, &Range<usize>) -> Option<T>,
) -> (Option<Vec<T>>, Vec<Place>) {
    each_row(parser, table, value, |parser, entries, span| {
        let before = parser.problems.len();
        let texts = read_fields(parser, table, fields, entries);
        // What is missing may be what was misspelt.
        let is_spelt_well = parser.problems.len() == before;
        let required = fields
            .iter()
            .filter(|field| field.is_required && is_spelt_well);
        for field in required {
            let is_there = entries
                .iter()
                .any(|(key, _)| key.get_ref().as_ref() == field.name);
            if !is_there {
                let message = format!(
                    "this [[{table}]] has no {}, as in {} = {}",
                    field.name, field.name, field.example
                );
                parser.problem(span, message);
            }
        }
        match parser.problems.len() > before {
            true => None,
            false => read(parser, &texts, span),
        }
    })
}

/// Reads the rows of a table that repeats; gives those that can be read, and their places.
pub(super) fn each_row<T>(
    parser: &mut Parser<'_>,
    table: &str,
    value: &Spanned<DeValue<'_>>,
    mut read: impl FnMut(&mut Parser<'_>, &DeTable<'_>, &Range<usize>) -> Option<T>,
) -> (Option<Vec<T>>, Vec<Place>) {
    let DeValue::Array(items) = value.get_ref() else {
        let message = format!("there may be several of them: write [[{table}]], one for each");
        parser.problem(&value.span(), message);
        return (None, Vec::new());
    };
    let (mut values, mut rows) = (Vec::new(), Vec::new());
    for item in items {
        let span = item.span();
        let DeValue::Table(entries) = item.get_ref() else {
            let kind = kind_of(item.get_ref());
            let message = format!("each [[{table}]] is a table, and this is {kind}");
            parser.problem(&span, message);
            continue;
        };
        if let Some(value) = read(parser, entries, &span) {
            values.push(value);
            rows.push(parser.place(&span));
        }
    }
    (Some(values), rows)
}

fn read_fields(
    parser: &mut Parser<'_>,
    table: &str,
    fields: &'static [FieldInfo],
    entries: &DeTable<'_>,
) -> Fields {
    let mut texts = Fields::new();
    for (key, value) in entries {
        let name = key.get_ref().as_ref();
        let Some(field) = fields.iter().find(|field| field.name == name) else {
            unknown_field(parser, table, fields, name, &key.span());
            continue;
        };
        let checked =
            scalar(field.kind, value.get_ref()).and_then(|text| check(field, &text).map(|()| text));
        match checked {
            Ok(text) => {
                texts.insert(field.name, (text, value.span()));
            }
            Err(problem) => parser.problem(&value.span(), format!("{name}: {problem}")),
        }
    }
    texts
}

/// Reports a key that a row of the table cannot have.
pub(super) fn unknown_field(
    parser: &mut Parser<'_>,
    table: &str,
    fields: &[FieldInfo],
    name: &str,
    span: &Range<usize>,
) {
    let meant = plain(name);
    let tip = match nearest(&meant, fields.iter().map(|field| field.name)) {
        Some(near) => format!(": did you mean \"{near}\"?"),
        None => match place_tip(table, &meant) {
            Some(tip) => tip,
            None => format!("; there are {}", names(fields)),
        },
    };
    let name = name.escape_debug();
    parser.problem(span, format!("unknown key \"{name}\" in [[{table}]]{tip}"));
}

fn names(fields: &[FieldInfo]) -> String {
    let names: Vec<_> = fields.iter().map(|field| field.name).collect();
    names.join(", ")
}

/// Whether a text can stand for a field.
fn check(field: &FieldInfo, text: &str) -> Result<(), String> {
    match field.kind {
        Kind::Number { min, max } => {
            parse_number(Unit::of_setting(field.name), text, min..=max).map(|_| ())
        }
        Kind::Choice(words) if !words.contains(&text) => Err(one_of(words)),
        Kind::Flag(words) if !words.contains(&text) && !matches!(text, "true" | "false") => {
            Err(format!(
                "it must be true or false, without quotes, or {}",
                words.join(" or ")
            ))
        }
        _ => Ok(()),
    }
}

fn read_listener(
    parser: &mut Parser<'_>,
    fields: &Fields,
    span: &Range<usize>,
) -> Option<Listener> {
    let text = |name: &str| fields.get(name).map(|(text, span)| (text.as_str(), span));
    let (address, at) = text("address")?;
    if address.contains('#') && !address.starts_with("unix:") {
        parser.problem(
            at,
            "address: in the file, what it shows is another key: surface = \"admin\"",
        );
        return None;
    }
    // A unix path may hold a `#`, so that what it shows is always said behind it.
    let parsed = match address.starts_with("unix:") {
        true => format!("{address}#all").parse().map(|listener| Listener {
            surface: None,
            ..listener
        }),
        false => address.parse::<Listener>(),
    };
    let report = |problem: String| parser.problem(at, format!("address: {problem}"));
    let mut listener = parsed.map_err(report).ok()?;
    if let Some((surface, _)) = text("surface") {
        // It is one of the words, which were checked.
        let with = format!("127.0.0.1:0#{surface}").parse::<Listener>().ok()?;
        listener.surface = with.surface;
    }
    if let Some((mode, at)) = text("mode") {
        let parsed = u32::from_str_radix(mode, 8)
            .ok()
            .filter(|mode| *mode <= 0o777);
        match (&mut listener.address, parsed) {
            (ListenAddress::Unix { mode, .. }, Some(parsed)) => *mode = parsed,
            (ListenAddress::Unix { .. }, None) => {
                parser.problem(at, "mode: it must be permissions in octal, as in \"0660\"");
            }
            _ => parser.problem(at, "mode: only a unix socket has permissions"),
        }
    }
    if let Some((name, at)) = text("group") {
        match &mut listener.address {
            ListenAddress::Unix { group, .. } => *group = Some(name.to_owned()),
            _ => parser.problem(at, "group: only a unix socket has one"),
        }
    }
    if let Some((flag, _)) = text("ipv6_only") {
        listener.ipv6_only = flag == "true";
    }
    if let Some((flag, _)) = text("tls") {
        listener.tls |= flag == "true";
    }
    read_proxies(parser, &mut listener, fields);
    listener.clients = client_certificates(parser, fields);
    match text("name") {
        Some(("", at)) => parser.problem(at, "name: it is empty; leave it out, or give one"),
        Some((name, _)) => listener = listener.named(name),
        None => {}
    }
    debug_assert!(!span.is_empty());
    Some(listener)
}

/// Reads the keys about proxies in front of a listener.
fn read_proxies(parser: &mut Parser<'_>, listener: &mut Listener, fields: &Fields) {
    let proxies = &mut listener.proxies;
    if let Some((texts, at)) = fields.get("trusted_proxies") {
        let texts: Vec<_> = texts.split(',').filter(|text| !text.is_empty()).collect();
        match TrustedProxies::parse(&texts) {
            Ok(trusted) => proxies.trusted = trusted,
            Err(problem) => parser.problem(at, format!("trusted_proxies: {problem}")),
        }
    }
    if let Some((flag, _)) = fields.get("forwarded_host") {
        proxies.host = flag == "true";
    }
    if let Some((flag, _)) = fields.get("proxy_protocol") {
        proxies.protocol = flag == "true";
    }
    if let Some((word, _)) = fields.get("forwarded_header") {
        // It is one of the words, which were checked.
        proxies.header = Proxies::parse_header(word).unwrap_or(proxies.header);
    }
}

/// What a listener asks of clients.
fn client_certificates(parser: &Parser<'_>, fields: &Fields) -> ClientCertificates {
    let text = |name: &str| fields.get(name).map(|(text, _)| text.as_str());
    let path = |name: &str| text(name).map(|text| parser.path_of(text).into());
    // The words were checked.
    let auth = text("client_auth").and_then(ClientAuth::parse);
    ClientCertificates {
        auth: auth.unwrap_or_default(),
        ca_file: path("client_ca_file"),
        crl_file: path("client_crl_file"),
        identity: text("client_identity").and_then(ClientIdentity::parse),
        subject_prefix: text("client_subject_prefix").map(str::to_owned),
    }
}

fn read_topic_rule(
    parser: &mut Parser<'_>,
    fields: &Fields,
    span: &Range<usize>,
) -> Option<TopicRule> {
    let (pattern, at) = fields.get("pattern")?;
    let parsed = Pattern::parse(pattern);
    let pattern = parsed
        .map_err(|problem| parser.problem(at, format!("pattern: {problem}")))
        .ok()?;
    let words = fields.iter().filter(|(name, _)| **name != "pattern");
    let words = words.map(|(name, (text, _))| match (*name, text.as_str()) {
        (name @ ("presence" | "presence_subject" | "time"), "true") => format!("{name}=on"),
        (name @ ("presence" | "presence_subject" | "time"), "false") => format!("{name}=off"),
        (name, text) => format!("{name}={text}"),
    });
    let words: Vec<_> = words.collect();
    let rule = TopicRule::of_fields(pattern, words.iter().map(String::as_str));
    let key = known("topic_rule").key;
    rule.map_err(|problem| parser.problem(span, format!("[[{key}]]: {problem}")))
        .ok()
}
