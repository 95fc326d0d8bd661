//! New folders that are whole or not there.

use super::Error;
use crate::data::store;
use crate::report::disk;
use std::fs;
use std::io;
use std::path::Path;

/// Refuses a folder that holds something, before any work is done for it.
pub(super) fn check_new(out: &Path) -> Result<(), Error> {
    if store::is_remote(out) {
        return Err(Error::Remote {
            path: out.to_owned(),
        });
    }
    let taken = match fs::read_dir(out) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        // The path itself is no folder, or a part of the way there is none.
        Err(error)
            if error.kind() == io::ErrorKind::NotADirectory && out.symlink_metadata().is_ok() =>
        {
            true
        }
        Err(error) => return Err(Error::io("read", out)(error)),
    };
    if taken {
        return Err(Error::Taken {
            path: out.to_owned(),
        });
    }
    Ok(())
}

/// Makes `out` (new or empty): `fill` gets a folder beside it, which is renamed when it is full. On an error nothing is left.
pub(super) fn make<T>(
    out: &Path,
    fill: impl FnOnce(&Path) -> Result<T, Error>,
) -> Result<T, Error> {
    check_new(out)?;
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    let temporary = disk::parent(out).join(format!("{}{name}", disk::TEMPORARY));
    let made = (|| {
        if temporary.exists() {
            fs::remove_dir_all(&temporary).map_err(Error::io("remove", &temporary))?;
        }
        fs::create_dir_all(&temporary).map_err(Error::io("create", &temporary))?;
        let result = fill(&temporary)?;
        if out.is_dir() {
            fs::remove_dir(out).map_err(Error::io("replace", out))?;
        }
        fs::rename(&temporary, out).map_err(Error::io("rename to", out))?;
        Ok(result)
    })();
    if made.is_err() {
        let _ = fs::remove_dir_all(&temporary); // the first error is the one to tell
    }
    made
}

/// Writes a file of a new folder.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    disk::write_new(path, bytes).map_err(Error::io("write", path))
}
