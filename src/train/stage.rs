//! The near side of a run folder in a bucket. Objects are written whole, so that what grows line by line (metrics, events, log) lies on
//! this machine and is sent again when it has grown.

use super::run_dir::{self, Lock};
use crate::data::{self, store};
use crate::places::cache_folder;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// A folder of this machine that stands for one in a bucket.
#[derive(Debug)]
pub(super) struct Stage {
    /// `gs://…`.
    place: PathBuf,
    near: PathBuf,
    _lock: Lock,
    /// Bytes of each file when it was sent: they only grow.
    sent: Mutex<HashMap<String, u64>>,
}

/// The lock's file, and what is kept of a state that could not be sent: the two that are no part of the run.
const OWN: [&str; 2] = [run_dir::LOCK, KEPT];
const KEPT: &str = "unsent";

impl Stage {
    /// Begins with the `files` of the place that are there; what an earlier process of this machine has left is not looked at.
    ///
    /// # Errors
    /// If another process of this machine runs there, the disk refuses, or the bucket.
    pub(super) fn open(place: &Path, files: &[&str]) -> Result<Self, run_dir::Error> {
        let name = Sha256::digest(place.as_os_str().as_encoded_bytes());
        let name: String = name[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let near = folders().join(name);
        let io = run_dir::Error::io;
        fs::create_dir_all(&near).map_err(io("create", &near))?;
        let lock = run_dir::lock(&near).map_err(|error| match error {
            run_dir::Error::InUse { pid, .. } => run_dir::Error::InUse {
                path: place.to_owned(),
                pid,
            },
            error => error,
        })?;
        let stage = Stage {
            place: place.to_owned(),
            near,
            _lock: lock,
            sent: Mutex::default(),
        };
        stage.sweep()?;
        for file in files {
            if let Some(bytes) = run_dir::content(&place.join(file))? {
                let to = stage.near.join(file);
                fs::write(&to, bytes).map_err(io("write", &to))?;
            }
        }
        Ok(stage)
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

    /// Where this process writes.
    pub(super) fn near(&self) -> &Path {
        &self.near
    }

    /// Where a state is kept that could not be sent.
    pub(super) fn kept(&self) -> PathBuf {
        self.near.join(KEPT)
    }

    /// Sends what has changed since it was sent last.
    ///
    /// # Errors
    /// The bucket's.
    pub(super) fn send(&self) -> Result<(), data::Error> {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let mut files = store::below(&self.near)?;
        files.retain(|name| !OWN.iter().any(|own| name.split('/').next() == Some(own)));
        for name in files {
            let bytes = store::read(&self.near.join(&name))?;
            let size = bytes.len() as u64;
            if sent.get(&name) != Some(&size) {
                store::write(&self.place.join(&name), bytes.into())?;
                sent.insert(name, size);
            }
        }
        Ok(())
    }
}

/// The last lines are sent, too, however a run ends.
impl Drop for Stage {
    fn drop(&mut self) {
        match self.send() {
            // What stays is swept by the next start.
            Ok(()) => drop(self.sweep()),
            Err(error) => {
                tracing::warn!("metrics and log of {}: {error}", self.place.display());
            }
        }
    }
}

/// In the cache, or where there is none among temporary files.
fn folders() -> PathBuf {
    let usual = cache_folder().map(|folder| folder.join("runs"));
    let usual = usual.filter(|folder| fs::create_dir_all(folder).is_ok());
    usual.unwrap_or_else(|| std::env::temp_dir().join("simclr-runs"))
}
