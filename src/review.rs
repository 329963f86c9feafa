//! What a deploy will run and what is wrong with it, for people and for machines: text, JSON, SARIF for code scanning, and the
//! annotations of GitHub's workflows.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::debt::hex;
use crate::findings::{Finding, Place, Severity};
use crate::migrations::Migration;
use crate::release::{Line, Migrates};
use crate::report::{Reporter, migration_document};
use crate::rules::rule;

/// What a deploy will run, and what is wrong with it.
#[derive(Debug, Default)]
pub struct Review {
    pub pending: Vec<Reviewed>,
    /// By weight, the heaviest first.
    pub findings: Vec<Finding>,
    /// Who runs what is pending; none where nothing is, or where there is no such line.
    pub release: Option<Line>,
    pub migrates: Migrates,
}

/// A pending migration and what it does.
#[derive(Debug)]
pub struct Reviewed {
    pub migration: Migration,
    /// What it does to the schema, in plain words.
    pub what: Vec<String>,
    /// What running processes notice of it.
    pub class: Option<&'static str>,
}

/// As many migrations and findings fit one screen; the machine's formats hold all.
const SHOWN: usize = 20;

/// So many things that migrations do are told: with the migrations they fill one screen.
const DETAILS: usize = 20;

impl Review {
    /// Nothing to run, and nothing to say.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.findings.is_empty()
    }

    /// What two branches of one push bring together, each migration and each finding once.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        for new in other.pending {
            if !self.pending.iter().any(|known| known.migration == new.migration) {
                self.pending.push(new);
            }
        }
        for new in other.findings {
            if !self.findings.contains(&new) {
                self.findings.push(new);
            }
        }
        self.findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        if self.release.is_none() {
            (self.release, self.migrates) = (other.release, other.migrates);
        }
        self
    }

    pub fn refused(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Refusal)
    }

    /// 8 where something is refused.
    pub fn exit_code(&self) -> u8 {
        if self.refused() { 8 } else { 0 }
    }

    /// One screen for people. `who` begins the sentence: "this push will run".
    pub fn tell(&self, reporter: &Reporter, who: &str) {
        match self.pending.len() {
            0 => {}
            1 => reporter.say(&format!("{who} 1 migration:")),
            n => reporter.say(&format!("{who} {n} migrations:")),
        }
        let mut room = DETAILS;
        for Reviewed { migration, what, class } in self.pending.iter().take(SHOWN) {
            let class = class.map_or(String::new(), |class| format!("  ({class})"));
            reporter.item(&format!("{} {}  {}{class}", migration.version, migration.name, migration.path.display()));
            what.iter().take(room).for_each(|words| reporter.item(&format!("  - {words}")));
            if (1..what.len()).contains(&room) {
                reporter.item(&format!("  - ... and {} more; --json has them all", what.len() - room));
            }
            room = room.saturating_sub(what.len());
        }
        tell_rest(self.pending.len(), reporter);
        if !self.pending.is_empty() {
            self.tell_release(reporter);
        }
        for finding in self.findings.iter().take(SHOWN) {
            tell_finding(finding, reporter);
        }
        tell_rest(self.findings.len(), reporter);
    }

    fn tell_release(&self, reporter: &Reporter) {
        let Some(line) = &self.release else { return };
        let what = match self.migrates {
            Migrates::Proved => "runs them; a restart follows, and is proved",
            Migrates::Plainly => {
                "runs them; the new release restarts the dynos if it succeeds, and nothing does if it fails"
            }
            Migrates::Perhaps | Migrates::No => return,
        };
        let command = line.command.replace('\n', "; ");
        reporter.say(&format!("`{command}` in the {} {what}", line.file));
    }

    /// Our own document.
    pub fn document(&self) -> Value {
        let pending: Vec<Value> = self.pending.iter().map(Reviewed::document).collect();
        let findings: Vec<Value> = self.findings.iter().map(document).collect();
        let release = self
            .release
            .as_ref()
            .map(|line| json!({"file": line.file, "command": line.command, "migrates": self.migrates.name()}));
        json!({"pending": pending, "findings": findings, "release": release, "refused": self.refused()})
    }

    /// SARIF 2.1.0.
    pub fn sarif(&self) -> Value {
        let mut rules: Vec<&str> = self.findings.iter().map(|finding| finding.rule).collect();
        rules.sort_unstable();
        rules.dedup();
        let index = |finding: &Finding| rules.binary_search(&finding.rule).ok();
        let results: Vec<Value> = self.findings.iter().map(|finding| result(finding, index(finding))).collect();
        let rules: Vec<Value> = rules.iter().map(|rule| description(rule)).collect();
        json!({
            "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
            "version": "2.1.0",
            "runs": [{
                "tool": {"driver": {
                    "name": "unstuck",
                    "version": env!("CARGO_PKG_VERSION"),
                    "informationUri": env!("CARGO_PKG_REPOSITORY"),
                    "rules": rules,
                }},
                "columnKind": "utf16CodeUnits",
                "results": results,
            }],
        })
    }

    /// Workflow commands of GitHub: each a line that makes an annotation.
    pub fn annotations(&self) -> Vec<String> {
        self.findings.iter().map(annotation).collect()
    }
}

