//! The tokens of the API, and what their users may do.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use axum::extract::FromRequestParts;
use http::header::{AUTHORIZATION, HeaderMap};
use http::request::Parts;
use subtle::ConstantTimeEq;
use tower_breaker_admin::{AdminBuilder, Role, User};

use crate::api::Problem;
use crate::server::AppState;

/// The shortest token, in bytes.
const MIN_TOKEN_BYTES: usize = 16;

/// The longest token, in bytes.
const MAX_TOKEN_BYTES: usize = 512;

/// The users of the server, each with a token.
#[derive(Clone)]
pub struct Users(Vec<(String, User)>);

impl Users {
    /// Reads a file with a line for each user: `ROLE NAME TOKEN`.
    ///
    /// A role is `reader` or `operator`. Empty lines and lines that start with `#` are ignored.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be read, or if a line is not valid. No error contains a
    /// token.
    pub fn read(path: &Path) -> Result<Self, TokenFileError> {
        let failed = |problem| TokenFileError { path: path.to_owned(), problem };
        let text = std::fs::read_to_string(path).map_err(|source| failed(Problems::Read(source)))?;
        Self::parse(&text).map_err(failed)
    }

    fn parse(text: &str) -> Result<Self, Problems> {
        let mut users: Vec<(String, User)> = Vec::new();
        for (number, line) in (1..).zip(text.lines().map(str::trim)) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let invalid = |problem| Problems::Line { number, problem };
            let (token, user) = parse_line(line).map_err(invalid)?;
            if users.iter().any(|(other, _)| *other == token) {
                return Err(invalid(LineProblem::TokenOfAnotherUser));
            }
            users.push((token, user));
        }
        if users.is_empty() { Err(Problems::NoUser) } else { Ok(Self(users)) }
    }

    /// Returns the user of a token.
    ///
    /// Every token is compared, and the time of a comparison depends only on the lengths. Thus the
    /// time does not show how much of a token is right.
    pub fn by_token(&self, token: &[u8]) -> Option<&User> {
        let mut found = None;
        for (other, user) in &self.0 {
            if bool::from(other.as_bytes().ct_eq(token)) {
                found = Some(user);
            }
        }
        found
    }

    /// Returns the user of a request. `None`: the request has no token.
    ///
    /// # Errors
    ///
    /// Returns an error with the status 401 if the token is not valid.
    pub fn by_headers(&self, headers: &HeaderMap) -> Result<Option<&User>, Problem> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let Some(value) = values.next() else { return Ok(None) };
        let token = if values.next().is_none() { bearer(value.as_bytes()) } else { None };
        match token.and_then(|token| self.by_token(token)) {
            Some(user) => Ok(Some(user)),
            None => Err(Problem::unauthorized()),
        }
    }

    /// Admits the same users to the administration page.
    pub fn admit_to(&self, admin: AdminBuilder) -> AdminBuilder {
        self.0.iter().fold(admin, |admin, (token, user)| admin.bearer(token.clone(), user.clone()))
    }
}

/// Shows the users without their tokens.
impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(_, user)| user)).finish()
    }
}

fn parse_line(line: &str) -> Result<(String, User), LineProblem> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let [role, name, token] = fields[..] else { return Err(LineProblem::Fields(fields.len())) };
    let user = match role {
        "reader" => User::reader(name),
        "operator" => User::operator(name),
        // The fields may be swapped: then it is the token.
        _ => return Err(LineProblem::Role),
    };
    if !(MIN_TOKEN_BYTES..=MAX_TOKEN_BYTES).contains(&token.len()) {
        return Err(LineProblem::TokenLength(token.len()));
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(LineProblem::TokenCharacters);
    }
    Ok((token.to_owned(), user))
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked("bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// The user of a request, who may read.
#[derive(Clone, Debug)]
pub struct Reader(pub User);

/// The user of a request, who may change circuits.
#[derive(Clone, Debug)]
pub struct Operator(pub User);

impl FromRequestParts<AppState> for Reader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let user = state.users().by_headers(&parts.headers)?;
        user.cloned().map(Self).ok_or_else(Problem::unauthorized)
    }
}

impl FromRequestParts<AppState> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let Reader(user) = Reader::from_request_parts(parts, state).await?;
        match user.role() {
            Role::Operator => Ok(Self(user)),
            _ => Err(Problem::forbidden(&user)),
        }
    }
}

