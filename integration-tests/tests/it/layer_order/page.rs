//! The blocks of the page are parts of these tests.

const PAGE: &str = include_str!("../../../../docs/layer-order.md");
const TESTS: [&str; 6] = [
    include_str!("buffers.rs"),
    include_str!("limits.rs"),
    include_str!("load.rs"),
    include_str!("redirects.rs"),
    include_str!("retries_and_breakers.rs"),
    include_str!("uploads.rs"),
];

/// Returns the text without white space.
fn without_space(text: &str) -> String {
    text.split_whitespace().collect()
}

#[test]
fn page_orders_are_tested_verbatim() {
    let tests = without_space(&TESTS.concat());
    let orders: Vec<_> =
        PAGE.split("```rust\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(orders.len(), 13, "add a test for each new order");
    for order in orders {
        assert!(tests.contains(&without_space(order)), "no test contains this order:\n{order}");
    }
}

#[test]
fn page_names_existing_tests() {
    let named: Vec<_> = PAGE.split("Test: `").skip(1).map(|rest| rest.split('`').next().unwrap()).collect();
    assert_eq!(named.len(), 15);
    for name in named {
        assert!(TESTS.iter().any(|test| test.contains(&format!("async fn {name}()"))), "{name}");
    }
}
