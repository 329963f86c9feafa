//! The API's JSON, made from the state. No key that the official schema does not know.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::platform::{Dyno, Formation, Generation, OWNER, Place, Platform, Release, Slug, Status, one_off};
use crate::world::{Identity, Inner, Skew};

/// Whole seconds, as the API prints them.
fn stamp(skew: Skew, at: Timestamp) -> String {
    skew.stamp(at).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn app_ref(identity: &Identity) -> Value {
    json!({"id": identity.app_id, "name": identity.app})
}

pub fn account(identity: &Identity, inner: &Inner) -> Value {
    let created = stamp(inner.skew, identity.created_at);
    json!({
        "id": identity.owner_id, "email": OWNER, "name": null, "verified": true, "two_factor_authentication": true,
        "beta": false, "federated": false, "created_at": created, "updated_at": created,
    })
}

/// The two variants of the API that people use; they differ in little.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// `version=3`
    Three,
    /// `version=3.sdk`
    ThreeSdk,
}

pub fn app(identity: &Identity, inner: &Inner, variant: Variant) -> Value {
    let created = stamp(inner.skew, identity.created_at);
    let released = inner.platform.release(inner.platform.current).map(|release| stamp(inner.skew, release.updated_at));
    let generation = match variant {
        Variant::Three => json!({"id": identity.owner_id, "name": inner.platform.generation}),
        Variant::ThreeSdk => json!(inner.platform.generation),
    };
    let stack = json!({"id": identity.owner_id, "name": "heroku-24"});
    let space = match inner.platform.generation {
        Generation::Cedar => Value::Null,
        Generation::Fir => json!({"id": identity.owner_id, "name": "standin-space", "shield": false}),
    };
    json!({
        "id": identity.app_id, "name": identity.app, "acm": false, "archived_at": null, "build_stack": stack, "stack": stack,
        "buildpack_provided_description": "Ruby", "created_at": created, "updated_at": released, "released_at": released,
        "generation": generation, "git_url": format!("https://git.heroku.com/{}.git", identity.app),
        "maintenance": inner.maintenance, "owner": {"id": identity.owner_id, "email": OWNER}, "team": null, "space": space,
        "region": {"id": identity.owner_id, "name": "us"}, "repo_size": 0, "slug_size": 0, "internal_routing": null,
        "web_url": web_url(identity),
    })
}

/// As Heroku names it, with a suffix that nobody can guess from the name. The router's own address is told by the control API.
fn web_url(identity: &Identity) -> String {
    let suffix: String = identity.app_id.chars().filter(char::is_ascii_alphanumeric).take(12).collect();
    format!("https://{}-{suffix}.herokuapp.com/", identity.app)
}

/// The dyno list.
pub fn dynos(identity: &Identity, inner: &Inner) -> Vec<Value> {
    inner.platform.listed().into_iter().map(|entry| dyno(identity, inner, entry)).collect()
}

pub fn dyno(identity: &Identity, inner: &Inner, dyno: &Dyno) -> Value {
    let platform = &inner.platform;
    let release = platform.release(dyno.release).map(|release| json!({"id": release.id, "version": release.version}));
    json!({
        "attach_url": null, "command": dyno.command, "created_at": stamp(inner.skew, dyno.created_at), "id": dyno.id,
        "name": dyno.name, "release": release, "app": app_ref(identity), "size": size(platform, &dyno.kind),
        "state": dyno.state, "type": dyno.kind, "updated_at": stamp(inner.skew, dyno.updated_at),
    })
}

fn size<'a>(platform: &'a Platform, kind: &str) -> &'a str {
    platform.formation.get(kind).map_or("Standard-1X", |formation| &formation.size)
}

pub fn formations(identity: &Identity, inner: &Inner) -> Vec<Value> {
    inner.platform.formation.values().map(|entry| formation(identity, inner, entry)).collect()
}

