//! The walk over the folders of migrations: names alone, no file is ever opened.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};

use crate::error::{Error, Kind, Result};
use crate::migrations::{Files, is_candidate};

/// More entries than this are no folder of migrations, but a path that points at the wrong place.
const MAX_ENTRIES: usize = 2_000_000;

/// Everything that Rails would look at under `paths`, as `Dir["<path>/**/[0-9]*_*.rb"]` finds it: at any depth, without
/// hidden folders and without following links to folders (the path itself may be one). Relative paths count from `root`, and
/// what lies under `root` is returned relative to it. Paths that overlap give a file twice, as in Rails. A path that is not there holds nothing.
pub fn list(root: &Path, paths: &[String]) -> Result<Files> {
    let mut found = Files::default();
    let mut seen = 0;
    for path in paths {
        for top in expand(root, path)? {
            found.begin();
            walk(root, &top, &mut seen, &mut found)?;
        }
    }
    Ok(found)
}

/// Rails hands the path to `Dir.glob` unescaped: `engines/*/db/migrate` stands for several folders, and a folder whose name
/// holds a `[` is not found by that name.
fn expand(root: &Path, path: &str) -> Result<Vec<PathBuf>> {
    let plain = path.trim_end_matches('/');
    let relative = |path: &Path| path.strip_prefix(root).unwrap_or(path).to_owned();
    if !plain.contains(['*', '?', '[', '{', '\\']) {
        return Ok(vec![relative(Path::new(plain))]);
    }
    let unusable =
        || Error::new(Kind::Input, format!("{path}: this pattern for migrations cannot be read without Ruby"));
    let base = Pattern::escape(root.to_str().ok_or_else(unusable)?);
    let options =
        MatchOptions { require_literal_separator: true, require_literal_leading_dot: true, ..MatchOptions::new() };
    let mut tops = Vec::new();
    for pattern in braces(plain) {
        if pattern.contains('\\') {
            return Err(unusable());
        }
        let pattern = if pattern.starts_with('/') { pattern } else { format!("{base}/{pattern}") };
        for top in glob::glob_with(&pattern, options).map_err(|cause| unusable().because(cause))? {
            tops.push(relative(&top.map_err(|cause| unreadable(cause.path()).because(cause))?));
        }
    }
    Ok(tops)
}

/// `a{b,c}d` as `abd` and `acd`, from left to right. Braces that do not close stay as they are.
fn braces(pattern: &str) -> Vec<String> {
    let Some((start, after)) = pattern.split_once('{') else { return vec![pattern.to_owned()] };
    let (mut depth, mut from, mut choices) = (0, 0, Vec::new());
    for (at, byte) in after.bytes().enumerate() {
        match byte {
            b',' | b'}' if depth == 0 => {
                choices.push(&after[from..at]);
                from = at + 1;
                if byte == b'}' {
                    let joined = choices.iter().map(|choice| format!("{start}{choice}{}", &after[from..]));
                    return joined.flat_map(|pattern| braces(&pattern)).collect();
                }
            }
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
    }
    vec![pattern.to_owned()]
}

/// Adds the candidates below `top`. The kind of each entry comes from the folder itself; no file is asked for it.
fn walk(root: &Path, top: &Path, seen: &mut usize, found: &mut Files) -> Result<()> {
    let mut folders = vec![top.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(root.join(&folder)) {
            Ok(entries) => entries,
            // Not there, no folder, or gone since its parent was read: nothing to find.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => continue,
            Err(error) => return Err(unreadable(&folder).because(error)),
        };
        found.enter(folder.clone());
        for entry in entries {
            let entry = entry.map_err(|error| unreadable(&folder).because(error))?;
            let name = entry.file_name();
            *seen += 1;
            if *seen > MAX_ENTRIES {
                let message = format!("{}: more than {MAX_ENTRIES} files under the migrations paths", top.display());
                return Err(Error::new(Kind::Input, message));
            }
            if is_candidate(name.as_bytes()) {
                found.push(name.as_bytes());
            }
            let hidden = name.as_bytes().starts_with(b".");
            if !hidden && entry.file_type().map_err(|error| unreadable(&folder).because(error))?.is_dir() {
                folders.push(folder.join(&name));
            }
        }
    }
    Ok(())
}

fn unreadable(folder: &Path) -> Error {
    Error::new(Kind::System, format!("{}: cannot read this folder of migrations", folder.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        root
    }

    fn listed(root: &Path, paths: &[&str]) -> Vec<String> {
        let paths: Vec<_> = paths.iter().map(ToString::to_string).collect();
        list(root, &paths).unwrap().sorted_paths().iter().map(|path| path.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn finds_what_rails_finds() {
        let root = tree(&[
            "db/migrate/1_a.rb",
            "db/migrate/README",
            "db/migrate/a/b/2_deep.rb",
            "db/migrate/with space/3_c.rb",
            "db/migrate/.hidden/4_no.rb",
            "db/migrate/5_dir.rb/6_inside.rb",
            "elsewhere/7_no.rb",
        ]);
        symlink(root.path().join("elsewhere"), root.path().join("db/migrate/linked")).unwrap();
        symlink("nowhere", root.path().join("db/migrate/8_dangling.rb")).unwrap();
        let expected = [
            "db/migrate/1_a.rb",
            "db/migrate/5_dir.rb",
            "db/migrate/5_dir.rb/6_inside.rb",
            "db/migrate/8_dangling.rb",
            "db/migrate/a/b/2_deep.rb",
            "db/migrate/with space/3_c.rb",
        ];
        assert_eq!(listed(root.path(), &["db/migrate"]), expected);
        assert_eq!(listed(root.path(), &[&format!("{}/db/migrate/", root.path().display())]), expected);
        assert_eq!(listed(root.path(), &["db/migrate/linked"]), ["db/migrate/linked/7_no.rb"]);
        assert_eq!(listed(root.path(), &["missing", "db/migrate/1_a.rb"]), [""; 0]);
        assert_eq!(listed(root.path(), &["db/migrate/a", "db/migrate/a/b"]).len(), 2);
    }

    #[test]
    fn a_path_is_a_pattern() {
        let root = tree(&["a/x/1_a.rb", "a/[x]/2_b.rb", "b/x/3_c.rb", ".h/x/4_d.rb"]);
        assert_eq!(listed(root.path(), &["a/[x]"]), ["a/x/1_a.rb"]);
        assert_eq!(listed(root.path(), &["*/x"]), ["a/x/1_a.rb", "b/x/3_c.rb"]);
        assert_eq!(listed(root.path(), &["{b,a}/x"]), ["b/x/3_c.rb", "a/x/1_a.rb"]);
        assert!(list(root.path(), &[r"a/\[x\]".to_owned()]).is_err());
    }

    #[test]
    fn braces_expand() {
        assert_eq!(braces("a{b,c{d,e}}{,f}"), ["ab", "abf", "acd", "acdf", "ace", "acef"]);
        assert_eq!(braces("a{b,c"), ["a{b,c"]);
    }

    #[test]
    fn an_unreadable_folder_is_named() {
        let root = tree(&["db/migrate/1_a.rb"]);
        symlink("loop", root.path().join("db/loop")).unwrap();
        let error = list(root.path(), &["db/loop".to_owned()]).unwrap_err();
        assert!(error.message.starts_with("db/loop: "), "{}", error.message);
    }
}
