//! Faults of signals and crashes.

use crate::Fault;

pub const FAULTS: &[Fault] = &[];