fn tell_rest(all: usize, reporter: &Reporter) {
    if all > SHOWN {
        reporter.item(&format!("... and {} more; --json has them all", all - SHOWN));
    }
}

fn tell_finding(finding: &Finding, reporter: &Reporter) {
    let place = finding.place.as_ref().map_or(String::new(), |place| format!("{} ", shown(place)));
    let text = format!("{place}{} ({})", finding.message, finding.rule);
    match finding.severity {
        Severity::Refusal => reporter.refuse(&text),
        Severity::Warning => reporter.warn(&text),
        Severity::Note => return reporter.say(&text),
    }
    if let Some(place) = finding.place.as_ref().filter(|place| !place.excerpt.is_empty()) {
        reporter.warn_item(&format!("{:>6} | {}", place.line, place.excerpt));
    }
    for step in &finding.remedy {
        reporter.warn_item(&format!("-> {step}"));
    }
}

/// `db/migrate/1_one.rb:14:5`, or the path alone where the whole file is meant.
fn shown(place: &Place) -> String {
    let path = place.path.display();
    if place.line == 0 { path.to_string() } else { format!("{path}:{}:{}", place.line, place.column) }
}

impl Reviewed {
    fn document(&self) -> Value {
        let mut document = migration_document(&self.migration);
        document["what"] = json!(self.what);
        document["class"] = json!(self.class);
        document
    }
}

impl Severity {
    /// The word in our documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Refusal => "refusal",
        }
    }

    /// The levels of SARIF.
    fn level(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Refusal => "error",
        }
    }

    /// The commands of GitHub's workflows.
    fn command(self) -> &'static str {
        match self {
            Self::Note => "notice",
            Self::Warning => "warning",
            Self::Refusal => "error",
        }
    }
}

fn document(finding: &Finding) -> Value {
    let place = finding.place.as_ref();
    let exact = place.filter(|place| place.line > 0);
    json!({
        "rule": finding.rule,
        "severity": finding.severity.name(),
        "path": place.map(|place| place.path.to_string_lossy()),
        "line": exact.map(|place| place.line),
        "column": exact.map(|place| place.column),
        "excerpt": exact.map(|place| &place.excerpt),
        "message": finding.message,
        "remedy": finding.remedy,
    })
}

