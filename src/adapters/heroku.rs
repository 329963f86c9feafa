//! Heroku's Platform API for one app, over https.

mod account;
mod host;
mod log;
mod one_off;
mod releases;
mod wire;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use ureq::http::uri::Authority;
use ureq::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header, request};

use crate::adapters::heroku::wire::{Answer, Failure, Wire};
use crate::adapters::retry::{self, Attempt, Effect, Fault};
use crate::dynos::{App, Dyno, DynoList, Formation, Generation, Release, ReleaseStatus};
use crate::error::{Error, Kind, Result};
use crate::ports::{ApiError, ApiErrorKind, LogLines, LogQuery, Platform};
use crate::processes::Process;
use crate::secret::Secret;

pub use crate::adapters::heroku::host::Host;
pub use crate::adapters::heroku::one_off::{Attached, NotAttached, OneOff, Order, Read, hint_for_start};

/// The public version of the API.
const VERSION_3: &str = "application/vnd.heroku+json; version=3";
/// The variant that also tells an app's generation, and names a log session's dyno as the schema of today does.
const VERSION_3_SDK: &str = "application/vnd.heroku+json; version=3.sdk";

/// The longest list that is followed: 100,000 items, since a page may hold a thousand.
const MAX_PAGES: usize = 100;

/// The longest list in bytes: all pages together are bounded as one answer is.
const MAX_LIST_BYTES: usize = 16 << 20;

/// Of an error's text that comes from outside, as much as a person reads.
const MAX_MESSAGE_CHARS: usize = 500;

/// Of a line of the log, as much as a person reads.
const MAX_LINE_CHARS: usize = 2_000;

/// No answer has told how many requests the rate limit leaves.
const NOT_TOLD: u64 = u64::MAX;

/// What [`Heroku::new`] needs to know.
pub struct HerokuOptions {
    pub host: Host,
    pub token: Secret,
    /// The app's name or uuid.
    pub app: String,
    /// Bounds one request in total, from looking up the name to the last byte of the body.
    pub timeout: Duration,
}

/// Heroku's Platform API for one app. May be shared between threads; connections are kept open and shared.
pub struct Heroku {
    host: Host,
    token: Secret,
    app: String,
    timeout: Duration,
    wire: Wire,
    generation: OnceLock<Generation>,
    /// What `RateLimit-Remaining` said last; [`NOT_TOLD`] before that.
    remaining: AtomicU64,
}

