//! What a machine needs to take part in a run on TPUs, looked at without touching a chip.

use super::identity::{COORDINATOR_PORT, Identity, port};
use super::metadata::{Metadata, Worker};
use super::slice::Slice;
use serde::Serialize;
use std::fs;
use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

/// How a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Good,
    /// Nothing to say, such as metadata on a machine that has none.
    Absent,
    /// A run would fail.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub what: &'static str,
    /// How it is.
    pub state: State,
    /// In words.
    pub words: String,
    /// What to do about it; empty if nothing.
    pub remedy: String,
}

impl Finding {
    /// Something that is as it should be.
    pub fn good(what: &'static str, words: impl Into<String>) -> Self {
        Finding::new(what, State::Good, words, "")
    }

    /// Something that is not there and need not be.
    pub fn absent(what: &'static str, words: impl Into<String>, remedy: &str) -> Self {
        Finding::new(what, State::Absent, words, remedy)
    }

    /// Something by which a run would fail.
    pub fn bad(what: &'static str, words: impl Into<String>, remedy: &str) -> Self {
        Finding::new(what, State::Bad, words, remedy)
    }

    fn new(what: &'static str, state: State, words: impl Into<String>, remedy: &str) -> Self {
        Finding {
            what,
            state,
            words: words.into(),
            remedy: remedy.into(),
        }
    }
}

/// The chips that the bus of this machine shows; a TPU VM has some.
pub fn chips(chips: usize, tpu_vm: bool) -> Finding {
    let what = "chips";
    if chips > 0 {
        return Finding::good(what, format!("{chips} TPU chips on the bus"));
    }
    let words = "no TPU chip on the bus of this machine";
    if tpu_vm {
        return Finding::bad(
            what,
            format!("{words}, which is a TPU VM"),
            "delete the slice and create it again; stopped and started ones sometimes lose their chips",
        );
    }
    Finding::absent(what, words, "")
}

/// The chips' lock: who has libtpu loaded. `proc` is `/proc`, `lock` is `/tmp/libtpu_lockfile`.
pub fn lock(proc: &Path, lock: &Path, chips: usize) -> Finding {
    let what = "lock";
    let (holders, unread) = holders(proc);
    match (holders.as_slice(), lock.exists()) {
        ([], _) if unread > 0 => Finding::absent(
            what,
            format!("unknown: the memory maps of {unread} processes cannot be read"),
            "run `simclr doctor` as root, who may read them",
        ),
        ([], false) => Finding::good(what, "free"),
        ([], true) => Finding::good(
            what,
            format!(
                "free; {} was left behind by a process that is gone, which does no harm",
                lock.display()
            ),
        ),
        (holders, _) if chips == 0 => Finding::absent(
            what,
            format!("libtpu is loaded by {}, without chips", holders.join(", ")),
            "",
        ),
        (holders, _) => Finding::bad(
            what,
            format!("the chips are held by {}", holders.join(", ")),
            "end that process, or wait for it; a second one cannot use the chips",
        ),
    }
}

/// Processes other than this one that have libtpu in their memory, and how many could not be looked at.
fn holders(proc: &Path) -> (Vec<String>, usize) {
    const GONE: i32 = 3; // ESRCH: it ended between our opening and reading.
    let own = std::process::id().to_string();
    let Ok(entries) = fs::read_dir(proc) else {
        return (Vec::new(), 1);
    };
    let mut unread = 0;
    let mut found: Vec<String> = entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let id = entry.file_name().into_string().ok()?;
            if id == own || !id.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            let maps = match fs::read(entry.path().join("maps")) {
                Ok(maps) => maps,
                Err(error) => {
                    let gone = error.kind() == io::ErrorKind::NotFound
                        || error.raw_os_error() == Some(GONE);
                    unread += usize::from(!gone);
                    return None;
                }
            };
            if !String::from_utf8_lossy(&maps).contains("libtpu.so") {
                return None;
            }
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            Some(format!("process {id} ({})", name.trim()))
        })
        .collect();
    found.sort();
    (found, unread)
}

