//! The console: the page at `/`, where a person follows topics and patterns, publishes and watches the
//! server's metrics; and `/umbel.js`, the module by which pages and programs speak umbel.v1. Its files
//! are served as they are, but for `/umbel.js`, whose modules the compiler joins; there is no build step.

mod join;

/// The `Content-Security-Policy` header of every asset ([CSP Level 3](https://www.w3.org/TR/CSP3/)): the page runs
/// nothing inline and reaches nobody but its own server. `ws:` and `wss:` are spelt out for browsers whose `'self'`
/// does not cover them.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; \
     style-src 'self'; img-src 'self' data:; connect-src 'self' ws: wss:; base-uri 'none'; \
     frame-ancestors 'none'; form-action 'none'";

/// One file of the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asset {
    /// The request path that it answers, without a query.
    pub path: &'static str,
    /// The value of its `Content-Type` header.
    pub content_type: &'static str,
    /// The whole of it.
    pub body: &'static [u8],
    /// The value of its `ETag` header (RFC 9110 section 8.8.3), without the quotes: another for another body.
    pub tag: u64,
    /// Whether it is for other programs: whoever may connect may have it, pages of allowed origins too. The
    /// others belong to the page. They hold no data, and whoever reaches the admin surface gets them.
    pub is_public: bool,
}

/// Paths of the assets that are for other programs.
pub fn public_paths() -> impl Iterator<Item = &'static str> {
    ASSETS
        .iter()
        .filter(|asset| asset.is_public)
        .map(|asset| asset.path)
}

/// The asset at a request path (without its query), if there is one.
pub fn asset(path: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.path == path)
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";
// No registered type is for TypeScript; compilers go by the name.
const TYPESCRIPT: &str = "text/plain; charset=utf-8";

const PAGE: bool = false;
const PUBLIC: bool = true;

/// Hash of a body, made while the server is compiled (FNV-1a).
const fn tag(body: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut at = 0;
    while at < body.len() {
        hash = (hash ^ body[at] as u64).wrapping_mul(0x100_0000_01b3);
        at += 1;
    }
    hash
}

macro_rules! assets {
    ($($path:literal, $content_type:ident, $is_public:ident, $body:expr;)*) => {
        &[$(Asset {
            path: $path,
            content_type: $content_type,
            body: $body,
            tag: tag($body),
            is_public: $is_public,
        }),*]
    };
}

static ASSETS: &[Asset] = assets! {
    "/", HTML, PAGE, include_bytes!("index.html");
    "/console", HTML, PAGE, include_bytes!("index.html");
    "/favicon.ico", SVG, PAGE, include_bytes!("icon.svg");
    "/console/icon.svg", SVG, PAGE, include_bytes!("icon.svg");
    "/console/charts.css", CSS, PAGE, include_bytes!("charts.css");
    "/console/messages.css", CSS, PAGE, include_bytes!("messages.css");
    "/console/operate.css", CSS, PAGE, include_bytes!("operate.css");
    "/console/publish.css", CSS, PAGE, include_bytes!("publish.css");
    "/console/style.css", CSS, PAGE, include_bytes!("style.css");
    "/console/topics.css", CSS, PAGE, include_bytes!("topics.css");
    "/console/api.js", JAVASCRIPT, PAGE, include_bytes!("api.js");
    "/console/console.js", JAVASCRIPT, PAGE, include_bytes!("console.js");
    "/console/connection.js", JAVASCRIPT, PAGE, include_bytes!("connection.js");
    "/console/charts.js", JAVASCRIPT, PAGE, include_bytes!("charts.js");
    "/console/format.js", JAVASCRIPT, PAGE, include_bytes!("format.js");
    "/console/messages.js", JAVASCRIPT, PAGE, include_bytes!("messages.js");
    "/console/metrics.js", JAVASCRIPT, PAGE, include_bytes!("metrics.js");
    "/console/operate.js", JAVASCRIPT, PAGE, include_bytes!("operate.js");
    "/console/payload.js", JAVASCRIPT, PAGE, include_bytes!("payload.js");
    "/console/poll.js", JAVASCRIPT, PAGE, include_bytes!("poll.js");
    "/console/publish.js", JAVASCRIPT, PAGE, include_bytes!("publish.js");
    "/console/sparkline.js", JAVASCRIPT, PAGE, include_bytes!("sparkline.js");
    "/console/topic.js", JAVASCRIPT, PAGE, include_bytes!("topic.js");
    "/console/topics.js", JAVASCRIPT, PAGE, include_bytes!("topics.js");
    "/umbel.js", JAVASCRIPT, PUBLIC, &SCRIPT;
    "/umbel.d.ts", TYPESCRIPT, PUBLIC, include_bytes!("umbel.d.ts");
};

