//! Command lines and configurations that are not valid: exit code 2, and no command runs.

use std::fs;

use crate::support::{Project, shell, validators};

/// Returns the error of a run.
async fn error_of(project: &Project, args: &[&str]) -> String {
    let ended = project.run(args).await;
    assert_eq!((ended.code, &*ended.stdout), (Some(2), ""), "{args:?}\n{}", ended.stderr);
    assert!(!project.path("ran").exists(), "{args:?}");
    ended.stderr
}

fn project() -> Project {
    Project::with_config(&validators([shell("lint", "touch ran"), shell("coverage", "true")]))
}

#[tokio::test]
async fn unreadable_configuration_is_named() {
    let project = project();
    fs::create_dir(project.path("dir.toml")).unwrap();
    for (path, problem) in [("missing.toml", "No such file"), ("dir.toml", "Is a directory")] {
        let error = error_of(&project, &["--config", path]).await;
        let expected = format!("error: configuration `{path}` cannot be read; check the path: {problem}");
        assert!(error.starts_with(&expected), "{error}");
    }
    project.write("config.yaml", "");
    let error = error_of(&project, &["--config", "config.yaml"]).await;
    assert!(error.contains("`config.yaml` has no known format; use `.toml` or `.json`"), "{error}");
}

#[tokio::test]
async fn invalid_configuration_is_reported_with_line_and_column() {
    let project = project();
    let cases = [
        ("syntax.toml", "concurrency = 2\ntimeouts = ]", "line 2, column 12", ""),
        ("syntax.json", "{\n  \"validators\": [,]\n}", "line 2 column 18", ""),
        ("field.toml", "[external]\nquestDB = \"a:1\"", "line 2, column 1", "unknown field `questDB`"),
        ("field.json", "{\n \"validator\": []\n}", "line 2 column 12", "unknown field `validator`"),
        ("type.toml", "concurrency = 0", "line 1, column 15", "expected a nonzero"),
        ("time.json", "{\"timeouts\":{\"lint\":0}}", "line 1 column 22", "0.001 to 31536000"),
    ];
    for (name, text, position, problem) in cases {
        project.write(name, text);
        let error = error_of(&project, &["--config", name]).await;
        for part in [name, position, problem] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}

#[tokio::test]
async fn invalid_validator_and_address_are_named() {
    let project = project();
    let cases = [
        ("[[validators]]\ndimension = \"lint\"", "validator 1 (`lint`) is not valid: it has no check"),
        ("[external]\nmcp = \"here\"", "`mcp` is `here`; write a URL that begins with http:// or https://"),
    ];
    project.write("Cargo.toml", "");
    for (text, problem) in cases {
        project.write("config.toml", text);
        let error = error_of(&project, &["--config", "config.toml"]).await;
        assert!(error.contains(problem), "{error}");
    }
}

#[tokio::test]
async fn unknown_dimension_is_named_with_known_ones() {
    let project = project();
    for (flag, value) in [("--only", "lint,speed"), ("--timeout", "speed=3")] {
        let error = error_of(&project, &["--config", "config.json", flag, value]).await;
        let expected = format!(
            "error: no validator has the dimension `speed` of `{flag}`; use one of: coverage, lint\n"
        );
        assert_eq!(error, expected);
    }
}

#[tokio::test]
async fn unknown_dimension_of_configured_timeout_is_named() {
    let project = project();
    let config =
        "timeouts = { speed = 3, visual = 2 }\n[[validators]]\ndimension = \"speed\"\ncommand = [\"true\"]";
    project.write("known.toml", config);
    assert_eq!(project.run(&["--config", "known.toml"]).await.code, Some(0));
    project.write("unknown.toml", config.replace("speed = 3", "spede = 3"));
    let error = error_of(&project, &["--config", "unknown.toml"]).await;
    let expected =
        "error: `timeouts` has the dimension `spede`, which no validator has; correct or remove it\n";
    assert_eq!(error, expected);
}

#[tokio::test]
async fn invalid_flag_is_named_with_expected_form() {
    let project = project();
    let cases = [
        (&["--timeout", "lint=0"][..], "write a number of seconds from 0.001 to 31536000"),
        (&["--timeout", "lint=soon"], "write a number of seconds from 0.001 to 31536000"),
        (&["--timeout", "30"], "write DIM=SECS, such as lint=30"),
        (&["--timeout", "=30"], "write DIM=SECS, such as lint=30"),
        (&["--tool", "visual"], "write DIM=NAME, such as visual=compare_screenshots"),
        (&["--jobs", "0"], "--jobs"),
        (&["--speed"], "--speed"),
        (&["--push", "a:1", "--questdb", "b:1"], "cannot be used with"),
        (&["--push", "a:1", "--push", "b:1"], "`--push` has two addresses of `questdb`; remove one"),
        (&["--push", "http://a", "--push", "http://b"], "two addresses of `prometheus`; remove one"),
        (&["--push", "localhost"], "`questdb` is `localhost`; write HOST:PORT"),
        (&["--push", "ftp://host"], "`prometheus` is `ftp://host`; write a URL that begins with http://"),
        (&["--mcp", "http://host"], "no validator calls a tool of the MCP server; add `--tool`"),
        (&["--tool", "visual=check"], "`mcp` has no address; set `mcp` in `[external]`"),
    ];
    for (flags, problem) in cases {
        let error = error_of(&project, &[&["--config", "config.json"], flags].concat()).await;
        assert!(error.starts_with("error: ") && error.contains(problem), "{flags:?}: {error}");
    }
}

#[tokio::test]
async fn invalid_folder_is_named() {
    let project = project();
    let error = error_of(&project, &["missing", "--config", "config.json"]).await;
    assert!(
        error.starts_with("error: folder `missing` is not found; check the path: No such file"),
        "{error}"
    );
    let error = error_of(&project, &["config.json", "--config", "config.json"]).await;
    assert!(error.starts_with("error: `config.json` is not a folder; name the folder"), "{error}");
    let error = error_of(&project, &[]).await;
    assert!(error.starts_with("error: folder `.` has no `Cargo.toml`; add `--config`"), "{error}");
}
