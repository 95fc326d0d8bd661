//! Checkpoints: the whole state of a run in a folder that is complete or not there.
//!
//! ```text
//! checkpoints/
//!   step-00000100/  state.safetensors  manifest.json
//!   step-00000120/  state.safetensors  manifest.json
//! ```
//!
//! A checkpoint is written under another name in the same folder, forced to the disk, and renamed; the rename is
//! forced to the disk as well. So at every moment, and after any death of the process, every `step-…` is whole.
//! In a bucket, which has no renames, the manifest is written last, and a `step-…` without one is none.
//! The manifest holds the SHA-256 of the state, and the state repeats the manifest, so that damage to either shows.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::data::store;
use crate::report::disk;

mod error;
mod remote;

pub use error::{Error, TensorMismatch};
pub use safetensors::Dtype;

/// The version of the folder's layout; another one is refused.
pub const FORMAT_VERSION: u32 = 1;

const MANIFEST: &str = "manifest.json";
const STATE: &str = "state.safetensors";
const PREFIX: &str = "step-";
/// Where the state repeats the manifest: the one key of the safetensors metadata.
const METADATA_KEY: &str = "simclr";

/// A named array of the state.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Unique in a checkpoint.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions, outermost first; none for a scalar.
    pub dims: Vec<usize>,
    /// Elements in row-major order, little-endian.
    pub bytes: Vec<u8>,
}

/// What an array of the state has to look like.
#[derive(Debug, Clone, PartialEq)]
pub struct ArraySpec {
    /// Unique in a checkpoint.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions, outermost first.
    pub dims: Vec<usize>,
}

/// What a checkpoint knows about its run, beside the arrays.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Optimizer steps done.
    pub step: u64,
    /// Passes over the training set done; for people, the step decides.
    pub epoch: f64,
    /// Examples taken from the order of the data so far.
    pub data_position: u64,
    /// The seed of all randomness.
    pub seed: u64,
    /// Hash of the module that computed the steps.
    pub module_hash: String,
    /// Hash of the same module as it was compiled, after the passes of the platform, with the plugin's version and the compiler's options:
    /// with another one, numbers may differ in their last digits. Empty where it is not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub compiled_hash: String,
    /// The keys and values of the configuration that decide what is trained.
    pub config: Vec<(String, String)>,
    /// The whole resolved configuration.
    pub config_yaml: String,
    /// Names of the classes that its classifier tells apart, where it has one and they have names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub class_names: Vec<String>,
}

/// With which the hash of a module begins that another program's was.
pub const IMPORTED: &str = "imported from ";

impl Manifest {
    /// Whether `simclr import` made the checkpoint, whose configuration then tells the network, not how it was trained.
    pub fn imported(&self) -> bool {
        self.module_hash.starts_with(IMPORTED)
    }
}

/// `manifest.json`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct OnDisk {
    format_version: u32,
    #[serde(flatten)]
    manifest: Manifest,
    files: BTreeMap<String, FileRecord>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct FileRecord {
    sha256: String,
    bytes: u64,
}

/// Just enough of a manifest to tell what wrote it.
#[derive(Deserialize)]
struct Version {
    format_version: u32,
}

/// Saves a checkpoint in `dir` (which is created) and returns its folder; then deletes older ones so that the
/// newest `keep` up to this step remain (0: all remain).
///
/// A folder of the same step that is already there stays if it holds the same; otherwise it is set aside under
/// another name, never deleted. On an error nothing but the unfinished folder is removed.
///
/// Errors: [`Error::Io`] (a full disk, permissions), [`Error::Invalid`] for arrays that make no state.
pub fn save(
    dir: &Path,
    manifest: &Manifest,
    arrays: &[Array],
    keep: usize,
) -> Result<PathBuf, Error> {
    save_if(dir, manifest, arrays, keep, &|| Ok(()))
}

