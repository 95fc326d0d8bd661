//! Where the examples of a split come from, whatever holds them.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::folder::Folder;
use super::list::{List, Missing, Official};
use super::record_stream::RecordStream;
use super::shards::{RawRecord, Shards};
use super::window::{Pipeline, WindowOrder};
use super::{DATASETS, Error, ImageSet, Order, class_names, decode, facts, load, tfds};

/// What a run must know of a split before it reads an example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The data set's name, e.g. `cifar10`.
    pub name: String,
    /// Its split, e.g. `train`.
    pub split: String,
    /// The number of examples; at least 1.
    pub examples: usize,
    /// Classes the labels count; 1 in a set without classes.
    pub classes: usize,
    /// Their names, in the order of the labels, where they are known.
    pub class_names: Vec<String>,
    /// Height and width, where all images have the same.
    pub image: Option<[usize; 2]>,
    /// Tells this content from any other.
    pub fingerprint: String,
}

impl Description {
    /// A published split as it should be, without looking for it.
    ///
    /// # Errors
    /// If the data set or split is unknown.
    pub fn published(dataset: &str, split: &str) -> Result<Self, Error> {
        // Reference §9.1.
        let imagenet = match (dataset, split) {
            ("imagenet2012", "train") => Some(1_281_167),
            ("imagenet2012_subset/1pct", "train") => Some(12_811),
            ("imagenet2012_subset/10pct", "train") => Some(128_116),
            (
                "imagenet2012" | "imagenet2012_subset/1pct" | "imagenet2012_subset/10pct",
                "validation",
            ) => Some(50_000),
            _ => None,
        };
        let (examples, classes, image) = match imagenet {
            Some(examples) => (examples, 1000, None),
            None => {
                let facts = facts(dataset, split)?;
                (facts.examples, facts.classes, Some([facts.image_size; 2]))
            }
        };
        Ok(Description {
            name: dataset.into(),
            split: split.into(),
            examples,
            classes,
            class_names: class_names(dataset).unwrap_or_default(),
            image,
            fingerprint: String::new(),
        })
    }

    /// Whether labels tell anything apart.
    pub fn has_classes(&self) -> bool {
        self.classes > 1
    }

    /// Whether these are the images of another split, under another name: a folder without folders of splits gives all its pictures
    /// for each of them.
    pub fn is_also(&self, other: &Description) -> bool {
        self.split != other.split && self.fingerprint == other.fingerprint
    }

    /// Checks that a label means the same here as in the split that was trained on.
    ///
    /// # Errors
    /// The first class with another name.
    pub fn labelled_as(&self, training: &Description) -> Result<(), Error> {
        if self.class_names.is_empty() || training.class_names.is_empty() {
            return Ok(());
        }
        same_classes(
            [&self.split, &training.split],
            [&self.class_names, &training.class_names],
        )
    }
}

/// Checks that a split has the classes of the one trained on.
pub(super) fn same_classes(
    [split, training]: [&str; 2],
    [found, expected]: [&[String]; 2],
) -> Result<(), Error> {
    let Some(class) =
        (0..found.len().max(expected.len())).find(|&i| found.get(i) != expected.get(i))
    else {
        return Ok(());
    };
    let name = |names: &[String]| match names.get(class) {
        Some(name) => format!("`{name}`"),
        None => "missing".into(),
    };
    Err(Error::ClassOrder {
        class,
        found: name(found),
        split: split.into(),
        expected: name(expected),
        training: training.into(),
    })
}

/// The examples of a split.
#[derive(Debug)]
pub struct Examples {
    description: Description,
    place: Place,
    missing: Option<Missing>,
    /// Whether pictures are turned as their EXIF data say.
    upright: bool,
}

#[derive(Debug)]
enum Place {
    /// Small images of one size.
    Memory(ImageSet),
    /// TFRecords, read as a stream.
    Shards(Arc<Shards>),
    /// Files of pictures.
    Folder(Folder),
}

/// An example as it was read.
pub(super) enum Raw {
    /// Its number in the set.
    Index(usize),
    /// Its number and the bytes of its file.
    File(usize, Vec<u8>),
    Record(RawRecord),
}

