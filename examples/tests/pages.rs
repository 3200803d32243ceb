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

/// The heading's anchor, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>().replace(' ', "-")
}

#[test]
fn each_link_to_a_file_leads_to_one() {
    for page in [
        "README.md",
        "CONTRIBUTING.md",
        "docs/configuration.md",
        "docs/stacking.md",
        "docs/errors.md",
        "docs/coming-from-elsewhere.md",
        "examples/README.md",
        "tower-breaker/README.md",
        "tower-fault-classify/README.md",
        "tower-jitter-retry/README.md",
    ] {
        let text = read(page);
        let links = text.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(link, _)| link));
        // The rest are addresses and items of the documentation.
        let files =
            links.filter(|link| link.starts_with(['.', '#']) || (link.contains('.') && !link.contains(':')));
        for link in files {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = root().join(page).parent().unwrap().join(file);
            assert!(file.is_empty() || target.exists(), "{page}: {link}");
            if !heading.is_empty() {
                let target = if file.is_empty() { text.clone() } else { fs::read_to_string(target).unwrap() };
                let found = target.lines().any(|line| line.starts_with('#') && anchor(line) == heading);
                assert!(found, "{page}: {link}");
            }
        }
    }
}

#[test]
fn each_example_is_one_short_file_and_can_be_copied() {
    let page = read("examples/README.md");
    let examples: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(
        examples,
        ["batch", "tenants", "reqwest", "reqwest_middleware", "tonic", "axum_gateway", "hyper"]
    );
    for example in examples {
        let text = read(&format!("examples/{example}/main.rs"));
        assert!(text.lines().count() <= 135, "{example} is too long to be read at once");
        assert!(!text.contains("examples::"), "{example} needs more than published crates");
        assert!(read("README.md").contains(&format!("`cargo run --example {example}`")), "{example}");
    }
}
