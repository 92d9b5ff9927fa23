//! What a machine should hold of the style: the direction of the floors, the one home of the
//! runtime, of the clock and of `unsafe`, a `//!` on every file, a test for every error and a
//! README line for every setting.
//!
//! Why a test and not a lint: each rule is about the house as a whole, and its complaint names the
//! file, the line and the rule. Absent on purpose: taste. Everything else in the style is judged by
//! readers. What is excused for a while stands in `tests/tidy/allowed.txt`, each with its reason.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// The floors, lowest first. Rooms on one floor do not know each other.
const FLOORS: &[&[&str]] = &[
    &["base"],
    &["h1"],
    &["policy"],
    &["pool"],
    &["net", "observe"],
    &["proxy", "config"],
    &["app"],
];

/// Crates that may be named only under `src/net`: a move away from them must be one folder.
const RUNTIME: &[&str] = &[
    "async_std",
    "async_io",
    "async_signal",
    "async_task",
    "rustix",
    "socket2",
];

/// The sections of the connection-management chapter of *HTTP: The Definitive Guide*.
const CHAPTER: &[&str] = &[
    "4.1", "4.1.1", "4.1.2", "4.1.3", "4.1.4", "4.2", "4.2.1", "4.2.2", "4.2.3", "4.2.4", "4.2.5",
    "4.2.6", "4.2.7", "4.3", "4.3.1", "4.3.2", "4.4", "4.4.1", "4.4.2", "4.4.3", "4.5", "4.5.1",
    "4.5.2", "4.5.3", "4.5.4", "4.5.5", "4.5.6", "4.5.7", "4.5.8", "4.5.9", "4.6", "4.7", "4.7.1",
    "4.7.2", "4.7.3", "4.7.4",
];

/// The enums whose every variant a test names. Those of `base/reason` are held more strictly, each
/// to a test that sees it counted: `tests/it/reasons.rs`.
const REASONS: &[&str] = &["MessageError"];

#[test]
fn a_module_names_only_floors_strictly_below_its_own() {
    let house = House::read();
    let mut faults = Vec::new();
    for file in &house.files {
        let Some(own) = file.room().and_then(floor_of) else {
            continue;
        };
        for path in file.paths(&file.code) {
            let Some(other) = path.steps.first() else {
                continue;
            };
            let theirs = floor_of(other);
            if file.room() != Some(other.as_str()) && theirs.is_some_and(|theirs| theirs >= own) {
                faults.push(path.complaint(file, format!("floor {own} names `{other}`")));
            }
            if theirs.is_none() && !house.crate_level.contains(other) {
                faults.push(path.complaint(file, format!("`{other}` stands on no floor")));
            }
        }
    }
    none(&faults);
}

#[test]
fn inside_a_folder_a_file_uses_only_siblings_declared_above_it() {
    let house = House::read();
    let mut faults = Vec::new();
    for file in house.files.iter().filter(|file| !file.module.is_empty()) {
        for path in file.paths(&file.code_without_tests) {
            let steps = house.resolved(&path.steps);
            let common = file
                .module
                .iter()
                .zip(&steps)
                .take_while(|(own, to)| own == to)
                .count();
            if common == 0 || common == file.module.len() {
                continue;
            }
            let Some(declared) = house.declared.get(&file.module[..common]) else {
                continue;
            };
            let place = |name: &String| declared.iter().position(|sibling| sibling == name);
            let own = place(&file.module[common]);
            let theirs = steps.get(common).and_then(place);
            if theirs.is_some() && theirs >= own {
                let what = format!("`{}` is declared below it", steps[common]);
                faults.push(path.complaint(file, what));
            }
        }
    }
    none(&faults);
}

#[test]
fn one_crate_path_a_line() {
    let house = House::read();
    let mut faults = Vec::new();
    for file in &house.files {
        for (at, line) in file.code.lines().enumerate() {
            let opens = ["use crate::", "use super::"]
                .iter()
                .any(|u| line.contains(u));
            if opens && line.contains("::{") {
                faults.push(Complaint::at(file, at + 1, "one `use` path a line".into()));
            }
        }
    }
    none(&faults);
}

