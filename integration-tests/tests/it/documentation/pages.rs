//! The Markdown pages and their links.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pulldown_cmark::{BrokenLink, CodeBlockKind, Event, LinkType, Options, Parser, Tag, TagEnd};

const CRATES: [&str; 5] = [
    "tower-breaker",
    "tower-breaker-admin",
    "tower-breaker-fleet",
    "tower-fault-classify",
    "tower-jitter-retry",
];

/// The root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a member is below the root").to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns the files of the repository that end with `extension`, relative to its root.
fn files(extension: &str) -> Vec<String> {
    fn collect(folder: &Path, extension: &str, found: &mut Vec<String>) {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let name = entry.unwrap().file_name();
            let path = folder.join(&name);
            // Also a target folder of another name has this file.
            if name == ".git" || root().join(&path).join("CACHEDIR.TAG").exists() {
                continue;
            }
            if root().join(&path).is_dir() {
                collect(&path, extension, found);
            } else if path.extension().is_some_and(|own| own == extension) {
                found.push(path.to_str().unwrap().to_owned());
            }
        }
    }
    let mut found = Vec::new();
    collect(Path::new(""), extension, &mut found);
    assert!(!found.is_empty(), "no .{extension} file below {}", root().display());
    found
}

/// Returns the targets of all links of a page.
fn links(markdown: &str) -> Vec<String> {
    Parser::new_ext(markdown, Options::ENABLE_TABLES)
        .filter_map(|event| match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                Some(dest_url.to_string())
            }
            _ => None,
        })
        .collect()
}

/// Returns the Markdown of all documentation comments of a source file.
fn documentation_comments(source: &str) -> String {
    let comment = |line: &str| {
        let line = line.trim_start();
        line.strip_prefix("//!").or_else(|| line.strip_prefix("///")).map(|text| text.trim_start().to_owned())
    };
    source.lines().map(|line| comment(line).unwrap_or_default() + "\n").collect()
}

/// Returns the anchors of a page's headings, as GitHub makes them.
fn anchors(markdown: &str) -> BTreeSet<String> {
    let (mut anchors, mut heading) = (BTreeSet::new(), None);
    for event in Parser::new_ext(markdown, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => {
                let text = heading.take().unwrap_or_default().to_lowercase();
                let kept = text.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
                anchors.insert(kept.collect::<String>().replace(' ', "-"));
            }
            Event::Text(text) | Event::Code(text) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&text);
                }
            }
            _ => {}
        }
    }
    anchors
}

/// The address of the repository.
fn repository() -> String {
    let manifest = read("Cargo.toml");
    let line = manifest.lines().find_map(|line| line.strip_prefix("repository = ")).unwrap();
    line.trim_matches('"').to_owned()
}

/// Builds the documentation of the crates, and returns its folder.
fn built_documentation() -> PathBuf {
    let cargo = |arguments: &[&str]| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(arguments).current_dir(root()).env_remove("CARGO_BUILD_TARGET");
        let output = cargo.stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "cargo {arguments:?}");
        output.stdout
    };
    let metadata = cargo(&["metadata", "--locked", "--no-deps", "--format-version=1"]);
    let metadata: serde_json::Value = serde_json::from_slice(&metadata).unwrap();
    let documentation = Path::new(metadata["target_directory"].as_str().unwrap()).join("doc");
    for package in CRATES {
        // cargo leaves the pages of items that no longer exist.
        let pages = documentation.join(package.replace('-', "_"));
        if pages.exists() {
            fs::remove_dir_all(pages).unwrap();
        }
    }
    let packages = CRATES.map(|package| ["-p", package]).concat();
    cargo(&[&["doc", "--locked", "--quiet", "--all-features", "--no-deps"], &packages[..]].concat());
    documentation
}

/// What is wrong with a link, if anything.
struct Checker {
    repository: String,
    documentation: PathBuf,
}

impl Checker {
    fn problem(&self, page: &str, link: &str) -> Option<&'static str> {
        let (address, anchor) = link.split_once('#').unwrap_or((link, ""));
        if address.is_empty() {
            return (!anchors(&read(page)).contains(anchor)).then_some("no such heading");
        }
        if !address.contains("://") {
            let folder = Path::new(page).parent().unwrap();
            return file_problem(&folder.join(address), anchor);
        }
        if let Some(rest) = address.strip_prefix(&self.repository) {
            return match rest.strip_prefix("/blob/main/").or_else(|| rest.strip_prefix("/tree/main/")) {
                Some(file) => file_problem(Path::new(file), anchor),
                // Pages of the site that are not files.
                None => (!["", "/issues", "/security/advisories/new"].contains(&rest))
                    .then_some("unknown page of the repository's site"),
            };
        }
        if let Some(item) = address.strip_prefix("https://docs.rs/") {
            let (package, page) = item.split_once('/').unwrap_or((item, ""));
            if CRATES.contains(&package) {
                return self.item_problem(package, page, anchor);
            }
        }
        let host = address.strip_prefix("https://").and_then(|rest| rest.split('/').next());
        match host {
            Some(host) if host.contains('.') && !address.contains(char::is_whitespace) => None,
            _ => Some("not an https address with a host"),
        }
    }

    /// Checks a link to the documentation of one of the crates.
    fn item_problem(&self, package: &str, page: &str, anchor: &str) -> Option<&'static str> {
        if page.is_empty() {
            return (!anchor.is_empty()).then_some("an anchor needs the page of the crate");
        }
        let Some(page) = page.strip_prefix("latest/") else {
            return Some("name the version `latest`");
        };
        if page.split('/').next() != Some(&package.replace('-', "_")) {
            return Some("the crate's own folder is missing");
        }
        let mut file = self.documentation.join(page);
        if file.extension().is_none() {
            file.push("index.html");
        }
        match fs::read_to_string(file) {
            Err(_) => Some("no such page of the built documentation"),
            Ok(html) if !anchor.is_empty() && !html.contains(&format!("id=\"{anchor}\"")) => {
                Some("no such anchor in the built documentation")
            }
            Ok(_) => None,
        }
    }
}

