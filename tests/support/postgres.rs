//! Real PostgreSQL servers, poolers in front of them and certificates for them, in temporary folders and on free ports.
//!
//! Each server has a shell beside it that waits for the end of its standard input and then stops the server and removes
//! its folder. That input ends with the test process, however that ends, so nothing is left behind by a panic or a kill.
//! PostgreSQL refuses to run as root; then the servers run as the user `postgres`.

#![allow(dead_code, reason = "each test file uses its own part of this")]
#![allow(clippy::unwrap_used, reason = "a fixture that cannot be set up fails the test")]

#[allow(clippy::duplicate_mod, reason = "constants, which no other helper need hand on")]
#[path = "secrets.rs"]
pub mod secrets;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use tempfile::TempDir;
use unstuck_standin::Reserved;

/// Where Debian, and the PostgreSQL project's own packages, put the programs that are not in the `PATH`.
pub fn program(name: &str) -> String {
    let versions = fs::read_dir("/usr/lib/postgresql").unwrap();
    let found =
        versions.flatten().map(|version| version.path().join("bin").join(name)).filter(|path| path.exists()).max();
    found.unwrap_or_else(|| panic!("no {name} in /usr/lib/postgresql")).display().to_string()
}

/// How a server is to be set up.
#[derive(Default)]
pub struct PostgresOptions<'a> {
    /// Lines of `pg_hba.conf`, before the last ones, which trust everybody. The superuser's socket is always trusted.
    pub hba: &'a [&'a str],
    /// Lines of `postgresql.conf`.
    pub settings: &'a [&'a str],
}

/// A cluster of its own. The superuser is `postgres`.
pub struct Postgres {
    pub socket_dir: PathBuf,
    pub port: u16,
    _reserved: Reserved,
    server: Server,
}

impl Postgres {
    pub fn start(options: &PostgresOptions) -> Self {
        let dir = owned_folder();
        let data = dir.join("data");
        succeed(as_owner(&program("initdb")).arg("-D").arg(&data).args([
            "--username=postgres",
            "--auth=trust",
            "--no-sync",
            "--encoding=UTF8",
            "--locale=C",
        ]));
        let mut hba = vec!["local all postgres trust"];
        hba.extend(options.hba);
        hba.extend(["local all all trust", "host all all 127.0.0.1/32 trust"]);
        write(&data.join("pg_hba.conf"), &(hba.join("\n") + "\n"));
        let reserved = Reserved::new().unwrap();
        let port = reserved.port;
        let settings = format!(
            "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{}'\nfsync = off\n{}\n",
            dir.display(),
            options.settings.join("\n"),
        );
        write(&data.join("postgresql.auto.conf"), &settings);
        Self { server: Server::postgres(&dir), socket_dir: dir, port, _reserved: reserved }
    }

    /// A follower of this server, as it is now. `hba` must have let its superuser replicate.
    pub fn follower(&self) -> Self {
        let dir = owned_folder();
        let data = dir.join("data");
        let mut copy = as_owner(&program("pg_basebackup"));
        copy.arg("-D").arg(&data).args([
            "-U",
            "postgres",
            "--write-recovery-conf",
            "--checkpoint=fast",
            "--no-sync",
            "-h",
        ]);
        succeed(copy.arg(&self.socket_dir).args(["-p", &self.port.to_string()]));
        let reserved = Reserved::new().unwrap();
        let port = reserved.port;
        let settings = fs::read_to_string(data.join("postgresql.auto.conf")).unwrap();
        let own = format!("port = {port}\nunix_socket_directories = '{}'\n", dir.display());
        write(&data.join("postgresql.auto.conf"), &(settings + &own));
        Self { server: Server::postgres(&dir), socket_dir: dir, port, _reserved: reserved }
    }

