//! The MySQL session against a real MariaDB, and against servers that misbehave.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the helpers of a test fail by panicking")]

#[allow(dead_code, reason = "each test uses a part of what the tests share")]
#[path = "support/mariadb.rs"]
mod mariadb;

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use mariadb::{Mariadb, MariadbOptions};
use tempfile::TempDir;
use unstuck::adapters::ConnectOptions;
use unstuck::adapters::mysql::{self, MysqlSession};
use unstuck::ports::{Rows, Session, SqlError, SqlErrorKind};
use unstuck::rails::{Database, Engine};
use unstuck::secret::Secret;
use unstuck_standin::Reserved;

/// Long enough for a busy machine; only what is expected to run out of time gets [`SHORT`].
const DEADLINE: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(300);

#[test]
fn statements_give_their_rows_as_text_and_errors_by_kind() {
    let server = Mariadb::start(MariadbOptions {
        arguments: vec!["--performance-schema=ON".to_owned()],
        ..MariadbOptions::default()
    });
    let db = database("127.0.0.1", server.port);
    let mut session = connect(&db).unwrap();
    let sql = "SELECT 1, NULL, '', 1.50, TIMESTAMP'2026-11-22 01:02:03', x'61ff', 'é'; \
               CREATE TABLE t (a INT PRIMARY KEY); INSERT INTO t VALUES (1), (2); SELECT a FROM t ORDER BY a; \
               SELECT a FROM t WHERE a > 2";
    let printed = [Some("1"), None, Some(""), Some("1.50"), Some("2026-11-22 01:02:03"), Some("a\u{fffd}"), Some("é")];
    assert_eq!(
        session.run(sql, DEADLINE).unwrap(),
        [table(&[printed]), table(&[[Some("1")], [Some("2")]]), table::<1>(&[])]
    );
    let long = "x".repeat(100_000);
    assert_eq!(one(&mut session, "SELECT REPEAT('x', 100000)"), long);
    assert_eq!(one(&mut session, &format!("SELECT LENGTH('{long}')")), "100000");
    assert_eq!(one(&mut session, "SELECT CONNECTION_ID()"), session.handshake_id().unwrap().to_string());
    let name =
        "SELECT attr_value FROM performance_schema.session_account_connect_attrs WHERE attr_name = 'program_name'";
    assert_eq!(one(&mut session, name), "unstuck/test");

    let mut other = connect(&db).unwrap();
    other.run("BEGIN; SELECT a FROM t WHERE a = 2 FOR UPDATE", DEADLINE).unwrap();
    server.sql("CREATE USER reader IDENTIFIED BY ''; GRANT SELECT ON app.t TO reader");
    let mut reader = connect(&Database { username: Some("reader".to_owned()), password: None, ..db.clone() }).unwrap();
    assert_eq!(reader.run("INSERT INTO t VALUES (9)", DEADLINE).unwrap_err().kind, SqlErrorKind::ReadOnly);
    for (sql, expected) in [
        ("SELECT * FROM nobody", SqlErrorKind::NoTable),
        ("SELECT missing FROM t", SqlErrorKind::NoColumn),
        ("INSERT INTO t VALUES (1)", SqlErrorKind::Duplicate),
        ("START TRANSACTION READ ONLY; INSERT INTO t VALUES (9)", SqlErrorKind::ReadOnly),
        ("ROLLBACK; SELECT a FROM t WHERE a = 2 FOR UPDATE NOWAIT", SqlErrorKind::Locked),
        ("SELECT * FROM mysql.global_priv", SqlErrorKind::Denied),
        ("SELEC 1", SqlErrorKind::Other),
    ] {
        let error = session.run(sql, DEADLINE).unwrap_err();
        assert_eq!(error.kind, expected, "{sql}: {error}");
    }
    let sql = "INSERT INTO t VALUES (3); SELECT * FROM nobody; INSERT INTO t VALUES (4)";
    assert_eq!(session.run(sql, DEADLINE).unwrap_err().kind, SqlErrorKind::NoTable);
    assert_eq!(one(&mut session, "SELECT MAX(a) FROM t"), "3", "statements after the one that failed are not run");

    server.sql("SET GLOBAL read_only = 1");
    assert_eq!(session.run("INSERT INTO t VALUES (5)", DEADLINE).unwrap_err().kind, SqlErrorKind::ReadOnly);
    server.sql(&format!("KILL {}", session.handshake_id().unwrap()));
    for _ in 0..2 {
        assert_eq!(session.run("SELECT 1", DEADLINE).unwrap_err().kind, SqlErrorKind::Lost);
    }
}

