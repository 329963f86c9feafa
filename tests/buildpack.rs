//! The buildpack, run by hand exactly as Heroku and Cloud Native builders run it, from the archive that `bin/package` makes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing there")]

#[path = "support/rails_app.rs"]
mod rails_app;
#[path = "support/scene.rs"]
mod scene;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rails_app::{Database, RailsApp};
use scene::{Ran, TOKEN};
use serde_json::json;
use tempfile::TempDir;
use unstuck_standin::{Deploy, Fact, Mode, Options, Standin, Status};

const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");

/// What is packed: the release binary that `UNSTUCK_RELEASE_BINARY` names, which is small, or the one under test.
static BINARY: LazyLock<PathBuf> =
    LazyLock::new(|| env::var_os("UNSTUCK_RELEASE_BINARY").map_or(env!("CARGO_BIN_EXE_unstuck").into(), PathBuf::from));

/// What `bin/package` makes of it.
static PACKAGES: LazyLock<TempDir> = LazyLock::new(package);

fn package() -> TempDir {
    let out = tempfile::tempdir().unwrap();
    let ran = Command::new(format!("{REPOSITORY}/bin/package"))
        .arg("--out")
        .arg(out.path())
        .arg("--binary")
        .arg(&*BINARY)
        .output();
    Ran::of(ran.unwrap()).code(0);
    out
}

fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

fn archive() -> PathBuf {
    let made = fs::read_dir(PACKAGES.path()).unwrap().map(|entry| entry.unwrap().path());
    made.into_iter().find(|path| path.to_string_lossy().ends_with(".tar.gz")).unwrap()
}

fn unpack(archive: &Path) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let done = Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(folder.path()).status().unwrap();
    assert!(done.success());
    folder
}

/// The buildpack as Heroku unpacks it, an application, and what a build keeps between two.
struct Build {
    buildpack: TempDir,
    /// Its name is as odd as a file system allows.
    work: TempDir,
    app: PathBuf,
}

impl Build {
    /// With the archive that carries the binary.
    fn new() -> Self {
        Self::with(unpack(&PACKAGES.path().join(format!("unstuck-buildpack-{}.tgz", version()))))
    }

    /// With a copy that carries none, as a clone of the repository is.
    fn bare() -> Self {
        let build = Self::new();
        fs::remove_dir_all(build.buildpack.path().join("dist")).unwrap();
        build
    }

    fn with(buildpack: TempDir) -> Self {
        let work = tempfile::Builder::new().prefix("a 'build' \"of\" $HOME\n*").tempdir().unwrap();
        let app = work.path().join("app");
        for folder in ["app/db/migrate", "env"] {
            fs::create_dir_all(work.path().join(folder)).unwrap();
        }
        Self { buildpack, work, app }
    }

    fn set(&self, name: &str, value: &str) -> &Self {
        fs::write(self.work.path().join("env").join(name), value).unwrap();
        self
    }

    fn procfile(&self, text: &str) -> &Self {
        fs::write(self.app.join("Procfile"), text).unwrap();
        self
    }

    /// With an environment that has nothing in it but what Heroku promises.
    fn script(&self, name: &str) -> Command {
        let mut command = Command::new(self.buildpack.path().join("bin").join(name));
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", self.work.path()).env("STACK", "heroku-24");
        command.env("GIT_DIR", "/nowhere").current_dir(self.work.path());
        command
    }

    fn run(&self, name: &str, folders: &[&str]) -> Ran {
        Ran::of(self.script(name).args(folders.iter().map(|folder| self.work.path().join(folder))).output().unwrap())
    }

    fn compile(&self) -> Ran {
        self.run("compile", &["app", "cache", "env"])
    }

    fn installed(&self) -> PathBuf {
        self.app.join(".unstuck/bin/unstuck")
    }
}

#[test]
fn an_application_is_told_by_what_rails_keeps_there() {
    let build = Build::new();
    assert_eq!(build.run("detect", &["app"]).code(0).out, "unstuck\n");
    fs::remove_dir_all(build.app.join("db")).unwrap();
    assert!(build.run("detect", &["app"]).code(1).err.contains("no Rails application"));
    for file in ["bin/rails", "config/application.rb", "config/database.yml"] {
        fs::create_dir_all(build.app.join(file).parent().unwrap()).unwrap();
        fs::write(build.app.join(file), "").unwrap();
        build.run("detect", &["app"]).code(0);
        fs::remove_file(build.app.join(file)).unwrap();
    }
}

