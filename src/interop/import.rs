//! The original's checkpoints as checkpoints of ours.
//!
//! The network is the one whose variables are exactly those of the file: every depth, with and without selective kernels and
//! squeeze-excite, is tried by its names, and the shapes then give widths, ratios, stem and heads.

use super::names::tf2_paths;
use super::object_graph::{GRAPH_KEY, Objects, VALUE};
use super::tensor_bundle::{Bundle, DataType};
use super::{Error, folder};
use crate::config::{self, Config, Loaded, Origin};
use crate::model::{DEPTHS, HeadMode, Network};
use crate::nn::{Kind, Variable};
use crate::train::checkpoint::{self, Array, Manifest};
use crate::train::setup;
use safetensors::Dtype;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Where the published SimCLRv2 checkpoints keep the moving average of their weights.
const AVERAGE: &str = "ema_model/";
/// Ends of the names of variables, as opposed to slots and counters.
const PARTS: [&str; 6] = [
    "kernel",
    "bias",
    "gamma",
    "beta",
    "moving_mean",
    "moving_variance",
];

/// What to take from a checkpoint.
#[derive(Debug, Clone, Copy, Default)]
pub struct Choice {
    /// The moving average of the weights under `ema_model/` instead of the weights.
    pub average: bool,
    /// The optimizer's slots too.
    pub slots: bool,
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
    /// What was left out: what it is, how many, the first name.
    pub ignored: Vec<(&'static str, usize, String)>,
    /// What the file does not tell and was assumed.
    pub assumed: Vec<String>,
    /// The checkpoint written.
    pub checkpoint: PathBuf,
}

/// Imports a checkpoint into a new folder `out`, which can then be opened like a run. `overrides` go into its configuration
/// (`key=value`), for what a checkpoint does not tell.
///
/// # Errors
/// What is wrong with the bundle; names or shapes of no network of ours; overrides that describe another network; a folder that
/// exists or cannot be written. Then nothing is left in `out`.
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
        let before = arrays.len();
        source.slots(&variables, &keys, &mut arrays, &mut used)?;
        arrays.len() - before
    } else {
        0
    };
    let imported = Imported {
        generation: source.generation(),
        source: bundle.prefix().to_owned(),
        tensors: bundle.entries().len(),
        step,
        variables: variables.len(),
        slots,
        ignored: source.ignored(&used),
        assumed,
        checkpoint: PathBuf::new(),
        network,
    };
    let checkpoint = write(out, &loaded, &imported, &arrays)?;
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
    arrays: &[Array],
) -> Result<PathBuf, Error> {
    let manifest = Manifest {
        step: imported.step,
        epoch: 0.0,
        data_position: 0,
        seed: loaded.config.runtime.seed,
        module_hash: format!("imported from {}", imported.source.display()),
        config: loaded.identity(),
        config_yaml: loaded.to_yaml(),
        class_names: Vec::new(),
    };
    folder::make(out, |temporary| {
        let config = temporary.join("config.yaml");
        folder::write(&config, manifest.config_yaml.as_bytes())?;
        let saved = checkpoint::save(&temporary.join("checkpoints"), &manifest, arrays, 0)?;
        Ok(out.join(saved.strip_prefix(temporary).unwrap_or(&saved)))
    })
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

/// A bundle read as one of the original's checkpoints.
struct Source<'a> {
    bundle: &'a Bundle,
    /// Before all names of the first generation.
    prefix: &'static str,
    /// Of the second generation.
    objects: Option<Objects>,
}

impl<'a> Source<'a> {
    fn new(bundle: &'a Bundle, choice: Choice) -> Result<Self, Error> {
        let entries = bundle.entries();
        let objects = if entries.contains_key(GRAPH_KEY) {
            let graph = bundle.strings(GRAPH_KEY)?.concat();
            let objects = Objects::parse(&graph)
                .ok_or_else(|| Error::damaged(bundle.prefix(), "its object graph is unreadable"))?;
            Some(objects)
        } else {
            None
        };
        let source = Source {
            bundle,
            prefix: if choice.average { AVERAGE } else { "" },
            objects,
        };
        if choice.average && source.encoder_keys().is_empty() {
            return Err(Error::Unsupported {
                path: bundle.prefix().to_owned(),
                found: format!("has no moving average of the weights (`{AVERAGE}base_model/…`)"),
                expected: "one; leave --average out".into(),
            });
        }
        Ok(source)
    }