#[test]
fn connecting_fails_by_kind_and_never_shows_the_password() {
    let server = Mariadb::start(MariadbOptions::default());
    let good = database("127.0.0.1", server.port);
    let with_mode = |mode: &str| Database { options: map(&[("ssl_mode", mode)]), ..good.clone() };
    let nobody_listens = Reserved::new().unwrap();
    for (db, kind, part) in [
        (Database { password: Some(Secret::new("wr0ng")), ..good.clone() }, SqlErrorKind::Denied, "ERROR 1045"),
        (Database { username: Some("bob".to_owned()), ..good.clone() }, SqlErrorKind::Denied, "ERROR 1045"),
        (Database { database: Some("mysql".to_owned()), ..good.clone() }, SqlErrorKind::Denied, "ERROR 1044"),
        (Database { port: Some(nobody_listens.port), ..good.clone() }, SqlErrorKind::Unreachable, "127.0.0.1:"),
        (
            Database { host: Some("no-such-host.invalid".to_owned()), ..good.clone() },
            SqlErrorKind::Unreachable,
            "no-such",
        ),
        (
            Database { host: None, socket: Some("/nowhere".to_owned()), ..good.clone() },
            SqlErrorKind::Unreachable,
            "/nowhere",
        ),
        (with_mode("required"), SqlErrorKind::Tls, "does not offer TLS"),
        (with_mode("verify_identity"), SqlErrorKind::Tls, "does not offer TLS"),
    ] {
        let error = connect(&db).unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.message.contains(part), "{error}");
        assert!(
            !format!("{error:?}").contains("wr0ng") && !format!("{error:?}").contains(Mariadb::PASSWORD),
            "{error:?}"
        );
    }
    server.sql("GRANT ALL ON nothing.* TO ann");
    let error = connect(&Database { database: Some("nothing".to_owned()), ..good.clone() }).unwrap_err();
    assert_eq!(error.kind, SqlErrorKind::Unreachable, "{error}");
    assert!(error.message.contains("ERROR 1049"), "{error}");

    let trilogy = Database { adapter: "trilogy".to_owned(), host: Some("localhost".to_owned()), ..good.clone() };
    assert_eq!(one(&mut connect(&trilogy).unwrap(), "SELECT SUBSTRING_INDEX(USER(), '@', -1)"), "127.0.0.1");
    let socket = Database { host: None, socket: Some(server.socket.display().to_string()), ..good.clone() };
    assert_eq!(one(&mut connect(&socket).unwrap(), "SELECT SUBSTRING_INDEX(USER(), '@', -1)"), "localhost");
    assert_eq!(one(&mut connect(&good).unwrap(), "SELECT SUBSTRING_INDEX(USER(), '@', -1)"), "127.0.0.1");

    for (at, password) in ["", " ", "p@ss:w/rd?#%41&=+", "quote's \"and\" back\\slash", "größe ✓", &"long".repeat(60)]
        .into_iter()
        .enumerate()
    {
        let quoted = password.replace('\\', "\\\\").replace('\'', "''");
        server.sql(&format!("CREATE USER u{at} IDENTIFIED BY '{quoted}'; GRANT ALL ON app.* TO u{at}"));
        let user = Database { username: Some(format!("u{at}")), ..good.clone() };
        assert_eq!(connect(&user).unwrap_err().kind, SqlErrorKind::Denied, "{password}");
        let mut session = connect(&Database { password: Some(Secret::new(password)), ..user }).unwrap();
        assert_eq!(one(&mut session, "SELECT CURRENT_USER()"), format!("u{at}@%"), "{password}");
    }
}

