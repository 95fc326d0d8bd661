//! What the processes of a run must agree on: that they run the same, when to stop, and that all are there.

use super::Error;
use super::store::Store;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long to wait for what the others know once they have read their data, which may take as long as it does; who is lost meanwhile
/// is noticed otherwise ([`Group::trouble`]).
const PATIENCE: Duration = Duration::from_secs(24 * 3600);
/// So long a wait is one question to the service.
const SLICE: Duration = Duration::from_secs(30);
/// A process that is not heard of for so long is lost.
const SILENCE: Duration = Duration::from_secs(60);

/// The processes of a run.
#[derive(Debug)]
pub struct Group {
    store: Arc<Store>,
    process: usize,
    processes: usize,
    /// Its number, and what tells this start of it from others.
    name: String,
}

impl Group {
    /// Takes the place of number `process` among `processes`. Who is started again while the others have not missed the start before it
    /// must not be taken for that, which they wait for in vain.
    ///
    /// # Errors
    /// If the place is taken, or process 0 is gone.
    pub fn join(
        store: impl Into<Arc<Store>>,
        process: usize,
        processes: usize,
    ) -> Result<Self, Error> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default().as_nanos();
        let group = Group {
            store: store.into(),
            process,
            processes,
            name: format!("{process}/{}-{now}", std::process::id()),
        };
        let taken = |error| match error {
            Error::Store { .. } => Error::Taken { process },
            lost => lost,
        };
        let (place, name) = (place(process), group.name.as_bytes());
        group.store.put(place.as_bytes(), name).map_err(taken)?;
        // From now on it is missed; whom it misses itself it asks later.
        group.store.beat(name, SILENCE)?;
        Ok(group)
    }

    /// Whether process 0 still serves the start that this process belongs to.
    fn check_place(&self) -> Result<(), Error> {
        let found = self.store.try_get(place(self.process).as_bytes())?;
        if found.as_deref() == Some(self.name.as_bytes()) {
            return Ok(());
        }
        Err(Error::LostService {
            address: self.store.address().into(),
            reason: "it serves another start of the run".into(),
        })
    }

    fn wait(&self, key: &str, patience: Duration) -> Result<Vec<u8>, Error> {
        let begin = Instant::now();
        loop {
            let rest = patience.saturating_sub(begin.elapsed());
            // In slices: a connection on which nothing is said for long may be dropped on the way.
            if let Some(value) = self.store.get(key.as_bytes(), rest.min(SLICE))? {
                return Ok(value);
            }
            if begin.elapsed() >= patience {
                return Err(Error::TimedOut {
                    key: key.into(),
                    seconds: patience.as_secs(),
                    waiting: "the other processes are probably not started: run the same command on every host",
                });
            }
        }
    }

    /// Its number.
    pub fn process(&self) -> usize {
        self.process
    }

    /// How many there are.
    pub fn processes(&self) -> usize {
        self.processes
    }

    /// Compares values, such as the hash of the module, among all processes. Every process must ask for the same things.
    ///
    /// # Errors
    /// On process 0 and on the process itself, if one has another value than process 0; or if one does not come.
    pub fn same(&self, values: &[(&str, &str)]) -> Result<(), Error> {
        let key = |what: &str, process: usize| format!("same/{what}/{process}");
        for (what, value) in values {
            let key = key(what, self.process);
            self.store.put(key.as_bytes(), value.as_bytes())?;
        }
        let others = if self.process == 0 {
            1..self.processes
        } else {
            0..1
        };
        for process in others {
            for (what, value) in values {
                let found = self.wait(&key(what, process), PATIENCE)?;
                if found != value.as_bytes() {
                    return Err(self.differ(what, value, process, &found));
                }
            }
        }
        Ok(())
    }

    /// That this process and another one, of which one is process 0, have different values.
    fn differ(&self, what: &str, value: &str, process: usize, found: &[u8]) -> Error {
        let (expected, found) = if self.process == 0 {
            (value.as_bytes(), found)
        } else {
            (found, value.as_bytes())
        };
        // Of a hash that is enough.
        let short = |text: &[u8]| -> String {
            let most = match text.iter().all(u8::is_ascii_hexdigit) {
                true => 16,
                false => 400,
            };
            String::from_utf8_lossy(text).chars().take(most).collect()
        };
        Error::Disagree {
            what: what.into(),
            process: self.process.max(process),
            found: short(found),
            expected: short(expected),
        }
    }

    /// Waits until every process has come to this point, at most `patience`.
    ///
    /// # Errors
    /// If one does not come.
    pub fn all_here(&self, point: &str, patience: Duration) -> Result<(), Error> {
        let key = |process: usize| format!("here/{point}/{process}");
        self.store.put(key(self.process).as_bytes(), b"")?;
        let begin = Instant::now();
        for process in 0..self.processes {
            self.wait(&key(process), patience.saturating_sub(begin.elapsed()))?;
        }
        Ok(())
    }

    /// The processes that have not come to this point yet.
    ///
    /// # Errors
    /// If process 0 is gone.
    pub fn missing(&self, point: &str) -> Result<Vec<usize>, Error> {
        let mut missing = Vec::new();
        for process in 0..self.processes {
            let key = format!("here/{point}/{process}");
            if self.store.try_get(key.as_bytes())?.is_none() {
                missing.push(process);
            }
        }
        Ok(missing)
    }

    /// Asked after every launch: whether to save and stop now, and the reason that was given. `step` is where this process is, `launch`
    /// how many steps a launch takes at most, and `asked` the reason for which somebody asked this process to stop.
    ///
    /// All processes stop at the same step. Process 0 names it when it hears of a request, a whole launch ahead. Launches do not overlap:
    /// a process waits for the end of one before it asks and starts the next, and none ends without all processes. So when any process
    /// comes to that step, process 0 has started the launch that led there, and has named the step before.
    ///
    /// # Errors
    /// If process 0 is gone.
    pub fn stop_now(&self, step: u64, launch: u64, asked: Option<u8>) -> Result<Option<u8>, Error> {
        const AT: &[u8] = b"stop/at";
        let request = |reason: u8| format!("stop/request/{reason}");
        if let Some(reason) = asked {
            self.store.put(request(reason).as_bytes(), b"")?;
        }
        let mut at = self.store.try_get(AT)?;
        if self.process == 0 && at.is_none() {
            for reason in 0..=REASONS {
                if self.store.try_get(request(reason).as_bytes())?.is_some() {
                    let mut chosen = (step + launch).to_le_bytes().to_vec();
                    chosen.push(reason);
                    self.store.put(AT, &chosen)?;
                    at = Some(chosen);
                    break;
                }
            }
        }
        let Some((&reason, step_bytes)) = at.as_deref().and_then(<[u8]>::split_last) else {
            return Ok(None);
        };
        let at = step_bytes.try_into().map(u64::from_le_bytes);
        Ok((at.is_ok_and(|at| step >= at)).then_some(reason))
    }

    /// Says that this process is alive, and finds out whether a launch would wait for ever for another. To be asked every few seconds.
    pub fn trouble(&self) -> Option<Trouble> {
        let look = || {
            self.check_place()?;
            if let Some(words) = self.failure()? {
                return Ok(Some(Trouble::Failed(words)));
            }
            let lost = self.store.beat(self.name.as_bytes(), SILENCE)?;
            Ok(lost.map(|name| {
                let name = String::from_utf8_lossy(&name);
                let process = name.split('/').next().unwrap_or_default().into();
                Trouble::Lost(Error::Lost { process })
            }))
        };
        look().unwrap_or_else(|error| Some(Trouble::Lost(error)))
    }

    /// Says that this process goes in order and is not to be missed.
    pub fn leave(&self) {
        // If process 0 is gone, nobody misses anybody.
        if let Err(error) = self.store.leave(self.name.as_bytes()) {
            tracing::debug!("{error}");
        }
    }

    /// Says that this process has heard of a failure.
    pub fn heard(&self) {
        let key = format!("here/failed/{}", self.process);
        if let Err(error) = self.store.put(key.as_bytes(), b"") {
            tracing::debug!("{error}");
        }
    }

    /// Tells the others that this process ends with an error, for whom [`Group::failure`] waits, and [stays](Group::stay) for `patience`.
    pub fn tell_failure(&self, words: &str, patience: Duration) {
        let value = format!("process {}: {words}", self.process);
        // Who was first has said why; and if process 0 is gone, nobody listens.
        if let Err(error) = self.store.put(FAILURE, value.as_bytes()) {
            tracing::debug!("{error}");
        }
        self.stay(patience);
    }

    /// Process 0 serves the others, so that it stays for `patience` until all have heard that the run ends; for others there is nothing
    /// to wait for.
    pub fn stay(&self, patience: Duration) {
        let until = Instant::now() + patience;
        let others = if self.process == 0 { self.processes } else { 0 };
        for process in 1..others {
            let left = until.saturating_duration_since(Instant::now());
            if let Err(error) = self.wait(&format!("here/failed/{process}"), left) {
                tracing::debug!("{error}");
            }
        }
    }

    /// What another process said when it ended with an error, if one did so far.
    ///
    /// # Errors
    /// If process 0 is gone.
    pub fn failure(&self) -> Result<Option<String>, Error> {
        let found = self.store.try_get(FAILURE)?;
        Ok(found.map(|words| String::from_utf8_lossy(&words).into_owned()))
    }
}

/// Why a launch would never end.
#[derive(Debug)]
pub enum Trouble {
    /// What another process said when it ended with an error.
    Failed(String),
    /// Another process ended without a word, or its machine did.
    Lost(Error),
}

/// The key of a process's place.
fn place(process: usize) -> String {
    format!("place/{process}")
}

/// Reasons to stop are numbered up to here.
const REASONS: u8 = 1;
const FAILURE: &[u8] = b"failure";
