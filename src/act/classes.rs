//! Who will notice the pending migrations before the restart, by reading their files. It is said and recorded; no step depends
//! on it, and what cannot be read quickly is left out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::adapters::files::read_migration;
use crate::migrations::Migration;
use crate::rails::Engine;
use crate::ruby::{Class, Deployed, Source, read_all};

/// More than this is a first deploy, whose tables nobody uses yet: in files, and in bytes.
const MAX_FILES: usize = 200;
const MAX_BYTES: usize = 4 << 20;

/// The class of each migration that could be read, by its path. What is deployed is not known here, so it is the worse one.
pub fn of(pending: &[Migration], root: &Path, engine: Engine) -> BTreeMap<PathBuf, Class> {
    if pending.len() > MAX_FILES {
        return BTreeMap::new();
    }
    let mut left = MAX_BYTES;
    let texts: Vec<(&Path, Vec<u8>)> = pending
        .iter()
        .map_while(|migration| {
            let text = read_migration(&root.join(&migration.path))?;
            left = left.checked_sub(text.len())?;
            Some((migration.path.as_path(), text))
        })
        .collect();
    let sources: Vec<Source> = texts.iter().map(|(path, text)| Source { path, text }).collect();
    let deployed = Deployed { engine: Some(engine), ..Deployed::default() };
    let readings = read_all(&sources, &deployed);
    texts.iter().zip(readings).map(|((path, _), reading)| ((*path).to_owned(), reading.class)).collect()
}
