//! Who may do what, and what a page of another site may not.

use http::Method;

use super::harness::*;

const READS: [&str; 10] = [
    "/api/v1/circuits",
    "/api/v1/circuits/search",
    "/api/v1/circuits/search/config",
    "/api/v1/circuits/tenants/keys",
    "/api/v1/circuits/tenants/keys/acme",
    "/api/v1/circuits/tenants/keys/acme/config",
    "/api/v1/audit",
    "/api/v1/openapi.json",
    "/api/v1/events",
    "/api/v1/fleet",
];

const ACTIONS: [&str; 2] =
    ["/api/v1/circuits/search/actions/trip", "/api/v1/circuits/tenants/keys/acme/actions/trip"];

#[tokio::test]
async fn api_without_users_refuses_every_request() {
    let circuits = Circuits::new();
    let admin = tower_breaker_admin::Admin::builder().registry(&circuits.registry).build().unwrap();
    let unknown = ["/api", "/api/", "/api/v1", "/api/v1/x", "/api/v1/circuits/unknown"];
    for path in READS.into_iter().chain(ACTIONS).chain(unknown) {
        for method in [Method::GET, Method::HEAD, Method::POST, Method::OPTIONS, Method::DELETE] {
            let answer = Call::new(method.clone(), path).send(&admin).await;
            assert_eq!(answer.status, 401, "{method} {path}");
            assert_eq!(answer.header("www-authenticate"), "Bearer");
        }
    }
}

#[tokio::test]
async fn page_needs_no_credential() {
    let (_circuits, admin) = admin();
    for path in ["/", ""] {
        let request = http::Request::builder().uri(if path.is_empty() { "http://host" } else { path });
        let answer = send(&admin, request.body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap()).await;
        assert_eq!((answer.status.as_u16(), answer.body.is_empty()), (200, false));
        assert!(answer.header("content-type").starts_with("text/html"));
        assert!(answer.header("content-security-policy").contains("default-src 'none'"));
        let tag = answer.header("etag").to_owned();
        let known = Call::get("/").without("authorization").header("if-none-match", &tag);
        assert_eq!(known.send(&admin).await.status, 304);
    }
    let head = Call::new(Method::HEAD, "/").send(&admin).await;
    assert_eq!((head.status.as_u16(), head.body.is_empty()), (200, true));
    let post = Call::new(Method::POST, "/").send(&admin).await;
    assert_eq!((post.status.as_u16(), post.header("allow")), (405, "GET, HEAD"));
}

#[tokio::test]
async fn reader_reads_and_does_not_act() {
    let (circuits, admin) = admin();
    for path in READS {
        let answer = Call::get(path).token(READER).send(&admin).await;
        assert_eq!(answer.status, if path.ends_with("fleet") { 404 } else { 200 }, "{path}");
    }
    for path in ACTIONS {
        let detail = Call::act(path).token(READER).fail(&admin, 403).await;
        assert_eq!(detail, "`ben` is a reader; an action needs an operator");
    }
    assert_eq!(circuits.search().status().last_transition.map(|last| last.epoch), None);
}

#[tokio::test]
async fn open_to_read_lets_only_reads_through() {
    let circuits = Circuits::new();
    let admin = circuits.builder().open_to_read().build().unwrap();
    for path in READS {
        let answer = Call::get(path).without("authorization").send(&admin).await;
        assert_ne!(answer.status, 401, "{path}");
    }
    for path in ACTIONS {
        Call::act(path).without("authorization").fail(&admin, 401).await;
    }
    for path in READS {
        Call::new(Method::POST, path).without("authorization").fail(&admin, 401).await;
    }
    Call::get("/api/v1/circuits").token("a wrong token of a page").fail(&admin, 401).await;
}

#[tokio::test]
async fn page_of_another_site_cannot_act() {
    let (circuits, admin) = admin();
    for path in ACTIONS {
        let without_header = Call::act(path).without("x-tower-breaker");
        let detail = without_header.fail(&admin, 403).await;
        assert_eq!(detail, "the header `x-tower-breaker` is missing; send it with any value");
        for site in ["cross-site", "same-site", "unknown"] {
            Call::act(path).header("sec-fetch-site", site).fail(&admin, 403).await;
        }
        // What a form or a simple request of another site can send.
        for content_type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
            let simple = Call::act(path).without("content-type").header("content-type", content_type);
            simple.fail(&admin, 415).await;
            simple.without("x-tower-breaker").fail(&admin, 403).await;
        }
    }
    assert!(circuits.search().status().last_transition.is_none());
    Call::act(ACTIONS[0]).header("sec-fetch-site", "same-origin").ok(&admin).await;
}

#[tokio::test]
async fn page_of_another_site_cannot_open_streams() {
    let (_circuits, admin) = admin();
    let events = Call::get("/api/v1/events");
    events.clone().header("sec-fetch-site", "cross-site").fail(&admin, 403).await;
    assert_eq!(events.header("sec-fetch-site", "same-origin").send(&admin).await.status, 200);
}

