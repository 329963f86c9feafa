//! Where the API token comes from: the environment, and on a person's machine the stores of the `heroku` command.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::adapters::files;
use crate::adapters::heroku::Host;
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;

/// How the store is called in what people read.
const NETRC: &str = "~/.netrc";

/// The `heroku` command starts an interpreter and may update itself first.
const CLI_TIMEOUT: Duration = Duration::from_secs(15);

/// The token for `host`, and where it comes from: `HEROKU_API_KEY`, `~/.netrc` or `heroku auth:token`, in this order. In a
/// dyno only the variable counts. `None` where there is none.
///
/// Fails with [`Kind::Refused`] on a store that is there but gives no answer.
pub fn find(env: &BTreeMap<String, String>, host: &Host) -> Result<Option<(Secret, String)>> {
    let value = |name: &str| env.get(name).filter(|value| !value.is_empty());
    if let Some(key) = value("HEROKU_API_KEY") {
        return Ok(Some((Secret::new(key), "HEROKU_API_KEY".to_owned())));
    }
    if value("DYNO").is_some() {
        return Ok(None);
    }
    if let Some(home) = value("HOME")
        && let Some(password) = from_netrc(&Path::new(home).join(".netrc"), host.authority())?
    {
        return Ok(Some((password, NETRC.to_owned())));
    }
    Ok(from_cli(env, CLI_TIMEOUT)?.map(|token| (token, "heroku auth:token".to_owned())))
}

/// What is wrong with the store that the token came from (`from` as [`find`] says it): a `.netrc` that others may read or that
/// belongs to somebody else. The `heroku` command takes it all the same, and so do we: whoever has to restart a production app
/// now is not helped by a refusal. A link is followed, since people keep such files elsewhere.
pub fn exposure(env: &BTreeMap<String, String>, from: &str) -> Option<String> {
    let home = env.get("HOME").filter(|_| from == NETRC)?;
    let found = fs::metadata(Path::new(home).join(".netrc")).ok()?;
    // SAFETY: reads a number that the kernel keeps.
    let own = found.uid() == unsafe { libc::geteuid() };
    match () {
        () if !own => Some(format!("{NETRC} holds the API token and belongs to another user")),
        () if found.mode() & 0o077 != 0 => Some(format!(
            "{NETRC} holds the API token, and other users of this machine may open it (chmod 600 {NETRC})"
        )),
        () => None,
    }
}

fn from_netrc(path: &Path, machine: &str) -> Result<Option<Secret>> {
    let unreadable = |error: io::Error| {
        Error::new(Kind::Refused, "~/.netrc cannot be read").because(error).hint("set HEROKU_API_KEY instead")
    };
    let text = match files::read_configuration(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(unreadable)?,
    };
    Ok(password(&String::from_utf8_lossy(&text), machine).map(Secret::new))
}

/// The password of a machine. An entry for `default` is meant for other places and never sent to Heroku, as in the `heroku`
/// command. Its crates were looked at: they refuse keys that Heroku's own entries once had, and quote them in errors.
fn password(netrc: &str, machine: &str) -> Option<String> {
    let mut words = Words(netrc);
    let mut is_ours = false;
    while let Some(word) = words.next() {
        match word.as_str() {
            "machine" => is_ours = words.next()? == machine,
            "default" => is_ours = false,
            "macdef" => words.skip_macro(),
            "password" => match words.next()? {
                password if is_ours => return Some(password),
                _ => {}
            },
            comment if comment.starts_with('#') => words.skip_line(),
            _other_key => _ = words.next()?,
        }
    }
    None
}

/// The words of a `.netrc`: between blanks, or in double quotes with backslashes.
struct Words<'a>(&'a str);