    fn generation(&self) -> u8 {
        if self.objects.is_some() { 2 } else { 1 }
    }

    /// The key of each variable of a network, by our names; `None` where the file has none.
    fn keys(&self, network: &Network, names: &[String]) -> Vec<Option<String>> {
        let there = |key: String| self.bundle.entries().contains_key(&key).then_some(key);
        match &self.objects {
            None => names
                .iter()
                .map(|name| there(format!("{}{name}", self.prefix)))
                .collect(),
            Some(objects) => tf2_paths(network, names)
                .into_iter()
                .map(|path| objects.key(&path?).and_then(there))
                .collect(),
        }
    }

    fn dims(&self, key: &str) -> &[usize] {
        let entry = self.bundle.entries().get(key);
        entry.map_or(&[], |entry| entry.dims.as_slice())
    }

    /// Keys of all variables of the encoder.
    fn encoder_keys(&self) -> BTreeSet<&str> {
        let keys = self.bundle.entries().keys().map(String::as_str);
        match &self.objects {
            None => keys
                .filter(|key| {
                    let own = key.strip_prefix(self.prefix);
                    own.is_some_and(|own| own.starts_with("base_model/") && is_variable(own))
                })
                .collect(),
            Some(_) => keys
                .filter(|key| {
                    let model = key.strip_prefix("model/").unwrap_or(key);
                    model.starts_with("resnet_model/") && !key.contains("/.OPTIMIZER_SLOT/")
                })
                .collect(),
        }
    }

    /// The network whose variables are those of the file, with every shape checked.
    fn network(&self, assumed: &mut Vec<String>) -> Result<Network, Error> {
        let (candidate, keys) = self.nearest()?;
        let sized = self.sized(candidate, &keys, assumed)?;
        let network = self.heads(sized, assumed)?;
        network.check()?;
        let variables = network.variables()?;
        let keys = self.keys(&network, &names(&variables));
        for (variable, key) in variables.iter().zip(&keys) {
            let Some(key) = key else {
                return Err(self.unknown(
                    describe(&network),
                    format!("`{}` is missing", variable.name),
                ));
            };
            let found = self.dims(key);
            let expected: Vec<usize> = variable.dims.iter().map(|&d| d as usize).collect();
            if found != expected {
                return Err(self.unknown(
                    describe(&network),
                    format!("`{key}` has shape {found:?}, expected {expected:?}"),
                ));
            }
        }
        Ok(network)
    }

    /// The encoder whose names fit, with the keys of its variables.
    fn nearest(&self) -> Result<(Network, Vec<(Variable, String)>), Error> {
        let there = self.encoder_keys();
        if there.is_empty() {
            let first = self.bundle.entries().keys().next();
            return Err(Error::Unsupported {
                path: self.bundle.prefix().to_owned(),
                found: format!(
                    "holds no encoder of SimCLR (its first name is `{}`)",
                    first.map_or("", String::as_str)
                ),
                expected: "names as `base_model/conv2d/kernel`, or `model/resnet_model/…`".into(),
            });
        }
        let mut best: Option<(usize, Network, String)> = None;
        for (depth, sk, se, size) in kinds() {
            let network = Network {
                resnet_depth: depth,
                sk_ratio: if sk { 0.0625 } else { 0.0 },
                se_ratio: if se { 0.25 } else { 0.0 },
                image_size: size,
                proj_head_mode: HeadMode::None,
                ..Network::default()
            };
            let variables = network.variables()?;
            let keys = self.keys(&network, &names(&variables));
            let missing: Vec<&Variable> = variables
                .iter()
                .zip(&keys)
                .filter(|(_, key)| key.is_none())
                .map(|(variable, _)| variable)
                .collect();
            let found: BTreeSet<&str> = keys.iter().flatten().map(String::as_str).collect();
            let extra: Vec<&&str> = there.iter().filter(|key| !found.contains(*key)).collect();
            let distance = missing.len() + extra.len();
            if distance == 0 {
                let keys = keys.into_iter().flatten();
                return Ok((network, variables.into_iter().zip(keys).collect()));
            }
            if best.as_ref().is_none_or(|(least, ..)| distance < *least) {
                let what = match (missing.first(), extra.first()) {
                    (Some(first), _) => {
                        format!(
                            "{} variables are missing, `{}` the first",
                            missing.len(),
                            first.name
                        )
                    }
                    (None, first) => format!(
                        "{} more variables are there, `{}` the first",
                        extra.len(),
                        first.map_or("", |key| key)
                    ),
                };
                best = Some((distance, network, what));
            }
        }
        let (_, network, what) = best.expect("there are candidates");
        Err(self.unknown(by_names(&network), what))
    }

