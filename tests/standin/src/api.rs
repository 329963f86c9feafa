//! The Platform API's endpoints: what is asked is translated to the machine's words, what it says to JSON.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Extension, Router};
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::answer::{Refusal, pretty};
use crate::front::Limit;
use crate::logs::Session;
use crate::paging::page;
use crate::platform::{Generation, Own, Release, Target};
use crate::views::{self, Variant};
use crate::world::{Inner, World};

type Shared = State<Arc<World>>;
type Answer = Result<Response, Refusal>;

pub fn routes(world: &Arc<World>) -> Router<Arc<World>> {
    let app = Router::new()
        .route("/", get(app).patch(change_app))
        .route("/dynos", get(dynos).post(run).delete(restart_all))
        .route("/dynos/{dyno}", get(dyno).delete(restart_dyno))
        .route("/dynos/{dyno}/actions/stop", post(stop_dyno))
        .route("/formations/{type}", delete(restart_type))
        .route("/formations/{type}/actions/stop", post(stop_type))
        .route("/formation", get(formations).patch(scale))
        .route("/formation/{type}", get(formation).patch(scale_type))
        .route("/releases", get(releases).post(rollback))
        .route("/releases/{release}", get(release))
        .route("/releases/{release}/config-vars", get(release_config))
        .route("/config-vars", get(config).patch(configure))
        .route("/features", get(features))
        .route("/features/{feature}", get(feature).patch(change_feature))
        .route("/slugs/{slug}", get(slug))
        .route("/log-sessions", post(log_session))
        // `heroku apps:info` asks for these; the app has none.
        .route("/addons", get(nothing))
        .route("/collaborators", get(nothing));
    Router::new()
        .route("/account", get(account))
        .route("/account/rate-limits", get(rate_limits))
        // `heroku auth:token` asks for the authorizations and prints the token that it has.
        .route("/oauth/authorizations", get(nothing))
        .nest("/apps/{app}", app.route_layer(from_fn_with_state(world.clone(), known_app)))
        .fallback(async || Refusal::not_found("resource"))
}

/// 404 for any app but ours, by name or uuid.
async fn known_app(
    State(world): Shared,
    Path(path): Path<BTreeMap<String, String>>,
    request: Request,
    next: Next,
) -> Answer {
    let app = path.get("app").map(String::as_str).unwrap_or_default();
    if app != world.identity.app && app != world.identity.app_id {
        return Err(Refusal::not_found("app"));
    }
    Ok(next.run(request).await)
}

async fn nothing() -> Response {
    pretty(StatusCode::OK, &json!([]))
}

async fn account(State(world): Shared) -> Response {
    pretty(StatusCode::OK, &views::account(&world.identity, &world.lock()))
}

async fn rate_limits(State(world): Shared) -> Response {
    pretty(StatusCode::OK, &json!({"remaining": world.lock().remaining()}))
}

async fn app(State(world): Shared, headers: HeaderMap) -> Response {
    pretty(StatusCode::OK, &views::app(&world.identity, &world.lock(), variant(&headers)))
}

fn variant(headers: &HeaderMap) -> Variant {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accept.contains("version=3.sdk") { Variant::ThreeSdk } else { Variant::Three }
}

#[derive(Deserialize)]
struct AppChange {
    maintenance: Option<bool>,
}

async fn change_app(State(world): Shared, headers: HeaderMap, body: Bytes) -> Answer {
    let change: AppChange = read(&body)?;
    Ok(world.update(|inner| {
        inner.maintenance = change.maintenance.unwrap_or(inner.maintenance);
        pretty(StatusCode::OK, &views::app(&world.identity, inner, variant(&headers)))
    }))
}

// ---- dynos

async fn dynos(State(world): Shared, headers: HeaderMap) -> Answer {
    let inner = world.lock();
    list(views::dynos(&world.identity, &inner), &headers, "name", inner.page_size)
}

