//! The schema file beside the migrations, `db/schema.rb` or `db/structure.sql`: up to which version it was written. Pure.

use std::path::{Path, PathBuf};

use ruby_prism::{Node, Visit};

use crate::findings::{Finding, Place, Severity};
use crate::migrations::Version;

/// The schema files that may belong to a folder of migrations: `db/schema.rb` to `db/migrate`, `db/animals_schema.rb` to
/// `db/animals_migrate`.
pub fn files_of(folder: &Path) -> Vec<PathBuf> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let Some(database) = name.strip_suffix("migrate") else { return Vec::new() };
    ["schema.rb", "structure.sql"].iter().map(|file| folder.with_file_name(format!("{database}{file}"))).collect()
}

/// The folder to which the schema file of `folder` belongs: its own, or that of the first database. Mastodon's `db/post_migrate` has
/// none, and what it holds goes into `db/schema.rb`. A folder that `is_apart` belongs to a database that keeps no schema file.
pub fn home_of(folder: &Path, exists: &dyn Fn(&Path) -> bool, is_apart: &dyn Fn(&Path) -> bool) -> PathBuf {
    let first = folder.with_file_name("migrate");
    let has_file = |folder: &Path| files_of(folder).iter().any(|file| exists(file));
    let is_shared = !has_file(folder) && has_file(&first) && !is_apart(folder);
    if is_shared { first } else { folder.to_owned() }
}

/// What a schema file says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    pub path: PathBuf,
    /// The newest version that it holds.
    pub version: Version,
    /// Where it says so: a line and a column, from 1.
    pub line: usize,
    pub column: usize,
    pub excerpt: String,
    /// It has the marks of a merge conflict in it.
    pub conflicts: bool,
}

impl Stamp {
    /// Reads a schema file; `None` where it does not say its version.
    pub fn of(path: &Path, text: &[u8]) -> Option<Self> {
        let (version, offset) =
            if path.extension().is_some_and(|extension| extension == "rb") { ruby(text)? } else { sql(text)? };
        let start = text[..offset].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let line = text[start..].split(|byte| *byte == b'\n').next().unwrap_or_default();
        Some(Self {
            path: path.to_owned(),
            version,
            line: text[..offset].split(|byte| *byte == b'\n').count(),
            column: offset - start + 1,
            excerpt: String::from_utf8_lossy(line).trim_end_matches('\r').to_owned(),
            conflicts: text.split(|byte| *byte == b'\n').any(|line| line.starts_with(b"<<<<<<< ")),
        })
    }
}

/// The version in `ActiveRecord::Schema[7.1].define(version: 2024_01_31_120000) do`, and where it stands.
fn ruby(text: &[u8]) -> Option<(Version, usize)> {
    struct Definition(Option<(Version, usize)>);
    impl<'pr> Visit<'pr> for Definition {
        fn visit_call_node(&mut self, call: &ruby_prism::CallNode<'pr>) {
            let receiver = call.receiver().map(|receiver| receiver.location());
            let of_schema = receiver.is_some_and(|receiver| receiver.as_slice().starts_with(b"ActiveRecord::Schema"));
            if call.name().as_slice() == b"define" && of_schema {
                let arguments = call.arguments();
                self.0 =
                    arguments.iter().flat_map(|arguments| arguments.arguments().iter()).find_map(|node| stated(&node));
            } else {
                ruby_prism::visit_call_node(self, call);
            }
        }
    }
    let parsed = ruby_prism::parse(text);
    let mut definition = Definition(None);
    definition.visit(&parsed.node());
    definition.0
}

/// The number behind `version:` or `:version =>`.
fn stated(arguments: &Node) -> Option<(Version, usize)> {
    let hash = arguments.as_keyword_hash_node()?;
    hash.elements().iter().filter_map(|pair| pair.as_assoc_node()).find_map(|pair| {
        let key = pair.key().as_symbol_node().is_some_and(|key| key.unescaped() == b"version");
        let value = pair.value().as_integer_node().filter(|_| key)?.location();
        let digits: String =
            value.as_slice().iter().filter(|byte| byte.is_ascii_digit()).map(|byte| char::from(*byte)).collect();
        Some((Version::from_digits(&digits), usize::try_from(value.start()).ok()?))
    })
}

