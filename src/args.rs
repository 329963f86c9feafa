//! What was typed. What it means is [`crate::config`]'s matter.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum, ValueHint};

/// The version, the commit that it was built from, and the target that it was built for.
const VERSION: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (", env!("UNSTUCK_COMMIT"), ", ", env!("UNSTUCK_TARGET"), ")");

/// A restart always follows a migration: Rails on Heroku without stuck dynos.
///
/// A Rails process reads the columns of its tables once. After a migration, every process that booted before it fails, or
/// loses what is written to the new columns, until it is restarted: a stuck dyno. unstuck runs what is pending, restarts, and
/// proves that no old process is left. Killed half-way, it knows at its next run that a restart is owed.
#[derive(Debug, Parser)]
#[command(name = "unstuck", version, long_version = VERSION, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  release: unstuck migrate                 the line for your Procfile
  unstuck status                           what is pending, what is owed, which dynos are stuck
  unstuck restart                          restart what is stuck, and prove it
  unstuck migrate -a my-app                from a laptop, in a one-off dyno
  unstuck tail -a my-app --errors          what matters of the log
  unstuck watch -a my-app --for 5m         after a deploy: is it well
  unstuck rollback -a my-app               back, unless the schema forbids it
  unstuck doctor -a my-app                 what would fail on the day
  unstuck hook install                     look at each push before it leaves
  unstuck check --format github            the same in CI
  web: unstuck exec -- bundle exec puma    a guard for a process

Exit codes:
  0  done, or nothing to do
  1  could not tell: a bad file, a database or the API that cannot be asked
  2  wrong usage
  3  a migration failed or is still pending; what had to be restarted was
  4  a restart is still owed
  5  refused before anything ran
  6  with --exit-code: migrations are pending
  7  with --exit-code: a restart is owed, or dynos are stuck
  8  pre-push, check: the push is refused
  9  another run holds the lock
  128+N  ended by signal N")]
pub struct Args {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Command,
}

// Options that every command takes. (What is flattened has no doc comment: clap would take it for the command's description.)
#[derive(Debug, Clone, Default, ClapArgs)]
#[command(next_help_heading = "Common options")]
pub struct Common {
    /// The Heroku app: its name or its id
    #[arg(short, long, global = true, value_name = "APP")]
    pub app: Option<String>,
    /// The git remote that the app is deployed by
    #[arg(short, long, global = true, value_name = "REMOTE")]
    pub remote: Option<String>,
    /// The Rails root [default: the current directory]
    #[arg(short = 'C', long, global = true, value_name = "DIR")]
    pub directory: Option<PathBuf>,
    /// The configuration file [default: .unstuck.yml in the Rails root]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The table of applied versions, where the application's Ruby code names another one
    #[arg(long, global = true, value_name = "NAME")]
    pub schema_migrations_table: Option<String>,
    /// Print exactly one JSON document on standard output; one a line for what goes on and on
    #[arg(long, global = true)]
    pub json: bool,
    /// When to use colours: auto, always, never
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t = Color::Auto, hide_possible_values = true)]
    pub color: Color,
    /// Say only what went wrong
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Say more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    #[command(flatten)]
    pub timeouts: Timeouts,
}

/// Colours: on a terminal only, unless told otherwise. `NO_COLOR` is obeyed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    #[default]
    Auto,
    Always,
    Never,
}

