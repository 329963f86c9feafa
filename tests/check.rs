//! What a push would be told, by hand and in CI.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing there")]

#[path = "support/push.rs"]
mod push;
#[path = "support/secrets.rs"]
mod secrets;

use std::process::Output;

use push::Scene;
use serde_json::Value;

/// On the branch `feature`, one commit after `origin/main`.
fn scene() -> Scene {
    let scene = Scene::new("sha1");
    scene.migration("1_one.rb", "# one");
    scene.write("db/schema.rb", &schema(1));
    scene.commit();
    scene.git(&["update-ref", "refs/remotes/origin/main", "HEAD"]);
    scene.git(&["switch", "-q", "-c", "feature"]);
    scene.migration("3_three.rb", "three");
    scene.write("db/schema.rb", &schema(3));
    scene.commit();
    scene
}

fn schema(version: u32) -> String {
    format!("ActiveRecord::Schema[7.1].define(version: {version}) do\nend\n")
}

fn check(scene: &Scene, arguments: &[&str]) -> Output {
    let mut command = scene.command(&scene.app(), env!("CARGO_BIN_EXE_unstuck"));
    let output = command.arg("check").args(arguments).output().unwrap();
    secrets::keep(&output);
    output
}

fn document(scene: &Scene, arguments: &[&str]) -> Value {
    let output = check(scene, &[arguments, &["--json"]].concat());
    let error = || String::from_utf8_lossy(&output.stderr).into_owned();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", error()))
}

/// The names of what is pending, and the rules of what was found.
fn seen(document: &Value) -> (Vec<&str>, Vec<&str>) {
    let words = |list: &str, key: &str| {
        let list = document[list].as_array().unwrap_or_else(|| panic!("{document}"));
        list.iter().map(|entry| entry[key].as_str().unwrap()).collect()
    };
    (words("pending", "name"), words("findings", "rule"))
}

#[test]
fn a_range_is_read_as_git_reads_it() {
    let scene = scene();
    scene.git(&["switch", "-q", "main"]);
    scene.migration("2_two.rb", "# two");
    scene.write("db/schema.rb", &schema(2));
    scene.commit();
    scene.git(&["switch", "-q", "feature"]);
    for (range, pending, rules) in [
        (&[][..], &["Three"][..], &[][..]),
        (&["main...HEAD"], &["Three"], &[]),
        (&["main.."], &["Three"], &["deleted", "rewind"]),
        (&["HEAD~"], &["Three"], &[]),
        (&["..HEAD"], &[], &[]),
        (&["feature..main"], &["Two"], &["deleted", "out-of-order", "rewind"]),
    ] {
        let document = document(&scene, range);
        assert_eq!(seen(&document), (pending.to_vec(), rules.to_vec()), "{range:?}");
    }
}

#[test]
fn what_cannot_be_compared_is_no_success() {
    let scene = scene();
    scene.git(&["update-ref", "-d", "refs/remotes/origin/main"]);
    for (arguments, hint) in [
        (&[][..], "say it: unstuck check A..B"),
        (&["nowhere..HEAD"], "a range is written as for git"),
        (&["HEAD^{tree}..HEAD"], "a range is written as for git"),
    ] {
        let document = document(&scene, arguments);
        assert!(document["error"]["hint"].as_str().unwrap().contains(hint), "{document}");
        assert_eq!(check(&scene, arguments).status.code(), Some(1));
    }
}

#[test]
fn the_base_of_a_pull_request_is_compared_with() {
    let scene = scene();
    scene.git(&["update-ref", "refs/remotes/origin/release", "HEAD"]);
    let mut command = scene.command(&scene.app(), env!("CARGO_BIN_EXE_unstuck"));
    let output = command.args(["check", "--json"]).env("GITHUB_BASE_REF", "release").output().unwrap();
    secrets::keep(&output);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(seen(&document).0, [""; 0]);
}

