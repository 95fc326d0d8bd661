//! A folder with a folder of pictures for each class.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::Error;
use super::list::{List, Missing};
use super::store::{Entry, Odd, all_entries, is_dir, read, summary};

/// The pictures of a split, by class and name.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) files: Vec<PathBuf>,
    /// Bytes of all of them.
    pub(super) bytes: u64,
    pub(super) labels: Vec<u32>,
    pub(super) class_names: Vec<String>,
    pub(super) passed_over: PassedOver,
    /// Over names and sizes.
    pub(super) fingerprint: String,
}

/// What lies in folders of pictures and is not read, but for what is hidden: by their names, by what they are, by the coding of
/// their names; of each how many and the first.
#[derive(Debug, Default)]
pub(super) struct PassedOver([(usize, Option<PathBuf>); 3]);

impl PassedOver {
    pub(super) fn add(&mut self, entry: &Entry, file: PathBuf) {
        if entry.is_hidden() {
            return;
        }
        let reason = match entry.odd {
            None => 0,
            Some(Odd::NoFile) => 1,
            Some(Odd::Name) => 2,
        };
        let (count, first) = &mut self.0[reason];
        *count += 1;
        first.get_or_insert(file);
    }

    /// A sentence about it, which calls their place so; none if there is nothing.
    pub(super) fn note(&self, place: &str) -> Option<String> {
        let endings = ENDINGS.join(", ");
        let words = [
            [
                format!("file or folder whose name ends in none of {endings}"),
                format!("files or folders whose names end in none of {endings}"),
            ],
            [
                "that is no file but a fifo, a socket or a device".into(),
                "that are no files but fifos, sockets or devices".into(),
            ],
            [
                "whose name is not UTF-8".into(),
                "whose names are not UTF-8".into(),
            ],
        ];
        let parts = self
            .0
            .iter()
            .zip(&words)
            .filter_map(|(found, [one, many])| {
                let (count, first) = (found.0, found.1.as_ref()?.display());
                Some(match count {
                    1 => format!("1 {one}: {first}"),
                    _ => format!("{count} {many}, the first {first}"),
                })
            });
        let parts: Vec<String> = parts.collect();
        (!parts.is_empty()).then(|| format!("passed over in {place}: {}", parts.join("; ")))
    }
}

/// What names of pictures end with.
pub(super) const ENDINGS: [&str; 4] = [".jpg", ".jpeg", ".jpe", ".png"];

/// Whether it is a picture by its name.
pub(super) fn is_picture(entry: &Entry) -> bool {
    let lower = entry.name.to_ascii_lowercase();
    let file = !entry.is_dir() && !entry.is_hidden() && entry.odd.is_none();
    file && ENDINGS.iter().any(|ending| lower.ends_with(ending))
}

impl Folder {
    /// `dir/SPLIT/CLASS/*`, or `dir/CLASS/*` where there is no folder `dir/SPLIT`. A class is a folder, in the order of the names.
    pub(super) fn open(split: &str, dir: &Path) -> Result<Self, Error> {
        if !is_dir(dir)? {
            return Err(Error::DataDirMissing {
                dataset: "folder".into(),
                dir: dir.into(),
            });
        }
        let inner = dir.join(split);
        let root = if is_dir(&inner)? { &inner } else { dir };
        let mut class_names = Vec::new();
        for entry in all_entries(root)? {
            if !entry.is_dir() || entry.is_hidden() {
                continue;
            }
            if entry.odd.is_some() {
                return Err(Error::ClassFolderName {
                    dir: root.join(entry.name),
                });
            }
            class_names.push(entry.name);
        }
        // Side by side: a bucket takes its time to answer.
        let folders: Vec<Vec<Entry>> = class_names
            .par_iter()
            .map(|class| all_entries(&root.join(class)))
            .collect::<Result<_, _>>()?;
        let (mut files, mut labels) = (Vec::new(), Vec::new());
        let mut hash = Sha256::new();
        let mut bytes = 0;
        let mut passed_over = PassedOver::default();
        for (label, (class, entries)) in class_names.iter().zip(folders).enumerate() {
            for entry in entries {
                let file = root.join(class).join(&entry.name);
                match entry.size {
                    Some(size) if is_picture(&entry) => {
                        hash.update(format!("{class}/{} {size}\n", entry.name));
                        files.push(file);
                        bytes += size;
                        labels.push(label as u32);
                    }
                    _ => passed_over.add(&entry, file),
                }
            }
        }
        if files.is_empty() {
            return Err(Error::NotFound {
                dataset: "folder".into(),
                split: split.into(),
                dir: root.into(),
                found: summary(root)?,
                expected: format!("folders of pictures ({})", ENDINGS.join(", ")),
            });
        }
        Ok(Folder {
            files,
            bytes,
            labels,
            class_names,
            passed_over,
            fingerprint: hash
                .finalize()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
        })
    }

    /// What a list calls a picture: its class and file; without classes its file.
    pub(super) fn name(&self, index: usize) -> String {
        let file = self.files[index].file_name().unwrap_or_default().display();
        match self.class_names.get(self.labels[index] as usize) {
            Some(class) => format!("{class}/{file}"),
            None => file.to_string(),
        }
    }

    /// Only the pictures on a list, and what of the list is not there.
    pub(super) fn only(
        mut self,
        list: &List,
        split: &str,
    ) -> Result<(Self, Option<Missing>), Error> {
        let names: Vec<String> = (0..self.files.len())
            .map(|index| self.name(index))
            .collect();
        let missing = Missing::of(list, names.iter().map(String::as_str))?;
        let listed = |index: &usize| list.names.contains(&names[*index]);
        let chosen: Vec<usize> = (0..names.len()).filter(listed).collect();
        if chosen.is_empty() {
            return Err(list.none_of(split, names.first().map(String::as_str)));
        }
        self.labels = chosen.iter().map(|&index| self.labels[index]).collect();
        self.files = chosen
            .iter()
            .map(|&index| self.files[index].clone())
            .collect();
        self.fingerprint = list.fingerprint(&self.fingerprint);
        Ok((self, missing))
    }

    /// The bytes of a picture.
    pub(super) fn read(&self, index: usize) -> Result<Vec<u8>, Error> {
        read(&self.files[index])
    }
}