/// Time-outs, as typed: `500ms`, `10s`, `2m`.
#[derive(Debug, Clone, Default, ClapArgs)]
#[command(next_help_heading = "Time-outs")]
pub struct Timeouts {
    /// Wait this long for another run: `500ms`, `10s`, `2m` [default: 60s]
    #[arg(long = "lock-timeout", global = true, value_name = "TIME")]
    pub lock: Option<String>,
    /// Old processes have to be gone by then [default: 3m; in the release phase, where the migration succeeded, 30s]
    #[arg(long = "prove-timeout", global = true, value_name = "TIME")]
    pub prove: Option<String>,
    /// New processes should be up by then; only reported, but a rolling restart stops there [default: 2m]
    #[arg(long = "health-timeout", global = true, value_name = "TIME")]
    pub health: Option<String>,
    /// One request to Heroku's API [default: 10s]
    #[arg(long = "api-timeout", global = true, value_name = "TIME")]
    pub api: Option<String>,
    /// The first interval between two looks at the dynos, growing to 10s [default: 1s]
    #[arg(long = "poll-timeout", global = true, value_name = "TIME")]
    pub poll: Option<String>,
    /// End the migration after this long [default: never]
    #[arg(long = "migrate-timeout", global = true, value_name = "TIME")]
    pub migrate: Option<String>,
    /// A statement of the migration may wait this long for a lock; then the run is tried again, where that is safe
    /// [default: as long as it takes]
    #[arg(long = "ddl-lock-timeout", global = true, value_name = "TIME")]
    pub ddl_lock: Option<String>,
}

// Only the command that was typed is described: a run with nothing pending does not pay for the others.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub enum Command {
    /// Run what is pending, restart, and prove that no old process is left
    ///
    /// With nothing pending and nothing owed this takes one look at the database and ends. Otherwise: check that a restart can
    /// follow, take the lock, record that a restart may be owed, migrate, look again, restart, prove, clear the record.
    #[command(after_help = "\
Examples:
  release: unstuck migrate                          in a Procfile
  unstuck migrate -r production                     by hand, from a laptop: in a one-off dyno
  unstuck migrate --dry-run                         what it would do
  unstuck migrate -- bin/rails db:migrate:primary   another command

Outside a dyno it runs in a one-off dyno where -a or -r names the app and nothing here names a database for it: no DATABASE_URL \
(nor any NAME_DATABASE_URL), and no RAILS_ENV or RACK_ENV but development and test. The dyno is given the flags that were typed, \
its own environment and .unstuck.yml count for the rest, and the exit code is the run's own. --in-dyno and --here decide it.

A first run on a database that is up to date has no record and restarts nothing; `unstuck restart --all` makes the first proof.")]
    Migrate(Migrate),
    /// What is pending, what is owed, and which dynos are stuck; changes nothing
    ///
    /// Each dyno is a bar from its boot to now, and the schema's last change a line through all bars; before and after it have
    /// scales of their own. Without credentials for Heroku's API the dynos are left out; databases are looked at all the same. A dyno with a question
    /// mark cannot be judged, since nothing was ever proved for this app.
    #[command(after_help = "\
Examples:
  unstuck status                        for people
  unstuck status -a my-app              from a laptop: the dynos by the API alone
  unstuck status --watch                redrawn until Ctrl-C; with --json one document a line, whenever something changed
  unstuck status --html status.html     the same as a page
  unstuck status --json | jq .verdict   clean, pending, owed or unproved
  unstuck status --exit-code            6 pending, 7 owed or stuck, else 0
  unstuck status -a my-app --database-from-app   from a laptop; without the option the dynos alone")]
    Status(Status),
    /// The dynos as `heroku ps` prints them, each one's boot against the last schema change, and which are stuck
    ///
    /// Heroku's API is enough: where no database is configured or none can be reached, it is said that stuck dynos cannot be told.
    /// Times are in UTC.
    #[command(after_help = "\
Examples:
  unstuck ps -r production
  unstuck ps web worker                                  these types alone
  unstuck ps --json | jq -r '.[] | select(.stuck).name'  what `heroku ps --json` prints, and `stuck`: true, false or null")]
    Ps(Ps),
    /// Pay what is owed: restart the stuck dynos and prove that they are gone
    ///
    /// With nothing owed nothing is restarted, unless --all says so. Of the types that are named, only what is stuck. The record is
    /// cleared only by a run that covers all of the configured types.
    ///
    /// With --rolling, web dynos are restarted a few at a time, the next ones only when every other one is up. The first crash, or
    /// a dyno that is not up within --health-timeout, stops the roll (exit code 4); the next run goes on with what is still old.
    /// Other types are restarted at once, since no requests go to them; and web dynos too, where preboot is on.
    #[command(after_help = "\
