//! `unstuck hook install` and `unstuck hook uninstall`.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::json;

use crate::adapters::hooks::Folder;
use crate::adapters::{git, trees};
use crate::args::Hook;
use crate::config::{Settings, WhenMissing};
use crate::error::{Error, Kind, Result};
use crate::hook::{MANAGERS, Manager, PRE_COMMIT, Script, is_of_pre_commit, is_ours};
use crate::report::Reporter;

pub fn hook(settings: &Settings, what: Hook, reporter: &Reporter) -> Result<u8> {
    let Some(repository) = git::open(&settings.root)? else {
        return Err(Error::new(Kind::Input, "there is no git repository here").hint("-C names the Rails root"));
    };
    let folder = Folder::of(&repository).map_err(|error| {
        Error::new(Kind::System, format!("git's configuration cannot be read: {}", error.message()))
    })?;
    match what {
        Hook::Install => {
            let now = folder.read().map_err(|error| failed(&folder, error))?;
            if let Some(manager) = manager(repository.workdir(), now.as_deref()) {
                return Ok(leave_to(manager, repository.workdir(), reporter));
            }
            let root = trees::prefix(&repository, &settings.root);
            install(&folder, &root, settings, reporter)
        }
        Hook::Uninstall => uninstall(&folder, reporter),
    }
}

fn failed(folder: &Folder, error: io::Error) -> Error {
    Error::new(Kind::System, format!("{} cannot be changed", folder.hook().display())).because(error)
}

/// The tool that keeps this repository's hooks, where one does.
fn manager(top: Option<&Path>, hook: Option<&[u8]>) -> Option<&'static Manager> {
    let known = |manager: &&Manager| top.is_some_and(|top| configuration(top, manager).is_some());
    if hook.is_some_and(|hook| !is_ours(hook) && is_of_pre_commit(hook)) {
        return Some(&PRE_COMMIT);
    }
    MANAGERS.iter().find(known)
}

fn configuration(top: &Path, manager: &Manager) -> Option<&'static str> {
    manager.files.iter().copied().find(|file| top.join(file).is_file())
}

/// Says what the configuration of the tool needs; nothing is written. Exit code 1 until it has it.
fn leave_to(manager: &Manager, top: Option<&Path>, reporter: &Reporter) -> u8 {
    let file = top.and_then(|top| configuration(top, manager)).unwrap_or(manager.files[0]);
    let text = top.and_then(|top| std::fs::read_to_string(top.join(file)).ok()).unwrap_or_default();
    let done = text.contains("unstuck pre-push") || text.contains("'unstuck', 'pre-push'");
    let state = if done { "unchanged" } else { "manual" };
    if done {
        reporter.say(&format!("{file} calls unstuck already"));
    } else {
        reporter.warn(&format!("{} keeps the hooks of this repository; add these lines to {file}:", manager.name));
        for line in manager.lines.lines() {
            reporter.result(line);
        }
        reporter.warn(&format!("and run `{}`", manager.then));
    }
    if reporter.json {
        reporter.document(&json!({"state": state, "manager": manager.name, "file": file, "lines": manager.lines}));
    }
    u8::from(!done)
}

fn install(folder: &Folder, root: &Path, settings: &Settings, reporter: &Reporter) -> Result<u8> {
    let program = std::env::current_exe()
        .map_err(|error| Error::new(Kind::System, "cannot tell where this program lies").because(error))?;
    let script = Script {
        // What is committed is for other machines too.
        program: if folder.of_husky { "".as_ref() } else { program.as_os_str() },
        root: if folder.shared { "".as_ref() } else { root.as_os_str() },
        refuses_without: settings.hook.missing.value == WhenMissing::Refuse,
        by_sh: folder.of_husky,
    };
    let changed = folder.install(script.text()).map_err(|error| failed(folder, error))?;
    let hook = folder.hook();
    reporter.say(&format!("{} {}", if changed { "installed" } else { "already there:" }, hook.display()));
    if let Some(before) = folder.before() {
        let runs = folder.of_husky || is_executable(&before);
        let what = if runs { "runs first, as" } else { "is not executable, so git did not run it: it stays" };
        reporter.say(&format!("the hook that was there {what} {}", before.display()));
    }
    if folder.shared {
        reporter.warn("core.hooksPath lies outside of this repository: the hook is called in all that share it");
    }
    tell(reporter, if changed { "installed" } else { "unchanged" }, folder);
    Ok(0)
}

fn uninstall(folder: &Folder, reporter: &Reporter) -> Result<u8> {
    let had_before = folder.before().is_some();
    let changed = folder.uninstall().map_err(|error| failed(folder, error))?;
    let hook = folder.hook();
    reporter.say(&match (changed, had_before) {
        (true, true) => format!("{} is again what it was", hook.display()),
        (true, false) => format!("removed {}", hook.display()),
        (false, _) if hook.symlink_metadata().is_err() => format!("there is no hook {}", hook.display()),
        (false, _) => format!("{} is not ours; nothing was changed", hook.display()),
    });
    tell(reporter, if changed { "uninstalled" } else { "unchanged" }, folder);
    Ok(0)
}

fn is_executable(hook: &Path) -> bool {
    hook.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o111 != 0)
}

fn tell(reporter: &Reporter, state: &str, folder: &Folder) {
    if reporter.json {
        let before = folder.before().map(|before| before.to_string_lossy().into_owned());
        reporter.document(&json!({"state": state, "hook": folder.hook().to_string_lossy(), "before": before}));
    }
}
