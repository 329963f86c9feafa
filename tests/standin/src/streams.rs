//! What is served beside the API: log sessions and the output of release commands.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::stream;

use crate::logs::{Line, Session};
use crate::platform::Status;
use crate::world::World;

pub fn routes() -> Router<Arc<World>> {
    Router::new()
        .route("/logplex/sessions/{id}", get(session))
        .route("/streams/{shard}/{app}/logs/{file}", get(release_output))
}

/// The log of one session: server-sent events for those who ask for them, else text. With `tail` it does not end; after a broken
/// connection `Last-Event-ID` takes it up where it was.
async fn session(State(world): State<Arc<World>>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let Some(session) = world.lock().sessions.get(&id).cloned() else { return StatusCode::NOT_FOUND.into_response() };
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let events = text("accept").is_some_and(|accept| accept.contains("text/event-stream"));
    let resumed = text("last-event-id").and_then(|id| id.parse::<u64>().ok());
    let (lines, seen, cuts) = {
        let inner = world.lock();
        let lines = match resumed {
            Some(id) => inner.logs.after(&session, id),
            None => inner.logs.history(&session),
        };
        (lines, inner.logs.last(), inner.logs.cuts)
    };
    let first = render(&lines, events);
    let kind = if events { "text/event-stream" } else { "text/plain; charset=utf-8" };
    let body = if session.tail { tail(world, session, first, (seen, cuts), events) } else { Body::from(first) };
    ([(header::CONTENT_TYPE, kind)], body).into_response()
}

/// Goes on after the line `seen`, until the stream is cut: until there were more than `cuts` of that.
fn tail(world: Arc<World>, session: Session, first: String, (seen, cuts): (u64, u64), events: bool) -> Body {
    let changes = world.subscribe();
    let start = (world, changes, Some(first), seen);
    Body::from_stream(stream::unfold(start, move |(world, mut changes, mut pending, mut seen)| {
        let session = session.clone();
        async move {
            loop {
                if let Some(text) = pending.take().filter(|text| !text.is_empty()) {
                    return Some((Ok(Bytes::from(text)), (world, changes, None, seen)));
                }
                if world.lock().logs.cuts > cuts {
                    return Some((Err(io::Error::other("cut")), (world, changes, None, seen)));
                }
                changes.changed().await.ok()?;
                let inner = world.lock();
                let lines = inner.logs.after(&session, seen);
                seen = inner.logs.last();
                drop(inner);
                pending = Some(render(&lines, events));
            }
        }
    }))
}

fn render(lines: &[Line], events: bool) -> String {
    let line = |line: &Line| {
        if events { format!("id: {}\ndata: {}\n\n", line.id, line.render()) } else { format!("{}\n", line.render()) }
    };
    lines.iter().map(line).collect()
}

/// What a release command printed, from the byte that a `Range` header names; it ends with the command.
async fn release_output(
    State(world): State<Arc<World>>,
    Path((_, app, file)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Response {
    let id = file.strip_suffix(".log").unwrap_or(&file);
    let found = world.lock().platform.releases.iter().find(|release| release.id == id).map(|release| release.version);
    let Some(version) = found.filter(|_| app == world.identity.app_id) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let from = headers
        .get(header::RANGE)
        .and_then(|range| range.to_str().ok()?.strip_prefix("bytes=")?.split('-').next()?.parse().ok());
    let changes = world.subscribe();
    let start = (world, changes, from.unwrap_or(0usize));
    let body = Body::from_stream(stream::unfold(start, move |(world, mut changes, sent)| async move {
        loop {
            let (output, over) = {
                let inner = world.lock();
                let over = inner.platform.release(version).is_none_or(|release| release.status != Status::Pending);
                (inner.release_output.get(&version).cloned().unwrap_or_default(), over)
            };
            if let Some(new) = output.as_bytes().get(sent..).filter(|new| !new.is_empty()) {
                let sent = output.len();
                return Some((Ok::<_, Infallible>(Bytes::copy_from_slice(new)), (world, changes, sent)));
            }
            if over {
                return None;
            }
            changes.changed().await.ok()?;
        }
    }));
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response()
}
