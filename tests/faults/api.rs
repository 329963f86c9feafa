//! Faults of the platform's API and of the network.

mod relay;

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use unstuck_standin::{Access, Act, Ailment, AilmentRule, Fact, Options, Pool, Reply, Rule};

use crate::Fault;
use crate::postgres::Certificates;
use crate::scene::{Ran, Scene, TOKEN};
use relay::{Deed, Relay};

pub const FAULTS: &[Fault] = &[
    Fault {
        what: "the means to restart are missing",
        injected: "no token, no app, an app that does not exist, a dyno of another app",
        exit: "5; nothing is started",
        record: "–",
        next_run: "migrates",
        check: no_means,
    },
    Fault {
        what: "the API refuses the account before the migration",
        injected: "401, 402, 403 (two_factor, suspended), 404, 409, 422",
        exit: "5; nothing is started",
        record: "–",
        next_run: "migrates",
        check: refused_before,
    },
    Fault {
        what: "the API is out of order before the migration",
        injected: "refused and reset connections, silence, 500, 503, 429, a cut answer, no JSON, an endless answer",
        exit: "5; nothing is started",
        record: "–",
        next_run: "migrates",
        check: out_of_order_before,
    },
    Fault {
        what: "a look at the API fails once",
        injected: "500, 502, 503, a reset, a cut answer, no JSON, deep nesting, a wrong type, a double key, to one request of each kind",
        exit: "0; it is repeated",
        record: "–",
        next_run: "has nothing to do",
        check: fails_once,
    },
    Fault {
        what: "the token ends during the migration",
        injected: "401 from then on; 401 to the restart alone",
        exit: "4",
        record: "D",
        next_run: "settles, with a new token",
        check: token_ends,
    },
    Fault {
        what: "the token may look, but not restart",
        injected: "403 to every write",
        exit: "4",
        record: "D",
        next_run: "settles, with a better token",
        check: may_not_restart,
    },
    Fault {
        what: "the restart fails and was not acted upon",
        injected: "500, 502, 503, a reset or a cut without an effect, once",
        exit: "0; restarted again by name",
        record: "–",
        next_run: "has nothing to do",
        check: not_acted_upon,
    },
    Fault {
        what: "the restart fails although it was acted upon",
        injected: "500, 502, a reset, a cut, silence, garbage after the effect",
        exit: "0; exactly one restart",
        record: "–",
        next_run: "has nothing to do",
        check: acted_upon,
    },
    Fault {
        what: "the restart is accepted and happens later",
        injected: "202 at once, the effect a second later",
        exit: "0; exactly one restart",
        record: "–",
        next_run: "has nothing to do",
        check: happens_later,
    },
    Fault {
        what: "the restart is accepted and nothing happens",
        injected: "202 without an effect, for all dynos or for one",
        exit: "4; asked for again by name first",
        record: "D",
        next_run: "settles",
        check: nothing_happens,
    },
    Fault {
        what: "the restart is accepted and reaches one of two dynos",
        injected: "202 with half of the effect, once",
        exit: "0; the other is restarted by name",
        record: "–",
        next_run: "has nothing to do",
        check: reaches_one,
    },
    Fault {
        what: "what is to be restarted is not found",
        injected: "404 to the restart of the type",
        exit: "0; restarted by name",
        record: "–",
        next_run: "has nothing to do",
        check: not_found,
    },
    Fault {
        what: "there were too many requests, for a while",
        injected: "429 with `Retry-After` and without, once for each request; an account whose pool is empty; `RateLimit-Remaining: 0`",
        exit: "0; it waits",
        record: "–",
        next_run: "has nothing to do",
        check: limited_for_a_while,
    },
    Fault {
        what: "there were too many requests, for longer than there is time",
        injected: "429 with `Retry-After: 3600` to the restart",
        exit: "4",
        record: "D",
        next_run: "settles",
        check: limited_for_long,
    },
    Fault {
        what: "the restart is rejected",
        injected: "409, 422, 503 to every write, with control characters in the message",
        exit: "4, naming what the API said, without its control characters",
        record: "D",
        next_run: "settles",
        check: rejected,
    },
    Fault {
        what: "the dynos are on several pages, web dynos on the last",
        injected: "206 and `Next-Range`; one-off dynos before them",
        exit: "0; every one is replaced",
        record: "–",
        next_run: "has nothing to do",
        check: several_pages,
    },
    Fault {
        what: "a page of the dynos is lost",
        injected: "the second page is an error",
        exit: "4",
        record: "D",
        next_run: "settles",
        check: page_is_lost,
    },
    Fault {
        what: "the dyno list is an old one when the restart begins",
        injected: "the list from before the migration, during which a dyno was cycled; that dyno misses the restart",
        exit: "0; that dyno is replaced as well, where it missed the restart by name",
        record: "–",
        next_run: "has nothing to do",
        check: stale_at_first,
    },
    Fault {
        what: "the dyno list is an old one during the proof",
        injected: "the list from before the restart, for a while; for ever",
        exit: "0; 4 where it stays old",
        record: "–; D",
        next_run: "settles",
        check: stale_during_proof,
    },
    Fault {
        what: "the dyno list is empty or lacks old processes",
        injected: "`[]`, and a list without the web dynos, before the restart and after it; the same of the formation",
        exit: "0, restarted by name when they show; 4, not as many as the app is to run",
        record: "–; D",
        next_run: "has nothing to do; settles",
        check: list_is_short,
    },
    Fault {
        what: "new processes crash as they boot",
        injected: "a dyno whose process ends at once; its log cannot be read",
        exit: "0, said to be ill, with its log's last lines; 4 with `--require-healthy`",
        record: "–",
        next_run: "has nothing to do, and does not restart again",
        check: crashes,
    },
    Fault {
        what: "new processes never leave `starting`",
        injected: "a dyno that stays there",
        exit: "0, said to be ill; 4 with `--require-healthy`",
        record: "–",
        next_run: "has nothing to do",
        check: stays_starting,
    },
    Fault {
        what: "no process is to run",
        injected: "web scaled to 0",
        exit: "0; no restart is needed",
        record: "–",
        next_run: "has nothing to do",
        check: none_to_run,
    },
    Fault {
        what: "an old process sleeps",
        injected: "a dyno that stays listed as `idle`",
        exit: "0; it has no process that could be old",
        record: "–",
        next_run: "has nothing to do",
        check: sleeps,
    },
    Fault {
        what: "the app is scaled during the proof",
        injected: "to three, to one, to none, while the restart is on its way",
        exit: "0",
        record: "–",
        next_run: "has nothing to do",
        check: scaled,
    },
    Fault {
        what: "a dyno boots during the migration",
        injected: "scaling up and cycling between two changes, and before one that leaves no version",
        exit: "0 or 3; it is replaced as well",
        record: "–",
        next_run: "has nothing to do",
        check: boots_meanwhile,
    },
    Fault {
        what: "a dyno is cycled during the proof",
        injected: "the daily restart while ours is on its way",
        exit: "0",
        record: "–",
        next_run: "has nothing to do",
        check: cycled_during_proof,
    },
    Fault {
        what: "the dyno list cannot be read after the migration",
        injected: "an empty and a cut answer, nesting, wrong types, a double key, invalid UTF-8, no `Date`, an endless and a 20 MB one, in 256 MB of address space",
        exit: "4",
        record: "D",
        next_run: "settles",
        check: unreadable,
    },
    Fault {
        what: "the API redirects",
        injected: "301 to 308, to another host, before the migration and at the restart",
        exit: "5; 4. Nobody else is asked, so nobody else sees the token",
        record: "–; D",
        next_run: "migrates; settles",
        check: redirects,
    },
    Fault {
        what: "an answer comes byte by byte, or its head does not end",
        injected: "20 bytes a second; headers for ever; before the migration and after it",
        exit: "5; 4, at the request's time limit",
        record: "–; D",
        next_run: "migrates; settles",
        check: slow_loris,
    },
    Fault {
        what: "the API's name cannot be looked up",
        injected: "a name server and a hosts file without it, from the start and after the migration",
        exit: "5; 4",
        record: "–; D",
        next_run: "migrates; settles",
        check: no_such_name,
    },
    Fault {
        what: "the first of the API's two addresses is dead",
        injected: "a hosts file whose first address refuses, or says nothing",
        exit: "0",
        record: "–",
        next_run: "has nothing to do",
        check: first_address_is_dead,
    },
    Fault {
        what: "the API's certificate is not to be trusted",
        injected: "one that expired, one for another name, one of an unknown authority",
        exit: "5; nothing is started, nothing is sent",
        record: "–",
        next_run: "migrates, with a good certificate",
        check: certificates,
    },
    Fault {
        what: "a proxy is set",
        injected: "a proxy for everything, before an API on loopback and before Heroku's own",
        exit: "0, not asked; 5, asked for a tunnel and never shown the token",
        record: "–",
        next_run: "has nothing to do",
        check: proxies,
    },
];

