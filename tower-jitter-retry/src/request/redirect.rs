//! Redirects that a client follows below the retry layer.
//!
//! The fault then describes the last hop. The hops before it may have been processed, so that
//! `Unsent` and `Refused` say nothing about the request that the caller sent.
//!
//! | what ended the call | a redirect may have been followed if |
//! |---|---|
//! | a response with a URL (reqwest's, or one that tower-http's `FollowRedirect` has seen) | the URL is not the request's |
//! | any other response | its fault says so |
//! | an error | its fault says so, or its chain: it contains an error of reqwest |
//!
//! [`RetryPolicyBuilder::follows_redirects`](crate::RetryPolicyBuilder::follows_redirects)
//! overrides the table.

use std::borrow::Cow;

use tower_fault_classify::{Classify, Retryable, Verdict, classify_error};

/// What a verdict says about the request that the caller sent. `follows` is the policy's setting,
/// `url` the request's.
pub(crate) fn verdict_before_redirect<'u, C, Res, Err>(
    verdict: Verdict,
    follows: Option<bool>,
    classify: &C,
    result: &mut Result<Res, Err>,
    url: impl FnOnce() -> Option<Cow<'u, str>>,
) -> Verdict
where
    C: Classify<Res, Err>,
{
    let Verdict::Fault(fault) = verdict else { return verdict };
    if !matches!(fault.retryable(), Retryable::Unsent | Retryable::Refused) {
        return verdict;
    }
    // A rule may have made the fault of an error without its chain.
    let by_result = || match result {
        Ok(response) => {
            let answered = classify.outcome(response)?;
            Some(!is_same_resource(&url()?, &answered.url()?))
        }
        Err(error) => Some(classify_error(classify.error(error)?).maybe_redirected()),
    };
    let redirected = match follows {
        Some(follows) => follows,
        None => fault.maybe_redirected() || by_result() == Some(true),
    };
    if redirected { fault.with_retryable(Retryable::IfIdempotent).into() } else { verdict }
}

/// Whether two URLs lead to the same resource.
fn is_same_resource(one: &str, other: &str) -> bool {
    let [one, other] = [one, other].map(|url| url.split_once('#').map_or(url, |(url, _fragment)| url));
    one == other || is_same_when_normalized(one, other)
}

/// reqwest normalizes the URL of an `http::Request`, and takes the user's name out of it.
#[cfg(feature = "reqwest")]
fn is_same_when_normalized(one: &str, other: &str) -> bool {
    let normalized = |url: &str| {
        let mut url = reqwest::Url::parse(url).ok()?;
        // They fail for a URL that has neither.
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
        assert!(!is_same_resource("/b", "http://a/b"), "a layer in between has changed the URL");
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
