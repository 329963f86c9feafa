//! What the server's error numbers mean to us.

use mysql_common::packets::ServerError;

use crate::ports::{SqlError, SqlErrorKind};

/// The server's error, with its number in the message as MySQL's own client prints it.
pub fn from_server(error: &ServerError<'_>) -> SqlError {
    let message = error.message_str();
    SqlError::new(kind(error.error_code(), &message), error.to_string())
}

fn kind(code: u16, message: &str) -> SqlErrorKind {
    match code {
        1051 | 1109 | 1146 => SqlErrorKind::NoTable,
        1054 => SqlErrorKind::NoColumn,
        // "SELECT command denied ..." and the like: who may not even read is not read-only, and the number is the same.
        1142 | 1143 if !message.starts_with("SELECT") => SqlErrorKind::ReadOnly,
        // Wrong password, no right to the database or the table, host not allowed, account locked or expired.
        1044 | 1045 | 1130 | 1142 | 1143 | 1227 | 1251 | 1698 | 1820 | 1862 | 3118 | 4151 => SqlErrorKind::Denied,
        // No such database; too many connections of all, of this user, of this hour; host blocked after errors.
        1040 | 1049 | 1129 | 1203 | 1226 => SqlErrorKind::Unreachable,
        // The table, the server, the transaction or InnoDB is read-only; a global read lock.
        1036 | 1223 | 1290 | 1792 | 1836 | 1874 => SqlErrorKind::ReadOnly,
        1022 | 1062 | 1586 => SqlErrorKind::Duplicate,
        // The disk, or a table of a bounded size.
        1021 | 1114 => SqlErrorKind::Full,
        // Waited too long for a lock, deadlock, NOWAIT.
        1205 | 1213 | 3572 => SqlErrorKind::Locked,
        // Shutting down, killed, network trouble as the server saw it, idle too long.
        1053 | 1077 | 1079 | 1080 | 1152..=1161 | 1184 | 1927 | 4031 => SqlErrorKind::Lost,
        _ => SqlErrorKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use mysql_common::packets::SqlState;

    use super::*;

    #[test]
    fn numbers_become_kinds() {
        for (code, message, expected) in [
            (1146, "Table 'a.b' doesn't exist", SqlErrorKind::NoTable),
            (1054, "Unknown column 'c' in 'field list'", SqlErrorKind::NoColumn),
            (1045, "Access denied for user 'u'@'h' (using password: YES)", SqlErrorKind::Denied),
            (1142, "SELECT command denied to user 'u'@'h' for table 't'", SqlErrorKind::Denied),
            (1142, "INSERT command denied to user 'u'@'h' for table 't'", SqlErrorKind::ReadOnly),
            (1290, "The server is running with the --read-only option", SqlErrorKind::ReadOnly),
            (1049, "Unknown database 'x'", SqlErrorKind::Unreachable),
            (1062, "Duplicate entry '1' for key 'PRIMARY'", SqlErrorKind::Duplicate),
            (1114, "The table 'a' is full", SqlErrorKind::Full),
            (1205, "Lock wait timeout exceeded; try restarting transaction", SqlErrorKind::Locked),
            (1053, "Server shutdown in progress", SqlErrorKind::Lost),
            (1064, "You have an error in your SQL syntax", SqlErrorKind::Other),
        ] {
            assert_eq!(kind(code, message), expected, "{code} {message}");
        }
    }

    #[test]
    fn the_message_carries_number_and_state() {
        let error = ServerError::new(1049, Some(SqlState::new(*b"42000")), &b"Unknown database 'x'"[..]);
        assert_eq!(from_server(&error).message, "ERROR 1049 (42000): Unknown database 'x'");
    }
}