/// A rule of SARIF: what its readers show beside each result of it.
fn description(name: &str) -> Value {
    let Some(rule) = rule(name) else { return json!({"id": name}) };
    let text = format!("{}: {}.", capitalized(rule.what), rule.why);
    let steps: Vec<String> = rule.safe.iter().map(|step| format!("\n- {step}")).collect();
    json!({
        "id": name,
        "name": name.split('-').map(capitalized).collect::<String>(),
        "shortDescription": {"text": format!("{}.", capitalized(rule.what))},
        "fullDescription": {"text": text},
        "help": {
            "text": format!("{text}\nThe safe way:{}", steps.concat()),
            "markdown": format!("{text}\n\nThe safe way:\n{}", steps.concat()),
        },
        "helpUri": concat!(env!("CARGO_PKG_REPOSITORY"), "#readme"),
        "defaultConfiguration": {"level": rule.severity.level()},
    })
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// By which a result is known again after lines were added above it.
fn fingerprint(finding: &Finding) -> String {
    let place = finding.place.as_ref();
    let (path, line) = place.map_or((String::new(), ""), |place| (uri(place), place.excerpt.trim()));
    let hash = Sha256::digest(format!("{}\n{path}\n{line}", finding.rule));
    hex(&hash[..16])
}

/// A result of SARIF, of the rule that has this place in the list.
fn result(finding: &Finding, rule: Option<usize>) -> Value {
    let mut result = json!({
        "ruleId": finding.rule,
        "ruleIndex": rule,
        "level": finding.severity.level(),
        "message": {"text": whole_text(finding)},
        "partialFingerprints": {"ruleAndLine/v1": fingerprint(finding)},
    });
    if let Some(place) = &finding.place {
        let mut physical = json!({"artifactLocation": {"uri": uri(place)}});
        if place.line > 0 {
            // SARIF counts columns in UTF-16 units, we count bytes.
            let before = place.excerpt.get(..place.column.saturating_sub(1)).unwrap_or_default();
            physical["region"] = json!({
                "startLine": place.line,
                "startColumn": before.encode_utf16().count() + 1,
                "snippet": {"text": place.excerpt},
            });
        }
        result["locations"] = json!([{"physicalLocation": physical}]);
    }
    result
}

/// What is wrong and what to do, in one text.
fn whole_text(finding: &Finding) -> String {
    let steps: Vec<String> = finding.remedy.iter().map(|step| format!("\n- {step}")).collect();
    format!("{}{}", finding.message, steps.concat())
}

/// A relative path as a URI reference.
fn uri(place: &Place) -> String {
    use std::os::unix::ffi::OsStrExt as _;

    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
    const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'_').remove(b'-').remove(b'~');
    percent_encode(place.path.as_os_str().as_bytes(), KEPT).to_string()
}

fn annotation(finding: &Finding) -> String {
    let mut properties = Vec::new();
    if let Some(place) = &finding.place {
        properties.push(format!("file={}", property(&place.path.to_string_lossy())));
        if place.line > 0 {
            properties.push(format!("line={}", place.line));
            properties.push(format!("col={}", place.column));
        }
    }
    properties.push(format!("title={}", property(finding.rule)));
    format!("::{} {}::{}", finding.severity.command(), properties.join(","), data(&whole_text(finding)))
}

