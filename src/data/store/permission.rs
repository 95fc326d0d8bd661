//! What one may do in a bucket, and as whom: found out by doing it.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::access::{self, Access};
use super::{bucket, entries, open, read, remove, write};
use crate::data::Error;

/// How far folders are followed to an object: `data_dir/NAME/VERSION/…`.
const DEEPEST: usize = 6;
/// Fewer than a run makes, since somebody waits for an answer.
const ATTEMPTS: u32 = 3;
/// And of silence.
const PATIENCE: Duration = Duration::from_secs(5);

/// How the objects are called that are written and deleted; one that stayed is no foreign file.
pub(crate) const DOCTOR: &str = "doctor-";

/// As whom a bucket is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asker {
    /// Without credentials, and why.
    Nobody(String),
    /// By credentials that the environment names or gcloud keeps.
    Named(String),
    /// As the service account of this machine, whose metadata server says which that is.
    Machine,
}

/// As whom the bucket of a place is asked, with little patience from now on.
///
/// # Errors
/// A place that is no bucket's; an account that cannot be had now.
pub(crate) fn asker(place: &Path) -> Result<Asker, Error> {
    let name = bucket::object(place)?.bucket_name().to_string();
    let usual = Access::from_env();
    access::mount(
        &name,
        Access {
            attempts: ATTEMPTS.min(usual.attempts),
            patience: PATIENCE.min(usual.patience),
            ..usual
        },
    );
    let why = bucket::object(place)?.anonymous()?;
    Ok(match (why, access::account()) {
        (Some(why), _) => Asker::Nobody(why),
        (None, Some(account)) => Asker::Named(account),
        (None, None) => Asker::Machine,
    })
}

/// Reads what a folder of a bucket holds, and the beginning of the first object that is found below it, if there is one.
///
/// # Errors
/// What is refused.
pub(crate) fn try_reading(folder: &Path) -> Result<Option<PathBuf>, Error> {
    let mut place = folder.to_path_buf();
    for _ in 0..DEEPEST {
        let found = entries(&place)?;
        let Some(first) = found.iter().find(|entry| !entry.is_dir()).or(found.first()) else {
            return Ok(None);
        };
        place.push(&first.name);
        if first.is_dir() {
            continue;
        }
        let mut byte = [0];
        open(&place, None, None)?
            .read(&mut byte)
            .map_err(|cause| Error::reading(&place, cause))?;
        return Ok(Some(place));
    }
    Ok(None)
}

/// Writes an object of its own into a folder of a bucket, reads it, and deletes it, as a run does with checkpoints.
///
/// # Errors
/// What is refused. An object that may be written and not deleted stays, and the error names it.
pub(crate) fn try_writing(folder: &Path) -> Result<(), Error> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_nanos();
    let object = folder.join(format!("{DOCTOR}{}-{now}", std::process::id()));
    let found = write(&object, "by simclr doctor".into()).and_then(|()| read(&object));
    // Also what is said not to have been written may have been.
    let removed = remove(&object);
    found?;
    removed
}
