//! The PostgreSQL adapter against real servers, compared with the real `psql` where that can be asked.

#![allow(clippy::unwrap_used, reason = "what cannot be had fails the test")]

#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/postgres.rs"]
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use proxy::Proxy;
use support::{Certificate, Certificates, PgBouncer, Postgres, PostgresOptions};
use unstuck::adapters::ConnectOptions;
use unstuck::adapters::postgres::{PostgresSession, connect};
use unstuck::ports::{Rows, Session, SqlError, SqlErrorKind};
use unstuck::rails::{Database, Engine};
use unstuck::secret::Secret;
use unstuck_standin::Reserved;

const DEADLINE: Duration = Duration::from_secs(30);

/// The cluster that all tests without wishes of their own share.
fn shared() -> &'static Postgres {
    static SHARED: OnceLock<Postgres> = OnceLock::new();
    SHARED.get_or_init(|| Postgres::start(&PostgresOptions::default()))
}

fn database(host: &str, port: u16) -> Database {
    Database {
        name: "primary".to_owned(),
        engine: Engine::Postgresql,
        adapter: "postgresql".to_owned(),
        host: Some(host.to_owned()),
        port: Some(port),
        socket: None,
        database: Some("postgres".to_owned()),
        username: Some("postgres".to_owned()),
        password: None,
        options: BTreeMap::new(),
        migrations_paths: vec!["db/migrate".to_owned()],
        schema_migrations_table: "schema_migrations".to_owned(),
        metadata_table: Some("ar_internal_metadata".to_owned()),
        from: "DATABASE_URL".to_owned(),
    }
}

fn on_socket(postgres: &Postgres) -> Database {
    database(postgres.socket_dir.to_str().unwrap(), postgres.port)
}

/// An environment in which nothing is set but a home folder that does not exist.
fn bare() -> BTreeMap<String, String> {
    BTreeMap::from([("HOME".to_owned(), "/nonexistent".to_owned())])
}

fn options() -> ConnectOptions {
    ConnectOptions { application_name: "unstuck/test".to_owned(), connect_timeout: DEADLINE }
}

fn open(db: &Database) -> Result<PostgresSession, SqlError> {
    connect(db, &bare(), options())
}

/// What one statement returns.
fn table<const N: usize>(values: &[[Option<&str>; N]]) -> Rows {
    let mut rows = Rows::new(N);
    for value in values.iter().flatten() {
        rows.push(*value);
    }
    rows
}

/// The one value of the one row that `sql` returns.
fn value(session: &mut PostgresSession, sql: &str) -> String {
    let sets = session.run(sql, DEADLINE).unwrap();
    sets[0].get(0, 0).unwrap().to_owned()
}

#[test]
fn one_message_gives_one_set_of_rows_for_each_statement_that_has_rows() {
    let mut session = open(&on_socket(shared())).unwrap();
    let sets =
        session.run("BEGIN; SELECT 1, NULL, 'ä'; SELECT 2 WHERE false; VALUES ('a'), ('b'); COMMIT", DEADLINE).unwrap();
    assert_eq!(sets, [table(&[[Some("1"), None, Some("ä")]]), table::<1>(&[]), table(&[[Some("a")], [Some("b")]])]);
}

#[test]
fn the_server_sees_the_application_name_and_the_pid_is_its_own_over_both_transports() {
    for db in [on_socket(shared()), database("127.0.0.1", shared().port), database("localhost", shared().port)] {
        let mut session = open(&db).unwrap();
        assert_eq!(value(&mut session, "SHOW application_name"), "unstuck/test");
        assert_eq!(session.handshake_id().unwrap().to_string(), value(&mut session, "SELECT pg_backend_pid()"));
    }
}

/// Roles that the server lets in, or not, by the way they come. The password of those that need one is [`ODD_PASSWORD`].
const HBA: [&str; 9] = [
    "hostssl all tls_only 127.0.0.1/32 trust",
    "hostnossl all tls_only 127.0.0.1/32 reject",
    "hostnossl all plain_only 127.0.0.1/32 trust",
    "hostssl all plain_only 127.0.0.1/32 reject",
    "host all with_md5 127.0.0.1/32 md5",
    "host all with_scram 127.0.0.1/32 scram-sha-256",
    "host all with_cleartext 127.0.0.1/32 password",
    "hostssl all with_certificate 127.0.0.1/32 cert",
    "host all all 127.0.0.1/32 trust",
];

