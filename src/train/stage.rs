//! The near side of a run folder in a bucket. Objects are written whole, so that what grows line by line (metrics, events, log) lies on
//! this machine and is sent again when it has grown.

use super::run_dir::{self, Lock};
use super::writer::{self, Writer};
use crate::data::{self, store};
use crate::places::cache_folder;
use crate::report::{disk, log_file, metrics};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A folder of this machine that stands for one in a bucket.
#[derive(Debug)]
pub(super) struct Stage {
    /// `gs://…`.
    place: PathBuf,
    near: PathBuf,
    _lock: Lock,
    writer: Writer,
    sent: Mutex<Sent>,
}

/// What the bucket has.
#[derive(Debug, Default)]
struct Sent {
    /// SHA-256 of each file.
    files: HashMap<String, Vec<u8>>,
    /// What lay there of checkpoints when this process began.
    checkpoints: Vec<String>,
    /// What lay on this machine then.
    near: Option<Vec<String>>,
    standing: Standing,
    /// Whether the end sends, too: not before all was fetched, so that a start refused before changes nothing, nor again what has just
    /// failed.
    at_end: bool,
}

/// What a process may send.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Its log, if nobody has written to that meanwhile: it has not entered yet, and another run may live there.
    #[default]
    Outside,
    /// Everything, as long as no other enters.
    Entered,
    /// Everything: it does no harm to a run that trains.
    Shared,
    /// Nothing: another has entered.
    Displaced,
}

/// The lock's file, and what is kept of a state that could not be sent: the two that are no part of the run.
const OWN: [&str; 2] = [run_dir::LOCK, KEPT];
const KEPT: &str = "unsent";

