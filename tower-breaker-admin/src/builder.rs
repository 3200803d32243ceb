//! The settings of an [`Admin`].

use std::fmt;
use std::sync::Arc;

use http::request::Parts;
use tower_breaker::{Circuit, CircuitRegistry, ConfigError};

use crate::admin::Admin;
use crate::audit::{AuditEntry, AuditLog, OnAudit};
use crate::auth::{Authorizer, Token, User};
use crate::source::Sources;

/// Builds an [`Admin`]: see [`Admin::builder`].
#[derive(Default)]
pub struct AdminBuilder {
    sources: Sources,
    authorizer: Authorizer,
    on_audit: Option<OnAudit>,
    without_history: bool,
}

impl AdminBuilder {
    /// Adds the circuits of a registry, also those that it creates later.
    pub fn registry(mut self, registry: &CircuitRegistry) -> Self {
        self.sources.registries.push(registry.clone());
        self
    }

    /// Adds a circuit that is in no registry.
    pub fn circuit(mut self, circuit: &Circuit) -> Self {
        self.sources.circuits.push(circuit.clone());
        self
    }

    /// Adds circuits by key.
    ///
    /// The API names a key by its label: see
    /// [`KeyedCircuits::new`](tower_breaker::keyed::KeyedCircuits::new). If several keys have the same
    /// label, it shows the first of them, in no particular order, and refuses actions on them.
    #[cfg(feature = "keyed")]
    pub fn keyed<K>(mut self, circuits: &tower_breaker::keyed::KeyedCircuits<K>) -> Self
    where
        K: Eq + std::hash::Hash + fmt::Debug + Send + Sync + 'static,
    {
        self.sources.keyed.push(Box::new(circuits.clone()));
        self
    }

    /// Sets the fleet with which the circuits are shared.
    ///
    /// The API then shows the decisions of the fleet, and applies actions to all processes. An
    /// action in the fleet needs a circuit that this process [shares](tower_breaker_fleet::Fleet::share).
    /// This method adds no circuits: add them with [`registry`](Self::registry) and the like.
    #[cfg(feature = "fleet")]
    pub fn fleet(mut self, fleet: &tower_breaker_fleet::Fleet) -> Self {
        self.sources.fleet = crate::source::FleetSource(Some(fleet.clone()));
        self
    }

    /// Admits a user with a token of at least 16 visible ASCII characters.
    ///
    /// Requests have it in the header `authorization: Bearer TOKEN`.
    ///
    /// Call it once for each user. Tokens are compared in constant time; their lengths are not
    /// secret.
    pub fn bearer(mut self, token: impl Into<String>, user: User) -> Self {
        self.authorizer.tokens.push((Token::new(token), user));
        self
    }

    /// Sets a closure that returns the user of a request.
    ///
    /// For example, it reads an extension that a layer has set, or a header of a trusted proxy. The
    /// proxy must remove this header from the requests of clients.
    ///
    /// It is called for requests without a [token](Self::bearer) of this builder. `None`, or a
    /// panic, admits no request. A credential that browsers send by themselves, such as a cookie,
    /// is safe: an action also needs a header that a page of another site cannot set.
    ///
    /// The address of the client is no credential: any page in a browser on that client could act,
    /// if its site resolves its own name to the address of this server (DNS rebinding). A closure
    /// that uses the address must also check the header `host`.
    ///
    /// An event stream that is open is not checked again when the credential of its user ends.
    pub fn authorize(mut self, f: impl Fn(&Parts) -> Option<User> + Send + Sync + 'static) -> Self {
        self.authorizer.authorize = Some(Box::new(f));
        self
    }

    /// Lets every request read that has no credential.
    ///
    /// Its user is a reader with the name `anonymous`. Use it only if every client that reaches the
    /// service may read all circuits, the texts of their last failures, and the audit with the
    /// names and reasons of users.
    pub fn open_to_read(mut self) -> Self {
        self.authorizer.is_open_to_read = true;
        self
    }

    /// Sets an observer of the audit, for example to write it to a database.
    ///
    /// It is called after each attempt to change a circuit, also for a refused one, on the thread
    /// that decides the attempt. It should be quick: to write to a file or a database, pass a clone
    /// to another thread or task. A panic is caught.
    ///
    /// An entry implements [`serde::Serialize`]. It does not have the name of this process.
    pub fn on_audit(mut self, f: impl Fn(&AuditEntry) + Send + Sync + 'static) -> Self {
        self.on_audit = Some(Box::new(f));
        self
    }

    /// Samples the circuits only while a page is open.
    ///
    /// By default each circuit without a key is sampled once per second, so that a new page shows
    /// the last three minutes.
    pub fn without_history(mut self) -> Self {
        self.without_history = true;
        self
    }

    /// Builds the service.
    ///
    /// Within a tokio runtime, it starts the task that samples the circuits. Otherwise the first
    /// request starts it.
    ///
    /// # Errors
    ///
    /// - Two circuits have the same name.
    /// - A token is shorter than 16 bytes, has other characters than visible ASCII, or belongs to
    ///   two users. The error does not contain it.
    pub fn build(self) -> Result<Admin, ConfigError> {
        let Self { sources, authorizer, on_audit, without_history } = self;
        sources.check_names()?;
        authorizer.check()?;
        Ok(Admin::new(Arc::new(sources), authorizer, AuditLog::new(on_audit), !without_history))
    }
}

impl fmt::Debug for AdminBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminBuilder")
            .field("authorizer", &self.authorizer)
            .field("without_history", &self.without_history)
            .finish_non_exhaustive()
    }
}
