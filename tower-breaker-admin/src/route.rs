//! The paths of the API.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::problem::Problem;

/// What a path names. Names are still percent-encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    Page,
    Circuits,
    Circuit(Circuit<'a>),
    Config(Circuit<'a>),
    Keys(Segment<'a>),
    Action(Circuit<'a>, Segment<'a>),
    Fleet,
    Audit,
    OpenApi,
    Events,
    /// A path below `/api` that the API does not have.
    UnknownApi,
    Unknown,
}

/// A circuit, with or without a key, as a path names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Circuit<'a> {
    pub(crate) name: Segment<'a>,
    pub(crate) key: Option<Segment<'a>>,
}

/// A segment of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment<'a>(pub(crate) &'a str);

impl<'a> Segment<'a> {
    /// Returns the text of the segment.
    ///
    /// # Errors
    ///
    /// A `%` is not followed by two hexadecimal digits, or the bytes are no UTF-8.
    pub(crate) fn decode(self) -> Result<Cow<'a, str>, Problem> {
        decode("path", self.0)
    }

    /// Returns the text of the segment, for the audit. Invalid bytes are replaced.
    pub(crate) fn decode_lossy(self) -> String {
        percent_decode_str(self.0).decode_utf8_lossy().into_owned()
    }
}

impl<'a> Route<'a> {
    /// Returns what a path names. The path has been stripped of its prefix.
    pub(crate) fn of(path: &'a str) -> Self {
        let relative = path.strip_prefix('/').unwrap_or(path);
        if relative.is_empty() {
            return Self::Page;
        }
        let segments: Vec<_> = relative.split('/').collect();
        let of_circuit = |name, rest: &[&'a str]| {
            let circuit = |key: Option<&'a str>| Circuit { name: Segment(name), key: key.map(Segment) };
            match *rest {
                [] => Self::Circuit(circuit(None)),
                ["config"] => Self::Config(circuit(None)),
                ["keys"] => Self::Keys(Segment(name)),
                ["actions", action] => Self::Action(circuit(None), Segment(action)),
                ["keys", key] => Self::Circuit(circuit(Some(key))),
                ["keys", key, "config"] => Self::Config(circuit(Some(key))),
                ["keys", key, "actions", action] => Self::Action(circuit(Some(key)), Segment(action)),
                _ => Self::UnknownApi,
            }
        };
        match *segments {
            ["api", "v1", "circuits"] => Self::Circuits,
            ["api", "v1", "circuits", name, ref rest @ ..] => of_circuit(name, rest),
            ["api", "v1", "fleet"] => Self::Fleet,
            ["api", "v1", "audit"] => Self::Audit,
            ["api", "v1", "openapi.json"] => Self::OpenApi,
            ["api", "v1", "events"] => Self::Events,
            ["api", ..] => Self::UnknownApi,
            _ => Self::Unknown,
        }
    }

    /// Returns the methods that the route allows, as in the header `allow`.
    pub(crate) const fn methods(self) -> &'static str {
        match self {
            Self::Action(..) => "POST",
            _ => "GET, HEAD",
        }
    }
}

