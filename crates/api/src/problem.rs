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

/// Declares every code with its status, once.
macro_rules! codes {
    ($($(#[$doc:meta])* $code:ident = $name:literal $status:ident,)+) => {
        /// What programs tell errors apart by; a code never changes its meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code { $($(#[$doc])* $code,)+ }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$code,)+];

            /// As it is written in a problem.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$code => $name,)+ }
            }

            /// The HTTP status that goes with it.
            #[must_use]
            pub fn status(self) -> StatusCode {
                match self { $(Self::$code => StatusCode::$status,)+ }
            }
        }
    };
}

codes! {
    /// It is so already; nothing was done.
    NothingToDo = "nothing_to_do" OK,
    /// The body cannot be read as what the route wants.
    BadBody = "bad_body" BAD_REQUEST,
    /// The query or the path cannot be read.
    BadQuery = "bad_query" BAD_REQUEST,
    /// The token is missing or wrong.
    TokenWanted = "token_wanted" UNAUTHORIZED,
    /// The request names a host that is not this machine.
    ForeignHost = "foreign_host" FORBIDDEN,
    /// The request comes from another page.
    ForeignOrigin = "foreign_origin" FORBIDDEN,
    /// It is not theirs to say.
    NotAllowed = "not_allowed" FORBIDDEN,
    /// There is nothing at this path.
    NoRoute = "no_route" NOT_FOUND,
    /// There is no such service.
    NoService = "no_service" NOT_FOUND,
    /// There is no such release, or none to go back to.
    NoRelease = "no_release" NOT_FOUND,
    /// The path does not take this method.
    WrongMethod = "wrong_method" METHOD_NOT_ALLOWED,
    /// The same release was rolled back before.
    RolledBackBefore = "rolled_back_before" CONFLICT,
    /// No rollout is in flight that this could be asked of.
    NoRollout = "no_rollout" CONFLICT,
    /// No deploy waits for gates.
    NoGate = "no_gate" CONFLICT,
    /// An error budget is spent.
    BudgetSpent = "budget_spent" CONFLICT,
    /// The release of the other environment cannot be taken over.
    NotPromotable = "not_promotable" CONFLICT,
    /// Another routing table has come into force since.
    OldGeneration = "old_generation" CONFLICT,
    /// The rollout cannot do this where it is.
    IllegalMove = "illegal_move" CONFLICT,
    /// The body is too large.
    TooLarge = "too_large" PAYLOAD_TOO_LARGE,
    /// The body is no JSON by its content type.
    JsonWanted = "json_wanted" UNSUPPORTED_MEDIA_TYPE,
    /// The spec has mistakes; `problems` lists them.
    BadSpec = "bad_spec" UNPROCESSABLE_ENTITY,
    /// The spec has no such service.
    NotInSpec = "not_in_spec" UNPROCESSABLE_ENTITY,
    /// The version has characters it may not have.
    BadVersion = "bad_version" UNPROCESSABLE_ENTITY,
    /// The machine cannot do it, such as listen on an address that is taken.
    PlatformRefused = "platform_refused" UNPROCESSABLE_ENTITY,
    /// The machine's agent does not answer.
    PlatformUnavailable = "platform_unavailable" SERVICE_UNAVAILABLE,
    /// The decision could not be made durable; nothing was changed.
    StoreUnavailable = "store_unavailable" SERVICE_UNAVAILABLE,
    /// The controller is ending.
    ShuttingDown = "shutting_down" SERVICE_UNAVAILABLE,
}

impl Problem {
    /// A problem without help.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let status = code.status();
        Self {
            status: status.as_u16(),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            code: code.name().to_owned(),
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
        let of = |code| Self::new(code, detail.clone());
        match &error {
            AskError::NoService(_) => {
                of(Code::NoService).help("`evenkeel status` lists the services; `evenkeel deploy` makes one")
            }
            AskError::Refused(refused) => of_refused(refused, detail),
            AskError::OldGeneration { .. } => of(Code::OldGeneration).help("look at the weights again, then set them"),
            AskError::Platform(PlatformError::Refused(_)) => of(Code::PlatformRefused),
            AskError::Platform(_) => of(Code::PlatformUnavailable),
            AskError::Store(_) => of(Code::StoreUnavailable).help("nothing was changed; try again"),
            AskError::Ending => of(Code::ShuttingDown),
        }
    }
}

fn of_refused(refused: &Refused, detail: String) -> Problem {
    match refused {
        Refused::NothingToDo { .. } => Problem::new(Code::NothingToDo, detail),
        Refused::RolledBackBefore { .. } => Problem::new(Code::RolledBackBefore, detail)
            .help("deploy a fixed version, or add `--again` to try this one once more"),
        Refused::NoRollout { .. } => Problem::new(Code::NoRollout, detail),
        Refused::Illegal { .. } => Problem::new(Code::IllegalMove, detail),
        Refused::NoGate { .. } => Problem::new(Code::NoGate, detail).help("`evenkeel status` shows what waits"),
        Refused::BudgetSpent { .. } => Problem::new(Code::BudgetSpent, detail)
            .help("wait until some of it is back; a fix goes through with `--skip-gates REASON`"),
        Refused::NotAllowed { .. } => Problem::new(Code::NotAllowed, detail),
        Refused::NotPromotable { .. } => Problem::new(Code::NotPromotable, detail),
        Refused::NoRelease { .. } => Problem::new(Code::NoRelease, detail),
    }
}
