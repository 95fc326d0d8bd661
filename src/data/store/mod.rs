//! Where bytes lie: one interface over local files and objects of Google Cloud Storage.
//!
//! A place is a path; one that begins with `gs://BUCKET/` is an object, or what has it as the beginning of its name, like a folder.
//! Reading is told apart here and nowhere else.

mod access;
mod bucket;
mod local;
mod permission;
mod pieces;
mod trials;

use std::io::{self, Read};
use std::path::Path;

use bytes::Bytes;

use super::Error;
pub use access::{Access, mount};
pub(crate) use permission::{Asker, DOCTOR, asker, try_reading, try_writing};
pub(crate) use pieces::Pieces;

/// Bytes of a file from its beginning on.
pub(super) trait Input: Read + Send {
    /// Steps over bytes, without reading them where the place allows it. `then` is how many are read after them, where that is known:
    /// no more are fetched ahead.
    fn skip(&mut self, bytes: u64, then: Option<u64>) -> io::Result<()>;

    /// Bytes of the file; none where only reading tells. Waits for the answer of a bucket.
    fn size(&mut self) -> io::Result<Option<u64>>;
}

/// What a folder holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// Bytes of a file; none of a folder.
    pub(crate) size: Option<u64>,
    /// Why it is nobody's data, if it is not.
    pub(crate) odd: Option<Odd>,
}

/// Why something in a folder is nobody's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Odd {
    /// It is a fifo or the like, of which reading may never end.
    NoFile,
    /// Its name is not UTF-8; it is given with replacement characters.
    Name,
}

impl Entry {
    pub(super) fn is_dir(&self) -> bool {
        self.size.is_none()
    }

    /// Hidden files are the system's.
    pub(super) fn is_hidden(&self) -> bool {
        self.name.starts_with('.')
    }
}

/// Opens a file, and begins to read ahead where that takes time; `size`, where it is known already, must be its size then. `most` are the
/// bytes to fetch ahead of the first [`Input::skip`]; none: as many as it has.
pub(super) fn open(
    file: &Path,
    size: Option<u64>,
    most: Option<u64>,
) -> Result<Box<dyn Input>, Error> {
    match bucket::address(file)? {
        Some(address) => Ok(Box::new(address.open(size, most)?)),
        None => Ok(Box::new(local::open(file)?)),
    }
}

/// The whole content of a file.
pub(crate) fn read(file: &Path) -> Result<Vec<u8>, Error> {
    match bucket::address(file)? {
        Some(address) => address.read(),
        None => local::read(file),
    }
}

/// The whole content of a file, if there is one.
pub(crate) fn read_if_there(file: &Path) -> Result<Option<Vec<u8>>, Error> {
    match is_file(file)? {
        true => read(file).map(Some),
        false => Ok(None),
    }
}

/// Writes an object of a bucket, which appears whole or not at all.
pub(crate) fn write(object: &Path, bytes: Bytes) -> Result<(), Error> {
    bucket::object(object)?.write(bytes)
}

/// Deletes an object of a bucket; it is no error if there is none.
pub(crate) fn remove(object: &Path) -> Result<(), Error> {
    bucket::object(object)?.remove()
}

/// What is in a folder, sorted by name; nothing if it is no folder. Names that are not UTF-8 are nobody's data files and left out.
pub(crate) fn entries(dir: &Path) -> Result<Vec<Entry>, Error> {
    let mut found = all_entries(dir)?;
    found.retain(|entry| entry.odd != Some(Odd::Name));
    Ok(found)
}

/// The same with those whose names are not UTF-8, for whoever says what is left out.
pub(super) fn all_entries(dir: &Path) -> Result<Vec<Entry>, Error> {
    let mut found = match bucket::address(dir)? {
        Some(address) => address.entries()?,
        None => local::entries(dir)?,
    };
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// All files below a folder, by their names within it.
pub(crate) fn below(dir: &Path) -> Result<Vec<String>, Error> {
    if let Some(address) = bucket::address(dir)? {
        return address.below();
    }
    let mut found = Vec::new();
    for entry in entries(dir)? {
        match entry.is_dir() {
            true => {
                let inner = below(&dir.join(&entry.name))?;
                found.extend(inner.iter().map(|name| format!("{}/{name}", entry.name)));
            }
            false => found.push(entry.name),
        }
    }
    Ok(found)
}

/// Whether there is a folder of this name; in a bucket, whether anything lies below it.
pub(crate) fn is_dir(path: &Path) -> Result<bool, Error> {
    match bucket::address(path)? {
        Some(address) => Ok(!address.entries()?.is_empty()),
        None => Ok(path.is_dir()),
    }
}

/// Whether there is a file of this name.
pub(crate) fn is_file(path: &Path) -> Result<bool, Error> {
    match bucket::address(path)? {
        Some(address) => address.exists(),
        None => Ok(path.is_file()),
    }
}

/// What a path leads to that is neither a file nor a folder, in words; none where it leads nowhere.
pub(super) fn no_file(path: &Path) -> Option<&'static str> {
    local::no_file(std::fs::metadata(path).ok()?.file_type())
}

/// The one way of writing a place in a bucket, without slashes too many; another path as it is.
pub(crate) fn normal(path: &Path) -> Result<String, Error> {
    Ok(match bucket::address(path)? {
        Some(address) => address.place(),
        None => path.display().to_string(),
    })
}

/// Whether a path means an object of a bucket.
pub(crate) fn is_remote(path: &Path) -> bool {
    path.as_os_str()
        .as_encoded_bytes()
        .starts_with(bucket::SCHEME.as_bytes())
}

/// The content of a folder in a few words for a message.
pub(crate) fn summary(dir: &Path) -> Result<String, Error> {
    const SHOWN: usize = 6;
    let all = all_entries(dir)?;
    let mut names: Vec<String> = all.into_iter().map(|entry| entry.name).collect();
    // Hidden files are the system's.
    let hidden = |name: &String| name.starts_with('.');
    if !names.iter().all(hidden) {
        names.retain(|name| !hidden(name));
    }
    Ok(match names.len() {
        0 => "nothing".into(),
        n if n <= SHOWN => names.join(", "),
        n => format!("{} and {} more", names[..SHOWN].join(", "), n - SHOWN),
    })
}
