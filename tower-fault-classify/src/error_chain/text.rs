//! The texts of errors: of a whole chain, and the beginning of one text.

use std::error::Error;
use std::fmt;
use std::iter::successors;

use super::MAX_CHAIN_LENGTH;
use crate::error::ClassifiedError;

/// Prints an error and all its sources in one line, from the outermost error to the cause.
///
/// The `Display` of this workspace's errors describes one layer only. The rest is in
/// [`source`](Error::source). A program that logs one line should print the chain:
///
/// ```
/// use std::io::{Error, ErrorKind};
/// use tower_fault_classify::{ErrorChain, ClassifiedError, classify_error};
///
/// let refused = Error::from(ErrorKind::ConnectionRefused);
/// let error = ClassifiedError::new(classify_error(&refused), refused);
/// assert_eq!(error.to_string(), "call failed, classified as unavailable (origin: transport)");
/// assert_eq!(
///     ErrorChain(&error).to_string(),
///     "call failed, classified as unavailable (origin: transport): connection refused"
/// );
/// ```
///
/// Some sources are left out:
///
/// - a source whose text is the end of the text before it;
/// - the fault of a rejection, and everything below it.
///
/// If the `Display` of an error fails, the text that it has written so far is printed. The `{:#}`
/// of `anyhow::Error` prints the same chain without leaving anything out.
#[derive(Clone, Copy, Debug)]
pub struct ErrorChain<'a>(pub &'a (dyn Error + 'a));

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = error_text(self.0);
        f.write_str(&text)?;
        for source in successors(self.0.source(), |&error| error.source()).take(MAX_CHAIN_LENGTH) {
            if source
                .downcast_ref::<ClassifiedError>()
                .is_some_and(|classified| classified.get_ref().is_none())
            {
                break;
            }
            let cause = error_text(source);
            if !text.ends_with(&cause) {
                write!(f, ": {cause}")?;
            }
            text = cause;
        }
        Ok(())
    }
}

/// Returns the text of an error.
///
/// If its `Display` fails, it returns the text that was written so far, whereas `to_string` would
/// panic.
#[allow(unreachable_pub, reason = "the feature `__internals` exports it")]
pub fn error_text(error: &dyn Error) -> String {
    use fmt::Write;

    let mut text = String::new();
    let _ = write!(text, "{error}");
    text
}

/// The first 64 bytes of an error's text, without an allocation.
pub(super) struct Text {
    bytes: [u8; 64],
    len: usize,
}

impl Text {
    pub(super) fn of(error: &(impl Error + ?Sized)) -> Self {
        Self::from_args(format_args!("{error}"))
    }

    pub(super) fn from_args(args: fmt::Arguments<'_>) -> Self {
        use fmt::Write;

        let mut text = Self { bytes: [0; 64], len: 0 };
        // An error means that the text is longer than the buffer, or that formatting failed.
        let _ = text.write_fmt(args);
        text
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    #[cfg(feature = "hyper")]
    pub(super) fn starts_with(&self, start: &str) -> bool {
        self.as_bytes().starts_with(start.as_bytes())
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let room = &mut self.bytes[self.len..];
        let taken = part.len().min(room.len());
        room[..taken].copy_from_slice(&part.as_bytes()[..taken]);
        self.len += taken;
        if taken == part.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::BoxError;
    use crate::fault::{Fault, Health, Kind, Origin, Retryable};

    const FAULT: Fault = Fault::new(Kind::Server, Retryable::Never, Health::Unhealthy, Origin::Remote);

    #[test]
    fn error_chain_prints_each_text_once() {
        #[derive(Debug)]
        struct Layer(&'static str, BoxError);
        impl fmt::Display for Layer {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
        impl Error for Layer {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                Some(&*self.1)
            }
        }
        let io = || ClassifiedError::new(FAULT, std::io::Error::other("pipe"));
        let classified = "call failed, classified as server (origin: remote): pipe";
        assert_eq!(ErrorChain(&io()).to_string(), classified);
        assert_eq!(ErrorChain(&Layer("outer", io().into())).to_string(), format!("outer: {classified}"));
        // Some errors repeat their source, such as those of tower's buffer.
        let repeats = Layer("buffer failed: pipe", Layer("pipe", "deeper".into()).into());
        assert_eq!(ErrorChain(&repeats).to_string(), "buffer failed: pipe: deeper");
        let rejection = Layer("circuit breaker is open", ClassifiedError::from_fault(FAULT).into());
        assert_eq!(ErrorChain(&rejection).to_string(), "circuit breaker is open");
        assert_eq!(ErrorChain(&ClassifiedError::from_fault(FAULT)).to_string(), "server (origin: remote)");
    }

    #[test]
    fn error_chain_prints_partial_text_of_failing_display() {
        #[derive(Debug)]
        struct Fails(Option<Box<Fails>>);
        impl fmt::Display for Fails {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(if self.0.is_some() { "outer" } else { "inner" })?;
                Err(fmt::Error)
            }
        }
        impl Error for Fails {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                self.0.as_deref().map(|error| error as _)
            }
        }
        let error = Fails(Some(Box::new(Fails(None))));
        assert_eq!(ErrorChain(&error).to_string(), "outer: inner");
    }
}
