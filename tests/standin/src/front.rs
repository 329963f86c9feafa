//! Every request passes here: it is recorded, admitted or refused, meets its fault, and its answer gets the headers that the
//! platform's answers have.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use serde_json::json;

use crate::answer::{Refusal, Spoil, close_after, etag, pretty, spoil, status};
use crate::faults::{Access, Act, Reply, Rule};
use crate::journal::Fact;
use crate::line::Line;
use crate::world::World;

/// How many of the dynos that a request means are to be touched; in the request's extensions.
#[derive(Debug, Clone, Copy)]
pub struct Limit(pub usize);

/// The largest answer that is held in memory to be spoilt.
const BODY_BYTES: usize = 64 << 20;

pub async fn front(
    State(world): State<Arc<World>>,
    ConnectInfo(line): ConnectInfo<Line>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path().to_owned();
    if path == "/_standin" || path.starts_with("/_standin/") {
        return next.run(request).await;
    }
    let method = request.method().clone();
    let headers = request.headers().clone();
    let (seq, rule) = arrive(&world, &method, &path);
    let api = !path.starts_with("/streams/") && !path.starts_with("/logplex/");
    let refusal = if api { refuse(&world, &method, &path, &headers) } else { None };
    let (mut response, acted) = match refusal {
        Some(refusal) => (refusal.into_response(), false),
        None => act(&world, &method, rule.act, request, next).await,
    };
    response = substitute(&world, &path, &rule, response);
    let mut code = response.status();
    if api {
        response = dress(&world, &headers, response).await;
        code = response.status();
    }
    for (name, value) in &rule.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    // What a broken connection swallows was still done.
    world.lock().journal.answered(seq, code.as_u16(), acted);
    world.tell();
    tokio::time::sleep(Duration::from_millis(rule.delay_ms)).await;
    deliver(&line, &rule.reply, response).await
}

fn arrive(world: &World, method: &Method, path: &str) -> (u64, Rule) {
    let mut inner = world.lock();
    let fact = Fact::Request { method: method.to_string(), path: path.to_owned(), status: None, acted: false };
    let seq = inner.journal.record(fact);
    let rule = inner.rules.meet(method.as_str(), path).unwrap_or_default();
    (seq, rule)
}

/// What the platform checks before it looks at a request itself.
fn refuse(world: &World, method: &Method, path: &str, headers: &HeaderMap) -> Option<Refusal> {
    let mut inner = world.lock();
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let accept = text(header::ACCEPT);
    if !accept.contains("application/vnd.heroku+json") || !accept.contains("version=3") {
        let message = "The Accept header must be set to application/vnd.heroku+json; version=3.";
        return Some(Refusal::new(406, "not_acceptable", message));
    }
    let known = authorized(text(header::AUTHORIZATION), &world.identity.token);
    let refusal = match inner.access {
        _ if !known => Some((401, "unauthorized", "Invalid credentials provided.")),
        Access::Revoked => Some((401, "unauthorized", "Invalid credentials provided.")),
        Access::TwoFactor => {
            Some((403, "two_factor", "A second authentication factor or pre-authorization is required."))
        }
        Access::Suspended => Some((403, "suspended", "Your account has been suspended.")),
        Access::Delinquent => Some((402, "delinquent", "There is an issue with this account's payment.")),
        Access::ReadOnly if *method != Method::GET => {
            Some((403, "forbidden", "You do not have access to the requested resource."))
        }
        Access::ReadOnly | Access::Full => None,
    };
    if let Some((status, id, message)) = refusal {
        return Some(Refusal::new(status, id, message));
    }
    if path != "/account/rate-limits" && !inner.spend() {
        let message = "Your account reached the API rate limit\nPlease wait a few minutes before making new requests";
        return Some(Refusal::new(429, "rate_limit", message));
    }
    None
}

fn authorized(given: &str, token: &str) -> bool {
    match given.split_once(' ') {
        Some(("Bearer", given)) => given == token,
        Some(("Basic", given)) => basic_password(given).is_some_and(|given| given == token),
        _ => false,
    }
}

/// The password in the credentials of Basic authorization.
fn basic_password(credentials: &str) -> Option<String> {
    let decoded = String::from_utf8(BASE64_STANDARD.decode(credentials).ok()?).ok()?;
    decoded.split_once(':').map(|(_, password)| password.to_owned())
}

