//! Which files are migrations, and which of them are pending. Rails' own rules, pure.

use std::cmp::Reverse;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};

/// A migration's version: an integer of any size, since Rails sets no limit. Two spellings of one number (`007`, `7`) are
/// the same version.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(Integer);

/// The order of the variants is the order of the numbers, so that the derived order is the numeric one. Boxed, what is
/// beyond an `i64` costs the thousands of usual ones nothing.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Integer {
    BelowUsual(Box<Reverse<Magnitude>>),
    Usual(i64),
    AboveUsual(Box<Magnitude>),
}

/// Decimal digits without leading zeros. The longer one is the larger one; only equal lengths compare by digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Magnitude {
    length: usize,
    digits: Box<str>,
}

/// As many digits fit an `i64` whatever they are.
const ALWAYS_FITS: usize = 18;

impl Version {
    /// The number that these ASCII digits write; no digits are zero.
    pub fn from_digits(digits: &str) -> Self {
        Self::usual(digits).unwrap_or_else(|| Self::new(false, digits))
    }

    /// What a row of `schema_migrations` stands for: Rails reads it with Ruby's `String#to_i`, which takes the integer at
    /// the beginning of the text, and zero where there is none.
    pub fn from_row(text: &str) -> Self {
        Self::usual(text).unwrap_or_else(|| Self::from_unusual_row(text))
    }

    /// Nearly every version there is: a few digits and nothing else.
    fn usual(text: &str) -> Option<Self> {
        let digit = |byte: u8| byte.is_ascii_digit().then(|| i64::from(byte - b'0'));
        let append = |number: i64, byte: u8| Some(number * 10 + digit(byte)?);
        (text.len() <= ALWAYS_FITS)
            .then(|| text.bytes().try_fold(0, append))?
            .map(|number| Self(Integer::Usual(number)))
    }

    fn from_unusual_row(text: &str) -> Self {
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
        Self(if negative {
            Integer::BelowUsual(Box::new(Reverse(magnitude)))
        } else {
            Integer::AboveUsual(Box::new(magnitude))
        })
    }

    /// Adds the digits to `text`, thousands of times in a row.
    pub fn write_to(&self, text: &mut Vec<u8>) {
        match &self.0 {
            Integer::Usual(number) => text.extend_from_slice(itoa::Buffer::new().format(*number).as_bytes()),
            _ => text.extend_from_slice(self.to_string().as_bytes()),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Integer::Usual(number) => write!(f, "{number}"),
            Integer::AboveUsual(magnitude) => f.write_str(&magnitude.digits),
            Integer::BelowUsual(magnitude) => write!(f, "-{}", magnitude.0.digits),
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
        let Parts { version, name, scope } = Parts::of(path.file_name()?.as_bytes())?;
        let version = Version::from_digits(version);
        Some(Self { version, name: camelized(name).collect(), path: path.to_owned(), scope: scope.to_owned() })
    }
}

/// A legal file name, taken apart.
struct Parts<'a> {
    version: &'a str,
    name: &'a str,
    scope: &'a str,
}

impl<'a> Parts<'a> {
    fn of(file_name: &'a [u8]) -> Option<Self> {
        let stem = str::from_utf8(file_name).ok()?.strip_suffix(".rb")?;
        let digits = stem.bytes().take_while(u8::is_ascii_digit).count();
        let (version, rest) = stem.split_at(digits);
        let rest = rest.strip_prefix('_').filter(|_| digits > 0)?;
        let legal = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
        let (name, scope) = rest.split_at(rest.bytes().take_while(|byte| legal(*byte)).count());
        let scope = match scope.strip_prefix('.') {
            Some(scope) if scope.bytes().all(legal) => scope,
            None if scope.is_empty() => scope,
            _ => return None,
        };
        Some(Self { version, name, scope })
    }
}

/// `add_title` as `AddTitle`, letter by letter.
fn camelized(name: &str) -> impl Iterator<Item = char> {
    let mut first = true;
    name.chars().filter_map(move |letter| match letter {
        '_' => {
            first = true;
            None
        }
        _ if std::mem::take(&mut first) => Some(letter.to_ascii_uppercase()),
        _ => Some(letter),
    })
}

/// Whether Rails would look at a file of this name at all: `[0-9]*_*.rb`. What passes here and is no legal name makes Rails
/// refuse everything.
pub fn is_candidate(file_name: &[u8]) -> bool {
    file_name.first().is_some_and(u8::is_ascii_digit)
        && file_name.strip_suffix(b".rb").is_some_and(|stem| stem.contains(&b'_'))
}

/// The files that Rails would look at, by name alone. They are kept in one piece: a folder of fifty thousand is a handful of
/// allocations, and paths are made for those files alone that somebody asks about.
#[derive(Debug, Default)]
pub struct Files {
    folders: Vec<PathBuf>,
    names: Vec<u8>,
    places: Vec<Place>,
    /// Where the files of each of the migrations paths begin in `places`.
    begins: Vec<usize>,
}

