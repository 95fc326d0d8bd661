//! What the processes of a run must agree on: that they run the same, and when to stop.

use super::Error;
use super::store::Store;
use std::time::Duration;

/// How long to wait for what the others know at their start.
const PATIENCE: Duration = Duration::from_secs(300);

/// The processes of a run.
#[derive(Debug)]
pub struct Group {
    store: Store,
    process: usize,
    processes: usize,
}

impl Group {
    /// Of `processes`, of which this one is number `process`.
    pub fn new(store: Store, process: usize, processes: usize) -> Self {
        Group {
            store,
            process,
            processes,
        }
    }

    fn wait(&self, key: &str, patience: Duration) -> Result<Vec<u8>, Error> {
        let value = self.store.get(key.as_bytes(), patience)?;
        value.ok_or_else(|| Error::TimedOut {
            key: key.into(),
            seconds: patience.as_secs(),
            waiting: "the other processes are probably not started: run the same command on every host",
        })
    }

    /// Its number.
    pub fn process(&self) -> usize {
        self.process
    }

    /// How many there are.
    pub fn processes(&self) -> usize {
        self.processes
    }

    /// Compares a value, such as the hash of the module, among all processes. Every process must ask for the same things.
    ///
    /// # Errors
    /// On process 0 and on the process itself, if one has another value than process 0; or if one does not come.
    pub fn same(&self, what: &str, value: &str) -> Result<(), Error> {
        let key = |process: usize| format!("same/{what}/{process}");
        self.store
            .put(key(self.process).as_bytes(), value.as_bytes())?;
        let others = if self.process == 0 {
            1..self.processes
        } else {
            0..1
        };
        let short =
            |text: &[u8]| -> String { String::from_utf8_lossy(text).chars().take(16).collect() };
        for process in others {
            let found = self.wait(&key(process), PATIENCE)?;
            if found == value.as_bytes() {
                continue;
            }
            let (expected, found) = if self.process == 0 {
                (value.as_bytes(), &found[..])
            } else {
                (&found[..], value.as_bytes())
            };
            return Err(Error::Disagree {
                what: what.into(),
                process: self.process.max(process),
                found: short(found),
                expected: short(expected),
            });
        }
        Ok(())
    }

    /// Waits until every process has come to this point, for each as long as `patience`.
    ///
    /// # Errors
    /// If one does not come.
    pub fn all_here(&self, point: &str, patience: Duration) -> Result<(), Error> {
        let key = |process: usize| format!("here/{point}/{process}");
        self.store.put(key(self.process).as_bytes(), b"")?;
        for process in 0..self.processes {
            self.wait(&key(process), patience)?;
        }
        Ok(())
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

    /// Tells the others that this process ends with an error, for whom [`Group::failure`] waits.
    pub fn tell_failure(&self, words: &str) {
        let value = format!("process {}: {words}", self.process);
        // Who was first has said why; and if process 0 is gone, nobody listens.
        if let Err(error) = self.store.put(FAILURE, value.as_bytes()) {
            tracing::debug!("{error}");
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

/// Reasons to stop are numbered up to here.
const REASONS: u8 = 1;
const FAILURE: &[u8] = b"failure";
