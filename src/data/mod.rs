//! Data sets on the host: records, decoding, and the order of examples.
//!
//! ```text
//! small: TFRecords, binary archive, shapes32 ─→ ImageSet (all of a split) ──→ the device, once
//!        order (seed, position) → indices ──────────────────────────────────→ the device, every launch
//! large: shards → record → window ┐        (store: from a disk or a bucket; unpack: gzip and zlib)
//!        folder → file ───────────┴→ feed (threads: example, decode, crop) ─→ the device, every launch
//! ```
//!
//! Invariant: nothing here knows of a device or a graph. Invariant: every byte read from a TFRecord
//! has passed its CRC.

pub mod bench;
mod catalogue;
pub mod check;
mod cifar;
pub mod decode;
mod error;
pub mod example;
mod examples;
mod feed;
mod find;
mod folder;
mod list;
pub mod order;
pub mod pack;
pub mod pictures;
pub mod record;
mod record_stream;
mod rng;
mod shapes32;
mod shards;
pub mod store;
pub mod subset;
mod tfds;
mod unpack;
pub mod window;

use std::path::Path;

use sha2::{Digest, Sha256};

use cifar::{CIFAR10, CIFAR100};
pub use error::{Error, Words};
pub use examples::{Description, Examples};
pub use feed::{Crops, Feed, FeedSpec, Share, Stages, Task, originals, replaced};
pub use find::{Found, find};
pub use list::{List, Missing, OFFICIAL, Official, told_apart};
pub use order::Order;

/// The data sets that are known by name; any other name is a set that TFDS has written.
pub const DATASETS: [&str; 5] = ["cifar10", "cifar100", "shapes32", "imagenet2012", "folder"];

/// Those that are held in memory.
const SMALL: [&str; 3] = ["cifar10", "cifar100", "shapes32"];

/// The splits that the sets in memory have.
pub const SPLITS: [&str; 2] = ["train", "test"];

/// A split of a data set in memory: small images of one size with their classes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSet {
    /// The data set's name, e.g. `cifar10`.
    pub name: String,
    /// `train` or `test`.
    pub split: String,
    /// Rows of an image.
    pub height: usize,
    /// Columns of an image.
    pub width: usize,
    /// Bytes per pixel: 3, in the order red, green, blue.
    pub channels: usize,
    /// Classes the labels count.
    pub num_classes: usize,
    /// A name for each class.
    pub class_names: Vec<String>,
    /// The pixels, `[examples, height, width, channels]`.
    pub images: Vec<u8>,
    /// The class of each example, below `num_classes`.
    pub labels: Vec<u32>,
    /// What a list calls each example, where that is not its split and number.
    pub names: Option<Vec<String>>,
    /// SHA-256, in hex, over the images and then the labels (little endian): what was trained on.
    pub fingerprint: String,
}

impl ImageSet {
    /// `images` are square, of `size` rows, RGB.
    fn new(
        name: &str,
        split: &str,
        size: usize,
        class_names: Vec<String>,
        images: Vec<u8>,
        labels: Vec<u32>,
    ) -> Self {
        assert_eq!(
            images.len(),
            labels.len() * size * size * 3,
            "one label per image"
        );
        let mut hash = Sha256::new();
        hash.update(&images);
        labels
            .iter()
            .for_each(|label| hash.update(label.to_le_bytes()));
        let fingerprint = hash
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        ImageSet {
            name: name.into(),
            split: split.into(),
            height: size,
            width: size,
            channels: 3,
            num_classes: class_names.len(),
            class_names,
            images,
            labels,
            names: None,
            fingerprint,
        }
    }

    /// What a list calls an example: the `id` of its record; else its split and number, as TFDS calls those of CIFAR by their places
    /// in the archive.
    pub fn example_name(&self, index: usize) -> String {
        match &self.names {
            Some(names) => names[index].clone(),
            None => format!("{}_{index:05}", self.split),
        }
    }

