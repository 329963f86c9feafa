//! A Heroku stand-in on loopback: it serves the Platform API v3 for one app and runs a Procfile's processes as dynos.
//!
//! ```no_run
//! use unstuck_standin::{Options, Reply, Rule, Standin};
//!
//! let standin = Standin::start(Options::default())?;
//! // A tool under test gets HEROKU_HOST=standin.url() and HEROKU_API_KEY=standin.token().
//! standin.fault(Rule { method: Some("DELETE".into()), reply: Reply::Drop, count: Some(1), ..Rule::default() });
//! # anyhow::Ok(())
//! ```
//!
//! # The house
//!
//! | file | what |
//! |---|---|
//! | `platform`, `platform/releases` | the machine: dynos, formation, releases; pure |
//! | `faults`, `journal`, `logs`, `paging`, `ids` | small pure parts |
//! | `world` | the state behind its lock, timers, and the hands that do what the machine asks |
//! | `process`, `guard.sh` | dynos that are real processes |
//! | `front` | what every request passes: admission, faults, headers, journal |
//! | `api`, `views` | endpoints and their JSON |
//! | `streams` | log sessions, release output |
//! | `rendezvous` | where an attached dyno and its client meet |
//! | `router` | the app's public address |
//! | `control`, `actions` | what switches it while it runs |
//! | `line`, `answer` | connections and answers that can be spoilt |
//!
//! # The control API
//!
//! On the API's own port, without authorization, JSON in and out:
//!
//! | request | body or answer |
//! |---|---|
//! | `GET /_standin` | `{url, router_url, app, app_id}` |
//! | `GET /_standin/journal?after=SEQ` | the entries after number SEQ, see [`Entry`] |
//! | `POST /_standin/notes` | `{"text": "..."}`: an entry of one's own; answers `{"seq": N}` |
//! | `GET /_standin/dynos` | every boot with `place` (`listed`, `hidden`, `leaving`), `routed`, `running`, `port`, `pid` |
//! | `POST /_standin/dynos/NAME/crash` | kills its process |
//! | `GET`, `POST`, `DELETE /_standin/faults` | a [`Rule`]; answers `{"id": N}` |
//! | `DELETE /_standin/faults/N` | takes one away |
//! | `GET`, `PUT /_standin/ailments` | a list of [`AilmentRule`] |
//! | `GET`, `PATCH /_standin/settings` | `access` ([`Access`]), `pool` ([`Pool`]), `skew` ([`Skew`]), `page_size`, `preboot`, `rolling`, `spare_one_offs`, `maintenance`, `log_disorder` |
//! | `POST /_standin/scale` | `{"web": 3}` |
//! | `POST /_standin/restart` | `{"dyno": "web.1"}`: a restart that nobody asked the API for |
//! | `POST /_standin/cycle` | `{"dyno": "web.1"}`: the daily one |
//! | `POST /_standin/preboot-window/close` | ends the preboot window now |
//! | `POST /_standin/deploys` | a [`Deploy`]; answers `{"version": N}` |
//! | `POST /_standin/addon-releases` | `{"description": "...", "config": {}}` |
//! | `POST /_standin/releases/N/finish` | `{"status": "succeeded"}`, `"failed"`, `"expired"` |
//! | `POST /_standin/logs` | `{"source": "heroku", "process": "logplex", "text": "Error L11 ..."}` |
//!
//! # Where it follows Heroku, and where it chooses
//!
//! What Heroku documents is followed. Where nothing is documented: a restart by uuid is accepted and does nothing (so it was
//! seen); an unknown process type is 404; a restart of everything spares one-off dynos unless `spare_one_offs` is off; an old
//! release that succeeds after a newer one does not become current; Fir dynos get a new name with each boot. The preboot
//! window is ten seconds unless [`Timing`] says otherwise. Processes need Linux.

mod actions;
mod answer;
mod api;
mod control;
mod faults;
mod front;
mod ids;
mod journal;
mod line;
mod logs;
mod paging;
mod platform;
mod process;
mod rendezvous;
mod reserved;
mod router;
mod streams;
mod views;
mod world;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::middleware::from_fn_with_state;
use jiff::Timestamp;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

pub use crate::actions::Deploy;
pub use crate::faults::{Access, Act, Ailment, AilmentRule, Attach, Reply, Rule};
pub use crate::journal::{Entry, Fact};
pub use crate::platform::{Generation, Status, Timing};
pub use crate::reserved::Reserved;
pub use crate::world::{Pool, Skew};

