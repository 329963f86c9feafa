//! One run: what it knows, and the loop that asks [`debt::next`] for a step, lets [`act`] carry it out, and asks again.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::act::{self, World};
use crate::config::{Policy, Types};
use crate::debt::{self, Child, Fresh, Intent, Ledger, Own, Payer, Receipt, Restart, Standing, Step, Verdict, View};
use crate::dynos::{App, DynoList};
use crate::error::Result;
use crate::observe::Facts;
use crate::ports::{Ended, Exit};
use crate::progress::Progress;
use crate::ruby::Class;
use crate::verify::{Proof, Suspects};

/// What a run knows. All of it is lost when the run is killed; what must not be lost is in the ledger.
#[derive(Debug)]
pub struct Run {
    /// 16 hexadecimal digits.
    pub id: String,
    pub intent: Intent,
    /// The process types that it is about: the configured ones, or those that were named to `restart`.
    pub types: Types,
    /// The last look at each database.
    pub facts: Vec<Facts>,
    /// The app's uuid, by which the records are keyed.
    pub app_id: Option<String>,
    /// The app, once the API was asked.
    pub app: Option<App>,
    /// The highest release at the beginning.
    pub newest_release: Option<u64>,
    /// The release whose phase this is, if it is one and its number is known.
    pub this_release: Option<u64>,
    pub preboot: bool,
    /// A release that has just succeeded and so restarts every process by itself: what runs it is new.
    pub carrier: Option<u64>,
    pub ready: bool,
    pub locked: bool,
    pub own: Own,
    /// That the debt is recorded: what the child is started with.
    pub receipt: Option<Receipt>,
    pub before: Option<Before>,
    pub child: Child,
    pub ended: Option<Ended>,
    /// Sessions that may still be migrating.
    pub sessions: Vec<String>,
    pub restart: Restart,
    /// The last complete dyno list.
    pub list: Option<DynoList>,
    pub suspects: Option<Suspects>,
    /// By database: for which schema the restart is carried out ([`debt::paid_for`]), where a row has to stay.
    pub schemas: Vec<Option<String>>,
    /// What was said of each dyno since its restart was asked for.
    pub progress: Option<Progress>,
    pub roll: Roll,
    pub proof: Option<Proof>,
    /// How many restart requests were accepted.
    pub requests: u32,
    /// How often the versions moved while we settled.
    pub rounds: u32,
    /// What went wrong on the way, for people, oldest first.
    pub troubles: Vec<String>,
    /// Who will notice each pending migration, by its path, as far as its file could be read.
    pub classes: BTreeMap<PathBuf, Class>,
    /// What each database held when the migration began; empty before that.
    at_start: Vec<Facts>,
}

/// How far a rolling restart has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Roll {
    NotBegun,
    /// Since when new processes count is in the record, if it could be written.
    Recorded,
    /// It ended before every old process was replaced.
    Stopped,
}

/// What was true just before the child, to prove that it changed nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Before {
    pub catalogues: Vec<String>,
    pub dynos: Vec<String>,
    /// No restart was owed.
    pub closed: bool,
}

impl Run {
    pub fn new(intent: Intent, id: String, types: Types, facts: Vec<Facts>, app_id: Option<String>) -> Self {
        Self {
            id,
            intent,
            types,
            at_start: Vec::new(),
            facts,
            app_id,
            app: None,
            newest_release: None,
            this_release: None,
            preboot: false,
            carrier: None,
            ready: false,
            locked: false,
            own: Own::None,
            receipt: None,
            before: None,
            child: Child::NotStarted,
            ended: None,
            sessions: Vec::new(),
            restart: Restart::NotListed,
            list: None,
            suspects: None,
            schemas: Vec::new(),
            progress: None,
            roll: Roll::NotBegun,
            proof: None,
            requests: 0,
            rounds: 0,
            troubles: Vec::new(),
            classes: BTreeMap::new(),
        }
    }

    /// What each database held before anything ran.
    pub fn at_start(&self) -> &[Facts] {
        if self.at_start.is_empty() { &self.facts } else { &self.at_start }
    }

    /// From here on, what changes is this run's doing.
    pub fn begins(&mut self) {
        self.at_start.clone_from(&self.facts);
    }

    /// Tag of the child's database sessions.
    pub fn tag(&self) -> &str {
        &self.id[..8]
    }