/// Decodes a percent-encoded text strictly. `part` is the part of the request, for the error.
pub(crate) fn decode<'a>(part: &str, text: &'a str) -> Result<Cow<'a, str>, Problem> {
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        let digits = rest.as_bytes().get(at + 1..at + 3);
        if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
            return Err(Problem::bad_request(format_args!(
                "the {part} has a `%` without two hexadecimal digits; write `%` as `%25`"
            )));
        }
        rest = &rest[at + 3..];
    }
    percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| Problem::bad_request(format_args!("the {part} is not percent-encoded UTF-8")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn circuit<'a>(name: &'a str, key: Option<&'a str>) -> Circuit<'a> {
        Circuit { name: Segment(name), key: key.map(Segment) }
    }

    #[test]
    fn path_names_its_route() {
        for (path, route) in [
            ("", Route::Page),
            ("/", Route::Page),
            ("/api/v1/circuits", Route::Circuits),
            ("/api/v1/circuits/a%2Fb", Route::Circuit(circuit("a%2Fb", None))),
            ("/api/v1/circuits/a/config", Route::Config(circuit("a", None))),
            ("/api/v1/circuits/a/keys", Route::Keys(Segment("a"))),
            ("/api/v1/circuits/a/keys/k", Route::Circuit(circuit("a", Some("k")))),
            ("/api/v1/circuits/a/keys/k/config", Route::Config(circuit("a", Some("k")))),
            ("/api/v1/circuits/a/actions/trip", Route::Action(circuit("a", None), Segment("trip"))),
            ("/api/v1/circuits/a/keys/k/actions/x", Route::Action(circuit("a", Some("k")), Segment("x"))),
            ("/api/v1/circuits/config/config", Route::Config(circuit("config", None))),
            ("/api/v1/circuits/keys/keys/keys", Route::Circuit(circuit("keys", Some("keys")))),
            ("/api/v1/circuits/", Route::Circuit(circuit("", None))),
            ("/api/v1/fleet", Route::Fleet),
            ("/api/v1/audit", Route::Audit),
            ("/api/v1/openapi.json", Route::OpenApi),
            ("/api/v1/events", Route::Events),
            ("/api", Route::UnknownApi),
            ("/api/v1/circuits/a/actions", Route::UnknownApi),
            ("/api/v1/fleet/", Route::UnknownApi),
            ("/api/v1/circuits/a/keys/k/actions/x/y", Route::UnknownApi),
            ("//api/v1/circuits", Route::Unknown),
            ("/favicon.ico", Route::Unknown),
            ("*", Route::Unknown),
        ] {
            assert_eq!(Route::of(path), route, "{path}");
        }
    }

    /// Returns the path of a route in `openapi.json`. `None`: no path leads to it.
    fn template(route: Route<'_>) -> Option<&'static str> {
        Some(match route {
            Route::Page => "/",
            Route::Circuits => "/api/v1/circuits",
            Route::Circuit(Circuit { key: None, .. }) => "/api/v1/circuits/{name}",
            Route::Config(Circuit { key: None, .. }) => "/api/v1/circuits/{name}/config",
            Route::Action(Circuit { key: None, .. }, _) => "/api/v1/circuits/{name}/actions/{action}",
            Route::Keys(_) => "/api/v1/circuits/{name}/keys",
            Route::Circuit(_) => "/api/v1/circuits/{name}/keys/{key}",
            Route::Config(_) => "/api/v1/circuits/{name}/keys/{key}/config",
            Route::Action(..) => "/api/v1/circuits/{name}/keys/{key}/actions/{action}",
            Route::Fleet => "/api/v1/fleet",
            Route::Audit => "/api/v1/audit",
            Route::OpenApi => "/api/v1/openapi.json",
            Route::Events => "/api/v1/events",
            Route::UnknownApi | Route::Unknown => return None,
        })
    }

    #[test]
    fn every_route_is_documented() {
        let document: serde_json::Value = serde_json::from_str(include_str!("openapi.json")).unwrap();
        let documented = document["paths"].as_object().unwrap();
        for (path, operations) in documented {
            let route = Route::of(path);
            assert_eq!(template(route), Some(&**path));
            let methods: Vec<_> = operations.as_object().unwrap().keys().collect();
            let expected = if route.methods() == "POST" { "post" } else { "get" };
            assert_eq!(methods, [expected], "{path}");
        }
        // One for each path of `template`.
        assert_eq!(documented.len(), 13);
    }

    #[test]
    fn decoding_is_strict() {
        assert_eq!(Segment("a%2Fb%25+%c3%a4").decode().unwrap(), "a/b%+ä");
        for (text, error) in [
            ("%", "the path has a `%` without"),
            ("%2", "the path has a `%` without"),
            ("a%zzb", "the path has a `%` without"),
            ("%+1", "the path has a `%` without"),
            ("%e4", "the path is not percent-encoded UTF-8"),
            ("%c0%af", "the path is not percent-encoded UTF-8"),
            ("%ed%a0%80", "the path is not percent-encoded UTF-8"),
        ] {
            let problem = Segment(text).decode().unwrap_err();
            assert_eq!(problem.status, 400);
            assert!(problem.detail.starts_with(error), "{text}: {}", problem.detail);
        }
    }

    proptest! {
        #[test]
        fn any_name_is_found_by_its_encoding(name in any::<String>(), key in any::<String>()) {
            let all = percent_encoding::NON_ALPHANUMERIC;
            let [encoded, encoded_key] =
                [&name, &key].map(|text| percent_encoding::utf8_percent_encode(text, all).to_string());
            let path = format!("/api/v1/circuits/{encoded}/keys/{encoded_key}");
            let Route::Circuit(circuit) = Route::of(&path) else { panic!("{path}") };
            prop_assert_eq!(circuit.name.decode().unwrap(), name);
            prop_assert_eq!(circuit.key.unwrap().decode().unwrap(), key);
        }

        #[test]
        fn no_path_panics(path in any::<String>()) {
            let route = Route::of(&path);
            if let Route::Circuit(Circuit { name, .. }) = route {
                let _ = (name.decode(), name.decode_lossy());
            }
            let _ = decode("query", &path);
        }
    }
}
