//! `unstuck status` as a picture, live and as a page, and `unstuck ps`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing there")]

#[path = "support/scene.rs"]
mod scene;

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Duration;

use scene::{Ran, Scene};
use serde_json::{Value, json};
use unstuck_standin::{Act, Options, Reply, Rule};

const TITLE: u64 = 20_130_125_163_307;

/// An app that was migrated by unstuck: the web dynos are new, the worker is older than the schema.
fn migrated() -> Scene {
    let scene = Scene::new();
    scene.settled();
    scene.migration(TITLE, "add_title_to_posts", "sql 'create table posts (title)'");
    scene.unstuck(&["migrate"]).code(0);
    scene
}

#[test]
fn a_run_remembers_what_it_changed_and_when() {
    let scene = migrated();
    let ran = scene.unstuck(&["status"]).code(0);
    println!("{}", ran.out);
    assert!(ran.out.contains("schema changed"), "{ran:?}");
    assert!(ran.out.contains("recorded by the run that made it"), "{ran:?}");
    assert!(ran.out.contains("  20130125163307  AddTitleToPosts\n"), "{ran:?}");
    let worker = ran.out.lines().find(|line| line.starts_with("worker.1")).unwrap();
    assert!(worker.contains("STUCK") && worker.contains('#'), "{worker}");
    let document = scene.unstuck(&["status", "--json"]).code(0).json();
    assert_eq!(document["schema_change"]["versions"], json!(["20130125163307"]));
    assert_eq!(document["schema_change"]["known_by"], "recorded");
    println!("{document:#}");
    println!("{}", scene.unstuck(&["ps"]).out);
    println!("{}", scene.unstuck(&["ps", "--json"]).out);
}
