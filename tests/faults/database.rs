//! Faults of the databases.

use crate::Fault;

pub const FAULTS: &[Fault] = &[];