use crate::ids::Ids;
use crate::line::{Line, Lines};
use crate::platform::{Own, Platform, Slug};
use crate::process::Fleet;
use crate::rendezvous::Rendezvous;
use crate::world::{Driver, Identity, Inner, World};

/// What the stand-in is to be. The default: a Cedar app `standin-app` with two simulated web dynos and one worker, up at once.
#[derive(Debug, Clone)]
pub struct Options {
    pub app: String,
    /// The app's uuid; a new one when `None`.
    pub app_id: Option<String>,
    pub generation: Generation,
    /// Process type -> number of dynos.
    pub formation: BTreeMap<String, u64>,
    pub token: String,
    /// The API's port; a free one when 0.
    pub port: u16,
    /// The router's port; a free one when 0.
    pub router_port: u16,
    pub mode: Mode,
    pub timing: Timing,
    pub preboot: bool,
    /// Whether dynos get `HEROKU_APP_ID`, `HEROKU_RELEASE_VERSION`, ... (the labs feature `runtime-dyno-metadata`).
    pub metadata: bool,
    /// The first release's config vars.
    pub config: BTreeMap<String, String>,
}

/// What a dyno is.
#[derive(Debug, Clone)]
pub enum Mode {
    /// State alone: up after `boot_delay`, ended at once. The router answers for them with their name and id.
    Simulated { boot_delay: Duration },
    /// Processes of a Procfile.
    Procfile {
        /// The directory that they run in.
        root: PathBuf,
        /// `root/Procfile` when `None`.
        procfile: Option<PathBuf>,
        /// Variables of every dyno; config vars go over them.
        env: BTreeMap<String, String>,
        /// From SIGTERM to SIGKILL; thirty seconds on Heroku.
        grace: Duration,
    },
}

impl Default for Options {
    fn default() -> Self {
        Self {
            app: "standin-app".to_owned(),
            app_id: None,
            generation: Generation::Cedar,
            formation: BTreeMap::from([("web".to_owned(), 2), ("worker".to_owned(), 1)]),
            token: "HRKU-standin-0000-not-a-secret".to_owned(),
            port: 0,
            router_port: 0,
            mode: Mode::Simulated { boot_delay: Duration::ZERO },
            timing: Timing::default(),
            preboot: false,
            metadata: true,
            config: BTreeMap::new(),
        }
    }
}

/// A running stand-in. Dropping it ends every dyno and waits for that.
pub struct Standin {
    world: Arc<World>,
    runtime: Option<Runtime>,
}

