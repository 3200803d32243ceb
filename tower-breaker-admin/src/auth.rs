//! Who sends a request, and what the request may do.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use http::header::{self, HeaderMap};
use http::request::Parts;
use serde::Serialize;
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use tower_breaker::ConfigError;

use crate::problem::Problem;

/// The shortest token, in bytes.
const MIN_TOKEN_BYTES: usize = 16;

/// The header that every action needs. A page of another origin cannot set it.
const ACTION_HEADER: &str = "x-tower-breaker";

/// What a user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Role {
    /// Reads everything, and changes nothing.
    Reader,
    /// Also applies actions to circuits.
    Operator,
}

/// The person or program that sends a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    name: String,
    role: Role,
}

impl User {
    /// A user who only reads.
    pub fn reader(name: impl Into<String>) -> Self {
        Self { name: name.into(), role: Role::Reader }
    }

    /// A user who also applies actions.
    pub fn operator(name: impl Into<String>) -> Self {
        Self { name: name.into(), role: Role::Operator }
    }

    /// Returns the name, which the audit shows.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the role.
    pub const fn role(&self) -> Role {
        self.role
    }
}

/// Finds the user of a request that has no valid token.
pub(crate) type Authorize = Box<dyn Fn(&Parts) -> Option<User> + Send + Sync>;

/// Finds the user of a request.
#[derive(Default)]
pub(crate) struct Authorizer {
    pub(crate) tokens: Vec<(Token, User)>,
    pub(crate) authorize: Option<Authorize>,
    pub(crate) is_open_to_read: bool,
}

/// The secret of a user.
pub(crate) struct Token(String);

impl Token {
    pub(crate) fn new(token: impl Into<String>) -> Self {
        Self(token.into())
    }

    /// Returns whether two tokens are equal. The time depends only on their lengths.
    fn is_equal(&self, other: &[u8]) -> Choice {
        self.0.as_bytes().ct_eq(other)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Authorizer {
    /// Returns an error if a token is short, cannot be in a header, or belongs to two users. The
    /// error has no token.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        for (index, (token, user)) in self.tokens.iter().enumerate() {
            let length = token.0.len();
            if length < MIN_TOKEN_BYTES {
                let allowed = format!("a token of at least {MIN_TOKEN_BYTES} bytes");
                let value = format_args!("a token of {length} bytes for `{}`", user.name);
                return Err(ConfigError::new("bearer", value, allowed));
            }
            // Such as the line end of a file. No request would have the token.
            if !token.0.bytes().all(|byte| byte.is_ascii_graphic()) {
                let value = format_args!("a token with other characters for `{}`", user.name);
                let allowed = "a token of visible ASCII characters without spaces";
                return Err(ConfigError::new("bearer", value, allowed));
            }
            let is_taken = |(other, _): &(Token, User)| other.is_equal(token.0.as_bytes()).into();
            if self.tokens[..index].iter().any(is_taken) {
                let value = format_args!("the token of another user for `{}`", user.name);
                return Err(ConfigError::new("bearer", value, "a token of one user"));
            }
        }
        Ok(())
    }

    /// Returns the user of a request. `is_read`: the request changes nothing.
    ///
    /// # Errors
    ///
    /// The request has no valid credential.
    pub(crate) fn user(&self, request: &Parts, is_read: bool) -> Result<User, Problem> {
        let given = bearer(&request.headers);
        let by_token = given.and_then(|given| self.by_token(given));
        if let Some(user) = by_token.or_else(|| self.by_closure(request)) {
            return Ok(user);
        }
        // A wrong token is an error although the request would be admitted without a token.
        if self.is_open_to_read && is_read && given.is_none() {
            return Ok(User::reader("anonymous"));
        }
        Err(Problem::unauthorized())
    }

    /// Returns the user of a token. Every token is compared, so that the time does not show which.
    fn by_token(&self, given: &[u8]) -> Option<User> {
        let mut found = u32::MAX;
        for (index, (token, _)) in (0_u32..).zip(&self.tokens) {
            found.conditional_assign(&index, token.is_equal(given));
        }
        self.tokens.get(found as usize).map(|(_, user)| user.clone())
    }

    fn by_closure(&self, request: &Parts) -> Option<User> {
        let authorize = self.authorize.as_ref()?;
        // A panic admits no request.
        catch_unwind(AssertUnwindSafe(|| authorize(request))).ok()?
    }
}

impl fmt::Debug for Authorizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let users: Vec<_> = self.tokens.iter().map(|(_, user)| user).collect();
        f.debug_struct("Authorizer")
            .field("users", &users)
            .field("has_closure", &self.authorize.is_some())
            .field("is_open_to_read", &self.is_open_to_read)
            .finish()
    }
}

