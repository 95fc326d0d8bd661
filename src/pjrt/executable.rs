//! Compiled programs and launches.

use super::client::{Buffer, Client, ClientInner};
use super::compiled::Compiled;
use super::error::Error;
use super::ffi::Handle;
use super::process::{LARGE_ARENA, let_arena_go, settle_memory};
use super::types::{ElementType, OptionValue};
use crate::proto::compile as proto;
use prost::Message;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

/// The name of the process's next launch; 0, which names none, is never given.
static LAUNCHES: AtomicI32 = AtomicI32::new(1);

/// Type and dimensions of a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BufferSpec {
    /// Element type.
    pub element_type: ElementType,
    /// Dimensions.
    pub dims: Vec<i64>,
}

/// How to compile a module, and what its launches are checked against.
#[derive(Debug, Clone, Default)]
pub struct CompileOptions {
    /// Replicas that run it together.
    pub num_replicas: usize,
    /// The device of each replica; empty: devices 0, 1, ….
    pub device_ids: Vec<i64>,
    /// Compiler options by their field name in XLA's `DebugOptions`.
    pub overrides: Vec<(String, OptionValue)>,
    /// The module's parameters in order.
    pub parameters: Vec<BufferSpec>,
    /// Parameters that a result may take over.
    pub donated: Vec<usize>,
}

/// An argument of a launch.
pub enum Argument<'a> {
    /// Read and left as it is (copied first if the program would write over it).
    Keep(&'a Buffer),
    /// Given away: a result may take over its memory, and it is freed otherwise.
    Donate(Buffer),
}

impl Argument<'_> {
    fn buffer(&self) -> &Buffer {
        match self {
            Argument::Keep(buffer) => buffer,
            Argument::Donate(buffer) => buffer,
        }
    }
}

/// A compiled program on its devices.
pub struct Executable {
    compiled: Compiled,
    client: Arc<ClientInner>,
    loaded: Handle,
    outputs: usize,
    /// Of all replicas.
    num_replicas: usize,
    /// This process's replicas, in the order in which a launch takes their arguments, and the device of each.
    replicas: Vec<usize>,
    device_ids: Vec<i64>,
    parameters: Vec<BufferSpec>,
    donated: Vec<usize>,
    launched: AtomicU64,
    /// Whether a launch leaves much for the CPU plugin to free.
    large_arena: bool,
}

impl Drop for Executable {
    fn drop(&mut self) {
        self.client.api.destroy_loaded(self.loaded);
    }
}

impl Executable {
    pub(super) fn compile(
        client: &Client,
        format: &'static str,
        module: &[u8],
        options: &CompileOptions,
    ) -> Result<Self, Error> {
        let device_ids = assignment(client, options)?;
        let bytes = options_proto(options, &device_ids).encode_to_vec();
        let inner = &client.inner;
        let loaded = inner
            .api
            .compile(inner.handle, format, module, &bytes)
            .map_err(Error::of_compiler)?;
        Executable::adopt(client, loaded, device_ids, options)
    }

    pub(super) fn load(
        client: &Client,
        serialized: &[u8],
        options: &CompileOptions,
    ) -> Result<Self, Error> {
        let device_ids = assignment(client, options)?;
        let inner = &client.inner;
        let loaded = inner.api.deserialize(inner.handle, serialized)?;
        Executable::adopt(client, loaded, device_ids, options)
    }