impl Standin {
    /// Starts serving, and the dynos of the formation with it. Returns before they are up, see [`Standin::wait_until_up`].
    ///
    /// Fails when a port is taken, when the Procfile cannot be read, or when it lacks a type of the formation.
    pub fn start(options: Options) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let api = bind(&runtime, options.port)?;
        let public = bind(&runtime, options.router_port)?;
        let meetings = bind(&runtime, 0)?;
        let rendezvous = Rendezvous::new(meetings.local_addr()?.port());
        let mut ids = Ids::new(getrandom::u64()?);
        let identity = Identity {
            app: options.app,
            app_id: options.app_id.unwrap_or_else(|| ids.next_id()),
            owner_id: ids.next_id(),
            token: options.token,
            created_at: Timestamp::now(),
            url: format!("http://{}", api.local_addr()?),
            router_url: format!("http://{}", public.local_addr()?),
        };
        let (driver, slug) = ground(options.mode, &options.formation, &mut ids)?;
        let mut platform =
            Platform::new(options.generation, options.timing, slug, options.config, ids, Timestamp::now());
        platform.preboot = options.preboot;
        let world =
            World::new(identity, driver, options.metadata, rendezvous, Inner::new(platform), runtime.handle().clone());
        let standin = Self { world, runtime: Some(runtime) };
        for (kind, quantity) in options.formation {
            let known = standin.world.update(|inner| inner.platform.scale(&kind, quantity, None));
            anyhow::ensure!(known, "the Procfile declares no process type {kind}");
        }
        standin.serve(api, public, meetings);
        Ok(standin)
    }

    fn serve(&self, api: TcpListener, public: TcpListener, meetings: TcpListener) {
        let world = &self.world;
        let app = Router::new()
            .merge(api::routes(world))
            .merge(control::routes())
            .merge(streams::routes())
            .layer(from_fn_with_state(world.clone(), front::front))
            .with_state(world.clone());
        let router = router::app(world.clone());
        world.spawn(async move {
            axum::serve(Lines(api), app.into_make_service_with_connect_info::<Line>()).await.ok();
        });
        world.spawn(async move {
            axum::serve(public, router).await.ok();
        });
        world.spawn(rendezvous::serve(world.clone(), meetings));
    }

    /// `http://127.0.0.1:PORT`: the API's address, for `HEROKU_HOST`.
    pub fn url(&self) -> &str {
        &self.world.identity.url
    }

    /// The app's public address.
    pub fn router_url(&self) -> &str {
        &self.world.identity.router_url
    }

    /// For `HEROKU_API_KEY`.
    pub fn token(&self) -> &str {
        &self.world.identity.token
    }

    pub fn app(&self) -> &str {
        &self.world.identity.app
    }

    /// The app's uuid.
    pub fn app_id(&self) -> &str {
        &self.world.identity.app_id
    }

    // ---- looking

    /// The journal's entries after number `seq` (0 for all).
    pub fn journal(&self, seq: u64) -> Vec<Entry> {
        self.world.entries(seq)
    }

    /// The dyno list as the API gives it.
    pub fn dynos(&self) -> Vec<Value> {
        views::dynos(&self.world.identity, &self.world.lock())
    }

    /// Every boot, hidden and leaving ones too, with `place`, `routed`, `running`, `port` and `pid`.
    pub fn boots(&self) -> Vec<Value> {
        views::boots(&self.world.lock())
    }

    /// The file with the authority that a client of attached dynos has to trust (`SSL_CERT_FILE`). Made by `openssl` when it is
    /// asked for first.
    pub fn authority(&self) -> anyhow::Result<PathBuf> {
        self.world.rendezvous.authority()
    }

    /// The releases as the API gives them, oldest first.
    pub fn releases(&self) -> Vec<Value> {
        views::releases(&self.world.identity, &self.world.lock())
    }

    /// The log so far, as `heroku logs` prints it.
    pub fn log(&self) -> Vec<String> {
        let everything = logs::Session { lines: Some(usize::MAX), ..logs::Session::default() };
        self.world.lock().logs.history(&everything).iter().map(logs::Line::render).collect()
    }

    /// Waits until each listed dyno is up, for `limit` at most. Says whether they are.
    pub fn wait_until_up(&self, limit: Duration) -> bool {
        self.world.wait(limit, |inner| inner.platform.listed().iter().all(|dyno| dyno.state == platform::State::Up))
    }

    /// Waits until an entry of the journal after number `seq` fits, for `limit` at most.
    pub fn wait_for(&self, seq: u64, limit: Duration, fits: impl Fn(&Entry) -> bool) -> Option<Entry> {
        let mut found = None;
        self.world.wait(limit, |inner| {
            found = inner.journal.after(seq).iter().find(|entry| fits(entry)).cloned();
            found.is_some()
        });
        found
    }

    // ---- switching

    /// Writes into the journal; answers its number.
    pub fn note(&self, text: &str) -> u64 {
        self.world.note(text)
    }

    /// Adds a fault; its number removes it.
    pub fn fault(&self, rule: Rule) -> u64 {
        actions::add_fault(&self.world, rule)
    }

    /// Removes a fault. `false` when it is not there.
    pub fn remove_fault(&self, id: u64) -> bool {
        self.world.lock().rules.remove(id)
    }

    pub fn clear_faults(&self) {
        self.world.lock().rules.clear();
    }

    /// Sets what is wrong with which dynos, in place of what was set before.
    pub fn set_ailments(&self, rules: Vec<AilmentRule>) {
        self.world.lock().platform.ailments = rules;
    }

    pub fn set_access(&self, access: Access) {
        self.world.lock().access = access;
    }

    pub fn set_pool(&self, pool: Pool) {
        self.world.lock().set_pool(pool);
    }

    pub fn set_skew(&self, skew: Skew) {
        self.world.update(|inner| inner.skew = skew);
    }

    /// How many items a list answers at once, at most.
    pub fn set_page_size(&self, page_size: usize) {
        self.world.lock().page_size = page_size;
    }

    pub fn set_preboot(&self, on: bool) {
        self.world.lock().platform.preboot = on;
    }

    /// Whether releases restart a quarter of a type's dynos at a time.
    pub fn set_rolling(&self, on: bool) {
        self.world.lock().platform.rolling = on;
    }

    /// Whether a restart of all dynos leaves one-off and release dynos alone.
    pub fn set_spare_one_offs(&self, on: bool) {
        self.world.lock().platform.spare_one_offs = on;
    }

    /// Whether log lines come out of order.
    pub fn set_log_disorder(&self, on: bool) {
        self.world.lock().logs.disorder = on;
    }

    /// What befalls the connections to attached dynos from now on.
    pub fn set_attach(&self, attach: Attach) {
        self.world.rendezvous.set(attach);
    }

    /// Cuts every connection to an attached dyno.
    pub fn cut_attached(&self) {
        self.world.rendezvous.cut();
    }

    /// Cuts every log stream that is open.
    pub fn cut_streams(&self) {
        self.world.lock().logs.cuts += 1;
        self.world.tell();
    }

    // ---- acting

    /// Sets the number of dynos of a type. `false` for a type that the app does not have.
    pub fn scale(&self, kind: &str, quantity: u64) -> bool {
        self.world.update(|inner| inner.platform.scale(kind, quantity, None))
    }

    /// Restarts one dyno as the API does, without a request. `false` when there is none of that name.
    pub fn restart(&self, dyno: &str) -> bool {
        self.world.update(|inner| inner.platform.restart(&platform::Target::Name(dyno.to_owned()), usize::MAX))
    }

    /// Restarts one dyno as the platform does daily. `false` when there is none of that name.
    pub fn cycle(&self, dyno: &str) -> bool {
        self.world.update(|inner| inner.platform.cycle(dyno))
    }

    /// Ends the preboot window now: requests go to the listed web dynos, the hidden ones end.
    pub fn close_preboot_window(&self) {
        self.world.update(|inner| inner.platform.flip());
    }

    /// Kills a dyno's process. `false` when there is none of that name.
    pub fn crash(&self, dyno: &str) -> bool {
        actions::crash(&self.world, dyno)
    }

    /// Starts a one-off dyno; gives its id.
    pub fn run(&self, command: &str) -> String {
        self.world.update(|inner| inner.platform.run(command, "run", Own::default(), None))
    }

    /// Makes a release; gives its version. Fails when the new root has no Procfile.
    pub fn deploy(&self, deploy: Deploy) -> anyhow::Result<u64> {
        actions::deploy(&self.world, deploy)
    }

    /// Makes a release as an add-on does: no release command, dynos restart.
    pub fn addon_release(&self, description: &str, config: BTreeMap<String, String>) -> u64 {
        self.world.update(|inner| inner.platform.addon_release(description.to_owned(), config))
    }

    /// Ends a pending release, and its command. `false` when it is not pending.
    pub fn finish_release(&self, version: u64, status: Status) -> bool {
        self.world.update(|inner| inner.platform.finish_release(version, status))
    }

    /// Writes a log line of the given source (`app`, `heroku`) and process.
    pub fn say(&self, source: &str, process: &str, text: &str) {
        self.say_at(Timestamp::now(), source, process, text);
    }

    /// Writes a log line that has this stamp, whenever it arrives.
    pub fn say_at(&self, at: Timestamp, source: &str, process: &str, text: &str) {
        self.world.lock().logs.push(source, process, text, at);
        self.world.tell();
    }
}

