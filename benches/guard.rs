//! What a restart by `unstuck exec` loses, and what the guard costs: run by `cargo bench --bench guard`. Real puma serves the
//! real Rails application to a steady stream of requests, while a column is added.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a program for people at a terminal")]

#[path = "../tests/support/load.rs"]
mod load;
#[allow(dead_code, reason = "each test uses its own part of it")]
#[path = "../tests/support/mariadb.rs"]
mod mariadb;
#[path = "../tests/support/postgres.rs"]
mod postgres;
#[path = "../tests/support/rails_app.rs"]
mod rails_app;

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use load::{Count, Load, Served};
use mariadb::{Mariadb, MariadbOptions};
use postgres::{Certificates, Postgres, PostgresOptions};

const RUNS: usize = 3;
const CLIENTS: usize = 4;
/// In which Linux tells what a process has used.
const TICK_MS: f64 = 10.0;

fn main() {
    println!("a column is added under puma while {CLIENTS} clients ask; {RUNS} runs, requests of all of them\n");
    println!("{:<46} {:>7} {:>8} {:>5} {:>7} {:>9}", "restart", "served", "refused", "cut", "failed", "longest");
    let guarded = |options| restarts(Some(options), None);
    let rows: [(&str, Count); 4] = [
        ("puma alone, its own USR2 (comparison)", restarts(None, Some(libc::SIGUSR2))),
        ("guard: SIGTERM, new start", guarded(&["--interval", "500ms"])),
        ("guard: --reload-signal USR2", guarded(&["--interval", "500ms", "--reload-signal", "USR2"])),
        ("guard: --listen, SIGTERM, new start", guarded(&["--interval", "500ms", "--listen", "{address}"])),
    ];
    for (name, count) in rows {
        let Count { served, refused, cut, failed, longest } = count;
        let longest = format!("{:.2} s", longest.as_secs_f64());
        println!("{name:<46} {served:>7} {refused:>8} {cut:>5} {failed:>7} {longest:>9}");
    }
    println!();
    costs();
}

/// The requests of several restarts, each of a new application.
fn restarts(guard: Option<&[&str]>, by_hand: Option<i32>) -> Count {
    let runs = (0..RUNS).map(|_| restart(guard, by_hand));
    runs.fold(Count::default(), |mut all, count| {
        all.add(&count);
        all
    })
}

fn restart(guard: Option<&[&str]>, by_hand: Option<i32>) -> Count {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path(), guard);
    served.wait_for_column("title");
    let load = Load::on(served.address, CLIENTS);
    std::thread::sleep(Duration::from_secs(1));
    served.add_column(1, "subtitle");
    if let Some(signal) = by_hand {
        served.signal(signal);
    }
    served.wait_for_column("subtitle");
    std::thread::sleep(Duration::from_secs(1));
    load.end()
}

/// What a guard of a process that does nothing takes: memory, and time of its own and of the server for each look.
fn costs() {
    println!("{:<46} {:>9} {:>9} {:>12}", "guard of an idle process", "resident", "private", "CPU per look");
    let postgres = Postgres::start(&PostgresOptions::default());
    let certificates = Certificates::new();
    postgres.present(Some(&certificates.self_signed("server", "localhost")), None);
    let mariadb = Mariadb::start(MariadbOptions::default());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("db.sqlite3");
    let sqlite = format!("sqlite3:{}", file.display());
    for count in [40, 2_000] {
        postgres.sql(&fill("key", count));
        mariadb.sql(&format!("use app; {}", fill("`key`", count)));
        let client = Command::new("sqlite3").arg(&file).arg(fill("key", count)).status().unwrap();
        assert!(client.success());
        cost(&format!("PostgreSQL, TLS, {count} versions"), &(postgres.url("postgres") + "?sslmode=require"));
        cost(&format!("PostgreSQL, no TLS, {count} versions"), &(postgres.url("postgres") + "?sslmode=disable"));
        cost(&format!("MariaDB, {count} versions"), &mariadb.url("mysql2"));
        cost(&format!("SQLite, {count} versions"), &sqlite);
    }
}

fn fill(key: &str, count: u64) -> String {
    let rows: Vec<String> = (0..count).map(|n| format!("('{}')", 20_130_101_000_000 + n)).collect();
    format!(
        "drop table if exists schema_migrations; drop table if exists ar_internal_metadata; create table schema_migrations \
         (version varchar(255) not null primary key); create table ar_internal_metadata ({key} varchar(255) not null \
         primary key, value varchar(255), created_at timestamp(6) not null, updated_at timestamp(6) not null); insert into \
         schema_migrations values {}",
        rows.join(", ")
    )
}

/// Looks so often that what it costs can be measured.
fn cost(name: &str, url: &str) {
    const LOOKS: u32 = 40;
    const INTERVAL: Duration = Duration::from_millis(100);
    let folder = tempfile::tempdir().unwrap();
    let mut guard = Command::new(env!("CARGO_BIN_EXE_unstuck"))
        .args(["exec", "--interval", &format!("{}ms", INTERVAL.as_millis()), "--", "sleep", "600"])
        .current_dir(folder.path())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("DATABASE_URL", url)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    // The first look loads what every later one finds loaded.
    std::thread::sleep(Duration::from_secs(1));
    let (before, begun) = (cpu_ticks(&guard), Instant::now());
    std::thread::sleep(INTERVAL * LOOKS);
    let looks = begun.elapsed().as_secs_f64() / INTERVAL.as_secs_f64();
    let cpu_ms = f64::from(cpu_ticks(&guard) - before) * TICK_MS / looks;
    let (resident, private) = (kib(&guard, "Rss:"), kib(&guard, "Private_Dirty:"));
    // SAFETY: kill takes two integers and touches no memory of ours.
    unsafe { libc::kill(i32::try_from(guard.id()).unwrap(), libc::SIGTERM) };
    guard.wait().unwrap();
    println!("{name:<46} {resident:>5} KiB {private:>5} KiB {cpu_ms:>9.2} ms");
}

fn cpu_ticks(process: &Child) -> u32 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<u32>().unwrap()).sum()
}

fn kib(process: &Child, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", process.id())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