    /// The candidate with the width, ratios and stem that the shapes show.
    fn sized(
        &self,
        candidate: Network,
        keys: &[(Variable, String)],
        assumed: &mut Vec<String>,
    ) -> Result<Network, Error> {
        let of_kind = |kind: Kind| {
            keys.iter()
                .filter(move |(variable, _)| variable.kind == kind)
                .map(|(_, key)| self.dims(key))
                .collect::<Vec<_>>()
        };
        let convolutions = of_kind(Kind::ConvKernel);
        let output = |at: Option<usize>| {
            at.and_then(|at| convolutions.get(at))
                .and_then(|dims| dims.get(3))
                .map_or(0.0, |&dim| dim as f64)
        };
        let (sk, squeezed) = (candidate.sk_ratio > 0.0, candidate.se_ratio > 0.0);
        let squeezed = 2 * usize::from(squeezed);
        // In each group: shortcut, then the main path, whose first convolution is as wide as the group.
        let per_block = match (candidate.bottleneck(), sk) {
            (true, true) => 5,
            (true, false) => 3,
            (false, _) => 2,
        } + squeezed;
        let mut first = if sk && candidate.image_size > 32 {
            3
        } else {
            1
        };
        let widths = candidate.blocks().map(|count| {
            let width = output(Some(first + 1));
            first += 1 + count * per_block;
            width
        });
        let width = multiplier(widths);
        let image_size = if convolutions.first().and_then(|dims| dims.first()) == Some(&7) {
            224
        } else if candidate.sk_ratio == 0.0 {
            32
        } else {
            candidate.image_size
        };
        assumed.push(format!(
            "image_size={image_size} (the stem fits any size {})",
            if image_size > 32 {
                "above 32"
            } else {
                "up to 32"
            }
        ));
        if image_size <= 32 {
            assumed
                .push("stem_stride=1 (as the original's; the shapes are those of 2, too)".into());
        }
        let filters = widths[3];
        let (mut sk_ratio, mut se_ratio) = (candidate.sk_ratio, candidate.se_ratio);
        // The last convolutions: (selective kernel: reduce, expand,) last of the block, (squeeze-excite: reduce, expand).
        if sk_ratio > 0.0 && candidate.bottleneck() {
            let middle = output(convolutions.len().checked_sub(3 + squeezed));
            if (filters * sk_ratio).trunc().max(32.0) != middle {
                sk_ratio = middle / filters;
            }
        }
        if se_ratio > 0.0 {
            let middle = output(convolutions.len().checked_sub(2));
            if (filters * se_ratio).trunc().max(1.0) != middle {
                se_ratio = middle / filters;
                // Widths are cut to integers: rounding may not bring the quotient below the one it came from.
                if (filters * se_ratio).trunc() < middle {
                    se_ratio = (middle + 0.5) / filters;
                }
            }
        }
        Ok(Network {
            width_multiplier: width,
            image_size,
            sk_ratio,
            se_ratio,
            ..candidate
        })
    }