#[test]
fn what_the_archive_carries_is_put_on_the_path_without_any_network() {
    let build = Build::new();
    build.set("HEROKU_API_KEY", TOKEN);
    let offline = build.work.path().join("offline");
    fs::create_dir(&offline).unwrap();
    fs::write(offline.join("curl"), "#!/bin/sh\necho the network was asked >&2; exit 99\n").unwrap();
    fs::set_permissions(offline.join("curl"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", offline.display());
    for _ in 0..2 {
        let folders = ["app", "cache", "env"].map(|folder| build.work.path().join(folder));
        let ran = Ran::of(build.script("compile").args(folders).env("PATH", &path).output().unwrap()).code(0);
        assert!(
            ran.out.starts_with("-----> unstuck: a restart always follows a migration\n       unstuck "),
            "{ran:?}"
        );
        assert!(ran.out.contains("added 'release: unstuck migrate'"), "{ran:?}");
        assert_eq!(ran.err, "");
    }
    let ours = fs::read(&*BINARY).unwrap();
    assert!(fs::read(build.installed()).unwrap() == ours);

    // As a dyno starts: HOME is the application's folder, and each of these files is sourced.
    let dyno = |command: &str| {
        let mut bash = Command::new("bash");
        bash.arg("-c").arg(format!("for file in .profile.d/*.sh; do source \"$file\"; done; {command}"));
        bash.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", &build.app).current_dir(&build.app);
        Ran::of(bash.output().unwrap())
    };
    assert!(dyno("unstuck --version").code(0).out.starts_with(&format!("unstuck {} (", version())));
    // As the next buildpack is run.
    let export = build.buildpack.path().join("export");
    let next = Command::new("bash").arg("-c").arg("source \"$0\"; unstuck --version").arg(export).output().unwrap();
    Ran::of(next).code(0);

    let kept = Command::new("grep").args(["-rl", TOKEN]).arg(&build.app).output().unwrap();
    assert_eq!(kept.stdout, b"", "no secret is in the slug");
}

#[test]
fn the_release_line_is_added_only_where_there_is_none() {
    let build = Build::new();
    let default = "---\ndefault_process_types:\n  release: unstuck migrate\n";
    let table = [
        (None, default, "default", "added 'release: unstuck migrate'"),
        (Some("web: puma\n"), default, "default", "added"),
        (Some("web: puma\r\nworker: sidekiq\r\n\n"), default, "default", "added"),
        (Some("web: release: x\n# release: x\nrelease:\nrelease:x\nreleases: x"), default, "default", "added"),
        (
            Some("release: unstuck migrate\r\n"),
            "--- {}\n",
            "unstuck",
            "The Procfile runs it: 'release: unstuck migrate'",
        ),
        (
            Some("web: puma\n  release bin/unstuck migrate"),
            "--- {}\n",
            "unstuck",
            "runs it: 'release: bin/unstuck migrate'",
        ),
        (Some("release: unstuck -v migrate && bin/warm\n"), "--- {}\n", "unstuck", "The Procfile runs it"),
        (Some("release: sh ./db/release x\n"), "--- {}\n", "unstuck", "The Procfile runs it"),
        (Some("release: sh ./db/other x\n"), "--- {}\n", "other", "does not run 'unstuck migrate'"),
        (Some("release: unstuck status\n"), "--- {}\n", "other", "does not run 'unstuck migrate'"),
        (Some("release: bin/rails db:migrate\n"), "--- {}\n", "other", "does not run 'unstuck migrate'"),
    ];
    fs::write(build.app.join("db/release"), "set -e\nunstuck migrate\n").unwrap();
    for (procfile, yaml, line, said) in table {
        if let Some(text) = procfile {
            build.procfile(text);
        }
        // A second build of the same folder finds what the first one wrote.
        build.compile().code(0);
        let ran = build.compile().code(0);
        assert_eq!(build.run("release", &["app"]).code(0).out, yaml, "{procfile:?}");
        let own = procfile.unwrap_or_default();
        let own = if line == "default" && own.ends_with('x') { format!("{own}\n") } else { own.to_owned() };
        let comment = "# Added by the buildpack unstuck, since there was no release line:\n";
        let added = if line == "default" { format!("{comment}release: unstuck migrate\n") } else { String::new() };
        assert_eq!(fs::read_to_string(build.app.join("Procfile")).unwrap(), format!("{own}{added}"));
        assert!(format!("{}{}", ran.out, ran.err).contains(said), "{procfile:?}: {ran:?}");
        assert!(ran.err.contains("HEROKU_API_KEY is not set"), "{ran:?}");
        let report = build.run("report", &["app", "cache", "env"]).code(0).out;
        let expected =
            format!("unstuck_version: \"{}\"\nunstuck_origin: carried\nunstuck_release_line: {line}\n", version());
        assert_eq!(report, expected);
    }
}

#[test]
fn a_key_is_missed_where_a_migration_would_be_refused_without_it() {
    let build = Build::new();
    let misses = || build.compile().code(0).err.contains("HEROKU_API_KEY is not set");
    assert!(misses());
    build.set("HEROKU_API_KEY", "");
    assert!(misses());
    fs::write(build.app.join(".unstuck.yml"), "restart:\n  policy: handoff\n").unwrap();
    assert!(!misses());
    fs::write(build.app.join(".unstuck.yml"), "restart:\n  policy: api\n").unwrap();
    assert!(misses());
    build.set("UNSTUCK_RESTART_POLICY", "handoff");
    assert!(!misses());
    build.set("UNSTUCK_RESTART_POLICY", "api").set("HEROKU_API_KEY", TOKEN);
    assert!(!misses());
}

#[test]
fn a_web_process_that_only_heroku_ruby_would_start_is_not_lost_in_silence() {
    let build = Build::new();
    fs::create_dir(build.app.join(".profile.d")).unwrap();
    for (ruby_came_before, procfile, warned) in
        [(false, "worker: sidekiq\n", false), (true, "worker: sidekiq\n", true), (true, "web: puma\n", false)]
    {
        if ruby_came_before {
            fs::write(build.app.join(".profile.d/ruby.sh"), "").unwrap();
        }
        let said = build.procfile(procfile).compile().code(0).err;
        assert_eq!(said.contains("Put this one first"), warned, "{ruby_came_before} {procfile:?}: {said}");
    }
}

#[test]
fn a_binary_that_is_not_the_packed_one_is_refused() {
    let build = Build::new();
    build.compile().code(0);
    fs::remove_file(build.installed()).unwrap();
    let machine = env::consts::ARCH;
    fs::write(build.buildpack.path().join(format!("dist/{machine}/unstuck")), "#!/bin/sh\n").unwrap();
    assert!(build.compile().code(1).err.contains("not the one that was packed"));
    assert!(!build.installed().exists());
    let report = build.run("report", &["app", "cache", "env"]).code(0).out;
    assert!(report.contains("unstuck_origin: none\n"), "{report}");
}

/// A server of one file, which counts how often it is asked.
fn serve(content: Vec<u8>) -> (String, &'static AtomicUsize) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // A user and a password in it are as secret as any.
    let url =
        format!("http://ann:{}@{}/unstuck.tar.gz", scene::secrets::PASSWORD_IN_URL, listener.local_addr().unwrap());
    let asked: &'static AtomicUsize = Box::leak(Box::new(AtomicUsize::new(0)));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            asked.fetch_add(1, Ordering::SeqCst);
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", content.len());
            // A client that has heard enough is no failure of the server.
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&content));
        }
    });
    (url, asked)
}

