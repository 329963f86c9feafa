//! Faults of several runs at once.

use crate::Fault;

pub const FAULTS: &[Fault] = &[];