impl Drop for Standin {
    fn drop(&mut self) {
        self.world.lock().stopping = true;
        if let Driver::Processes(fleet) = &self.world.driver {
            fleet.end_all();
            // Each dyno is killed when its grace is over, so this ends.
            self.world.wait(fleet.grace + Duration::from_secs(10), |_| fleet.idle());
            fleet.dismiss_guard();
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn bind(runtime: &Runtime, port: u16) -> anyhow::Result<TcpListener> {
    runtime
        .block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, port)))
        .with_context(|| format!("cannot listen on port {port}"))
}

/// What dynos are made of, and the first release's slug.
fn ground(mode: Mode, formation: &BTreeMap<String, u64>, ids: &mut Ids) -> anyhow::Result<(Driver, Slug)> {
    let (driver, root, processes) = match mode {
        Mode::Simulated { boot_delay } => {
            let command = |kind: &String| match kind.as_str() {
                "web" => "bundle exec puma -C config/puma.rb".to_owned(),
                kind => format!("bin/{kind}"),
            };
            let processes = formation.keys().map(|kind| (kind.clone(), command(kind))).collect();
            (Driver::Simulated { boot_delay }, None, processes)
        }
        Mode::Procfile { root, procfile, env, grace } => {
            let processes = actions::read_procfile(&procfile.unwrap_or_else(|| root.join("Procfile")))?;
            (Driver::Processes(Arc::new(Fleet::new(ids.next_id(), env, grace)?)), Some(root), processes)
        }
    };
    let id = ids.next_id();
    let commit = id[..8].to_owned();
    Ok((driver, Slug { id, commit, root, processes, created_at: Timestamp::now() }))
}
