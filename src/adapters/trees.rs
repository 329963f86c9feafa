//! Two commits of a repository, from git's own objects: nothing is checked out, nothing is fetched, and no program that a
//! repository's configuration names is run.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use git2::{Commit, ErrorCode, ObjectType, Odb, OdbObject, Oid, Repository, Tree, TreeWalkMode, TreeWalkResult};

use crate::migrations::{Kin, Migration, is_candidate};
use crate::push::{Change, Folder};
use crate::schema;

/// Below the Rails root, Rails keeps the migrations of its databases in these: `db/migrate`, `db/animals_migrate`.
const PARENT: &str = "db";

/// The first database's folder.
const FIRST: &str = "db/migrate";

/// Whether Rails finds a folder of migrations at this path without being told of it.
pub fn is_usual(folder: &Path) -> bool {
    let name = folder.file_name().map(OsStr::as_bytes).unwrap_or_default();
    folder.parent() == Some(Path::new(PARENT)) && is_for_migrations(name)
}

fn is_for_migrations(name: &[u8]) -> bool {
    name == b"migrate" || name.ends_with(b"_migrate")
}

/// The folders of migrations that differ between the Rails root `pushed` and the one that is `deployed`; those that share a schema
/// file are one. The others need no look. `elsewhere` are those that only a configuration names, and `is_apart` knows the folders of
/// databases that have no schema file.
pub fn compare(
    repository: &Repository,
    pushed: Option<&Tree>,
    deployed: Option<&Tree>,
    elsewhere: &[PathBuf],
    is_apart: &dyn Fn(&Path) -> bool,
) -> Result<Vec<Folder>, git2::Error> {
    let objects = repository.odb()?;
    let parent = |root: Option<&Tree>| {
        let entry = root.and_then(|root| root.get_name(PARENT)).filter(|entry| entry.filemode() == FOLDER);
        entry.map(|entry| objects.read(entry.id())).transpose()
    };
    let (before, after) = (parent(deployed)?, parent(pushed)?);
    let id = |parent: Option<&OdbObject>, file: &Path| {
        let mut entries = parent.into_iter().flat_map(entries);
        entries.find(|entry| Some(entry.name()) == file.file_name()).map(|entry| entry.id.to_owned())
    };
    let ids = |file: &Path| {
        let is_beside = file.parent() == Some(Path::new(PARENT));
        if is_beside { (id(before.as_ref(), file), id(after.as_ref(), file)) } else { (None, None) }
    };
    let mut groups: BTreeMap<PathBuf, Vec<Pair>> = BTreeMap::new();
    for (before, after) in pairs(before.as_ref(), after.as_ref()) {
        let (before, after) = (before.filter(Entry::holds_migrations), after.filter(Entry::holds_migrations));
        if let Some(entry) = after.or(before) {
            let path = Path::new(PARENT).join(entry.name());
            let home = schema::home_of(&path, &|file| ids(file) != (None, None), is_apart);
            groups.entry(home).or_default().push((path, before, after));
        }
    }
    let around = |root: Option<&Tree>, folder: &Path| {
        let Some(root) = root else { return Ok(None) };
        let id = match folder.parent().filter(|parent| *parent != Path::new("")) {
            Some(parent) => below(repository, root, parent)?.map(|tree| tree.id()),
            None => Some(root.id()),
        };
        id.map(|id| objects.read(id)).transpose()
    };
    let mut parents = Vec::new();
    for folder in elsewhere {
        parents.push((folder, around(deployed, folder)?, around(pushed, folder)?));
    }
    for (folder, before, after) in &parents {
        let before = before.as_ref().and_then(|parent| folder_in(parent, folder));
        let after = after.as_ref().and_then(|parent| folder_in(parent, folder));
        if before.is_some() || after.is_some() {
            let home = if is_apart(folder) { folder.as_path() } else { Path::new(FIRST) };
            groups.entry(home.to_owned()).or_default().push(((*folder).clone(), before, after));
        }
    }
    let mut folders = Vec::new();
    for (home, group) in groups {
        let schema_differs =
            schema::files_of(&home).iter().map(|file| ids(file)).any(|(before, after)| before != after);
        if schema_differs || group.iter().any(|(_, before, after)| before != after) {
            let mut walk = Walk { objects: &objects, deployed: Vec::new(), pushed: Vec::new(), changes: Vec::new() };
            for (path, before, after) in group {
                walk.enter(path, before, after)?;
            }
            folders.push(walk.folder(home, schema_differs));
        }
    }
    Ok(folders)
}

/// A folder at both ends.
type Pair<'a> = (PathBuf, Option<Entry<'a>>, Option<Entry<'a>>);

/// The mode of a folder's entry.
const FOLDER: i32 = 0o040_000;

/// An entry of a tree, as it stands in git's object.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Entry<'a> {
    mode: &'a [u8],
    name: &'a [u8],
    id: &'a [u8],
}

impl<'a> Entry<'a> {
    fn is_folder(&self) -> bool {
        self.mode == b"40000"
    }

    fn is_migration(&self) -> bool {
        !self.is_folder() && self.mode != b"160000" && is_candidate(self.name)
    }

