//! The processes that train together: one leads, that is, writes; all do the same steps and stop at the same one.

use super::Error;
use super::signals::StopKind;
use crate::cluster::agreement::{Group, Trouble};
use crate::cluster::store::Store;
use crate::config::Loaded;
use crate::engine::Engine;
use crate::pjrt::KeyValue;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// All processes of a run, seen from one of them.
#[derive(Debug, Default)]
pub struct Processes {
    /// None: this process is alone.
    group: Option<Arc<Group>>,
    /// Training is over, and the others may go.
    ended: Arc<AtomicBool>,
    /// The watch has found that another process ended.
    troubled: Arc<AtomicBool>,
}

/// How often a process says that it is alive, and looks whether the others are.
const LOOK: Duration = Duration::from_secs(2);
/// How long the leader stays for the others to hear why it ends: they look every [`LOOK`], and may be slow.
const HEARD: Duration = Duration::from_secs(12);
/// How long to wait for others that are to start at about the same time.
const START: Duration = Duration::from_secs(300);
const AT_START: &str = "start";
const HOWEVER_LONG: Duration = Duration::from_secs(24 * 3600);
const AT_THE_END: Duration = Duration::from_secs(300);

impl Processes {
    /// Those of a group.
    pub fn of(group: Group) -> Self {
        Processes {
            group: Some(Arc::new(group)),
            ended: Arc::default(),
            troubled: Arc::default(),
        }
    }

    /// Calls `then` if another process ends with an error before training is over, or is gone: the launch in which this process waits
    /// for it would never end.
    pub fn watch(&self, then: impl FnOnce(&Trouble) + Send + 'static) {
        let Some(group) = &self.group else {
            return;
        };
        let (group, ended) = (Arc::downgrade(group), self.ended.clone());
        let troubled = self.troubled.clone();
        std::thread::spawn(move || {
            while let Some(group) = group.upgrade() {
                let found = group.trouble();
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                if let Some(trouble) = found {
                    troubled.store(true, Ordering::Relaxed);
                    // The service of another start is not told.
                    if let Trouble::Failed(_) = trouble {
                        group.heard();
                    }
                    // Else who looks later would hear nothing but that process 0 is gone.
                    group.stay(HEARD);
                    // This process may be about to come to the same error, and then says so itself, with that error's code.
                    std::thread::sleep(LOOK);
                    if ended.load(Ordering::Relaxed) {
                        return;
                    }
                    then(&trouble);
                    return;
                }
                drop(group);
                std::thread::sleep(LOOK);
            }
        });
    }

    /// Leaves it to the watch to end this process, if that finds within `patience` that another ended: what this one meets now may come
    /// of that.
    pub fn give_way(&self, patience: Duration) {
        if !self.several() {
            return;
        }
        // Of the watch, from finding to ending.
        let through = HEARD + 3 * LOOK;
        let begin = Instant::now();
        loop {
            let troubled = self.troubled.load(Ordering::Relaxed);
            let most = patience + if troubled { through } else { Duration::ZERO };
            if begin.elapsed() >= most {
                return;
            }
            std::thread::sleep(LOOK / 20);
        }
    }

    /// Ends this process's part without a word: the others will miss it.
    pub fn leave(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Tells the others that this process ends with an error.
    pub fn tell_failure(&self, words: &str) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(group) = &self.group {
            group.heard();
            group.tell_failure(words, HEARD);
        }
    }

    /// Waits for the others at the start.
    ///
    /// # Errors
    /// If one does not come.
    pub fn started(&self) -> Result<(), Error> {
        match &self.group {
            Some(group) => Ok(group.all_here(AT_START, START)?),
            None => Ok(()),
        }
    }

    /// Those that have not started yet; none where that cannot be told.
    pub fn missing(&self) -> Vec<usize> {
        let look = |group: &Arc<Group>| group.missing(AT_START).ok();
        self.group.as_ref().and_then(look).unwrap_or_default()
    }

    /// Checks that all processes have the same configuration.
    ///
    /// # Errors
    /// If one has another, or does not come.
    pub fn same_configuration(&self, loaded: &Loaded) -> Result<(), Error> {
        let Some(group) = &self.group else {
            return Ok(());
        };
        let all = loaded.identity();
        let keys: Vec<&str> = all.iter().map(|(key, _)| &key[..]).collect();
        let digest = Sha256::digest(keys.join(" "));
        let version = env!("CARGO_PKG_VERSION");
        let program = format!(
            "{version}/{:02x}{:02x}{:02x}",
            digest[0], digest[1], digest[2]
        );
        // First, since of a program with other keys some would never come.
        let program = ("program", &program[..]);
        let values = all.iter().map(|(key, value)| (&key[..], &value[..]));
        let values: Vec<(&str, &str)> = std::iter::once(program).chain(values).collect();
        Ok(group.same(&values)?)
    }