const ODD_PASSWORD: &str = r#"it's "odd": ä\ %40 ß"#;

/// A cluster with the roles of [`HBA`].
fn guarded() -> Postgres {
    let postgres = Postgres::start(&PostgresOptions { hba: &HBA, ..PostgresOptions::default() });
    let literal = ODD_PASSWORD.replace('\'', "''");
    postgres.sql("CREATE ROLE tls_only LOGIN; CREATE ROLE plain_only LOGIN; CREATE ROLE with_certificate LOGIN");
    postgres.sql(&format!("SET password_encryption = 'md5'; CREATE ROLE with_md5 LOGIN PASSWORD '{literal}'"));
    postgres.sql(&format!(
        "CREATE ROLE with_scram LOGIN PASSWORD '{literal}'; CREATE ROLE with_cleartext LOGIN PASSWORD '{literal}'"
    ));
    postgres
}

fn with_options(mut db: Database, options: &[(&str, &str)]) -> Database {
    db.options.extend(options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    db
}

fn as_user(mut db: Database, user: &str, password: Option<&str>) -> Database {
    db.username = Some(user.to_owned());
    db.password = password.map(Secret::new);
    db
}

/// Why the session could not be opened.
fn refusal(db: &Database) -> SqlError {
    open(db).err().unwrap()
}

const IS_ENCRYPTED: &str = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";

/// Opens a session both ways, in the same words, and returns what each says about its encryption.
fn both_ways(
    postgres: &Postgres,
    user: &str,
    options: &[(&str, &str)],
) -> (Result<String, SqlError>, Result<String, String>) {
    let db = with_options(as_user(database("localhost", postgres.port), user, None), options);
    let ours = open(&db).map(|mut session| value(&mut session, IS_ENCRYPTED));
    let words: Vec<String> = options.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let conninfo = format!("host=localhost port={} user={user} dbname=postgres {}", postgres.port, words.join(" "));
    (ours, Postgres::psql(&conninfo, &[("HOME", "/nonexistent")], IS_ENCRYPTED))
}

const MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

#[test]
fn every_sslmode_with_every_certificate_ends_as_in_psql() {
    let postgres = guarded();
    let make = Certificates::new();
    let (authority, stranger) = (make.self_signed("ca", "Authority"), make.self_signed("other", "Other"));
    let self_signed = make.self_signed("self", "localhost");
    let self_expired = make.expired("self-expired", &self_signed);
    let right = "subjectAltName=DNS:localhost";
    let certificates = [
        ("none", None),
        ("self-signed", Some(self_signed.clone())),
        ("self-signed, expired", Some(self_expired.clone())),
        ("right name", Some(make.signed("right", &authority, "db", right, 2))),
        ("wrong name", Some(make.signed("wrong", &authority, "localhost", "subjectAltName=DNS:db.example", 2))),
        ("name in the subject", Some(make.signed("subject", &authority, "localhost", "basicConstraints=CA:FALSE", 2))),
        ("expired", Some(make.signed("expired", &authority, "db", right, -1))),
        ("version 1", Some(make.signed("v1", &authority, "localhost", "", 2))),
    ];
    let file = |certificate: &Certificate| certificate.file.to_str().unwrap().to_owned();
    let roots = [
        None,
        Some(file(&authority)),
        Some(file(&stranger)),
        Some(file(&self_signed)),
        Some(file(&self_expired)),
        Some("/nonexistent".into()),
    ];

    let mut connected = 0;
    for (what, certificate) in &certificates {
        postgres.present(certificate.as_ref(), None);
        for mode in MODES {
            for root in &roots {
                let mut options = vec![("sslmode", mode)];
                options.extend(root.iter().map(|root| ("sslrootcert", root.as_str())));
                let (ours, psql) = both_ways(&postgres, "postgres", &options);
                let case = format!("{what}, {mode}, root {root:?}: ours {ours:?}, psql {psql:?}");
                // What psql does and we cannot: verify a certificate of version 1. It has to be said in plain words.
                if *what == "version 1" && root.as_ref() == Some(&file(&authority)) && psql == Ok("t".to_owned()) {
                    match (mode, ours) {
                        ("prefer", ours) => assert_eq!(ours, Ok("f".to_owned()), "{case}"),
                        (_, ours) => {
                            let error = ours.expect_err(&case);
                            assert_eq!(error.kind, SqlErrorKind::Tls, "{case}");
                            assert!(error.message.contains("X.509 version 1"), "{case}");
                        }
                    }
                    continue;
                }
                assert_eq!(ours.as_ref().ok(), psql.as_ref().ok(), "{case}");
                connected += usize::from(ours.is_ok());
                assert!(ours.is_ok() || ours.is_err_and(|error| error.kind == SqlErrorKind::Tls), "{case}");
            }
        }
    }
    assert!(connected > 50, "only {connected} connections were made");
}

#[test]
fn a_server_that_takes_a_role_only_with_or_without_tls_is_reached_as_by_psql() {
    let postgres = guarded();
    let make = Certificates::new();
    let certificate = make.self_signed("self", "localhost");
    for certificate in [None, Some(&certificate)] {
        postgres.present(certificate, None);
        for user in ["tls_only", "plain_only"] {
            for mode in MODES {
                let (ours, psql) = both_ways(&postgres, user, &[("sslmode", mode)]);
                let case = format!("{user}, {mode}, {certificate:?}: ours {ours:?}, psql {psql:?}");
                assert_eq!(ours.ok(), psql.ok(), "{case}");
            }
        }
    }
}

#[test]
fn every_way_to_log_in_works_with_and_without_tls() {
    let postgres = guarded();
    let make = Certificates::new();
    let authority = make.self_signed("ca", "Authority");
    // One signed with RSA, one with ECDSA: each has its own hash for channel binding.
    for certificate in [make.self_signed("rsa", "localhost"), self_signed_ecdsa(&make)] {
        postgres.present(Some(&certificate), Some(&authority));
        for user in ["with_md5", "with_scram", "with_cleartext"] {
            for mode in ["disable", "require"] {
                let db = with_options(database("localhost", postgres.port), &[("sslmode", mode)]);
                let mut session = open(&as_user(db.clone(), user, Some(ODD_PASSWORD))).unwrap();
                assert_eq!(value(&mut session, "SELECT current_user"), user, "{mode}");

                let wrong = refusal(&as_user(db.clone(), user, Some("wr0ng")));
                let message = format!("FATAL 28P01: password authentication failed for user \"{user}\"");
                assert_eq!((wrong.kind, wrong.message), (SqlErrorKind::Denied, message));

                let none = refusal(&as_user(db, user, None));
                let message = format!("login at localhost:{} failed: password missing", postgres.port);
                assert_eq!((none.kind, none.message), (SqlErrorKind::Denied, message));
            }
        }
        let bound = with_options(
            as_user(database("localhost", postgres.port), "with_scram", Some(ODD_PASSWORD)),
            &[("channel_binding", "require")],
        );
        assert!(open(&with_options(bound.clone(), &[("sslmode", "require")])).is_ok());
        assert_eq!(refusal(&with_options(bound, &[("sslmode", "disable")])).kind, SqlErrorKind::Denied);
    }
}

fn self_signed_ecdsa(make: &Certificates) -> Certificate {
    let authority = make.self_signed("authority", "Authority");
    let key = make.signed("ecdsa-authority", &authority, "Authority", "basicConstraints=CA:TRUE", 2);
    make.signed("ecdsa", &key, "localhost", "basicConstraints=CA:FALSE", 2)
}

#[test]
fn the_systems_authorities_do_not_vouch_for_a_self_signed_server_and_a_missing_root_file_is_named() {
    let postgres = guarded();
    let make = Certificates::new();
    postgres.present(Some(&make.self_signed("self", "localhost")), None);
    let db = database("localhost", postgres.port);
    let error = refusal(&with_options(db.clone(), &[("sslrootcert", "system")]));
    let message = "TLS handshake with localhost failed: no trusted authority signed the server's certificate";
    assert_eq!((error.kind, error.message.as_str()), (SqlErrorKind::Tls, message));
    let error = refusal(&with_options(db, &[("sslmode", "verify-full")]));
    let message = "root certificate file /nonexistent/.postgresql/root.crt does not exist";
    assert_eq!((error.kind, error.message.as_str()), (SqlErrorKind::Tls, message));
}

#[test]
fn a_client_certificate_lets_in_and_its_absence_is_told() {
    let postgres = guarded();
    let make = Certificates::new();
    let authority = make.self_signed("ca", "Authority");
    let server = make.self_signed("self", "localhost");
    let client = make.signed("client", &authority, "with_certificate", "basicConstraints=CA:FALSE", 2);
    postgres.present(Some(&server), Some(&authority));

    let db = as_user(database("localhost", postgres.port), "with_certificate", None);
    let db = with_options(db, &[("sslmode", "require")]);
    let files = [("sslcert", client.file.to_str().unwrap()), ("sslkey", client.key.to_str().unwrap())];
    assert_eq!(value(&mut open(&with_options(db.clone(), &files)).unwrap(), "SELECT current_user"), "with_certificate");
    assert_eq!(refusal(&db).kind, SqlErrorKind::Denied);

    let foreign = make.self_signed("foreign", "with_certificate");
    let files = [("sslcert", foreign.file.to_str().unwrap()), ("sslkey", foreign.key.to_str().unwrap())];
    assert_eq!(refusal(&with_options(db.clone(), &files)).kind, SqlErrorKind::Tls);
    let no_key = [("sslcert", client.file.to_str().unwrap()), ("sslkey", "/nonexistent/key")];
    let error = refusal(&with_options(db, &no_key));
    assert!(error.kind == SqlErrorKind::Tls && error.message.contains("/nonexistent/key"), "{error}");
}

#[test]
fn an_unknown_database_and_a_port_that_nobody_listens_on_are_unreachable() {
    let mut db = on_socket(shared());
    db.database = Some("nowhere".to_owned());
    let error = refusal(&db);
    assert_eq!(error.message, "FATAL 3D000: database \"nowhere\" does not exist");
    assert_eq!(error.kind, SqlErrorKind::Unreachable);

    let error = refusal(&database("127.0.0.1", Reserved::new().unwrap().port));
    assert_eq!(error.kind, SqlErrorKind::Unreachable);
    assert!(error.message.contains("refused"), "{error}");

    let error = refusal(&database("no-such-host.invalid", 5432));
    assert_eq!(error.kind, SqlErrorKind::Unreachable);
    assert!(error.message.contains("no-such-host.invalid"), "{error}");
}

#[test]
fn hosts_are_tried_in_order_until_one_is_what_is_wanted() {
    let postgres = shared();
    let mut db = on_socket(postgres);
    db.host = Some("127.0.0.1,127.0.0.1".to_owned());
    db.port = None;
    let nobody_listens = Reserved::new().unwrap();
    let ports = format!("{},{}", nobody_listens.port, postgres.port);
    let db = with_options(db, &[("port", ports.as_str())]);
    for wanted in ["any", "read-write", "primary", "prefer-standby"] {
        assert!(open(&with_options(db.clone(), &[("target_session_attrs", wanted)])).is_ok(), "{wanted}");
    }
    for wanted in ["read-only", "standby"] {
        let error = refusal(&with_options(db.clone(), &[("target_session_attrs", wanted)]));
        assert!(error.kind == SqlErrorKind::Unreachable && error.message.contains("target_session_attrs"), "{error}");
    }
}

#[test]
fn passwords_come_from_the_environment_and_from_a_file_that_only_its_owner_reads() {
    let postgres = guarded();
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join(".pgpass");
    let escaped = ODD_PASSWORD.replace('\\', r"\\").replace(':', r"\:");
    fs::write(&file, format!("# comment\nother:*:*:*:no\n127.0.0.1:{}:*:with_scram:{escaped}\n", postgres.port))
        .unwrap();
    let db = as_user(database("127.0.0.1", postgres.port), "with_scram", None);
    let with_env = |variables: &[(&str, &str)]| {
        let mut env = BTreeMap::from([("HOME".to_owned(), home.path().to_str().unwrap().to_owned())]);
        env.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        connect(&db, &env, options())
    };
    let conninfo = format!("host=127.0.0.1 port={} user=with_scram dbname=postgres", postgres.port);
    let psql = || Postgres::psql(&conninfo, &[("HOME", home.path().to_str().unwrap())], "SELECT 1");

    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(with_env(&[]).is_ok() && psql().is_ok());
    assert_eq!(with_env(&[("PGPASSWORD", "wr0ng")]).err().unwrap().kind, SqlErrorKind::Denied);

    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(psql().is_err());
    let error = with_env(&[]).err().unwrap();
    assert_eq!(error.kind, SqlErrorKind::Denied);
    assert!(error.hint.unwrap().contains("chmod 600"));
    assert!(with_env(&[("PGPASSWORD", ODD_PASSWORD)]).is_ok());
}

#[test]
fn what_is_not_configured_comes_from_the_environment_and_from_the_service() {
    let postgres = shared();
    postgres.sql("CREATE ROLE of_the_service LOGIN");
    let services = postgres.socket_dir.join("services");
    fs::write(&services, "[other]\nuser=nobody\n[mine]\nuser=of_the_service\ndbname=postgres\n").unwrap();
    let mut db = on_socket(postgres);
    (db.host, db.port, db.username, db.database) = (None, None, None, None);
    let variables = [
        ("HOME", "/nonexistent".to_owned()),
        ("PGHOST", postgres.socket_dir.display().to_string()),
        ("PGPORT", postgres.port.to_string()),
        ("PGUSER", "postgres".to_owned()),
        ("PGSERVICEFILE", services.display().to_string()),
    ];
    let env: BTreeMap<String, String> = variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let who =
        |db: &Database| connect(db, &env, options()).map(|mut session| value(&mut session, "SELECT current_user"));
    assert_eq!(who(&db).unwrap(), "postgres");
    assert_eq!(who(&with_options(db.clone(), &[("service", "mine")])).unwrap(), "of_the_service");
    let error = who(&with_options(db, &[("service", "absent")])).unwrap_err();
    assert_eq!(error.message, "definition of service \"absent\" not found");
}

#[test]
fn what_a_statement_failed_of_is_told_by_its_code() {
    let postgres = shared();
    postgres.sql("CREATE TABLE kinds (id int PRIMARY KEY); INSERT INTO kinds VALUES (1); CREATE ROLE poor LOGIN");
    let mut holder = open(&on_socket(postgres)).unwrap();
    holder.run("BEGIN; LOCK TABLE kinds", DEADLINE).unwrap();
    let mut session = open(&on_socket(postgres)).unwrap();
    let cases = [
        ("SELECT * FROM absent", SqlErrorKind::NoTable, "ERROR 42P01: relation \"absent\" does not exist"),
        ("SELECT absent FROM pg_class", SqlErrorKind::NoColumn, "ERROR 42703: column \"absent\" does not exist"),
        (
            "BEGIN READ ONLY; CREATE TABLE t (id int)",
            SqlErrorKind::ReadOnly,
            "ERROR 25006: cannot execute CREATE TABLE in a read-only transaction",
        ),
        (
            "SET LOCAL ROLE poor; CREATE TABLE public.t (id int)",
            SqlErrorKind::ReadOnly,
            "ERROR 42501: permission denied for schema public",
        ),
        (
            "SET LOCAL lock_timeout = 1; SELECT * FROM kinds",
            SqlErrorKind::Locked,
            "ERROR 55P03: canceling statement due to lock timeout",
        ),
        ("SELEC", SqlErrorKind::Other, "ERROR 42601: syntax error at or near \"SELEC\""),
    ];
    for (sql, kind, message) in cases {
        let error = session.run(sql, DEADLINE).unwrap_err();
        assert_eq!((error.kind, error.message.as_str()), (kind, message));
        session.run("ROLLBACK", DEADLINE).unwrap();
    }
    holder.run("ROLLBACK", DEADLINE).unwrap();
    let error = session.run("INSERT INTO kinds VALUES (1)", DEADLINE).unwrap_err();
    assert_eq!(error.kind, SqlErrorKind::Duplicate);
}

#[test]
fn a_session_that_the_server_ends_is_lost_and_stays_so() {
    let mut session = open(&on_socket(shared())).unwrap();
    shared().sql(&format!("SELECT pg_terminate_backend({}, 30000)", session.handshake_id().unwrap()));
    let error = session.run("SELECT 1", DEADLINE).unwrap_err();
    let message = "FATAL 57P01: terminating connection due to administrator command";
    assert_eq!((error.kind, error.message.as_str()), (SqlErrorKind::Lost, message));
    assert_eq!(session.run("SELECT 1", DEADLINE).unwrap_err(), error);
}

#[test]
fn a_server_that_goes_silent_is_lost_by_the_deadline() {
    let proxy = Proxy::to(shared().port);
    let mut session = open(&database("127.0.0.1", proxy.port)).unwrap();
    assert_eq!(value(&mut session, "SELECT 1"), "1");
    proxy.stall();
    let error = session.run("SELECT 1", Duration::from_millis(100)).unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (SqlErrorKind::Lost, "the server did not answer within 100.0ms"));
    proxy.pass();
    assert_eq!(session.run("SELECT 1", DEADLINE).unwrap_err(), error);
}

