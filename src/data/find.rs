//! What splits lie below a folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Error;
use super::store::{Entry, entries, is_dir, summary};

/// A split that was found; its three parts are what [`Examples::open`](super::Examples::open) takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The data set.
    pub dataset: String,
    /// The split.
    pub split: String,
    /// The folder of its files.
    pub dir: PathBuf,
}

/// The splits in `dir` and two folders below: TFRecords of TFDS and of ImageNet's classic layout, otherwise class folders.
///
/// # Errors
/// If there are none, or a folder cannot be read.
pub fn find(dir: &Path) -> Result<Vec<Found>, Error> {
    if !is_dir(dir)? {
        return Err(Error::DataDirMissing {
            dataset: "any".into(),
            dir: dir.into(),
        });
    }
    let mut found = BTreeMap::new();
    let mut level = vec![dir.to_path_buf()];
    for depth in 0..3 {
        let mut below = Vec::new();
        for folder in level {
            for entry in entries(&folder)? {
                if entry.is_dir() && depth < 2 {
                    below.push(folder.join(entry.name));
                } else if let Some((dataset, split)) = shard(&entry.name) {
                    found.insert((folder.clone(), dataset, split), ());
                }
            }
        }
        level = below;
    }
    let found: Vec<Found> = found
        .into_keys()
        .map(|(dir, dataset, split)| Found {
            dataset,
            split,
            dir,
        })
        .collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let folders: Vec<String> = entries(dir)?
        .into_iter()
        .filter(Entry::is_dir)
        .map(|entry| entry.name)
        .collect();
    let of = |split: &str| Found {
        dataset: "folder".into(),
        split: split.into(),
        dir: dir.into(),
    };
    let splits: Vec<Found> = ["train", "validation", "val", "test"]
        .into_iter()
        .filter(|name| folders.iter().any(|folder| folder == name))
        .map(of)
        .collect();
    match (splits.is_empty(), folders.is_empty()) {
        (false, _) => Ok(splits),
        (true, false) => Ok(vec![of("train")]),
        (true, true) => Err(Error::NotFound {
            dataset: "any".into(),
            split: "any".into(),
            dir: dir.into(),
            found: summary(dir)?,
            expected: "NAME/VERSION/NAME-SPLIT.tfrecord-*, SPLIT-00000-of-*, or class folders"
                .into(),
        }),
    }
}

/// Data set and split of a shard's name.
pub(super) fn shard(name: &str) -> Option<(String, String)> {
    let (stem, place) = name.rsplit_once("-of-").and_then(|(front, total)| {
        let (stem, number) = front.rsplit_once('-')?;
        Some((stem, [number, total]))
    })?;
    if place
        .iter()
        .any(|digits| digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()))
    {
        return None;
    }
    match stem.strip_suffix(".tfrecord") {
        Some(stem) => {
            let (dataset, split) = stem.rsplit_once('-')?;
            Some((dataset.into(), split.into()))
        }
        None if !stem.is_empty() && stem.bytes().all(|b| b.is_ascii_lowercase()) => {
            Some(("imagenet2012".into(), stem.into()))
        }
        None => None,
    }
}
