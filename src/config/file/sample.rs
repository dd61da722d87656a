//! Sample of a configuration file: every setting with its meaning and its default.
//!
//! Settings are commented out by a `#` without a space behind it, so that words and settings can be told apart.

use super::schema::{effect, sentence};
use crate::config::table::{Kind, SettingInfo, Unset, settings};

/// Columns of a line of words.
const COLUMNS: usize = 100;

/// The sample. As it stands it sets nothing.
pub fn sample() -> String {
    let mut text = "#:schema ./umbel.schema.json\n\n".to_owned();
    wrap(
        &mut text,
        "Settings of umbel serve, each with its meaning and its default. Take the # away in front of what you change. Over \
         this file go the variables UMBEL_..., and over them the flags. Sizes and times are numbers in the unit of the name, \
         or strings with one: \"64KiB\", \"2MB\", \"30s\", \"5m\". After `umbel check --config FILE`, SIGHUP has the server \
         read it again.",
    );
    let is_repeated = |info: &SettingInfo| info.kind.fields().is_some();
    let all: Vec<_> = settings().collect();
    let plain = all
        .iter()
        .filter(|info| info.key.table.is_empty() && !is_repeated(info));
    write_settings(&mut text, plain);
    for info in all.iter().filter(|info| is_repeated(info)) {
        write_rows(&mut text, info);
    }
    let mut tables: Vec<&str> = all.iter().map(|info| info.key.table).collect();
    tables.dedup();
    for table in tables.into_iter().filter(|table| !table.is_empty()) {
        text.push_str(&format!("\n[{table}]\n"));
        write_settings(&mut text, all.iter().filter(|info| info.key.table == table));
    }
    text
}

fn write_settings<'a>(text: &mut String, settings: impl Iterator<Item = &'a SettingInfo>) {
    let mut heading = "";
    for info in settings {
        if std::mem::replace(&mut heading, info.heading) != info.heading {
            text.push_str(&format!("\n## {}\n", info.heading));
        }
        let unset = match info.unset {
            Unset::Words("") => " Not set by default.".to_owned(),
            Unset::Words(words) => format!(" By default {words}."),
            _ => String::new(),
        };
        text.push('\n');
        let effect = effect(info.reload);
        wrap(
            text,
            &format!("{}{unset} A change holds {effect}.", sentence(info.doc)),
        );
        text.push_str(&format!("#{} = {}\n", info.key.name, value(info)));
    }
}

/// The default as the file writes it, or else an example.
fn value(info: &SettingInfo) -> String {
    match (info.unset, info.kind) {
        (Unset::Number(number), _) => info.unit().write(number),
        (Unset::Value(text), Kind::Bool | Kind::Switch | Kind::Share) => text.to_owned(),
        (Unset::Value(text), _) => format!("\"{text}\""),
        (Unset::Words(_), _) => info.example.to_owned(),
    }
}

fn write_rows(text: &mut String, info: &SettingInfo) {
    let fields = info.kind.fields().unwrap_or_default();
    text.push_str(&format!("\n## {}\n\n", info.heading));
    let first = info.doc.split(['\n', ';']).next().unwrap_or_default();
    let first = first.split(", as in").next().unwrap_or(first);
    wrap(
        text,
        &format!(
            "{} One table for each. A change holds {}.",
            sentence(first),
            effect(info.reload)
        ),
    );
    text.push_str(&format!("#[[{}]]\n", info.key.name));
    for field in fields {
        let unset = match field.unset {
            "" => String::new(),
            unset => format!(" By default {unset}."),
        };
        wrap(text, &format!("{}{unset}", field.doc));
        if !field.example.is_empty() {
            text.push_str(&format!("#{} = {}\n", field.name, field.example));
        }
    }
}

/// Appends words as comments, broken between them.
fn wrap(text: &mut String, words: &str) {
    let mut column = 0;
    for word in words.split(' ') {
        let width = word.chars().count() + 1;
        if column == 0 || column + width > COLUMNS {
            text.push_str(if column == 0 { "#" } else { "\n#" });
            column = 1;
        }
        text.push(' ');
        text.push_str(word);
        column += width;
    }
    text.push('\n');
}
