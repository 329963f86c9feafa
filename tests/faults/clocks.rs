//! Faults of clocks.

use crate::Fault;

pub const FAULTS: &[Fault] = &[];