/// Whether the image of a TPU VM is one for its chips.
pub fn runtime(worker: &Worker) -> Finding {
    let what = "runtime";
    let Some(found) = worker.variables.get("RUNTIME_VERSION") else {
        return Finding::absent(what, "the metadata does not name a runtime version", "");
    };
    let generation = worker
        .accelerator
        .as_deref()
        .and_then(|name| Slice::parse(name).ok())
        .map(|slice| slice.generation.name);
    let part = match generation {
        Some("v5e") => "tpuv5-lite",
        Some("v5p") => "tpuv5",
        Some("v6e") => "tpuv6e",
        Some(_) => "",
        None => {
            return Finding::absent(what, format!("{found}, for an unknown kind of chip"), "");
        }
    };
    let lite = found.contains("tpuv5-lite");
    // The base image of Ubuntu drives v2 to v4; newer chips have images of their own.
    let fits = match generation {
        Some("v5p") => found.contains(part) && !lite,
        Some("v5e" | "v6e") => found.contains(part),
        _ => !found.contains("tpuv5") && !found.contains("tpuv6"),
    };
    if fits {
        return Finding::good(what, found.clone());
    }
    let expected = if part.is_empty() {
        "tpu-ubuntu2204-base".to_string()
    } else {
        format!("one with {part} in its name")
    };
    Finding::bad(
        what,
        format!("{found} is not for these chips"),
        &format!("delete the slice and create it with another runtime version: {expected}"),
    )
}

/// Whether the other workers can be reached on the coordinator's port. One that refuses is there; nobody listens yet.
pub fn others(identity: &Identity, patience: Duration) -> Finding {
    let what = "workers";
    if identity.hosts.len() < 2 {
        return Finding::good(what, "this one alone");
    }
    let coordinator = identity.coordinator.as_deref().and_then(port);
    let port = coordinator.map_or(COORDINATOR_PORT, |(_, port)| port);
    let mut silent = Vec::new();
    for (number, host) in identity.hosts.iter().enumerate() {
        if number != identity.process && !reachable(host, port, patience) {
            silent.push(format!("{number} ({host})"));
        }
    }
    if silent.is_empty() {
        let count = identity.hosts.len();
        return Finding::good(
            what,
            format!(
                "all {count} can be reached, this is number {}",
                identity.process
            ),
        );
    }
    Finding::bad(
        what,
        format!("no answer from {}", silent.join(", ")),
        &format!(
            "check that they run, and that the firewall lets port {port} through between the workers"
        ),
    )
}

fn reachable(host: &str, port: u16, patience: Duration) -> bool {
    let address = if host.contains(':') {
        host.to_string()
    } else {
        format!("{host}:{port}")
    };
    let Ok(mut addresses) = address.to_socket_addrs() else {
        return false;
    };
    addresses.any(
        |address| match TcpStream::connect_timeout(&address, patience) {
            Ok(_) => true,
            Err(error) => error.kind() == io::ErrorKind::ConnectionRefused,
        },
    )
}

/// What the metadata server says, and who this worker is by it. `needed`: a run here would ask it.
pub fn metadata(server: &Metadata, needed: bool) -> (Finding, Option<Worker>) {
    let what = "metadata";
    match server.worker() {
        Ok(Some(worker)) => {
            let words = format!(
                "worker {} of {}, {}",
                worker.number,
                // One that is not the first has others, though the server may not tell of them.
                worker.hosts.len().max(worker.number + 1),
                worker.accelerator.as_deref().unwrap_or("unknown slice")
            );
            (Finding::good(what, words), Some(worker))
        }
        Ok(None) => (Finding::absent(what, "this machine is no TPU VM", ""), None),
        Err(error) if needed => {
            let remedy = "try again; a run here asks it which worker this is, unless --process, --processes and --coordinator say so";
            (Finding::bad(what, error.to_string(), remedy), None)
        }
        Err(error) => (Finding::absent(what, error.to_string(), ""), None),
    }
}

/// The account that this machine acts as.
pub fn account(server: &Metadata) -> Finding {
    match server.account() {
        Ok(Some(account)) => Finding::good("account", account),
        Ok(None) => Finding::bad(
            "account",
            "this machine acts as nobody",
            "give the machine a service account with access to the bucket",
        ),
        Err(error) => Finding::absent("account", error.to_string(), ""),
    }
}
