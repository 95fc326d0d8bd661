//! Plugins, clients, devices, buffers.

use super::elf;
use super::error::Error;
use super::executable::{CompileOptions, Executable};
use super::ffi::{Api, DeviceMemory, Handle};
use super::key_value::{Node, Shared};
use super::types::{ElementType, OptionValue};
use std::path::Path;
use std::sync::Arc;

/// The oldest API this binding was built for.
const OLDEST_MINOR: i32 = 81;

/// A loaded plugin. It stays loaded until the process ends.
#[derive(Debug, Clone)]
pub struct Plugin {
    api: Arc<Api>,
}

impl Plugin {
    /// Loads a plugin file and initialises it.
    ///
    /// # Errors
    /// If the file is missing, cannot be loaded, is no plugin, or is too old.
    pub fn load(path: &Path) -> Result<Self, Error> {
        if !path.is_file() {
            return Err(Error::NoSuchFile { path: path.into() });
        }
        // Without a slash `dlopen` would search the library path instead of this folder.
        let full = path.canonicalize().unwrap_or_else(|_| path.into());
        if let Ok(Some((found, expected))) = elf::extent(&full)
            && found < expected
        {
            return Err(Error::Truncated {
                path: path.into(),
                found,
                expected,
            });
        }
        let api = Api::load(&full)?;
        let (major, minor) = api.version();
        if major != 0 || minor < OLDEST_MINOR {
            return Err(Error::Version {
                path: path.into(),
                version: (major, minor),
                oldest: OLDEST_MINOR,
            });
        }
        api.initialize()?;
        Ok(Plugin { api: Arc::new(api) })
    }

    pub(super) fn api(&self) -> &Arc<Api> {
        &self.api
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.api.path()
    }

    /// Version of the API it implements, `(major, minor)`.
    pub fn api_version(&self) -> (i32, i32) {
        self.api.version()
    }

    /// What the plugin says of itself.
    ///
    /// # Errors
    /// If the plugin refuses.
    pub fn attributes(&self) -> Result<Vec<(String, String)>, Error> {
        self.api.attributes()
    }
}

pub(super) struct ClientInner {
    pub(super) api: Arc<Api>,
    pub(super) handle: Handle,
    pub(super) platform: String,
    version: String,
    process: i64,
    /// Of all processes, those of a process together.
    all: Vec<Device>,
    /// Of this process.
    devices: Vec<Device>,
    /// Its address is with the plugin.
    _store: Option<Box<Shared>>,
}

impl Drop for ClientInner {
    fn drop(&mut self) {
        self.api.destroy_client(self.handle);
    }
}

/// The devices of one platform in this process. Cheap to clone; the last clone, buffer or executable to go ends it.
#[derive(Clone)]
pub struct Client {
    pub(super) inner: Arc<ClientInner>,
}

impl Client {
    /// A client with options.
    ///
    /// # Errors
    /// If the plugin finds no device or does not know an option.
    pub fn new(plugin: &Plugin, options: &[(&str, OptionValue)]) -> Result<Self, Error> {
        Self::among(plugin, options, None)
    }

    /// A client whose devices are those of several processes, of a plugin that takes `node_id`, `num_nodes` and a key-value store: CUDA's.
    /// It waits for the others.
    ///
    /// # Errors
    /// As [`Client::new`]; or if the others do not come.
    pub fn of_node(
        plugin: &Plugin,
        node: &Node,
        options: &[(&str, OptionValue)],
    ) -> Result<Self, Error> {
        let mut options = options.to_vec();
        options.push(("node_id", OptionValue::Int(node.id as i64)));
        options.push(("num_nodes", OptionValue::Int(node.count as i64)));
        Self::among(plugin, &options, Some(Box::new(node.store.clone())))
    }

