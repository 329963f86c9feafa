//! `unstuck tail`: the log as the platform's own command prints it, whole however often it breaks off, and what matters of it.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail as tests do")]

#[path = "support/live.rs"]
mod live;
#[path = "support/rails_app.rs"]
mod rails_app;
#[path = "support/scene.rs"]
mod scene;

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use live::Live;
use rails_app::{Database, RailsApp};
use scene::Scene;
use serde_json::Value;
use unstuck_standin::{Access, Fact, Generation, Mode, Options, Reply, Rule};

fn sessions(reply: Reply, count: u32) -> Rule {
    Rule { path: "/logplex/*".into(), reply, count: Some(count), ..Rule::default() }
}

/// A scene whose log holds these lines of one dyno beside those of the start.
fn scene(lines: &[&str]) -> Scene {
    let scene = Scene::new();
    for line in lines {
        scene.standin.say("app", "web.1", line);
    }
    scene
}

#[test]
fn it_prints_the_log_as_it_is() {
    let scene = scene(&["one", "two", ""]);
    scene.standin.say("heroku", "router", "at=info method=GET path=\"/\" status=200");
    let ran = scene.unstuck(&["tail", "--no-tail", "-n", "1500"]).code(0);
    // An empty message keeps the space before it.
    let log: Vec<String> = scene.standin.log();
    assert_eq!(ran.out.lines().collect::<Vec<_>>(), log);
    assert_eq!(ran.err, "");

    let last = scene.unstuck(&["tail", "--no-tail", "-n", "2", "-p", "web", "-s", "app"]).code(0);
    assert_eq!(messages(&last.out), ["two", ""]);
    let json = scene.unstuck(&["tail", "--no-tail", "-d", "web.1", "-s", "app", "--json"]).code(0);
    let documents: Vec<Value> = json.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(documents.len(), 3);
    assert_eq!(
        (&documents[0]["source"], &documents[0]["process"], &documents[0]["message"]),
        (&"app".into(), &"web.1".into(), &"one".into())
    );
    assert!(documents[0]["at"].as_str().unwrap().parse::<Timestamp>().is_ok());
}

fn messages(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.split_once("]: ")).map(|(_, message)| message).collect()
}

#[test]
fn colours_are_for_those_who_want_them_and_the_apps_own_are_taken_out() {
    let scene = scene(&["\u{1b}[1mPost Load\u{1b}[0m\tx\u{7}", "user\u{202e}gpj"]);
    let plain = scene.unstuck(&["tail", "--no-tail", "-n", "2"]).code(0);
    assert_eq!(messages(&plain.out), ["Post Load    x", "user\\u{202e}gpj"]);
    let painted = scene.command(&["tail", "--no-tail", "-n", "2", "--color", "always"]).output().unwrap();
    scene::secrets::keep(&painted);
    let painted = String::from_utf8(painted.stdout).unwrap();
    assert!(painted.contains("app[web.1]:\u{1b}[0m Post Load"), "{painted:?}");
}

/// Each line twice with one stamp, while sessions are cut, refused as expired, and come out of order.
#[test]
fn a_log_that_breaks_off_is_taken_up_without_loss_and_without_repetition() {
    let scene = scene(&["not asked for", "old", "first"]);
    scene.standin.set_log_disorder(true);
    let mut live = Live::start(scene.command(&["tail", "-n", "2", "-s", "app"]));
    live.wait_for("first");
    for (round, reply) in [
        Reply::CloseAfter(30),
        Reply::error(404, "expired"),
        Reply::Reset,
        Reply::Raw { status: 410, body: String::new() },
        Reply::Cut,
    ]
    .into_iter()
    .enumerate()
    {
        scene.standin.fault(sessions(reply, 2));
        // Every open session ends now.
        let seq = scene.now();
        scene.standin.cut_streams();
        for number in 0..20 {
            let at = Timestamp::now();
            for _ in 0..2 {
                scene.standin.say_at(at, "app", "web.1", &format!("round {round} number {number}"));
            }
        }
        scene.standin.wait_for(seq, Duration::from_secs(30), is_session).unwrap();
        scene.standin.clear_faults();
        scene.standin.cut_streams();
        scene.standin.say("app", "web.1", &format!("mark {round}"));
        scene.standin.say("app", "web.1", "filler, since neighbours are swapped");
        live.wait_for(&format!("mark {round}"));
    }
    scene.standin.say("app", "web.1", "the end");
    live.wait_for("the end");
    let ran = live.signal(libc::SIGINT).code(130);
    let mut counts = BTreeMap::new();
    for message in messages(&ran.out) {
        *counts.entry(message.to_owned()).or_insert(0) += 1;
    }
    let numbered: Vec<(&String, &i32)> = counts.iter().filter(|(message, _)| message.starts_with("round")).collect();
    assert_eq!(numbered.len(), 100, "{counts:#?}");
    assert!(numbered.iter().all(|(_, count)| **count == 2), "{numbered:#?}");
    assert_eq!((counts.get("not asked for"), counts["old"], counts["first"], counts["the end"]), (None, 1, 1, 1));
    assert_eq!(ran.err, "", "nothing was lost, so nothing is said");
}

