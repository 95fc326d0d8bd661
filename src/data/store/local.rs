//! Files of this machine.

use std::fs::{File, FileType};
use std::io::{self, BufReader};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use super::{Entry, Input, Odd};
use crate::data::Error;

/// Read at a time; small, since whoever counts records steps over all but their headers. Larger reads go past the buffer.
const BLOCK: usize = 1 << 13;

impl Input for BufReader<File> {
    fn skip(&mut self, bytes: u64, _: Option<u64>) -> io::Result<()> {
        // At most the size of a file, which the system keeps in an i64.
        self.seek_relative(bytes as i64)
    }

    fn size(&mut self) -> io::Result<Option<u64>> {
        Ok(Some(self.get_ref().metadata()?.len()))
    }
}

/// What is neither a file nor a folder, in words.
pub(super) fn no_file(kind: FileType) -> Option<&'static str> {
    if kind.is_file() || kind.is_dir() {
        None
    } else if kind.is_fifo() {
        Some("a fifo")
    } else if kind.is_socket() {
        Some("a socket")
    } else {
        Some("a device")
    }
}

/// Refuses what may never end, before it is opened: a fifo waits there for whoever writes.
fn refuse_no_file(file: &Path) -> Result<(), Error> {
    match super::no_file(file) {
        Some(found) => Err(Error::NoFile {
            file: file.into(),
            found,
        }),
        None => Ok(()),
    }
}

pub(super) fn open(file: &Path) -> Result<BufReader<File>, Error> {
    refuse_no_file(file)?;
    let input = File::open(file).map_err(|cause| Error::reading(file, cause))?;
    Ok(BufReader::with_capacity(BLOCK, input))
}

pub(super) fn read(file: &Path) -> Result<Vec<u8>, Error> {
    refuse_no_file(file)?;
    std::fs::read(file).map_err(|cause| Error::reading(file, cause))
}

pub(super) fn entries(dir: &Path) -> Result<Vec<Entry>, Error> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let failed = |cause| Error::reading(dir, cause);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        // Through links; one that leads nowhere is a file, whose reading says so.
        let (size, kind) = match std::fs::metadata(entry.path()) {
            Ok(found) if found.is_dir() => (None, None),
            Ok(found) => (Some(found.len()), no_file(found.file_type())),
            Err(_) => (Some(0), None),
        };
        let (name, odd) = match entry.file_name().into_string() {
            Ok(name) => (name, kind.map(|_| Odd::NoFile)),
            Err(name) => (name.to_string_lossy().into_owned(), Some(Odd::Name)),
        };
        found.push(Entry { name, size, odd });
    }
    Ok(found)
}