Examples:
  unstuck restart                what is owed, if anything
  unstuck restart --rolling --max-unavailable 2   web dynos two at a time, each waited for until it is up
  unstuck restart --all          all of the configured types, owed or not; makes a first proof
  unstuck restart --all worker   all dynos of this type, owed or not
  unstuck restart --wait         in CI after a deploy: wait for a pending release before restarting
  unstuck restart -a my-app --all web              from a laptop, with the API alone; the record stays
  unstuck restart -a my-app --database-from-app    from a laptop: what is owed")]
    Restart(Restart),
    /// The log, as `heroku logs --tail` prints it; with --errors only what matters of it
    ///
    /// A log that breaks off is taken up again: what was printed is not printed twice. On Fir, where no past is kept, a warning says
    /// where lines may be missing. With --json each line of standard output is one JSON object.
    ///
    /// --errors leaves 5xx responses, H and R codes, exceptions with their backtraces, crashes, and what the log lost of itself.
    /// What belongs to a planned restart is left out. An error that is typical of a process older than the schema is marked.
    #[command(after_help = "\
Examples:
  unstuck tail                     all processes, the last 100 lines and what follows
  unstuck tail -p web -s app       what the web processes print
  unstuck tail -d web.1 -n 1500    one dyno, as much of the past as there is
  unstuck tail --errors            what matters, until Ctrl-C; then how often
  unstuck tail --errors --no-tail -n 1500 --json | jq -r 'select(.stuck).process'

Ends with 130 on Ctrl-C, 0 where the reader of its output has seen enough.")]
    Tail(Tail),
    /// Look after the newest release: do its processes come up, which errors are new, is it to be rolled back
    ///
    /// Waits for a pending release to end, compares the log before the release with what follows it, as far as the log goes back
    /// (1,500 lines; on Fir not at all), and ends with a verdict. It changes nothing. A process that stays crashed ends it early.
    /// Where lines were dropped or the dynos could not be listed, that is said, and the verdict is never `healthy`.
    #[command(after_help = "\
Examples:
  git push heroku main && unstuck watch            ten minutes
  unstuck watch --for 2m || unstuck rollback       in CI: see the exit codes
  unstuck watch --for 5m --json | jq -r .verdict

Verdicts and exit codes:
  healthy          0  every process is up, and no error is new or much more frequent
  new_errors       1  errors that were not in the log before the release, or three times as frequent
  unknown          1  too little was seen to tell
  release_failed   3  the release itself failed; the one before it runs on
  crashing         4  processes of the release crash or do not come up
  stuck            7  processes of an older release are left
  128+N               ended by signal N, after the verdict so far")]
    Watch(Watch),
    /// The configuration in effect and where each value comes from; connects to nothing
    #[command(after_help = "\
Examples:
  unstuck config
  unstuck config --json | jq .databases

Keys of .unstuck.yml, all of them optional:
  app, command
  restart:    types, policy, strategy, max_unavailable
  timeouts:   lock, prove, health, api, poll, migrate, ddl_lock, exec_wait, exec_grace
  exec:       interval, reload_signal, after_wait
  databases:  NAME: schema_migrations_table, metadata_table, migrations_paths
  hook:       remotes, branches, allow, policy, missing

Variables: UNSTUCK_APP, UNSTUCK_RESTART_TYPES, UNSTUCK_RESTART_POLICY, UNSTUCK_RESTART_STRATEGY,
UNSTUCK_RESTART_MAX_UNAVAILABLE, UNSTUCK_EXEC_INTERVAL, UNSTUCK_EXEC_RELOAD_SIGNAL, UNSTUCK_EXEC_AFTER_WAIT,
and UNSTUCK_PROVE_TIMEOUT and its like for each time-out.
Flags win over variables, variables over the file.")]
    Config,
    /// The body of git's pre-push hook: what this push will migrate
    ///
    /// Git names the remote and says on standard input which commit goes where. For a remote on Heroku, or one of `hook.remotes` in
    /// .unstuck.yml, the migrations of the pushed commit are compared with those of the commit that the remote has: those in
    /// `db/migrate` and in `db/*_migrate`. Nothing is checked out, and no server is asked.
    ///
    /// It tells what is pending, what each migration does and which release line runs it. The push is refused (exit code 8) where it
    /// is certain to fail or to hurt: files that Rails refuses; migrations that were edited, renamed or deleted after they were
    /// deployed; a schema file out of step; no release line that migrates; a migration that breaks the code that runs. What the hook
    /// cannot find out never stops a push.
    ///
    /// Exceptions: `# unstuck:allow RULE REASON` in the migration, or `hook.allow` in .unstuck.yml.
    #[command(after_help = "\
