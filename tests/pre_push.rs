//! The pre-push hook, run by git itself.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing there")]

#[path = "support/push.rs"]
mod push;
#[path = "support/secrets.rs"]
mod secrets;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Output, Stdio};

use push::Scene;
use serde_json::Value;

impl Scene {
    /// With the hook in its place.
    fn with_hook(format: &str) -> Self {
        let scene = Self::new(format);
        let hook = scene.app().join(".git/hooks/pre-push");
        fs::create_dir_all(hook.parent().unwrap()).unwrap();
        fs::write(&hook, format!("#!/bin/sh\nexec {} pre-push \"$@\"\n", env!("CARGO_BIN_EXE_unstuck"))).unwrap();
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
        scene
    }

    /// The hook without git, with these lines on its standard input.
    fn hook(&self, remote: &str, url: &str, lines: &[u8]) -> Output {
        self.run_hook(&self.app(), &["pre-push", remote, url], lines)
    }

    fn hook_in(&self, dir: &Path, lines: &[u8]) -> Output {
        self.run_hook(dir, &["pre-push", "production", "../remote"], lines)
    }

    fn run_hook(&self, dir: &Path, arguments: &[&str], lines: &[u8]) -> Output {
        let input = self.dir.path().join("lines");
        fs::write(&input, lines).unwrap();
        let mut hook = self.command(dir, env!("CARGO_BIN_EXE_unstuck"));
        hook.arg("--json").args(arguments).stdin(Stdio::from(fs::File::open(input).unwrap()));
        let output = hook.output().unwrap();
        secrets::keep(&output);
        output
    }
}

#[test]
fn a_push_is_told_and_refused_where_it_would_hurt() {
    told_and_refused("sha1");
}

#[test]
fn a_repository_of_long_ids_is_read_as_any_other() {
    told_and_refused("sha256");
}

fn told_and_refused(format: &str) {
    let scene = Scene::with_hook(format);
    scene.migration("1_one.rb", "one");
    scene.write("db/animals_migrate/2_two.rb", "# two");
    let first = scene.commit();
    let said = scene.git(&["push", "production", "main"]);
    assert!(said.contains("this push will run 2 migrations:"), "{said}");
    assert!(
        said.contains("  2 Two  db/animals_migrate/2_two.rb  (no process can notice)\n  1 One  db/migrate/1_one.rb  ("),
        "{said}"
    );

    scene.migration("3_three.rb", "three");
    scene.commit();
    let said = scene.git(&["push", "production", "main"]);
    assert!(said.contains("3 Three") && !said.contains("1 One"), "{said}");

    scene.migration("1_one.rb", "another");
    scene.commit();
    let refused = scene.try_git(&["push", "production", "main"]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && said.contains("db/migrate/1_one.rb was deployed and is edited"), "{said}");
    scene.git(&["push", "--no-verify", "production", "main"]);

    // Back to the first commit: what has gone from the files was deployed.
    let refused = scene.try_git(&["push", "--force", "production", &format!("{first}:refs/heads/main")]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && said.contains("3_three.rb was deployed and is deleted"), "{said}");
}

#[test]
fn what_deploys_nothing_is_not_looked_at() {
    let scene = Scene::with_hook("sha1");
    scene.migration("1_Illegal.rb", "");
    let commit = scene.commit();
    scene.git(&["push", "production", "main:elsewhere"]);
    scene.git(&["tag", "v1"]);
    scene.git(&["push", "production", "v1"]);
    let (zero, line) = ("0".repeat(40), format!("refs/heads/main {commit} refs/heads/main "));
    let code = |remote: &str, url: &str, lines: &str| scene.hook(remote, url, lines.as_bytes()).status.code();
    assert_eq!(code("origin", "git@github.com:me/app.git", &format!("{line}{zero}\n")), Some(0));
    assert_eq!(code("heroku", "https://git.heroku.com/my-app.git", &format!("{line}{zero}\n")), Some(8));
    assert_eq!(code("production", "../remote", &format!("{line}{zero}\n")), Some(8));
    assert_eq!(code("production", "../remote", &format!("(delete) {zero} refs/heads/main {commit}\n")), Some(0));
    assert_eq!(code("production", "../remote", ""), Some(0));
}

#[test]
fn what_the_hook_cannot_find_out_stops_no_push() {
    let scene = Scene::with_hook("sha1");
    scene.migration("1_one.rb", "");
    let commit = scene.commit();
    for (lines, said) in [
        (format!("a {commit} refs/heads/main {}\n", "b".repeat(40)), "is not in this repository"),
        (format!("a {} refs/heads/main {commit}\n", "b".repeat(40)), "the commits cannot be compared"),
        ("\u{1b}]0;x\u{7} what\n".to_owned(), "1 lines on standard input are not what git writes"),
    ] {
        let output = scene.hook("production", "../remote", lines.as_bytes());
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{text}");
        assert!(text.contains(said) && !text.contains('\u{1b}'), "{text}");
    }
}

