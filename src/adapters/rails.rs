//! A Rails application on disk: its databases and its migrations.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use jiff::{Timestamp, ToSpan, tz::TimeZone};

use super::{files, ruby};
use crate::error::{Error, Kind, Result};
use crate::migrations::{Migrations, Version};
use crate::rails::{Overrides, RailsVersion, Resolved, Sources, environment, resolve};

const DATABASE_YML: &str = "config/database.yml";

/// The databases that Rails would migrate in the environment that `env` describes. Connects to none of them.
pub fn databases(root: &Path, env: &BTreeMap<String, String>, overrides: &Overrides) -> Result<Resolved> {
    let root = fs::canonicalize(root)
        .map_err(|cause| Error::new(Kind::Input, format!("{}: no such folder", root.display())).because(cause))?;
    let file = read(&root, DATABASE_YML)?;
    let sources = Sources { root: &root, file: file.as_deref(), rails: version(&root)?, env, overrides };
    resolve(&sources, || ruby::render(&root, DATABASE_YML, &environment(env), env))
}

/// The same, where it can be told without running the application's Ruby.
pub fn databases_without_ruby(root: &Path, env: &BTreeMap<String, String>, overrides: &Overrides) -> Result<Resolved> {
    let file = read(root, DATABASE_YML)?;
    let sources = Sources { root, file: file.as_deref(), rails: version(root)?, env, overrides };
    resolve(&sources, || Err(Error::new(Kind::Input, format!("{DATABASE_YML}: only Ruby can tell"))))
}

/// The migrations under these paths, by version, checked as Rails checks them.
pub fn migrations(root: &Path, paths: &[String]) -> Result<Migrations> {
    let migrations = Migrations::of(files::list(root, paths)?)?;
    let tomorrow =
        Timestamp::now().to_zoned(TimeZone::UTC).saturating_add(1.day()).strftime("%Y%m%d%H%M%S").to_string();
    let limit = Version::from_digits(&tomorrow);
    // Only a version from the future makes the question worth reading files for.
    if migrations.newest().is_some_and(|newest| *newest >= limit) && checks_timestamps(root)? {
        migrations.refuse_future(&limit)?;
    }
    Ok(migrations)
}

/// Whether the application refuses versions from the future: Rails 7.2 or later with the defaults of 7.2 or later, and no word
/// about it of its own, which only Ruby could understand.
fn checks_timestamps(root: &Path) -> Result<bool> {
    let application = read(root, "config/application.rb")?.unwrap_or_default();
    let application = String::from_utf8_lossy(&application);
    let mut code = application.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let defaults = code.find_map(|line| {
        let mut numbers =
            line.strip_prefix("config.load_defaults")?.trim_matches([' ', '(', ')']).split('.').map(str::parse);
        Some(RailsVersion(numbers.next()?.ok()?, numbers.next()?.ok()?))
    });
    let asked = defaults.is_some_and(|defaults| defaults >= RailsVersion(7, 2)) && version(root)? >= RailsVersion(7, 2);
    Ok(asked && !speaks_of_timestamps(&root.join("config")))
}

/// Whether any Ruby file of the configuration has a setting of its own for timestamps. What cannot be read may have one.
fn speaks_of_timestamps(folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return true };
    entries.flatten().any(|entry| {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => speaks_of_timestamps(&path),
            Ok(kind) if kind.is_file() && path.extension().is_some_and(|extension| extension == "rb") => {
                files::read_configuration(&path).map_or(true, |text| {
                    let text = String::from_utf8_lossy(&text);
                    text.contains("validate_migration_timestamps") || text.contains("timestamped_migrations")
                })
            }
            _ => false,
        }
    })
}

fn version(root: &Path) -> Result<RailsVersion> {
    let lock = read(root, "Gemfile.lock")?.unwrap_or_default();
    Ok(RailsVersion::from_lock(&String::from_utf8_lossy(&lock)).unwrap_or(RailsVersion::NEWEST))
}

/// A file of the application; `None` where it is not there.
fn read(root: &Path, name: &str) -> Result<Option<Vec<u8>>> {
    match files::read_configuration(&root.join(name)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(Error::new(Kind::Input, format!("{name}: cannot be read")).because(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_future_is_refused_where_the_application_asks_for_it() {
        let lock = ("Gemfile.lock", "    activerecord (7.2.1)\n");
        let future = ("db/migrate/99990101000000_x.rb", "");
        let table: [(&[(&str, &str)], bool); 5] = [
            (&[lock, future, ("config/application.rb", "    config.load_defaults 7.2\n")], true),
            (&[lock, future, ("config/application.rb", "    config.load_defaults 7.1\n")], false),
            (&[lock, future, ("config/application.rb", "    # config.load_defaults 7.2\n")], false),
            (
                &[
                    future,
                    ("Gemfile.lock", "    rails (7.1.0)\n"),
                    ("config/application.rb", "config.load_defaults(7.2)"),
                ],
                false,
            ),
            (
                &[
                    lock,
                    future,
                    ("config/application.rb", "config.load_defaults 8.0"),
                    (
                        "config/initializers/x.rb",
                        "Rails.application.config.active_record.validate_migration_timestamps = false",
                    ),
                ],
                false,
            ),
        ];
        for (files, refused) in table {
            let root = app(files);
            assert_eq!(migrations(root.path(), &["db/migrate".to_owned()]).is_err(), refused, "{files:?}");
        }
    }

    #[test]
    fn ruby_is_asked_only_when_needed() {
        let secret = "adapter: postgresql, database: d, pool: <%= Foo.pool %>";
        let root =
            app(&[("config/database.yml", &format!("production: {{{secret}}}\ntest: {{password: <%= 'a' * 3 %>}}\n"))]);
        let env = |name: &str| [("RAILS_ENV".to_owned(), name.to_owned())].into();
        // No PATH: a Ruby could not be found.
        assert!(databases(root.path(), &env("production"), &Overrides::default()).is_ok());
        let root = app(&[("config/database.yml", "production:\n  adapter: postgresql\n  host: <%= Foo.host %>\n")]);
        let error = databases(root.path(), &env("production"), &Overrides::default()).unwrap_err();
        assert!(error.message.starts_with("config/database.yml:3: `Foo.host` needs Ruby"), "{error}");
        let root = app(&[("config/database.yml", "production:\n  adapter: postgresql\n  host: <%= 'a' * 3 %>\n")]);
        let mut env: BTreeMap<_, _> = env("production");
        env.insert("PATH".to_owned(), std::env::var("PATH").unwrap());
        let Ok(Resolved::Databases(databases)) = databases(root.path(), &env, &Overrides::default()) else { panic!() };
        assert_eq!(databases[0].host.as_deref(), Some("aaa"));
        assert_eq!(databases[0].from, "config/database.yml:1");
    }
}
