//! `unstuck rollback` from the outside: the guard, the platform's own rollback, and the proof.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing there")]

#[path = "support/scene.rs"]
mod scene;

use std::process::Command;
use std::time::Duration;

use scene::Scene;
use serde_json::{Value, json};
use unstuck_standin::{Access, Act, Deploy, Entry, Fact, Mode, Options, Pool, Reply, Rule, Status};

/// An application in a git repository with two releases of it, after the stand-in's own: v2 has the first migration, v3 two. The
/// database holds what `applied` says.
fn scene(applied: &[u64]) -> Scene {
    scene_with(applied, Options::default())
}

const ADD_TITLE: &str = "\
class AddTitleToPosts < ActiveRecord::Migration[7.1]
  def change
    add_column :posts, :title, :string
    remove_column :posts, :body, :text
  end
end";

fn scene_with(applied: &[u64], options: Options) -> Scene {
    let scene = Scene::with(options);
    git(&scene, &["init", "-q", "-b", "main"]);
    scene.migration(1, "create_posts", "true");
    deploy(&scene, Deploy::default());
    scene.migration(2, "add_title_to_posts", ADD_TITLE);
    deploy(&scene, Deploy::default());
    scene.sql("create table schema_migrations (version varchar primary key)");
    for version in applied {
        scene.sql(&format!("insert into schema_migrations values ('{version}')"));
    }
    assert!(scene.standin.wait_until_up(Duration::from_secs(10)));
    scene
}

