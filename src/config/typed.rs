//! The resolved configuration as a plain struct, and what its values may not be together.

use super::load::{Values, number};
use super::value::Value;
use super::{Error, Origin};
use std::path::PathBuf;

/// Scaling of the learning rate by the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Scaling {
    Linear,
    Sqrt,
}

/// What `simclr run` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Mode {
    Train,
    Eval,
    TrainThenEval,
}

/// The generation of the original to follow where they differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Behaviour {
    Tf2,
    V1,
}

/// The resolved configuration; fields are named as the keys (see [`schema::KEYS`] for what each means).
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct Config {
    pub mode: Mode,
    pub finetune: bool,
    pub distill: Option<Distill>,
    pub model_dir: Option<PathBuf>,
    pub dataset: String,
    pub data_dir: Option<PathBuf>,
    pub train_split: String,
    pub subset_list: Option<PathBuf>,
    pub eval_split: String,
    pub shuffle_window: usize,
    pub input_pipelines: usize,
    pub skip_bad: bool,
    pub upright: bool,
    pub train_batch_size: usize,
    pub train_epochs: u64,
    pub train_steps: u64,
    pub warmup_epochs: f64,
    pub learning_rate: f64,
    pub learning_rate_scaling: Scaling,
    pub optimizer: String,
    pub momentum: f64,
    pub weight_decay: f64,
    pub temperature: f64,
    pub hidden_norm: bool,
    pub lineareval_while_pretraining: bool,
    pub lineareval_learning_rate: f64,
    pub resnet_depth: usize,
    pub width_multiplier: f64,
    pub sk_ratio: f64,
    pub se_ratio: f64,
    pub stem_stride: usize,
    pub global_bn: bool,
    pub batch_norm_decay: f64,
    pub proj_head_mode: String,
    pub proj_out_dim: usize,
    pub num_proj_layers: usize,
    pub ft_proj_selector: i64,
    pub image_size: usize,
    pub color_jitter_strength: f64,
    pub use_blur: bool,
    pub behaviour: Behaviour,
    pub resize_kernel: String,
    pub brightness: String,
    pub checkpoint: Option<PathBuf>,
    pub variable_schema: Option<String>,
    pub zero_init_logits_layer: bool,
    pub fine_tune_after_block: i64,
    pub frozen_bn: String,
    pub eval_steps: usize,
    pub checkpoint_epochs: u64,
    pub checkpoint_steps: u64,
    pub keep_checkpoint_max: usize,
    pub train_summary_steps: u64,
    pub eval_batch_size: usize,
    pub eval_name: Option<String>,
    pub knn_epochs: u64,
    pub runtime: Runtime,
}

/// What a student learns from.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct Distill {
    pub teacher: PathBuf,
    pub temperature: f64,
    pub share: f64,
}

/// How it runs.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct Runtime {
    pub platform: String,
    pub plugin: Option<PathBuf>,
    pub devices: usize,
    pub bf16: bool,
    /// How batch statistics are computed: `two_pass`, `one_pass` or `products`.
    pub bn_statistics: String,
    /// What the backward pass computes again: `none`, `block` or `full`.
    pub remat: String,
    /// Whether replicas exchange gradients of kernels in bf16.
    pub bf16_exchange: bool,
    /// Whether the two views of an image lie side by side in the channels where those are few.
    pub paired_views: bool,
    pub seed: u64,
    pub streamed: Option<bool>,
    pub data_threads: usize,
    pub steps_per_launch: usize,
    pub passes: Vec<String>,
    pub compiler_options: Vec<String>,
    pub executable: Option<PathBuf>,
    pub executable_cache: bool,
    /// `runtime.preallocate`.
    pub preallocate: bool,
    pub eval: bool,
    pub eval_pixels: bool,
}

