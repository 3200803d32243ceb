//! Administration of the circuits of [`tower_breaker`]: an HTTP API and a live page.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod audit;
mod auth;
mod body;
mod events;
mod page;
mod response;
mod source;
mod view;

pub use audit::AuditEntry;
pub use auth::{Role, User};
pub use body::AdminBody;