impl Heroku {
    /// Connects to nothing yet. Takes the proxy and where certificates are kept from `env`: `https_proxy`, `all_proxy`,
    /// `no_proxy` (either case) and `SSL_CERT_FILE`, `SSL_CERT_DIR`.
    ///
    /// Fails with [`Kind::Refused`] on a token that no header can carry and on a name that no app can have, with
    /// [`Kind::Input`] on a proxy that cannot be used.
    pub fn new(options: HerokuOptions, env: &BTreeMap<String, String>) -> Result<Self> {
        let HerokuOptions { host, token, app, timeout } = options;
        if token.expose().is_empty() || !token.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
            let message = "the API token is empty or has a character that no token has (a space, a line break?)";
            let hint = "look at HEROKU_API_KEY, or where else the token comes from: ~/.netrc, `heroku auth:token`";
            return Err(Error::new(Kind::Refused, message).hint(hint));
        }
        if app.is_empty() || !app.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Err(Error::new(Kind::Refused, format!("{app:?} is not the name of a Heroku app")));
        }
        let wire = Wire::new(&host, timeout, env)?;
        Ok(Self { host, token, app, timeout, wire, generation: OnceLock::new(), remaining: AtomicU64::new(NOT_TOLD) })
    }

    /// Tries until it is done, or until [`retry::pause`] says that the failure stands.
    fn insist<T>(&self, effect: Effect, attempt: impl Fn() -> Result<T, Failed>) -> Result<T, ApiError> {
        let start = Instant::now();
        let mut earlier = 0;
        loop {
            let failed = match attempt() {
                Ok(done) => return Ok(done),
                Err(failed) => failed,
            };
            let spent = start.elapsed();
            let past = Attempt { effect, earlier, spent, timeout: self.timeout, chance: chance() };
            let Some(pause) = retry::pause(failed.fault, &past) else {
                return Err(failed.error);
            };
            thread::sleep(pause);
            earlier += 1;
        }
    }

    /// Sends a request once. An answer that is not a success is a failure.
    fn ask(&self, call: &Call) -> Result<Answer, Failed> {
        let mut token =
            HeaderValue::try_from(format!("Bearer {}", self.token.expose())).map_err(|_| call.unsendable())?;
        token.set_sensitive(true);
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(self.host.url(&call.path))
            .header(header::ACCEPT, call.accept)
            .header(header::AUTHORIZATION, token);
        if let Some(range) = &call.range {
            request = request.header(header::RANGE, range);
        }
        if call.body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = call.body.as_ref().map(|body| body.to_string().into_bytes());
        self.send(call, request.body(body).map_err(|_| call.unsendable())?)
    }

    fn send(&self, call: &impl fmt::Display, request: Request<Option<Vec<u8>>>) -> Result<Answer, Failed> {
        let place = request.uri().authority().cloned();
        let place = place.as_ref().map_or(self.host.authority(), Authority::as_str);
        let answer = self.wire.send(request).map_err(|failure| no_answer(call, place, &failure))?;
        if let Some(remaining) = rate_limit_remaining(&answer.headers) {
            self.remaining.store(remaining, Ordering::Relaxed);
        }
        if (200..300).contains(&answer.status) { Ok(answer) } else { Err(self.refused(call, &answer)) }
    }

    /// The failure that an answer other than success stands for.
    fn refused(&self, call: &impl fmt::Display, answer: &Answer) -> Failed {
        let Refusal { id, message } = serde_json::from_slice(&answer.body).unwrap_or_default();
        let id = id.map(|id| self.clean(&id));
        let status = StatusCode::from_u16(answer.status).ok();
        let reason = status.and_then(|status| status.canonical_reason()).unwrap_or("unknown status");
        let mut text = format!("{call}: {} {}", answer.status, id.as_deref().unwrap_or(reason));
        if let Some(message) = message {
            text = format!("{text}: {}", self.clean(&message));
        }
        if (300..400).contains(&answer.status) {
            text =
                format!("{text}: redirected to {}, which is not followed", self.clean(&redirect_host(&answer.headers)));
        }
        let hint = hint(answer.status, id.as_deref()).map(str::to_owned);
        let error = ApiError { kind: kind(answer.status), status: Some(answer.status), id, message: text, hint };
        let fault = match error.kind {
            ApiErrorKind::RateLimited => Fault::Limited { wait: retry_after(&answer.headers) },
            ApiErrorKind::Unknown => Fault::Doubtful,
            _ => Fault::Final,
        };
        Failed { error, fault }
    }

    /// Reads an answer's JSON. What is wrong with it is said by its place: the text may hold anything.
    fn decode<T: DeserializeOwned>(&self, call: &Call, answer: &Answer) -> Result<T, Failed> {
        if let Some(cut) = &answer.cut {
            return Err(no_answer(call, self.host.authority(), cut));
        }
        serde_json::from_slice(&answer.body).map_err(|error| {
            let what = if error.is_data() { "is not of the documented form" } else { "is not JSON" };
            call.unreadable(&format!("the answer {what} (line {}, column {})", error.line(), error.column()))
        })
    }

    /// What somebody else wrote, of readable length and without the token, should it be quoted.
    fn clean(&self, text: &str) -> String {
        text.replace(self.token.expose(), "***").chars().take(MAX_MESSAGE_CHARS).collect()
    }

    fn get<T: DeserializeOwned>(&self, call: &Call) -> Result<T, ApiError> {
        self.insist(Effect::Read, || self.decode(call, &self.ask(call)?))
    }

    /// Every page of a list, with the headers of the first.
    fn list<T: DeserializeOwned>(&self, mut call: Call) -> Result<(Vec<T>, HeaderMap), ApiError> {
        let mut items = Vec::new();
        let mut first_headers = None;
        let mut ranges = Vec::new();
        let mut bytes = 0;
        loop {
            let (page, length, headers): (Vec<T>, _, _) = self.insist(Effect::Read, || {
                let answer = self.ask(&call)?;
                Ok((self.decode(&call, &answer)?, answer.body.len(), answer.headers))
            })?;
            items.extend(page);
            bytes += length;
            let next = headers.get("Next-Range").map(HeaderValue::to_owned);
            let first_headers = first_headers.get_or_insert(headers);
            let Some(next) = next else {
                return Ok((items, std::mem::take(first_headers)));
            };
            if ranges.contains(&next) || ranges.len() + 1 >= MAX_PAGES || bytes > MAX_LIST_BYTES {
                return Err(call.unreadable("the list does not end").error);
            }
            call.range = Some(next.clone());
            ranges.push(next);
        }
    }

    /// A list and its `Date`: the API's clock when it answered the first page.
    fn dated<T: DeserializeOwned>(&self, call: Call) -> Result<(Vec<T>, Timestamp), ApiError> {
        let name = call.to_string();
        let (items, headers) = self.list(call)?;
        let date = http_date(&headers, header::DATE)
            .ok_or_else(|| Failed::unreadable(&name, "the answer has no Date that can be read").error)?;
        Ok((items, date))
    }

    fn generation(&self) -> Result<Generation, ApiError> {
        self.generation.get().map_or_else(|| self.app().map(|app| app.generation), |known| Ok(*known))
    }

    fn path(&self, rest: &str) -> String {
        format!("/apps/{}{rest}", self.app)
    }

    fn restart(&self, collection: &str, name: &str) -> Result<(), ApiError> {
        let call = Call::new(Method::DELETE, self.path(&format!("/{collection}/{name}")));
        // A path that means something else than it says, up to deleting the app, is not sent.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if !name.bytes().all(plain) || !name.bytes().any(|byte| byte.is_ascii_alphanumeric()) {
            return Err(call.unsendable().error);
        }
        self.insist(Effect::Restart, || self.ask(&call).map(drop))
    }

    /// Reads the log from the address that the API handed out.
    fn read_log(&self, dyno: &str, url: &str) -> Result<Answer, Failed> {
        let call = format!("GET the log of {}", self.clean(dyno));
        let request = self.handed_out(&call, url)?.header(header::ACCEPT, "text/plain").body(None);
        let request = request.map_err(|_| strange_address(&call))?;
        self.send(&call, request)
    }

    /// A request to an address that the API handed out. The address is itself a key, so it is neither given the token nor named in
    /// an error; and it has to be Heroku's.
    fn handed_out(&self, call: &str, url: &str) -> Result<request::Builder, Failed> {
        let uri: Uri = url.parse().map_err(|_| strange_address(call))?;
        if self.host.trusts(&uri) { Ok(Request::get(uri)) } else { Err(strange_address(call)) }
    }
}

