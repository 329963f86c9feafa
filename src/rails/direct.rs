//! The way around a connection pooler, as far as the environment knows it.

use std::collections::BTreeMap;

use super::url::configuration;
use super::version::RailsVersion;
use super::{Database, Engine};
use crate::secret::Secret;

/// Words in the names of variables that lead to a pooler: `DATABASE_CONNECTION_POOL_URL`, `DATABASE_URL_PGBOUNCER`.
const POOLERS: [&str; 2] = ["POOL", "BOUNCER"];

/// PostgreSQL's port where none is given.
const PORT: u16 = 5432;

/// The variables whose URL leads to the database of `pooled` by another address.
pub fn direct_variables(pooled: &Database, env: &BTreeMap<String, String>) -> Vec<String> {
    if pooled.engine != Engine::Postgresql {
        return Vec::new();
    }
    let is_pooler = |name: &str| POOLERS.iter().any(|word| name.contains(word));
    let found = env.iter().filter(|(name, url)| name.contains("URL") && !is_pooler(name) && leads_to(pooled, url));
    found.map(|(name, _)| name.clone()).collect()
}

/// The database is taken to be the same where the credentials are (Heroku gives each database its own), since a pooler may
/// call it by another name; or else where user and name are.
fn leads_to(pooled: &Database, url: &str) -> bool {
    let Ok(pairs) = configuration(url, RailsVersion::NEWEST) else { return false };
    let get = |key: &str| pairs.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str());
    let same = |own: Option<&str>, other: Option<&str>| own.is_some() && own == other;
    let port = get("port").map_or(Some(PORT), |port| port.parse().ok());
    matches!(get("adapter"), Some("postgresql" | "postgis"))
        && same(get("username"), pooled.username.as_deref())
        && (same(get("password"), pooled.password.as_ref().map(Secret::expose))
            || same(get("database"), pooled.database.as_deref()))
        && (get("host"), port) != (pooled.host.as_deref(), pooled.port.or(Some(PORT)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_database_by_another_address_is_found() {
        let pooled = Database {
            name: "primary".into(),
            engine: Engine::Postgresql,
            adapter: "postgresql".into(),
            host: Some("127.0.0.1".into()),
            port: Some(6000),
            socket: None,
            database: Some("db1".into()),
            username: Some("ann".into()),
            password: Some(Secret::new("p@ss")),
            options: BTreeMap::new(),
            migrations_paths: Vec::new(),
            schema_migrations_table: String::new(),
            metadata_table: None,
            from: "DATABASE_URL".into(),
        };
        for (name, url, expected) in [
            ("HEROKU_POSTGRESQL_AMBER_URL", "postgres://ann:p%40ss@ec2.example:5432/d3adb33f", true),
            ("PRIMARY_URL", "postgres://ann@db.example/db1", true),
            ("DATABASE_URL", "postgres://ann:p%40ss@127.0.0.1:6000/db1", false),
            ("DATABASE_URL_PGBOUNCER", "postgres://ann:p%40ss@127.0.0.1:7000/db1", false),
            ("DATABASE_CONNECTION_POOL_URL", "postgres://ann:p%40ss@ec2.example:5433/d3adb33f", false),
            ("HEROKU_POSTGRESQL_BLACK_URL", "postgres://bob:other@ec2.example:5432/db1", false),
            ("HEROKU_POSTGRESQL_COPPER_URL", "postgres://ann:other@ec2.example:5432/other", false),
            ("MYSQL_URL", "mysql2://ann:p%40ss@ec2.example/db1", false),
            ("WEBSITE_URL", "https://example.com/", false),
            ("ODD_URL", "postgres://[", false),
        ] {
            let found = direct_variables(&pooled, &BTreeMap::from([(name.to_owned(), url.to_owned())]));
            assert_eq!(found == [name], expected, "{name}: {found:?}");
        }
    }
}