/// A migration that changes something.
const CHANGE: &str = "sql 'create table two (a int)'";

/// A settled app with a migration that waits.
fn scene() -> Scene {
    let scene = Scene::new();
    scene.settled().migration(2, "two", CHANGE);
    scene
}

/// The same, for faults that last until the time for the proof is up.
fn hasty() -> Scene {
    let mut scene = scene();
    scene.set("UNSTUCK_PROVE_TIMEOUT", "1s");
    scene
}

/// The same, for faults that last until the time for one request is up, or for its repetitions.
fn impatient() -> Scene {
    let mut scene = hasty();
    scene.set("UNSTUCK_API_TIMEOUT", "1s");
    scene
}

/// For cases that wait: all wait together.
fn all_at_once<T: Send>(cases: impl IntoIterator<Item = T>, test: impl Fn(T) + Sync) {
    let test = &test;
    thread::scope(|scope| cases.into_iter().for_each(|case| drop(scope.spawn(move || test(case)))));
}

/// The migration is refused before anything runs.
#[track_caller]
fn refused(scene: &Scene, what: &str) -> Ran {
    let seq = scene.now();
    let ran = scene.unstuck(&["migrate", "--json"]);
    assert_eq!((ran.code, &ran.json()["outcome"]), (Some(5), &json!("refused")), "{what}: {ran:?}");
    assert!(ran.json()["error"]["hint"].is_string(), "{what}: {ran:?}");
    assert_eq!((scene.ran(), scene.debts()), (vec!["1".to_owned()], vec![]), "{what}");
    assert_eq!(scene.writes(seq), [""; 0], "{what}");
    ran
}

