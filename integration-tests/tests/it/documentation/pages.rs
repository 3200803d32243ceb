//! What the pages say of the files beside them.

use std::fs;
use std::path::{Path, PathBuf};

/// The repository's own folder.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The Markdown of a page, or of the documentation at the beginning of a `lib.rs`.
fn markdown(path: &str) -> String {
    let text = read(path);
    if !path.ends_with(".rs") {
        return text;
    }
    text.lines()
        .filter_map(|line| line.strip_prefix("//!"))
        .map(|line| format!("{}\n", line.trim_start()))
        .collect()
}

/// The address of this repository's files, which a page uses where a relative link would not work.
fn address() -> String {
    let manifest = read("Cargo.toml");
    let repository = manifest.lines().find_map(|line| line.strip_prefix("repository = ")).unwrap();
    format!("{}/blob/main/", repository.trim_matches('"'))
}

/// The heading's anchor, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>().replace(' ', "-")
}

fn links(page: &str) -> impl Iterator<Item = &str> {
    page.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(link, _)| link))
}

/// Whether a link leads to a file or a heading, not to an address or an item of the documentation.
fn is_file(link: &str) -> bool {
    link.starts_with(['.', '#']) || (link.contains('.') && !link.contains(':'))
}

#[test]
fn link_to_file_or_heading_resolves() {
    let address = address();
    for page in [
        "README.md",
        "CONTRIBUTING.md",
        "docs/compile-errors.md",
        "docs/configuration.md",
        "docs/errors.md",
        "docs/fallbacks.md",
        "docs/getting-started.md",
        "docs/layer-order.md",
        "docs/manual-control.md",
        "docs/migrating.md",
        "docs/observability.md",
        "docs/streaming.md",
        "docs/testing.md",
        "examples/README.md",
        "tower-breaker/README.md",
        "tower-breaker/src/lib.rs",
        "tower-fault-classify/README.md",
        "tower-fault-classify/src/lib.rs",
        "tower-jitter-retry/README.md",
        "tower-jitter-retry/src/lib.rs",
    ] {
        let text = markdown(page);
        for link in links(&text).filter(|link| is_file(link) || link.starts_with(&address)) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = match file.strip_prefix(&address) {
                Some(file) => root().join(file),
                None => root().join(page).parent().unwrap().join(file),
            };
            assert!(file.is_empty() || target.exists(), "{page}: {link}");
            if !heading.is_empty() {
                let target = if file.is_empty() { text.clone() } else { fs::read_to_string(target).unwrap() };
                let found = target.lines().any(|line| line.starts_with('#') && anchor(line) == heading);
                assert!(found, "{page}: {link}");
            }
        }
    }
}

// crates.io and docs.rs show these pages without the files beside them.
#[test]
fn packaged_page_has_no_relative_link() {
    for package in ["tower-breaker", "tower-fault-classify", "tower-jitter-retry"] {
        for page in ["README.md", "CHANGELOG.md", "TABLES.md"] {
            let page = format!("{package}/{page}");
            if root().join(&page).exists() {
                let text = read(&page);
                let wrong: Vec<_> =
                    links(&text).filter(|link| is_file(link) && !link.starts_with('#')).collect();
                assert!(wrong.is_empty(), "{page}: {wrong:?}");
            }
        }
    }
}

#[test]
fn example_is_one_short_file_without_local_crates() {
    let page = read("examples/README.md");
    let (_, blocks) = page.split_once("\n## How to copy an example\n").unwrap();
    let examples: Vec<_> = blocks.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(
        examples,
        ["batch", "tenants", "reqwest", "config", "reqwest_middleware", "tonic", "axum_gateway", "hyper"]
    );
    for example in examples {
        let text = read(&format!("examples/{example}/main.rs"));
        assert!(text.lines().count() <= 200, "{example} is too long to be read at once");
        assert!(!text.contains("examples::"), "{example} needs more than published crates");
        let command = format!("`cargo run --example {example}`");
        assert!(read("README.md").contains(&command), "README.md does not list {example}");
        assert!(page.contains(&command), "examples/README.md does not list {example}");
    }
}
