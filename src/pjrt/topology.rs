//! Devices that need not be there, and compiling for them.

use super::client::Plugin;
use super::compiled::Compiled;
use super::error::Error;
use super::executable::{CompileOptions, options_proto};
use super::ffi::{Api, Handle};
use super::types::OptionValue;
use prost::Message;
use std::sync::Arc;

/// A device of a topology.
#[derive(Debug, Clone, PartialEq)]
pub struct DescribedDevice {
    /// Its number among all devices.
    pub id: i64,
    /// Its model, such as `TPU v5 lite`.
    pub kind: String,
    /// The process, that is the host, that would drive it.
    pub process: i64,
    /// What else the plugin tells, such as `coords`.
    pub attributes: Vec<(String, OptionValue)>,
}

impl DescribedDevice {
    /// An attribute that is a number.
    pub fn number(&self, name: &str) -> Option<i64> {
        self.attributes.iter().find_map(|(key, value)| match value {
            OptionValue::Int(value) if key == name => Some(*value),
            _ => None,
        })
    }
}

/// A described set of devices to compile for.
pub struct Topology {
    api: Arc<Api>,
    handle: Handle,
    version: String,
    devices: Vec<DescribedDevice>,
}

impl Drop for Topology {
    fn drop(&mut self) {
        self.api.destroy_topology(self.handle);
    }
}

impl Topology {
    /// The topology of this name as the plugin spells it, such as `v5e:2x2`.
    ///
    /// # Errors
    /// If the name is empty (a plugin takes that for some default), or the plugin does not know it or an option.
    pub fn new(
        plugin: &Plugin,
        name: &str,
        options: &[(&str, OptionValue)],
    ) -> Result<Self, Error> {
        if name.is_empty() {
            return Err(Error::Misuse("a topology without a name".into()));
        }
        let api = plugin.api().clone();
        let handle = api.create_topology(name, options)?;
        // From here on dropping it destroys the handle, whatever fails below.
        let mut topology = Topology {
            api: api.clone(),
            handle,
            version: String::new(),
            devices: Vec::new(),
        };
        topology.version = api.topology_version(handle)?;
        for description in api.topology_devices(handle)? {
            let (id, kind) = api.description_id_kind(description)?;
            topology.devices.push(DescribedDevice {
                id,
                kind,
                process: api.description_process(description)?,
                attributes: api.description_attributes(description)?,
            });
        }
        Ok(topology)
    }

    /// The platform's version text.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Its devices.
    pub fn devices(&self) -> &[DescribedDevice] {
        &self.devices
    }

    /// How many processes would drive it.
    pub fn processes(&self) -> usize {
        let mut processes: Vec<i64> = self.devices.iter().map(|device| device.process).collect();
        processes.sort_unstable();
        processes.dedup();
        processes.len()
    }

    /// Compiles a serialised `HloModuleProto` for these devices.
    ///
    /// # Errors
    /// If there are more replicas than devices, or the plugin refuses the module.
    pub fn compile(&self, module: &[u8], options: &CompileOptions) -> Result<Compiled, Error> {
        let replicas = options.num_replicas;
        if replicas == 0 || replicas > self.devices.len() {
            return Err(Error::Misuse(format!(
                "{replicas} replicas for a topology of {} devices; expected at least one, and a device for each",
                self.devices.len()
            )));
        }
        let ids: Vec<i64> = self.devices[..replicas]
            .iter()
            .map(|device| device.id)
            .collect();
        let bytes = options_proto(options, &ids).encode_to_vec();
        let handle = self
            .api
            .compile_ahead(self.handle, module, &bytes)
            .map_err(Error::of_compiler)?;
        Ok(Compiled::adopt(self.api.clone(), handle))
    }
}
