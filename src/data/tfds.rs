//! A data set as TensorFlow Datasets lays it out on disk:
//! `DIR/NAME/VERSION/NAME-SPLIT.tfrecord-00000-of-00004`, with `dataset_info.json` and
//! `label.labels.txt` beside the shards.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Error;
use super::store::{self, entries, read};

/// The files of one split.
#[derive(Debug)]
pub(super) struct Split {
    /// The shards in order, all present.
    pub(super) shards: Vec<PathBuf>,
    /// Bytes of each.
    pub(super) sizes: Vec<u64>,
    /// Records per shard, where `dataset_info.json` says it.
    pub(super) lengths: Option<Vec<u64>>,
    /// `label.labels.txt` beside the shards, if there is one.
    pub(super) label_names: Option<PathBuf>,
}

/// The shards of `split` of `dataset` in the folder `dir`, which may be the version's folder, the
/// data set's, or the one above. `None` if there are none. Of several versions the newest that has
/// the split.
pub(super) fn find(dataset: &str, split: &str, dir: &Path) -> Result<Option<Split>, Error> {
    // `imagenet2012_subset/1pct` is the configuration `1pct` of the set, whose files are named after the set alone.
    let name = dataset.split('/').next().unwrap_or(dataset);
    let mut folders = vec![dir.to_path_buf()];
    for parent in [dir.to_path_buf(), dir.join(dataset)] {
        let mut versions: Vec<_> = entries(&parent)?
            .into_iter()
            .filter_map(|entry| Some((version(&entry.name)?, parent.join(entry.name))))
            .collect();
        versions.sort_by_key(|(version, _)| Reverse(*version));
        folders.extend(versions.into_iter().map(|(_, folder)| folder));
    }
    for folder in folders {
        if let Some(found) = in_folder(&format!("{name}-{split}.tfrecord-"), split, &folder)? {
            return Ok(Some(found));
        }
    }
    // ImageNet as it was prepared before TFDS: `train-00000-of-01024`.
    if name == "imagenet2012" {
        return in_folder(&format!("{split}-"), split, dir);
    }
    Ok(None)
}

fn in_folder(prefix: &str, split: &str, folder: &Path) -> Result<Option<Split>, Error> {
    let mut shards = BTreeMap::new();
    let mut total = None;
    let entries = entries(folder)?;
    for entry in &entries {
        let name = &entry.name;
        let Some((index, of)) = name.strip_prefix(prefix).and_then(shard_numbers) else {
            continue;
        };
        if let Some(first) = total.filter(|&total| total != of) {
            return Err(Error::TwoShardings {
                dir: folder.into(),
                split: split.into(),
                first,
                second: of,
            });
        }
        total = Some(of);
        // A folder by the name of a shard cannot be read, which is said then.
        shards.insert(index, (folder.join(name), entry.size.unwrap_or(0)));
    }
    let Some(total) = total else { return Ok(None) };
    if let Some(missing) = (0..total).find(|index| !shards.contains_key(index)) {
        let file = folder.join(format!("{prefix}{missing:05}-of-{total:05}"));
        return Err(Error::MissingFile {
            file,
            found: shards.len(),
            expected: total,
        });
    }
    let (shards, sizes): (Vec<_>, Vec<_>) = shards.into_values().unzip();
    let has = |name: &str| entries.iter().any(|entry| entry.name == name);
    let label_names = has("label.labels.txt").then(|| folder.join("label.labels.txt"));
    Ok(Some(Split {
        lengths: shard_lengths(folder, split, &shards)?,
        shards,
        sizes,
        label_names,
    }))
}

/// `00003-of-00010` → (3, 10).
fn shard_numbers(text: &str) -> Option<(usize, usize)> {
    let (index, total) = text.split_once("-of-")?;
    let digits = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| text.parse().ok())?
    };
    let (index, total) = (digits(index)?, digits(total)?);
    (index < total).then_some((index, total))
}

/// `3.0.2` → [3, 0, 2].
fn version(name: &str) -> Option<[u32; 3]> {
    let numbers: Option<Vec<u32>> = name.split('.').map(|part| part.parse().ok()).collect();
    numbers?.try_into().ok()
}

/// The features that `dataset_info.json` says a set is supervised by; none without such a file or statement.
pub(super) fn supervised_keys(file: &Path) -> Result<Vec<String>, Error> {
    if !store::is_file(file)? {
        return Ok(Vec::new());
    }
    let json: serde_json::Value =
        serde_json::from_slice(&read(file)?).map_err(|error| Error::Info {
            file: file.into(),
            reason: error.to_string(),
        })?;
    let items = json.pointer("/supervisedKeys/tuple/items");
    let items = items.and_then(|items| items.as_array());
    let key = |item: &serde_json::Value| Some(item.get("featureKey")?.as_str()?.to_owned());
    Ok(items.into_iter().flatten().filter_map(key).collect())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    #[serde(default)]
    splits: Vec<InfoSplit>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InfoSplit {
    name: String,
    #[serde(default)]
    shard_lengths: Vec<Length>,
}

/// JSON has no 64-bit integers, so that protobuf writes them as strings.
#[derive(Deserialize)]
#[serde(untagged)]
enum Length {
    Number(u64),
    Text(String),
}

/// What `dataset_info.json` says about the records per shard: `None` without such a file or
/// statement.
fn shard_lengths(
    folder: &Path,
    split: &str,
    shards: &[PathBuf],
) -> Result<Option<Vec<u64>>, Error> {
    let file = folder.join("dataset_info.json");
    if !store::is_file(&file)? {
        return Ok(None);
    }
    let bad = |reason: String| Error::Info {
        file: file.clone(),
        reason,
    };
    let info: Info = serde_json::from_slice(&read(&file)?).map_err(|e| bad(e.to_string()))?;
    let Some(split) = info
        .splits
        .into_iter()
        .find(|s| s.name == split && !s.shard_lengths.is_empty())
    else {
        return Ok(None);
    };
    let lengths: Vec<u64> = split
        .shard_lengths
        .into_iter()
        .map(|length| match length {
            Length::Number(length) => Ok(length),
            Length::Text(text) => text
                .parse()
                .map_err(|_| bad(format!("`{text}` in shardLengths is no number"))),
        })
        .collect::<Result<_, _>>()?;
    if lengths.len() != shards.len() {
        let (found, expected) = (shards.len() as u64, lengths.len() as u64);
        return Err(Error::Count {
            file: folder.into(),
            what: "files of the split",
            found,
            expected,
        });
    }
    Ok(Some(lengths))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed() {
        assert_eq!(shard_numbers("00003-of-00010"), Some((3, 10)));
        for bad in [
            "00010-of-00010",
            "1-2",
            "-of-00001",
            "a-of-3",
            "+1-of-00003",
            "00000-of-00000",
            "0-of-99999999999999999999999",
        ] {
            assert_eq!(shard_numbers(bad), None, "{bad}");
        }
        assert_eq!(version("3.0.2"), Some([3, 0, 2]));
        assert!(version("3.0.10") > version("3.0.2"));
        for bad in ["3.0", "3.0.2.1", "downloads", "", "3.0.x"] {
            assert_eq!(version(bad), None, "{bad}");
        }
    }
}
