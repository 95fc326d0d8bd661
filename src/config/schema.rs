//! The table of keys: name, type, default, meaning. Everything else about keys follows from it.

use super::value::Value;
use crate::words;

/// What a value may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// A whole number within bounds.
    Int(i64, i64),
    /// A number within bounds.
    Float(f64, f64),
    /// `true` or `false`.
    Bool,
    /// Text, or null.
    Text,
    /// A path or `gs://BUCKET/…`, or null.
    Path,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list of words.
    Words,
}

impl Kind {
    /// The words that a value is one of, as a list for people; none where it is something else.
    pub fn words(&self) -> Option<String> {
        match self {
            Kind::Choice(words) => Some(words.join(", ")),
            _ => None,
        }
    }
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Name; keys of the `runtime` section have it with the dot.
    pub name: &'static str,
    /// Type and bounds.
    pub kind: Kind,
    /// Default, as YAML.
    pub default: &'static str,
    /// Meaning, one sentence.
    pub help: &'static str,
    /// Whether two runs that differ in it are different runs (and cannot share a `model_dir`).
    pub identity: bool,
    /// The value by which runs went that are older than the key.
    pub before: Option<&'static str>,
}

const fn key(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    identity: bool,
    help: &'static str,
) -> Key {
    Key {
        name,
        kind,
        default,
        help,
        identity,
        before: None,
    }
}

/// A key of which older runs know nothing: they went as with the value `before`.
const fn younger(before: &'static str, key: Key) -> Key {
    Key {
        before: Some(before),
        ..key
    }
}

use Kind::{Bool, Choice, Float, Int, Path, Text, Words};

const BIG: i64 = 1 << 40;
/// Values a number of the schedule or the loss may take; wider than anything sensible.
const ANY: Kind = Float(0.0, 1e9);

