//! Answers of Heroku's API that no API would give.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use unstuck::adapters::heroku::{Heroku, HerokuOptions, Host};
use unstuck::ports::{ApiError, Platform};
use unstuck::secret::Secret;

use crate::raw::Reply::{Close, Send};
use crate::raw::{Reply, Server};
use crate::{SECRET, bounded, cases, shown};

fn client(server: &Server) -> Heroku {
    let host = Host::from_env_value(Some(&format!("http://127.0.0.1:{}", server.port()))).unwrap();
    // Shorter than the pause before a second attempt.
    let timeout = Duration::from_millis(80);
    let options = HerokuOptions { host, token: Secret::new(SECRET), app: "my-app".to_owned(), timeout };
    Heroku::new(options, &BTreeMap::new()).unwrap()
}

/// Asks for everything. Whatever is answered, an error names what was asked and no secret.
fn ask(server: &Server, megabytes: usize) {
    bounded(megabytes, || {
        let heroku = client(server);
        let inert = |error: ApiError| {
            let text = format!("{error:?}");
            assert!(!text.contains(SECRET), "{text}");
            assert!(
                ["GET /apps/my-app", "POST /apps/my-app", "DELETE /apps/my-app", "GET the log"]
                    .iter()
                    .any(|start| error.message.starts_with(start)),
                "{text}"
            );
            shown(&error.to_string());
        };
        let _ = heroku.app().map_err(inert);
        if let Ok(list) = heroku.dynos().map_err(inert) {
            list.dynos
                .iter()
                .for_each(|dyno| shown(&format!("{} {} {} {}", dyno.name, dyno.kind, dyno.state, dyno.created_at)));
        }
        let _ = heroku.formation().map_err(inert);
        let _ = heroku.releases(2).map_err(inert);
        let _ = heroku.preboot().map_err(inert);
        let _ = heroku.restart_type("web").map_err(inert);
        if let Ok(lines) = heroku.log_lines("web.1", 3).map_err(inert) {
            assert!(lines.len() <= 3 && lines.iter().all(|line| !line.contains(SECRET) && line.len() <= 8_000));
            for line in lines {
                shown(&line);
            }
        }
    });
}

const ANSWERS: [&str; 6] = [
    r#"{"id": "01234567-89ab-cdef-0123-456789abcdef", "name": "my-app", "generation": "cedar"}"#,
    r#"[{"id": "i", "name": "web.1", "type": "web", "state": "up", "created_at": "2026-11-22T16:33:07Z", "release": {"version": 42}, "quantity": 1, "version": 3, "status": "pending"}]"#,
    r#"{"enabled": true, "logplex_url": "http://127.0.0.1:1/x"}"#,
    r#"{"id": "bad", "message": "pl4nted-s3cret \u001b[31m\u202e"}"#,
    "[]",
    "2026-11-22T22:00:00+00:00 heroku[web.1]: pl4nted-s3cret \u{1b}[2J\r\n\u{202e}x\n",
];

/// One of the usual answers with a place changed.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let odd = select(vec![
        "",
        "\"",
        "null",
        "1e999",
        "-1",
        "18446744073709551616",
        "{",
        "[",
        "\\ud800",
        "\u{1b}",
        "9999-99-99T99:99:99Z",
        "pl4nted-s3cret",
        "\"id\": 1, ",
    ]);
    let bytes = prop_oneof![odd.prop_map(|odd| odd.as_bytes().to_vec()), vec(any::<u8>(), 0..9)];
    (select(&ANSWERS[..]), any::<Index>(), any::<Index>(), bytes).prop_map(|(answer, from, to, bytes)| {
        let (a, b) = (from.index(answer.len()), to.index(answer.len()));
        [&answer.as_bytes()[..a.min(b)], &bytes, &answer.as_bytes()[a.max(b)..]].concat()
    })
}

