//! Lists of the examples to train on, one name a line: the original's of 1 % and 10 % of ImageNet, or a user's own.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::Error;
use super::store::{self, read};

/// A list of examples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// Where it was read.
    pub file: PathBuf,
    /// The names, each once.
    pub names: HashSet<String>,
    /// The first of them.
    pub first: String,
    /// SHA-256 of the file, in hex.
    pub sha256: String,
}

/// A data set that is a list of another one's examples (reference §9.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Official {
    /// The data set's name.
    pub dataset: &'static str,
    /// The set that it is a part of.
    pub of: &'static str,
    /// The list's file.
    pub file: &'static str,
    /// Its lines.
    pub lines: usize,
    /// Its SHA-256, in hex.
    pub sha256: &'static str,
}

/// The original's lists.
pub const OFFICIAL: [Official; 2] = [
    Official {
        dataset: "imagenet2012_subset/1pct",
        of: "imagenet2012",
        file: "1percent.txt",
        lines: 12_811,
        sha256: "71e82a48ba78252683ae334c4d019ebd5c6e855b9599c1389fbe83eb9549cf17",
    },
    Official {
        dataset: "imagenet2012_subset/10pct",
        of: "imagenet2012",
        file: "10percent.txt",
        lines: 128_116,
        sha256: "6d09de11e7bdaf5b1f3b1f249b6183695f97310cdd20f0c03e7235b6b9392091",
    },
];

/// Folder of the lists, in `data_dir` or where the program is started.
const FOLDER: &str = "imagenet_subsets";

impl Official {
    /// The list that a data set is made by, if it is one.
    pub fn of(dataset: &str) -> Option<&'static Official> {
        OFFICIAL.iter().find(|official| official.dataset == dataset)
    }

    /// Reads the list where `named` says, else in `data_dir/imagenet_subsets` or `imagenet_subsets`.
    ///
    /// # Errors
    /// If there is none, or it is not the original's.
    pub fn read(&self, named: Option<&Path>, data_dir: &Path) -> Result<List, Error> {
        let places = [data_dir.join(FOLDER), PathBuf::from(FOLDER)].map(|dir| dir.join(self.file));
        let mut found = named.map(Path::to_path_buf);
        for place in &places {
            if found.is_none() && store::is_file(place)? {
                found = Some(place.clone());
            }
        }
        let Some(file) = found else {
            let [first, second] = places.map(|place| place.display().to_string());
            return Err(Error::NoList {
                dataset: self.dataset.into(),
                looked: format!("{first} nor {second}"),
            });
        };
        let bytes = read(&file)?;
        let sha256 = hex(&bytes);
        if sha256 != self.sha256 {
            return Err(Error::OtherList {
                file,
                dataset: self.dataset,
                of: self.of,
                found: sha256,
                expected: self.sha256,
            });
        }
        List::parse(file, &bytes, sha256)
    }
}

impl List {
    /// Reads a list.
    ///
    /// # Errors
    /// If it cannot be read, names nothing, or names something twice.
    pub fn read(file: &Path) -> Result<Self, Error> {
        let bytes = read(file)?;
        let sha256 = hex(&bytes);
        List::parse(file.into(), &bytes, sha256)
    }

    fn parse(file: PathBuf, bytes: &[u8], sha256: String) -> Result<Self, Error> {
        let bad = |line: usize, reason: String| Error::BadList {
            file: file.clone(),
            line: line + 1,
            reason,
        };
        let mut names = HashSet::new();
        let mut first = None;
        for (number, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
            let line = str::from_utf8(line).map_err(|_| bad(number, "is not UTF-8".into()))?;
            let name = line.trim();
            if name.is_empty() {
                continue;
            }
            first.get_or_insert_with(|| name.to_string());
            if !names.insert(name.to_string()) {
                return Err(bad(number, format!("names `{name}` a second time")));
            }
        }
        let Some(first) = first else {
            return Err(bad(0, "is the end, nothing is named".into()));
        };
        Ok(List {
            file,
            names,
            first,
            sha256,
        })
    }
}

impl List {
    /// The content that is the listed part of another one.
    pub(super) fn fingerprint(&self, whole: &str) -> String {
        hex(format!("{whole} {}", self.sha256).as_bytes())
    }

    /// Why there is nothing to train on; an example of the split is called `example`.
    pub(super) fn none_of(&self, split: &str, example: Option<&str>) -> Error {
        Error::NoneListed {
            list: self.file.clone(),
            first: self.first.clone(),
            split: split.into(),
            example: example.unwrap_or("nothing").into(),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Images that a list names and a split does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// How many.
    pub count: usize,
    /// How many the list names.
    pub of: usize,
    /// One of them, the first by name.
    pub first: String,
}

impl Missing {
    /// What of `list` is not among `found`, the names of all examples of a set.
    ///
    /// # Errors
    /// If a listed name is that of several examples: nobody can say which one is meant.
    pub(super) fn of<'a>(
        list: &List,
        found: impl IntoIterator<Item = &'a str>,
    ) -> Result<Option<Self>, Error> {
        let listed = found.into_iter().filter(|name| list.names.contains(*name));
        let found = counted(listed);
        if let Some((name, count)) = repeated(&found) {
            return Err(Error::NotOneExample {
                list: list.file.clone(),
                name,
                count,
            });
        }
        let missing = |name: &&String| !found.contains_key(name.as_str());
        let first = list.names.iter().filter(missing).min();
        Ok(first.map(|first| Missing {
            count: list.names.iter().filter(missing).count(),
            of: list.names.len(),
            first: first.clone(),
        }))
    }
}

/// How often each name comes.
fn counted<'a>(names: impl IntoIterator<Item = &'a str>) -> HashMap<&'a str, usize> {
    let mut counts = HashMap::new();
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
    counts
}

/// The first by name of those that come more than once.
fn repeated(counts: &HashMap<&str, usize>) -> Option<(String, usize)> {
    let several = counts.iter().filter(|(_, count)| **count > 1);
    let (name, count) = several.min_by_key(|(name, _)| **name)?;
    Some((name.to_string(), *count))
}

/// Checks that names tell the examples of a set apart, so that a list can be made of them.
///
/// # Errors
/// The first name of several examples.
pub fn told_apart<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<(), Error> {
    match repeated(&counted(names)) {
        None => Ok(()),
        Some((name, count)) => Err(Error::SameName { name, count }),
    }
}