/// As [`save`]; in a bucket what makes a checkpoint of it, after all that takes long, and what moves another away, only if `alone` has nothing
/// against it.
pub(super) fn save_if(
    dir: &Path,
    manifest: &Manifest,
    arrays: &[Array],
    keep: usize,
    alone: &dyn Fn() -> Result<(), Error>,
) -> Result<PathBuf, Error> {
    let state = state_bytes(manifest, arrays)?;
    let record = FileRecord {
        sha256: sha256(&state),
        bytes: state.len() as u64,
    };
    let on_disk = OnDisk {
        format_version: FORMAT_VERSION,
        manifest: manifest.clone(),
        files: BTreeMap::from([(STATE.to_owned(), record)]),
    };
    let json =
        serde_json::to_vec_pretty(&on_disk).expect("strings and finite numbers are valid JSON");

    if store::is_remote(dir) {
        return remote::save(dir, &on_disk, state, json, keep, alone);
    }
    create_folder(dir)?;
    sweep(dir);
    let target = dir.join(folder_name(manifest.step));
    let temporary = dir.join(format!("{}{}", disk::TEMPORARY, folder_name(manifest.step)));
    let saved = write_folder(&temporary, &state, &json)
        .and_then(|()| publish(dir, &temporary, &target, &on_disk));
    if saved.is_err() {
        // The first error is the one worth telling; a leftover is swept by the next save.
        let _ = fs::remove_dir_all(&temporary);
    }
    saved?;
    prune(dir, manifest.step, keep);
    Ok(target)
}

/// All checkpoints in `dir` with their steps, oldest first; none where there is no such folder. Opens none of them.
pub fn list(dir: &Path) -> Result<Vec<(u64, PathBuf)>, Error> {
    if store::is_remote(dir) {
        return remote::list(dir);
    }
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(Error::io("read", dir))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io("read", dir))?;
        let path = entry.path();
        if let Some(step) = entry.file_name().to_str().and_then(step_of)
            && path.is_dir()
        {
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found)
}

/// Whether a folder holds a manifest, which is what [`load`] asks of one first.
///
/// Errors: of a bucket only.
pub fn is_checkpoint(path: &Path) -> Result<bool, Error> {
    Ok(store::is_file(&path.join(MANIFEST))?)
}

/// Where the checkpoint of a step lies.
pub fn path_of(dir: &Path, step: u64) -> PathBuf {
    dir.join(folder_name(step))
}

/// The checkpoint of the latest step, damaged or not; [`load`] tells.
pub fn latest(dir: &Path) -> Result<Option<PathBuf>, Error> {
    Ok(list(dir)?.pop().map(|(_, path)| path))
}

/// Reads a checkpoint after checking every hash, and that its arrays are the expected ones; they come back in
/// that order.
///
/// Errors: [`Error::NotACheckpoint`]; [`Error::Version`]; [`Error::Damaged`], which names the newest one before it
/// that is whole; [`Error::Mismatch`] with every tensor that differs. Nothing is ever deleted or changed.
pub fn load(path: &Path, expected: &[ArraySpec]) -> Result<(Manifest, Vec<Array>), Error> {
    let (manifest, state) = read(path).map_err(|error| name_previous(path, error, true))?;
    let tensors =
        SafeTensors::deserialize(&state).map_err(|error| Error::damaged(path, bad_state(error)))?;
    let mut mismatches = Vec::new();
    let mut arrays = Vec::with_capacity(expected.len());
    for spec in expected {
        match tensors.tensor(&spec.name) {
            Ok(view) if view.dtype() == spec.dtype && view.shape() == spec.dims => {
                arrays.push(Array {
                    name: spec.name.clone(),
                    dtype: spec.dtype,
                    dims: spec.dims.clone(),
                    bytes: view.data().to_vec(),
                })
            }
            found => mismatches.push(TensorMismatch {
                tensor: spec.name.clone(),
                found: found.ok().map(|view| (view.dtype(), view.shape().to_vec())),
                expected: Some((spec.dtype, spec.dims.clone())),
            }),
        }
    }
    let known: HashSet<&str> = expected.iter().map(|spec| spec.name.as_str()).collect();
    for (name, view) in tensors.iter().filter(|(name, _)| !known.contains(name)) {
        mismatches.push(TensorMismatch {
            tensor: name.to_owned(),
            found: Some((view.dtype(), view.shape().to_vec())),
            expected: None,
        });
    }
    if mismatches.is_empty() {
        Ok((manifest, arrays))
    } else {
        let path = path.to_owned();
        Err(Error::Mismatch { path, mismatches })
    }
}