/// No file but those whose names begin so has it on any of these lines.
fn is_only_in(place: &str, what: &str, lines: impl Fn(&Source) -> Vec<usize>) {
    let house = House::read();
    let mut faults = Vec::new();
    for file in &house.files {
        if file.name.starts_with(place) {
            continue;
        }
        for line in lines(file) {
            let says = format!("`{what}` outside {place}");
            faults.push(Complaint::at(file, line, says));
        }
    }
    none(&faults);
}

#[test]
fn the_runtime_is_named_only_under_net() {
    for name in RUNTIME {
        is_only_in("src/net/", name, |file| {
            lines_with_word(&file.code, name).collect()
        });
    }
}

#[test]
fn the_clock_is_asked_in_one_file() {
    let asks = |line: &str| line.contains("Instant::now") || line.contains("SystemTime::now");
    is_only_in("src/net/clock.rs", "the clock", |file| {
        let lines = file.code_without_tests.lines().enumerate();
        lines
            .filter(|(_, line)| asks(line))
            .map(|(at, _)| at + 1)
            .collect()
    });
}

#[test]
fn unsafe_stands_in_one_file() {
    is_only_in("src/net/sys.rs", "unsafe", |file| {
        lines_with_word(&file.code, "unsafe").collect()
    });
}

#[test]
fn every_file_says_what_it_is() {
    let house = House::read();
    let allowed = Allowed::read();
    let mut tests = rust_files(&root().join("tests"));
    tests.retain(|path| !path.starts_with(root().join("tests/fuzz/target")));
    let mut faults = Vec::new();
    for path in house
        .files
        .iter()
        .map(|file| root().join(&file.name))
        .chain(tests)
    {
        let name = shown(&path);
        if !text_of(&path).starts_with("//!") && !allowed.excuses("opens", &name) {
            faults.push(format!("{name}:1: opens without `//!`"));
        }
    }
    none(&faults);
}

/// An error nobody tests is an error nobody has seen. A test names one as `Enum::Variant` or by its
/// label in quotation marks; a vector by either word.
#[test]
fn every_error_of_a_message_is_named_by_a_test() {
    let house = House::read();
    let allowed = Allowed::read();
    let spoken = house.what_tests_say();
    let mut faults = Vec::new();
    for of in REASONS {
        let known = house
            .words()
            .iter()
            .any(|(enumeration, ..)| enumeration == of);
        assert!(
            known,
            "`{of}` is declared nowhere under src, or not as this test reads it"
        );
    }
    for (of, variant, label) in house.words() {
        let named = spoken.rust.contains(&format!("::{variant}"))
            || label
                .as_ref()
                .is_some_and(|label| spoken.rust.contains(&format!("\"{label}\"")))
            || lines_with_word(&spoken.vectors, &variant).next().is_some()
            || label.is_some_and(|label| lines_with_word(&spoken.vectors, &label).next().is_some());
        if !named && !allowed.excuses(&of, &variant) {
            faults.push(format!("{of}::{variant} is named by no test and no vector"));
        }
    }
    none(&faults);
}

#[test]
fn every_setting_has_a_line_in_the_readme() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap_or_default();
    let table = readme
        .lines()
        .any(|line| line.to_lowercase().starts_with("| key"));
    if !table {
        println!("skipped: README.md has no settings table yet");
        return;
    }
    let quoted: Vec<&str> = readme.split('`').skip(1).step_by(2).collect();
    let mut faults = Vec::new();
    for line in text_of(&root().join("tests/tidy/settings.txt")).lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let Some((table, keys)) = line.split_once(':') else {
            continue;
        };
        for key in keys.split_whitespace() {
            let mentioned = quoted.iter().any(|text| {
                text.split([' ', '=', ','])
                    .next()
                    .is_some_and(|t| t.rsplit('.').next() == Some(key))
            });
            if !mentioned {
                faults.push(format!(
                    "README.md: the setting `{key}` of [{table}] is not told"
                ));
            }
        }
    }
    none(&faults);
}

