//! An answer of QRS as it came: for looking at the service itself, not for the work.
//!
//! Invariant: what is read of a body is bounded; a request is sent once.

use bytes::{Bytes, BytesMut};
use reqwest::{Method, header::DATE};

use super::{
    error::QrsError,
    http::{Http, Request},
};

/// How much of a body is read, bytes: lists are asked for by count or by filter.
const MOST: usize = 4 << 20;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raw {
    /// HTTP status.
    pub status: u16,
    /// The server's clock, as it wrote it (`Date`).
    pub date: Option<String>,
    /// The body, or its beginning.
    pub body: Bytes,
}

impl Http {
    /// Reads a path, whatever the status.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn look_at(&self, path: &str) -> Result<Raw, QrsError> {
        self.raw(&Request::get(path)).await
    }

    /// Changes something, or asks to, whatever the status.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn try_out(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Result<Raw, QrsError> {
        self.raw(&Request::act(method, path, body.into())).await
    }

    async fn raw(&self, request: &Request<'_>) -> Result<Raw, QrsError> {
        let mut response = self.call(request).await.map_err(|fault| fault.error)?;
        let status = response.status().as_u16();
        let date = response.headers().get(DATE).and_then(|date| date.to_str().ok()).map(str::to_owned);
        let mut body = BytesMut::new();
        while body.len() < MOST {
            match response.chunk().await {
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                // What came of an answer that broke off is all there is to see.
                Ok(None) | Err(_) => break,
            }
        }
        Ok(Raw { status, date, body: body.freeze() })
    }

    /// The body of an answer that is what was asked for.
    ///
    /// # Errors
    /// As for any call: a status that is no success, a web page.
    pub fn sound<'a>(&self, raw: &'a Raw) -> Result<&'a Bytes, QrsError> {
        match self.refusal(raw.status, &raw.body, true) {
            Some(error) => Err(error),
            None => Ok(&raw.body),
        }
    }
}
