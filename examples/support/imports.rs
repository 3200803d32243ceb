//! Holds the paths that source files name against a table of what each file may use.
//!
//! The crates of the workspace share it, each with a table of its own. It reads `use` items, the paths of types, expressions and
//! patterns, and what stands in macros; it leaves out what is compiled for tests only.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use syn::visit::{self, Visit};

/// What some files may use.
pub(crate) struct Row {
    /// Files, and folders with a slash at their end, below `src`. The longest name that fits a file is the file's row.
    pub(crate) files: &'static [&'static str],
    /// What a path may begin with. `core` and `alloc` are written as `std`. A row's own files may use each other.
    pub(crate) may_use: &'static [&'static [&'static str]],
}

/// What is in the standard library and does nothing but compute.
pub(crate) const PURE: &[&str] = &[
    "std::array",
    "std::borrow",
    "std::cmp",
    "std::convert",
    "std::error",
    "std::fmt",
    "std::iter",
    "std::marker",
    "std::mem",
    "std::num",
    "std::ops",
    "std::ptr",
    "std::time::Duration",
    "std::vec",
];

/// What is wrong with the files of `src`, a line each: a path that the file's row does not allow, a file without a row, a row
/// without a file, code in `lib.rs`.
pub(crate) fn violations(src: &Path, table: &[Row]) -> Vec<String> {
    let files = files(src);
    let mut wrong = Vec::new();
    for listed in table.iter().flat_map(|row| row.files) {
        if !files.keys().any(|file| file == listed || is_folder_of(listed, file)) {
            wrong.push(format!("{listed}: stands in the table and is not there"));
        }
    }
    for (file, text) in &files {
        let parsed = syn::parse_file(text).unwrap_or_else(|error| panic!("{file}: {error}"));
        if file == "lib.rs" {
            wrong.extend(code_in_root(&parsed).map(|what| format!("lib.rs: holds code: {what}")));
            continue;
        }
        let rows = table.iter().flat_map(|row| row.files.iter().map(move |name| (name, row)));
        let row = rows
            .filter(|(name, _)| *name == file || is_folder_of(name, file))
            .max_by_key(|(name, _)| name.len());
        let Some((_, row)) = row else {
            wrong.push(format!("{file}: stands in no row of the table"));
            continue;
        };
        for path in paths(&parsed, &module_of(file)) {
            let own = row.files.iter().map(|name| module_of(name).join("::"));
            let allowed = row.may_use.iter().copied().flatten().map(ToString::to_string);
            if !own.chain(allowed).any(|prefix| begins_with(&path, &prefix)) {
                wrong.push(format!("{file}: may not use `{path}`"));
            }
        }
    }
    wrong
}

/// Modules that are compiled for tests only, where they have a file of their own.
const FOR_TESTS: [&str; 2] = ["models.rs", "tests.rs"];

fn files(src: &Path) -> BTreeMap<String, String> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![src.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let names: Vec<_> =
                    path.strip_prefix(src).unwrap().iter().map(|name| name.to_str().unwrap()).collect();
                if names.last().is_some_and(|name| !FOR_TESTS.contains(name)) {
                    found.insert(names.join("/"), fs::read_to_string(&path).unwrap());
                }
            }
        }
    }
    found
}

fn is_folder_of(name: &str, file: &str) -> bool {
    name.ends_with('/') && file.starts_with(name)
}

/// The path of a file's module: `crate`, `a`, `b` for `a/b.rs` and for `a/b/mod.rs`.
fn module_of(file: &str) -> Vec<String> {
    let stem = file.strip_suffix(".rs").unwrap_or(file);
    let stem = stem.strip_suffix("/mod").unwrap_or(stem).trim_end_matches('/');
    // The one module whose folder is called otherwise.
    let names = stem.split('/').map(|name| if name == "shared" { "__internals" } else { name });
    std::iter::once("crate").chain(names).map(ToOwned::to_owned).collect()
}

