//! Gathers the evidence for [`crate::doctor`], and says what its checks make of it. Changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Heroku, heroku, leads_to_database, runner, targets};
use crate::adapters::signals::Interrupt;
use crate::adapters::{self, credentials, files};
use crate::args;
use crate::config::Settings;
use crate::debt::{Intent, Standing};
use crate::doctor::{Asked, Database, Evidence, Failure, Grade, Locking, Seen, Verdict, examine};
use crate::error::{Error, Result};
use crate::observe::{Facts, Target};
use crate::plan::Run;
use crate::ports::{ApiError, Lock, Platform as _, Runner as _};
use crate::rails::Engine;
use crate::report::Reporter;

pub fn doctor(settings: &Settings, args: &args::Doctor, reporter: &Reporter) -> u8 {
    let found = examine(&evidence(settings, reporter));
    let worst = found.iter().map(|(_, verdict)| verdict.grade).max().unwrap_or(Grade::Pass);
    if reporter.json {
        reporter.document(&document(&found, worst));
    } else {
        tell(&found, reporter);
    }
    match worst {
        Grade::Fail => 1,
        Grade::Warn if args.strict => 1,
        Grade::Warn | Grade::Unknown | Grade::Pass => 0,
    }
}

fn evidence(settings: &Settings, reporter: &Reporter) -> Evidence {
    let app = settings.app().map_err(failure);
    let token = settings.token().map(|found| found.map(|(_, from)| from)).map_err(failure);
    let from = token.as_ref().ok().and_then(Option::as_deref);
    let exposure = from.and_then(|from| credentials::exposure(&settings.env, from));
    let mut evidence = Evidence {
        place: settings.place.clone(),
        types: settings.types.value.clone(),
        policy: settings.policy.value,
        timeouts: settings.timeouts.clone(),
        variables: variables(settings),
        app_in_file: matches!(&app, Ok(Some(app)) if settings.file() == Some(app.from.as_str())),
        app,
        token,
        exposure,
        account: None,
        authorization: None,
        platform: None,
        dynos: None,
        formation: None,
        newest: None,
        slug: None,
        preboot: None,
        metadata: None,
        config_vars: None,
        ahead_s: None,
        procfile: procfile(settings),
        scripts: BTreeMap::new(),
        command: runner(settings, reporter, Interrupt::default()).check(),
        databases: Err(Failure { message: String::new(), hint: None }),
    };
    if let (Ok(Some(_)), Ok(Some(_))) = (&evidence.app, &evidence.token) {
        match heroku(settings, reporter) {
            Ok(heroku) => ask_platform(&heroku, &mut evidence, reporter),
            Err(error) => evidence.token = Err(failure(error)),
        }
    }
    evidence.scripts = scripts(settings, &evidence);
    evidence.databases = databases(settings, &evidence, reporter);
    evidence
}

/// Words of the commands that are paths of plain files here.
fn scripts(settings: &Settings, evidence: &Evidence) -> BTreeMap<String, String> {
    let commands = crate::doctor::commands(evidence);
    let words = commands.values().flat_map(|command| command.split_whitespace()).filter(|word| word.contains('/'));
    let read = |word: &str| {
        let bytes = files::read_configuration(&settings.root.join(word)).ok()?;
        Some((word.to_owned(), String::from_utf8_lossy(&bytes).into_owned()))
    };
    words.filter_map(read).collect()
}

fn failure(error: Error) -> Failure {
    Failure { message: error.to_string(), hint: error.hint }
}

fn variables(settings: &Settings) -> BTreeSet<String> {
    settings.env.iter().filter(|(_, value)| !value.is_empty()).map(|(name, _)| name.clone()).collect()
}