Examples:
  unstuck hook install   puts it where git looks for it
  git push --no-verify   pushes without asking the hook")]
    PrePush(PrePush),
    /// Remove what unstuck has written into the database: the way to leave
    ///
    /// unstuck keeps records under keys that begin with `unstuck:` in Rails' `ar_internal_metadata`, or, where that cannot be had,
    /// in a table `unstuck_debt` of its own, which goes when it is empty. They are this app's alone; records of other apps, which come
    /// with a copied database, stay unless --all-apps is given. Nothing else is touched, and no dyno.
    ///
    /// While a restart is owed, this is refused: the record is all that knows of it.
    #[command(after_help = "\
Examples:
  heroku run -x -a my-app -- unstuck forget      once `release: bin/rails db:migrate` is deployed, while the binary is still there
  unstuck forget -a my-app --database-from-app   from a laptop
  unstuck forget --force                         although a restart is owed: restart by hand, then
  unstuck forget --all-apps                      in a copy of another app's database")]
    Forget(Forget),
    /// Put the pre-push hook where this repository's git looks for it, or take it out again
    ///
    /// A hook that is there already is kept and runs first, with the same arguments and the same lines from git; `uninstall` brings it
    /// back as it was. Where lefthook, overcommit or pre-commit write the hooks, the lines for their configuration are printed
    /// instead. `hook.missing` in .unstuck.yml says whether a push passes once this program has vanished (default: pass).
    #[command(after_help = "\
Examples:
  unstuck hook install
  unstuck hook install -C apps/shop   where the Rails root is not the top of the repository
  unstuck hook uninstall")]
    Hook {
        #[command(subcommand)]
        what: Hook,
    },
    /// What the pre-push hook would say, by hand and in CI
    ///
    /// The migrations of two commits are compared as if the first were deployed and the second pushed. RANGE is written as for git:
    /// `A..B`; `A...B` from where B left A; `A` alone means `A..HEAD`. Without it: from where HEAD left the default branch of the
    /// remote (in a pull request's workflow, its base branch). Only commits are looked at, not the working tree.
    #[command(after_help = "\
Examples:
  unstuck check                               what HEAD adds to the default branch
  unstuck check heroku/main..HEAD             what a deploy would run
  unstuck check --format github               annotations, in a workflow
  unstuck check --format sarif > unstuck.sarif

Exit codes: 0, also with warnings; 8 where a push would be refused; 1 where the commits cannot be compared.")]
    Check(Check),
    /// Run a process of the app, and restart it when the schema changes under it; needs no API key
    ///
    /// Before the command starts, a migration that is running or pending is waited for. While it runs, one look at the
    /// databases in each interval finds out whether the schema is another one than before the command started; then
    /// the command is ended (SIGTERM, after the grace SIGKILL) and started again. Where its standard input is a terminal, that is only said.
    ///
    /// Signals and the exit code pass through: 128+N when signal N ended the command, 127 when it was not found, 126 when it
    /// cannot be executed. A database that cannot be reached stops nothing. All messages go to standard error, also with --json.
    #[command(after_help = "\
Examples:
  web: unstuck exec -- bundle exec puma                         in a Procfile
  web: unstuck exec --reload-signal USR2 -- bundle exec puma    puma restarts itself and keeps its socket
  web: unstuck exec --listen 0.0.0.0:$PORT -- bundle exec puma --bind tcp://0.0.0.0:$PORT
  worker: unstuck exec --wait-timeout 5m -- bundle exec sidekiq