#[test]
fn ten_thousand_references_are_read() {
    let scene = Scene::with_hook("sha1");
    scene.migration("1_one.rb", "");
    let commit = scene.commit();
    let branches = (0..10_000).map(|n| format!("b{n}")).chain(["main".to_owned()]);
    let line = |branch| format!("refs/heads/{branch} {commit} refs/heads/{branch} {}", "0".repeat(40));
    let lines: Vec<String> = branches.map(line).collect();
    let lines = lines.join("\n");
    let output = scene.hook("production", "../remote", lines.as_bytes());
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["pending"][0]["path"], "db/migrate/1_one.rb");
    assert_eq!(document["refused"], false);
}

#[test]
fn whatever_is_pushed_to_the_branch_is_what_is_looked_at() {
    let scene = Scene::with_hook("sha1");
    scene.migration("1_one.rb", "");
    scene.commit();
    scene.git(&["tag", "-a", "v1", "-m", "x"]);
    scene.git(&["branch", "topic"]);
    for source in ["HEAD", "topic", "v1", "v1^{commit}"] {
        let said = scene.git(&["push", "--dry-run", "production", &format!("{source}:refs/heads/main")]);
        assert!(said.contains("this push will run 1 migration:"), "{source}: {said}");
        assert!(said.contains("nothing is known to be deployed there"), "{source}: {said}");
    }
    // Two at once, of which one deploys; and a branch that is deleted.
    let said = scene.git(&["push", "production", "topic:topic", "topic:main"]);
    assert!(said.contains("this push will run 1 migration:"), "{said}");
    scene.git(&["push", "production", ":topic"]);
}

/// `git push --all` with both branches that deploy: the one that git names last may be the one that hurts.
#[test]
fn every_branch_that_deploys_is_looked_at() {
    let scene = Scene::with_hook("sha1");
    scene.migration("1_one.rb", "one");
    scene.commit();
    scene.git(&["push", "production", "main", "main:master"]);
    scene.migration("2_two.rb", "two");
    let good = scene.commit();
    scene.migration("1_one.rb", "edited");
    let bad = scene.commit();
    let deployed = scene.git(&["rev-parse", "HEAD~2"]);
    let line = |branch: &str, commit: &str| format!("x {commit} refs/heads/{branch} {}\n", deployed.trim());
    for (lines, code, rules) in [
        (line("main", &good) + &line("master", &good), 0, 0),
        (line("main", &good) + &line("master", &bad), 8, 1),
        (line("main", &bad) + &line("master", &good), 8, 1),
        (line("main", &bad) + &line("master", &bad), 8, 1),
        // One that cannot be looked at hides nothing of the other.
        (line("main", &"b".repeat(40)) + &line("master", &bad), 8, 1),
    ] {
        let output = scene.hook("production", "../remote", lines.as_bytes());
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((output.status.code(), document["pending"].as_array().unwrap().len()), (Some(code), 1), "{lines}");
        assert_eq!(document["findings"].as_array().unwrap().len(), rules, "{document}");
    }
}

#[test]
fn a_split_folder_is_a_rails_root_by_itself() {
    let scene = Scene::with_hook("sha1");
    scene.write("shop/db/migrate/1_one.rb", "");
    scene.write("shop/Procfile", "release: unstuck migrate\n");
    scene.commit();
    let tree = scene.git(&["rev-parse", "HEAD:shop"]);
    let split = scene.git(&["commit-tree", "-m", "split", tree.trim()]);
    let line = format!("HEAD {} refs/heads/main {}\n", split.trim(), "0".repeat(40));
    let config = scene.app().join(".unstuck.yml");
    let arguments = ["-C", "shop", "--config", config.to_str().unwrap(), "pre-push", "production", "../remote"];
    let output = scene.run_hook(&scene.app(), &arguments, line.as_bytes());
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["pending"][0]["path"], "db/migrate/1_one.rb");
    assert_eq!(document["findings"], serde_json::json!([]));
}

#[test]
fn a_new_branch_is_compared_with_what_was_last_seen() {
    let scene = Scene::with_hook("sha1");
    scene.migration("1_one.rb", "");
    scene.commit();
    scene.git(&["push", "production", "main:master"]);
    scene.migration("2_two.rb", "");
    scene.commit();
    let said = scene.git(&["push", "production", "main"]);
    assert!(said.contains("compared with refs/remotes/production/master"), "{said}");
    assert!(said.contains("this push will run 1 migration:") && said.contains("2 Two"), "{said}");
}