    /// The network with the heads that the file has.
    fn heads(&self, encoder: Network, assumed: &mut Vec<String>) -> Result<Network, Error> {
        let kernel = |name: String| {
            let key = self.keys(&encoder, &[name]).remove(0)?;
            match self.dims(&key) {
                &[inputs, outputs] => Some([inputs, outputs]),
                _ => None,
            }
        };
        let nonlinear: Vec<[usize; 2]> = (0..)
            .map_while(|layer| kernel(format!("head_contrastive/nl_{layer}/dense/kernel")))
            .collect();
        let linear = kernel("head_contrastive/l_0/dense/kernel".into());
        let supervised = kernel("head_supervised/linear_layer/dense/kernel".into());
        let (mode, layers, last) = match (nonlinear.last(), linear) {
            (Some(last), _) => (HeadMode::Nonlinear, nonlinear.len(), Some(*last)),
            (None, Some(only)) => (HeadMode::Linear, 1, Some(only)),
            (None, None) => (HeadMode::None, 0, None),
        };
        let mut network = Network {
            proj_head_mode: mode,
            num_proj_layers: layers.max(1),
            proj_out_dim: last.map_or(encoder.proj_out_dim, |[_, outputs]| outputs),
            num_classes: supervised.map(|[_, classes]| classes),
            ..encoder
        };
        if let Some([inputs, _]) = supervised {
            let features = network.features() as usize;
            if inputs != features && inputs == network.proj_out_dim {
                network.ft_proj_selector = -1;
            } else if layers > 1 {
                assumed.push(
                    "ft_proj_selector=0 (every hidden layer is as wide as the features; the published fine-tuned 1 % and 10 % networks have 1)"
                        .into(),
                );
            }
        }
        Ok(network)
    }

    fn unknown(&self, nearest: String, what: String) -> Error {
        Error::UnknownNetwork {
            path: self.bundle.prefix().to_owned(),
            nearest,
            what,
        }
    }

    fn array(&self, variable: &Variable, key: &str) -> Result<Array, Error> {
        let entry = &self.bundle.entries()[key];
        if entry.dtype != DataType::Numbers(Dtype::F32) {
            return Err(Error::Unsupported {
                path: self.bundle.prefix().to_owned(),
                found: format!("has tensor `{key}` of {}", entry.dtype),
                expected: "f32".into(),
            });
        }
        Ok(Array {
            name: variable.name.clone(),
            dtype: Dtype::F32,
            dims: entry.dims.clone(),
            bytes: self.bundle.numbers(key)?,
        })
    }

    /// Slots of the variables, under our names.
    fn slots(
        &self,
        variables: &[Variable],
        keys: &[Option<String>],
        arrays: &mut Vec<Array>,
        used: &mut BTreeSet<String>,
    ) -> Result<(), Error> {
        for (variable, key) in variables.iter().zip(keys) {
            let Some(key) = key else { continue };
            for slot in ["Momentum", "Adam", "Adam_1"] {
                let slot_key = match key.strip_suffix(VALUE) {
                    Some(path) => format!("{path}/.OPTIMIZER_SLOT/optimizer/{slot}{VALUE}"),
                    None => format!("{key}/{slot}"),
                };
                if self.bundle.entries().contains_key(&slot_key) {
                    let mut array = self.array(variable, &slot_key)?;
                    array.name = format!("{}/{slot}", variable.name);
                    arrays.push(array);
                    used.insert(slot_key);
                }
            }
        }
        Ok(())
    }

    /// The step, as a number and as our state's array.
    fn step(&self) -> Result<(u64, Vec<Array>, BTreeSet<String>), Error> {
        let key = match self.objects {
            None => "global_step".to_owned(),
            Some(_) => format!("global_step{VALUE}"),
        };
        let mut used = BTreeSet::new();
        let mut step = 0;
        if let Some(entry) = self.bundle.entries().get(&key)
            && entry.dtype == DataType::Numbers(Dtype::I64)
            && entry.dims.is_empty()
        {
            let bytes = self.bundle.numbers(&key)?;
            // Eight bytes, as the entry was checked to have.
            let value = bytes.try_into().map_or(0, i64::from_le_bytes);
            step = u32::try_from(value).unwrap_or(0);
            used.insert(key);
        }
        let array = Array {
            name: "global_step".into(),
            dtype: Dtype::U32,
            dims: Vec::new(),
            bytes: step.to_le_bytes().to_vec(),
        };
        Ok((u64::from(step), vec![array], used))
    }

