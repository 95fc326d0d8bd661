//! From "which platform" to an engine: find the plugin, load it, create a client.

use super::{Cache, Engine, Error};
use crate::hlo::passes::Selection;
use crate::pjrt::{self, Client, Node, OptionValue, Platform, Plugin, ensure, find, tpu_chips};
use std::path::Path;

/// What to open.
#[derive(Debug, Clone, Copy)]
pub struct Choice<'a> {
    /// `auto`, `cpu`, `cuda` or `tpu`.
    pub platform: &'a str,
    /// A plugin file instead of the search.
    pub plugin: Option<&'a Path>,
    /// Devices wanted; 0 means all of an accelerator, `cpu_devices` on the CPU.
    pub devices: usize,
    /// How many devices the CPU makes of itself when nobody says.
    pub cpu_devices: usize,
    /// Target passes that run.
    pub passes: &'a Selection,
    /// Options of the compiler.
    pub compiler_options: &'a [(String, OptionValue)],
    /// Whether compiled programs are kept between runs.
    pub executable_cache: bool,
    /// Whether a GPU's memory is taken at the start.
    pub preallocate: bool,
    /// This process among several, for a plugin that must be told (CUDA's).
    pub node: Option<&'a Node>,
}

impl Platform {
    fn named(name: &str) -> Option<Self> {
        Platform::ALL
            .into_iter()
            .find(|platform| platform.name() == name)
    }
}

/// Opens an engine; gives it with the number of devices to use. `say` is told, in a line each, when a plugin has to be fetched and
/// when `auto` passes an accelerator's plugin over.
///
/// # Errors
/// If no plugin is found or can be fetched, it does not load, or it finds no device.
pub fn open(choice: Choice, say: &mut dyn FnMut(&str)) -> Result<(Engine, usize), Error> {
    match Platform::named(choice.platform) {
        Some(platform) => open_platform(platform, choice, say),
        None if choice.plugin.is_some() => {
            // A plugin says itself what it drives.
            open_platform(Platform::Cpu, choice, say)
        }
        None => {
            for platform in [Platform::Tpu, Platform::Cuda] {
                // A machine without that accelerator is no error, only a reason to go on looking.
                if platform == Platform::Tpu && tpu_chips() == 0 || find(platform, None).is_err() {
                    continue;
                }
                match open_platform(platform, choice, say) {
                    Ok(found) => return Ok(found),
                    // It works, with fewer devices than asked for: falling back would hide that.
                    Err(error @ Error::TooFewDevices { .. }) => return Err(error),
                    Err(error) => {
                        let name = platform.name();
                        tracing::info!("no {name}: {error}");
                        let text = error.to_string();
                        let reason = text.lines().next().unwrap_or_default();
                        say(&format!(
                            "not using the {name} plugin: {reason}; runtime.platform names another"
                        ));
                    }
                }
            }
            open_platform(Platform::Cpu, choice, say)
        }
    }
}

fn open_platform(
    platform: Platform,
    choice: Choice,
    say: &mut dyn FnMut(&str),
) -> Result<(Engine, usize), Error> {
    let path = match choice.plugin {
        Some(path) => find(platform, Some(path))?.path,
        None => ensure(platform, say)?.path,
    };
    let plugin = Plugin::load(&path)?;
    let on_cpu = if choice.devices == 0 {
        choice.cpu_devices
    } else {
        choice.devices
    };
    let client = client(&plugin, platform, on_cpu, choice.preallocate, choice.node)?;
    let (major, minor) = plugin.api_version();
    tracing::info!(
        "plugin {} (PJRT API {major}.{minor}), platform {}, {} devices",
        path.display(),
        client.platform_name(),
        client.devices().len()
    );
    if let Some(asked) = Platform::named(choice.platform)
        && !client.platform_name().eq_ignore_ascii_case(asked.name())
    {
        return Err(Error::WrongPlatform {
            plugin: path,
            found: client.platform_name().into(),
            expected: asked.name(),
        });
    }
    let there = client.all_devices().len();
    let devices = match choice.devices {
        0 => there,
        wanted => wanted,
    };
    if devices > there {
        return Err(Error::TooFewDevices {
            replicas: devices,
            devices: there,
            platform: client.platform_name().into(),
        });
    }
    let cache = match crate::places::cache_folder() {
        // What is kept is of one process.
        Some(folder) if choice.executable_cache && there == client.devices().len() => {
            Cache::new(folder.join("executables"), &client, &path)
        }
        _ => None,
    };
    let engine = Engine::new(client, choice.passes)
        .with_compiler_options(choice.compiler_options)
        .with_cache(cache);
    Ok((engine, devices))
}

/// The CPU plugin is told how many devices to make, the CUDA plugin whether to take memory at once and how many processes there are; others
/// refuse these options.
fn client(
    plugin: &Plugin,
    platform: Platform,
    devices: usize,
    preallocate: bool,
    node: Option<&Node>,
) -> Result<Client, pjrt::Error> {
    if platform == Platform::Cpu {
        match Client::cpu(plugin, devices.max(1)) {
            Err(pjrt::Error::Plugin { message, .. }) if message.contains("Unexpected option") => {}
            other => return other,
        }
    }
    if platform != Platform::Cuda {
        return Client::new(plugin, &[]);
    }
    let mut options = Vec::new();
    if !preallocate {
        options.push(("preallocate", OptionValue::Bool(false)));
    }
    match node {
        Some(node) => Client::of_node(plugin, node, &options),
        None => Client::new(plugin, &options),
    }
}
