//! The metadata server of a Cloud TPU VM: who this worker is and who the others are.

use super::Error;
use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

/// Where the server is, unless `GCE_METADATA_IP` says otherwise.
const HOST: &str = "metadata.google.internal";
/// A server that is there answers in milliseconds; one that is not must not hold up a start.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often it is asked before it counts as silent: a machine that starts is busy, and its server, too.
pub const TRIES: u32 = 4;
/// Before it is asked again the first time; then twice as long, and so on.
const PAUSE: Duration = Duration::from_millis(250);
/// Larger than any answer.
const MOST_BYTES: u64 = 1 << 20;

/// A client of the server.
#[derive(Debug, Clone)]
pub struct Metadata {
    base: String,
    agent: ureq::Agent,
    pause: Duration,
}

/// What the server says of this worker.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Worker {
    /// Its number in the slice.
    pub number: usize,
    /// Addresses of all workers of the slice, in their order; empty where the server does not tell.
    pub hosts: Vec<String>,
    /// What the slice is, such as `v3-32`.
    pub accelerator: Option<String>,
    /// `tpu-env`: the slice's own variables.
    pub variables: BTreeMap<String, String>,
}

impl Metadata {
    /// The server of this machine.
    pub fn new() -> Self {
        let host = std::env::var("GCE_METADATA_IP").unwrap_or_else(|_| HOST.into());
        Metadata::at(&host, PATIENCE, PAUSE)
    }

    /// A server elsewhere, as `host` or `host:port`, with the patience for one answer and the first pause before it is asked again.
    pub fn at(host: &str, patience: Duration, pause: Duration) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(patience))
            // The server is in this machine's own network: a proxy of the environment would answer for it.
            .proxy(None)
            .http_status_as_error(false)
            .build();
        Metadata {
            base: format!("http://{host}/computeMetadata/v1/instance"),
            agent: config.into(),
            pause,
        }
    }

    /// Whether this machine is about to be taken away: preempted, or for maintenance that it does not outlive.
    ///
    /// # Errors
    /// As [`Metadata::get`].
    pub fn going_away(&self) -> Result<bool, Error> {
        let is = |key: &str, value: &str| {
            let found = self.get(key)?;
            Ok::<bool, Error>(found.is_some_and(|text| text.trim() == value))
        };
        Ok(is("preempted", "TRUE")? || is("maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE")?)
    }

    /// A value below `instance/`; none if the server has no such key. What may pass is tried again.
    ///
    /// # Errors
    /// If there is no server, it is slow [`TRIES`] times, or refuses.
    pub fn get(&self, key: &str) -> Result<Option<String>, Error> {
        let mut pause = self.pause;
        for _ in 1..TRIES {
            match self.ask(key) {
                Err((_, true)) => thread::sleep(pause),
                Err((error, false)) => return Err(error),
                Ok(value) => return Ok(value),
            }
            pause *= 2;
        }
        self.ask(key).map_err(|(error, _)| error)
    }

    /// Asks once; an error comes with whether it may pass.
    fn ask(&self, key: &str) -> Result<Option<String>, (Error, bool)> {
        let url = format!("{}/{key}", self.base);
        let failed = |reason: String| Error::Metadata {
            url: url.clone(),
            reason,
        };
        let mut answer = self
            .agent
            .get(&url)
            .header("Metadata-Flavor", "Google")
            .call()
            .map_err(|error| (failed(error.to_string()), true))?;
        match answer.status().as_u16() {
            200 => {}
            404 => return Ok(None),
            status => {
                let error = failed(format!("it answered with status {status}"));
                return Err((error, status == 429 || status >= 500));
            }
        }
        let text = answer
            .body_mut()
            .with_config()
            .limit(MOST_BYTES)
            .read_to_string()
            .map_err(|error| (failed(error.to_string()), true))?;
        Ok(Some(text.trim().to_string()))
    }

    /// What the server says of this worker; none if this machine is no TPU VM.
    ///
    /// # Errors
    /// If there is no server, it is slow, or what it says cannot be understood.
    pub fn worker(&self) -> Result<Option<Worker>, Error> {
        let attribute = |name: &str| self.get(&format!("attributes/{name}"));
        let variables = attribute("tpu-env")?.map_or(BTreeMap::new(), |text| tpu_env(&text));
        let number = match attribute("agent-worker-number")? {
            Some(number) => Some(number),
            None => variables.get("WORKER_ID").cloned(),
        };
        let Some(number) = number else {
            return Ok(None);
        };
        let garbled = |what: &str, found: &str| Error::Garbled {
            what: what.into(),
            found: found.chars().take(60).collect(),
        };
        let number: usize = number
            .parse()
            .map_err(|_| garbled("agent-worker-number", &number))?;
        let hosts = match attribute("worker-network-endpoints")? {
            Some(text) => {
                endpoints(&text).ok_or_else(|| garbled("worker-network-endpoints", &text))?
            }
            None => Vec::new(),
        };
        if !hosts.is_empty() && number >= hosts.len() {
            return Err(garbled(
                "agent-worker-number",
                &format!("{number} of {} workers", hosts.len()),
            ));
        }
        let accelerator = match attribute("accelerator-type")? {
            Some(name) => Some(name),
            None => variables.get("ACCELERATOR_TYPE").cloned(),
        };
        Ok(Some(Worker {
            number,
            hosts,
            accelerator,
            variables,
        }))
    }

    /// The account that this machine acts as, for messages about permissions.
    ///
    /// # Errors
    /// If there is no server, or it is slow.
    pub fn account(&self) -> Result<Option<String>, Error> {
        self.get("service-accounts/default/email")
    }
}

impl Default for Metadata {
    fn default() -> Self {
        Metadata::new()
    }
}

/// Addresses out of `worker-network-endpoints`: entries `name:id:address` in the old form, addresses alone in the new.
fn endpoints(text: &str) -> Option<Vec<String>> {
    text.split(',')
        .map(|entry| {
            let parts: Vec<&str> = entry.trim().split(':').collect();
            let address = match parts.as_slice() {
                [address] => address,
                [_, _, address, ..] => address,
                _ => return None,
            };
            let fits = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
            (!address.is_empty() && address.chars().all(fits)).then(|| address.to_string())
        })
        .collect()
}

/// Lines `KEY: 'value'`; others are left out.
fn tpu_env(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| {
            let (key, value) = line.split_once(':')?;
            let value = value.trim().trim_matches(['\'', '"']);
            let key = key.trim();
            let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
            (!key.is_empty() && key.chars().all(is_name)).then(|| (key.into(), value.into()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_endpoints() {
        let expected = Some(vec!["10.0.0.1".to_string(), "10.0.0.2".to_string()]);
        assert_eq!(
            endpoints("unknown:unknown:10.0.0.1,unknown:unknown:10.0.0.2"),
            expected
        );
        assert_eq!(endpoints("10.0.0.1, 10.0.0.2"), expected);
        assert_eq!(
            endpoints("worker-0.tpu"),
            Some(vec!["worker-0.tpu".to_string()])
        );
        for bad in ["", "a,", "a:b", "<html>", "a b"] {
            assert_eq!(endpoints(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_slices_variables() {
        let found = tpu_env(
            "ACCELERATOR_TYPE: 'v3-32'\nnoise\nWORKER_ID: '2'\n WRAP: 'false,false,false'\n<b>: x\n",
        );
        assert_eq!(found["ACCELERATOR_TYPE"], "v3-32");
        assert_eq!(found["WORKER_ID"], "2");
        assert_eq!(found.len(), 3);
    }
}
