//! Log sessions.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail as tests do")]

mod common;

use std::io::{BufRead, BufReader};

use common::Client;
use serde_json::{Value, json};
use unstuck_standin::{Generation, Options, Reply, Rule, Standin};

fn standin(generation: Generation) -> Standin {
    let standin = Standin::start(Options { generation, ..Options::default() }).unwrap();
    for (source, process, text) in [("app", "web.1", "one"), ("heroku", "web.1", "two"), ("app", "worker.1", "three")] {
        standin.say(source, process, text);
    }
    standin
}

fn session(client: &Client, body: &Value) -> String {
    let made = client.post("/apps/standin-app/log-sessions", body);
    assert_eq!(made.status, 201);
    made.json()["logplex_url"].as_str().unwrap().to_owned()
}

fn messages(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.split_once("]: ")).map(|(_, message)| message).collect()
}

#[test]
fn a_session_shows_the_lines_that_it_asks_for_as_text_or_as_events() {
    let standin = standin(Generation::Cedar);
    let client = Client::new(&standin);
    let url = session(&client, &json!({"lines": 2, "tail": false}));
    assert_eq!(messages(&client.send("GET", &url, &[("authorization", "")], None).unwrap().body), ["two", "three"]);
    let url = session(&client, &json!({"dyno": "web.1", "source": "app", "lines": 100}));
    let events = client.send("GET", &url, &[("accept", "text/event-stream"), ("authorization", "")], None).unwrap();
    assert_eq!(events.headers["content-type"], "text/event-stream");
    let last = events.body.trim_end().lines().rev().take(2).collect::<Vec<_>>();
    assert!(
        last[0].starts_with("data: 20") && last[0].ends_with("+00:00 app[web.1]: one") && last[1].starts_with("id: "),
        "{last:?}"
    );
    // The other variant of the schema names the field differently.
    let url = session(&client, &json!({"dyno_name": "worker", "source": "app"}));
    assert_eq!(messages(&client.send("GET", &url, &[], None).unwrap().body), ["three"]);
}

/// Reads a stream line by line, until one holds `last`.
fn read_until(url: &str, headers: &[(&str, &str)], last: &str) -> Vec<String> {
    let mut request = ureq::get(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = request.call().unwrap().into_body().into_reader();
    let mut lines = Vec::new();
    for line in BufReader::new(body).lines().map_while(Result::ok) {
        let found = line.contains(last);
        lines.push(line);
        if found {
            return lines;
        }
    }
    panic!("the stream ended without {last}: {lines:?}")
}

#[test]
fn a_tail_goes_on_and_can_be_taken_up_where_it_broke() {
    let standin = standin(Generation::Cedar);
    let client = Client::new(&standin);
    let url = session(&client, &json!({"lines": 1, "tail": true}));
    let events = [("accept", "text/event-stream")];
    let seen = std::thread::scope(|scope| {
        let reader = scope.spawn(|| read_until(&url, &events, "four"));
        standin.say("app", "web.1", "four");
        reader.join().unwrap()
    });
    assert_eq!(messages(&seen.join("\n")).last(), Some(&"four"));
    let id = seen.iter().rev().find_map(|line| line.strip_prefix("id: ")).unwrap();
    standin.say("app", "web.1", "five");
    let resumed = read_until(&url, &[("accept", "text/event-stream"), ("last-event-id", id)], "five");
    assert_eq!(messages(&resumed.join("\n")), ["five"]);
}

#[test]
fn a_stream_can_break_be_refused_or_come_out_of_order() {
    let standin = standin(Generation::Cedar);
    let client = Client::new(&standin);
    let url = session(&client, &json!({"lines": 2, "tail": true}));
    let broken = standin.fault(Rule { path: "/logplex/*".into(), reply: Reply::CloseAfter(50), ..Rule::default() });
    assert_eq!(messages(&client.send("GET", &url, &[], None).unwrap().body), ["two", "three"]);
    assert!(standin.remove_fault(broken));
    standin.fault(Rule { path: "/logplex/*".into(), reply: Reply::error(403, "expired"), ..Rule::default() });
    assert_eq!(client.send("GET", &url, &[], None).unwrap().status, 403);
    standin.clear_faults();
    standin.set_log_disorder(true);
    let url = session(&client, &json!({"lines": 2, "dyno": "web.1"}));
    let text = client.send("GET", &url, &[], None).unwrap().body;
    assert_eq!(messages(&text), ["two", "one"]);
}

#[test]
fn fir_keeps_no_history() {
    let standin = standin(Generation::Fir);
    let client = Client::new(&standin);
    let url = session(&client, &json!({"type": "web", "lines": 100, "tail": false}));
    let seen = std::thread::scope(|scope| {
        let reader = scope.spawn(|| read_until(&url, &[], "now"));
        // Lines from before the connection are not shown, so it is said again until it is.
        while !reader.is_finished() {
            standin.say("app", "web-1234abcde-123ab", "now");
            std::thread::yield_now();
        }
        reader.join().unwrap()
    });
    assert_eq!(messages(&seen.join("\n")), ["now"]);
}