.unstuck.yml: exec: interval, reload_signal, after_wait; timeouts: exec_wait, exec_grace")]
    Exec(Exec),
    /// The releases: which is current, what its release phase migrated, and which processes are older than that
    ///
    /// Prints the list as `heroku releases` does. Below it: what the release phase of the current release migrated, as far as its
    /// output tells, and how the boot of each process stands to the last schema change that is known in this way.
    #[command(after_help = "\
Examples:
  unstuck releases -a my-app
  unstuck releases -n 30
  unstuck releases --json | jq .current")]
    Releases(Releases),
    /// Back to an earlier release, unless its code lacks migrations that the database holds
    ///
    /// Without a release, to the last one that succeeded before the current one, as `heroku rollback`. The platform makes a new
    /// release of the old code and config vars; neither add-ons nor migrations are reverted.
    ///
    /// Before that, the migrations of the old code, read in this git repository at the commit that it was built from, are compared
    /// with what the database holds, where the environment leads to it (in a dyno, or by `DATABASE_URL`), or else with the files of
    /// the releases since. What the old code knows nothing of is named, and the rollback refused (exit code 5) unless --force is given;
    /// so it is where this cannot be told. Afterwards every process is proved to be new, as after a restart.
    #[command(after_help = "\
Examples:
  unstuck rollback -a my-app        to the release before
  unstuck rollback v40 -a my-app
  unstuck rollback --force          although migrations are named

Exit codes: 0 rolled back and proved, 1 the release failed or the API gave no answer, 4 not proved in time, 5 refused.")]
    Rollback(Rollback),
    /// What would make a migration or its restart fail on the day, each with its remedy; changes nothing
    ///
    /// Looks at credentials and their scope, the app, the Procfile's release line, process types, preboot, time-outs, clocks, the
    /// migration command, `database.yml`, poolers, the databases and their records. What cannot be asked from here is said to be
    /// unknown. Without network the files are checked all the same. A database is asked in a dyno, or where `DATABASE_URL` is given.
    #[command(after_help = "\
Examples:
  unstuck doctor -a my-app             from a laptop
  heroku run -a my-app unstuck doctor  with the database
  unstuck doctor --json | jq '.findings[] | select(.grade != \"pass\")'

Exit codes: 0 nothing failed (warnings may be there), 1 something failed; with --strict also for a warning.")]
    Doctor(Doctor),
    /// Print completions for a shell
    #[command(after_help = "\
Examples:
  unstuck completions bash > /etc/bash_completion.d/unstuck
  unstuck completions zsh > \"${fpath[1]}/_unstuck\"
  unstuck completions fish > ~/.config/fish/completions/unstuck.fish
  unstuck completions powershell >> $PROFILE")]
    Completions { shell: clap_complete::Shell },
    /// Print a manual page
    #[command(after_help = "\
Examples:
  unstuck man | man -l -
  unstuck man migrate | man -l -
  unstuck man hook install | man -l -
  unstuck man --out /usr/local/share/man/man1")]
    Man(Man),
}

#[derive(Debug, Clone, Default, ClapArgs)]
pub struct Forget {
    #[command(flatten)]
    pub databases: Databases,
    /// Forget also that a restart is owed
    #[arg(long)]
    pub force: bool,
    /// Remove the records of every app
    #[arg(long)]
    pub all_apps: bool,
}

#[derive(Debug, Clone, Default, ClapArgs)]
pub struct Man {
    /// The command that the page is about [default: all of unstuck]
    pub command: Vec<String>,
    /// Write all pages into this folder
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    pub out: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum Hook {
    /// Put the hook in its place, beside one that is there already
    Install,
    /// Take the hook out, and bring back the one that was there before
    Uninstall,
}

#[derive(Debug, Clone, ClapArgs)]
pub struct Check {
    /// The commits to compare
    pub range: Option<String>,
    /// How to print what was found: text, json, sarif, github
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Text, hide_possible_values = true)]
    pub format: Format,
}

/// How a review is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Text,
    Json,
    Sarif,
    Github,
}

#[derive(Debug, Clone, Default, ClapArgs)]
pub struct PrePush {
    /// The remote's name, or its address where it has none
    pub to: String,
    /// The remote's address
    pub url: String,
}