impl Platform for Heroku {
    fn warm(&self) {
        // One attempt, whose answer does not matter.
        let _ = self.ask(&Call::get("/account/rate-limits".to_owned()));
    }

    fn app(&self) -> Result<App, ApiError> {
        let call = Call { accept: VERSION_3_SDK, ..Call::get(self.path("")) };
        let app: AppJson = self.get(&call)?;
        let generation = app.generation.map(|generation| match generation {
            GenerationJson::Word(name) | GenerationJson::Named { name } => name,
        });
        let generation = match generation.as_deref() {
            None | Some("cedar") => Generation::Cedar,
            // A generation that is not known yet will be more like the newest than like the first.
            Some(_) => Generation::Fir,
        };
        self.generation.get_or_init(|| generation);
        Ok(App { id: app.id, name: app.name, generation })
    }

    fn dynos(&self) -> Result<DynoList, ApiError> {
        let (dynos, date) = self.dated(Call::list(self.path("/dynos"), "id ..; max=1000"))?;
        Ok(DynoList { dynos: dynos.into_iter().map(|dyno: DynoJson| dyno.into()).collect(), date })
    }

    fn formation(&self) -> Result<Vec<Formation>, ApiError> {
        let (formation, _): (Vec<FormationJson>, _) =
            self.list(Call::list(self.path("/formation"), "id ..; max=1000"))?;
        let one = |FormationJson { kind, quantity, command }| Formation { kind, quantity, command };
        Ok(formation.into_iter().map(one).collect())
    }