fn procfile(settings: &Settings) -> Option<String> {
    let bytes = files::read_configuration(&settings.root.join("Procfile")).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Where the app itself cannot be read, the rest would fail for the same reason.
fn ask_platform(heroku: &Heroku, evidence: &mut Evidence, reporter: &Reporter) {
    let ask = |what: &str| reporter.detail(&format!("asking for {what}"));
    ask("the account");
    evidence.account = Some(heroku.account());
    evidence.platform = Some(heroku.app());
    if matches!(evidence.platform, Some(Err(_))) {
        return;
    }
    ask("the token's scope");
    evidence.authorization = Some(heroku.authorization());
    ask("dynos, formation and releases");
    let dynos = heroku.dynos();
    let now = Timestamp::now().as_second();
    evidence.ahead_s = dynos.as_ref().ok().map(|list| now - list.date.as_second());
    evidence.dynos = Some(dynos);
    evidence.formation = Some(heroku.formation());
    let releases = heroku.history(10);
    evidence.slug = Some(releases.clone().and_then(|releases| current_slug(heroku, &releases)));
    evidence.newest = Some(releases.map(|releases| releases.into_iter().next()));
    ask("features and config vars");
    evidence.preboot = Some(heroku.preboot());
    evidence.metadata = Some(heroku.tells_metadata());
    evidence.config_vars = Some(heroku.config_var_names());
}

fn current_slug(
    heroku: &Heroku,
    releases: &[crate::dynos::Deployed],
) -> std::result::Result<Option<crate::dynos::Slug>, ApiError> {
    let current = releases.iter().find(|release| release.current);
    current.and_then(|release| release.slug.as_deref()).map(|id| heroku.slug(id)).transpose()
}

fn databases(
    settings: &Settings,
    evidence: &Evidence,
    reporter: &Reporter,
) -> std::result::Result<Vec<Database>, Failure> {
    let empty = || Failure {
        message: "a database URL is set but empty, so nothing can be migrated".to_owned(),
        hint: Some("wait until the add-on is promoted, or set the variable to the database's URL".to_owned()),
    };
    let targets = targets(settings, reporter).map_err(failure)?.ok_or_else(empty)?;
    let ours = leads_to_database(settings);
    Ok(targets.into_iter().map(|target| one_database(settings, evidence, target, ours)).collect())
}

fn one_database(settings: &Settings, evidence: &Evidence, mut target: Target, ours: bool) -> Database {
    let files = (target.files)().map(drop).map_err(failure);
    let ask = ours && files.is_ok() && !target.unused;
    let look = ask.then(|| seen(settings, evidence, &mut target).map_err(failure));
    Database {
        name: target.config.name.clone(),
        engine: target.config.engine,
        port: target.config.port,
        from: target.config.from.clone(),
        direct: target.direct,
        files,
        unused: target.unused,
        look,
    }
}

fn seen(settings: &Settings, evidence: &Evidence, target: &mut Target) -> Result<Seen> {
    let facts = target.look()?;
    // SQLite's lock is a file that would be made. Behind a pooler a lock means nothing.
    let try_lock = target.config.engine != Engine::Sqlite && !facts.look.pooled && !facts.look.read_only;
    let lock = match try_lock.then(|| target.port.try_lock()) {
        None => Locking::NotTried,
        Some(Ok(Lock::Taken)) => Locking::Free,
        Some(Ok(Lock::Held(holder))) => Locking::Held(holder),
        Some(Err(error)) => Locking::Fails(error.to_string()),
    };
    let server = adapters::server_time(&target.config, &settings.env).ok().flatten();
    let now = Timestamp::now().as_second();
    let (newer, standing) = standing(settings, evidence, facts.clone());
    Ok(Seen {
        read_only: facts.look.read_only,
        pooled: facts.look.pooled,
        newer,
        owed: standing == Standing::Owed,
        unproved: standing == Standing::Unproved,
        pending: facts.pending.len(),
        lock,
        ahead_s: server.map(|server| server - now),
    })
}

/// Whether a newer unstuck was here, and what the records of this app mean.
fn standing(settings: &Settings, evidence: &Evidence, facts: Facts) -> (bool, Standing) {
    let told = |asked: &Asked<crate::dynos::App>| Some(asked.as_ref()?.as_ref().ok()?.id.clone());
    let app_id = told(&evidence.platform).or_else(|| settings.own_app_id());
    let run = Run::new(Intent::Restart, String::new(), settings.types.value.clone(), vec![facts], app_id);
    let newer = run.ledger(&run.facts[0]).is_some_and(|ledger| !ledger.newer.is_empty());
    (newer, run.standing())
}

fn document(found: &[(&str, Verdict)], worst: Grade) -> Value {
    let finding = |(check, Verdict { grade, message, remedy }): &(&str, Verdict)| json!({"check": check, "grade": grade.name(), "message": message, "remedy": remedy});
    json!({"verdict": worst.name(), "findings": found.iter().map(finding).collect::<Vec<_>>()})
}

fn tell(found: &[(&str, Verdict)], reporter: &Reporter) {
    for (check, Verdict { grade, message, remedy }) in found {
        reporter.finding(*grade, check, message, remedy.as_deref());
    }
    let count = |wanted: Grade| found.iter().filter(|(_, verdict)| verdict.grade == wanted).count();
    reporter.say(&match (count(Grade::Fail), count(Grade::Warn), count(Grade::Unknown)) {
        (0, 0, 0) => "all is well".to_owned(),
        (fails, warnings, unknown) => in_words(fails, warnings, unknown),
    });
}

/// `1 problem, 2 warnings and 1 question left open`, of which nothing is named that is not there.
fn in_words(fails: usize, warnings: usize, unknown: usize) -> String {
    let counted = |count: usize, one: &str, more: &str| match count {
        0 => None,
        1 => Some(format!("1 {one}")),
        count => Some(format!("{count} {more}")),
    };
    let mut parts: Vec<String> = [
        counted(fails, "problem", "problems"),
        counted(warnings, "warning", "warnings"),
        counted(unknown, "question left open", "questions left open"),
    ]
    .into_iter()
    .flatten()
    .collect();
    let last = parts.pop().unwrap_or_default();
    if parts.is_empty() { last } else { format!("{} and {last}", parts.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::in_words;

    #[test]
    fn a_summary_names_what_is_there() {
        for (counts, expected) in [
            ((1, 0, 0), "1 problem"),
            ((0, 2, 1), "2 warnings and 1 question left open"),
            ((2, 1, 3), "2 problems, 1 warning and 3 questions left open"),
        ] {
            assert_eq!(in_words(counts.0, counts.1, counts.2), expected);
        }
    }
}
