//! CIFAR-10 and CIFAR-100, from the TFRecords of TFDS (a PNG per example) or from the files of the
//! original binary archives (one or two label bytes, then the red, green and blue planes of 1,024
//! bytes, rows from top to bottom).

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::decode::in_a_line;
use super::record::read_all;
use super::store::{Entry, is_dir, is_file, read, summary};
use super::{Error, Found, ImageSet, SPLITS, example::Example, facts, tfds};

/// Rows and columns of an image.
pub(super) const SIZE: usize = 32;
const PIXELS: usize = SIZE * SIZE;
/// Bytes of an image.
pub(super) const BYTES: usize = PIXELS * 3;

/// One of the two sets.
pub(super) struct Cifar {
    pub(super) name: &'static str,
    pub(super) class_names: &'static [&'static str],
    /// The folder of the binary archive.
    folder: &'static str,
    /// Files per split in that folder.
    train: &'static [&'static str],
    test: &'static [&'static str],
    /// Label bytes of a binary record; the last one is the label.
    label_bytes: usize,
}

pub(super) const CIFAR10: Cifar = Cifar {
    name: "cifar10",
    class_names: &[
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ],
    folder: "cifar-10-batches-bin",
    train: &[
        "data_batch_1.bin",
        "data_batch_2.bin",
        "data_batch_3.bin",
        "data_batch_4.bin",
        "data_batch_5.bin",
    ],
    test: &["test_batch.bin"],
    label_bytes: 1,
};

pub(super) const CIFAR100: Cifar = Cifar {
    name: "cifar100",
    class_names: &[
        "apple",
        "aquarium_fish",
        "baby",
        "bear",
        "beaver",
        "bed",
        "bee",
        "beetle",
        "bicycle",
        "bottle",
        "bowl",
        "boy",
        "bridge",
        "bus",
        "butterfly",
        "camel",
        "can",
        "castle",
        "caterpillar",
        "cattle",
        "chair",
        "chimpanzee",
        "clock",
        "cloud",
        "cockroach",
        "couch",
        "crab",
        "crocodile",
        "cup",
        "dinosaur",
        "dolphin",
        "elephant",
        "flatfish",
        "forest",
        "fox",
        "girl",
        "hamster",
        "house",
        "kangaroo",
        "keyboard",
        "lamp",
        "lawn_mower",
        "leopard",
        "lion",
        "lizard",
        "lobster",
        "man",
        "maple_tree",
        "motorcycle",
        "mountain",
        "mouse",
        "mushroom",
        "oak_tree",
        "orange",
        "orchid",
        "otter",
        "palm_tree",
        "pear",
        "pickup_truck",
        "pine_tree",
        "plain",
        "plate",
        "poppy",
        "porcupine",
        "possum",
        "rabbit",
        "raccoon",
        "ray",
        "road",
        "rocket",
        "rose",
        "sea",
        "seal",
        "shark",
        "shrew",
        "skunk",
        "skyscraper",
        "snail",
        "snake",
        "spider",
        "squirrel",
        "streetcar",
        "sunflower",
        "sweet_pepper",
        "table",
        "tank",
        "telephone",
        "television",
        "tiger",
        "tractor",
        "train",
        "trout",
        "tulip",
        "turtle",
        "wardrobe",
        "whale",
        "willow_tree",
        "wolf",
        "woman",
        "worm",
    ],
    folder: "cifar-100-binary",
    train: &["train.bin"],
    test: &["test.bin"],
    label_bytes: 2, // coarse, fine
};

impl Cifar {
    /// Reads a split (`train` or `test`) from wherever it is under `dir`; TFRecords are preferred
    /// over binary files.
    pub(super) fn load(&self, split: &str, dir: &Path) -> Result<ImageSet, Error> {
        if !is_dir(dir)? {
            return Err(Error::DataDirMissing {
                dataset: self.name.into(),
                dir: dir.into(),
            });
        }
        if let Some(found) = tfds::find(self.name, split, dir)? {
            return self.load_tfds(split, &found);
        }
        if let Some(files) = self.binary(split, dir)? {
            return self.load_binary(split, &files);
        }
        let (name, folder) = (self.name, self.folder);
        Err(Error::NotFound {
            dataset: name.into(),
            split: split.into(),
            dir: dir.into(),
            found: summary(dir)?,
            expected: format!(
                "{name}/VERSION/{name}-{split}.tfrecord-* and {folder}/{}",
                self.files(split)[0]
            ),
        })
    }

