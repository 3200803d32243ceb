//! Detects whether a client followed a redirect, by the URLs of a request and of its response.

/// Returns whether two URLs identify the same resource. Fragments are ignored.
pub(crate) fn is_same_resource(one: &str, other: &str) -> bool {
    let [one, other] = [one, other].map(|url| url.split_once('#').map_or(url, |(url, _fragment)| url));
    one == other || is_same_when_normalized(one, other)
}

/// Compares the URLs after normalization: reqwest normalizes the URL of an `http::Request`, and
/// removes the user name and password from it.
#[cfg(feature = "reqwest")]
fn is_same_when_normalized(one: &str, other: &str) -> bool {
    let normalized = |url: &str| {
        let mut url = reqwest::Url::parse(url).ok()?;
        // These fail for a URL that cannot have a user name or password.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        Some(url)
    };
    normalized(one).is_some_and(|one| normalized(other) == Some(one))
}

#[cfg(not(feature = "reqwest"))]
fn is_same_when_normalized(_: &str, _: &str) -> bool {
    false
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;

    #[test]
    fn fragment_is_ignored_in_url_comparison() {
        assert!(is_same_resource("http://a/b?c#d", "http://a/b?c"));
        assert!(is_same_resource("http://a/b#c", "http://a/b#d"));
        assert!(!is_same_resource("http://a/b?c", "http://a/b?d"));
        assert!(!is_same_resource("http://a/b", "http://a/c#b"));
        assert!(!is_same_resource("/b", "http://a/b"), "a layer in between changed the URL");
    }

    #[cfg(feature = "reqwest")]
    #[test]
    fn url_normalized_by_reqwest_is_the_same() {
        for (one, other) in [
            ("http://A.example", "http://a.example/"),
            ("http://a:80/b", "http://a/b"),
            ("https://a:443/b", "https://a/b"),
            ("http://a/b/../c", "http://a/c"),
            ("http://a/\"b\"", "http://a/%22b%22"),
            ("http://user:secret@a/b", "http://a/b"),
        ] {
            assert!(is_same_resource(one, other), "{one} {other}");
        }
        for (one, other) in
            [("http://a/b", "https://a/b"), ("http://a:81/b", "http://a/b"), ("http://a/b", "http://a/b/")]
        {
            assert!(!is_same_resource(one, other), "{one} {other}");
        }
    }
}
