//! What can be made to go wrong: rules for requests, ailments of dynos, and the token's troubles. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A fault: which requests it meets, whether they take effect, and what is answered.
///
/// As JSON, every field optional:
/// `{"method": "DELETE", "path": "/apps/*/formations/web", "skip": 1, "count": 2, "act": "full", "reply": "drop"}`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rule {
    /// The method; any when `None`.
    pub method: Option<String>,
    /// The path without its query; `*` stands for any run of characters.
    pub path: String,
    /// How many fitting requests pass unharmed first.
    pub skip: u32,
    /// How many requests are met after that; `None` means all until the rule is removed.
    pub count: Option<u32>,
    pub act: Act,
    pub reply: Reply,
    /// Milliseconds between the effect and the answer.
    pub delay_ms: u64,
    /// Headers added to the answer (`Retry-After`, ...).
    pub headers: BTreeMap<String, String>,
}

impl Default for Rule {
    fn default() -> Self {
        Self {
            method: None,
            path: "*".to_owned(),
            skip: 0,
            count: None,
            act: Act::Full,
            reply: Reply::Normal,
            delay_ms: 0,
            headers: BTreeMap::new(),
        }
    }
}

/// Whether the request takes effect. Matters to writes only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    Full,
    None,
    /// Only the first K dynos that are meant are restarted or stopped.
    Partial(usize),
    /// It takes effect after so many milliseconds; the answer does not wait for it.
    Late(u64),
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// What the API answers, or 202 `{}` to a write that takes no effect yet.
    Normal,
    /// An error of the API's own form.
    Error {
        status: u16,
        id: String,
        message: String,
    },
    /// Any status and body, as they stand.
    Raw {
        status: u16,
        body: String,
    },
    /// Any JSON with status 200.
    Json(Value),
    /// The connection is closed before a byte of the answer.
    Drop,
    /// The connection is reset (RST) before a byte of the answer.
    Reset,
    /// The right head, half of the body, then the connection is closed.
    Cut,
    /// The right head, half of the body, then silence.
    StallBody,
    /// The right answer, with so many milliseconds between one byte of the body and the next.
    Drip(u64),
    /// Silence.
    Stall,
    /// Closes a stream (logs) after so many milliseconds.
    CloseAfter(u64),
    Redirect {
        status: u16,
        to: String,
    },
    /// `GET .../dynos` answers the list as it was at this place of the journal (when the rule was made, if `None`).
    Stale(Option<u64>),
}

impl Reply {
    /// An API error with a message that says no more than its id.
    pub fn error(status: u16, id: &str) -> Self {
        Self::Error { status, id: id.to_owned(), message: format!("{id}: made up by a fault") }
    }
}

/// What befalls the connection between an attached dyno and its client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Attach {
    #[default]
    Works,
    /// Closed before TLS.
    Refused,
    /// Answered with this text, then closed; the two never meet.
    Garbage(String),
    /// Cut just before the output would say this text.
    CutAt(String),
}

/// The rules in force, each with its own counter.
#[derive(Default)]
pub struct Rules {
    rules: Vec<Armed>,
    made: u64,
}

struct Armed {
    id: u64,
    rule: Rule,
    seen: u32,
}

impl Rules {
    /// Puts a rule behind those that are there. The number removes it again.
    pub fn add(&mut self, rule: Rule) -> u64 {
        self.made += 1;
        self.rules.push(Armed { id: self.made, rule, seen: 0 });
        self.made
    }

    pub fn remove(&mut self, id: u64) -> bool {
        let before = self.rules.len();
        self.rules.retain(|armed| armed.id != id);
        self.rules.len() < before
    }

    pub fn clear(&mut self) {
        self.rules.clear();
    }

    pub fn list(&self) -> BTreeMap<u64, &Rule> {
        self.rules.iter().map(|armed| (armed.id, &armed.rule)).collect()
    }

    /// The first rule that meets this request. Every fitting rule before it has seen the request, too.
    pub fn meet(&mut self, method: &str, path: &str) -> Option<Rule> {
        let fits = |rule: &Rule| rule.method.as_deref().is_none_or(|wanted| wanted == method) && glob(&rule.path, path);
        for armed in self.rules.iter_mut().filter(|armed| fits(&armed.rule)) {
            armed.seen += 1;
            let nth = armed.seen;
            let last = armed.rule.count.map(|count| armed.rule.skip + count);
            if nth > armed.rule.skip && last.is_none_or(|last| nth <= last) {
                return Some(armed.rule.clone());
            }
        }
        None
    }
}

/// What is wrong with a dyno.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ailment {
    /// A restart by the API is accepted, and nothing happens.
    IgnoresRestart,
    /// Its process exits at once with status 1.
    CrashesOnBoot,
    /// It never leaves `starting`, and no boot time-out ends it.
    StaysStarting,
    /// Its process starts so many milliseconds late.
    BootsLate(u64),
}

/// Which dynos have an ailment, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AilmentRule {
    /// A dyno's name or a process type; `*` stands for any run of characters.
    pub dyno: String,
    pub ailment: Ailment,
    /// How many restarts or boots are spoilt; all when `None`.
    #[serde(default)]
    pub count: Option<u32>,
}

impl AilmentRule {
    pub fn fits(&self, name: &str, kind: &str) -> bool {
        self.count != Some(0) && (glob(&self.dyno, name) || self.dyno == kind)
    }
}

/// What the token is good for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    #[default]
    Full,
    /// Reads only: writes get 403 `forbidden`.
    ReadOnly,
    /// Everything gets 403 `two_factor`.
    TwoFactor,
    /// Everything gets 403 `suspended`.
    Suspended,
    /// Everything gets 402 `delinquent`.
    Delinquent,
    /// Everything gets 401 `unauthorized`.
    Revoked,
}

/// Whether `text` fits `pattern`, in which `*` stands for any run of characters.
fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|text| {
            (0..=text.len()).filter(|&at| text.is_char_boundary(at)).any(|at| glob(rest, &text[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::{Reply, Rule, Rules, glob};

    #[test]
    fn a_star_stands_for_any_run() {
        let table = [
            ("*", "", true),
            ("/apps/*/dynos", "/apps/a/dynos", true),
            ("/apps/*/dynos", "/apps/a/dynos/web.1", false),
            ("/apps/*", "/apps/a/dynos/web.1", true),
            ("web.*", "worker.1", false),
            ("*.1", "web.11", false),
        ];
        for (pattern, text, expected) in table {
            assert_eq!(glob(pattern, text), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn a_rule_meets_its_share_of_requests() {
        let mut rules = Rules::default();
        rules.add(Rule { method: Some("GET".into()), skip: 1, count: Some(2), reply: Reply::Drop, ..Rule::default() });
        let met: Vec<bool> = (0..5).map(|_| rules.meet("GET", "/apps/a").is_some()).collect();
        assert_eq!(met, [false, true, true, false, false]);
        assert!(rules.meet("DELETE", "/apps/a").is_none());
    }

    #[test]
    fn rules_are_read_from_short_json() {
        let rule: Rule = serde_json::from_str(
            r#"{"path": "/a", "act": {"partial": 1}, "reply": {"error": {"status": 503, "id": "x", "message": "y"}}}"#,
        )
        .unwrap();
        assert_eq!(rule.act, super::Act::Partial(1));
        assert_eq!(rule.reply, Reply::Error { status: 503, id: "x".into(), message: "y".into() });
    }
}
