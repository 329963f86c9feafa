//! Words of the Heroku platform: app, dyno, formation, release. Pure.

use jiff::Timestamp;

/// The app, as `GET /apps/{app}` gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct App {
    /// The app's uuid: the name that never changes hands, by which debts are keyed.
    pub id: String,
    pub name: String,
    pub generation: Generation,
}

/// Heroku's two platforms. Fir restarts by type or by name only, and its dyno names change with each boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    Cedar,
    Fir,
}

/// One boot of one process: a restart keeps the name (on Cedar) and makes a new `id` and `created_at`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dyno {
    pub id: String,
    pub name: String,
    /// The process type: `web`, `worker`, `run`, `release`, ... Never parse the name for it.
    pub kind: String,
    /// `starting`, `up`, `crashed`, `down`, `idle`, or a word that is not known yet.
    pub state: String,
    /// When this dyno was created, by the API's clock, in whole seconds.
    pub created_at: Timestamp,
    /// The version of the release that it runs, if it runs one.
    pub release: Option<u64>,
}

/// Every dyno of the app at one moment. Never a part of it: an incomplete list is an error, since it would prove anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DynoList {
    pub dynos: Vec<Dyno>,
    /// The `Date` header of the first page's answer: the API's clock, in whole seconds.
    pub date: Timestamp,
}

/// How many dynos of one process type the app wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Formation {
    /// The process type.
    pub kind: String,
    pub quantity: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    pub version: u64,
    pub status: ReleaseStatus,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReleaseStatus {
    Pending,
    Succeeded,
    Failed,
    Expired,
}