#[test]
fn a_statement_that_trickles_ends_by_the_same_deadline() {
    let mut session = open(&on_socket(shared())).unwrap();
    let sql = "SELECT generate_series(1, 1000), pg_sleep(0.05)";
    assert_eq!(session.run(sql, Duration::from_millis(300)).unwrap_err().kind, SqlErrorKind::Lost);
}

#[test]
fn a_port_that_accepts_and_says_nothing_is_unreachable_by_the_time_out() {
    let mute = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let db = database("127.0.0.1", mute.local_addr().unwrap().port());
    for mode in ["disable", "prefer", "verify-full"] {
        let db = with_options(
            db.clone(),
            &[("sslmode", mode), ("sslrootcert", "system")][..if mode == "verify-full" { 2 } else { 1 }],
        );
        let options = ConnectOptions { connect_timeout: Duration::from_millis(100), ..options() };
        assert_eq!(connect(&db, &bare(), options).err().unwrap().kind, SqlErrorKind::Unreachable, "{mode}");
    }
}

#[test]
fn a_transaction_pooler_is_spoken_to_and_known_by_its_pid() {
    let make = Certificates::new();
    let certificate = make.self_signed("self", "localhost");
    for (certificate, mode) in [(None, "prefer"), (Some(&certificate), "require")] {
        let pooler = PgBouncer::in_front_of(shared(), certificate);
        let db = as_user(database("127.0.0.1", pooler.port), "postgres", Some(PgBouncer::PASSWORD));
        let db = with_options(db, &[("sslmode", mode), ("prepared_statements", "false"), ("pool", "5")]);
        let mut session = open(&db).unwrap();
        assert_ne!(session.handshake_id().unwrap().to_string(), value(&mut session, "SELECT pg_backend_pid()"));

        thread::scope(|scope| {
            for client in 0..12 {
                let db = &db;
                scope.spawn(move || {
                    for round in 0..20 {
                        let mut session = open(db).unwrap();
                        let sql = format!(
                            "BEGIN; SET LOCAL work_mem = '1MB'; SELECT {client}, {round}; SHOW work_mem; COMMIT"
                        );
                        let sets = session.run(&sql, DEADLINE).unwrap();
                        let numbers = table(&[[Some(&*client.to_string()), Some(&*round.to_string())]]);
                        assert_eq!(sets, [numbers, table(&[[Some("1MB")]])]);
                    }
                });
            }
        });

        let error = refusal(&as_user(db, "postgres", Some("wr0ng")));
        // It has one code for all of its own errors.
        assert_eq!(error.message, "FATAL 08P01: password authentication failed");
    }
}