/// A place in [`Files`].
#[derive(Debug, Clone, Copy)]
struct Place {
    folder: usize,
    begin: usize,
    end: usize,
}

impl Files {
    /// What is added from now on was found under the next of the migrations paths.
    pub fn begin(&mut self) {
        self.begins.push(self.places.len());
    }

    /// From now on, what is added lies in this folder.
    pub fn enter(&mut self, folder: PathBuf) {
        self.folders.push(folder);
    }

    /// Adds a file of the folder that was entered last.
    pub fn push(&mut self, name: &[u8]) {
        let begin = self.names.len();
        self.names.extend_from_slice(name);
        self.places.push(Place { folder: self.folders.len().saturating_sub(1), begin, end: self.names.len() });
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The paths in Rails' order, which sees what is under each of the migrations paths sorted.
    pub fn sorted_paths(&self) -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> = self.places.iter().map(|file| self.path(*file)).collect();
        let mut rest = &mut paths[..];
        for begin in self.begins.iter().rev() {
            let (before, under) = rest.split_at_mut((*begin).min(rest.len()));
            under.sort_unstable_by(|a, b| a.as_os_str().cmp(b.as_os_str()));
            rest = before;
        }
        paths
    }

    fn at(&self, index: u32) -> Place {
        self.places[index as usize]
    }

    fn name(&self, file: Place) -> &[u8] {
        &self.names[file.begin..file.end]
    }

    fn path(&self, file: Place) -> PathBuf {
        self.folders.get(file.folder).map_or_else(PathBuf::new, Clone::clone).join(OsStr::from_bytes(self.name(file)))
    }

    fn parts(&self, file: Place) -> Option<Parts<'_>> {
        Parts::of(self.name(file))
    }

    fn migration(&self, file: Place) -> Option<Migration> {
        Migration::parse(&self.path(file))
    }
}

/// The migrations of a database, by version, checked as Rails checks them.
#[derive(Debug)]
pub struct Migrations {
    files: Files,
    /// With the index of its file: what is sorted should be small.
    by_version: Vec<(Version, u32)>,
}

impl Migrations {
    /// The migrations that these files are, or the first reason for which Rails would refuse them all, in Rails' own order: an
    /// illegal name, two classes of one name, two files of one version.
    pub fn of(files: Files) -> Result<Self> {
        let mut by_version = Vec::with_capacity(files.len());
        let mut names = Vec::with_capacity(files.len());
        for (index, file) in (0..).zip(&files.places) {
            let Some(Parts { version, name, .. }) = files.parts(*file) else { break };
            by_version.push((Version::from_digits(version), index));
            names.push(mixed(name));
        }
        by_version.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        names.sort_unstable();
        let twins =
            by_version.windows(2).any(|pair| pair[0].0 == pair[1].0) || names.windows(2).any(|pair| pair[0] == pair[1]);
        if twins || by_version.len() < files.len() {
            refuse(&files)?;
        }
        Ok(Self { files, by_version })
    }

    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The highest version.
    pub fn newest(&self) -> Option<&Version> {
        self.by_version.last().map(|(version, _)| version)
    }

    /// The migrations whose version is in no row, by version. There is no "newest version": an old migration that was merged
    /// late is pending too. `applied` ascends.
    pub fn pending(&self, applied: &[Version]) -> Vec<Migration> {
        let pending = missing(&self.by_version, |(version, _)| version, applied, |version| version);
        pending.filter_map(|(_, index)| self.files.migration(self.files.at(*index))).collect()
    }

    /// The versions in the table that no file has, ascending. They are never pending. `applied` ascends.
    pub fn without_file(&self, applied: &[Version]) -> Vec<Version> {
        missing(applied, |version| version, &self.by_version, |(version, _)| version).cloned().collect()
    }

    /// Refuses a version that lies at or beyond `limit`, as Rails 7.2 and later do where the application asks for it: the limit
    /// is tomorrow, written as a version in UTC. Rails looks at each file before it compares names.
    pub fn refuse_future(&self, limit: &Version) -> Result<()> {
        match self.by_version.iter().find(|(version, _)| version >= limit) {
            None => Ok(()),
            Some((version, index)) => Err(input(format!(
                "{}: the version {version} lies in the future (Rails: InvalidMigrationTimestampError)",
                self.files.path(self.files.at(*index)).display()
            ))),
        }
    }
}

/// What of `listed` is not among `others`; both ascend.
fn missing<'a, A, B>(
    listed: &'a [A],
    version: fn(&A) -> &Version,
    others: &'a [B],
    other: fn(&B) -> &Version,
) -> impl Iterator<Item = &'a A> {
    let mut rest = others;
    listed.iter().filter(move |this| {
        let smaller = rest.iter().take_while(|that| other(that) < version(this)).count();
        rest = &rest[smaller..];
        rest.first().is_none_or(|that| other(that) != version(this))
    })
}

