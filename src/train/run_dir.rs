//! The run folder (`model_dir`): one process at a time, one configuration for ever. One in a bucket is locked on this machine only; of several
//! machines the last writes (`writer`).

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::checkpoint;
use super::stage::Stage;
use crate::config::schema;
use crate::data::{self, store};
use crate::error::Class;
use crate::report::{disk, events, log_file, metrics};

/// Marks a folder as a run of ours and keeps what may not change while it goes on.
const MARKER: &str = "run.json";
/// Held by the process that runs here; holds its number.
pub(super) const LOCK: &str = "lock";
const FORMAT_VERSION: u32 = 1;
const CONFIG: &str = "config.yaml";
/// The metrics of a start that learned nothing and whose folder was taken over.
const BEFORE: &str = "metrics-before.jsonl";
/// Beside the keys of the configuration: the hash of the examples that are trained on.
pub(super) const DATA: &str = "data";
/// The keys that choose them.
const OF_DATA: [&str; 2] = ["dataset", "train_split"];
/// What the log says before the path of a checkpoint.
pub(super) const SAVED: &str = "saved ";

/// Why a folder cannot be used for this run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk said no.
    #[error("cannot {action} `{path}`: {source}; {}", disk::remedy(.source))]
    Io {
        /// What was tried, as in "cannot {action}".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The bucket said no.
    #[error(transparent)]
    Bucket(Box<data::Error>),
    /// Another process trains here.
    #[error(
        "`model_dir` `{path}` is in use by {by}, expected a folder that no process is using; \
         wait for that process, stop it, or choose another `model_dir`"
    )]
    InUse {
        /// The run folder.
        path: PathBuf,
        /// The other process, as far as it has said.
        by: String,
    },
    /// Another process has begun to write to a folder in a bucket.
    #[error(
        "`model_dir` `{path}` names {by} as the one that writes there, expected {expected}, this one; what came since its last checkpoint \
         is lost here; stop that process before you start here again"
    )]
    TakenOver {
        /// The run folder.
        path: PathBuf,
        /// The other process.
        by: String,
        /// This process.
        expected: String,
    },
    /// Nobody is named as the one that writes to a folder in a bucket.
    #[error(
        "`{path}` is gone or cannot be read, expected the name of {expected}, this one; start the same command again"
    )]
    NoWriter {
        /// The object that names the writer.
        path: PathBuf,
        /// This process.
        expected: String,
    },
    /// A folder with other things in it, or a file.
    #[error(
        "`model_dir` `{path}` {found}, expected a new or empty folder or an earlier run; choose another `model_dir`"
    )]
    Foreign {
        /// The path of `model_dir`.
        path: PathBuf,
        /// What is there.
        found: String,
    },
    /// A run with another configuration.
    #[error(
        "`model_dir` `{path}` belongs to a run {}; \
         choose another `model_dir`, {}, or delete the folder to start anew",
        other(.differences), back(.differences)
    )]
    OtherConfig {
        /// The run folder.
        path: PathBuf,
        /// Every key whose value differs.
        differences: Vec<Difference>,
    },
    /// A run that has saved checkpoints, of which none is there.
    #[error(
        "no checkpoint of `model_dir` `{path}` is there any more, though it has come to step {step}; expected those that it saved in `{}`; \
         bring them back (is their disk mounted?), go on from a copy with --resume-from, choose another `model_dir`, or delete the folder to start anew",
        checkpoints(.path).display()
    )]
    Lost {
        /// The run folder.
        path: PathBuf,
        /// As its metrics and its log say.
        step: u64,
    },
    /// The marker cannot be read.
    #[error(
        "`{path}` is damaged: {found}, expected what an earlier start wrote there; choose another `model_dir`"
    )]
    Damaged {
        /// The marker file.
        path: PathBuf,
        /// What is wrong.
        found: String,
    },
}

