//! Each fault, as a client sees it, and what it does to the dynos behind.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail as tests do")]

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::{Client, LONG, column, until};
use serde_json::{Value, json};
use unstuck_standin::{Act, Ailment, AilmentRule, Fact, Options, Reply, Rule, Standin, Timing};

const WEB: &str = "/apps/standin-app/formations/web";
const DYNOS: &str = "/apps/standin-app/dynos";

fn standin() -> Standin {
    Standin::start(Options::default()).unwrap()
}

fn on_delete(act: Act, reply: Reply) -> Rule {
    Rule { method: Some("DELETE".into()), path: "/apps/*/formations/*".into(), act, reply, ..Rule::default() }
}

fn ids(standin: &Standin) -> Vec<String> {
    column(&standin.dynos(), "id")
}

/// How many of the three dynos have another id than before.
fn restarted(standin: &Standin, before: &[String]) -> usize {
    ids(standin).iter().zip(before).filter(|(now, before)| now != before).count()
}

#[test]
fn what_is_done_and_what_is_answered_are_two_things() {
    let table = [
        (Act::Full, Reply::Normal, Some(202), 2),
        (Act::None, Reply::Normal, Some(202), 0),
        (Act::Partial(1), Reply::Normal, Some(202), 1),
        (Act::Full, Reply::error(500, "internal"), Some(500), 2),
        (Act::None, Reply::error(503, "unavailable"), Some(503), 0),
        (Act::Full, Reply::Raw { status: 502, body: "<html>".into() }, Some(502), 2),
        (Act::None, Reply::Redirect { status: 307, to: "http://127.0.0.1:1/".into() }, Some(307), 0),
        (Act::Full, Reply::Drop, None, 2),
        (Act::Partial(1), Reply::Drop, None, 1),
        (Act::None, Reply::Reset, None, 0),
        (Act::Full, Reply::Cut, None, 2),
    ];
    for (act, reply, status, dynos) in table {
        let standin = standin();
        let before = ids(&standin);
        standin.fault(on_delete(act, reply.clone()));
        let answer = Client::new(&standin).send("DELETE", WEB, &[], None);
        assert_eq!(answer.ok().map(|answer| answer.status), status, "{act:?} {reply:?}");
        assert_eq!(restarted(&standin, &before), dynos, "{act:?} {reply:?}");
        let acted = |fact: &Fact| matches!(fact, Fact::Request { method, acted, .. } if method == "DELETE" && *acted);
        assert_eq!(standin.journal(0).iter().any(|entry| acted(&entry.fact)), dynos > 0, "{act:?} {reply:?}");
    }
}

#[test]
fn a_late_effect_comes_after_the_answer() {
    let standin = standin();
    let before = ids(&standin);
    standin.fault(on_delete(Act::Late(1000), Reply::Normal));
    assert_eq!(Client::new(&standin).delete(WEB).status, 202);
    let entries = standin.journal(0);
    assert!(matches!(entries.last().unwrap().fact, Fact::Request { status: Some(202), .. }));
    until("the late restart", || restarted(&standin, &before) == 2);
}

#[test]
fn a_rule_meets_the_requests_that_it_counts() {
    let standin = standin();
    let client = Client::new(&standin);
    let rule =
        Rule { path: DYNOS.into(), skip: 1, count: Some(1), reply: Reply::error(500, "internal"), ..Rule::default() };
    standin.fault(rule);
    let statuses: Vec<u16> = (0..3).map(|_| client.get(DYNOS).status).collect();
    assert_eq!(statuses, [200, 500, 200]);
}

#[test]
fn a_faulty_answer_can_carry_headers() {
    let standin = standin();
    let headers = BTreeMap::from([("Retry-After".into(), "7".into()), ("RateLimit-Remaining".into(), "0".into())]);
    standin.fault(Rule { headers, reply: Reply::error(429, "rate_limit"), ..Rule::default() });
    let answer = Client::new(&standin).get(DYNOS);
    assert_eq!((answer.status, answer.id()), (429, "rate_limit".into()));
    assert_eq!((answer.headers["retry-after"].as_str(), answer.headers["ratelimit-remaining"].as_str()), ("7", "0"));
}

#[test]
fn an_answer_can_be_silent_stuck_or_slow() {
    for reply in [Reply::Stall, Reply::StallBody, Reply::Drip(1000)] {
        let standin = standin();
        standin.fault(Rule { reply: reply.clone(), ..Rule::default() });
        let answer = Client::patient(&standin, Duration::from_millis(300)).send("GET", DYNOS, &[], None);
        assert!(matches!(answer.err(), Some(ureq::Error::Timeout(_) | ureq::Error::Io(_))), "{reply:?}");
    }
    let standin = standin();
    standin.fault(Rule { reply: Reply::Drip(0), delay_ms: 10, ..Rule::default() });
    assert_eq!(Client::new(&standin).get(DYNOS).json().as_array().unwrap().len(), 3);
}

