//! Words of the Heroku platform: app, dyno, formation, release. Pure.

use std::collections::BTreeMap;

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
    /// What the platform starts.
    pub command: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    pub version: u64,
    pub status: ReleaseStatus,
    /// When it was created, before its release command ran; by the API's clock, in whole seconds.
    pub created_at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReleaseStatus {
    Pending,
    Succeeded,
    Failed,
    Expired,
}

impl ReleaseStatus {
    /// The platform's own word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Expired => "expired",
        }
    }
}

/// A release in full, for people and for going back to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployed {
    pub id: String,
    pub version: u64,
    pub status: ReleaseStatus,
    /// It is the one that dynos boot.
    pub current: bool,
    /// `Deploy 1a2b3c4d`, `Set A config vars`, `Rollback to v40`, ...
    pub description: String,
    /// The e-mail address of whoever made it.
    pub user: String,
    pub created_at: Timestamp,
    /// When its status changed last: for a finished one, the end of its release command.
    pub updated_at: Timestamp,
    /// The slug's uuid; `None` for apps that are made of container images.
    pub slug: Option<String>,
    /// The platform would go back to it.
    pub eligible: bool,
    /// Where its release command's output can be read, if it has one. Itself a key: not for output.
    pub output: Option<String>,
}

/// What a release runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Slug {
    /// The git commit that was built, where the build had one.
    pub commit: Option<String>,
    /// Process type -> command, `release` among them.
    pub processes: BTreeMap<String, String>,
}

/// What a token is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorization {
    /// `global`, `read`, `write`, ...
    pub scope: Vec<String>,
    /// Seconds until it ends; `None`: never.
    pub expires_in_s: Option<i64>,
}