/// A key of the configuration whose value differs between a run folder and this start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The key.
    pub key: String,
    /// In the folder; `None` where the key was not known.
    pub found: Option<String>,
    /// Of this start; `None` where the key is not known any more.
    pub expected: Option<String>,
}

impl From<data::Error> for Error {
    fn from(error: data::Error) -> Self {
        Error::Bucket(Box::new(error))
    }
}

impl Error {
    /// What the reader can do about it.
    pub fn class(&self) -> Class {
        match self {
            Error::Io { .. }
            | Error::InUse { .. }
            | Error::TakenOver { .. }
            | Error::NoWriter { .. } => Class::Environment,
            Error::Bucket(error) => error.class(),
            Error::Foreign { .. } | Error::OtherConfig { .. } => Class::Usage,
            Error::Lost { .. } | Error::Damaged { .. } => Class::Check,
        }
    }

    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io {
            action,
            path,
            source,
        }
    }
}

/// The run that a folder or a checkpoint belongs to, in words.
pub(super) fn other(differences: &[Difference]) -> String {
    let what = match only_data(differences) {
        true => "on other data",
        false => "with another configuration",
    };
    format!("{what}: {}", list(differences))
}

/// How to go on with that one.
pub(super) fn back(differences: &[Difference]) -> &'static str {
    match only_data(differences) {
        true => "bring back the files of then",
        false => "go back to that configuration",
    }
}

fn only_data(differences: &[Difference]) -> bool {
    differences.iter().all(|d| d.key == DATA)
}

/// The differences, in words.
fn list(differences: &[Difference]) -> String {
    /// More would hide the sentence around them.
    const MOST: usize = 8;
    let show = |value: &Option<String>| {
        value
            .as_ref()
            .map_or("nothing".to_owned(), |v| format!("`{v}`"))
    };
    let one = |d: &Difference| {
        let (found, expected) = (show(&d.found), show(&d.expected));
        match d.key.as_str() {
            DATA => format!(
                "the files of `data_dir`, or the names in `subset_list`, have changed since it began: their hash was {found}, now it is {expected}"
            ),
            key => format!("`{key}` found {found}, expected {expected}"),
        }
    };
    // Another set has other files, which nobody has changed.
    let another = differences
        .iter()
        .any(|d| OF_DATA.contains(&d.key.as_str()));
    let differences: Vec<&Difference> = differences
        .iter()
        .filter(|d| d.key != DATA || !another)
        .collect();
    let mut parts: Vec<String> = differences.iter().copied().take(MOST).map(one).collect();
    if differences.len() > MOST {
        parts.push(format!("and {} more", differences.len() - MOST));
    }
    parts.join("; ")
}

/// Every key whose value differs between two lists of keys and values, in the order of `expected`.
pub fn differences(found: &[(String, String)], expected: &[(String, String)]) -> Vec<Difference> {
    let value = |list: &[(String, String)], key: &str| {
        let entry = list.iter().find(|(k, _)| k == key);
        let before = || schema::find(key).and_then(|key| key.before);
        entry
            .map(|(_, v)| v.clone())
            .or_else(|| before().map(String::from))
    };
    let gone = found
        .iter()
        .filter(|(key, _)| value(expected, key).is_none())
        // A run of before such a key ceased to count goes on.
        .filter(|(key, _)| schema::find(key).is_none_or(|key| key.identity));
    let keys = expected.iter().chain(gone).map(|(key, _)| key);
    let pairs = keys.map(|key| Difference {
        key: key.clone(),
        found: value(found, key),
        expected: value(expected, key),
    });
    pairs.filter(|d| d.found != d.expected).collect()
}

/// Whether a folder is that of a run already; a folder of something else is refused.
pub(super) fn is_run(model_dir: &Path) -> Result<bool, Error> {
    refuse_foreign(model_dir)?;
    Ok(store::is_file(&model_dir.join(MARKER))?)
}