#[derive(Debug, Clone, ClapArgs)]
pub struct Releases {
    /// How many releases to show
    #[arg(short, long, value_name = "N", default_value_t = 15)]
    pub num: usize,
}

#[derive(Debug, Clone, Default, ClapArgs)]
pub struct Rollback {
    /// The release to go back to: v40 or 40 [default: the last one that succeeded before the current one]
    #[arg(value_name = "RELEASE")]
    pub release: Option<String>,
    /// Roll back although the old code lacks migrations, or although that cannot be told
    #[arg(short, long)]
    pub force: bool,
}

#[derive(Debug, Clone, Default, ClapArgs)]
pub struct Doctor {
    /// Exit 1 for a warning, too
    #[arg(long)]
    pub strict: bool,
}

#[derive(Debug, Clone, Default, ClapArgs)]
pub struct Migrate {
    /// Say what would be done; change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// With --dry-run: exit 6 if migrations are pending, 7 if a restart is owed
    #[arg(long, requires = "dry_run")]
    pub exit_code: bool,
    /// Exit 4 when the new processes do not come up
    #[arg(long)]
    pub require_healthy: bool,
    /// The migration command [default: bin/rails db:migrate; without bin/rails, bundle exec rake db:migrate]
    #[arg(last = true, value_name = "COMMAND", value_hint = ValueHint::CommandWithArguments)]
    pub command: Vec<String>,
    #[command(flatten)]
    pub place: Place,
    #[command(flatten)]
    pub how: How,
}

// Where the migration runs.
#[derive(Debug, Clone, Default, ClapArgs)]
#[command(next_help_heading = "From a laptop")]
pub struct Place {
    /// Run in a one-off dyno of the app, whatever is configured here
    #[arg(long, conflicts_with = "here")]
    pub in_dyno: bool,
    /// Run on this machine, whatever was named
    #[arg(long)]
    pub here: bool,
    /// The size of the one-off dyno [default: the app's own]
    #[arg(long, value_name = "SIZE", conflicts_with = "here")]
    pub size: Option<String>,
    /// Look at the app's databases from here, by the URLs in its config vars: with --dry-run, and where the end of the dyno's run
    /// was not seen
    #[arg(long, conflicts_with = "here")]
    pub database_from_app: bool,
}

// Whose databases are looked at.
#[derive(Debug, Clone, Default, ClapArgs)]
pub struct Databases {
    /// Look at the app's databases from here, by the URLs in its config vars
    #[arg(long = "database-from-app")]
    pub from_app: bool,
}

// How to restart.
#[derive(Debug, Clone, Default, ClapArgs)]
#[command(next_help_heading = "Restart options")]
pub struct How {
    /// Who restarts after a successful migration in the release phase: `api` (unstuck), `handoff` (the release itself), or
    /// `auto`: `api`, but `handoff` where preboot is on [default: auto]
    #[arg(long, value_name = "auto|api|handoff")]
    pub policy: Option<String>,
    /// The process types to restart, separated by commas, or `all` [default: web]
    #[arg(long, value_name = "TYPES")]
    pub types: Option<String>,
    #[command(flatten)]
    pub pace: Pace,
}

// How many dynos at a time.
#[derive(Debug, Clone, Default, ClapArgs)]
#[command(next_help_heading = "Restart options")]
pub struct Pace {
    /// All dynos at once, or dyno by dyno [default: at-once]
    #[arg(long, value_name = "at-once|rolling")]
    pub strategy: Option<String>,
    /// Web dynos a few at a time, each waited for until it is up: short for `--strategy rolling`
    #[arg(long, conflicts_with = "strategy")]
    pub rolling: bool,
    /// How many dynos a rolling restart may take at a time [default: 1]
    #[arg(long, value_name = "N")]
    pub max_unavailable: Option<String>,
}