fn sha256(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

#[test]
fn a_download_is_verified_and_made_once() {
    let (url, asked) = serve(fs::read(archive()).unwrap());
    let build = Build::bare();
    let said = build.compile().code(1).err;
    assert!(said.contains("carries no binary") && said.contains("UNSTUCK_BUILDPACK_SHA256"), "{said}");

    build.set("UNSTUCK_BUILDPACK_URL", &url).set("UNSTUCK_BUILDPACK_SHA256", &"0".repeat(64));
    let said = build.compile().code(1).err;
    assert!(said.contains("not what was asked for") && said.contains(&sha256(&archive())), "{said}");
    assert!(!build.installed().exists(), "nothing of it is used");

    build.set("UNSTUCK_BUILDPACK_SHA256", &sha256(&archive()));
    let before = asked.load(Ordering::SeqCst);
    for origin in ["download", "cache", "cache"] {
        let ran = build.compile().code(0);
        assert!(ran.out.contains(&format!(", {origin}\n")), "{ran:?}");
    }
    assert_eq!(asked.load(Ordering::SeqCst) - before, 1);

    // A cache that is not as it was left is not believed.
    fs::write(build.work.path().join("cache/unstuck/unstuck"), "#!/bin/sh\n").unwrap();
    assert!(build.compile().code(0).out.contains(", download\n"));

    build.set("UNSTUCK_BUILDPACK_URL", "http://127.0.0.1:1/").set("UNSTUCK_BUILDPACK_SHA256", &"1".repeat(64));
    assert!(build.compile().code(1).err.contains("The download failed: curl ended with 7"));
}

#[test]
fn a_cloud_native_build_gets_a_layer_and_a_process() {
    let build = Build::new();
    let folder = |name: &str| build.work.path().join(name);
    fs::create_dir_all(folder("layers")).unwrap();
    fs::create_dir_all(folder("platform/env")).unwrap();
    let native = |script: &str, arguments: &[&str]| {
        let mut command = build.script(script);
        command.args(arguments.iter().map(|argument| folder(argument))).current_dir(&build.app);
        command.env("CNB_BUILD_PLAN_PATH", folder("plan")).env("CNB_PLATFORM_DIR", folder("platform"));
        command.env("CNB_LAYERS_DIR", folder("layers")).env("CNB_BUILDPACK_DIR", build.buildpack.path());
        Ran::of(command.output().unwrap())
    };
    native("detect", &["platform", "plan"]).code(0);
    assert!(fs::read_to_string(folder("plan")).unwrap().contains("[[provides]]\nname = \"unstuck\""));
    for _ in 0..2 {
        native("build", &["layers", "platform", "plan"]).code(0);
    }
    assert!(fs::read_to_string(folder("layers/unstuck.toml")).unwrap().contains("launch = true"));
    assert!(Command::new(folder("layers/unstuck/bin/unstuck")).arg("-V").status().unwrap().success());
    let materials = fs::read(folder("layers/unstuck.sbom.cdx.json")).unwrap();
    let materials: serde_json::Value = serde_json::from_slice(&materials).unwrap();
    assert_eq!(materials["bomFormat"], "CycloneDX");
    let crates = materials["components"].as_array().unwrap();
    let known =
        |name: &str| crates.iter().any(|part| part["name"] == name && part["licenses"][0]["expression"].is_string());
    assert!(known("clap") && known("git2") && known("libsqlite3-sys") && !known("jsonschema"), "{materials}");
    let launch = fs::read_to_string(folder("layers/launch.toml")).unwrap();
    assert_eq!(launch, "[[processes]]\ntype = \"release\"\ncommand = [\"unstuck\", \"migrate\"]\n");

    fs::remove_file(folder("layers/launch.toml")).unwrap();
    build.procfile("release: unstuck migrate\n");
    native("build", &["layers", "platform", "plan"]).code(0);
    assert!(!folder("layers/launch.toml").exists(), "the Procfile's own line stands");
    fs::remove_dir_all(build.app.join("db")).unwrap();
    native("detect", &["platform", "plan"]).code(100);
}

#[test]
fn two_packages_of_one_commit_are_equal_and_complete() {
    let again = package();
    let names = |folder: &TempDir| {
        let mut names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&PACKAGES), names(&again));
    assert_eq!(names(&again).len(), 3);
    for name in names(&again) {
        assert!(
            fs::read(PACKAGES.path().join(&name)).unwrap() == fs::read(again.path().join(&name)).unwrap(),
            "{name:?}"
        );
    }
    let checked = Command::new("sha256sum").args(["--check", "SHA256SUMS"]).current_dir(again.path()).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");

    let unpacked = unpack(&archive());
    let folder = fs::read_dir(unpacked.path()).unwrap().next().unwrap().unwrap().path();
    for file in
        ["LICENSE-MIT", "LICENSE-APACHE", "README.md", "unstuck.cdx.json", "man/unstuck.1", "man/unstuck-migrate.1"]
    {
        assert!(folder.join(file).metadata().unwrap().len() > 500, "{file}");
    }
    let completions =
        [("unstuck.bash", "bash"), ("_unstuck", "zsh"), ("unstuck.fish", "fish"), ("_unstuck.ps1", "powershell")];
    for (file, shell) in completions {
        let printed = Ran::of(Command::new(folder.join("unstuck")).args(["completions", shell]).output().unwrap());
        assert_eq!(fs::read_to_string(folder.join("completions").join(file)).unwrap(), printed.code(0).out);
    }
    let parsed = Command::new("bash").arg("-n").arg(folder.join("completions/unstuck.bash")).status().unwrap();
    assert!(parsed.success());
}

