//! The processes of a run, as the command line and the machines name them: found, joined, watched.

use super::exit;
use super::ui::Ui;
use crate::cluster;
use crate::cluster::agreement::{Group, Trouble};
use crate::cluster::identity::{Identity, Wanted, asks_server};
use crate::cluster::metadata::Metadata;
use crate::cluster::store::{Server, Store};
use crate::config::Loaded;
use crate::engine::{self, Engine};
use crate::error::Class;
use crate::pjrt::{self, Node, Platform, end_at_once, set_variables, tpu_chips};
use crate::report::Screen;
use crate::train;
use crate::train::processes::Processes;
use crate::train::signals::{Stop, StopKind};
use clap::Args;
use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// How long to wait for process 0, whose start may take longer than this process's.
const PATIENCE: Duration = Duration::from_secs(300);
/// After so long without the others, or without devices, it is said what is probably waited for.
const SILENCE: Duration = Duration::from_secs(60);

/// So soon any other process that is gone is missed, worker 0 without a broken connection last; its end may make this one's devices fail.
pub(super) const LOSS: Duration = Duration::from_secs(130);
/// So soon a process is missed whose connection broke.
const BREAK: Duration = Duration::from_secs(10);
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
    processes: Processes,
    _server: Option<Server>,
}

impl Together {
    /// Finds out which process this is, and joins the others if there are any.
    pub(super) fn join(place: &Place, platform: &str) -> anyhow::Result<Self> {
        let variable = |name: &str| std::env::var(name).ok();
        let identity = identity(place, platform, tpu_chips(), &variable, Metadata::new)?;
        set_variables(&identity.variables);
        let mut together = Together {
            identity,
            store: None,
            processes: Processes::default(),
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
        let store = Arc::new(Store::connect(address, PATIENCE)?);
        let group = Group::join(store.clone(), identity.process, processes)?;
        together.processes = Processes::of(group);
        // From now on, since also devices are waited for.
        together.processes.watch(end);
        together.store = Some(store);
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

    /// Opens an engine once all processes are there and have the same configuration; says what is probably waited for if that takes long.
    /// The others hear of an error.
    pub(super) fn open<T>(
        &self,
        ui: &Ui,
        loaded: &Loaded,
        open: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let say = |words: &str| ui.note(words);
        let processes = self.identity.processes;
        let open = || within(SILENCE, say, || no_devices(processes), open);
        if processes < 2 {
            return open();
        }
        let missing = || no_word_of(&self.processes.missing(), &self.identity.hosts, processes);
        let opened = within(SILENCE, say, missing, || self.processes.started())
            .and_then(|()| self.processes.same_configuration(loaded))
            .map_err(anyhow::Error::from)
            .and_then(|()| open());
        if let Err(error) = &opened {
            tell_failure(&self.processes, error, Duration::ZERO);
        }
        opened
    }

    /// The processes, once there are devices, of which a step takes so many: all processes must show, and no others; and all take part.
    pub(super) fn processes(self, engine: &Engine, devices: usize) -> anyhow::Result<Processes> {
        let checked = self.check(engine, devices);
        if let Err(error) = &checked {
            tell_failure(&self.processes, error, Duration::ZERO);
        }
        checked.map(|()| self.processes)
    }

    fn check(&self, engine: &Engine, devices: usize) -> anyhow::Result<()> {
        self.processes.opened()?;
        let all: Vec<i64> = engine
            .client()
            .all_devices()
            .iter()
            .map(|device| device.process())
            .collect();
        let platform = engine.client().platform_name();
        Ok(all_take_part(
            platform,
            &all,
            devices,
            self.identity.processes,
        )?)
    }
}

/// Tells the others of an error with which this process ends. What may come of another's end is left to the watch, if that finds within
/// `patience` who ended and why. With what is to be started again nobody has failed: the others miss this process, and end so, too.
pub(super) fn tell_failure(processes: &Processes, error: &anyhow::Error, patience: Duration) {
    if exit::code(error) == Class::Again.exit_code() {
        processes.give_way(patience.min(BREAK));
        processes.leave();
        return;
    }
    if of_plugin(error) {
        if processes.several() && !patience.is_zero() {
            tracing::warn!(
                "the devices failed; for {} s it is looked whether another process is gone",
                patience.as_secs()
            );
        }
        processes.give_way(patience);
    }
    processes.tell_failure(&format!("{error:#}"));
}

/// Whether an error is a plugin's word. The layers above it are transparent, so that it is not in the chain of sources.
fn of_plugin(error: &anyhow::Error) -> bool {
    let engine = match error.downcast_ref::<train::Error>() {
        Some(train::Error::Engine(engine)) => Some(engine),
        _ => error.downcast_ref::<engine::Error>(),
    };
    matches!(engine, Some(engine::Error::Pjrt(_))) || error.is::<pjrt::Error>()
}

/// Does something that may wait for others; after `patience`, says what is probably waited for.
fn within<T>(
    patience: Duration,
    say: impl FnOnce(&str) + Send,
    words: impl FnOnce() -> String + Send,
    work: impl FnOnce() -> T,
) -> T {
    let (done, waiting) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if waiting.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
                say(&words());
            }
        });
        let result = work();
        drop(done);
        result
    })
}

