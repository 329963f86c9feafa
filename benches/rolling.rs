//! What visitors notice of a restart: ten web dynos of a real Rails application under puma, requests all the time, and the same
//! restart of stuck dynos three times: all at once, one dyno at a time, two at a time. Run by `cargo bench --bench rolling`.
//!
//! The dynos are processes of this machine behind the stand-in's router, which keeps requests waiting while every dyno boots, as
//! Heroku's does; so "all at once" fails few requests and makes all of them wait. What is counted are answers other than 200,
//! and waits. Figures of a boot are this machine's, not Heroku's.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a program for people at a terminal")]

#[path = "../tests/support/rails_app.rs"]
mod rails_app;
#[path = "../tests/support/traffic.rs"]
mod traffic;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rails_app::{Database, RailsApp};
use traffic::{Served, Traffic};
use unstuck_standin::{Mode, Options, Standin, Timing};

const DYNOS: u64 = 10;
const CLIENTS: usize = 4;

/// Longer than ten boots take.
const LONG: Duration = Duration::from_mins(10);

fn main() -> ExitCode {
    let dir = tempfile::tempdir().unwrap();
    let app = RailsApp::create(&dir.path().join("app"), &[Database::sqlite3("primary")]);
    app.add_migration("1", "create_posts", "def change = create_table(:posts) { |t| t.string :title }");
    app.migrate();
    let mode = Mode::Procfile {
        root: app.root().to_owned(),
        procfile: None,
        env: BTreeMap::from([("LANG".into(), "C.UTF-8".into()), ("RAILS_ENV".into(), "production".into())]),
        grace: Duration::from_secs(30),
    };
    // Ten boots at once take long on a small machine, and none of them is to be given up.
    let timing = Timing { boot_timeout: LONG, ..Timing::default() };
    let options = Options { mode, timing, formation: [("web".into(), 0)].into(), ..Options::default() };
    let standin = Standin::start(options).unwrap();
    let restart = |arguments: &[&str]| unstuck(&app, &standin, dir.path(), arguments);
    // The first proof, which later runs measure their debt by, is cheapest without dynos.
    restart(&["--all"]);
    assert!(standin.scale("web", DYNOS) && standin.wait_until_up(LONG), "{:#?}", standin.log());

    println!("{DYNOS} web dynos, stuck after a migration by hand; {CLIENTS} clients, each with a pause of 10 ms\n");
    println!("{:<18} {:>9} {:>9} {:>7} {:>9} {:>9}", "restart", "took", "requests", "failed", "slowest", "over 1 s");
    let mut lost = 0;
    for (version, (what, arguments)) in [
        ("all at once", &["--strategy", "at-once"][..]),
        ("one at a time", &["--rolling"]),
        ("two at a time", &["--rolling", "--max-unavailable", "2"]),
    ]
    .into_iter()
    .enumerate()
    {
        let column = format!("column_{version}");
        let body = format!("def change = add_column(:posts, :{column}, :string)");
        app.add_migration(&(version + 2).to_string(), &format!("add_{column}"), &body);
        app.migrate();
        let traffic = Traffic::start(&format!("{}/columns", standin.router_url()), CLIENTS);
        let began = Instant::now();
        restart(arguments);
        assert!(standin.wait_until_up(LONG), "{:#?}", standin.log());
        let took = began.elapsed();
        let served = traffic.end();
        row(what, took, &served);
        if arguments.contains(&"--rolling") {
            lost += served.failed.len();
        }
    }
    if lost == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn row(what: &str, took: Duration, served: &Served) {
    let Served { requests, failed, slowest, slow } = served;
    println!(
        "{what:<18} {:>7.1} s {requests:>9} {:>7} {:>7.2} s {slow:>9}",
        took.as_secs_f32(),
        failed.len(),
        slowest.as_secs_f32()
    );
    for failure in failed.iter().take(5) {
        println!("  {failure}");
    }
}

/// Runs `unstuck restart` as on a laptop, to its good end.
fn unstuck(app: &RailsApp, standin: &Standin, home: &Path, arguments: &[&str]) {
    let output = app
        .command(env!("CARGO_BIN_EXE_unstuck"))
        .arg("restart")
        .args(arguments)
        .args(["--poll-timeout", "200ms", "--prove-timeout", "10m", "--health-timeout", "10m"])
        .env("HEROKU_HOST", standin.url())
        .env("HEROKU_API_KEY", standin.token())
        .env("UNSTUCK_APP", standin.app())
        .env("HOME", home)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}
