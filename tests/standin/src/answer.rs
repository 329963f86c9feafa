//! Answers in the API's form, and answers spoilt on their way out.

use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt, stream};
use serde::Serialize;
use serde_json::json;

/// Why the API refuses: its status, error id and message.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub status: u16,
    pub id: String,
    pub message: String,
}

impl Refusal {
    pub fn new(status: u16, id: &str, message: &str) -> Self {
        Self { status, id: id.to_owned(), message: message.to_owned() }
    }

    pub fn not_found(what: &str) -> Self {
        Self::new(404, "not_found", &format!("Couldn't find that {what}."))
    }

    pub fn invalid(message: &str) -> Self {
        Self::new(422, "invalid_params", message)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        pretty(status(self.status), &json!({"id": self.id, "message": self.message}))
    }
}

pub fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// JSON over several lines, as Heroku prints it.
pub fn pretty(status: StatusCode, value: &impl Serialize) -> Response {
    let body = serde_json::to_vec_pretty(value).unwrap_or_default();
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

pub fn etag(body: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    format!("\"{:016x}\"", hasher.finish())
}

/// What becomes of a body whose head has promised all of it.
#[derive(Debug, Clone, Copy)]
pub enum Spoil {
    Cut,
    Stall,
    Drip(Duration),
}

/// Sends `body` under a head that promises its whole length, and spoils it on the way.
pub fn spoil(response: Response, body: Bytes, how: Spoil) -> Response {
    let (mut head, _) = response.into_parts();
    head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    let half = body.slice(..body.len() / 2);
    let body = match how {
        Spoil::Cut => Body::from_stream(stream::iter([Ok(half)]).chain(broken())),
        Spoil::Stall => Body::from_stream(stream::iter([Ok::<_, Infallible>(half)]).chain(stream::pending())),
        Spoil::Drip(pause) => Body::from_stream(drip(body, pause)),
    };
    Response::from_parts(head, body)
}

/// One pause, in which what was sent before is flushed, then a broken connection.
fn broken() -> impl Stream<Item = Result<Bytes, std::io::Error>> {
    stream::once(async {
        tokio::task::yield_now().await;
        Err(std::io::ErrorKind::ConnectionAborted.into())
    })
}

fn drip(body: Bytes, pause: Duration) -> impl Stream<Item = Result<Bytes, Infallible>> {
    stream::unfold(body, move |mut rest| async move {
        if rest.is_empty() {
            return None;
        }
        tokio::time::sleep(pause).await;
        let byte = rest.split_to(1);
        Some((Ok(byte), rest))
    })
}

/// Ends a stream after `limit`.
pub fn close_after(response: Response, limit: Duration) -> Response {
    let (head, body) = response.into_parts();
    let stream = body.into_data_stream().take_until(Box::pin(tokio::time::sleep(limit)));
    Response::from_parts(head, Body::from_stream(stream))
}
