//! The control API under `/_standin/`: what the methods of [`crate::Standin`] do, over HTTP and without authorization. The crate's
//! documentation lists it.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::answer::{Refusal, pretty};
use crate::faults::{Access, AilmentRule, Rule};
use crate::platform::{Status, Target};
use crate::views;
use crate::world::{Inner, Pool, Skew, World};
use crate::{Deploy, actions};

type Shared = State<Arc<World>>;
type Answer = Result<Response, Refusal>;

pub fn routes() -> Router<Arc<World>> {
    let control = Router::new()
        .route("/", get(about))
        .route("/journal", get(journal))
        .route("/notes", post(note))
        .route("/dynos", get(dynos))
        .route("/dynos/{name}/crash", post(crash))
        .route("/faults", get(faults).post(add_fault).delete(clear_faults))
        .route("/faults/{id}", delete(remove_fault))
        .route("/ailments", get(ailments).put(set_ailments))
        .route("/settings", get(settings).patch(set))
        .route("/scale", post(scale))
        .route("/restart", post(restart))
        .route("/cycle", post(cycle))
        .route("/preboot-window/close", post(close_preboot_window))
        .route("/deploys", post(deploy))
        .route("/addon-releases", post(addon_release))
        .route("/releases/{version}/finish", post(finish_release))
        .route("/logs", post(log));
    Router::new().nest("/_standin", control)
}

async fn about(State(world): Shared) -> Response {
    let identity = &world.identity;
    pretty(
        StatusCode::OK,
        &json!({"url": identity.url, "router_url": identity.router_url, "app": identity.app, "app_id": identity.app_id}),
    )
}

#[derive(Deserialize)]
struct After {
    #[serde(default)]
    after: u64,
}

async fn journal(State(world): Shared, Query(After { after }): Query<After>) -> Response {
    pretty(StatusCode::OK, &world.entries(after))
}

#[derive(Deserialize)]
struct Note {
    text: String,
}

async fn note(State(world): Shared, Json(note): Json<Note>) -> Response {
    pretty(StatusCode::CREATED, &json!({"seq": world.note(&note.text)}))
}

async fn dynos(State(world): Shared) -> Response {
    pretty(StatusCode::OK, &views::boots(&world.lock()))
}

async fn crash(State(world): Shared, Path(name): Path<String>) -> Answer {
    if actions::crash(&world, &name) { Ok(done()) } else { Err(Refusal::not_found("dyno")) }
}

async fn faults(State(world): Shared) -> Response {
    pretty(StatusCode::OK, &world.lock().rules.list())
}

async fn add_fault(State(world): Shared, Json(rule): Json<Rule>) -> Response {
    pretty(StatusCode::CREATED, &json!({"id": actions::add_fault(&world, rule)}))
}

async fn clear_faults(State(world): Shared) -> Response {
    world.lock().rules.clear();
    done()
}

async fn remove_fault(State(world): Shared, Path(id): Path<u64>) -> Answer {
    if world.lock().rules.remove(id) { Ok(done()) } else { Err(Refusal::not_found("fault")) }
}

async fn ailments(State(world): Shared) -> Response {
    pretty(StatusCode::OK, &world.lock().platform.ailments)
}

async fn set_ailments(State(world): Shared, Json(rules): Json<Vec<AilmentRule>>) -> Response {
    world.lock().platform.ailments = rules;
    done()
}

/// What can be switched while it runs. What is left out stays as it is.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    access: Option<Access>,
    pool: Option<Pool>,
    skew: Option<Skew>,
    page_size: Option<usize>,
    preboot: Option<bool>,
    rolling: Option<bool>,
    spare_one_offs: Option<bool>,
    maintenance: Option<bool>,
    log_disorder: Option<bool>,
}

async fn settings(State(world): Shared) -> Response {
    pretty(StatusCode::OK, &shown(&mut world.lock()))
}