/// The newest version that `INSERT INTO "schema_migrations" (version) VALUES ('2'), ('1');` puts in, and where it stands.
fn sql(text: &[u8]) -> Option<(Version, usize)> {
    const INSERT: &[u8] = b"insert into ";
    let mut newest: Option<(Version, usize)> = None;
    let mut statement_offset = 0;
    // Rails writes these one statement to a paragraph; values hold no semicolon.
    for statement in text.split(|byte| *byte == b';') {
        let begin = statement.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(0);
        let head = &statement[begin..];
        if head.len() > INSERT.len() && head[..INSERT.len()].eq_ignore_ascii_case(INSERT) && names_versions(head) {
            for (version, offset) in quoted_numbers(head) {
                let newer = newest.as_ref().is_none_or(|(newest, _)| version > *newest);
                if newer {
                    newest = Some((version, statement_offset + begin + offset));
                }
            }
        }
        statement_offset += statement.len() + 1;
    }
    newest
}

fn names_versions(insert: &[u8]) -> bool {
    let table = insert.split(|byte| *byte == b'(').next().unwrap_or_default();
    String::from_utf8_lossy(table).contains("schema_migrations")
}

/// The numbers in single quotes, each with the place of its first digit.
fn quoted_numbers(text: &[u8]) -> impl Iterator<Item = (Version, usize)> {
    let mut offset = 0;
    text.split(|byte| *byte == b'\'').filter_map(move |part| {
        let begin = offset;
        offset += part.len() + 1;
        let digits = str::from_utf8(part).ok()?;
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| (Version::from_digits(digits), begin))
    })
}

/// Compares the schema files of a folder with its newest migration. Where there are two, it is enough that one is in step: the
/// other was left behind when the application changed the format.
pub fn judge(stamps: &[Stamp], newest: &Version) -> Option<Finding> {
    if let Some(conflict) = stamps.iter().find(|stamp| stamp.conflicts) {
        let remedy = ["resolve the conflict, or write the file anew: `bin/rails db:migrate`"];
        return Some(finding(conflict, "the schema file has the marks of a merge conflict in it".to_owned(), &remedy));
    }
    let stamp = stamps.first().filter(|_| stamps.iter().all(|stamp| stamp.version != *newest))?;
    let stamp = stamps.iter().max_by(|a, b| a.version.cmp(&b.version)).unwrap_or(stamp);
    let (message, remedy) = if stamp.version < *newest {
        (
            format!(
                "the schema file ends at {}, the migrations at {newest}: it was not written after the newest one",
                stamp.version
            ),
            ["run `bin/rails db:migrate` and commit the schema file with the migration"],
        )
    } else {
        (
            format!(
                "the schema file is at {}, but the newest migration is {newest}: a migration was not committed",
                stamp.version
            ),
            ["commit the migration that belongs to it, or run `bin/rails db:migrate` on a database without it"],
        )
    };
    Some(finding(stamp, message, &remedy))
}

/// What to say of a schema file that is there no more, nor another one in its place.
pub fn gone(stamp: &Stamp) -> Finding {
    let place = Place { path: stamp.path.clone(), line: 0, column: 0, excerpt: String::new() };
    let remedy = ["bring it back, unless every database is set up by the migrations"];
    let message = "the schema file is deleted: a database that is set up anew gets no tables from it".to_owned();
    Finding { severity: Severity::Warning, place: Some(place), ..finding(stamp, message, &remedy) }
}