    fn releases(&self, limit: usize) -> Result<Vec<Release>, ApiError> {
        let range = format!("version ..; max={}, order=desc", limit.clamp(1, 1000));
        let call = Call { range: HeaderValue::try_from(range).ok(), ..Call::get(self.path("/releases")) };
        let releases: Vec<ReleaseJson> = self.get(&call)?;
        Ok(releases.into_iter().take(limit).map(Release::from).collect())
    }

    fn release(&self, version: u64) -> Result<Release, ApiError> {
        self.get::<ReleaseJson>(&Call::get(self.path(&format!("/releases/{version}")))).map(Release::from)
    }

    fn preboot(&self) -> Result<bool, ApiError> {
        match self.get::<FeatureJson>(&Call::get(self.path("/features/preboot"))) {
            Ok(feature) => Ok(feature.enabled),
            Err(error) if error.kind == ApiErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn restart_type(&self, kind: &str) -> Result<(), ApiError> {
        self.restart("formations", kind)
    }

    fn restart_dyno(&self, name: &str) -> Result<(), ApiError> {
        self.restart("dynos", name)
    }

    fn log_lines(&self, dyno: &str, lines: usize) -> Result<Vec<String>, ApiError> {
        let generation = self.generation()?;
        if generation == Generation::Fir {
            // Fir keeps no history: a session would only show what is logged from now on.
            return Ok(Vec::new());
        }
        let call = Call {
            accept: VERSION_3_SDK,
            body: Some(json!({ "dyno": dyno, "lines": lines, "tail": false })),
            ..Call::new(Method::POST, self.path("/log-sessions"))
        };
        let session: LogSessionJson = self.get(&call)?;
        let answer = self.insist(Effect::Read, || self.read_log(dyno, &session.logplex_url))?;
        // Where the log was cut, what arrived is of use all the same.
        let text = String::from_utf8_lossy(&answer.body).replace(self.token.expose(), "***");
        let all: Vec<&str> = text.lines().collect();
        let last = all[all.len().saturating_sub(lines)..].iter();
        Ok(last.map(|line| line.chars().take(MAX_LINE_CHARS).collect()).collect())
    }

    fn remaining(&self) -> Option<u64> {
        Some(self.remaining.load(Ordering::Relaxed)).filter(|remaining| *remaining != NOT_TOLD)
    }

    fn processes(&self) -> Result<(Vec<Process>, Timestamp), ApiError> {
        let call = Call::list(self.path("/dynos"), "id ..; max=1000");
        // As `heroku ps` asks.
        let (documents, date) = self.dated(Call { accept: VERSION_3_SDK, ..call })?;
        Ok((documents.into_iter().map(|ProcessJson(process)| process).collect(), date))
    }

    fn log_session(&self, query: &LogQuery) -> Result<LogLines, ApiError> {
        self.open_log(query)
    }
}

/// The app's uuid from the address of the release phase's output, which Heroku gives to the release dyno as
/// `HEROKU_RELEASE_STREAM_URL` (and `HEROKU_RELEASE_LOG_STREAM`), also where dyno metadata is off.
pub fn app_id_from_stream_url(url: &str) -> Option<String> {
    url.split('/').nth(5).filter(|id| is_uuid(id)).map(str::to_ascii_lowercase)
}

fn is_uuid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    lengths == [8, 4, 4, 4, 12] && groups.concat().bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn rate_limit_remaining(headers: &HeaderMap) -> Option<u64> {
    headers.get("RateLimit-Remaining")?.to_str().ok()?.trim().parse().ok()
}

/// One request to the API, as people read it in an error: `GET /apps/my-app/dynos`.
struct Call {
    method: Method,
    path: String,
    accept: &'static str,
    range: Option<HeaderValue>,
    body: Option<Value>,
}

impl Call {
    fn new(method: Method, path: String) -> Self {
        Self { method, path, accept: VERSION_3, range: None, body: None }
    }

    fn get(path: String) -> Self {
        Self::new(Method::GET, path)
    }

    fn list(path: String, range: &'static str) -> Self {
        Self { range: Some(HeaderValue::from_static(range)), ..Self::get(path) }
    }

    fn unreadable(&self, what: &str) -> Failed {
        Failed::unreadable(self, what)
    }

    /// A name that no path can carry, so that nothing was sent.
    fn unsendable(&self) -> Failed {
        let message = format!("{self}: not sent, since no such name can exist");
        let error = ApiError { kind: ApiErrorKind::Rejected, status: None, id: None, message, hint: None };
        Failed { error, fault: Fault::Final }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// A failure, and what it means for trying again.
struct Failed {
    error: ApiError,
    fault: Fault,
}

impl Failed {
    /// An answer that came, but that cannot be used.
    fn unreadable(call: &impl fmt::Display, what: &str) -> Self {
        let message = format!("{call}: {what}");
        let error = ApiError { kind: ApiErrorKind::Unknown, status: None, id: None, message, hint: None };
        Self { error, fault: Fault::Doubtful }
    }
}

/// An address that cannot be used, and is not named.
fn strange_address(call: &str) -> Failed {
    Failed { fault: Fault::Final, ..Failed::unreadable(&call, "the API names an address that is not Heroku's") }
}

/// The failure that no answer, or not all of one, stands for. `place` is the host and port that were asked.
fn no_answer(call: &impl fmt::Display, place: &str, failure: &Failure) -> Failed {
    let Failure { sent, passing, message, hint } = failure;
    let (kind, what) = if *sent {
        (ApiErrorKind::Unknown, "no usable answer from")
    } else {
        (ApiErrorKind::Unreachable, "cannot reach")
    };
    let fault = match (passing, sent) {
        (false, _) => Fault::Final,
        (true, true) => Fault::Doubtful,
        (true, false) => Fault::NotSent,
    };
    let message = format!("{call}: {what} {place}: {message}");
    let error = ApiError { kind, status: None, id: None, message, hint: hint.map(str::to_owned) };
    Failed { error, fault }
}

fn kind(status: u16) -> ApiErrorKind {
    match status {
        401 => ApiErrorKind::Unauthorized,
        402 | 403 => ApiErrorKind::Forbidden,
        404 => ApiErrorKind::NotFound,
        429 => ApiErrorKind::RateLimited,
        300..=499 => ApiErrorKind::Rejected,
        _ => ApiErrorKind::Unknown,
    }
}

fn hint(status: u16, id: Option<&str>) -> Option<&'static str> {
    Some(match (status, id) {
        (401, _) => "make a token with `heroku authorizations:create --scope read,write` and set HEROKU_API_KEY to it",
        (402, _) => "the account that owns the app has a bill to settle",
        (403, Some("two_factor")) => {
            "this token asks for a second factor each time; make one that does not with `heroku authorizations:create \
             --scope read,write`"
        }
        (403, Some("suspended")) => "the account or the app is suspended: ask Heroku's support",
        (403, _) => "the token needs the scopes read and write, and its account the right to operate the app",
        (404, _) => "is the name right (`heroku apps` lists yours), and may this token's account see it?",
        (429, _) => "an account has 4500 requests an hour for all of its tools; more come by the minute",
        _ => return None,
    })
}

/// Where a redirect points to. A host has no character that could harm a terminal.
fn redirect_host(headers: &HeaderMap) -> String {
    let location = headers.get(header::LOCATION).and_then(|location| Uri::try_from(location.as_bytes()).ok());
    let host = location.as_ref().and_then(Uri::host);
    host.map_or_else(|| "a place that cannot be read".to_owned(), str::to_owned)
}

/// How long the API asks to wait: in seconds, or until a moment of its own clock.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    if let Ok(seconds) = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = http_date(headers, header::RETRY_AFTER)?.duration_since(http_date(headers, header::DATE)?);
    Some(Duration::try_from(until).unwrap_or_default())
}

fn http_date(headers: &HeaderMap, name: HeaderName) -> Option<Timestamp> {
    let text = headers.get(name)?.to_str().ok()?;
    rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}

/// A number from 0 to 1, at random; without randomness on this machine, the middle.
fn chance() -> f64 {
    getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX))
}

