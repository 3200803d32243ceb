//! The label of a key, as a rejection contains it.
//!
//! The result of a call may contain a rejection. If a rejection held a counted reference to its
//! label, every call would contain the code that drops the reference: about 30 instructions of a
//! success. A label is therefore stored in a slot that is reused but never freed, and a rejection
//! copies the address of the slot. The number of slots is bounded by the largest number of labels
//! at one time.

#[cfg(feature = "keyed")]
pub(crate) use self::slots::{KeptLabel, Label};

/// The label of the overflow circuit.
#[cfg(feature = "keyed")]
pub(crate) const OVERFLOW: &str = "(overflow)";

/// Uninhabited: without the feature `keyed` there are no keys and no labels.
#[cfg(not(feature = "keyed"))]
#[derive(Clone, Copy, Debug)]
pub enum Label {}

#[cfg(not(feature = "keyed"))]
impl Label {
    pub(crate) const fn text(self) -> Option<std::sync::Arc<str>> {
        match self {}
    }
}

#[cfg(feature = "keyed")]
mod slots {
    use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

    /// The slots without a label.
    static FREE: Mutex<Vec<&'static Slot>> = Mutex::new(Vec::new());

    #[derive(Debug)]
    struct Slot(Mutex<Content>);

    #[derive(Debug, Default)]
    struct Content {
        /// The number of labels that the slot has had, so that a rejection never finds a later
        /// label.
        number: u64,
        text: Option<Arc<str>>,
    }

    impl Slot {
        fn content(&self) -> MutexGuard<'_, Content> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    fn free() -> MutexGuard<'static, Vec<&'static Slot>> {
        FREE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A reference to a label. It finds no text after the label was dropped.
    #[derive(Clone, Copy, Debug)]
    pub struct Label {
        slot: &'static Slot,
        number: u64,
    }

    impl Label {
        /// Returns the text of the label. `None`: the label was dropped.
        pub(crate) fn text(self) -> Option<Arc<str>> {
            let content = self.slot.content();
            content.text.as_ref().filter(|_| content.number == self.number).cloned()
        }
    }

    /// A label in a slot. Dropping it frees the slot.
    #[derive(Debug)]
    pub(crate) struct KeptLabel {
        text: Arc<str>,
        label: Label,
    }

    impl KeptLabel {
        pub(crate) fn new(text: String) -> Self {
            let text: Arc<str> = text.into();
            let reused = free().pop();
            let slot = reused.unwrap_or_else(|| Box::leak(Box::new(Slot(Mutex::default()))));
            let mut content = slot.content();
            content.text = Some(Arc::clone(&text));
            let label = Label { slot, number: content.number };
            drop(content);
            Self { text, label }
        }

        pub(crate) const fn text(&self) -> &Arc<str> {
            &self.text
        }

        pub(crate) const fn label(&self) -> Label {
            self.label
        }
    }

    impl Drop for KeptLabel {
        fn drop(&mut self) {
            let mut content = self.label.slot.content();
            content.number += 1;
            content.text = None;
            drop(content);
            free().push(self.label.slot);
        }
    }

    #[cfg(all(test, not(loom_models)))]
    mod tests {
        use super::*;

        #[test]
        fn label_finds_its_text_until_dropped() {
            let first = KeptLabel::new("first".to_owned());
            let label = first.label();
            assert_eq!((label.text().as_deref(), &**first.text()), (Some("first"), "first"));
            drop(first);
            assert_eq!(label.text(), None);
            // Other tests may have reused the slot: the reference must not find their labels
            // either.
            let others: Vec<_> = (0..8).map(|number| KeptLabel::new(number.to_string())).collect();
            assert_eq!(label.text(), None);
            drop(others);
        }
    }
}
