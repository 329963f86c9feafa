//! The migrations in two commits of a repository, from git's own objects: nothing is checked out, and no program that a
//! repository's configuration names is run.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use git2::{ErrorCode, ObjectType, Oid, Repository, Tree, TreeWalkMode, TreeWalkResult};

use crate::migrations::is_candidate;
use crate::push::Folder;

/// Below the Rails root, Rails keeps the migrations of its databases in these: `db/migrate`, `db/animals_migrate`.
const PARENT: &str = "db";

/// Why the commits cannot be compared.
#[derive(Debug)]
pub enum Missing {
    /// The commit that the remote has is not in this repository.
    Deployed,
    /// The repository cannot be read.
    Unreadable(git2::Error),
}

impl From<git2::Error> for Missing {
    fn from(error: git2::Error) -> Self {
        Self::Unreadable(error)
    }
}

/// The folders of migrations that differ between the commit `pushed` and the one that is `deployed`, in the Rails root `root`.
/// The others need no look.
pub fn compare(
    repository: &Repository,
    root: &Path,
    pushed: &str,
    deployed: Option<&str>,
) -> Result<Vec<Folder>, Missing> {
    let below = below(repository, root);
    let now = root_tree(repository, &below, pushed)?;
    let before = match deployed.map(|commit| root_tree(repository, &below, commit)) {
        None => None,
        Some(Err(error)) if error.code() == ErrorCode::NotFound => return Err(Missing::Deployed),
        Some(before) => before?,
    };
    let (now_folders, before_folders) = (folders(repository, now.as_ref())?, folders(repository, before.as_ref())?);
    let mut differing = Vec::new();
    let mut names: Vec<&PathBuf> = now_folders.keys().chain(before_folders.keys()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let (now, before) = (now_folders.get(name), before_folders.get(name));
        if now != before {
            let files = |id: Option<&Oid>| id.map_or(Ok(BTreeMap::new()), |id| files(repository, name, *id));
            differing.push(Folder { deployed: files(before)?, pushed: files(now)? });
        }
    }
    Ok(differing)
}

/// Where the Rails root lies in the repository; empty at its top and in a bare one.
fn below(repository: &Repository, root: &Path) -> PathBuf {
    let top = repository.workdir().and_then(|top| top.canonicalize().ok());
    top.and_then(|top| root.strip_prefix(top).ok().map(Path::to_owned)).unwrap_or_default()
}

fn root_tree<'a>(repository: &'a Repository, below: &Path, commit: &str) -> Result<Option<Tree<'a>>, git2::Error> {
    let tree = repository.find_object(Oid::from_str(commit)?, None)?.peel_to_tree()?;
    if below.as_os_str().is_empty() {
        return Ok(Some(tree));
    }
    match tree.get_path(below) {
        Ok(entry) => repository.find_tree(entry.id()).map(Some),
        Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The folders of migrations, each with the id of its whole content.
fn folders(repository: &Repository, root: Option<&Tree>) -> Result<BTreeMap<PathBuf, Oid>, git2::Error> {
    let Some(parent) = root.and_then(|root| root.get_name(PARENT)) else { return Ok(BTreeMap::new()) };
    if parent.kind() != Some(ObjectType::Tree) {
        return Ok(BTreeMap::new());
    }
    let parent = repository.find_tree(parent.id())?;
    let folder = |entry: git2::TreeEntry| {
        let name = entry.name_bytes();
        let holds = entry.kind() == Some(ObjectType::Tree) && (name == b"migrate" || name.ends_with(b"_migrate"));
        holds.then(|| (Path::new(PARENT).join(OsStr::from_bytes(name)), entry.id()))
    };
    Ok(parent.iter().filter_map(folder).collect())
}

/// The migrations of one folder, at any depth, with the ids of their contents.
fn files(repository: &Repository, folder: &Path, id: Oid) -> Result<BTreeMap<PathBuf, String>, git2::Error> {
    let mut found = BTreeMap::new();
    repository.find_tree(id)?.walk(TreeWalkMode::PreOrder, |parent, entry| {
        let name = entry.name_bytes();
        if entry.kind() == Some(ObjectType::Tree) && name.starts_with(b".") {
            return TreeWalkResult::Skip;
        }
        if entry.kind() == Some(ObjectType::Blob) && is_candidate(name) {
            found.insert(folder.join(parent).join(OsStr::from_bytes(name)), entry.id().to_string());
        }
        TreeWalkResult::Ok
    })?;
    Ok(found)
}
