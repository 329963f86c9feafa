//! The commands: each puts the parts together and returns the exit code.

mod check;
mod doctor;
mod exec;
mod forget;
mod from_app;
mod hook;
mod manual;
mod one_off;
mod pre_push;
mod ps;
mod releases;
mod review;
mod rollback;
mod sight;
mod status;
mod tail;
mod watch;

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};

pub use self::check::check;
pub use self::doctor::doctor;
pub use self::exec::exec;
pub use self::forget::forget;
pub use self::hook::hook;
pub use self::manual::{completions, man};
pub use self::pre_push::pre_push;
pub use self::ps::ps;
pub use self::releases::releases;
pub use self::rollback::rollback;
pub use self::status::status;
pub use self::tail::tail;
pub use self::watch::watch;
use crate::act::{self, Reach, Rules, World};
use crate::adapters;
use crate::adapters::child::ChildRunner;
use crate::adapters::credentials;
use crate::adapters::heroku::{Heroku, HerokuOptions};
use crate::adapters::signals::Interrupt;
use crate::args::{self, Common};
use crate::change;
use crate::config::{Settings, Types, Word as _, signal_name};
use crate::debt::{self, Intent, Standing};
use crate::dynos::{Dyno, DynoList};
use crate::error::{Error, Kind, Result};
use crate::observe::{Facts, Target};
use crate::plan::{Roll, Run};
use crate::ports::{ApiError, Clock, Platform, Runner as _};
use crate::rails::{self, Engine, Resolved};
use crate::report::{DatabasePicture, DynoPicture, End, Picture, Reporter, unhealthy};

pub fn migrate(settings: &Settings, common: &Common, args: &args::Migrate, reporter: &Reporter) -> Result<u8> {
    let place = &args.place;
    let looks_from_here = args.dry_run && place.database_from_app && !place.in_dyno;
    if place.in_dyno || (settings.is_afar() && !place.here && !looks_from_here) {
        return one_off::migrate_in_dyno(settings, common, args, reporter);
    }
    let settings = &*from_app::settings(settings, looks_from_here, reporter)?;
    let Some(mut targets) = targets(settings, reporter)? else {
        return Ok(database_is_being_changed(settings, reporter, args.dry_run));
    };
    if settings.is_called_from_outside() && !place.here && !looks_from_here {
        refuse_own_database(settings, &targets)?;
    }
    let facts = look(&mut targets)?;
    if args.dry_run {
        return Ok(dry_run(settings, args, reporter, facts));
    }
    let rules = Rules { require_healthy: args.require_healthy, ..rules(settings, &settings.types.value) };
    act(settings, rules, targets, facts, Intent::Migrate, reporter)
}

/// An app on Heroku has no database on this machine: a developer's own would be migrated, and the app restarted for it.
fn refuse_own_database(settings: &Settings, targets: &[Target]) -> Result<()> {
    let own = |target: &&Target| !target.unused && target.config.is_on_this_machine();
    let Some(own) = targets.iter().find(own).filter(|_| !settings.host().is_ok_and(|host| host.is_loopback())) else {
        return Ok(());
    };
    let what = format!("{} ({}) is on this machine, so it is not the app's", own.config.name, own.config.from);
    Err(Error::new(Kind::Refused, what)
        .hint("--in-dyno migrates the app's own database; --here says that this one is meant"))
}

pub fn restart(settings: &Settings, args: &args::Restart, reporter: &Reporter) -> Result<u8> {
    let settings = &*from_app::settings(settings, args.databases.from_app, reporter)?;
    let afar = settings.is_afar();
    if afar && !args.all {
        return Err(Error::new(
            Kind::Refused,
            "which dynos are stuck only the database can tell, and none is configured here",
        )
        .hint("--all restarts all of them; --database-from-app asks the app's database from here"));
    }
    let targets = if afar { Some(Vec::new()) } else { targets(settings, reporter)? };
    let Some(mut targets) = targets else {
        return Ok(database_is_being_changed(settings, reporter, false));
    };
    let facts = look(&mut targets)?;
    let named = Types::parse(&args.types.join(","));
    let types = if args.types.is_empty() { &settings.types.value } else { &named };
    let rules = Rules {
        assume_dead: args.assume_dead.clone(),
        wait: args.wait,
        require_healthy: args.require_healthy,
        ..rules(settings, types)
    };
    let intent = if args.all { Intent::RestartAll } else { Intent::Restart };
    let code = act(settings, rules, targets, facts, intent, reporter)?;
    if afar {
        reporter.warn(
            "no database was looked at: what is recorded there as owed stays, until a run that reaches it (the next release, or \
             --database-from-app)",
        );
    }
    Ok(code)
}

