//! `unstuck ps`: as `heroku ps` prints, and each dyno's boot against the last schema change.

use std::collections::HashMap;

use serde_json::Value;

use super::api_failed;
use super::sight::Sight;
use crate::args;
use crate::config::Settings;
use crate::dynos::DynoList;
use crate::error::{Error, Kind, Result};
use crate::processes;
use crate::report::Reporter;

pub fn ps(settings: &Settings, args: &args::Ps, reporter: &Reporter) -> Result<u8> {
    let mut sight = Sight::of_platform(settings, reporter)?;
    let Some(platform) = sight.platform() else { return Ok(0) };
    let (mut all, date) = platform.processes().map_err(api_failed)?;
    let blind = sight.add_databases(reporter).err();
    let list = DynoList { dynos: all.iter().map(|process| process.dyno.clone()).collect(), date };
    let picture = sight.look_beside(list)?;
    let stuck: HashMap<&str, Option<bool>> =
        picture.dynos.iter().flatten().map(|dyno| (dyno.dyno.id.as_str(), dyno.stuck)).collect();

    let app = picture.app.as_deref().unwrap_or_default();
    if let Some(kind) = args.types.iter().find(|kind| !all.iter().any(|process| process.dyno.kind == **kind)) {
        return Err(Error::new(Kind::Input, format!("no {kind} dynos on {app}"))
            .hint("`unstuck ps` without a type shows all of them"));
    }
    all.retain(|process| args.types.is_empty() || args.types.contains(&process.dyno.kind));
    all.sort_by(|a, b| a.dyno.name.cmp(&b.dyno.name));
    let stuck_of = |id: &str| stuck.get(id).copied().flatten();
    if reporter.json {
        let documents = all.into_iter().map(|process| {
            let mut document = process.document;
            document["stuck"] = stuck_of(&process.dyno.id).map_or(Value::Null, Value::Bool);
            document
        });
        reporter.document(&documents.collect());
    } else {
        for line in processes::lines(&all, stuck_of, picture.change.as_ref(), picture.now, app) {
            reporter.result(&line);
        }
    }
    match blind {
        Some(why) => reporter.warn(&format!("which dynos are stuck cannot be told: {why}")),
        None if picture.change.is_none() => {
            reporter.warn("which dynos are stuck cannot be told: nothing was ever recorded (unstuck restart --all)");
        }
        None => {}
    }
    Ok(0)
}
