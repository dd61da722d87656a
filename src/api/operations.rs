//! The table of operations.

use super::error::ApiError;
use super::{
    BODY_BYTES_MAX, CallContext, Input, PREFIX, PUBLISH, Step, changes, connections, deny, rights,
    settings, stats, topics, trace,
};
use crate::shared::Shared;

/// Right that an operation needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// None.
    Nothing,
    /// To observe.
    Observe,
    /// To observe, or to manage the topic that it is about.
    ObserveTopic,
    /// To manage everything.
    Manage,
    /// To manage the topic that it is about.
    ManageTopic,
}

/// Carries out an operation, whose caller may.
type Run = fn(&CallContext<'_>, &Input<'_>) -> Result<Step, ApiError>;

/// One operation.
pub(super) struct Operation {
    /// Its method.
    pub method: &'static str,
    /// Its path behind [`PREFIX`]; `{id}` at the end stands for a name.
    pub path: &'static str,
    /// Right that it needs.
    pub needs: Needs,
    /// Parameters of its query.
    pub parameters: &'static [&'static str],
    /// Fields of its body.
    pub fields: &'static [&'static str],
    /// Carries it out.
    pub run: Run,
}

impl Operation {
    /// The name in a path that leads here; empty where the operation has none. `path`: with or without [`PREFIX`].
    pub fn id_of<'p>(&self, path: &'p str) -> Option<&'p str> {
        let path = path.strip_prefix(PREFIX).unwrap_or(path);
        match self.path.strip_suffix("{id}") {
            None => (path == self.path).then_some(""),
            Some(prefix) => {
                let id = path.strip_prefix(prefix)?;
                (!id.is_empty() && !id.contains('/')).then_some(id)
            }
        }
    }

    /// Longest body that it takes.
    pub fn body_bytes_max(&self, shared: &Shared) -> usize {
        match self.path {
            PUBLISH | "/send" => shared.settings.limits.body_bytes_max,
            _ => BODY_BYTES_MAX,
        }
    }
}

const fn get(
    path: &'static str,
    needs: Needs,
    parameters: &'static [&'static str],
    run: Run,
) -> Operation {
    Operation {
        method: "GET",
        path,
        needs,
        parameters,
        fields: &[],
        run,
    }
}

const fn post(
    path: &'static str,
    needs: Needs,
    fields: &'static [&'static str],
    run: Run,
) -> Operation {
    Operation {
        method: "POST",
        path,
        needs,
        parameters: &[],
        fields,
        run,
    }
}

