//! `config/database.yml` with its ERB, database addresses, `.unstuck.yml`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use clap::Parser as _;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use unstuck::args::{Args, How};
use unstuck::config::Settings;
use unstuck::error::{Error, Kind};
use unstuck::rails::{Overrides, RailsVersion, Resolved, Sources, resolve, url};

use crate::{SECRET, bounded, cases, harmless, shown};

const VERSIONS: [RailsVersion; 4] = [RailsVersion(5, 2), RailsVersion(6, 1), RailsVersion(7, 0), RailsVersion(8, 0)];

/// Resolves a file as `unstuck config` does, but for Ruby; where Ruby would be asked, its answer is `ruby`.
fn resolved(file: &[u8], rails: RailsVersion, env: &[(&str, &str)], ruby: Option<&str>) -> Result<Resolved, Error> {
    let mut env: BTreeMap<String, String> = env.iter().map(|&(name, value)| (name.into(), value.into())).collect();
    env.insert("RAILS_ENV".into(), "production".into());
    let overrides = Overrides::default();
    let sources = Sources { root: Path::new("/app"), file: Some(file), rails, env: &env, overrides: &overrides };
    let ruby = || ruby.map(str::to_owned).ok_or_else(|| Error::new(Kind::Input, "no ruby here"));
    bounded(96, || resolve(&sources, ruby))
}

/// What holds for every file: whatever comes of it shows no secret, and an error names the file.
fn survives(file: &[u8], rails: RailsVersion) {
    for ruby in [None, Some(String::from_utf8_lossy(file))] {
        match resolved(file, rails, &[], ruby.as_deref()) {
            Ok(Resolved::Databases(databases)) => {
                for mut database in databases {
                    // These are shown by `unstuck config`, and hold what stands in their place in the file.
                    let options = std::mem::take(&mut database.options);
                    assert!(options.iter().all(|(key, _)| key != "password"), "{options:?}");
                    shown(&format!("{} {} {:?}", database.name, database.from, database.password));
                    assert!(!format!("{:?}", database.password).contains(SECRET));
                }
            }
            Ok(Resolved::Empty { from }) => shown(&from),
            Err(error) if names_a_key(file) => shown(&error.to_string()),
            Err(error) => {
                harmless(&error);
                assert!(error.message.starts_with("config/database.yml"), "{error}");
            }
        }
    }
}

/// Whether the secret has come to stand in a key, which an error has to name.
fn names_a_key(file: &[u8]) -> bool {
    let text = String::from_utf8_lossy(file);
    text.split(SECRET).skip(1).any(|after| {
        let end = after.find([',', '}', '\n', '\r', '\'', '"']).unwrap_or(after.len());
        after[..end].contains(':')
    })
}

/// Pieces of which files are made: each is legal somewhere.
const PIECES: [&str; 70] = [
    "production:",
    "  ",
    "    ",
    "\n",
    "\n",
    "\n  ",
    "\r\n",
    "\t",
    " ",
    "default: &a",
    "&a ",
    "*a",
    "<<: *a",
    "<<: [*a, *b]",
    "<<: ",
    "&b ",
    "*b",
    "adapter: postgresql",
    "adapter: mysql2",
    "adapter: sqlite3",
    "database: x",
    "password: pl4nted-s3cret",
    "password: 'pl4nted-s3cret'",
    "url: postgres://u:pl4nted-s3cret@h/db",
    "url: ",
    "port: ",
    "99999",
    "- ",
    "[",
    "]",
    "{",
    "}",
    ", ",
    ": ",
    "? ",
    "|",
    ">-",
    "'",
    "\"",
    "\\",
    "\\x1b",
    "#",
    "!",
    "!!str ",
    "!ruby/object:X ",
    "!!binary ",
    "%YAML 1.1",
    "---",
    "...",
    "shared:",
    "replica: true",
    "migrations_paths: ",
    "\u{0}",
    "\u{1b}]52;c;x\u{7}",
    "\u{202e}",
    "\u{feff}",
    "\u{85}",
    "\u{f5e0}0\u{f5e0}",
    "\u{2028}",
    "1:2:3",
    "0x",
    "-.inf",
    "1_000",
    "é",
    "<%= ",
    "<% ",
    "%>",
    "<%# ",
    "-%>",
    "<%%",
];

