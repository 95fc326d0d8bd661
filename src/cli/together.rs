//! The processes of a run, as the command line and the machines name them: found, joined, watched.

use super::ui::Ui;
use crate::cluster::agreement::Group;
use crate::cluster::identity::{Identity, Wanted};
use crate::cluster::metadata::Metadata;
use crate::cluster::store::{Server, Store};
use crate::cluster::{self};
use crate::engine::Engine;
use crate::error::Class;
use crate::pjrt::{Node, Platform, set_variables, tpu_chips};
use crate::report::Screen;
use crate::train::processes::Processes;
use crate::train::signals::{Stop, StopKind};
use clap::Args;
use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// How long to wait for process 0, whose start may take longer than this process's.
const PATIENCE: Duration = Duration::from_secs(300);
/// After so long without devices it is said what is probably waited for.
const SILENCE: Duration = Duration::from_secs(60);

/// How often the notice of a preemption is looked for.
const NOTICE: Duration = Duration::from_secs(5);

/// Which process of how many, where the machines do not say or the user knows better.
#[derive(Args)]
pub(super) struct Place {
    /// Number of this process, from 0 (on a TPU slice its machines say so themselves)
    #[arg(long, value_name = "N", requires = "processes")]
    process: Option<usize>,
    /// How many processes train together; 1 on a TPU slice of several hosts takes this host alone
    #[arg(long, value_name = "N")]
    processes: Option<usize>,
    /// Where process 0 is
    #[arg(long, value_name = "HOST:PORT", requires = "processes")]
    coordinator: Option<String>,
}

/// This process among those of a run, before it has devices.
pub(super) struct Together {
    identity: Identity,
    store: Option<Arc<Store>>,
    _server: Option<Server>,
}

impl Together {
    /// Finds out which process this is, and joins the others if there are any.
    pub(super) fn join(place: &Place, platform: &str) -> anyhow::Result<Self> {
        let identity = identity(place, platform)?;
        set_variables(&identity.variables);
        let mut together = Together {
            identity,
            store: None,
            _server: None,
        };
        let identity = &together.identity;
        if identity.processes < 2 {
            return Ok(together);
        }
        let processes = identity.processes;
        let address = identity.coordinator.as_deref();
        let address = address.ok_or(cluster::Error::NoCoordinator { processes })?;
        if identity.process == 0 {
            let port = address.rsplit(':').next().unwrap_or_default();
            together._server = Some(Server::start(&format!("0.0.0.0:{port}"))?);
        }
        together.store = Some(Arc::new(Store::connect(address, PATIENCE)?));
        Ok(together)
    }

    /// For a plugin that must be told.
    pub(super) fn node(&self) -> Option<Node> {
        let store = self.store.clone()?;
        Some(Node {
            id: self.identity.process,
            count: self.identity.processes,
            store,
        })
    }

    /// Opens an engine; says what is probably waited for if that takes long.
    pub(super) fn open<T>(
        &self,
        ui: &Ui,
        open: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        if self.identity.processes < 2 {
            return open();
        }
        let (done, waiting) = channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || say_if_late(&waiting, SILENCE, ui, self.identity.processes));
            let opened = open();
            drop(done);
            opened
        })
    }

    /// The processes, once there are devices: all of them must show.
    pub(super) fn processes(self, engine: &Engine) -> anyhow::Result<Processes> {
        let Some(store) = self.store else {
            return Ok(Processes::default());
        };
        let (process, expected) = (self.identity.process, self.identity.processes);
        let mut found: Vec<i64> = engine
            .client()
            .all_devices()
            .iter()
            .map(|device| device.process())
            .collect();
        found.dedup();
        if found.len() != expected {
            return Err(cluster::Error::OtherProcesses {
                platform: engine.client().platform_name().into(),
                found: found.len(),
                expected,
            }
            .into());
        }
        let store = Arc::try_unwrap(store).or_else(|_| {
            // The plugin keeps its own; a second connection serves as well.
            let address = self.identity.coordinator.as_deref().unwrap_or_default();
            Store::connect(address, PATIENCE)
        })?;
        let processes = Processes::of(Group::new(store, process, expected));
        processes.watch(|words| {
            // Also where nobody can read it.
            let _ = writeln!(
                std::io::stderr(),
                "error: this process ends, since it would wait for ever: {words}; start all processes again"
            );
            std::process::exit(i32::from(Class::Failed.exit_code()));
        });
        Ok(processes)
    }
}

/// On a TPU VM, takes the metadata server's notice that the machine is taken away for a SIGTERM.
pub(super) fn watch_notice(stop: &Stop) {
    if tpu_chips() == 0 {
        // Elsewhere the system itself sends the signal.
        return;
    }
    let stop = stop.clone();
    std::thread::spawn(move || {
        let server = Metadata::new();
        loop {
            // A server that does not answer now may do so later.
            if server.going_away().unwrap_or(false) {
                stop.request(StopKind::Terminate);
                return;
            }
            std::thread::sleep(NOTICE);
        }
    });
}

/// Messages come from process 0.
pub(super) fn screen(processes: &Processes, ui: &Ui) -> Screen {
    if processes.leads() {
        ui.screen.clone()
    } else {
        Screen::stderr(true)
    }
}

fn say_if_late(waiting: &Receiver<()>, patience: Duration, ui: &Ui, processes: usize) {
    if waiting.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
        ui.note(&format!(
            "no devices after {} s: this process probably waits for the other {} to start; run the same command on every host (tpu/pod.sh launch does)",
            patience.as_secs(),
            processes - 1
        ));
    }
}

fn identity(place: &Place, platform: &str) -> Result<Identity, cluster::Error> {
    let wanted = Wanted {
        process: place.process,
        processes: place.processes,
        coordinator: place.coordinator.as_deref(),
    };
    let chips = tpu_chips();
    let variable = |name: &str| std::env::var(name).ok();
    if platform != Platform::Tpu.name() && (platform != "auto" || chips == 0) {
        // A machine that is no TPU VM has nobody to ask.
        return Identity::find(wanted, &|_| None, None);
    }
    let server = (chips > 0).then(Metadata::new);
    match Identity::find(wanted, &variable, server.as_ref()) {
        // Who cannot be told is taken to be alone; `simclr doctor` says what is wrong.
        Err(error @ (cluster::Error::Metadata { .. } | cluster::Error::Garbled { .. }))
            if place.processes.is_none() =>
        {
            tracing::info!("which worker this is cannot be told: {error}");
            Identity::find(wanted, &|_| None, None)
        }
        other => other,
    }
}
