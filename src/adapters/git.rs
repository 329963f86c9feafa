//! The app that a repository is deployed to, from its git remotes. Reads git's files only: nothing that a repository's
//! configuration names is run.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use git2::{ErrorCode, Repository, RepositoryOpenFlags};

use crate::adapters::heroku::Host;
use crate::error::{Error, Kind, Result};

/// A remote that is an app on Heroku. Its address is left out, since it may hold a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    pub name: String,
    pub app: String,
}

/// The hosts that take Heroku's pushes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitHosts {
    ssh: String,
    https: String,
}

impl GitHosts {
    /// `git_host` is the value of `HEROKU_GIT_HOST`, which wins; else the hosts follow from the API's.
    pub fn new(host: &Host, git_host: Option<&str>) -> Self {
        let same = |name: &str| Self { ssh: name.to_owned(), https: name.to_owned() };
        match (git_host.filter(|name| !name.is_empty()), host.domain()) {
            (Some(name), _) => same(name),
            (None, Some(domain)) => Self { ssh: domain.to_owned(), https: format!("git.{domain}") },
            (None, None) => same(host.authority()),
        }
    }

    /// The app that a remote's address stands for: `https://git.heroku.com/APP.git`, `git@heroku.com:APP.git` or
    /// `ssh://git@heroku.com/APP.git`. `None` for any other address.
    pub fn app_of_url(&self, url: &str) -> Option<String> {
        let path = match url.strip_prefix("https://") {
            Some(rest) => {
                let (authority, path) = rest.split_once('/')?;
                // CI systems put a token before the host.
                let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
                (host == self.https).then_some(path)?
            }
            None => match url.strip_prefix("ssh://git@") {
                Some(rest) => rest.strip_prefix(&self.ssh)?.strip_prefix('/')?,
                None => url.strip_prefix("git@")?.strip_prefix(&self.ssh)?.strip_prefix(':')?,
            },
        };
        let app = path.strip_suffix(".git")?;
        let is_app = !app.is_empty() && app.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        is_app.then(|| app.to_owned())
    }
}

/// The app that the repository around `dir` is deployed to, as the `heroku` command chooses it: the remote that is `wanted`
/// (`--remote`) or that git's configuration names as `heroku.remote`; without either, the only app among all remotes. `None`
/// where there is no repository or no such remote. `GIT_DIR` in this process's environment is obeyed, as git does.
///
/// Fails with [`Kind::Refused`] where the remote that is asked for is not an app, where several could be meant, and on a
/// repository that cannot be read.
pub fn app(dir: &Path, wanted: Option<&str>, hosts: &GitHosts) -> Result<Option<String>> {
    let Some(repository) = open(dir)? else {
        return choose(&[], wanted, None);
    };
    let remotes = remotes(&repository, hosts).map_err(|error| explain(dir, &error))?;
    let configured = repository.config().and_then(|config| config.get_string("heroku.remote")).ok();
    choose(&remotes, wanted, configured.as_deref())
}

fn choose(remotes: &[Remote], wanted: Option<&str>, configured: Option<&str>) -> Result<Option<String>> {
    if let Some(name) = wanted.or(configured) {
        let source = if wanted.is_some() { "--remote" } else { "git's configuration (heroku.remote)" };
        return match remotes.iter().find(|remote| remote.name == name) {
            Some(remote) => Ok(Some(remote.app.clone())),
            None => {
                Err(Error::new(Kind::Refused, format!("{source} names {name:?}, which is not a git remote on Heroku"))
                    .hint("`git remote -v` lists the remotes; `heroku git:remote -a APP` adds one"))
            }
        };
    }
    let apps: BTreeSet<&str> = remotes.iter().map(|remote| remote.app.as_str()).collect();
    if apps.len() > 1 {
        let list: Vec<String> = remotes.iter().map(|remote| format!("{} ({})", remote.app, remote.name)).collect();
        return Err(Error::new(Kind::Refused, format!("the git remotes name several apps: {}", list.join(", ")))
            .hint("say which one is meant with --app APP or --remote REMOTE"));
    }
    Ok(apps.first().map(ToString::to_string))
}