    /// Only the examples on a list, and what of the list is not there.
    fn only(self, list: &List) -> Result<(Self, Option<Missing>), Error> {
        let names: Vec<String> = (0..self.len())
            .map(|index| self.example_name(index))
            .collect();
        let missing = Missing::of(list, names.iter().map(String::as_str))?;
        let listed = |index: &usize| list.names.contains(&names[*index]);
        let chosen: Vec<usize> = (0..names.len()).filter(listed).collect();
        if chosen.is_empty() {
            return Err(list.none_of(&self.split, names.first().map(String::as_str)));
        }
        let images = chosen
            .iter()
            .flat_map(|&index| self.image(index))
            .copied()
            .collect();
        let labels = chosen.iter().map(|&index| self.labels[index]).collect();
        let class_names = self.class_names.clone();
        let mut set = ImageSet::new(
            &self.name,
            &self.split,
            self.height,
            class_names,
            images,
            labels,
        );
        set.names = Some(chosen.iter().map(|&index| names[index].clone()).collect());
        Ok((set, missing))
    }

    /// The number of examples; at least 1.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no example; never so for a loaded set.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The bytes of one image.
    pub fn image_bytes(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// The pixels of example `index`, `[height, width, channels]`.
    ///
    /// # Panics
    /// If `index` is not below [`len`](Self::len).
    pub fn image(&self, index: usize) -> &[u8] {
        &self.images[index * self.image_bytes()..][..self.image_bytes()]
    }
}

/// What is known of a split without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SplitFacts {
    /// Examples of the published set; a folder may hold a smaller one, then [`ImageSet::len`]
    /// counts.
    pub examples: usize,
    /// Number of classes.
    pub classes: usize,
    /// Rows and columns of an image.
    pub image_size: usize,
}

/// The facts of a split; fails with a usage error for an unknown data set or split.
pub fn facts(dataset: &str, split: &str) -> Result<SplitFacts, Error> {
    check_names(dataset, split)?;
    let (train, test, classes) = match dataset {
        "cifar10" => (50_000, 10_000, CIFAR10.class_names.len()),
        "cifar100" => (50_000, 10_000, CIFAR100.class_names.len()),
        _ => (shapes32::TRAIN, shapes32::TEST, shapes32::CLASS_NAMES.len()),
    };
    Ok(SplitFacts {
        examples: if split == "train" { train } else { test },
        classes,
        image_size: 32,
    })
}

/// The names of a set's classes, where they are known without reading it.
pub fn class_names(dataset: &str) -> Option<Vec<String>> {
    let names: &[&str] = match dataset {
        "cifar10" => CIFAR10.class_names,
        "cifar100" => CIFAR100.class_names,
        "shapes32" => &shapes32::CLASS_NAMES,
        _ => return None,
    };
    Some(names.iter().map(|name| name.to_string()).collect())
}

/// Loads a split into memory.
///
/// `cifar10` and `cifar100` are read from `data_dir`: the folder that holds
/// `NAME/VERSION/NAME-SPLIT.tfrecord-*` as TFDS writes it (or one of the two folders within), or
/// the folder that holds the unpacked binary archive (or that folder itself). `shapes32` is drawn
/// by the program and ignores `data_dir`.
///
/// Errors are of class usage (unknown names, no such folder, nothing to be found in it),
/// environment (the system refuses to read) or check (files missing, truncated, corrupt or of
/// another data set).
pub fn load(dataset: &str, split: &str, data_dir: Option<&Path>) -> Result<ImageSet, Error> {
    check_names(dataset, split)?;
    let dir = || {
        data_dir.ok_or_else(|| Error::NoDataDir {
            dataset: dataset.into(),
        })
    };
    match dataset {
        "cifar10" => CIFAR10.load(split, dir()?),
        "cifar100" => CIFAR100.load(split, dir()?),
        _ => Ok(shapes32::generate(split)),
    }
}

fn check_names(dataset: &str, split: &str) -> Result<(), Error> {
    if !SMALL.contains(&dataset) {
        return Err(Error::UnknownDataset {
            name: dataset.into(),
            known: SMALL.join(", "),
        });
    }
    if !SPLITS.contains(&split) {
        return Err(Error::UnknownSplit {
            dataset: dataset.into(),
            split: split.into(),
            known: SPLITS.join(", "),
        });
    }
    Ok(())
}
