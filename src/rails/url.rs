//! Database URLs as Rails reads them: the grammar of RFC 2396 as Ruby's parser has it, then Active Record's own mapping.

use percent_encoding::percent_decode_str;

use super::version::RailsVersion;

/// The parts of a URL, not decoded. An authority gives a host or the URL is refused: Rails knows no registry names.
#[derive(Debug, Default, PartialEq, Eq)]
struct Parts<'a> {
    scheme: Option<&'a str>,
    /// Everything after the scheme of a URL without a leading slash: `sqlite3:db/x`.
    opaque: Option<&'a str>,
    user: Option<&'a str>,
    password: Option<&'a str>,
    host: Option<&'a str>,
    port: Option<&'a str>,
    path: &'a str,
    query: Option<&'a str>,
}

/// Why a URL cannot be used. Says nothing of its contents, which may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UrlError {
    /// Nothing but white space: Rails says "Database URL cannot be empty".
    Empty,
    /// Ruby's `URI::InvalidURIError`.
    Invalid,
    /// A part is no UTF-8 once its percent signs are decoded.
    NotText,
    /// Longer than any address, 16 KiB.
    TooLong,
}

/// No address is longer.
const MAX_BYTES: usize = 16 << 10;

impl UrlError {
    pub fn message(self) -> &'static str {
        match self {
            Self::Empty => "the database URL is empty",
            Self::Invalid => {
                "the database URL is not valid for Rails: special characters in the user or password must be percent-encoded, \
                 and a host has only letters, digits, dots and dashes"
            }
            Self::NotText => "the database URL decodes to something that is not UTF-8",
            Self::TooLong => "the database URL is longer than 16 KiB",
        }
    }
}

/// The configuration that a URL stands for, as keys and values in Active Record's words (`adapter`, `username`, ...).
/// Parts that are missing or blank give no key.
pub fn configuration(url: &str, rails: RailsVersion) -> Result<Vec<(String, String)>, UrlError> {
    if url.trim().is_empty() {
        return Err(UrlError::Empty);
    }
    if url.len() > MAX_BYTES {
        return Err(UrlError::TooLong);
    }
    let parts = parse(url.trim()).ok_or(UrlError::Invalid)?;
    let adapter = parts.scheme.map(|scheme| adapter(scheme, rails));
    let (opaque, query) = match parts.opaque {
        Some(opaque) => opaque.split_once('?').map_or((Some(opaque), None), |(path, query)| (Some(path), Some(query))),
        None => (None, parts.query),
    };
    let mut pairs: Vec<(&str, Option<&str>)> = Vec::new();
    let mut set = |key, value| match pairs.iter_mut().find(|(known, _)| *known == key) {
        Some(pair) => pair.1 = value,
        None => pairs.push((key, value)),
    };
    let mut parameters = Vec::new();
    for pair in
        query.unwrap_or_default().trim_end_matches('&').split('&').filter(|_| query.is_some_and(|q| !q.is_empty()))
    {
        // Ruby makes a hash of the pairs, and an empty pair is none.
        if pair.is_empty() {
            return Err(UrlError::Invalid);
        }
        let (key, value) = pair.split_once('=').map_or((pair, None), |(key, value)| (key, Some(value)));
        parameters.push((key, value));
    }
    let path = if adapter.as_deref() == Some("sqlite3") {
        parts.path
    } else {
        parts.path.strip_prefix('/').unwrap_or(parts.path)
    };
    let own = match opaque {
        Some(opaque) => vec![("adapter", adapter.as_deref()), ("database", Some(opaque))],
        None => vec![
            ("adapter", adapter.as_deref()),
            ("username", parts.user),
            ("password", parts.password),
            ("port", parts.port),
            ("database", Some(path)),
            ("host", parts.host),
        ],
    };
    // Up to 6.1 the parts win even where they are missing: `postgresql:///db?host=/dir` loses its host.
    let parts_win = opaque.is_some() || rails < RailsVersion(7, 0);
    let (first, last) = if parts_win { (parameters, own) } else { (own, parameters) };
    first.into_iter().chain(last).for_each(|(key, value)| set(key, value));
    pairs
        .into_iter()
        .filter_map(|(key, value)| Some((key, value.filter(|value| !value.trim().is_empty())?)))
        .map(|(key, value)| {
            let value = percent_decode_str(value).decode_utf8().map_err(|_| UrlError::NotText)?;
            Ok((key.to_owned(), value.into_owned()))
        })
        .collect()
}

/// Whether Rails takes the text for a URL at all: it has a scheme. A stricter parser looks here, and takes no space around it.
pub fn has_scheme(text: &str) -> bool {
    parse(text).is_some_and(|parts| parts.scheme.is_some())
}

fn adapter(scheme: &str, rails: RailsVersion) -> String {
    let adapter = scheme.replace('-', "_");
    match adapter.as_str() {
        "postgres" => "postgresql".to_owned(),
        "mysql" if rails >= RailsVersion(7, 2) => "mysql2".to_owned(),
        "sqlite" if rails >= RailsVersion(7, 2) => "sqlite3".to_owned(),
        _ => adapter,
    }
}

