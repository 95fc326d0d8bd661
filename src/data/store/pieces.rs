//! A file of which pieces are read, wherever they lie.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::{Input, open};
use crate::data::Error;

/// An open file. Pieces that follow each other come over one connection; before the place where it stands, another begins.
pub(crate) struct Pieces {
    file: PathBuf,
    size: u64,
    /// None after an error, which leaves the place unknown.
    stream: Mutex<Option<Stream>>,
}

struct Stream {
    input: Box<dyn Input>,
    at: u64,
}

impl Pieces {
    /// # Errors
    /// If the file is not there or cannot be read.
    pub(crate) fn open(file: &Path) -> Result<Self, Error> {
        let mut input = open(file, None, None)?;
        let size = input.size().map_err(|cause| Error::reading(file, cause))?;
        Ok(Pieces {
            file: file.into(),
            size: size.unwrap_or(0),
            stream: Mutex::new(Some(Stream { input, at: 0 })),
        })
    }

    /// The file's path.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Bytes of the file when it was opened.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// So many bytes from byte `at` on.
    ///
    /// # Errors
    /// If they cannot be read; [`std::io::ErrorKind::UnexpectedEof`] where the file has become shorter.
    pub(crate) fn read(&self, at: u64, length: usize) -> Result<Vec<u8>, Error> {
        let mut held = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stream = match held.take().filter(|stream| stream.at <= at) {
            Some(stream) => stream,
            None => Stream {
                input: open(&self.file, Some(self.size), None)?,
                at: 0,
            },
        };
        let mut bytes = vec![0; length];
        let read = stream.input.skip(at - stream.at, None);
        read.and_then(|()| stream.input.read_exact(&mut bytes))
            .map_err(|cause| Error::reading(&self.file, cause))?;
        stream.at = at + length as u64;
        *held = Some(stream);
        Ok(bytes)
    }
}

impl std::fmt::Debug for Pieces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pieces")
            .field("file", &self.file)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}
