//! Which process of how many this one is.

use super::Error;
use super::metadata::{Metadata, Worker};

/// Port on which process 0 serves the others, unless told otherwise.
pub const COORDINATOR_PORT: u16 = 8476;

/// Who told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The user.
    Flags,
    /// Variables of the environment, as GKE sets them.
    Environment,
    /// The metadata server of a TPU VM.
    Metadata,
    /// Nobody: this process is alone.
    Alone,
}

/// This process among those of a run.
///
/// It serves for starting, for messages and for finding each other. What the devices are and whose, PJRT tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its number.
    pub process: usize,
    /// How many there are.
    pub processes: usize,
    /// Their addresses in order, where known.
    pub hosts: Vec<String>,
    /// `host:port` of process 0's service.
    pub coordinator: Option<String>,
    /// What the slice is, such as `v3-32`, where known.
    pub accelerator: Option<String>,
    /// Who told.
    pub source: Source,
    /// Variables that libtpu must find when it is loaded, beside those that are set.
    pub variables: Vec<(&'static str, String)>,
}

/// What the user said.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// This process's number.
    pub process: Option<usize>,
    /// How many there are; 1 on a pod means this host alone.
    pub processes: Option<usize>,
    /// `host:port` of process 0.
    pub coordinator: Option<&'a str>,
    /// TPU chips of this host, for taking it alone.
    pub chips: usize,
}

impl Identity {
    fn alone() -> Self {
        Identity {
            process: 0,
            processes: 1,
            hosts: Vec::new(),
            coordinator: None,
            accelerator: None,
            source: Source::Alone,
            variables: Vec::new(),
        }
    }

    /// Finds out: what the user said, then variables, then the metadata server, if there is one to ask.
    ///
    /// # Errors
    /// If what was told does not fit together, or the server cannot be understood.
    pub fn find(
        wanted: Wanted,
        variable: &dyn Fn(&str) -> Option<String>,
        metadata: Option<&Metadata>,
    ) -> Result<Self, Error> {
        if wanted.processes == Some(1) && wanted.process.unwrap_or(0) == 0 {
            // Nobody has to be asked, who might not answer.
            return Ok(Identity {
                source: Source::Flags,
                variables: this_host_alone(variable, wanted.chips),
                accelerator: variable("TPU_ACCELERATOR_TYPE"),
                ..Identity::alone()
            });
        }
        let told = match (Self::told(variable, metadata), wanted) {
            // Who says all by hand does so where nobody else can.
            (
                Err(_),
                Wanted {
                    process: Some(_),
                    processes: Some(_),
                    coordinator: Some(_),
                    ..
                },
            ) => Self::alone(),
            (told, _) => told?,
        };
        match (wanted.process, wanted.processes) {
            (None, None) => {
                let mut found = told;
                if let Some(address) = wanted.coordinator {
                    found.coordinator = Some(with_port(address, COORDINATOR_PORT));
                }
                Ok(found)
            }
            (Some(process), Some(processes)) if process < processes => Ok(Identity {
                process,
                processes,
                coordinator: match (wanted.coordinator, told.coordinator) {
                    (Some(address), _) => Some(with_port(address, COORDINATOR_PORT)),
                    (None, found @ Some(_)) => found,
                    (None, None) => return Err(Error::NoCoordinator { processes }),
                },
                hosts: told.hosts,
                accelerator: told.accelerator,
                source: Source::Flags,
                variables: Vec::new(),
            }),
            (process, processes) => Err(Error::Place {
                process: process.map_or("not given".into(), |p| p.to_string()),
                processes: processes.map_or("not given".into(), |p| p.to_string()),
            }),
        }
    }

    fn told(
        variable: &dyn Fn(&str) -> Option<String>,
        metadata: Option<&Metadata>,
    ) -> Result<Self, Error> {
        if let Some((number, name, list)) = from_variables(variable) {
            let garbled = |what: &str, found: &str| Error::Garbled {
                what: what.into(),
                found: found.into(),
            };
            let number: usize = number
                .trim()
                .parse()
                .map_err(|_| garbled("TPU_WORKER_ID", &number))?;
            if number >= list.len() || list.iter().any(String::is_empty) {
                let found = format!("{number} among {}", list.join(","));
                return Err(garbled(&format!("TPU_WORKER_ID and {name}"), &found));
            }
            let worker = Worker {
                number,
                hosts: list,
                accelerator: variable("TPU_ACCELERATOR_TYPE"),
                ..Worker::default()
            };
            return slices(worker, variable, Source::Environment);
        }
        let worker = match metadata {
            Some(metadata) => metadata.worker()?,
            None => None,
        };
        match worker {
            Some(worker) => {
                let own = worker.variables.clone();
                let variable = |name: &str| variable(name).or_else(|| own.get(name).cloned());
                slices(worker, &variable, Source::Metadata)
            }
            None => Ok(Identity::alone()),
        }
    }
}

/// Whether the metadata server must be asked which worker this is: variables do not say, nor forbid to ask (as on GKE).
pub fn asks_server(variable: &dyn Fn(&str) -> Option<String>) -> bool {
    from_variables(variable).is_none() && variable("TPU_SKIP_MDS_QUERY").is_none()
}

