//! Compiling for devices that are not there.

use super::{Circumstances, Error, prepare};
use crate::hlo::{Module, passes};
use crate::pjrt::{self, Compiled, OptionValue, Plugin, Topology};
use std::path::Path;
use std::time::{Duration, Instant};

/// What to compile for, in the plugin's own words.
#[derive(Debug, Clone)]
pub struct Target {
    /// `tpu` or `cuda`: it decides the passes.
    pub platform: &'static str,
    /// Name of the topology.
    pub topology: String,
    /// Options of the topology.
    pub options: Vec<(&'static str, OptionValue)>,
    /// Compiler options by name.
    pub compiler: Vec<(String, OptionValue)>,
}

impl Target {
    /// The devices it describes.
    ///
    /// # Errors
    /// If the plugin does not know them.
    pub fn topology(&self, plugin: &Plugin) -> Result<Topology, Error> {
        Ok(Topology::new(plugin, &self.topology, &self.options)?)
    }
}

/// A program compiled ahead of time.
pub struct Ahead {
    /// What the compiler made.
    pub compiled: Compiled,
    /// The module that it was given, after the passes of its platform.
    pub module: Module,
    /// Time the compiler took.
    pub compile_time: Duration,
}

impl Ahead {
    /// Writes the program to a file, for [`super::Engine::compile_or_load`] on the devices it was compiled for.
    ///
    /// # Errors
    /// If the plugin cannot serialise it, or the disk refuses.
    pub fn save(
        &self,
        plugin: &Plugin,
        topology: &Topology,
        target: &Target,
        file: &Path,
    ) -> Result<(), Error> {
        let bytes = self.compiled.serialize()?;
        let devices = topology.devices();
        let kind = devices.first().map_or("", |device| &device.kind);
        Circumstances::new(
            &self.module.to_proto_bytes(),
            target.platform,
            kind,
            super::saved::shape(devices.iter().map(|device| device.attributes.as_slice())),
            self.module.replicas,
            plugin,
            &target.compiler,
        )
        .and_then(|circumstances| super::save(file, &circumstances, &bytes))
        .map_err(|source| Error::Save {
            path: file.into(),
            source,
        })
    }
}

/// Compiles a module for a topology after the selected passes of its platform.
///
/// # Errors
/// If a pass fails, the module has more replicas than there are devices, or the compiler refuses: among others because the
/// program does not fit into a device's memory ([`out_of_memory`] tells).
pub fn compile_ahead(
    topology: &Topology,
    target: &Target,
    module: &Module,
    selection: &passes::Selection,
) -> Result<Ahead, Error> {
    let passes = passes::for_platform(target.platform, selection);
    let (module, mut options) = prepare(module, &passes)?;
    options.overrides = target.compiler.clone();
    let bytes = module.to_proto_bytes();
    let start = Instant::now();
    let compiled = topology.compile(&bytes, &options)?;
    Ok(Ahead {
        compiled,
        module,
        compile_time: start.elapsed(),
    })
}

/// A program that does not fit into a device's memory.
#[derive(Debug, Clone, PartialEq)]
pub struct OutOfMemory {
    /// Bytes that it needs, where the compiler says.
    pub needed: Option<f64>,
    /// The compiler's words.
    pub message: String,
}

/// Whether a compilation failed because the program needs more memory (HBM) than a device has.
pub fn out_of_memory(error: &Error) -> Option<OutOfMemory> {
    const RESOURCE_EXHAUSTED: i32 = 8;
    let Error::Pjrt(pjrt::Error::Plugin { code, message, .. }) = error else {
        return None;
    };
    if code.0 != RESOURCE_EXHAUSTED {
        return None;
    }
    let first = message.lines().next().unwrap_or_default();
    // What a kernel needs of a core's own memories (vmem, smem) says nothing of whether the program fits.
    if !first.to_ascii_lowercase().contains("hbm") {
        return None;
    }
    Some(OutOfMemory {
        needed: needed_bytes(first),
        message: first.trim().to_string(),
    })
}

/// The first figure in parentheses, or behind "Used": `… (24.00G) exceeds available HBM (15.75G)`, `Used 24.00G of 15.75G hbm`.
fn needed_bytes(message: &str) -> Option<f64> {
    let words = message.split([' ', '(', ')', ',']);
    words.filter_map(size).next()
}

/// `24.00G` in bytes.
fn size(word: &str) -> Option<f64> {
    let unit = match word.chars().last()? {
        'K' => 10,
        'M' => 20,
        'G' => 30,
        'T' => 40,
        _ => return None,
    };
    let number: f64 = word[..word.len() - 1].parse().ok()?;
    Some(number * f64::from(unit).exp2())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compilers_words_about_memory_are_understood() {
        for (message, needed) in [
            (
                "E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO temporaries (24.00G) exceeds available HBM (15.75G). HLO module: m.",
                Some(24.0 * (1u64 << 30) as f64),
            ),
            (
                "Ran out of memory in memory space hbm. Used 512.5M of 15.75G hbm.",
                Some(512.5 * (1u64 << 20) as f64),
            ),
            ("Ran out of memory in memory space HBM.", None),
        ] {
            let found = out_of_memory(&refusal(8, message)).expect(message);
            assert_eq!(found.needed, needed, "{message}");
        }
        let vmem = "Ran out of memory in memory space vmem. Used 20.00M of 16.00M vmem.";
        assert_eq!(out_of_memory(&refusal(8, vmem)), None);
        assert_eq!(out_of_memory(&refusal(3, "too much HBM")), None);
    }

    fn refusal(code: i32, message: &str) -> Error {
        Error::Pjrt(pjrt::Error::Plugin {
            call: "PJRT_Client_Compile",
            code: pjrt::Code(code),
            message: message.into(),
            path: "libtpu.so".into(),
        })
    }
}