    /// The names of a split's files in the binary archive.
    fn files(&self, split: &str) -> &'static [&'static str] {
        if split == "train" {
            self.train
        } else {
            self.test
        }
    }

    /// The files of a split of the binary archive in `dir` or its folder; none if none of them is there.
    fn binary(&self, split: &str, dir: &Path) -> Result<Option<Vec<PathBuf>>, Error> {
        for folder in [dir.to_path_buf(), dir.join(self.folder)] {
            let files = self.files(split).iter();
            let paths: Vec<_> = files.map(|name| folder.join(name)).collect();
            let mut missing = None;
            let mut present = 0;
            for path in &paths {
                match is_file(path)? {
                    true => present += 1,
                    false => missing = missing.or(Some(path)),
                }
            }
            match missing {
                None => return Ok(Some(paths)),
                Some(missing) if present > 0 => {
                    return Err(Error::MissingFile {
                        file: missing.clone(),
                        found: present,
                        expected: paths.len(),
                    });
                }
                Some(_) => {}
            }
        }
        Ok(None)
    }

    fn load_tfds(&self, split: &str, found: &tfds::Split) -> Result<ImageSet, Error> {
        let class_names = match &found.label_names {
            Some(file) => self.read_class_names(file)?,
            None => self.default_class_names(),
        };
        let (mut images, mut labels, mut names) = (Vec::new(), Vec::new(), Vec::new());
        for (number, file) in found.shards.iter().enumerate() {
            let records = read_all(file, found.sizes[number])?;
            if let Some(expected) = found
                .lengths
                .as_ref()
                .map(|lengths| lengths[number])
                .filter(|&n| n != records.len() as u64)
            {
                return Err(Error::Count {
                    file: file.clone(),
                    what: "examples",
                    found: records.len() as u64,
                    expected,
                });
            }
            let start = images.len();
            images.resize(start + records.len() * BYTES, 0);
            let decoded: Vec<_> = images[start..]
                .par_chunks_exact_mut(BYTES)
                .zip(records.par_iter().enumerate())
                .map(|(image, (index, record))| self.decode(file, index, record, image))
                .collect();
            // Collected in order, so that the first bad record is the one named.
            for example in decoded {
                let (label, name) = example?;
                labels.push(label);
                names.extend(name);
            }
        }
        let mut set = self.finish(split, class_names, images, labels, &found.shards[0])?;
        let in_order = |(index, name): (usize, &String)| *name == set.example_name(index);
        if names.len() == set.len() && !names.iter().enumerate().all(in_order) {
            set.names = Some(names);
        }
        Ok(set)
    }

    /// Decodes one example into `image`; the result is its label, and its name where it has one: records are not in the order of
    /// the archive, by which TFDS names them.
    fn decode(
        &self,
        file: &Path,
        index: usize,
        record: &[u8],
        image: &mut [u8],
    ) -> Result<(u32, Option<String>), Error> {
        let in_record = |cause| Error::Example {
            file: file.into(),
            record: index,
            cause,
        };
        let example = Example::parse(record).map_err(in_record)?;
        let png = example.bytes("image").map_err(in_record)?;
        let label = example.int("label").map_err(in_record)?;
        decode_png(png, image).map_err(|problem| match problem {
            PngProblem::Unreadable(error) => Error::Image {
                file: file.into(),
                record: index,
                reason: in_a_line(&error.to_string()),
            },
            PngProblem::Size(width, height) => Error::ImageSize {
                file: file.into(),
                record: index,
                found: format!("{width}x{height}"),
                expected: format!("{SIZE}x{SIZE}"),
            },
        })?;
        let name = example.bytes("id").ok();
        let name = name.map(|name| String::from_utf8_lossy(name).into_owned());
        Ok((self.checked_label(label, file, index)?, name))
    }

    fn load_binary(&self, split: &str, files: &[PathBuf]) -> Result<ImageSet, Error> {
        let (mut images, mut labels) = (Vec::new(), Vec::new());
        let published = facts(self.name, split)?.examples;
        let mut other = None;
        for file in files {
            let bytes = read(file)?;
            self.whole_records(file, &bytes)?;
            let (found, expected) = (bytes.len() / self.record(), published / files.len());
            if found != expected {
                other.get_or_insert((file, found, expected));
            }
            for record in self.records(file, &bytes) {
                let (label, planes) = record?;
                labels.push(label);
                images.extend(
                    (0..PIXELS)
                        .flat_map(|p| [planes[p], planes[PIXELS + p], planes[2 * PIXELS + p]]),
                );
            }
        }
        // No checksum tells a file that was cut where a record ends.
        if let Some((file, found, expected)) = other {
            tracing::warn!(
                "the published split `{split}` of `{}` has {published} examples, this one {} ({} {found}, expected {expected}); fetch it again unless that is meant",
                self.name,
                labels.len(),
                file.display(),
            );
        }
        self.finish(split, self.default_class_names(), images, labels, &files[0])
    }

    /// Bytes of a record of the binary archive.
    fn record(&self) -> usize {
        self.label_bytes + BYTES
    }

    /// Checks that a file of the binary archive ends where a record does.
    fn whole_records(&self, file: &Path, bytes: &[u8]) -> Result<(), Error> {
        let record_size = self.record();
        if bytes.is_empty() || !bytes.len().is_multiple_of(record_size) {
            return Err(Error::FileSize {
                file: file.into(),
                found: bytes.len(),
                record_size,
            });
        }
        Ok(())
    }

    /// Label and planes of each whole record of the binary archive.
    fn records<'a>(
        &self,
        file: &Path,
        bytes: &'a [u8],
    ) -> impl Iterator<Item = Result<(u32, &'a [u8]), Error>> {
        let records = bytes.chunks_exact(self.record()).enumerate();
        records.map(move |(index, record)| {
            let (label, planes) = record.split_at(self.label_bytes);
            let label = i64::from(label[self.label_bytes - 1]);
            Ok((self.checked_label(label, file, index)?, planes))
        })
    }

    fn checked_label(&self, label: i64, file: &Path, record: usize) -> Result<u32, Error> {
        let classes = self.class_names.len();
        u32::try_from(label)
            .ok()
            .filter(|&label| (label as usize) < classes)
            .ok_or_else(|| Error::Label {
                file: file.into(),
                record,
                found: label,
                last: classes - 1,
            })
    }

    fn default_class_names(&self) -> Vec<String> {
        self.class_names
            .iter()
            .map(|name| name.to_string())
            .collect()
    }

    fn read_class_names(&self, file: &Path) -> Result<Vec<String>, Error> {
        let text = read(file)?;
        let names: Vec<String> = String::from_utf8_lossy(&text)
            .lines()
            .map(str::to_owned)
            .collect();
        if names.len() != self.class_names.len() {
            return Err(Error::ClassNames {
                file: file.into(),
                found: names.len(),
                expected: self.class_names.len(),
            });
        }
        Ok(names)
    }

    fn finish(
        &self,
        split: &str,
        class_names: Vec<String>,
        images: Vec<u8>,
        labels: Vec<u32>,
        first_file: &Path,
    ) -> Result<ImageSet, Error> {
        if labels.is_empty() {
            return Err(Error::Empty {
                file: first_file.into(),
            });
        }
        tracing::debug!(dataset = self.name, split, examples = labels.len(), file = %first_file.display(), "data set read");
        Ok(ImageSet::new(
            self.name,
            split,
            SIZE,
            class_names,
            images,
            labels,
        ))
    }
}