/// The folder of checkpoints of a `model_dir`.
pub(super) fn checkpoints(model_dir: &Path) -> PathBuf {
    model_dir.join("checkpoints")
}

#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    format_version: u32,
    config: Vec<(String, String)>,
}

/// A run folder that this process alone may write to, until the value is dropped or the process ends in any way; in a bucket, until another
/// enters.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    side: Side,
    is_new: bool,
    /// Where another configuration had begun before, and learned nothing.
    before: Vec<Difference>,
    config_yaml: String,
}

/// Where files grow.
#[derive(Debug)]
enum Side {
    /// In the run folder, which is this process's own.
    Here(#[expect(dead_code, reason = "held")] Lock),
    /// On this machine, to be sent.
    Bucket(Box<Stage>),
}

impl RunDir {
    /// Opens or creates the folder for a run with this configuration, and writes `config.yaml` in it.
    ///
    /// `identity`: the keys and values that decide what is trained; they may never change in a folder.
    /// `config_yaml`: the whole resolved configuration of this start.
    ///
    /// Errors: see [`Error`]; nothing is written to a folder that is refused, but for the lock file of a run of ours.
    pub fn open(
        path: &Path,
        identity: &[(String, String)],
        config_yaml: &str,
    ) -> Result<RunDir, Error> {
        Self::enter_folder(path, identity, config_yaml, false)
    }

    /// As [`RunDir::open`]; but a folder on disk in which another configuration has learned nothing begins anew, without the metrics and
    /// events of then. In a bucket nobody can tell whether another machine is about to save its first checkpoint.
    ///
    /// # Errors
    /// As [`RunDir::open`].
    pub fn open_or_begin_anew(
        path: &Path,
        identity: &[(String, String)],
        config_yaml: &str,
    ) -> Result<RunDir, Error> {
        Self::enter_folder(path, identity, config_yaml, !store::is_remote(path))
    }

    fn enter_folder(
        path: &Path,
        identity: &[(String, String)],
        config_yaml: &str,
        anew: bool,
    ) -> Result<RunDir, Error> {
        refuse_foreign(path)?;
        let side = if store::is_remote(path) {
            Side::Bucket(Stage::open(path)?.into())
        } else {
            fs::create_dir_all(path).map_err(Error::io("create", path))?;
            let lock = lock(path)?;
            // Again, now that nobody else can change the answer.
            refuse_foreign(path)?;
            Side::Here(lock)
        };
        let marker = path.join(MARKER);
        let found = read_marker(&marker)?;
        let mut is_new = found.is_none();
        let mut before = Vec::new();
        if let Some(found) = found {
            let differences = differences(&found.config, identity);
            if !differences.is_empty() {
                if !anew || !nothing_learned(path)? {
                    let path = path.to_owned();
                    return Err(Error::OtherConfig { path, differences });
                }
                (is_new, before) = (true, differences);
            }
        }
        if let Side::Bucket(stage) = &side {
            stage.fetch(&[metrics::FILE, log_file::FILE])?;
        }
        if is_new && before.is_empty() {
            mark(path, identity)?;
        }
        let run = RunDir {
            path: path.to_owned(),
            side,
            is_new,
            before,
            config_yaml: config_yaml.into(),
        };
        // Of an earlier run in a bucket only when this process enters: another may be the one that writes.
        if run.before.is_empty() && (is_new || run.stage().is_none()) {
            run.write_config()?;
        }
        Ok(run)
    }

    /// Takes a folder over in which nothing was learned, now that all that the run begins from is known to be good; says so.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn take_over(&self, identity: &[(String, String)]) -> Result<Option<String>, Error> {
        let Some(text) = self.begins_anew() else {
            return Ok(None);
        };
        forget(&self.path)?;
        mark(&self.path, identity)?;
        self.write_config()?;
        Ok(Some(text))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where this process appends to files: the folder itself, or what is sent to it.
    pub fn near(&self) -> &Path {
        match &self.side {
            Side::Here(_) => &self.path,
            Side::Bucket(stage) => stage.near(),
        }
    }