/// Text behind `::`: GitHub reads the rest of the line, with these escapes.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// A property's value ends at a comma or a colon too.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruby::RULES;
    use crate::rules::OF_PUSHES;

    fn finding(path: &str, line: usize, excerpt: &str) -> Finding {
        let place = Place { path: path.into(), line, column: 1 + usize::from(line > 0), excerpt: excerpt.to_owned() };
        Finding {
            rule: "edited",
            severity: Severity::Refusal,
            place: Some(place),
            message: "100% wrong".to_owned(),
            remedy: vec!["one".to_owned(), "two".to_owned()],
        }
    }

    #[test]
    fn an_annotation_is_one_line_that_keeps_its_properties() {
        for (path, line, expected) in [
            ("db/a.rb", 3, "::error file=db/a.rb,line=3,col=2,title=edited::100%25 wrong%0A- one%0A- two"),
            ("a,b:c%\n.rb", 0, "::error file=a%2Cb%3Ac%25%0A.rb,title=edited::100%25 wrong%0A- one%0A- two"),
        ] {
            assert_eq!(annotation(&finding(path, line, "x")), expected);
        }
        let nowhere = Finding { place: None, severity: Severity::Note, remedy: Vec::new(), ..finding("", 0, "") };
        assert_eq!(annotation(&nowhere), "::notice title=edited::100%25 wrong");
    }

    #[test]
    fn a_result_of_sarif_has_a_place_that_its_readers_find() {
        let place = |finding: &Finding| result(finding, Some(0))["locations"][0]["physicalLocation"].clone();
        let mut wide = finding("db/ü b.rb", 7, "ü𝄞x");
        wide.place.as_mut().unwrap().column = 7;
        let expected = json!({
            "artifactLocation": {"uri": "db/%C3%BC%20b.rb"},
            "region": {"startLine": 7, "startColumn": 4, "snippet": {"text": "ü𝄞x"}},
        });
        assert_eq!(place(&wide), expected);
        assert_eq!(place(&finding("a.rb", 0, "")), json!({"artifactLocation": {"uri": "a.rb"}}));
        let nowhere = Finding { place: None, ..finding("", 0, "") };
        assert_eq!(result(&nowhere, Some(0)).get("locations"), None);
    }

    /// The same finding some lines below is known again; another one is not.
    #[test]
    fn a_result_keeps_its_fingerprint() {
        let print = |finding: &Finding| result(finding, Some(0))["partialFingerprints"]["ruleAndLine/v1"].clone();
        let known = print(&finding("a.rb", 3, "  x"));
        assert_eq!(known, print(&finding("a.rb", 9, "x")));
        for other in
            [finding("b.rb", 3, "x"), finding("a.rb", 3, "y"), Finding { rule: "illegal", ..finding("a.rb", 3, "x") }]
        {
            assert_ne!(known, print(&other));
        }
    }

    /// What is said of every rule is SARIF as its published schema wants it, and so is a finding in each kind of place.
    #[test]
    fn every_rule_is_legal_sarif() {
        let mut schema: Value = serde_json::from_str(include_str!("../tests/sarif/sarif-2.1.0.json")).unwrap();
        // What it says of a language, of which we say nothing, is a regular expression for JavaScript alone.
        for of in ["run", "toolComponent"] {
            let language = &mut schema["definitions"][of]["properties"]["language"];
            language.as_object_mut().unwrap().remove("pattern");
        }
        let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
        let rules = OF_PUSHES.iter().chain(RULES);
        let mut findings: Vec<Finding> = rules
            .map(|rule| Finding {
                rule: rule.name,
                severity: rule.severity,
                ..finding("db/\u{fc} b.rb", 7, "\u{1d11e}x")
            })
            .collect();
        findings.extend([finding("a.rb", 0, ""), Finding { place: None, ..finding("", 0, "") }]);
        let count = findings.len();
        let sarif = Review { findings, ..Review::default() }.sarif();
        let errors: Vec<String> =
            validator.iter_errors(&sarif).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(errors.is_empty(), "{errors:#?}");
        let run = &sarif["runs"][0];
        let listed = run["tool"]["driver"]["rules"].as_array().unwrap();
        assert_eq!((run["results"].as_array().unwrap().len(), listed.len()), (count, count - 2));
        for result in run["results"].as_array().unwrap() {
            let rule = &listed[usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap()];
            assert_eq!(rule["id"], result["ruleId"]);
            assert!(rule["help"]["markdown"].as_str().unwrap().contains("\n- "), "{rule}");
        }
        let mut broken = sarif;
        broken["runs"][0]["results"][0]["level"] = json!("fatal");
        assert!(!validator.is_valid(&broken), "the schema tells what is wrong");
    }

    #[test]
    fn only_a_refusal_is_refused() {
        for (severity, code) in [(Severity::Note, 0), (Severity::Warning, 0), (Severity::Refusal, 8)] {
            let review = Review { findings: vec![Finding { severity, ..finding("a", 0, "") }], ..Review::default() };
            assert_eq!(review.exit_code(), code);
        }
    }
}