fn parse(url: &str) -> Option<Parts<'_>> {
    let (url, fragment) = url.split_once('#').map_or((url, ""), |(url, fragment)| (url, fragment));
    if !all(fragment, RESERVED) {
        return None;
    }
    let (scheme, rest) = match url.split_once(':') {
        Some((scheme, rest)) if is_scheme(scheme) => (Some(scheme), rest),
        _ => (None, url),
    };
    if scheme.is_some() && !rest.starts_with('/') {
        let parts = Parts { scheme, opaque: Some(rest), ..Parts::default() };
        return (!rest.is_empty() && all(rest, RESERVED)).then_some(parts);
    }
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    let (authority, path) = match rest.strip_prefix("//") {
        Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
        None => ("", rest),
    };
    if !all(path, b"/;:@&=+$,") || !query.is_none_or(|query| all(query, RESERVED)) {
        return None;
    }
    let (userinfo, server) = authority.split_once('@').map_or((None, authority), |(user, server)| (Some(user), server));
    let (host, port) = split_port(server)?;
    if !userinfo.is_none_or(|userinfo| !host.is_empty() && all(userinfo, b";:&=+$,")) {
        return None;
    }
    let (user, password) = match userinfo.map(|userinfo| userinfo.split_once(':').ok_or(userinfo)) {
        Some(Ok((user, password))) => (Some(user), Some(password)),
        Some(Err(user)) => (Some(user), None),
        None => (None, None),
    };
    Some(Parts { scheme, opaque: None, user, password, host: Some(host), port, path, query })
}

/// `host:port`, where the host may be an IPv6 address in brackets, which Rails takes off.
fn split_port(server: &str) -> Option<(&str, Option<&str>)> {
    let (host, port) = if let Some(rest) = server.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let valid = !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':' || b == b'.');
        (valid.then_some(address)?, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
    } else {
        let (host, port) = server.split_once(':').map_or((server, None), |(host, port)| (host, Some(port)));
        let known = escaped(host, |b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
        (known.then_some(host)?, port)
    };
    let digits = port.is_none_or(|port| !host.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
    digits.then_some((host, port))
}

const RESERVED: &[u8] = b";/?:@&=+$,[]";

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

/// Whether the text has only unreserved characters, percent escapes and those of `more`.
fn all(text: &str, more: &[u8]) -> bool {
    escaped(text, |b| b.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&b) || more.contains(&b))
}

fn escaped(text: &str, allowed: impl Fn(u8) -> bool) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let hex = |byte: Option<u8>| byte.is_some_and(|b| b.is_ascii_hexdigit());
        let fits = if byte == b'%' { hex(bytes.next()) && hex(bytes.next()) } else { allowed(byte) };
        if !fits {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str, rails: RailsVersion) -> Result<String, UrlError> {
        let mut pairs = configuration(url, rails)?;
        pairs.sort();
        Ok(pairs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn urls_become_configurations() {
        let table = [
            ("postgres://u:p@h:5433/db", "adapter=postgresql database=db host=h password=p port=5433 username=u"),
            ("postgresql://h/a/b", "adapter=postgresql database=a/b host=h"),
            ("postgis://u%40x:p%23%2F+@h/d%20b\n", "adapter=postgis database=d b host=h password=p#/+ username=u@x"),
            ("mysql2://u:@h/db?ssl_mode=required&x", "adapter=mysql2 database=db host=h ssl_mode=required username=u"),
            ("postgres://[::1]:1/db", "adapter=postgresql database=db host=::1 port=1"),
            ("postgres://h:/db#x", "adapter=postgresql database=db host=h"),
            ("postgres://u:12#x@h/db", "adapter=postgresql host=u port=12"),
            ("my-sql://h", "adapter=my_sql host=h"),
            ("sqlite3:db/x?pool=1", "adapter=sqlite3 database=db/x pool=1"),
            ("sqlite3:/x", "adapter=sqlite3 database=/x"),
            ("sqlite3:///x", "adapter=sqlite3 database=/x"),
            ("sqlite3://a/b", "adapter=sqlite3 database=/b host=a"),
            ("sqlite3::memory:", "adapter=sqlite3 database=:memory:"),
            ("name", "database=name"),
        ];
        for (url, expected) in table {
            assert_eq!(read(url, RailsVersion(8, 0)).as_deref(), Ok(expected), "{url}");
        }
    }

    #[test]
    fn versions_differ() {
        let host = "postgresql:///db?host=/dir";
        assert_eq!(read(host, RailsVersion(6, 1)).as_deref(), Ok("adapter=postgresql database=db"));
        assert_eq!(read(host, RailsVersion(7, 0)).as_deref(), Ok("adapter=postgresql database=db host=/dir"));
        for (rails, mysql, sqlite) in
            [(RailsVersion(7, 1), "mysql", "sqlite"), (RailsVersion(7, 2), "mysql2", "sqlite3")]
        {
            assert_eq!(read("mysql://h", rails), Ok(format!("adapter={mysql} host=h")));
            assert_eq!(read("sqlite:x", rails), Ok(format!("adapter={sqlite} database=x")));
        }
    }

    #[test]
    fn what_ruby_refuses_is_refused() {
        for url in [
            "postgres://my_host/db",
            "postgres://u:p#x@h/db",
            "postgres://u:p/x@h/db",
            "postgres://u:p@h:port/db",
            "postgres://u:p%zz@h/db",
            "postgres://u:p@x@h/db",
            "postgres://u@/db",
            "postgres://h/d b",
            "postgres:",
            "postgres://h/db?a&&b",
            "http://[zz]/",
        ] {
            assert_eq!(read(url, RailsVersion(6, 1)), Err(UrlError::Invalid), "{url}");
        }
        assert_eq!(read(" \n", RailsVersion(6, 1)), Err(UrlError::Empty));
        assert_eq!(read("postgres://u:%ff@h/db", RailsVersion(6, 1)), Err(UrlError::NotText));
    }
}
