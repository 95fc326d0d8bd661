//! What to compile for, from a user's words to the plugin's.

use super::ui::Ui;
use crate::cluster::{self, gpu::Gpu, slice::Slice};
use crate::engine::Target;
use crate::pjrt::{OptionValue, Package, Platform, find, install};
use crate::train::ahead::Site;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// What to compile for.
pub(super) enum Wanted {
    /// A slice that need not be there.
    Tpu(Slice),
    /// GPUs of one host that need not be there.
    Cuda { gpu: &'static Gpu, devices: usize },
    /// This machine's processor.
    Cpu { devices: usize },
}

impl Wanted {
    /// From `--topology`, `--target` and `--devices`.
    ///
    /// # Errors
    /// If there is no such thing.
    pub(super) fn parse(
        topology: Option<&str>,
        target: Option<&str>,
        devices: Option<usize>,
    ) -> Result<Self, cluster::Error> {
        let devices = devices.unwrap_or(1).max(1);
        let target = target.unwrap_or_default();
        if let Some(name) = topology {
            Ok(Wanted::Tpu(Slice::parse(name)?))
        } else if target == "cpu" {
            Ok(Wanted::Cpu { devices })
        } else if let Some(name) = target.strip_prefix("cuda:") {
            let gpu = Gpu::parse(name)?;
            Ok(Wanted::Cuda { gpu, devices })
        } else {
            Err(cluster::Error::UnknownTarget {
                found: target.into(),
            })
        }
    }

    /// For people.
    pub(super) fn name(&self) -> String {
        match self {
            Wanted::Tpu(slice) => slice.topology(),
            Wanted::Cuda { gpu, devices } => format!("cuda:{} × {devices}", gpu.name),
            Wanted::Cpu { devices } => format!("cpu × {devices}"),
        }
    }

    fn platform(&self) -> Platform {
        match self {
            Wanted::Tpu(_) => Platform::Tpu,
            Wanted::Cuda { .. } => Platform::Cuda,
            Wanted::Cpu { .. } => Platform::Cpu,
        }
    }

    /// How many devices it has.
    pub(super) fn devices(&self) -> usize {
        match self {
            Wanted::Tpu(slice) => slice.devices(),
            Wanted::Cuda { devices, .. } | Wanted::Cpu { devices } => *devices,
        }
    }

