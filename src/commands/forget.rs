//! The way to leave: removes what was written into the databases.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{from_app, look, reach, targets};
use crate::config::Settings;
use crate::debt::Standing;
use crate::error::{Error, Kind, Result};
use crate::observe::{Facts, Target};
use crate::ports::Lock;
use crate::report::Reporter;
use crate::{act, args};

pub fn forget(settings: &Settings, args: &args::Forget, reporter: &Reporter) -> Result<u8> {
    let settings = &*from_app::settings(settings, args.databases.from_app, reporter)?;
    if settings.is_afar() {
        return Err(Error::new(Kind::Refused, "the records are in the app's database, and none is configured here")
            .hint("--database-from-app opens the app's own from here"));
    }
    let mut targets = targets(settings, reporter)?.unwrap_or_default();
    let apps = apps(settings, args, &look(&mut targets)?, reporter)?;
    if !apps.is_empty() {
        // No run is to write a record while its like are removed.
        lock(&mut targets, settings.timeouts.lock.value)?;
    }
    let facts = look(&mut targets)?;
    refuse_newer(&apps, &facts)?;
    if !args.force {
        refuse_owed(settings, &apps, &facts)?;
    }
    let mut documents = Vec::new();
    for (target, facts) in targets.iter_mut().zip(&facts) {
        let keys: Vec<String> = apps.iter().flat_map(|app| facts.look.records.keys_of(app)).collect();
        for key in &keys {
            target.port.erase(key).map_err(|error| target.error("cannot remove a record from", error))?;
        }
        let what = match keys.len() {
            0 => "holds no record".to_owned(),
            1 => format!("removed {}", keys[0]),
            count => format!("removed {count} records: {}", keys.join(", ")),
        };
        reporter.say(&format!("{}: {what}", facts.name));
        documents.push(json!({"name": facts.name, "removed": keys}));
    }
    if reporter.json {
        reporter.document(&json!({"databases": documents}));
    }
    Ok(0)
}

/// The uuids of the apps whose records go: this app's, or all. Where a database holds those of several apps, and nothing else
/// tells which one is ours, the API is asked.
fn apps(settings: &Settings, args: &args::Forget, facts: &[Facts], reporter: &Reporter) -> Result<Vec<String>> {
    let mut found: Vec<String> = facts.iter().flat_map(|facts| facts.look.records.apps()).map(str::to_owned).collect();
    found.sort_unstable();
    found.dedup();
    if args.all_apps || found.is_empty() {
        return Ok(found);
    }
    let ours = match (settings.own_app_id(), &found[..]) {
        (Some(app), _) => app,
        (None, [sole]) => sole.clone(),
        (None, several) => {
            let unknown = |error: Error| {
                error.hint(format!(
                    "there are records of {} apps, and it has to be known which one this is: give --app and \
                     HEROKU_API_KEY, or --all-apps",
                    several.len()
                ))
            };
            let app = reach(settings, reporter)().map_err(unknown)?.app();
            app.map_err(|error| unknown(Error::new(Kind::Api, "Heroku's API did not tell the app").because(error)))?.id
        }
    };
    found.retain(|app| *app == ours);
    Ok(found)
}

/// One run per database at a time, this one included.
fn lock(targets: &mut [Target], patience: Duration) -> Result<()> {
    let deadline = Instant::now() + patience;
    for target in targets.iter_mut().filter(|target| !target.unused && !target.same_as_earlier) {
        while let Lock::Held(who) =
            target.port.try_lock().map_err(|error| target.error("cannot take the lock of", error))?
        {
            if Instant::now() >= deadline {
                return Err(Error::new(
                    Kind::Busy,
                    format!("another run holds the lock of database {}: {who}", target.place()),
                )
                .hint("wait for it to end, or give --lock-timeout a longer time"));
            }
            thread::sleep(Duration::from_millis(200));
        }
    }
    Ok(())
}

/// What a newer version wrote is for a newer version to remove, also under --force.
fn refuse_newer(apps: &[String], facts: &[Facts]) -> Result<()> {
    let newer = |facts: &Facts| apps.iter().find_map(|app| facts.ledger(app).newer.first().map(|row| row.key.clone()));
    facts.iter().find_map(newer).map_or(Ok(()), |key| Err(act::of_a_newer_version(&key)))
}

/// The record is all that knows of a restart that is owed.
fn refuse_owed(settings: &Settings, apps: &[String], facts: &[Facts]) -> Result<()> {
    let owed = |facts: &&Facts| {
        apps.iter().any(|app| {
            !facts.look.records.keys_of(app).is_empty() && facts.standing(app, &settings.types.value) == Standing::Owed
        })
    };
    match facts.iter().find(owed) {
        None => Ok(()),
        Some(facts) => Err(Error::new(
            Kind::Refused,
            format!("a restart is owed, and only the record in {} knows of it", facts.name),
        )
        .hint("pay it first: unstuck restart; or restart all dynos by hand (heroku ps:restart) and give --force")),
    }
}
