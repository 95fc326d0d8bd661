//! Whether a split may be trained on: every byte is read, every record parsed, every picture decoded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::cifar::{Archive, BYTES, SIZE};
use super::example::Example;
use super::examples::same_classes;
use super::find::Found;
use super::folder::Folder;
use super::record::RecordReader;
use super::shards::{RawRecord, Shards};
use super::{Error, decode, facts};

/// What a split holds.
#[derive(Debug, Default, serde::Serialize)]
pub struct Report {
    /// The data set.
    pub dataset: String,
    /// The split.
    pub split: String,
    /// The folder of its files.
    pub dir: PathBuf,
    /// Files.
    pub files: usize,
    /// Examples that were read.
    pub examples: u64,
    /// Examples that the description of the set promises.
    pub promised: u64,
    /// Bytes of the pictures.
    pub bytes: u64,
    /// Features of the first whole record.
    pub features: Vec<String>,
    /// Pictures of each format.
    pub formats: BTreeMap<String, u64>,
    /// Smallest and largest height.
    pub heights: [usize; 2],
    /// Smallest and largest width.
    pub widths: [usize; 2],
    /// Classes there could be.
    pub classes: usize,
    /// Their names, of class folders.
    #[serde(skip)]
    class_names: Vec<String>,
    /// Examples of each class.
    pub labels: Vec<u64>,
    /// Examples of the published split, where that is another number than an archive has.
    pub published: Option<usize>,
    /// What every one of was looked at.
    #[serde(skip)]
    pub checked: &'static str,
    /// What lies in class folders and is not looked at, in a sentence.
    pub passed_over: Option<String>,
    /// What is wrong, a sentence each; the first [`MOST`].
    pub problems: Vec<String>,
    /// How many things are wrong.
    pub problem_count: u64,
}

/// The format of pictures that are not encoded.
const RAW: &str = "raw";

/// Problems that are told.
pub const MOST: usize = 20;

impl Report {
    /// Whether it may be trained on.
    pub fn good(&self) -> bool {
        self.problem_count == 0
    }

    fn problem(&mut self, error: &Error) {
        self.problem_count += 1;
        if self.problems.len() < MOST {
            self.problems.push(error.to_string());
        }
    }

    fn picture(&mut self, bytes: &[u8], label: u32, bad: impl FnOnce(String) -> Error) {
        self.bytes += bytes.len() as u64;
        if let Some(count) = self.labels.get_mut(label as usize) {
            *count += 1;
        }
        match decode::decode(bytes) {
            Ok(found) => {
                let format = decode::format(bytes).unwrap_or("unknown");
                *self.formats.entry(format.into()).or_default() += 1;
                self.size([found.height; 2], [found.width; 2]);
            }
            Err(reason) => self.problem(&bad(reason)),
        }
    }

    fn size(&mut self, heights: [usize; 2], widths: [usize; 2]) {
        for (range, [low, high]) in [(&mut self.heights, heights), (&mut self.widths, widths)] {
            // 0 means that no picture was seen yet.
            range[0] = if range[0] == 0 {
                low
            } else {
                range[0].min(low.max(1))
            };
            range[1] = range[1].max(high);
        }
    }

    /// Adds what another file holds.
    fn add(&mut self, other: Report) {
        self.examples += other.examples;
        self.promised += other.promised;
        self.bytes += other.bytes;
        for (format, count) in other.formats {
            *self.formats.entry(format).or_default() += count;
        }
        if other.heights[0] > 0 {
            self.size(other.heights, other.widths);
        }
        for (sum, count) in self.labels.iter_mut().zip(other.labels) {
            *sum += count;
        }
        if self.features.is_empty() {
            self.features = other.features;
        }
        self.problem_count += other.problem_count;
        let room = MOST - self.problems.len();
        self.problems.extend(other.problems.into_iter().take(room));
    }
}