fn git(scene: &Scene, args: &[&str]) -> String {
    let mut command = Command::new("git");
    command.args(args).current_dir(scene.root.path()).env_clear().env("PATH", &scene.env["PATH"]);
    for role in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{role}_NAME"), "Ann").env(format!("GIT_{role}_EMAIL"), "ann@example.com");
    }
    let output = command.env("HOME", scene.root.path()).output().expect("git runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Commits the migrations as they are and releases that.
fn deploy(scene: &Scene, deploy: Deploy) -> u64 {
    git(scene, &["add", "db/migrate"]);
    git(scene, &["commit", "-q", "--allow-empty", "-m", "change"]);
    let commit = Some(git(scene, &["rev-parse", "HEAD"]));
    scene.standin.deploy(Deploy { commit, ..deploy }).unwrap()
}

fn current(scene: &Scene) -> Value {
    let releases = scene.standin.releases();
    releases.iter().find(|release| release["current"] == true).unwrap().clone()
}

#[test]
fn back_to_the_release_before_and_every_process_is_proved_new() {
    let scene = scene(&[1]);
    let (web, worker, seq) = (scene.ids("web"), scene.ids("worker"), scene.now());
    let ran = scene.unstuck(&["rollback", "--json"]).code(0);
    let report = ran.json();
    assert_eq!(report["outcome"], "rolled_back");
    assert_eq!((&report["from"], &report["to"], &report["release"]), (&json!(3), &json!(2), &json!(4)));
    assert_eq!(report["guard"], json!({"state": "clear", "by": "database", "lacking": [], "unknown": []}));
    assert_eq!((&report["restart"]["state"], &report["restart"]["healthy"]), (&json!("proved"), &json!(true)));
    assert_eq!(report["restart"]["requests"], 0, "the release's own restart carries it");
    let worker_report = json!({"name": "worker.1", "type": "worker", "replaced": true, "state": "up"});
    assert_eq!(report["restart"]["dynos"][2], worker_report);
    assert_eq!(current(&scene)["description"], "Rollback to v2");
    assert!(scene.ids("web").iter().all(|id| !web.contains(id)) && scene.ids("worker") != worker);
    let writes: Vec<String> = scene.requests(seq).into_iter().filter(|request| !request.starts_with("GET")).collect();
    assert_eq!(writes, ["POST /apps/standin-app/releases"]);
    assert!(ran.err.contains("rolling standin-app back from v3 (Deploy "), "{ran:?}");
    assert!(ran.err.contains("to undo: unstuck rollback v3 -a standin-app"), "{ran:?}");
}

#[test]
fn what_the_database_holds_and_the_old_code_lacks_is_named_and_refused() {
    let scene = scene(&[1, 2]);
    let commit = git(&scene, &["rev-parse", "HEAD"]);
    let seq = scene.now();
    let ran = scene.unstuck(&["rollback", "v2", "--json"]).code(5);
    let report = ran.json();
    assert_eq!((&report["outcome"], &report["error"]["kind"]), (&json!("refused"), &json!("refused")));
    let lacking = json!([{"database": "primary", "version": "2", "name": "AddTitleToPosts",
        "path": "db/migrate/2_add_title_to_posts.rb", "commit": commit,
        "what": ["adds the column posts.title (string)", "removes the column posts.body"]}]);
    assert_eq!((&report["guard"]["state"], &report["guard"]["lacking"]), (&json!("lacking"), &lacking));
    let said = format!(
        "  2 AddTitleToPosts
    - adds the column posts.title (string)
    - removes the column posts.body
    git show {}:./db/migrate/2_add_title_to_posts.rb\n",
        &commit[..10]
    );
    assert!(ran.err.contains(&said), "{ran:?}");
    assert!(scene.requests(seq).iter().all(|request| request.starts_with("GET")), "nothing happened");
    let forced = scene.unstuck(&["rollback", "v2", "--force", "--json"]).code(0).json();
    assert_eq!((&forced["outcome"], &forced["guard"]["lacking"]), (&json!("rolled_back"), &lacking));
}

#[test]
fn a_version_that_no_release_brought_is_read_from_the_working_directory() {
    let scene = scene(&[1, 2, 3, 4, 5]);
    scene.migration(3, "drop_posts", &ADD_TITLE.replace("remove_column :posts, :body, :text", "drop_table :drafts"));
    scene.migration(5, "half_written", "class HalfWritten <");
    let ran = scene.unstuck(&["rollback", "v2", "--json"]).code(5);
    let lacking = ran.json()["guard"]["lacking"].clone();
    assert_eq!((&lacking[1]["commit"], &lacking[1]["what"][1]), (&Value::Null, &json!("drops the table drafts")));
    assert_eq!((&lacking[2]["path"], &lacking[2]["what"]), (&Value::Null, &json!([])));
    for said in [
        "  3 DropPosts\n    - adds the column posts.title (string)\n    - drops the table drafts\n    db/migrate/3_drop_posts.rb, here",
        "  4: no release that was looked at has its file, nor is it here\n",
        "  5 HalfWritten\n    - the file is not valid Ruby: ",
    ] {
        assert!(ran.err.contains(said), "{said}: {ran:?}");
    }
}

#[test]
fn without_the_database_the_files_of_newer_releases_count() {
    let mut scene = scene(&[]);
    scene.unset("DATABASE_URL");
    let report = scene.unstuck(&["rollback", "v2", "--json"]).code(5).json();
    assert_eq!((&report["guard"]["by"], &report["guard"]["lacking"][0]["version"]), (&json!("releases"), &json!("2")));
    // The same code with other config vars takes nothing away.
    scene.standin.addon_release("Update DATABASE", [("A".to_owned(), "1".to_owned())].into());
    let report = scene.unstuck(&["rollback", "--json"]).code(0).json();
    assert_eq!((&report["to"], &report["guard"]["state"]), (&json!(3), &json!("clear")));
}

#[test]
fn a_release_that_failed_may_have_migrated_all_the_same() {
    let mut scene = scene(&[]);
    scene.unset("DATABASE_URL");
    git(&scene, &["rm", "-q", "--cached", "db/migrate/2_add_title_to_posts.rb"]);
    git(&scene, &["commit", "-q", "-m", "without"]);
    let without = Deploy { commit: Some(git(&scene, &["rev-parse", "HEAD"])), ..Deploy::default() };
    let v4 = scene.standin.deploy(without.clone()).unwrap();
    scene.migration(3, "drop_posts", "true");
    let failing = deploy(&scene, Deploy { release_command: Some("bin/rails db:migrate".into()), ..Deploy::default() });
    assert!(scene.standin.finish_release(failing, Status::Failed));
    let v6 = scene.standin.deploy(Deploy { release_command: Some(String::new()), ..without }).unwrap();
    assert_eq!((v4, failing, v6), (4, 5, 6));
    let report = scene.unstuck(&["rollback", "--json"]).code(5).json();
    assert_eq!(report["to"], 4);
    let versions: Vec<&Value> =
        report["guard"]["lacking"].as_array().unwrap().iter().map(|lacking| &lacking["version"]).collect();
    assert_eq!(versions, [&json!("2"), &json!("3")], "v5 failed, and its commit had both");
}

#[test]
fn what_cannot_be_told_is_refused_as_well() {
    let scene = scene(&[1]);
    // The stand-in's own first release was built from no commit.
    let ran = scene.unstuck(&["rollback", "v1", "--json"]).code(5);
    assert_eq!(ran.json()["guard"]["state"], "unknown");
    assert!(ran.err.contains("which git commit v1 was built from is not known"), "{ran:?}");
    let elsewhere = Some("1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d".to_owned());
    scene.standin.deploy(Deploy { commit: elsewhere, ..Deploy::default() }).unwrap();
    deploy(&scene, Deploy::default());
    let ran = scene.unstuck(&["rollback", "v4"]).code(5);
    assert!(ran.err.contains("the commit 1a2b3c4d5e is not in this repository: `git fetch`"), "{ran:?}");
    assert_eq!(scene.unstuck(&["rollback", "v4", "--force", "--json"]).code(0).json()["release"], 6);
}

#[test]
fn a_release_command_that_fails_leaves_the_current_release() {
    let scene = scene(&[1]);
    let with_command = Deploy { release_command: Some("unstuck migrate".into()), ..Deploy::default() };
    let v4 = deploy(&scene, with_command);
    assert!(scene.standin.finish_release(v4, Status::Succeeded));
    let v5 = deploy(&scene, Deploy { release_command: Some(String::new()), ..Deploy::default() });
    for (status, code, outcome) in [(Status::Failed, 1, "release_failed"), (Status::Succeeded, 0, "rolled_back")] {
        let seq = scene.now();
        let running = scene.start(&["rollback", "v4", "--json"]);
        let pending = scene.standin.wait_for(seq, Duration::from_secs(20), |entry| {
            matches!(entry.fact, Fact::Release { status: Status::Pending, .. })
        });
        let Fact::Release { version, .. } = pending.expect("the release begins").fact else { panic!() };
        assert_eq!(current(&scene)["version"], v5, "it is not current yet");
        assert!(scene.standin.finish_release(version, status));
        let ran = running.end().code(code);
        assert_eq!(ran.json()["outcome"], outcome);
        assert!(ran.err.contains("its release command runs again: unstuck migrate"), "{ran:?}");
    }
}

#[test]
fn a_signal_leaves_the_release_to_itself() {
    let scene = scene(&[1]);
    let with_command = Deploy { release_command: Some("unstuck migrate".into()), ..Deploy::default() };
    let v4 = deploy(&scene, with_command);
    assert!(scene.standin.finish_release(v4, Status::Succeeded));
    deploy(&scene, Deploy { release_command: Some(String::new()), ..Deploy::default() });
    let seq = scene.now();
    let running = scene.start(&["rollback", "v4", "--json"]);
    let pending = |entry: &Entry| matches!(entry.fact, Fact::Release { status: Status::Pending, .. });
    scene.standin.wait_for(seq, Duration::from_secs(20), pending).expect("the release begins");
    running.signal(libc::SIGINT);
    let ran = running.end().code(130);
    assert_eq!((&ran.json()["outcome"], &ran.json()["release"]), (&json!("unseen"), &json!(6)));
    assert!(ran.err.contains("release v6 is still pending, and goes on without us"), "{ran:?}");
}

#[test]
fn a_release_that_rolls_is_left_to_do_so() {
    let mode = Mode::Simulated { boot_delay: Duration::from_millis(200) };
    let mut scene = scene_with(&[1], Options { mode, ..Options::default() });
    // What stays is restarted by name after a third of this, and not before.
    scene.set("UNSTUCK_PROVE_TIMEOUT", "60s");
    scene.standin.set_rolling(true);
    let (web, seq) = (scene.ids("web"), scene.now());
    let report = scene.unstuck(&["rollback", "--json"]).code(0).json();
    assert_eq!((&report["restart"]["state"], &report["restart"]["requests"]), (&json!("proved"), &json!(0)));
    assert!(scene.ids("web").iter().all(|id| !web.contains(id)));
    assert!(!scene.requests(seq).iter().any(|request| request.starts_with("DELETE")));
}

#[test]
fn processes_that_stay_are_not_proved() {
    let mut scene = scene(&[1]);
    scene.set("UNSTUCK_PROVE_TIMEOUT", "1s");
    let reply = Reply::Stale(None);
    scene.standin.fault(Rule { method: Some("GET".into()), path: "/apps/*/dynos".into(), reply, ..Rule::default() });
    let ran = scene.unstuck(&["rollback", "--json"]).code(4);
    let report = ran.json();
    assert_eq!((&report["outcome"], &report["restart"]["state"]), (&json!("rolled_back"), &json!("owed")));
    assert!(ran.err.contains("web.1 is still the old process"), "{ran:?}");
    assert!(report["restart"]["requests"].as_u64().unwrap() > 0, "what stays is restarted by name");
}

#[test]
fn an_api_that_says_no_has_done_nothing() {
    let mut scene = scene(&[1]);
    scene.set("UNSTUCK_API_TIMEOUT", "300ms");
    for access in [Access::Revoked, Access::TwoFactor, Access::ReadOnly] {
        scene.standin.set_access(access);
        let ran = scene.unstuck(&["rollback", "--json"]).code(5);
        assert_eq!(ran.json()["outcome"], "refused", "{ran:?}");
        scene.standin.set_access(Access::Full);
    }
    let none = scene.unstuck(&["rollback", "v99"]).code(5);
    assert!(none.err.contains("there is no release v99"), "{none:?}");
    scene.unstuck(&["rollback", "yesterday"]).code(2);
    scene.standin.set_pool(Pool { remaining: 0, refill_ms: 3_600_000 });
    scene.unstuck(&["rollback"]).code(5);
    assert_eq!(scene.standin.releases().len(), 3);
}

#[test]
fn a_lost_answer_is_looked_for_in_the_releases() {
    let scene = scene(&[1]);
    let lost = |act: Act| Rule {
        method: Some("POST".into()),
        path: "/apps/*/releases".into(),
        act,
        reply: Reply::Drop,
        ..Rule::default()
    };
    let id = scene.standin.fault(lost(Act::None));
    let ran = scene.unstuck(&["rollback"]).code(1);
    assert!(ran.err.contains("the API did not roll back, as far as the list of releases tells"), "{ran:?}");
    scene.standin.remove_fault(id);
    scene.standin.fault(lost(Act::Full));
    assert_eq!(scene.unstuck(&["rollback", "--json"]).code(0).json()["release"], 4);
    assert_eq!(scene.standin.releases().len(), 4, "it was sent once");
}

#[test]
fn a_debt_from_before_is_still_owed() {
    let scene = scene(&[1]);
    scene.unstuck(&["restart", "--all"]).code(0);
    scene.sql("insert into schema_migrations values ('2')");
    let ran = scene.unstuck(&["rollback", "--force"]).code(0);
    assert!(ran.err.contains("a restart was owed before this rollback"), "{ran:?}");
    assert_eq!(scene.unstuck(&["status", "--json"]).code(0).json()["verdict"], "owed");
}