impl Config {
    pub(super) fn from_values(values: &Values) -> Result<Self, Error> {
        // Every key is there with a value of its type: defaults are checked by a test, the rest by `checked`.
        let get = |name: &str| &values[name].0;
        let float = |name: &str| number(get(name));
        let int = |name: &str| number(get(name)) as i64;
        let size = |name: &str| int(name) as usize;
        let flag = |name: &str| *get(name) == Value::Bool(true);
        let text = |name: &str| match get(name) {
            Value::Text(text) => Some(text.clone()),
            _ => None,
        };
        let word = |name: &str| text(name).unwrap_or_default();
        let path = |name: &str| text(name).map(PathBuf::from);
        let words = |name: &str| match get(name) {
            Value::List(items) => items
                .iter()
                .filter_map(|item| match item {
                    Value::Text(text) => Some(text.clone()),
                    _ => None,
                })
                .collect(),
            _ => Vec::new(),
        };
        not_taken(values)?;
        let mut platform = word("runtime.platform");
        if flag("use_tpu") {
            if !["auto", "tpu"].contains(&platform.as_str()) {
                return Err(Error::BadValue {
                    key: "use_tpu",
                    origin: values["use_tpu"].1.clone(),
                    found: "true".into(),
                    expected: format!("false with runtime.platform {platform}"),
                });
            }
            platform = "tpu".into();
        }
        let distill = word("train_mode") == "distill";
        if distill != path("teacher").is_some() {
            let (value, origin) = &values["teacher"];
            return Err(Error::BadValue {
                key: "teacher",
                origin: origin.clone(),
                found: value.to_string(),
                expected: if distill {
                    "the folder of the run to imitate".into()
                } else {
                    "null, or the command `simclr distill`".into()
                },
            });
        }
        let config = Config {
            mode: match word("mode").as_str() {
                "eval" => Mode::Eval,
                "train_then_eval" => Mode::TrainThenEval,
                _ => Mode::Train,
            },
            finetune: word("train_mode") == "finetune",
            distill: path("teacher").filter(|_| distill).map(|teacher| Distill {
                teacher,
                temperature: float("distill_temperature"),
                share: float("distill_share"),
            }),
            model_dir: path("model_dir"),
            dataset: word("dataset"),
            data_dir: path("data_dir"),
            train_split: word("train_split"),
            subset_list: path("subset_list"),
            eval_split: word("eval_split"),
            shuffle_window: size("shuffle_window"),
            input_pipelines: size("input_pipelines"),
            skip_bad: word("on_bad_record") == "skip",
            upright: word("exif_orientation") == "apply",
            train_batch_size: size("train_batch_size"),
            train_epochs: int("train_epochs") as u64,
            train_steps: int("train_steps") as u64,
            warmup_epochs: float("warmup_epochs"),
            learning_rate: float("learning_rate"),
            learning_rate_scaling: if word("learning_rate_scaling") == "sqrt" {
                Scaling::Sqrt
            } else {
                Scaling::Linear
            },
            optimizer: word("optimizer"),
            momentum: float("momentum"),
            weight_decay: float("weight_decay"),
            temperature: float("temperature"),
            hidden_norm: flag("hidden_norm"),
            lineareval_while_pretraining: flag("lineareval_while_pretraining"),
            lineareval_learning_rate: float("lineareval_learning_rate"),
            resnet_depth: size("resnet_depth"),
            width_multiplier: float("width_multiplier"),
            sk_ratio: float("sk_ratio"),
            se_ratio: float("se_ratio"),
            stem_stride: size("stem_stride"),
            global_bn: flag("global_bn"),
            batch_norm_decay: float("batch_norm_decay"),
            proj_head_mode: word("proj_head_mode"),
            proj_out_dim: size("proj_out_dim"),
            num_proj_layers: size("num_proj_layers"),
            ft_proj_selector: int("ft_proj_selector"),
            image_size: size("image_size"),
            color_jitter_strength: float("color_jitter_strength"),
            use_blur: flag("use_blur"),
            behaviour: if word("behaviour") == "v1" {
                Behaviour::V1
            } else {
                Behaviour::Tf2
            },
            resize_kernel: word("resize_kernel"),
            brightness: word("brightness"),
            checkpoint: path("checkpoint"),
            variable_schema: text("variable_schema"),
            zero_init_logits_layer: flag("zero_init_logits_layer"),
            fine_tune_after_block: int("fine_tune_after_block"),
            frozen_bn: word("frozen_bn"),
            eval_steps: size("eval_steps"),
            checkpoint_epochs: int("checkpoint_epochs") as u64,
            checkpoint_steps: int("checkpoint_steps") as u64,
            keep_checkpoint_max: size("keep_checkpoint_max"),
            train_summary_steps: int("train_summary_steps") as u64,
            eval_batch_size: size("eval_batch_size"),
            eval_name: text("eval_name"),
            knn_epochs: int("knn_epochs") as u64,
            runtime: Runtime {
                platform,
                plugin: path("runtime.plugin"),
                devices: size("runtime.devices"),
                bf16: word("runtime.precision") == "bf16",
                bn_statistics: word("runtime.bn_statistics"),
                remat: word("runtime.remat"),
                paired_views: flag("runtime.paired_views"),
                bf16_exchange: word("runtime.gradient_exchange") == "bf16",
                seed: int("runtime.seed") as u64,
                streamed: match word("runtime.input").as_str() {
                    "auto" => None,
                    input => Some(input == "streamed"),
                },
                data_threads: size("runtime.data_threads"),
                steps_per_launch: size("runtime.steps_per_launch"),
                passes: words("runtime.passes"),
                compiler_options: words("runtime.compiler_options"),
                executable: path("runtime.executable"),
                executable_cache: flag("runtime.executable_cache"),
                preallocate: flag("runtime.preallocate"),
                eval: flag("runtime.eval"),
                eval_pixels: flag("runtime.eval_pixels"),
            },
        };
        config.check(&|key| values[key].1.clone())?;
        Ok(config)
    }