const TAKE_LOCK: &str = "SELECT pg_advisory_lock(7, 8)";
const LOCKS: &str = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 7";

/// A child that holds the session's socket until its own standard input ends. What it reads there it sends to the server.
fn child_with_socket(session: &PostgresSession, stdin: Stdio) -> Child {
    let socket = session.socket().unwrap().try_clone_to_owned().unwrap();
    Command::new("cat").stdin(stdin).stdout(Stdio::from(socket)).spawn().unwrap()
}

fn wait_for_locks(postgres: &Postgres, wanted: &str) {
    loop {
        let seen = postgres.sql(LOCKS);
        if seen == wanted {
            break;
        }
        assert_ne!(seen, "0", "the session has ended");
    }
}

fn wait_until_unlocked(postgres: &Postgres) {
    while postgres.sql(LOCKS) != "0" {
        thread::yield_now();
    }
}

/// Sends one more statement past the session. The server answers what comes in in order, so that the second lock shows that
/// nothing before it has ended the session.
fn prove_alive(postgres: &Postgres, mut child_stdin: &ChildStdin) {
    let sql = b"SELECT pg_advisory_lock(7, 9)\0";
    let length = u32::try_from(sql.len() + 4).unwrap().to_be_bytes();
    child_stdin.write_all(&[b"Q", &length[..], sql].concat()).unwrap();
    wait_for_locks(postgres, "2");
}

