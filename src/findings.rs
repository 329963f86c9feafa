//! What is wrong with a push: each finding has a rule's name, a place, a reason and the safe way.

use std::path::PathBuf;

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Said, and no more: what could not be read, what is good to know.
    Note,
    /// It may hurt; the push goes on.
    Warning,
    /// It is certain to fail or to hurt; the push is refused.
    Refusal,
}

/// Where in a file: line and column count from 1, columns in bytes; `excerpt` is the line itself, as it is in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub path: PathBuf,
    pub line: usize,
    pub column: usize,
    pub excerpt: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The rule's name, in kebab case: `remove-column`, `edited`.
    pub rule: &'static str,
    pub severity: Severity,
    /// The whole file where line is 0; none where it is about no file.
    pub place: Option<Place>,
    /// What is wrong and why.
    pub message: String,
    /// The safe way, step by step.
    pub remedy: Vec<String>,
}
