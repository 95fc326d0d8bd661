//! A folder with a folder of pictures for each class.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::Error;
use super::list::{List, Missing};
use super::store::{Entry, entries, is_dir, read, summary};

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

/// What lies in class folders and is no picture by its name.
#[derive(Debug, Default)]
pub(super) struct PassedOver {
    count: usize,
    first: Option<PathBuf>,
}

impl PassedOver {
    fn add(&mut self, file: PathBuf) {
        self.count += 1;
        self.first.get_or_insert(file);
    }

    /// A sentence about it; none if there is nothing.
    pub(super) fn note(&self) -> Option<String> {
        let first = self.first.as_ref()?;
        Some(format!(
            "{} files or folders in the class folders are passed over, since their names end in none of {}; the first is {}",
            self.count,
            ENDINGS.join(", "),
            first.display()
        ))
    }
}

/// What names of pictures end with.
const ENDINGS: [&str; 4] = [".jpg", ".jpeg", ".jpe", ".png"];

/// Whether it is a picture by its name.
pub(super) fn is_picture(entry: &Entry) -> bool {
    let lower = entry.name.to_ascii_lowercase();
    !entry.is_dir() && ENDINGS.iter().any(|ending| lower.ends_with(ending))
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
        let class_names: Vec<String> = entries(root)?
            .into_iter()
            .filter(|entry| entry.is_dir() && !entry.name.starts_with('.'))
            .map(|entry| entry.name)
            .collect();
        // Side by side: a bucket takes its time to answer.
        let folders: Vec<Vec<Entry>> = class_names
            .par_iter()
            .map(|class| entries(&root.join(class)))
            .collect::<Result<_, _>>()?;
        let (mut files, mut labels) = (Vec::new(), Vec::new());
        let mut hash = Sha256::new();
        let mut bytes = 0;
        let mut passed_over = PassedOver::default();
        for (label, (class, entries)) in class_names.iter().zip(folders).enumerate() {
            for entry in entries {
                let picture = is_picture(&entry);
                let Entry { name, size } = entry;
                let file = root.join(class).join(&name);
                match size {
                    Some(size) if picture => {
                        hash.update(format!("{class}/{name} {size}\n"));
                        files.push(file);
                        bytes += size;
                        labels.push(label as u32);
                    }
                    // Hidden files are the system's.
                    _ if name.starts_with('.') => {}
                    _ => passed_over.add(file),
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
