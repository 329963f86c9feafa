//! Faults of configuration, files and hostile input.

use crate::Fault;

pub const FAULTS: &[Fault] = &[];