/// The splits of the binary archives whose files are among those of a folder: of the one that was named, or by its own name.
pub(super) fn archives(folder: &Path, files: &[Entry], named: bool) -> Vec<Found> {
    let mut found = Vec::new();
    for set in [&CIFAR10, &CIFAR100] {
        if !named && folder.file_name().is_none_or(|name| name != set.folder) {
            continue;
        }
        for split in SPLITS {
            // Of a folder with a name of its own `train.bin` may be anything.
            let whole = |file: &Entry| {
                let record = (set.label_bytes + BYTES) as u64;
                folder.ends_with(set.folder) || file.size.is_some_and(|size| size % record == 0)
            };
            let named = set.files(split);
            let own = |file: &Entry| named.contains(&file.name.as_str()) && whole(file);
            if files.iter().any(own) {
                found.push(Found {
                    dataset: set.name.into(),
                    split: split.into(),
                    dir: folder.into(),
                });
            }
        }
    }
    found
}

/// A split of a binary archive, to be checked.
pub(super) struct Archive {
    set: &'static Cifar,
    pub(super) files: Vec<PathBuf>,
}

impl Archive {
    /// The one that would be read; none where that is no binary archive.
    pub(super) fn open(dataset: &str, split: &str, dir: &Path) -> Result<Option<Self>, Error> {
        let sets = [&CIFAR10, &CIFAR100];
        let Some(set) = sets.into_iter().find(|set| set.name == dataset) else {
            return Ok(None);
        };
        if !SPLITS.contains(&split) || tfds::find(dataset, split, dir)?.is_some() {
            return Ok(None);
        }
        let files = set.binary(split, dir)?;
        Ok(files.map(|files| Archive { set, files }))
    }