#[test]
fn every_format_says_the_same() {
    let scene = scene();
    scene.migration("1_one.rb", "# edited");
    scene.migration("4_four.rb", "");
    scene.commit();
    let text = |output: &Output| String::from_utf8(output.stdout.clone()).unwrap();

    let plain = check(&scene, &[]);
    assert_eq!(plain.status.code(), Some(8));
    assert!(text(&plain).contains("these commits would run 2 migrations:"), "{}", text(&plain));

    let document = document(&scene, &[]);
    assert_eq!(document["refused"], true);
    let behind = &document["findings"][1];
    let expected = serde_json::json!({
        "rule": "schema-out-of-step",
        "severity": "refusal",
        "path": "db/schema.rb",
        "line": 1,
        "column": 43,
        "excerpt": "ActiveRecord::Schema[7.1].define(version: 3) do",
        "message": "the schema file ends at 3, the migrations at 4: it was not written after the newest one",
        "remedy": ["run `bin/rails db:migrate` and commit the schema file with the migration"],
    });
    assert_eq!(*behind, expected);
    assert_eq!(document["release"]["migrates"], "proved");

    let github = check(&scene, &["--format", "github"]);
    assert_eq!(github.status.code(), Some(8));
    let lines: Vec<String> = text(&github).lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("::error file=db/migrate/1_one.rb,title=edited::was deployed"), "{lines:?}");
    assert!(lines[1].starts_with("::error file=db/schema.rb,line=1,col=43,title=schema-out-of-step::"), "{lines:?}");

    let sarif = check(&scene, &["--format", "sarif"]);
    let sarif: Value = serde_json::from_slice(&sarif.stdout).unwrap();
    assert_eq!(sarif["version"], "2.1.0");
    let run = &sarif["runs"][0];
    let listed: Vec<&Value> = run["tool"]["driver"]["rules"].as_array().unwrap().iter().collect();
    for result in run["results"].as_array().unwrap() {
        assert!(listed.iter().any(|rule| rule["id"] == result["ruleId"]), "{result}");
        assert_eq!(result["level"], "error");
    }
    assert_eq!(run["results"][1]["locations"][0]["physicalLocation"]["region"]["startColumn"], 43);
}

#[test]
fn the_configuration_lets_findings_through() {
    let scene = scene();
    scene.migration("1_one.rb", "# edited");
    scene.commit();
    let rules = |allow: &str| {
        scene.write(".unstuck.yml", &format!("hook:\n  allow: {allow}\n"));
        let document = document(&scene, &[]);
        (document["refused"].as_bool().unwrap(), document["findings"][0]["severity"].as_str().unwrap().to_owned())
    };
    for (allow, refused) in [
        ("[deleted]", true),
        ("[edited]", false),
        ("edited db/migrate/1_*.rb", false),
        ("[edited db/migrate/2_*.rb]", true),
    ] {
        assert_eq!(rules(allow), (refused, if refused { "refusal" } else { "note" }.to_owned()), "{allow}");
    }
    scene.write(".unstuck.yml", "hook:\n  allow: [edited a b]\n");
    assert_eq!(check(&scene, &[]).status.code(), Some(1));
}

#[test]
fn code_beside_migrations_is_warned_of_where_the_policy_says_so() {
    let scene = scene();
    scene.write("app/models/post.rb", "class Post; end");
    scene.commit();
    assert_eq!(seen(&document(&scene, &[])).1, [""; 0]);
    scene.write(".unstuck.yml", "hook:\n  policy: separate\n");
    let told = document(&scene, &[]);
    assert_eq!(seen(&told).1, ["together"]);
    assert_eq!(told["refused"], false);
    assert_eq!(seen(&document(&scene, &["HEAD~..HEAD"])).1, [""; 0], "code alone is no matter of ours");
}

#[test]
fn a_rails_root_below_the_top_is_found_and_named_from_there() {
    let scene = Scene::new("sha1");
    scene.write("shop/db/migrate/1_one.rb", "# one");
    scene.commit();
    scene.write("shop/db/migrate/1_one.rb", "# edited");
    scene.write("shop/db/migrate/2_two.rb", "# two");
    scene.commit();
    let shown = document(&scene, &["HEAD~", "-C", "shop"]);
    assert_eq!(seen(&shown), (vec!["Two"], vec!["edited"]));
    assert_eq!(shown["findings"][0]["path"], "shop/db/migrate/1_one.rb");
}

