//! Opening a trained run: from its folder, or that of one of its checkpoints, to configuration, network and variables.

use super::checkpoint::{self, Array, Manifest};
use super::step::StateArray;
use super::{setup, state};
use crate::config::{self, Loaded, Origin};
use crate::data::{self, store};
use crate::error::Class;
use crate::hlo::{DType, Literal, Shape};
use crate::model::{self, Network};
use crate::nn::Variable;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The kernel of the supervised head; its second dimension is the number of classes.
const CLASSIFIER: &str = "head_supervised/linear_layer/dense/kernel";

/// A network with its values, as a checkpoint has them.
#[derive(Debug)]
pub struct Trained {
    /// The checkpoint's folder.
    pub checkpoint: PathBuf,
    /// What the checkpoint says of its run.
    pub manifest: Manifest,
    /// The configuration it was trained with.
    pub loaded: Loaded,
    /// The network, with a supervised head if the checkpoint has one.
    pub network: Network,
    /// Its variables, in creation order.
    pub variables: Vec<Variable>,
    /// Their values, f32, in the same order.
    pub values: Vec<Literal>,
    /// What else it holds: optimizer slots and the step, by name.
    rest: BTreeMap<String, Array>,
}

/// Why a trained run could not be opened, or its variables not be taken over.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    #[error("the configuration kept in checkpoint `{}` cannot be used: {source}", path.display())]
    Config {
        path: PathBuf,
        source: Box<config::Error>,
    },
    #[error(transparent)]
    Model(#[from] model::Error),
    #[error(
        "`{}` is no run and no checkpoint; expected a run folder with `checkpoints/step-…` in it, or such a checkpoint; correct the path",
        path.display()
    )]
    NotARun { path: PathBuf },
    #[error(
        "run `{}` has no checkpoint yet, expected at least one in `checkpoints/`; let it train to its first checkpoint",
        path.display()
    )]
    NoCheckpoint { path: PathBuf },
    #[error("`{}` has no `metrics.jsonl`, expected a run folder; correct the path", path.display())]
    NoMetrics { path: PathBuf },
    #[error(
        "`{}` is a TensorFlow checkpoint, expected one of this program; run `simclr import {} OUT` and give OUT",
        path.display(), path.display()
    )]
    TensorFlow { path: PathBuf },
    #[error(
        "checkpoint `{}` has no supervised head, expected one that says classes; give a run of `simclr finetune`",
        path.display()
    )]
    NoHead { path: PathBuf },
    #[error(transparent)]
    Override(config::Error),
    #[error(
        "`{key}` changes nothing here, since network and training are those of the checkpoint; expected keys {}; leave it out",
        kinds(.taken)
    )]
    WithoutEffect { key: &'static str, taken: Vec<Keys> },
    #[error("checkpoint `{}` does not fit: {}; {remedy}", path.display(), list(.misfits))]
    Misfit {
        path: PathBuf,
        /// Every variable that is missing or has another shape; at least one.
        misfits: Vec<Misfit>,
        remedy: String,
    },
}

/// A variable that a checkpoint does not have as wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// Its name.
    pub variable: String,
    /// Its shape in the checkpoint; `None` if it is not there.
    pub found: Option<String>,
    /// The shape that the network wants; `None` if it has no such variable.
    pub expected: Option<String>,
}

impl Error {
    /// What the caller can do about it.
    pub fn class(&self) -> Class {
        match self {
            Error::Checkpoint(error) => error.class(),
            Error::Config { .. } => Class::Check,
            Error::Model(error) => error.class(),
            Error::Override(error) => error.class(),
            Error::WithoutEffect { .. }
            | Error::NotARun { .. }
            | Error::NoCheckpoint { .. }
            | Error::NoMetrics { .. }
            | Error::TensorFlow { .. }
            | Error::NoHead { .. } => Class::Usage,
            Error::Misfit { .. } => Class::Check,
        }
    }
}

