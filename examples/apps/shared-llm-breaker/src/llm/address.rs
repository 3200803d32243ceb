//! Addresses without their secrets.

/// Returns an address without user, password and query, even if it is malformed.
pub(crate) fn without_secrets(address: &str) -> String {
    let (scheme, rest) = match address.find("://") {
        Some(end) => address.split_at(end + 3),
        None => ("", address),
    };
    // A password may contain each of the other characters, so this one comes first.
    let (user, rest) = rest.rsplit_once('@').map_or(("", rest), |(_, rest)| ("***@", rest));
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    format!("{scheme}{user}{rest}")
}

/// Removes the query from the address in an error.
pub(super) fn without_query(mut error: reqwest::Error) -> reqwest::Error {
    if let Some(url) = error.url_mut() {
        url.set_query(None);
        url.set_fragment(None);
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_password_and_query_are_removed() {
        let cases = [
            ("http://localhost:8000/v1", "http://localhost:8000/v1"),
            ("https://a:secret@host/v1?key=secret#secret", "https://***@host/v1"),
            ("https://a:se/cr?et#@host/v1", "https://***@host/v1"),
            ("a:secret@host", "***@host"),
            ("host?key=secret", "host"),
            ("", ""),
        ];
        for (address, shown) in cases {
            assert_eq!(without_secrets(address), shown);
        }
    }
}