/// The common end of `migrate` and `restart`: drive the run, look after the new processes, report.
fn act(
    settings: &Settings,
    rules: Rules,
    targets: Vec<Target>,
    facts: Vec<Facts>,
    intent: Intent,
    reporter: &Reporter,
) -> Result<u8> {
    let interrupt = listen()?;
    let mut runner = runner(settings, reporter, interrupt.clone());
    let clock = SystemClock(Instant::now());
    let (types, require_healthy) = (rules.types.names(), rules.require_healthy);
    let release_phase = rules.place.is_release();
    let app_id = settings.own_app_id();
    let about = if intent == Intent::Migrate { settings.types.value.clone() } else { rules.types.clone() };
    let mut run = Run::new(intent, run_id()?, about, facts, app_id);
    let mut world =
        World::new(rules, targets, reach(settings, reporter), &mut runner, &clock, interrupt.clone(), reporter);
    world.root.clone_from(&settings.root);
    warn_of_sqlite_on_a_dyno(settings, &run, &world.targets, reporter);

    if world.rules.wait {
        act::wait_for_release(&mut world)?;
        run.facts = world.look()?;
    }
    let verdict = run.drive(&mut world)?;
    let relaxed = release_phase && run.ended.is_some() && run.succeeded();
    let look_after = run.proof.is_some() && !relaxed && interrupt.signal().is_none();
    let healthy =
        if look_after { health(settings, &mut run, &mut world) } else { (run.roll == Roll::Stopped).then_some(false) };
    let end = End { run: &run, verdict, signal: interrupt.signal(), release_phase, healthy, require_healthy, types };
    end.tell(reporter);
    if reporter.json {
        reporter.document(&end.document());
    }
    Ok(end.exit_code())
}

fn listen() -> Result<Interrupt> {
    Interrupt::listen().map_err(|error| Error::new(Kind::System, "cannot listen to signals").because(error))
}

/// Waits for the new processes to come up: reported, and no more than that. A crash ends the wait, with the dyno's last words.
fn health(settings: &Settings, run: &mut Run, world: &mut World) -> Option<bool> {
    let platform = world.platform().ok()?;
    let types = world.rules.types.names();
    let deadline = world.clock.now() + settings.timeouts.health.value;
    let mut list = run.list.clone()?;
    loop {
        act::tell_progress(run, world, &list);
        let sick = unhealthy(&list, &types);
        let crashed: Vec<String> =
            sick.iter().filter(|dyno| dyno.state == "crashed").map(|dyno| dyno.name.clone()).collect();
        if sick.is_empty() {
            return Some(true);
        }
        if !crashed.is_empty() || world.clock.now() >= deadline || world.interrupt.signal().is_some() {
            for name in crashed {
                act::last_words(&*platform, &name, world.reporter);
            }
            run.list = Some(list);
            return Some(false);
        }
        let pause = act::pace(world, &*platform, world.rules.poll.min(Duration::from_secs(2)));
        world.clock.sleep(pause.min(deadline.saturating_sub(world.clock.now())));
        if let Ok(newer) = platform.dynos() {
            list = newer;
            run.list = Some(list.clone());
        }
    }
}