const RUBY: [&str; 44] = [
    "<%= ",
    "<% ",
    " %>",
    " %>",
    "ENV['A']",
    "ENV.fetch('A')",
    "ENV['A'] = ",
    "ENV['A'] ||= ",
    "x = ",
    "x",
    " + ",
    " * ",
    " || ",
    " && ",
    "'pl4nted-s3cret'",
    "\"#{",
    "}\"",
    "(",
    ")",
    "[",
    "]",
    "if true",
    "unless x",
    "else",
    "end",
    "; ",
    "\n",
    ".to_i",
    ".gsub('', x)",
    ".sub('a', 'b')",
    ".join(x)",
    "!",
    "-",
    "9223372036854775807",
    " / 0",
    " % 0",
    " rescue 1",
    " ? 1 : 2",
    "Rails.env",
    "Foo.bar",
    ".to_json",
    "_erb_text(0)",
    "_erb_value(x)",
    "é",
];

/// A real file, and where it may be cut or overwritten.
const REAL: &str = include_str!("../rails_app/config/database.yml");

const USUAL: &str = "\
default: &default
  adapter: postgresql
  pool: <%= ENV.fetch('RAILS_MAX_THREADS') { 5 } %>
  password: pl4nted-s3cret
production:
  primary:
    <<: *default
    url: <%= ENV['DATABASE_URL'] || 'postgres://app:pl4nted-s3cret@db.example/app' %>
  cache: {<<: *default, database: cache, migrations_paths: [db/cache, db/more]}
test:
  <<: *default
  password: <%= Rails.application.credentials.fetch('pl4nted-s3cret') %>
  database: test
";

fn pieces(of: &'static [&'static str]) -> impl Strategy<Value = String> {
    vec(select(of), 0..60).prop_map(|pieces| pieces.concat())
}

/// A usual file with one place changed: bytes taken out, put in, or said again.
fn mutated(file: &'static str) -> impl Strategy<Value = Vec<u8>> {
    (
        any::<prop::sample::Index>(),
        any::<prop::sample::Index>(),
        vec(any::<u8>(), 0..6),
        select(&PIECES[..]),
        any::<bool>(),
    )
        .prop_map(move |(from, to, bytes, piece, again)| {
            let (a, b) = (from.index(file.len()), to.index(file.len()));
            let (a, b) = (a.min(b), a.max(b));
            let middle: &[u8] = if again { &file.as_bytes()[a..b] } else { &[] };
            [&file.as_bytes()[..b], middle, &bytes, piece.as_bytes(), &file.as_bytes()[if again { a } else { b }..]]
                .concat()
        })
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn any_yaml(file in pieces(&PIECES), rails in select(&VERSIONS[..])) {
        survives(file.as_bytes(), rails);
    }

    #[test]
    fn any_erb(code in pieces(&RUBY), rails in select(&VERSIONS[..])) {
        survives(code.as_bytes(), rails);
        survives(format!("production:\n  adapter: postgresql\n  host: {code}\n").as_bytes(), rails);
    }

    #[test]
    fn any_bytes(file in vec(any::<u8>(), 0..300), rails in select(&VERSIONS[..])) {
        survives(&file, rails);
    }

    #[test]
    fn mutations_of_usual_files(usual in mutated(USUAL), real in mutated(REAL), rails in select(&VERSIONS[..])) {
        survives(&usual, rails);
        survives(&real, rails);
    }

    #[test]
    fn any_address(address in "\\PC{0,40}", scheme in "[a-z0-9]{0,9}", tail in "[a-z%&?=#@:/\\[\\]]{0,30}") {
        for address in [
            address.clone(),
            format!("{scheme}:{address}"),
            format!("postgres://u:{SECRET}@{address}"),
            format!("{scheme}://u:{SECRET}{tail}@{address}/{tail}"),
            format!("mysql2://{tail}:{SECRET}{address}"),
        ] {
            for rails in VERSIONS {
                let _ = url::has_scheme(&address);
                let _ = url::configuration(&address, rails);
                for file in ["", "production:\n  primary: {adapter: postgresql}\n  other: {adapter: mysql2}\n"] {
                    let env = [("DATABASE_URL", address.as_str()), ("OTHER_DATABASE_URL", &address)];
                    if let Err(error) = resolved(file.as_bytes(), rails, &env, None) {
                        harmless(&error);
                        assert!(error.message.contains("DATABASE_URL"), "{error}");
                    }
                }
            }
        }
    }

    #[test]
    fn any_unstuck_yml(file in unstuck_yml()) {
        configured(&file);
    }
}

