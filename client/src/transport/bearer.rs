//! Tokens: where they come from, and the one in use.
//!
//! A token is asked for when first needed, kept until a server refuses it, and never shown by
//! `Debug`.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use lakesync::error::{ErrorKind, Reason};
use lakesync::status::Problem;
use tonic::metadata::{Ascii, MetadataValue};

type Source = dyn Fn() -> BoxFuture<'static, Result<String, TokenError>> + Send + Sync;

/// Where bearer tokens come from: a fixed text, or a function that fetches one.
#[derive(Clone)]
pub struct Token(Arc<Source>);

/// No token could be obtained.
#[derive(Debug, thiserror::Error)]
#[error("no token could be obtained: {0}")]
pub struct TokenError(#[from] pub Box<dyn Error + Send + Sync>);

impl Token {
    /// Asks `source` for a token when one is needed, and again once a server has refused it.
    pub fn from_fn<F, Fut>(source: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<String, TokenError>> + Send + 'static,
    {
        Self(Arc::new(move || source().boxed()))
    }
}

impl From<&str> for Token {
    fn from(text: &str) -> Self {
        Self::from(text.to_owned())
    }
}

impl From<String> for Token {
    fn from(text: String) -> Self {
        Self::from_fn(move || std::future::ready(Ok(text.clone())))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

/// The value of the `authorization` header.
pub(super) type Bearer = MetadataValue<Ascii>;

/// The token in use.
#[derive(Debug)]
pub(super) struct Bearers {
    source: Option<Token>,
    current: Mutex<Option<Bearer>>,
}

impl Bearers {
    pub(super) fn new(source: Option<Token>) -> Self {
        Self { source, current: Mutex::new(None) }
    }

    /// The token in use, fetched if there is none yet; `None` for a caller without tokens.
    pub(super) async fn get(&self) -> Result<Option<Bearer>, Problem> {
        let Some(source) = &self.source else { return Ok(None) };
        if let Some(bearer) = self.lock().clone() {
            return Ok(Some(bearer));
        }
        // Two calls may both fetch one here. The later token stays; both are good.
        let text = (source.0)().await.map_err(|error| unobtainable(&error))?;
        let bearer = header(&text)?;
        *self.lock() = Some(bearer.clone());
        Ok(Some(bearer))
    }

    /// Forgets `refused`, so that the next call fetches another.
    pub(super) fn refuse(&self, refused: Option<&Bearer>) {
        let mut current = self.lock();
        if current.as_ref() == refused {
            *current = None;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Bearer>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn header(text: &str) -> Result<Bearer, Problem> {
    let value = format!("Bearer {}", text.trim());
    let mut bearer = Bearer::try_from(value).map_err(|_| Problem {
        kind: ErrorKind::Unauthenticated,
        reason: Some(Reason::TokenInvalid),
        message: "the token holds characters that no header can carry".to_owned(),
        retry_after: None,
        facts: BTreeMap::new(),
    })?;
    bearer.set_sensitive(true);
    Ok(bearer)
}

/// The source may be a server that is away: worth another try, unlike a refused token.
fn unobtainable(error: &TokenError) -> Problem {
    let (kind, message) = (ErrorKind::Unavailable, error.to_string());
    Problem { kind, reason: None, message, retry_after: None, facts: BTreeMap::new() }
}
