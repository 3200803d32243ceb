//! Runs the batch as its users do.

use std::process::Command;

#[test]
fn no_item_is_lost_and_the_dead_server_is_asked_five_times() {
    // Cargo names the path of no example to a test; both lie under the profile's folder.
    let here = std::env::current_exe().expect("a test knows where it is");
    let target = here.ancestors().nth(2).expect("it lies in `deps`");
    let output = Command::new(target.join("examples/batch")).output().expect("it is built with the tests");
    let text = String::from_utf8(output.stdout).expect("it prints text");
    assert!(output.status.success(), "{text}");
    let [stop, end] = text.lines().collect::<Vec<_>>().try_into().expect("it stops once");
    assert!(stop.starts_with("40 done, 60 to do: "), "{stop}");
    assert!(end.starts_with("100 of 100 imported with 105 requests, "), "{end}");
}