/// Nearly a configuration: right and wrong keys with right and wrong values.
fn unstuck_yml() -> impl Strategy<Value = Vec<u8>> {
    let key = select(vec![
        "app",
        "command",
        "restart",
        "types",
        "policy",
        "strategy",
        "max_unavailable",
        "timeouts",
        "lock",
        "migrate",
        "databases",
        "hook",
        "remotes",
        "primary",
        "migrations_paths",
        "<<",
        "\u{1b}[31m",
        "\u{202e}",
    ]);
    let value = select(vec![
        SECRET,
        "[pl4nted-s3cret]",
        "{x: pl4nted-s3cret}",
        "\"pl4nted-s3cret\\e[31m\"",
        "'pl4nted-s3cret",
        "web",
        "10s",
        "18446744073709551615h",
        "-1",
        "1e400",
        "~",
        "&a [*a]",
        "&a x",
        "*a",
        "!!int x",
        "[[[[[[[[",
        "|\n  x",
        "\"\\u0000\"",
        "{a: {a: {a: {}}}}",
        "\u{7f}",
    ]);
    let line =
        (0..3_usize, key, value).prop_map(|(depth, key, value)| format!("{}{key}: {value}\n", "  ".repeat(depth)));
    let section =
        select(vec!["restart:\n", "timeouts:\n", "databases:\n", "hook:\n", "---\n", "\r\n"]).prop_map(str::to_owned);
    let lines = vec(prop_oneof![3 => line, 1 => section], 0..12).prop_map(|lines| lines.concat().into_bytes());
    prop_oneof![4 => lines, 1 => vec(any::<u8>(), 0..80)]
}

fn configured(file: &[u8]) {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join(".unstuck.yml"), file).unwrap();
    let args = Args::try_parse_from(["unstuck", "-C", root.path().to_str().unwrap(), "status"]).unwrap();
    let loaded = bounded(64, || Settings::load(&args.common, &How::default(), &[], BTreeMap::new()).map(drop));
    if let Err(error) = loaded {
        harmless(&error);
        assert!(error.message.contains(".unstuck.yml"), "{error}");
    }
}

fn many(count: usize, piece: impl Fn(usize) -> String) -> String {
    (0..count).map(piece).collect()
}

