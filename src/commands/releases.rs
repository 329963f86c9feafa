//! The releases, which of them is current, what its release phase migrated, and which processes are older than that.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::heroku;
use super::sight::Sight;
use crate::adapters::heroku::Heroku;
use crate::args;
use crate::config::Settings;
use crate::dynos::{Deployed, Dyno, DynoList};
use crate::error::Result;
use crate::ports::Platform as _;
use crate::processes::beside;
use crate::releases::{Migrated, SchemaChange, ago, migrated, remark, span};
use crate::report::{Picture, Reporter, api_failure, change_document, clean};
use crate::timeline;

/// So many outputs of release commands are read to find the last schema change.
const MAX_OUTPUTS: usize = 10;

pub fn releases(settings: &Settings, args: &args::Releases, reporter: &Reporter) -> Result<u8> {
    let heroku = Arc::new(heroku(settings, reporter)?);
    let failed = |error| api_failure("the releases cannot be shown", error);
    let app = heroku.app().map_err(failed)?;
    let releases = heroku.history(args.num).map_err(failed)?;
    let list = heroku.dynos().map_err(failed)?;
    let phases = release_phases(&heroku, &releases, reporter);
    let name = app.name.clone();
    let recorded = recorded(Sight::of_app(settings, heroku, app), &list, reporter)?;
    let shown = Shown { app: name, change: last_change(&releases, &phases), recorded, releases, phases, list };
    if reporter.json {
        reporter.document(&shown.document());
    } else {
        shown.tell(reporter);
    }
    Ok(0)
}

/// What `status` knows: the records tell of a migration by hand too. `None` where no database is configured here, or where
/// nothing was ever recorded.
fn recorded(mut sight: Sight, list: &DynoList, reporter: &Reporter) -> Result<Option<Picture>> {
    if let Err(why) = sight.add_databases(reporter) {
        reporter.detail(&format!("the records are not asked: {why}"));
        return Ok(None);
    }
    let picture = sight.look_beside(list.clone())?;
    Ok(Some(picture).filter(|picture| picture.change.is_some()))
}

/// What release commands say that they have migrated, by release; those that have none, or whose output cannot be read, are left
/// out. Read from the newest on, to the current release and the last one that migrated.
fn release_phases(heroku: &Heroku, releases: &[Deployed], reporter: &Reporter) -> BTreeMap<u64, Vec<Migrated>> {
    let current = releases.iter().find(|release| release.current).map_or(0, |release| release.version);
    let mut phases = BTreeMap::new();
    let mut found = false;
    for release in releases.iter().filter(|release| release.output.is_some()).take(MAX_OUTPUTS) {
        if found && release.version < current {
            break;
        }
        match heroku.release_output(release) {
            Ok(output) => {
                let migrated = migrated(&output);
                found |= !migrated.is_empty();
                phases.insert(release.version, migrated);
            }
            Err(error) => reporter.detail(&error.to_string()),
        }
    }
    phases
}

/// A release command that failed may have migrated before it did. `releases` descend.
fn last_change(releases: &[Deployed], phases: &BTreeMap<u64, Vec<Migrated>>) -> Option<SchemaChange> {
    releases.iter().find_map(|release| {
        let migrated = phases.get(&release.version).filter(|migrated| !migrated.is_empty())?.clone();
        Some(SchemaChange { at: release.updated_at, release: release.version, migrated })
    })
}

struct Shown {
    app: String,
    /// They descend.
    releases: Vec<Deployed>,
    phases: BTreeMap<u64, Vec<Migrated>>,
    change: Option<SchemaChange>,
    recorded: Option<Picture>,
    list: DynoList,
}

impl Shown {
    fn current(&self) -> Option<&Deployed> {
        self.releases.iter().find(|release| release.current)
    }

    fn document(&self) -> Value {
        let names = |migrated: &[Migrated]| {
            let one = |one: &Migrated| json!({"version": one.version.to_string(), "name": one.name});
            migrated.iter().map(one).collect::<Vec<_>>()
        };
        let release = |release: &Deployed| {
            json!({
                "version": release.version,
                "status": release.status.name(),
                "current": release.current,
                "description": release.description,
                "user": release.user,
                "created_at": release.created_at.to_string(),
                "eligible_for_rollback": release.eligible,
                "release_command": release.output.is_some(),
                "migrated": self.phases.get(&release.version).map(|migrated| names(migrated)),
            })
        };
        let change = |change: &SchemaChange| json!({"at": change.at.to_string(), "release": change.release, "migrated": names(&change.migrated)});
        let dyno = |dyno: &&Dyno| {
            json!({
                "name": dyno.name,
                "type": dyno.kind,
                "state": dyno.state,
                "booted_at": dyno.created_at.to_string(),
                "release": dyno.release,
                "older_than_schema_change": self.change.as_ref().map(|change| change.is_older(dyno)),
                "stuck": self.stuck(dyno),
            })
        };
        json!({
            "app": self.app,
            "current": self.current().map(|release| release.version),
            "releases": self.releases.iter().map(release).collect::<Vec<_>>(),
            "schema_change": self.change.as_ref().map(change),
            "recorded_change": self.recorded.as_ref().and_then(|picture| picture.change.as_ref()).map(change_document),
            "dynos": self.processes().iter().map(dyno).collect::<Vec<_>>(),
        })
    }

