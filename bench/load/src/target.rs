//! The URL under load: `http`, and a version 3 onion address.
//!
//! Whatever else is refused, in a sentence. The checksum of the address is not looked at: tor does
//! that, and answers with SOCKS reply 0xF6.

use std::fmt;
use std::str::FromStr;

use hyper::Uri;
use hyper::http::uri::PathAndQuery;

use crate::PlanError;

/// Characters of a version 3 onion address without `.onion` (rend-spec-v3, "Encoding onion
/// addresses"): 35 bytes in base32.
const ADDRESS_LENGTH: usize = 56;

/// What is asked for: `http://[NAME.]ADDRESS.onion[:PORT][/PATH][?QUERY]`.
///
/// `Debug` and `Display` show the port and the path alone, as a report may be passed on.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    host: String,
    port: u16,
    path: PathAndQuery,
}

impl Target {
    /// The onion address with `.onion`, and the labels before it, in lower case.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The virtual port; 80 where the URL names none.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Path and query, `/` at least.
    #[must_use]
    pub fn path(&self) -> &str {
        self.path.as_str()
    }

    /// What the `Host` field says.
    pub(crate) fn authority(&self) -> String {
        match self.port {
            80 => self.host.clone(),
            port => format!("{}:{port}", self.host),
        }
    }

    /// What the request line says.
    pub(crate) fn uri(&self) -> Uri {
        Uri::from(self.path.clone())
    }
}

impl FromStr for Target {
    type Err = PlanError;

    fn from_str(url: &str) -> Result<Target, PlanError> {
        let uri: Uri = url.parse().map_err(|_| PlanError::Url)?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(PlanError::Https),
            _ => return Err(PlanError::Url),
        }
        let authority = uri.authority().ok_or(PlanError::Url)?;
        if authority.as_str().contains('@') {
            return Err(PlanError::UserInUrl);
        }
        let host = authority.host().to_ascii_lowercase();
        let address = host.strip_suffix(".onion").ok_or(PlanError::NoOnion)?;
        let label = address.rsplit('.').next().unwrap_or(address);
        let is_base32 = label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7'));
        // The last byte is the version, 3, whose low five bits are base32's `d`.
        if label.len() != ADDRESS_LENGTH || !is_base32 || !label.ends_with('d') {
            return Err(PlanError::OnionAddress);
        }
        // A colon without a number, or with one that is none, is not "no port".
        let after_host = &authority.as_str()[authority.host().len()..];
        let port = match (after_host, authority.port_u16()) {
            ("", _) => 80,
            (_, Some(port)) if port != 0 => port,
            _ => return Err(PlanError::Url),
        };
        let path = uri.path_and_query().cloned();
        Ok(Target { host, port, path: path.unwrap_or_else(|| PathAndQuery::from_static("/")) })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://[redacted].onion:{}{}", self.port, self.path)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::Target;
    use crate::PlanError;

    fn address() -> String {
        format!("{}d.onion", "a2".repeat(27) + "q")
    }

    fn parse(url: &str) -> Result<Target, PlanError> {
        url.parse()
    }

    #[test]
    fn a_url_is_taken_apart() {
        let whole = parse(&format!("http://www.{}:8080/a/b?c=d", address().to_uppercase()));
        let whole = whole.expect("a good URL");
        assert_eq!(whole.host(), format!("www.{}", address()));
        assert_eq!((whole.port(), whole.path()), (8080, "/a/b?c=d"));
        assert_eq!(whole.authority(), format!("www.{}:8080", address()));
        let bare = parse(&format!("http://{}", address())).expect("a good URL");
        assert_eq!((bare.port(), bare.path()), (80, "/"));
        assert_eq!(bare.authority(), address());
        assert!(!format!("{bare:?} {bare}").contains(&address()), "addresses are not shown");
    }

    #[test]
    fn whatever_is_no_onion_service_is_refused() {
        let https = format!("https://{}/", address());
        assert!(matches!(parse(&https), Err(PlanError::Https)));
        assert!(matches!(parse("http://example.org/"), Err(PlanError::NoOnion)));
        assert!(matches!(parse("http://127.0.0.1/"), Err(PlanError::NoOnion)));
        assert!(matches!(parse("http://short.onion/"), Err(PlanError::OnionAddress)));
        let wrong_version = format!("http://{}/", address().replace("d.onion", "a.onion"));
        assert!(matches!(parse(&wrong_version), Err(PlanError::OnionAddress)));
        let user = format!("http://me:secret@{}/", address());
        assert!(matches!(parse(&user), Err(PlanError::UserInUrl)));
        for url in [address(), format!("http://{}:0/", address()), "ftp://x/".into(), "".into()] {
            assert!(matches!(parse(&url), Err(PlanError::Url)), "{url}");
        }
    }
}
