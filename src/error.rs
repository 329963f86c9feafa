//! What went wrong, for people and for machines: a kind, which alone sets the exit code, a message, its causes and a
//! hint that says what to do next.

use std::fmt;

/// What kind of failure this is. The kind alone decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The command line is wrong (exit code 2).
    Usage,
    /// A file that people wrote is wrong: configuration, `database.yml`, the name of a migration (exit code 1).
    Input,
    /// A database could not be reached or read (exit code 1).
    Database,
    /// Heroku's API could not be asked, or said no (exit code 1, or 5 where something was to be done).
    Api,
    /// Refused before anything ran (exit code 5).
    Refused,
    /// Another run holds the lock (exit code 9).
    Busy,
    /// The machine failed us: a file, a process, memory (exit code 1).
    System,
}

impl Kind {
    /// The process exit code that this kind stands for.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Input | Self::Database | Self::Api | Self::System => 1,
            Self::Usage => 2,
            Self::Refused => 5,
            Self::Busy => 9,
        }
    }

    /// The word that `--json` prints as `error.kind`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Input => "input",
            Self::Database => "database",
            Self::Api => "api",
            Self::Refused => "refused",
            Self::Busy => "busy",
            Self::System => "system",
        }
    }
}

/// A failure that can be shown to a person. Never holds a secret: whoever makes one keeps passwords and tokens out.
#[derive(Debug)]
pub struct Error {
    pub kind: Kind,
    /// What happened, in one sentence that names the file, line, variable or host.
    pub message: String,
    /// Why it happened: the chain of causes below the message.
    pub source: Option<anyhow::Error>,
    /// What to do next.
    pub hint: Option<String>,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None, hint: None }
    }

    /// Adds the cause below the message.
    #[must_use]
    pub fn because(mut self, cause: impl Into<anyhow::Error>) -> Self {
        self.source = Some(cause.into());
        self
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same failure, seen as another kind: what could not be asked may be a reason to refuse.
    #[must_use]
    pub fn as_kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// The causes, outermost first.
    pub fn causes(&self) -> Vec<String> {
        self.source.iter().flat_map(|source| source.chain().map(ToString::to_string)).collect()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.causes().iter().try_for_each(|cause| write!(f, ": {cause}"))
    }
}

impl std::error::Error for Error {}