#[test]
fn tls_modes_accept_and_refuse_what_they_should() {
    let certificates = Certificates::make();
    let server = Mariadb::start(MariadbOptions {
        tls: Some(certificates.server("good")),
        arguments: vec![format!("--ssl-ca={}", certificates.path("ca.pem").display())],
    });
    let connect_with =
        |options: &[(&str, &str)]| connect(&Database { options: map(options), ..database("127.0.0.1", server.port) });
    let cipher = "SELECT VARIABLE_VALUE = '' FROM information_schema.SESSION_STATUS WHERE VARIABLE_NAME = 'Ssl_cipher'";
    for (options, is_plain) in [(&[][..], "0"), (&[("ssl_mode", "required")], "0"), (&[("ssl_mode", "disabled")], "1")]
    {
        assert_eq!(one(&mut connect_with(options).unwrap(), cipher), is_plain, "{options:?}");
    }
    let long = connect_with(&[]).unwrap().run("SELECT REPEAT('x', 1000000)", DEADLINE).unwrap();
    assert_eq!(long[0].get(0, 0).unwrap().len(), 1_000_000);

    let own = |name: &str| certificates.path(&format!("{name}.pem")).display().to_string();
    for (shown, ca, expected) in [
        // Shown by the server, authority named by us; then: required, verify_ca, verify_identity.
        ("good", Some("ca"), [true, true, true]),
        ("good", Some("other"), [true, false, false]),
        ("good", None, [true, false, false]),
        ("wrong-name", Some("ca"), [true, true, false]),
        ("self-signed", Some("self-signed"), [true, true, true]),
        ("self-signed", Some("ca"), [true, false, false]),
        ("version-1", Some("ca"), [true, false, false]),
    ] {
        let (cert, key) = certificates.server(shown);
        server.present(&cert, &key);
        let found = ["required", "verify_ca", "verify_identity"].map(|mode| {
            let ca = ca.map(own);
            let options: Vec<_> =
                [("ssl_mode", mode)].into_iter().chain(ca.as_deref().map(|ca| ("sslca", ca))).collect();
            match connect_with(&options) {
                Ok(mut session) => one(&mut session, cipher) == "0",
                Err(error) => {
                    assert_eq!(error.kind, SqlErrorKind::Tls, "{shown} {ca:?} {mode}: {error}");
                    let hint = error.hint.unwrap();
                    assert_eq!(hint.contains("version 1"), shown == "version-1", "{shown} {ca:?} {mode}: {hint}");
                    false
                }
            }
        });
        assert_eq!(found, expected, "{shown} {ca:?}");
        // The stock client takes version 1 in every mode; it knows no system authorities.
        if let Some(ca) = ca.filter(|_| shown != "version-1") {
            let ca = format!("--ssl-ca={}", own(ca));
            let stock = [
                stock_client(&server, &["--ssl"]),
                stock_client(&server, &["--ssl", &ca]),
                stock_client(&server, &["--ssl", &ca, "--ssl-verify-server-cert"]),
            ];
            assert_eq!(found, stock, "the stock client with {shown} {ca:?}");
        }
    }
    let error = connect_with(&[("sslca", "/nowhere.pem")]).unwrap_err();
    assert_eq!(error.kind, SqlErrorKind::Tls);
    assert!(error.message.contains("/nowhere.pem"), "{error}");

    let (cert, key) = certificates.server("good");
    server.present(&cert, &key);
    server.sql("ALTER USER ann REQUIRE X509");
    assert_eq!(connect_with(&[]).unwrap_err().kind, SqlErrorKind::Denied);
    let identity = [("sslcert", cert.to_str().unwrap()), ("sslkey", key.to_str().unwrap())];
    assert_eq!(one(&mut connect_with(&identity).unwrap(), cipher), "0");
}