async fn dyno(State(world): Shared, Path((_, dyno)): Path<(String, String)>) -> Answer {
    let inner = world.lock();
    let found = inner.platform.listed().into_iter().find(|entry| entry.name == dyno || entry.id == dyno);
    let found = found.ok_or_else(|| Refusal::not_found("dyno"))?;
    Ok(pretty(StatusCode::OK, &views::dyno(&world.identity, &inner, found)))
}

#[derive(Deserialize)]
struct Run {
    command: Option<String>,
    #[serde(default)]
    attach: bool,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    time_to_live: Option<u64>,
}

const DAY_S: u64 = 86400;

async fn run(State(world): Shared, body: Bytes) -> Answer {
    let run: Run = read(&body)?;
    let command =
        run.command.filter(|command| !command.is_empty()).ok_or_else(|| Refusal::invalid("command is required"))?;
    let ttl = run.time_to_live.unwrap_or(DAY_S);
    if ttl > DAY_S {
        return Err(Refusal::invalid("time_to_live must be at most 86400"));
    }
    world.update(|inner| {
        let kind = run.kind.as_deref().unwrap_or("run");
        let own = Own { env: run.env, attach: run.attach };
        let id = inner.platform.run(&command, kind, own, Some(Duration::from_secs(ttl)));
        let made = inner.platform.dynos.iter().find(|dyno| dyno.id == id).ok_or_else(|| Refusal::not_found("dyno"))?;
        let mut made = views::dyno(&world.identity, inner, made);
        if run.attach {
            made["attach_url"] = json!(world.rendezvous.url(&id));
        }
        Ok(pretty(StatusCode::CREATED, &made))
    })
}

async fn restart_all(State(world): Shared, limit: Option<Extension<Limit>>) -> Answer {
    restart(&world, &Target::All, limit, "app")
}

async fn restart_type(
    State(world): Shared,
    Path((_, kind)): Path<(String, String)>,
    limit: Option<Extension<Limit>>,
) -> Answer {
    restart(&world, &Target::Type(kind), limit, "process type")
}

async fn restart_dyno(
    State(world): Shared,
    Path((_, dyno)): Path<(String, String)>,
    limit: Option<Extension<Limit>>,
) -> Answer {
    let Some(target) = one_dyno(&world.lock(), dyno) else { return Ok(accepted()) };
    restart(&world, &target, limit, "dyno")
}

async fn stop_type(
    State(world): Shared,
    Path((_, kind)): Path<(String, String)>,
    limit: Option<Extension<Limit>>,
) -> Answer {
    stop(&world, &Target::Type(kind), limit, "process type")
}

async fn stop_dyno(
    State(world): Shared,
    Path((_, dyno)): Path<(String, String)>,
    limit: Option<Extension<Limit>>,
) -> Answer {
    let Some(target) = one_dyno(&world.lock(), dyno) else { return Ok(accepted()) };
    stop(&world, &target, limit, "dyno")
}

/// What the last part of `/dynos/{dyno}` means. A uuid means nothing: it is accepted and nothing happens, as people have seen.
fn one_dyno(inner: &Inner, dyno: String) -> Option<Target> {
    if inner.platform.dynos.iter().any(|entry| entry.id == dyno) {
        return None;
    }
    let is_type = inner.platform.formation.contains_key(&dyno);
    Some(if is_type && inner.platform.generation == Generation::Cedar {
        Target::Type(dyno)
    } else {
        Target::Name(dyno)
    })
}

fn restart(world: &Arc<World>, target: &Target, limit: Option<Extension<Limit>>, what: &str) -> Answer {
    let limit = limit.map_or(usize::MAX, |limit| limit.0.0);
    let found = world.update(|inner| inner.platform.restart(target, limit));
    if found { Ok(accepted()) } else { Err(Refusal::not_found(what)) }
}

fn stop(world: &Arc<World>, target: &Target, limit: Option<Extension<Limit>>, what: &str) -> Answer {
    let limit = limit.map_or(usize::MAX, |limit| limit.0.0);
    let found = world.update(|inner| inner.platform.stop(target, limit));
    if found { Ok(accepted()) } else { Err(Refusal::not_found(what)) }
}

