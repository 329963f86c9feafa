//! The client of Heroku's API against servers that misbehave.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod raw;
mod standin;
mod tls;

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use unstuck::adapters::heroku::{Heroku, HerokuOptions, Host};
use unstuck::dynos::{App, Dyno, Formation, Generation, Release, ReleaseStatus};
use unstuck::error::Kind;
use unstuck::ports::{ApiError, ApiErrorKind, Platform};
use unstuck::secret::Secret;
use unstuck_standin::Reserved;

use raw::Reply::{Close, Drip, Repeat, Reset, Send, Stall};
use raw::{Reply, Server};

const TOKEN: &str = "HRKU-very-secret";
const DATE: &str = "Sun, 22 Nov 2026 22:00:00 GMT";

/// Long enough for a busy machine, where nothing waits for it.
const PATIENT: Duration = Duration::from_secs(30);
/// For the tests that wait for it.
const HASTY: Duration = Duration::from_millis(400);

fn client_at(address: &str, timeout: Duration, env: &[(&str, &str)]) -> Heroku {
    let host = Host::from_env_value(Some(address)).unwrap();
    let options = HerokuOptions { host, token: Secret::new(TOKEN), app: "my-app".to_owned(), timeout };
    let env: BTreeMap<_, _> = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Heroku::new(options, &env).unwrap()
}

fn client(server: &Server, timeout: Duration) -> Heroku {
    client_at(&format!("http://127.0.0.1:{}", server.port()), timeout, &[])
}

/// An answer with the lines of its head and a body of the right length.
fn answer(status: u16, headers: &[&str], body: &str) -> Vec<u8> {
    let (headers, length) = (headers.join("\r\n"), body.len());
    let separator = if headers.is_empty() { "" } else { "\r\n" };
    format!("HTTP/1.1 {status} x\r\nDate: {DATE}\r\n{headers}{separator}Content-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

fn ok(body: &str) -> Reply {
    Send(answer(200, &[], body))
}

fn refusal(status: u16, id: &str) -> Reply {
    Send(answer(status, &[], &format!("{{\n  \"id\": \"{id}\",\n  \"message\": \"Because of {id}.\"\n}}")))
}

fn accepted() -> Reply {
    Send(answer(202, &[], "{}"))
}

/// For the cases that wait: all wait together.
fn all_at_once<T: std::marker::Send>(cases: impl IntoIterator<Item = T>, test: impl Fn(T) + Sync) {
    let test = &test;
    thread::scope(|scope| cases.into_iter().for_each(|case| drop(scope.spawn(move || test(case)))));
}

const APP: &str =
    r#"{"id": "01234567-89ab-cdef-0123-456789abcdef", "name": "my-app", "generation": "cedar", "space": null}"#;

fn dyno(name: &str) -> String {
    format!(
        r#"{{"id": "id-of-{name}", "name": "{name}", "type": "web", "state": "up", "command": "x", "created_at": "2026-11-22T16:33:07Z",
            "release": {{"id": "r", "version": 42}}}}"#
    )
}

fn is_unreadable(error: &ApiError) -> bool {
    error.kind == ApiErrorKind::Unknown
}

/// What must hold for every error: it names the request and hides the token.
fn names_and_hides(error: &ApiError, request: &str) {
    assert!(error.message.starts_with(request), "{error}");
    assert!(!format!("{error:?}").contains(TOKEN), "{error:?}");
}

