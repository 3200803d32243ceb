//! Tower layers in the middleware chain of `reqwest-middleware`.
//!
//! [`TowerMiddleware`] makes the rest of the chain ([`Next`]) a service and puts any tower layer
//! around it: a layer of this workspace, tower's `TimeoutLayer`, your own. The layer must not
//! require a `'static` service, because the chain only lends [`Next`].
//!
//! ```
//! use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
//! use tower_fault_classify::{FaultClassifyLayer, middleware::TowerMiddleware};
//!
//! fn classified(client: reqwest::Client) -> ClientWithMiddleware {
//!     ClientBuilder::new(client).with(TowerMiddleware::new(FaultClassifyLayer::new())).build()
//! }
//! ```
//!
//! A new service is created for each request. State that must outlive a request (a circuit, a
//! budget) has to be in the layer, as it is in the layers of this workspace. The chain boxes every
//! future, so the adapter does too.

use std::fmt;
use std::future::{Future, poll_fn};
use std::mem;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use http::Extensions;
use reqwest::{Request, Response};
use reqwest_middleware::{Error, Middleware, Next};
use tower_layer::Layer;
use tower_service::Service;

use crate::error::BoxError;
use crate::request::RequestExt;

/// A middleware of `reqwest-middleware` that runs a tower layer.
///
/// | error of the layer | the chain returns |
/// |---|---|
/// | an error of the chain ([`Error`]) | the same error |
/// | any other error | an [`Error::Middleware`], with a [`LayerError`] whose source is the layer's error |
///
/// The request's extensions are those of the attempt that ended last.
///
/// The layers see the extensions of the chain in the request: set them with
/// `RequestBuilder::with_extension`. See [`request`](crate::request).
#[derive(Clone, Copy, Debug, Default)]
pub struct TowerMiddleware<L> {
    layer: L,
}

impl<L> TowerMiddleware<L> {
    /// Creates a middleware that puts `layer` around the rest of the chain.
    ///
    /// For several layers, use a `tower::ServiceBuilder`: pass a reference to it, or the result of
    /// its `into_inner`.
    pub const fn new(layer: L) -> Self {
        Self { layer }
    }
}

#[async_trait::async_trait]
impl<L> Middleware for TowerMiddleware<L>
where
    L: for<'a> Layer<NextService<'a>> + Send + Sync + 'static,
    for<'a> <L as Layer<NextService<'a>>>::Service: Service<Request, Response = Response> + Send,
    for<'a> <<L as Layer<NextService<'a>>>::Service as Service<Request>>::Future: Send,
    for<'a> <<L as Layer<NextService<'a>>>::Service as Service<Request>>::Error: Into<BoxError> + Send,
{
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        if !extensions.is_empty() {
            request.edit_extensions(|own| add_missing(own, extensions.clone()));
        }
        let lent = LentExtensions { shared: Mutex::new(mem::take(extensions)), home: extensions };
        let mut service = self.layer.layer(NextService { next, extensions: &lent.shared });
        // The error's type contains the borrow, so the error is converted before the borrow ends.
        let ready = poll_fn(|cx| service.poll_ready(cx)).await.map_err(into_chain_error);
        match ready {
            Ok(()) => service.call(request).await.map_err(into_chain_error),
            Err(error) => Err(error),
        }
    }
}

/// Adds extensions that are not there yet.
fn add_missing(own: &mut Extensions, mut others: Extensions) {
    others.extend(mem::take(own));
    *own = others;
}

fn into_chain_error(error: impl Into<BoxError>) -> Error {
    match error.into().downcast::<Error>() {
        Ok(error) => *error,
        Err(error) => Error::middleware(LayerError(error)),
    }
}

/// The error of a tower layer in the chain.
///
/// [`Display`](fmt::Display) prints the layer's error, which is also the source.
///
/// ```
/// # use tower_fault_classify::ClassifiedError;
/// fn fault_of(error: &reqwest_middleware::Error) -> Option<&ClassifiedError> {
///     match error {
///         reqwest_middleware::Error::Middleware(error) => error.chain().find_map(|error| error.downcast_ref()),
///         reqwest_middleware::Error::Reqwest(_) => None,
///     }
/// }
/// ```
#[derive(Debug)]
pub struct LayerError(BoxError);

impl fmt::Display for LayerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for LayerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.0)
    }
}

/// The request's extensions while the layers use them.
///
/// The drop returns them to the request, also if the call is cancelled.
struct LentExtensions<'a> {
    shared: Mutex<Extensions>,
    home: &'a mut Extensions,
}

impl Drop for LentExtensions<'_> {
    fn drop(&mut self) {
        *self.home = mem::take(self.shared.get_mut().unwrap_or_else(PoisonError::into_inner));
    }
}

/// A service that calls the rest of the chain. It is always ready.
#[derive(Clone)]
pub struct NextService<'a> {
    next: Next<'a>,
    extensions: &'a Mutex<Extensions>,
}

impl fmt::Debug for NextService<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NextService").finish_non_exhaustive()
    }
}

impl<'a> Service<Request> for NextService<'a> {
    type Response = Response;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Error>> + Send + 'a>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let Self { next, extensions } = self.clone();
        Box::pin(async move {
            let mut attempt = Attempt { own: lock(extensions).clone(), shared: extensions };
            next.run(request, &mut attempt.own).await
        })
    }
}

/// One attempt's copy of the extensions. The drop writes it back, however the attempt ends.
struct Attempt<'a> {
    own: Extensions,
    shared: &'a Mutex<Extensions>,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        *lock(self.shared) = mem::take(&mut self.own);
    }
}

fn lock(extensions: &Mutex<Extensions>) -> std::sync::MutexGuard<'_, Extensions> {
    extensions.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extension_of_request_is_kept_beside_those_of_chain() {
        let (mut own, mut others) = (Extensions::new(), Extensions::new());
        own.insert("request");
        others.insert("chain");
        others.insert(7_u8);
        add_missing(&mut own, others);
        assert_eq!((own.get(), own.get()), (Some(&"request"), Some(&7_u8)));
    }
}