/// What `migrate` would do, and nothing else.
fn dry_run(settings: &Settings, args: &args::Migrate, reporter: &Reporter, facts: Vec<Facts>) -> u8 {
    let app_id = settings.own_app_id();
    let run = Run::new(Intent::Migrate, String::from("0000000000000000"), settings.types.value.clone(), facts, app_id);
    let owed = run.standing() == Standing::Owed;
    let command = settings.command.value.join(" ");
    if run.pending() {
        reporter.say(&format!("would run `{command}` for:"));
        for migration in run.facts.iter().flat_map(|facts| &facts.pending) {
            reporter.item(&format!("{} {}", migration.version, migration.name));
        }
        if let Err(why) = runner(settings, reporter, Interrupt::default()).check() {
            reporter.warn(&format!("that command cannot be executed: {why}"));
        }
    }
    match (run.pending(), owed) {
        (false, false) => reporter.say("nothing is pending, nothing is owed"),
        (_, true) => {
            reporter.say(&format!("would pay a restart that is owed: {}", settings.types.value.names().join(", ")));
        }
        (true, false) => {
            reporter.say(&format!("would restart {} and prove it", settings.types.value.names().join(", ")));
        }
    }
    if reporter.json {
        let databases: Vec<Value> = run
            .facts
            .iter()
            .map(|facts| {
                let pending: Vec<String> =
                    facts.pending.iter().map(|migration| migration.version.to_string()).collect();
                json!({"name": facts.name, "applied": [], "pending": pending})
            })
            .collect();
        let state = if owed { "owed" } else { "not_needed" };
        reporter.document(&json!({
            "outcome": "dry_run",
            "databases": databases,
            "restart": {"state": state, "healthy": null, "types": settings.types.value.names(), "requests": 0, "dynos": []},
            "release_phase": settings.place.is_release(),
        }));
    }
    match (args.exit_code, run.pending(), owed) {
        (true, true, _) => 6,
        (true, false, true) => 7,
        _ => 0,
    }
}

fn api_failed(error: ApiError) -> Error {
    let hint = error.hint.clone();
    let mut failure = Error::new(Kind::Api, "Heroku's API did not answer as it should").because(error);
    failure.hint = hint;
    failure
}

/// The exit code of a command that a signal ended.
fn interrupted(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}

/// The release to which the restart was handed, if it succeeded and so carries what it booted.
fn carried(run: &Run, platform: &dyn Platform) -> Option<u64> {
    let version = run.awaits()?;
    let release = platform.release(version).ok()?;
    (release.status == crate::dynos::ReleaseStatus::Succeeded).then_some(version)
}

/// Puts together what `status` shows. Pure.
fn picture(
    settings: &Settings,
    run: &Run,
    app: Option<String>,
    list: Option<DynoList>,
    carrier: Option<u64>,
) -> Picture {
    let told = |facts: &Facts| match run.ledger(facts) {
        _ if facts.unused => Some(Standing::Closed),
        Some(ledger) => Some(ledger.standing(&facts.digest, &run.types)),
        None if facts.look.records.doubtful(&facts.digest, &run.types) => None,
        None => Some(Standing::Unproved),
    };
    let standings: Vec<Option<Standing>> = run.facts.iter().map(told).collect();
    let owed_of = |standing: &Option<Standing>| standing.map(|standing| standing == Standing::Owed);
    let worst = standings.iter().flatten().max().copied().unwrap_or(Standing::Unproved);
    let owed = if worst == Standing::Owed {
        Some(true)
    } else if standings.contains(&None) || standings.is_empty() {
        None
    } else {
        Some(false)
    };
    let ledgers: Vec<_> = run.facts.iter().filter_map(|facts| run.ledger(facts)).collect();
    let types = &settings.types.value;
    let fresh = run.fresh();
    let stuck = |dyno: &Dyno| match (worst, &fresh) {
        // What began before the last proof may be older than the schema, whatever its type.
        (_, Some(fresh)) => Some(!fresh.knows(&dyno.kind, dyno.created_at.as_second())),
        (Standing::Owed, None) => {
            Some(carrier.is_none_or(|carrier| dyno.release.is_none_or(|release| release < carrier)))
        }
        (Standing::Closed, None) => Some(false),
        (Standing::Unproved, None) => None,
    };
    let dynos = list.map(|mut list| {
        list.dynos.sort_by_cached_key(|dyno| (dyno.kind.clone(), dyno.name.len(), dyno.name.clone()));
        let picture = |dyno: Dyno| DynoPicture { stuck: stuck(&dyno), ours: types.include(&dyno.kind), dyno };
        list.dynos.into_iter().map(picture).collect::<Vec<_>>()
    });
    Picture {
        now: Timestamp::now(),
        change: None,
        names: Vec::new(),
        current: None,
        app,
        owed,
        verdict: match (run.pending(), owed, worst) {
            (true, ..) => "pending",
            (false, Some(true), _) => "owed",
            (false, Some(_), Standing::Closed) => "clean",
            (false, ..) => "unproved",
        },
        reasons: ledgers.iter().zip(&run.facts).flat_map(|(ledger, facts)| reasons(ledger, facts)).collect(),
        databases: run
            .facts
            .iter()
            .zip(&standings)
            .map(|(facts, standing)| DatabasePicture { facts: facts.clone(), owed: owed_of(standing) })
            .collect(),
        dynos,
    }
}