/// All arrays of a checkpoint, as they are, by name, after checking every hash. Errors: as of [`load`], but for [`Error::Mismatch`].
pub fn arrays(path: &Path) -> Result<(Manifest, BTreeMap<String, Array>), Error> {
    let (manifest, state) = read(path).map_err(|error| name_previous(path, error, false))?;
    let tensors =
        SafeTensors::deserialize(&state).map_err(|error| Error::damaged(path, bad_state(error)))?;
    let arrays = tensors.iter().map(|(name, view)| {
        let array = Array {
            name: name.to_owned(),
            dtype: view.dtype(),
            dims: view.shape().to_vec(),
            bytes: view.data().to_vec(),
        };
        (name.to_owned(), array)
    });
    Ok((manifest, arrays.collect()))
}

/// Checks every hash of a checkpoint and returns what it says about its run. Errors: as of [`load`].
pub fn verify(path: &Path) -> Result<Manifest, Error> {
    let (manifest, _) = read(path).map_err(|error| name_previous(path, error, false))?;
    Ok(manifest)
}

/// Renames the checkpoints of steps after `step`, so that a run which goes on from there on the user's word
/// neither finds nor overwrites them. Returns their new paths; nothing is deleted.
pub fn set_aside_after(dir: &Path, step: u64) -> Result<Vec<PathBuf>, Error> {
    let later = list(dir)?.into_iter().filter(|(found, _)| *found > step);
    let moved: Vec<PathBuf> = later
        .map(|(_, path)| set_aside(&path))
        .collect::<Result<_, _>>()?;
    if !moved.is_empty() && !store::is_remote(dir) {
        disk::sync_folder(dir).map_err(Error::io("write to", dir))?;
    }
    Ok(moved)
}

/// The step of a checkpoint by its name, or else by its manifest; none if neither tells.
pub(super) fn step_at(path: &Path) -> Option<u64> {
    let manifest = || read_manifest(path).ok();
    named_step(path).or_else(|| manifest().map(|found| found.manifest.step))
}

/// Deletes the checkpoints up to `step` in a folder of this machine. What cannot be deleted only takes space.
pub(super) fn remove_up_to(dir: &Path, step: u64) {
    for (found, path) in list(dir).unwrap_or_default() {
        if found <= step && fs::remove_dir_all(&path).is_err() {
            tracing::warn!("cannot delete {}", path.display());
        }
    }
}

fn folder_name(step: u64) -> String {
    format!("{PREFIX}{step:08}")
}

/// The step of a folder's name; `None` for names that we would not give.
fn step_of(name: &str) -> Option<u64> {
    let step = name.strip_prefix(PREFIX)?.parse().ok()?;
    (folder_name(step) == name).then_some(step)
}

/// The step that a checkpoint's path gives.
fn named_step(path: &Path) -> Option<u64> {
    path.file_name()?.to_str().and_then(step_of)
}