/// The versions and class names of a few files, to find their like among many without keeping the many.
#[derive(Debug)]
pub struct Kin {
    versions: Vec<Version>,
    names: Vec<u64>,
}

impl Kin {
    pub fn of<'a>(file_names: impl Iterator<Item = &'a [u8]>) -> Self {
        let parts: Vec<Parts> = file_names.filter_map(Parts::of).collect();
        let mut versions: Vec<Version> = parts.iter().map(|parts| Version::from_digits(parts.version)).collect();
        let mut names: Vec<u64> = parts.iter().map(|parts| mixed(parts.name)).collect();
        versions.sort_unstable();
        names.sort_unstable();
        Self { versions, names }
    }

    pub fn is_empty(&self) -> bool {
        self.versions.is_empty()
    }

    /// Whether the file is one of the few, or could not stand beside them: it has the version of one, perhaps the class name of
    /// one, or no legal name.
    pub fn has(&self, file_name: &[u8]) -> bool {
        Parts::of(file_name).is_none_or(|parts| {
            self.versions.binary_search(&Version::from_digits(parts.version)).is_ok()
                || self.names.binary_search(&mixed(parts.name)).is_ok()
        })
    }

    /// The newest version among `file_names`, and those that are versions of the few as well, ascending.
    pub fn applied<'a>(&self, file_names: impl Iterator<Item = &'a [u8]>) -> (Option<Version>, Vec<Version>) {
        let versions = file_names.filter_map(Parts::of).map(|parts| Version::from_digits(parts.version));
        let mut shared = Vec::new();
        let newest = versions.inspect(|version| {
            if self.versions.binary_search(version).is_ok() {
                shared.push(version.clone());
            }
        });
        let newest = newest.max();
        shared.sort_unstable();
        (newest, shared)
    }
}

/// A number for a class name. Two that differ come from two names; two that are equal are worth a closer look.
fn mixed(name: &str) -> u64 {
    camelized(name)
        .fold(0xcbf2_9ce4_8422_2325, |mixed, letter| (mixed ^ u64::from(letter)).wrapping_mul(0x0100_0000_01b3))
}

/// The first reason for which Rails would refuse these files, if there is one. Slow and in Rails' order, for the case that
/// something was found.
fn refuse(files: &Files) -> Result<()> {
    let parse = |path: PathBuf| {
        Migration::parse(&path).ok_or_else(|| {
            input(format!("{}: illegal name for a migration (Rails: IllegalMigrationNameError)", path.display())).hint(
                "after the version only a-z, 0-9 and underscores are allowed: 20240131120000_add_title_to_posts.rb",
            )
        })
    };
    let mut migrations = files.sorted_paths().into_iter().map(parse).collect::<Result<Vec<_>>>()?;
    migrations.sort_by(|a, b| a.version.cmp(&b.version));
    refuse_twins(&migrations, |migration| &migration.name, "DuplicateMigrationNameError", "name")?;
    refuse_twins(&migrations, |migration| &migration.version, "DuplicateMigrationVersionError", "version")
}

fn refuse_twins<K: Ord + fmt::Display>(
    migrations: &[Migration],
    key: fn(&Migration) -> &K,
    class: &str,
    word: &str,
) -> Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn version(digits: &str) -> Version {
        Version::from_digits(digits)
    }

    fn checked(names: &[&str]) -> Result<Migrations> {
        let mut files = Files::default();
        files.enter(PathBuf::new());
        for name in names {
            files.push(name.as_bytes());
        }
        Migrations::of(files)
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
        assert_eq!(checked(&["1_near_miss.rb", "2_nearmiss.rb"]).unwrap().pending(&[]).len(), 2);
    }

    #[test]
    fn the_future_begins_at_the_limit() {
        let migrations = checked(&["001_a.rb", "20991301000000_b.rb"]).unwrap();
        assert!(migrations.refuse_future(&version("20991301000001")).is_ok());
        assert!(migrations.refuse_future(&version("20991301000000")).unwrap_err().message.contains("_b.rb"));
    }

    #[test]
    fn pending_is_a_difference_of_sets() {
        let migrations = checked(&["30_c.rb", "10_a.rb", "0_z.rb", "20_b.rb"]).unwrap();
        let applied = applied(["030", "10abc", "5"].into_iter());
        let pending: Vec<_> = migrations.pending(&applied).into_iter().map(|migration| migration.name).collect();
        assert_eq!(pending, ["Z", "B"]);
        assert_eq!(migrations.without_file(&applied), [version("5")]);
        assert_eq!(migrations.pending(&[]).len(), 4);
        assert_eq!(migrations.without_file(&[version("40"), version("50")]), [version("40"), version("50")]);
    }
}