    fn among(
        plugin: &Plugin,
        options: &[(&str, OptionValue)],
        store: Option<Box<Shared>>,
    ) -> Result<Self, Error> {
        for (name, value) in options {
            // A wrong type here aborts the CPU plugin's process.
            if *name == "cpu_device_count" && !matches!(value, OptionValue::Int(n) if *n >= 1) {
                return Err(Error::Misuse(format!(
                    "cpu_device_count is {value:?}; expected an integer of at least 1"
                )));
            }
        }
        let api = plugin.api.clone();
        let handle = api
            .create_client(options, store.as_deref())
            .map_err(Error::of_client)?;
        // From here on dropping `inner` destroys the client, whatever fails below.
        let mut inner = ClientInner {
            api: api.clone(),
            handle,
            platform: String::new(),
            version: String::new(),
            process: 0,
            all: Vec::new(),
            devices: Vec::new(),
            _store: store,
        };
        inner.platform = api.platform_name(handle)?;
        inner.version = api.platform_version(handle)?;
        inner.process = api.process(handle)?;
        let own = api.devices(handle)?;
        for device in api.all_devices(handle)? {
            let (id, kind, text) = api.describe(device)?;
            let process = api.description_process(api.description(device)?)?;
            // Not every plugin has some to tell.
            let attributes = api
                .description(device)
                .and_then(|description| api.description_attributes(description))
                .unwrap_or_default();
            inner.all.push(Device {
                handle: device,
                id,
                process,
                kind,
                text,
                attributes,
            });
        }
        // In this order replicas take them, so that a process has replicas that follow each other.
        inner.all.sort_by_key(|device| (device.process, device.id));
        let own = inner
            .all
            .iter()
            .filter(|device| own.contains(&device.handle));
        inner.devices = own.cloned().collect();
        Ok(Client {
            inner: Arc::new(inner),
        })
    }

    /// A client of the CPU plugin with this many devices (its own default is 4, whatever the machine).
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn cpu(plugin: &Plugin, devices: usize) -> Result<Self, Error> {
        // A device has its share of the cores.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        super::calls::set_threads(cores / devices.max(1));
        Client::new(
            plugin,
            &[("cpu_device_count", OptionValue::Int(devices as i64))],
        )
    }

    /// The plugin.
    pub fn plugin(&self) -> Plugin {
        Plugin {
            api: self.inner.api.clone(),
        }
    }

    /// `cpu`, `cuda`, `tpu`.
    pub fn platform_name(&self) -> &str {
        &self.inner.platform
    }

    /// The platform's version text.
    pub fn platform_version(&self) -> &str {
        &self.inner.version
    }

    /// The number of this process among those that share the devices.
    pub fn process(&self) -> i64 {
        self.inner.process
    }

    /// The devices of all processes, those of a process together.
    pub fn all_devices(&self) -> &[Device] {
        &self.inner.all
    }

    /// The devices of this process.
    pub fn devices(&self) -> &[Device] {
        &self.inner.devices
    }

    /// Memory of a device, where the plugin tells.
    pub fn device_memory(&self, device: &Device) -> Option<DeviceMemory> {
        // A device of another client may point at what is gone.
        let ours = self.inner.devices.contains(device);
        ours.then(|| self.inner.api.device_memory(device.handle).ok())
            .flatten()
    }

    /// Compiles a serialised `HloModuleProto`.
    ///
    /// # Errors
    /// If the options do not fit the client, or the plugin refuses the module.
    pub fn compile(&self, module: &[u8], options: &CompileOptions) -> Result<Executable, Error> {
        Executable::compile(self, "hlo", module, options)
    }

    /// Compiles StableHLO text.
    ///
    /// # Errors
    /// If the options do not fit the client, or the plugin refuses the text.
    pub fn compile_stablehlo(
        &self,
        text: &str,
        options: &CompileOptions,
    ) -> Result<Executable, Error> {
        Executable::compile(self, "mlir", text.as_bytes(), options)
    }

    /// A program from [`Executable::serialize`], with the options it was compiled with.
    ///
    /// # Errors
    /// If the options do not fit the client, or the plugin does not take the bytes.
    pub fn load(&self, serialized: &[u8], options: &CompileOptions) -> Result<Executable, Error> {
        Executable::load(self, serialized, options)
    }

