//! Where settings are said, and the one tree that the layers make together.
//!
//! Later wins: defaults < the file < `conf.d/*.toml` beside it in name order < environment < command
//! line. Lists are replaced, not joined.
//!
//! The environment is an argument, so that tests need not change the process's own.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use super::complaint::Complaint;
use super::complaint::Complaints;
use super::complaint::Place;
use super::layer::Layer;
use super::layer::join;
use super::raw::Node;
use super::raw::Raw;
use super::raw::Table;
use super::raw::may_be_secret;
use super::raw::shown;
use super::text;

/// Names and texts of environment variables.
pub type Variables = Vec<(String, String)>;

/// Everything that may say a setting.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sources {
    /// The file, if there is one; `conf.d` is looked for beside it.
    pub file: Option<PathBuf>,
    /// The environment; what does not begin with `HOLDFAST_` is not looked at.
    pub variables: Variables,
    /// What the command line says.
    pub flags: Vec<Flag>,
}

/// A value said on the command line.
#[derive(Clone, Debug, PartialEq)]
pub struct Flag {
    /// The flag, with its dashes.
    pub flag: &'static str,
    /// The key that it sets, with dots.
    pub key: &'static str,
    /// What it was given.
    pub given: Given,
}

/// What a flag was given.
#[derive(Clone, Debug, PartialEq)]
pub enum Given {
    /// One value.
    Once(String),
    /// A value each time it was repeated: a list.
    Each(Vec<String>),
}

/// What the layers say together.
#[derive(Clone, Debug, PartialEq)]
pub struct Layered {
    /// The tree of what was said.
    pub said: Table,
    /// The tree of what holds otherwise.
    pub defaults: Table,
    /// The files that were read, in their order; a reload reads them again.
    pub files: Vec<PathBuf>,
}

/// Reads every source.
///
/// # Errors
/// Files that cannot be read, text that is no TOML, variables that contradict each other. While
/// there are such, nothing can be said about the values, so they are all that is complained about.
pub fn read(sources: &Sources) -> Result<Layered, Complaints> {
    let mut complaints = Complaints::default();
    let defaults = text::read(DEFAULTS, Path::new("defaults.toml"), &mut complaints);
    let mut layers = Vec::new();
    let files = files(sources.file.as_deref(), &mut complaints);
    for (number, path) in files.iter().enumerate() {
        match fs::read_to_string(path) {
            Ok(text) => {
                let table = text::read(&text, path, &mut complaints);
                layers.push(Layer::new(format!("file {number}"), table));
            }
            Err(error) => complaints.add(Complaint {
                key: text::name(path),
                says: format!(
                    "`{}` cannot be read: {error}",
                    shown(&path.to_string_lossy())
                ),
                place: Place::Whole,
            }),
        }
    }
    layers.push(environment(&sources.variables, &mut complaints));
    layers.push(command_line(&sources.flags, &mut complaints));
    if complaints.is_empty() {
        Ok(Layered {
            said: join(&layers),
            defaults: by_default(defaults),
            files,
        })
    } else {
        Err(complaints)
    }
}

/// The prefix of our environment variables.
pub const VARIABLE_PREFIX: &str = "HOLDFAST_";

/// The variable that names the file.
pub const FILE_VARIABLE: &str = "HOLDFAST_CONFIG";

/// Variables with our prefix that are no settings: the file's name; the program's path, which
/// benchmarks and scripts set; and what a process tells its successor.
const OTHER_VARIABLES: [&str; 3] = [FILE_VARIABLE, "HOLDFAST_BIN", "HOLDFAST_HANDOVER"];

/// The lowest layer.
const DEFAULTS: &str = include_str!("defaults.toml");

fn by_default(table: Table) -> Table {
    let plain = |(name, node): (String, Node)| {
        let value = match node.value {
            Raw::Table(table) => Raw::Table(by_default(table)),
            Raw::List(nodes) => Raw::List(
                nodes
                    .into_iter()
                    .map(|node| Node {
                        place: Place::Default,
                        ..node
                    })
                    .collect(),
            ),
            other => other,
        };
        (
            name,
            Node {
                key: node.key,
                place: Place::Default,
                value,
            },
        )
    };
    table.into_iter().map(plain).collect()
}

/// The file and what `conf.d` adds to it. Names that begin with a dot are left to editors.
pub(super) fn files(file: Option<&Path>, complaints: &mut Complaints) -> Vec<PathBuf> {
    let Some(file) = file else { return Vec::new() };
    let folder = file.with_file_name("conf.d");
    let mut added = Vec::new();
    if folder.is_dir() {
        match fs::read_dir(&folder).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
            Ok(entries) => added.extend(entries.into_iter().map(|entry| entry.path())),
            Err(error) => complaints.add(Complaint {
                key: "conf.d".to_owned(),
                says: format!("`{}` cannot be read: {error}", folder.display()),
                place: Place::Whole,
            }),
        }
    }
    added.retain(|path| {
        let hidden = text::name(path).starts_with('.');
        !hidden
            && path
                .extension()
                .is_some_and(|extension| extension == "toml")
    });
    added.sort();
    std::iter::once(file.to_owned()).chain(added).collect()
}

