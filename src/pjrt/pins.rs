//! Which packages are fetched, in which version, and what they must hash to.

use super::search::{Platform, plugin_folder};
use std::path::{Path, PathBuf};

/// A plugin that can be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Package {
    /// `xla-cpu-pjrt`.
    Cpu,
    /// `jax-cuda12-pjrt`.
    Cuda12,
    /// `jax-cuda13-pjrt`.
    Cuda13,
    /// `libtpu`.
    Tpu,
}

/// A wheel: what is fetched, what of it is kept, and what it must hash to.
pub(super) struct Wheel {
    pub name: &'static str,
    pub version: &'static str,
    /// Files that are kept, by their place in the wheel.
    pub files: &'static [&'static str],
    /// SHA-256 of the wheel for x86-64.
    pub x86_64: &'static str,
    /// And for 64-bit Arm, where there is one.
    pub aarch64: Option<&'static str>,
}

/// A plugin's wheel, with the others that it needs in the same folder.
pub(super) struct Pin {
    /// The plugin's own wheel; its first file is the plugin.
    pub plugin: Wheel,
    /// What pip must be told to fetch the very wheel that is pinned, whatever Python runs it.
    pub pip: &'static [&'static str],
    /// What compiling needs beside it.
    pub tools: &'static [Wheel],
    /// What running needs beside it.
    pub libraries: &'static [Wheel],
}

impl Package {
    /// All of them.
    pub const ALL: [Package; 4] = [Package::Cpu, Package::Cuda13, Package::Cuda12, Package::Tpu];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Package::Cpu => "cpu",
            Package::Cuda12 => "cuda12",
            Package::Cuda13 => "cuda13",
            Package::Tpu => "tpu",
        }
    }

    /// The platform it is for.
    pub fn platform(self) -> Platform {
        match self {
            Package::Cpu => Platform::Cpu,
            Package::Cuda12 | Package::Cuda13 => Platform::Cuda,
            Package::Tpu => Platform::Tpu,
        }
    }

    /// The package that `find` suggests for a platform.
    pub fn of(platform: Platform) -> Self {
        match platform {
            Platform::Cpu => Package::Cpu,
            Platform::Cuda => Package::Cuda13,
            Platform::Tpu => Package::Tpu,
        }
    }

    /// Whether running its programs takes libraries that are fetched only when they are asked for, because of their size.
    pub fn has_libraries(self) -> bool {
        !self.pin().libraries.is_empty()
    }

    /// Its folder in the cache.
    pub(super) fn folder(self) -> Option<PathBuf> {
        let wheel = self.pin().plugin;
        Some(plugin_folder()?.join(format!("{}-{}", wheel.name, wheel.version)))
    }

    /// The plugin's file in the cache, whether it is there or not.
    pub(super) fn cached_file(self) -> Option<PathBuf> {
        Some(self.folder()?.join(self.pin().plugin.files[0]))
    }

    /// Whether a file is that which [`super::install`] fetched, whose SHA-256 it checked.
    pub fn is(self, file: &Path) -> bool {
        // Plugins go by their real paths, and a cache may lie behind a link.
        let cached = self
            .cached_file()
            .and_then(|cached| cached.canonicalize().ok());
        cached.is_some_and(|cached| cached == file)
    }

    pub(super) fn pin(self) -> Pin {
        match self {
            Package::Cpu => Pin {
                plugin: Wheel {
                    name: "xla-cpu-pjrt",
                    version: "0.0.1",
                    files: &["xla_plugins/xla_cpu_pjrt/xla_cpu_pjrt.so"],
                    x86_64: "55837b6b7b47daa717f2d9a5a03563ea0ceaa338d06a81a1e2d3f060d960decc",
                    aarch64: Some(
                        "8f613be6e891858f40d64f9799319502fff42689661944fc18a6ffd8210b30c9",
                    ),
                },
                pip: &[],
                tools: &[],
                libraries: &[],
            },
            Package::Cuda12 => Pin {
                plugin: Wheel {
                    name: "jax-cuda12-pjrt",
                    version: "0.12.0.1",
                    files: &["jax_plugins/xla_cuda12/xla_cuda_plugin.so"],
                    x86_64: "5ec28e06198d094031c37590b4ea753ae8cde4879ab4b60baf40f0dffb673286",
                    aarch64: None,
                },
                pip: &[],
                tools: CUDA12_TOOLS,
                libraries: CUDA12_LIBRARIES,
            },
            Package::Cuda13 => Pin {
                plugin: Wheel {
                    name: "jax-cuda13-pjrt",
                    version: "0.12.0.1",
                    files: &["jax_plugins/xla_cuda13/xla_cuda_plugin.so"],
                    x86_64: "5899bb6177eda86ea532afb9a26794f2bdd04966f6a01f9028266b16c2b6cf90",
                    aarch64: None,
                },
                pip: &[],
                tools: CUDA13_TOOLS,
                libraries: CUDA13_LIBRARIES,
            },
            Package::Tpu => Pin {
                plugin: Wheel {
                    name: "libtpu",
                    version: "0.0.52",
                    files: &["libtpu/libtpu.so"],
                    x86_64: "f5e2e596eaea9357fbb5a6755a7a9007c6ab75bfde4a55191b03eff402971140",
                    aarch64: None,
                },
                // There is a wheel for each Python, and the plugin in all of them is for none.
                pip: &[
                    "--python-version=3.11",
                    "--implementation=cp",
                    "--abi=cp311",
                ],
                tools: &[],
                libraries: &[],
            },
        }
    }
}

