//! Runs the batch as its users do.

use examples::text_of_example;

#[test]
fn no_item_is_lost_and_the_dead_server_is_asked_five_times() {
    let text = text_of_example("batch");
    let [stop, end] = text.lines().collect::<Vec<_>>().try_into().expect("it stops once");
    assert!(stop.starts_with("40 done, 60 to do: "), "{stop}");
    assert!(end.starts_with("100 of 100 imported with 105 requests, "), "{end}");
}
