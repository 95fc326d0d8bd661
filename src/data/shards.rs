//! A split in TFRecord shards that is too large for memory: what is known of it, and its records one by one.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::catalogue::{self, Entry, catalogue, name_of};
use super::example::Example;
use super::list::{List, Missing};
use super::record::RecordReader;
use super::store::{self, read, summary};
use super::{Error, tfds};
use crate::error::Class;

/// Which features of an example hold its picture and class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) image: String,
    /// None in a set without classes: every label is 0 then.
    pub(super) label: Option<String>,
    /// The label of the first class: 1 in the classic layout of ImageNet.
    pub(super) first_label: i64,
    pub(super) classes: usize,
}

/// A record that belongs to a subset.
#[derive(Debug)]
pub(super) struct Chosen {
    /// Its number in its file.
    record: usize,
    entry: Entry,
    /// The byte, in the unpacked file, up to which one reads on from it: through records of the subset that lie near each other.
    end: u64,
}

/// Two records of a subset that lie so near each other are read in one go: the bytes between them take less time than another request.
const NEAR: u64 = 1 << 18;

/// The shards of a split.
#[derive(Debug)]
pub(super) struct Shards {
    pub(super) files: Vec<PathBuf>,
    /// Bytes of each file.
    pub(super) sizes: Vec<u64>,
    /// Examples of each file: its records, or those that belong to the subset.
    pub(super) lengths: Vec<u64>,
    pub(super) layout: Layout,
    /// Of a subset, the records of each file that belong to it.
    pub(super) chosen: Option<Vec<Vec<Chosen>>>,
    /// Tells this preparation of this set from any other: names, sizes and lengths of its files.
    pub(super) fingerprint: String,
    /// The same of all the files' records, if this is a subset.
    pub(super) whole: String,
}