fn environment(variables: &[(String, String)], complaints: &mut Complaints) -> Layer {
    let mut table = Table::new();
    let mut ours: Vec<_> = variables
        .iter()
        .filter(|(name, _)| !OTHER_VARIABLES.contains(&name.as_str()))
        .filter_map(|(name, text)| Some((name, name.strip_prefix(VARIABLE_PREFIX)?, text)))
        .collect();
    ours.sort();
    for (name, path, text) in ours {
        let place = Place::Variable(name.clone());
        let path: Vec<_> = path.split("__").map(str::to_ascii_lowercase).collect();
        let key = path.join(".");
        let said = text::read_value(text, &key, &place)
            .map_err(|error| {
                let text = if may_be_secret(&key) {
                    "…".to_owned()
                } else {
                    shown(text)
                };
                format!("`{text}` is no TOML value: {error}")
            })
            .and_then(|node| put(&mut table, &path, node));
        if let Err(says) = said {
            complaints.add(Complaint { key, says, place });
        }
    }
    Layer::new("environment".to_owned(), table)
}

fn command_line(flags: &[Flag], complaints: &mut Complaints) -> Layer {
    let mut table = Table::new();
    for Flag { flag, key, given } in flags {
        let place = Place::Flag((*flag).to_owned());
        let item = |(index, text): (usize, &String)| Node {
            key: format!("{key}[{index}]"),
            place: place.clone(),
            value: Raw::Text(text.clone()),
        };
        let value = match given {
            Given::Once(text) => Raw::Text(text.clone()),
            Given::Each(texts) => Raw::List(texts.iter().enumerate().map(item).collect()),
        };
        let node = Node {
            key: (*key).to_owned(),
            place: place.clone(),
            value,
        };
        let path: Vec<_> = key.split('.').map(str::to_owned).collect();
        if let Err(says) = put(&mut table, &path, node) {
            complaints.add(Complaint {
                key: (*key).to_owned(),
                says,
                place,
            });
        }
    }
    Layer::new("command line".to_owned(), table)
}

/// Puts a value at a path, making the tables on the way.
fn put(table: &mut Table, path: &[String], node: Node) -> Result<(), String> {
    let mut table = table;
    let Some((last, parents)) = path.split_last() else {
        return Ok(());
    };
    for (depth, name) in parents.iter().enumerate() {
        let parent = table.entry(name.clone()).or_insert_with(|| Node {
            key: path.get(..=depth).unwrap_or_default().join("."),
            place: node.place.clone(),
            value: Raw::Table(Table::new()),
        });
        let (key, place) = (parent.key.clone(), parent.place.clone());
        let Raw::Table(inside) = &mut parent.value else {
            return Err(format!(
                "`{key}` is given a value of its own by {place}; say one of them"
            ));
        };
        table = inside;
    }
    match table.get(last) {
        Some(before) => Err(format!(
            "is said twice, also by {}; say one of them",
            before.place
        )),
        None => {
            table.insert(last.clone(), node);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> Sources {
        let variables = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        Sources {
            variables,
            ..Sources::default()
        }
    }

    fn at<'t>(table: &'t Table, path: &str) -> &'t Node {
        let (first, rest) = path
            .split_once('.')
            .map_or((path, None), |(a, b)| (a, Some(b)));
        match rest {
            Some(rest) => at(table[first].table().unwrap(), rest),
            None => &table[first],
        }
    }

    #[test]
    fn our_own_defaults_are_toml() {
        let layered = read(&Sources::default()).unwrap();
        assert_eq!(
            at(&layered.defaults, "server.workers").place,
            Place::Default
        );
        assert!(layered.said.is_empty());
    }

    #[test]
    fn a_variable_says_the_key_that_its_name_spells() {
        let sources = variables(&[
            ("HOLDFAST_UPSTREAMS__APP__POOL__MAX_IDLE", "7"),
            ("PATH", "x"),
        ]);
        let said = read(&sources).unwrap().said;
        let node = at(&said, "upstreams.app.pool.max_idle");
        assert_eq!(node.value, Raw::Whole(7));
        let name = "HOLDFAST_UPSTREAMS__APP__POOL__MAX_IDLE".to_owned();
        assert_eq!(node.place, Place::Variable(name));
        assert_eq!(said.len(), 1);
    }

    #[test]
    fn the_variables_for_the_file_and_the_program_are_no_settings() {
        let sources = variables(&[("HOLDFAST_CONFIG", "x"), ("HOLDFAST_BIN", "y")]);
        assert!(read(&sources).unwrap().said.is_empty());
    }

    #[test]
    fn two_variables_that_contradict_each_other_are_refused() {
        let sources = variables(&[("HOLDFAST_LOG", "x"), ("HOLDFAST_LOG__LEVEL", "info")]);
        let complaints = read(&sources).unwrap_err();
        assert!(
            complaints.to_string().contains("HOLDFAST_LOG;"),
            "{complaints}"
        );
    }

    #[test]
    fn a_flag_is_over_a_variable() {
        let mut sources = variables(&[("HOLDFAST_LISTENERS__MAIN__BIND", "1.1.1.1:1")]);
        let values = vec!["2.2.2.2:2".to_owned()];
        sources.flags = vec![Flag {
            flag: "--listen",
            key: "listeners.main.bind",
            given: Given::Each(values),
        }];
        let said = read(&sources).unwrap().said;
        let node = at(&said, "listeners.main.bind");
        assert_eq!(node.place, Place::Flag("--listen".to_owned()));
        assert_eq!(node.value.as_toml(), "[\"2.2.2.2:2\"]");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let file = Some(PathBuf::from("/nowhere/at/all.toml"));
        let complaints = read(&Sources {
            file,
            ..Sources::default()
        })
        .unwrap_err();
        assert!(
            complaints.to_string().contains("/nowhere/at/all.toml"),
            "{complaints}"
        );
    }
}