    /// Sends what has grown to a folder in a bucket.
    ///
    /// # Errors
    /// If another process writes there by now, or the bucket refuses.
    pub(super) fn send(&self) -> Result<(), Error> {
        self.stage().map_or(Ok(()), Stage::send)
    }

    /// Makes this process the one that writes to a folder in a bucket, now that nothing is refused any more. What to say of the one before.
    ///
    /// # Errors
    /// If another process has written checkpoints since this one began, or the bucket refuses.
    pub(super) fn enter(&self) -> Result<Option<String>, Error> {
        let Some(stage) = self.stage() else {
            return Ok(None);
        };
        let told = stage.enter()?;
        self.write_config().inspect_err(|_| stage.give_up())?;
        Ok(told)
    }

    fn write_config(&self) -> Result<(), Error> {
        replace(&self.config(), self.config_yaml.clone().into())
    }

    /// Looks whether this process is still the one that writes to a folder in a bucket.
    ///
    /// # Errors
    /// If it is not, or the bucket refuses.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.stage().map_or(Ok(()), Stage::check)
    }

    /// The near side of a folder in a bucket.
    pub(super) fn stage(&self) -> Option<&Stage> {
        match &self.side {
            Side::Here(_) => None,
            Side::Bucket(stage) => Some(stage),
        }
    }

    /// Whether no process has trained here before.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// What to say where another configuration had begun before, and learned nothing.
    pub(super) fn begins_anew(&self) -> Option<String> {
        (!self.before.is_empty()).then(|| {
            format!(
                "no checkpoint came of what began in {} before, with another configuration ({}): it begins anew, the metrics of then in {BEFORE}",
                self.path.display(),
                list(&self.before)
            )
        })
    }

    /// Whether one of its files or folders is there; what a bucket does not tell is taken to be.
    pub(super) fn has(&self, path: &Path) -> bool {
        let there = || Ok::<_, data::Error>(store::is_file(path)? || store::is_dir(path)?);
        there().unwrap_or(true)
    }

    /// The resolved configuration of the last start.
    pub fn config(&self) -> PathBuf {
        self.path.join(CONFIG)
    }

    /// One line of numbers per logged step.
    pub fn metrics(&self) -> PathBuf {
        self.path.join(metrics::FILE)
    }

    /// The folder of checkpoints; see [`super::checkpoint`].
    pub fn checkpoints(&self) -> PathBuf {
        checkpoints(&self.path)
    }

    /// What was logged.
    pub fn log(&self) -> PathBuf {
        self.path.join(log_file::FILE)
    }
}

/// Refuses what is neither absent, nor empty, nor a run of ours. Reads only.
fn refuse_foreign(path: &Path) -> Result<(), Error> {
    let foreign = |found: String| {
        let path = path.to_owned();
        Err(Error::Foreign { path, found })
    };
    if store::is_remote(path) {
        let mut entries = store::entries(path)?;
        entries.retain(|entry| !entry.name.starts_with(store::DOCTOR));
        let ours = entries.is_empty() || entries.iter().any(|entry| entry.name == MARKER);
        return match (ours, entries.first()) {
            (false, Some(entry)) => foreign(format!("holds `{}` but no `{MARKER}`", entry.name)),
            _ => Ok(()),
        };
    }
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return foreign("is not a folder".to_owned());
        }
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    if path.join(MARKER).exists() {
        return Ok(());
    }
    for entry in entries {
        let name = entry.map_err(Error::io("read", path))?.file_name();
        let name = name.to_string_lossy();
        // What a first start leaves when it dies at once, and what a fresh disk holds.
        if name != LOCK && name != "lost+found" && !name.starts_with(disk::TEMPORARY) {
            return foreign(format!("holds `{name}` but no `{MARKER}`"));
        }
    }
    Ok(())
}

