//! Where a module of [`crate::hlo`] meets a client of [`crate::pjrt`]: compile, put arrays on devices, launch, read back;
//! or compile for devices that are not there.

mod ahead;
mod cache;
mod collectives;
mod open;
mod saved;
mod sealed;
mod self_test;
#[cfg(feature = "xla-rs")]
pub mod xla_rs;

pub use ahead::{Ahead, OutOfMemory, Target, compile_ahead, out_of_memory};
pub use cache::Cache;
pub use collectives::{Collective, collectives, optimized_module};
pub use open::{Choice, open};
pub use saved::{Circumstances, Unusable, describe, save};

use crate::error::Class;
use crate::hlo::{self, DType, Literal, Module, Shape, passes};
use crate::loops;
use crate::pjrt::{
    self, Argument, Buffer, BufferSpec, Client, CompileOptions, Device, ElementType, Executable,
    OptionValue,
};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::{Duration, Instant};

/// Why a module could not be run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The graph was wrong.
    #[error(transparent)]
    Hlo(#[from] hlo::Error),
    /// The plugin refused.
    #[error(transparent)]
    Pjrt(#[from] pjrt::Error),
    /// More replicas than devices.
    #[error(
        "the program wants {replicas} replicas but {devices} {platform} devices are there; set runtime.devices to at most {devices}"
    )]
    TooFewDevices {
        /// Replicas of the module.
        replicas: usize,
        /// Devices of the client.
        devices: usize,
        /// Name of the platform.
        platform: String,
    },
    /// A plugin for another kind of device.
    #[error(
        "plugin {} drives {found}, expected {expected} (runtime.platform); name a plugin for {expected}, or change runtime.platform",
        plugin.display()
    )]
    WrongPlatform {
        /// The plugin's file.
        plugin: PathBuf,
        /// What it drives.
        found: String,
        /// What was asked for.
        expected: &'static str,
    },
    /// A compiled program could not be written.
    #[error("cannot write the compiled program {}: {source}; name a file that can be written", path.display())]
    Save {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The linked XLA refused.
    #[cfg(feature = "xla-rs")]
    #[error("xla-rs: {message}")]
    XlaRs {
        /// What it said.
        message: String,
    },
    /// Arguments that do not match the program's parameters.
    #[error("program `{program}`, replica {replica}: {message}")]
    Arguments {
        /// Name of the program.
        program: String,
        /// Replica whose arguments are wrong.
        replica: usize,
        /// What was found and expected.
        message: String,
    },
}

/// What every engine can do.
pub trait RunModule {
    /// Compiles a module of one replica, runs it on host arrays and waits.
    ///
    /// # Errors
    /// If the module is refused or the arguments do not fit.
    fn run_module(&self, module: &Module, arguments: &[Literal]) -> Result<Vec<Literal>, Error>;
}

impl RunModule for Engine {
    fn run_module(&self, module: &Module, arguments: &[Literal]) -> Result<Vec<Literal>, Error> {
        let program = self.compile(module)?;
        let mut results = program.run(self, &[arguments.to_vec()])?;
        Ok(results.pop().unwrap_or_default())
    }
}

impl Error {
    /// What the caller can do about it.
    pub fn class(&self) -> Class {
        match self {
            Error::Hlo(error) => error.class(),
            Error::Pjrt(error) => error.class(),
            Error::TooFewDevices { .. } | Error::WrongPlatform { .. } => Class::Usage,
            Error::Save { .. } => Class::Environment,
            Error::Arguments { .. } => Class::Failed,
            #[cfg(feature = "xla-rs")]
            Error::XlaRs { .. } => Class::Failed,
        }
    }
}

fn element_type(dtype: DType) -> ElementType {
    match dtype {
        DType::Pred => ElementType::Pred,
        DType::S32 => ElementType::S32,
        DType::S64 => ElementType::S64,
        DType::U8 => ElementType::U8,
        DType::U32 => ElementType::U32,
        DType::U64 => ElementType::U64,
        DType::Bf16 => ElementType::Bf16,
        DType::F32 => ElementType::F32,
        DType::F64 => ElementType::F64,
    }
}