/// The repository around `dir`, if there is one.
pub fn open(dir: &Path) -> Result<Option<Repository>> {
    // As git itself, which trusts its object store: hashing thousands of entries takes longer than comparing them.
    git2::opts::strict_hash_verification(false);
    let nowhere: [&OsStr; 0] = [];
    match Repository::open_ext(dir, RepositoryOpenFlags::FROM_ENV, nowhere) {
        Ok(repository) => Ok(Some(repository)),
        Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
        Err(error) => Err(explain(dir, &error)),
    }
}

fn remotes(repository: &Repository, hosts: &GitHosts) -> Result<Vec<Remote>, git2::Error> {
    let mut found = Vec::new();
    for name in repository.remotes()?.iter().flatten().flatten() {
        let remote = repository.find_remote(name)?;
        if let Some(app) = remote.url().ok().and_then(|url| hosts.app_of_url(url)) {
            found.push(Remote { name: name.to_owned(), app });
        }
    }
    Ok(found)
}

fn explain(dir: &Path, error: &git2::Error) -> Error {
    let dir: PathBuf = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let what = Error::new(Kind::Refused, format!("the git repository around {} cannot be read", dir.display()));
    if error.code() == ErrorCode::Owner {
        let hint = format!("if you trust it: git config --global --add safe.directory {}", dir.display());
        return what.because(anyhow::anyhow!("it belongs to another user")).hint(hint);
    }
    what.because(anyhow::anyhow!("{}", error.message())).hint("name the app with --app APP")
}

#[cfg(test)]
mod tests {
    use super::{GitHosts, Remote, app, choose, explain};
    use crate::adapters::heroku::Host;
    use crate::error::Kind;
    use git2::{ErrorClass, ErrorCode, Repository};
    use std::path::Path;

    fn hosts(host: Option<&str>, git_host: Option<&str>) -> GitHosts {
        GitHosts::new(&Host::from_env_value(host).unwrap(), git_host)
    }

    #[test]
    fn an_address_names_its_app() {
        let staging = Some("staging.herokudev.com");
        let local = Some("http://127.0.0.1:5000");
        for (host, git_host, url, expected) in [
            (None, None, "https://git.heroku.com/my-app.git", Some("my-app")),
            (None, None, "git@heroku.com:my-app.git", Some("my-app")),
            (None, None, "ssh://git@heroku.com/my-app.git", Some("my-app")),
            (None, None, "https://heroku:token@git.heroku.com/my-app.git", Some("my-app")),
            (None, None, "https://git.heroku.com/my-app", None),
            (None, None, "https://git.heroku.com/.git", None),
            (None, None, "https://git.heroku.com/a/b.git", None),
            (None, None, "https://git.heroku.com/../x.git", None),
            (None, None, "https://git.heroku.com.example.com/my-app.git", None),
            (None, None, "https://example.com/git.heroku.com/my-app.git", None),
            (None, None, "http://git.heroku.com/my-app.git", None),
            (None, None, "git@heroku.work:my-app.git", None),
            (None, None, "git@heroku.com.example.com:my-app.git", None),
            (None, None, "git@github.com:me/my-app.git", None),
            (None, None, "ssh://git@heroku.com:my-app.git", None),
            (None, None, "/srv/git/my-app.git", None),
            (None, None, "", None),
            (staging, None, "https://git.staging.herokudev.com/my-app.git", Some("my-app")),
            (staging, None, "git@staging.herokudev.com:my-app.git", Some("my-app")),
            (staging, None, "https://git.heroku.com/my-app.git", None),
            (local, None, "https://127.0.0.1:5000/my-app.git", Some("my-app")),
            (None, Some("git.example.com"), "https://git.example.com/my-app.git", Some("my-app")),
            (None, Some("git.example.com"), "git@git.example.com:my-app.git", Some("my-app")),
            (None, Some(""), "https://git.heroku.com/my-app.git", Some("my-app")),
        ] {
            assert_eq!(hosts(host, git_host).app_of_url(url).as_deref(), expected, "{url}");
        }
    }

