//! Who sends a request.

use serde::Serialize;

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
