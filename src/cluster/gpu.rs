//! GPUs that can be compiled for without owning one. Figures are those of NVIDIA's data sheets and programming guide.

use super::Error;

/// A model of GPU.
#[derive(Debug, Clone, PartialEq)]
pub struct Gpu {
    /// Its name behind `cuda:`, such as `h100`.
    pub name: &'static str,
    /// Its maker's name of it.
    pub model: &'static str,
    /// Compute capability.
    pub capability: (u32, u32),
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Units for f32 in a multiprocessor.
    pub f32_units: u32,
    /// Boost clock in GHz.
    pub clock: f64,
    /// Bytes of memory that a program sees.
    pub memory: u64,
    /// Bytes per second to and from its memory.
    pub bandwidth: f64,
    /// Bytes of the second-level cache.
    pub cache: u64,
    /// Bytes of memory that the threads of a multiprocessor share, and how many of them a block may have.
    pub shared: (u64, u64),
    /// Floating-point operations per second in bf16, without sparsity.
    pub peak_flops: f64,
}

/// Every model.
pub const MODELS: &[Gpu] = &[
    Gpu {
        name: "a100",
        model: "NVIDIA A100-SXM4-80GB",
        capability: (8, 0),
        multiprocessors: 108,
        f32_units: 64,
        clock: 1.41,
        memory: 79 << 30,
        bandwidth: 2039e9,
        cache: 40 << 20,
        shared: (164 << 10, 163 << 10),
        peak_flops: 312e12,
    },
    Gpu {
        name: "h100",
        model: "NVIDIA H100 80GB HBM3",
        capability: (9, 0),
        multiprocessors: 132,
        f32_units: 128,
        clock: 1.98,
        memory: 79 << 30,
        bandwidth: 3352e9,
        cache: 50 << 20,
        shared: (228 << 10, 227 << 10),
        peak_flops: 989e12,
    },
    Gpu {
        name: "h200",
        model: "NVIDIA H200",
        capability: (9, 0),
        multiprocessors: 132,
        f32_units: 128,
        clock: 1.98,
        memory: 139 << 30,
        bandwidth: 4800e9,
        cache: 50 << 20,
        shared: (228 << 10, 227 << 10),
        peak_flops: 989e12,
    },
];

impl Gpu {
    /// The model of a name such as `h100`.
    ///
    /// # Errors
    /// If there is none; the error names all.
    pub fn parse(name: &str) -> Result<&'static Self, Error> {
        let wanted = name.trim().to_ascii_lowercase();
        MODELS
            .iter()
            .find(|gpu| gpu.name == wanted)
            .ok_or_else(|| Error::UnknownTarget {
                found: format!("cuda:{name}"),
            })
    }

    /// Names of all models as targets, such as `cuda:h100`.
    pub fn targets() -> Vec<String> {
        MODELS
            .iter()
            .map(|gpu| format!("cuda:{}", gpu.name))
            .collect()
    }
}