fn accepted() -> Response {
    pretty(StatusCode::ACCEPTED, &json!({}))
}

// ---- formation

async fn formations(State(world): Shared, headers: HeaderMap) -> Answer {
    let inner = world.lock();
    list(views::formations(&world.identity, &inner), &headers, "type", inner.page_size)
}

async fn formation(State(world): Shared, Path((_, kind)): Path<(String, String)>) -> Answer {
    let inner = world.lock();
    let found = inner.platform.formation.get(&kind).ok_or_else(|| Refusal::not_found("process type"))?;
    Ok(pretty(StatusCode::OK, &views::formation(&world.identity, &inner, found)))
}

#[derive(Deserialize)]
struct Updates {
    updates: Vec<Update>,
}

#[derive(Deserialize)]
struct Update {
    #[serde(rename = "type")]
    kind: Option<String>,
    /// A number; the CLI sends it as text.
    quantity: Option<Value>,
    dyno_size: Option<Value>,
}

async fn scale(State(world): Shared, body: Bytes) -> Answer {
    let updates: Updates = read(&body)?;
    world.update(|inner| {
        let changed: Result<Vec<Value>, Refusal> =
            updates.updates.into_iter().map(|update| scale_one(&world, inner, update)).collect();
        Ok(pretty(StatusCode::OK, &changed?))
    })
}

async fn scale_type(State(world): Shared, Path((_, kind)): Path<(String, String)>, body: Bytes) -> Answer {
    let update = Update { kind: Some(kind), ..read(&body)? };
    world.update(|inner| Ok(pretty(StatusCode::OK, &scale_one(&world, inner, update)?)))
}

fn scale_one(world: &World, inner: &mut Inner, update: Update) -> Result<Value, Refusal> {
    let kind = update.kind.unwrap_or_default();
    let before = inner.platform.formation.get(&kind).map_or(0, |formation| formation.quantity);
    let quantity = match update.quantity {
        None => before,
        Some(Value::String(text)) => text.parse().map_err(|_| Refusal::invalid("quantity must be a number"))?,
        Some(number) => number.as_u64().ok_or_else(|| Refusal::invalid("quantity must be a number"))?,
    };
    let size = update.dyno_size.map(|size| size.get("name").unwrap_or(&size).as_str().unwrap_or_default().to_owned());
    if !inner.platform.scale(&kind, quantity, size.as_deref()) {
        return Err(Refusal::not_found("process type"));
    }
    Ok(views::formation(&world.identity, inner, &inner.platform.formation[&kind]))
}

// ---- releases, config vars, slugs

async fn releases(State(world): Shared, headers: HeaderMap) -> Answer {
    let inner = world.lock();
    list(views::releases(&world.identity, &inner), &headers, "version", inner.page_size)
}

async fn release(State(world): Shared, Path((_, release)): Path<(String, String)>) -> Answer {
    let inner = world.lock();
    let found = find_release(&inner, &release)?;
    Ok(pretty(StatusCode::OK, &views::release(&world.identity, &inner, found)))
}

async fn release_config(State(world): Shared, Path((_, release)): Path<(String, String)>) -> Answer {
    Ok(pretty(StatusCode::OK, &find_release(&world.lock(), &release)?.config))
}

fn find_release<'a>(inner: &'a Inner, wanted: &str) -> Result<&'a Release, Refusal> {
    let fits = |release: &&Release| release.id == wanted || release.version.to_string() == wanted;
    inner.platform.releases.iter().find(fits).ok_or_else(|| Refusal::not_found("release"))
}

#[derive(Deserialize)]
struct Rollback {
    release: String,
}

async fn rollback(State(world): Shared, body: Bytes) -> Answer {
    let Rollback { release } = read(&body)?;
    world.update(|inner| {
        let version = inner.platform.rollback(&release).ok_or_else(|| Refusal::not_found("release"))?;
        let made = inner.platform.release(version).ok_or_else(|| Refusal::not_found("release"))?;
        Ok(pretty(StatusCode::CREATED, &views::release(&world.identity, inner, made)))
    })
}