#[test]
fn the_buildpack_has_the_version_of_the_crate() {
    let toml = fs::read_to_string(format!("{REPOSITORY}/buildpack.toml")).unwrap();
    assert!(toml.contains(&format!("\nversion = \"{}\"\n", version())));
}

#[test]
fn a_real_application_is_built_released_migrated_restarted_and_proved() {
    let dir = tempfile::tempdir().unwrap();
    let app = RailsApp::create(&dir.path().join("app"), &[Database::sqlite3("primary")]);
    app.add_migration("1", "create_posts", "def change = create_table(:posts) { |t| t.string :title }");
    app.migrate();
    let mode = Mode::Procfile {
        root: app.root().to_owned(),
        procfile: None,
        env: BTreeMap::new(),
        grace: Duration::from_secs(30),
    };
    let formation = BTreeMap::from([("web".to_owned(), 1)]);
    let standin = Standin::start(Options { token: TOKEN.into(), mode, formation, ..Options::default() }).unwrap();
    let config = [("RAILS_ENV", "production"), ("HEROKU_HOST", standin.url()), ("HEROKU_API_KEY", TOKEN)];
    let config = config.map(|(name, value)| (name.to_owned(), value.to_owned()));
    standin.addon_release("Set config vars", config.into());
    assert!(standin.wait_until_up(Duration::from_mins(1)));

    let procfile = fs::read_to_string(app.root().join("Procfile")).unwrap();
    app.write("Procfile", &procfile.replace("release: unstuck migrate\n", ""));
    app.add_migration("2", "add_body", "def change = add_column(:posts, :body, :text)");
    let build = Build::new();
    build.set("HEROKU_API_KEY", TOKEN);
    let app_dir = app.root().to_str().unwrap();
    let (cache, env) = (build.work.path().join("cache"), build.work.path().join("env"));
    let run = |script: &str| Ran::of(build.script(script).arg(app_dir).args([&cache, &env]).output().unwrap()).code(0);
    run("detect");
    run("compile");
    // Heroku asks the last of several buildpacks for default process types, and this one comes first: the Procfile counts.
    let seq = standin.note("deploy");
    let deploy = Deploy { root: Some(app.root().to_owned()), ..Deploy::default() };
    let version = standin.deploy(deploy).unwrap();
    let finished = |fact: &Fact| matches!(fact, Fact::Release { version: of, status, .. } if *of == version && *status != Status::Pending);
    let finished = standin.wait_for(seq, Duration::from_mins(2), |entry| finished(&entry.fact)).expect("it ends");
    assert!(matches!(finished.fact, Fact::Release { status: Status::Succeeded, .. }), "{:#?}", standin.log());
    let log = standin.log().join("\n");
    assert!(log.contains("applied    2 AddBody") && log.contains("proved: every web process"), "{log}");

    let mut status = app.command(env!("CARGO_BIN_EXE_unstuck"));
    status.args(["status", "--json"]).env("HEROKU_HOST", standin.url()).env("HEROKU_API_KEY", TOKEN);
    let status = Ran::of(status.env("UNSTUCK_APP", standin.app()).output().unwrap()).code(0).json();
    assert_eq!((&status["verdict"], &status["owed"]), (&json!("clean"), &json!(false)), "{status}");
}