#[test]
fn requests_are_what_the_api_documents() {
    let release =
        r#"{"version": 43, "status": "pending", "created_at": "2026-11-22T21:59:00Z", "current": false, "slug": null}"#;
    let server = Server::start([
        ok(APP),
        ok(&format!("[{}]", dyno("web.1"))),
        ok(
            r#"[{"type": "web", "quantity": 2, "size": "Standard-1X"}, {"type": "worker", "quantity": 0, "command": "bin/jobs"}]"#,
        ),
        Send(answer(206, &["Next-Range: version ..42; max=2, order=desc"], &format!("[{release}]"))),
        ok(release),
        ok(r#"{"name": "preboot", "enabled": true}"#),
        refusal(404, "not_found"),
        accepted(),
        accepted(),
    ]);
    let heroku = client(&server, PATIENT);

    let id = "01234567-89ab-cdef-0123-456789abcdef".to_owned();
    assert_eq!(heroku.app().unwrap(), App { id, name: "my-app".to_owned(), generation: Generation::Cedar });
    let dynos = heroku.dynos().unwrap();
    assert_eq!(dynos.date, "2026-11-22T22:00:00Z".parse().unwrap());
    let web = Dyno {
        id: "id-of-web.1".to_owned(),
        name: "web.1".to_owned(),
        kind: "web".to_owned(),
        state: "up".to_owned(),
        created_at: "2026-11-22T16:33:07Z".parse().unwrap(),
        release: Some(42),
    };
    assert_eq!(dynos.dynos, [web]);
    let of = |kind: &str, quantity, command: &str| Formation {
        kind: kind.to_owned(),
        quantity,
        command: command.to_owned(),
    };
    assert_eq!(heroku.formation().unwrap(), [of("web", 2, ""), of("worker", 0, "bin/jobs")]);
    let created_at = "2026-11-22T21:59:00Z".parse().unwrap();
    let pending = Release { version: 43, status: ReleaseStatus::Pending, created_at };
    assert_eq!(heroku.releases(2).unwrap(), std::slice::from_ref(&pending));
    assert_eq!(heroku.release(43).unwrap(), pending);
    assert!(heroku.preboot().unwrap());
    assert!(!heroku.preboot().unwrap());
    heroku.restart_type("web").unwrap();
    heroku.restart_dyno("web.1").unwrap();

    let expected = [
        ("GET /apps/my-app", "3.sdk", None),
        ("GET /apps/my-app/dynos", "3", Some("id ..; max=1000")),
        ("GET /apps/my-app/formation", "3", Some("id ..; max=1000")),
        ("GET /apps/my-app/releases", "3", Some("version ..; max=2, order=desc")),
        ("GET /apps/my-app/releases/43", "3", None),
        ("GET /apps/my-app/features/preboot", "3", None),
        ("GET /apps/my-app/features/preboot", "3", None),
        ("DELETE /apps/my-app/formations/web", "3", None),
        ("DELETE /apps/my-app/dynos/web.1", "3", None),
    ];
    let requests = server.requests();
    assert_eq!(requests.len(), expected.len());
    for (request, (line, version, range)) in requests.iter().zip(expected) {
        assert_eq!(request.line(), line);
        assert_eq!(request.header("Accept"), Some(format!("application/vnd.heroku+json; version={version}").as_str()));
        assert_eq!(request.header("Range"), range, "{line}");
        assert_eq!(request.header("Authorization"), Some(format!("Bearer {TOKEN}").as_str()));
        assert_eq!(request.header("User-Agent"), Some(concat!("unstuck/", env!("CARGO_PKG_VERSION"))));
    }
    assert_eq!(server.connections(), 1, "a restart uses the connection that a look opened");
}

#[test]
fn generations_that_are_not_known_are_taken_for_the_newest() {
    for (generation, expected) in [
        (r#", "generation": "cedar""#, Generation::Cedar),
        (r#", "generation": {"id": "01234567-89ab-cdef-0123-456789abcdef", "name": "fir"}"#, Generation::Fir),
        (r#", "generation": "fir""#, Generation::Fir),
        (r#", "generation": "oak""#, Generation::Fir),
        (r#", "generation": null"#, Generation::Cedar),
        ("", Generation::Cedar),
    ] {
        let server = Server::start([ok(&format!(r#"{{"id": "i", "name": "n"{generation}}}"#))]);
        assert_eq!(client(&server, PATIENT).app().unwrap().generation, expected);
    }
}

#[test]
fn a_dyno_may_be_in_a_state_that_is_not_known_and_run_no_release() {
    let strange = dyno("web.1").replace("\"up\"", "\"napping\"").replace(r#"{"id": "r", "version": 42}"#, "null");
    let server = Server::start([ok(&format!("[{strange}]"))]);
    let dynos = client(&server, PATIENT).dynos().unwrap().dynos;
    assert_eq!((dynos[0].state.as_str(), dynos[0].release), ("napping", None));
}

#[test]
fn a_refusal_is_final_and_says_why() {
    for (status, id, kind, hint) in [
        (401, "unauthorized", ApiErrorKind::Unauthorized, Some("heroku authorizations:create")),
        (402, "delinquent", ApiErrorKind::Forbidden, Some("bill")),
        (403, "forbidden", ApiErrorKind::Forbidden, Some("scopes")),
        (403, "two_factor", ApiErrorKind::Forbidden, Some("second factor")),
        (404, "not_found", ApiErrorKind::NotFound, Some("heroku apps")),
        (409, "conflict", ApiErrorKind::Rejected, None),
        (422, "invalid_params", ApiErrorKind::Rejected, None),
    ] {
        let server = Server::start([refusal(status, id), refusal(status, id), ok(APP)]);
        let heroku = client(&server, PATIENT);
        let text = format!("{status} {id}: Because of {id}.");
        for (error, request) in [
            (heroku.app().unwrap_err(), "GET /apps/my-app: "),
            (heroku.restart_type("web").unwrap_err(), "DELETE /apps/my-app/formations/web: "),
        ] {
            assert_eq!(error.message, format!("{request}{text}"));
            assert_eq!((error.kind, error.status, error.id.as_deref()), (kind, Some(status), Some(id)));
            assert_eq!(error.hint.is_some(), hint.is_some(), "{id}");
            assert!(error.hint.unwrap_or_default().contains(hint.unwrap_or_default()), "{id}");
        }
        assert_eq!(server.requests().len(), 2);
    }
}

#[test]
fn a_refusal_without_the_documented_body_has_its_status() {
    for body in ["", "<html>", "[]", r#"{"id": 7}"#, r#"{"error": "x"}"#] {
        let server = Server::start([Send(answer(422, &[], body))]);
        let error = client(&server, PATIENT).app().unwrap_err();
        assert_eq!(error.message, "GET /apps/my-app: 422 Unprocessable Entity", "{body}");
    }
}

/// Whatever a server may do between taking a request and a good answer, without saying whether it acted.
fn doubtful() -> Vec<(&'static str, Reply)> {
    let whole = answer(200, &[], APP);
    vec![
        ("500", refusal(500, "internal_server_error")),
        ("502", Send(answer(502, &[], "<html>Bad gateway"))),
        ("503", refusal(503, "maintenance")),
        ("reset", Reset),
        ("closed", Close(Vec::new())),
        ("cut in the head", Close(whole[..40].to_vec())),
        ("garbage", Close(b"\x16\x03\x01 not http\r\n\r\n".to_vec())),
    ]
}

#[test]
fn a_look_is_repeated_after_a_fault() {
    let whole = answer(200, &[], APP);
    let mut faults = doubtful();
    faults.extend([
        ("cut in the body", Close(whole[..whole.len() - 5].to_vec())),
        ("not JSON", ok("<html>")),
        ("wrong type", ok(r#"{"id": 7, "name": "my-app"}"#)),
    ]);
    for (name, fault) in faults {
        let server = Server::start([fault, ok(APP)]);
        assert!(client(&server, PATIENT).app().is_ok(), "{name}");
    }
}

#[test]
fn a_restart_that_may_have_happened_is_not_repeated() {
    for (name, fault) in doubtful() {
        let server = Server::start([ok(APP), fault, accepted()]);
        let heroku = client(&server, PATIENT);
        heroku.app().unwrap();
        let error = heroku.restart_type("web").unwrap_err();
        assert_eq!(error.kind, ApiErrorKind::Unknown, "{name}");
        names_and_hides(&error, "DELETE /apps/my-app/formations/web: ");
        assert_eq!(
            server.lines().iter().filter(|line| line.starts_with("DELETE")).count(),
            usize::from(name != "reset")
        );
    }
}

#[test]
fn an_accepted_restart_needs_no_body() {
    let cut = Close(answer(202, &[], "{}")[..60].to_vec());
    let whole = String::from_utf8(answer(202, &[], "{}")).unwrap().replace("Content-Length: 2", "Content-Length: 9");
    for reply in [Send(answer(202, &[], "")), Close(whole.into_bytes()), Send(answer(200, &[], "<html>"))] {
        let server = Server::start([reply]);
        client(&server, PATIENT).restart_dyno("web.1").unwrap();
    }
    let server = Server::start([cut]);
    assert!(is_unreadable(&client(&server, PATIENT).restart_dyno("web.1").unwrap_err()));
}

#[test]
fn too_many_requests_are_waited_for() {
    let limited = |headers: &[&str]| Send(answer(429, headers, r#"{"id": "rate_limit", "message": "Slow down."}"#));
    for headers in
        [&["Retry-After: 0"][..], &["Retry-After: Sun, 22 Nov 2026 22:00:00 GMT"], &["RateLimit-Remaining: 0"]]
    {
        let server = Server::start([limited(headers), ok(APP), limited(headers), accepted()]);
        let heroku = client(&server, PATIENT);
        heroku.app().unwrap();
        heroku.restart_type("web").unwrap();
        assert_eq!(server.requests().len(), 4, "a restart that was turned away was not acted upon");
    }
}

#[test]
fn a_wait_beyond_all_patience_is_not_begun() {
    let server =
        Server::start([Send(answer(429, &["Retry-After: 3600"], r#"{"id": "rate_limit", "message": "Slow down."}"#))]);
    let error = client(&server, PATIENT).restart_type("web").unwrap_err();
    assert_eq!(error.message, "DELETE /apps/my-app/formations/web: 429 rate_limit: Slow down.");
    assert_eq!((error.kind, error.status), (ApiErrorKind::RateLimited, Some(429)));
    assert!(error.hint.unwrap().contains("4500"));
}

#[test]
fn too_many_requests_for_ever_come_to_an_end() {
    let server = Server::start((0..1000).map(|_| Send(answer(429, &[], ""))));
    let error = client(&server, HASTY).app().unwrap_err();
    assert_eq!(error.kind, ApiErrorKind::RateLimited);
    assert!(server.requests().len() > 1);
}

fn page(status: u16, next: Option<&str>, dynos: &[&str]) -> Reply {
    let next = next.map(|next| format!("Next-Range: {next}"));
    let dynos: Vec<String> = dynos.iter().map(|name| dyno(name)).collect();
    Send(answer(status, &next.iter().map(String::as_str).collect::<Vec<_>>(), &format!("[{}]", dynos.join(","))))
}

#[test]
fn every_page_is_read_and_the_first_is_dated() {
    let later =
        String::from_utf8(answer(206, &["Next-Range: ]c..; max=1000"], &format!("[{}]", dyno("web.2")))).unwrap();
    let later = Send(later.replace("22:00:00", "22:00:07").into_bytes());
    for last in [200, 206] {
        let server = Server::start([page(206, Some("]b..; max=1000"), &["web.1", "run.9"]), page(200, None, &[])]);
        assert_eq!(client(&server, PATIENT).dynos().unwrap().dynos.len(), 2);
        let server = Server::start([page(last, None, &["web.1"])]);
        assert_eq!(client(&server, PATIENT).dynos().unwrap().dynos.len(), 1, "{last}");
    }

    let server = Server::start([page(206, Some("]b..; max=1000"), &["run.9"]), later, page(200, None, &["web.1"])]);
    let list = client(&server, PATIENT).dynos().unwrap();
    assert_eq!(list.dynos.iter().map(|dyno| dyno.name.as_str()).collect::<Vec<_>>(), ["run.9", "web.2", "web.1"]);
    assert_eq!(list.date, "2026-11-22T22:00:00Z".parse().unwrap());
    let ranges: Vec<_> = server.requests().iter().map(|request| request.header("Range").unwrap().to_owned()).collect();
    assert_eq!(ranges, ["id ..; max=1000", "]b..; max=1000", "]c..; max=1000"]);
}

#[test]
fn a_list_without_an_end_is_an_error() {
    let server = Server::start((0..9).map(|_| page(206, Some("same"), &["web.1"])));
    let error = client(&server, PATIENT).dynos().unwrap_err();
    assert_eq!(
        (error.kind, error.message.as_str()),
        (ApiErrorKind::Unknown, "GET /apps/my-app/dynos: the list does not end")
    );
    assert_eq!(server.requests().len(), 2);

    let ring = |page_number: usize| page(206, Some(["a", "b", "c"][page_number % 3]), &["web.1"]);
    let server = Server::start((0..9).map(ring));
    assert!(is_unreadable(&client(&server, PATIENT).dynos().unwrap_err()));

    let server = Server::start((0..1000).map(|number| page(206, Some(&number.to_string()), &[])));
    assert!(is_unreadable(&client(&server, PATIENT).dynos().unwrap_err()));
    assert_eq!(server.requests().len(), 100);
}

#[test]
fn a_page_that_fails_fails_the_list() {
    let first = || page(206, Some("b"), &["web.1"]);
    let server = Server::start([first(), refusal(403, "forbidden")]);
    assert_eq!(client(&server, PATIENT).dynos().unwrap_err().kind, ApiErrorKind::Forbidden);
    let server = Server::start([first(), refusal(500, "x"), page(200, None, &["web.2"])]);
    assert_eq!(client(&server, PATIENT).dynos().unwrap().dynos.len(), 2);
}

#[test]
fn a_list_without_a_date_is_of_no_use() {
    for date in ["X: y", "Date: yesterday", "Date: 2026-11-22T22:00:00Z", "Date:"] {
        let list = String::from_utf8(answer(200, &[], "[]")).unwrap().replace(&format!("Date: {DATE}"), date);
        let server = Server::start([Send(list.into_bytes())]);
        let error = client(&server, PATIENT).dynos().unwrap_err();
        assert_eq!(error.kind, ApiErrorKind::Unknown);
        assert_eq!(error.message, "GET /apps/my-app/dynos: the answer has no Date that can be read");
    }
}

#[test]
fn an_answer_of_another_form_is_never_half_of_a_list() {
    let deep = "[".repeat(100_000);
    let one = dyno("web.1");
    let no_json = "is not JSON";
    let other_form = "is not of the documented form";
    let cases = [
        (String::new(), no_json),
        ("<html>".to_owned(), no_json),
        (format!("[{one}"), no_json),
        (format!("[{one}] x"), no_json),
        (format!("[{one},]"), no_json),
        (deep, "the answer"),
        ("{}".to_owned(), other_form),
        ("null".to_owned(), other_form),
        ("[null]".to_owned(), other_form),
        (format!("[{one}, {{}}]"), other_form),
        (format!("[{}]", one.replace("\"id-of-web.1\"", "7")), other_form),
        (format!("[{}]", one.replace("\"type\"", "\"kind\"")), other_form),
        (format!("[{}]", one.replace("2026-11-22T16:33:07Z", "yesterday")), other_form),
        (format!("[{}]", one.replace("2026-11-22T16:33:07Z", "2026-11-22 16:33:07")), other_form),
        (format!("[{}]", one.replace(": 42", ": -42")), other_form),
        (format!("[{}]", one.replace("\"id\"", "\"id\": \"HRKU-other\", \"id\"")), other_form),
    ];
    all_at_once(cases, |(body, what)| {
        let server = Server::start((0..99).map(|_| ok(&body)));
        let error = client(&server, HASTY).dynos().unwrap_err();
        assert!(is_unreadable(&error), "{body:.99}");
        names_and_hides(&error, "GET /apps/my-app/dynos: ");
        assert!(error.message.contains(what), "{} for {body:.99}", error.message);
        assert!(!error.message.contains("HRKU"), "what was sent is not quoted");
        assert!(server.requests().len() > 1, "it is asked again");
    });

    let mut invalid = answer(200, &[], "[{\"id\": \"??\"}]");
    let place = invalid.len() - 4;
    invalid[place] = 0xff;
    let server = Server::start([Send(invalid.clone()), Send(invalid.clone()), Send(invalid.clone()), Send(invalid)]);
    assert!(is_unreadable(&client(&server, HASTY).dynos().unwrap_err()));
}

#[test]
fn an_answer_without_an_end_is_not_read_to_the_end() {
    let head = format!("HTTP/1.1 200 x\r\nDate: {DATE}\r\n\r\n[");
    let body = [head.into_bytes(), vec![b' '; 17 * 1024 * 1024]].concat();
    let server = Server::start([Close(body), ok(APP)]);
    let error = client(&server, PATIENT).app().unwrap_err();
    assert!(is_unreadable(&error));
    assert!(error.message.ends_with("the answer is longer than 16777216 bytes"), "{error}");

    let server = Server::start((0..9).map(|_| Repeat(b"HTTP/1.1 200 x\r\nX: y\r\n".to_vec())));
    assert!(is_unreadable(&client(&server, HASTY).app().unwrap_err()));
}

#[test]
fn redirects_are_named_and_not_followed() {
    let other = Server::start([ok(APP), accepted()]);
    let elsewhere = format!("http://127.0.0.1:{}/apps/my-app", other.port());
    for status in [301, 302, 303, 307, 308] {
        let redirect = || Send(answer(status, &[&format!("Location: {elsewhere}")], ""));
        let server = Server::start([redirect(), redirect()]);
        let heroku = client(&server, PATIENT);
        for error in [heroku.app().unwrap_err(), heroku.restart_type("web").unwrap_err()] {
            assert_eq!((error.kind, error.status), (ApiErrorKind::Rejected, Some(status)));
            assert!(error.message.ends_with("redirected to 127.0.0.1, which is not followed"), "{error}");
        }
        assert_eq!(server.requests().len(), 2);
    }
    assert_eq!(other.connections(), 0);
}

#[test]
fn one_request_ends_in_time_even_when_bytes_drip() {
    let whole = answer(200, &[], APP);
    let half = whole.len() - 20;
    let faults: [&(dyn Fn() -> Reply + Sync); 3] =
        [&|| Stall(Vec::new()), &|| Stall(whole[..half].to_vec()), &|| Drip([&whole[..], &[b' '; 99]].concat())];
    all_at_once(faults, |fault| {
        let server = Server::start((0..99).map(|_| fault()));
        let heroku = client(&server, Duration::from_secs(1));
        let error = heroku.app().unwrap_err();
        assert_eq!(error.kind, ApiErrorKind::Unknown);
        assert!(error.message.contains("no answer within 1s"), "{error}");
        let before = server.requests().len();
        assert!(before > 1, "a look is repeated");

        let restart = heroku.restart_type("web");
        assert!(restart.is_ok() || restart.is_err_and(|error| error.kind == ApiErrorKind::Unknown));
        assert_eq!(server.requests().len(), before + 1, "a restart is not");
    });
}

#[test]
fn a_server_that_is_not_there_is_unreachable() {
    let nobody_listens = Reserved::new().unwrap();
    let heroku = client_at(&format!("http://127.0.0.1:{}", nobody_listens.port), HASTY, &[]);
    for (error, request) in [
        (heroku.app().unwrap_err(), "GET /apps/my-app: cannot reach 127.0.0.1:"),
        (heroku.restart_type("web").unwrap_err(), "DELETE /apps/my-app/formations/web: cannot reach 127.0.0.1:"),
    ] {
        assert_eq!((error.kind, error.status), (ApiErrorKind::Unreachable, None));
        names_and_hides(&error, request);
        assert!(error.message.contains("refused"), "{error}");
    }
}

#[test]
fn one_of_several_addresses_is_enough() {
    // On most machines the name has two addresses, and only one of them is served.
    let server = Server::start([ok(APP)]);
    client_at(&format!("http://localhost:{}", server.port()), PATIENT, &[]).app().unwrap();
}

#[test]
fn a_connection_that_the_server_dropped_is_replaced() {
    let server = Server::start([ok(APP), accepted()]);
    let heroku = client(&server, PATIENT);
    heroku.app().unwrap();
    server.hang_up();
    heroku.restart_type("web").unwrap();
    assert_eq!((server.connections(), server.requests().len()), (2, 2));
}

#[test]
fn a_proxy_is_asked_for_a_tunnel_and_never_sees_the_token() {
    let names_proxy = |proxy: &Server| format!("http://proxy-user:pass@127.0.0.1:{}", proxy.port());
    let proxy = Server::start((0..99).map(|_| Close(b"HTTP/1.1 403 Forbidden\r\n\r\n".to_vec())));
    let heroku = client_at("https://api.heroku.com", HASTY, &[("https_proxy", &names_proxy(&proxy))]);
    let error = heroku.restart_type("web").unwrap_err();
    assert_eq!(error.kind, ApiErrorKind::Unreachable, "{error}");
    names_and_hides(&error, "DELETE /apps/my-app/formations/web: cannot reach api.heroku.com: ");
    assert!(!proxy.requests().is_empty());
    for request in proxy.requests() {
        assert_eq!(request.line(), "CONNECT api.heroku.com:443");
        assert!(!request.head.contains(TOKEN));
    }

    let unused = Server::start([]);
    let server = Server::start([ok(APP)]);
    let address = format!("http://127.0.0.1:{}", server.port());
    let proxy = names_proxy(&unused);
    client_at(&address, PATIENT, &[("https_proxy", &proxy), ("http_proxy", &proxy), ("ALL_PROXY", &proxy)])
        .app()
        .unwrap();
    assert_eq!(unused.connections(), 0, "nothing between this machine and itself");
}

#[test]
fn a_name_that_does_not_exist_is_unreachable() {
    let heroku = client_at("https://api.heroku.com", HASTY, &[("https_proxy", "http://no-such-proxy.invalid:1")]);
    let error = heroku.restart_type("web").unwrap_err();
    assert_eq!(error.kind, ApiErrorKind::Unreachable);
    assert!(error.message.ends_with("the host's name cannot be looked up"), "{error}");
}

#[test]
fn the_token_shows_in_no_error_whatever_a_server_answers() {
    let echo = format!(r#"{{"id": "{TOKEN}", "message": "Authorization: Bearer {TOKEN}", "url": "{TOKEN}"}}"#);
    let headers = [
        &format!("Location: https://{TOKEN}@example.com/{TOKEN}"),
        &format!("Date: {TOKEN}"),
        &format!("Next-Range: {TOKEN}"),
        "Retry-After: 9999",
    ];
    all_at_once([200, 302, 400, 401, 403, 404, 422, 429, 500], |status| {
        let server = Server::start((0..99).map(|_| Send(answer(status, &headers, &echo))));
        let heroku = client(&server, HASTY);
        let errors = [
            heroku.app().err(),
            heroku.dynos().err(),
            heroku.formation().err(),
            heroku.releases(1).err(),
            heroku.release(1).err(),
            heroku.preboot().err(),
            heroku.restart_type("web").err(),
            heroku.restart_dyno("web.1").err(),
            heroku.log_lines("web.1", 9).err(),
        ];
        for error in errors.into_iter().flatten() {
            assert!(!format!("{error:?} {error}").contains(TOKEN), "{status}: {error:?}");
        }
    });
}

#[test]
fn what_a_server_writes_is_cut_to_readable_length() {
    let server =
        Server::start([Send(answer(422, &[], &format!(r#"{{"id": "x", "message": "{}"}}"#, "é".repeat(99_999))))]);
    assert!(client(&server, PATIENT).app().unwrap_err().message.chars().count() < 600);
}

#[test]
fn a_token_that_no_header_can_carry_is_refused_unquoted() {
    for token in ["", "two words", "line\nbreak", "line\r\nX: y", "nul\0", "tab\t", "del\x7f", "clé", "trailing\n"] {
        let host = Host::from_env_value(None).unwrap();
        let options = HerokuOptions { host, token: Secret::new(token), app: "my-app".to_owned(), timeout: PATIENT };
        let error = Heroku::new(options, &BTreeMap::new()).err().unwrap();
        assert_eq!(error.kind, Kind::Refused, "{token:?}");
        assert!(error.message.starts_with("the API token is empty or has a character that no token has"));
        assert!(error.hint.unwrap().contains("HEROKU_API_KEY"));
    }
}

#[test]
fn names_that_would_change_the_path_are_not_sent() {
    for app in ["", ".", "..", "my-app/dynos", "my app", "my-app?x", "my-app#", "my_app\n", "%2e%2e"] {
        let host = Host::from_env_value(None).unwrap();
        let options = HerokuOptions { host, token: Secret::new(TOKEN), app: app.to_owned(), timeout: PATIENT };
        assert_eq!(Heroku::new(options, &BTreeMap::new()).err().unwrap().kind, Kind::Refused, "{app:?}");
    }
    let server = Server::start([]);
    let heroku = client(&server, PATIENT);
    for name in ["", ".", "..", "../..", "web/1", "web 1", "web?x", "web\n", "%2e%2e"] {
        for error in [heroku.restart_type(name).unwrap_err(), heroku.restart_dyno(name).unwrap_err()] {
            assert_eq!(error.kind, ApiErrorKind::Rejected, "{name:?}");
        }
    }
    assert_eq!(server.connections(), 0);
}

#[test]
fn the_last_lines_of_a_log_are_fetched_without_the_token() {
    let log = "2026-11-22T22:00:00+00:00 heroku[web.1]: one\ntwo \u{1b}[31m\n\nfour HRKU-very-secret\n";
    let logs = Server::start([Send(answer(200, &[], log))]);
    let session = format!(r#"{{"id": "s", "logplex_url": "http://127.0.0.1:{}/stream?signature=x"}}"#, logs.port());
    let server = Server::start([ok(APP), Send(answer(201, &[], &session))]);

    let lines = client(&server, PATIENT).log_lines("web.1", 3).unwrap();

    assert_eq!(lines, ["two \u{1b}[31m", "", "four ***"]);
    assert_eq!(server.lines(), ["GET /apps/my-app", "POST /apps/my-app/log-sessions"]);
    let asked: serde_json::Value = serde_json::from_str(&server.requests()[1].body).unwrap();
    assert_eq!(asked, serde_json::json!({"dyno": "web.1", "lines": 3, "tail": false}));
    assert_eq!(logs.lines(), ["GET /stream?signature=x"]);
    assert_eq!(logs.requests()[0].header("Authorization"), None);
}

#[test]
fn a_log_that_goes_silent_is_shown_as_far_as_it_came() {
    let head = "HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\none\n\r\n";
    let logs = Server::start([Stall(head.as_bytes().to_vec())]);
    let session = format!(r#"{{"logplex_url": "http://127.0.0.1:{}/"}}"#, logs.port());
    let server = Server::start([ok(APP), ok(&session)]);
    assert_eq!(client(&server, HASTY).log_lines("web.1", 9).unwrap(), ["one"]);
}

#[test]
fn a_log_is_read_from_trusted_places_only() {
    for url in
        ["http://example.com/x", "https://heroku.com.example.com/x?signature=HRKU", "file:///etc/passwd", "", "\u{1b}"]
    {
        let session = serde_json::json!({ "logplex_url": url }).to_string();
        let server = Server::start([ok(APP), ok(&session)].into_iter().chain((0..99).map(|_| Reset)));
        let error = client(&server, HASTY).log_lines("web.1", 9).unwrap_err();
        assert_eq!(error.message, "GET the log of web.1: the API names an address that is not Heroku's", "{url}");
    }
}

#[test]
fn fir_keeps_no_log() {
    let server = Server::start([ok(r#"{"id": "i", "name": "my-app", "generation": "fir"}"#)]);
    let heroku = client(&server, PATIENT);
    assert_eq!(heroku.log_lines("web-1234-abcde", 9).unwrap(), [""; 0]);
    assert_eq!(heroku.log_lines("web-1234-abcde", 9).unwrap(), [""; 0]);
    assert_eq!(server.lines(), ["GET /apps/my-app"]);
}