    /// By the records.
    fn stuck(&self, dyno: &Dyno) -> Option<bool> {
        let mut dynos = self.recorded.as_ref()?.dynos.iter().flatten();
        dynos.find(|known| known.dyno.id == dyno.id)?.stuck
    }

    /// The formation's dynos; a one-off dyno ends by itself.
    fn processes(&self) -> Vec<&Dyno> {
        let one_off = |dyno: &&Dyno| !matches!(dyno.kind.as_str(), "run" | "release" | "scheduler");
        let mut dynos: Vec<&Dyno> = self.list.dynos.iter().filter(one_off).collect();
        dynos.sort_by_cached_key(|dyno| (dyno.kind.clone(), dyno.name.len(), dyno.name.clone()));
        dynos
    }

    fn tell(&self, reporter: &Reporter) {
        if self.releases.is_empty() {
            reporter.result(&format!("{} has no releases.", clean(&self.app)));
            return;
        }
        let current = self.current().map_or(String::new(), |release| format!(" - Current: v{}", release.version));
        reporter.result(&format!("=== {} Releases{current}\n", clean(&self.app)));
        for line in table(&self.releases, self.list.date) {
            reporter.result(&line);
        }
        reporter.result("");
        if let Some(release) = self.current() {
            reporter.result(&self.release_phase(release));
        }
        self.tell_boots(reporter);
    }

    fn release_phase(&self, release: &Deployed) -> String {
        let version = release.version;
        match self.phases.get(&version).map(Vec::len) {
            Some(0) => format!("The release phase of v{version} migrated nothing."),
            Some(count) => format!("The release phase of v{version} migrated {count}: {}.", self.names(version)),
            None if release.output.is_none() => format!("v{version} ran no release command."),
            None => {
                format!("The output of v{version}'s release command cannot be read, so what it migrated is not known.")
            }
        }
    }

    fn names(&self, release: u64) -> String {
        let names = self.phases.get(&release).into_iter().flatten();
        names.map(|one| format!("{} {}", one.version, clean(&one.name))).collect::<Vec<_>>().join(", ")
    }

    fn tell_boots(&self, reporter: &Reporter) {
        if let Some(picture) = &self.recorded
            && let Some(change) = &picture.change
        {
            reporter.result(&format!("The schema changed last {}.\n", timeline::moment_of(picture, change)));
            return self.each(reporter, |dyno| beside(dyno, self.stuck(dyno), Some(change)));
        }
        let Some(change) = &self.change else {
            reporter.result(
                "When the schema changed last is not known: none of these release commands says that it migrated.",
            );
            return;
        };
        let ago = ago(change.at, self.list.date);
        reporter.result(&format!("The schema changed last with v{}, {ago}.\n", change.release));
        self.each(reporter, |dyno| {
            let apart = dyno.created_at.as_second() - change.at.as_second();
            let age = match (change.is_older(dyno), apart) {
                (true, ..0) => format!("{} BEFORE the change: it may be stuck", span(-apart)),
                (true, _) => "in the second of the change: it may be stuck".to_owned(),
                // By its release it is known to have booted after the release phase.
                (false, _) => format!("{} after the change", span(apart)),
            };
            format!(", booted {age}")
        });
    }

    /// A line for each process, with what `against` says of its boot.
    fn each(&self, reporter: &Reporter, against: impl Fn(&Dyno) -> String) {
        let dynos = self.processes();
        let width = dynos.iter().map(|dyno| clean(&dyno.name).chars().count()).max().unwrap_or(0);
        for dyno in dynos {
            reporter.result(&format!(" {:width$}  {}{}", clean(&dyno.name), clean(&dyno.state), against(dyno)));
        }
    }
}

/// Columns and rules as the `heroku` command prints them.
fn table(releases: &[Deployed], now: Timestamp) -> Vec<String> {
    let head = ["v", "description", "user", "created_at"].map(str::to_owned);
    let row = |release: &Deployed| {
        let description = format!("{} {}", clean(&release.description), remark(release.status)).trim_end().to_owned();
        [format!("v{}", release.version), description, clean(&release.user), ago(release.created_at, now)]
    };
    let rows: Vec<[String; 4]> = std::iter::once(head).chain(releases.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [0, 1, 2, 3].map(width);
    let line = |row: &[String; 4]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect::<Vec<_>>();
        format!("  {}", cells.join("   ").trim_end())
    };
    let mut lines: Vec<String> = rows.iter().map(line).collect();
    lines.insert(1, format!(" {}", "\u{2500}".repeat(widths.iter().sum::<usize>() + 11)));
    lines
}
