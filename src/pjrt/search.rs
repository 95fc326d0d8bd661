//! Where plugins are looked for.

use super::error::Error;
use super::pins::Package;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Platform {
    /// Host processor.
    Cpu,
    /// NVIDIA GPU.
    Cuda,
    /// Google TPU.
    Tpu,
}

impl Platform {
    /// All of them, in the order in which `auto` prefers them.
    pub const ALL: [Platform; 3] = [Platform::Tpu, Platform::Cuda, Platform::Cpu];

    /// Its name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Platform::Cpu => "cpu",
            Platform::Cuda => "cuda",
            Platform::Tpu => "tpu",
        }
    }

    /// The environment variable that names a plugin file.
    pub fn variable(self) -> &'static str {
        match self {
            Platform::Cpu => "SIMCLR_PLUGIN_CPU",
            Platform::Cuda => "SIMCLR_PLUGIN_CUDA",
            Platform::Tpu => "SIMCLR_PLUGIN_TPU",
        }
    }

    /// Files below a `site-packages` folder.
    fn site_files(self) -> &'static [&'static str] {
        match self {
            Platform::Cpu => &["xla_plugins/xla_cpu_pjrt/xla_cpu_pjrt.so"],
            // The official `xla_plugins/xla_cuda*` 0.0.1 hold no CUDA platform and are not listed.
            Platform::Cuda => &[
                "jax_plugins/xla_cuda13/xla_cuda_plugin.so",
                "jax_plugins/xla_cuda12/xla_cuda_plugin.so",
            ],
            Platform::Tpu => &["libtpu/libtpu.so"],
        }
    }
}

/// How a plugin was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Named by `--plugin` or `runtime.plugin`.
    Named,
    /// Named by an environment variable.
    Variable,
    /// Installed by `simclr plugins install`.
    Cache,
    /// In the packages of the active `python3`.
    Python,
}

impl Source {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Source::Named => "named",
            Source::Variable => "environment",
            Source::Cache => "cache",
            Source::Python => "python3 packages",
        }
    }
}

/// A plugin file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its platform.
    pub platform: Platform,
    /// How it was found.
    pub source: Source,
    /// The file.
    pub path: PathBuf,
}

/// The first plugin for a platform: the named file, the environment variable, our cache, the packages of `python3`.
///
/// # Errors
/// If a file is named but missing, or nothing is found.
pub fn find(platform: Platform, named: Option<&Path>) -> Result<Found, Error> {
    let variable = std::env::var_os(platform.variable()).map(PathBuf::from);
    for (source, path) in [
        (Source::Named, named),
        (Source::Variable, variable.as_deref()),
    ] {
        if let Some(path) = path {
            if !path.is_file() {
                return Err(Error::NoSuchFile { path: path.into() });
            }
            return Ok(Found {
                platform,
                source,
                path: path.into(),
            });
        }
    }
    candidates(platform).next().ok_or_else(|| Error::NotFound {
        platform: platform.name().into(),
        looked: format!(
            "{}, {}, the packages of python3",
            platform.variable(),
            plugin_folder().map_or("no cache folder".into(), |p| p.display().to_string())
        ),
        install: Package::of(platform).name(),
        variable: platform.variable(),
    })
}

/// Every plugin that [`find`] would consider, in its order.
pub fn list() -> Vec<Found> {
    let mut all = Vec::new();
    for platform in Platform::ALL {
        if let Some(path) = std::env::var_os(platform.variable()).map(PathBuf::from) {
            all.push(Found {
                platform,
                source: Source::Variable,
                path,
            });
        }
        all.extend(candidates(platform));
    }
    all
}

fn candidates(platform: Platform) -> impl Iterator<Item = Found> {
    let cached = Package::ALL
        .into_iter()
        .filter(move |package| package.platform() == platform)
        .filter_map(Package::cached_file)
        .map(|path| (Source::Cache, path));
    // Python is started only if nothing comes before it: that takes a tenth of a second.
    let installed = std::iter::once_with(site_packages)
        .flatten()
        .flat_map(move |folder| {
            let file = move |file: &&str| (Source::Python, folder.join(file));
            platform.site_files().iter().map(file)
        });
    cached
        .chain(installed)
        .filter(|(_, path)| path.is_file())
        .map(move |(source, path)| Found {
            platform,
            source,
            path,
        })
}

/// Where fetched plugins are kept.
pub(super) fn plugin_folder() -> Option<PathBuf> {
    Some(crate::places::cache_folder()?.join("plugins"))
}

/// Package folders of the active `python3`; none if there is no Python.
fn site_packages() -> Vec<PathBuf> {
    let script = "import site, sys\n\
        paths = list(site.getsitepackages()) + [site.getusersitepackages()]\n\
        print('\\n'.join(p for p in dict.fromkeys(paths + sys.path) if p.endswith('-packages')))";
    let Ok(output) = Command::new("python3").args(["-c", script]).output() else {
        return Vec::new();
    };
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(PathBuf::from)
        .collect()
}
