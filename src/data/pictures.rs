//! Pictures that a user points at: files, folders, lists of files, record files; decoded and cut to what a network takes.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::decode::decode_into;
use super::example::Example;
use super::find::shard;
use super::folder::{ENDINGS, PassedOver, is_picture};
use super::record::RecordReader;
use super::store::{all_entries, no_file, read};
use crate::augment::ResizeKernel;
use crate::augment::host::{HostResize, evaluated};
use crate::error::Class;

/// Why pictures cannot be had.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error(transparent)]
    Data(#[from] super::Error),
    #[error("`{}` is not there; give a picture, a folder, a list of files (.txt) or record files (.tfrecord)", path.display())]
    NotThere { path: PathBuf },
    #[error("`{}` is {found}, expected a file; give a picture, a folder, a list of files (.txt) or record files (.tfrecord)", path.display())]
    NoFile { path: PathBuf, found: &'static str },
    #[error("line {line} of `{}` names `{named}`, which is {found}; paths count from the list's own folder", list.display())]
    NotListed {
        list: PathBuf,
        line: usize,
        named: String,
        found: &'static str,
    },
    #[error("`{}` holds no picture, expected files that end in {}", path.display(), ENDINGS.join(", "))]
    NonePictured { path: PathBuf },
    #[error("record {record} of `{}` holds no picture: {reason}", path.display())]
    Record {
        path: PathBuf,
        record: usize,
        reason: String,
    },
    #[error("`{name}` cannot be decoded: {reason}; repair it or leave it out")]
    Undecodable { name: String, reason: String },
}

impl Error {
    /// What the caller can do about it.
    pub fn class(&self) -> Class {
        match self {
            Error::Data(error) => error.class(),
            Error::NotThere { .. } | Error::NoFile { .. } | Error::NonePictured { .. } => {
                Class::Usage
            }
            Error::NotListed { .. } | Error::Record { .. } | Error::Undecodable { .. } => {
                Class::Check
            }
        }
    }
}

/// Where a picture is; it is not read yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Picture {
    /// A file.
    File(PathBuf),
    /// A record, by its file and its number in it.
    Record(PathBuf, usize),
}

impl Picture {
    /// Its path, with the number of its record.
    pub fn name(&self) -> String {
        match self {
            Picture::File(path) => path.display().to_string(),
            Picture::Record(path, record) => format!("{}#{record}", path.display()),
        }
    }
}

/// The pictures that paths mean, in order: of a folder all below it by name but what is hidden, of a list (`.txt`) those it names, of a record file
/// (`….tfrecord…`, `SPLIT-00000-of-…`) the feature `image` or `image/encoded` of each record.
///
/// # Errors
/// A path that leads nowhere, or to nothing.
pub fn find(paths: &[PathBuf]) -> Result<Vec<Picture>, Error> {
    let mut found = Vec::new();
    for path in paths {
        let before = found.len();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            let mut passed_over = PassedOver::default();
            walk(path, &mut found, &mut passed_over)?;
            if let Some(note) = passed_over.note(&format!("`{}`", path.display())) {
                tracing::warn!("{note}");
            }
        } else if !path.exists() {
            return Err(Error::NotThere { path: path.clone() });
        } else if let Some(found) = no_file(path) {
            return Err(Error::NoFile {
                path: path.clone(),
                found,
            });
        } else if name.contains(".tfrecord") || shard(&name).is_some() {
            records(path, &mut found)?;
        } else if name.ends_with(".txt") {
            listed(path, &mut found)?;
        } else {
            found.push(Picture::File(path.clone()));
        }
        if found.len() == before {
            return Err(Error::NonePictured { path: path.clone() });
        }
    }
    Ok(found)
}

fn walk(
    folder: &Path,
    found: &mut Vec<Picture>,
    passed_over: &mut PassedOver,
) -> Result<(), Error> {
    for entry in all_entries(folder)? {
        let path = folder.join(&entry.name);
        if is_picture(&entry) {
            found.push(Picture::File(path));
        } else if entry.is_dir() && !entry.is_hidden() && entry.odd.is_none() {
            walk(&path, found, passed_over)?;
        } else {
            passed_over.add(&entry, path);
        }
    }
    Ok(())
}

