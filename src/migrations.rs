//! Which files are migrations, and which of them are pending. Rails' own rules, pure.

use std::cmp::Reverse;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};

/// A migration's version: an integer of any size, since Rails sets no limit. Two spellings of one number (`007`, `7`) are
/// the same version.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(Integer);

/// The order of the variants is the order of the numbers, so that the derived order is the numeric one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Integer {
    BelowUsual(Reverse<Magnitude>),
    Usual(i64),
    AboveUsual(Magnitude),
}

/// Decimal digits without leading zeros. The longer one is the larger one; only equal lengths compare by digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Magnitude {
    length: usize,
    digits: Box<str>,
}

impl Version {
    /// The number that these ASCII digits write; no digits are zero.
    pub fn from_digits(digits: &str) -> Self {
        Self::new(false, digits)
    }

    /// What a row of `schema_migrations` stands for: Rails reads it with Ruby's `String#to_i`, which takes the integer at
    /// the beginning of the text, and zero where there is none.
    pub fn from_row(text: &str) -> Self {
        let text = text.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
        let (negative, text) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let text = text.strip_prefix("0d").or_else(|| text.strip_prefix("0D")).unwrap_or(text);
        let mut digits = String::with_capacity(text.len());
        let mut underscore = true;
        for char in text.chars() {
            match char {
                '0'..='9' => digits.push(char),
                '_' if !underscore => {}
                _ => break,
            }
            underscore = char == '_';
        }
        Self::new(negative, &digits)
    }

    fn new(negative: bool, digits: &str) -> Self {
        let digits = digits.trim_start_matches('0');
        if let Ok(usual) = if digits.is_empty() { Ok(0) } else { digits.parse::<i64>() } {
            return Self(Integer::Usual(if negative { -usual } else { usual }));
        }
        let magnitude = Magnitude { length: digits.len(), digits: digits.into() };
        Self(if negative { Integer::BelowUsual(Reverse(magnitude)) } else { Integer::AboveUsual(magnitude) })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Integer::Usual(number) => write!(f, "{number}"),
            Integer::AboveUsual(magnitude) => f.write_str(&magnitude.digits),
            Integer::BelowUsual(Reverse(magnitude)) => write!(f, "-{}", magnitude.digits),
        }
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One migration file, known by its name alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    pub version: Version,
    /// The name of its class, as Rails camelizes it: `AddTitleToPosts`. The application's own acronyms are not known.
    pub name: String,
    /// As found: relative to the Rails root where it lies under it.
    pub path: PathBuf,
    /// The engine that the file was copied from (`20240101000000_create_posts.blog.rb`), else empty.
    pub scope: String,
}

impl Migration {
    /// Reads `<version>_<name>[.<scope>].rb`; `None` where Rails calls the name illegal.
    pub fn parse(path: &Path) -> Option<Self> {
        // What was listed ends in the file's name, so the path need not be taken apart.
        let name = path.as_os_str().as_bytes().rsplit(|&byte| byte == b'/').next()?;
        let stem = str::from_utf8(name).ok()?.strip_suffix(".rb")?;
        let (version, rest) = stem.split_once('_')?;
        let (name, scope) = rest.split_once('.').unwrap_or((rest, ""));
        let legal = |part: &str| part.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'));
        let digits = !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit());
        if !(digits && legal(name) && legal(scope)) {
            return None;
        }
        let (version, name, scope) = (Version::from_digits(version), camelize(name), scope.to_owned());
        Some(Self { version, name, path: path.to_owned(), scope })
    }
}

fn camelize(name: &str) -> String {
    let mut class = String::with_capacity(name.len());
    let mut first = true;
    for letter in name.chars() {
        match letter {
            '_' => first = true,
            _ if std::mem::take(&mut first) => class.push(letter.to_ascii_uppercase()),
            _ => class.push(letter),
        }
    }
    class
}

/// Whether Rails would look at a file of this name at all: `[0-9]*_*.rb`. What passes here and is no legal name makes Rails
/// refuse everything.
pub fn is_candidate(file_name: &[u8]) -> bool {
    file_name.first().is_some_and(u8::is_ascii_digit)
        && file_name.strip_suffix(b".rb").is_some_and(|stem| stem.contains(&b'_'))
}