fn finding(stamp: &Stamp, message: String, remedy: &[&str]) -> Finding {
    Finding {
        rule: "schema-out-of-step",
        severity: Severity::Refusal,
        place: Some(Place {
            path: stamp.path.clone(),
            line: stamp.line,
            column: stamp.column,
            excerpt: stamp.excerpt.clone(),
        }),
        message,
        remedy: remedy.iter().map(|&step| step.to_owned()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(path: &str, text: &str) -> Option<(String, usize, usize)> {
        Stamp::of(Path::new(path), text.as_bytes()).map(|stamp| (stamp.version.to_string(), stamp.line, stamp.column))
    }

    #[test]
    fn a_schema_file_says_its_version() {
        for (text, expected) in [
            (
                "# c\nActiveRecord::Schema[7.1].define(version: 2024_01_31_120000) do\nend\n",
                Some(("20240131120000", 2, 43)),
            ),
            ("ActiveRecord::Schema.define(version: 20130125163307) do\nend\n", Some(("20130125163307", 1, 38))),
            ("ActiveRecord::Schema.define(:version => 7) do\nend\n", Some(("7", 1, 41))),
            ("# ActiveRecord::Schema.define(version: 1)\n", None),
            ("Other.define(version: 1) { }\n", None),
            ("ActiveRecord::Schema.define(version: number) { }\n", None),
            ("ActiveRecord::Schema.define do\nend\n", None),
            ("", None),
        ] {
            let expected = expected.map(|(version, line, column)| (version.to_owned(), line, column));
            assert_eq!(stamp("db/schema.rb", text), expected, "{text}");
        }
        for (text, expected) in [
            (
                "CREATE TABLE x;\n\nINSERT INTO \"schema_migrations\" (version) VALUES\n('30'),\n('20');\n",
                Some(("30", 4, 3)),
            ),
            (
                "INSERT INTO schema_migrations (version) VALUES ('1');\n\nINSERT INTO schema_migrations (version) VALUES ('2');\n",
                Some(("2", 3, 50)),
            ),
            ("insert into `app`.`schema_migrations` (version) values\n('9')", Some(("9", 2, 3))),
            ("INSERT INTO x (schema_migrations) VALUES ('1');", None),
            ("", None),
        ] {
            let expected = expected.map(|(version, line, column)| (version.to_owned(), line, column));
            assert_eq!(stamp("db/structure.sql", text), expected, "{text}");
        }
    }

    #[test]
    fn the_schema_file_is_compared_with_the_newest_migration() {
        let at = |version: &str| Stamp {
            path: "db/schema.rb".into(),
            version: Version::from_digits(version),
            line: 1,
            column: 1,
            excerpt: String::new(),
            conflicts: false,
        };
        for (stamps, expected) in [
            (&[][..], None),
            (&["5"], None),
            (&["5", "2"], None),
            (&["4"], Some("was not written")),
            (&["6"], Some("was not committed")),
            (&["3", "4"], Some("ends at 4")),
        ] {
            let stamps: Vec<Stamp> = stamps.iter().map(|version| at(version)).collect();
            let finding = judge(&stamps, &Version::from_digits("5"));
            let told =
                finding.as_ref().is_some_and(|finding| expected.is_some_and(|words| finding.message.contains(words)));
            assert_eq!(finding.is_some(), expected.is_some(), "{stamps:?}");
            assert!(finding.is_none() || told, "{finding:?}");
        }
    }

    #[test]
    fn a_folder_without_a_schema_file_shares_that_of_the_first_database() {
        for (folder, home) in [
            ("db/migrate", "db/migrate"),
            ("db/post_migrate", "db/migrate"),
            ("db/animals_migrate", "db/animals_migrate"),
            ("db/cache_migrate", "db/cache_migrate"),
            ("lib/other_migrate", "lib/other_migrate"),
        ] {
            let exists =
                |file: &Path| ["db/schema.rb", "db/animals_structure.sql"].iter().any(|it| file == Path::new(it));
            let is_apart = |folder: &Path| folder == Path::new("db/cache_migrate");
            assert_eq!(home_of(Path::new(folder), &exists, &is_apart), Path::new(home));
        }
    }

    #[test]
    fn a_folder_has_its_schema_files() {
        let names = |folder: &str| files_of(Path::new(folder));
        assert_eq!(names("db/migrate"), [Path::new("db/schema.rb"), Path::new("db/structure.sql")]);
        assert_eq!(
            names("db/animals_migrate"),
            [Path::new("db/animals_schema.rb"), Path::new("db/animals_structure.sql")]
        );
    }
}