    /// Copies a dense row-major array to a device.
    ///
    /// # Errors
    /// If the number of bytes does not fit, the device is another client's, or the plugin refuses.
    pub fn buffer(
        &self,
        bytes: &[u8],
        element_type: ElementType,
        dims: &[i64],
        device: &Device,
    ) -> Result<Buffer, Error> {
        let size = byte_size(element_type, dims);
        if dims.iter().any(|&d| d < 0) || size != bytes.len() {
            return Err(Error::Misuse(format!(
                "an array {element_type:?}{dims:?} has {size} bytes, and {} were given",
                bytes.len()
            )));
        }
        if !self.inner.devices.contains(device) {
            return Err(Error::Misuse(format!(
                "device {} is not one of this client",
                device.id
            )));
        }
        let api = &self.inner.api;
        let handle = api.put(self.inner.handle, bytes, element_type, dims, device.handle)?;
        Ok(Buffer {
            client: self.inner.clone(),
            handle,
            element_type,
            dims: dims.to_vec(),
            device: device.id,
        })
    }
}

pub(super) fn byte_size(element_type: ElementType, dims: &[i64]) -> usize {
    dims.iter().map(|&d| d.max(0) as usize).product::<usize>() * element_type.byte_size()
}

/// A device of a client.
#[derive(Debug, Clone, PartialEq)]
pub struct Device {
    pub(super) handle: Handle,
    id: i64,
    process: i64,
    kind: String,
    text: String,
    attributes: Vec<(String, OptionValue)>,
}

impl Device {
    /// Its number among all devices of the platform.
    pub fn id(&self) -> i64 {
        self.id
    }

    /// The process that drives it.
    pub fn process(&self) -> i64 {
        self.process
    }

    /// Its model, such as `cpu` or `TPU v5 lite`.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// What else the plugin tells, such as `coords`.
    pub fn attributes(&self) -> &[(String, OptionValue)] {
        &self.attributes
    }

    /// The plugin's short description.
    pub fn description(&self) -> &str {
        &self.text
    }
}

/// An array on a device.
pub struct Buffer {
    pub(super) client: Arc<ClientInner>,
    pub(super) handle: Handle,
    element_type: ElementType,
    dims: Vec<i64>,
    device: i64,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.client.api.destroy_buffer(self.handle);
    }
}

impl Buffer {
    /// Takes ownership of an output handle.
    pub(super) fn adopt(
        client: Arc<ClientInner>,
        handle: Handle,
        device: i64,
    ) -> Result<Self, Error> {
        // The buffer exists before anything can fail, so that it is destroyed whatever happens.
        let mut buffer = Buffer {
            client,
            handle,
            element_type: ElementType::Pred,
            dims: Vec::new(),
            device,
        };
        let api = buffer.client.api.clone();
        buffer.element_type = api.buffer_type(handle)?.ok_or_else(|| {
            Error::Misuse("a result has an element type that this program does not use".into())
        })?;
        buffer.dims = api.buffer_dims(handle)?;
        Ok(buffer)
    }

    /// Element type.
    pub fn element_type(&self) -> ElementType {
        self.element_type
    }

    /// Dimensions.
    pub fn dims(&self) -> &[i64] {
        &self.dims
    }

    /// Number of the device it is on.
    pub fn device_id(&self) -> i64 {
        self.device
    }

    /// Bytes of the dense array.
    pub fn byte_size(&self) -> usize {
        byte_size(self.element_type, &self.dims)
    }

    /// Whether a launch took the buffer over.
    ///
    /// # Errors
    /// If the plugin cannot say.
    pub fn is_deleted(&self) -> Result<bool, Error> {
        self.client.api.is_deleted(self.handle)
    }

    /// Waits until its value is there.
    ///
    /// # Errors
    /// The error of the launch that was to produce it.
    pub fn wait(&self) -> Result<(), Error> {
        self.client.api.ready(self.handle)
    }

    /// Copies the array to the host, waiting for it.
    ///
    /// # Errors
    /// If the buffer was donated, or the launch that was to produce it failed.
    pub fn to_host(&self) -> Result<Vec<u8>, Error> {
        if self.is_deleted()? {
            return Err(Error::Misuse(
                "a buffer was read after it was donated to a launch".into(),
            ));
        }
        self.client
            .api
            .to_host(self.handle, self.byte_size(), self.dims.len())
    }

    /// Where the array lies on the device: to tell whether a result took over an argument.
    ///
    /// # Errors
    /// If the plugin cannot say.
    pub fn device_address(&self) -> Result<usize, Error> {
        self.client.api.device_pointer(self.handle)
    }
}