fn begins_with(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// A crate's root has modules, re-exports and docs, and nothing else.
fn code_in_root(file: &syn::File) -> impl Iterator<Item = &'static str> {
    file.items.iter().filter_map(|item| match item {
        syn::Item::Mod(module) if module.content.is_none() => None,
        syn::Item::Use(item) if matches!(item.vis, syn::Visibility::Public(_)) => None,
        syn::Item::Mod(_) => Some("a module with a body"),
        syn::Item::Use(_) => Some("an import for itself"),
        syn::Item::Fn(_) => Some("a function"),
        syn::Item::Macro(_) => Some("a macro"),
        _ => Some("an item"),
    })
}

/// Every path that a file names and that leads out of it, from the crate's root or from another crate.
pub(crate) fn paths(file: &syn::File, module: &[String]) -> BTreeSet<String> {
    let mut names = Names { module: module.to_vec(), imports: BTreeMap::new(), modules: BTreeSet::new() };
    names.visit_file(file);
    let mut scan = Scan { names, depth: 0, found: BTreeSet::new() };
    scan.visit_file(file);
    scan.found
}

fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let syn::Meta::List(list) = &attribute.meta else { return false };
        let condition = list.tokens.to_string().replace(' ', "");
        list.path.is_ident("cfg") && (condition == "test" || condition.starts_with("all(test"))
    })
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// What the short names of a file stand for.
struct Names {
    module: Vec<String>,
    imports: BTreeMap<String, String>,
    modules: BTreeSet<String>,
}

impl Names {
    /// The whole of a path that was written so. `depth` is that of the inline modules around it.
    fn whole(&self, segments: &[String], leading_colon: bool, depth: usize) -> Option<String> {
        let (first, rest) = segments.split_first()?;
        let mut whole: Vec<String> = match first.as_str() {
            _ if leading_colon => vec![first.clone()],
            "crate" => vec!["crate".to_owned()],
            "Self" => return None,
            "self" | "super" => {
                let up = segments.iter().take_while(|segment| *segment == "super").count();
                let kept = (self.module.len() + depth).saturating_sub(up);
                // Inside an inline module the way up ends in this file.
                self.module.iter().take(kept).cloned().collect()
            }
            name if self.modules.contains(name) => [&self.module[..], std::slice::from_ref(first)].concat(),
            name => match self.imports.get(name) {
                Some(import) => vec![import.clone()],
                None if rest.is_empty() || is_local(name) => return None,
                None => vec![first.clone()],
            },
        };
        whole.extend(
            rest.iter().filter(|segment| !matches!(segment.as_str(), "self" | "super" | "*")).cloned(),
        );
        let whole = whole.join("::");
        let std = ["core", "alloc"].into_iter().find(|root| begins_with(&whole, root));
        Some(match std {
            Some(root) => format!("std{}", &whole[root.len()..]),
            None => whole,
        })
    }

    /// The imports of a `use` item: the name in this file, and the path.
    fn flatten(tree: &syn::UseTree, before: &[String], leaves: &mut Vec<(String, Vec<String>)>) {
        let with = |name: &dyn ToString| [before, &[name.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => Self::flatten(&path.tree, &with(&path.ident), leaves),
            syn::UseTree::Name(name) if name.ident == "self" => {
                leaves.push((before.last().cloned().unwrap_or_default(), before.to_vec()));
            }
            syn::UseTree::Name(name) => leaves.push((name.ident.to_string(), with(&name.ident))),
            syn::UseTree::Rename(rename) if rename.ident == "self" => {
                leaves.push((rename.rename.to_string(), before.to_vec()));
            }
            syn::UseTree::Rename(rename) => leaves.push((rename.rename.to_string(), with(&rename.ident))),
            syn::UseTree::Glob(_) => leaves.push(("*".to_owned(), with(&"*"))),
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| Self::flatten(tree, before, leaves));
            }
        }
    }
}

/// Types, generics, variables; primitive types.
fn is_local(name: &str) -> bool {
    const PRIMITIVE: [&str; 17] = [
        "bool", "char", "f32", "f64", "i8", "i16", "i32", "i64", "i128", "isize", "str", "u8", "u16", "u32",
        "u64", "u128", "usize",
    ];
    name.starts_with(char::is_uppercase) || PRIMITIVE.contains(&name)
}