/// Returns the token of a request. Several `authorization` headers are none.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (values.next()?.as_bytes(), values.next()) else { return None };
    let (scheme, token) = value.split_at_checked("bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// Returns an error unless the user may apply actions.
pub(crate) fn check_operator(user: &User) -> Result<(), Problem> {
    match user.role {
        Role::Operator => Ok(()),
        Role::Reader => {
            Err(Problem::forbidden(format_args!("`{}` is a reader; an action needs an operator", user.name)))
        }
    }
}

/// Returns an error if a page of another site may have sent the request of an action.
pub(crate) fn check_page(headers: &HeaderMap) -> Result<(), Problem> {
    if !headers.contains_key(ACTION_HEADER) {
        return Err(Problem::forbidden(format_args!(
            "the header `{ACTION_HEADER}` is missing; send it with any value"
        )));
    }
    check_site(headers)
}

/// Returns an error if a browser says that a page of another site sent the request.
pub(crate) fn check_site(headers: &HeaderMap) -> Result<(), Problem> {
    let is_own = |site: &http::HeaderValue| matches!(site.as_bytes(), b"same-origin" | b"none");
    if headers.get_all("sec-fetch-site").iter().all(is_own) {
        return Ok(());
    }
    Err(Problem::forbidden("a page of another origin sent the request; use the page of this server"))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    const TOKEN: &str = "0123456789abcdef";
    const OTHER: &str = "fedcba9876543210";

    fn authorizer() -> Authorizer {
        let tokens =
            vec![(Token::new(TOKEN), User::operator("anna")), (Token::new(OTHER), User::reader("ben"))];
        Authorizer { tokens, ..Authorizer::default() }
    }

    fn request(headers: &[(&str, &str)]) -> Parts {
        let builder =
            headers.iter().fold(Request::builder(), |request, (name, value)| request.header(*name, *value));
        builder.body(()).unwrap().into_parts().0
    }

    fn user(authorizer: &Authorizer, headers: &[(&str, &str)]) -> Option<String> {
        authorizer.user(&request(headers), true).ok().map(|user| user.name)
    }

    #[test]
    fn token_finds_its_user() {
        let authorizer = authorizer();
        for (value, name) in [
            (format!("Bearer {TOKEN}"), Some("anna")),
            (format!("bearer   {OTHER}  "), Some("ben")),
            (format!("BEARER {TOKEN}"), Some("anna")),
            (format!("Bearer {TOKEN}x"), None),
            (format!("Bearer {}", &TOKEN[1..]), None),
            (format!("Basic {TOKEN}"), None),
            (TOKEN.to_owned(), None),
            ("Bearer ".to_owned(), None),
            ("Bearer".to_owned(), None),
            (String::new(), None),
            ("ä".to_owned(), None),
        ] {
            assert_eq!(user(&authorizer, &[("authorization", &value)]).as_deref(), name, "{value}");
        }
        let bearer = format!("Bearer {TOKEN}");
        let twice = [("authorization", &*bearer), ("authorization", &*bearer)];
        assert_eq!(user(&authorizer, &twice), None);
        assert_eq!(user(&authorizer, &[]), None);
    }

    #[test]
    fn closure_is_used_without_a_valid_token() {
        let authorize = |request: &Parts| match request.headers.get("x-user")?.to_str().ok()? {
            "panic" => panic!("the closure fails"),
            name => Some(User::reader(name)),
        };
        let authorizer = Authorizer { authorize: Some(Box::new(authorize)), ..authorizer() };
        let bearer = format!("Bearer {TOKEN}");
        assert_eq!(user(&authorizer, &[("x-user", "eve")]).as_deref(), Some("eve"));
        let both = [("x-user", "eve"), ("authorization", &*bearer)];
        assert_eq!(user(&authorizer, &both).as_deref(), Some("anna"));
        let wrong = [("x-user", "eve"), ("authorization", "Bearer of-the-closure")];
        assert_eq!(user(&authorizer, &wrong).as_deref(), Some("eve"));
        assert_eq!(user(&authorizer, &[("x-user", "panic")]), None);
    }

    #[test]
    fn open_to_read_admits_reads_without_a_token() {
        let authorizer = Authorizer { is_open_to_read: true, ..authorizer() };
        let anonymous = authorizer.user(&request(&[]), true).unwrap();
        assert_eq!(anonymous, User::reader("anonymous"));
        assert!(authorizer.user(&request(&[]), false).is_err());
        assert_eq!(user(&authorizer, &[("authorization", "Bearer wrong-token-xxxx")]), None);
        // The credential of a proxy.
        assert_eq!(user(&authorizer, &[("authorization", "Basic x")]).as_deref(), Some("anonymous"));
    }

    #[test]
    fn short_or_shared_token_is_an_error_without_the_token() {
        let mut short = authorizer();
        short.tokens.push((Token::new("0123456789-abcd"), User::reader("cleo")));
        let text = short.check().unwrap_err().to_string();
        let expected = "`bearer` is a token of 15 bytes for `cleo`; allowed is a token of at least 16 bytes";
        assert_eq!(text, expected);
        let mut shared = authorizer();
        shared.check().unwrap();
        shared.tokens.push((Token::new(TOKEN), User::reader("cleo")));
        let text = shared.check().unwrap_err().to_string();
        let expected = "`bearer` is the token of another user for `cleo`; allowed is a token of one user";
        assert_eq!(text, expected);
    }

    #[test]
    fn debug_has_no_token() {
        let text = format!("{:?} {:?}", authorizer(), authorizer().tokens);
        assert!(text.contains("anna") && !text.contains(TOKEN) && !text.contains(OTHER), "{text}");
    }

    #[test]
    fn action_needs_operator_and_own_page() {
        let check = |headers: &[(&str, &str)]| check_page(&request(headers).headers);
        check_operator(&User::operator("anna")).unwrap();
        assert_eq!(check_operator(&User::reader("ben")).unwrap_err().status, 403);
        for allowed in [
            &[("x-tower-breaker", "1")][..],
            &[("x-tower-breaker", ""), ("sec-fetch-site", "same-origin")],
            &[("x-tower-breaker", "1"), ("sec-fetch-site", "none")],
        ] {
            check(allowed).unwrap();
        }
        for refused in [
            &[][..],
            &[("sec-fetch-site", "same-origin")],
            &[("x-tower-breaker", "1"), ("sec-fetch-site", "cross-site")],
            &[("x-tower-breaker", "1"), ("sec-fetch-site", "same-site")],
            &[("x-tower-breaker", "1"), ("sec-fetch-site", "")],
            &[("x-tower-breaker", "1"), ("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")],
        ] {
            assert_eq!(check(refused).unwrap_err().status, 403, "{refused:?}");
        }
    }
}
