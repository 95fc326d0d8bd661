//! Programs: compiled, loaded, asked, run.

use super::*;

impl Api {
    /// This process's devices of a program, in the order in which a launch takes their arguments.
    pub(in crate::pjrt) fn program_devices(&self, loaded: Handle) -> Result<Vec<Handle>, Error> {
        let mut args = LoadedExecutable_AddressableDevices::new();
        args.executable = loaded.0;
        self.call(&mut args)?;
        // SAFETY: the plugin gives that many device pointers, which live as long as the client.
        let devices = unsafe { view(args.devices, args.count) };
        Ok(devices.iter().map(|&device| Handle(device)).collect())
    }

    /// Compiles for a topology, with no device there.
    pub(in crate::pjrt) fn compile_ahead(
        &self,
        topology: Handle,
        module: &[u8],
        options: &[u8],
    ) -> Result<Handle, Error> {
        let program = program_of("hlo", module);
        let mut args = Compile::new();
        args.topology = topology.0;
        args.program = &raw const program;
        args.options = options.as_ptr();
        args.options_size = options.len();
        self.call(&mut args)?;
        Ok(Handle(args.executable))
    }

    /// Compiles code of a format: `hlo` (a serialised `HloModuleProto`) or `mlir` (StableHLO, as text or bytes).
    pub(in crate::pjrt) fn compile(
        &self,
        client: Handle,
        format: &'static str,
        module: &[u8],
        options: &[u8],
    ) -> Result<Handle, Error> {
        let program = program_of(format, module);
        let mut args = Client_Compile::new();
        args.client = client.0;
        args.program = &raw const program;
        args.options = options.as_ptr();
        args.options_size = options.len();
        self.call(&mut args)?;
        Ok(Handle(args.executable))
    }

    /// A compiled program as bytes.
    pub(in crate::pjrt) fn serialize(&self, executable: Handle) -> Result<Vec<u8>, Error> {
        let mut args = Executable_Serialize::new();
        args.executable = executable.0;
        self.call(&mut args)?;
        // SAFETY: the plugin gives that many bytes, which live until the deleter is called below.
        let bytes = unsafe { view(args.bytes, args.size) }.to_vec();
        if let Some(deleter) = args.deleter {
            // SAFETY: called once, on the object it came with; the bytes have been copied.
            unsafe { deleter(args.serialized) };
        }
        Ok(bytes)
    }

    /// A program back from its bytes, with the compile options that are in them.
    pub(in crate::pjrt) fn deserialize(
        &self,
        client: Handle,
        bytes: &[u8],
    ) -> Result<Handle, Error> {
        let mut args = Executable_DeserializeAndLoad::new();
        args.client = client.0;
        args.bytes = bytes.as_ptr();
        args.size = bytes.len();
        self.call(&mut args)?;
        Ok(Handle(args.loaded))
    }

    pub(in crate::pjrt) fn executable_of(&self, loaded: Handle) -> Result<Handle, Error> {
        let mut args = LoadedExecutable_GetExecutable::new();
        args.loaded = loaded.0;
        self.call(&mut args)?;
        Ok(Handle(args.executable))
    }

    pub(in crate::pjrt) fn destroy_executable(&self, executable: Handle) {
        let mut args = Executable_Destroy::new();
        args.executable = executable.0;
        self.destroy(&mut args);
    }

    pub(in crate::pjrt) fn destroy_loaded(&self, loaded: Handle) {
        let mut args = LoadedExecutable_Destroy::new();
        args.executable = loaded.0;
        self.destroy(&mut args);
    }

    pub(in crate::pjrt) fn num_outputs(&self, executable: Handle) -> Result<usize, Error> {
        let mut args = Executable_NumOutputs::new();
        args.executable = executable.0;
        self.call(&mut args)?;
        Ok(args.count)
    }