/// A decoded example.
pub(super) struct Picture<'a> {
    pub(super) height: usize,
    pub(super) width: usize,
    /// u8 `[height, width, 3]`.
    pub(super) pixels: &'a [u8],
    pub(super) label: u32,
}

/// What comes next; read in one place, so that examples come in order.
pub(super) enum Source {
    /// By number: in a set's order of training from a position on.
    Shuffled(Order, u64),
    /// By number: each once.
    Straight(Range<usize>),
    /// Of each step `each` rows from every pipeline in turn; none of a pipeline that other processes read.
    Records {
        pipelines: Vec<Option<RecordStream>>,
        each: u64,
    },
}

/// The pipelines of training.
#[derive(Debug, Clone)]
pub(super) struct Pipelines {
    /// How many there are.
    pub(super) count: usize,
    /// Examples of a step, a multiple of their number.
    pub(super) batch: u64,
    /// The rows of a step that this process wants; the pipelines of others are not read.
    pub(super) rows: Range<u64>,
}

impl Source {
    /// Whether it has anything of a row of a step, or passes over it unread.
    pub(super) fn reads(&self, row: u64) -> bool {
        match self {
            Source::Records { pipelines, each } => pipelines[(row / each) as usize].is_some(),
            _ => true,
        }
    }

    /// The next example, which is that of a row of a step; none after the last one.
    pub(super) fn next(&mut self, row: u64) -> Option<Result<Raw, Error>> {
        match self {
            Source::Shuffled(order, position) => {
                let index = order.indices(*position, 1)[0];
                *position += 1;
                Some(Ok(Raw::Index(index as usize)))
            }
            Source::Straight(rest) => rest.next().map(|index| Ok(Raw::Index(index))),
            Source::Records { pipelines, each } => {
                let stream = pipelines[(row / *each) as usize].as_mut()?;
                Some(stream.next()?.map(Raw::Record))
            }
        }
    }
}

impl Examples {
    /// Finds the examples of a split. `cifar10`, `cifar100` and `shapes32` are read into memory (see [`load`]); `folder` is a folder of
    /// class folders of pictures; any other name is a set of images that TFDS has written below `data_dir`, `imagenet2012` also in its
    /// classic layout: these are read while a run goes on.
    ///
    /// # Errors
    /// As [`load`].
    pub fn open(dataset: &str, split: &str, data_dir: Option<&Path>) -> Result<Self, Error> {
        Examples::listed(dataset, split, data_dir, None, false)
    }

    /// As [`open`](Self::open), but only the examples that a list names. The splits `train` of `imagenet2012_subset/1pct` and `10pct`
    /// are made by the original's lists from the shards of `imagenet2012`, unless TFDS has written them: `list` says where their list
    /// is, if not in one of the usual places. Of any other set `list` is a list of the user's own: of [`names`](Self::names). Where
    /// `skip_bad`, damaged records, which have no names, are left out.
    ///
    /// # Errors
    /// As [`open`](Self::open), or if the list is none, not the original's, or of another set.
    pub fn listed(
        dataset: &str,
        split: &str,
        data_dir: Option<&Path>,
        list: Option<&Path>,
        skip_bad: bool,
    ) -> Result<Self, Error> {
        let official = match (Official::of(dataset), data_dir) {
            (Some(official), Some(dir)) if tfds::find(dataset, split, dir)?.is_none() => {
                Some((official, dir))
            }
            _ => None,
        };
        let list = match official {
            Some((official, dir)) if split == "train" => Some(official.read(list, dir)?),
            Some(_) => None,
            None => list.map(List::read).transpose()?,
        };
        let name = official.map_or(dataset, |(official, _)| official.of);
        let found = Examples::whole(name, split, data_dir)?;
        let mut found = match &list {
            Some(list) => found.only(list, skip_bad)?,
            None => found,
        };
        found.description.name = dataset.into();
        Ok(found)
    }

