//! Information that members of a topic see of a connection.

use std::sync::Arc;

use serde_json::Value;

use super::object::encode_string;

/// How deep JSON may nest that a connection says of itself. It goes out inside of messages, whose readers have limits of
/// their own, 64 the lowest that is usual.
const INFO_DEPTH_MAX: usize = 32;

/// Information of a connection as JSON: the text itself if it is JSON that any reader takes, else a string of it.
pub fn info_json(text: &str) -> Arc<str> {
    match serde_json::from_str(text) {
        Ok(value) if depth(&value) <= INFO_DEPTH_MAX => text.trim().into(),
        _ => {
            let mut json = Vec::with_capacity(text.len() + 2);
            encode_string(&mut json, text);
            String::from_utf8_lossy(&json).into()
        }
    }
}

fn depth(value: &Value) -> usize {
    let of_items = match value {
        Value::Array(items) => items.iter().map(depth).max(),
        Value::Object(fields) => fields.values().map(depth).max(),
        _ => return 0,
    };
    1 + of_items.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_is_json_that_any_reader_takes() {
        for (text, json) in [
            (" {\"a\": [1]}\n", "{\"a\": [1]}"),
            ("7", "7"),
            ("anna", "\"anna\""),
            ("", "\"\""),
            ("1e999", "\"1e999\""),
            (r#""\ud800""#, r#""\"\\ud800\"""#),
            ("{\"a\":1}{", "\"{\\\"a\\\":1}{\""),
        ] {
            assert_eq!(&*info_json(text), json);
        }
        let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
        let deepest = nested(INFO_DEPTH_MAX);
        assert_eq!(&*info_json(&deepest), deepest);
        for depth in [INFO_DEPTH_MAX + 1, 127, 500] {
            let deep = nested(depth);
            assert_eq!(&*info_json(&deep), format!("\"{deep}\""));
        }
    }
}