impl std::fmt::Display for Misfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let or_nothing = |shape: &Option<String>| shape.clone().unwrap_or("nothing".into());
        write!(
            f,
            "variable `{}` found {}, expected {}",
            self.variable,
            or_nothing(&self.found),
            or_nothing(&self.expected)
        )
    }
}

fn kinds(taken: &[Keys]) -> String {
    let few = |names: &[&str]| match names {
        [a, b, c, _, ..] => format!("{a}, {b}, {c}, …"),
        all => all.join(", "),
    };
    let mut texts: Vec<String> = taken
        .iter()
        .map(|Keys { about, names }| format!("of {about} ({})", few(names)))
        .collect();
    let last = texts.pop().unwrap_or_default();
    match texts.as_slice() {
        [] => last,
        others => format!("{} and {last}", others.join(", ")),
    }
}

fn list(misfits: &[Misfit]) -> String {
    let first = misfits.first().map(Misfit::to_string).unwrap_or_default();
    match misfits.len().saturating_sub(1) {
        0 => first,
        1 => format!("{first} (and 1 other)"),
        n => format!("{first} (and {n} others)"),
    }
}

/// Opens a run folder (its newest checkpoint) or a checkpoint folder.
///
/// # Errors
/// A path that is neither; a damaged checkpoint; one whose variables are not those of its own configuration.
pub fn open(path: &Path) -> Result<Trained, Error> {
    let checkpoint = find(path)?;
    let (manifest, mut arrays) = checkpoint::arrays(&checkpoint)?;
    let place = checkpoint.join("manifest.json");
    let loaded = config::load_text(&manifest.config_yaml, &place, &[]).map_err(|source| {
        let path = checkpoint.clone();
        Error::Config {
            path,
            source: Box::new(source),
        }
    })?;
    let classes = arrays
        .get(CLASSIFIER)
        .and_then(|kernel| kernel.dims.get(1).copied());
    let network = setup::network(&loaded.config, classes);
    let variables = network.variables()?;
    let mut values = Vec::with_capacity(variables.len());
    let mut misfits = Vec::new();
    for variable in &variables {
        match take(&mut arrays, variable) {
            Ok(value) => values.push(value),
            Err(misfit) => misfits.push(misfit),
        }
    }
    // What is left are slots, the step, and what this network has no use for.
    let extra = arrays.values().filter(|array| is_variable(&array.name));
    misfits.extend(extra.map(|array| Misfit {
        variable: array.name.clone(),
        found: Some(shape(array)),
        expected: None,
    }));
    if !misfits.is_empty() {
        return Err(Error::Misfit {
            path: checkpoint,
            misfits,
            remedy: "the configuration kept beside them describes another network: use a checkpoint that is whole"
                .into(),
        });
    }
    Ok(Trained {
        checkpoint,
        manifest,
        loaded,
        network,
        variables,
        values,
        rest: arrays,
    })
}

/// The checkpoint that a path means.
fn find(path: &Path) -> Result<PathBuf, Error> {
    if checkpoint::is_checkpoint(path)? {
        return Ok(path.to_owned());
    }
    let here = path.to_owned();
    for folder in [path.join("checkpoints"), path.to_owned()] {
        if !store::is_remote(&folder) && !folder.is_dir() {
            continue;
        }
        if let Some(latest) = checkpoint::latest(&folder)? {
            return Ok(latest);
        }
    }
    let config = store::is_file(&path.join("config.yaml")).map_err(checkpoint::Error::from)?;
    Err(if config {
        Error::NoCheckpoint { path: here }
    } else if is_tensorflow(path).map_err(checkpoint::Error::from)? {
        Error::TensorFlow { path: here }
    } else {
        Error::NotARun { path: here }
    })
}

/// Whether there is an index of TensorFlow by this prefix, or a shard in this folder.
fn is_tensorflow(path: &Path) -> Result<bool, data::Error> {
    let mut index = path.as_os_str().to_owned();
    index.push(".index");
    let shard = |entry: &store::Entry| entry.name.contains(".data-");
    Ok(store::is_file(Path::new(&index))? || store::entries(path)?.iter().any(shard))
}