    /// Values that are possible one by one but not together.
    fn check(&self, origin: &dyn Fn(&'static str) -> Origin) -> Result<(), Error> {
        let bad = |key: &'static str, found: String, expected: String| {
            Err(Error::BadValue {
                key,
                origin: origin(key),
                found,
                expected,
            })
        };
        if ![10, 18, 34, 50, 101, 152, 200].contains(&self.resnet_depth) {
            return bad(
                "resnet_depth",
                self.resnet_depth.to_string(),
                "10, 18, 34, 50, 101, 152 or 200".into(),
            );
        }
        if self.fine_tune_after_block > -1 && !self.finetune {
            return bad(
                "fine_tune_after_block",
                self.fine_tune_after_block.to_string(),
                "-1 in pretraining, or train_mode: finetune".into(),
            );
        }
        if self.knn_epochs > 0 && (self.finetune || self.distill.is_some()) {
            return bad(
                "knn_epochs",
                self.knn_epochs.to_string(),
                "0 outside pretraining".into(),
            );
        }
        // A size that nobody has said is the teacher's, see `inherit`.
        let size_to_come = self.distill.is_some() && origin("image_size") == Origin::Default;
        if self.stem_stride == 2 && self.image_size > 32 && !size_to_come {
            return bad(
                "stem_stride",
                "2".into(),
                format!(
                    "1 for image_size {} (2 is for the small-image stem)",
                    self.image_size
                ),
            );
        }
        Ok(())
    }
}

/// Refuses flags of the original that have no meaning here.
fn not_taken(values: &Values) -> Result<(), Error> {
    let only: &[(&'static str, &str, &'static str)] = &[
        (
            "master",
            "null",
            "leave it out: the processes of a TPU slice find each other, others are told by --process, --processes and --coordinator",
        ),
        (
            "tpu_name",
            "null",
            "leave it out: start the program on the TPU VM itself",
        ),
        (
            "tpu_zone",
            "null",
            "leave it out: start the program on the TPU VM itself",
        ),
        (
            "gcp_project",
            "null",
            "leave it out: start the program on the TPU VM itself",
        ),
    ];
    for &(key, allowed, remedy) in only {
        let (value, origin) = &values[key];
        if value.to_string() != allowed {
            let found = value.to_string();
            return Err(Error::NotTaken {
                key,
                origin: origin.clone(),
                found,
                remedy,
            });
        }
    }
    Ok(())
}