    #[test]
    fn one_app_is_chosen_or_the_reason_is_said() {
        let remote = |name: &str, app: &str| Remote { name: name.to_owned(), app: app.to_owned() };
        let none = &[][..];
        let one = &[remote("production", "a")][..];
        let twice = &[remote("heroku", "a"), remote("production", "a")][..];
        let two = &[remote("heroku", "a"), remote("staging", "b")][..];
        for (remotes, wanted, configured, expected) in [
            (none, None, None, Ok(None)),
            (one, None, None, Ok(Some("a"))),
            (twice, None, None, Ok(Some("a"))),
            (two, Some("staging"), None, Ok(Some("b"))),
            (two, None, Some("staging"), Ok(Some("b"))),
            (two, Some("heroku"), Some("staging"), Ok(Some("a"))),
            (two, None, None, Err("the git remotes name several apps: a (heroku), b (staging)")),
            (two, Some("origin"), None, Err("--remote names \"origin\", which is not a git remote on Heroku")),
            (none, Some("heroku"), None, Err("--remote names \"heroku\", which is not a git remote on Heroku")),
            (
                one,
                None,
                Some("gone"),
                Err("git's configuration (heroku.remote) names \"gone\", which is not a git remote on Heroku"),
            ),
        ] {
            let chosen = choose(remotes, wanted, configured).map_err(|error| (error.kind, error.message));
            let expected = expected.map(|app| app.map(str::to_owned)).map_err(|text| (Kind::Refused, text.to_owned()));
            assert_eq!(chosen, expected);
        }
    }

    #[test]
    fn a_repository_is_found_from_below() {
        let dir = tempfile::tempdir().unwrap();
        let repository = Repository::init(dir.path()).unwrap();
        repository.remote("origin", "git@github.com:me/x.git").unwrap();
        repository.remote("heroku", "https://git.heroku.com/my-app.git").unwrap();
        repository.remote("staging", "short:my-staging.git").unwrap();
        let mut config = repository.config().unwrap().open_level(git2::ConfigLevel::Local).unwrap();
        config.set_str("url.https://git.heroku.com/.insteadOf", "short:").unwrap();
        let below = dir.path().join("engines/one");
        std::fs::create_dir_all(&below).unwrap();
        let hosts = hosts(None, None);

        assert_eq!(app(&below, Some("staging"), &hosts).unwrap().as_deref(), Some("my-staging"));
        assert!(app(&below, None, &hosts).unwrap_err().message.contains("several apps"));
        config.set_str("heroku.remote", "heroku").unwrap();
        assert_eq!(app(&below, None, &hosts).unwrap().as_deref(), Some("my-app"));
        assert_eq!(app(tempfile::tempdir().unwrap().path(), None, &hosts).unwrap(), None);
    }

    #[test]
    fn what_cannot_be_read_is_explained() {
        let error = git2::Error::new(ErrorCode::Owner, ErrorClass::Config, "not owned");
        let error = explain(Path::new("/srv/app"), &error);
        assert_eq!(error.to_string(), "the git repository around /srv/app cannot be read: it belongs to another user");
        assert_eq!(error.hint.as_deref(), Some("if you trust it: git config --global --add safe.directory /srv/app"));

        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(".git")).unwrap();
        Repository::init(dir.path()).unwrap();
        std::fs::write(dir.path().join(".git/config"), "[core\n").unwrap();
        let error = app(dir.path(), None, &hosts(None, None)).unwrap_err();
        assert_eq!((error.kind, error.hint.as_deref()), (Kind::Refused, Some("name the app with --app APP")));
    }
}
