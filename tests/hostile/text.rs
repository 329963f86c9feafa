//! What is read from other tools' files and from the database: `.netrc`, git's addresses, names of migrations, records.

use std::collections::BTreeMap;
use std::fs;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use unstuck::adapters::credentials;
use unstuck::adapters::git::GitHosts;
use unstuck::adapters::heroku::{Host, app_id_from_stream_url};
use unstuck::config::Types;
use unstuck::debt::{Digest, Entry, Home, Records};
use unstuck::migrations::{Files, Migration, Migrations, Version};
use unstuck::push::updates;
use unstuck::rails::RailsVersion;
use unstuck::report::clean;

use crate::{SECRET, bounded, cases, harmless, shown};

/// Ids as git writes them: a commit, nothing, and a commit of a SHA-256 repository.
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const NOTHING: &str = "0000000000000000000000000000000000000000";
const LONG_COMMIT: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Any character, those that act on a terminal more often than chance would have it.
fn text() -> impl Strategy<Value = String> {
    let odd = select(vec![
        '\u{1b}', '\u{9b}', '\r', '\n', '\u{0}', '\u{7}', '\u{7f}', '\u{202e}', '\u{2066}', '\u{61c}', '\u{feff}',
        '\u{2028}', ':', '"',
    ]);
    vec(prop_oneof![odd, any::<char>()], 0..40).prop_map(|chars| chars.into_iter().collect())
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn nothing_that_is_shown_acts(text in text()) {
        shown(&text);
        // What is shown is what was there, in other letters.
        assert!(clean(&text).len() >= text.len());
    }

    #[test]
    fn any_netrc(words in vec(select(vec!["machine", "api.heroku.com", "password", "login", "macdef", "default", "\"", "\\", "#", "\n", "\n\n", " ", "\t", "\u{0}", "é", SECRET]), 0..40), bytes in vec(any::<u8>(), 0..60)) {
        let home = tempfile::tempdir().unwrap();
        let env: BTreeMap<String, String> = [("HOME".to_owned(), home.path().to_str().unwrap().to_owned())].into();
        for file in [words.join(" ").into_bytes(), words.concat().into_bytes(), bytes] {
            fs::write(home.path().join(".netrc"), &file).unwrap();
            let found = bounded(4, || credentials::find(&env, &Host::from_env_value(None).unwrap()));
            assert!(!format!("{found:?}").contains(SECRET));
            if let Err(error) = found {
                harmless(&error);
            }
        }
    }

    #[test]
    fn any_address_of_git(text in text(), host in select(vec!["https://git.heroku.com/", "git@heroku.com:", "ssh://git@heroku.com/", "https://x@y@git.heroku.com/"])) {
        let hosts = GitHosts::new(&Host::from_env_value(None).unwrap(), None);
        for url in [text.clone(), format!("{host}{text}"), format!("{host}{text}.git"), format!("{text}{host}a.git")] {
            if let Some(app) = hosts.app_of_url(&url) {
                assert!(app.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'), "{}", app);
            }
        }
    }

    #[test]
    fn any_hook_input(
        words in vec(select(vec!["refs/heads/main", "refs/heads/master", "HEAD", "(delete)", COMMIT, NOTHING, LONG_COMMIT, "\u{1b}[31m", " ", "  ", "\n", "\r\n", "\t", ""]), 0..60),
        bytes in vec(any::<u8>(), 0..200),
        line in vec(select(vec![COMMIT, NOTHING, LONG_COMMIT, "refs/heads/main", "x"]), 4),
    ) {
        for input in [words.concat().into_bytes(), words.join(" ").into_bytes(), bytes, line.join(" ").into_bytes()] {
            let (updates, strange) = bounded(4, || updates(&input));
            assert!(updates.len() + strange <= String::from_utf8_lossy(&input).lines().count());
            for update in updates {
                // What is asked of the repository is an id, and never git's name of nothing.
                for id in update.local.iter().chain(&update.remote) {
                    assert!(matches!(id.len(), 40 | 64) && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{}", id);
                    assert!(id.bytes().any(|byte| byte != b'0'));
                }
                assert!(!update.deploys(&["main".to_owned(), "master".to_owned()]) || (update.local.is_some() && update.remote_ref.starts_with("refs/heads/ma")));
            }
        }
    }

    #[test]
    fn any_host(text in text(), host in select(vec!["https://", "http://127.0.0.1", "heroku.com", "https://api.heroku.com", "@"])) {
        for value in [text.clone(), format!("{host}{text}"), format!("{text}{host}")] {
            match Host::from_env_value(Some(&value)) {
                // The token goes nowhere else.
                Ok(host) => assert!(host.is_loopback() || host.is_https(), "{host:?}"),
                Err(error) => harmless(&error),
            }
            let _ = app_id_from_stream_url(&value);
        }
    }

    #[test]
    fn any_name_of_a_migration(names in vec(prop_oneof![text(), "[0-9]{1,40}_[a-z_0-9.]{0,9}"], 0..6)) {
        let mut files = Files::default();
        files.begin();
        files.enter("db".into());
        for name in &names {
            files.push(format!("{name}.rb").as_bytes());
        }
        match Migrations::of(files) {
            Ok(found) => {
                for Migration { version, name, scope, .. } in found.pending(&[]) {
                    assert!(format!("{version}{name}{scope}").bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
                }
            }
            Err(error) => harmless(&error),
        }
    }

    #[test]
    fn any_version(row in prop_oneof![text(), "[-+]?[0-9_]{0,60}", "[ \\t]*0[dx]?[0-9]{0,30}.*"], lock in text()) {
        let version = Version::from_row(&row);
        assert_eq!(&Version::from_row(&version.to_string()), &version, "{row:?}");
        let _ = RailsVersion::from_lock(&format!("    rails ({lock}"));
        let _ = RailsVersion::from_lock(&lock);
    }

    #[test]
    fn any_record(rows in vec((key(), value(), any::<i64>(), text()), 0..6)) {
        let ours = format!("unstuck:debt:{APP}:");
        let is_ours = |key: &str| key.strip_prefix(&ours).is_some_and(|run| !run.contains(':'));
        let debts = rows.iter().filter(|(key, ..)| is_ours(key)).count();
        let entries = rows.into_iter().map(|(key, value, age_s, text)| {
            Entry { home: Home::Metadata, key, value, age_s, opened: text.clone(), touched: text }
        });
        let records = Records::new(entries.collect());
        let (versions, types) = (Digest::of(&[]), Types::parse("web"));
        let _ = (records.apps(), records.doubtful(&versions, &types), records.foreign(APP));
        let ledger = records.of(APP);
        let _ = ledger.standing(&versions, &types);
        // No debt of ours is lost sight of.
        let ours = ledger.rows.len() + ledger.unreadable.len() + ledger.newer.len();
        assert!(ours >= debts, "{debts} of {records:?}");
    }
}

const APP: &str = "01234567-89ab-cdef-0123-456789abcdef";

fn key() -> impl Strategy<Value = String> {
    let prefix = select(vec!["unstuck:debt:", "unstuck:proved:", "unstuck:", ""]);
    let app = prop_oneof![Just(APP.to_owned()), text()];
    (prefix, app, prop_oneof![Just(":0123456789abcdef".to_owned()), text()])
        .prop_map(|(prefix, app, run)| format!("{prefix}{app}{run}"))
}

fn value() -> impl Strategy<Value = String> {
    let number = select(vec![
        "1",
        "2",
        "-1",
        "0",
        "18446744073709551615",
        "9223372036854775807",
        "-9223372036854775808",
        "1e400",
        "null",
        "\"x\"",
        "[]",
    ]);
    let phase = select(vec!["M", "D", "W", "X", "\u{1b}[2J"]);
    let field = (number.clone(), number.clone(), number.clone(), phase, text()).prop_map(|(v, n, rel, ph, text)| {
        let text = serde_json::to_string(&text).unwrap();
        format!(
            r#"{{"v":{v},"ph":"{ph}","ep":{text},"from":{text},"n":{n},"rel":{rel},"tag":{text},"by":{text},"ver":{text},"cnt":{n},"run":{text},"at":{rel},"ty":{text}}}"#
        )
    });
    prop_oneof![3 => field, 1 => text(), 1 => Just("[".repeat(10_000)), 1 => number.prop_map(|number| format!("{{\"v\":{number}}}"))]
}