/// The migration is run, and its restart stays owed.
#[track_caller]
fn owed(scene: &Scene, what: &str) -> Ran {
    let ran = scene.unstuck(&["migrate", "--json"]);
    assert_eq!((ran.code, &ran.json()["outcome"]), (Some(4), &json!("migrated")), "{what}: {ran:?}");
    assert!(scene.debts().len() == 1 && scene.debts()[0].contains(r#""ph":"D""#), "{what}: {:?}", scene.debts());
    ran
}

/// The fault is over: what is still to do is done, and each migration has run once.
#[track_caller]
fn recovers(scene: &mut Scene) {
    scene.standin.clear_faults();
    scene.standin.set_access(Access::Full);
    scene.standin.set_ailments(Vec::new());
    scene.set("UNSTUCK_PROVE_TIMEOUT", "5s").set("UNSTUCK_API_TIMEOUT", "10s");
    scene.restored();
    assert_eq!(scene.ran(), ["1", "2"]);
}

fn rule(method: &str, path: &str, reply: Reply) -> Rule {
    Rule { method: Some(method.into()), path: path.into(), reply, ..Rule::default() }
}

fn ailing(dyno: &str, ailment: Ailment, count: Option<u32>) -> Vec<AilmentRule> {
    vec![AilmentRule { dyno: dyno.into(), ailment, count }]
}

/// A line of a migration that switches the stand-in: `METHOD path body`.
fn switch(scene: &Scene, method: &str, path: &str, body: &Value) -> String {
    format!(
        "curl -sf -X {method} -H 'content-type: application/json' -d '{body}' {}/_standin/{path} > switched || exit 1",
        scene.standin.url()
    )
}

fn raw(status: u16, body: impl Into<String>) -> Reply {
    Reply::Raw { status, body: body.into() }
}

/// Answers to the question for the dynos that nobody can use.
fn garbage() -> Vec<(&'static str, Reply)> {
    let dyno = r#"{"id": "a", "id": "b", "name": "web.1", "type": "web", "state": "up", "created_at": "2026-11-22T16:33:07Z"}"#;
    vec![
        ("a cut answer", Reply::Cut),
        ("no JSON", raw(200, "<html>")),
        ("cut JSON", raw(200, r#"[{"id": "a""#)),
        ("deep nesting", raw(200, "[".repeat(200_000))),
        ("a wrong type", raw(200, r#"{"id": 7, "name": []}"#)),
        ("a double key", raw(200, format!("[{dyno}]"))),
    ]
}

fn no_means() {
    let mut stranger = scene();
    let good = stranger.env.clone();
    stranger.set("DYNO", "run.1").set("HEROKU_APP_ID", "00000000-0000-0000-0000-000000000000");
    let ran = refused(&stranger, "another app");
    assert!(ran.err.contains("belongs to the app 00000000-0000-0000-0000-000000000000"), "{ran:?}");
    stranger.env = good;
    recovers(&mut stranger);

    for (name, value) in [("HEROKU_API_KEY", None), ("UNSTUCK_APP", None), ("UNSTUCK_APP", Some("no-such-app"))] {
        let mut scene = scene();
        let good = scene.env.clone();
        match value {
            Some(value) => scene.set(name, value),
            None => scene.unset(name),
        };
        refused(&scene, name);
        scene.env = good;
        recovers(&mut scene);
    }
}

fn refused_before() {
    for (access, words) in [
        (Access::Revoked, "401 unauthorized"),
        (Access::Delinquent, "402 delinquent"),
        (Access::TwoFactor, "403 two_factor"),
        (Access::Suspended, "403 suspended"),
    ] {
        let mut scene = scene();
        scene.standin.set_access(access);
        let ran = refused(&scene, words);
        assert!(ran.err.contains(words), "{ran:?}");
        recovers(&mut scene);
    }
    for (path, status) in [("/apps/*", 404), ("/apps/*/dynos", 403), ("/apps/*/dynos", 409), ("/apps/*/releases", 422)]
    {
        let mut scene = scene();
        scene.standin.fault(rule("GET", path, Reply::error(status, "made_up")));
        refused(&scene, path);
        recovers(&mut scene);
    }
}

fn out_of_order_before() {
    let mut faults = garbage();
    faults.truncate(2);
    faults.extend([
        ("reset", Reply::Reset),
        ("dropped", Reply::Drop),
        ("silence", Reply::Stall),
        ("half an answer, then silence", Reply::StallBody),
        ("500", Reply::error(500, "internal_server_error")),
        ("503", Reply::error(503, "maintenance")),
        ("429", Reply::error(429, "rate_limit")),
    ]);
    all_at_once(faults, |(what, reply)| {
        let mut scene = impatient();
        scene.standin.fault(rule("GET", "*", reply));
        refused(&scene, what);
        recovers(&mut scene);
    });

    let mut scene = scene();
    let good = scene.env.clone();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    scene.set("UNSTUCK_API_TIMEOUT", "300ms").set("HEROKU_HOST", &format!("http://{closed}"));
    refused(&scene, "a port that nobody listens on");
    scene.env = good;
    recovers(&mut scene);
}

fn fails_once() {
    let mut faults = garbage();
    faults.extend([
        ("500", Reply::error(500, "internal_server_error")),
        ("502", raw(502, "<html>Bad gateway")),
        ("503", Reply::error(503, "maintenance")),
        ("reset", Reply::Reset),
        ("dropped", Reply::Drop),
    ]);
    all_at_once(faults, |(what, reply)| {
        let scene = scene();
        for path in ["/apps/standin-app", "/apps/*/dynos", "/apps/*/formation", "/apps/*/releases"] {
            // A fault before the migration, and one after it.
            for skip in [0, 2] {
                scene.standin.fault(Rule { skip, count: Some(1), ..rule("GET", path, reply.clone()) });
            }
        }
        let seq = scene.now();
        scene.unstuck(&["migrate"]).code(0);
        assert_eq!(scene.writes(seq).len(), 1, "{what}");
        scene.kept();
    });
}

fn token_ends() {
    let mut scene = scene();
    let end = switch(&scene, "PATCH", "settings", &json!({"access": "revoked"}));
    scene.migration(2, "two", &format!("{CHANGE}; {end}"));
    let ran = owed(&scene, "revoked");
    assert!(ran.err.contains("401 unauthorized"), "{ran:?}");
    recovers(&mut scene);

    let mut scene = self::scene();
    let reply = rule("DELETE", "*", Reply::error(401, "unauthorized"));
    scene.standin.fault(Rule { act: Act::None, ..reply });
    let ran = owed(&scene, "revoked just now");
    assert!(ran.err.contains("heroku authorizations:create"), "what helps is said: {ran:?}");
    recovers(&mut scene);
}

fn may_not_restart() {
    let mut scene = scene();
    scene.standin.set_access(Access::ReadOnly);
    let ran = owed(&scene, "read only");
    assert_eq!(ran.json()["restart"]["state"], "owed");
    assert!(ran.err.contains("403 forbidden"), "{ran:?}");
    recovers(&mut scene);
}

fn not_acted_upon() {
    let error = |status| Reply::error(status, "made_up");
    all_at_once([error(500), error(502), error(503), Reply::Reset, Reply::Drop], |reply| {
        let scene = scene();
        scene.standin.fault(Rule { count: Some(1), act: Act::None, ..rule("DELETE", "*", reply) });
        let seq = scene.now();
        scene.unstuck(&["migrate"]).code(0);
        let writes = scene.writes(seq);
        assert!(writes.len() == 3 && writes[1].contains("/dynos/web."), "{writes:?}");
        scene.kept();
    });
}

fn acted_upon() {
    let replies =
        [Reply::Reset, Reply::Drop, Reply::Stall, Reply::error(500, "made_up"), raw(502, "<html>"), raw(202, "<html>")];
    all_at_once(replies, |reply| {
        let mut scene = scene();
        // The silence may not last longer than the proof.
        scene.set("UNSTUCK_API_TIMEOUT", "2s");
        let what = format!("{reply:?}");
        scene.standin.fault(Rule { count: Some(1), act: Act::Full, ..rule("DELETE", "*", reply) });
        let seq = scene.now();
        scene.unstuck(&["migrate"]).code(0);
        assert_eq!(scene.writes(seq).len(), 1, "{what}");
        scene.kept();
    });
}

fn happens_later() {
    let scene = scene();
    scene.standin.fault(Rule { act: Act::Late(1000), ..rule("DELETE", "*", Reply::Normal) });
    let seq = scene.now();
    scene.unstuck(&["migrate"]).code(0);
    assert_eq!(scene.writes(seq).len(), 1);
    scene.kept();
}

fn nothing_happens() {
    all_at_once([("all", Some("web")), ("one", Some("web.2")), ("lost", None)], |(what, ignoring)| {
        let mut scene = hasty();
        match ignoring {
            Some(dyno) => scene.standin.set_ailments(ailing(dyno, Ailment::IgnoresRestart, None)),
            None => _ = scene.standin.fault(Rule { act: Act::None, ..rule("DELETE", "*", Reply::Normal) }),
        }
        let seq = scene.now();
        let ran = owed(&scene, what);
        assert_eq!(ran.json()["restart"]["state"], "requested", "{what}");
        assert!(
            scene.writes(seq).iter().any(|write| write.ends_with("/dynos/web.2")),
            "{what}: {:?}",
            scene.writes(seq)
        );
        recovers(&mut scene);
    });
}

fn reaches_one() {
    let scene = scene();
    scene.standin.fault(Rule { count: Some(1), act: Act::Partial(1), ..rule("DELETE", "*", Reply::Normal) });
    let seq = scene.now();
    scene.unstuck(&["migrate"]).code(0);
    let writes = scene.writes(seq);
    assert_eq!(writes.len(), 2, "{writes:?}");
    assert!(writes[0].ends_with("/formations/web") && writes[1].ends_with("/dynos/web.2"), "{writes:?}");
    scene.kept();
}

fn not_found() {
    let scene = scene();
    let rule = rule("DELETE", "*/formations/web", Reply::error(404, "not_found"));
    scene.standin.fault(Rule { act: Act::None, ..rule });
    scene.unstuck(&["migrate"]).code(0);
    scene.kept();
}

fn limited_for_a_while() {
    let limited = |method: &str, headers: BTreeMap<String, String>| Rule {
        count: Some(1),
        act: Act::None,
        headers,
        ..rule(method, "*", Reply::error(429, "rate_limit"))
    };
    let wait = BTreeMap::from([("Retry-After".to_owned(), "1".to_owned())]);
    let none_left = BTreeMap::from([("RateLimit-Remaining".to_owned(), "0".to_owned())]);
    all_at_once([wait, BTreeMap::new(), none_left.clone()], |headers| {
        let scene = scene();
        scene.standin.fault(limited("GET", headers.clone()));
        scene.standin.fault(limited("DELETE", headers.clone()));
        let seq = scene.now();
        scene.unstuck(&["migrate"]).code(0);
        assert_eq!(scene.writes(seq).len(), 2, "{headers:?}: turned away, then accepted");
        scene.kept();
    });

    let empty = scene();
    empty.standin.set_pool(Pool { remaining: 0, refill_ms: 500 });
    empty.unstuck(&["migrate"]).code(0);
    empty.kept();

    let last = scene();
    last.standin.fault(Rule { headers: none_left, ..Rule::default() });
    last.unstuck(&["migrate"]).code(0);
    last.kept();
}

fn limited_for_long() {
    let mut scene = hasty();
    let headers = BTreeMap::from([("Retry-After".to_owned(), "3600".to_owned())]);
    let rule = rule("DELETE", "*", Reply::error(429, "rate_limit"));
    scene.standin.fault(Rule { act: Act::None, headers, ..rule });
    let ran = owed(&scene, "limited");
    assert!(ran.err.contains("429 rate_limit"), "{ran:?}");
    recovers(&mut scene);
}

fn rejected() {
    all_at_once([409, 422, 503], |status| {
        let mut scene = hasty();
        let message = "\u{1b}]0;owned\u{7}\u{202e} not now".to_owned();
        let reply = Reply::Error { status, id: "made_up\u{1b}[31m".into(), message };
        scene.standin.fault(Rule { act: Act::None, ..rule("DELETE", "*", reply) });
        let ran = owed(&scene, "rejected");
        assert!(ran.err.contains(&format!("{status} made_up")) && ran.err.contains("not now"), "{ran:?}");
        assert!(!ran.err.contains('\u{202e}'), "{ran:?}");
        recovers(&mut scene);
    });
}

fn several_pages() {
    let scene = Scene::with(Options { formation: BTreeMap::from([("web".to_owned(), 3)]), ..Options::default() });
    scene.settled().migration(2, "two", CHANGE);
    for _ in 0..5 {
        scene.standin.run("bin/rails console");
    }
    scene.standin.set_page_size(1);
    let pages = scene.unstuck(&["status", "--json"]).code(0).json()["dynos"].as_array().unwrap().len();
    assert_eq!(pages, 8);
    scene.unstuck(&["migrate"]).code(0);
    scene.kept();
    scene.restored();
}

fn page_is_lost() {
    let mut scene = impatient();
    scene.standin.set_page_size(2);
    // The list before the migration is whole.
    scene.standin.fault(Rule { skip: 3, ..rule("GET", "/apps/*/dynos", Reply::error(500, "internal_server_error")) });
    let ran = owed(&scene, "a lost page");
    assert!(ran.err.contains("the dynos cannot be listed"), "{ran:?}");
    recovers(&mut scene);
}

fn stale_at_first() {
    all_at_once([true, false], |heard| {
        let scene = scene();
        let cycle = switch(&scene, "POST", "cycle", &json!({"dyno": "web.1"}));
        // Stamps have whole seconds: it boots in an earlier one than that of the list.
        scene.migration(2, "two", &format!("{CHANGE}; {cycle}; sleep 1; sql 'create table three (a int)'"));
        let stale = rule("GET", "/apps/*/dynos", Reply::Stale(Some(scene.now())));
        scene.standin.fault(Rule { skip: 1, count: Some(1), ..stale });
        if !heard {
            scene.standin.set_ailments(ailing("web.1", Ailment::IgnoresRestart, Some(1)));
        }
        let seq = scene.now();
        scene.unstuck(&["migrate"]).code(0);
        assert_eq!(scene.writes(seq).len(), if heard { 1 } else { 2 });
        scene.kept();
    });
}

fn stale_during_proof() {
    for (count, proved) in [(Some(3), true), (None, false)] {
        let mut scene = hasty();
        if proved {
            scene.set("UNSTUCK_PROVE_TIMEOUT", "5s");
        }
        let stale = rule("GET", "/apps/*/dynos", Reply::Stale(Some(scene.now())));
        scene.standin.fault(Rule { skip: 2, count, ..stale });
        if proved {
            scene.unstuck(&["migrate"]).code(0);
            scene.kept();
        } else {
            owed(&scene, "an old list");
            recovers(&mut scene);
        }
    }
}

fn list_is_short() {
    all_at_once([&["web", "worker"][..], &["web"]], |lacking| {
        let short = |scene: &Scene| {
            let mut list = scene.standin.dynos();
            list.retain(|dyno| !lacking.contains(&dyno["type"].as_str().unwrap()));
            rule("GET", "/apps/*/dynos", Reply::Json(Value::Array(list)))
        };
        let scene = scene();
        scene.standin.fault(Rule { skip: 1, count: Some(1), ..short(&scene) });
        scene.unstuck(&["migrate"]).code(0);
        scene.kept();

        let mut scene = hasty();
        scene.standin.set_ailments(ailing("web", Ailment::IgnoresRestart, None));
        scene.standin.fault(Rule { skip: 2, ..short(&scene) });
        let ran = owed(&scene, "a short list");
        assert!(ran.err.contains("0 of 2 web dynos are listed"), "{ran:?}");
        recovers(&mut scene);

        let mut scene = hasty();
        scene.standin.set_ailments(ailing("web", Ailment::IgnoresRestart, None));
        scene.standin.fault(Rule { skip: 1, ..short(&scene) });
        scene.standin.fault(rule("GET", "/apps/*/formation", Reply::Json(json!([]))));
        let ran = owed(&scene, "a short list and no formation");
        assert!(ran.err.contains("does not tell how many web dynos are to run"), "{ran:?}");
        recovers(&mut scene);
    });
}

fn crashes() {
    let scene = scene();
    scene.standin.set_ailments(ailing("web.1", Ailment::CrashesOnBoot, None));
    let ran = scene.unstuck(&["migrate", "--json"]).code(0);
    assert_eq!(ran.json()["restart"]["healthy"], false);
    assert!(ran.err.contains("web.1 crashed; its last log lines"), "{ran:?}");
    assert_eq!(scene.debts(), [""; 0]);
    let seq = scene.now();
    scene.unstuck(&["migrate"]).code(0);
    assert_eq!(scene.requests(seq), [""; 0], "no restart loop");
    scene.migration(3, "three", "sql 'create table three (a int)'");
    scene.standin.fault(rule("POST", "*", Reply::error(422, "made_up")));
    scene.unstuck(&["migrate", "--require-healthy"]).code(4);
    assert_eq!(scene.debts(), [""; 0]);
}

fn stays_starting() {
    for (args, code) in [(&["migrate", "--json"][..], 0), (&["migrate", "--json", "--require-healthy"], 4)] {
        let mut scene = scene();
        scene.set("UNSTUCK_HEALTH_TIMEOUT", "500ms");
        scene.standin.set_ailments(ailing("web.2", Ailment::StaysStarting, None));
        let report = scene.unstuck(args).code(code).json();
        assert_eq!((&report["restart"]["state"], &report["restart"]["healthy"]), (&json!("proved"), &json!(false)));
        scene.kept();
        scene.restored();
    }
}

fn none_to_run() {
    let scene = scene();
    assert!(scene.standin.scale("web", 0));
    let seq = scene.now();
    assert_eq!(scene.unstuck(&["migrate", "--json"]).code(0).json()["restart"]["state"], "proved");
    assert_eq!(scene.writes(seq), [""; 0]);
    scene.kept();
    scene.restored();
}

fn sleeps() {
    let scene = scene();
    assert!(scene.standin.scale("web", 1));
    scene.standin.set_ailments(ailing("web.1", Ailment::IgnoresRestart, None));
    let mut list = scene.standin.dynos();
    list.iter_mut().filter(|dyno| dyno["name"] == "web.1").for_each(|dyno| dyno["state"] = json!("idle"));
    scene.standin.fault(rule("GET", "/apps/*/dynos", Reply::Json(Value::Array(list))));
    assert_eq!(scene.unstuck(&["migrate", "--json"]).code(0).json()["restart"]["state"], "proved");
    assert_eq!(scene.debts(), [""; 0]);
}

/// Lets the restart take effect late, and does something in between.
fn during_proof(scene: &Scene, deed: impl FnOnce()) {
    scene.standin.fault(Rule { act: Act::Late(1000), ..rule("DELETE", "*", Reply::Normal) });
    let seq = scene.now();
    let run = scene.start(&["migrate"]);
    let asked = scene.standin.wait_for(
        seq,
        Duration::from_secs(20),
        |entry| matches!(&entry.fact, Fact::Request { method, status: Some(_), .. } if method == "DELETE"),
    );
    assert!(asked.is_some());
    deed();
    run.end().code(0);
    scene.standin.clear_faults();
    scene.kept();
    scene.restored();
}

fn scaled() {
    all_at_once([3, 1, 0], |quantity| {
        let scene = scene();
        during_proof(&scene, || assert!(scene.standin.scale("web", quantity)));
    });
}

fn cycled_during_proof() {
    let scene = scene();
    during_proof(&scene, || assert!(scene.standin.cycle("web.2")));
}

fn boots_meanwhile() {
    for (path, body) in [("scale", json!({"web": 3})), ("cycle", json!({"dyno": "web.1"}))] {
        let scene = scene();
        let boot = switch(&scene, "POST", path, &body);
        scene.migration(2, "two", &format!("{CHANGE}; {boot}; sql 'create table three (a int)'"));
        scene.unstuck(&["migrate"]).code(0);
        scene.kept();

        // It may have seen a table that is gone again, which nothing else tells of.
        let undone = format!("sql 'create table x (a int)'; {boot}; sql 'drop table x'; false");
        scene.migration(3, "three", &undone.replace("\"web\":3", "\"web\":4"));
        let report = scene.unstuck(&["migrate", "--json"]).code(3).json();
        assert_eq!(report["restart"]["state"], "proved", "{path}");
        scene.kept();
        scene.migration(3, "three", "true");
        scene.restored();
    }
}

/// Runs `unstuck` with as much memory as no answer may make it take.
fn bounded(scene: &Scene) -> Ran {
    let command = scene.command(&["migrate", "--json"]);
    let mut bounded = Command::new("prlimit");
    bounded.args(["--as=268435456", "--"]).arg(command.get_program()).args(command.get_args());
    Ran::of(bounded.current_dir(scene.root.path()).env_clear().envs(&scene.env).output().unwrap())
}

fn unreadable() {
    let head = b"HTTP/1.1 200 OK\r\nDate: Sun, 22 Nov 2026 22:00:00 GMT\r\n";
    let answer = |body: &[u8]| {
        let length = format!("Content-Length: {}\r\n\r\n", body.len());
        [head, length.as_bytes(), body].concat()
    };
    let mut answers: Vec<(&str, Option<Vec<u8>>)> = vec![
        ("invalid UTF-8", Some(answer(b"[{\"id\": \"\xff\xfe\", \"name\": \"\xc3\x28\"}]"))),
        ("20 MB", Some(answer(&[b"[", &vec![b' '; 20 << 20][..], b"]"].concat()))),
        ("nothing", Some(answer(b""))),
        ("no Date", Some(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]".to_vec())),
        ("an endless answer", None),
    ];
    for (what, reply) in garbage() {
        if let Reply::Raw { body, .. } = reply {
            answers.push((what, Some(answer(body.as_bytes()))));
        }
    }
    answers.push(("a cut answer", Some(answer(b"[]").strip_suffix(b"]").unwrap().to_vec())));
    all_at_once(answers, |(what, answer)| {
        let mut scene = impatient();
        scene.migration(2, "two", &format!("{CHANGE}; touch spoilt"));
        let spoilt = scene.path("spoilt");
        let relay = Relay::start(scene.standin.url(), move |line| match &answer {
            _ if !spoilt.exists() || !line.contains("/dynos") => Deed::Pass,
            Some(answer) => Deed::Answer(answer.clone()),
            None => {
                let chunk = [b"100000\r\n", &vec![b' '; 1 << 20][..], b"\r\n"].concat();
                Deed::Endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunk)
            }
        });
        scene.set("HEROKU_HOST", &relay.url());
        let ran = bounded(&scene);
        assert_eq!((ran.code, scene.debts().len()), (Some(4), 1), "{what}: {ran:?}");
        assert!(ran.err.contains("the dynos cannot be listed"), "{what}: {ran:?}");
        fs::remove_file(scene.path("spoilt")).unwrap();
        recovers(&mut scene);
    });
}

fn redirects() {
    let elsewhere = Relay::listener(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]");
    all_at_once([(301, "127.0.0.1"), (302, "localhost"), (307, "localhost"), (308, "127.0.0.1")], |(status, name)| {
        let to = format!("http://{name}:{}/apps", elsewhere.port);
        let mut scene = hasty();
        let before = scene.standin.fault(rule("GET", "*", Reply::Redirect { status, to: to.clone() }));
        let ran = refused(&scene, name);
        assert!(ran.err.contains(&format!("redirected to {name}, which is not followed")), "{ran:?}");
        scene.standin.remove_fault(before);

        let reply = Reply::Redirect { status, to };
        scene.standin.fault(Rule { act: Act::None, ..rule("DELETE", "*", reply) });
        owed(&scene, name);
        recovers(&mut scene);
    });
    assert_eq!(elsewhere.seen(), "");
}

fn slow_loris() {
    let requests = [("GET /apps/", false), ("/dynos ", true), ("DELETE ", true)];
    let cases = requests.iter().flat_map(|request| [(request, true), (request, false)]);
    all_at_once(cases, |(&(wanted, later), endless)| {
        let mut scene = impatient();
        scene.migration(2, "two", &format!("{CHANGE}; touch spoilt"));
        let spoilt = scene.path("spoilt");
        let relay = Relay::start(scene.standin.url(), move |line| {
            if !line.contains(wanted) || spoilt.exists() != later {
                Deed::Pass
            } else if endless {
                Deed::Endless(b"HTTP/1.1 200 OK\r\n", b"X-Again: and again\r\n".to_vec())
            } else {
                Deed::Drip(
                    format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{}\r\n\r\n[]", "X: y\r\n".repeat(20)).into(),
                )
            }
        });
        let good = scene.env.clone();
        scene.set("HEROKU_HOST", &relay.url());
        if later {
            owed(&scene, wanted)
        } else {
            refused(&scene, wanted)
        };
        scene.env = good;
        recovers(&mut scene);
    });
}

/// Runs `unstuck` where `hosts` and `resolv.conf` of the scene stand in the place of the system's.
fn with_own_names(scene: &Scene) -> Ran {
    let command = scene.command(&["migrate", "--json"]);
    let mut inside = Command::new("unshare");
    inside.args(["--map-root-user", "--mount", "--", "sh", "-ec"]);
    inside.arg("mount --bind hosts /etc/hosts; mount --bind resolv.conf /etc/resolv.conf; exec \"$@\"").arg("sh");
    inside.arg(command.get_program()).args(command.get_args());
    Ran::of(inside.current_dir(scene.root.path()).env_clear().envs(&scene.env).output().unwrap())
}

/// The API goes by name, and these are the addresses of that name.
fn by_name(scene: &mut Scene, addresses: &[&str]) {
    let hosts: Vec<String> = addresses.iter().map(|address| format!("{address} localhost\n")).collect();
    fs::write(scene.path("hosts"), hosts.concat()).unwrap();
    // Nobody answers there.
    fs::write(scene.path("resolv.conf"), "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n").unwrap();
    let url = scene.standin.url().replace("127.0.0.1", "localhost");
    scene.set("HEROKU_HOST", &url);
}

fn no_such_name() {
    let mut scene = impatient();
    by_name(&mut scene, &[]);
    let ran = with_own_names(&scene);
    assert_eq!((ran.code, scene.ran(), scene.debts()), (Some(5), vec!["1".to_owned()], vec![]), "{ran:?}");
    assert!(ran.err.contains("the host's name cannot be looked up"), "{ran:?}");

    // A connection that stands needs no name, so it ends with the list of before.
    by_name(&mut scene, &["127.0.0.1"]);
    let rule = rule("GET", "/apps/*/releases", Reply::Normal);
    let headers = BTreeMap::from([("Connection".to_owned(), "close".to_owned())]);
    scene.standin.fault(Rule { headers: headers.clone(), ..rule });
    scene.migration(2, "two", &format!("{CHANGE}; : > hosts"));
    let ran = with_own_names(&scene);
    assert_eq!((ran.code, scene.debts().len()), (Some(4), 1), "{ran:?}");
    assert!(ran.err.contains("the host's name cannot be looked up"), "{ran:?}");
    recovers(&mut scene);
}

fn first_address_is_dead() {
    for silent in [false, true] {
        let mut scene = scene();
        scene.set("UNSTUCK_API_TIMEOUT", "2s");
        by_name(&mut scene, &["::1", "127.0.0.1"]);
        let port = scene.standin.url().rsplit(':').next().unwrap().parse().unwrap();
        let _held = silent.then(|| silence((Ipv6Addr::LOCALHOST, port).into()));
        let ran = with_own_names(&scene);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        scene.kept();
    }
}

/// An address where connections are neither accepted nor refused, as long as this is kept.
fn silence(address: SocketAddr) -> (Socket, Vec<TcpStream>) {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
    socket.set_only_v6(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket.listen(0).unwrap();
    let mut queue = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        queue.push(stream);
    }
    (socket, queue)
}

fn certificates() {
    let files = Certificates::new();
    let authority = files.self_signed("authority", "authority");
    let stranger = files.self_signed("stranger", "stranger");
    let (good, other) = ("subjectAltName=IP:127.0.0.1", "subjectAltName=DNS:example.com");
    for (name, authority_of_it, extensions, days, words) in [
        ("expired", &authority, good, -1, "has expired"),
        ("other", &authority, other, 2, "is for another name"),
        ("unknown", &stranger, good, 2, "is signed by an authority that is not known here"),
    ] {
        let mut scene = impatient();
        let plain = scene.env.clone();
        let bad = files.signed(name, authority_of_it, "server", extensions, days);
        let relay = Relay::start_tls(scene.standin.url(), &bad);
        scene.set("SSL_CERT_FILE", authority.file.to_str().unwrap());
        scene.set("HEROKU_HOST", &format!("https://127.0.0.1:{}", relay.port));
        let ran = refused(&scene, name);
        assert!(ran.err.contains(words), "{name}: {ran:?}");

        let relay =
            Relay::start_tls(scene.standin.url(), &files.signed(&format!("{name}-2"), &authority, "server", good, 2));
        scene.set("HEROKU_HOST", &format!("https://127.0.0.1:{}", relay.port));
        scene.set("UNSTUCK_PROVE_TIMEOUT", "5s").set("UNSTUCK_API_TIMEOUT", "10s");
        scene.unstuck(&["migrate"]).code(0);
        scene.kept();
        scene.env = plain;
    }
}

fn proxies() {
    let proxy = Relay::listener(b"HTTP/1.1 200 Connection established\r\n\r\n");
    let set = |scene: &mut Scene| {
        for name in ["http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
            scene.set(name, &proxy.url());
        }
    };
    let mut scene = scene();
    set(&mut scene);
    scene.unstuck(&["migrate"]).code(0);
    scene.kept();
    assert_eq!(proxy.seen(), "", "an API on loopback is asked without it");

    let mut scene = impatient();
    set(&mut scene);
    scene.unset("HEROKU_HOST");
    refused(&scene, "a proxy");
    let seen = proxy.seen();
    assert!(seen.starts_with("CONNECT api.heroku.com:443 HTTP/1.1\r\n"), "{seen}");
    assert!(!seen.contains(TOKEN) && !seen.contains("/apps"), "{seen}");
}
