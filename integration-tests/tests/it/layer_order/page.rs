//! The page and these tests show the same code.

const PAGE: &str = include_str!("../../../../docs/layer-order.md");
const TESTS: [&str; 5] = [
    include_str!("buffers.rs"),
    include_str!("limits.rs"),
    include_str!("redirects.rs"),
    include_str!("retries_and_breakers.rs"),
    include_str!("uploads.rs"),
];

/// The text without white space.
fn squeezed(text: &str) -> String {
    text.split_whitespace().collect()
}

#[test]
fn stacking_page_orders_are_tested_verbatim() {
    let tests = squeezed(&TESTS.concat());
    let orders: Vec<_> =
        PAGE.split("```rust\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(orders.len(), 12, "an order was added: is it tested?");
    for order in orders {
        assert!(tests.contains(&squeezed(order)), "no test has this order:\n{order}");
    }
}

#[test]
fn stacking_page_names_existing_tests() {
    let named: Vec<_> = PAGE.split("Test: `").skip(1).map(|rest| rest.split('`').next().unwrap()).collect();
    assert_eq!(named.len(), 12);
    for name in named {
        assert!(TESTS.iter().any(|test| test.contains(&format!("async fn {name}()"))), "{name}");
    }
}
