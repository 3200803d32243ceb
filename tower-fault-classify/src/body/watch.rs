//! What looks at a body's data as it goes by.

use http::HeaderMap;

use crate::fault::Verdict;

/// Looks at the data of a response's body as it goes by, and may know what the call came to before the end.
pub trait Watch<D>: Default {
    /// Begins with the response's headers. The default is for a response without any.
    fn of(headers: &HeaderMap) -> Self;

    /// Looks at the data of one frame. A verdict is the last word on the call.
    fn data(&mut self, data: &D) -> Option<Verdict>;

    /// The body came to its end. A verdict goes before that of the end.
    ///
    /// **Default**: no opinion.
    fn end(&mut self) -> Option<Verdict> {
        None
    }
}

/// Looks at nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwatched;

impl<D> Watch<D> for Unwatched {
    #[inline]
    fn of(_: &HeaderMap) -> Self {
        Self
    }

    #[inline]
    fn data(&mut self, _: &D) -> Option<Verdict> {
        None
    }
}
