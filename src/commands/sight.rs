//! What `status` and `ps` look at: the databases and the platform, once or again and again.

use std::sync::Arc;

use jiff::Timestamp;

use super::{api_failed, carried, look, picture, reach, targets};
use crate::change;
use crate::config::Settings;
use crate::debt::Intent;
use crate::dynos::{App, DynoList, Release};
use crate::error::{Kind, Result};
use crate::migrations::Version;
use crate::observe::{Facts, Target};
use crate::plan::Run;
use crate::ports::{ApiError, Platform};
use crate::report::{Picture, Reporter};

/// The ways to all that is looked at; each is `None` where it does not lead anywhere, which was said.
pub struct Sight<'a> {
    settings: &'a Settings,
    targets: Option<Vec<Target>>,
    platform: Option<Arc<dyn Platform>>,
    /// The app's id and name, as soon as they were asked for.
    app: Option<(String, String)>,
}

impl<'a> Sight<'a> {
    pub fn open(settings: &'a Settings, reporter: &Reporter) -> Result<Self> {
        let targets = if settings.is_afar() {
            reporter.warn(
                "the databases are not shown: none is configured here (--database-from-app asks the app's from here)",
            );
            None
        } else {
            targets(settings, reporter)?
        };
        let platform = match reach(settings, reporter)() {
            Ok(platform) => Some(platform),
            Err(error) if error.kind == Kind::Refused => {
                reporter.warn(&format!("the dynos are not shown: {}", error.message));
                None
            }
            Err(error) => return Err(error),
        };
        Ok(Self { settings, targets, platform, app: None })
    }

    /// The platform alone, which has to be there.
    pub fn of_platform(settings: &'a Settings, reporter: &Reporter) -> Result<Self> {
        Ok(Self { settings, targets: None, platform: Some(reach(settings, reporter)()?), app: None })
    }

    /// The same, where the app was asked for already.
    pub fn of_app(settings: &'a Settings, platform: Arc<dyn Platform>, app: App) -> Self {
        Self { settings, targets: None, platform: Some(platform), app: Some((app.id, app.name)) }
    }

    /// Looks at the databases too, where that is possible; why it is not.
    pub fn add_databases(&mut self, reporter: &Reporter) -> Result<(), String> {
        if self.settings.is_afar() {
            return Err("no database is configured here".to_owned());
        }
        match targets(self.settings, reporter) {
            Ok(Some(mut targets)) => {
                look(&mut targets).map_err(|error| error.message)?;
                self.targets = Some(targets);
                Ok(())
            }
            Ok(None) => Err("the database's URL is empty".to_owned()),
            Err(error) => Err(error.message),
        }
    }

    pub fn platform(&self) -> Option<&dyn Platform> {
        self.platform.as_deref()
    }

    /// Looks at everything once.
    pub fn look(&mut self) -> Result<Picture> {
        let facts = self.targets.as_mut().map_or_else(|| Ok(Vec::new()), |targets| look(targets))?;
        let platform = self.platform.clone();
        let seen = platform.as_ref().map(|platform| self.ask(&**platform)).transpose().map_err(api_failed)?;
        let (list, release) = seen.unzip();
        Ok(self.picture(facts, list, release.flatten()))
    }

    /// What is shown where the platform has given this list.
    pub fn look_beside(&mut self, list: DynoList) -> Result<Picture> {
        let facts = self.targets.as_mut().map_or_else(|| Ok(Vec::new()), |targets| look(targets))?;
        if let (None, Some(platform)) = (&self.app, self.platform.clone()) {
            let app = platform.app().map_err(api_failed)?;
            self.app = Some((app.id, app.name));
        }
        Ok(self.picture(facts, Some(list), None))
    }

    fn ask(&mut self, platform: &dyn Platform) -> Result<(DynoList, Option<Release>), ApiError> {
        if self.app.is_none() {
            let app = platform.app()?;
            self.app = Some((app.id, app.name));
        }
        let list = platform.dynos()?;
        // It only helps the eye, and a token may be good for the dynos alone.
        let release = platform.releases(1).ok().and_then(|releases| releases.into_iter().next());
        Ok((list, release))
    }

    fn picture(&self, facts: Vec<Facts>, list: Option<DynoList>, current: Option<Release>) -> Picture {
        let settings = self.settings;
        let known = self.app.as_ref().map(|(id, _)| id.clone());
        let app_id = known.or_else(|| settings.own_app_id());
        let run = Run::new(Intent::Restart, "0".repeat(16), settings.types.value.clone(), facts, app_id);
        let carrier = self.platform().and_then(|platform| carried(&run, platform));
        let configured = || settings.app().ok().flatten().map(|app| app.value);
        let app = self.app.as_ref().map(|(_, name)| name.clone()).or_else(configured);
        let now = list.as_ref().map_or_else(Timestamp::now, |list| list.date);
        let change = last_change(&run);
        let names = change.as_ref().map_or_else(Vec::new, |change| self.names(&change.database, &change.versions));
        Picture { now, change, names, current, ..picture(settings, &run, app, list, carrier) }
    }

    /// The names of these migrations, as far as they have a file.
    fn names(&self, database: &str, versions: &[Version]) -> Vec<(Version, String)> {
        let target = self.targets.iter().flatten().find(|target| target.config.name == database);
        let Some(files) = target.filter(|_| !versions.is_empty()).and_then(|target| (target.files)().ok()) else {
            return Vec::new();
        };
        let named = files.pending(&[]).into_iter().filter(|migration| versions.contains(&migration.version));
        named.map(|migration| (migration.version, migration.name)).collect()
    }
}

fn last_change(run: &Run) -> Option<change::Change> {
    change::last(run.facts.iter().filter(|facts| !facts.unused).filter_map(|facts| {
        let ledger = run.ledger(facts)?;
        let as_proved = ledger.proved.as_ref().is_some_and(|proved| proved.ver == facts.digest.as_str());
        change::of(&facts.name, &ledger, &facts.look.applied, as_proved)
    }))
}