/// Why a token file cannot be used.
#[derive(Debug)]
pub struct TokenFileError {
    path: PathBuf,
    problem: Problems,
}

#[derive(Debug)]
enum Problems {
    Read(io::Error),
    Line { number: usize, problem: LineProblem },
    NoUser,
}

#[derive(Debug, PartialEq)]
enum LineProblem {
    Fields(usize),
    Role,
    TokenLength(usize),
    TokenCharacters,
    TokenOfAnotherUser,
}

impl fmt::Display for TokenFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.problem {
            Problems::Read(_) => write!(f, "token file `{path}` cannot be read; check the path"),
            Problems::NoUser => {
                write!(f, "token file `{path}` has no user; add a line `operator NAME TOKEN`")
            }
            Problems::Line { number, problem } => {
                write!(f, "token file `{path}` is not valid in line {number}: {problem}")
            }
        }
    }
}

impl Error for TokenFileError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.problem {
            Problems::Read(source) => Some(source),
            Problems::Line { .. } | Problems::NoUser => None,
        }
    }
}

impl fmt::Display for LineProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fields(count) => write!(f, "it has {count} fields; write `ROLE NAME TOKEN`"),
            Self::Role => f.write_str("the role is unknown; allowed is `reader` or `operator`"),
            Self::TokenLength(length) => {
                write!(f, "the token has {length} bytes; allowed is {MIN_TOKEN_BYTES} to {MAX_TOKEN_BYTES}")
            }
            Self::TokenCharacters => f.write_str("the token is not ASCII, which a header needs"),
            Self::TokenOfAnotherUser => f.write_str("the token belongs to another user; make a new one"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANNA: &str = "anna-0123456789abcdef";
    const WALL: &str = "wall-0123456789abcdef";

    fn users() -> Users {
        Users::parse(&format!("# staff\n\noperator anna {ANNA}\n  reader wall\t{WALL}  \n")).unwrap()
    }

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (AUTHORIZATION, value.parse().unwrap())).collect()
    }

    #[test]
    fn each_line_admits_one_user() {
        let users = users();
        assert_eq!(users.by_token(ANNA.as_bytes()), Some(&User::operator("anna")));
        assert_eq!(users.by_token(WALL.as_bytes()), Some(&User::reader("wall")));
        for unknown in ["", "anna", &ANNA[1..], &format!("{ANNA}x"), &ANNA.to_uppercase()] {
            assert_eq!(users.by_token(unknown.as_bytes()), None, "{unknown}");
        }
    }

    #[test]
    fn header_has_exactly_one_bearer_token() {
        let users = users();
        let valid = format!("Bearer {ANNA}");
        let admitted = users.by_headers(&headers(&[&valid])).unwrap();
        assert_eq!(admitted, Some(&User::operator("anna")));
        let lower_case = format!("bearer  {ANNA} ");
        assert!(users.by_headers(&headers(&[&lower_case])).unwrap().is_some());
        assert!(users.by_headers(&headers(&[])).unwrap().is_none());
        for invalid in [&[ANNA][..], &["Bearer"], &["Basic YTpi"], &["Bearer "], &[&valid, &valid]] {
            users.by_headers(&headers(invalid)).unwrap_err();
        }
    }

    #[test]
    fn invalid_files_have_errors_without_tokens() {
        for (text, message) in [
            ("", "has no user"),
            ("# only a comment", "has no user"),
            ("operator anna", "in line 1: it has 2 fields"),
            (&format!("operator anna {ANNA} more"), "in line 1: it has 4 fields"),
            (&format!("\nadmin anna {ANNA}"), "in line 2: the role is unknown"),
            ("reader wall t\u{f6}ken-0123456789", "in line 1: the token is not ASCII"),
            ("reader wall short", "in line 1: the token has 5 bytes; allowed is 16 to 512"),
            (&format!("operator anna {ANNA}\nreader wall {ANNA}"), "in line 2: the token belongs to another"),
        ] {
            let problem = Users::parse(text).unwrap_err();
            let error = TokenFileError { path: "tokens".into(), problem }.to_string();
            assert!(error.contains(message), "{error}");
            assert!(!error.contains(ANNA) && !error.contains("short"), "{error}");
        }
    }

    #[test]
    fn debug_output_has_no_token() {
        let text = format!("{:?}", users());
        assert!(text.contains("anna") && !text.contains(ANNA), "{text}");
    }
}