/// `tests/chapter.md` has every section, each with what is true and a test; what it names exists.
#[test]
fn every_section_of_the_chapter_names_tests_that_exist() {
    let house = House::read();
    let text = text_of(&root().join("tests/chapter.md"));
    let mut sections: Vec<Section<'_>> = Vec::new();
    let mut faults = Vec::new();
    for (at, line) in text.lines().enumerate() {
        if let Some(title) = line.strip_prefix("## ") {
            let number = title.split(' ').next().unwrap_or_default();
            sections.push(Section {
                number,
                ..Section::default()
            });
        } else if let Some(section) = sections.last_mut() {
            match line
                .strip_prefix('`')
                .and_then(|name| name.strip_suffix('`'))
            {
                Some(name) if house.has_test(name) => section.tests += 1,
                Some(name) => faults.push(format!("tests/chapter.md:{}: no test `{name}`", at + 1)),
                None => section.said |= !line.is_empty(),
            }
        }
    }
    let numbers: Vec<&str> = sections.iter().map(|section| section.number).collect();
    assert_eq!(numbers, CHAPTER, "the sections of tests/chapter.md");
    for Section { number, .. } in sections.iter().filter(|s| s.tests == 0 || !s.said) {
        faults.push(format!(
            "tests/chapter.md: {number} says nothing, or has no test"
        ));
    }
    none(&faults);
}

/// A section of `tests/chapter.md`.
#[derive(Default)]
struct Section<'a> {
    number: &'a str,
    said: bool,
    tests: usize,
}

/// All sources under `src`, and what their `mod.rs` files declare.
struct House {
    files: Vec<Source>,
    /// Module path of a folder → its children in the order of declaration.
    declared: BTreeMap<Vec<String>, Vec<String>>,
    /// Module path of a folder → noun it passes on → the child that has it.
    passed_on: BTreeMap<Vec<String>, BTreeMap<String, String>>,
    /// What `lib.rs` offers beside the floors.
    crate_level: Vec<String>,
}

struct Source {
    /// As shown, from the root of the repository.
    name: String,
    /// `["pool", "ledger"]`; empty for `lib.rs` and `main.rs`.
    module: Vec<String>,
    text: String,
    /// The text with comments and literals blanked; line numbers are kept.
    code: String,
    code_without_tests: String,
    /// Whether all of it stands under a `#[cfg(test)]` of the file that declares it.
    is_test: bool,
}

/// A `crate::` or `super::` path in a file, as steps from the root of the crate.
struct Reference {
    line: usize,
    steps: Vec<String>,
}

struct Complaint {
    file: String,
    line: usize,
    what: String,
}

struct Spoken {
    rust: String,
    vectors: String,
}

/// `tests/tidy/allowed.txt`: `kind name: reason`, one a line.
struct Allowed(Vec<(String, String)>);

impl House {
    fn read() -> Self {
        let mut files: Vec<Source> = rust_files(&root().join("src"))
            .iter()
            .map(|path| Source::read(path))
            .collect();
        let mut declared = BTreeMap::new();
        let mut passed_on = BTreeMap::new();
        let mut crate_level = Vec::new();
        let test_files: Vec<Vec<String>> = files.iter().flat_map(Source::test_files).collect();
        for file in &mut files {
            if test_files
                .iter()
                .any(|tests| file.module.starts_with(tests))
            {
                file.code_without_tests.clear();
                file.is_test = true;
            }
        }
        for file in &files {
            if file.name == "src/lib.rs" {
                crate_level = modules_in(&file.code);
            } else if !file.module.is_empty() {
                declared.insert(file.module.clone(), modules_in(&file.code));
                passed_on.insert(file.module.clone(), nouns_in(&file.code));
            }
        }
        Self {
            files,
            declared,
            passed_on,
            crate_level,
        }
    }

    /// The path with a noun that a `mod.rs` passes on replaced by the child it comes from.
    fn resolved(&self, steps: &[String]) -> Vec<String> {
        for at in 1..steps.len() {
            let noun = self
                .passed_on
                .get(&steps[..at])
                .and_then(|nouns| nouns.get(&steps[at]));
            if let Some(child) = noun {
                return steps[..at].iter().chain([child]).cloned().collect();
            }
        }
        steps.to_vec()
    }

