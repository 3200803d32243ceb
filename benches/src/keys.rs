//! The keys of requests to keyed circuits.

use std::pin::pin;

use tower::Service;

use crate::call::finish;

/// Returns the key of the call with the given number: one of `keys` keys, in an order that no cache
/// can predict.
#[inline]
pub(crate) fn random_key(call: u32, keys: u32) -> u64 {
    // The finalizer of SplitMix64.
    let mut mixed = u64::from(call).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((mixed >> 32) * u64::from(keys)) >> 32
}

/// Calls the service once with each key, in another order than the measured calls.
pub(crate) fn call_each_key<S: Service<u64>>(service: &mut S, keys: u32) {
    // The stride is a prime that does not divide the number of keys, so no key is repeated.
    const STRIDE: u64 = 7_919;
    for call in 0..u64::from(keys) {
        let key = call * STRIDE % u64::from(keys);
        assert!(finish(pin!(service.call(key))).is_ok(), "a call with a new key failed");
    }
}