/// All operations.
pub(super) static OPERATIONS: &[Operation] = &[
    get(
        "/connections",
        Needs::Manage,
        &["subject", "topic", "peer", "dialect", "limit", "cursor"],
        connections::list,
    ),
    get("/connections/{id}", Needs::Manage, &[], connections::show),
    post(
        "/disconnect",
        Needs::Manage,
        &[
            "connection",
            "subject",
            "token_id",
            "peer",
            "code",
            "reason",
            "except",
            "deny_ms",
        ],
        connections::disconnect,
    ),
    post(
        "/unsubscribe",
        Needs::ManageTopic,
        &[
            "connection",
            "subject",
            "topic",
            "pattern",
            "code",
            "reason",
        ],
        changes::unsubscribe,
    ),
    post(
        "/subscribe",
        Needs::ManageTopic,
        &["connection", "subject", "topic", "since"],
        changes::subscribe,
    ),
    post(
        "/refresh",
        Needs::Manage,
        &[
            "connection",
            "subject",
            "expires_at_ms",
            "expires_in_ms",
            "rights",
        ],
        changes::refresh,
    ),
    post(
        "/send",
        Needs::Manage,
        &["connection", "subject", "data", "base64"],
        changes::send,
    ),
    get(
        "/topics",
        Needs::ObserveTopic,
        &["pattern", "limit", "cursor"],
        topics::list,
    ),
    get(
        "/presence",
        Needs::ObserveTopic,
        &["topic", "limit", "cursor"],
        topics::presence,
    ),
    get(
        "/history",
        Needs::ObserveTopic,
        &["topic", "since", "last", "limit"],
        topics::history,
    ),
    post(
        PUBLISH,
        Needs::ManageTopic,
        &[
            "topic",
            "topics",
            "data",
            "base64",
            "key",
            "receipt",
            "event",
            "message_id",
            "content_type",
            "tags",
            "ttl_ms",
            "tombstone",
        ],
        topics::publish,
    ),
    get(
        "/may",
        Needs::Manage,
        &["subject", "action", "topic"],
        rights::may_subject,
    ),
    get("/config", Needs::Manage, &[], settings::show),
    post("/reload", Needs::Manage, &[], settings::reload),
    post(
        "/drain",
        Needs::Manage,
        &["on", "close_per_second"],
        settings::drain,
    ),
    post(
        "/may",
        Needs::Manage,
        &["token", "action", "topic"],
        rights::may,
    ),
    Operation {
        method: "DELETE",
        ..get(
            "/history",
            Needs::ManageTopic,
            &["topic"],
            topics::empty_history,
        )
    },
    post(
        "/deny",
        Needs::Manage,
        &[
            "jti",
            "subject",
            "issued_before",
            "token",
            "source",
            "peer",
            "until_ms",
        ],
        deny::add,
    ),
    get("/deny", Needs::Manage, &["limit", "cursor"], deny::list),
    Operation {
        method: "DELETE",
        ..get("/deny/{id}", Needs::Manage, &[], deny::remove)
    },
    get("/stats", Needs::Observe, &[], stats::show),
    get(
        "/trace",
        Needs::ObserveTopic,
        &["connection", "topic", "subject", "payloads", "duration_ms"],
        trace::trace,
    ),
    get("/openapi.json", Needs::Nothing, &[], topics::openapi),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    /// Names of an object's members.
    fn names(value: &Value) -> BTreeSet<&str> {
        let members = value.as_object().into_iter().flatten();
        members.map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn document_has_every_operation_and_no_other() {
        let document: Value = serde_json::from_str(crate::api::OPENAPI).expect("JSON");
        let paths = &document["paths"];
        let mut described = BTreeSet::new();
        for path in names(paths) {
            for method in names(&paths[path]) {
                described.insert(format!("{} {path}", method.to_uppercase()));
            }
        }
        let mut known = BTreeSet::new();
        for operation in OPERATIONS {
            let name = format!("{} {}", operation.method, operation.path);
            let described = &paths[operation.path][operation.method.to_lowercase()];
            let parameters = described["parameters"].as_array().into_iter().flatten();
            let parameters: BTreeSet<_> = parameters
                .filter(|parameter| parameter["in"] == "query")
                .filter_map(|parameter| parameter["name"].as_str())
                .collect();
            assert_eq!(
                parameters,
                operation.parameters.iter().copied().collect(),
                "{name}"
            );
            let body = &described["requestBody"]["content"]["application/json"]["schema"];
            let fields: BTreeSet<_> = operation.fields.iter().copied().collect();
            assert_eq!(names(&body["properties"]), fields, "{name}");
            let is_open = described["security"] == serde_json::json!([]);
            assert_eq!(is_open, operation.needs == Needs::Nothing, "{name}");
            assert!(known.insert(name.clone()), "{name} stands twice");
        }
        assert_eq!(described, known);
    }

    #[test]
    fn id_is_last_in_path() {
        let operation = &OPERATIONS[1];
        assert_eq!(operation.id_of("/api/v1/connections/0-1-2"), Some("0-1-2"));
        for path in [
            "/api/v1/connections/",
            "/api/v1/connections/a/b",
            "/connections",
        ] {
            assert_eq!(operation.id_of(path), None, "{path}");
        }
    }
}