fn listed(list: &Path, found: &mut Vec<Picture>) -> Result<(), Error> {
    let text = String::from_utf8_lossy(&read(list)?).into_owned();
    let folder = list.parent().unwrap_or(Path::new(""));
    for (number, named) in text.lines().enumerate() {
        let named = named.trim();
        if named.is_empty() {
            continue;
        }
        let path = folder.join(named);
        if !path.is_file() {
            return Err(Error::NotListed {
                list: list.into(),
                line: number + 1,
                named: named.into(),
                found: no_file(&path).unwrap_or(match path.is_dir() {
                    true => "a folder",
                    false => "not there",
                }),
            });
        }
        found.push(Picture::File(path));
    }
    Ok(())
}

fn records(path: &Path, found: &mut Vec<Picture>) -> Result<(), Error> {
    let mut reader = RecordReader::open(path, None)?;
    loop {
        let record = reader.index();
        if !reader.skip()? {
            return Ok(());
        }
        found.push(Picture::Record(path.into(), record));
    }
}

/// Reads pictures in the order in which [`find`] gave them, decodes them and cuts them as evaluation sees them (see [`evaluated`]).
/// Only the pictures of one call are in memory.
pub struct Cutter {
    size: usize,
    resize: HostResize,
    /// Whether pictures are turned as their EXIF data say.
    upright: bool,
    /// The record file that was read last, at its next record.
    open: Option<(PathBuf, RecordReader)>,
}

impl Cutter {
    /// For crops of side `size`; where `upright`, of pictures that are turned as their EXIF data say.
    pub fn new(size: usize, kernel: ResizeKernel, upright: bool) -> Self {
        Cutter {
            size,
            resize: HostResize::new(kernel, size),
            upright,
            open: None,
        }
    }

    /// The next pictures: u8 `[pictures, size, size, 3]`.
    ///
    /// # Errors
    /// The first picture that cannot be read or decoded.
    pub fn cut(&mut self, pictures: &[Picture]) -> Result<Vec<u8>, Error> {
        let mut records = Vec::with_capacity(pictures.len());
        for picture in pictures {
            records.push(match picture {
                Picture::File(_) => None,
                Picture::Record(path, record) => Some(self.record(path, *record)?),
            });
        }
        let (size, resize, upright) = (self.size, &self.resize, self.upright);
        let cut: Vec<Vec<u8>> = pictures
            .par_iter()
            .zip(records)
            .map(|(picture, record)| {
                let bytes = match (picture, record) {
                    (_, Some(bytes)) => bytes,
                    (Picture::File(path) | Picture::Record(path, _), None) => read(path)?,
                };
                let mut image = Vec::new();
                let [height, width] =
                    decode_into(&bytes, upright, &mut image).map_err(|reason| {
                        Error::Undecodable {
                            name: picture.name(),
                            reason,
                        }
                    })?;
                let area = evaluated(height, width, size);
                let mut out = vec![0; size * size * 3];
                resize.crop(&image, width, area, &mut out);
                Ok(out)
            })
            .collect::<Result<_, Error>>()?;
        Ok(cut.concat())
    }

    /// The encoded picture of a record, which is the next of its file or a later one.
    fn record(&mut self, path: &Path, record: usize) -> Result<Vec<u8>, Error> {
        let failed = |reason: String| Error::Record {
            path: path.into(),
            record,
            reason,
        };
        let again =
            |(open, reader): &(PathBuf, RecordReader)| open == path && reader.index() <= record;
        let reader = match self.open.take().filter(again) {
            Some((_, reader)) => reader,
            None => RecordReader::open(path, None)?,
        };
        let (_, reader) = self.open.insert((path.into(), reader));
        while reader.index() < record && reader.skip()? {}
        let Some(bytes) = reader.next()? else {
            return Err(failed("the file ends before it".into()));
        };
        let example = Example::parse(&bytes).map_err(|error| failed(error.to_string()))?;
        let key = match example.get("image") {
            Some(_) => "image",
            None => "image/encoded",
        };
        let picture = example.bytes(key);
        Ok(picture.map_err(|error| failed(error.to_string()))?.to_vec())
    }
}