#[derive(Default, Deserialize)]
struct Refusal {
    id: Option<String>,
    message: Option<String>,
}

#[derive(Deserialize)]
struct AppJson {
    id: String,
    name: String,
    generation: Option<GenerationJson>,
}

/// The plain version of the API and its `sdk` variant write it in different ways.
#[derive(Deserialize)]
#[serde(untagged)]
enum GenerationJson {
    Word(String),
    Named { name: String },
}

#[derive(Deserialize)]
struct DynoJson {
    id: String,
    name: String,
    #[serde(rename = "type")]
    kind: String,
    state: String,
    #[serde(deserialize_with = "timestamp")]
    created_at: Timestamp,
    release: Option<ReleaseOfDynoJson>,
}

#[derive(Deserialize)]
struct ReleaseOfDynoJson {
    version: u64,
}

#[derive(Deserialize)]
struct FormationJson {
    #[serde(rename = "type")]
    kind: String,
    quantity: u64,
    #[serde(default)]
    command: String,
}

#[derive(Deserialize)]
struct ReleaseJson {
    version: u64,
    status: StatusJson,
    #[serde(deserialize_with = "timestamp")]
    created_at: Timestamp,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum StatusJson {
    Pending,
    Succeeded,
    Failed,
    Expired,
}

#[derive(Deserialize)]
struct FeatureJson {
    enabled: bool,
}

#[derive(Deserialize)]
struct LogSessionJson {
    logplex_url: String,
}

/// A dyno as it is described, whole.
#[derive(Deserialize)]
#[serde(try_from = "Value")]
struct ProcessJson(Process);

#[derive(Deserialize)]
struct DescriptionJson {
    #[serde(flatten)]
    dyno: DynoJson,
    size: Option<String>,
    #[serde(default)]
    command: String,
    #[serde(deserialize_with = "timestamp")]
    updated_at: Timestamp,
}

impl TryFrom<Value> for ProcessJson {
    type Error = serde_json::Error;

