//! Files of this machine.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;

use super::{Entry, Input};
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

pub(super) fn open(file: &Path) -> Result<BufReader<File>, Error> {
    let input = File::open(file).map_err(|cause| Error::reading(file, cause))?;
    Ok(BufReader::with_capacity(BLOCK, input))
}

pub(super) fn read(file: &Path) -> Result<Vec<u8>, Error> {
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
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        // Through links; one that leads nowhere is a file, whose reading says so.
        let size = match std::fs::metadata(entry.path()) {
            Ok(found) if found.is_dir() => None,
            Ok(found) => Some(found.len()),
            Err(_) => Some(0),
        };
        found.push(Entry { name, size });
    }
    Ok(found)
}