#[test]
fn a_server_whose_tls_is_too_old_is_reached_without_where_that_is_allowed() {
    let certificates = Certificates::make();
    let server = Mariadb::start(MariadbOptions {
        tls: Some(certificates.server("good")),
        arguments: vec!["--tls-version=TLSv1.1".to_owned()],
    });
    let db = database("127.0.0.1", server.port);
    assert_eq!(one(&mut connect(&db).unwrap(), "SELECT 1"), "1");
    let error = connect(&Database { options: map(&[("ssl_mode", "required")]), ..db }).unwrap_err();
    assert_eq!(error.kind, SqlErrorKind::Tls, "{error}");
}

#[test]
fn a_server_that_stops_answering_ends_by_the_deadline() {
    let server = Mariadb::start(MariadbOptions::default());
    for fault in ["silence", "drip"] {
        let mut session = connect(&database("127.0.0.1", faulty_proxy(server.port))).unwrap();
        assert_eq!(one(&mut session, "SELECT 1"), "1");
        let error = session.run(&format!("SELECT '{fault}'"), SHORT).unwrap_err();
        assert_eq!(error.kind, SqlErrorKind::Lost, "{fault}: {error}");
        assert_eq!(error.message, "the server did not answer in time", "{fault}");
        assert_eq!(session.run("SELECT 1", DEADLINE), Err(error), "{fault}: it stays lost");
    }
}

#[test]
fn a_server_that_does_not_speak_the_protocol_is_an_error() {
    let greeting =
        b"\x4a\x00\x00\x00\x0a5.5.5-10.11.0-MariaDB\x00\x05\x00\x00\x00abcdefgh\x00\xfe\xf7\x2d\x02\x00\xff\x81\x15\
                     \x00\x00\x00\x00\x00\x00\x00\x00\x00\x00abcdefghijkl\x00mysql";
    for answer in [
        &b""[..],
        b"\x00\x00\x00\x00",
        b"\x01\x00\x00\x00\x0a",
        b"\x01\x00\x00\x00\xff",
        b"\xff\xff\xff\x00",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x05\x00\x00\x07\x0a5.0\x00",
        greeting,
        &greeting[..60],
    ] {
        let port = answering(answer.to_vec());
        let error = connect(&database("127.0.0.1", port)).unwrap_err();
        assert_eq!(error.kind, SqlErrorKind::Unreachable, "{answer:?}: {error}");
    }
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let options = ConnectOptions { connect_timeout: SHORT, application_name: String::new() };
    let db = database("127.0.0.1", silent.local_addr().unwrap().port());
    let error = mysql::connect(&db, &BTreeMap::new(), options).unwrap_err();
    assert_eq!(error.kind, SqlErrorKind::Unreachable, "{error}");
}

#[test]
fn a_lock_lives_as_long_as_a_holder_of_its_socket() {
    let server = Mariadb::start(MariadbOptions::default());
    let db = database("127.0.0.1", server.port);

    // Killed owner: the lock whose socket no child holds shows when the server has noticed.
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "owner_of_two_locks", "--nocapture"])
        .env("OWNER_OF_TWO_LOCKS", server.port.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let child = line_after(&mut owner, "child ");
    owner.kill().unwrap();
    owner.wait().unwrap();
    wait_until(&server, "alone", false);
    assert!(is_held(&server, "inherited"));
    let killed = Command::new("kill").args(["-KILL", &child]).status().unwrap();
    assert!(killed.success());
    wait_until(&server, "inherited", false);

    // Abandoned: closed, and the server not told.
    let mut sessions = ["alone", "shared"].map(|name| (name, Box::new(connect(&db).unwrap())));
    for (name, session) in &mut sessions {
        assert_eq!(one(session.as_mut(), &format!("SELECT GET_LOCK('{name}', 0)")), "1");
    }
    let shared = sessions[1].1.socket().unwrap().try_clone_to_owned().unwrap();
    for (_, session) in sessions {
        session.abandon();
    }
    wait_until(&server, "alone", false);
    assert!(is_held(&server, "shared"));
    drop(shared);
    wait_until(&server, "shared", false);

    // Dropped: the server is told, whoever else holds the socket.
    let mut session = connect(&db).unwrap();
    assert_eq!(one(&mut session, "SELECT GET_LOCK('dropped', 0)"), "1");
    let _held = session.socket().unwrap().try_clone_to_owned().unwrap();
    drop(session);
    wait_until(&server, "dropped", false);
}