/// All keys, in the order in which a resolved configuration lists them.
pub const KEYS: &[Key] = &[
    // Where things are.
    key(
        "model_dir",
        Path,
        "null",
        false,
        "Run folder, local or gs://BUCKET/…: metrics, events, checkpoints; started again with the same folder, a run goes on; null is runs/NAME, of the configuration file's name",
    ),
    key(
        "dataset",
        Text,
        "cifar10",
        true,
        "Data set: cifar10, cifar100, shapes32 (drawn by the program), imagenet2012, folder (class folders of pictures), or any set of labelled images that TFDS has written",
    ),
    key(
        "data_dir",
        Path,
        "null",
        false,
        "Folder with the data set, local or gs://BUCKET/…: TFDS records, class folders, or the files of CIFAR's binary archive",
    ),
    key("train_split", Text, "train", true, "Split to train on"),
    key(
        "subset_list",
        Path,
        "null",
        false,
        "File with the names of the examples of train_split to train on, one a line; of imagenet2012_subset/1pct and 10pct the original's list, if it is not in imagenet_subsets/",
    ),
    key("eval_split", Text, "test", false, "Split to evaluate on"),
    key(
        "cache_dataset",
        Bool,
        "false",
        false,
        "Accepted and without effect: small sets are held in memory, others are read while a run goes on",
    ),
    key(
        "shuffle_window",
        Int(1, 1 << 30),
        "4096",
        true,
        "Encoded examples held to shuffle a set in shards; each takes its file's size in memory",
    ),
    younger(
        "1",
        key(
            "input_pipelines",
            Int(1, 256),
            "1",
            true,
            "In how many equal stretches an epoch of a set in shards is read side by side, each giving its part of every step; with 1 every process reads all, with a multiple of the processes each reads only its own",
        ),
    ),
    key(
        "on_bad_record",
        Choice(&["fail", "skip"]),
        "fail",
        false,
        "What to do about an example that cannot be decoded: end the run, or put another one of its batch in its place (evaluation leaves it out)",
    ),
    younger(
        "ignore",
        key(
            "exif_orientation",
            Choice(&["ignore", "apply"]),
            "ignore",
            true,
            "Whether pictures of streamed sets and of embed and predict are turned as their EXIF data say; the original ignores them",
        ),
    ),
    // What is trained.
    key(
        "mode",
        Choice(&["train", "eval", "train_then_eval"]),
        "train",
        false,
        "For `simclr run`: train; eval follows model_dir and evaluates every new checkpoint; train_then_eval",
    ),
    key(
        "train_mode",
        Choice(&["pretrain", "finetune", "distill"]),
        "pretrain",
        true,
        "What is trained: pretrain on pairs of views, finetune on labels, distill on what a teacher says; the commands set it",
    ),
    key(
        "train_batch_size",
        Int(2, 1 << 24),
        "512",
        true,
        "Images per step over all devices",
    ),
    key(
        "train_epochs",
        Int(1, 1_000_000),
        "100",
        true,
        "Passes over the training split",
    ),
    key(
        "train_steps",
        Int(0, BIG),
        "0",
        true,
        "Steps; 0 takes them from train_epochs",
    ),
    key(
        "warmup_epochs",
        Float(0.0, 1e6),
        "10",
        true,
        "Epochs of linear warm-up; fractions allowed",
    ),
    key(
        "learning_rate",
        ANY,
        "0.3",
        true,
        "Base rate, before scaling by the batch",
    ),
    key(
        "learning_rate_scaling",
        Choice(&["linear", "sqrt"]),
        "linear",
        true,
        "Times batch/256, or times the root of the batch",
    ),
    key(
        "optimizer",
        Choice(&["lars", "momentum", "adam"]),
        "lars",
        true,
        "Optimizer",
    ),
    key(
        "momentum",
        Float(0.0, 1.0),
        "0.9",
        true,
        "Momentum of lars and momentum",
    ),
    key(
        "weight_decay",
        Float(0.0, 1e3),
        "1e-4",
        true,
        "L2 coefficient",
    ),
    key(
        "temperature",
        Float(1e-6, 1e6),
        "0.1",
        true,
        "Temperature of NT-Xent",
    ),
    key(
        "hidden_norm",
        Bool,
        "true",
        true,
        "Normalise projections before NT-Xent",
    ),
    key(
        "lineareval_while_pretraining",
        Bool,
        "true",
        true,
        "Train a linear classifier on stopped features beside the contrastive loss",
    ),
    younger(
        "0.0",
        key(
            "lineareval_learning_rate",
            ANY,
            "0.01",
            true,
            "Its rate under lars, times batch/256, on the same schedule; 0 takes learning_rate, as the original, which is too high without layer-wise adaptation",
        ),
    ),
    // The network.
    key(
        "resnet_depth",
        Int(1, 1000),
        "50",
        true,
        "10 (ours: one block per group), 18, 34, 50, 101, 152 or 200",
    ),
    key(
        "width_multiplier",
        Float(0.01, 16.0),
        "1",
        true,
        "Factor on all widths; a fraction rounds them to multiples of 8",
    ),
    key(
        "sk_ratio",
        Float(0.0, 1.0),
        "0",
        true,
        "Above 0: selective kernels and ResNet-D; 0.0625 is the published value",
    ),
    key(
        "se_ratio",
        Float(0.0, 1.0),
        "0",
        true,
        "Above 0: squeeze-excite",
    ),
    key(
        "stem_stride",
        Int(1, 2),
        "1",
        true,
        "Stride of the small-image stem (ours: 2)",
    ),
    key(
        "global_bn",
        Bool,
        "true",
        true,
        "Batch statistics over all devices",
    ),
    key(
        "batch_norm_decay",
        Float(0.0, 1.0),
        "0.9",
        true,
        "Momentum of the moving statistics",
    ),
    key(
        "proj_head_mode",
        Choice(&["none", "linear", "nonlinear"]),
        "nonlinear",
        true,
        "Projection head",
    ),
    key(
        "proj_out_dim",
        Int(1, 1 << 20),
        "128",
        true,
        "Width of the projection",
    ),
    key(
        "num_proj_layers",
        Int(1, 100),
        "3",
        true,
        "Layers of the nonlinear head",
    ),
    key(
        "ft_proj_selector",
        Int(-1, 100),
        "0",
        true,
        "Head layer that feeds the linear classifier; 0 is the encoder's output, -1 the last",
    ),
    // The views.
    key(
        "image_size",
        Int(1, 4096),
        "224",
        true,
        "Side of the views; at most 32 selects the small-image stem",
    ),
    key(
        "color_jitter_strength",
        Float(0.0, 1.25),
        "1.0",
        true,
        "Strength of the colour jitter",
    ),
    key("use_blur", Bool, "true", true, "Blur half of the views"),
    key(
        "behaviour",
        Choice(&["tf2", "v1"]),
        "tf2",
        true,
        "Which generation of the original to follow where they differ",
    ),
    key(
        "resize_kernel",
        Choice(&["auto", "v1_legacy", "v2_half_pixel", "antialiased"]),
        "auto",
        true,
        "Bicubic kernel; auto follows behaviour, antialiased is that of Pillow and torchvision",
    ),
    key(
        "brightness",
        Choice(&["multiplicative", "additive"]),
        "multiplicative",
        true,
        "Brightness of the jitter; additive is the first paper's",
    ),
    // Saving and looking.
    key(
        "checkpoint_epochs",
        Int(1, 1_000_000),
        "1",
        false,
        "Epochs between checkpoints",
    ),
    key(
        "checkpoint_steps",
        Int(0, BIG),
        "0",
        false,
        "Steps between checkpoints; 0 takes them from checkpoint_epochs",
    ),
    key(
        "keep_checkpoint_max",
        Int(0, 1_000_000),
        "5",
        false,
        "Checkpoints kept; 0 keeps all",
    ),
    key(
        "train_summary_steps",
        Int(0, BIG),
        "100",
        false,
        "Steps between lines of metrics; 0 writes one at each checkpoint",
    ),
    key(
        "knn_epochs",
        Int(0, 1_000_000),
        "0",
        false,
        "Epochs of pretraining between measurements of k-NN; 0: before and after only",
    ),
    key(
        "eval_batch_size",
        Int(1, 1 << 20),
        "256",
        false,
        "Images per step when features are computed",
    ),
    // Accepted from the original; what has no meaning here is refused, with what to do instead.
    key(
        "eval_steps",
        Int(0, BIG),
        "0",
        false,
        "Batches to evaluate; 0 means the whole split",
    ),
    key(
        "checkpoint",
        Path,
        "null",
        true,
        "Run or checkpoint folder, local or gs://BUCKET/…, whose weights a new run starts from",
    ),
    key(
        "teacher",
        Path,
        "null",
        true,
        "Run or checkpoint folder, local or gs://BUCKET/…, of the network that `simclr distill` imitates",
    ),
    key(
        "distill_temperature",
        Float(1e-3, 1e3),
        "1",
        true,
        "Divides the logits of teacher and student; the published values are 0.1 (self-distillation) and 1",
    ),
    key(
        "distill_share",
        Float(0.0, 1.0),
        "1",
        true,
        "Share of the teacher in the loss of distillation; the rest is the labels'",
    ),
    key(
        "variable_schema",
        Text,
        "null",
        true,
        "Which names to take from checkpoint: a pattern as of Python's re.match, look-ahead included; null takes all variables, no slots, no step",
    ),
    key(
        "zero_init_logits_layer",
        Bool,
        "false",
        true,
        "Set the supervised head to zero after checkpoint",
    ),
    key(
        "fine_tune_after_block",
        Int(-1, 4),
        "-1",
        true,
        "Fine-tuning: train what comes after this block group; -1 all, 0 all but the stem, 4 the supervised head alone",
    ),
    key(
        "frozen_bn",
        Choice(&["moving", "batch"]),
        "moving",
        true,
        "Statistics of an encoder frozen as a whole (fine_tune_after_block 4): moving as TF1 does, batch as TF2 does",
    ),
    key(
        "eval_name",
        Text,
        "null",
        false,
        "Evaluation by `simclr run` logs to model_dir/eval, or to eval_NAME",
    ),
    key(
        "keep_hub_module_max",
        Int(0, 1_000_000),
        "1",
        false,
        "Accepted and without effect: nothing is exported while training; `simclr export` writes networks",
    ),
    key(
        "use_tpu",
        Bool,
        "false",
        false,
        "true asks for runtime.platform tpu",
    ),
    key(
        "master",
        Text,
        "null",
        false,
        "Not taken: the processes of a TPU slice find each other; elsewhere --process, --processes, --coordinator",
    ),
    key(
        "tpu_name",
        Text,
        "null",
        false,
        "Not taken: start the program on the TPU VM itself",
    ),
    key(
        "tpu_zone",
        Text,
        "null",
        false,
        "Not taken: start the program on the TPU VM itself",
    ),
    key(
        "gcp_project",
        Text,
        "null",
        false,
        "Not taken: start the program on the TPU VM itself",
    ),
    // How it runs.
    key(
        "runtime.platform",
        Choice(&["auto", "cpu", "cuda", "tpu"]),
        "auto",
        false,
        "Kind of device; auto takes the first that works of tpu, cuda, cpu",
    ),
    key("runtime.plugin", Path, "null", false, "PJRT plugin file"),
    key(
        "runtime.devices",
        Int(0, 1 << 16),
        "0",
        false,
        "Devices to use; 0 means all of an accelerator; on the CPU one for every two cores, if each core gets 32 images or more",
    ),
    key(
        "runtime.precision",
        Choice(&["f32", "bf16"]),
        "f32",
        true,
        "Type of activations",
    ),
    key(
        "runtime.bn_statistics",
        Choice(&["two_pass", "one_pass", "products"]),
        "two_pass",
        true,
        "Batch statistics in two passes over the activations, or in one with one exchange per layer (for pods); products: that, and those of widening 1×1 convolutions from products of their inputs, so that their outputs are not stored (with bf16)",
    ),
    key(
        "runtime.remat",
        Choice(&["none", "block", "full"]),
        "none",
        false,
        "What the backward pass computes again instead of keeping it: nothing, each residual block, or whole groups of blocks too",
    ),
    key(
        "runtime.paired_views",
        Bool,
        "false",
        false,
        "In pretraining, both views of an image side by side in the channels of stem and first group: TPUs store 64 channels as 128; without effect on wider networks, selective kernels and squeeze-excite",
    ),
    younger(
        "f32",
        key(
            "runtime.gradient_exchange",
            Choice(&["f32", "bf16"]),
            "f32",
            true,
            "Type in which replicas exchange gradients of kernels; bf16 halves what is sent, and rounds it",
        ),
    ),
    key(
        "runtime.seed",
        Int(0, i64::MAX),
        "0",
        true,
        "Seed of initial values, order and views",
    ),
    key(
        "runtime.input",
        Choice(&["auto", "resident", "streamed"]),
        "auto",
        true,
        "resident: the whole set on every device, which cuts the views; streamed: the host cuts them; auto: resident where it can",
    ),
    key(
        "runtime.data_threads",
        Int(0, 4096),
        "0",
        false,
        "Threads that decode and cut a streamed set; 0: one per core",
    ),
    key(
        "runtime.steps_per_launch",
        Int(0, 100_000),
        "0",
        false,
        "Steps of one launch; 0 chooses",
    ),
    key(
        "runtime.passes",
        Words,
        "[all]",
        false,
        "Rewrites for the platform: all, none, those to run by name, or those to leave out, as -NAME",
    ),
    key(
        "runtime.compiler_options",
        Words,
        "[]",
        false,
        "Options of the compiler as NAME=VALUE, by their names in XLA",
    ),
    key(
        "runtime.executable",
        Path,
        "null",
        false,
        "The step's program as `simclr compile --save` wrote it; compiled anew, with a word, if it is for something else",
    ),
    key(
        "runtime.executable_cache",
        Bool,
        "true",
        false,
        "Keep compiled programs in the user's cache folder, so that the next start compiles nothing",
    ),
    key(
        "runtime.preallocate",
        Bool,
        "true",
        false,
        "Take three quarters of a GPU's memory at the start; false takes what is needed, as for a GPU with other programs on it",
    ),
    key(
        "runtime.eval",
        Bool,
        "true",
        false,
        "Measure k-NN and a linear probe before and after",
    ),
    key(
        "runtime.eval_pixels",
        Bool,
        "false",
        false,
        "Measure them on raw pixels too",
    ),
];

/// The key of this name.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// Name and value of today for a key that configurations of older runs have.
pub fn as_of_today(name: &str, value: Value) -> (&str, Value) {
    let minus = |item: Value| match item {
        Value::Text(name) => Value::Text(format!("-{name}")),
        other => other,
    };
    match (name, value) {
        ("runtime.disable_passes", Value::List(items)) if items.is_empty() => {
            ("runtime.passes", Value::Text("all".into()))
        }
        ("runtime.disable_passes", Value::List(items)) => {
            let left_out = items.into_iter().map(minus).collect();
            ("runtime.passes", Value::List(left_out))
        }
        ("runtime.disable_passes", value) => ("runtime.passes", minus(value)),
        (name, value) => (name, value),
    }
}

/// The section of keys with a dot.
pub const SECTION: &str = "runtime";

/// The key whose name is most like a mistyped one, if any is like it.
pub fn nearest(name: &str) -> Option<&'static str> {
    words::nearest(name, KEYS.iter().map(|key| key.name))
}

/// The same of a section.
pub fn nearest_section(name: &str) -> Option<&'static str> {
    words::nearest(name, [SECTION])
}
