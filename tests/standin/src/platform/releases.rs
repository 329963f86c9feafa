//! Releases: how one is made, what its command decides, and how dynos get to run it.

use std::collections::BTreeMap;

use super::{Dyno, Effect, Event, Fact, OWNER, Platform, Release, Slug, State, Status, one_off};

impl Platform {
    /// Makes a release of a new slug. With a release command it stays pending until that ends.
    pub fn deploy(&mut self, slug: Slug) -> u64 {
        let description = format!("Deploy {}", slug.commit);
        let config = self.config();
        self.make_release(description, slug, config)
    }

    /// Sets (or with `None` removes) config vars, which makes a release.
    pub fn configure(&mut self, changes: BTreeMap<String, Option<String>>) -> u64 {
        let description = describe_changes(&changes);
        let mut config = self.config();
        for (name, value) in changes {
            match value {
                Some(value) => config.insert(name, value),
                None => config.remove(&name),
            };
        }
        let slug = self.current_slug();
        self.make_release(description, slug, config)
    }

    /// A release that an add-on makes: its command is skipped, dynos restart.
    pub fn addon_release(&mut self, description: String, changes: BTreeMap<String, String>) -> u64 {
        let mut config = self.config();
        config.extend(changes);
        let slug = self.current_slug();
        let version = self.push_release(description, slug, config, Status::Pending);
        self.conclude(version, Status::Succeeded);
        version
    }

    /// Makes a release of an old one's slug and config vars. `None` when there is no such release.
    pub fn rollback(&mut self, id: &str) -> Option<u64> {
        let old = self.releases.iter().find(|release| release.id == id)?.clone();
        Some(self.make_release(format!("Rollback to v{}", old.version), old.slug, old.config))
    }

    /// Ends a pending release with `status`, and its command if that still runs. `false` when it is not pending.
    pub fn finish_release(&mut self, version: u64, status: Status) -> bool {
        let pending = |release: &&Release| release.version == version && release.status == Status::Pending;
        let Some(release) = self.releases.iter().find(pending) else { return false };
        if let Some(id) = release.command_dyno.clone() {
            let code = i32::from(status != Status::Succeeded);
            self.effects.push(Effect::Kill(id.clone()));
            self.dynos.retain(|dyno| dyno.id != id);
            self.record_end(&id, &format!("release.{version}"), code);
        }
        self.conclude(version, status);
        true
    }

    fn current_slug(&self) -> Slug {
        let current = self.releases.iter().position(|release| release.version == self.current);
        // An app has a first release from the start.
        self.releases[current.unwrap_or(0)].slug.clone()
    }

    fn make_release(&mut self, description: String, slug: Slug, config: BTreeMap<String, String>) -> u64 {
        let command = slug.processes.get("release").cloned();
        let version = self.push_release(description, slug, config, Status::Pending);
        let Some(command) = command else {
            self.conclude(version, Status::Succeeded);
            return version;
        };
        self.log("api", format!("Running release v{version} commands by {OWNER}"));
        let id = self.one_off("release", &command, version);
        if let Some(release) = self.releases.last_mut() {
            release.command_dyno = Some(id.clone());
        }
        self.launch(&id);
        self.effects.push(Effect::After(self.timing.release_timeout, Event::ReleaseTimeout(version)));
        version
    }

    pub(super) fn push_release(
        &mut self,
        description: String,
        slug: Slug,
        config: BTreeMap<String, String>,
        status: Status,
    ) -> u64 {
        let version = self.releases.last().map_or(1, |release| release.version + 1);
        if status == Status::Pending {
            self.log("api", format!("{description} by {OWNER}"));
        }
        let release = Release {
            id: self.next_id(),
            version,
            status,
            description,
            slug,
            config,
            command_dyno: None,
            created_at: self.now,
            updated_at: self.now,
        };
        self.releases.push(release);
        self.effects.push(Effect::Record(Fact::Release { version, status }));
        version
    }

    pub(super) fn conclude(&mut self, version: u64, status: Status) {
        let now = self.now;
        let Some(release) = self.releases.iter_mut().find(|release| release.version == version) else { return };
        release.status = status;
        release.updated_at = now;
        self.effects.push(Effect::Record(Fact::Release { version, status }));
        match status {
            Status::Succeeded => {
                self.log("api", format!("Release v{version} created by {OWNER}"));
                // An older release that ends later does not take over from a newer one.
                if version > self.current {
                    self.current = version;
                    self.restart_all();
                }
            }
            Status::Failed => self.log("api", format!("Release v{version} command failed")),
            Status::Expired => self.log("api", format!("Release v{version} command expired")),
            Status::Pending => {}
        }
    }

    fn restart_all(&mut self) {
        let slots: Vec<_> = self
            .listed()
            .into_iter()
            .filter(|dyno| !one_off(&dyno.kind))
            .map(|dyno| (dyno.kind.clone(), dyno.slot))
            .collect();
        for dyno in &mut self.dynos {
            dyno.crashes = 0;
        }
        if self.rolling {
            self.queue = slots;
            self.roll();
            return;
        }
        for (kind, slot) in slots {
            self.restart_slot(&kind, slot);
        }
    }

    fn restart_slot(&mut self, kind: &str, slot: u64) {
        let here = |dyno: &&Dyno| dyno.kind == kind && dyno.slot == slot && dyno.listed();
        if let Some(id) = self.dynos.iter().find(here).map(|dyno| dyno.id.clone()) {
            self.restart_one(&id, self.current);
        }
    }

    /// Goes on with a rolling release: a quarter of each type, rounded up, may be away from `up` because of it.
    pub(super) fn roll(&mut self) {
        let mut waiting = std::mem::take(&mut self.queue);
        waiting.retain(|(kind, slot)| {
            let quantity = self.formation.get(kind).map_or(1, |formation| formation.quantity);
            let away = self
                .dynos
                .iter()
                .filter(|dyno| dyno.listed() && dyno.kind == *kind && dyno.state == State::Starting)
                .count();
            let free = (away as u64) < quantity.div_ceil(4);
            if free {
                self.restart_slot(kind, *slot);
            }
            !free
        });
        waiting.append(&mut self.queue);
        self.queue = waiting;
    }
}

fn describe_changes(changes: &BTreeMap<String, Option<String>>) -> String {
    let verb = if changes.values().any(Option::is_some) { "Set" } else { "Remove" };
    let names: Vec<&str> = changes.keys().map(String::as_str).collect();
    format!("{verb} {} config vars", names.join(", "))
}
