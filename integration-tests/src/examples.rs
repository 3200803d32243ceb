//! Runs the programs in `examples/`.

use std::process::{Command, Output};

/// Returns the command that runs an example.
///
/// # Panics
///
/// Panics if this program is not a test.
pub fn example_command(name: &str) -> Command {
    // Cargo does not pass the path of an example to a test. Both are in the folder of the profile.
    let test = std::env::current_exe().expect("the test has a path");
    let mut program = test.ancestors().nth(2).expect("the test is in `deps`").join("examples").join(name);
    program.set_extension(std::env::consts::EXE_EXTENSION);
    Command::new(program)
}

/// Runs an example as a user does, and waits for its end.
///
/// # Panics
///
/// Panics if the example was not built. `cargo test --workspace` builds the examples.
/// `cargo test -p integration-tests` does not, and neither does a run with `--test`.
pub fn run_example(name: &str, arguments: &[&str]) -> Output {
    output_of(name, example_command(name).args(arguments))
}

/// Runs the command of an example, and waits for its end.
///
/// # Panics
///
/// Panics as [`run_example`] does.
pub fn output_of(name: &str, command: &mut Command) -> Output {
    let output = command.output();
    output.unwrap_or_else(|error| {
        let program = command.get_program().display();
        panic!("{program}: {error}; build it with `cargo build --example {name}`")
    })
}

/// Runs an example that succeeds, and returns what it prints.
///
/// # Panics
///
/// Panics as [`run_example`] does, and if the example fails.
pub fn text_of_example(name: &str) -> String {
    let output = run_example(name, &[]);
    let text = String::from_utf8(output.stdout).expect("the output is UTF-8");
    assert!(output.status.success(), "{text}");
    text
}