/// Writes whose folder it is.
fn mark(path: &Path, identity: &[(String, String)]) -> Result<(), Error> {
    let content = Marker {
        format_version: FORMAT_VERSION,
        config: identity.to_vec(),
    };
    let json = serde_json::to_vec_pretty(&content).expect("pairs of strings are valid JSON");
    replace(&path.join(MARKER), json)
}

/// Whether a run folder on disk holds nothing but what a start writes before it saves.
fn nothing_learned(path: &Path) -> Result<bool, Error> {
    const OWN: [&str; 6] = [MARKER, LOCK, CONFIG, metrics::FILE, BEFORE, log_file::FILE];
    for entry in fs::read_dir(path).map_err(Error::io("read", path))? {
        let name = entry.map_err(Error::io("read", path))?.file_name();
        let name = name.to_string_lossy();
        let own = OWN.contains(&&*name) || name == "lost+found";
        if !own && !is_passing(&name) {
            return Ok(false);
        }
    }
    // Of checkpoints that were deleted by hand the curves are what is left; what a log without words tells is unknown.
    let log = content(&path.join(log_file::FILE))?.unwrap_or_default();
    let curves = content(&path.join(metrics::FILE))?.unwrap_or_default();
    Ok(last_saved(&log).is_none() && (!log.is_empty() || curves.is_empty()))
}

/// The step of the last checkpoint that a log tells of.
fn last_saved(log: &[u8]) -> Option<u64> {
    let log = String::from_utf8_lossy(log);
    let step = |line: &str| {
        let (_, path) = line.split_once(SAVED)?;
        path.contains("checkpoints/step-")
            .then(|| checkpoint::step_at(Path::new(path)).unwrap_or(0))
    };
    log.lines().rev().find_map(step)
}

/// Refuses a run of which nothing but the checkpoints is gone, as where their disk is not mounted: it would begin anew, without the curves of
/// then.
pub(super) fn refuse_lost(path: &Path) -> Result<(), Error> {
    let log = content(&path.join(log_file::FILE))?.unwrap_or_default();
    let Some(saved) = last_saved(&log) else {
        return Ok(());
    };
    let file = path.join(metrics::FILE);
    let rows = content(&file)?.map(|bytes| metrics::rows(&file, &bytes));
    let told = rows.and_then(|rows| Some(rows.ok()?.last()?.step));
    Err(Error::Lost {
        path: path.to_owned(),
        step: saved.max(told.unwrap_or(0)),
    })
}

/// Whether each start has a file of such a name of its own.
fn is_passing(name: &str) -> bool {
    name.starts_with(disk::TEMPORARY) || name.starts_with(events::PREFIX)
}

/// Sets the metrics of a start that learned nothing aside, and deletes its events, which tell the same.
fn forget(path: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(path).map_err(Error::io("read", path))? {
        let entry = entry.map_err(Error::io("read", path))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let file = entry.path();
        if name == metrics::FILE {
            let aside = path.join(BEFORE);
            fs::rename(&file, &aside).map_err(Error::io("rename to", &aside))?;
        } else if name.starts_with(events::PREFIX) {
            fs::remove_file(&file).map_err(Error::io("remove", &file))?;
        }
    }
    Ok(())
}

/// The bytes of a file of a run folder; none if there is no such file.
pub(crate) fn content(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match store::is_remote(path) {
        true => Ok(store::read_if_there(path)?),
        false => disk::read_if_there(path).map_err(Error::io("read", path)),
    }
}

/// Writes a small file of a run folder, which is there whole or as it was.
pub(super) fn replace(path: &Path, bytes: Vec<u8>) -> Result<(), Error> {
    match store::is_remote(path) {
        true => Ok(store::write(path, bytes.into())?),
        false => disk::replace(path, &bytes).map_err(Error::io("write", path)),
    }
}

