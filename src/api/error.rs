//! Errors of the control API, as they are answered.

use crate::connection::Reply;
use crate::dialect::object::Object;
use crate::http::refusal::Refusal;

/// An operation that is not carried out, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// Status of the answer.
    pub status: u16,
    /// Why, for programs.
    pub code: &'static str,
    /// The field that is wrong, if one is.
    pub field: Option<String>,
    /// Why, for people.
    pub reason: String,
    /// All that is wrong, where it is more than one thing.
    pub problems: Vec<String>,
    headers: Vec<(&'static str, String)>,
}

impl ApiError {
    fn new(status: u16, code: &'static str, reason: impl Into<String>) -> ApiError {
        ApiError {
            status,
            code,
            field: None,
            reason: reason.into(),
            problems: Vec::new(),
            headers: Vec::new(),
        }
    }

    /// The body is no JSON object.
    pub(super) fn invalid_json(reason: impl Into<String>) -> ApiError {
        ApiError::new(400, "invalid_json", reason)
    }

    /// A field, or parameter, cannot be what it is.
    pub(super) fn invalid_field(field: &str, reason: impl Into<String>) -> ApiError {
        ApiError {
            field: Some(field.to_owned()),
            ..ApiError::new(400, "invalid_field", reason)
        }
    }

    /// A field, or parameter, is missing.
    pub(super) fn missing_field(field: &str, reason: impl Into<String>) -> ApiError {
        ApiError {
            field: Some(field.to_owned()),
            ..ApiError::new(400, "missing_field", reason)
        }
    }

    /// Settings that cannot stand: a line each.
    pub(super) fn invalid_settings(problems: Vec<String>) -> ApiError {
        let reason = "all settings are as they were, for these cannot stand";
        ApiError {
            problems,
            ..ApiError::new(422, "invalid_field", reason)
        }
    }

    /// The same request may be sent again a second later.
    pub(super) fn retry_after_second(mut self) -> ApiError {
        self.headers.push(("Retry-After", "1".to_owned()));
        self
    }

    /// It cannot be carried out now.
    pub(super) fn unavailable(reason: &'static str) -> ApiError {
        Refusal::unavailable(reason).into()
    }

    /// The path has other methods.
    pub(super) fn method_not_allowed(methods: &str) -> ApiError {
        ApiError {
            headers: vec![("Allow", methods.to_owned())],
            ..ApiError::new(
                405,
                "method_not_allowed",
                format!("the methods of this path are {methods}"),
            )
        }
    }

    /// The answer.
    pub fn into_reply(self) -> Reply {
        let mut body = Vec::with_capacity(128);
        Object::new(&mut body)
            .with("error", |out| {
                let object = Object::new(out)
                    .plain("code", self.code)
                    .text_if("field", self.field.as_deref())
                    .text("reason", &self.reason);
                let problems = serde_json::Value::from(self.problems.clone());
                match self.problems.is_empty() {
                    true => object,
                    false => object.value("problems", problems),
                }
                .end();
            })
            .end();
        let mut reply = super::json(self.status, body);
        reply.headers.extend(self.headers);
        reply
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> ApiError {
        ApiError {
            headers: refusal.header_lines(),
            ..ApiError::new(refusal.status, refusal.code(), refusal.reason.clone())
        }
    }
}