    /// Every reason and error: its enum, its variant and, where it has one, its label.
    fn words(&self) -> Vec<(String, String, Option<String>)> {
        let mut words = Vec::new();
        for file in &self.files {
            for of in REASONS {
                let table = file.text.lines().skip_while(|line| {
                    let line = line.trim();
                    line != format!("{of} {{") && line != format!("pub enum {of} {{")
                });
                let first = |line: &&str| line.trim().starts_with(|c: char| c.is_ascii_uppercase());
                let indent = |line: &str| line.len() - line.trim_start().len();
                let mut table = table.peekable();
                let Some(depth) = table.next().map(indent) else {
                    continue;
                };
                for line in table.take_while(|line| line.trim() != "}" || indent(line) > depth) {
                    // Fields of a variant are lower-case or deeper; only variants are read.
                    if !first(&line) || indent(line) != depth + 4 {
                        continue;
                    }
                    let variant = word_at(line.trim());
                    let label = line
                        .split('"')
                        .nth(1)
                        .filter(|_| line.contains(&format!("{variant},")));
                    words.push((
                        (*of).to_owned(),
                        variant.to_owned(),
                        label.map(str::to_owned),
                    ));
                }
            }
        }
        words
    }

    /// Whether there is a test of this name: `it::file::name` under `tests/it`, `lib module::name`
    /// beside the code, in the module's own file.
    fn has_test(&self, name: &str) -> bool {
        let Some((path, test)) = name.rsplit_once("::") else {
            return false;
        };
        if let Some(file) = path.strip_prefix("it::") {
            let path = root().join(format!("tests/it/{file}.rs"));
            return path.is_file() && tests_in(&text_of(&path)).contains(&test);
        }
        let Some(module) = path.strip_prefix("lib ") else {
            return false;
        };
        let mut files = self.files.iter();
        files.any(|file| file.module.join("::") == module && tests_in(&file.text).contains(&test))
    }

    /// Everything tests say: the test modules under `src`, the files under `tests`, the vectors.
    fn what_tests_say(&self) -> Spoken {
        let mut rust: String = self.files.iter().map(Source::tests).collect();
        for path in rust_files(&root().join("tests")) {
            if !path.ends_with("tidy.rs") {
                rust.push_str(&text_of(&path));
            }
        }
        let mut vectors = String::new();
        for path in files_below(&root().join("tests")) {
            let folder = path.components().any(|c| c.as_os_str() == "vectors");
            if folder && path.extension().is_some_and(|e| e == "txt") {
                vectors.push_str(&String::from_utf8_lossy(
                    &fs::read(&path).unwrap_or_default(),
                ));
            }
        }
        Spoken { rust, vectors }
    }
}

impl Source {
    fn read(path: &Path) -> Self {
        let text = text_of(path);
        let code = blanked(&text);
        let code_without_tests = without_tests(&code);
        let from_src = path
            .strip_prefix(root().join("src"))
            .unwrap()
            .with_extension("");
        let mut module: Vec<String> = from_src
            .iter()
            .map(|step| step.to_string_lossy().into_owned())
            .collect();
        if module.last().is_some_and(|last| last == "mod") {
            module.pop();
        }
        if module == ["lib"] || module == ["main"] {
            module.clear();
        }
        Self {
            name: shown(path),
            module,
            text,
            code,
            code_without_tests,
            is_test: false,
        }
    }

    /// The modules that this file declares for tests only: files of their own.
    fn test_files(&self) -> Vec<Vec<String>> {
        let tests = blanked(&tests_of(&self.text));
        let names = tests.lines().filter_map(module_in);
        names
            .map(|name| self.module.iter().cloned().chain([name]).collect())
            .collect()
    }

    /// What of it only tests see.
    fn tests(&self) -> String {
        if self.is_test {
            self.text.clone()
        } else {
            tests_of(&self.text)
        }
    }

    /// The folder under `src` it lives in.
    fn room(&self) -> Option<&str> {
        self.module.first().map(String::as_str)
    }