/// The migrations that these files are, by version, or the first reason for which Rails would refuse them all, in Rails' own
/// order: an illegal name, two classes of one name, two files of one version.
pub fn check(files: &[PathBuf]) -> Result<Vec<Migration>> {
    let parse = |file: &PathBuf| {
        Migration::parse(file).ok_or_else(|| {
            input(format!("{}: illegal name for a migration (Rails: IllegalMigrationNameError)", file.display())).hint(
                "after the version only a-z, 0-9 and underscores are allowed: 20240131120000_add_title_to_posts.rb",
            )
        })
    };
    let mut migrations = files.iter().map(parse).collect::<Result<Vec<_>>>()?;
    migrations.sort_by(|a, b| a.version.cmp(&b.version));
    refuse_twins(&migrations, |migration| &migration.name, "DuplicateMigrationNameError", "name")?;
    refuse_twins(&migrations, |migration| &migration.version, "DuplicateMigrationVersionError", "version")?;
    Ok(migrations)
}

fn refuse_twins<K: Ord + fmt::Display>(
    migrations: &[Migration],
    key: fn(&Migration) -> &K,
    class: &str,
    word: &str,
) -> Result<()> {
    // Sorting a few thousand references costs less than hashing what they point at.
    let mut sorted: Vec<&Migration> = migrations.iter().collect();
    sorted.sort_by(|a, b| key(a).cmp(key(b)));
    match sorted.windows(2).find(|pair| key(pair[0]) == key(pair[1])) {
        None => Ok(()),
        Some(twins) => {
            let (first, second, key) = (twins[0].path.display(), twins[1].path.display(), key(twins[0]));
            Err(input(format!("{first} and {second} have the same {word}, {key} (Rails: {class})")))
        }
    }
}

/// Refuses a version that lies at or beyond `limit`, as Rails 7.2 and later do where the application asks for it: the limit is
/// tomorrow, written as a version in UTC. Rails looks at each file before it compares names.
pub fn refuse_future(migrations: &[Migration], limit: &Version) -> Result<()> {
    match migrations.iter().find(|migration| migration.version >= *limit) {
        None => Ok(()),
        Some(Migration { path, version, .. }) => Err(input(format!(
            "{}: the version {version} lies in the future (Rails: InvalidMigrationTimestampError)",
            path.display()
        ))),
    }
}

fn input(message: String) -> Error {
    Error::new(Kind::Input, message)
}

/// The versions that rows stand for: ascending, each once.
pub fn applied<'a>(rows: impl Iterator<Item = &'a str>) -> Vec<Version> {
    let mut versions: Vec<Version> = rows.map(Version::from_row).collect();
    versions.sort_unstable();
    versions.dedup();
    versions
}

/// The migrations whose version is in no row, in the order of `migrations`. There is no "newest version": an old migration
/// that was merged late is pending too. `applied` ascends.
pub fn pending(migrations: &[Migration], applied: &[Version]) -> Vec<Migration> {
    migrations.iter().filter(|migration| applied.binary_search(&migration.version).is_err()).cloned().collect()
}