/// Checks a link to a file of the repository, and to a heading of it.
fn file_problem(file: &Path, anchor: &str) -> Option<&'static str> {
    let path = root().join(file);
    if !path.exists() {
        return Some("no such file");
    }
    if anchor.is_empty() {
        return None;
    }
    let markdown = fs::read_to_string(path).ok().filter(|_| file.extension().is_some_and(|own| own == "md"));
    match markdown {
        Some(markdown) if anchors(&markdown).contains(anchor) => None,
        _ => Some("no such heading"),
    }
}

#[test]
fn links_resolve() {
    let checker = Checker { repository: repository(), documentation: built_documentation() };
    let mut problems = Vec::new();
    for page in files("md") {
        for link in links(&read(&page)) {
            problems
                .extend(checker.problem(&page, &link).map(|problem| format!("{page}: {link}: {problem}")));
        }
    }
    for source in files("rs") {
        // rustdoc checks the other links.
        let all = links(&documentation_comments(&read(&source)));
        for link in all.iter().filter(|link| link.contains("://")) {
            problems
                .extend(checker.problem(&source, link).map(|problem| format!("{source}: {link}: {problem}")));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

// GitHub and crates.io show such text as it is.
#[test]
fn page_has_no_markup_of_rustdoc() {
    let mut problems = Vec::new();
    for page in files("md") {
        let text = read(&page);
        let mut broken = |link: BrokenLink<'_>| {
            // `[X]` in code ticks, or `[text][label]` without its label.
            if link.reference.starts_with('`') || link.link_type == LinkType::ReferenceUnknown {
                problems.push(format!("{page}: [{}]", link.reference));
            }
            None
        };
        let options = Options::ENABLE_TABLES;
        let events: Vec<_> =
            Parser::new_with_broken_link_callback(&text, options, Some(&mut broken)).collect();
        let mut rust = false;
        for event in events {
            match event {
                Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(language))) => {
                    rust = language.starts_with("rust");
                }
                Event::End(TagEnd::CodeBlock) => rust = false,
                Event::Text(code) if rust => {
                    let hidden =
                        code.lines().filter(|line| line.trim() == "#" || line.trim().starts_with("# "));
                    problems.extend(hidden.map(|line| format!("{page}: {line}")));
                }
                _ => {}
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

// crates.io shows these pages without the files around them.
#[test]
fn packaged_page_has_no_relative_link() {
    for package in CRATES {
        for page in ["README.md", "CHANGELOG.md", "TABLES.md"] {
            let page = format!("{package}/{page}");
            if root().join(&page).exists() {
                let all = links(&read(&page));
                let relative: Vec<_> =
                    all.iter().filter(|link| !link.contains("://") && !link.starts_with('#')).collect();
                assert!(relative.is_empty(), "{page}: {relative:?}");
            }
        }
    }
}

#[test]
fn readme_links_every_guide() {
    let linked = links(&read("README.md"));
    let guides = files("md").into_iter().filter(|page| page.starts_with("docs/"));
    for guide in guides.filter(|page| !page.starts_with("docs/reports/")) {
        assert!(linked.contains(&guide), "{guide}");
    }
}

#[test]
fn example_has_short_files_without_local_crates() {
    let page = read("examples/README.md");
    let (_, blocks) = page.split_once("\n## How to copy an example\n").unwrap();
    let examples: Vec<_> = blocks.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(
        examples,
        [
            "batch",
            "shards",
            "restart",
            "database_worker",
            "tenants",
            "reqwest",
            "reqwest_middleware",
            "llm_worker",
            "tonic",
            "axum_gateway",
            "hyper"
        ]
    );
    for example in examples {
        let folder = format!("examples/{example}/");
        for file in files("rs").into_iter().filter(|file| file.starts_with(&folder)) {
            let text = read(&file);
            assert!(text.lines().count() <= 260, "{file} is too long to be read at once");
            assert!(!text.contains("examples::"), "{file} needs more than published crates");
        }
        let command = format!("`cargo run --example {example}`");
        assert!(read("README.md").contains(&command), "README.md does not list {example}");
        assert!(page.contains(&command), "examples/README.md does not list {example}");
    }
}
