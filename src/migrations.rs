//! Which files are migrations, and which of them are pending. Rails' own rules, pure.