async fn set(State(world): Shared, Json(settings): Json<Settings>) -> Response {
    world.update(|inner| {
        inner.access = settings.access.unwrap_or(inner.access);
        if let Some(pool) = settings.pool {
            inner.set_pool(pool);
        }
        inner.skew = settings.skew.unwrap_or(inner.skew);
        inner.page_size = settings.page_size.unwrap_or(inner.page_size);
        inner.maintenance = settings.maintenance.unwrap_or(inner.maintenance);
        inner.logs.disorder = settings.log_disorder.unwrap_or(inner.logs.disorder);
        let platform = &mut inner.platform;
        platform.preboot = settings.preboot.unwrap_or(platform.preboot);
        platform.rolling = settings.rolling.unwrap_or(platform.rolling);
        platform.spare_one_offs = settings.spare_one_offs.unwrap_or(platform.spare_one_offs);
        pretty(StatusCode::OK, &shown(inner))
    })
}

fn shown(inner: &mut Inner) -> Value {
    json!({
        "access": inner.access, "pool": {"remaining": inner.remaining(), "refill_ms": inner.pool.refill_ms}, "skew": inner.skew,
        "page_size": inner.page_size, "preboot": inner.platform.preboot, "rolling": inner.platform.rolling,
        "spare_one_offs": inner.platform.spare_one_offs, "maintenance": inner.maintenance, "log_disorder": inner.logs.disorder,
    })
}

async fn scale(State(world): Shared, Json(quantities): Json<BTreeMap<String, u64>>) -> Answer {
    for (kind, quantity) in quantities {
        if !world.update(|inner| inner.platform.scale(&kind, quantity, None)) {
            return Err(Refusal::not_found("process type"));
        }
    }
    Ok(done())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OneDyno {
    dyno: String,
}

async fn cycle(State(world): Shared, Json(OneDyno { dyno }): Json<OneDyno>) -> Answer {
    let found = world.update(|inner| inner.platform.cycle(&dyno));
    if found { Ok(done()) } else { Err(Refusal::not_found("dyno")) }
}

async fn close_preboot_window(State(world): Shared) -> Response {
    world.update(|inner| inner.platform.flip());
    done()
}

async fn restart(State(world): Shared, Json(OneDyno { dyno }): Json<OneDyno>) -> Answer {
    let found = world.update(|inner| inner.platform.restart(&Target::Name(dyno), usize::MAX));
    if found { Ok(done()) } else { Err(Refusal::not_found("dyno")) }
}

async fn deploy(State(world): Shared, Json(deploy): Json<Deploy>) -> Answer {
    let version = actions::deploy(&world, deploy).map_err(|error| Refusal::invalid(&format!("{error:#}")))?;
    Ok(pretty(StatusCode::CREATED, &json!({"version": version})))
}

#[derive(Deserialize)]
struct AddonRelease {
    description: String,
    #[serde(default)]
    config: BTreeMap<String, String>,
}

async fn addon_release(State(world): Shared, Json(release): Json<AddonRelease>) -> Response {
    let version = world.update(|inner| inner.platform.addon_release(release.description, release.config));
    pretty(StatusCode::CREATED, &json!({"version": version}))
}

#[derive(Deserialize)]
struct Finish {
    status: Status,
}

async fn finish_release(
    State(world): Shared,
    Path(version): Path<u64>,
    Json(Finish { status }): Json<Finish>,
) -> Answer {
    let pending = world.update(|inner| inner.platform.finish_release(version, status));
    if pending { Ok(done()) } else { Err(Refusal::not_found("pending release")) }
}

#[derive(Deserialize)]
struct LogLine {
    source: String,
    process: String,
    text: String,
}

async fn log(State(world): Shared, Json(line): Json<LogLine>) -> Response {
    world.lock().logs.push(&line.source, &line.process, &line.text, Timestamp::now());
    world.tell();
    done()
}

fn done() -> Response {
    StatusCode::NO_CONTENT.into_response()
}