/// Lets the request take effect as the fault has it. Also says whether a write does.
async fn act(world: &Arc<World>, method: &Method, act: Act, mut request: Request, next: Next) -> (Response, bool) {
    let write = *method != Method::GET && *method != Method::HEAD;
    let accepted = || pretty(StatusCode::ACCEPTED, &json!({}));
    match act {
        Act::None if write => (accepted(), false),
        Act::Late(ms) if write => {
            // The body has to be read while the client is there.
            let (head, body) = request.into_parts();
            let body = to_bytes(body, BODY_BYTES).await.unwrap_or_default();
            world.spawn(async move {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                next.run(Request::from_parts(head, Body::from(body))).await;
            });
            (accepted(), true)
        }
        _ => {
            if let Act::Partial(limit) = act {
                request.extensions_mut().insert(Limit(limit));
            }
            let response = next.run(request).await;
            let acted = write && response.status().is_success();
            (response, acted)
        }
    }
}

/// Puts the fault's answer in the place of the right one.
fn substitute(world: &World, path: &str, rule: &Rule, response: Response) -> Response {
    match &rule.reply {
        Reply::Error { status, id, message } => Refusal::new(*status, id, message).into_response(),
        Reply::Raw { status: code, body } => {
            (status(*code), [(header::CONTENT_TYPE, "application/json")], body.clone()).into_response()
        }
        Reply::Json(value) => pretty(StatusCode::OK, value),
        Reply::Redirect { status: code, to } => (status(*code), [(header::LOCATION, to.clone())]).into_response(),
        Reply::Stale(seq) if path.ends_with("/dynos") && response.status().is_success() => {
            pretty(StatusCode::OK, &world.lock().dynos_at(seq.unwrap_or_default()))
        }
        _ => response,
    }
}

/// The headers of every answer, and 304 for what the client has already.
async fn dress(world: &World, request: &HeaderMap, response: Response) -> Response {
    let (mut head, body) = response.into_parts();
    let body = to_bytes(body, BODY_BYTES).await.unwrap_or_default();
    let tag = etag(&body);
    let unchanged = request.get(header::IF_NONE_MATCH).is_some_and(|known| known == tag.as_str());
    let (remaining, date, id) = {
        let mut inner = world.lock();
        (inner.remaining(), inner.skew.date(Timestamp::now()), inner.platform.next_id())
    };
    let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&date).unwrap_or_default();
    let headers = [
        (header::ETAG, tag),
        (header::DATE, date),
        (HeaderName::from_static("request-id"), id),
        (HeaderName::from_static("ratelimit-remaining"), remaining.to_string()),
        (HeaderName::from_static("ratelimit-multiplier"), "1".to_owned()),
    ];
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::try_from(value) {
            head.headers.insert(name, value);
        }
    }
    if unchanged && head.status.is_success() {
        head.status = StatusCode::NOT_MODIFIED;
        return Response::from_parts(head, Body::empty());
    }
    Response::from_parts(head, Body::from(body))
}

/// Hands the answer to the connection, or breaks it.
async fn deliver(line: &Line, reply: &Reply, response: Response) -> Response {
    match reply {
        Reply::Drop => line.close(),
        Reply::Reset => line.reset(),
        Reply::Stall => std::future::pending().await,
        Reply::CloseAfter(ms) => return close_after(response, Duration::from_millis(*ms)),
        Reply::Cut => return spoilt(response, Spoil::Cut).await,
        Reply::StallBody => return spoilt(response, Spoil::Stall).await,
        Reply::Drip(ms) => return spoilt(response, Spoil::Drip(Duration::from_millis(*ms))).await,
        _ => {}
    }
    response
}

async fn spoilt(response: Response, how: Spoil) -> Response {
    let (head, body) = response.into_parts();
    let body = to_bytes(body, BODY_BYTES).await.unwrap_or_default();
    spoil(Response::from_parts(head, Body::empty()), body, how)
}

#[cfg(test)]
mod tests {
    use super::authorized;

    #[test]
    fn the_token_comes_as_bearer_or_as_basic_password() {
        for given in ["Bearer tok", "Basic OnRvaw==", "Basic dTp0b2s="] {
            assert!(authorized(given, "tok"), "{given}");
        }
        for given in ["", "Bearer", "Bearer no", "Bearer undefined", "Basic OnRv", "Basic %%", "tok"] {
            assert!(!authorized(given, "tok"), "{given}");
        }
    }
}