    fn adopt(
        client: &Client,
        loaded: Handle,
        device_ids: Vec<i64>,
        options: &CompileOptions,
    ) -> Result<Self, Error> {
        let inner = client.inner.clone();
        let executable = match inner.api.executable_of(loaded) {
            Ok(executable) => executable,
            Err(error) => {
                inner.api.destroy_loaded(loaded);
                return Err(error);
            }
        };
        let mut result = Executable {
            compiled: Compiled::adopt(inner.api.clone(), executable),
            client: inner,
            loaded,
            outputs: 0,
            num_replicas: device_ids.len(),
            replicas: Vec::new(),
            device_ids: Vec::new(),
            parameters: options.parameters.clone(),
            donated: options.donated.clone(),
            launched: AtomicU64::new(0),
            large_arena: false,
        };
        if result.client.platform == "cpu" {
            let memory = result.compiled.memory_use();
            result.large_arena = memory.is_ok_and(|memory| memory.temp >= LARGE_ARENA);
        }
        result.outputs = result.client.api.num_outputs(executable)?;
        for device in result.client.api.program_devices(loaded)? {
            let (id, ..) = result.client.api.describe(device)?;
            let replica = device_ids.iter().position(|&own| own == id);
            let replica = replica.ok_or_else(|| {
                Error::Misuse(format!(
                    "the plugin put a program on device {id}, and it is for devices {device_ids:?}"
                ))
            })?;
            result.replicas.push(replica);
            result.device_ids.push(id);
        }
        Ok(result)
    }

    /// Number of replicas, those of other processes among them.
    pub fn num_replicas(&self) -> usize {
        self.num_replicas
    }

    /// This process's replicas, in the order in which a launch takes their arguments; all of them, in order, where there is one process.
    pub fn replicas(&self) -> &[usize] {
        &self.replicas
    }

    /// Starts the program on this process's devices: `arguments[i][parameter]` to `results[i][result]`, `i` counting
    /// [`Executable::replicas`]. It returns at once; results become ready later (small programs run before it returns). Where there are
    /// several processes, all of them must start the same programs in the same order.
    ///
    /// # Errors
    /// If an argument has another type, dimensions or device than expected, or was donated; then nothing is launched, because a
    /// failing launch over several devices would leave the client hanging for ever.
    pub fn execute(&self, arguments: Vec<Vec<Argument>>) -> Result<Vec<Vec<Buffer>>, Error> {
        self.check(&arguments)?;
        let launched = self.launched.fetch_add(1, Ordering::Relaxed);
        if launched > 0 && self.large_arena {
            let_arena_go();
        }
        settle_memory(launched);
        // A parameter that may be taken over but that any replica wants to keep is protected for all of them.
        let kept: Vec<i64> = self
            .donated
            .iter()
            .filter(|&&p| {
                arguments
                    .iter()
                    .any(|list| matches!(list[p], Argument::Keep(_)))
            })
            .map(|&p| p as i64)
            .collect();
        let handles: Vec<Vec<Handle>> = arguments
            .iter()
            .map(|list| {
                list.iter()
                    .map(|argument| argument.buffer().handle)
                    .collect()
            })
            .collect();
        let api = &self.client.api;
        // In the CPU plugin, launches of several clients that bear one name meet in one another's collectives and end the process. The
        // other platforms' processes launch together and may have counted differently, so they leave it out.
        let launch = match self.client.platform.as_str() {
            "cpu" => LAUNCHES.fetch_add(1, Ordering::Relaxed).max(1),
            _ => 0,
        };
        let (outputs, events) = api.execute(self.loaded, &handles, self.outputs, &kept, launch)?;
        for event in events {
            // Results carry their own readiness; destroying the event does not stop the launch.
            api.destroy_event(event);
        }
        // All handles are adopted before the first error is returned, so that none leaks.
        let adopted: Vec<Vec<Result<Buffer, Error>>> = outputs
            .into_iter()
            .zip(&self.device_ids)
            .map(|(list, &device)| {
                list.into_iter()
                    .map(|handle| Buffer::adopt(self.client.clone(), handle, device))
                    .collect()
            })
            .collect();
        adopted
            .into_iter()
            .map(|list| list.into_iter().collect())
            .collect()
    }

