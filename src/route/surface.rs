//! Surfaces: the resources that a listener shows.

use super::Route;
use crate::config::Surface;
use crate::console;
use crate::dialect::COMMANDS_PATH;

/// Whether a listener with this surface shows a resource.
pub fn shows(surface: Surface, route: &Route<'_>) -> bool {
    let (on_public, on_admin) = match route {
        Route::Health | Route::Ready | Route::Path("*") => (true, true),
        Route::Metrics | Route::Topics | Route::Topic(_) => (false, true),
        Route::Asset(path) | Route::Path(path) if console::asset(path).is_some() => (
            console::asset(path).is_some_and(|asset| asset.is_public),
            true,
        ),
        Route::Asset(_) | Route::Call(_) => (false, true),
        route if is_of_console(route) => (true, true),
        Route::TopicUpgrade(_)
        | Route::History(_)
        | Route::Publish(_)
        | Route::PublishMany
        | Route::Commands(_)
        | Route::TopicStream(..)
        | Route::JoinedStream(_)
        | Route::Path(_) => (true, false),
    };
    match surface {
        Surface::All => true,
        Surface::Public => on_public,
        Surface::Admin => on_admin,
    }
}

/// Whether it is there for those alone who may observe: on a listener for operators, what the console speaks.
pub fn is_for_observers(surface: Surface, route: &Route<'_>) -> bool {
    surface == Surface::Admin && is_of_console(route)
}

/// Whether it is what the console speaks. Dialects at paths of their own are for those who have clients of them.
fn is_of_console(route: &Route<'_>) -> bool {
    match route {
        Route::TopicUpgrade(_) | Route::History(_) | Route::Publish(_) | Route::PublishMany => true,
        Route::Commands(path) => *path == COMMANDS_PATH,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Dialects;

    #[test]
    fn each_surface_shows_its_own() {
        let dialects = Dialects::default();
        for (target, on_public, on_admin) in [
            ("/", false, true),
            ("/console", false, true),
            ("/console/console.js", false, true),
            ("/console/no", false, true),
            ("/favicon.ico", false, true),
            ("/metrics", false, true),
            ("/topics", false, true),
            ("/topics/a", false, true),
            ("/api/v1/stats", false, true),
            ("/umbel.js", true, true),
            ("/umbel.d.ts", true, true),
            ("/health", true, true),
            ("/ready", true, true),
            ("*", true, true),
            ("/ws", true, true),
            ("/ws/a", true, true),
            ("/pub", true, true),
            ("/pub/a", true, true),
            ("/history/a", true, true),
            ("/sse/a", true, false),
            ("/echo", true, false),
        ] {
            let route = Route::parse(target, &dialects).expect("the test's targets are routes");
            let shown = [Surface::Public, Surface::Admin].map(|surface| shows(surface, &route));
            assert_eq!(shown, [on_public, on_admin], "{target}");
            assert!(shows(Surface::All, &route));
            let for_observers = is_for_observers(Surface::Admin, &route);
            let is_spoken = ["/ws", "/pub", "/history"]
                .iter()
                .any(|it| target.starts_with(it));
            assert_eq!(for_observers, is_spoken, "{target}");
            assert!(!is_for_observers(Surface::Public, &route));
        }
    }
}
