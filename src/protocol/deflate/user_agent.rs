//! Browsers whose permessage-deflate is broken, told by `User-Agent` (RFC 9110, section 10.1.5).

/// Whether a browser keeps its context after agreeing not to: Safari 15.0 to 15.3, and every other browser on iOS 15.0
/// to 15.3, whose engine is the same. Nothing should be agreed with it.
pub fn has_broken_deflate(user_agent: &str) -> bool {
    if !user_agent.contains("AppleWebKit/") {
        return false;
    }
    // macOS and iOS: `Version/15.2 Safari/605.1.15`. iOS, in any browser: `CPU iPhone OS 15_2_1 like Mac OS X`.
    let is_safari = user_agent.contains(" Safari/") && names_version(user_agent, "Version/15.");
    is_safari || (user_agent.contains("like Mac OS X") && names_version(user_agent, " OS 15_"))
}

/// Whether `prefix` is followed by a minor version from 0 to 3.
fn names_version(user_agent: &str, prefix: &str) -> bool {
    user_agent.match_indices(prefix).any(|(at, _)| {
        let minor = &user_agent.as_bytes()[at + prefix.len()..];
        matches!(minor, [b'0'..=b'3'] | [b'0'..=b'3', b' ' | b'.' | b'_', ..])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: &str =
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko)";

    fn iphone(os: &str, browser: &str) -> String {
        format!(
            "Mozilla/5.0 (iPhone; CPU iPhone OS {os} like Mac OS X) AppleWebKit/605.1.15 \
             (KHTML, like Gecko) {browser}/97.0 Mobile/15E148 Safari/604.1"
        )
    }

    #[test]
    fn safari_15_0_to_15_3() {
        for version in ["15.0", "15.1", "15.2", "15.3", "15.2.1"] {
            let user_agent = format!("{MAC} Version/{version} Safari/605.1.15");
            assert!(has_broken_deflate(&user_agent), "{user_agent}");
        }
        for version in ["14.1", "15.4", "15.10", "15.30", "15", "115.0", "16.0"] {
            let user_agent = format!("{MAC} Version/{version} Safari/605.1.15");
            assert!(!has_broken_deflate(&user_agent), "{user_agent}");
        }
    }

    #[test]
    fn every_browser_on_ios_15_0_to_15_3() {
        for os in ["15_0", "15_1", "15_2_1", "15_3"] {
            assert!(has_broken_deflate(&iphone(os, "CriOS")), "{os}");
        }
        for os in ["14_8", "15_4", "15_30", "16_0", "15"] {
            assert!(!has_broken_deflate(&iphone(os, "CriOS")), "{os}");
        }
    }

    #[test]
    fn nobody_else() {
        let chrome = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36";
        for user_agent in [
            "",
            "Version/15.2",
            "curl/8.15.3",
            "Safari/15.0 Version/15.0",
            chrome,
        ] {
            assert!(!has_broken_deflate(user_agent), "{user_agent}");
        }
    }
}