#[test]
fn a_migration_is_read_against_the_code_that_runs() {
    let scene = Scene::new("sha1");
    scene.write(".unstuck.yml", "");
    scene.write("app/models/post.rb", "class Post < ApplicationRecord\n  validates :title, presence: true\nend\n");
    scene.write(
        "db/schema.rb",
        "ActiveRecord::Schema[7.1].define(version: 1) do\n  create_table \"posts\" do |t|\n    t.string \"title\"\n  end\nend\n",
    );
    scene.write("db/migrate/1_create_posts.rb", "# done\n");
    scene.commit();
    let migration = |body: &str| {
        format!("class RemoveTitle < ActiveRecord::Migration[7.1]\n  def change\n    {body}\n  end\nend\n")
    };
    let remove = "remove_column :posts, :title, :string";
    scene.write("db/migrate/2_remove_title.rb", &migration(remove));
    scene.write("db/schema.rb", "ActiveRecord::Schema[7.1].define(version: 2) do\nend\n");
    scene.commit();
    let told = document(&scene, &["HEAD~"]);
    let finding = &told["findings"][0];
    assert_eq!((&finding["rule"], &finding["severity"]), (&"remove-column".into(), &"refusal".into()), "{told}");
    assert_eq!((&finding["line"], &finding["excerpt"]), (&3.into(), &format!("    {remove}").into()), "{told}");
    assert_eq!(told["pending"][0]["class"], "breaks running code until the restart");
    assert_eq!(told["pending"][0]["what"].as_array().unwrap().len(), 1, "{told}");
    assert_eq!(told["refused"], true);

    for (allow, place) in [("in the code", "db/migrate/2_remove_title.rb"), ("in the file", ".unstuck.yml")] {
        let text = match place {
            ".unstuck.yml" => "hook:\n  allow: remove-column\n".to_owned(),
            _ => migration(&format!("{remove} # unstuck:allow remove-column nobody reads it")),
        };
        scene.write(place, &text);
        scene.commit();
        assert_eq!(document(&scene, &["HEAD~2"])["refused"], false, "{allow}");
        scene.git(&["reset", "-q", "--hard", "HEAD~"]);
    }
}

/// However much is pushed, it is told on one screen.
#[test]
fn what_many_migrations_do_is_cut_short() {
    let scene = scene();
    for version in 11..=40 {
        let columns = ["a", "b", "c", "d", "e", "f"].map(|name| format!("t.string :{name}\n")).concat();
        let body = format!("  def change\n    create_table(:t{version}) do |t|\n{columns}    end\n  end\n");
        let text = format!("class A{version} < ActiveRecord::Migration[7.1]\n{body}end\n");
        scene.write(&format!("db/migrate/{version}_a{version}.rb"), &text);
    }
    scene.commit();
    let told = check(&scene, &["HEAD~"]);
    let told = String::from_utf8(told.stdout).unwrap();
    assert_eq!(told.lines().filter(|line| line.starts_with("    - ")).count(), 21, "{told}");
    assert!(told.contains("    - ... and 1 more; --json has them all\n"), "{told}");
    assert!(told.contains("  30 A30 ") && !told.contains("  31 A31 "), "{told}");
    assert!(told.contains("  ... and 10 more; --json has them all\n"), "{told}");
}

/// What says something of models from outside: initializers, the application's configuration, an engine within it.
#[test]
fn models_are_known_by_all_that_is_said_of_them() {
    let scene = Scene::new("sha1");
    let table = |name: &str| format!("  create_table \"{name}\" do |t|\n    t.string \"title\"\n  end\n");
    let tables = ["posts_x", "notes_x", "blog_posts_x", "bills_x", "taxes_x", "fees_x"].map(table).concat();
    let schema = |version: u32| format!("ActiveRecord::Schema[7.1].define(version: {version}) do\n{tables}end\n");
    let model = |name: &str| format!("class {name} < ApplicationRecord\nend\n");
    scene.write("app/models/post.rb", &model("Post"));
    scene.write("app/models/note.rb", &model("Note"));
    scene.write("config/initializers/old.rb", "Rails.configuration.to_prepare { Post.ignored_columns += %w[title] }\n");
    let application = "class App < Rails::Application\n  config.active_record.table_name_suffix = \"_x\"\nend\n";
    scene.write("config/application.rb", application);
    scene.write("engines/blog/app/models/blog/post.rb", &format!("module Blog\n  {}end\n", model("Post")));
    let engine = "module Blog\n  class Engine < ::Rails::Engine\n    isolate_namespace Blog\n  end\nend\n";
    scene.write("engines/blog/lib/blog/engine.rb", engine);
    let concern = "module Untitled\n  def self.included(base) = base.ignored_columns += %w[title]\nend\n";
    scene.write("lib/untitled.rb", concern);
    scene.write("app/models/bill.rb", "class Bill < ApplicationRecord\n  include Untitled\nend\n");
    scene.write("app/domains/taxes/tax.rb", &model("Tax"));
    scene.write("packs/fees/lib/unnamed.rb", &concern.replace("Untitled", "Unnamed"));
    scene.write("packs/fees/app/public/fee.rb", "class Fee < ApplicationRecord\n  include Unnamed\nend\n");
    scene.write("db/migrate/1_one.rb", "# done\n");
    scene.write("db/schema.rb", &schema(1));
    scene.commit();
    for (table, rules, model) in [
        ("bills_x", &[][..], ""),
        ("fees_x", &[], ""),
        ("taxes_x", &["remove-column"], "the running model Tax"),
        ("posts_x", &[], ""),
        ("notes_x", &["remove-column"], "the running model Note"),
        ("blog_posts_x", &["remove-column"], "the running model Blog::Post"),
    ] {
        let body = format!("  def change = remove_column(:{table}, :title, :string)\n");
        scene.write("db/migrate/2_two.rb", &format!("class Two < ActiveRecord::Migration[7.1]\n{body}end\n"));
        scene.write("db/schema.rb", &schema(2));
        scene.commit();
        let told = document(&scene, &["HEAD~"]);
        assert_eq!(seen(&told).1, rules, "{told}");
        assert!(told["findings"].to_string().contains(model), "{told}");
        scene.git(&["reset", "-q", "--hard", "HEAD~"]);
    }
}