/// What is said where processes do not come; `hosts` are their addresses, where those of all are known.
fn no_word_of(missing: &[usize], hosts: &[String], processes: usize) -> String {
    let name = |&process: &usize| match hosts.get(process) {
        Some(host) if hosts.len() == processes => format!("{process} ({host})"),
        _ => process.to_string(),
    };
    let names: Vec<String> = missing.iter().map(name).collect();
    format!(
        "no word for {} s of process {} of {processes}, without which there are no devices; run the same command on every host (tpu/pod.sh launch does)",
        SILENCE.as_secs(),
        names.join(", ")
    )
}

/// What is said where devices do not come.
fn no_devices(processes: usize) -> String {
    let reason = match processes {
        1 => {
            "another process may hold them, or this is one host of several, which wait for each other: then run the same command on all"
        }
        _ => {
            "all processes are there, but another one may hold devices of a host, or hosts cannot reach each other"
        }
    };
    format!(
        "no devices after {} s: {reason}; `simclr doctor` looks (tpu/pod.sh doctor: on every host)",
        SILENCE.as_secs()
    )
}

/// Checks that so many processes show devices, and that a step of several takes all of these; `all` is the process of each device. A step
/// on fewer would leave a process without devices, or be done by each process for itself.
fn all_take_part(
    platform: &str,
    all: &[i64],
    devices: usize,
    processes: usize,
) -> Result<(), cluster::Error> {
    let found: BTreeSet<i64> = all.iter().copied().collect();
    if found.len() != processes {
        return Err(cluster::Error::OtherProcesses {
            platform: platform.into(),
            found: found.len(),
            expected: processes,
        });
    }
    if processes > 1 && devices != all.len() {
        return Err(cluster::Error::PartOfDevices {
            found: devices,
            all: all.len(),
            processes,
        });
    }
    Ok(())
}

