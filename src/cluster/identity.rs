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
        let told = Self::told(variable, metadata)?;
        match (wanted.process, wanted.processes) {
            (None, None) => {
                let mut found = told;
                if let Some(address) = wanted.coordinator {
                    found.coordinator = Some(with_port(address));
                }
                Ok(found)
            }
            (Some(process), Some(processes)) if process < processes => Ok(Identity {
                process,
                processes,
                coordinator: match (wanted.coordinator, told.coordinator) {
                    (Some(address), _) => Some(with_port(address)),
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
        if let (Some(number), Some(hosts)) =
            (variable("TPU_WORKER_ID"), variable("TPU_WORKER_HOSTNAMES"))
        {
            let garbled = |what: &str, found: &str| Error::Garbled {
                what: what.into(),
                found: found.into(),
            };
            let number: usize = number
                .trim()
                .parse()
                .map_err(|_| garbled("TPU_WORKER_ID", &number))?;
            let list: Vec<String> = hosts.split(',').map(|host| host.trim().into()).collect();
            if number >= list.len() || list.iter().any(String::is_empty) {
                let found = format!("{number} among {hosts}");
                return Err(garbled("TPU_WORKER_ID and TPU_WORKER_HOSTNAMES", &found));
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
    let first = worker.hosts.first().map(|host| with_port(host));
    let coordinator = match variable("MEGASCALE_COORDINATOR_ADDRESS") {
        // Its port is that of the slices' own exchange; ours is beside it.
        Some(address) => {
            let host = address.split(':').next().unwrap_or_default();
            Some(with_port(host))
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
    vec![
        ("TPU_HOST_BOUNDS", "1,1,1".into()),
        ("TPU_PROCESS_BOUNDS", "1,1,1".into()),
        ("TPU_CHIPS_PER_PROCESS_BOUNDS", chips),
        ("TPU_WORKER_ID", "0".into()),
        ("TPU_WORKER_HOSTNAMES", "localhost".into()),
    ]
}

fn with_port(address: &str) -> String {
    match address.rsplit_once(':') {
        Some((_, port)) if port.parse::<u16>().is_ok() => address.into(),
        _ => format!("{address}:{COORDINATOR_PORT}"),
    }
}
