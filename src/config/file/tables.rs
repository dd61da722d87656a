//! The file's text to values, each with its place. All that is wrong is told, not the first alone.

use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::nearest::{nearest, place_tip, plain};
use super::parse::{Entry, Found, Parser, scalar};
use super::problem::{FileText, Problem};
use super::secrets::SecretSource;
use super::value::Value;
use super::{jwt_rows, rows, token_rows, url_key_rows};
use crate::config::table::{Kind, SettingInfo, settings};

/// The parser's word for a key that stands twice, of which the first counts.
const DUPLICATE: &str = "duplicate key";

impl<'a> Parser<'a> {
    /// Reads the whole file.
    pub fn parse(file: &'a Arc<FileText>, secrets: &'a dyn SecretSource) -> Parser<'a> {
        let mut parser = Parser::new(file, secrets);
        let (root, errors) = DeTable::parse_recoverable(file.text());
        for error in &errors {
            let end = file.text().len();
            let place = parser.place(&error.span().unwrap_or(end..end));
            parser
                .problems
                .push(Problem::at(place, format!("not TOML: {}", error.message())));
        }
        // What is made of a file with other errors is anybody's guess.
        if errors.iter().all(|error| error.message() == DUPLICATE) {
            parser.read_table("", root.get_ref());
        }
        parser
    }

    fn read_table(&mut self, table: &str, entries: &DeTable<'_>) {
        for (key, value) in entries {
            let name = key.get_ref().as_ref();
            let known = settings().find(|info| info.key.table == table && info.key.name == name);
            let is_table = table.is_empty() && settings().any(|info| info.key.table == name);
            match (known, value.get_ref()) {
                (Some(info), _) => self.read_setting(&info, (key, value)),
                (None, DeValue::Table(entries)) if is_table => self.read_table(name, entries),
                (None, _) if is_table => {
                    self.problem(
                        &value.span(),
                        format!("{name} is a table: write [{name}], and its keys below"),
                    );
                }
                (None, _) => self.unknown_key(table, name, &key.span()),
            }
        }
    }

    fn unknown_key(&mut self, table: &str, name: &str, span: &Range<usize>) {
        let meant = plain(name);
        let tip = place_tip(table, &meant).unwrap_or_else(|| {
            let tables = ["identity", "limits", "log"]
                .into_iter()
                .filter(|_| table.is_empty());
            let keys = settings().filter(|info| info.key.table == table);
            let near = nearest(&meant, keys.map(|info| info.key.name).chain(tables));
            let anywhere = || {
                let near = nearest(&meant, settings().map(|info| info.key.name))?;
                settings().find(|info| info.key.name == near)
            };
            match (near, anywhere()) {
                (Some(near), _) => format!(": did you mean \"{near}\"?"),
                (None, Some(info)) => format!(": did you mean {}?", info.key),
                (None, None) => String::new(),
            }
        });
        let of_table = match table {
            "" => String::new(),
            table => format!(" in [{table}]"),
        };
        let name = name.escape_debug();
        self.problem(span, format!("unknown key \"{name}\"{of_table}{tip}"));
    }

    fn read_setting(&mut self, info: &SettingInfo, (key, value): Entry<'_, '_>) {
        let place = self.place(&value.span());
        let (value, rows) = match info.kind {
            Kind::Listeners => rows::read_listeners(self, value),
            Kind::TopicRules => rows::read_topic_rules(self, value),
            Kind::Tokens => token_rows::read_tokens(self, value),
            Kind::Grants => token_rows::read_grants(self, value),
            Kind::Jwts => jwt_rows::read_jwts(self, value),
            Kind::Certificates => rows::read_certificates(self, value),
            Kind::UrlKeys => url_key_rows::read_url_keys(self, value),
            Kind::Secret => {
                let secret = self.read_secret(info.key.name, value);
                (secret.map(Value::Secret), Vec::new())
            }
            Kind::Texts => {
                let (texts, rows) = self.read_texts(info.key.name, info.example, value);
                (texts.map(Value::Texts), rows)
            }
            _ => (self.read_plain(info, value), Vec::new()),
        };
        debug_assert_eq!(key.get_ref().as_ref(), info.key.name);
        if let Some(value) = value {
            self.found.insert(info.name, Found { value, place, rows });
        }
    }

    fn read_plain(&mut self, info: &SettingInfo, value: &Spanned<DeValue<'_>>) -> Option<Value> {
        let parsed = scalar(info.kind, value.get_ref()).and_then(|text| Value::parse(info, &text));
        let report =
            |problem: String| self.problem(&value.span(), format!("{}: {problem}", info.key.name));
        parsed.map_err(report).ok()
    }
}