    pub fn pending(&self) -> bool {
        self.facts.iter().any(|facts| !facts.pending.is_empty())
    }

    /// The child ended well and left nothing to do.
    pub fn succeeded(&self) -> bool {
        self.ended.as_ref().is_some_and(|ended| ended.exit == Exit::Code(0)) && !self.pending()
    }

    /// This app's ledger in one database. As long as the uuid is not known, the only app that has records is taken to be ours.
    pub fn ledger(&self, facts: &Facts) -> Option<Ledger> {
        let sole = || match facts.look.records.apps()[..] {
            [app] => Some(app.to_owned()),
            _ => None,
        };
        self.app_id.clone().or_else(sole).map(|app| facts.ledger(&app))
    }

    /// What one database's ledger means for the configured types. Where it is not known which app we are, every doubt counts as a debt until it is.
    pub fn standing_of(&self, facts: &Facts) -> Standing {
        match &self.app_id {
            Some(app) => facts.standing(app, &self.types),
            None if facts.look.records.doubtful(&facts.digest, &self.types) => Standing::Owed,
            None if facts.look.records.apps().is_empty() && !facts.unused => Standing::Unproved,
            None => Standing::Closed,
        }
    }

    /// The worst standing of all databases.
    pub fn standing(&self) -> Standing {
        self.facts.iter().map(|facts| self.standing_of(facts)).max().unwrap_or(Standing::Unproved)
    }

    /// The release that has to carry every process, where nothing but handed-off rows is owed.
    pub fn awaits(&self) -> Option<u64> {
        let owed = self.facts.iter().filter(|facts| self.standing_of(facts) == Standing::Owed);
        owed.map(|facts| self.ledger(facts)?.awaits(&facts.digest))
            .try_fold(None, |highest: Option<u64>, release| Some(highest.max(Some(release?))))?
    }

    /// Whether the release's own restart is to pay: by policy, or since a second restart inside the preboot window would keep
    /// the oldest processes alive for longer.
    pub fn hands_off(&self, world: &World) -> bool {
        world.rules.place.is_release()
            && match world.rules.policy {
                Policy::Handoff => true,
                Policy::Auto => self.preboot,
                Policy::Api => false,
            }
    }

    /// What the last proofs still say, where nothing but their process types falls short.
    pub fn fresh(&self) -> Option<Fresh> {
        let asked = self.facts.iter().filter(|facts| !facts.unused);
        let proofs: Option<Vec<Fresh>> = asked.map(|facts| self.ledger(facts)?.fresh(&facts.digest)).collect();
        proofs?.into_iter().reduce(Fresh::and)
    }

    fn payer(&self, world: &World) -> Payer {
        let fine = self.succeeded() || (self.child == Child::NotStarted && !self.pending());
        // Whoever asks for a restart of all wants it now, owed or not: there is no record to hand off.
        let may_wait = self.intent != Intent::RestartAll && world.interrupt.signal().is_none();
        match (fine && may_wait && self.hands_off(world), self.this_release) {
            (false, _) => Payer::Api,
            (true, Some(_)) => Payer::Release,
            (true, None) if self.child == Child::NotStarted => Payer::Api,
            (true, None) => Payer::Unknown,
        }
    }

    fn view(&self, world: &mut World) -> View {
        let standing = self.standing();
        let blind = standing == Standing::Owed && self.awaits().is_some() && world.platform().is_err();
        View {
            intent: self.intent,
            pending: self.pending(),
            standing,
            blind,
            ready: self.ready,
            locked: self.locked,
            child: self.child,
            own: self.own,
            sessions: !self.sessions.is_empty(),
            payer: self.payer(world),
            release_follows: world.rules.place.is_release() && self.succeeded() && self.this_release.is_some(),
            restart: self.restart,
            interrupted: world.interrupt.signal().is_some(),
        }
    }

    /// The step that is due.
    pub fn next(&self, world: &mut World) -> Step {
        debt::next(&self.view(world))
    }

    /// Runs to the end. An error means that nothing ran: whatever goes wrong later is a verdict, with its troubles.
    pub fn drive(&mut self, world: &mut World) -> Result<Verdict> {
        loop {
            match self.next(world) {
                Step::Stop(verdict) => return Ok(verdict),
                step => act::carry_out(step, self, world)?,
            }
        }
    }
}
