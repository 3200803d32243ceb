//! The mark of a retry layer in the extensions of a request.
//!
//! An extension is a box in a map in a box, so a mark in empty extensions costs three allocations.
//! The usual marks have types without a size, whose boxes do not allocate. They are copied together
//! with their map, because the first insertion into a map costs more than the copy of a map.

use std::sync::LazyLock;

use ::http::Extensions;
use tower_fault_classify::classifiers::ResponseCoverage;

use super::{Attempt, Coverage, ResendAfter};

/// The coverage of the usual marks: all faults after which a request may be sent again, in errors
/// and in all responses. A layer with the default classifier has it for idempotent requests.
const USUAL: Coverage = Coverage::of(ResendAfter::Any, ResponseCoverage::All);

/// A mark that is not usual.
#[derive(Clone, Copy)]
struct Unusual(Attempt);

/// The usual mark with this number.
#[derive(Clone, Copy)]
struct Usual<const NUMBER: u32>;

/// The extensions with only the usual mark of the first attempt, of the second, and of the third.
static USUAL_MARKS: LazyLock<[Extensions; 3]> =
    LazyLock::new(|| [with(Usual::<1>), with(Usual::<2>), with(Usual::<3>)]);

fn with<T: Clone + Send + Sync + 'static>(mark: T) -> Extensions {
    let mut extensions = Extensions::new();
    extensions.insert(mark);
    extensions
}

impl Attempt {
    /// Returns the mark in the extensions of a request, or `None` if the request is not marked.
    ///
    /// ```
    /// use tower_jitter_retry::request::Attempt;
    ///
    /// fn is_retry<B>(request: &http::Request<B>) -> bool {
    ///     Attempt::of(request.extensions()).is_some_and(|attempt| attempt.number() > 1)
    /// }
    /// # assert!(!is_retry(&http::Request::new(())));
    /// ```
    pub fn of(extensions: &Extensions) -> Option<Self> {
        if extensions.is_empty() {
            return None;
        }
        let usual = |number| Some(Self { number, coverage: USUAL });
        match extensions.get() {
            Some(Unusual(attempt)) => Some(*attempt),
            None if extensions.get::<Usual<1>>().is_some() => usual(1),
            None if extensions.get::<Usual<2>>().is_some() => usual(2),
            None if extensions.get::<Usual<3>>().is_some() => usual(3),
            None => None,
        }
    }
}

/// Replaces the mark in the extensions.
pub(super) fn write(extensions: &mut Extensions, attempt: Attempt) {
    let usual = (attempt.coverage == USUAL).then_some(attempt.number);
    if extensions.is_empty()
        && let Some(number @ 1..=3) = usual
    {
        extensions.clone_from(&USUAL_MARKS[number as usize - 1]);
        return;
    }
    remove(extensions);
    match usual {
        Some(1) => drop(extensions.insert(Usual::<1>)),
        Some(2) => drop(extensions.insert(Usual::<2>)),
        Some(3) => drop(extensions.insert(Usual::<3>)),
        _ => drop(extensions.insert(Unusual(attempt))),
    }
}

/// Removes the mark from the extensions.
pub(super) fn remove(extensions: &mut Extensions) {
    if !extensions.is_empty() {
        extensions.remove::<Unusual>();
        extensions.remove::<Usual<1>>();
        extensions.remove::<Usual<2>>();
        extensions.remove::<Usual<3>>();
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;

    #[test]
    fn mark_is_replaced_and_removed_with_any_number_and_coverage() {
        let mut marks = Vec::new();
        for number in [1, 2, 3, 4, u32::MAX] {
            for level in [ResendAfter::Any, ResendAfter::Refused] {
                for responses in [ResponseCoverage::All, ResponseCoverage::Nothing] {
                    marks.push(Attempt { number, coverage: Coverage::of(level, responses) });
                }
            }
        }
        for &one in &marks {
            for &other in &marks {
                for occupied in [false, true] {
                    let mut extensions = Extensions::new();
                    if occupied {
                        extensions.insert(7_u8);
                    }
                    let others = extensions.len();
                    write(&mut extensions, one);
                    assert_eq!((Attempt::of(&extensions), extensions.len()), (Some(one), others + 1));
                    write(&mut extensions, other);
                    assert_eq!((Attempt::of(&extensions), extensions.len()), (Some(other), others + 1));
                    remove(&mut extensions);
                    assert_eq!((Attempt::of(&extensions), extensions.len()), (None, others));
                    assert_eq!(extensions.get(), occupied.then_some(&7_u8));
                }
            }
        }
    }
}
