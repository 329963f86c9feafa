//! Releases in full: their history, what they are made of, what their release command printed, and going back to one.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;
use ureq::http::{HeaderValue, Method, Request, Uri, header};

use super::{Call, Failed, Heroku, StatusJson, VERSION_3_SDK, timestamp};
use crate::adapters::retry::{Effect, Fault};
use crate::dynos::{Deployed, ReleaseStatus, Slug};
use crate::ports::ApiError;

/// Of a release command's output, which may have hundreds of megabytes, as much as a migration prints.
const MAX_OUTPUT_BYTES: usize = 1 << 20;

impl Heroku {
    /// The newest releases, newest first, `limit` at most.
    pub fn history(&self, limit: usize) -> Result<Vec<Deployed>, ApiError> {
        let range = format!("version ..; max={}, order=desc", limit.clamp(1, 1000));
        let call = Call { range: HeaderValue::try_from(range).ok(), ..sdk(Method::GET, self.path("/releases")) };
        let mut releases: Vec<DeployedJson> = self.get(&call)?;
        releases.sort_by_key(|release| std::cmp::Reverse(release.version));
        Ok(releases.into_iter().take(limit).map(Deployed::from).collect())
    }

    /// One release by its number.
    pub fn deployed(&self, version: u64) -> Result<Deployed, ApiError> {
        let call = sdk(Method::GET, self.path(&format!("/releases/{version}")));
        self.get::<DeployedJson>(&call).map(Deployed::from)
    }

    /// What a release runs. `id` is [`Deployed::slug`].
    pub fn slug(&self, id: &str) -> Result<Slug, ApiError> {
        let call = Call::get(self.path(&format!("/slugs/{id}")));
        if !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Err(call.unsendable().error);
        }
        let SlugJson { commit, process_types } = self.get(&call)?;
        Ok(Slug { commit: commit.filter(|commit| is_commit(commit)), processes: process_types.unwrap_or_default() })
    }

    /// Makes a new release of an old one's code and config vars. Sent at most once, except where it is certain that the request
    /// was not acted upon. `id` is [`Deployed::id`].
    pub fn roll_back(&self, id: &str) -> Result<Deployed, ApiError> {
        let call = Call { body: Some(json!({ "release": id })), ..sdk(Method::POST, self.path("/releases")) };
        self.insist(Effect::Restart, || self.decode::<DeployedJson>(&call, &self.ask(&call)?)).map(Deployed::from)
    }

    /// What a release command printed, its beginning at most. The address is itself a key: it is neither given the token nor
    /// named in an error.
    pub fn release_output(&self, release: &Deployed) -> Result<String, ApiError> {
        let call = format!("GET the output of release v{}", release.version);
        let strange =
            || Failed { fault: Fault::Final, ..Failed::unreadable(&call, "there is no address to read it from") };
        let uri: Option<Uri> = release.output.as_deref().and_then(|url| url.parse().ok());
        let uri = uri.filter(|uri| self.host.trusts(uri)).ok_or_else(|| strange().error)?;
        let answer = self.insist(Effect::Read, || {
            let request = Request::get(uri.clone()).header(header::ACCEPT, "text/plain").body(None);
            self.send(&call, request.map_err(|_| strange())?)
        })?;
        let body = &answer.body[..answer.body.len().min(MAX_OUTPUT_BYTES)];
        Ok(String::from_utf8_lossy(body).replace(self.token.expose(), "***"))
    }
}

fn sdk(method: Method, path: String) -> Call {
    Call { accept: VERSION_3_SDK, ..Call::new(method, path) }
}

/// Builds from elsewhere may carry any word in its place.
fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[derive(Deserialize)]
struct DeployedJson {
    id: String,
    version: u64,
    status: StatusJson,
    #[serde(default)]
    current: bool,
    #[serde(default)]
    description: String,
    user: Option<UserJson>,
    #[serde(deserialize_with = "timestamp")]
    created_at: Timestamp,
    #[serde(deserialize_with = "timestamp")]
    updated_at: Timestamp,
    slug: Option<SlugOfReleaseJson>,
    /// Older answers do not tell.
    eligible_for_rollback: Option<bool>,
    output_stream_url: Option<String>,
}

#[derive(Deserialize)]
struct UserJson {
    email: Option<String>,
}

#[derive(Deserialize)]
struct SlugOfReleaseJson {
    id: String,
}

#[derive(Deserialize)]
struct SlugJson {
    commit: Option<String>,
    process_types: Option<BTreeMap<String, String>>,
}

impl From<DeployedJson> for Deployed {
    fn from(json: DeployedJson) -> Self {
        let status = json.status.into();
        Self {
            id: json.id,
            version: json.version,
            status,
            current: json.current,
            description: json.description,
            user: json.user.and_then(|user| user.email).unwrap_or_default(),
            created_at: json.created_at,
            updated_at: json.updated_at,
            slug: json.slug.map(|slug| slug.id),
            eligible: json.eligible_for_rollback.unwrap_or(status == ReleaseStatus::Succeeded),
            output: json.output_stream_url,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_commit;

    #[test]
    fn only_a_whole_id_names_a_commit() {
        let id = "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d";
        let table = [(id, true), (&id[..39], false), ("main", false), ("", false), (&id.replace('a', "x"), false)];
        for (text, expected) in table {
            assert_eq!(is_commit(text), expected, "{text}");
        }
    }
}