    /// Waits until all have devices, however long that takes: all are there.
    ///
    /// # Errors
    /// If one does not come.
    pub fn opened(&self) -> Result<(), Error> {
        match &self.group {
            Some(group) => Ok(group.all_here("devices", HOWEVER_LONG)?),
            None => Ok(()),
        }
    }

    /// Whether this process writes what a run writes, and says what it says.
    pub fn leads(&self) -> bool {
        self.group.as_ref().is_none_or(|group| group.process() == 0)
    }

    /// Whether there are others.
    pub fn several(&self) -> bool {
        self.group
            .as_ref()
            .is_some_and(|group| group.processes() > 1)
    }

    /// What to say if so many pipelines make them read each other's examples.
    pub fn read_for_each_other(&self, pipelines: usize) -> Option<String> {
        let processes = self.group.as_ref().map_or(1, |group| group.processes());
        (!pipelines.is_multiple_of(processes)).then(|| {
            format!(
                "input_pipelines is {pipelines}, so that each of the {processes} processes reads examples of others, too; with {processes}, or a multiple, a new run reads each once"
            )
        })
    }

    /// Checks that all processes have the same.
    pub(super) fn same(&self, what: &str, value: &str) -> Result<(), Error> {
        match &self.group {
            Some(group) => Ok(group.same(&[(what, value)])?),
            None => Ok(()),
        }
    }

    /// Checks that all processes make the same program of a module.
    pub(super) fn same_compiler(&self, engine: &Engine) -> Result<(), Error> {
        let Some(group) = self.group.as_ref().filter(|_| self.several()) else {
            return Ok(());
        };
        let compiler = engine.compiler();
        let values: Vec<(&str, &str)> = compiler.iter().map(|(k, v)| (*k, &v[..])).collect();
        Ok(group.same(&values)?)
    }

    /// Asked after every launch of at most `launch` steps: whether to stop now, that is at a step at which all do.
    pub(super) fn stop(
        &self,
        step: u64,
        launch: usize,
        asked: Option<StopKind>,
    ) -> Result<Option<StopKind>, Error> {
        let Some(group) = &self.group else {
            return Ok(asked);
        };
        let asked = asked.map(|kind| match kind {
            StopKind::Interrupt => 0,
            StopKind::Terminate => 1,
        });
        let agreed = group.stop_now(step, launch as u64, asked)?;
        Ok(agreed.map(|reason| match reason {
            0 => StopKind::Interrupt,
            _ => StopKind::Terminate,
        }))
    }

    /// Waits for the others before the first launch, however long they take: the leader measures the untrained network, and collectives may
    /// be less patient.
    pub(super) fn ready(&self) -> Result<(), Error> {
        self.all_here("ready")
    }

    /// Waits until the leader may write to the run folder, however long it takes: a bucket is tried for minutes.
    pub(super) fn entered(&self) -> Result<(), Error> {
        self.all_here("entered")
    }

    /// Waits until the leader has saved, however long it takes: a bucket is tried for minutes, and collectives may be less patient.
    ///
    /// # Errors
    /// If one does not come.
    pub(super) fn saved(&self, step: u64) -> Result<(), Error> {
        self.all_here(&format!("saved/{step}"))
    }

    fn all_here(&self, point: &str) -> Result<(), Error> {
        match &self.group {
            Some(group) => Ok(group.all_here(point, HOWEVER_LONG)?),
            None => Ok(()),
        }
    }

    /// Waits for the others at the end of training: the leader's service is theirs, too. Everything is saved by then, so that who does not
    /// come is no error.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
        let Some(group) = &self.group else {
            return;
        };
        group.leave();
        if let Err(error) = group.all_here("end", AT_THE_END) {
            tracing::warn!("not all processes came to the end: {error}");
        }
    }
}

impl Drop for Processes {
    /// Who goes in order is not missed.
    fn drop(&mut self) {
        let ended = self.ended.swap(true, Ordering::Relaxed);
        if let Some(group) = &self.group
            && !ended
            && !std::thread::panicking()
        {
            group.leave();
        }
    }
}

impl KeyValue for Store {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), String> {
        Store::put(self, key, value).map_err(|error| error.to_string())
    }

    fn get(&self, key: &[u8], patience: Duration) -> Result<Option<Vec<u8>>, String> {
        let found = if patience.is_zero() {
            self.try_get(key)
        } else {
            Store::get(self, key, patience)
        };
        found.map_err(|error| error.to_string())
    }
}