fn is_session(entry: &unstuck_standin::Entry) -> bool {
    matches!(&entry.fact, Fact::Request { path, .. } if path.starts_with("/logplex/"))
}

#[test]
fn a_connection_that_is_silent_for_long_is_replaced() {
    let mut scene = scene(&["first"]);
    scene.set("UNSTUCK_API_TIMEOUT", "300ms");
    let mut live = Live::start(scene.command(&["tail", "-n", "1"]));
    live.wait_for("first");
    let seq = scene.now();
    scene.standin.wait_for(seq, Duration::from_secs(30), is_session).unwrap();
    scene.standin.say("app", "web.1", "second");
    live.wait_for("second");
    let ran = live.signal(libc::SIGINT).code(130);
    assert_eq!((messages(&ran.out), ran.err.as_str()), (vec!["first", "second"], ""));
}

#[test]
fn lines_that_are_lost_are_said_to_be() {
    let scene = scene(&["first"]);
    let mut live = Live::start(scene.command(&["tail", "-n", "1"]));
    live.wait_for("first");
    let down = scene.standin.fault(Rule { path: "/apps/*/log-sessions".into(), reply: Reply::Drop, ..Rule::default() });
    scene.standin.cut_streams();
    for number in 0..1_600 {
        scene.standin.say("app", "web.1", &format!("number {number}"));
    }
    assert!(scene.standin.remove_fault(down));
    live.wait_for("number 1599");
    let ran = live.signal(libc::SIGTERM).code(143);
    assert!(ran.err.contains("lines may be missing here"), "{ran:?}");
    assert!(!ran.out.contains("number 99\n"), "the past is 1,500 lines long");
}

#[test]
fn whoever_has_seen_enough_ends_it_quietly() {
    let scene = scene(&[]);
    let mut child =
        scene.command(&["tail", "-s", "app"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    // Nothing more is said that could find the pipe closed.
    let until = Instant::now() + Duration::from_secs(30);
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < until, "it lives on although nobody reads");
        std::thread::sleep(Duration::from_millis(20));
    }
    let ran = scene::Ran::of(child.wait_with_output().unwrap()).code(0);
    assert_eq!(ran.err, "");
}

#[test]
fn an_api_that_refuses_is_an_error() {
    let scene = scene(&[]);
    scene.standin.set_access(Access::Revoked);
    let ran = scene.unstuck(&["tail", "--json"]).code(1);
    assert_eq!(ran.json()["error"]["kind"], "api");
    scene.standin.set_access(Access::Full);
    scene.standin.fault(Rule {
        path: "/apps/*/log-sessions".into(),
        reply: Reply::error(403, "forbidden"),
        ..Rule::default()
    });
    assert!(scene.unstuck(&["tail"]).code(1).err.contains("403 forbidden"));
    scene.unstuck(&["tail", "-d", "web.1", "-p", "web"]).code(2);
}

#[test]
fn fir_has_no_past() {
    let scene = Scene::with(Options { generation: Generation::Fir, ..Options::default() });
    let ran = scene.unstuck(&["tail", "--no-tail"]).code(2);
    assert!(ran.err.contains("keeps no log of the past"), "{ran:?}");
    let mut live = Live::start(scene.command(&["tail", "-p", "web"]));
    scene.standin.wait_for(0, Duration::from_secs(30), is_session).unwrap();
    scene.standin.say("app", "web-1234abcde-123ab", "now");
    live.wait_for("now");
    let seq = scene.now();
    scene.standin.cut_streams();
    scene.standin.wait_for(seq, Duration::from_secs(30), is_session).unwrap();
    scene.standin.say("app", "web-1234abcde-123ab", "later");
    live.wait_for("later");
    let ran = live.signal(libc::SIGINT).code(130);
    assert!(ran.err.contains("lines may be missing here"), "{ran:?}");
}

