//! The demo's pages, served as they are.

use umbel::{Request, Response};

/// They run nothing inline and reach nobody but their own server.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self' ws: wss:; base-uri 'none'; frame-ancestors 'none'; form-action 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// Path below `/demo`, content type, body.
static PAGES: [(&str, &str, &[u8]); 9] = [
    ("", HTML, include_bytes!("pages/index.html")),
    ("/prices", HTML, include_bytes!("pages/prices.html")),
    ("/chat", HTML, include_bytes!("pages/chat.html")),
    ("/model", HTML, include_bytes!("pages/model.html")),
    ("/style.css", CSS, include_bytes!("pages/style.css")),
    (
        "/connection.js",
        JAVASCRIPT,
        include_bytes!("pages/connection.js"),
    ),
    ("/prices.js", JAVASCRIPT, include_bytes!("pages/prices.js")),
    ("/chat.js", JAVASCRIPT, include_bytes!("pages/chat.js")),
    ("/model.js", JAVASCRIPT, include_bytes!("pages/model.js")),
];

/// The page at a request's path.
pub fn respond(request: &Request<'_>) -> Response {
    if !matches!(request.method(), "GET" | "HEAD") {
        return Response::text(405, "GET only\n").header("Allow", "GET, HEAD");
    }
    let path = request.path().trim_start_matches("/demo");
    let path = if path == "/" { "" } else { path };
    let page = PAGES.iter().find(|(name, ..)| *name == path);
    let Some(&(_, content_type, body)) = page else {
        return Response::text(404, "there is no such page of the demo\n");
    };
    Response::new(200, content_type, body)
        .header("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        .header("Cache-Control", "no-cache")
        .header("X-Content-Type-Options", "nosniff")
}
