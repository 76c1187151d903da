//! OAuth 2.0 client credentials (RFC 6749, section 4.4): a token is fetched, kept, and fetched again when it has run out.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use evenkeel_core::measure::{Access, Login};
use http::{Method, header};
use serde::Deserialize;
use tokio::time::Instant;
use url::Url;
use url::form_urlencoded::{Serializer, byte_serialize};

use crate::client::{Ask, BODY_BYTES_MAX, Client, Failure, Way, sensitive, tls_for};
use crate::secret::basic;
use crate::text::printable;

/// A token that does not say how long it holds is kept for so long.
const HOLDS: Duration = Duration::from_secs(300);
/// A token is not used any more so long before its end.
const BEFORE_END: Duration = Duration::from_secs(10);
/// Tokens that are kept.
const TOKENS_MAX: usize = 256;
const SHOWN_CHARACTERS: usize = 200;

fn form(scopes: &[String]) -> String {
    let mut form = Serializer::new(String::new());
    form.append_pair("grant_type", "client_credentials");
    if !scopes.is_empty() {
        form.append_pair("scope", &scopes.join(" "));
    }
    form.finish()
}

fn whose(access: &Access) -> Option<Whose> {
    let Some(Login::ClientCredentials { token_url, client_id, client_secret, scopes }) = &access.login else {
        return None;
    };
    Some((token_url.clone(), client_id.clone(), client_secret.clone(), scopes.clone()))
}

/// Tokens by whoever they were given to.
#[derive(Default)]
pub(crate) struct Tokens(Mutex<BTreeMap<Whose, (String, Instant)>>);

/// Where a token is from, to whom it was given, by which secret, and what for.
type Whose = (String, String, String, Vec<String>);

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens(…)")
    }
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    expires_in: Option<u64>,
}

#[derive(Deserialize)]
struct Denied {
    error: String,
    #[serde(default)]
    error_description: String,
}

impl Tokens {
    /// The token for an access, kept or fetched; a fresh one in any case if `anew`.
    pub(crate) async fn take(
        &self,
        client: &Client,
        access: &Access,
        end: Instant,
        anew: bool,
    ) -> Result<String, Failure> {
        let whose = whose(access).ok_or_else(|| Failure::NoRequest("there is no token to fetch".into()))?;
        if let Some(token) = self.kept(&whose).filter(|_| !anew) {
            return Ok(token);
        }
        let (token_url, client_id, client_secret, scopes) = &whose;
        let url: Url = token_url.parse().map_err(|error| Failure::NoRequest(format!("the token's URL: {error}")))?;
        // Section 2.3.1: both are written as in a form before they are joined.
        let written = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
        let login = format!("Basic {}", basic(&written(client_id), &written(client_secret)));
        let tls = tls_for(access.authorities.clone(), access.insecure, &url).await?;
        let way = Way { headers: vec![(header::AUTHORIZATION, sensitive(&login, "the login")?)], tls, end };
        let ask = Ask {
            url,
            method: Method::POST,
            content_type: Some("application/x-www-form-urlencoded"),
            body: form(scopes).into(),
            bytes_max: BODY_BYTES_MAX,
            is_repeatable: true,
        };
        let got = client.repeated(&ask, &way).await?;
        let no = |why: String| Failure::Broken(format!("no token: {}: {why}", got.status.as_u16()));
        let granted: Granted =
            serde_json::from_slice(&got.body).map_err(|error| match serde_json::from_slice::<Denied>(&got.body) {
                Ok(Denied { error, error_description }) => {
                    no(printable(&format!("{error} {error_description}"), SHOWN_CHARACTERS))
                }
                Err(_) => no(printable(&error.to_string(), SHOWN_CHARACTERS)),
            })?;
        let holds = granted.expires_in.map_or(HOLDS, Duration::from_secs).min(HOLDS * 12);
        self.keep(whose, &granted.access_token, Instant::now() + holds.saturating_sub(BEFORE_END));
        Ok(granted.access_token)
    }

    /// The token that is kept for an access.
    pub(crate) fn of(&self, access: &Access) -> Option<String> {
        self.kept(&whose(access)?)
    }

    fn kept(&self, whose: &Whose) -> Option<String> {
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        tokens.retain(|_, (_, until)| *until > now);
        tokens.get(whose).map(|(token, _)| token.clone())
    }

    fn keep(&self, whose: Whose, token: &str, until: Instant) {
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() < TOKENS_MAX {
            tokens.insert(whose, (token.to_owned(), until));
        }
    }
}
