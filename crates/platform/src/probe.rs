//! Is a replica well? One HTTP request, or one connection.
//!
//! A replica may be hostile: what is read of it is bounded in bytes and time, and made printable.

use std::time::Duration;

use evenkeel_core::ports::Answered;
use evenkeel_core::spec::{ProbeCheck, SmokeCheck};
use http::StatusCode;

use crate::http::{Get, Got, Span, connect_within, unless_local};
use crate::text::first_line;

/// What is read of the body of a bad answer, for its first line.
const DETAIL_BYTES: usize = 1 << 10;
/// What is shown of that line.
const DETAIL_CHARACTERS: usize = 120;
/// Where a smoke check looks for its text.
const SMOKE_BYTES: usize = 64 << 10;

/// Probes the replica on `port` once, within `limit`.
///
/// What this machine lacks to send the probe is waited for in addition: that is not the replica's fault.
/// A redirect is good, as any status from 200 to 399, and is not followed. Cancel safe: the connection is closed.
pub async fn probe(port: u16, check: &ProbeCheck, limit: Duration) -> Answered {
    match check {
        ProbeCheck::Http { path, port: other, headers } => {
            http(Get { port: other.unwrap_or(port), path, headers, limit }).await
        }
        ProbeCheck::Tcp { port: other } => tcp(other.unwrap_or(port), limit).await,
    }
}

/// Smoke-tests the replica on `port` once. Cancel safe: the connection is closed.
pub async fn smoke(port: u16, check: &SmokeCheck) -> Answered {
    let get = Get { port, path: &check.path, headers: &[], limit: check.timeout };
    match unless_local(|| get.send(SMOKE_BYTES, |_| true)).await {
        Ok(got) => smoked(check, &got),
        Err(failure) => bad(format!("GET {}: {failure}", check.path)),
    }
}

async fn http(get: Get<'_>) -> Answered {
    match unless_local(|| get.send(DETAIL_BYTES, |status| !is_good(status))).await {
        Ok(got) if is_good(got.status) => good(format!("GET {}: {}", get.path, status_line(got.status))),
        Ok(got) => bad(format!("GET {}: {}{}", get.path, status_line(got.status), said(&got))),
        Err(failure) => bad(format!("GET {}: {failure}", get.path)),
    }
}

async fn tcp(port: u16, limit: Duration) -> Answered {
    match unless_local(|| connect_within(port, limit)).await {
        Ok(()) => good(format!("port {port}: accepts connections")),
        Err(failure) => bad(format!("port {port}: {failure}")),
    }
}

fn smoked(check: &SmokeCheck, got: &Got) -> Answered {
    let line = format!("GET {}: {}", check.path, status_line(got.status));
    if got.status.as_u16() != check.status {
        return bad(format!("{line}, not {}{}", check.status, said(got)));
    }
    match &check.contains {
        Some(text) if holds(&got.body, text.as_bytes()) => good(line),
        Some(_) if !got.complete => bad(format!("{line}, body not complete within {}", Span(check.timeout))),
        Some(text) => bad(format!("{line}, without `{text}` in its first 64 KiB")),
        None => good(line),
    }
}

fn holds(body: &[u8], text: &[u8]) -> bool {
    text.is_empty() || body.windows(text.len()).any(|window| window == text)
}

fn is_good(status: StatusCode) -> bool {
    (200..400).contains(&status.as_u16())
}

fn status_line(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}

/// The first line of the body behind a colon, or nothing.
fn said(got: &Got) -> String {
    first_line(&got.body, DETAIL_CHARACTERS).map_or_else(String::new, |line| format!(": {line}"))
}

fn good(detail: String) -> Answered {
    Answered { good: true, detail }
}

fn bad(detail: String) -> Answered {
    Answered { good: false, detail }
}