impl Words<'_> {
    fn next(&mut self) -> Option<String> {
        self.0 = self.0.trim_start();
        let Some(quoted) = self.0.strip_prefix('"') else {
            let end = self.0.find(char::is_whitespace).unwrap_or(self.0.len());
            let (word, rest) = self.0.split_at(end);
            self.0 = rest;
            return (!word.is_empty()).then(|| word.to_owned());
        };
        let mut word = String::new();
        let mut chars = quoted.chars();
        while let Some(char) = chars.next().filter(|char| *char != '"') {
            word.extend(if char == '\\' { chars.next() } else { Some(char) });
        }
        self.0 = chars.as_str();
        Some(word)
    }

    fn skip_line(&mut self) {
        self.0 = self.0.split_once('\n').map_or("", |(_, rest)| rest);
    }

    /// A macro ends with an empty line.
    fn skip_macro(&mut self) {
        self.skip_line();
        while !self.0.lines().next().unwrap_or_default().trim().is_empty() {
            self.skip_line();
        }
    }
}

/// Asks the `heroku` command, which also knows the key rings of each system.
fn from_cli(env: &BTreeMap<String, String>, timeout: Duration) -> Result<Option<Secret>> {
    let Some(program) = env.get("PATH").and_then(|path| on_path(path, "heroku")) else {
        return Ok(None);
    };
    let failed = |what: String| {
        Error::new(Kind::Refused, format!("`heroku auth:token` {what}")).hint("set HEROKU_API_KEY instead")
    };
    let command =
        duct::cmd(program, ["auth:token"]).full_env(env).stdin_null().stderr_null().stdout_capture().unchecked();
    let child = command.start().map_err(|error| failed("cannot be run".to_owned()).because(error))?;
    let Some(output) =
        child.wait_timeout(timeout).map_err(|error| failed("cannot be read".to_owned()).because(error))?
    else {
        // Whether it could be ended makes no difference to the answer.
        _ = child.kill();
        return Err(failed(format!("gave no answer within {timeout:?}")));
    };
    let token = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Ok((output.status.success() && !token.is_empty()).then(|| Secret::new(token)))
}