#[test]
fn files_that_stand_for_more_than_they_are() {
    let nested = |open: &str, close: &str, depth: usize| format!("{}1{}", open.repeat(depth), close.repeat(depth));
    let laughs = |width: usize, join: &str| {
        let levels = (1..40).map(|level| {
            let aliases = vec![format!("*a{}", level - 1); width].join(join);
            if join == ", " {
                format!("a{level}: &a{level} [{aliases}]\n")
            } else {
                format!("a{level}: &a{level}\n  <<: [{aliases}]\n  k{level}: 1\n")
            }
        });
        format!("a0: &a0 {{x: 1}}\n{}production: *a39\n", levels.collect::<String>())
    };
    let keys = |count: usize| many(count, |key| format!("  k{key}: 1\n"));
    let doubled = "x = 'pl4nted-s3cret'\n".to_owned() + &"x = x + x\n".repeat(50);
    for file in [
        laughs(9, ", "),
        laughs(9, ",  "),
        laughs(1, ", "),
        "production: &a {<<: *a}\n".into(),
        "production: &a [*a]\n".into(),
        format!("production: {}\n", nested("[", "]", 100_000)),
        format!("production: {}\n", nested("{a: ", "}", 100_000)),
        "production: ".to_owned() + &"- ".repeat(100_000),
        "production:\n".to_owned() + &"? ".repeat(50_000),
        "production: ".to_owned() + &"!".repeat(200_000),
        "production: ".to_owned() + &"&a ".repeat(50_000),
        format!("production: \"{}\"\n", "\\x41".repeat(100_000)),
        format!("production: {}\n", "x".repeat(1 << 20)),
        format!("{}: 1\n", "x".repeat(1 << 20)),
        format!("# {}\n", "x".repeat(1 << 20)),
        "\n".repeat(1 << 20),
        "\r".repeat(1 << 20),
        format!("production:\n{}", keys(60_000)),
        format!("shared:\n{}{}", keys(4_000), many(4_000, |name| format!("e{name}: {{}}\n"))),
        format!("production:\n  url: postgres://h/db?{}\n", many(60_000, |key| format!("k{key}&"))),
        format!("production:\n  port: {}\n", "9".repeat(100_000)),
        format!("production:\n  port: {}\n", "1:".repeat(100_000)),
        format!("production:\n  port: 1.{}e+{}\n", "9".repeat(1000), "9".repeat(1000)),
        format!("<% {doubled} %>production: <%= x %>"),
        "<% x = 'aa' \n ".to_owned() + &"x = x.gsub('', x)\n".repeat(30) + "%><%= x %>",
        "<% x = 'aa' \n ".to_owned() + &"x = \"#{x}#{x}\"\n".repeat(50) + "%><%= x %>",
        "x".repeat(100_000) + "<% " + &"_erb_text(0);".repeat(1_200) + " %>",
        "<%= x %>".repeat(20_000),
        "<%".repeat(100_000),
        "%>".repeat(100_000),
    ] {
        survives(file.as_bytes(), RailsVersion(8, 0));
        configured(file.as_bytes());
    }
}

#[test]
fn ruby_that_is_nested_as_deep_as_it_fits() {
    for (open, close) in [
        ("(", ")"),
        ("[", "]"),
        ("!", ""),
        ("-", ""),
        ("\"#{", "}\""),
        ("{a: ", "}"),
        ("->{", "}"),
        ("a(", ")"),
        ("a ", ""),
        ("a=", ""),
        ("a[", "]"),
        ("true ? 1 : ", ""),
        ("1 + ", ""),
        ("nil || ", ""),
        ("not ", ""),
        ("a&.b ", ""),
        ("defined? ", ""),
        ("*", ""),
        ("if 1;", ";end"),
        ("def a;", ";end"),
        ("begin;", ";end"),
        ("class A;", ";end"),
        ("case;when ", ";end"),
        ("while 1;", ";end"),
        ("a.b.", ""),
        ("%w[", "]"),
        ("/#{", "}/"),
        ("`#{", "}`"),
        ("a do ", " end"),
        ("return ", ""),
        ("BEGIN{", "}"),
        ("::A", ""),
        ("1 rescue ", ""),
        ("1 if ", ""),
    ] {
        for bytes in [2_000, 16_000] {
            let depth = bytes / (open.len() + close.len());
            let code = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            survives(format!("production: <%= {code} %>\n").as_bytes(), RailsVersion(8, 0));
            survives(format!("<%= {} %>", open.repeat(depth)).as_bytes(), RailsVersion(8, 0));
        }
    }
}

#[test]
fn a_password_in_a_template_is_not_quoted() {
    for code in [
        "Digest.hexdigest('pl4nted-s3cret')",
        "Digest.hexdigest(\"pl4nted-s3cret\")",
        "Foo.bar(%q(pl4nted-s3cret))",
        "`echo pl4nted-s3cret`",
        "Foo.bar(/pl4nted-s3cret/)",
        "Foo.bar(<<A)\npl4nted-s3cret\nA\n",
        "raise 'pl4nted-s3cret'",
        "Integer('pl4nted-s3cret')",
        "'pl4nted-s3cret' +",
    ] {
        let file = format!("production:\n  adapter: postgresql\n  host: <%= {code} %>\n");
        let error = resolved(file.as_bytes(), RailsVersion(8, 0), &[], None).unwrap_err();
        harmless(&error);
        assert!(error.message.starts_with("config/database.yml:"), "{error}");
    }
}