    fn holds_migrations(&self) -> bool {
        self.is_folder() && is_for_migrations(self.name)
    }

    fn name(&self) -> &'a OsStr {
        OsStr::from_bytes(self.name)
    }

    /// Git's order: that of the names, where a folder's name ends in a slash.
    fn order(&self, other: &Self) -> Ordering {
        let key = |entry: &Self| entry.name.iter().copied().chain(entry.is_folder().then_some(b'/'));
        if self.name == other.name && self.is_folder() == other.is_folder() {
            return Ordering::Equal;
        }
        key(self).cmp(key(other))
    }
}

/// The entries of a tree; it ends where something is in no form that git knows. Read here, since libgit2 makes a list of them
/// first, which takes longer than all the rest.
fn entries<'a>(tree: &'a OdbObject) -> impl Iterator<Item = Entry<'a>> {
    let id_bytes = tree.id().as_bytes().len();
    let mut rest = tree.data();
    std::iter::from_fn(move || {
        let space = rest.iter().position(|byte| *byte == b' ')?;
        let (mode, named) = (&rest[..space], &rest[space + 1..]);
        let end = named.iter().position(|byte| *byte == 0)?;
        let (name, id) = (&named[..end], named.get(end + 1..end + 1 + id_bytes)?);
        rest = &named[end + 1 + id_bytes..];
        Some(Entry { mode, name, id })
    })
}

/// The entry of a folder in its parent.
fn folder_in<'a>(parent: &'a OdbObject, folder: &Path) -> Option<Entry<'a>> {
    entries(parent).find(|entry| entry.is_folder() && Some(entry.name()) == folder.file_name())
}

/// The entries of two trees, those of one name and kind together.
fn pairs<'a>(
    before: Option<&'a OdbObject>,
    after: Option<&'a OdbObject>,
) -> impl Iterator<Item = (Option<Entry<'a>>, Option<Entry<'a>>)> {
    let mut lefts = before.into_iter().flat_map(entries);
    let mut rights = after.into_iter().flat_map(entries);
    let (mut left, mut right) = (lefts.next(), rights.next());
    std::iter::from_fn(move || {
        let order = match (&left, &right) {
            (None, None) => return None,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(left), Some(right)) => left.order(right),
        };
        let before = if order.is_le() { std::mem::replace(&mut left, lefts.next()) } else { None };
        let after = if order.is_ge() { std::mem::replace(&mut right, rights.next()) } else { None };
        Some((before, after))
    })
}

/// Both ends of one folder, side by side. Paths and ids are made for what differs alone; of the thousands that are equal, those
/// are kept that have something to do with what is new.
struct Walk<'a> {
    objects: &'a Odb<'a>,
    deployed: Vec<(PathBuf, OdbObject<'a>)>,
    pushed: Vec<(PathBuf, OdbObject<'a>)>,
    changes: Vec<Change>,
}

impl Walk<'_> {
    fn enter(&mut self, path: PathBuf, before: Option<Entry>, after: Option<Entry>) -> Result<(), git2::Error> {
        let read = |entry: Option<Entry>| entry.map(|entry| self.objects.read(Oid::from_bytes(entry.id)?)).transpose();
        let (before, after) = (read(before)?, read(after)?);
        for (before, after) in pairs(before.as_ref(), after.as_ref()) {
            let Some(entry) = before.or(after) else { continue };
            if entry.is_folder() && !entry.name.starts_with(b".") {
                self.enter(path.join(entry.name()), before, after)?;
            } else if entry.is_migration() && before.map(|entry| entry.id) != after.map(|entry| entry.id) {
                let id = |entry: Option<Entry>| entry.map(|entry| Oid::from_bytes(entry.id)).transpose();
                let path = path.join(entry.name());
                self.changes.push(Change { path, deployed: id(before)?, pushed: id(after)? });
            }
        }
        self.deployed.extend(before.map(|tree| (path.clone(), tree)));
        self.pushed.extend(after.map(|tree| (path, tree)));
        Ok(())
    }

    fn folder(self, path: PathBuf, schema_differs: bool) -> Folder {
        let new = self.changes.iter().filter(|change| change.deployed.is_none());
        let kin = Kin::of(new.filter_map(|change| change.path.file_name()).map(OsStr::as_bytes));
        let mut folder = Folder { path, ..Folder::default() };
        folder.pushed.begin();
        for (path, tree) in &self.pushed {
            folder.pushed.enter(path.clone());
            let migrations = entries(tree).filter(Entry::is_migration).map(|entry| entry.name);
            for name in migrations.filter(|name| kin.has(name)) {
                folder.pushed.push(name);
            }
        }
        if !kin.is_empty() || schema_differs {
            let deployed = self.deployed.iter().flat_map(|(_, tree)| entries(tree));
            let names = deployed.filter(Entry::is_migration).map(|entry| entry.name);
            (folder.newest_deployed, folder.applied) = kin.applied(names);
        }
        folder.changes = self.changes;
        folder
    }
}

