//! What the processes of a run must agree on: that they run the same, and when to stop.

use super::Error;
use super::store::Store;
use std::time::Duration;

/// How long to wait for the others.
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

    /// Compares a value, such as the hash of the module, with that of process 0. Every process must ask for the same things in the
    /// same order.
    ///
    /// # Errors
    /// If it differs, or process 0 does not come.
    pub fn same(&self, what: &str, value: &str) -> Result<(), Error> {
        let key = format!("same/{what}");
        if self.process == 0 {
            return self.store.put(key.as_bytes(), value.as_bytes());
        }
        let expected = self.wait(&key, PATIENCE)?;
        if expected == value.as_bytes() {
            return Ok(());
        }
        let short = |text: &str| text.chars().take(16).collect::<String>();
        Err(Error::Disagree {
            what: what.into(),
            process: self.process,
            found: short(value),
            expected: short(&String::from_utf8_lossy(&expected)),
        })
    }

    /// Waits until every process has come to this point.
    ///
    /// # Errors
    /// If one does not come.
    pub fn all_here(&self, point: &str) -> Result<(), Error> {
        let key = |process: usize| format!("here/{point}/{process}");
        self.store.put(key(self.process).as_bytes(), b"")?;
        for process in 0..self.processes {
            self.wait(&key(process), PATIENCE)?;
        }
        Ok(())
    }

    /// Asked after every launch: whether to save and stop now. `step` is where this process is, `launch` how many steps a launch
    /// takes at most, and `asked` whether somebody asked this process to stop.
    ///
    /// All processes stop at the same step. Process 0 names it when it hears of a request: a launch on. No process can have finished
    /// that launch then, since it needs all of them; and each looks when it has.
    ///
    /// # Errors
    /// If process 0 is gone.
    pub fn stop_now(&self, step: u64, launch: u64, asked: bool) -> Result<bool, Error> {
        const REQUEST: &[u8] = b"stop/request";
        const AT: &[u8] = b"stop/at";
        if asked {
            self.store.put(REQUEST, b"")?;
        }
        let mut at = self.store.try_get(AT)?;
        if self.process == 0 && at.is_none() && self.store.try_get(REQUEST)?.is_some() {
            let chosen = (step + launch).to_le_bytes().to_vec();
            self.store.put(AT, &chosen)?;
            at = Some(chosen);
        }
        let at = at
            .and_then(|bytes| bytes.try_into().ok())
            .map(u64::from_le_bytes);
        Ok(at.is_some_and(|at| step >= at))
    }
}