/// NVIDIA's assembler and mathematics, which the plugin looks for in these places beside itself.
const CUDA13_TOOLS: &[Wheel] = &[
    nvidia(
        "nvidia-cuda-nvcc",
        "13.5.37",
        &["nvidia/cu13/bin/ptxas", "nvidia/cu13/bin/nvlink"],
        "f5c4f7ead5d964fb4af42bbf1e6d3ec3c1e6e9d83b53749f691d387e7fcaa3a7",
    ),
    nvidia(
        "nvidia-nvvm",
        "13.5.37",
        &["nvidia/cu13/nvvm/libdevice/libdevice.10.bc"],
        "c41bfa362e407405163f103c2229f0765f8cc2ed7d148b754dc77f228bf7e070",
    ),
];

/// NVIDIA's libraries, likewise.
const CUDA13_LIBRARIES: &[Wheel] = &[
    nvidia(
        "nvidia-cuda-runtime",
        "13.5.37",
        &["nvidia/cu13/lib/libcudart.so.13"],
        "df2b79a8852f10d1fef8c848489c49eebb5754051bf870202a862831412b179d",
    ),
    nvidia(
        "nvidia-cublas",
        "13.10.0.20",
        &[
            "nvidia/cu13/lib/libcublas.so.13",
            "nvidia/cu13/lib/libcublasLt.so.13",
        ],
        "dcc6d63884c53d07e267ce7e6feac17b2538cebaafec5db865736c3e28e4dc84",
    ),
    nvidia(
        "nvidia-cudnn-cu13",
        "9.28.1.4",
        &[
            "nvidia/cudnn/lib/libcudnn.so.9",
            "nvidia/cudnn/lib/libcudnn_adv.so.9",
            "nvidia/cudnn/lib/libcudnn_cnn.so.9",
            "nvidia/cudnn/lib/libcudnn_engines_precompiled.so.9",
            "nvidia/cudnn/lib/libcudnn_engines_runtime_compiled.so.9",
            "nvidia/cudnn/lib/libcudnn_engines_tensor_ir.so.9",
            "nvidia/cudnn/lib/libcudnn_ext.so.9",
            "nvidia/cudnn/lib/libcudnn_graph.so.9",
            "nvidia/cudnn/lib/libcudnn_heuristic.so.9",
            "nvidia/cudnn/lib/libcudnn_ops.so.9",
        ],
        "a54f205b1db1f2895d99f398754db1369816f0569dd459731f925635cf7b65ec",
    ),
    nvidia(
        "nvidia-cuda-nvrtc",
        "13.5.37",
        &[
            "nvidia/cu13/lib/libnvrtc.so.13",
            "nvidia/cu13/lib/libnvrtc-builtins.so.13.5",
        ],
        "86b4d68058807988b7d9af5b44917a0601e9c337f35ccd657bfb3c759ff8d8bc",
    ),
    nvidia(
        "nvidia-cuda-cupti",
        "13.5.25",
        &["nvidia/cu13/lib/libcupti.so.13"],
        "9dcca41c12a734192b14e7128ae116bc9ce1b9da686e2ebf48ae7a4415f76650",
    ),
    nvidia(
        "nvidia-nvjitlink",
        "13.5.37",
        &["nvidia/cu13/lib/libnvJitLink.so.13"],
        "280d7cb9649704145f074b8dbde500de04ce02d0872e066e20a83c17bcaa93eb",
    ),
    nvidia(
        "nvidia-nccl-cu13",
        "2.32.3",
        &["nvidia/nccl/lib/libnccl.so.2"],
        "1459723080ac889d73a26edfa3e04383a7928ab31ac8f0ec43b3ea9548b04ff3",
    ),
];