    fn try_from(document: Value) -> serde_json::Result<Self> {
        let DescriptionJson { dyno, size, command, updated_at } = DescriptionJson::deserialize(&document)?;
        Ok(Self(Process { dyno: dyno.into(), size, command, updated_at, document }))
    }
}

impl From<DynoJson> for Dyno {
    fn from(json: DynoJson) -> Self {
        let DynoJson { id, name, kind, state, created_at, release } = json;
        Self { id, name, kind, state, created_at, release: release.map(|release| release.version) }
    }
}

impl From<ReleaseJson> for Release {
    fn from(json: ReleaseJson) -> Self {
        Self { version: json.version, status: json.status.into(), created_at: json.created_at }
    }
}

impl From<StatusJson> for ReleaseStatus {
    fn from(json: StatusJson) -> Self {
        match json {
            StatusJson::Pending => Self::Pending,
            StatusJson::Succeeded => Self::Succeeded,
            StatusJson::Failed => Self::Failed,
            StatusJson::Expired => Self::Expired,
        }
    }
}

fn timestamp<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::{app_id_from_stream_url, hint, kind, redirect_host, retry_after};
    use crate::ports::ApiErrorKind;
    use std::time::Duration;
    use ureq::http::{HeaderMap, HeaderName, HeaderValue};

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            (HeaderName::try_from(*name).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn the_app_is_the_sixth_field_of_the_stream_url() {
        let id = "01234567-89ab-cdef-0123-456789abcdef";
        for (url, expected) in [
            (format!("https://release-output.heroku.com/streams/01/{id}/1/2?x=y"), Some(id)),
            (format!("https://release-output.heroku.com/streams/01/{}/1", id.to_uppercase()), Some(id)),
            (format!("https://release-output.heroku.com/streams/{id}"), None),
            (format!("https://release-output.heroku.com/streams/01/{id}0/1"), None),
            ("https://release-output.heroku.com/streams/01/0123456789abcdef0123456789abcdef----/1".to_owned(), None),
            ("https://release-output.heroku.com/streams/01/g1234567-89ab-cdef-0123-456789abcdef/1".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(app_id_from_stream_url(&url).as_deref(), expected, "{url}");
        }
    }

    #[test]
    fn a_status_has_one_meaning() {
        for (status, expected) in [
            (100, ApiErrorKind::Unknown),
            (304, ApiErrorKind::Rejected),
            (307, ApiErrorKind::Rejected),
            (400, ApiErrorKind::Rejected),
            (401, ApiErrorKind::Unauthorized),
            (402, ApiErrorKind::Forbidden),
            (403, ApiErrorKind::Forbidden),
            (404, ApiErrorKind::NotFound),
            (409, ApiErrorKind::Rejected),
            (422, ApiErrorKind::Rejected),
            (429, ApiErrorKind::RateLimited),
            (500, ApiErrorKind::Unknown),
            (503, ApiErrorKind::Unknown),
            (799, ApiErrorKind::Unknown),
        ] {
            assert_eq!(kind(status), expected, "{status}");
        }
    }

    #[test]
    fn hints_name_the_way_out() {
        for (status, id, expected) in [
            (401, None, Some("heroku authorizations:create --scope read,write")),
            (403, Some("two_factor"), Some("second factor")),
            (403, Some("forbidden"), Some("scopes read and write")),
            (404, Some("not_found"), Some("heroku apps")),
            (402, Some("delinquent"), Some("bill")),
            (422, None, None),
            (500, None, None),
        ] {
            let hint = hint(status, id);
            assert_eq!(hint.is_some(), expected.is_some(), "{status}");
            assert!(hint.unwrap_or_default().contains(expected.unwrap_or_default()), "{status}");
        }
    }

    #[test]
    fn waiting_is_said_in_seconds_or_as_a_moment_of_the_api_clock() {
        let date = ("Date", "Sun, 22 Nov 2026 22:00:00 GMT");
        for (after, expected) in [
            ("7", Some(7)),
            (" 7 ", Some(7)),
            ("Sun, 22 Nov 2026 22:00:30 GMT", Some(30)),
            ("Sun, 22 Nov 2026 21:00:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
            ("99999999999999999999", None),
        ] {
            let wait = retry_after(&headers(&[date, ("Retry-After", after)]));
            assert_eq!(wait, expected.map(Duration::from_secs), "{after}");
        }
        assert_eq!(retry_after(&headers(&[("Retry-After", "Sun, 22 Nov 2026 22:00:30 GMT")])), None);
        assert_eq!(retry_after(&headers(&[date])), None);
    }

    #[test]
    fn a_redirect_is_named_by_its_host_alone() {
        for (location, expected) in [
            ("https://example.com/x?token=1", "example.com"),
            ("http://user:password@example.com:81/", "example.com"),
            ("/elsewhere", "a place that cannot be read"),
            ("https://exam\u{202e}ple.com/", "a place that cannot be read"),
            ("", "a place that cannot be read"),
        ] {
            assert_eq!(redirect_host(&headers(&[("Location", location)])), expected, "{location}");
        }
    }
}