impl Visit<'_> for Names {
    fn visit_item(&mut self, item: &syn::Item) {
        if is_for_tests(attributes(item)) {
            return;
        }
        match item {
            syn::Item::Mod(module) => {
                self.modules.insert(module.ident.to_string());
                visit::visit_item_mod(self, module);
            }
            syn::Item::Use(item) => {
                let mut leaves = Vec::new();
                Self::flatten(&item.tree, &[], &mut leaves);
                for (name, path) in leaves {
                    if let Some(whole) = self.whole(&path, item.leading_colon.is_some(), 0)
                        && name != "_"
                    {
                        self.imports.insert(name, whole);
                    }
                }
            }
            _ => visit::visit_item(self, item),
        }
    }
}

struct Scan {
    names: Names,
    depth: usize,
    found: BTreeSet<String>,
}

impl Scan {
    fn note(&mut self, segments: &[String], leading_colon: bool) {
        self.found.extend(self.names.whole(segments, leading_colon, self.depth));
    }
}

impl Visit<'_> for Scan {
    fn visit_item(&mut self, item: &syn::Item) {
        if !is_for_tests(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, module: &syn::ItemMod) {
        self.depth += 1;
        visit::visit_item_mod(self, module);
        self.depth -= 1;
    }

    fn visit_item_use(&mut self, item: &syn::ItemUse) {
        let mut leaves = Vec::new();
        Names::flatten(&item.tree, &[], &mut leaves);
        for (_, path) in leaves {
            // A name of one segment would be looked up as an import of itself: it is a crate or a module of this file.
            match &path[..] {
                [name] if !self.names.modules.contains(name) => {
                    self.found.insert(name.clone());
                }
                _ => self.note(&path, item.leading_colon.is_some()),
            }
        }
    }

    fn visit_visibility(&mut self, _: &syn::Visibility) {}

    fn visit_attribute(&mut self, attribute: &syn::Attribute) {
        const TOOLS: [&str; 4] = ["clippy", "diagnostic", "rustdoc", "rustfmt"];
        let tool = attribute
            .path()
            .segments
            .first()
            .is_some_and(|first| TOOLS.iter().any(|tool| first.ident == tool));
        if !tool {
            visit::visit_attribute(self, attribute);
        }
    }

    fn visit_path(&mut self, path: &syn::Path) {
        let segments: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.note(&segments, path.leading_colon.is_some());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &syn::Macro) {
        for (segments, leading_colon) in paths_in_tokens(&called.tokens.to_string()) {
            self.note(&segments, leading_colon);
        }
        visit::visit_macro(self, called);
    }
}

/// The paths in tokens that are not Rust until a macro made it of them.
fn paths_in_tokens(text: &str) -> Vec<(Vec<String>, bool)> {
    let mut found = Vec::new();
    let (mut segments, mut leading, mut joined) = (Vec::new(), false, false);
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let length = if next.is_whitespace() {
            next.len_utf8()
        } else if next.is_alphabetic() || next == '_' {
            let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            if !joined && !segments.is_empty() {
                found.push((std::mem::take(&mut segments), std::mem::take(&mut leading)));
            }
            segments.push(rest[..length].to_owned());
            joined = false;
            length
        } else if rest.starts_with("::") {
            leading |= segments.is_empty();
            joined = true;
            2
        } else {
            if !segments.is_empty() {
                found.push((std::mem::take(&mut segments), leading));
            }
            (leading, joined) = (false, false);
            match next {
                '"' => string_literal(rest),
                '\'' => char_literal(rest),
                _ => next.len_utf8(),
            }
        };
        rest = &rest[length..];
    }
    if !segments.is_empty() {
        found.push((segments, leading));
    }
    found
}

fn string_literal(text: &str) -> usize {
    let mut escaped = false;
    let end = text.char_indices().skip(1).find(|(_, c)| {
        let ends = *c == '"' && !escaped;
        escaped = *c == '\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |(at, _)| at + 1)
}

/// A lifetime is one character long to us.
fn char_literal(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), _) => {
            text.char_indices().skip(3).find(|(_, c)| *c == '\'').map_or(1, |(at, _)| at + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}