const TROUBLE: [(&str, &str, &str); 15] = [
    (
        "heroku",
        "router",
        "at=info method=GET path=\"/posts/1\" request_id=a dyno=web.2 connect=0ms service=8ms status=200 bytes=9",
    ),
    (
        "heroku",
        "router",
        "at=info method=POST path=\"/posts?key=x\" request_id=b dyno=web.2 connect=0ms service=8ms status=500 bytes=9",
    ),
    ("app", "web.2", "F, [2026-11-23T04:00:00.1 #4] FATAL -- : [01234567-89ab-cdef-0123-456789abcdef]   "),
    (
        "app",
        "web.2",
        "[01234567-89ab-cdef-0123-456789abcdef] ActiveModel::UnknownAttributeError (unknown attribute 'title' for Post.):",
    ),
    (
        "app",
        "web.1",
        "I, [2026-11-23T04:00:00.1 #4]  INFO -- : [89abcdef-89ab-cdef-0123-456789abcdef] Started GET \"/\" for 1.2.3.4",
    ),
    ("app", "web.2", "[01234567-89ab-cdef-0123-456789abcdef] app/controllers/posts_controller.rb:10:in 'create'"),
    (
        "heroku",
        "router",
        "at=info method=POST path=\"/posts?key=y\" request_id=c dyno=web.2 connect=0ms service=8ms status=500 bytes=9",
    ),
    ("heroku", "web.1", "Error R14 (Memory quota exceeded)"),
    (
        "heroku",
        "router",
        "at=error code=H27 desc=\"Client Request Interrupted\" method=GET path=\"/\" dyno=web.1 status=499",
    ),
    ("heroku", "web.1", "Restarting"),
    ("heroku", "web.1", "Stopping all processes with SIGTERM"),
    ("heroku", "web.1", "Process exited with status 143"),
    ("heroku", "worker.1", "Process exited with status 1"),
    ("heroku", "worker.1", "State changed from up to crashed"),
    ("heroku", "logplex", "Error L11 (Tail buffer overflow) -> This tail session dropped 7 messages"),
];

#[test]
fn only_what_matters_is_left_and_counted() {
    let scene = scene(&[]);
    for (source, process, text) in TROUBLE {
        scene.standin.say(source, process, text);
    }
    let json = scene.unstuck(&["tail", "--errors", "--no-tail", "--json"]).code(0);
    let documents: Vec<Value> = json.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut told: Vec<String> = documents
        .iter()
        .map(|document| {
            let text = |key: &str| document[key].as_str().unwrap().to_owned();
            format!("{} {} {} {}", text("process"), text("name"), document["count"], document["stuck"])
        })
        .collect();
    told.sort();
    let expected = [
        "logplex L11 1 false",
        "web.1 R14 1 false",
        "web.2 500 1 false",
        "web.2 500 2 false",
        "web.2 ActiveModel::UnknownAttributeError 1 true",
        "worker.1 exit 1 1 false",
    ];
    assert_eq!(told, expected);
    assert!(!json.out.contains("key=x"), "what follows the path may be a secret");

    let ran = scene.unstuck(&["tail", "--errors", "--no-tail"]).code(0);
    for wanted in [
        "web.2 ActiveModel::UnknownAttributeError: unknown attribute 'title' for Post.",
        "    app/controllers/posts_controller.rb:10:in 'create'",
        "this looks like a stuck dyno (web.2): `unstuck status` tells, `unstuck restart` heals it",
        "500: POST /posts (2 times so far)",
        "L11: (Tail buffer overflow) -> This tail session dropped 7 messages",
    ] {
        assert!(ran.out.contains(wanted), "no {wanted:?} in\n{}", ran.out);
    }
    let row = ran.out.lines().find(|line| line.trim_start().starts_with("2 ")).unwrap();
    assert!(row.ends_with("500: POST /posts (web.2)"), "{row}");
}

