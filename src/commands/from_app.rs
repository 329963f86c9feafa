//! The app's own databases, looked at from outside, where that is asked for.

use std::borrow::Cow;

use crate::adapters::heroku::Heroku;
use crate::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::report::Reporter;

/// What the URL of a database begins with, in the words of Rails' adapters.
const SCHEMES: [&str; 7] = ["postgres:", "postgresql:", "postgis:", "mysql:", "mysql2:", "trilogy:", "sqlite3:"];

/// The settings as they are, or with the databases of the app where they are `wanted`.
pub fn settings<'a>(settings: &'a Settings, wanted: bool, reporter: &Reporter) -> Result<Cow<'a, Settings>> {
    if !wanted {
        return Ok(Cow::Borrowed(settings));
    }
    with_databases_of(&super::heroku(settings, reporter)?, settings).map(Cow::Owned)
}

/// The settings with the URLs of databases from the app's config vars in the place of those of this machine, and the app's
/// `RAILS_ENV`. Nothing else is taken over.
pub fn with_databases_of(app: &Heroku, settings: &Settings) -> Result<Settings> {
    let vars = app.config_vars().map_err(|error| {
        Error::new(Kind::Api, "the app's config vars cannot be read")
            .because(error)
            .hint("the token needs the scope read-protected for that; `heroku login` gives one that has it")
    })?;
    let mut settings = settings.clone();
    settings.env.retain(|name, value| !is_database(name, value) && !matches!(name.as_str(), "RAILS_ENV" | "RACK_ENV"));
    let taken = |name: &str, value: &str| is_database(name, value) || matches!(name, "RAILS_ENV" | "RACK_ENV");
    let vars = vars.iter().map(|(name, value)| (name, value.expose())).filter(|(name, value)| taken(name, value));
    settings.env.extend(vars.map(|(name, value)| (name.clone(), value.to_owned())));
    settings.env.entry("RACK_ENV".to_owned()).or_insert_with(|| "production".to_owned());
    if !settings.env.iter().any(|(name, value)| is_database(name, value)) {
        return Err(Error::new(Kind::Input, "no config var of the app is the URL of a database")
            .hint("`heroku config` shows them; DATABASE_URL is the usual one"));
    }
    // Heroku's databases speak TLS, with certificates that only they themselves have signed.
    if !settings.host()?.is_loopback() {
        settings.env.entry("PGSSLMODE".to_owned()).or_insert_with(|| "require".to_owned());
    }
    Ok(settings)
}

fn is_database(name: &str, value: &str) -> bool {
    name.ends_with("DATABASE_URL") || (name.ends_with("_URL") && SCHEMES.iter().any(|scheme| value.starts_with(scheme)))
}

#[cfg(test)]
mod tests {
    use super::is_database;

    #[test]
    fn a_database_is_known_by_its_name_or_by_its_address() {
        for (name, value, expected) in [
            ("DATABASE_URL", "", true),
            ("CACHE_DATABASE_URL", "x", true),
            ("HEROKU_POSTGRESQL_AMBER_URL", "postgres://h/d", true),
            ("JAWSDB_URL", "mysql://h/d", true),
            ("REDIS_URL", "redis://h", false),
            ("WEBSITE_URL", "https://postgres:1", false),
            ("DATABASE_POOL", "postgres://h/d", false),
        ] {
            assert_eq!(is_database(name, value), expected, "{name}");
        }
    }
}