const CUDA12_TOOLS: &[Wheel] = &[nvidia(
    "nvidia-cuda-nvcc-cu12",
    "12.9.86",
    &[
        "nvidia/cuda_nvcc/bin/ptxas",
        "nvidia/cuda_nvcc/nvvm/libdevice/libdevice.10.bc",
    ],
    "5d6a0d32fdc7ea39917c20065614ae93add6f577d840233237ff08e9a38f58f0",
)];

const CUDA12_LIBRARIES: &[Wheel] = &[
    nvidia(
        "nvidia-cuda-runtime-cu12",
        "12.9.79",
        &["nvidia/cuda_runtime/lib/libcudart.so.12"],
        "25bba2dfb01d48a9b59ca474a1ac43c6ebf7011f1b0b8cc44f54eb6ac48a96c3",
    ),
    nvidia(
        "nvidia-cublas-cu12",
        "12.9.1.4",
        &[
            "nvidia/cublas/lib/libcublas.so.12",
            "nvidia/cublas/lib/libcublasLt.so.12",
        ],
        "453611eb21a7c1f2c2156ed9f3a45b691deda0440ec550860290dc901af5b4c2",
    ),
    nvidia(
        "nvidia-cudnn-cu12",
        "9.10.2.21",
        &[
            "nvidia/cudnn/lib/libcudnn.so.9",
            "nvidia/cudnn/lib/libcudnn_adv.so.9",
            "nvidia/cudnn/lib/libcudnn_cnn.so.9",
            "nvidia/cudnn/lib/libcudnn_engines_precompiled.so.9",
            "nvidia/cudnn/lib/libcudnn_engines_runtime_compiled.so.9",
            "nvidia/cudnn/lib/libcudnn_graph.so.9",
            "nvidia/cudnn/lib/libcudnn_heuristic.so.9",
            "nvidia/cudnn/lib/libcudnn_ops.so.9",
        ],
        "949452be657fa16687d0930933f032835951ef0892b37d2d53824d1a84dc97a8",
    ),
    nvidia(
        "nvidia-cuda-nvrtc-cu12",
        "12.9.86",
        &[
            "nvidia/cuda_nvrtc/lib/libnvrtc.so.12",
            "nvidia/cuda_nvrtc/lib/libnvrtc-builtins.so.12.9",
        ],
        "210cf05005a447e29214e9ce50851e83fc5f4358df8b453155d5e1918094dcb4",
    ),
    nvidia(
        "nvidia-cuda-cupti-cu12",
        "12.9.79",
        &["nvidia/cuda_cupti/lib/libcupti.so.12"],
        "096bcf334f13e1984ba36685ad4c1d6347db214de03dbb6eebb237b41d9d934f",
    ),
    nvidia(
        "nvidia-nvjitlink-cu12",
        "12.9.86",
        &["nvidia/nvjitlink/lib/libnvJitLink.so.12"],
        "e3f1171dbdc83c5932a45f0f4c99180a70de9bd2718c1ab77d14104f6d7147f9",
    ),
    nvidia(
        "nvidia-nccl-cu12",
        "2.32.3",
        &["nvidia/nccl/lib/libnccl.so.2"],
        "bb94b2348e4861d5e8aa00b36c3d12d9bdf9c6369b82cbb723de0b582280a21c",
    ),
];

impl Wheel {
    /// SHA-256 of the wheel for an architecture.
    pub fn hash(&self, architecture: &str) -> Option<&'static str> {
        match architecture {
            "x86_64" => Some(self.x86_64),
            "aarch64" => self.aarch64,
            _ => None,
        }
    }
}

const fn nvidia(
    name: &'static str,
    version: &'static str,
    files: &'static [&'static str],
    x86_64: &'static str,
) -> Wheel {
    Wheel {
        name,
        version,
        files,
        x86_64,
        aarch64: None,
    }
}
