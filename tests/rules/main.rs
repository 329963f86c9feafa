//! What the reader of migrations says of a corpus of them, against what each case expects.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

mod theirs;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use unstuck::findings::Severity;
use unstuck::rails::Engine;
use unstuck::ruby::{Class, Deployed, RULES, Reading, Source, rails_of_lock, read, read_all};

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus");

/// One case of a corpus file: it begins with `### case NAME`, and further lines with `###` say what is around it and what is
/// expected of it. What does not begin with a class is put into one.
#[derive(Debug, Default)]
struct Case {
    name: String,
    file: String,
    text: String,
    engine: Option<Engine>,
    version: Option<String>,
    rails: Option<(u32, u32)>,
    /// Only these models, and this schema, instead of the application's.
    models: Option<Vec<String>>,
    schema: Option<String>,
    sql_schema: Option<String>,
    expected: Vec<String>,
    class: Option<String>,
    /// Text that a message or a description has to hold.
    says: Vec<String>,
}

impl Case {
    /// Lines that stand before the case's own text.
    fn wrapped(&self) -> (String, usize) {
        if self.text.contains("class ") || self.text.contains("Migration") {
            return (self.text.clone(), 0);
        }
        (format!("class Case < ActiveRecord::Migration[7.1]\n  def change\n{}  end\nend\n", self.text), 2)
    }

    fn deployed(&self, app: &Deployed) -> Deployed {
        let own = |texts: &[String]| {
            texts.iter().map(|text| (PathBuf::from("app/models/own.rb"), text.clone().into())).collect()
        };
        let schema = match (&self.schema, &self.sql_schema) {
            (Some(text), _) if text == "none" => None,
            (Some(text), _) => Some((PathBuf::from("db/schema.rb"), text.clone().into_bytes())),
            (None, Some(text)) => Some((PathBuf::from("db/structure.sql"), text.clone().into_bytes())),
            (None, None) => app.schema.clone(),
        };
        Deployed {
            models: self.models.as_deref().map_or_else(|| app.models.clone(), own),
            schema,
            rails: self.rails,
            engine: Some(self.engine.unwrap_or(Engine::Postgresql)),
            server_version: self.version.clone(),
            ..Deployed::default()
        }
    }
}

fn app() -> Deployed {
    fn walk(folder: &Path, found: &mut Vec<(PathBuf, Vec<u8>)>) {
        let mut entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            if path.is_dir() {
                walk(&path, found);
            } else {
                found.push((path.strip_prefix(CORPUS).unwrap().to_owned(), fs::read(&path).unwrap()));
            }
        }
    }
    let mut models = Vec::new();
    walk(&Path::new(CORPUS).join("app/models"), &mut models);
    let schema = fs::read(Path::new(CORPUS).join("app/schema.rb")).unwrap();
    Deployed { models, schema: Some((PathBuf::from("db/schema.rb"), schema)), ..Deployed::default() }
}

fn cases() -> Vec<Case> {
    let mut files: Vec<PathBuf> = fs::read_dir(CORPUS).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "rb"));
    files.sort();
    let mut cases: Vec<Case> = Vec::new();
    for path in files {
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        for line in fs::read_to_string(&path).unwrap().lines() {
            let Some(rest) = line.strip_prefix("### ") else {
                if let Some(case) = cases.last_mut() {
                    case.text += line;
                    case.text += "\n";
                }
                continue;
            };
            let (word, value) = rest.split_once(' ').unwrap_or((rest, ""));
            if word == "case" {
                cases.push(Case { name: value.to_owned(), file: file.clone(), ..Case::default() });
                continue;
            }
            let case = cases.last_mut().unwrap_or_else(|| panic!("{file} begins with a case"));
            let value = value.replace("\\n", "\n");
            match word {
                "expect" => case.expected.push(value),
                "class" => case.class = Some(value),
                "says" => case.says.push(value),
                "engine" => {
                    let (engine, version) = value.split_once(' ').unwrap_or((&value, ""));
                    case.engine = Some(match engine {
                        "postgresql" => Engine::Postgresql,
                        "mysql" => Engine::Mysql,
                        "sqlite" => Engine::Sqlite,
                        other => panic!("no engine {other}"),
                    });
                    case.version = Some(version.to_owned()).filter(|version| !version.is_empty());
                }
                "rails" => {
                    let lock = format!("GEM\n  specs:\n    actioncable ({value})\n    activerecord ({value})\n");
                    case.rails = rails_of_lock(lock.as_bytes());
                }
                "model" => case.models.get_or_insert_default().push(value),
                "schema" => case.schema = Some(value),
                "structure" => case.sql_schema = Some(value),
                other => panic!("{file}: nobody knows ### {other}"),
            }
        }
    }
    cases
}