/// Whether a name is that of a variable rather than of a slot or the step (reference §8.1).
pub(super) fn is_variable(name: &str) -> bool {
    let last = name.rsplit('/').next().unwrap_or(name);
    matches!(
        last,
        "kernel" | "bias" | "gamma" | "beta" | "moving_mean" | "moving_variance"
    )
}

fn shape(array: &Array) -> String {
    let dims: Vec<String> = array.dims.iter().map(usize::to_string).collect();
    format!(
        "{}[{}]",
        array.dtype.to_string().to_lowercase(),
        dims.join(",")
    )
}

/// Takes a variable's value out of a checkpoint's arrays.
fn take(arrays: &mut BTreeMap<String, Array>, variable: &Variable) -> Result<Literal, Misfit> {
    let wanted = Shape::new(DType::F32, variable.dims.clone());
    let misfit = |found: Option<String>| Misfit {
        variable: variable.name.clone(),
        found,
        expected: Some(wanted.to_string()),
    };
    let Some(array) = arrays.remove(&variable.name) else {
        return Err(misfit(None));
    };
    let dims: Vec<i64> = array.dims.iter().map(|&dim| dim as i64).collect();
    let found = shape(&array);
    if dims != variable.dims || array.dtype != state::dtype(DType::F32) {
        return Err(misfit(Some(found)));
    }
    Literal::from_bytes(wanted.clone(), array.bytes).ok_or_else(|| misfit(Some(found)))
}

/// Keys that what comes after pretraining shares with it: those of the network, of the data, and of how images reach the network.
pub const SHARED_KEYS: [&str; 16] = [
    "resnet_depth",
    "width_multiplier",
    "image_size",
    "stem_stride",
    "sk_ratio",
    "se_ratio",
    "proj_head_mode",
    "proj_out_dim",
    "num_proj_layers",
    "dataset",
    "data_dir",
    "train_split",
    "eval_split",
    "behaviour",
    "resize_kernel",
    "exif_orientation",
];

/// Those of them that say what a network sees.
pub const DATA_KEYS: [&str; 8] = [
    "image_size",
    "dataset",
    "data_dir",
    "train_split",
    "eval_split",
    "behaviour",
    "resize_kernel",
    "exif_orientation",
];

/// Keys that decide which variables a network has, and their shapes.
const NETWORK_KEYS: [&str; 10] = [
    "resnet_depth",
    "width_multiplier",
    "image_size",
    "stem_stride",
    "sk_ratio",
    "se_ratio",
    "proj_head_mode",
    "proj_out_dim",
    "num_proj_layers",
    "dataset",
];

/// Keys of one kind that something after pretraining takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    /// What they are about.
    pub about: &'static str,
    /// Their names.
    pub names: &'static [&'static str],
}

impl Keys {
    /// Of the data that a network is measured on.
    pub const DATA: Keys = Keys {
        about: "the data",
        names: &[
            "dataset",
            "data_dir",
            "train_split",
            "subset_list",
            "eval_split",
            "on_bad_record",
            "runtime.data_threads",
        ],
    };
    /// Of how a picture becomes an image of the network's size.
    pub const PICTURES: Keys = Keys {
        about: "how pictures are cut",
        names: &["behaviour", "resize_kernel", "exif_orientation"],
    };
    /// Of how many images are looked at.
    pub const BATCHES: Keys = Keys {
        about: "batches",
        names: &["eval_batch_size", "eval_steps"],
    };
    /// Of how many pictures go through the network at once.
    pub const LAUNCHES: Keys = Keys {
        about: "batches",
        names: &["eval_batch_size"],
    };
    /// Of what runs the network.
    pub const DEVICES: Keys = Keys {
        about: "the device",
        names: &[
            "runtime.platform",
            "runtime.plugin",
            "runtime.devices",
            "runtime.precision",
            "runtime.passes",
            "runtime.compiler_options",
            "runtime.executable_cache",
            "runtime.preallocate",
            "use_tpu",
        ],
    };
}