    /// The paths in `code` that begin with `crate::`, or with `super::` outside of test modules.
    fn paths(&self, code: &str) -> Vec<Reference> {
        let mut found = Vec::new();
        for (at, line) in code.lines().enumerate() {
            for (start, _) in line.match_indices("crate::") {
                let steps = steps_of(&line[start + "crate::".len()..]);
                found.push(Reference {
                    line: at + 1,
                    steps,
                });
            }
        }
        for (at, line) in without_tests(code).lines().enumerate() {
            let mut rest = line;
            while let Some(start) = rest.find("super::") {
                rest = &rest[start..];
                let mut steps = self.module.clone();
                while let Some(after) = rest.strip_prefix("super::") {
                    steps.pop();
                    rest = after;
                }
                steps.extend(steps_of(rest));
                found.push(Reference {
                    line: at + 1,
                    steps,
                });
            }
        }
        found
    }
}

impl Reference {
    fn complaint(&self, file: &Source, what: String) -> Complaint {
        Complaint::at(file, self.line, what)
    }
}

impl Complaint {
    fn at(file: &Source, line: usize, what: String) -> Self {
        Self {
            file: file.name.clone(),
            line,
            what,
        }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

impl Allowed {
    fn read() -> Self {
        let text = fs::read_to_string(root().join("tests/tidy/allowed.txt")).unwrap_or_default();
        let mut list = Vec::new();
        for line in text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
        {
            let (what, reason) = line.split_once(": ").expect("`kind name: reason`");
            let (kind, name) = what.split_once(' ').expect("`kind name: reason`");
            assert!(
                !reason.trim().is_empty(),
                "an allowance without a reason: {line}"
            );
            list.push((kind.to_owned(), name.to_owned()));
        }
        Self(list)
    }

    fn excuses(&self, kind: &str, name: &str) -> bool {
        self.0
            .iter()
            .any(|(k, n)| k == kind && (n == name || n == "*"))
    }
}

fn none(faults: &[impl fmt::Display]) {
    let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
    assert!(
        lines.is_empty(),
        "{} complaints:\n{}",
        lines.len(),
        lines.join("\n")
    );
}

fn floor_of(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap_or(path)
        .to_string_lossy()
        .into_owned()
}

fn text_of(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = files_below(folder);
    files.retain(|path| path.extension().is_some_and(|e| e == "rs"));
    files
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && entry.file_name() != "target" => {
                files.extend(files_below(&path));
            }
            Ok(kind) if kind.is_file() => files.push(path),
            _ => {}
        }
    }
    files.sort();
    files
}

/// `a::b::C` at the start of `text` as its steps.
fn steps_of(text: &str) -> Vec<String> {
    let path = text
        .split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'))
        .next();
    let steps = path
        .unwrap_or_default()
        .split("::")
        .filter(|step| !step.is_empty());
    steps.map(str::to_owned).collect()
}

fn word_at(text: &str) -> &str {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .next()
        .unwrap_or_default()
}

fn lines_with_word<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let has = move |line: &str| {
        line.split(|c: char| !(c.is_alphanumeric() || c == '_'))
            .any(|token| token == word)
    };
    code.lines()
        .enumerate()
        .filter(move |(_, line)| has(line))
        .map(|(at, _)| at + 1)
}

/// The modules a file declares, in order; test modules left out.
fn modules_in(code: &str) -> Vec<String> {
    without_tests(code).lines().filter_map(module_in).collect()
}

/// `pub mod pool;` declares `pool`.
fn module_in(line: &str) -> Option<String> {
    let line = line.trim();
    let line = line
        .strip_prefix("pub(crate) ")
        .or(line.strip_prefix("pub "))
        .unwrap_or(line);
    line.strip_prefix("mod ")
        .and_then(|line| line.strip_suffix(';'))
        .map(str::to_owned)
}

/// `pub use names::ConnId;` passes `ConnId` on from `names`.
fn nouns_in(code: &str) -> BTreeMap<String, String> {
    let mut nouns = BTreeMap::new();
    for line in code
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pub use "))
    {
        let steps = steps_of(line.strip_prefix("self::").unwrap_or(line));
        if let [child, .., noun] = steps.as_slice() {
            nouns.insert(noun.clone(), child.clone());
        }
    }
    nouns
}

