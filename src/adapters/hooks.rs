//! The folder in which git looks for hooks, and the pre-push hook in it. A hook of somebody else is kept beside ours and comes
//! back as it was.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use git2::Repository;

use crate::hook::{BEFORE, folders_of, has_more, is_ours, with_folders};

const NAME: &str = "pre-push";

/// Where git looks for hooks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    pub path: PathBuf,
    /// Whether husky runs what lies in it: by `sh`, from a folder that is committed.
    pub of_husky: bool,
    /// Whether it lies outside of the repository and serves others too.
    pub shared: bool,
}

impl Folder {
    /// The folder that this repository's git looks in: `core.hooksPath`, which counts from the top of the work tree, else `hooks`
    /// beside the objects, which all work trees share.
    pub fn of(repository: &Repository) -> Result<Self, git2::Error> {
        let top = repository.workdir().unwrap_or_else(|| repository.path());
        let configured =
            repository.config()?.get_path("core.hooksPath").ok().filter(|path| !path.as_os_str().is_empty());
        let Some(configured) = configured else {
            return Ok(Self { path: repository.commondir().join("hooks"), of_husky: false, shared: false });
        };
        let path = top.join(configured);
        // Husky's newer versions have git look at `.husky/_`, whose scripts call those in `.husky`.
        let folder =
            if path.file_name().is_some_and(|name| name == "_") { path.parent() } else { Some(path.as_path()) };
        if let Some(husky) = folder.filter(|folder| folder.file_name().is_some_and(|name| name == ".husky")) {
            return Ok(Self { path: husky.to_owned(), of_husky: true, shared: false });
        }
        let shared = !path.starts_with(top) && !path.starts_with(repository.commondir());
        Ok(Self { path, of_husky: false, shared })
    }

    pub fn hook(&self) -> PathBuf {
        self.path.join(NAME)
    }

    /// The hook that is there now; a link that leads nowhere counts as empty.
    pub fn read(&self) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.hook()) {
            Ok(script) => Ok(Some(script)),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Ok(self.hook().symlink_metadata().is_ok().then(Vec::new))
            }
            Err(error) => Err(error),
        }
    }

    /// Where the hook lies that was there before ours, if there is one.
    pub fn before(&self) -> Option<PathBuf> {
        Some(self.path.join(BEFORE)).filter(|path| path.symlink_metadata().is_ok())
    }

    /// Puts our script in its place; `false` where it stands there already. At each moment there is a whole hook: another one gets
    /// a second name first, and then ours takes its place in one step.
    pub fn install(&self, script: Vec<u8>) -> io::Result<bool> {
        let now = self.read()?;
        let ours = now.as_deref().filter(|now| is_ours(now));
        let lacking = self.path.ancestors().take_while(|folder| !folder.exists()).count();
        let script = with_folders(script, ours.map_or(lacking, folders_of));
        if ours == Some(&script) {
            return Ok(false);
        }
        spare(ours)?;
        fs::create_dir_all(&self.path)?;
        if now.is_some_and(|now| !is_ours(&now)) {
            self.keep()?;
        }
        let mut file = tempfile::Builder::new().prefix(".unstuck").tempfile_in(&self.path)?;
        file.write_all(&script)?;
        file.as_file().set_permissions(Permissions::from_mode(0o755))?;
        file.as_file().sync_all()?;
        file.persist(self.hook())?;
        Ok(true)
    }

    fn keep(&self) -> io::Result<()> {
        let (hook, before) = (self.hook(), self.path.join(BEFORE));
        match fs::hard_link(&hook, &before) {
            // An earlier run may have come as far as this.
            Err(error) if error.kind() == ErrorKind::AlreadyExists && is_same(&hook, &before) => Ok(()),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                Err(io::Error::new(error.kind(), format!("{} is in the way", before.display())))
            }
            done => done,
        }
    }

    /// Takes our script away, with the folders that were made for it if nothing else is in them, and brings back what was there
    /// before; `false` where the hook is not ours.
    pub fn uninstall(&self) -> io::Result<bool> {
        let Some(script) = self.read()?.filter(|script| is_ours(script)) else { return Ok(false) };
        spare(Some(&script))?;
        match self.before() {
            Some(before) => fs::rename(before, self.hook())?,
            None => fs::remove_file(self.hook())?,
        }
        for made in self.path.ancestors().take(folders_of(&script)) {
            match fs::remove_dir(made) {
                Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => break,
                done => done?,
            }
        }
        Ok(true)
    }
}

/// What somebody has added to a script of ours is not to be lost with it.
fn spare(script: Option<&[u8]>) -> io::Result<()> {
    match script {
        Some(script) if has_more(script) => {
            Err(io::Error::other("lines were added to it: move them to another place first"))
        }
        _ => Ok(()),
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    let id = |path: &Path| path.symlink_metadata().map(|metadata| (metadata.dev(), metadata.ino()));
    id(one).ok().is_some_and(|one| id(other).is_ok_and(|other| one == other))
}
