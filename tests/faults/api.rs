//! Faults of the platform's API and of the network.

use crate::Fault;

pub const FAULTS: &[Fault] = &[];