    fn check(&self, arguments: &[Vec<Argument>]) -> Result<(), Error> {
        if arguments.len() != self.device_ids.len() {
            return Err(Error::Misuse(format!(
                "arguments for {} replicas, and the program has {}",
                arguments.len(),
                self.device_ids.len()
            )));
        }
        for (replica, list) in arguments.iter().enumerate() {
            if list.len() != self.parameters.len() {
                return Err(Error::Misuse(format!(
                    "replica {replica} got {} arguments, and the program takes {}",
                    list.len(),
                    self.parameters.len()
                )));
            }
            let mut given_away: Vec<Handle> = Vec::new();
            for (number, (argument, spec)) in list.iter().zip(&self.parameters).enumerate() {
                let buffer = argument.buffer();
                let found = BufferSpec {
                    element_type: buffer.element_type(),
                    dims: buffer.dims().into(),
                };
                let wrong = if found != *spec {
                    format!(
                        "is {:?}{:?}, expected {:?}{:?}",
                        found.element_type, found.dims, spec.element_type, spec.dims
                    )
                } else if !Arc::ptr_eq(&buffer.client, &self.client) {
                    "belongs to another client".into()
                } else if buffer.device_id() != self.device_ids[replica] {
                    format!(
                        "is on device {}, expected device {}",
                        buffer.device_id(),
                        self.device_ids[replica]
                    )
                } else if buffer.is_deleted()? {
                    "was already donated to a launch".into()
                } else if given_away.contains(&buffer.handle) {
                    "is given away twice".into()
                } else {
                    String::new()
                };
                if !wrong.is_empty() {
                    return Err(Error::Misuse(format!(
                        "argument {number} of replica {replica} {wrong}"
                    )));
                }
                if self.donated.contains(&number) {
                    given_away.push(buffer.handle);
                }
            }
        }
        Ok(())
    }

    /// What the compiler made: costs, memory, code.
    pub fn compiled(&self) -> &Compiled {
        &self.compiled
    }
}

/// The device of each replica, checked.
fn assignment(client: &Client, options: &CompileOptions) -> Result<Vec<i64>, Error> {
    let known: Vec<i64> = client
        .all_devices()
        .iter()
        .map(|device| device.id())
        .collect();
    let device_ids = if options.device_ids.is_empty() {
        known.iter().copied().take(options.num_replicas).collect()
    } else {
        options.device_ids.clone()
    };
    let distinct = (1..device_ids.len()).all(|i| !device_ids[..i].contains(&device_ids[i]));
    // Zero replicas abort the process, a device named twice is taken without a word.
    if options.num_replicas == 0
        || device_ids.len() != options.num_replicas
        || !distinct
        || device_ids.iter().any(|id| !known.contains(id))
    {
        return Err(Error::Misuse(format!(
            "{} replicas on devices {device_ids:?}; expected at least one replica, each on a device of its own among {known:?}",
            options.num_replicas
        )));
    }
    Ok(device_ids)
}

/// The options as plugins read them.
pub(super) fn options_proto(
    options: &CompileOptions,
    device_ids: &[i64],
) -> proto::CompileOptionsProto {
    let value = |value: &OptionValue| {
        use proto::option_override_proto::Value;
        match value {
            OptionValue::Str(text) => Value::StringField(text.clone()),
            OptionValue::Int(int) => Value::IntField(*int),
            OptionValue::Float(float) => Value::DoubleField(f64::from(*float)),
            OptionValue::Bool(bool) => Value::BoolField(*bool),
            list @ OptionValue::IntList(_) => Value::StringField(list.to_string()),
        }
    };
    proto::CompileOptionsProto {
        executable_build_options: Some(proto::ExecutableBuildOptionsProto {
            num_replicas: device_ids.len() as i64,
            num_partitions: 1,
            device_assignment: Some(proto::DeviceAssignmentProto {
                replica_count: device_ids.len() as i32,
                computation_count: 1,
                computation_devices: vec![proto::device_assignment_proto::ComputationDevice {
                    replica_device_ids: device_ids.to_vec(),
                }],
            }),
        }),
        env_option_overrides: options
            .overrides
            .iter()
            .map(|(name, v)| {
                (
                    name.clone(),
                    proto::OptionOverrideProto {
                        value: Some(value(v)),
                    },
                )
            })
            .collect(),
    }
}
