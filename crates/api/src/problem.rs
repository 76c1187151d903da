//! Errors as `application/problem+json` with a stable code.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use evenkeel_controller::AskError;
use evenkeel_core::ports::PlatformError;
use evenkeel_core::service::Refused;
use serde::{Deserialize, Serialize};

/// An error as RFC 9457 has it; `code` never changes its meaning.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// The status in words.
    pub title: String,
    /// What programs tell errors apart by.
    pub code: String,
    /// What is wrong, for people.
    pub detail: String,
    /// What to do about it; may be empty.
    #[serde(default)]
    pub help: String,
    /// The mistakes of a spec, one by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problems: Option<serde_json::Value>,
}

impl Problem {
    /// A problem without help.
    pub fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Self {
        Self {
            status: status.as_u16(),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            code: code.to_owned(),
            detail: detail.into(),
            help: String::new(),
            problems: None,
        }
    }

    /// The same with what to do about it.
    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: help.into(), ..self }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_string(&self).unwrap_or_default();
        (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response()
    }
}

impl From<AskError> for Problem {
    fn from(error: AskError) -> Self {
        let detail = error.to_string();
        let of = |status, code| Self::new(status, code, detail.clone());
        match &error {
            AskError::NoService(_) => of(StatusCode::NOT_FOUND, "no_service")
                .help("`evenkeel status` lists the services; `evenkeel deploy` makes one"),
            AskError::Refused(refused) => of_refused(refused, detail),
            AskError::Platform(PlatformError::Refused(_)) => of(StatusCode::UNPROCESSABLE_ENTITY, "platform_refused"),
            AskError::Platform(_) => of(StatusCode::SERVICE_UNAVAILABLE, "platform_unavailable"),
            AskError::Store(_) => {
                of(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable").help("nothing was changed; try again")
            }
            AskError::Ending => of(StatusCode::SERVICE_UNAVAILABLE, "shutting_down"),
        }
    }
}

fn of_refused(refused: &Refused, detail: String) -> Problem {
    match refused {
        Refused::NothingToDo { .. } => Problem::new(StatusCode::OK, "nothing_to_do", detail),
        Refused::RolledBackBefore { .. } => Problem::new(StatusCode::CONFLICT, "rolled_back_before", detail)
            .help("deploy a fixed version, or add `--again` to try this one once more"),
        Refused::NoRollout { .. } => Problem::new(StatusCode::CONFLICT, "no_rollout", detail),
        Refused::Illegal { .. } => Problem::new(StatusCode::CONFLICT, "illegal_move", detail),
        Refused::NoRelease { .. } => Problem::new(StatusCode::NOT_FOUND, "no_release", detail),
    }
}