/// Whether programs with these passes can call the loops; where they are wanted and cannot be called, the log says why, once.
fn calls_loops(client: &Client, passes: &[passes::Pass]) -> bool {
    static TOLD: Once = Once::new();
    // Also where no pass wants them: no client must register what another one's compiler may look for just then.
    let registered = loops::register(client);
    if !passes.iter().any(|pass| pass.loops) {
        return false;
    }
    let outcome = registered.and_then(|()| self_test::passed(client));
    if let Err(reason) = &outcome {
        TOLD.call_once(|| {
            tracing::warn!(
                "convolutions, products and elementwise operations are the plugin's own, and steps and compilation take longer: {reason}; runtime.passes={} leaves this line out",
                passes::WITHOUT_LOOPS
            );
        });
    }
    outcome.is_ok()
}

/// A module after passes, and what its compilation and launches must know of it.
fn prepare<'p>(
    module: &Module,
    passes: impl IntoIterator<Item = &'p passes::Pass>,
) -> Result<(Module, CompileOptions), Error> {
    let mut module = module.clone();
    for pass in passes {
        module = (pass.run)(&module)?;
    }
    let options = CompileOptions {
        num_replicas: module.replicas,
        device_ids: Vec::new(),
        overrides: Vec::new(),
        parameters: module
            .parameters()
            .iter()
            .map(|(_, shape)| BufferSpec {
                element_type: element_type(shape.dtype),
                dims: shape.dims.clone(),
            })
            .collect(),
        donated: module
            .aliases
            .iter()
            .map(|&(_, parameter)| parameter)
            .collect(),
    };
    Ok((module, options))
}

/// A client together with the passes that suit its platform.
#[derive(Clone)]
pub struct Engine {
    client: Client,
    passes: Vec<passes::Pass>,
    cache: Option<Cache>,
    compiler_options: Vec<(String, OptionValue)>,
}

impl Engine {
    /// An engine with the selected passes of the client's platform.
    pub fn new(client: Client, selection: &passes::Selection) -> Self {
        let mut passes = passes::for_platform(client.platform_name(), selection);
        if client.platform_name() == "cpu" && !calls_loops(&client, &passes) {
            passes.retain(|pass| !pass.loops);
        }
        Engine::with(client, passes)
    }

    fn with(client: Client, passes: Vec<passes::Pass>) -> Self {
        Engine {
            passes,
            client,
            cache: None,
            compiler_options: Vec::new(),
        }
    }

    /// The same engine, which gives the compiler these options.
    pub fn with_compiler_options(self, options: &[(String, OptionValue)]) -> Self {
        Engine {
            compiler_options: options.to_vec(),
            ..self
        }
    }

    /// The same engine, which keeps compiled programs between runs.
    pub fn with_cache(self, cache: Option<Cache>) -> Self {
        Engine { cache, ..self }
    }

    /// The same engine, which compiles everything anew.
    pub fn without_cache(&self) -> Self {
        self.clone().with_cache(None)
    }

    /// The same engine, which compiles modules as they are, anew each time.
    pub fn plain(&self) -> Self {
        Engine {
            passes: Vec::new(),
            ..self.without_cache()
        }
    }

