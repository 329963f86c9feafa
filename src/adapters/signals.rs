//! Signals, as a flag that is looked at: no step is torn apart.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// Whether, and by which signal, we were asked to end.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicUsize>);

impl Interrupt {
    /// Listens from now on. SIGINT and SIGTERM ask for an orderly end; a second SIGINT ends at once, and the record speaks
    /// for us. SIGHUP is heard and ignored: a one-off dyno whose terminal is gone still has a migration to finish.
    pub fn listen() -> std::io::Result<Self> {
        let interrupt = Self::default();
        let again = Arc::new(AtomicBool::new(false));
        flag::register_conditional_shutdown(SIGINT, 128 + SIGINT, Arc::clone(&again))?;
        flag::register(SIGINT, again)?;
        for signal in [SIGINT, SIGTERM] {
            flag::register_usize(signal, Arc::clone(&interrupt.0), usize::try_from(signal).unwrap_or(0))?;
        }
        flag::register(SIGHUP, Arc::new(AtomicBool::new(false)))?;
        Ok(interrupt)
    }

    /// The last signal that asked us to end.
    pub fn signal(&self) -> Option<i32> {
        i32::try_from(self.0.load(Ordering::SeqCst)).ok().filter(|&signal| signal != 0)
    }
}
