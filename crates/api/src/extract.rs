//! What is read from a request, with problems instead of plain text when it cannot be.

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, OptionalFromRequest, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::{Json, RequestPartsExt};
use evenkeel_controller::AskError;
use evenkeel_core::ids::{RolloutId, ServiceName};
use serde::de::DeserializeOwned;

use crate::problem::{Code, Problem};

/// The service that the path names.
pub(crate) struct Name(pub(crate) ServiceName);

/// The service and the rollout that the path names.
pub(crate) struct NameAndRollout(pub(crate) ServiceName, pub(crate) RolloutId);

/// The query.
pub(crate) struct Params<T>(pub(crate) T);

/// The body, as JSON.
pub(crate) struct Body<T>(pub(crate) T);

impl<S: Sync> FromRequestParts<S> for Name {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let unread = |rejection: PathRejection| Problem::new(Code::BadQuery, rejection.body_text());
        let Path(name): Path<String> = parts.extract().await.map_err(unread)?;
        // What is no name names no service either.
        ServiceName::new(name.clone()).map(Self).map_err(|_| AskError::NoService(name).into())
    }
}

impl<S: Sync> FromRequestParts<S> for NameAndRollout {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let unread = |rejection: PathRejection| Problem::new(Code::BadQuery, rejection.body_text());
        let Path((name, rollout)): Path<(String, u32)> = parts.extract().await.map_err(unread)?;
        let name = ServiceName::new(name.clone()).map_err(|_| Problem::from(AskError::NoService(name)))?;
        Ok(Self(name, RolloutId(rollout)))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let unread = |rejection: QueryRejection| Problem::new(Code::BadQuery, rejection.body_text());
        let Query(params) = Query::from_request_parts(parts, state).await.map_err(unread)?;
        Ok(Self(params))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let Json(body) = <Json<T> as FromRequest<S>>::from_request(request, state).await.map_err(of_body)?;
        Ok(Self(body))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> OptionalFromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Option<Self>, Problem> {
        let body = <Json<T> as OptionalFromRequest<S>>::from_request(request, state).await.map_err(of_body)?;
        Ok(body.map(|Json(body)| Self(body)))
    }
}

fn of_body(rejection: JsonRejection) -> Problem {
    let code = match rejection.status() {
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Code::JsonWanted,
        StatusCode::PAYLOAD_TOO_LARGE => Code::TooLarge,
        _ => Code::BadBody,
    };
    Problem::new(code, rejection.body_text())
}