    /// The plugin's file; it is fetched if it is missing and the user wants that.
    pub(super) fn ensure_plugin(
        &self,
        named: Option<&Path>,
        fetch: bool,
        ui: &Ui,
    ) -> anyhow::Result<PathBuf> {
        match find(self.platform(), named) {
            Ok(found) => Ok(found.path),
            Err(error) if fetch && named.is_none() => {
                ui.note(&format!("{error}; fetching it with pip, once"));
                Ok(install(Package::of(self.platform()), false)?.path)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What is known of its devices.
    pub(super) fn site(&self) -> Site {
        match self {
            Wanted::Tpu(slice) => Site {
                name: slice.topology(),
                rented: slice.rented(),
                peak_flops: Some(slice.peak_flops_per_device()),
                bandwidth: Some(slice.bandwidth_per_device()),
                capacity: None,
            },
            Wanted::Cuda { gpu, .. } => Site {
                name: self.name(),
                rented: None,
                peak_flops: Some(gpu.peak_flops),
                bandwidth: Some(gpu.bandwidth),
                // The plugin's allocator takes three quarters of a GPU.
                capacity: Some(gpu.memory / 4 * 3),
            },
            Wanted::Cpu { .. } => Site {
                name: self.name(),
                ..Site::default()
            },
        }
    }

    /// For the compiler, where it works without the devices.
    pub(super) fn ahead(&self) -> Option<Target> {
        match self {
            Wanted::Tpu(slice) => Some(tpu(slice)),
            Wanted::Cuda { gpu, devices } => Some(cuda(gpu, *devices)),
            Wanted::Cpu { .. } => None,
        }
    }
}

/// A slice in libtpu's words.
pub(super) fn tpu(slice: &Slice) -> Target {
    let mut options = Vec::new();
    let host: Vec<i64> = slice.host().iter().map(|&side| side as i64).collect();
    if host != [2, 2, 1] {
        options.push(("chips_per_host_bounds", OptionValue::IntList(host)));
    }
    if slice.generation.name == "v4" {
        // One device per chip, as programs on a rented v4 see it.
        options.push(("chip_config_name", OptionValue::Str("megacore".into())));
    }
    Target {
        platform: "tpu",
        topology: slice.topology(),
        options,
        compiler: Vec::new(),
    }
}

/// GPUs of one host in the CUDA plugin's words.
fn cuda(gpu: &Gpu, devices: usize) -> Target {
    Target {
        platform: "cuda",
        topology: "cuda".into(),
        options: vec![
            ("target_config", OptionValue::Str(target_config(gpu))),
            // Slices, hosts, devices of a host.
            ("topology", OptionValue::Str(format!("1x1x{devices}"))),
        ],
        compiler: Vec::new(),
    }
}

/// A GPU as the text of a `GpuTargetConfigProto`.
fn target_config(gpu: &Gpu) -> String {
    let mut text = String::from("gpu_device_info {\n");
    let mut field = |name: &str, value: &dyn std::fmt::Display| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {name}: {value}");
    };
    // The same for every GPU of these generations.
    field("threads_per_warp", &32);
    field("threads_per_block_limit", &1024);
    field("threads_per_core_limit", &2048);
    field("thread_dim_limit_x", &1024);
    field("thread_dim_limit_y", &1024);
    field("thread_dim_limit_z", &64);
    field("block_dim_limit_x", &i32::MAX);
    field("block_dim_limit_y", &u16::MAX);
    field("block_dim_limit_z", &u16::MAX);
    field("registers_per_core_limit", &(64 << 10));
    field("registers_per_block_limit", &(64 << 10));
    field("shared_memory_per_block", &(48 << 10));
    field("device_address_bits", &64);

    field("core_count", &gpu.multiprocessors);
    field("fpus_per_core", &gpu.f32_units);
    field("clock_rate_ghz", &gpu.clock);
    field("device_memory_size", &gpu.memory);
    field("memory_bandwidth", &(gpu.bandwidth as u64));
    field("l2_cache_size", &gpu.cache);
    field("shared_memory_per_core", &gpu.shared.0);
    field("shared_memory_per_block_optin", &gpu.shared.1);
    // From Hopper on, instructions that only this very capability has (`sm_90a`).
    let features = if gpu.capability.0 >= 9 {
        "ACCELERATED_FEATURES"
    } else {
        "NONE"
    };
    let (major, minor) = gpu.capability;
    field(
        "cuda_compute_capability",
        &format!("{{ major: {major} minor: {minor} feature_extension: {features} }}"),
    );
    field("name", &format!("\"{}\"", gpu.model));
    let (major, minor, patch) = CUDNN;
    let _ = write!(
        text,
        "}}\nplatform_name: \"CUDA\"\ndevice_description_str: \"{}\"\n\
         dnn_version_info {{ major: {major} minor: {minor} patch: {patch} }}\n",
        gpu.model
    );
    text
}

/// The cuDNN that programs are compiled for.
const CUDNN: (u32, u32, u32) = (9, 10, 2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_lite_slices_are_one_host() {
        let options = |name: &str| tpu(&Slice::parse(name).unwrap()).options;
        let bounds =
            |list: &[i64]| vec![("chips_per_host_bounds", OptionValue::IntList(list.to_vec()))];
        assert_eq!(options("v5litepod-8"), bounds(&[2, 4, 1]));
        assert_eq!(options("v6e-1"), bounds(&[1, 1, 1]));
        assert!(options("v5e:4x4").is_empty());
        assert!(options("v3-8").is_empty());
        assert_eq!(options("v4-8")[0].0, "chip_config_name");
    }

    #[test]
    fn a_gpu_is_told_in_the_plugins_words() {
        let text = |name: &str| target_config(Gpu::parse(name).unwrap());
        for words in [
            "core_count: 132\n",
            "memory_bandwidth: 4800000000000\n",
            "{ major: 9 minor: 0 feature_extension: ACCELERATED_FEATURES }",
            "device_description_str: \"NVIDIA H200\"\n",
        ] {
            assert!(text("H200").contains(words), "{words}\n{}", text("h200"));
        }
        assert!(text("a100").contains("{ major: 8 minor: 0 feature_extension: NONE }"));
    }
}
