//! Targets of requests as the log may show them.

use std::borrow::Cow;

/// Bytes of a target that are shown.
const SHOWN_BYTES_MAX: usize = 256;

/// Parameters whose values nobody may read.
const SECRETS: [&str; 4] = ["token", "access_token", "info", "authorization"];

/// Beginning of names of parameters that sign.
const SIGNING: &str = "umbel_";

/// The target without secrets, no longer than 256 bytes.
pub fn without_secrets(target: &str) -> Cow<'_, str> {
    let mut end = target.len().min(SHOWN_BYTES_MAX);
    while !target.is_char_boundary(end) {
        end -= 1;
    }
    let is_cut = end < target.len();
    let Some((path, query)) = target[..end].split_once('?') else {
        return match is_cut {
            true => format!("{}...", &target[..end]).into(),
            false => target.into(),
        };
    };
    let mut shown = format!("{path}?");
    for (index, pair) in query.split('&').enumerate() {
        if index > 0 {
            shown.push('&');
        }
        match pair.split_once('=') {
            Some((name, _)) if is_secret(name) => {
                shown.push_str(name);
                shown.push_str("=...");
            }
            // A name without a value may be a part of a secret that was written without its name.
            _ => shown.push_str(pair),
        }
    }
    if is_cut {
        shown.push_str("...");
    }
    shown.into()
}

/// Whether the value of a parameter is hidden. A name with escapes may be any.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRETS.contains(&&*name)
        || name.starts_with(SIGNING)
        || name.contains(['%', '+'])
        || name.starts_with("auth")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_left_out() {
        for (target, shown) in [
            ("/ws", "/ws"),
            ("/sse/a?last=3", "/sse/a?last=3"),
            ("/ws/a?token=abc&echo=0", "/ws/a?token=...&echo=0"),
            ("/ws?ACCESS_TOKEN=abc", "/ws?ACCESS_TOKEN=..."),
            ("/ws?%74oken=abc", "/ws?%74oken=..."),
            (
                "/ws/a?umbel_sig=1&umbel_exp=2",
                "/ws/a?umbel_sig=...&umbel_exp=...",
            ),
            ("/ws?info={\"n\":1}&a", "/ws?info=...&a"),
            ("/hub?authorization=eyJ", "/hub?authorization=..."),
        ] {
            assert_eq!(without_secrets(target), shown);
        }
    }

    #[test]
    fn long_targets_are_cut_between_characters() {
        let long = format!("/{}", "\u{e9}".repeat(300));
        let shown = without_secrets(&long);
        assert_eq!(shown.len(), 255 + 3);
        let long = format!("/ws?token={}", "x".repeat(300));
        assert_eq!(without_secrets(&long), "/ws?token=......");
    }
}
