//! The outside world behind the doors of [`crate::ports`].