/// Why a restart is owed, record by record.
fn reasons(ledger: &crate::debt::Ledger, facts: &Facts) -> Vec<String> {
    use crate::debt::Phase;
    let mut reasons: Vec<String> = ledger
        .rows
        .iter()
        .map(|row| {
            let what = match (row.note.ph, row.note.rel) {
                (Phase::Migrating, _) => "a migration began and its end was not recorded".to_owned(),
                (Phase::Due, _) if !row.note.may_have_migrated() => "a rolling restart was begun".to_owned(),
                (Phase::Due, _) => "a migration was run".to_owned(),
                (Phase::Awaiting, Some(release)) => {
                    format!("the restart was handed to release v{release}, not checked yet")
                }
                (Phase::Awaiting, None) => "the restart was handed to a release".to_owned(),
            };
            format!("{what} (by {}, run {}, {} UTC)", row.note.by, row.run, row.entry.opened)
        })
        .collect();
    reasons.extend(ledger.unreadable.iter().map(|entry| format!("the record {} cannot be read", entry.key)));
    reasons.extend(ledger.newer.iter().map(|entry| format!("the record {} is of a newer unstuck", entry.key)));
    if let Some(proved) = ledger.proved.as_ref().filter(|proved| proved.ver != facts.digest.as_str()) {
        let (then, now) = (proved.cnt, facts.look.applied.len());
        if change::migrated(ledger).next().is_none() {
            reasons.push(format!(
                "{}: the applied versions changed since every process was last proved new ({then} then, {now} now)",
                facts.name
            ));
        }
    }
    reasons
}

pub fn config(settings: &Settings, reporter: &Reporter) -> Result<u8> {
    let databases = match settings.databases()? {
        Resolved::Databases(databases) => databases,
        Resolved::Empty { .. } => Vec::new(),
    };
    if reporter.json {
        reporter.document(&json!({
            "environment": settings.rails_env(),
            "databases": databases.iter().map(database_document).collect::<Vec<_>>(),
            "app": settings.app()?.map(|app| json!({"value": app.value, "from": app.from})),
            "restart": {
                "types": settings.types.value.names(),
                "policy": settings.policy.value.name(),
                "strategy": settings.strategy.value.name(),
            },
        }));
        return Ok(0);
    }
    let clean = crate::report::clean;
    let row = |name: &str, value: &str, from: &str| {
        reporter.result(clean(format!("{name:24} {value:30} {from}").trim_end()).as_str());
    };
    row("directory", &settings.root.to_string_lossy(), "");
    row("environment", &settings.rails_env(), "");
    row("configuration file", settings.file().unwrap_or("none"), "");
    for database in &databases {
        let document = database_document(database);
        let text = |key: &str| match &document[key] {
            Value::String(text) => text.clone(),
            Value::Null => "-".to_owned(),
            Value::Array(words) => words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
            other => other.to_string(),
        };
        reporter.result("");
        row(&format!("database {}", database.name), &database.adapter, &database.from);
        for key in [
            "host",
            "port",
            "socket",
            "database",
            "username",
            "password",
            "migrations_paths",
            "schema_migrations_table",
        ] {
            row(&format!("  {key}"), &text(key), "");
        }
    }
    reporter.result("");
    match settings.app()? {
        Some(app) => row("app", &app.value, &app.from),
        None => row("app", "-", "not configured"),
    }
    row("command", &settings.command.value.join(" "), &settings.command.from);
    row("restart.types", &settings.types.value.names().join(", "), &settings.types.from);
    row("restart.policy", settings.policy.value.name(), &settings.policy.from);
    row("restart.strategy", settings.strategy.value.name(), &settings.strategy.from);
    row("restart.max_unavailable", &settings.max_unavailable.value.to_string(), &settings.max_unavailable.from);
    let timeouts = &settings.timeouts;
    for (name, timeout) in
        [("lock", &timeouts.lock), ("health", &timeouts.health), ("api", &timeouts.api), ("poll", &timeouts.poll)]
    {
        row(&format!("timeouts.{name}"), &format!("{:?}", timeout.value), &timeout.from);
    }
    match &timeouts.prove {
        Some(prove) => row("timeouts.prove", &format!("{:?}", prove.value), &prove.from),
        None => row("timeouts.prove", "180s, in a release 30s", "default"),
    }
    let exec = settings.exec(&args::Exec::default())?;
    for (name, timeout) in
        [("timeouts.exec_wait", &exec.wait), ("timeouts.exec_grace", &exec.grace), ("exec.interval", &exec.interval)]
    {
        row(name, &format!("{:?}", timeout.value), &timeout.from);
    }
    match &exec.reload_signal {
        Some(signal) => row("exec.reload_signal", signal_name(signal.value), &signal.from),
        None => row("exec.reload_signal", "none", "default"),
    }
    row("exec.after_wait", exec.after_wait.value.name(), &exec.after_wait.from);
    for (name, timeout) in [("migrate", &timeouts.migrate), ("ddl_lock", &timeouts.ddl_lock)] {
        match timeout {
            Some(timeout) => row(&format!("timeouts.{name}"), &format!("{:?}", timeout.value), &timeout.from),
            None => row(&format!("timeouts.{name}"), "none", "default"),
        }
    }
    let hook = &settings.hook;
    let allowed: Vec<String> = hook.allow.iter().map(ToString::to_string).collect();
    for (name, words) in [("remotes", &hook.remotes), ("branches", &hook.branches), ("allow", &allowed)] {
        let words = if words.is_empty() { "none".to_owned() } else { words.join(", ") };
        row(&format!("hook.{name}"), &words, "");
    }
    row("hook.policy", hook.together.value.name(), &hook.together.from);
    row("hook.missing", hook.missing.value.name(), &hook.missing.from);
    Ok(0)
}