    pub(super) fn classes(&self) -> usize {
        self.set.class_names.len()
    }

    /// Reads a file: the records that it has or begins, the label of each whole one, and whether it ends where one does.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn read(&self, file: &Path) -> Result<Batch, Error> {
        let bytes = read(file)?;
        Ok(Batch {
            begun: bytes.len().div_ceil(self.set.record()),
            labels: self
                .set
                .records(file, &bytes)
                .map(|record| record.map(|(label, _)| label))
                .collect(),
            whole: self.set.whole_records(file, &bytes),
        })
    }
}

/// What a file of a binary archive holds.
pub(super) struct Batch {
    pub(super) begun: usize,
    pub(super) labels: Vec<Result<u32, Error>>,
    pub(super) whole: Result<(), Error>,
}

enum PngProblem {
    Unreadable(png::DecodingError),
    /// Width and height of another size.
    Size(u32, u32),
}

impl From<png::DecodingError> for PngProblem {
    fn from(error: png::DecodingError) -> Self {
        PngProblem::Unreadable(error)
    }
}

/// Decodes a 32×32 PNG into interleaved RGB bytes. Whatever the file's own format, the result is
/// 8-bit RGB as TensorFlow's decoder gives it: palettes are looked up, grey is repeated, alpha is
/// dropped, 16 bits lose their lower half.
fn decode_png(bytes: &[u8], image: &mut [u8]) -> Result<(), PngProblem> {
    let mut decoder = png::Decoder::new(std::io::Cursor::new(bytes));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info()?;
    // Before any pixel is decoded, so that a hostile header cannot ask for memory.
    let (width, height) = (reader.info().width, reader.info().height);
    if (width as usize, height as usize) != (SIZE, SIZE) {
        return Err(PngProblem::Size(width, height));
    }
    // At most four 8-bit samples per pixel after the normalisation.
    let mut buffer = [0; PIXELS * 4];
    let frame = reader.next_frame(&mut buffer)?;
    let samples = frame.color_type.samples();
    for (pixel, source) in image.chunks_exact_mut(3).zip(buffer.chunks_exact(samples)) {
        if samples < 3 {
            pixel.fill(source[0]);
        } else {
            pixel.copy_from_slice(&source[..3]);
        }
    }
    Ok(())
}