    fn only(self, list: &List, skip_bad: bool) -> Result<Self, Error> {
        let Examples {
            mut description,
            place,
            ..
        } = self;
        let split = &description.split;
        let (place, missing) = match place {
            Place::Memory(set) => {
                let (set, missing) = set.only(list)?;
                description.examples = set.len();
                description.fingerprint.clone_from(&set.fingerprint);
                (Place::Memory(set), missing)
            }
            Place::Folder(folder) => {
                let (folder, missing) = folder.only(list, split)?;
                description.examples = folder.files.len();
                description.fingerprint.clone_from(&folder.fingerprint);
                (Place::Folder(folder), missing)
            }
            Place::Shards(shards) => {
                // Nobody else has them yet.
                let shards = Arc::try_unwrap(shards).map_err(|_| Error::Empty {
                    file: list.file.clone(),
                })?;
                let (shards, missing) = shards.only(list, split, skip_bad)?;
                description.examples = shards.lengths.iter().sum::<u64>() as usize;
                description.fingerprint.clone_from(&shards.fingerprint);
                (Place::Shards(Arc::new(shards)), missing)
            }
        };
        if let Some(Missing { count, of, first }) = &missing {
            tracing::warn!(
                "{count} of the {of} examples on {} {} not in split `{split}` of `{}`; the first is {first}",
                list.file.display(),
                if *count == 1 { "is" } else { "are" },
                description.name
            );
        }
        Ok(Examples {
            description,
            place,
            missing,
            upright: false,
        })
    }

    /// What the list of a subset names and the split does not have.
    pub fn missing(&self) -> Option<&Missing> {
        self.missing.as_ref()
    }

    /// Names and classes of all examples, in the order of the set: what a list names them by. Of shards their features `file_name`, `id`
    /// or `image/filename`, for which every byte is read once; of class folders `CLASS/FILE`; of sets in memory their split and number.
    ///
    /// # Errors
    /// If the examples have no names, or one cannot be read.
    pub fn names(&self) -> Result<Vec<(String, u32)>, Error> {
        let numbered = |name: &dyn Fn(usize) -> String, labels: &[u32]| {
            let named = labels.iter().enumerate();
            named.map(|(index, &label)| (name(index), label)).collect()
        };
        Ok(match &self.place {
            Place::Memory(set) => numbered(&|index| set.example_name(index), &set.labels),
            Place::Folder(folder) => numbered(&|index| folder.name(index), &folder.labels),
            Place::Shards(shards) => shards.names()?,
        })
    }

    fn whole(dataset: &str, split: &str, data_dir: Option<&Path>) -> Result<Self, Error> {
        let dir = || {
            data_dir.ok_or_else(|| match dataset {
                "folder" | "imagenet2012" => Error::NoDataDir {
                    dataset: dataset.into(),
                },
                _ => Error::UnknownDataset {
                    name: dataset.into(),
                    known: DATASETS.join(", "),
                },
            })
        };
        let describe = |examples, classes, fingerprint: &str| Description {
            name: dataset.into(),
            split: split.into(),
            examples,
            classes,
            class_names: Vec::new(),
            image: None,
            fingerprint: fingerprint.into(),
        };
        let (description, place) = match dataset {
            "cifar10" | "cifar100" | "shapes32" => {
                let set = load(dataset, split, data_dir)?;
                let description = Description {
                    class_names: set.class_names.clone(),
                    image: Some([set.height, set.width]),
                    ..describe(set.len(), set.num_classes, &set.fingerprint)
                };
                (description, Place::Memory(set))
            }
            "folder" => {
                let folder = Folder::open(split, dir()?)?;
                if let Some(note) = folder.passed_over.note("the class folders") {
                    tracing::warn!("{note}");
                }
                let classes = folder.class_names.len();
                let description = Description {
                    class_names: folder.class_names.clone(),
                    ..describe(folder.files.len(), classes, &folder.fingerprint)
                };
                (description, Place::Folder(folder))
            }
            _ => {
                let shards = Shards::open(dataset, split, dir()?)?;
                let examples = shards.lengths.iter().sum::<u64>() as usize;
                let classes = shards.layout.classes;
                let description = describe(examples, classes, &shards.fingerprint);
                (description, Place::Shards(Arc::new(shards)))
            }
        };
        Ok(Examples {
            description,
            place,
            missing: None,
            upright: false,
        })
    }

