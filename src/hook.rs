//! Git's pre-push hook as a file: the script that calls us, and the tools that keep such files themselves. Pure.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

/// The second line of every script of ours, by which it is known again.
const MARK: &str = "# unstuck-hook: `unstuck hook uninstall` takes it out again";

/// What the hook that was there before is called beside ours.
pub const BEFORE: &str = "pre-push.before-unstuck";

/// How the last line of a script begins that does something.
const LAST: &str = "feed | \"$unstuck\" pre-push";

/// What a script is made of.
#[derive(Debug)]
pub struct Script<'a> {
    /// The program; where it has gone, the one on the `PATH`.
    pub program: &'a OsStr,
    /// The Rails root below the top of the work tree; empty where it is that.
    pub root: &'a OsStr,
    /// Whether a push is refused where there is no program any more.
    pub refuses_without: bool,
    /// Whether the hooks are run by `sh`, and need not be executable.
    pub by_sh: bool,
}

impl Script<'_> {
    /// A POSIX shell script. It reads git's lines once and gives them to the hook that was there before, and then to us.
    pub fn text(&self) -> Vec<u8> {
        let mut text = format!("#!/bin/sh\n{MARK}\nunstuck=").into_bytes();
        text.extend(quoted(self.program));
        text.extend(b"\nroot=");
        text.extend(quoted(self.root));
        let (condition, first) =
            if self.by_sh { ("-f", "first='#! sh -e'") } else { ("-x", r#"IFS= read -r first <"$before" || :"#) };
        let (goes_on, code) =
            if self.refuses_without { ("is refused (hook.missing)", 1) } else { ("goes on without it", 0) };
        text.extend(
            format!(
                r#"
before=${{0%/*}}/{BEFORE}
lines=$(cat)
feed() {{
    [ -z "$lines" ] || printf '%s\n' "$lines" 2>/dev/null
}}
if [ {condition} "$before" ]; then
    {first}
    case "$first " in
        '#!'*[/\ ]sh\ * | '#!'*[/\ ]bash\ * | '#!'*[/\ ]dash\ * | '#!'*[/\ ]ksh\ * | '#!'*[/\ ]zsh\ *)
            # Many a script asks $0 where it lies and which hook it is: to a shell it can be given under our name.
            # shellcheck disable=SC2016 # These are the other shell's.
            feed | ${{first#??}} -c 'before=$1; shift; . "$before"' "$0" "$before" "$@" || exit
            ;;
        *) feed | "$before" "$@" || exit ;;
    esac
fi
if [ ! -x "$unstuck" ]; then
    unstuck=$(command -v unstuck) || {{
        echo "unstuck: the program of this hook has vanished, and the push {goes_on}" >&2
        exit {code}
    }}
fi
[ -z "$root" ] || cd "$root" 2>/dev/null || exit 0
{LAST} "$@"
"#
            )
            .bytes(),
        );
        text
    }
}

/// Whether a script is one of ours.
pub fn is_ours(script: &[u8]) -> bool {
    script.split(|byte| *byte == b'\n').nth(1) == Some(MARK.as_bytes())
}

/// Whether somebody has added lines behind ours.
pub fn has_more(script: &[u8]) -> bool {
    let mut lines = script.split(|byte| *byte == b'\n').skip_while(|line| !line.starts_with(LAST.as_bytes())).skip(1);
    lines.any(|line| !line.is_empty() && !line.starts_with(MADE))
}

/// Begins the last line of a script for which folders were made.
const MADE: &[u8] = b"# folders made for this hook: ";

/// The script, with a note of how many folders were made for it, one in another: they go with it.
pub fn with_folders(mut script: Vec<u8>, made: usize) -> Vec<u8> {
    if made > 0 {
        script.extend_from_slice(MADE);
        script.extend(format!("{made}\n").bytes());
    }
    script
}

/// How many folders were made for a script.
pub fn folders_of(script: &[u8]) -> usize {
    let note = script.split(|byte| *byte == b'\n').rev().find_map(|line| line.strip_prefix(MADE));
    note.and_then(|digits| str::from_utf8(digits).ok()?.parse().ok()).unwrap_or(0)
}

/// A word as a shell reads it back, whatever it holds.
fn quoted(word: &OsStr) -> Vec<u8> {
    let mut quoted = vec![b'\''];
    for byte in word.as_bytes() {
        match byte {
            b'\'' => quoted.extend(br"'\''"),
            byte => quoted.push(*byte),
        }
    }
    quoted.push(b'\'');
    quoted
}

/// A tool that writes git's hooks from a configuration of its own, and would take ours for a stranger.
#[derive(Debug, PartialEq, Eq)]
pub struct Manager {
    pub name: &'static str,
    /// The files by which it is known, at the top of the work tree.
    pub files: &'static [&'static str],
    /// What its configuration needs, line by line.
    pub lines: &'static str,
    /// What has to be run then.
    pub then: &'static str,
}

pub const MANAGERS: [Manager; 2] = [
    Manager {
        name: "lefthook",
        files: &[
            "lefthook.yml",
            ".lefthook.yml",
            "lefthook.yaml",
            ".lefthook.yaml",
            ".config/lefthook.yml",
            "lefthook.toml",
            ".lefthook.toml",
            "lefthook.json",
            ".lefthook.json",
        ],
        lines: "\
pre-push:
  commands:
    unstuck:
      run: unstuck pre-push {1} {2}
      use_stdin: true",
        then: "lefthook install",
    },
    Manager {
        name: "overcommit",
        files: &[".overcommit.yml"],
        lines: "\
PrePush:
  Unstuck:
    enabled: true
    command: ['unstuck', 'pre-push']",
        then: "overcommit --sign",
    },
];

/// Of pre-commit a hook that was there before is called by the new one: only where its own pre-push hook is in place, that has to
/// call us. It keeps git's lines to itself and gives their words in variables.
pub const PRE_COMMIT: Manager = Manager {
    name: "pre-commit",
    files: &[".pre-commit-config.yaml"],
    lines: r#"- repo: local
  hooks:
    - id: unstuck
      name: unstuck
      language: system
      entry: sh -c 'echo "$PRE_COMMIT_LOCAL_BRANCH $PRE_COMMIT_TO_REF $PRE_COMMIT_REMOTE_BRANCH $PRE_COMMIT_FROM_REF" | unstuck pre-push "$PRE_COMMIT_REMOTE_NAME" "$PRE_COMMIT_REMOTE_URL"'
      stages: [pre-push]
      always_run: true
      pass_filenames: false
      verbose: true"#,
    then: "pre-commit install --hook-type pre-push",
};

/// Whether pre-commit wrote this script.
pub fn is_of_pre_commit(script: &[u8]) -> bool {
    String::from_utf8_lossy(script).contains("File generated by pre-commit")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_known_again() {
        let script =
            Script { program: OsStr::new("/bin/x"), root: OsStr::new(""), refuses_without: false, by_sh: false };
        assert!(is_ours(&script.text()));
        for other in [&b""[..], b"#!/bin/sh\n", b"#!/bin/sh\nunstuck pre-push \"$@\"\n", b"\xff\n\n"] {
            assert!(!is_ours(other));
        }
    }

    #[test]
    fn a_word_is_quoted_whatever_it_holds() {
        for (word, expected) in [("a b", "'a b'"), ("it's", r"'it'\''s'"), ("a\n$b`c\\\"", "'a\n$b`c\\\"'"), ("", "''")]
        {
            assert_eq!(quoted(OsStr::new(word)), expected.as_bytes());
        }
    }
}