    pub(in crate::pjrt) fn cost_analysis(
        &self,
        executable: Handle,
    ) -> Result<Vec<(String, f64)>, Error> {
        let mut args = Executable_GetCostAnalysis::new();
        args.executable = executable.0;
        self.call(&mut args)?;
        Ok(read_named(args.properties, args.count)
            .into_iter()
            .filter_map(|(name, value)| match value {
                OptionValue::Float(x) => Some((name, f64::from(x))),
                OptionValue::Int(x) => Some((name, x as f64)),
                _ => None,
            })
            .collect())
    }

    pub(in crate::pjrt) fn memory_use(&self, executable: Handle) -> Result<MemoryUse, Error> {
        let mut args = Executable_GetCompiledMemoryStats::new();
        // The struct carries spare room because plugin 0.81 writes its full size whatever it is told; the size we tell is 0.81's.
        args.struct_size = 112;
        args.executable = executable.0;
        self.call(&mut args)?;
        Ok(MemoryUse {
            argument: args.argument,
            output: args.output,
            alias: args.alias,
            temp: args.temp,
            code: args.generated_code,
            peak: args.peak,
        })
    }

    /// The program after the plugin's optimisation, in the plugin's serialised form.
    pub(in crate::pjrt) fn optimized_program(&self, executable: Handle) -> Result<Vec<u8>, Error> {
        let mut program = ProgramFormat {
            struct_size: size_of::<ProgramFormat>(),
            extension: null_mut(),
            code: null(),
            code_size: 0,
            format: null(),
            format_size: 0,
        };
        let mut args = Executable_OptimizedProgram::new();
        args.executable = executable.0;
        args.program = &raw mut program;
        self.call(&mut args)?; // the first call tells the size
        let mut code = vec![0u8; program.code_size];
        program.code = code.as_mut_ptr();
        self.call(&mut args)?;
        code.truncate(program.code_size);
        Ok(code)
    }

    /// Starts the program on every device; gives outputs and one completion event per device.
    ///
    /// `kept` are the arguments, by position, that no device may take over. `launch` names the launch to the plugin, 0 leaves it
    /// unnamed.
    pub(in crate::pjrt) fn execute(
        &self,
        loaded: Handle,
        arguments: &[Vec<Handle>],
        outputs: usize,
        kept: &[i64],
        launch: c_int,
    ) -> Result<(Vec<Vec<Handle>>, Vec<Handle>), Error> {
        let lists: Vec<Vec<*mut c_void>> = arguments
            .iter()
            .map(|list| list.iter().map(|handle| handle.0).collect())
            .collect();
        let pointers: Vec<*const *mut c_void> = lists.iter().map(|list| list.as_ptr()).collect();
        let mut results = vec![vec![null_mut::<c_void>(); outputs]; arguments.len()];
        let result_pointers: Vec<*mut *mut c_void> =
            results.iter_mut().map(|list| list.as_mut_ptr()).collect();
        let mut events = vec![null_mut::<c_void>(); arguments.len()];
        let options = ExecuteOptions {
            struct_size: size_of::<ExecuteOptions>(),
            extension: null_mut(),
            send_callbacks: null_mut(),
            recv_callbacks: null_mut(),
            num_send_ops: 0,
            num_recv_ops: 0,
            launch_id: launch,
            non_donatable: kept.as_ptr(),
            num_non_donatable: kept.len(),
            context: null_mut(),
            call_location: null(),
            num_tasks: 0,
            task_ids: null_mut(),
            incarnation_ids: null_mut(),
        };
        let mut args = LoadedExecutable_Execute::new();
        args.executable = loaded.0;
        args.options = &raw const options;
        args.arguments = pointers.as_ptr();
        args.num_devices = arguments.len();
        args.num_args = lists.first().map_or(0, Vec::len);
        args.outputs = result_pointers.as_ptr();
        args.complete_events = events.as_mut_ptr();
        self.call(&mut args)?;
        let wrap = |list: Vec<*mut c_void>| list.into_iter().map(Handle).collect::<Vec<_>>();
        Ok((results.into_iter().map(wrap).collect(), wrap(events)))
    }
}
