//! Where the bytes of data sets lie.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use super::Error;

/// Bytes of a file from its beginning on.
pub(super) trait Input: Read + Send {
    /// Steps over bytes without reading them, where the place allows it.
    fn skip(&mut self, bytes: u64) -> io::Result<()>;
}

/// Read at a time; small, since whoever counts records steps over all but their headers. Larger reads go past the buffer.
const BLOCK: usize = 1 << 13;

impl Input for BufReader<File> {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        // At most the size of a file, which the system keeps in an i64.
        self.seek_relative(bytes as i64)
    }
}

/// Opens a file; with its size in bytes.
pub(super) fn open(file: &Path) -> Result<(Box<dyn Input>, u64), Error> {
    let failed = |cause| Error::Read {
        file: file.into(),
        cause,
    };
    let input = File::open(file).map_err(failed)?;
    let size = input.metadata().map_err(failed)?.len();
    Ok((Box::new(BufReader::with_capacity(BLOCK, input)), size))
}

/// Bytes of a file.
pub(super) fn size(file: &Path) -> Result<u64, Error> {
    std::fs::metadata(file)
        .map(|found| found.len())
        .map_err(|cause| Error::Read {
            file: file.into(),
            cause,
        })
}

/// Whether there is a file of this name.
pub(super) fn exists(file: &Path) -> bool {
    file.is_file()
}
