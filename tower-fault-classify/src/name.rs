//! Names with a `'static` lifetime, so that each call has one without reference counting.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// Returns the name as a `'static` string. A name that is built at run time is leaked once,
/// regardless of how often it is used.
#[allow(unreachable_pub, reason = "the feature `__internals` exports it")]
pub fn intern(name: Cow<'static, str>) -> &'static str {
    static NAMES: Mutex<Option<HashSet<&'static str>>> = Mutex::new(None);
    let name = match name {
        Cow::Borrowed(name) => return name,
        Cow::Owned(name) => name,
    };
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    let names = names.get_or_insert_default();
    if let Some(known) = names.get(&*name) {
        return known;
    }
    let name: &'static str = name.leak();
    names.insert(name);
    name
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;

    #[test]
    fn runtime_name_is_leaked_once() {
        let first = intern(format!("tenant-{}", 7).into());
        let second = intern(format!("tenant-{}", 7).into());
        assert!(std::ptr::eq(first, second));
        assert_eq!(intern("fixed".into()), "fixed");
    }
}
