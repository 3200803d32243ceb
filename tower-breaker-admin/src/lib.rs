//! Administration of the circuits of [`tower_breaker`]: an HTTP API and a live page.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod action;
mod admin;
mod audit;
mod auth;
mod body;
mod builder;
mod events;
mod page;
mod query;
mod rate;
mod read;
mod response;
mod route;
mod service;
mod source;
mod view;

pub use admin::Admin;
pub use audit::AuditEntry;
pub use auth::{Role, User};
pub use body::AdminBody;
pub use builder::AdminBuilder;
pub use service::AdminFuture;
