//! Calls through the circuit of an agent.
//!
//! | to guard | use |
//! |---|---|
//! | an async call | [`Manager::call`], or [`Manager::call_or_else`] with a fallback |
//! | a blocking call | [`Manager::call_blocking`], or [`Manager::call_blocking_or_else`] |
//! | a function, once for all of its calls | [`Manager::protect`] |
//! | a section of code | [`Manager::guard`] |
//!
//! Each `Err` counts as a failure, and so does a panic. A call that is cancelled before it ends
//! counts as neither.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;
use std::thread::panicking;

use futures::FutureExt;
use tower_breaker::{Permit, Verdict};

use crate::agent::{Agent, FAILURE};
use crate::manager::{Manager, ManagerError};

impl Manager {
    /// Calls an async function through the circuit of an agent.
    ///
    /// ```
    /// # use circuit_manager::manager::Manager;
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let manager = Manager::new(Default::default(), Default::default())?;
    /// let answer = manager.call("search", async || Ok::<_, std::io::Error>("3 results")).await?;
    /// assert_eq!(answer, "3 results");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the error of the call, or an error if the circuit is open or the id is not valid.
    pub async fn call<T, E, Fut>(&self, id: &str, function: impl FnOnce() -> Fut) -> Result<T, CallError<E>>
    where
        Fut: Future<Output = Result<T, E>>,
    {
        let guard = self.guard(id).map_err(CallError::with_error)?;
        guard.run(async { function().await }).await.map_err(CallError::Failed)
    }

    /// Calls an async function with arguments through the circuit of an agent, or `fallback` with
    /// the same arguments if the circuit is open.
    ///
    /// # Errors
    ///
    /// Returns the error of the call or of the fallback, or an error if the id is not valid.
    pub async fn call_or_else<A, T, E, Fut, Fallback>(
        &self,
        id: &str,
        arguments: A,
        function: impl FnOnce(A) -> Fut,
        fallback: impl FnOnce(A) -> Fallback,
    ) -> Result<T, CallError<E>>
    where
        Fut: Future<Output = Result<T, E>>,
        Fallback: Future<Output = Result<T, E>>,
    {
        match self.guard(id) {
            Ok(guard) => guard.run(async { function(arguments).await }).await.map_err(CallError::Failed),
            Err(CallError::Open(_)) => fallback(arguments).await.map_err(CallError::Failed),
            Err(error) => Err(error.with_error()),
        }
    }

    /// Calls a function on this thread through the circuit of an agent.
    ///
    /// # Errors
    ///
    /// See [`call`](Self::call).
    pub fn call_blocking<T, E>(
        &self,
        id: &str,
        function: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, CallError<E>> {
        let guard = self.guard(id).map_err(CallError::with_error)?;
        let result = function();
        guard.settle(&result);
        result.map_err(CallError::Failed)
    }

    /// Calls a function with arguments on this thread through the circuit of an agent, or
    /// `fallback` with the same arguments if the circuit is open.
    ///
    /// # Errors
    ///
    /// See [`call_or_else`](Self::call_or_else).
    pub fn call_blocking_or_else<A, T, E>(
        &self,
        id: &str,
        arguments: A,
        function: impl FnOnce(A) -> Result<T, E>,
        fallback: impl FnOnce(A) -> Result<T, E>,
    ) -> Result<T, CallError<E>> {
        match self.guard(id) {
            Ok(guard) => {
                let result = function(arguments);
                guard.settle(&result);
                result.map_err(CallError::Failed)
            }
            Err(CallError::Open(_)) => fallback(arguments).map_err(CallError::Failed),
            Err(error) => Err(error.with_error()),
        }
    }

    /// Returns a function that calls `function` through the circuit of an agent.
    ///
    /// It is what a decorator is in other languages:
    ///
    /// ```
    /// # use circuit_manager::manager::Manager;
    /// async fn search(query: &str) -> Result<String, std::io::Error> {
    ///     Ok(format!("results for {query}"))
    /// }
    ///
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let manager = Manager::new(Default::default(), Default::default())?;
    /// let search = manager.protect("search", search);
    /// assert_eq!(search.call("rust").await?, "results for rust");
    ///
    /// manager.force_open("search")?;
    /// let cached = async |query| Ok(format!("old results for {query}"));
    /// assert_eq!(search.call_or_else("rust", cached).await?, "old results for rust");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn protect<F>(&self, id: impl Into<String>, function: F) -> Protected<F> {
        Protected { manager: self.clone(), id: id.into(), function }
    }

    /// Admits a section of code, whose outcome the guard records.
    ///
    /// # Errors
    ///
    /// Returns an error if the circuit is open or the id is not valid.
    pub fn guard(&self, id: &str) -> Result<Guard, CallError> {
        let agent = self.agent_or_new(id).map_err(CallError::Agent)?;
        match agent.circuit.try_acquire() {
            Ok(permit) => Ok(Guard { agent, permit: Some(permit), counts_panics: !panicking() }),
            Err(_) => Err(CallError::Open(CircuitOpenError { agent_id: id.to_owned() })),
        }
    }
}