/// The safetensors file. The same state gives the same bytes.
fn state_bytes(manifest: &Manifest, arrays: &[Array]) -> Result<Vec<u8>, Error> {
    let invalid = |tensor: &str, what: String| Error::Invalid {
        tensor: tensor.to_owned(),
        what,
    };
    if !manifest.epoch.is_finite() {
        return Err(invalid(
            "epoch",
            format!("is {}, expected a finite number", manifest.epoch),
        ));
    }
    let mut names = HashSet::new();
    let mut views = Vec::with_capacity(arrays.len());
    for array in arrays {
        if !names.insert(array.name.as_str()) {
            return Err(invalid(
                &array.name,
                "is there twice, expected unique names".to_owned(),
            ));
        }
        let view = TensorView::new(array.dtype, array.dims.clone(), &array.bytes);
        let view = view
            .map_err(|error| invalid(&array.name, format!("does not fit its shape ({error})")))?;
        views.push((array.name.as_str(), view));
    }
    let manifest =
        serde_json::to_string(manifest).expect("strings and finite numbers are valid JSON");
    let metadata = HashMap::from([(METADATA_KEY.to_owned(), manifest)]);
    safetensors::serialize(views, Some(metadata))
        .map_err(|error| invalid("state", error.to_string()))
}

fn write_folder(folder: &Path, state: &[u8], manifest: &[u8]) -> Result<(), Error> {
    fs::create_dir(folder).map_err(Error::io("create", folder))?;
    for (name, bytes) in [(STATE, state), (MANIFEST, manifest)] {
        let path = folder.join(name);
        disk::write_new(&path, bytes).map_err(Error::io("write", &path))?;
    }
    disk::sync_folder(folder).map_err(Error::io("write to", folder))
}

/// Gives a finished folder its name.
fn publish(dir: &Path, temporary: &Path, target: &Path, on_disk: &OnDisk) -> Result<(), Error> {
    if target.exists() {
        let same =
            read_manifest(target).is_ok_and(|found| found == *on_disk) && read(target).is_ok();
        if same {
            return fs::remove_dir_all(temporary).map_err(Error::io("remove", temporary));
        }
        set_aside(target)?;
    }
    fs::rename(temporary, target).map_err(Error::io("rename to", target))?;
    disk::sync_folder(dir).map_err(Error::io("write to", dir))
}

/// Renames a checkpoint to the first free `step-….aside-N`.
fn set_aside(path: &Path) -> Result<PathBuf, Error> {
    let aside = |n: u32| PathBuf::from(format!("{}.aside-{n}", path.display()));
    let mut n = 1;
    while store::is_dir(&aside(n))? {
        n += 1;
    }
    let to = aside(n);
    match store::is_remote(path) {
        true => remote::rename(path, &to)?,
        false => fs::rename(path, &to).map_err(Error::io("rename", path))?,
    }
    tracing::warn!(
        "checkpoint {} set aside as {}",
        path.display(),
        to.display()
    );
    Ok(to)
}

/// Deletes all but the newest `keep` checkpoints up to `step`. The new checkpoint is safe by now, so a failure
/// is worth a warning, not the run.
fn prune(dir: &Path, step: u64, keep: usize) {
    if keep == 0 {
        return;
    }
    let Ok(mut found) = list(dir) else { return };
    found.retain(|(s, _)| *s <= step);
    let surplus = found.len().saturating_sub(keep);
    for (step, path) in &found[..surplus] {
        // Renamed first: a half deleted folder must not look like a checkpoint.
        let doomed = dir.join(format!("{}remove-{}", disk::TEMPORARY, folder_name(*step)));
        if let Err(error) = fs::rename(path, &doomed).and_then(|()| fs::remove_dir_all(&doomed)) {
            tracing::warn!(
                "cannot delete the old checkpoint {}: {error}",
                path.display()
            );
        }
    }
}