impl Shards {
    /// Finds a split of a set that TFDS has written, or ImageNet in its classic layout. No record but the first is read; where
    /// `dataset_info.json` does not count them, they are counted by their headers.
    pub(super) fn open(dataset: &str, split: &str, dir: &Path) -> Result<Self, Error> {
        if !store::is_dir(dir)? {
            return Err(Error::DataDirMissing {
                dataset: dataset.into(),
                dir: dir.into(),
            });
        }
        let Some(found) = tfds::find(dataset, split, dir)? else {
            let name = dataset.split('/').next().unwrap_or(dataset);
            return Err(Error::NotFound {
                dataset: dataset.into(),
                split: split.into(),
                dir: dir.into(),
                found: summary(dir)?,
                expected: format!("{dataset}/VERSION/{name}-{split}.tfrecord-*"),
            });
        };
        let lengths = match found.lengths {
            Some(lengths) => lengths,
            None => found
                .shards
                .par_iter()
                .zip(&found.sizes)
                .map(|(file, &size)| count(file, size))
                .collect::<Result<_, _>>()?,
        };
        let first = found.shards[0].clone();
        if lengths.iter().sum::<u64>() == 0 {
            return Err(Error::Empty { file: first });
        }
        let mut hash = Sha256::new();
        for ((file, size), length) in found.shards.iter().zip(&found.sizes).zip(&lengths) {
            let name = file.file_name().unwrap_or_default();
            let line = format!("{} {size} {length}\n", name.display());
            hash.update(line);
        }
        let digest = hash.finalize();
        let fingerprint: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Shards {
            layout: layout(&found.shards, found.label_names.as_deref())?,
            whole: fingerprint.clone(),
            fingerprint,
            files: found.shards,
            sizes: found.sizes,
            lengths,
            chosen: None,
        })
    }

    /// Only the examples on a list, and what of the list is not there. A damaged record, which may be one of those, is left out where
    /// `skip_bad`.
    pub(super) fn only(
        mut self,
        list: &List,
        split: &str,
        skip_bad: bool,
    ) -> Result<(Self, Option<Missing>), Error> {
        let all = self.catalogue(skip_bad)?;
        let names = || all.iter().flatten().filter_map(Entry::name);
        let left_out = nameless(&all);
        let missing = Missing::of(list, names())?;
        let example = names().next().map(String::from);
        let listed = |entry: &Entry| entry.name().is_some_and(|name| list.names.contains(name));
        let chosen: Vec<Vec<Chosen>> = (all.into_iter().zip(&self.sizes))
            .map(|(shard, &size)| choose(shard, size, listed))
            .collect();
        self.lengths = chosen.iter().map(|shard| shard.len() as u64).collect();
        if self.lengths.iter().sum::<u64>() == 0 {
            return Err(list.none_of(split, example.as_deref()));
        }
        self.chosen = Some(chosen);
        self.fingerprint = list.fingerprint(&self.fingerprint);
        // They may be of the list, whose lengths and order are others without them.
        if !left_out.is_empty() {
            self.fingerprint =
                list.fingerprint(&format!("{} without {left_out:?}", self.fingerprint));
        }
        Ok((self, missing))
    }

    /// Names and classes of all examples, in the order of the files.
    pub(super) fn names(&self) -> Result<Vec<(String, u32)>, Error> {
        if let Some(chosen) = &self.chosen {
            let entries = chosen.iter().flatten();
            return Ok(entries
                .filter_map(|chosen| chosen.entry.known.clone())
                .collect());
        }
        let all = self.catalogue(false)?;
        let entries = all.into_iter().flatten();
        Ok(entries.filter_map(|entry| entry.known).collect())
    }

    /// All examples by name. What is wrong with records that have none is told where they are left out, an error otherwise.
    fn catalogue(&self, skip_bad: bool) -> Result<Vec<Vec<Entry>>, Error> {
        let all = catalogue(self)?;
        if self.damaged(&all, skip_bad)? {
            return Ok(all);
        }
        // It was mended without a change of its size since the catalogue was made.
        if let Some(kept) = catalogue::place(self) {
            std::fs::remove_file(kept).ok();
        }
        let all = catalogue(self)?;
        self.damaged(&all, skip_bad)?;
        Ok(all)
    }

    /// Looks at the records that a catalogue has no name of; false if there is nothing wrong with one of them.
    fn damaged(&self, all: &[Vec<Entry>], skip_bad: bool) -> Result<bool, Error> {
        let bad = nameless(all);
        let mut first = None;
        for records in bad.chunk_by(|one, next| one.0 == next.0) {
            let mut reader = self.reader(records[0].0)?;
            for &(shard, index) in records {
                let (entry, next) = (&all[shard][index], all[shard].get(index + 1));
                let end = next.map_or(self.sizes[shard], |next| next.offset);
                reader.step_to(index, entry.offset, end)?;
                let found = reader.next().and_then(|data| {
                    let data = data.unwrap_or_default();
                    self.parse(&RawRecord { shard, index, data }).map(drop)
                });
                match found {
                    Ok(()) => return Ok(false),
                    Err(error) if skip_bad && error.spoils_one_example() => {
                        first.get_or_insert(error);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        if let Some(error) = first {
            tracing::warn!(
                "{} damaged records have no names, and are left out of the list; the first: {error}",
                bad.len()
            );
        }
        Ok(true)
    }

    /// Reads an example of a file, by its number among those that count; the reader stands before it.
    pub(super) fn fetch(
        &self,
        reader: &mut RecordReader,
        shard: usize,
        number: usize,
    ) -> Result<RawRecord, Error> {
        let (file, length) = (&self.files[shard], self.lengths[shard]);
        match &self.chosen {
            Some(chosen) => {
                let Chosen { record, entry, end } = &chosen[shard][number];
                reader.step_to(*record, entry.offset, *end)?;
            }
            None => {
                while reader.index() < number {
                    if !reader.skip()? {
                        return Err(wrong_count(file, reader.index() as u64, length));
                    }
                }
            }
        }
        let index = reader.index();
        let data = match reader.next() {
            Ok(None) => return Err(wrong_count(file, reader.index() as u64, length)),
            // Nobody knows where the next record begins.
            Err(error) if !error.spoils_one_example() => return Err(error),
            data => data,
        };
        let last = number as u64 + 1 == length;
        if last && self.chosen.is_none() && reader.skip()? {
            return Err(wrong_count(file, length + 1, length));
        }
        let data = data?.unwrap_or_default();
        if let Some(chosen) = &self.chosen {
            self.is_called(&chosen[shard][number], shard, &data)?;
            if let Some(Chosen { record, entry, end }) = chosen[shard].get(number + 1) {
                // Of a bucket it is on its way while other files are read.
                reader.step_to(*record, entry.offset, *end)?;
            }
        }
        Ok(RawRecord { shard, index, data })
    }

    /// Checks that a record is what the catalogue says, which is found by sizes and not by content.
    fn is_called(&self, chosen: &Chosen, shard: usize, data: &[u8]) -> Result<(), Error> {
        let Chosen { record, entry, .. } = chosen;
        let found = Example::parse(data).ok().as_ref().and_then(name_of);
        if found.as_deref() == entry.name() {
            return Ok(());
        }
        Err(Error::OldCatalogue {
            file: self.files[shard].clone(),
            record: *record,
            found: found.unwrap_or("nothing".into()),
            expected: entry.name().unwrap_or("nothing").into(),
            catalogue: catalogue::place(self)
                .unwrap_or_default()
                .display()
                .to_string(),
        })
    }

    /// Opens a file of it.
    pub(super) fn reader(&self, shard: usize) -> Result<RecordReader, Error> {
        let (file, size) = (&self.files[shard], self.sizes[shard]);
        match self.chosen {
            Some(_) => RecordReader::open_to_step(file, size),
            None => RecordReader::open(file, Some(size)),
        }
    }

    /// Picture and class of a record.
    pub(super) fn parse<'a>(&self, record: &'a RawRecord) -> Result<(&'a [u8], u32), Error> {
        let bad = |cause| Error::Example {
            file: self.files[record.shard].clone(),
            record: record.index,
            cause,
        };
        let example = Example::parse(&record.data).map_err(bad)?;
        let image = example.bytes(&self.layout.image).map_err(bad)?;
        let label = match &self.layout.label {
            Some(key) => example.int(key).map_err(bad)?,
            None => self.layout.first_label,
        };
        let (first, classes) = (self.layout.first_label, self.layout.classes as i64);
        if !(first..first + classes).contains(&label) {
            return Err(Error::ClassLabel {
                file: self.files[record.shard].clone(),
                record: record.index,
                found: label,
                first,
                last: first + classes - 1,
            });
        }
        Ok((image, (label - first) as u32))
    }
}

/// Those records of a file, of `size` bytes if it is not packed, that are listed.
fn choose(shard: Vec<Entry>, size: u64, listed: impl Fn(&Entry) -> bool) -> Vec<Chosen> {
    let mut chosen: Vec<Chosen> = Vec::new();
    let mut after = size;
    for (record, entry) in shard.into_iter().enumerate().rev() {
        let (begin, own_end) = (entry.offset, after);
        after = begin;
        if listed(&entry) {
            let next = chosen.last().map(|next| (next.entry.offset, next.end));
            let end = match next {
                Some((next, end)) if next.saturating_sub(own_end) <= NEAR => end,
                _ => own_end,
            };
            chosen.push(Chosen { record, entry, end });
        }
    }
    chosen.reverse();
    chosen
}

/// Shard and number of the records without a name.
fn nameless(all: &[Vec<Entry>]) -> Vec<(usize, usize)> {
    let numbered = |(shard, entries): (usize, &Vec<Entry>)| {
        let bad = entries.iter().enumerate();
        let bad = bad.filter(|(_, entry)| entry.known.is_none());
        bad.map(|(index, _)| (shard, index)).collect::<Vec<_>>()
    };
    all.iter().enumerate().flat_map(numbered).collect()
}

/// Records of a file, by their headers alone.
fn count(file: &Path, size: u64) -> Result<u64, Error> {
    let mut reader = RecordReader::open(file, Some(size))?;
    while reader.skip()? {}
    Ok(reader.index() as u64)
}

/// The layout: of the first record if it has the classic keys, otherwise of `features.json`, otherwise `image` and `label`.
fn layout(files: &[PathBuf], label_names: Option<&Path>) -> Result<Layout, Error> {
    const CLASSIC: [&str; 2] = ["image/encoded", "image/class/label"];
    let classic = |file: &PathBuf| -> Result<Option<bool>, Error> {
        let Some(data) = RecordReader::open(file, None)?.next()? else {
            return Ok(None);
        };
        let example = Example::parse(&data).map_err(|cause| Error::Example {
            file: file.clone(),
            record: 0,
            cause,
        })?;
        Ok(Some(CLASSIC.iter().all(|key| example.get(key).is_some())))
    };
    // Of the first file whose first record is whole; what is wrong with others is found when they are read.
    let mut seen = None;
    for found in files.iter().map(classic).filter_map(Result::transpose) {
        let spoilt = matches!(&found, Err(error) if error.class() == Class::Check);
        seen = Some(found);
        if !spoilt {
            break;
        }
    }
    match seen {
        Some(Ok(true)) => {
            return Ok(Layout {
                image: CLASSIC[0].into(),
                label: Some(CLASSIC[1].into()),
                first_label: 1,
                classes: 1000,
            });
        }
        Some(Ok(false)) | None => {}
        Some(Err(error)) => return Err(error),
    }
    let mut layout = Layout {
        image: "image".into(),
        label: Some("label".into()),
        first_label: 0,
        classes: 0,
    };
    let features = files[0].with_file_name("features.json");
    if store::is_file(&features)? {
        features_of(&features, &mut layout)?;
    }
    if layout.classes == 0 {
        let Some(names) = label_names else {
            return Err(Error::NoClasses {
                file: files[0].clone(),
            });
        };
        layout.classes = String::from_utf8_lossy(&read(names)?).lines().count();
    }
    Ok(layout)
}

/// What TFDS's `features.json` says of the image and the class label: those called `image` and `label`, or those that the set is
/// supervised by, or the only ones.
fn features_of(file: &Path, layout: &mut Layout) -> Result<(), Error> {
    let bad = |reason: String| Error::Info {
        file: file.into(),
        reason,
    };
    let json: serde_json::Value =
        serde_json::from_slice(&read(file)?).map_err(|e| bad(e.to_string()))?;
    let features = json
        .pointer("/featuresDict/features")
        .and_then(|features| features.as_object())
        .ok_or_else(|| bad("it has no featuresDict".into()))?;
    let supervised = tfds::supervised_keys(file.with_file_name("dataset_info.json").as_path())?;
    let chosen = |kind: &str, usual: &str| {
        let all: Vec<&String> = features
            .iter()
            .filter(|(_, what)| what.get(kind).is_some())
            .map(|(name, _)| name)
            .collect();
        let called = |wanted: &str| all.iter().find(|name| name.as_str() == wanted);
        let preferred = called(usual).or_else(|| supervised.iter().find_map(|key| called(key)));
        match (preferred, all.as_slice()) {
            (Some(name), _) | (None, [name]) => Ok(Some((*name).clone())),
            (None, []) => Ok(None),
            (None, several) => {
                let names: Vec<&str> = several.iter().map(|name| name.as_str()).collect();
                Err(bad(format!(
                    "its features {} are all of kind {kind}, expected one of them called `{usual}` or supervisedKeys in dataset_info.json",
                    names.join(", ")
                )))
            }
        }
    };
    layout.image =
        chosen("image", "image")?.ok_or_else(|| bad("no feature of it is an image".into()))?;
    match chosen("classLabel", "label")? {
        Some(label) => {
            let classes = &features[&label]["classLabel"]["numClasses"];
            let classes = classes
                .as_u64()
                .or_else(|| classes.as_str().and_then(|text| text.parse().ok()));
            layout.classes = classes.unwrap_or(0) as usize;
            layout.label = Some(label);
        }
        None => {
            layout.classes = 1;
            layout.label = None;
        }
    }
    Ok(())
}

/// A record whose CRCs were right.
#[derive(Debug)]
pub(super) struct RawRecord {
    /// Number of its file.
    pub(super) shard: usize,
    /// Its number in the file.
    pub(super) index: usize,
    pub(super) data: Vec<u8>,
}

pub(super) fn wrong_count(file: &Path, found: u64, expected: u64) -> Error {
    Error::Count {
        file: file.into(),
        what: "examples",
        found,
        expected,
    }
}
