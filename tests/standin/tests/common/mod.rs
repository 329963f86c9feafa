//! A client that shows everything: status, headers, body, or the way in which the connection broke.

#![allow(dead_code, reason = "each test file uses its share")]

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use unstuck_standin::Standin;

/// Long enough for any machine; nothing waits that long when all is well.
pub const LONG: Duration = Duration::from_mins(1);

pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    pub fn id(&self) -> String {
        self.json()["id"].as_str().unwrap_or_default().to_owned()
    }
}

pub struct Client<'a> {
    standin: &'a Standin,
    agent: ureq::Agent,
}

impl<'a> Client<'a> {
    pub fn new(standin: &'a Standin) -> Self {
        Self::patient(standin, LONG)
    }

    /// Gives up after `limit`.
    pub fn patient(standin: &'a Standin, limit: Duration) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(limit));
        Self { standin, agent: config.build().into() }
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], None).unwrap()
    }

    pub fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], None).unwrap()
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &[], Some(body)).unwrap()
    }

    pub fn patch(&self, path: &str, body: &Value) -> Answer {
        self.send("PATCH", path, &[], Some(body)).unwrap()
    }

    /// A request as the CLI sends it, with headers over the usual ones; an empty value leaves one out.
    pub fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Answer, ureq::Error> {
        let url = if path.starts_with("http") { path.to_owned() } else { format!("{}{path}", self.standin.url()) };
        let mut all = BTreeMap::from([
            ("accept", "application/vnd.heroku+json; version=3".to_owned()),
            ("authorization", format!("Bearer {}", self.standin.token())),
        ]);
        all.extend(headers.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let mut request = ureq::http::Request::builder().method(method).uri(url);
        for (name, value) in all.iter().filter(|(_, value)| !value.is_empty()) {
            request = request.header(*name, value);
        }
        let response = match body {
            Some(body) => self.agent.run(request.header("content-type", "application/json").body(body.to_string())?)?,
            None => self.agent.run(request.body(())?)?,
        };
        let (head, mut body) = response.into_parts();
        let headers =
            head.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
        Ok(Answer { status: head.status.as_u16(), headers, body: body.read_to_string()? })
    }
}

/// One field of each item.
pub fn column(items: &[Value], key: &str) -> Vec<String> {
    items.iter().map(|item| item[key].as_str().map_or_else(|| item[key].to_string(), str::to_owned)).collect()
}

/// Looks again until `holds`; fails after [`LONG`].
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + LONG;
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "never came: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
