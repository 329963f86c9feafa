//! The Platform API on simulated dynos.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail as tests do")]

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::{Client, LONG, column};
use serde_json::{Value, json};
use unstuck_standin::{Access, Deploy, Fact, Generation, Mode, Options, Pool, Skew, Standin, Status};

fn standin() -> Standin {
    Standin::start(Options::default()).unwrap()
}

fn slow(boot_delay: Duration) -> Standin {
    Standin::start(Options { mode: Mode::Simulated { boot_delay }, ..Options::default() }).unwrap()
}

fn ids(standin: &Standin) -> BTreeMap<String, String> {
    let dynos = standin.dynos();
    column(&dynos, "name").into_iter().zip(column(&dynos, "id")).collect()
}

/// Names of the dynos whose id is another one now.
fn replaced(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<String> {
    before
        .iter()
        .filter(|(name, id)| after.get(*name).is_some_and(|now| now != *id))
        .map(|(name, _)| name.clone())
        .collect()
}

#[test]
fn a_restart_keeps_names_and_makes_new_boots() {
    let standin = standin();
    let client = Client::new(&standin);
    let app = standin.app().to_owned();
    let uuid = standin.app_id().to_owned();
    let table: [(String, &[&str]); 4] = [
        (format!("/apps/{app}/formations/web"), &["web.1", "web.2"]),
        (format!("/apps/{uuid}/dynos/web"), &["web.1", "web.2"]),
        (format!("/apps/{app}/dynos/web.2"), &["web.2"]),
        (format!("/apps/{app}/dynos"), &["web.1", "web.2", "worker.1"]),
    ];
    for (path, expected) in table {
        let before = ids(&standin);
        let answer = client.delete(&path);
        assert_eq!((answer.status, answer.body.as_str()), (202, "{}"), "{path}");
        assert_eq!(replaced(&before, &ids(&standin)), expected, "{path}");
    }
}

#[test]
fn a_restart_by_uuid_is_accepted_and_does_nothing() {
    let standin = standin();
    let before = ids(&standin);
    assert_eq!(Client::new(&standin).delete(&format!("/apps/standin-app/dynos/{}", before["web.1"])).status, 202);
    assert_eq!(ids(&standin), before);
}

#[test]
fn a_stopped_dyno_of_the_formation_comes_back() {
    let standin = standin();
    let client = Client::new(&standin);
    let before = ids(&standin);
    assert_eq!(client.post("/apps/standin-app/dynos/web.1/actions/stop", &json!({})).status, 202);
    assert_eq!(replaced(&before, &ids(&standin)), ["web.1"]);
    assert_eq!(client.post("/apps/standin-app/formations/worker/actions/stop", &json!({})).status, 202);
    assert_eq!(replaced(&before, &ids(&standin)), ["web.1", "worker.1"]);
}

#[test]
fn a_dyno_is_starting_until_it_has_booted() {
    let standin = slow(Duration::from_secs(1));
    assert!(standin.wait_until_up(LONG));
    Client::new(&standin).delete("/apps/standin-app/dynos/web.1");
    assert_eq!(column(&standin.dynos(), "state"), ["starting", "up", "up"]);
    assert!(standin.wait_until_up(LONG));
}

#[test]
fn what_is_not_there_is_404_in_the_apis_form() {
    let standin = standin();
    let client = Client::new(&standin);
    let table = [
        ("GET", "/apps/other", "Couldn't find that app."),
        ("DELETE", "/apps/other/dynos", "Couldn't find that app."),
        ("DELETE", "/apps/standin-app/formations/none", "Couldn't find that process type."),
        ("DELETE", "/apps/standin-app/dynos/web.9", "Couldn't find that dyno."),
        ("GET", "/apps/standin-app/releases/9", "Couldn't find that release."),
        ("GET", "/apps/standin-app/features/none", "Couldn't find that feature."),
        ("GET", "/nothing", "Couldn't find that resource."),
    ];
    for (method, path, message) in table {
        let answer = client.send(method, path, &[], None).unwrap();
        assert_eq!(
            (answer.status, answer.json()),
            (404, json!({"id": "not_found", "message": message})),
            "{method} {path}"
        );
    }
}

#[test]
fn a_type_is_no_dyno_name_on_fir_and_names_change_with_each_boot() {
    let standin = Standin::start(Options { generation: Generation::Fir, ..Options::default() }).unwrap();
    let client = Client::new(&standin);
    let before = column(&standin.dynos(), "name");
    assert!(before[0].starts_with("web-") && before[0].len() == "web-1234abcde-123ab".len(), "{before:?}");
    assert_eq!(client.delete("/apps/standin-app/dynos/web").status, 404);
    assert_eq!(client.delete("/apps/standin-app/formations/web").status, 202);
    let after = column(&standin.dynos(), "name");
    assert!(before[..2].iter().all(|name| !after.contains(name)));
    assert_eq!(before[2], after[2]);
    let generation = |accept| {
        client.send("GET", "/apps/standin-app", &[("accept", accept)], None).unwrap().json()["generation"].clone()
    };
    assert_eq!(generation("application/vnd.heroku+json; version=3.sdk"), "fir");
    assert_eq!(generation("application/vnd.heroku+json; version=3")["name"], "fir");
}

#[test]
fn requests_are_admitted_as_on_the_platform() {
    let standin = standin();
    let client = Client::new(&standin);
    let path = "/apps/standin-app/dynos";
    let send = |headers: &[(&str, &str)]| client.send("GET", path, headers, None).unwrap();
    assert_eq!(send(&[]).status, 200);
    assert_eq!(
        (send(&[("accept", "application/json")]).status, send(&[("accept", "*/*")]).id()),
        (406, "not_acceptable".into())
    );
    assert_eq!(
        (send(&[("authorization", "")]).status, send(&[("authorization", "Bearer x")]).id()),
        (401, "unauthorized".into())
    );
    let table = [
        (Access::Full, 200, 202, ""),
        (Access::ReadOnly, 200, 403, "forbidden"),
        (Access::TwoFactor, 403, 403, "two_factor"),
        (Access::Suspended, 403, 403, "suspended"),
        (Access::Delinquent, 402, 402, "delinquent"),
        (Access::Revoked, 401, 401, "unauthorized"),
    ];
    for (access, read, write, id) in table {
        standin.set_access(access);
        let deleted = client.delete(path);
        assert_eq!((client.get(path).status, deleted.status, deleted.id()), (read, write, id.into()), "{access:?}");
    }
}

#[test]
fn the_pool_of_requests_runs_dry_and_fills_again() {
    let standin = standin();
    let client = Client::new(&standin);
    standin.set_pool(Pool { remaining: 2, refill_ms: u64::MAX });
    assert_eq!(client.get("/apps/standin-app").headers["ratelimit-remaining"], "1");
    assert_eq!(client.get("/apps/standin-app").status, 200);
    let refused = client.get("/apps/standin-app");
    assert_eq!((refused.status, refused.id()), (429, "rate_limit".into()));
    assert_eq!(client.get("/account/rate-limits").json(), json!({"remaining": 0}));
    standin.set_pool(Pool { remaining: 0, refill_ms: 1 });
    while client.get("/account/rate-limits").json()["remaining"] == 0 {}
    assert_eq!(client.get("/apps/standin-app").status, 200);
}

#[test]
fn answers_have_the_platforms_headers() {
    let standin = standin();
    let client = Client::new(&standin);
    let answer = client.get("/apps/standin-app/dynos");
    for name in ["request-id", "etag", "date", "ratelimit-remaining"] {
        assert!(answer.headers.contains_key(name), "{name}");
    }
    assert!(answer.body.contains("\n    \"name\": \"web.1\""), "{}", answer.body);
    let same =
        client.send("GET", "/apps/standin-app/dynos", &[("if-none-match", &answer.headers["etag"])], None).unwrap();
    assert_eq!((same.status, same.body.as_str()), (304, ""));
    standin.restart("web.1");
    let changed =
        client.send("GET", "/apps/standin-app/dynos", &[("if-none-match", &answer.headers["etag"])], None).unwrap();
    assert_eq!(changed.status, 200);
}

#[test]
fn the_clock_can_be_wrong_in_two_ways() {
    let standin = standin();
    let client = Client::new(&standin);
    let look = || {
        let answer = client.get("/apps/standin-app/dynos/web.1");
        (answer.headers["date"].clone(), answer.json()["created_at"].clone())
    };
    let (_, created) = look();
    standin.set_skew(Skew { date_s: 400 * 86400, stamps_s: 0 });
    let (date, same) = look();
    assert_eq!(created, same);
    let year = |text: &str| {
        text.split(['-', ' ']).find_map(|part| part.parse::<u32>().ok().filter(|year| *year > 1000)).unwrap()
    };
    assert!(year(&date) > year(created.as_str().unwrap()), "{date} {created}");
    standin.set_skew(Skew { date_s: 0, stamps_s: -400 * 86400 });
    assert!(year(look().1.as_str().unwrap()) < year(created.as_str().unwrap()));
}

#[test]
fn lists_come_in_pages() {
    let standin = standin();
    let client = Client::new(&standin);
    standin.set_page_size(2);
    let first = client.get("/apps/standin-app/dynos");
    assert_eq!(
        (first.status, column(first.json().as_array().unwrap(), "name")),
        (206, vec!["web.1".into(), "web.2".into()])
    );
    let range = [("range", first.headers["next-range"].as_str())];
    let second = client.send("GET", "/apps/standin-app/dynos", &range, None).unwrap();
    assert_eq!((second.status, column(second.json().as_array().unwrap(), "name")), (200, vec!["worker.1".into()]));
    assert!(!second.headers.contains_key("next-range"));
    let bad = client.send("GET", "/apps/standin-app/dynos", &[("range", "colour ..")], None).unwrap();
    assert_eq!(bad.status, 416);
}

#[test]
fn scaling_starts_and_ends_dynos() {
    let standin = standin();
    let client = Client::new(&standin);
    let answer = client.patch("/apps/standin-app/formation", &json!({"updates": [{"quantity": "3", "type": "web"}]}));
    assert_eq!((answer.status, &answer.json()[0]["quantity"]), (200, &json!(3)));
    assert_eq!(column(&standin.dynos(), "name"), ["web.1", "web.2", "web.3", "worker.1"]);
    client.patch("/apps/standin-app/formation/web", &json!({"quantity": 1}));
    client.patch("/apps/standin-app/formation/worker", &json!({"quantity": 0}));
    assert_eq!(column(&standin.dynos(), "name"), ["web.1"]);
    assert_eq!(client.patch("/apps/standin-app/formation/web", &json!({"quantity": "many"})).status, 422);
}

#[test]
fn a_one_off_dyno_is_listed_and_spared() {
    let standin = standin();
    let client = Client::new(&standin);
    let made = client.post(
        "/apps/standin-app/dynos",
        &json!({"command": "rails db:migrate", "attach": false, "env": {"TERM": "x"}}),
    );
    assert_eq!((made.status, &made.json()["type"]), (201, &json!("run")));
    let name = made.json()["name"].as_str().unwrap().to_owned();
    let before = ids(&standin);
    client.delete("/apps/standin-app/dynos");
    assert_eq!(ids(&standin)[&name], before[&name]);
    standin.set_spare_one_offs(false);
    client.delete("/apps/standin-app/dynos");
    assert!(!ids(&standin).contains_key(&name));
    assert_eq!(client.post("/apps/standin-app/dynos", &json!({})).status, 422);
    assert_eq!(client.post("/apps/standin-app/dynos", &json!({"command": "x", "time_to_live": 86401})).status, 422);
}

fn versions(standin: &Standin) -> Vec<(u64, String, bool)> {
    let release = |release: &Value| {
        (
            release["version"].as_u64().unwrap(),
            release["status"].as_str().unwrap().into(),
            release["current"].as_bool().unwrap(),
        )
    };
    standin.releases().iter().map(release).collect()
}

#[test]
fn a_release_is_current_and_boots_only_after_its_command() {
    let standin = standin();
    let client = Client::new(&standin);
    let before = ids(&standin);
    let version =
        standin.deploy(Deploy { release_command: Some("unstuck migrate".into()), ..Deploy::default() }).unwrap();
    assert_eq!(versions(&standin), [(1, "succeeded".into(), true), (2, "pending".into(), false)]);
    assert!(ids(&standin).keys().any(|name| name.starts_with("release.")));
    client.delete("/apps/standin-app/formations/web");
    assert_eq!(replaced(&before, &ids(&standin)), ["web.1", "web.2"]);
    assert_eq!(client.get("/apps/standin-app/dynos/web.1").json()["release"]["version"], 1);
    let before = ids(&standin);
    assert!(standin.finish_release(version, Status::Succeeded));
    assert_eq!(versions(&standin), [(1, "succeeded".into(), false), (2, "succeeded".into(), true)]);
    assert_eq!(replaced(&before, &ids(&standin)), ["web.1", "web.2", "worker.1"]);
    assert_eq!(client.get("/apps/standin-app/dynos/web.1").json()["release"]["version"], 2);
}

#[test]
fn a_release_that_does_not_succeed_restarts_nothing() {
    for (status, word) in [(Status::Failed, "failed"), (Status::Expired, "expired")] {
        let standin = standin();
        let before = ids(&standin);
        let version = standin.deploy(Deploy { release_command: Some("false".into()), ..Deploy::default() }).unwrap();
        assert!(standin.finish_release(version, status));
        assert!(!standin.finish_release(version, status));
        assert_eq!(versions(&standin), [(1, "succeeded".into(), true), (2, word.into(), false)]);
        assert_eq!(ids(&standin), before);
    }
}

#[test]
fn two_releases_may_be_pending_at_once_and_an_older_one_does_not_take_over() {
    let standin = standin();
    let deploy = Deploy { release_command: Some("x".into()), ..Deploy::default() };
    let (older, newer) = (standin.deploy(deploy.clone()).unwrap(), standin.deploy(deploy).unwrap());
    assert!(standin.finish_release(newer, Status::Succeeded));
    assert!(standin.finish_release(older, Status::Succeeded));
    assert_eq!(
        versions(&standin),
        [(1, "succeeded".into(), false), (2, "succeeded".into(), false), (3, "succeeded".into(), true)]
    );
}

#[test]
fn config_vars_rollbacks_and_addons_make_releases_that_restart() {
    let standin = standin();
    let client = Client::new(&standin);
    let before = ids(&standin);
    assert_eq!(
        client.patch("/apps/standin-app/config-vars", &json!({"A": "1", "B": "2"})).json(),
        json!({"A": "1", "B": "2"})
    );
    assert_eq!(client.patch("/apps/standin-app/config-vars", &json!({"A": null})).json(), json!({"B": "2"}));
    assert_eq!(replaced(&before, &ids(&standin)), ["web.1", "web.2", "worker.1"]);
    standin.addon_release(
        "Update DATABASE by heroku-postgresql",
        BTreeMap::from([("DATABASE_URL".into(), "postgres://x".into())]),
    );
    let second = client.get("/apps/standin-app/releases/2").json();
    let rolled = client.post("/apps/standin-app/releases", &json!({"release": second["id"]}));
    assert_eq!(
        (rolled.status, &rolled.json()["description"], &rolled.json()["current"]),
        (201, &json!("Rollback to v2"), &json!(true))
    );
    assert_eq!(client.get("/apps/standin-app/config-vars").json(), json!({"A": "1", "B": "2"}));
    assert_eq!(
        client.get("/apps/standin-app/releases/4/config-vars").json(),
        json!({"B": "2", "DATABASE_URL": "postgres://x"})
    );
    let newest =
        client.send("GET", "/apps/standin-app/releases", &[("range", "version ..; max=2, order=desc")], None).unwrap();
    assert_eq!(
        (newest.status, column(newest.json().as_array().unwrap(), "version")),
        (206, vec!["5".into(), "4".into()])
    );
    let descriptions = column(&standin.releases(), "description");
    assert_eq!(
        descriptions[1..4],
        ["Set A, B config vars", "Remove A config vars", "Update DATABASE by heroku-postgresql"]
    );
}

#[test]
fn the_journal_holds_everything_in_one_order() {
    let standin = standin();
    let client = Client::new(&standin);
    let start = standin.journal(0).last().unwrap().seq;
    client.post("/_standin/notes", &json!({"text": "before"}));
    client.delete("/apps/standin-app/dynos/web.1");
    client.get("/apps/standin-app/dynos");
    let shapes: Vec<String> = standin
        .journal(start)
        .iter()
        .map(|entry| match &entry.fact {
            Fact::Request { method, status, acted, .. } => format!("{method} {status:?} {acted}"),
            Fact::Began { name, .. } => format!("began {name}"),
            Fact::Ended { name, status, .. } => format!("ended {name} {status}"),
            Fact::Release { version, .. } => format!("release {version}"),
            Fact::Note { text } => text.clone(),
        })
        .collect();
    assert_eq!(shapes, ["before", "DELETE Some(202) true", "ended web.1 143", "began web.1", "GET Some(200) false"]);
    let told = client.get(&format!("/_standin/journal?after={start}")).json();
    assert_eq!(
        (&told[0]["event"], &told[0]["seq"], &told[2]["event"]),
        (&json!("note"), &json!(start + 1), &json!("ended"))
    );
}