/// Not a test of its own: the process that the test above kills, run from this same file.
#[test]
fn owner_of_two_locks() {
    let Ok(port) = std::env::var("OWNER_OF_TWO_LOCKS") else { return };
    let db = database("127.0.0.1", port.parse().unwrap());
    let mut alone = connect(&db).unwrap();
    let mut inherited = connect(&db).unwrap();
    assert_eq!(one(&mut alone, "SELECT GET_LOCK('alone', 0)"), "1");
    assert_eq!(one(&mut inherited, "SELECT GET_LOCK('inherited', 0)"), "1");
    let mut child = sleeping_with(inherited.socket().unwrap());
    println!("\nchild {}", child.id());
    child.wait().unwrap();
}

fn database(host: &str, port: u16) -> Database {
    Database {
        name: "primary".to_owned(),
        engine: Engine::Mysql,
        adapter: "mysql2".to_owned(),
        host: Some(host.to_owned()),
        port: Some(port),
        socket: None,
        database: Some("app".to_owned()),
        username: Some("ann".to_owned()),
        password: Some(Secret::new(Mariadb::PASSWORD)),
        options: BTreeMap::new(),
        migrations_paths: vec!["db/migrate".to_owned()],
        schema_migrations_table: "schema_migrations".to_owned(),
        metadata_table: None,
        from: "DATABASE_URL".to_owned(),
    }
}

fn connect(db: &Database) -> Result<MysqlSession, SqlError> {
    let options = ConnectOptions { connect_timeout: DEADLINE, application_name: "unstuck/test".to_owned() };
    mysql::connect(db, &BTreeMap::new(), options)
}

/// The one value that `sql` returns.
fn one(session: &mut MysqlSession, sql: &str) -> String {
    let rows = session.run(sql, DEADLINE).unwrap();
    let [rows] = &rows[..] else { panic!("{sql}: {rows:?}") };
    rows.get(0, 0).unwrap().to_owned()
}

/// What one statement returns.
fn table<const N: usize>(values: &[[Option<&str>; N]]) -> Rows {
    let mut rows = Rows::new(N);
    for value in values.iter().flatten() {
        rows.push(*value);
    }
    rows
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn is_held(server: &Mariadb, name: &str) -> bool {
    server.sql(&format!("SELECT IS_USED_LOCK('{name}') IS NOT NULL")).trim() == "1"
}

fn wait_until(server: &Mariadb, name: &str, held: bool) {
    for _ in 0..600 {
        if is_held(server, name) == held {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("the lock {name} does not change");
}

/// A process that does nothing but hold `fd`; it ends by itself should the test be killed.
fn sleeping_with(fd: BorrowedFd<'_>) -> Child {
    let fd = fd.as_raw_fd();
    let mut command = Command::new("sleep");
    command.arg("120").stdout(Stdio::null());
    // SAFETY: fcntl may be called between fork and exec, and the descriptor is open.
    unsafe {
        command.pre_exec(move || match libc::fcntl(fd, libc::F_SETFD, 0) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    command.spawn().unwrap()
}

fn line_after(child: &mut Child, prefix: &str) -> String {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.map(Result::unwrap).find_map(|line| line.strip_prefix(prefix).map(str::to_owned)).expect(prefix)
}

fn stock_client(server: &Mariadb, options: &[&str]) -> bool {
    let status = Mariadb::client()
        .args(options)
        .args(["--host=127.0.0.1", "--user=ann", &format!("--port={}", server.port), "--execute=SELECT 1", "app"])
        .env("MYSQL_PWD", Mariadb::PASSWORD)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.unwrap().success()
}

/// A server that says `answer` to each client and closes.
fn answering(answer: Vec<u8>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        while let Ok((mut client, _)) = listener.accept() {
            let _ = client.write_all(&answer);
            let _ = client.shutdown(Shutdown::Write);
            let _ = client.read_to_end(&mut vec![]);
        }
    });
    port
}

/// A way to the server that, asked for `'silence'`, says nothing any more, and for `'drip'`, a byte now and then of an answer
/// that never ends.
fn faulty_proxy(server: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        while let Ok((client, _)) = listener.accept() {
            let server = TcpStream::connect(("127.0.0.1", server)).unwrap();
            let (mut from_server, mut to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut from_server, &mut to_client));
            thread::spawn(move || pass_until_fault(client, server));
        }
    });
    port
}