/// The admission of a call, which records its outcome.
///
/// | way to end it | outcome |
/// |---|---|
/// | [`succeed`](Self::succeed), or [`settle`](Self::settle) with `Ok` | a success |
/// | [`fail`](Self::fail), or [`settle`](Self::settle) with `Err` | a failure |
/// | a panic | a failure |
/// | drop | cancelled: neither |
#[must_use = "dropping a guard records a cancelled call"]
pub struct Guard {
    agent: Arc<Agent>,
    permit: Option<Permit>,
    /// Whether a drop while the thread panics is a failure.
    counts_panics: bool,
}

impl Guard {
    /// Runs a call, and records its outcome.
    async fn run<T, E>(mut self, call: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        // The panic of another future of the same task drops this one: then the call is cancelled.
        self.counts_panics = false;
        match AssertUnwindSafe(call).catch_unwind().await {
            Ok(result) => {
                self.settle(&result);
                result
            }
            Err(panic) => {
                self.fail();
                resume_unwind(panic)
            }
        }
    }

    /// Records a success.
    pub fn succeed(self) {
        self.agent.note_success();
        self.record(Verdict::Success);
    }

    /// Records a failure.
    pub fn fail(self) {
        self.record(FAILURE);
    }

    /// Records the outcome of a result.
    pub fn settle<T, E>(self, result: &Result<T, E>) {
        match result {
            Ok(_) => self.succeed(),
            Err(_) => self.fail(),
        }
    }

    fn record(mut self, verdict: Verdict) {
        if let Some(permit) = self.permit.take() {
            permit.record(verdict);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.counts_panics
            && panicking()
            && let Some(permit) = self.permit.take()
        {
            permit.record(FAILURE);
        }
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("agent_id", &self.agent.circuit.name()).finish_non_exhaustive()
    }
}

/// A function whose calls run through the circuit of an agent. [`Manager::protect`] returns it.
///
/// The methods `call` and `call_or_else` are for async functions, the others for blocking ones.
#[derive(Clone)]
pub struct Protected<F> {
    manager: Manager,
    id: String,
    function: F,
}

impl<F> Protected<F> {
    /// Calls the async function.
    ///
    /// # Errors
    ///
    /// See [`Manager::call`].
    pub async fn call<A, T, E, Fut>(&self, arguments: A) -> Result<T, CallError<E>>
    where
        F: Fn(A) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        self.manager.call(&self.id, || (self.function)(arguments)).await
    }

    /// Calls the async function, or `fallback` if the circuit is open.
    ///
    /// # Errors
    ///
    /// See [`Manager::call_or_else`].
    pub async fn call_or_else<A, T, E, Fut, Fallback>(
        &self,
        arguments: A,
        fallback: impl FnOnce(A) -> Fallback,
    ) -> Result<T, CallError<E>>
    where
        F: Fn(A) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        Fallback: Future<Output = Result<T, E>>,
    {
        self.manager.call_or_else(&self.id, arguments, &self.function, fallback).await
    }

    /// Calls the blocking function.
    ///
    /// # Errors
    ///
    /// See [`Manager::call_blocking`].
    pub fn call_blocking<A, T, E>(&self, arguments: A) -> Result<T, CallError<E>>
    where
        F: Fn(A) -> Result<T, E>,
    {
        self.manager.call_blocking(&self.id, || (self.function)(arguments))
    }

    /// Calls the blocking function, or `fallback` if the circuit is open.
    ///
    /// # Errors
    ///
    /// See [`Manager::call_blocking_or_else`].
    pub fn call_blocking_or_else<A, T, E>(
        &self,
        arguments: A,
        fallback: impl FnOnce(A) -> Result<T, E>,
    ) -> Result<T, CallError<E>>
    where
        F: Fn(A) -> Result<T, E>,
    {
        self.manager.call_blocking_or_else(&self.id, arguments, &self.function, fallback)
    }
}

impl<F> fmt::Debug for Protected<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Protected").field("agent_id", &self.id).finish_non_exhaustive()
    }
}

/// The circuit of an agent rejects the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CircuitOpenError {
    /// The agent.
    pub agent_id: String,
}

impl fmt::Display for CircuitOpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Circuit for {}: Circuit is open", self.agent_id)
    }
}

impl Error for CircuitOpenError {}

/// The error of a call through a circuit.
#[derive(Debug)]
pub enum CallError<E = Infallible> {
    /// The circuit rejects the call.
    Open(CircuitOpenError),
    /// The agent id is not valid.
    Agent(ManagerError),
    /// The call failed; this is its error.
    Failed(E),
}

impl CallError {
    /// Returns the error with the type of a call's errors.
    fn with_error<E>(self) -> CallError<E> {
        match self {
            Self::Open(error) => CallError::Open(error),
            Self::Agent(error) => CallError::Agent(error),
            Self::Failed(never) => match never {},
        }
    }
}

impl<E: fmt::Display> fmt::Display for CallError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(error) => error.fmt(f),
            Self::Agent(error) => error.fmt(f),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl<E: Error + 'static> Error for CallError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Open(_) => None,
            Self::Agent(error) => error.source(),
            Self::Failed(error) => error.source(),
        }
    }
}