fn database_document(database: &rails::Database) -> Value {
    json!({
        "name": database.name,
        "adapter": database.adapter,
        "host": database.host,
        "port": database.port,
        "socket": database.socket,
        "database": database.database,
        "username": database.username,
        "password": database.password.as_ref().map(ToString::to_string),
        "migrations_paths": database.migrations_paths,
        "schema_migrations_table": database.schema_migrations_table,
        "from": database.from,
    })
}

/// The databases and the ways to them. `None`: one is configured, but empty.
fn targets(settings: &Settings, reporter: &Reporter) -> Result<Option<Vec<Target>>> {
    let databases = match settings.databases()? {
        Resolved::Databases(databases) => databases,
        Resolved::Empty { from } if settings.place.is_release() => {
            reporter.warn(&format!(
                "{from} is set but empty: a database is being promoted, so nothing can be said or done"
            ));
            return Ok(None);
        }
        Resolved::Empty { from } => {
            return Err(Error::new(Kind::Input, format!("{from} is set but empty"))
                .hint("unset it, or set it to the database's URL"));
        }
    };
    let mut targets: Vec<Target> = Vec::new();
    // As Rails chooses its main database: the one of that name, else the first.
    let named = databases.iter().position(|database| database.name == "primary").unwrap_or(0);
    for (index, config) in databases.into_iter().enumerate() {
        let (root, paths, options) = (settings.root.clone(), config.migrations_paths.clone(), config.clone());
        let files = Box::new(move || adapters::rails::migrations(&root, &paths));
        let unused = index != named && files()?.is_empty();
        let same_as_earlier = targets.iter().any(|target| same_database(&target.config, &options));
        let port = Box::new(adapters::open(config.clone(), settings.env.clone()));
        let env = settings.env.clone();
        let lock_waits = Box::new(move |tag: &str| adapters::lock_waits(options.clone(), env.clone(), tag));
        let direct = rails::direct_variables(&config, &settings.env);
        targets.push(Target { config, port, files, lock_waits, unused, same_as_earlier, direct });
    }
    Ok(Some(targets))
}

/// Whether the environment leads to the app's own database: in its dynos, or where somebody gave its address.
fn leads_to_database(settings: &Settings) -> bool {
    settings.place.dyno().is_some() || settings.env.get("DATABASE_URL").is_some_and(|url| !url.is_empty())
}

fn same_database(a: &rails::Database, b: &rails::Database) -> bool {
    (a.engine, &a.host, a.port, &a.socket, &a.database) == (b.engine, &b.host, b.port, &b.socket, &b.database)
}