impl Stage {
    /// Takes the folder for this process. Nothing is read or written in the bucket.
    ///
    /// # Errors
    /// If another process of this machine runs there, or the disk refuses.
    pub(super) fn open(place: &Path) -> Result<Self, run_dir::Error> {
        // However the place is written, it is one.
        let name = Sha256::digest(store::normal(place)?);
        let name: String = name[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let near = folders().join(name);
        fs::create_dir_all(&near).map_err(run_dir::Error::io("create", &near))?;
        let lock = run_dir::lock(&near).map_err(|error| match error {
            run_dir::Error::InUse { by, .. } => run_dir::Error::InUse {
                path: place.to_owned(),
                by,
            },
            error => error,
        })?;
        Ok(Stage {
            place: place.to_owned(),
            near,
            _lock: lock,
            writer: Writer::new(),
            sent: Mutex::default(),
        })
    }

    /// Begins with the `files` of the place that are there, and with what an earlier process of this machine could not send of them or
    /// beside them. A place with nothing in it begins with nothing.
    ///
    /// # Errors
    /// If the disk refuses, or the bucket.
    pub(super) fn fetch(&self, files: &[&str]) -> Result<(), run_dir::Error> {
        // First, so that what is fetched belongs to these or to later ones.
        let checkpoints = self.checkpoints()?;
        if store::entries(&self.place)?.is_empty() {
            self.sweep()?;
        }
        let mut names = self.files()?;
        names.extend(files.iter().map(|file| file.to_string()));
        names.sort();
        names.dedup();
        let mut sent = self.sent();
        for name in names {
            let near = self.near.join(&name);
            let here = run_dir::content(&near)?;
            let there = run_dir::content(&self.place.join(&name))?;
            let Some(there) = there else {
                continue;
            };
            if !here.is_some_and(|here| goes_on(&name, &there, &here)) {
                disk::replace(&near, &there).map_err(run_dir::Error::io("write", &near))?;
            }
            sent.files.insert(name, hash(&there));
        }
        (sent.checkpoints, sent.at_end) = (checkpoints, true);
        sent.near = Some(self.files()?);
        Ok(())
    }

    fn checkpoints(&self) -> Result<Vec<String>, data::Error> {
        store::below(&run_dir::checkpoints(&self.place))
    }

    /// Makes this process the one that writes there, as [`super::run_dir::RunDir::enter`].
    pub(super) fn enter(&self) -> Result<Option<String>, run_dir::Error> {
        self.give_up();
        let before = self.sent().checkpoints.clone();
        if self
            .checkpoints()?
            .iter()
            .any(|name| !before.contains(name))
        {
            let named = writer::found(&self.place)?;
            let name = named.map_or("another process".to_owned(), |found| found.to_string());
            return Err(run_dir::Error::InUse {
                path: self.place.clone(),
                by: format!("{name}: a checkpoint has appeared since this one began"),
            });
        }
        let before = self.writer.enter(&self.place)?;
        let mut sent = self.sent();
        (sent.standing, sent.at_end) = (Standing::Entered, true);
        Ok(before.map(|before| {
            format!(
                "{before} wrote to {} before; if it still runs, it stops when it next saves",
                self.place.display()
            )
        }))
    }

    /// # Errors
    /// If this process has entered and another one after it, or the bucket refuses.
    pub(super) fn check(&self) -> Result<(), run_dir::Error> {
        let mut sent = self.sent();
        if let Standing::Outside | Standing::Shared = sent.standing {
            return Ok(());
        }
        let found = self.writer.check(&self.place);
        if let Err(run_dir::Error::TakenOver { .. }) = found {
            sent.standing = Standing::Displaced;
        }
        found
    }

    /// Sends everything from now on without entering: for what does no harm to another that writes there.
    pub(super) fn share(&self) {
        self.sent().standing = Standing::Shared;
    }

    fn sent(&self) -> MutexGuard<'_, Sent> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be in the bucket, by its names there.
    fn files(&self) -> Result<Vec<String>, data::Error> {
        let mut files = store::below(&self.near)?;
        files.retain(|name| {
            let first = name.split('/').next().unwrap_or_default();
            !OWN.contains(&first) && !first.starts_with(disk::TEMPORARY)
        });
        Ok(files)
    }

    /// Deletes all but what is its own.
    fn sweep(&self) -> Result<(), run_dir::Error> {
        let io = run_dir::Error::io;
        for entry in fs::read_dir(&self.near).map_err(io("read", &self.near))? {
            let entry = entry.map_err(io("read", &self.near))?;
            let path = entry.path();
            if OWN.iter().any(|own| entry.file_name() == *own) {
                continue;
            }
            let removed = match path.is_dir() {
                true => fs::remove_dir_all(&path),
                false => fs::remove_file(&path),
            };
            removed.map_err(io("remove", &path))?;
        }
        Ok(())
    }

    /// Deletes what a process that never entered has added, since its curves are of no run; and its log, once the bucket has it.
    fn forget(&self) -> Result<(), run_dir::Error> {
        let sent = self.sent();
        let Some(before) = &sent.near else {
            return Ok(());
        };
        for name in self.files()? {
            let path = self.near.join(&name);
            let logged = name == log_file::FILE && {
                let bytes = store::read(&path)?;
                sent.files.get(&name) == Some(&hash(&bytes))
            };
            if logged || !before.contains(&name) {
                fs::remove_file(&path).map_err(run_dir::Error::io("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Where this process writes.
    pub(super) fn near(&self) -> &Path {
        &self.near
    }

    /// Where a state is kept that could not be sent.
    pub(super) fn kept(&self) -> PathBuf {
        self.near.join(KEPT)
    }

    /// Whether the end sends what has changed until then.
    pub(super) fn sends_at_end(&self) -> bool {
        self.sent().at_end
    }

    /// Leaves what has not been sent to the next start: the bucket takes nothing now.
    pub(super) fn give_up(&self) {
        self.sent().at_end = false;
    }

    /// Sends what has changed since it was sent last.
    ///
    /// # Errors
    /// As of [`Self::check`].
    pub(super) fn send(&self) -> Result<(), run_dir::Error> {
        self.give_up();
        self.check()?;
        let mut sent = self.sent();
        for name in self.files()? {
            let bytes = store::read(&self.near.join(&name))?;
            let now = hash(&bytes);
            let known = sent.files.get(&name);
            if known == Some(&now) {
                continue;
            }
            let place = self.place.join(&name);
            if sent.standing == Standing::Outside {
                if name != log_file::FILE {
                    continue;
                }
                let there = run_dir::content(&place)?;
                if there.map(|bytes| hash(&bytes)).as_ref() != known {
                    continue;
                }
            }
            store::write(&place, bytes.into())?;
            sent.files.insert(name, now);
        }
        sent.at_end = true;
        Ok(())
    }
}

/// The last lines are sent, too, however a run ends. What stays here goes on with the next start.
impl Drop for Stage {
    fn drop(&mut self) {
        let sent = self.sends_at_end().then(|| self.send());
        if let Some(Err(error)) = &sent {
            tracing::warn!("metrics and log of {}: {error}", self.place.display());
        }
        let standing = self.sent().standing;
        let swept = match standing {
            Standing::Outside => self.forget(),
            Standing::Displaced => self.sweep(),
            Standing::Entered | Standing::Shared if matches!(sent, Some(Ok(()))) => self.sweep(),
            Standing::Entered | Standing::Shared => Ok(()),
        };
        if let Err(error) = swept {
            tracing::debug!("{error}");
        }
    }
}

fn hash(bytes: &[u8]) -> Vec<u8> {
    Sha256::digest(bytes).to_vec()
}

/// Whether a file of this machine is the bucket's with more at its end.
fn goes_on(name: &str, there: &[u8], here: &[u8]) -> bool {
    let line_end = |bytes: &[u8]| bytes.iter().rposition(|&byte| byte == b'\n');
    let settled = match name.rsplit('/').next() {
        // Numbers that came later may have joined the last line.
        Some(metrics::FILE) => {
            let last = line_end(there).unwrap_or(0);
            &there[..line_end(&there[..last]).map_or(0, |end| end + 1)]
        }
        _ => there,
    };
    here.len() >= there.len() && here.starts_with(settled)
}

/// In the cache, or where there is none among temporary files, apart from those of other users.
fn folders() -> PathBuf {
    let usual = cache_folder().map(|folder| folder.join("runs"));
    let usual = usual.filter(|folder| fs::create_dir_all(folder).is_ok());
    usual.unwrap_or_else(|| {
        let user = fs::metadata("/proc/self").map_or(0, |own| own.uid());
        std::env::temp_dir().join(format!("simclr-runs-{user}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_machine_has_more_of_is_kept() {
        assert!(goes_on("log.txt", b"one\n", b"one\ntwo\n"));
        assert!(goes_on("log.txt", b"one\n", b"one\n"));
        assert!(!goes_on("log.txt", b"one\ntwo\n", b"one\n"));
        assert!(!goes_on("log.txt", b"one\n", b"eno\ntwo\n"));
        let there = b"{\"step\":1}\n{\"step\":2}\n";
        let joined = b"{\"step\":1}\n{\"knn\":3,\"step\":2}\n";
        assert!(goes_on(metrics::FILE, there, joined));
        assert!(!goes_on("log.txt", there, joined));
        let other = b"{\"step\":5}\n{\"knn\":3,\"step\":2}\n";
        assert!(!goes_on(metrics::FILE, there, other));
    }
}