/// The folder at `path` below `root`, if there is one.
fn below<'a>(repository: &'a Repository, root: &Tree, path: &Path) -> Result<Option<Tree<'a>>, git2::Error> {
    match root.get_path(path) {
        Ok(entry) if entry.filemode() == FOLDER => repository.find_tree(entry.id()).map(Some),
        Ok(_) => Ok(None),
        Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where the Rails root lies in the repository; empty at its top and in a bare one.
pub fn prefix(repository: &Repository, root: &Path) -> PathBuf {
    let top = repository.workdir().and_then(|top| top.canonicalize().ok());
    top.and_then(|top| root.strip_prefix(top).ok().map(Path::to_owned)).unwrap_or_default()
}

/// The commit of this name, or what an annotated tag of this name stands for; none where it is not in this repository.
pub fn commit<'a>(repository: &'a Repository, id: &str) -> Result<Option<Commit<'a>>, git2::Error> {
    match repository.find_object(Oid::from_str_ext(id, repository.object_format())?, None) {
        Ok(object) => object.peel_to_commit().map(Some),
        Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The Rails root in a commit. Of a folder that was split off (`git subtree`), it is the top, not `prefix`.
pub fn root<'a>(
    repository: &'a Repository,
    prefix: &Path,
    commit: &Commit<'a>,
) -> Result<Option<Tree<'a>>, git2::Error> {
    let is_rails = |tree: &Tree| ["config", "db", "Gemfile"].iter().any(|name| tree.get_name(name).is_some());
    let top = commit.tree()?;
    if prefix.as_os_str().is_empty() {
        return Ok(Some(top));
    }
    let below = below(repository, &top, prefix)?.filter(is_rails);
    Ok(below.or_else(|| Some(top).filter(is_rails)))
}

/// The content of a file below `root`; none where there is no such file.
pub fn content(repository: &Repository, root: &Tree, path: &Path) -> Result<Option<Vec<u8>>, git2::Error> {
    match root.get_path(path) {
        Ok(entry) if entry.kind() == Some(ObjectType::Blob) => {
            repository.find_blob(entry.id()).map(|blob| Some(blob.content().to_owned()))
        }
        Ok(_) => Ok(None),
        Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The folders in which a Rails root keeps migrations by Rails' own names: `db/migrate`, `db/animals_migrate`.
pub fn default_folders(repository: &Repository, root: &Tree) -> Result<Vec<PathBuf>, git2::Error> {
    let Some(parent) = below(repository, root, Path::new(PARENT))? else { return Ok(Vec::new()) };
    let objects = repository.odb()?;
    let parent = objects.read(parent.id())?;
    let holding = entries(&parent).filter(Entry::holds_migrations);
    Ok(holding.map(|entry| Path::new(PARENT).join(entry.name())).collect())
}

/// The migrations in these folders of a Rails root, at any depth; a folder that is not there has none.
pub fn migrations(repository: &Repository, root: &Tree, folders: &[PathBuf]) -> Result<Vec<Migration>, git2::Error> {
    let mut found = Vec::new();
    for folder in folders {
        // `./db/migrate` is no path of git's.
        let plain: PathBuf = folder.components().filter(|part| !matches!(part, Component::CurDir)).collect();
        let Some(tree) = below(repository, root, &plain)? else { continue };
        tree.walk(TreeWalkMode::PreOrder, |parent, entry| {
            let name = entry.name_bytes();
            if entry.kind() == Some(ObjectType::Tree) && name.starts_with(b".") {
                return TreeWalkResult::Skip;
            }
            if entry.kind() == Some(ObjectType::Blob) && is_candidate(name) {
                found.extend(Migration::parse(&plain.join(parent).join(OsStr::from_bytes(name))));
            }
            TreeWalkResult::Ok
        })?;
    }
    Ok(found)
}

/// The Ruby files below a folder, at any depth, with their contents; none where there is no such folder.
pub fn ruby_below(repository: &Repository, root: &Tree, folder: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>, git2::Error> {
    let mut files = Vec::new();
    if let Some(tree) = below(repository, root, folder)? {
        collect_ruby(repository, &tree, folder, &mut files)?;
    }
    Ok(files)
}

fn collect_ruby(
    repository: &Repository,
    tree: &Tree,
    path: &Path,
    files: &mut Vec<(PathBuf, Vec<u8>)>,
) -> Result<(), git2::Error> {
    for entry in tree {
        let name = entry.name_bytes();
        let path = path.join(OsStr::from_bytes(name));
        match entry.kind() {
            Some(ObjectType::Tree) => collect_ruby(repository, &repository.find_tree(entry.id())?, &path, files)?,
            Some(ObjectType::Blob) if name.ends_with(b".rb") => {
                files.push((path, repository.find_blob(entry.id())?.content().to_owned()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The names of the folders in a folder.
pub fn folders_in(repository: &Repository, root: &Tree, folder: &Path) -> Result<Vec<PathBuf>, git2::Error> {
    let Some(tree) = below(repository, root, folder)? else { return Ok(Vec::new()) };
    let folders = tree.iter().filter(|entry| entry.kind() == Some(ObjectType::Tree));
    Ok(folders.map(|entry| folder.join(OsStr::from_bytes(entry.name_bytes()))).collect())
}