/// What was found, in the words of a case: `refusal remove-column 3`.
fn found(reading: &Reading, before: usize) -> Vec<String> {
    let mut found: Vec<String> = reading
        .findings
        .iter()
        .map(|finding| {
            let severity = match finding.severity {
                Severity::Note => "note",
                Severity::Warning => "warning",
                Severity::Refusal => "refusal",
            };
            let line = finding.place.as_ref().map_or(0, |place| place.line);
            format!("{severity} {} {}", finding.rule, line.saturating_sub(before))
        })
        .collect();
    found.sort();
    found
}

fn class(class: Class) -> &'static str {
    match class {
        Class::BreaksRunningCode => "breaks",
        Class::NeedsRestart => "restart",
        Class::NoProcessCanNotice => "unnoticed",
    }
}

#[test]
fn the_corpus_is_read_as_expected() {
    let (app, cases) = (app(), cases());
    let mut differs = String::new();
    for case in &cases {
        let (text, before) = case.wrapped();
        let path = Path::new("db/migrate/1_case.rb");
        let reading = read(&Source { path, text: text.as_bytes() }, &case.deployed(&app));
        let found = found(&reading, before);
        let mut expected = case.expected.clone();
        expected.sort();
        if found != expected {
            let messages: Vec<&String> = reading.findings.iter().map(|finding| &finding.message).collect();
            let _ = writeln!(
                differs,
                "{}: {}\n  expected {expected:?}\n  found    {found:?}\n  {messages:?}",
                case.file, case.name
            );
        }
        if case.class.as_deref().is_some_and(|expected| expected != class(reading.class)) {
            let _ = writeln!(
                differs,
                "{}: {}\n  expected class {:?}, found {:?}",
                case.file, case.name, case.class, reading.class
            );
        }
        for words in &case.says {
            let said = reading.what.iter().chain(reading.findings.iter().map(|finding| &finding.message));
            if !said.clone().any(|text| text.contains(words)) {
                let _ = writeln!(
                    differs,
                    "{}: {}\n  nothing says {words:?}: {:?}",
                    case.file,
                    case.name,
                    said.collect::<Vec<_>>()
                );
            }
        }
    }
    assert!(differs.is_empty(), "\n{differs}");
    assert!(cases.len() >= 200, "{} cases", cases.len());
}

/// What one migration of a push makes, nobody uses when the next one runs.
#[test]
fn a_push_is_read_as_a_whole() {
    let migration =
        |body: &str| format!("class A < ActiveRecord::Migration[7.1]\n  def change\n    {body}\n  end\nend\n");
    let texts = [
        migration("create_table(:gadgets) { |t| t.string :name }"),
        migration("add_index :gadgets, :name"),
        migration("add_column :posts, :rank, :integer"),
        migration("rename_column :posts, :rank, :position"),
    ];
    let path = Path::new("db/migrate/1_a.rb");
    let sources: Vec<Source> = texts.iter().map(|text| Source { path, text: text.as_bytes() }).collect();
    let readings = read_all(&sources, &app());
    assert!(readings.iter().all(|reading| reading.findings.is_empty()), "{readings:#?}");
    let alone = read(&sources[1], &app());
    assert_eq!(found(&alone, 0), ["warning index-blocks 3"]);
}