impl Trained {
    /// Its configuration with `key=value` overrides, of which only these keys can change anything.
    ///
    /// # Errors
    /// An override that is none; [`Error::WithoutEffect`] for a key of another kind.
    pub fn with(&self, overrides: &[String], taken: &[Keys]) -> Result<Loaded, Error> {
        let loaded = self.loaded.with(overrides).map_err(Error::Override)?;
        let takes = |name: &str| taken.iter().any(|keys| keys.names.contains(&name));
        let other = loaded
            .entries()
            .find(|(key, _, origin)| **origin == Origin::Argument && !takes(key.name));
        match other {
            None => Ok(loaded),
            Some((key, ..)) => Err(Error::WithoutEffect {
                key: key.name,
                taken: taken.to_vec(),
            }),
        }
    }

    /// The values for those arrays of another state that are `wanted` by name, `None` for the others.
    ///
    /// # Errors
    /// [`Error::Misfit`] with every wanted array that this one lacks or has in another shape, and the keys of `by`, the other's
    /// configuration, to change.
    pub fn values_for(
        &self,
        state: &[StateArray],
        wanted: impl Fn(&str) -> bool,
        by: &Loaded,
    ) -> Result<Vec<Option<Literal>>, Error> {
        let own: BTreeMap<&str, &Literal> = self
            .variables
            .iter()
            .zip(&self.values)
            .map(|(variable, value)| (variable.name.as_str(), value))
            .collect();
        let mut misfits = Vec::new();
        let mut values = Vec::with_capacity(state.len());
        for array in state {
            if !wanted(&array.name) {
                values.push(None);
                continue;
            }
            let (found, value) = match (own.get(array.name.as_str()), self.rest.get(&array.name)) {
                (Some(value), _) => (Some(value.shape().to_string()), Some((*value).clone())),
                (None, Some(kept)) => {
                    let fits = kept.dtype == state::dtype(array.shape.dtype)
                        && kept
                            .dims
                            .iter()
                            .map(|&dim| dim as i64)
                            .eq(array.shape.dims.clone());
                    let value = || Literal::from_bytes(array.shape.clone(), kept.bytes.clone());
                    (Some(shape(kept)), fits.then(value).flatten())
                }
                (None, None) => (None, None),
            };
            match value {
                Some(value) if *value.shape() == array.shape => values.push(Some(value)),
                _ => misfits.push(Misfit {
                    variable: array.name.clone(),
                    found,
                    expected: Some(array.shape.to_string()),
                }),
            }
        }
        if misfits.is_empty() {
            return Ok(values);
        }
        let all = |kind: &dyn Fn(&str) -> bool| misfits.iter().all(|it| kind(&it.variable));
        let remedy = if all(&|name| !is_variable(name)) {
            "leave optimizer slots out, as `variable_schema=null` does".to_owned()
        } else {
            self.remedy(by, all(&|name| name.starts_with("head_")))
        };
        Err(Error::Misfit {
            path: self.checkpoint.clone(),
            remedy,
            misfits,
        })
    }

    /// Which keys of `by` to change so that its network is this one.
    fn remedy(&self, by: &Loaded, heads_only: bool) -> String {
        let differing: Vec<String> = NETWORK_KEYS
            .iter()
            .filter(|key| by.value(key) != self.loaded.value(key))
            .map(|key| format!("`{key}={}` (now {})", self.loaded.value(key), by.value(key)))
            .collect();
        let mut remedy = match differing.as_slice() {
            [] => "train it with the same network".to_owned(),
            keys => format!("set {} as it was trained", keys.join(", ")),
        };
        if heads_only {
            remedy.push_str(", or leave its heads out with `variable_schema`, such as \"(?!global_step|(?:.*/|^)Momentum|head)\"");
        }
        remedy
    }
}