#[test]
fn a_cut_body_is_half_of_what_was_promised() {
    let standin = standin();
    standin.fault(Rule { reply: Reply::Cut, ..Rule::default() });
    let mut stream = std::net::TcpStream::connect(standin.url().trim_start_matches("http://")).unwrap();
    let head = format!(
        "GET {DYNOS} HTTP/1.1\r\nHost: x\r\nAccept: application/vnd.heroku+json; version=3\r\nAuthorization: Bearer {}\r\n\r\n",
        standin.token()
    );
    std::io::Write::write_all(&mut stream, head.as_bytes()).unwrap();
    let mut answer = Vec::new();
    std::io::Read::read_to_end(&mut stream, &mut answer).unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let promised =
        head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse::<usize>().unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK") && body.len() == promised / 2, "{answer}");
}

#[test]
fn a_stale_list_shows_dynos_that_are_gone() {
    let standin = standin();
    let client = Client::new(&standin);
    let before = ids(&standin);
    let start = standin.journal(0).last().unwrap().seq;
    let stale =
        |seq| Rule { method: Some("GET".into()), path: DYNOS.into(), reply: Reply::Stale(seq), ..Rule::default() };
    let rule = standin.fault(stale(None));
    client.delete(WEB);
    assert_eq!(column(client.get(DYNOS).json().as_array().unwrap(), "id"), before);
    assert!(standin.remove_fault(rule));
    assert_eq!(column(client.get(DYNOS).json().as_array().unwrap(), "id"), ids(&standin));
    standin.fault(stale(Some(start)));
    assert_eq!(column(client.get(DYNOS).json().as_array().unwrap(), "id"), before);
}

#[test]
fn any_json_can_stand_in_for_the_answer() {
    let standin = standin();
    standin.fault(Rule { reply: Reply::Json(json!([{"id": 1}])), ..Rule::default() });
    assert_eq!(Client::new(&standin).get(DYNOS).json(), json!([{"id": 1}]));
}

#[test]
fn a_dyno_can_have_an_ailment() {
    let ailing = |ailment, count| {
        let standin = standin();
        standin.set_ailments(vec![AilmentRule { dyno: "web.1".into(), ailment, count }]);
        standin
    };
    let state = |standin: &Standin| column(&standin.dynos(), "state");

    let standin = ailing(Ailment::IgnoresRestart, Some(1));
    let (client, before) = (Client::new(&standin), ids(&standin));
    client.delete(WEB);
    assert_eq!(restarted(&standin, &before), 1);
    client.delete(WEB);
    assert_eq!(restarted(&standin, &before), 2);

    let standin = ailing(Ailment::StaysStarting, None);
    Client::new(&standin).delete(WEB);
    assert_eq!(state(&standin), ["starting", "up", "up"]);

    let standin = ailing(Ailment::CrashesOnBoot, None);
    Client::new(&standin).delete(WEB);
    // The first restart after a crash is immediate, the second waits for minutes.
    let crash = |fact: &Fact| matches!(fact, Fact::Ended { status: 1, .. });
    until("two crashes", || standin.journal(0).iter().filter(|entry| crash(&entry.fact)).count() == 2);
    assert_eq!(state(&standin), ["crashed", "up", "up"]);

    let standin = ailing(Ailment::BootsLate(1000), None);
    Client::new(&standin).delete(WEB);
    assert_eq!(state(&standin), ["starting", "up", "up"]);
    assert!(standin.wait_until_up(LONG));
}

fn places(standin: &Standin) -> Vec<String> {
    let web: Vec<_> = standin.boots().into_iter().filter(|boot| boot["type"] == "web").collect();
    web.iter().map(|boot| format!("{} routed={}", boot["place"].as_str().unwrap(), boot["routed"])).collect()
}

#[test]
fn with_preboot_old_web_dynos_serve_on_unseen() {
    let formation = BTreeMap::from([("web".to_owned(), 1), ("worker".to_owned(), 1)]);
    let timing = Timing { preboot_window: 60 * LONG, ..Timing::default() };
    let standin = Standin::start(Options { formation, timing, preboot: true, ..Options::default() }).unwrap();
    let client = Client::new(&standin);
    assert_eq!(client.get("/apps/standin-app/features/preboot").json()["enabled"], true);
    let serving = || client.get(standin.router_url()).headers["standin-dyno-id"].clone();
    let first = serving();
    client.delete(DYNOS);
    assert_eq!(places(&standin), ["hidden routed=true", "listed routed=false"]);
    assert!(!ids(&standin).contains(&first));
    assert_eq!(serving(), first);
    // A second restart inside the window leaves three generations, the oldest one still serving.
    client.delete(WEB);
    assert_eq!(places(&standin), ["hidden routed=true", "hidden routed=false", "listed routed=false"]);
    assert_eq!(serving(), first);
    standin.close_preboot_window();
    assert_eq!(places(&standin), ["listed routed=true"]);
    assert_eq!(serving(), ids(&standin)[0]);
}