    /// What was left out, by what it is.
    fn ignored(&self, used: &BTreeSet<String>) -> Vec<(&'static str, usize, String)> {
        let mut groups: BTreeMap<&'static str, (usize, String)> = BTreeMap::new();
        for key in self.bundle.entries().keys() {
            if used.contains(key) {
                continue;
            }
            let what = if key == GRAPH_KEY || key.starts_with("save_counter") {
                "bookkeeping of TensorFlow"
            } else if key.contains("/.OPTIMIZER_SLOT/")
                || key.starts_with("optimizer/")
                || ["/Momentum", "/Adam", "/Adam_1"]
                    .iter()
                    .any(|slot| key.ends_with(slot))
                || matches!(key.as_str(), "beta1_power" | "beta2_power")
            {
                "optimizer slots"
            } else if key.contains("memory") {
                "memory of negatives"
            } else if key.starts_with(AVERAGE) {
                "moving average of the weights"
            } else if !self.prefix.is_empty() && is_variable(key) {
                "weights (their moving average was taken)"
            } else {
                "unknown to this program"
            };
            let group = groups.entry(what).or_insert((0, key.clone()));
            group.0 += 1;
        }
        groups
            .into_iter()
            .map(|(what, (count, first))| (what, count, first))
            .collect()
    }
}

/// The multiplier that gives the four groups these widths. Fractions are rounded to widths, so that many do: powers of two go before
/// decimals, short ones before long ones.
fn multiplier(widths: [f64; 4]) -> f64 {
    let plain = widths[3] / 512.0;
    let fits = |&multiplier: &f64| {
        let network = Network {
            width_multiplier: multiplier,
            ..Network::default()
        };
        network.widths().map(|width| width as f64) == widths
    };
    // What rounds to the last width lies within half a step of 8 around it.
    let (low, high) = ((widths[3] - 4.0) / 512.0, (widths[3] + 4.0) / 512.0);
    [1.0, 16.0, 10.0, 100.0, 1000.0]
        .into_iter()
        .flat_map(|parts| {
            let (from, to) = ((low * parts).ceil() as i64, (high * parts).floor() as i64);
            (from..=to).map(move |at| at as f64 / parts)
        })
        .chain([plain])
        .filter(|&multiplier| multiplier > 0.0)
        .find(fits)
        .unwrap_or(plain)
}

fn is_variable(name: &str) -> bool {
    let last = name.rsplit('/').next().unwrap_or(name);
    PARTS.contains(&last)
}

/// Depth, selective kernels, squeeze-excite, and an image size for each stem whose names differ.
fn kinds() -> impl Iterator<Item = (usize, bool, bool, usize)> {
    DEPTHS.iter().flat_map(|&depth| {
        [(false, false), (true, false), (false, true), (true, true)]
            .into_iter()
            .flat_map(move |(sk, se)| {
                let sizes: &[usize] = if sk { &[224, 32] } else { &[224] };
                sizes.iter().map(move |&size| (depth, sk, se, size))
            })
    })
}

/// What names alone tell of a network.
fn by_names(network: &Network) -> String {
    let parts = match (network.sk_ratio > 0.0, network.se_ratio > 0.0) {
        (true, true) => " with selective kernels and squeeze-excite",
        (true, false) => " with selective kernels",
        (false, true) => " with squeeze-excite",
        (false, false) => "",
    };
    format!("a ResNet-{}{parts}", network.resnet_depth)
}

/// A network in words.
pub fn describe(network: &Network) -> String {
    let mut text = format!("ResNet-{}", network.resnet_depth);
    if network.width_multiplier != 1.0 {
        text.push_str(&format!(" {}×", network.width_multiplier));
    }
    if network.sk_ratio > 0.0 {
        text.push_str(&format!(", selective kernels {}", network.sk_ratio));
    }
    if network.se_ratio > 0.0 {
        text.push_str(&format!(", squeeze-excite {}", network.se_ratio));
    }
    let stem = if network.image_size > 32 {
        "large"
    } else {
        "small"
    };
    text.push_str(&format!(", stem for {stem} images"));
    text.push_str(&match network.proj_head_mode {
        HeadMode::None => ", no projection head".to_owned(),
        HeadMode::Linear => format!(", linear projection to {}", network.proj_out_dim),
        HeadMode::Nonlinear => format!(
            ", projection head of {} layers to {}",
            network.num_proj_layers, network.proj_out_dim
        ),
    });
    if let Some(classes) = network.num_classes {
        text.push_str(&format!(", classifier of {classes} classes"));
    }
    text
}

#[cfg(test)]
mod tests;
