//! Which server is asked, and so who may see the token.

use std::net::IpAddr;

use ureq::http::Uri;

use crate::error::{Error, Kind, Result};

/// Heroku's own domains: they and their subdomains may be given a token.
const DOMAINS: [&str; 4] = ["heroku.com", "herokai.com", "herokuspace.com", "herokudev.com"];

/// The API's address. There is no way to make one that is neither Heroku's own over https nor a loopback address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Scheme, host, port and path, without a slash at the end.
    url: String,
    /// Host and port.
    authority: String,
    loopback: bool,
    /// The domain that git's addresses are made from, where the variable named one rather than an address.
    domain: Option<String>,
}

impl Host {
    /// Reads the value of `HEROKU_HOST` as the `heroku` command does: what starts with `http` is the whole address, anything
    /// else a domain whose API is at `api.`; nothing means Heroku itself. Where that command falls back on Heroku, this fails
    /// with [`Kind::Input`].
    pub fn from_env_value(value: Option<&str>) -> Result<Self> {
        let value = value.filter(|value| !value.is_empty()).unwrap_or("heroku.com");
        let (address, domain) = if value.starts_with("http://") || value.starts_with("https://") {
            (value.to_owned(), None)
        } else {
            (format!("https://api.{value}"), Some(value.to_owned()))
        };
        Self::parse(&address, domain).ok_or_else(|| {
            Error::new(
                Kind::Input,
                "HEROKU_HOST is neither one of Heroku's own domains over https nor a loopback address",
            )
            .hint("unset HEROKU_HOST, or set it to a domain such as heroku.com, or to http://127.0.0.1:PORT")
        })
    }

    fn parse(address: &str, domain: Option<String>) -> Option<Self> {
        let uri: Uri = address.parse().ok()?;
        let place = Place::of(&uri)?;
        if uri.query().is_some() || address.contains('#') || (domain.is_some() && uri.path() != "/") {
            return None;
        }
        Some(Self {
            url: address.trim_end_matches('/').to_owned(),
            authority: uri.authority()?.to_string(),
            loopback: place == Place::Loopback,
            domain,
        })
    }

    /// The address of a path that starts with `/`.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// Host and port: the name under which `.netrc` keeps the token.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    pub fn is_https(&self) -> bool {
        self.url.starts_with("https:")
    }

    /// Whether the address is this machine's own.
    pub fn is_loopback(&self) -> bool {
        self.loopback
    }

    /// The domain that git's addresses are made from; `None` where the API was given as an address.
    pub fn domain(&self) -> Option<&str> {
        self.domain.as_deref()
    }

    /// Whether an address that the API handed out is one to ask: Heroku's own, or on loopback where the API is too.
    pub fn trusts(&self, url: &Uri) -> bool {
        match Place::of(url) {
            Some(Place::Heroku) => true,
            Some(Place::Loopback) => self.loopback,
            None => false,
        }
    }
}

#[derive(PartialEq, Eq)]
enum Place {
    Heroku,
    Loopback,
}

impl Place {
    fn of(uri: &Uri) -> Option<Self> {
        let authority = uri.authority()?;
        if authority.as_str().contains('@') {
            return None;
        }
        let host = authority.host().to_ascii_lowercase();
        match uri.scheme_str()? {
            "http" | "https" if is_loopback(&host) => Some(Self::Loopback),
            "https" if is_heroku(&host) => Some(Self::Heroku),
            _ => None,
        }
    }
}

fn is_heroku(host: &str) -> bool {
    let mut domains = DOMAINS.iter().filter_map(|domain| host.strip_suffix(domain));
    domains.any(|rest| {
        rest.is_empty() || rest.strip_suffix('.').is_some_and(|sub| sub.split('.').all(|label| !label.is_empty()))
    })
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::Host;

    #[test]
    fn heroku_host_is_read_as_the_cli_reads_it() {
        for (value, url, authority) in [
            (None, "https://api.heroku.com", "api.heroku.com"),
            (Some(""), "https://api.heroku.com", "api.heroku.com"),
            (Some("heroku.com"), "https://api.heroku.com", "api.heroku.com"),
            (Some("staging.herokudev.com"), "https://api.staging.herokudev.com", "api.staging.herokudev.com"),
            (Some("https://api.heroku.com/"), "https://api.heroku.com", "api.heroku.com"),
            (Some("https://API.Heroku.com"), "https://API.Heroku.com", "API.Heroku.com"),
            (Some("http://127.0.0.1:5000"), "http://127.0.0.1:5000", "127.0.0.1:5000"),
            (Some("http://localhost:5000/"), "http://localhost:5000", "localhost:5000"),
            (Some("https://[::1]:5000"), "https://[::1]:5000", "[::1]:5000"),
            (Some("http://127.9.9.9:1/api/"), "http://127.9.9.9:1/api", "127.9.9.9:1"),
        ] {
            let host = Host::from_env_value(value).unwrap();
            assert_eq!((host.url("").as_str(), host.authority()), (url, authority), "{value:?}");
        }
    }

    #[test]
    fn any_other_host_is_refused_by_name_of_the_variable() {
        for value in [
            "example.com",
            "http://api.heroku.com",
            "https://heroku.com.example.com",
            "https://notheroku.com",
            "notheroku.com",
            ".heroku.com",
            "https://.heroku.com",
            "https://127.0.0.1.example.com",
            "https://localhost.example.com",
            "https://example.com/127.0.0.1",
            "https://example.com#heroku.com",
            "https://example.com?heroku.com",
            "https://user:password@api.heroku.com",
            "https://api.heroku.com@example.com",
            "https://api.heroku.com?x=1",
            "https://api.heroku.com#x",
            "https://api.heroku.com.",
            "http://10.0.0.1:5000",
            "http://0.0.0.0:5000",
            "http://127.1:5000",
            "ftp://127.0.0.1",
            "127.0.0.1:5000",
            "localhost",
            "heroku.com/x",
            "x.com/heroku.com",
            " heroku.com",
            "heroku.com\n",
            "https://",
            "http",
        ] {
            let error = Host::from_env_value(Some(value)).unwrap_err();
            assert!(error.message.contains("HEROKU_HOST"), "{value}");
            assert!(!error.message.contains("password"), "{value}");
        }
    }

    #[test]
    fn handed_out_addresses_are_trusted_as_far_as_the_api_is() {
        for (host, url, trusted) in [
            (None, "https://logs-api.heroku.com/stream/1", true),
            (None, "http://logs-api.heroku.com/stream/1", false),
            (None, "http://127.0.0.1:5000/stream/1", false),
            (None, "https://example.com/stream/1", false),
            (Some("http://127.0.0.1:5000"), "http://127.0.0.1:6000/stream/1", true),
            (Some("http://127.0.0.1:5000"), "http://10.0.0.1/stream/1", false),
            (None, "/stream/1", false),
        ] {
            let host = Host::from_env_value(host).unwrap();
            assert_eq!(host.trusts(&url.parse().unwrap()), trusted, "{url}");
        }
    }
}