#[test]
fn the_router_says_why_nobody_answers() {
    let standin = standin();
    let client = Client::new(&standin);
    standin.scale("web", 0);
    let empty = client.get(standin.router_url());
    assert_eq!((empty.status, empty.body.as_str()), (503, "H14 No web processes running\n"));
    standin.scale("web", 1);
    assert_eq!(client.get(standin.router_url()).json()["dyno"], "web.1");
    client.patch("/apps/standin-app", &json!({"maintenance": true}));
    assert_eq!(client.get(standin.router_url()).body, "H80 Maintenance mode\n");
    assert!(standin.log().last().unwrap().contains("heroku[router]: at=info code=H80 desc=\"Maintenance mode\""));
}

#[test]
fn everything_can_be_switched_over_http() {
    let standin = standin();
    let client = Client::new(&standin);
    let open = |method: &str, path: &str, body: Option<Value>| {
        client.send(method, path, &[("authorization", ""), ("accept", "")], body.as_ref()).unwrap()
    };
    assert_eq!(open("GET", "/_standin", None).json()["app_id"], standin.app_id());
    let made = open(
        "POST",
        "/_standin/faults",
        Some(json!({"path": DYNOS, "reply": {"error": {"status": 500, "id": "x", "message": "y"}}})),
    );
    assert_eq!((made.status, client.get(DYNOS).status), (201, 500));
    assert_eq!(open("GET", "/_standin/faults", None).json()["1"]["path"], DYNOS);
    assert_eq!(open("DELETE", "/_standin/faults/1", None).status, 204);
    assert_eq!(open("DELETE", "/_standin/faults/1", None).status, 404);
    assert_eq!(client.get(DYNOS).status, 200);
    let settings = json!({"access": "revoked", "pool": {"remaining": 7, "refill_ms": 1000}, "skew": {"date_s": 60, "stamps_s": 0}, "preboot": true});
    let shown = open("PATCH", "/_standin/settings", Some(settings)).json();
    assert_eq!(
        (&shown["access"], &shown["pool"]["remaining"], &shown["preboot"]),
        (&json!("revoked"), &json!(7), &json!(true))
    );
    assert_eq!(client.get(DYNOS).status, 401);
    assert_eq!(open("PATCH", "/_standin/settings", Some(json!({"access": "full", "preboot": false}))).status, 200);
    assert_eq!(open("PATCH", "/_standin/settings", Some(json!({"no_such": 1}))).status, 422);
    assert_eq!(
        open("PUT", "/_standin/ailments", Some(json!([{"dyno": "web.2", "ailment": "stays_starting"}]))).status,
        204
    );
    assert_eq!(open("POST", "/_standin/restart", Some(json!({"dyno": "web.2"}))).status, 204);
    assert_eq!(column(&standin.dynos(), "state"), ["up", "starting", "up"]);
    assert_eq!(open("POST", "/_standin/cycle", Some(json!({"dyno": "worker.1"}))).status, 204);
    assert!(standin.log().iter().any(|line| line.ends_with("heroku[worker.1]: Cycling")));
    assert_eq!(open("POST", "/_standin/preboot-window/close", None).status, 204);
    assert_eq!(open("POST", "/_standin/scale", Some(json!({"web": 1}))).status, 204);
    assert_eq!(open("GET", "/_standin/dynos", None).json().as_array().unwrap().len(), 2);
    assert_eq!(open("POST", "/_standin/dynos/worker.1/crash", None).status, 204);
    assert_eq!(open("POST", "/_standin/deploys", Some(json!({"release_command": "x"}))).json(), json!({"version": 2}));
    assert_eq!(open("POST", "/_standin/releases/2/finish", Some(json!({"status": "failed"}))).status, 204);
    assert_eq!(
        open("POST", "/_standin/addon-releases", Some(json!({"description": "Attach"}))).json(),
        json!({"version": 3})
    );
    let line = json!({"source": "heroku", "process": "logplex", "text": "Error L11 (Tail buffer overflow)"});
    assert_eq!(open("POST", "/_standin/logs", Some(line)).status, 204);
    assert!(standin.log().last().unwrap().ends_with("heroku[logplex]: Error L11 (Tail buffer overflow)"));
}