fn look(targets: &mut [Target]) -> Result<Vec<Facts>> {
    targets.iter_mut().map(Target::look).collect()
}

fn database_is_being_changed(settings: &Settings, reporter: &Reporter, dry_run: bool) -> u8 {
    if reporter.json {
        let outcome = if dry_run { "dry_run" } else { "nothing_to_do" };
        reporter.document(&json!({
            "outcome": outcome,
            "databases": [],
            "restart": {"state": "not_needed", "healthy": null, "types": settings.types.value.names(), "requests": 0, "dynos": []},
            "release_phase": settings.place.is_release(),
        }));
    }
    0
}

fn rules(settings: &Settings, types: &Types) -> Rules {
    let timeouts = &settings.timeouts;
    Rules {
        types: types.clone(),
        configured: settings.types.value.clone(),
        policy: settings.policy.value,
        strategy: settings.strategy.value,
        max_unavailable: settings.max_unavailable.value,
        lock: timeouts.lock.value,
        prove: timeouts.prove(false),
        prove_release: timeouts.prove(true),
        poll: timeouts.poll.value,
        health: timeouts.health.value,
        place: settings.place.clone(),
        by: settings.by(),
        app_id: settings.app_id.clone(),
        assume_dead: Vec::new(),
        wait: false,
        require_healthy: false,
        patience: act::Patience {
            ddl_lock: timeouts.ddl_lock(),
            migrate: timeouts.migrate.as_ref().map(|limit| limit.value),
            command: settings.command.value.clone(),
            root: settings.root.clone(),
        },
    }
}

fn runner(settings: &Settings, reporter: &Reporter, interrupt: Interrupt) -> ChildRunner {
    ChildRunner {
        command: settings.command.value.clone(),
        root: settings.root.clone(),
        env: settings.env.clone(),
        to_stderr: reporter.json,
        on_dyno: settings.place.dyno().is_some(),
        limit: settings.timeouts.migrate.as_ref().map(|limit| limit.value),
        lock_limit: settings.timeouts.ddl_lock(),
        begun: None,
        interrupt,
    }
}

/// The way to the API: taken only when something is pending, owed or to be shown.
fn reach(settings: &Settings, reporter: &Reporter) -> Reach {
    let (settings, reporter) = (settings.clone(), reporter.clone());
    Box::new(move || Ok(Arc::new(heroku(&settings, &reporter)?) as Arc<dyn Platform>))
}

/// The API for the app that is meant, with whatever credentials there are. Connects to nothing yet.
fn heroku(settings: &Settings, reporter: &Reporter) -> Result<Heroku> {
    let Some(app) = settings.app()? else {
        return Err(Error::new(Kind::Refused, "it is not known which Heroku app this is")
            .hint("give --app APP or --remote REMOTE, or set UNSTUCK_APP, or `app:` in .unstuck.yml"));
    };
    let Some((token, from)) = settings.token()? else {
        return Err(Error::new(Kind::Refused, "no credentials for Heroku's API were given").hint(
            "heroku authorizations:create -s read,write --description unstuck, then set its token as HEROKU_API_KEY; \
             on a laptop `heroku login` will do",
        ));
    };
    if let Some(warning) = credentials::exposure(&settings.env, &from) {
        reporter.warn(&warning);
    }
    let options = HerokuOptions { host: settings.host()?, token, app: app.value, timeout: settings.timeouts.api.value };
    Heroku::new(options, &settings.env)
}

fn warn_of_sqlite_on_a_dyno(settings: &Settings, run: &Run, targets: &[Target], reporter: &Reporter) {
    let sqlite = targets.iter().any(|target| target.config.engine == Engine::Sqlite && !target.unused);
    if sqlite && settings.place.dyno().is_some() && run.pending() {
        reporter.warn("SQLite on a dyno: the file is this dyno's alone and vanishes with it; no other process will see what is migrated");
    }
}

/// 64 random bits, in hexadecimal.
fn run_id() -> Result<String> {
    let mut bytes = [0_u8; 8];
    getrandom::fill(&mut bytes).map_err(|error| Error::new(Kind::System, format!("no random numbers: {error}")))?;
    Ok(debt::hex(&bytes))
}

struct SystemClock(Instant);

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }
}