fn read_marker(path: &Path) -> Result<Option<Marker>, Error> {
    let damaged = |found: String| {
        let path = path.to_owned();
        Err(Error::Damaged { path, found })
    };
    let Some(bytes) = content(path)? else {
        return Ok(None);
    };
    match serde_json::from_slice::<Marker>(&bytes) {
        Ok(marker) if marker.format_version == FORMAT_VERSION => Ok(Some(marker)),
        Ok(marker) => damaged(format!(
            "format version {}, not {FORMAT_VERSION}",
            marker.format_version
        )),
        Err(error) => damaged(format!("not our JSON ({error})")),
    }
}

/// Goes with the open file: the system releases it even after `kill -9`.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing alone is not enough: a child process that is just being started holds a copy of the open file.
        let _ = self.0.unlock();
    }
}

pub(super) fn lock(folder: &Path) -> Result<Lock, Error> {
    let path = folder.join(LOCK);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(Error::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            // The number helps, but its absence is no second error.
            let _ = file.read_to_string(&mut text);
            let pid: Option<u32> = text.trim().parse().ok();
            return Err(Error::InUse {
                path: folder.to_owned(),
                by: pid.map_or("another process".into(), |pid| format!("process {pid}")),
            });
        }
        Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path)(error)),
    }
    let write = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    let mut lock = Lock(file);
    write(&mut lock.0).map_err(Error::io("write", &path))?;
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_older_than_a_key_goes_on_as_it_began() {
        let of = |rate: &str| {
            let given = format!("lineareval_learning_rate={rate}");
            crate::config::load(None, &[given]).unwrap().identity()
        };
        let mut older = of("0");
        older.retain(|(key, _)| key != "lineareval_learning_rate");
        assert!(differences(&older, &of("0")).is_empty());
        let found = differences(&older, &of("0.01"));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].found.as_deref(), Some("0.0"));
    }

    #[test]
    fn pictures_that_changed_are_no_key_of_the_configuration() {
        let of = |seed: &str, dataset: &str, hash: &str| {
            let pair = |key: &str, value: &str| (key.to_string(), value.to_string());
            let keys = [("runtime.seed", seed), ("dataset", dataset), ("data", hash)];
            keys.map(|(key, value)| pair(key, value))
        };
        let then = of("1", "folder", "87f58bed");
        let said = |now: &[(String, String)]| {
            let error = Error::OtherConfig {
                path: "run".into(),
                differences: differences(&then, now),
            };
            error.to_string()
        };
        let text = said(&of("1", "folder", "bb33b96b"));
        for words in [
            "a run on other data: the files of `data_dir`",
            "have changed since it began",
            "was `87f58bed`, now it is `bb33b96b`",
            "bring back the files",
        ] {
            assert!(text.contains(words), "`{words}` is missing in {text}");
        }
        for words in ["configuration", "`data`"] {
            assert!(!text.contains(words), "{words} in {text}");
        }
        let text = said(&of("2", "folder", "bb33b96b"));
        for words in ["another configuration", "`runtime.seed`", "the files of"] {
            assert!(text.contains(words), "`{words}` is missing in {text}");
        }
        // Of another set they are others.
        let text = said(&of("1", "shapes32", "bb33b96b"));
        assert!(!text.contains("the files of"), "{text}");
    }

    #[test]
    fn keys_that_ceased_to_count_make_no_other_run() {
        let list = |keys: &[&str]| -> Vec<(String, String)> {
            keys.iter()
                .map(|key| (key.to_string(), "x".into()))
                .collect()
        };
        let expected = list(&["dataset"]);
        assert!(differences(&list(&["dataset", "on_bad_record"]), &expected).is_empty());
        for gone in ["optimizer", "data"] {
            let found = differences(&list(&["dataset", gone]), &expected);
            assert_eq!(found.len(), 1, "{gone}");
        }
    }
}