/// A worker's number as text, with the list of all and the variable that has it. Addresses are libtpu's own, whose ports are not ours.
fn from_variables(
    variable: &dyn Fn(&str) -> Option<String>,
) -> Option<(String, &'static str, Vec<String>)> {
    let number = variable("TPU_WORKER_ID")?;
    for (name, addresses) in [
        ("TPU_WORKER_HOSTNAMES", false),
        ("TPU_PROCESS_ADDRESSES", true),
    ] {
        let Some(text) = variable(name) else { continue };
        let host = |entry: &str| match port(entry) {
            Some((host, _)) if addresses => host.to_string(),
            _ => entry.to_string(),
        };
        let list = text.split(',').map(|entry| host(entry.trim())).collect();
        return Some((number, name, list));
    }
    None
}

/// The port of process 0's service: the first one that libtpu does not use for itself. Google opens [`COORDINATOR_PORT`] between the
/// workers of a slice; on GKE libtpu may be told to take that one.
fn coordinator_port(variable: &dyn Fn(&str) -> Option<String>) -> u16 {
    let addresses = variable("TPU_PROCESS_ADDRESSES").unwrap_or_default();
    let used: Vec<u16> = addresses
        .split(',')
        .filter_map(|entry| Some(port(entry.trim())?.1))
        .collect();
    let mut free = (COORDINATOR_PORT..=u16::MAX).filter(|port| !used.contains(port));
    free.next().unwrap_or(COORDINATOR_PORT)
}

/// A worker's number among those of all slices that work together.
fn slices(
    worker: Worker,
    variable: &dyn Fn(&str) -> Option<String>,
    source: Source,
) -> Result<Identity, Error> {
    let number = |name: &str, otherwise: usize| match variable(name) {
        None => Ok(otherwise),
        Some(text) => text.trim().parse().map_err(|_| Error::Garbled {
            what: name.into(),
            found: text.clone(),
        }),
    };
    let (count, slice) = (
        number("MEGASCALE_NUM_SLICES", 1)?,
        number("MEGASCALE_SLICE_ID", 0)?,
    );
    if count == 0 || slice >= count {
        return Err(Error::Garbled {
            what: "MEGASCALE_SLICE_ID and MEGASCALE_NUM_SLICES".into(),
            found: format!("{slice} of {count}"),
        });
    }
    let workers = worker.hosts.len().max(1);
    if worker.number >= workers {
        return Err(Error::Garbled {
            what: "the list of all workers (worker-network-endpoints)".into(),
            found: format!("empty, and this is worker {}", worker.number),
        });
    }
    let port = coordinator_port(variable);
    let first = worker.hosts.first().map(|host| with_port(host, port));
    let coordinator = match variable("MEGASCALE_COORDINATOR_ADDRESS") {
        // Its port is that of the slices' own exchange; ours is beside it.
        Some(address) => {
            let host = address.split(':').next().unwrap_or_default();
            Some(with_port(host, port))
        }
        None => first,
    };
    Ok(Identity {
        process: worker.number + slice * workers,
        processes: workers * count,
        hosts: worker.hosts,
        coordinator,
        accelerator: worker.accelerator,
        source,
        variables: Vec::new(),
    })
}

/// What libtpu must be told to take one host of a pod, with so many chips, for all there is; nothing where there are none.
fn this_host_alone(
    variable: &dyn Fn(&str) -> Option<String>,
    chips: usize,
) -> Vec<(&'static str, String)> {
    let chosen = [
        "TPU_VISIBLE_CHIPS",
        "TPU_VISIBLE_DEVICES",
        "TPU_CHIPS_PER_PROCESS_BOUNDS",
    ];
    if chips == 0 || chosen.iter().any(|name| variable(name).is_some()) {
        // Who chooses chips says all of it.
        return Vec::new();
    }
    let chips = variable("TPU_CHIPS_PER_HOST_BOUNDS").unwrap_or_else(|| match chips {
        1 => "1,1,1".into(),
        2 => "1,2,1".into(),
        8 => "2,4,1".into(),
        _ => "2,2,1".into(),
    });
    let mut told: Vec<(&'static str, String)> = vec![
        ("TPU_HOST_BOUNDS", "1,1,1".into()),
        ("TPU_PROCESS_BOUNDS", "1,1,1".into()),
        ("TPU_CHIPS_PER_PROCESS_BOUNDS", chips),
        ("TPU_WORKER_ID", "0".into()),
        ("TPU_WORKER_HOSTNAMES", "localhost".into()),
    ];
    // What names the others would contradict that.
    let others = [
        ("TPU_PROCESS_ADDRESSES", "localhost:8476"),
        ("TPU_PROCESS_PORT", "8476"),
        ("CLOUD_TPU_TASK_ID", "0"),
        ("MEGASCALE_NUM_SLICES", "1"),
        ("MEGASCALE_SLICE_ID", "0"),
    ];
    for (name, alone) in others {
        if variable(name).is_some() {
            told.push((name, alone.into()));
        }
    }
    told
}

fn with_port(address: &str, otherwise: u16) -> String {
    match port(address) {
        Some(_) => address.into(),
        None => format!("{address}:{otherwise}"),
    }
}

/// Host and port of an address that has one.
pub(super) fn port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    Some((host, port.parse().ok()?))
}