/// Ends this process, which would wait for another for ever. Who is lost may come back, so that this is to be started again.
fn end(trouble: &Trouble) {
    let (words, class) = match trouble {
        Trouble::Failed(words) => (words.clone(), Class::Failed),
        Trouble::Lost(error) => (error.to_string(), error.class()),
    };
    // Also where nobody can read it.
    let _ = writeln!(
        std::io::stderr(),
        "error: this process ends, since it would wait for ever: {words}"
    );
    end_at_once(class.exit_code());
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

/// For a command of one process: on a host of several the program begins anew, so that it takes this host's devices alone, since else
/// the plugin would wait for the others. (Asking who this is leaves threads, beside which no variable may be set.)
pub(super) fn alone() {
    let variable = |name: &str| std::env::var(name).ok();
    let variables = own_devices(tpu_chips(), &variable, Metadata::new);
    if let (false, Ok(program)) = (variables.is_empty(), std::env::current_exe()) {
        let error = Command::new(program)
            .args(std::env::args_os().skip(1))
            .envs(variables)
            .exec();
        tracing::warn!("this host cannot be taken alone: {error}");
    }
}

/// What the plugin must be told for that; nothing where there are no other hosts.
fn own_devices(
    chips: usize,
    variable: &dyn Fn(&str) -> Option<String>,
    server: impl Fn() -> Metadata,
) -> Vec<(&'static str, String)> {
    let found = |processes| {
        let place = Place {
            process: None,
            processes,
            coordinator: None,
        };
        identity(&place, "auto", chips, variable, &server)
    };
    match found(None) {
        Ok(this) if this.processes > 1 => {
            found(Some(1)).map_or(Vec::new(), |alone| alone.variables)
        }
        // Who cannot be told leaves it to the plugin.
        _ => Vec::new(),
    }
}

/// Which process this one is, on a machine with so many TPU chips. Who cannot be told there is not taken to be alone: it may be a host of
/// several, whose files it would write.
fn identity(
    place: &Place,
    platform: &str,
    chips: usize,
    variable: &dyn Fn(&str) -> Option<String>,
    server: impl FnOnce() -> Metadata,
) -> Result<Identity, cluster::Error> {
    let wanted = Wanted {
        process: place.process,
        processes: place.processes,
        coordinator: place.coordinator.as_deref(),
        chips,
    };
    if platform != Platform::Tpu.name() && (platform != "auto" || chips == 0) {
        // A machine that is no TPU VM has nobody to ask.
        return Identity::find(wanted, &|_| None, None);
    }
    let server = (chips > 0 && asks_server(variable)).then(server);
    Identity::find(wanted, variable, server.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugins_word_is_known_through_the_layers() {
        let word = || pjrt::Error::Misuse("devices are gone".into());
        let all = [
            anyhow::Error::from(word()),
            engine::Error::from(word()).into(),
            train::Error::from(engine::Error::from(word())).into(),
            anyhow::Error::from(train::Error::from(engine::Error::from(word()))).context("step 3"),
        ];
        assert!(all.iter().all(of_plugin));
        assert!(!of_plugin(&anyhow::anyhow!("the disk is full")));
    }

    #[test]
    fn who_is_waited_for_is_said_once_it_takes_long() {
        let (said, heard) = channel();
        let say = |words: &str| said.send(words.to_string()).unwrap();
        let hosts = ["a", "b", "c"].map(String::from);
        let words = || no_word_of(&[1, 2], &hosts, 3);
        // It comes when the word is out.
        let found = within(Duration::ZERO, say, words, || heard.recv().unwrap());
        assert!(
            found.starts_with("no word for 60 s of process 1 (b), 2 (c) of 3,")
                && found.contains("run the same command on every host"),
            "{found}"
        );
        // Of several slices the hosts of one are known.
        assert!(no_word_of(&[5], &hosts, 6).contains("process 5 of 6"));
        let said = |_: &str| panic!("it came in time");
        let nothing = || no_devices(1);
        assert_eq!(within(Duration::MAX, said, nothing, || 1), 1);
        for processes in [1, 2] {
            assert!(no_devices(processes).contains("simclr doctor"));
        }
    }

    #[test]
    fn a_host_with_chips_that_cannot_be_told_its_place_is_not_alone() {
        let soon = Duration::from_millis(1);
        let nobody = || Metadata::at("127.0.0.1:9", SILENCE, soon);
        let place = |processes| Place {
            process: None,
            processes,
            coordinator: None,
        };
        for platform in ["auto", "tpu"] {
            let error = identity(&place(None), platform, 4, &|_| None, nobody).unwrap_err();
            assert_eq!(error.class(), Class::Environment);
            let words = error.to_string();
            assert!(words.contains("--processes 1"), "{words}");
            // By hand, elsewhere, or where the environment forbids to ask.
            let alone = identity(&place(Some(1)), platform, 4, &|_| None, nobody);
            assert_eq!(alone.unwrap().processes, 1);
            let never = || panic!("nobody is asked");
            assert!(identity(&place(None), platform, 0, &|_| None, never).is_ok());
            let skips = |name: &str| (name == "TPU_SKIP_MDS_QUERY").then(|| "1".to_string());
            assert!(identity(&place(None), platform, 4, &skips, never).is_ok());
        }
        let never = || panic!("a run on the CPU asks nobody");
        assert!(identity(&place(None), "cpu", 4, &|_| None, never).is_ok());
    }

    #[test]
    fn a_command_of_one_process_takes_its_host_alone() {
        let soon = Duration::from_millis(1);
        let nobody = || Metadata::at("127.0.0.1:9", SILENCE, soon);
        let of = |hosts: &'static str| {
            move |name: &str| match name {
                "TPU_WORKER_ID" => Some("1".to_string()),
                "TPU_WORKER_HOSTNAMES" => Some(hosts.to_string()),
                _ => None,
            }
        };
        // As GKE tells; and of several slices.
        let gke = |name: &str| match name {
            "TPU_PROCESS_ADDRESSES" => Some("a:8476,b:8476".to_string()),
            "MEGASCALE_NUM_SLICES" => Some("2".to_string()),
            "MEGASCALE_SLICE_ID" => Some("1".to_string()),
            "MEGASCALE_COORDINATOR_ADDRESS" => Some("a".to_string()),
            "TPU_WORKER_ID" => Some("1".to_string()),
            _ => None,
        };
        let told = own_devices(4, &gke, nobody);
        for wanted in [
            ("TPU_PROCESS_ADDRESSES", "localhost:8476"),
            ("MEGASCALE_NUM_SLICES", "1"),
        ] {
            let found = told.iter().any(|(k, v)| (*k, v.as_str()) == wanted);
            assert!(found, "{wanted:?} of {told:?}");
        }
        let told = own_devices(4, &of("a,b,c,d"), nobody);
        assert!(told.iter().all(|(name, _)| !name.starts_with("MEGASCALE")));
        for wanted in [
            ("TPU_PROCESS_BOUNDS", "1,1,1"),
            ("TPU_CHIPS_PER_PROCESS_BOUNDS", "2,2,1"),
            ("TPU_WORKER_HOSTNAMES", "localhost"),
        ] {
            let found = told.iter().any(|(k, v)| (*k, v.as_str()) == wanted);
            assert!(found, "{wanted:?} of {told:?}");
        }
        let first = |name: &str| match name {
            "TPU_WORKER_ID" => Some("0".to_string()),
            name => of("a")(name),
        };
        assert!(own_devices(4, &first, nobody).is_empty());
        assert!(own_devices(4, &|_| None, nobody).is_empty());
        assert!(own_devices(0, &of("a,b,c,d"), nobody).is_empty());
    }

    #[test]
    fn every_process_takes_part_with_all_its_devices() {
        let all = [0, 0, 0, 0, 1, 1, 1, 1];
        let check = |devices, processes| {
            let found = all_take_part("tpu", &all, devices, processes);
            found.map_err(|error| error.to_string())
        };
        assert_eq!(check(8, 2), Ok(()));
        for devices in [2, 4, 6] {
            let error = check(devices, 2).unwrap_err();
            let words = format!("runtime.devices is {devices} and 2 processes have 8 devices");
            assert!(
                error.contains(&words) && error.contains("expected 8"),
                "{error}"
            );
        }
        let error = check(8, 3).unwrap_err();
        assert!(
            error.contains("3 process(es), and the tpu plugin shows devices of 2"),
            "{error}"
        );
        // One that believes itself alone is found out, too; one that is alone may take some of its devices.
        let error = check(4, 1).unwrap_err();
        assert!(error.contains("of 1 process(es)"), "{error}");
        assert!(error.contains("--processes 1"), "{error}");
        assert!(all_take_part("cpu", &[0; 4], 2, 1).is_ok());
        // In whatever order the plugin lists them.
        assert!(all_take_part("tpu", &[0, 1, 0, 1], 4, 2).is_ok());
    }
}