    /// A URL over TCP, as `postgres`.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Runs SQL as the superuser in the database `postgres` and returns its output, values separated by `|`.
    pub fn sql(&self, sql: &str) -> String {
        let output = succeed(
            Command::new(program("psql"))
                .env_clear()
                .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "postgres", "-h"])
                .arg(&self.socket_dir)
                .args(["-p", &self.port.to_string(), "-c", sql]),
        );
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// Runs the real `psql` as a user would, with these settings and environment: what it prints, or its error.
    pub fn psql(conninfo: &str, env: &[(&str, &str)], sql: &str) -> Result<String, String> {
        let mut psql = Command::new(program("psql"));
        psql.env_clear().envs(env.iter().copied()).args(["-XAtqw", "-c", sql, "-d", conninfo]);
        let output = psql.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// Gives the server this certificate, or takes TLS away from it, and returns when it has taken notice. Clients may then
    /// show certificates of `client_authority`.
    pub fn present(&self, certificate: Option<&Certificate>, client_authority: Option<&Certificate>) {
        let copy = |file: &Path| self.copy(file).display().to_string();
        let set = |name: &str, value: &str| self.sql(&format!("ALTER SYSTEM SET {name} = '{value}'"));
        let own = certificate.map(|certificate| (copy(&certificate.file), copy(&certificate.key)));
        set("ssl_ca_file", &client_authority.map(|authority| copy(&authority.file)).unwrap_or_default());
        if let Some((file, key)) = &own {
            set("ssl_cert_file", file);
            set("ssl_key_file", key);
        }
        set("ssl", if own.is_some() { "on" } else { "off" });
        self.sql("SELECT pg_reload_conf()");
        // A session shows what the server had read when the session began.
        let wanted = own.map_or_else(|| "off".to_owned(), |(file, _)| file);
        let shown = "CASE current_setting('ssl') WHEN 'on' THEN current_setting('ssl_cert_file') ELSE 'off' END";
        while self.sql(&format!("SELECT {shown}")) != wanted {
            std::thread::yield_now();
        }
    }

    /// A copy that belongs to the server and that nobody else may read.
    fn copy(&self, file: &Path) -> PathBuf {
        copy_into(&self.socket_dir, file)
    }
}

fn copy_into(dir: &Path, file: &Path) -> PathBuf {
    let copy = dir.join(file.file_name().unwrap());
    fs::copy(file, &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o600)).unwrap();
    give_to_owner(&copy);
    copy
}

/// Transaction pooling over two server connections, on TCP and on a socket.
pub struct PgBouncer {
    pub socket_dir: PathBuf,
    pub port: u16,
    _reserved: Reserved,
    server: Server,
}

impl PgBouncer {
    /// Of its user `postgres`.
    pub const PASSWORD: &'static str = secrets::PGBOUNCER;

    /// `tls` is what it presents to its clients.
    pub fn in_front_of(postgres: &Postgres, tls: Option<&Certificate>) -> Self {
        let dir = owned_folder();
        let reserved = Reserved::new().unwrap();
        let port = reserved.port;
        let tls = tls.map_or_else(String::new, |certificate| {
            let [file, key] =
                [&certificate.file, &certificate.key].map(|file| copy_into(&dir, file).display().to_string());
            format!("client_tls_sslmode = require\nclient_tls_cert_file = {file}\nclient_tls_key_file = {key}\n")
        });
        write(&dir.join("users"), &format!("\"postgres\" \"{}\"\n", Self::PASSWORD));
        write(
            &dir.join("pgbouncer.ini"),
            &format!(
                "[databases]\n* = host={} port={} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
                 unix_socket_dir = {}\nauth_type = plain\nauth_file = {}/users\npool_mode = transaction\n\
                 default_pool_size = 2\nserver_round_robin = 1\nmax_client_conn = 100\nlog_connections = 0\nlog_disconnections = 0\n\
                 log_stats = 0\n{tls}",
                postgres.socket_dir.display(),
                postgres.port,
                dir.display(),
                dir.display(),
            ),
        );
        let server = Server::start(
            &dir,
            &format!(
                "{} pgbouncer pgbouncer.ini 2>&1 & pid=$!; cat >/dev/null; kill $pid; wait $pid",
                owner_words().join(" ")
            ),
            "process up",
        );
        Self { socket_dir: dir, port, _reserved: reserved, server }
    }
}

/// A server and the shell that will end it.
struct Server {
    shell: Child,
    /// Kept open, since what the server still says must have somewhere to go.
    _output: BufReader<ChildStdout>,
}

impl Server {
    /// The cluster in `dir`.
    fn postgres(dir: &Path) -> Self {
        // pg_ctl waits until the server answers. What it starts must not hold the pipe that is read here.
        let script = format!(
            "{owner} {pg_ctl} --wait --silent -D data -l log start >&2 || {{ cat log >&2; exit 1; }}; echo ready; cat \
             >/dev/null; {owner} {pg_ctl} --silent -D data -m immediate stop",
            owner = owner_words().join(" "),
            pg_ctl = program("pg_ctl"),
        );
        Self::start(dir, &script, "ready")
    }