fn header() -> impl Strategy<Value = String> {
    let name = select(vec![
        "Content-Range",
        "Next-Range",
        "Retry-After",
        "Date",
        "Location",
        "Transfer-Encoding",
        "Content-Encoding",
        "Set-Cookie",
        "Request-Id",
    ]);
    let value = prop_oneof![
        "[ -~]{0,40}",
        select(vec![
            "18446744073709551615",
            "99999999999999999999",
            "-1",
            "Thu, 01 Jan 1970 00:00:00 GMT",
            "Fri, 31 Dec 9999 23:59:60 GMT",
            "Mon, 01 Jan -9999 00:00:00 +2359",
            "gzip",
            "chunked",
            "id ..; max=1000",
            "http://evil.example/",
            "//evil",
            "]id 1..2[",
            "\u{9b}31m",
            "pl4nted-s3cret",
        ])
        .prop_map(str::to_owned),
    ];
    (name, value).prop_map(|(name, value)| format!("{name}: {value}\r\n"))
}

fn reply() -> impl Strategy<Value = Vec<u8>> {
    let status = prop_oneof![4 => Just(200_u16), 1 => select(vec![100, 204, 206, 301, 302, 307, 401, 402, 403, 404, 422, 429, 500, 503, 999])];
    (status, vec(header(), 0..3), body(), any::<bool>()).prop_map(|(status, headers, body, dated)| {
        let date = if dated { "Date: Sun, 22 Nov 2026 22:00:00 GMT\r\n" } else { "" };
        [
            format!("HTTP/1.1 {status} x\r\n{date}{}Content-Length: {}\r\n\r\n", headers.concat(), body.len())
                .as_bytes(),
            &body,
        ]
        .concat()
    })
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn any_answer(replies in vec(reply(), 8..12)) {
        ask(&Server::start(replies.into_iter().map(Close)), 16);
    }

    #[test]
    fn any_bytes(replies in vec(vec(any::<u8>(), 0..200), 8..12)) {
        ask(&Server::start(replies.into_iter().map(Close)), 16);
    }

    #[test]
    fn the_same_answer_to_everything(reply in reply()) {
        let again = || -> Reply { Send(reply.clone()) };
        ask(&Server::start((0..150).map(|_| again())), 32);
    }
}

#[test]
fn answers_that_are_huge_or_deep() {
    let answer = |head: &str, body: &str| {
        format!(
            "HTTP/1.1 200 x\r\nDate: Sun, 22 Nov 2026 22:00:00 GMT\r\n{head}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    };
    let long = "x".repeat(1 << 20);
    for body in [
        "[".repeat(500_000),
        "{\"a\":".repeat(200_000),
        format!("\"{long}\""),
        format!(r#"{{"id": "{long}", "name": "{long}", "message": "{long}"}}"#),
        "[1,".repeat(100_000),
        format!("[{}]", vec!["{}"; 300_000].join(",")),
        long.clone(),
        "\n".repeat(1 << 20),
    ] {
        ask(&Server::start((0..12).map(|_| Close(answer("", &body)))), 64);
        ask(&Server::start((0..12).map(|_| Close([b"HTTP/1.1 500 x\r\n\r\n", body.as_bytes()].concat()))), 64);
        ask(&Server::start((0..12).map(|_| Close(body.clone().into_bytes()))), 64);
    }
    let head = format!("X: {}\r\n", "x".repeat(4 << 20));
    ask(&Server::start((0..12).map(|_| Close(answer(&head, "[]")))), 64);
    let heads = "X: y\r\n".repeat(100_000);
    ask(&Server::start((0..12).map(|_| Close(answer(&heads, "[]")))), 64);
}

#[test]
fn a_list_of_huge_pages_is_given_up() {
    let dyno = format!(r#"[{{"id": "i", "name": "{}", "type": "web", "quantity": 1}}]"#, "x".repeat(6 << 20));
    let page = |number: usize| {
        format!("HTTP/1.1 206 x\r\nNext-Range: id {number}..\r\nContent-Length: {}\r\n\r\n{dyno}", dyno.len())
            .into_bytes()
    };
    let server = Server::start((0..100).map(|number| Send(page(number))));
    let host = Host::from_env_value(Some(&format!("http://127.0.0.1:{}", server.port()))).unwrap();
    let options =
        HerokuOptions { host, token: Secret::new(SECRET), app: "my-app".to_owned(), timeout: Duration::from_mins(1) };
    let error = bounded(128, || Heroku::new(options, &BTreeMap::new()).unwrap().formation().unwrap_err());
    assert!(error.message.ends_with("the list does not end"), "{error}");
    assert!(server.requests().len() < 5, "{}", server.requests().len());
}