/// The modules of `/umbel.js`. What it exports stands in the first.
const SCRIPT_MODULES: &[&str] = &[
    include_str!("umbel.js"),
    include_str!("umbel/link.js"),
    include_str!("umbel/keys.js"),
    include_str!("umbel/subscriber.js"),
    include_str!("umbel/fields.js"),
    include_str!("umbel/messages.js"),
    include_str!("umbel/position.js"),
    include_str!("umbel/settings.js"),
    include_str!("umbel/page.js"),
    include_str!("umbel/token.js"),
    include_str!("umbel/ending.js"),
    include_str!("umbel/sign.js"),
    include_str!("umbel/error.js"),
];

static SCRIPT: [u8; join::joined_length(SCRIPT_MODULES)] = join::join(SCRIPT_MODULES);

#[cfg(test)]
mod tests {
    use super::*;

    fn text(asset: &Asset) -> &'static str {
        std::str::from_utf8(asset.body).expect("every asset is text")
    }

    /// What stands between `before` and the next quote, wherever `before` occurs.
    fn quoted_after<'a>(text: &'a str, before: &str) -> Vec<&'a str> {
        text.split(before)
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            .collect()
    }

    #[test]
    fn every_file_that_the_page_refers_to_exists() {
        let page = text(asset("/").expect("the page exists"));
        let references = [quoted_after(page, "src=\""), quoted_after(page, "href=\"")].concat();
        let paths: Vec<&str> = references
            .into_iter()
            .filter(|reference| !reference.starts_with('#'))
            .collect();
        assert!(paths.contains(&"/console/console.js"), "{paths:?}");
        for path in paths {
            assert!(asset(path).is_some(), "the page refers to {path}");
        }
    }

    #[test]
    fn tags_tell_bodies_apart() {
        for asset in ASSETS {
            let same = |other: &&Asset| other.tag == asset.tag;
            assert!(
                ASSETS
                    .iter()
                    .filter(same)
                    .all(|other| other.body == asset.body)
            );
        }
    }

    #[test]
    fn every_module_is_imported_and_every_import_exists() {
        let modules = ASSETS
            .iter()
            .filter(|a| a.content_type == JAVASCRIPT && !a.is_public);
        let mut imported = vec!["/console/console.js".to_owned()];
        for module in modules.clone() {
            for name in quoted_after(text(module), "from \"./") {
                let path = format!("/console/{name}");
                assert!(asset(&path).is_some(), "{} imports {path}", module.path);
                imported.push(path);
            }
        }
        for module in modules {
            let path = module.path;
            assert!(imported.iter().any(|i| i == path), "nothing imports {path}");
        }
    }

    #[test]
    fn the_public_module_stands_alone() {
        let module = asset("/umbel.js").expect("the module exists");
        assert!(module.is_public);
        assert!(!text(module).contains("import "), "it imports something");
        for module in SCRIPT_MODULES {
            let lines = module.lines().count();
            assert!(lines <= 600, "a module of {lines} lines");
            assert!(module.ends_with('\n'), "the next one begins a line");
        }
        let types = asset("/umbel.d.ts").expect("its types exist");
        assert!(types.is_public);
        let exports: Vec<&str> = text(module).split("\nexport ").skip(1).collect();
        assert_eq!(exports.len(), 2, "{exports:?}");
        assert!(exports[0].starts_with("{ UmbelError, signUrl };"));
        assert!(exports[1].starts_with("function connect("));
        for name in [
            "function connect(",
            "function signUrl(",
            "class UmbelError ",
        ] {
            assert!(text(types).contains(&format!("export declare {name}")));
        }
    }

    #[test]
    fn the_page_holds_nothing_that_the_policy_forbids() {
        let page = text(asset("/").expect("the page exists"));
        for forbidden in ["<style", " style=", "javascript:", "<script>", " onclick="] {
            assert!(!page.contains(forbidden), "{forbidden} in the page");
        }
        for asset in ASSETS.iter().filter(|a| a.content_type == JAVASCRIPT) {
            for forbidden in ["innerHTML", "outerHTML", "insertAdjacentHTML", "eval("] {
                assert!(
                    !text(asset).contains(forbidden),
                    "{forbidden}: {}",
                    asset.path
                );
            }
        }
    }

    #[test]
    fn the_policy_fits_a_header() {
        assert!(
            CONTENT_SECURITY_POLICY
                .bytes()
                .all(|b| (b' '..=b'~').contains(&b))
        );
        assert!(!CONTENT_SECURITY_POLICY.contains("  "));
        assert!(!CONTENT_SECURITY_POLICY.contains("unsafe"));
    }

    #[test]
    fn paths_are_exact_and_unique() {
        assert_eq!(asset("/favicon.ico").map(|a| a.content_type), Some(SVG));
        assert_eq!(asset("/console/"), None);
        assert_eq!(asset("/console/../Cargo.toml"), None);
        for (index, asset) in ASSETS.iter().enumerate() {
            assert!(ASSETS[..index].iter().all(|a| a.path != asset.path));
        }
    }
}