    /// Runs `script` in `dir` with its standard input open, and returns when it has said `ready`.
    fn start(dir: &Path, script: &str, ready: &str) -> Self {
        let mut shell = Command::new("sh")
            .arg("-c")
            .arg(format!("{script}; cd /; rm -rf \"$1\""))
            .args([Path::new("sh"), dir])
            .current_dir(dir)
            .env("PATH", std::env::var("PATH").unwrap_or_default() + ":/usr/sbin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(shell.stdout.take().unwrap());
        let mut seen = String::new();
        while !seen.contains(ready) {
            assert!(output.read_line(&mut seen).unwrap() > 0, "no server in {}: {seen}", dir.display());
        }
        Self { shell, _output: output }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

/// A certificate with its key, in PEM.
#[derive(Debug, Clone)]
pub struct Certificate {
    pub file: PathBuf,
    pub key: PathBuf,
}

/// Makes certificates with the `openssl` program.
pub struct Certificates {
    dir: TempDir,
}

impl Certificates {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// What `openssl req -x509` gives: version 3, its own authority.
    pub fn self_signed(&self, name: &str, subject: &str) -> Certificate {
        let certificate = self.files(name);
        let mut command = openssl("req");
        command.args(["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", &format!("/CN={subject}")]);
        succeed(command.arg("-keyout").arg(&certificate.key).arg("-out").arg(&certificate.file));
        certificate
    }

    /// The same self-signed certificate, but it ended yesterday.
    pub fn expired(&self, name: &str, of: &Certificate) -> Certificate {
        let certificate = Certificate { key: of.key.clone(), ..self.files(name) };
        let mut command = openssl("x509");
        command.args(["-days", "-1", "-in"]).arg(&of.file).arg("-signkey").arg(&of.key);
        succeed(command.arg("-out").arg(&certificate.file));
        certificate
    }

    /// A certificate that `authority` signed. `extensions` are lines of an extension file; with none it is version 1.
    pub fn signed(
        &self,
        name: &str,
        authority: &Certificate,
        subject: &str,
        extensions: &str,
        days: i32,
    ) -> Certificate {
        let certificate = self.files(name);
        let request = self.dir.path().join(format!("{name}.csr"));
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        succeed(
            openssl("req")
                .args(key)
                .args(["-subj", &format!("/CN={subject}")])
                .arg("-keyout")
                .arg(&certificate.key)
                .arg("-out")
                .arg(&request),
        );
        let mut command = openssl("x509");
        command.args(["-req", "-CAcreateserial", "-days", &days.to_string(), "-CA"]).arg(&authority.file);
        command.arg("-CAkey").arg(&authority.key).arg("-in").arg(&request).arg("-out").arg(&certificate.file);
        if !extensions.is_empty() {
            let file = self.dir.path().join(format!("{name}.ext"));
            fs::write(&file, extensions).unwrap();
            command.arg("-extfile").arg(file);
        }
        succeed(&mut command);
        certificate
    }

    fn files(&self, name: &str) -> Certificate {
        let file = |kind: &str| self.dir.path().join(format!("{name}.{kind}"));
        Certificate { file: file("crt"), key: file("key") }
    }
}

fn openssl(command: &str) -> Command {
    let mut openssl = Command::new("openssl");
    openssl.arg(command);
    openssl
}

/// The words that make the rest of a command run as the servers' owner.
fn owner_words() -> &'static [&'static str] {
    if is_root() { &["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] } else { &["env"] }
}

fn as_owner(program: &str) -> Command {
    let words = owner_words();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).arg(program);
    command
}

fn is_root() -> bool {
    // SAFETY: asks the kernel for a number.
    unsafe { libc::geteuid() == 0 }
}

/// A new folder that the servers' owner may write to. The shell beside the server removes it.
fn owned_folder() -> PathBuf {
    let dir = tempfile::Builder::new().prefix("pg").tempdir().unwrap().keep();
    give_to_owner(&dir);
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

fn give_to_owner(path: &Path) {
    if is_root() {
        // The package's own folder tells the user's number.
        let owner = fs::metadata("/var/lib/postgresql").unwrap();
        chown(path, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
}

fn write(path: &Path, text: &str) {
    fs::File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
    give_to_owner(path);
}

/// Runs a command that must succeed.
fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}
