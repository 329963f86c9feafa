//! Every answer of the stand-in against Heroku's own schema. The schema is not this project's to carry: where it is lacking, that is
//! said, and nothing is validated.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail as tests do")]

mod common;

use std::io::Write;
use std::path::PathBuf;

use common::Client;
use serde_json::{Value, json};
use unstuck_standin::{Deploy, Generation, Options, Standin};

/// Each variant of the API has its own schema.
const VARIANTS: [(&str, &str); 2] =
    [("platform-api-schema.json", "version=3.sdk"), ("platform-api-schema-v3.json", "version=3")];

/// The schemas by their variant, with unknown keys forbidden where Heroku says that its properties are strict.
fn schemas() -> Vec<(String, Value)> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/heroku");
    let folder = std::env::var_os("UNSTUCK_HEROKU_SCHEMA_DIR").map_or_else(|| PathBuf::from(beside), PathBuf::from);
    let read = |name: &str, version: &str| {
        let path = folder.join(name);
        let Ok(text) = std::fs::read_to_string(&path) else {
            say(&format!(
                "NOT VALIDATED: {} is not there, so the stand-in's answers were not checked against Heroku's schema. Fetch it with\n  \
                 curl -H 'Accept: application/vnd.heroku+json; {version}' https://api.heroku.com/schema > {name}\n\
                 and name its folder in UNSTUCK_HEROKU_SCHEMA_DIR.",
                path.display()
            ));
            return None;
        };
        let mut schema = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        make_strict(&mut schema);
        Some((version.to_owned(), schema))
    };
    VARIANTS.iter().filter_map(|(name, version)| read(name, version)).collect()
}

/// Loudly: past the capture of a test's output.
fn say(text: &str) {
    std::io::stderr().write_all(format!("{text}\n").as_bytes()).unwrap();
}

/// `strictProperties` is Heroku's own word; validators know `additionalProperties`.
fn make_strict(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            let closed = object.get("strictProperties") == Some(&json!(true)) && object.contains_key("properties");
            if closed && !object.contains_key("additionalProperties") {
                object.insert("additionalProperties".into(), json!(false));
            }
            object.values_mut().for_each(make_strict);
        }
        Value::Array(items) => items.iter_mut().for_each(make_strict),
        _ => {}
    }
}

/// What is wrong with `answer`, as one of the schema's definitions.
fn complaints(schema: &Value, definition: &str, answer: &Value) -> Vec<String> {
    let wanted = json!({
        "$schema": "http://json-schema.org/draft-04/schema#",
        "definitions": schema["definitions"],
        "allOf": [{"$ref": format!("#/definitions/{definition}")}],
    });
    let validator = jsonschema::options().should_validate_formats(true).build(&wanted).unwrap();
    validator.iter_errors(answer).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

/// Asks for each of a stand-in's answers once: the request, the definition that it must fit, the answer.
fn answers(standin: &Standin, version: &str) -> Vec<(String, &'static str, Value)> {
    let client = Client::new(standin);
    let accept = format!("application/vnd.heroku+json; {version}");
    let ask = |method: &str, path: &str, body: Option<&Value>| {
        let answer = client.send(method, path, &[("accept", &accept)], body).unwrap();
        assert!(matches!(answer.status, 200 | 201), "{method} {path}: {} {}", answer.status, answer.body);
        answer.json()
    };
    standin.deploy(Deploy { release_command: Some("unstuck migrate".into()), ..Deploy::default() }).unwrap();
    let slug = client.get("/apps/standin-app/releases/1").json()["slug"]["id"].as_str().unwrap().to_owned();
    let slug = format!("/apps/standin-app/slugs/{slug}");
    let web = client.get("/apps/standin-app/dynos").json()[1]["name"].as_str().unwrap().to_owned();
    let dyno = format!("/apps/standin-app/dynos/{web}");
    let app = |rest: &str| format!("/apps/standin-app{rest}");
    let reads = [
        ("account", "/account".to_owned()),
        ("rate-limit", "/account/rate-limits".to_owned()),
        ("app", app("")),
        ("dyno", app("/dynos")),
        ("dyno", dyno),
        ("formation", app("/formation")),
        ("formation", app("/formation/web")),
        ("release", app("/releases")),
        ("release", app("/releases/2")),
        ("app-feature", app("/features")),
        ("app-feature", app("/features/preboot")),
        ("slug", slug),
        ("config-var/definitions/config_vars", app("/config-vars")),
        ("config-var/definitions/config_vars", app("/releases/1/config-vars")),
    ];
    let first = client.get("/apps/standin-app/releases/1").json()["id"].clone();
    let writes = [
        ("PATCH", "app", app(""), json!({"maintenance": false})),
        ("POST", "dyno", app("/dynos"), json!({"command": "date", "attach": true})),
        ("PATCH", "formation", app("/formation"), json!({"updates": [{"type": "web", "quantity": 3}]})),
        ("PATCH", "formation", app("/formation/web"), json!({"quantity": 1})),
        ("POST", "release", app("/releases"), json!({"release": first})),
        ("PATCH", "config-var/definitions/config_vars", app("/config-vars"), json!({"A": "1"})),
        ("PATCH", "app-feature", app("/features/preboot"), json!({"enabled": true})),
        ("POST", "log-session", app("/log-sessions"), json!({"lines": 1})),
    ];
    let read = reads.map(|(definition, path)| (format!("GET {path}"), definition, ask("GET", &path, None)));
    let written = writes.map(|(method, definition, path, body)| {
        let answer = ask(method, &path, Some(&body));
        (format!("{method} {path}"), definition, answer)
    });
    let items = |(request, definition, answer): (String, &'static str, Value)| match answer {
        Value::Array(items) => items.into_iter().map(|item| (request.clone(), definition, item)).collect(),
        answer => vec![(request, definition, answer)],
    };
    read.into_iter().chain(written).flat_map(items).collect()
}

#[test]
fn every_answer_fits_the_official_schema() {
    for (version, schema) in schemas() {
        for generation in [Generation::Cedar, Generation::Fir] {
            let standin = Standin::start(Options { generation, ..Options::default() }).unwrap();
            for (request, definition, answer) in answers(&standin, &version) {
                let complaints = complaints(&schema, definition, &answer);
                assert!(complaints.is_empty(), "{version}, {generation:?}, {request}: {complaints:#?}\n{answer:#}");
            }
        }
    }
}

#[test]
fn the_check_finds_unknown_keys_and_wrong_types() {
    for (version, schema) in schemas() {
        for wrong in [json!({"no_such_key": 1}), json!({"state": 1}), json!({"release": {"id": "x", "colour": "red"}})]
        {
            assert!(!complaints(&schema, "dyno", &wrong).is_empty(), "{version}: {wrong}");
        }
        assert!(complaints(&schema, "dyno", &json!({"state": "up"})).is_empty(), "{version}");
    }
}