#[test]
fn an_exception_is_told_while_the_log_goes_on() {
    let scene = scene(&[]);
    let mut live = Live::start(scene.command(&["tail", "--errors", "-n", "0"]));
    scene.standin.wait_for(0, Duration::from_secs(30), is_session).unwrap();
    scene.standin.say("app", "web.1", "KeyError (key not found: :a):");
    scene.standin.say("app", "web.1", "app/a.rb:1:in 'a'");
    live.wait_for("KeyError: key not found: :a");
    live.wait_for("app/a.rb:1:in 'a'");
    let ran = live.signal(libc::SIGINT).code(130);
    assert!(ran.out.contains("TIMES"), "{ran:?}");
}

/// How applications log in production as of Rails 7.1: to standard output, each line tagged with its request.
const TAGGED: &str = "Rails.application.config.log_tags = [:request_id]\n\
    logger = ActiveSupport::Logger.new($stdout)\n\
    logger.formatter = Logger::Formatter.new\n\
    Rails.logger = ActiveSupport::TaggedLogging.new(logger)\n";

/// Nothing is rescued, so that Rails itself logs what went wrong.
const PLAIN_CONTROLLER: &str = "class PostsController < ActionController::API\n\
    def update = Post.find_or_create_by!(id: params[:id]).update!(request.request_parameters)\n\
    def attribute = render(plain: Post.find(params[:id]).public_send(params[:attribute]))\n\
    def show = Post.find(params[:id])\n\
    end\n";

#[test]
fn a_real_application_gives_its_stuck_dyno_away() {
    let dir = tempfile::tempdir().unwrap();
    let app = RailsApp::create(&dir.path().join("app"), &[Database::sqlite3("primary")]);
    std::fs::create_dir_all(app.root().join("config/initializers")).unwrap();
    app.write("config/initializers/log.rb", TAGGED);
    app.write("app/controllers/posts_controller.rb", PLAIN_CONTROLLER);
    let sql = |sql: &str| {
        let client = Command::new("sqlite3").arg(app.root().join("db/primary.sqlite3")).arg(sql).status();
        assert!(client.unwrap().success(), "{sql}");
    };
    sql("create table posts (id integer primary key, title varchar)");
    let env = BTreeMap::from([("LANG".into(), "C.UTF-8".into()), ("RAILS_ENV".into(), "production".into())]);
    let mode = Mode::Procfile { root: app.root().to_owned(), procfile: None, env, grace: Duration::from_secs(5) };
    let scene = Scene::with(Options { mode, formation: BTreeMap::new(), ..Options::default() });
    assert!(scene.standin.scale("web", 1) && scene.standin.wait_until_up(Duration::from_mins(1)));

    let ask = |path: &str, change: Option<&str>| {
        let url = format!("{}{path}", scene.standin.router_url());
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build().into();
        let answer = match change {
            Some(change) => agent.put(url).content_type("application/json").send(change),
            None => agent.get(url).call(),
        };
        answer.unwrap().status().as_u16()
    };
    assert_eq!(ask("/posts/1", Some(r#"{"title": "T"}"#)), 204, "the process learns its columns");
    sql("alter table posts add column subtitle varchar");

    let mut live = Live::start(scene.command(&["tail", "--errors", "--json"]));
    // The last is no fault of the application.
    let answers =
        [ask("/posts/1", Some(r#"{"subtitle": "S"}"#)), ask("/posts/1/subtitle", None), ask("/posts/99", None)];
    assert_eq!(answers, [500, 500, 404]);
    live.wait_for("ActiveModel::UnknownAttributeError");
    live.wait_for("NoMethodError");
    let ran = live.signal(libc::SIGINT).code(130);
    let documents: Vec<Value> = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let exceptions: Vec<&Value> = documents.iter().filter(|document| document["class"] == "exception").collect();
    assert_eq!(exceptions.len(), 2, "{documents:#?}");
    for (exception, name) in exceptions.iter().zip(["ActiveModel::UnknownAttributeError", "NoMethodError"]) {
        assert_eq!((&exception["name"], &exception["process"]), (&name.into(), &"web.1".into()));
        assert_eq!(exception["stuck"], true);
        assert!(exception["request_id"].as_str().is_some_and(|id| id.len() == 36), "{exception}");
        assert!(exception["lines"].to_string().contains("app/controllers/posts_controller.rb"), "{exception}");
    }
    let responses = documents.iter().filter(|document| document["name"] == "500").count();
    assert_eq!(responses, 2, "{documents:#?}");
}