/// The code without what stands under `#[cfg(test)]`, blanked so that lines keep their numbers.
fn without_tests(code: &str) -> String {
    split_tests(code).0
}

/// Only what stands under `#[cfg(test)]`, from the unblanked text.
fn tests_of(text: &str) -> String {
    split_tests(text).1
}

/// Splits at `#[cfg(test)]` items: from the attribute to the closing brace at its own indent, or to
/// the `;` of a single line. `rustfmt` makes this exact.
fn split_tests(text: &str) -> (String, String) {
    let (mut rest, mut tests) = (String::new(), String::new());
    let mut within: Option<usize> = None;
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        if within.is_none() && line.trim_start().starts_with("#[cfg(test)]") {
            within = Some(indent);
        }
        let (to, other) = if within.is_some() {
            (&mut tests, &mut rest)
        } else {
            (&mut rest, &mut tests)
        };
        to.push_str(line);
        to.push('\n');
        other.push('\n');
        let ends = line.trim() == "}" || (line.ends_with(';') && !line.trim().starts_with("#["));
        if within == Some(indent) && ends {
            within = None;
        }
    }
    (rest, tests)
}

/// Blanks comments, strings and characters; newlines stay.
fn blanked(text: &str) -> String {
    let octets = text.as_bytes();
    let mut out = octets.to_vec();
    let mut at = 0;
    while at < octets.len() {
        let rest = &text[at..];
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(hashes) = raw_string(text, at) {
            let close = format!("\"{}", "#".repeat(hashes));
            let body = 2 + hashes;
            rest[body..]
                .find(&close)
                .map_or(rest.len(), |end| body + end + close.len())
        } else if rest.starts_with('"') {
            quoted(rest, b'"')
        } else if rest.starts_with('\'') && is_character(rest) {
            quoted(rest, b'\'')
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
            continue;
        };
        for octet in &mut out[at..at + length] {
            if *octet != b'\n' {
                *octet = b' ';
            }
        }
        at += length;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The functions that stand under a `#[test]`, with other attributes between or not.
fn tests_in(text: &str) -> Vec<&str> {
    let mut tests = Vec::new();
    let mut under = false;
    for line in text.lines().map(str::trim) {
        if line == "#[test]" {
            under = true;
        } else if let Some(rest) = line.strip_prefix("fn ")
            && std::mem::take(&mut under)
        {
            tests.push(word_at(rest));
        }
    }
    tests
}

/// How many `#` a raw string opens with, if one begins here.
fn raw_string(text: &str, at: usize) -> Option<usize> {
    let before = text[..at].chars().next_back();
    let rest = text[at..].strip_prefix('r')?;
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    let word = before.is_some_and(|c| (c.is_alphanumeric() && c != 'b') || c == '_');
    (rest[hashes..].starts_with('"') && !word).then_some(hashes)
}

/// Length of a quoted literal, quotation marks included.
fn quoted(text: &str, mark: u8) -> usize {
    let mut octets = text.bytes().enumerate().skip(1);
    while let Some((at, octet)) = octets.next() {
        if octet == b'\\' {
            octets.next();
        } else if octet == mark {
            return at + 1;
        }
    }
    text.len()
}

/// A character literal, not a lifetime.
fn is_character(text: &str) -> bool {
    let mut chars = text.chars().skip(1);
    match chars.next() {
        Some('\\') => true,
        Some(_) => chars.next() == Some('\''),
        None => false,
    }
}

#[test]
fn the_reader_of_this_file_is_not_fooled_by_literals() {
    let code =
        blanked("let a = \"crate::pool\"; // crate::pool\nlet b = 'x'; fn f<'a>() {} r#\"net\"#");
    assert!(!code.contains("pool") && !code.contains("net") && code.contains("fn f<'a>() {}"));
    let (rest, tests) = split_tests("a\n#[cfg(test)]\nmod tests {\n    b\n}\nc\n");
    assert_eq!(
        (rest.as_str(), tests.contains('b')),
        ("a\n\n\n\n\nc\n", true)
    );
}
