//! What the tests against real Rails share: cases that a seed makes, and Active Record itself, which answers them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::format_push_string, reason = "a helper of tests alone")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

/// Random choices that a seed repeats (`SplitMix64`).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).unwrap()
    }

    pub fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }

    /// True once in `of` times.
    pub fn once_in(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }
}

/// The real library in one process, which ends with its input.
pub struct Oracle {
    ruby: Child,
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Oracle {
    pub fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/oracle.rb");
        let mut ruby = Command::new("ruby")
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("these tests need Ruby with Active Record (Debian: ruby-rails)");
        let (questions, answers) = (ruby.stdin.take(), BufReader::new(ruby.stdout.take().unwrap()));
        Self { ruby, questions, answers }
    }

    pub fn ask(&mut self, question: &Value) -> Value {
        let stdin = self.questions.as_mut().unwrap();
        writeln!(stdin, "{question}").expect("Active Record does not answer (Debian: ruby-rails)");
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("no answer to {question}: {line:?}"))
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        drop(self.questions.take());
        let _ = self.ruby.wait();
    }
}

/// Makes `db/migrate` under `root` with odd, mostly legal files, and returns rows for its table.
pub fn migrations(random: &mut Random, root: &Path) -> Vec<String> {
    let folder = root.join("db/migrate");
    if random.once_in(40) {
        return vec!["1".to_owned()];
    }
    fs::create_dir_all(&folder).unwrap();
    let count = random.below(8);
    for number in 0..count {
        let version = match random.below(12) {
            0 => "0".to_owned(),
            1 => format!("00{}", random.below(12)),
            2 => format!("9999999999999999999999{}", random.below(9)),
            3 => format!("18446744073709551{}", 610 + random.below(10)),
            4 => random.below(9).to_string(),
            _ => format!("202001010000{:02}", random.below(60)),
        };
        let name = match random.below(14) {
            0 => "camel_x1".to_owned(),
            1 => "camel__x_1".to_owned(),
            2 => random.pick(&["", "_", "9", "_x_", "x.", "01_02_x", "x.blog", "x.rb", "rb"]).to_owned(),
            3 if random.once_in(4) => random.pick(&["CreateX", "a-b", "a.b.c", "a b", "é", "x\n", "x\u{1}"]).to_owned(),
            _ => format!("{}_{number}", random.pick(&["add", "create_posts", "near_miss", "a__b"])),
        };
        let inner = match random.below(16) {
            0 => "a/b",
            1 => "with space",
            2 => ".hidden",
            3 => "[x]",
            4 => "{y}",
            5 => "5_dir.rb",
            6 => "*",
            _ => "",
        };
        let suffix = if random.once_in(12) { random.pick(&[".RB", ".rb.bak", ".rb~", "", ".rb\n"]) } else { ".rb" };
        let prefix = if random.once_in(20) { random.pick(&["_", "x", ".", " ", "٣", "-"]) } else { "" };
        let place = folder.join(inner);
        fs::create_dir_all(&place).unwrap();
        let path = place.join(format!("{prefix}{version}_{name}{suffix}"));
        // A name that is taken already may keep what it is.
        match random.below(15) {
            0 => drop(symlink("nowhere", path)),
            1 => fs::create_dir_all(path).unwrap(),
            2 => {
                let aside = root.join("aside");
                fs::create_dir_all(&aside).unwrap();
                fs::write(aside.join("7_linked.rb"), "").unwrap();
                drop(symlink(aside, path.with_extension("")));
            }
            _ => drop(fs::write(path, "")),
        }
    }
    if random.once_in(20) {
        fs::rename(&folder, root.join("elsewhere")).unwrap();
        symlink("../elsewhere", &folder).unwrap();
    }
    (0..random.below(10)).map(|_| row(random)).collect()
}

/// A stored version, as people and databases spell it.
fn row(random: &mut Random) -> String {
    let number = match random.below(4) {
        0 => random.below(12).to_string(),
        1 => format!("18446744073709551{}", 610 + random.below(10)),
        _ => format!("202001010000{:02}", random.below(60)),
    };
    match random.below(10) {
        0 => format!("00{number}"),
        1 => format!(" \t{number} "),
        2 => format!("{number}abc"),
        3 => format!("{}{number}", random.pick(&["+", "-", "0x", "0d", "_", "0_", "--", "+ "])),
        4 => random.pick(&["", "abc", "1_000", "1__0", "\u{a0}1", "0d_1", "1.5", "１"]).to_owned(),
        _ => number,
    }
}

const SCALARS: [&str; 45] = [
    "plain",
    "0123",
    "12_34",
    "1,234",
    "12:30:45",
    "yes",
    "off",
    "0x1F",
    "~",
    ":sym",
    "1e3",
    "0o17",
    "1.50",
    "\"a#b\"",
    "'it''s'",
    "a b # c",
    "",
    "null",
    "\"<%= ENV['SET'] %>\"",
    "<%= ENV['SET'] %>",
    "<%= ENV['UNSET'] %>",
    "<%= ENV.fetch('UNSET', 'd') %>",
    "<%= ENV.fetch('UNSET') { 5 } %>",
    "x_<%= ENV['NUMBER'] %>",
    "<%= ENV['UNSET'] || ENV['SET'] || 5 %>",
    "<%= ENV['BLANK'].presence || 'p' %>",
    "<%= (ENV['SET'] || '').to_json %>",
    "<%= ENV['NUMBER'].to_i * 4 %>",
    "<%= \"a_#{ENV['NUMBER']}\" if ENV['NUMBER'] %>",
    "<%= Rails.env %>",
    "<%= Rails.env.production? ? 'p' : 'o' %>",
    "!!str 0123",
    "08",
    "-0",
    "1_",
    "+12",
    ".5",
    "1.",
    "99999999999999999999999",
    "2024-01-02",
    "\"\\u00e9\\t\"",
    ">-\n    folded\n    text",
    "|\n    literal",
    "\u{e9}t\u{e9}",
    "1.0e+20",
];

