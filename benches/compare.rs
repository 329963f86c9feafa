//! What `unstuck migrate` costs when there is nothing to do, as a whole process, against the tools that people have: run by
//! `cargo bench`. The two sides of a row run in turn and each pair gives one ratio, so that a busy machine slows both. The
//! servers are temporary ones; the clients and Rails must be installed (`bin/test install`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a program for people at a terminal")]

#[allow(dead_code, reason = "each test uses its own part of it")]
#[path = "../tests/support/mariadb.rs"]
mod mariadb;
#[path = "../tests/support/postgres.rs"]
mod postgres;
#[path = "../tests/support/rails_app.rs"]
mod rails_app;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::mem::MaybeUninit;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use mariadb::{Mariadb, MariadbOptions};
use postgres::{Certificates, Postgres, PostgresOptions};
use rails_app::{Database, RailsApp};
use unstuck::adapters;
use unstuck::adapters::ledger::Ledger;
use unstuck::adapters::rails::databases;
use unstuck::ports::Database as _;
use unstuck::rails::{Overrides, Resolved};
use unstuck_standin::{Entry, Fact, Options, Standin};

/// The binary as an installer writes it, in one go. What the linker wrote piece by piece stays in the page cache in small pages,
/// and each process that maps them pays 0.3 ms more.
static UNSTUCK: LazyLock<String> = LazyLock::new(|| {
    let installed = concat!(env!("CARGO_TARGET_TMPDIR"), "/unstuck");
    fs::copy(env!("CARGO_BIN_EXE_unstuck"), installed).unwrap();
    installed.to_owned()
});
const QUERY: &str = "select version from schema_migrations";

/// Rails' two tables. `key` is how the engine wants that word written.
fn tables(key: &str) -> String {
    format!(
        "create table schema_migrations (version varchar(255) not null primary key); create table ar_internal_metadata \
         ({key} varchar(255) not null primary key, value varchar(255), created_at timestamp(6) not null, updated_at \
         timestamp(6) not null)"
    )
}

const FEW: u64 = 2_000;
const MANY: u64 = 50_000;

