//! The page: one HTML file without foreign parts.

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, Response, StatusCode};

use crate::body::AdminBody;

const PAGE: &str = include_str!("page.html");

/// Allows the page's own script and style by their hashes, and no other. `img-src data:` is for the
/// icon of the browser's tab. Trusted types forbid the script to parse text as HTML.
///
/// A test computes the hashes. Copy them from its output after a change of `page.html`.
const POLICY: &str = "default-src 'none'; \
    script-src 'sha256-6k1oJ9B379p/2adt32DyhtoB4hcwLeRmE5QiAeILNek='; \
    style-src 'sha256-YQoSIs8vyHuhsev6aJUolVYJ7sQmNucbgU/se93MQPM='; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

/// The first bytes of the page's hash. The test of [`POLICY`] computes it too.
const ENTITY_TAG: &str = "\"p78noaU//uKKicxE\"";

const HEADERS: [(HeaderName, &str); 6] = [
    (CACHE_CONTROL, "no-cache"),
    (CONTENT_SECURITY_POLICY, POLICY),
    (CONTENT_TYPE, "text/html; charset=utf-8"),
    (ETAG, ENTITY_TAG),
    (REFERRER_POLICY, "no-referrer"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
];

/// Returns the page. It contains no data, so it needs no credential.
///
/// The status is 304, without a body, if `if_none_match` names the page's entity tag.
pub(crate) fn page(head: bool, if_none_match: Option<&HeaderValue>) -> Response<AdminBody> {
    let known = if_none_match.is_some_and(names_page);
    let content = if known || head { "" } else { PAGE };
    let mut response = Response::new(AdminBody::from(Bytes::from_static(content.as_bytes())));
    let headers = response.headers_mut();
    headers.extend(HEADERS.map(|(name, value)| (name, HeaderValue::from_static(value))));
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        headers.insert(CONTENT_LENGTH, PAGE.len().into());
    }
    response
}

/// Returns whether a value of `if-none-match` names the page. A weak tag matches too.
fn names_page(value: &HeaderValue) -> bool {
    let Ok(value) = value.to_str() else { return false };
    value
        .split(',')
        .map(str::trim)
        .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == ENTITY_TAG)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use http_body_util::BodyExt as _;
    use sha2::{Digest, Sha256};

    use super::*;

    /// Returns the content of the only element with this tag.
    fn content_of(tag: &str) -> &'static str {
        let (opening, closing) = (format!("<{tag}"), format!("</{tag}>"));
        assert_eq!(PAGE.matches(&opening).count(), 1, "one <{tag}> has the hash");
        let (_, rest) = PAGE.split_once(&opening).unwrap();
        let (_, rest) = rest.split_once('>').unwrap();
        rest.split_once(&closing).unwrap().0
    }

    /// Returns the page without its script and style.
    fn markup() -> String {
        PAGE.replace(content_of("script"), "").replace(content_of("style"), "")
    }

    fn hash_of(text: &str) -> String {
        STANDARD.encode(Sha256::digest(text))
    }

    async fn response(head: bool, if_none_match: Option<&str>) -> Response<Bytes> {
        let value = if_none_match.map(|value| HeaderValue::from_str(value).unwrap());
        let (parts, body) = page(head, value.as_ref()).into_parts();
        Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
    }

    #[test]
    fn hashes_are_those_of_page() {
        let script = format!("script-src 'sha256-{}';", hash_of(content_of("script")));
        let style = format!("style-src 'sha256-{}';", hash_of(content_of("style")));
        let tag = format!("\"{}\"", &hash_of(PAGE)[..16]);
        assert!(
            POLICY.contains(&script) && POLICY.contains(&style) && ENTITY_TAG == tag,
            "write into page.rs:\n{script}\n{style}\n{tag}"
        );
    }

    #[test]
    fn page_contains_nothing_that_policy_forbids() {
        assert!(!PAGE.contains(" style=\""), "the policy blocks style attributes");
        assert!(!PAGE.contains("javascript:"));
        for attribute in markup().split_ascii_whitespace() {
            let name = attribute.split('=').next().unwrap();
            assert!(!(name.starts_with("on") && attribute.contains('=')), "inline handler: {attribute}");
        }
    }

    #[test]
    fn page_has_no_external_url() {
        const NAMESPACE: &str = "http://www.w3.org/2000/svg";
        let page = PAGE.replace(NAMESPACE, "");
        for part in ["://", "url(", "@import"] {
            assert!(!page.contains(part), "{part}");
        }
        for attribute in
            ["src=", "srcset=", "action=", "formaction=", "<base", "<iframe", "<link rel=\"style"]
        {
            assert!(!markup().contains(attribute), "{attribute}");
        }
        for link in markup().split("href=\"").skip(1) {
            assert!(link.starts_with('#') || link.starts_with("data:"), "{link:.40}");
        }
    }

    #[test]
    fn script_writes_text_never_html() {
        let script = content_of("script");
        let sinks = [
            "innerHTML",
            "outerHTML",
            "insertAdjacent",
            "document.write",
            "setHTML",
            "DOMParser",
            "srcdoc",
            "createContextualFragment",
            "eval(",
            "Function(",
            "import(",
            "cookie",
        ];
        for sink in sinks {
            assert!(!script.contains(sink), "{sink}");
        }
    }

    #[tokio::test]
    async fn page_has_its_headers() {
        let response = response(false, None).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.body(), PAGE);
        for (name, value) in &HEADERS {
            assert_eq!(response.headers()[name], value);
        }
        assert_eq!(response.headers()[CONTENT_LENGTH], PAGE.len().to_string());
    }

    #[tokio::test]
    async fn head_has_headers_of_get_and_no_body() {
        let response = response(true, None).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[CONTENT_LENGTH], PAGE.len().to_string());
        assert!(response.body().is_empty());
    }

    #[tokio::test]
    async fn known_entity_tag_is_not_modified() {
        for value in [ENTITY_TAG, &format!("\"a\", {ENTITY_TAG}"), &format!("W/{ENTITY_TAG}"), "*"] {
            let response = response(false, Some(value)).await;
            assert_eq!(response.status(), StatusCode::NOT_MODIFIED, "{value}");
            assert!(response.body().is_empty());
            assert_eq!(response.headers()[ETAG], ENTITY_TAG);
            assert!(!response.headers().contains_key(CONTENT_LENGTH));
        }
        assert_eq!(response(false, Some("\"other\"")).await.status(), StatusCode::OK);
    }
}
