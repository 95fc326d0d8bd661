//! The original's checkpoints as checkpoints of ours.
//!
//! The network is the one whose variables are exactly those of the file: every depth, with and without selective kernels and
//! squeeze-excite, is tried by its names, and the shapes then give widths, ratios, stem and heads.

mod left_out;
mod network;
mod source;

pub use left_out::{LeftOut, What};
pub use network::describe;

use super::tensor_bundle::Bundle;
use super::{Error, folder};
use crate::config::{self, Config, Loaded, Origin};
use crate::data;
use crate::model::{HeadMode, Network};
use crate::nn::Variable;
use crate::train::checkpoint::{self, Array, Manifest};
use crate::train::setup;
use safetensors::tensor::TensorView;
use source::Source;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The file beside the checkpoint that keeps a memory of negatives, which no network here has a place for.
pub const MEMORY_FILE: &str = "memory.safetensors";

/// What to take from a checkpoint.
#[derive(Debug, Clone, Copy, Default)]
pub struct Choice {
    /// The moving average of the weights under `ema_model/` instead of the weights.
    pub average: bool,
    /// The optimizer's slots too.
    pub slots: bool,
    /// The memory of negatives too, in a file of its own.
    pub memory: bool,
}

/// What was found, used and ignored.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// Generation of the original: 1 or 2.
    pub generation: u8,
    /// The bundle's prefix.
    pub source: PathBuf,
    /// Tensors in it.
    pub tensors: usize,
    /// The network.
    pub network: Network,
    /// Optimizer steps it had been trained.
    pub step: u64,
    /// Variables used.
    pub variables: usize,
    /// Slots used.
    pub slots: usize,
    /// Tensors of a memory of negatives kept in [`MEMORY_FILE`].
    pub memory: usize,
    /// What was left out.
    pub ignored: Vec<LeftOut>,
    /// What the file does not tell and was assumed.
    pub assumed: Vec<String>,
    /// The checkpoint written.
    pub checkpoint: PathBuf,
}

/// Imports a checkpoint into a new folder `out`, which can then be opened like a run. `overrides` go into its configuration
/// (`key=value`), for what a checkpoint does not tell.
///
/// # Errors
/// What is wrong with the bundle; names or shapes of no network of ours; a choice of what it does not have; overrides that describe
/// another network; a folder that exists or cannot be written. Then nothing is left in `out`.
pub fn import(
    path: &Path,
    out: &Path,
    choice: Choice,
    overrides: &[String],
) -> Result<Imported, Error> {
    folder::check_new(out)?;
    let bundle = Bundle::open(path)?;
    let source = Source::new(&bundle, choice)?;
    let mut assumed = Vec::new();
    let network = source.network(&mut assumed)?;
    let loaded = configuration(&network, source.generation(), overrides)?;
    assumed.extend(set_of(&network, &loaded.config));
    let network = described(&network, &loaded.config)?;
    let key = |line: &str| line.split('=').next().map(|key| key.trim().to_owned());
    let given: BTreeSet<_> = overrides.iter().map(|line| key(line)).collect();
    assumed.retain(|line| !given.contains(&key(line)));
    let (step, mut arrays, mut used) = source.step()?;
    let variables = network.variables()?;
    let keys = source.keys(&network, &names(&variables));
    for (variable, key) in variables.iter().zip(&keys) {
        let Some(key) = key else {
            return Err(source.unknown(
                describe(&network),
                format!("`{}` is missing", variable.name),
            ));
        };
        arrays.push(source.array(variable, key)?);
        used.insert(key.clone());
    }
    let slots = if choice.slots {
        source.slots(&variables, &keys, &mut arrays, &mut used)?
    } else {
        0
    };
    let memory = if choice.memory {
        source.memory(&mut used)?
    } else {
        Vec::new()
    };
    let imported = Imported {
        generation: source.generation(),
        source: bundle.prefix().to_owned(),
        tensors: bundle.entries().len(),
        step,
        variables: variables.len(),
        slots,
        memory: memory.len(),
        ignored: source.left_out(&used, choice),
        assumed,
        checkpoint: PathBuf::new(),
        network,
    };
    let named = given.contains(&Some("dataset".to_owned()));
    let known = data::class_names(&loaded.config.dataset).filter(|names| {
        // Names that the user vouches for, and only those, are the classifier's.
        named && imported.network.num_classes == Some(names.len())
    });
    let class_names = known.unwrap_or_default();
    let checkpoint = write(out, &loaded, &imported, class_names, &arrays, &memory)?;
    Ok(Imported {
        checkpoint,
        ..imported
    })
}

/// The network in a bundle, with what was assumed about it; no tensor is read.
///
/// # Errors
/// As [`import`], for names and shapes.
pub fn recognise(bundle: &Bundle, choice: Choice) -> Result<(Network, Vec<String>), Error> {
    let mut assumed = Vec::new();
    let network = Source::new(bundle, choice)?.network(&mut assumed)?;
    Ok((network, assumed))
}

fn names(variables: &[Variable]) -> Vec<String> {
    variables.iter().map(|v| v.name.clone()).collect()
}

