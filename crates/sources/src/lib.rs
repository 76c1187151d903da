//! Where measurements come from, beside what evenkeel counts itself.
//!
//! Whatever is asked here may be down, slow, wrong or hostile: every answer is bounded in bytes and time, and what goes
//! wrong is told in words, without any secret in them. Modules, in reading order:
//!
//! - [`gauge`]: the port's implementation, which asks all of them.
//! - [`client`]: one bounded request over HTTP or HTTPS.
//! - `token`: OAuth 2.0 client credentials.
//! - [`secret`]: read when it is needed, shown to nobody.
//! - `tls`: whom to trust.
//! - [`prometheus`]: a Prometheus server's query API.
//! - [`json`]: a value picked out of JSON.
//! - [`mod@file`]: a value in a file.

pub mod client;
pub mod file;
pub mod gauge;
pub mod json;
pub mod prometheus;
pub mod secret;
mod text;
mod tls;
mod token;