#[tokio::test]
async fn no_response_has_cors_headers() {
    let (_circuits, admin) = admin();
    for path in READS.into_iter().chain(ACTIONS).chain(["/"]) {
        for method in [Method::GET, Method::OPTIONS, Method::POST] {
            let call = Call::new(method, path)
                .header("origin", "https://evil.example")
                .header("access-control-request-method", "POST")
                .header("access-control-request-headers", "x-tower-breaker");
            let answer = call.send(&admin).await;
            let cors = answer.headers.keys().find(|name| name.as_str().starts_with("access-control"));
            assert_eq!(cors, None, "{path}");
        }
    }
}

#[tokio::test]
async fn every_response_of_the_api_has_the_headers() {
    let (_circuits, admin) = admin();
    let calls = READS.into_iter().chain(["/api/v1/x", "/x"]).map(Call::get);
    let refused = [Call::get(READS[0]).without("authorization"), Call::new(Method::PUT, READS[0])];
    for call in calls.chain(ACTIONS.map(Call::act)).chain(refused) {
        let answer = call.send(&admin).await;
        for (name, value) in [
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
            ("referrer-policy", "no-referrer"),
        ] {
            assert_eq!(answer.header(name), value, "{call:?}");
        }
    }
}

#[tokio::test]
async fn other_methods_are_refused() {
    let (_circuits, admin) = admin();
    let purge = Method::from_bytes(b"PURGE").unwrap();
    let methods = [Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS, Method::TRACE, purge];
    for method in methods.into_iter().chain([Method::POST]) {
        for path in READS {
            let answer = Call::new(method.clone(), path).send(&admin).await;
            assert_eq!(
                (answer.status.as_u16(), answer.header("allow")),
                (405, "GET, HEAD"),
                "{method} {path}"
            );
        }
    }
    for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE] {
        for path in ACTIONS {
            let answer = Call::new(method.clone(), path).send(&admin).await;
            assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, "POST"), "{method} {path}");
        }
    }
}

#[tokio::test]
async fn unknown_path_is_404() {
    let (_circuits, admin) = admin();
    for path in ["/api", "/api/v1", "/api/v2/circuits", "/api/v1/circuits/search/x", "/api/v1/fleet/"] {
        Call::get(path).fail(&admin, 404).await;
    }
    for path in ["/x", "//", "/index.html", "/favicon.ico", "/API/v1/circuits"] {
        Call::get(path).without("authorization").fail(&admin, 404).await;
    }
}

#[tokio::test]
async fn long_target_is_414() {
    let (_circuits, admin) = admin();
    let name = "a".repeat(4096);
    let detail = Call::get(format!("{API}/circuits/{name}")).fail(&admin, 414).await;
    assert_eq!(detail, "the path has 4113 bytes; allowed is up to 4096");
    let detail = Call::get(format!("{API}/circuits?q={name}")).fail(&admin, 414).await;
    assert_eq!(detail, "the query has 4098 bytes; allowed is up to 4096");
    Call::act(action(&name, "trip")).fail(&admin, 414).await;
    let longest = &name[..4096 - "/api/v1/circuits/".len()];
    Call::get(format!("{API}/circuits/{longest}")).fail(&admin, 404).await;
}

#[tokio::test]
async fn closure_finds_the_user_of_a_request() {
    #[derive(Clone)]
    struct Login(&'static str);

    let circuits = Circuits::new();
    let builder = circuits.builder().authorize(|request| {
        request.extensions.get::<Login>().map(|login| tower_breaker_admin::User::operator(login.0))
    });
    let admin = builder.build().unwrap();
    let mut request = Call::act(action("search", "trip")).without("authorization").request();
    request.extensions_mut().insert(Login("cleo"));
    assert_eq!(send(&admin, request).await.status, 200);
    assert_eq!(last_audit(&admin).await["user"], "cleo");
}

#[tokio::test]
async fn debug_output_has_no_token() {
    let (circuits, admin) = admin();
    let text = format!("{:?} {admin:?}", circuits.builder());
    assert!(text.contains("anna") && text.contains("search"), "{text}");
    assert!(!text.contains(OPERATOR) && !text.contains(READER), "{text}");
}

#[test]
fn wrong_settings_are_errors() {
    let circuits = Circuits::new();
    let error = circuits.builder().registry(&circuits.registry).build().unwrap_err();
    assert_eq!(error.field(), "circuit");
    let same_name = tower_breaker::Circuit::new(config("tenants"));
    let error = circuits.builder().circuit(&same_name).build().unwrap_err().to_string();
    assert_eq!(error, "`circuit` is \"tenants\"; allowed is a name that no other circuit has");
    let user = tower_breaker_admin::User::reader("cleo");
    let error = circuits.builder().bearer("hunter2-hunter2", user).build().unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    assert_eq!(error.to_string().split(';').next(), Some("`bearer` is a token of 15 bytes for `cleo`"));
}

#[test]
fn token_that_no_header_can_carry_is_an_error() {
    let circuits = Circuits::new();
    for token in [
        "0123456789abcdef\n",
        " 0123456789abcdef",
        "0123456789 abcdef",
        "0123456789\tabcdef",
        "0123456789äbcdef",
    ] {
        let user = tower_breaker_admin::User::reader("cleo");
        let error = circuits.builder().bearer(token, user).build().unwrap_err();
        let text = "`bearer` is a token with other characters for `cleo`; \
            allowed is a token of visible ASCII characters without spaces";
        assert_eq!(error.to_string(), text, "{token:?}");
    }
}