/// A run's folder with this one checkpoint.
fn write(
    out: &Path,
    loaded: &Loaded,
    imported: &Imported,
    class_names: Vec<String>,
    arrays: &[Array],
    memory: &[Array],
) -> Result<PathBuf, Error> {
    let manifest = Manifest {
        step: imported.step,
        epoch: 0.0,
        data_position: 0,
        seed: loaded.config.runtime.seed,
        module_hash: format!("{}{}", checkpoint::IMPORTED, imported.source.display()),
        compiled_hash: String::new(),
        config: loaded.identity(),
        config_yaml: loaded.to_yaml(),
        class_names,
    };
    folder::make(out, |temporary| {
        let config = temporary.join("config.yaml");
        folder::write(&config, manifest.config_yaml.as_bytes())?;
        if !memory.is_empty() {
            folder::write(&temporary.join(MEMORY_FILE), &safetensors(memory))?;
        }
        let saved = checkpoint::save(&temporary.join("checkpoints"), &manifest, arrays, 0)?;
        Ok(out.join(saved.strip_prefix(temporary).unwrap_or(&saved)))
    })
}

/// Arrays as a safetensors file.
fn safetensors(arrays: &[Array]) -> Vec<u8> {
    let views = arrays.iter().map(|array| {
        let view = TensorView::new(array.dtype, array.dims.clone(), &array.bytes);
        // The bundle was checked to have as many bytes as the shape says.
        (&array.name, view.expect("bytes fit the shape"))
    });
    safetensors::serialize(views, None).expect("names and shapes are valid JSON")
}

/// What a classifier of ImageNet is evaluated on.
const IMAGENET: [&str; 2] = ["dataset=imagenet2012", "eval_split=validation"];

fn of_imagenet(network: &Network) -> bool {
    network.num_classes == Some(1000)
}

/// What was assumed about the set that a classifier tells the classes of.
fn set_of(network: &Network, config: &Config) -> Vec<String> {
    let Some(classes) = network.num_classes else {
        return Vec::new();
    };
    if of_imagenet(network) {
        let why = "the classifier has its 1,000 classes";
        return IMAGENET.map(|value| format!("{value} ({why})")).into();
    }
    let set = &config.dataset;
    let why = match data::class_names(set).map(|names| names.len()) {
        Some(known) if known != classes => {
            format!("it has {known} classes, so that the {classes} of the classifier are numbers")
        }
        _ => "it has as many classes as the classifier, whose names no checkpoint tells".into(),
    };
    vec![format!(
        "dataset={set} (the default; {why}; dataset=SET says another)"
    )]
}

/// The configuration that describes a network, every other key at its default.
fn configuration(
    network: &Network,
    generation: u8,
    overrides: &[String],
) -> Result<Loaded, config::Error> {
    let mode = match network.proj_head_mode {
        HeadMode::None => "none",
        HeadMode::Linear => "linear",
        HeadMode::Nonlinear => "nonlinear",
    };
    let mut values = vec![
        format!("resnet_depth={}", network.resnet_depth),
        format!("width_multiplier={}", network.width_multiplier),
        format!("image_size={}", network.image_size),
        format!("sk_ratio={}", network.sk_ratio),
        format!("se_ratio={}", network.se_ratio),
        format!("proj_head_mode={mode}"),
        format!("proj_out_dim={}", network.proj_out_dim),
        format!("num_proj_layers={}", network.num_proj_layers),
        format!("ft_proj_selector={}", network.ft_proj_selector),
        format!(
            "lineareval_while_pretraining={}",
            network.num_classes.is_some()
        ),
        format!("behaviour={}", if generation == 1 { "v1" } else { "tf2" }),
    ];
    if of_imagenet(network) {
        values.extend(IMAGENET.map(str::to_owned));
    }
    values.extend_from_slice(overrides);
    config::load(None, &values)
}

/// The network of a configuration, which must have the variables of the one in the file.
fn described(network: &Network, config: &Config) -> Result<Network, Error> {
    let described = setup::network(config, network.num_classes);
    let shapes = |network: &Network| -> Result<Vec<_>, Error> {
        let variables = network.variables()?;
        Ok(variables.into_iter().map(|v| (v.name, v.dims)).collect())
    };
    let wanted = shapes(network)?;
    if shapes(&described)? == wanted {
        return Ok(described);
    }
    let stem = if network.image_size > 32 {
        "a size above 32"
    } else {
        "a size up to 32"
    };
    // One key after the other taken back: the first whose value the file has otherwise.
    macro_rules! keys {
        ($($key:ident: $holds:expr),*) => {
            [$((
                stringify!($key),
                Network { $key: described.$key, ..network.clone() },
                format!("{:?}", described.$key).to_lowercase(),
                $holds.to_lowercase(),
            )),*]
        };
    }
    let keys = keys!(
        resnet_depth: network.resnet_depth.to_string(),
        width_multiplier: network.width_multiplier.to_string(),
        image_size: stem,
        sk_ratio: network.sk_ratio.to_string(),
        se_ratio: network.se_ratio.to_string(),
        proj_head_mode: format!("{:?}", network.proj_head_mode),
        num_proj_layers: network.num_proj_layers.to_string(),
        proj_out_dim: network.proj_out_dim.to_string(),
        ft_proj_selector: network.ft_proj_selector.to_string()
    );
    let culprit = keys
        .into_iter()
        .find(|(_, alone, ..)| alone != network && shapes(alone).ok().as_ref() != Some(&wanted));
    // Some value differs, or the variables would not.
    let (key, _, found, holds) = culprit.expect("a key that tells another network");
    Err(Error::Config(config::Error::BadValue {
        key,
        origin: Origin::Argument,
        found,
        expected: format!("{holds}, as the checkpoint's shapes say; leave it out"),
    }))
}

#[cfg(test)]
mod tests;