async fn config(State(world): Shared) -> Response {
    pretty(StatusCode::OK, &world.lock().platform.config())
}

async fn configure(State(world): Shared, body: Bytes) -> Answer {
    let changes: BTreeMap<String, Option<String>> = read(&body)?;
    Ok(world.update(|inner| {
        inner.platform.configure(changes);
        pretty(StatusCode::OK, &inner.platform.config())
    }))
}

async fn slug(State(world): Shared, Path((_, slug)): Path<(String, String)>) -> Answer {
    let inner = world.lock();
    let found = inner.platform.releases.iter().find(|release| release.slug.id == slug);
    let found = found.ok_or_else(|| Refusal::not_found("slug"))?;
    Ok(pretty(StatusCode::OK, &views::slug(&inner, &found.slug)))
}

// ---- features

async fn features(State(world): Shared, headers: HeaderMap) -> Answer {
    let inner = world.lock();
    let features =
        vec![views::preboot(&world.identity, &inner), views::metadata(&world.identity, &inner, world.metadata)];
    list(features, &headers, "name", inner.page_size)
}

async fn feature(State(world): Shared, Path((_, feature)): Path<(String, String)>) -> Answer {
    let inner = world.lock();
    let found = match feature.as_str() {
        "preboot" => views::preboot(&world.identity, &inner),
        "runtime-dyno-metadata" => views::metadata(&world.identity, &inner, world.metadata),
        _ => return Err(Refusal::not_found("feature")),
    };
    Ok(pretty(StatusCode::OK, &found))
}

#[derive(Deserialize)]
struct FeatureChange {
    enabled: bool,
}

async fn change_feature(State(world): Shared, Path((_, feature)): Path<(String, String)>, body: Bytes) -> Answer {
    only_preboot(&feature)?;
    let FeatureChange { enabled } = read(&body)?;
    Ok(world.update(|inner| {
        inner.platform.preboot = enabled;
        pretty(StatusCode::OK, &views::preboot(&world.identity, inner))
    }))
}

fn only_preboot(feature: &str) -> Result<(), Refusal> {
    if feature == "preboot" { Ok(()) } else { Err(Refusal::not_found("feature")) }
}

// ---- logs

async fn log_session(State(world): Shared, body: Bytes) -> Answer {
    let mut session: Session = read(&body)?;
    Ok(world.update(|inner| {
        // Fir keeps no history: a session there is always a live stream.
        if inner.platform.generation == Generation::Fir {
            (session.lines, session.tail) = (Some(0), true);
        }
        let id = inner.platform.next_id();
        let url = format!("{}/logplex/sessions/{id}", world.identity.url);
        inner.sessions.insert(id.clone(), session);
        pretty(StatusCode::CREATED, &views::log_session(inner, &id, &url, Timestamp::now()))
    }))
}

// ---- helpers

/// Reads a JSON body; no body is an empty object.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body)
        .map_err(|error| Refusal::new(400, "bad_request", &format!("Unable to parse the body: {error}")))
}

/// One page of a list, with its headers.
fn list(items: Vec<Value>, headers: &HeaderMap, property: &str, page_size: usize) -> Answer {
    let range = headers.get(header::RANGE).and_then(|range| range.to_str().ok());
    let refused = || Refusal::new(416, "requested_range_not_satisfiable", "The Range header cannot be satisfied.");
    let page = page(items, range, property, page_size).ok_or_else(refused)?;
    let status = if page.next_range.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let mut response = pretty(status, &page.items);
    let extra = [
        (header::ACCEPT_RANGES, Some(format!("id, {property}"))),
        (header::CONTENT_RANGE, Some(page.content_range)),
        (HeaderName::from_static("next-range"), page.next_range),
    ];
    for (name, value) in extra {
        if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
            response.headers_mut().insert(name, value);
        }
    }
    Ok(response.into_response())
}