/// Reads a split whole, files in parallel; `progress` is called with the number of examples that were just looked at.
///
/// # Errors
/// If the split cannot be opened at all: what is wrong with single files, records and pictures is in the report.
pub fn check(found: &Found, progress: &(dyn Fn(u64) + Sync)) -> Result<Report, Error> {
    let mut report = Report {
        dataset: found.dataset.clone(),
        split: found.split.clone(),
        dir: found.dir.clone(),
        ..Report::default()
    };
    let parts: Vec<Report> = if found.dataset == "folder" {
        let folder = Folder::open(&found.split, &found.dir)?;
        report.files = folder.files.len();
        report.promised = folder.files.len() as u64;
        report.classes = folder.class_names.len();
        report.class_names = folder.class_names.clone();
        report.passed_over = folder.passed_over.note("the class folders");
        report.checked = "picture";
        let classes = report.classes;
        (0..folder.files.len())
            .into_par_iter()
            .map(|index| {
                let mut part = Report {
                    labels: vec![0; classes],
                    ..Report::default()
                };
                match folder.read(index) {
                    Ok(bytes) => {
                        part.examples += 1;
                        part.picture(&bytes, folder.labels[index], |reason| Error::PictureFile {
                            file: folder.files[index].clone(),
                            reason,
                        });
                    }
                    Err(error) => part.problem(&error),
                }
                progress(1);
                part
            })
            .collect()
    } else if let Some(archive) = Archive::open(&found.dataset, &found.split, &found.dir)? {
        report.files = archive.files.len();
        report.classes = archive.classes();
        report.checked = "record and label";
        let files = archive.files.par_iter();
        files.map(|file| batch(&archive, file, progress)).collect()
    } else {
        let shards = Shards::open(&found.dataset, &found.split, &found.dir)?;
        report.files = shards.files.len();
        report.promised = shards.lengths.iter().sum();
        report.classes = shards.layout.classes;
        report.checked = "CRC, record and picture";
        (0..shards.files.len())
            .into_par_iter()
            .map(|number| file(&shards, number, progress))
            .collect()
    };
    report.labels = vec![0; report.classes];
    for part in parts {
        report.add(part);
    }
    if report.formats.contains_key(RAW) {
        let published = facts(&found.dataset, &found.split)?.examples;
        report.published = Some(published).filter(|&n| n as u64 != report.promised);
    }
    Ok(report)
}

/// Looks whether labels of class folders mean the same in all splits, as in the first of them.
pub fn compare(reports: &mut [Report]) {
    let mut folders = reports
        .iter_mut()
        .filter(|report| report.dataset == "folder");
    let Some(first) = folders.next() else {
        return;
    };
    for report in folders {
        let names: [&[String]; 2] = [&report.class_names, &first.class_names];
        if let Err(error) = same_classes([&report.split, &first.split], names) {
            report.problem(&error);
        }
    }
}

/// Reads a file of a binary archive.
fn batch(archive: &Archive, path: &Path, progress: &(dyn Fn(u64) + Sync)) -> Report {
    let mut part = Report {
        labels: vec![0; archive.classes()],
        ..Report::default()
    };
    let found = match archive.read(path) {
        Ok(found) => found,
        Err(error) => {
            part.problem(&error);
            return part;
        }
    };
    part.promised = found.begun as u64;
    part.examples = found.labels.len() as u64;
    part.bytes = part.examples * BYTES as u64;
    part.formats.insert(RAW.into(), part.examples);
    part.size([SIZE; 2], [SIZE; 2]);
    progress(part.examples);
    for label in found.labels {
        match label {
            Ok(label) => part.labels[label as usize] += 1,
            Err(error) => part.problem(&error),
        }
    }
    if let Err(error) = found.whole {
        part.problem(&error);
    }
    part
}

/// Reads a shard to its end, or to where nothing can be trusted any more.
fn file(shards: &Shards, number: usize, progress: &(dyn Fn(u64) + Sync)) -> Report {
    let mut part = Report {
        labels: vec![0; shards.layout.classes],
        ..Report::default()
    };
    let path = &shards.files[number];
    let mut reader = match RecordReader::open(path, Some(shards.sizes[number])) {
        Ok(reader) => reader,
        Err(error) => {
            part.problem(&error);
            return part;
        }
    };
    loop {
        let index = reader.index();
        match reader.next() {
            Ok(None) => break,
            Ok(Some(data)) => {
                part.examples += 1;
                if part.features.is_empty()
                    && let Ok(example) = Example::parse(&data)
                {
                    part.features = example
                        .features()
                        .iter()
                        .map(|(key, _)| key.to_string())
                        .collect();
                    part.features.sort();
                }
                let record = RawRecord {
                    shard: number,
                    index,
                    data,
                };
                match shards.parse(&record) {
                    Ok((picture, label)) => {
                        part.picture(picture, label, |reason| Error::Picture {
                            file: path.clone(),
                            record: index,
                            reason,
                        });
                    }
                    Err(error) => part.problem(&error),
                }
            }
            Err(error) => {
                part.problem(&error);
                if !error.spoils_one_example() {
                    return part;
                }
            }
        }
        progress(1);
    }
    let expected = shards.lengths[number];
    if reader.index() as u64 != expected {
        part.problem(&Error::Count {
            file: path.clone(),
            what: "examples",
            found: reader.index() as u64,
            expected,
        });
    }
    part
}