    /// A training step after this engine's passes: what the plugin sees.
    ///
    /// # Errors
    /// If a pass fails.
    pub fn rewritten(&self, step: &Module) -> Result<Module, Error> {
        Ok(prepare(step, &self.passes)?.0)
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Compiles a module after this engine's passes; replica `r` runs on this process's device `r`, or on device `r` of all processes if
    /// it takes more than this process has.
    ///
    /// # Errors
    /// If there are too few devices, a pass fails, or the plugin refuses the module.
    pub fn compile(&self, module: &Module) -> Result<Program, Error> {
        let (prepared, options) = self.prepared(module)?;
        let bytes = prepared.to_proto_bytes();
        let start = Instant::now();
        let (executable, from_cache) = match &self.cache {
            Some(cache) => cache.compile(&self.client, &bytes, &options)?,
            None => (self.client.compile(&bytes, &options)?, false),
        };
        Ok(self.program(&prepared, executable, start, from_cache))
    }

    /// As [`Engine::compile`], but takes the program from a file that [`save`] wrote, if it was compiled for exactly this; and says
    /// why not, if it was not.
    ///
    /// # Errors
    /// As [`Engine::compile`].
    pub fn compile_or_load(
        &self,
        module: &Module,
        file: &Path,
    ) -> Result<(Program, Option<Unusable>), Error> {
        let (prepared, options) = self.prepared(module)?;
        let start = Instant::now();
        let loaded = self
            .circumstances(&prepared)
            .map_err(Unusable::Unreadable)
            .and_then(|now| saved::load(file, &now))
            .and_then(|bytes| {
                self.client
                    .load(&bytes, &options)
                    .map_err(Unusable::Refused)
            });
        match loaded {
            Ok(executable) => Ok((self.program(&prepared, executable, start, true), None)),
            Err(reason) => Ok((self.compile(module)?, Some(reason))),
        }
    }

    /// What a program of this module would depend on. The module is one after this engine's passes.
    fn circumstances(&self, prepared: &Module) -> std::io::Result<Circumstances> {
        let devices = self.client.all_devices();
        Circumstances::new(
            &prepared.to_proto_bytes(),
            self.client.platform_name(),
            devices.first().map_or("", Device::kind),
            saved::shape(devices.iter().map(Device::attributes)),
            prepared.replicas,
            &self.client.plugin(),
            &self.compiler_options,
        )
    }

    /// What makes another program of the same module, by name: the plugin's file, the passes, the compiler's options and environment.
    pub fn compiler(&self) -> [(&'static str, String); 4] {
        let plugin = saved::file_hash(self.client.plugin().path())
            .unwrap_or_else(|error| format!("a file that cannot be read: {error}"));
        let passes: Vec<&str> = self.passes.iter().map(|pass| pass.name).collect();
        [
            ("plugin", plugin),
            ("list of passes", passes.join(" ")),
            (
                "list of compiler options",
                saved::options(&self.compiler_options),
            ),
            ("environment of the compiler", saved::flags()),
        ]
        .map(|(what, value)| match value.is_empty() {
            true => (what, "none".into()),
            false => (what, value),
        })
    }

    /// Writes a program of a module to a file, for [`Engine::compile_or_load`].
    ///
    /// # Errors
    /// If the plugin cannot serialise it, or the disk refuses.
    pub fn save(&self, module: &Module, program: &Program, file: &Path) -> Result<(), Error> {
        let (prepared, _) = self.prepared(module)?;
        let bytes = program.executable.compiled().serialize()?;
        let written = self
            .circumstances(&prepared)
            .and_then(|circumstances| save(file, &circumstances, &bytes));
        written.map_err(|source| Error::Save {
            path: file.into(),
            source,
        })
    }

    /// The module after this engine's passes, with its options.
    fn prepared(&self, module: &Module) -> Result<(Module, CompileOptions), Error> {
        let devices = self.devices_for(module.replicas);
        if module.replicas > devices.len() {
            return Err(Error::TooFewDevices {
                replicas: module.replicas,
                devices: devices.len(),
                platform: self.client.platform_name().to_string(),
            });
        }
        let (module, mut options) = prepare(module, &self.passes)?;
        options.overrides = self.compiler_options.clone();
        options.device_ids = devices[..module.replicas]
            .iter()
            .map(|device| device.id())
            .collect();
        Ok((module, options))
    }

    /// The devices for a program of so many replicas: this process's own if they are enough, else those of all processes.
    fn devices_for(&self, replicas: usize) -> &[Device] {
        let own = self.client.devices();
        if replicas <= own.len() {
            own
        } else {
            self.client.all_devices()
        }
    }

    fn hash(&self, prepared: &Module) -> String {
        let mut hash = Sha256::new();
        for text in [
            self.client.platform_name(),
            self.client.platform_version(),
            &saved::options(&self.compiler_options),
            &saved::flags(),
        ] {
            hash.update(text);
            hash.update([0]);
        }
        hash.update(prepared.to_proto_bytes());
        saved::hex(&hash.finalize())
    }

    fn program(
        &self,
        prepared: &Module,
        executable: Executable,
        start: Instant,
        from_cache: bool,
    ) -> Program {
        Program {
            name: prepared.name.clone(),
            hash: self.hash(prepared),
            parameters: prepared.parameters(),
            results: prepared.results(),
            devices: executable
                .replicas()
                .iter()
                .map(|&replica| self.devices_for(prepared.replicas)[replica].clone())
                .collect(),
            executable,
            compile_time: start.elapsed(),
            from_cache,
        }
    }

    /// Copies an array to a device.
    ///
    /// # Errors
    /// If the plugin cannot take it.
    pub fn put(&self, literal: &Literal, device: &Device) -> Result<Buffer, Error> {
        let shape = literal.shape();
        Ok(self.client.buffer(
            literal.bytes(),
            element_type(shape.dtype),
            &shape.dims,
            device,
        )?)
    }
}

/// A compiled module.
pub struct Program {
    name: String,
    hash: String,
    parameters: Vec<(String, Shape)>,
    results: Vec<Shape>,
    devices: Vec<Device>,
    executable: Executable,
    compile_time: Duration,
    from_cache: bool,
}

impl Program {
    /// SHA-256, in hex, of what its numbers depend on: the module after the engine's passes, the plugin's version, the compiler's options
    /// and environment.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Names and shapes of the parameters.
    pub fn parameters(&self) -> &[(String, Shape)] {
        &self.parameters
    }

    /// Shapes of the results.
    pub fn results(&self) -> &[Shape] {
        &self.results
    }

    /// The device of each of this process's replicas.
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// Which replicas of the whole program this process's are, in the order of [`Program::devices`].
    pub fn replicas(&self) -> &[usize] {
        self.executable.replicas()
    }

    /// How long the plugin took to compile or load it.
    pub fn compile_time(&self) -> Duration {
        self.compile_time
    }

    /// Whether it was compiled earlier, by another process.
    pub fn from_cache(&self) -> bool {
        self.from_cache
    }

    /// The plugin's executable.
    pub fn executable(&self) -> &Executable {
        &self.executable
    }

    /// Starts the program on every replica; `arguments[replica][parameter]`. Results come back at once and are ready later.
    ///
    /// # Errors
    /// If the arguments do not fit or the plugin refuses.
    pub fn launch(&self, arguments: Vec<Vec<Argument>>) -> Result<Vec<Vec<Buffer>>, Error> {
        Ok(self.executable.execute(arguments)?)
    }

    /// Runs the program on host arrays and waits: `arguments[replica][parameter]` to `results[replica][result]`.
    ///
    /// # Errors
    /// If the arguments do not fit or the plugin refuses.
    pub fn run(
        &self,
        engine: &Engine,
        arguments: &[Vec<Literal>],
    ) -> Result<Vec<Vec<Literal>>, Error> {
        let mut buffers = Vec::new();
        for (replica, literals) in arguments.iter().enumerate() {
            let Some(device) = self.devices.get(replica) else {
                return Err(self.wrong(replica, "has no device"));
            };
            let mut list = Vec::new();
            for literal in literals {
                list.push(Argument::Donate(engine.put(literal, device)?));
            }
            buffers.push(list);
        }
        let results = self.launch(buffers)?;
        results
            .iter()
            .enumerate()
            .map(|(replica, buffers)| self.read(replica, buffers))
            .collect()
    }

    /// Reads the results of one replica.
    ///
    /// # Errors
    /// If the launch failed meanwhile.
    pub fn read(&self, replica: usize, buffers: &[Buffer]) -> Result<Vec<Literal>, Error> {
        let mut literals = Vec::new();
        for (buffer, shape) in buffers.iter().zip(&self.results) {
            let literal = Literal::from_bytes(shape.clone(), buffer.to_host()?);
            literals.push(literal.ok_or_else(|| self.wrong(replica, "a result has another size"))?);
        }
        Ok(literals)
    }

    fn wrong(&self, replica: usize, message: &str) -> Error {
        Error::Arguments {
            program: self.name.clone(),
            replica,
            message: message.into(),
        }
    }
}