#[test]
fn a_push_that_takes_commits_back_is_warned_of() {
    let scene = Scene::with_hook("sha1");
    scene.commit();
    scene.git(&["push", "production", "main"]);
    scene.git(&["commit", "-q", "--amend", "--allow-empty", "-m", "other"]);
    scene.migration("1_one.rb", "");
    scene.commit();
    let said = scene.git(&["push", "--force", "production", "main"]);
    assert!(said.contains("is not part of what is pushed") && said.contains("(rewind)"), "{said}");
}

#[test]
fn what_is_not_here_is_said_and_never_fetched() {
    let scene = Scene::with_hook("sha1");
    scene.git(&["config", "uploadpack.allowFilter", "true"]);
    scene.migration("1_one.rb", "one");
    scene.commit();
    scene.migration("2_two.rb", "two");
    scene.commit();
    let line = format!(
        "refs/heads/main {} refs/heads/main {}\n",
        scene.git(&["rev-parse", "HEAD"]).trim(),
        scene.git(&["rev-parse", "HEAD~"]).trim()
    );
    let source = format!("file://{}", scene.app().display());
    for (option, said) in [
        ("--depth=1", "git fetch --unshallow production main"),
        ("--filter=tree:0", "in a partial clone, this makes git fetch it: git archive"),
    ] {
        let clone = scene.dir.path().join("clone");
        scene.git(&["clone", "-q", "--no-checkout", option, &source, clone.to_str().unwrap()]);
        fs::write(clone.join(".unstuck.yml"), "hook:\n  remotes: [production]\n").unwrap();
        let output = scene.hook_in(&clone, line.as_bytes());
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{text}");
        assert!(text.contains(said), "{option}: {text}");
        fs::remove_dir_all(clone).unwrap();
    }
}

#[test]
fn who_runs_what_is_pending_is_told() {
    let scene = Scene::with_hook("sha1");
    scene.migration("1_one.rb", "");
    for (procfile, release, code, said) in [
        ("release: unstuck migrate", "", 0, "a restart follows, and is proved"),
        ("release: bin/rails db:migrate", "", 0, "the new release restarts the dynos if it succeeds"),
        ("release: bin/release", "bundle exec rake db:migrate", 0, "`bin/release` in the Procfile runs them"),
        ("release: bin/release", "bundle exec rake deploy", 0, "cannot tell whether this release line"),
        ("release: echo hello", "", 8, "the release line does not run the pending migrations"),
        ("web: bin/rails server", "", 8, "no release line runs the pending migrations"),
    ] {
        scene.write("Procfile", procfile);
        scene.write("bin/release", release);
        let commit = scene.commit();
        let line = format!("refs/heads/main {commit} refs/heads/main {}\n", "0".repeat(40));
        let output = scene.hook("production", "../remote", line.as_bytes());
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.contains(said), "{text}");
    }
}

#[test]
fn the_release_phase_buildpack_is_one_who_migrates() {
    let scene = Scene::with_hook("sha1");
    scene.migration("1_one.rb", "");
    scene.write("Procfile", "web: bin/rails server");
    let release = "[[com.heroku.phase.release]]\ncommand = \"bash\"\nargs = [\"-c\", \"rake db:migrate\"]\n";
    scene.write("project.toml", release);
    scene.commit();
    let said = scene.git(&["push", "production", "main"]);
    assert!(said.contains("`bash -c 'rake db:migrate'` in the project.toml runs them"), "{said}");
}

#[test]
fn a_schema_file_goes_with_its_migrations() {
    let scene = Scene::with_hook("sha1");
    let schema = |version: u32| format!("ActiveRecord::Schema[7.1].define(version: {version}) do\nend\n");
    scene.migration("1_one.rb", "");
    scene.write("db/schema.rb", &schema(1));
    scene.write("db/animals_migrate/5_five.rb", "");
    scene.write("db/animals_structure.sql", "INSERT INTO \"schema_migrations\" (version) VALUES\n('5');\n");
    scene.commit();
    scene.git(&["push", "production", "main"]);
    for (file, text, said) in [
        ("db/migrate/2_two.rb", String::new(), "db/schema.rb:1:43 the schema file ends at 1, the migrations at 2"),
        ("db/schema.rb", schema(7), "db/schema.rb:1:43 the schema file is at 7, but the newest migration is 2"),
        ("db/animals_migrate/6_six.rb", String::new(), "db/animals_structure.sql:2:3 the schema file ends at 5"),
    ] {
        scene.write(file, &text);
        scene.commit();
        let push = scene.try_git(&["push", "production", "main"]);
        let text = String::from_utf8(push.stderr).unwrap();
        assert!(!push.status.success() && text.contains(said), "{text}");
    }
}

