//! A temporary MariaDB of its own, for one test.

#[allow(clippy::duplicate_mod, reason = "constants, which no other helper need hand on")]
#[path = "secrets.rs"]
pub mod secrets;

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use unstuck_standin::Reserved;

const USER: &str = "mysql";

/// What the server can do beyond the usual.
#[derive(Default)]
pub struct MariadbOptions {
    /// PEM files of the server's certificate and key: it then offers TLS. Others can be given later: [`Mariadb::present`].
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Further arguments of `mariadbd`.
    pub arguments: Vec<String>,
}

/// A running server with a database `app`, its user `ann` (password [`Mariadb::PASSWORD`], from anywhere) and a `root` without
/// one. Killed and removed on drop; killed as well when the test's process dies.
pub struct Mariadb {
    pub socket: PathBuf,
    pub port: u16,
    _reserved: Reserved,
    server: Child,
    folder: TempDir,
}

impl Mariadb {
    pub const PASSWORD: &'static str = secrets::MARIADB;

    pub fn start(options: MariadbOptions) -> Self {
        let folder = tempfile::Builder::new().prefix("mariadb-").tempdir().expect("a temporary folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (data, run) = (folder.path().join("data"), folder.path().join("run"));
        fs::create_dir(&data).unwrap();
        fs::create_dir(&run).unwrap();
        for path in [&data, &run] {
            give_to_server(path);
        }
        let init = folder.path().join("init.sql");
        fs::write(
            &init,
            format!(
                "CREATE DATABASE app;\nCREATE USER 'ann'@'%' IDENTIFIED BY '{}';\nGRANT ALL ON app.* TO 'ann'@'%';\n",
                Self::PASSWORD
            ),
        )
        .unwrap();
        install(&data, &run);

        let tls = options.tls.map(|(cert, key)| {
            let own = copy_for_server(&run, &cert, &key);
            [format!("--ssl-cert={}", own.0.display()), format!("--ssl-key={}", own.1.display())]
        });
        let socket = run.join("sock");
        let reserved = Reserved::new().unwrap();
        let port = reserved.port;
        let log = File::create(folder.path().join("log")).unwrap();
        let server = as_server("mariadbd", &run)
            .arg("--no-defaults")
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--socket={}", socket.display()))
            .arg(format!("--pid-file={}", run.join("pid").display()))
            .arg(format!("--init-file={}", init.display()))
            .args([format!("--port={port}"), "--bind-address=127.0.0.1".to_owned()])
            .args(["--skip-name-resolve", "--innodb-buffer-pool-size=8M", "--innodb-log-file-size=4M"])
            .args(["--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=0", "--performance-schema=OFF"])
            .args(tls.into_iter().flatten())
            .args(options.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("mariadbd");
        let mut this = Self { socket, port, _reserved: reserved, server, folder };
        this.wait_until_ready();
        this
    }

    /// The URL of the database `app` over TCP.
    pub fn url(&self, adapter: &str) -> String {
        format!("{adapter}://ann:{}@127.0.0.1:{}/app", Self::PASSWORD, self.port)
    }

    /// Runs `sql` as the server's root with the stock client, and returns what it prints: tabs between columns, no header.
    pub fn sql(&self, sql: &str) -> String {
        let output =
            self.root_client().args(["--batch", "--skip-column-names", "--execute", sql]).output().expect("mariadb");
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// From now on, new connections meet this certificate. The server was started with one.
    pub fn present(&self, cert: &Path, key: &Path) {
        copy_for_server(&self.folder.path().join("run"), cert, key);
        self.sql("FLUSH SSL");
    }

    /// The stock client, which reads no configuration.
    pub fn client() -> Command {
        let mut command = Command::new("mariadb");
        command.arg("--no-defaults").env_remove("MYSQL_PWD");
        command
    }

    fn root_client(&self) -> Command {
        let mut command = Self::client();
        // It would fail where the server's TLS is too old for it.
        command.arg(format!("--socket={}", self.socket.display())).args(["--user=root", "--skip-ssl"]);
        command
    }

    /// The server listens on its socket only after the init file has run.
    fn wait_until_ready(&mut self) {
        let until = Instant::now() + Duration::from_mins(1);
        while !self.root_client().args(["--execute", "SELECT 1"]).output().expect("mariadb").status.success() {
            let log = || fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(self.server.try_wait().unwrap().is_none(), "mariadbd ended:\n{}", log());
            assert!(Instant::now() < until, "mariadbd does not answer:\n{}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Mariadb {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn install(data: &Path, run: &Path) {
    let output = as_server("mariadb-install-db", run)
        .args(["--no-defaults", "--skip-test-db", "--auth-root-authentication-method=normal", "--cross-bootstrap"])
        .arg(format!("--datadir={}", data.display()))
        .args(["--innodb-buffer-pool-size=8M", "--innodb-log-file-size=4M"])
        .output()
        .expect("mariadb-install-db");
    assert!(output.status.success(), "mariadb-install-db: {}", String::from_utf8_lossy(&output.stderr));
}

/// `program` as the package's own user where we are root, since the server refuses root, and killed when we die.
/// Two servers would meet in a common folder for temporary tables.
fn as_server(program: &str, temporary: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if is_root() {
        command.args(["--reuid", USER, "--regid", USER, "--clear-groups"]);
    }
    // The server's folder is not in every user's path.
    let path = std::env::var("PATH").unwrap_or_default();
    command
        .arg("--")
        .arg(program)
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .env("TMPDIR", temporary)
        .current_dir("/");
    command
}

fn copy_for_server(folder: &Path, cert: &Path, key: &Path) -> (PathBuf, PathBuf) {
    let own = (folder.join("server.pem"), folder.join("server.key"));
    for (from, to) in [(cert, &own.0), (key, &own.1)] {
        fs::copy(from, to).unwrap();
        give_to_server(to);
    }
    own
}

fn give_to_server(path: &Path) {
    if is_root() {
        let status = Command::new("chown").arg(format!("{USER}:{USER}")).arg(path).status().expect("chown");
        assert!(status.success(), "chown {}", path.display());
    }
}

fn is_root() -> bool {
    // SAFETY: geteuid has no preconditions and cannot fail.
    unsafe { libc::geteuid() == 0 }
}
