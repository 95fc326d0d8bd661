//! What splits lie below a folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::folder::is_picture;
use super::store::{entries, is_dir, summary};
use super::{Error, cifar};

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

/// The splits in `dir` and two folders below: TFRecords of TFDS and of ImageNet's classic layout, then CIFAR's binary archives; class
/// folders where there are none.
///
/// # Errors
/// If there are none, or a folder cannot be read.
pub fn find(dir: &Path) -> Result<Vec<Found>, Error> {
    if !is_dir(dir)? {
        return Err(Error::NoFolder {
            dir: dir.into(),
            remedy: "name the folder that holds the data",
        });
    }
    let (mut found, mut archives) = (BTreeMap::new(), Vec::new());
    let mut level = vec![dir.to_path_buf()];
    for depth in 0..3 {
        let mut below = Vec::new();
        for folder in level {
            let inside = entries(&folder)?;
            archives.extend(cifar::archives(&folder, &inside, depth == 0));
            for entry in inside {
                if entry.is_dir() && depth < 2 {
                    below.push(folder.join(entry.name));
                } else if let Some((dataset, split)) = shard(&entry.name) {
                    found.insert((folder.clone(), dataset, split), ());
                }
            }
        }
        level = below;
    }
    let records = found.into_keys().map(|(dir, dataset, split)| Found {
        dataset,
        split,
        dir,
    });
    let found: Vec<Found> = records.chain(archives).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let folders: Vec<String> = entries(dir)?
        .into_iter()
        .filter(|entry| entry.is_dir() && !entry.is_hidden())
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
    if !splits.is_empty() {
        return Ok(splits);
    }
    for folder in &folders {
        if entries(&dir.join(folder))?.iter().any(is_picture) {
            return Ok(vec![of("train")]);
        }
    }
    Err(Error::NoSet {
        dir: dir.into(),
        found: summary(dir)?,
        expected: "NAME/VERSION/NAME-SPLIT.tfrecord-*, SPLIT-00000-of-*, cifar-10-batches-bin/*.bin, or class folders of pictures",
    })
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
