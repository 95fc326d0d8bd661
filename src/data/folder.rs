//! A folder with a folder of pictures for each class.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::files::{entries, read, summary};
use super::{Error, store};

/// The pictures of a split, by class and name.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) files: Vec<PathBuf>,
    pub(super) labels: Vec<u32>,
    pub(super) class_names: Vec<String>,
    /// Over names and sizes.
    pub(super) fingerprint: String,
}

/// What names of pictures end with.
const ENDINGS: [&str; 4] = [".jpg", ".jpeg", ".jpe", ".png"];

impl Folder {
    /// `dir/SPLIT/CLASS/*`, or `dir/CLASS/*` where there is no folder `dir/SPLIT`. A class is a folder, in the order of the names.
    pub(super) fn open(split: &str, dir: &Path) -> Result<Self, Error> {
        if !dir.is_dir() {
            return Err(Error::DataDirMissing {
                dataset: "folder".into(),
                dir: dir.into(),
            });
        }
        let inner = dir.join(split);
        let root = if inner.is_dir() { &inner } else { dir };
        let mut class_names = entries(root)?;
        class_names.retain(|name| !name.starts_with('.') && root.join(name).is_dir());
        let (mut files, mut labels) = (Vec::new(), Vec::new());
        let mut hash = Sha256::new();
        for (label, class) in class_names.iter().enumerate() {
            for name in entries(&root.join(class))? {
                let lower = name.to_ascii_lowercase();
                if !ENDINGS.iter().any(|ending| lower.ends_with(ending)) {
                    continue;
                }
                let file = root.join(class).join(&name);
                hash.update(format!("{class}/{name} {}\n", store::size(&file)?));
                files.push(file);
                labels.push(label as u32);
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
            labels,
            class_names,
            fingerprint: hash
                .finalize()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
        })
    }

    /// The bytes of a picture.
    pub(super) fn read(&self, index: usize) -> Result<Vec<u8>, Error> {
        read(&self.files[index])
    }
}