/// The versions in the table that no file has, ascending. They are never pending. Both lists ascend.
pub fn without_file(migrations: &[Migration], applied: &[Version]) -> Vec<Version> {
    let has_file = |version: &Version| migrations.binary_search_by(|migration| migration.version.cmp(version)).is_ok();
    applied.iter().filter(|version| !has_file(version)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(digits: &str) -> Version {
        Version::from_digits(digits)
    }

    fn checked(files: &[&str]) -> Result<Vec<Migration>> {
        check(&files.iter().map(PathBuf::from).collect::<Vec<_>>())
    }

    #[test]
    fn a_row_is_read_as_ruby_reads_it() {
        let table = [
            ("20200101000001", "20200101000001"),
            ("007", "7"),
            (" \t\n\x0b\x0c\r12", "12"),
            ("12 ", "12"),
            ("12abc", "12"),
            ("+12", "12"),
            ("1_000", "1000"),
            ("1__0", "1"),
            ("_1", "0"),
            ("1_", "1"),
            ("-5", "-5"),
            ("--5", "0"),
            ("+ 5", "0"),
            ("-0", "0"),
            ("0x10", "0"),
            ("0d12", "12"),
            ("0d_12", "0"),
            ("00d12", "0"),
            ("abc", "0"),
            ("", "0"),
            ("\u{a0}1", "0"),
            ("9223372036854775807", "9223372036854775807"),
            ("9223372036854775808", "9223372036854775808"),
            ("-0099999999999999999999999999", "-99999999999999999999999999"),
        ];
        for (row, number) in table {
            assert_eq!(Version::from_row(row).to_string(), number, "{row:?}");
        }
    }

    #[test]
    fn versions_are_ordered_as_numbers() {
        let ascending = ["-99999999999999999999", "-10000000000000000000", "-9", "0", "10", "9223372036854775807"];
        let above = ["9223372036854775808", "10000000000000000000", "20000000000000000000", "100000000000000000000"];
        let versions: Vec<_> = ascending.iter().chain(&above).map(|row| Version::from_row(row)).collect();
        assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
        assert_eq!(version("00020"), version("20"));
    }

    #[test]
    fn names_are_read_as_rails_reads_them() {
        let table = [
            ("db/migrate/20200101000001_create_x.rb", Some(("20200101000001", "CreateX", ""))),
            ("001_a.rb", Some(("1", "A", ""))),
            ("0_zero.rb", Some(("0", "Zero", ""))),
            ("1_.rb", Some(("1", "", ""))),
            ("1__x.rb", Some(("1", "X", ""))),
            ("1_9.rb", Some(("1", "9", ""))),
            ("1_x..rb", Some(("1", "X", ""))),
            ("1_x.blog.rb", Some(("1", "X", "blog"))),
            ("1_x.rb.rb", Some(("1", "X", "rb"))),
            ("2020_01_01_x.rb", Some(("2020", "0101X", ""))),
            ("99999999999999999999999999_x.rb", Some(("99999999999999999999999999", "X", ""))),
            ("1_CreateX.rb", None),
            ("1_create-x.rb", None),
            ("1-create_x.rb", None),
            ("12a_x.rb", None),
            ("1_x.a.b.rb", None),
            ("1_a b.rb", None),
            ("1_é.rb", None),
            ("1_x\n.rb", None),
            ("1_x.rb\n", None),
        ];
        for (path, expected) in table {
            let migration = Migration::parse(Path::new(path));
            let seen = migration.as_ref().map(|m| (m.version.to_string(), m.name.as_str(), m.scope.as_str()));
            assert_eq!(seen, expected.map(|(version, name, scope)| (version.to_owned(), name, scope)), "{path:?}");
        }
    }

    #[test]
    fn candidates_are_what_rails_looks_at() {
        for name in ["1_a.rb", "1_.rb", "12a_x.rb", "1-a_b.rb", "1a b_.rb", "1_\n.rb"] {
            assert!(is_candidate(name.as_bytes()), "{name:?}");
        }
        for name in
            ["1.rb", "1_a.RB", "1_a.rb~", "1_a.rb.bak", ".1_a.rb", "_1_a.rb", "x1_a.rb", " 1_a.rb", "٣_a.rb", "1.rb_"]
        {
            assert!(!is_candidate(name.as_bytes()), "{name:?}");
        }
        assert!(is_candidate(b"1_\xff.rb"));
    }

    #[test]
    fn refusals_come_in_rails_order() {
        let table: [(&[&str], &str); 4] = [
            (&["1_a.rb", "1_b.rb", "2_a.rb", "3_B.rb"], "3_B.rb: illegal name"),
            (&["1_a.rb", "1_b.rb", "2_a.rb"], "1_a.rb and 2_a.rb have the same name, A "),
            (&["1_camel_x1.rb", "2_camel__x_1.rb"], "have the same name, CamelX1 "),
            (&["01_a.rb", "1_b.rb"], "01_a.rb and 1_b.rb have the same version, 1 "),
        ];
        for (files, expected) in table {
            let error = checked(files).unwrap_err();
            assert!(error.message.contains(expected), "{}", error.message);
            assert_eq!(error.kind, Kind::Input);
        }
        assert_eq!(checked(&["1_near_miss.rb", "2_nearmiss.rb"]).unwrap().len(), 2);
    }

    #[test]
    fn the_future_begins_at_the_limit() {
        let migrations = checked(&["001_a.rb", "20991301000000_b.rb"]).unwrap();
        assert!(refuse_future(&migrations, &version("20991301000001")).is_ok());
        assert!(refuse_future(&migrations, &version("20991301000000")).unwrap_err().message.contains("_b.rb"));
    }

    #[test]
    fn pending_is_a_difference_of_sets() {
        let migrations = checked(&["30_c.rb", "10_a.rb", "0_z.rb", "20_b.rb"]).unwrap();
        let applied = applied(["030", "10abc", "5"].into_iter());
        let pending: Vec<_> = pending(&migrations, &applied).into_iter().map(|migration| migration.name).collect();
        assert_eq!(pending, ["Z", "B"]);
        assert_eq!(without_file(&migrations, &applied), [version("5")]);
        assert_eq!(super::pending(&migrations, &[]).len(), 4);
    }
}