    /// Those of files and records, turned as their EXIF data say, which the original ignores, or not.
    pub fn upright(self, upright: bool) -> Self {
        Examples { upright, ..self }
    }

    /// What they are.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// All of them, if they are in memory.
    pub fn memory(&self) -> Option<&ImageSet> {
        match &self.place {
            Place::Memory(set) => Some(set),
            _ => None,
        }
    }

    /// Whether they are read as a stream, of which a process may read its own pipelines alone.
    pub fn in_shards(&self) -> bool {
        matches!(self.place, Place::Shards(_))
    }

    /// The examples of training from a position on, the beginning of a step. Only sets in shards have pipelines.
    pub(super) fn training(
        &self,
        seed: u64,
        window: usize,
        position: u64,
        Pipelines { count, batch, rows }: Pipelines,
    ) -> Source {
        let each = batch / count as u64;
        match &self.place {
            Place::Shards(shards) => {
                let stream = |number: usize| {
                    let first = number as u64 * each;
                    let own = first < rows.end && rows.start < first + each;
                    own.then(|| {
                        let pipeline = Pipeline { number, count };
                        let order = WindowOrder::new(seed, &shards.lengths, window, pipeline);
                        let position = position / count as u64;
                        RecordStream::training(shards.clone(), order, position)
                    })
                };
                Source::Records {
                    pipelines: (0..count).map(stream).collect(),
                    each,
                }
            }
            _ => Source::Shuffled(Order::new(seed, self.description.examples), position),
        }
    }

    /// All examples, once, in the order of the set.
    pub(super) fn straight(&self) -> Source {
        match &self.place {
            Place::Shards(shards) => Source::Records {
                pipelines: vec![Some(RecordStream::straight(shards.clone()))],
                each: u64::MAX,
            },
            _ => Source::Straight(0..self.description.examples),
        }
    }

    /// What is needed to decode an example: the files of a folder are read here, by as many threads as ask.
    pub(super) fn fetch(&self, raw: Raw) -> Result<Raw, Error> {
        match (&self.place, raw) {
            (Place::Folder(folder), Raw::Index(index)) => Ok(Raw::File(index, folder.read(index)?)),
            (_, raw) => Ok(raw),
        }
    }

    /// Decodes an example that was fetched, into a buffer unless it is in memory.
    pub(super) fn decode<'a>(
        &'a self,
        raw: &Raw,
        buffer: &'a mut Vec<u8>,
    ) -> Result<Picture<'a>, Error> {
        let mut decoded = |bytes: &[u8], label, bad: &dyn Fn(String) -> Error| {
            let [height, width] = decode::decode_into(bytes, self.upright, buffer).map_err(bad)?;
            Ok([height, width, label as usize])
        };
        let [height, width, label] = match (&self.place, raw) {
            (Place::Memory(set), Raw::Index(index)) => {
                return Ok(Picture {
                    height: set.height,
                    width: set.width,
                    pixels: set.image(*index),
                    label: set.labels[*index],
                });
            }
            (Place::Folder(folder), Raw::File(index, bytes)) => {
                decoded(bytes, folder.labels[*index], &|reason| Error::PictureFile {
                    file: folder.files[*index].clone(),
                    reason,
                })?
            }
            (Place::Shards(shards), Raw::Record(record)) => {
                let (bytes, label) = shards.parse(record)?;
                decoded(bytes, label, &|reason| Error::Picture {
                    file: shards.files[record.shard].clone(),
                    record: record.index,
                    reason,
                })?
            }
            // Sources give what their place holds.
            _ => {
                return Err(Error::Empty {
                    file: self.description.name.clone().into(),
                });
            }
        };
        Ok(Picture {
            height,
            width,
            pixels: buffer,
            label: label as u32,
        })
    }
}
