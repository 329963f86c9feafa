//! The outside world behind the doors of [`crate::ports`].

pub mod files;
pub mod rails;
pub mod ruby;