pub fn formation(identity: &Identity, inner: &Inner, formation: &Formation) -> Value {
    let current = inner.platform.release(inner.platform.current);
    json!({
        "app": app_ref(identity), "command": current.and_then(|release| release.slug.processes.get(&formation.kind)),
        "created_at": stamp(inner.skew, formation.created_at), "id": formation.id, "quantity": formation.quantity,
        "size": formation.size, "dyno_size": {"id": formation.id, "name": formation.size}, "type": formation.kind,
        "updated_at": stamp(inner.skew, formation.updated_at),
    })
}

pub fn releases(identity: &Identity, inner: &Inner) -> Vec<Value> {
    inner.platform.releases.iter().map(|entry| release(identity, inner, entry)).collect()
}

pub fn release(identity: &Identity, inner: &Inner, release: &Release) -> Value {
    let output = release.command_dyno.as_ref().map(|_| output_url(identity, &release.id));
    json!({
        "addon_plan_names": [], "artifacts": [], "app": app_ref(identity), "created_at": stamp(inner.skew, release.created_at),
        "description": release.description, "id": release.id, "updated_at": stamp(inner.skew, release.updated_at),
        "slug": {"id": release.slug.id}, "status": release.status, "user": {"id": identity.owner_id, "email": OWNER},
        "version": release.version, "current": release.version == inner.platform.current, "output_stream_url": output,
        "eligible_for_rollback": release.status == Status::Succeeded,
    })
}

/// Where a release command's output is served. Its sixth field between slashes is the app's id, as people rely on.
pub fn output_url(identity: &Identity, release_id: &str) -> String {
    format!("{}/streams/{}/{}/logs/{release_id}.log", identity.url, &release_id[..2], identity.app_id)
}

pub fn slug(inner: &Inner, slug: &Slug) -> Value {
    let created = stamp(inner.skew, slug.created_at);
    json!({
        "blob": {"method": "get", "url": "https://example.invalid/slug.tgz"}, "buildpack_provided_description": "Ruby",
        "checksum": null, "commit": slug.commit, "commit_description": null, "created_at": created, "id": slug.id,
        "process_types": slug.processes, "size": 0, "stack": {"id": slug.id, "name": "heroku-24"}, "updated_at": created,
    })
}

pub fn preboot(identity: &Identity, inner: &Inner) -> Value {
    feature(identity, inner, ("preboot", "Preboot", "Seamless web dyno deploys"), inner.platform.preboot)
}

/// The labs feature by which dynos are told their app and release.
pub fn metadata(identity: &Identity, inner: &Inner, enabled: bool) -> Value {
    feature(
        identity,
        inner,
        ("runtime-dyno-metadata", "Runtime Dyno Metadata", "App and release in the environment"),
        enabled,
    )
}

fn feature(identity: &Identity, inner: &Inner, names: (&str, &str, &str), enabled: bool) -> Value {
    let created = stamp(inner.skew, identity.created_at);
    let (name, display_name, description) = names;
    json!({
        "created_at": created, "description": description, "enabled": enabled,
        "doc_url": format!("https://devcenter.heroku.com/articles/{name}"), "id": identity.owner_id, "name": name,
        "state": "general", "updated_at": created, "display_name": display_name, "feedback_email": "feedback@example.com",
    })
}

pub fn log_session(inner: &Inner, id: &str, url: &str, at: Timestamp) -> Value {
    let at = stamp(inner.skew, at);
    json!({"created_at": at, "id": id, "logplex_url": url, "updated_at": at})
}

/// Every boot that lives or is listed, with what the API hides: place, routing, port, pid.
pub fn boots(inner: &Inner) -> Vec<Value> {
    let boot = |dyno: &Dyno| {
        let vitals = inner.vitals.get(&dyno.id);
        json!({
            "id": dyno.id, "name": dyno.name, "type": dyno.kind, "state": dyno.state, "release": dyno.release,
            "place": match dyno.place {
                Place::Listed => "listed",
                Place::Hidden => "hidden",
                Place::Leaving(_) => "leaving",
            },
            "routed": dyno.routed, "running": dyno.running, "one_off": one_off(&dyno.kind),
            "port": vitals.map(|vitals| vitals.port), "pid": vitals.and_then(|vitals| vitals.pid),
        })
    };
    inner.platform.dynos.iter().map(boot).collect()
}