/// Relative entries are left out: the directory that we run in is a repository that anybody may have filled.
fn on_path(path: &str, name: &str) -> Option<PathBuf> {
    env::split_paths(path).filter(|dir| dir.is_absolute()).map(|dir| dir.join(name)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::{find, from_cli, password};
    use crate::adapters::heroku::Host;
    use crate::error::Kind;
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;
    use std::time::Duration;

    #[test]
    fn the_password_of_one_machine_is_found() {
        for (netrc, expected) in [
            ("machine api.heroku.com\n  login me@example.com\n  password secret\n", Some("secret")),
            ("machine api.heroku.com login me password secret", Some("secret")),
            ("machine api.heroku.com password secret login me", Some("secret")),
            ("machine git.heroku.com password git\nmachine api.heroku.com password secret", Some("secret")),
            ("machine api.heroku.com password first machine api.heroku.com password second", Some("first")),
            ("machine api.heroku.com method interactive org mine password secret", Some("secret")),
            ("machine api.heroku.com login \"a b\" password \"se\\\"c\\\\ret\"", Some("se\"c\\ret")),
            ("machine api.heroku.com login password password secret", Some("secret")),
            ("machine api.heroku.com password #secret", Some("#secret")),
            (
                "# machine api.heroku.com password old\r\nmachine api.heroku.com\r\npassword secret # new\r\n",
                Some("secret"),
            ),
            ("machine api.heroku.com # mine\n#password old\npassword secret", Some("secret")),
            (
                "macdef init\nmachine api.heroku.com password macro\n\nmachine api.heroku.com password secret",
                Some("secret"),
            ),
            ("macdef init\npassword x\n \nmachine api.heroku.com password secret", Some("secret")),
            ("machine api.heroku.com macdef init\ncd /tmp\n\npassword secret", Some("secret")),
            ("machine api.heroku.com.example.com password other", None),
            ("machine api.heroku.com login me", None),
            ("machine api.heroku.com password", None),
            ("machine api.heroku.com login me default password other", None),
            ("default login me password other", None),
            ("machine", None),
            ("\"machine", None),
            ("", None),
        ] {
            assert_eq!(password(netrc, "api.heroku.com").as_deref(), expected, "{netrc}");
        }
    }

    /// A home with a `.netrc` and a `heroku` command, each where given.
    fn home(netrc: Option<&str>, heroku: Option<&str>) -> (tempfile::TempDir, BTreeMap<String, String>) {
        let home = tempfile::tempdir().unwrap();
        if let Some(netrc) = netrc {
            fs::write(home.path().join(".netrc"), netrc).unwrap();
        }
        if let Some(script) = heroku {
            program(&home.path().join("heroku"), script);
        }
        let path = home.path().to_str().unwrap().to_owned();
        (
            home,
            BTreeMap::from([
                ("HOME".to_owned(), path.clone()),
                ("PATH".to_owned(), format!("bin:{path}:/usr/bin:/bin")),
            ]),
        )
    }

    /// Written by another process: a descriptor of ours could be inherited by a child of another test, and keep the file busy.
    fn program(path: &Path, script: &str) {
        let script = format!("#!/bin/sh\n{script}\n");
        duct::cmd!("install", "-m", "755", "/dev/stdin", path).stdin_bytes(script).run().unwrap();
    }

    const STORE: &str = "machine api.heroku.com password production\nmachine 127.0.0.1:5000 password loopback\n";
    const CLI: &str = "[ \"$1\" = auth:token ] && echo noise >&2 && echo from-cli";

    #[test]
    fn stores_are_asked_in_order() {
        let variable = Some(("HEROKU_API_KEY", "from-env"));
        let dyno = Some(("DYNO", "web.1"));
        let local = Some("http://127.0.0.1:5000");
        for (netrc, cli, set, host, expected) in [
            (Some(STORE), Some(CLI), variable, None, Some(("from-env", "HEROKU_API_KEY"))),
            (Some(STORE), Some(CLI), Some(("HEROKU_API_KEY", "")), None, Some(("production", "~/.netrc"))),
            (Some(STORE), None, None, local, Some(("loopback", "~/.netrc"))),
            (Some(""), Some(CLI), None, None, Some(("from-cli", "heroku auth:token"))),
            (None, Some(CLI), None, None, Some(("from-cli", "heroku auth:token"))),
            (None, Some("echo half; exit 1"), None, None, None),
            (None, Some("exit 0"), None, None, None),
            (None, None, None, None, None),
            (Some(STORE), Some(CLI), dyno, None, None),
        ] {
            let (_home, mut env) = home(netrc, cli);
            env.extend(set.map(|(name, value)| (name.to_owned(), value.to_owned())));
            let found = find(&env, &Host::from_env_value(host).unwrap()).unwrap();
            let found = found.as_ref().map(|(token, from)| (token.expose(), from.as_str()));
            assert_eq!(found, expected, "{netrc:?} {cli:?} {set:?}");
        }
    }

    #[test]
    fn the_command_gets_the_given_environment_alone() {
        let (_home, mut env) = home(None, Some("echo \"$MARK-$CARGO_PKG_NAME\""));
        env.insert("MARK".to_owned(), "mark".to_owned());
        assert_eq!(from_cli(&env, Duration::from_mins(1)).unwrap().unwrap().expose(), "mark-");
    }

    #[test]
    fn a_command_that_never_answers_is_given_up() {
        let (_home, env) = home(None, Some("exec sleep 600"));
        let error = from_cli(&env, Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.to_string(), "`heroku auth:token` gave no answer within 50ms");
    }

    #[test]
    fn a_netrc_that_cannot_be_read_is_said() {
        let (home, env) = home(None, None);
        fs::create_dir(home.path().join(".netrc")).unwrap();
        let error = find(&env, &Host::from_env_value(None).unwrap()).unwrap_err();
        assert_eq!((error.kind, error.to_string().as_str()), (Kind::Refused, "~/.netrc cannot be read: not a file"));
    }
}
