//! A lock on a file, which lives as long as any process holds the open file: ours, or a child that inherited it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::error::{Error, Kind, Result};

/// No holder's name is longer.
const NAME_LIMIT: u64 = 200;

/// The lock, held.
///
/// It belongs to the open file, not to the process: a child that inherits [`FileLock::fd`] holds the same lock, even after we
/// are killed. So dropping this only closes our descriptor. Unlocking would take the lock from under the child, and
/// removing the file would let a third process lock a new file of the same name; both are absent on purpose.
#[derive(Debug)]
pub struct FileLock {
    file: File,
}

impl FileLock {
    /// Takes the lock on the file at `path`, which is made where it is missing and never followed where it is a symbolic link.
    /// `None` means that somebody else holds it. `name` says who we are; [`holder`] shows it to others.
    pub fn try_acquire(path: &Path, name: &str) -> Result<Option<Self>> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)
            .map_err(|error| not_lockable(path, error))?;
        match file.try_lock() {
            Ok(()) => {
                // The lock holds without the name, which only makes the others' message better.
                let _ = write_name(&mut file, name);
                Ok(Some(Self { file }))
            }
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(not_lockable(path, error)),
        }
    }

    /// The descriptor to hand to a child. It is closed on exec until whoever starts the child says otherwise.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Whether somebody holds the lock on the file at `path`. Nothing is made or written.
pub fn is_held(path: &Path) -> bool {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    // A lock that we get is given back as the file is closed.
    file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// The name that the last holder of the lock at `path` gave. It stays after the lock is gone, so it means something only right
/// after [`FileLock::try_acquire`] said that the lock is held.
pub fn holder(path: &Path) -> Option<String> {
    let mut text = vec![];
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path).ok()?;
    file.take(NAME_LIMIT).read_to_end(&mut text).ok()?;
    let name = one_line(&String::from_utf8_lossy(&text));
    (!name.is_empty()).then_some(name)
}

fn write_name(file: &mut File, name: &str) -> io::Result<()> {
    file.set_len(0)?;
    writeln!(file, "{}", one_line(name))
}

/// The first line, without what a terminal would not print.
fn one_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(100).collect::<String>().trim().to_owned()
}

fn not_lockable(path: &Path, error: io::Error) -> Error {
    let failure = Error::new(Kind::System, format!("cannot lock {}", path.display()));
    let failure = match error.raw_os_error() {
        Some(libc::ELOOP) => failure.hint("It is a symbolic link, which is not followed. Remove it."),
        Some(libc::EACCES | libc::EROFS) => {
            failure.hint("The lock lies beside the database: this user must be able to write there.")
        }
        _ => failure,
    };
    failure.because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_printable_line() {
        for (text, expected) in [
            ("me on web.1\nsecond", "me on web.1"),
            ("\u{1b}[31mred\u{7}", "[31mred"),
            ("", ""),
            ("  a\t\u{e9}b ", "ab"),
        ] {
            assert_eq!(one_line(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_folder_that_is_not_ours_is_said() {
        let error = not_lockable(Path::new("/data/db-unstuck.lock"), io::Error::from_raw_os_error(libc::EACCES));
        assert_eq!(error.to_string(), "cannot lock /data/db-unstuck.lock: Permission denied (os error 13)");
        assert_eq!(
            error.hint.as_deref(),
            Some("The lock lies beside the database: this user must be able to write there.")
        );
    }
}