fn pass_until_fault(mut client: TcpStream, mut server: TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = client.read(&mut buffer) {
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if text.contains("'silence'") {
            let _ = client.read_to_end(&mut vec![]);
            return;
        }
        if text.contains("'drip'") {
            // The head of a packet of two megabytes, the first after the question; then its body.
            let mut drops = b"\x00\x00\x20\x01".iter().chain(std::iter::repeat(&b'x'));
            while client.write_all(&[*drops.next().unwrap()]).is_ok() {
                thread::sleep(Duration::from_millis(20));
            }
            return;
        }
        server.write_all(&buffer[..length]).unwrap();
    }
}

/// Certificates as administrators make them with openssl.
struct Certificates {
    folder: TempDir,
}

impl Certificates {
    fn make() -> Self {
        let this = Self { folder: tempfile::tempdir().unwrap() };
        // The server, another user, reads the authority from here.
        std::fs::set_permissions(this.folder.path(), Permissions::from_mode(0o755)).unwrap();
        for (name, subject) in [("ca", "/CN=Authority"), ("other", "/CN=Other authority")] {
            this.self_signed(name, subject, "basicConstraints=critical,CA:TRUE");
        }
        this.self_signed("self-signed", "/CN=127.0.0.1", "subjectAltName=IP:127.0.0.1");
        this.signed("good", "/CN=127.0.0.1", Some("subjectAltName=IP:127.0.0.1"));
        this.signed("wrong-name", "/CN=db.example", Some("subjectAltName=DNS:db.example"));
        // Without an extension file, openssl makes a certificate of version 1.
        this.signed("version-1", "/CN=127.0.0.1", None);
        this
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// The files of a server's certificate and key.
    fn server(&self, name: &str) -> (PathBuf, PathBuf) {
        (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")))
    }

    fn self_signed(&self, name: &str, subject: &str, extension: &str) {
        let (cert, key) = (format!("{name}.pem"), format!("{name}.key"));
        self.openssl(&[
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", subject, "-addext", extension,
            "-out", &cert, "-keyout", &key,
        ]);
    }

    fn signed(&self, name: &str, subject: &str, extension: Option<&str>) {
        let (cert, key, request) = (format!("{name}.pem"), format!("{name}.key"), format!("{name}.csr"));
        self.openssl(&["req", "-newkey", "rsa:2048", "-nodes", "-subj", subject, "-out", &request, "-keyout", &key]);
        let mut sign = vec![
            "x509",
            "-req",
            "-days",
            "2",
            "-in",
            &request,
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-out",
            &cert,
        ];
        let extensions = format!("{name}.ext");
        if let Some(extension) = extension {
            std::fs::write(self.path(&extensions), extension).unwrap();
            sign.extend(["-extfile", &extensions]);
        }
        self.openssl(&sign);
    }

    fn openssl(&self, arguments: &[&str]) {
        let output =
            Command::new("openssl").args(arguments).current_dir(self.folder.path() as &Path).output().expect("openssl");
        assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
