//! `unstuck-standin`: a rehearsal of Heroku on one machine.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use unstuck_standin::{Generation, Mode, Options, Standin, Timing};

/// Serves Heroku's Platform API on loopback and runs a Procfile's processes as dynos, until it is interrupted.
#[derive(Parser)]
#[command(name = "unstuck-standin", version)]
struct Args {
    /// The directory that the processes run in
    #[arg(long, default_value = ".")]
    root: PathBuf,
    /// The Procfile [default: ROOT/Procfile]
    #[arg(long)]
    procfile: Option<PathBuf>,
    #[arg(long, default_value = "standin-app")]
    app: String,
    /// The app's uuid [default: a new one]
    #[arg(long)]
    app_id: Option<String>,
    /// How many dynos of each type
    #[arg(long, default_value = "web=1", value_name = "TYPE=N,...", value_delimiter = ',', value_parser = pair::<u64>)]
    formation: Vec<(String, u64)>,
    /// The API's port; 0 takes a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// The port of the app's public address; 0 takes a free one
    #[arg(long, default_value_t = 0)]
    router_port: u16,
    /// The token that requests must carry
    #[arg(long, default_value = "HRKU-standin-0000-not-a-secret")]
    token: String,
    /// A config var; may be given again
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair::<String>)]
    config: Vec<(String, String)>,
    /// Old web dynos serve on, unlisted, after a restart
    #[arg(long)]
    preboot: bool,
    /// How long they do, in seconds
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    preboot_window: u64,
    /// How long a web dyno may take to bind $PORT, in seconds
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    boot_timeout: u64,
    /// The first cool-off after a second crash, in seconds
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    crash_cool_off: u64,
    /// From SIGTERM to SIGKILL, in seconds
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    grace: u64,
    /// An app of the Fir generation
    #[arg(long)]
    fir: bool,
    /// Dynos do not learn their app and release (the labs feature runtime-dyno-metadata is off)
    #[arg(long)]
    no_metadata: bool,
}

fn pair<T: std::str::FromStr>(text: &str) -> Result<(String, T), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.parse().map_err(|_| format!("not a value: {value}"))?))
}

impl Args {
    fn options(self) -> Options {
        Options {
            app: self.app,
            app_id: self.app_id,
            generation: if self.fir { Generation::Fir } else { Generation::Cedar },
            formation: self.formation.into_iter().collect(),
            token: self.token,
            port: self.port,
            router_port: self.router_port,
            mode: Mode::Procfile {
                root: self.root,
                procfile: self.procfile,
                env: BTreeMap::new(),
                grace: Duration::from_secs(self.grace),
            },
            timing: Timing {
                boot_timeout: Duration::from_secs(self.boot_timeout),
                preboot_window: Duration::from_secs(self.preboot_window),
                crash_cool_off: Duration::from_secs(self.crash_cool_off),
                ..Timing::default()
            },
            preboot: self.preboot,
            metadata: !self.no_metadata,
            config: self.config.into_iter().collect(),
        }
    }
}

fn main() -> anyhow::Result<()> {
    let options = Args::parse().options();
    let waiting = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Before the first dyno starts, so that no signal finds us unprepared.
    let (mut interrupt, mut terminate) = {
        let _entered = waiting.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    let standin = Standin::start(options)?;
    announce(&standin)?;
    waiting.block_on(async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    });
    drop(standin);
    Ok(())
}

/// Lines that a shell can evaluate.
fn announce(standin: &Standin) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "# {} answers at {}", standin.app(), standin.router_url())?;
    writeln!(out, "export HEROKU_HOST={}", standin.url())?;
    writeln!(out, "export HEROKU_API_KEY={}", standin.token())?;
    writeln!(out, "export HEROKU_APP_NAME={}", standin.app())?;
    out.flush()
}
