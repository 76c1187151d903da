//! The API as OpenAPI 3.1 describes it; tests keep it true to [`crate::routes::list`] and [`crate::problem::Code`].

/// The description, served at `/api/v1/openapi.json`.
pub const TEXT: &str = include_str!("openapi.json");