const URLS: [&str; 20] = [
    "postgres://u:p@h:5433/db",
    "postgresql:///db?host=/dir",
    "postgres://u%40x:p%23@h/d%20b?sslmode=require",
    "sqlite3:db/x.sqlite3",
    "sqlite3:/x",
    "sqlite3:///x",
    "sqlite3://a/b",
    "mysql2://u:@h/db",
    "postgis://[::1]:1/db",
    "postgres://my_host/db",
    "postgres://u:p#x@h/db",
    "postgres://u:12#x@h/db",
    "trilogy://h",
    "postgres://h/db\n",
    "http://x/",
    "",
    "postgres://u@h?password=q",
    "postgres://h/db?migrations_paths=db/other",
    "postgres://u+v:a+b@h/db?host=other&port=9",
    "postgres://h/db?a&&b",
];

/// A `config/database.yml`, the environment's name and the variables.
pub fn configuration(random: &mut Random) -> (String, &'static str, Vec<(String, String)>) {
    let mut yaml = String::new();
    if random.once_in(3) {
        yaml += "# <%= ENV['UNSET'] %> a comment\n";
    }
    if random.once_in(60) {
        yaml += "# <%= ENV.fetch('UNSET') %>\n";
    }
    if random.once_in(4) {
        yaml += "<% name = ENV['SET'] || 'other' %>\n";
        yaml += "extra: {database: <%= name %>}\n";
    }
    yaml += "default: &default\n";
    yaml += &keys(random, "  ", "adapter: postgresql");
    yaml += "other: &other\n";
    yaml += &keys(random, "  ", "adapter: mysql2");
    if random.once_in(6) {
        yaml += "shared:\n";
        yaml += &keys(random, "  ", "encoding: utf8");
    }
    for environment in ["development", "test", "production"] {
        if random.once_in(8) {
            continue;
        }
        yaml += &format!("{environment}:");
        yaml += &match random.below(12) {
            0..=5 => format!("\n{}", merged(random, "  ")),
            6..=8 => format!("\n  primary:\n{}  cache:\n{}", merged(random, "    "), merged(random, "    ")),
            9 => format!(
                "\n  main:\n{}  copy:\n    <<: *default\n    replica: {}\n",
                merged(random, "    "),
                random.pick(&["true", "false", "~"])
            ),
            10 => format!(" *{}\n", random.pick(&["default", "other"])),
            _ => match random.below(6) {
                0 => "\n".to_owned(),
                1 => " {}\n".to_owned(),
                2 => " text\n".to_owned(),
                3 => " <%= ENV['DATABASE_URL'] %>\n".to_owned(),
                _ => format!(" {:?}\n", random.pick(&URLS)),
            },
        };
    }
    let mut env = vec![("SET", "set"), ("NUMBER", "7"), ("BLANK", " ")];
    for name in ["DATABASE_URL", "PRIMARY_DATABASE_URL", "CACHE_DATABASE_URL"] {
        if random.once_in(3) {
            env.push((name, random.pick(&URLS)));
        }
    }
    let env = env.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    (yaml, random.pick(&["production", "production", "development", "staging"]), env)
}

fn keys(random: &mut Random, indent: &str, first: &str) -> String {
    let mut text = format!("{indent}{first}\n");
    for _ in 0..random.below(4) {
        let key =
            random.pick(&["username", "password", "database", "host", "sslmode", "socket", "pool", "user", "password"]);
        text += &format!("{indent}{key}: {}\n", random.pick(&SCALARS).replace("\n    ", &format!("\n{indent}  ")));
    }
    text
}

fn merged(random: &mut Random, indent: &str) -> String {
    let own = match random.below(10) {
        0 => keys(random, indent, "adapter: sqlite3") + indent + "database: db/../x.sqlite3\n",
        1 => {
            let url = random.pick(&URLS);
            keys(random, indent, &format!("url: {url:?}"))
        }
        2 => keys(random, indent, "url: <%= ENV['DATABASE_URL'] %>"),
        3 => keys(random, indent, "migrations_paths: [db/a, db/b]"),
        4 => keys(
            random,
            indent,
            "<% if ENV['SET'] %>\nport: 5433\n<% else %>\nport: 1\n<% end %>"
                .replace('\n', &format!("\n{indent}"))
                .as_str(),
        ),
        _ => keys(random, indent, "database: name"),
    };
    let merge = random.pick(&[
        "<<: *default",
        "<<: *other",
        "<<: [*default, *other]",
        "<<: *default\n<<: *other",
        "port: 1",
        "\"<<\": *default",
    ]);
    let merge = format!("{indent}{}\n", merge.replace('\n', &format!("\n{indent}")));
    if random.once_in(3) { own + &merge } else { merge + &own }
}