/// Deletes what a killed process left unfinished. What cannot be deleted only takes space, or stops the save
/// with its own error.
fn sweep(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        if entry
            .file_name()
            .to_string_lossy()
            .starts_with(disk::TEMPORARY)
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn create_folder(dir: &Path) -> Result<(), Error> {
    if dir.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
    let parent = disk::parent(dir);
    disk::sync_folder(&parent).map_err(Error::io("write to", &parent))
}

/// The manifest and the bytes of the state, after all that can be checked without knowing the network.
fn read(path: &Path) -> Result<(Manifest, Vec<u8>), Error> {
    let on_disk = read_manifest(path)?;
    let Some(record) = on_disk.files.get(STATE) else {
        return Err(Error::damaged(
            path,
            format!("`{MANIFEST}` does not list `{STATE}`"),
        ));
    };
    let file = path.join(STATE);
    let Some(state) = content(&file)? else {
        return Err(Error::damaged(path, format!("`{STATE}` is missing")));
    };
    let (found, expected) = (state.len() as u64, record.bytes);
    if found != expected {
        let what = format!("`{STATE}` has {found} bytes, expected {expected}");
        return Err(Error::damaged(path, what));
    }
    let (found, expected) = (sha256(&state), &record.sha256);
    if found != *expected {
        let what = format!("`{STATE}` has SHA-256 {found}, expected {expected}");
        return Err(Error::damaged(path, what));
    }
    let (found, expected) = (named_step(path), on_disk.manifest.step);
    if found.is_some_and(|step| step != expected) {
        let what = format!(
            "its name says step {}, expected `{}` as its `{MANIFEST}` has it",
            found.unwrap_or_default(),
            folder_name(expected)
        );
        return Err(Error::damaged(path, what));
    }
    let (_, metadata) =
        SafeTensors::read_metadata(&state).map_err(|e| Error::damaged(path, bad_state(e)))?;
    let repeated = metadata
        .metadata()
        .as_ref()
        .and_then(|map| map.get(METADATA_KEY));
    let repeated: Option<Manifest> = repeated.and_then(|json| serde_json::from_str(json).ok());
    if repeated.as_ref() != Some(&on_disk.manifest) {
        let what =
            format!("`{MANIFEST}` and the copy of it in `{STATE}` differ, expected the same");
        return Err(Error::damaged(path, what));
    }
    Ok((on_disk.manifest, state))
}

/// The bytes of a file; none if there is no such file.
fn content(file: &Path) -> Result<Option<Vec<u8>>, Error> {
    match store::is_remote(file) {
        true => Ok(store::read_if_there(file)?),
        false => disk::read_if_there(file).map_err(Error::io("read", file)),
    }
}

fn read_manifest(path: &Path) -> Result<OnDisk, Error> {
    let file = path.join(MANIFEST);
    let Some(bytes) = content(&file)? else {
        // Our own folder without a manifest is damaged; anything else was never a checkpoint.
        return Err(match named_step(path) {
            Some(_) if store::is_dir(path)? => {
                Error::damaged(path, format!("`{MANIFEST}` is missing"))
            }
            _ => Error::NotACheckpoint {
                path: path.to_owned(),
            },
        });
    };
    // The version first: a later layout need not be readable to be named.
    let bad_json = |error: serde_json::Error| {
        Error::damaged(path, format!("`{MANIFEST}` is not our JSON ({error})"))
    };
    let Version { format_version } = serde_json::from_slice(&bytes).map_err(bad_json)?;
    if format_version != FORMAT_VERSION {
        return Err(Error::Version {
            path: path.to_owned(),
            found: format_version,
        });
    }
    serde_json::from_slice(&bytes).map_err(bad_json)
}

/// Adds to the error of a damaged checkpoint the newest whole one before it, and what it was read for.
fn name_previous(path: &Path, error: Error, resumes: bool) -> Error {
    let Error::Damaged { what, .. } = error else {
        return error;
    };
    let step = named_step(path);
    let earlier = list(&disk::parent(path))
        .unwrap_or_default()
        .into_iter()
        .rev();
    let previous = earlier
        .filter(|(found, _)| step.is_some_and(|step| *found < step))
        .map(|(_, path)| path)
        .find(|path| read(path).is_ok());
    Error::Damaged {
        path: path.to_owned(),
        what,
        previous,
        resumes,
    }
}

fn bad_state(error: safetensors::SafeTensorError) -> String {
    format!("`{STATE}` is no safetensors file ({error})")
}

fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