/// Without a schema file the deployed migrations tell what is there.
#[test]
fn deployed_migrations_stand_for_a_schema() {
    let deployed = "class A < ActiveRecord::Migration[7.1]\n  def change\n    create_table(:gadgets) { |t| t.string :name }\n  end\nend";
    let deployed = vec![(PathBuf::from("db/migrate/1_a.rb"), deployed.into())];
    let deployed = Deployed { migrations: deployed, ..Deployed::default() };
    let text = b"class B < ActiveRecord::Migration[7.1]\n  def change\n    add_index :gadgets, :name\n  end\nend";
    let reading = read(&Source { path: Path::new("db/migrate/2_b.rb"), text }, &deployed);
    assert_eq!(found(&reading, 0), ["refusal index-blocks 3"]);
}

/// A place is the call itself, and its excerpt the whole line.
#[test]
fn findings_have_places_and_remedies() {
    let text = "class A < ActiveRecord::Migration[7.1]\n  def change\n    safety_assured { remove_column :posts, :slug }\n  end\nend";
    let reading = read(&Source { path: Path::new("db/migrate/1_a.rb"), text: text.as_bytes() }, &app());
    let finding = &reading.findings[0];
    let place = finding.place.as_ref().unwrap();
    assert_eq!((place.line, place.column), (3, 22));
    assert_eq!(place.excerpt, "    safety_assured { remove_column :posts, :slug }");
    assert!(finding.message.contains("app/models/post.rb"), "{}", finding.message);
    assert!(!finding.remedy.is_empty());
}

/// `tests/RULES.md`, as it has to be.
fn document() -> String {
    let mut text = String::from(
        "# Rules\n\nWhat `unstuck` finds in the migrations of a push. Made by `UNSTUCK_RULES=write cargo test --test rules` from the table \
         in `src/ruby/rules.rs`.\nA refusal is for what is certain to fail or to hurt; the same where it is not certain, or on an engine \
         where it hurts less, is a warning.\nNothing is found in what a push makes itself: nobody uses it yet. An exception is a comment with \
         its reason,\n`# unstuck:allow RULE REASON`, on the line, above it, or above the class for the whole file.\n\n\
         | rule | at most | what | why | the safe way |\n|---|---|---|---|---|\n",
    );
    for rule in RULES {
        let severity = match rule.severity {
            Severity::Refusal => "refusal",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        let safe = rule.safe.join("; ");
        let _ = writeln!(text, "| `{}` | {severity} | {} | {} | {safe} |", rule.name, rule.what, rule.why);
    }
    for (tool, rows) in [("strong_migrations", theirs::STRONG_MIGRATIONS), ("squawk", theirs::SQUAWK)] {
        let _ = writeln!(text, "\n## Beside {tool}\n\n| {tool} | ours | difference |\n|---|---|---|");
        for (name, ours, difference) in rows {
            let ours: Vec<String> = ours.iter().map(|name| format!("`{name}`")).collect();
            let ours = if ours.is_empty() { "none".to_owned() } else { ours.join(", ") };
            let _ = writeln!(text, "| {name} | {ours} | {difference} |");
        }
    }
    text
}

#[test]
fn the_document_tells_the_rules() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/RULES.md");
    if std::env::var_os("UNSTUCK_RULES").is_some() {
        fs::write(path, document()).unwrap();
    }
    assert!(
        fs::read_to_string(path).unwrap() == document(),
        "tests/RULES.md is old: UNSTUCK_RULES=write makes it anew"
    );
    for (name, ours, difference) in theirs::STRONG_MIGRATIONS.iter().chain(theirs::SQUAWK) {
        assert!(!ours.is_empty() || !difference.is_empty(), "{name}: neither a rule nor a reason for none");
        for rule in *ours {
            assert!(RULES.iter().any(|known| known.name == *rule), "{name}: there is no rule {rule}");
        }
    }
}

/// Every rule is found somewhere, as heavy as it can be; and no case expects one that is not.
#[test]
fn the_corpus_has_a_case_for_each_rule() {
    let expected: Vec<String> = cases().into_iter().flat_map(|case| case.expected).collect();
    for rule in RULES {
        let severity = format!("{:?} {} ", rule.severity, rule.name).to_lowercase();
        assert!(expected.iter().any(|line| line.starts_with(&severity)), "no case expects {severity}");
    }
    let right = cases().iter().filter(|case| case.expected.is_empty()).count();
    assert!(right >= 80, "only {right} cases in which nothing is wrong");
}