#[test]
fn a_child_keeps_the_lock_of_a_session_that_is_abandoned_but_not_of_one_that_is_closed() {
    let postgres = guarded();
    for db in [on_socket(&postgres), database("127.0.0.1", postgres.port)] {
        let mut session = open(&db).unwrap();
        session.run(TAKE_LOCK, DEADLINE).unwrap();
        let mut child = child_with_socket(&session, Stdio::piped());
        Box::new(session).abandon();
        prove_alive(&postgres, child.stdin.as_ref().unwrap());
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
        wait_until_unlocked(&postgres);

        let mut session = open(&db).unwrap();
        session.run(TAKE_LOCK, DEADLINE).unwrap();
        let mut child = child_with_socket(&session, Stdio::piped());
        drop(session);
        wait_until_unlocked(&postgres);
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}

#[test]
fn an_abandoned_session_with_tls_says_no_goodbye_either() {
    let postgres = guarded();
    let make = Certificates::new();
    postgres.present(Some(&make.self_signed("self", "localhost")), None);
    let db = with_options(database("localhost", postgres.port), &[("sslmode", "require")]);
    let mut session = open(&db).unwrap();
    session.run(TAKE_LOCK, DEADLINE).unwrap();
    let mut child = child_with_socket(&session, Stdio::piped());
    Box::new(session).abandon();
    assert_eq!(postgres.sql(LOCKS), "1");
    // Only a server that still listens to the session complains of what is no TLS.
    child.stdin.take().unwrap().write_all(b"this is not TLS").unwrap();
    wait_until_unlocked(&postgres);
    child.wait().unwrap();
    let log = fs::read_to_string(postgres.socket_dir.join("log")).unwrap();
    assert!(log.contains("SSL error: wrong version number"), "{log}");
}

/// The test runs itself once more as the process that is killed; this variable tells it where the server is.
const HOLD_LOCK_AT: &str = "HOLD_LOCK_AT";

#[test]
fn a_child_keeps_the_lock_of_a_process_that_is_killed() {
    if let Ok(place) = std::env::var(HOLD_LOCK_AT) {
        let (host, port) = place.rsplit_once(':').unwrap();
        let mut session = open(&database(host, port.parse().unwrap())).unwrap();
        session.run(TAKE_LOCK, DEADLINE).unwrap();
        let mut child = child_with_socket(&session, Stdio::inherit());
        println!("locked");
        child.wait().unwrap();
        return;
    }
    let postgres = guarded();
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "a_child_keeps_the_lock_of_a_process_that_is_killed"])
        .env(HOLD_LOCK_AT, format!("{}:{}", postgres.socket_dir.display(), postgres.port))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.contains("locked")), "the holder ended early");
    let stdin = holder.stdin.take().unwrap();
    holder.kill().unwrap();
    holder.wait().unwrap();
    prove_alive(&postgres, &stdin);
    drop(stdin);
    wait_until_unlocked(&postgres);
}