fn main() -> ExitCode {
    let dir = tempfile::tempdir().unwrap();
    let postgres = Postgres::start(&PostgresOptions::default());
    let certificates = Certificates::new();
    postgres.present(Some(&certificates.self_signed("server", "localhost")), None);
    postgres.sql(&tables("key"));

    println!("unstuck migrate with nothing pending; medians, and the median of the ratios of paired runs\n");
    println!("{:<40} {:>10} {:>10} {:>8} {:>8}", "against", "unstuck", "other", "ratio", "at most");
    let rows = [
        postgresql("psql, socket", false, &postgres, &dir.path().join("socket")),
        postgresql("psql, TLS", true, &postgres, &dir.path().join("tls")),
        mysql(&dir.path().join("mariadb")),
        sqlite(&dir.path().join("sqlite")),
        rails(&dir.path().join("rails")),
        many_migrations(&postgres, &dir.path().join("many")),
        push(&dir.path().join("push")),
    ];

    let restart = restart_after_child(&postgres, &dir.path().join("restart"));
    let peak_kib = rows.iter().map(|row| row.peak_kib).max().unwrap_or_default();
    let binary_kib = fs::metadata(&*UNSTUCK).unwrap().len() / 1024;
    println!();
    let small = [limit("peak memory", peak_kib, 16 * 1024), limit("binary", binary_kib, 12 * 1024)];
    if rows.iter().all(Row::met) && restart && small == [true, true] { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// PostgreSQL on a socket, or over TLS.
fn postgresql(what: &str, tls: bool, postgres: &Postgres, root: &Path) -> Row {
    let (psql, app) = postgresql_sides(tls, postgres, root, FEW);
    compare(what, 0.6, 100, &app, vec![psql])
}

fn many_migrations(postgres: &Postgres, root: &Path) -> Row {
    let (psql, app) = postgresql_sides(false, postgres, root, MANY);
    let mut find = app.command("find");
    find.arg("db/migrate");
    compare("find + psql, 50,000 migrations", 2.0, 30, &app, vec![find, psql])
}

fn postgresql_sides(tls: bool, postgres: &Postgres, root: &Path, versions: u64) -> (Command, RailsApp) {
    postgres.sql(&format!("delete from schema_migrations; {}", insert(versions)));
    let port = postgres.port.to_string();
    let socket = postgres.socket_dir.to_str().unwrap();
    let (host, sslmode) = if tls { ("127.0.0.1", "require") } else { (socket, "disable") };
    let database = Database::new("primary", "postgresql")
        .set("host", host)
        .set("port", &port)
        .set("username", "postgres")
        .set("database", "postgres")
        .set("sslmode", sslmode);
    let app = app(root, database, versions);
    let mut psql = app.command(&postgres::program("psql"));
    psql.args(["-XAtqc", QUERY, "-U", "postgres", "-h", host, "-p", &port, "postgres"]).env("PGSSLMODE", sslmode);
    (psql, app)
}

fn mysql(root: &Path) -> Row {
    let mariadb = Mariadb::start(MariadbOptions::default());
    mariadb.sql(&format!("use app; {}; set max_recursive_iterations = {FEW}; {}", tables("`key`"), insert(FEW)));
    let socket = mariadb.socket.to_str().unwrap();
    let database = Database::new("primary", "mysql2")
        .set("socket", socket)
        .set("username", "ann")
        .set("password", Mariadb::PASSWORD)
        .set("database", "app");
    let app = app(root, database, FEW);
    let mut client = app.command("mariadb");
    client.args(["--no-defaults", "-Ne", QUERY, "-S", socket, "-u", "ann", "app"]).env("MYSQL_PWD", Mariadb::PASSWORD);
    compare("mariadb, socket", 0.2, 100, &app, vec![client])
}

fn sqlite(root: &Path) -> Row {
    let app = app(root, Database::sqlite3("primary"), FEW);
    let shell = |sql: &str| {
        let mut shell = app.command("sqlite3");
        shell.args(["db/primary.sqlite3", sql]);
        shell
    };
    measure(&mut shell(&format!("{}; {}", tables("key"), insert(FEW))));
    compare("sqlite3", 1.0, 100, &app, vec![shell(QUERY)])
}

/// The smallest application, with one migration.
fn rails(root: &Path) -> Row {
    let app = RailsApp::create(root, &[Database::sqlite3("primary")]);
    app.add_migration("20130101000000", "create_posts", "def change = create_table(:posts)");
    app.migrate();
    let mut rails = app.command("bin/rails");
    rails.arg("db:migrate");
    compare("bin/rails db:migrate, SQLite", 0.01, 5, &app, vec![rails])
}

/// A push in a repository of 100,000 files.
fn push(root: &Path) -> Row {
    fs::create_dir_all(root).unwrap();
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.current_dir(root).args(arguments);
        git
    };
    assert!(git(&["init", "-q", "--bare", "-b", "main"]).status().unwrap().success());
    let mut import = git(&["fast-import", "--quiet"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stream = import.stdin.take().unwrap();
    let commit = "commit refs/heads/main\ncommitter A <a@example.com> 0 +0000\ndata 0\n";
    let procfile = "release: bin/rails db:migrate";
    writeln!(stream, "blob\nmark :1\ndata 1\n#\nblob\nmark :2\ndata {}\n{procfile}\n{commit}", procfile.len()).unwrap();
    writeln!(stream, "M 100644 :2 Procfile").unwrap();
    for n in 0..98_000 {
        writeln!(stream, "M 100644 :1 app/{}/{}/{n}.rb", n / 2_000, n / 50).unwrap();
    }
    for n in 1..=FEW {
        writeln!(stream, "M 100644 :1 db/migrate/{}_number_{n}.rb", BEFORE + n).unwrap();
    }
    writeln!(stream, "\n{commit}M 100644 :1 app/0/0/new.rb").unwrap();
    writeln!(stream, "M 100644 :1 db/migrate/{}_late.rb\n", BEFORE + FEW + 1).unwrap();
    drop(stream);
    assert!(import.wait().unwrap().success());
    let id = |name| String::from_utf8(git(&["rev-parse", name]).output().unwrap().stdout).unwrap().trim().to_owned();
    let lines = root.join("lines");
    fs::write(&lines, format!("refs/heads/main {} refs/heads/main {}\n", id("main"), id("main~"))).unwrap();
    let mut hook = Command::new(&*UNSTUCK);
    hook.current_dir(root).args(["pre-push", "heroku", "https://git.heroku.com/my-app.git"]);
    let diff = git(&["diff", "--name-status", "main~", "main", "--", "db/migrate"]);
    let row = compare_commands("git diff, 100,000 files (pre-push)", 1.0, 100, (hook, &lines), vec![diff]);

    let mut elsewhere = Command::new(&*UNSTUCK);
    elsewhere.current_dir(root).args(["pre-push", "origin", "https://example.com/my-app.git"]);
    let mut start = Command::new(&*UNSTUCK);
    start.arg("--version");
    let mut version = git(&["--version"]);
    let [start, elsewhere, version] = [&mut start, &mut elsewhere, &mut version].map(|command| {
        command.stdin(Stdio::null());
        median((0..40).map(|_| measure(command).wall_s * 1e3))
    });
    println!(
        "    a process {start:.1} ms + configuration {:.1} + two commits compared, one migration read and told {:.1} \
         (git's own start: {version:.1} ms)",
        elsewhere - start,
        row.ours_ms - elsewhere,
    );
    row
}

/// How long it takes from the end of the migration command until the restart request arrives at the platform, less one look at
/// the database: the median of so many runs, in milliseconds.
fn restart_after_child(postgres: &Postgres, root: &Path) -> bool {
    const RUNS: u64 = 20;
    const AT_MOST_MS: f64 = 10.0;
    let (_, app) = postgresql_sides(false, postgres, root, FEW);
    let standin = Standin::start(Options { token: "bench".into(), ..Options::default() }).unwrap();
    assert!(standin.wait_until_up(Duration::from_secs(10)));
    let insert = format!(
        "{} -qX -h {} -p {} -U postgres postgres",
        postgres::program("psql"),
        postgres.socket_dir.display(),
        postgres.port
    );
    let mut waits = Vec::new();
    for run in 1..=RUNS {
        let version = BEFORE + FEW + run;
        app.write(&format!("db/migrate/{version}_late_{run}.rb"), "");
        let child = format!("{insert} -c \"insert into schema_migrations values ('{version}')\"; date +%s%N > ended");
        let before = standin.journal(0).len() as u64;
        let mut unstuck = app.command(&UNSTUCK);
        unstuck
            .args(["migrate", "--", "sh", "-c", &child])
            .env("HEROKU_HOST", standin.url())
            .env("HEROKU_API_KEY", "bench");
        unstuck.env("UNSTUCK_APP", standin.app()).env("UNSTUCK_POLL_TIMEOUT", "50ms");
        measure(&mut unstuck);
        let ended_ns = fs::read_to_string(root.join("ended")).unwrap().trim().parse().unwrap();
        let ended = Timestamp::from_nanosecond(ended_ns).unwrap();
        let restart = |entry: &Entry| matches!(&entry.fact, Fact::Request { method, .. } if method == "DELETE");
        let asked = standin.journal(before).iter().find(|entry| restart(entry)).unwrap().at;
        waits.push(asked.duration_since(ended).as_secs_f64() * 1e3);
    }
    let mut port = port(root);
    // The first look connects, and is dropped.
    let look_ms = median((0..=RUNS).map(|_| timed_ms(|| drop(port.look().unwrap()))).skip(1));
    let wait_ms = median(waits.into_iter());
    let met = wait_ms - look_ms <= AT_MOST_MS;
    println!(
        "{:<40} {wait_ms:>7.1} ms {look_ms:>7.1} ms {:>8.1} {AT_MOST_MS:>8} {}",
        "child's end to restart, less one look",
        wait_ms - look_ms,
        verdict(met)
    );
    println!(
        "    the look and one more after the record {:.1} ms + the record, who else is connected, the request {:.1}",
        2.0 * look_ms,
        wait_ms - 2.0 * look_ms,
    );
    met
}

/// The first version that [`app`] and [`insert`] do not use; they go up from here.
const BEFORE: u64 = 20_130_000_000_000;

fn app(root: &Path, database: Database, versions: u64) -> RailsApp {
    let app = RailsApp::create(root, &[database]);
    for n in 1..=versions {
        app.write(&format!("db/migrate/{}_number_{n}.rb", BEFORE + n), "");
    }
    app
}

fn insert(versions: u64) -> String {
    format!(
        "insert into schema_migrations with recursive counter(n) as \
         (select 1 union all select n + 1 from counter where n < {versions}) select {BEFORE} + n from counter"
    )
}

struct Row {
    ours_ms: f64,
    stock_ms: f64,
    ratio: f64,
    at_most: f64,
    peak_kib: u64,
}

impl Row {
    fn met(&self) -> bool {
        self.ratio <= self.at_most
    }
}

/// Runs `unstuck migrate` in the application and the stock tools, one after the other, in turn, and prints what came of it.
fn compare(what: &str, at_most: f64, rounds: usize, app: &RailsApp, stock: Vec<Command>) -> Row {
    let mut unstuck = app.command(&UNSTUCK);
    unstuck.arg("migrate");
    let row = compare_commands(what, at_most, rounds, (unstuck, Path::new("/dev/null")), stock);
    parts(app, rounds.min(40), row.stock_ms);
    row
}

/// What a run with nothing to do is made of: whole processes that do one thing more than the one before, in turn. Their
/// differences hold all that the thing costs, memory that is touched for the first time included, and add up to the run. The
/// floor is a process that only asks the database: what is above it are configuration and files, which the stock client has not.
fn parts(app: &RailsApp, rounds: usize, stock_ms: f64) {
    let (folder, aside) = (app.root().join("db/migrate"), app.root().join("db/aside"));
    let ours = |words: &[&str]| {
        let mut command = app.command(&UNSTUCK);
        command.args(words).stdin(Stdio::null());
        command
    };
    let (mut start, mut configured, mut whole) = (ours(&["--version"]), ours(&["config"]), ours(&["migrate"]));
    let mut find = app.command("find");
    find.arg("db/migrate").stdin(Stdio::null());
    let wall_ms = |command: &mut Command| measure(command).wall_s * 1e3;
    let rounds: Vec<[f64; 5]> = (0..rounds)
        .map(|_| {
            fs::rename(&folder, &aside).unwrap();
            fs::create_dir(&folder).unwrap();
            let without_files = wall_ms(&mut whole);
            fs::remove_dir(&folder).unwrap();
            fs::rename(&aside, &folder).unwrap();
            [wall_ms(&mut start), wall_ms(&mut configured), without_files, wall_ms(&mut whole), wall_ms(&mut find)]
        })
        .collect();
    let [start, configured, without_files, whole, find] =
        [0, 1, 2, 3, 4].map(|column| median(rounds.iter().map(|round| round[column])));
    println!(
        "    a process {start:.1} ms + configuration {:.1} + database {:.1} + {} files {:.1} (`find` alone: {find:.1} ms); \
         floor {:.3}",
        configured - start,
        without_files - configured,
        fs::read_dir(&folder).unwrap().count(),
        whole - without_files,
        (start + without_files - configured) / stock_ms,
    );
}

fn timed_ms(what: impl FnOnce()) -> f64 {
    let started = Instant::now();
    what();
    started.elapsed().as_secs_f64() * 1e3
}

/// The application's database, as `unstuck` sees it.
fn port(root: &Path) -> Ledger {
    let env = BTreeMap::from([("RAILS_ENV".to_owned(), "production".to_owned())]);
    let resolved = databases(root, &env, &Overrides::default()).unwrap();
    let Resolved::Databases(mut configured) = resolved else { panic!("{resolved:?}") };
    adapters::open(configured.remove(0), env)
}

/// The same for any command of ours, with its standard input.
fn compare_commands(
    what: &str,
    at_most: f64,
    rounds: usize,
    (mut unstuck, input): (Command, &Path),
    mut stock: Vec<Command>,
) -> Row {
    let pair = |_| {
        let ours = measure(unstuck.stdin(File::open(input).unwrap()));
        (ours, stock.iter_mut().map(|tool| measure(tool.stdin(Stdio::null())).wall_s).sum::<f64>())
    };
    // The first pair warms the caches and is dropped.
    let pairs: Vec<(Measured, f64)> = (0..=rounds).map(pair).skip(1).collect();
    let ours_ms = median(pairs.iter().map(|(ours, _)| ours.wall_s * 1e3));
    let stock_ms = median(pairs.iter().map(|(_, stock_s)| stock_s * 1e3));
    let ratio = median(pairs.iter().map(|(ours, stock_s)| ours.wall_s / stock_s));
    let peak_kib = pairs.iter().map(|(ours, _)| ours.peak_kib).max().unwrap_or_default();
    let row = Row { ours_ms, stock_ms, ratio, at_most, peak_kib };
    println!("{what:<40} {ours_ms:>7.1} ms {stock_ms:>7.1} ms {ratio:>8.3} {at_most:>8} {}", verdict(row.met()));
    row
}

fn limit(what: &str, kib: u64, at_most_kib: u64) -> bool {
    let met = kib <= at_most_kib;
    println!("{what:<40} {kib:>7} KiB {:>28} {}", format!("at most {at_most_kib}"), verdict(met));
    met
}

fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

struct Measured {
    wall_s: f64,
    peak_kib: u64,
}

/// Runs a command that must succeed to its end. Its peak memory counts from the fork of this small process.
#[allow(clippy::zombie_processes, reason = "wait4 takes it, with what it used")]
fn measure(command: &mut Command) -> Measured {
    let started = Instant::now();
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let pid = libc::pid_t::try_from(child.id()).unwrap();
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: both pointers are valid for writing, and nobody else waits for this child.
    let ended = unsafe { libc::wait4(pid, &raw mut status, 0, usage.as_mut_ptr()) };
    let wall_s = started.elapsed().as_secs_f64();
    assert!(ended == pid && status == 0, "{command:?} failed with status {status}");
    // SAFETY: filled in by the call above, which succeeded.
    let usage = unsafe { usage.assume_init() };
    Measured { wall_s, peak_kib: u64::try_from(usage.ru_maxrss).unwrap() }
}
