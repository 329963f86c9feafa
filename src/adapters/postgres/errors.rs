//! From the driver's errors to ours: the SQLSTATE decides the kind, the server's own words are the message.

use std::error::Error;
use std::io;

use tokio_postgres::error::{DbError, Severity};

use crate::ports::{SqlError, SqlErrorKind};

/// An attempt that failed, and whether another one makes sense.
pub(super) struct Failure {
    pub error: SqlError,
    pub instead: Instead,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Instead {
    /// Nobody answered there, or not one who can serve us.
    OtherAddress,
    /// The server may accept us with TLS, or without.
    OtherEncryption,
    Nothing,
}

pub(super) fn failed(kind: SqlErrorKind, message: String) -> SqlError {
    SqlError { kind, message, hint: None }
}

pub(super) fn unreachable(message: String) -> Failure {
    Failure { error: failed(SqlErrorKind::Unreachable, message), instead: Instead::OtherAddress }
}

/// A login that failed, in words and with what is left to try.
pub(super) fn login_failure(error: &tokio_postgres::Error, place: &str, instead: Instead) -> Failure {
    let Some(answer) = error.as_db_error() else {
        if let Some(alert) = tls_alert(error) {
            let message = format!("TLS with {place} failed: {alert}");
            return Failure { error: failed(SqlErrorKind::Tls, message), instead };
        }
        return match error.source() {
            // The driver itself refused: no password to give, no channel binding, an unknown method.
            Some(cause) if !cause.is::<io::Error>() => {
                Failure { error: failed(SqlErrorKind::Denied, format!("login at {place} failed: {cause}")), instead }
            }
            _ => unreachable(format!("{place} ended the login: {}", chain(error))),
        };
    };
    let code = answer.code().code();
    let kind = match code {
        "42501" => SqlErrorKind::Denied,
        "3D000" => SqlErrorKind::Unreachable,
        _ => match code.get(..2) {
            Some("28") => SqlErrorKind::Denied,
            Some("08" | "53" | "57") => SqlErrorKind::Unreachable,
            _ => SqlErrorKind::Other,
        },
    };
    let instead = match code {
        // Starting up, shutting down or in recovery: another host of the list may do.
        "57P03" => Instead::OtherAddress,
        _ if code.starts_with("28") => instead,
        _ => Instead::Nothing,
    };
    Failure { error: server_error(kind, answer), instead }
}

/// In TLS 1.3 a server refuses a client's certificate only after the handshake.
fn tls_alert(error: &tokio_postgres::Error) -> Option<&rustls::Error> {
    let cause = error.source()?.downcast_ref::<io::Error>()?;
    cause.get_ref()?.downcast_ref::<rustls::Error>()
}

/// An error of the driver with its causes.
fn chain(error: &tokio_postgres::Error) -> String {
    match error.source() {
        None => error.to_string(),
        Some(cause) => format!("{error}: {cause}"),
    }
}

fn server_error(kind: SqlErrorKind, answer: &DbError) -> SqlError {
    let message = format!("{} {}: {}", answer.severity(), answer.code().code(), answer.message());
    SqlError { kind, message, hint: answer.hint().map(str::to_owned) }
}

/// A statement that failed.
pub(super) fn statement_error(error: &tokio_postgres::Error) -> SqlError {
    let Some(answer) = error.as_db_error() else {
        let gone = error.is_closed() || error.source().is_some_and(<dyn Error>::is::<io::Error>);
        return failed(if gone { SqlErrorKind::Lost } else { SqlErrorKind::Other }, chain(error));
    };
    let code = answer.code().code();
    let kind = match code {
        _ if matches!(answer.parsed_severity(), Some(Severity::Fatal | Severity::Panic)) => SqlErrorKind::Lost,
        "42P01" => SqlErrorKind::NoTable,
        "42703" => SqlErrorKind::NoColumn,
        "25006" | "42501" => SqlErrorKind::ReadOnly,
        "23505" => SqlErrorKind::Duplicate,
        "55P03" => SqlErrorKind::Locked,
        "3D000" => SqlErrorKind::Unreachable,
        "53100" => SqlErrorKind::Full,
        _ => match code.get(..2) {
            Some("08") => SqlErrorKind::Lost,
            Some("28") => SqlErrorKind::Denied,
            _ => SqlErrorKind::Other,
        },
    };
    server_error(kind, answer)
}
