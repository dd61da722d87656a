//! Values of settings on the command line and among the variables.

use std::ffi::OsStr;

use clap::builder::{PossibleValue, TypedValueParser};
use clap::{Arg, Command};
use umbel::config::file::Value;
use umbel::config::table::{Kind, SettingInfo};

/// Longest text that a problem shows, in characters.
const SHOWN_MAX: usize = 160;

/// Words for yes and no that a switch's variable takes.
const YES: [&str; 6] = ["true", "yes", "on", "1", "t", "y"];
const NO: [&str; 6] = ["false", "no", "off", "0", "f", "n"];

/// A value, or why it cannot be read.
#[derive(Clone, Debug)]
pub struct Read(pub Result<Value, String>);

/// Parser of one setting's values. It never fails: what is wrong with one setting is told together with all else that is.
#[derive(Clone, Copy, Debug)]
pub struct SettingParser(pub SettingInfo);

impl SettingParser {
    fn read(&self, text: &OsStr) -> Result<Value, String> {
        let info = &self.0;
        let Some(text) = text.to_str() else {
            return Err("it is not UTF-8".to_owned());
        };
        let value = match info.kind {
            Kind::Switch => parse_switch(text),
            _ => Value::parse(info, text),
        };
        value.map_err(|problem| {
            let way_out = format!(
                "{problem}; set it with --{} or {}",
                info.flag(),
                info.variable()
            );
            match info.kind {
                // What is meant as a secret may stand there.
                Kind::Secret | Kind::Tokens | Kind::UrlKeys => way_out,
                _ => {
                    let shown: String = text.chars().take(SHOWN_MAX).collect();
                    format!("invalid value '{}': {way_out}", shown.escape_debug())
                }
            }
        })
    }
}

impl TypedValueParser for SettingParser {
    type Value = Read;

    fn parse_ref(&self, _: &Command, _: Option<&Arg>, text: &OsStr) -> Result<Read, clap::Error> {
        Ok(Read(self.read(text)))
    }

    /// For completions.
    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let words: &[&'static str] = match self.0.kind {
            Kind::Choice(words) => words,
            Kind::Bool => &["true", "false"],
            _ => return None,
        };
        Some(Box::new(words.iter().map(PossibleValue::new)))
    }
}

fn parse_switch(text: &str) -> Result<Value, String> {
    let text = text.to_ascii_lowercase();
    match () {
        () if YES.contains(&&*text) => Ok(Value::Bool(true)),
        () if NO.contains(&&*text) => Ok(Value::Bool(false)),
        () => Err("it must be true or false".to_owned()),
    }
}
