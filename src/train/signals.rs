//! Ctrl-C, SIGTERM and SIGHUP as flags that the training loop reads between launches.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

/// Who asked the run to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopKind {
    /// Ctrl-C: a person, who does not want it restarted.
    Interrupt,
    /// SIGTERM: a supervisor or a preemption notice, after which the same command goes on; SIGHUP: a terminal that is gone.
    Terminate,
}

impl StopKind {
    /// The exit code of a run that saved its state because of this.
    pub fn exit_code(self) -> u8 {
        match self {
            StopKind::Interrupt => 130,
            StopKind::Terminate => 75,
        }
    }
}

/// Whether the run has been asked to stop. Clones share the answer.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    interrupt: Arc<AtomicBool>,
    terminate: Arc<AtomicBool>,
    nothing_to_save: Arc<AtomicBool>,
}

impl Stop {
    /// Listens to SIGINT, SIGTERM and, where it is not ignored, SIGHUP from now on. Until [`Stop::wait_for_save`] each ends the process at
    /// once, with its exit code: nothing would be lost, and who waits for devices or for other processes would not hear of it. After that a
    /// second Ctrl-C ends the process at once, with code 130; a second SIGTERM or SIGHUP changes nothing, since supervisors repeat themselves.
    ///
    /// To be called once in a process. `Stop::default()` listens to nothing.
    pub fn listen() -> io::Result<Stop> {
        let stop = Stop::default();
        stop.nothing_to_save.store(true, Ordering::Relaxed);
        for (signal, kind) in heard() {
            let code = i32::from(kind.exit_code());
            flag::register_conditional_shutdown(signal, code, Arc::clone(&stop.nothing_to_save))?;
        }
        let code = i32::from(StopKind::Interrupt.exit_code());
        // In this order: the first Ctrl-C finds the flag down, the second finds it up.
        flag::register_conditional_shutdown(SIGINT, code, Arc::clone(&stop.interrupt))?;
        for (signal, kind) in heard() {
            flag::register(signal, Arc::clone(stop.flag(kind)))?;
        }
        Ok(stop)
    }

    /// From now on a stop is a wish, which [`Stop::requested`] tells and the run fulfils once it has saved.
    pub fn wait_for_save(&self) {
        self.nothing_to_save.store(false, Ordering::Relaxed);
    }

    /// From now on `say` is told of the first signal of each kind at once, in a thread of its own: what is under way may take minutes.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn announce(say: impl Fn(&str) + Send + 'static) -> io::Result<()> {
        const SOON: &str = "stopping as soon as what is under way is done and saved";
        let mut signals = Signals::new(heard().map(|(signal, _)| signal))?;
        thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                let mut told = false;
                for signal in signals.forever() {
                    if signal == SIGINT {
                        say(&format!(
                            "{SOON}; Ctrl-C again ends at once, without saving"
                        ));
                        return;
                    }
                    if !std::mem::replace(&mut told, true) {
                        let name = if signal == SIGHUP {
                            "SIGHUP"
                        } else {
                            "SIGTERM"
                        };
                        say(&format!("{name}: {SOON}"));
                    }
                }
            })
            .map(drop)
    }

    /// What was asked so far; the wish of a person goes before that of a supervisor.
    pub fn requested(&self) -> Option<StopKind> {
        if self.interrupt.load(Ordering::Relaxed) {
            Some(StopKind::Interrupt)
        } else if self.terminate.load(Ordering::Relaxed) {
            Some(StopKind::Terminate)
        } else {
            None
        }
    }

    /// Asks for a stop without a signal, as a preemption notice from elsewhere does.
    pub fn request(&self, kind: StopKind) {
        self.flag(kind).store(true, Ordering::Relaxed);
    }

    fn flag(&self, kind: StopKind) -> &Arc<AtomicBool> {
        match kind {
            StopKind::Interrupt => &self.interrupt,
            StopKind::Terminate => &self.terminate,
        }
    }
}

/// The signals that ask for a stop. Who starts a program with `nohup` wants it to outlive its terminal.
fn heard() -> impl Iterator<Item = (i32, StopKind)> {
    [
        (SIGINT, StopKind::Interrupt),
        (SIGTERM, StopKind::Terminate),
        (SIGHUP, StopKind::Terminate),
    ]
    .into_iter()
    .filter(|&(signal, _)| signal != SIGHUP || !is_ignored(signal))
}

/// Whether this process ignores a signal, as far as the system tells.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