/// As Mastodon and GitLab have it: what runs after the deploy lies in a folder of its own, and both go into one schema file.
#[test]
fn folders_without_a_schema_file_share_that_of_the_first_database() {
    let scene = Scene::with_hook("sha1");
    let schema = |version: u32| {
        let body = "  create_table \"posts\" do |t|\n    t.string \"title\"\n  end\n";
        format!("ActiveRecord::Schema[7.1].define(version: {version}) do\n{body}end\n")
    };
    let migration = |body: &str| {
        format!(
            "class Any < ActiveRecord::Migration[7.1]\n  disable_ddl_transaction!\n  def change\n    {body}\n  end\nend\n"
        )
    };
    // A database without a schema file has no part in it.
    let databases = "production:\n  primary:\n    adapter: postgresql\n    migrations_paths: [db/migrate, ./db/post_migrate, parts/blog/db/migrate/]\n  \
                     cache:\n    adapter: postgresql\n    migrations_paths: [db/cache_migrate, parts/cache/migrate, late]\n    schema_dump: false\n";
    scene.write("config/database.yml", databases);
    scene.migration("1_one.rb", "");
    scene.write("db/post_migrate/5_five.rb", "# five\n");
    scene.write("db/cache_migrate/9_nine.rb", "# nine\n");
    scene.write("db/schema.rb", &schema(5));
    scene.commit();
    scene.git(&["push", "production", "main"]);

    for (file, text, version, refused) in [
        ("db/post_migrate/6_six.rb", migration("add_column :posts, :rank, :integer"), 6, None),
        ("db/migrate/7_seven.rb", migration("add_index :posts, :title, algorithm: :concurrently"), 7, None),
        ("db/cache_migrate/10_ten.rb", "# ten\n".to_owned(), 7, None),
        ("db/post_migrate/8_eight.rb", migration("add_index :posts, :title"), 8, Some("(index-blocks)")),
        (
            "db/post_migrate/8_eight.rb",
            "# eight\n".to_owned(),
            7,
            Some("db/schema.rb:1:43 the schema file ends at 7, the migrations at 8"),
        ),
        ("db/post_migrate/7_eight.rb", "# eight\n".to_owned(), 7, Some("(illegal)")),
        // Where only the configuration leads.
        ("parts/cache/migrate/11_eleven.rb", "# eleven\n".to_owned(), 7, None),
        ("late/12_twelve.rb", "# twelve\n".to_owned(), 7, None),
        ("parts/blog/db/migrate/8_blog.rb", migration("add_index :posts, :title"), 8, Some("(index-blocks)")),
        ("parts/blog/db/migrate/8_blog.rb", "# eight\n".to_owned(), 7, Some("the schema file ends at 7")),
        ("parts/blog/db/migrate/8_blog.rb", "# eight\n".to_owned(), 8, None),
    ] {
        scene.write(file, &text);
        scene.write("db/schema.rb", &schema(version));
        scene.commit();
        let push = scene.try_git(&["push", "production", "main"]);
        let said = String::from_utf8([push.stdout, push.stderr].concat()).unwrap();
        assert_eq!(push.status.success(), refused.is_none(), "{file}: {said}");
        assert!(said.contains(refused.unwrap_or("this push will run 1 migration:")), "{file}: {said}");
        if refused.is_some() {
            scene.git(&["reset", "-q", "--hard", "HEAD~"]);
        }
    }

    // Out of both folders in one order.
    scene.migration("20_z.rb", "");
    scene.write("db/post_migrate/19_y.rb", "# y\n");
    scene.write("db/schema.rb", &schema(20));
    scene.commit();
    let said = scene.git(&["push", "production", "main"]);
    assert!(said.find("19 Y") < said.find("20 Z") && said.contains("2 migrations:"), "{said}");
}

#[test]
fn a_commit_that_is_not_here_is_stood_in_for_by_what_was_last_seen() {
    let scene = Scene::with_hook("sha1");
    scene.migration("1_one.rb", "one");
    scene.commit();
    scene.git(&["update-ref", "refs/remotes/production/main", "HEAD"]);
    scene.migration("2_two.rb", "two");
    let pushed = scene.commit();
    let line = format!("refs/heads/main {pushed} refs/heads/main {}\n", "1".repeat(40));
    let output = scene.hook_in(&scene.app(), line.as_bytes());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("is not in this repository"), "{said}");
    assert!(said.contains("compared with refs/remotes/production/main instead"), "{said}");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["pending"][0]["name"], "Two", "{document}");
}

#[test]
fn a_push_without_a_rails_application_is_said_not_to_have_been_looked_at() {
    let scene = Scene::with_hook("sha1");
    scene.write("backend/db/migrate/1_one.rb", "");
    scene.commit();
    let said = scene.git(&["push", "production", "main"]);
    assert!(said.contains("there is no Rails application at the top of what is pushed"), "{said}");
}
