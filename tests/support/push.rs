//! An application in a git repository, and where it is pushed to.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::secrets;

/// An application in a repository with the hook, and the remote `production` that it is pushed to.
pub struct Scene {
    pub dir: TempDir,
}

impl Scene {
    pub fn new(format: &str) -> Self {
        let scene = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(scene.app()).unwrap();
        let object_format = format!("--object-format={format}");
        scene.git(&["init", "-q", "-b", "main", &object_format]);
        scene.git(&["init", "-q", "--bare", "-b", "main", &object_format, "../remote"]);
        scene.git(&["remote", "add", "production", "../remote"]);
        scene.write(".unstuck.yml", "hook:\n  remotes: [production]\n");
        scene.write("Procfile", "web: bin/rails server\nrelease: unstuck migrate\n");
        scene
    }

    pub fn app(&self) -> PathBuf {
        self.dir.path().join("app")
    }

    pub fn write(&self, file: &str, text: &str) {
        let path = self.app().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// One that does nothing, with a comment in it.
    pub fn migration(&self, file: &str, text: &str) {
        self.write(&format!("db/migrate/{file}"), &format!("# {text}\n"));
    }

    pub fn command(&self, dir: &Path, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(dir)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.dir.path());
        for role in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{role}_NAME"), "Ann").env(format!("GIT_{role}_EMAIL"), "ann@example.com");
        }
        command
    }

    pub fn try_git(&self, arguments: &[&str]) -> Output {
        let output = self.command(&self.app(), "git").args(arguments).output().expect("git runs");
        // What the hook says comes with it.
        secrets::keep(&output);
        output
    }

    pub fn git(&self, arguments: &[&str]) -> String {
        let output = self.try_git(arguments);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", text(&output.stderr));
        text(&output.stdout) + &text(&output.stderr)
    }

    pub fn commit(&self) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", "x"]);
        self.git(&["rev-parse", "HEAD"]).trim().to_owned()
    }
}