#[derive(Debug, Clone, Default, ClapArgs)]
pub struct Status {
    #[command(flatten)]
    pub databases: Databases,
    /// Exit 6 if migrations are pending, 7 if a restart is owed or dynos are stuck
    #[arg(long, conflicts_with = "watch")]
    pub exit_code: bool,
    /// Keep looking until Ctrl-C
    #[arg(long)]
    pub watch: bool,
    /// With --watch: the time between two looks [default: 10s]
    #[arg(long, value_name = "TIME", requires = "watch")]
    pub interval: Option<String>,
    /// Write the picture as a page, too
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

#[derive(Debug, Clone, Default, ClapArgs)]
pub struct Ps {
    /// The process types to show [default: all]
    #[arg(value_name = "TYPE")]
    pub types: Vec<String>,
}

#[derive(Debug, Clone, Default, ClapArgs)]
pub struct Restart {
    /// The process types to restart [default: the configured ones, which are `web` alone if none are]
    #[arg(value_name = "TYPE")]
    pub types: Vec<String>,
    /// Restart all dynos of the types, owed or not, and record the proof
    #[arg(long)]
    pub all: bool,
    /// Wait for a pending release before restarting
    #[arg(long)]
    pub wait: bool,
    /// Take the migration of this run for dead, whatever the lock could prove; may be given again
    #[arg(long, value_name = "RUN")]
    pub assume_dead: Vec<String>,
    /// Exit 4 when the new processes do not come up
    #[arg(long)]
    pub require_healthy: bool,
    #[command(flatten)]
    pub databases: Databases,
    #[command(flatten)]
    pub pace: Pace,
}

#[derive(Debug, Clone, Default, ClapArgs)]
pub struct Exec {
    /// Wait this long for a migration to end, at the start and before a restart [default: 20s]
    #[arg(long, value_name = "TIME")]
    pub wait_timeout: Option<String>,
    /// When that time is over: `start` the command all the same, or `exit` with code 5 [default: start]
    #[arg(long, value_name = "start|exit")]
    pub after_wait: Option<String>,
    /// Look at the databases this often, give or take a fifth [default: 10s]
    #[arg(long, value_name = "TIME")]
    pub interval: Option<String>,
    /// Kill the command if it has not ended this long after the SIGTERM of a restart [default: 25s]
    #[arg(long, value_name = "TIME")]
    pub grace_timeout: Option<String>,
    /// Send this signal instead of starting the command again: it has to reload the whole application by itself (puma:
    /// USR2, not USR1)
    #[arg(long, value_name = "SIGNAL")]
    pub reload_signal: Option<String>,
    /// Hold this socket open across restarts and give it to the command as systemd would, for a server that takes it
    /// (puma, bound to the same address): requests then wait for the new process instead of being refused
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND", value_hint = ValueHint::CommandWithArguments)]
    pub command: Vec<OsString>,
}

#[derive(Debug, Clone, Default, ClapArgs)]
pub struct Tail {
    /// How many lines of the past to begin with (Heroku keeps 1500, on Fir none)
    #[arg(short, long, value_name = "N", default_value_t = 100, value_parser = lines)]
    pub num: usize,
    /// Only this dyno: `web.1`
    #[arg(short, long, visible_alias = "dyno-name", value_name = "NAME", conflicts_with = "process_type")]
    pub dyno: Option<String>,
    /// Only this process type: `web`
    #[arg(short, long, value_name = "TYPE")]
    pub process_type: Option<String>,
    /// Only this source: `app` or `heroku`
    #[arg(short, long, value_name = "SOURCE")]
    pub source: Option<String>,
    /// End after the lines of the past
    #[arg(long)]
    pub no_tail: bool,
    /// Print only what matters, grouped
    #[arg(long)]
    pub errors: bool,
}

/// A number of lines: more than there can be is all of them.
fn lines(text: &str) -> Result<usize, std::num::ParseIntError> {
    text.parse::<usize>().map(|lines| lines.min(crate::logs::HISTORY))
}

#[derive(Debug, Clone, Default, ClapArgs)]
pub struct Watch {
    /// How long to look: `90s`, `10m`, `1h`; counted from the end of a pending release [default: 10m]
    #[arg(long = "for", value_name = "TIME")]
    pub how_long: Option<String>,
}