#[test]
fn where_nothing_was_looked_at_nothing_is_called_right() {
    let scene = Scene::new("sha1");
    scene.write("backend/db/migrate/1_one.rb", "");
    scene.commit();
    scene.write("backend/db/migrate/2_two.rb", "");
    scene.commit();
    let output = check(&scene, &["HEAD~..HEAD"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("there is no Rails application at the top") && said.contains("-C names"), "{said}");
    let mut command = scene.command(&scene.app(), env!("CARGO_BIN_EXE_unstuck"));
    let output = command.args(["check", "-C", "backend", "--json", "HEAD~..HEAD"]).output().unwrap();
    secrets::keep(&output);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(seen(&document), (vec!["Two"], vec![]), "{document}");
}

#[test]
fn a_folder_that_is_built_by_itself_has_its_own_release_line() {
    let scene = Scene::new("sha1");
    std::fs::rename(scene.app().join("Procfile"), scene.dir.path().join("Procfile")).unwrap();
    for (procfile, rules) in [("web: puma\n", &["no-release"][..]), ("release: unstuck migrate\n", &[])] {
        scene.write("backend/Procfile", procfile);
        scene.write("backend/db/migrate/1_one.rb", "");
        scene.commit();
        scene.write("backend/db/migrate/2_two.rb", "");
        scene.commit();
        let mut command = scene.command(&scene.app(), env!("CARGO_BIN_EXE_unstuck"));
        let output = command.args(["check", "-C", "backend", "--json", "HEAD~..HEAD"]).output().unwrap();
        secrets::keep(&output);
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(seen(&document).1, rules, "{document}");
        std::fs::remove_file(scene.app().join("backend/db/migrate/2_two.rb")).unwrap();
        scene.commit();
    }
}

#[test]
fn a_schema_file_that_cannot_be_one_is_said() {
    let scene = scene();
    scene.write("db/schema.rb", &format!("<<<<<<< HEAD\n{}=======\n{}>>>>>>> x\n", schema(3), schema(2)));
    scene.commit();
    assert_eq!(seen(&document(&scene, &["main..HEAD"])).1, ["schema-out-of-step"]);
    std::fs::remove_file(scene.app().join("db/schema.rb")).unwrap();
    scene.commit();
    let document = document(&scene, &["main..HEAD"]);
    assert_eq!(seen(&document).1, ["schema-out-of-step"]);
    assert_eq!(document["findings"][0]["severity"], "warning", "{document}");
}

#[test]
fn a_name_that_is_none_says_nothing_of_the_schema_file() {
    let scene = scene();
    scene.migration("5_A-b.rb", "");
    scene.write("db/schema.rb", &schema(5));
    scene.commit();
    assert_eq!(seen(&document(&scene, &["main..HEAD"])).1, ["illegal"]);
}

#[test]
fn a_comment_lets_an_edit_pass() {
    let scene = scene();
    scene.migration("1_one.rb", "another\n# unstuck:allow edited a typo in a comment");
    scene.commit();
    let document = document(&scene, &["main..HEAD"]);
    assert_eq!(document["findings"][0]["severity"], "note", "{document}");
    assert!(document["findings"][0]["message"].as_str().unwrap().ends_with("(allowed: a typo in a comment)"));
}