/// Whatever a file holds, reading it ends, and says so: each case cut off, and with pieces of others in it.
#[test]
fn no_file_is_too_strange() {
    let (app, cases) = (app(), cases());
    for (index, case) in cases.iter().enumerate() {
        let other = &cases[(index * 7 + 3) % cases.len()].text;
        for at in (0..case.text.len()).step_by(37).filter(|at| case.text.is_char_boundary(*at)) {
            let (head, tail) = case.text.split_at(at);
            for text in [head.to_owned(), tail.to_owned(), format!("{head}{other}{tail}")] {
                let deployed = Deployed { engine: case.engine, ..Deployed::default() };
                let reading = read(&Source { path: Path::new("a.rb"), text: text.as_bytes() }, &deployed);
                assert!(reading.findings.iter().all(|finding| finding.place.is_some()));
            }
        }
    }
    let deep = "[".repeat(3_000) + &"]".repeat(3_000);
    let longest = format!("a{}", ".b".repeat(60_000));
    let chain = format!("a{}", ".b { |c| c.d }".repeat(2_000));
    let sql = format!("execute \"SELECT {}1{}\"", "(".repeat(5_000), ")".repeat(5_000));
    let parts = format!("execute \"UPDATE t SET a = {}1{}\"", "(".repeat(5_000), ")".repeat(5_000));
    for body in [deep, longest, chain, sql, parts, "9_999.times { 9_999.times { add_index :a, :b } }".to_owned()] {
        let text = format!("class A < ActiveRecord::Migration[7.1]\n  def change\n    {body}\n  end\nend\n");
        read(&Source { path: Path::new("a.rb"), text: text.as_bytes() }, &app);
    }
}

/// Whatever doubles a value again and again is given up, long before it fills the memory.
#[test]
fn no_value_grows_without_end() {
    let (text, list) = ("s = s + s; ".repeat(60), "l = l + l; ".repeat(60));
    let bodies = [
        format!("s = 'a'; {text} execute s"),
        format!("s = 'a'; {} execute s", "s = \"#{s}#{s}#{s}#{s}\"; ".repeat(60)),
        format!("l = [1, 2]; {list} l.each {{ |a| drop_table a }}"),
        format!("l = [1]; {} l.each {{ |a| drop_table a }}", "l = [l, l]; ".repeat(60)),
        format!("l = [1]; {} l.each {{ |a| drop_table a }}", "l << l; ".repeat(60)),
        format!("h = {{}}; {} execute h", "h = { a: h, b: h }; ".repeat(60)),
        format!("@s = 'a'; {} @s.size; {}", text.replace('s', "@s"), "own; ".repeat(60)),
        format!("s = 'a'; {} l = [1]; {} execute l.join(s)", "s = s + s; ".repeat(16), "l = l + l; ".repeat(12)),
    ];
    for body in bodies {
        let text =
            format!("class A < ActiveRecord::Migration[7.1]\n  def change\n    {body}\n  end\n  def own = 1\nend\n");
        let reading = read(&Source { path: Path::new("a.rb"), text: text.as_bytes() }, &Deployed::default());
        let given_up = reading.findings.iter().any(|finding| finding.rule == "dynamic");
        assert!(given_up, "{}...: {:?}", &body[..40], reading.findings);
    }
}

/// A statement of a heredoc is found where it stands, with its own line as the excerpt.
#[test]
fn statements_in_a_heredoc_have_places() {
    let text = "class A < ActiveRecord::Migration[7.1]\n  def up\n    execute(<<~SQL)\n      SELECT 'ä'; DROP TABLE comments;\n    SQL\n  end\nend";
    let reading = read(&Source { path: Path::new("db/migrate/1_a.rb"), text: text.as_bytes() }, &app());
    let place = reading.findings[0].place.as_ref().unwrap();
    assert_eq!((place.line, place.column), (4, 20));
    assert_eq!(place.excerpt, "      SELECT 'ä'; DROP TABLE comments;");
}
