//! From a configuration to the choices of a step.

use super::Error;
use super::objective::Objective;
use super::step::{Input, StepSpec};
use super::trained::{self, Trained};
use crate::augment::{Augmentation, Brightness, ResizeKernel};
use crate::config::{Behaviour, Config, Loaded, Plan};
use crate::data::{self, Description, Examples};
use crate::hlo::DType;
use crate::hlo::passes::Selection;
use crate::model::{Freeze, HeadMode, Network};
use crate::nn::{Remat, Settings, Statistics};
use crate::optim::{Lars, Optimizer, Schedule};
use crate::pjrt::OptionValue;
use std::path::Path;
use std::sync::Arc;

/// The examples of a split; of the one that is trained on those that `subset_list` names, if that is set.
///
/// # Errors
/// As [`Examples::listed`].
pub fn examples(config: &Config, split: &str) -> Result<Examples, data::Error> {
    let list = config.subset_list.as_deref();
    let list = list.filter(|_| split == config.train_split);
    let dir = config.data_dir.as_deref();
    let found = Examples::listed(&config.dataset, split, dir, list, config.skip_bad)?;
    Ok(found.upright(config.upright))
}

/// The network of a configuration, with a classifier of so many classes.
pub fn network(config: &Config, classes: Option<usize>) -> Network {
    Network {
        resnet_depth: config.resnet_depth,
        width_multiplier: config.width_multiplier,
        image_size: config.image_size,
        stem_stride: config.stem_stride,
        sk_ratio: config.sk_ratio,
        se_ratio: config.se_ratio,
        proj_head_mode: match config.proj_head_mode.as_str() {
            "none" => HeadMode::None,
            "linear" => HeadMode::Linear,
            _ => HeadMode::Nonlinear,
        },
        proj_out_dim: config.proj_out_dim,
        num_proj_layers: config.num_proj_layers,
        ft_proj_selector: config.ft_proj_selector,
        num_classes: classes,
    }
}

/// The views of a configuration.
pub fn augmentation(config: &Config) -> Augmentation {
    let v1 = config.behaviour == Behaviour::V1;
    Augmentation {
        image_size: config.image_size,
        color_jitter_strength: config.color_jitter_strength,
        use_blur: config.use_blur,
        brightness: if config.brightness == "additive" {
            Brightness::Additive
        } else {
            Brightness::Multiplicative
        },
        resize: match config.resize_kernel.as_str() {
            "v1_legacy" => ResizeKernel::V1Legacy,
            "v2_half_pixel" => ResizeKernel::V2HalfPixel,
            "antialiased" => ResizeKernel::Antialiased,
            _ if v1 => ResizeKernel::V1Legacy,
            _ => ResizeKernel::V2HalfPixel,
        },
        drop_colour_at_zero_strength: v1,
    }
}

fn optimizer(config: &Config, plan: &Plan) -> Optimizer {
    let keras = config.behaviour == Behaviour::Tf2;
    match config.optimizer.as_str() {
        "momentum" => Optimizer::Momentum {
            momentum: config.momentum,
            keras,
        },
        "adam" => Optimizer::Adam {
            epsilon: if keras { 1e-7 } else { 1e-8 },
        },
        _ => Optimizer::Lars(Lars {
            head_rate: online_rate(config, plan),
            ..Lars::new(config.momentum, config.weight_decay)
        }),
    }
}

/// The rate of the online classifier as a factor on that of everything else.
fn online_rate(config: &Config, plan: &Plan) -> f64 {
    let own = config.lineareval_learning_rate * config.train_batch_size as f64 / 256.0;
    let pretraining = !config.finetune && config.distill.is_none();
    match pretraining && own > 0.0 && plan.scaled_rate > 0.0 {
        true => own / plan.scaled_rate,
        false => 1.0,
    }
}

/// What layers need to know in training.
pub(super) fn settings(config: &Config, replicas: usize) -> Settings {
    Settings {
        training: true,
        replicas,
        global_bn: config.global_bn,
        statistics: match config.runtime.bn_statistics.as_str() {
            "one_pass" => Statistics::OnePass,
            "products" => Statistics::Products,
            _ => Statistics::TwoPass,
        },
        bf16_exchange: config.runtime.bf16_exchange,
        paired: config.runtime.paired_views && !config.finetune && config.distill.is_none(),
        remat: match config.runtime.remat.as_str() {
            "block" => Remat::Block,
            "full" => Remat::Full,
            _ => Remat::None,
        },
        batch_norm_decay: config.batch_norm_decay,
        unbiased_moving_variance: false,
        dtype: DType::F32,
        activations: if config.runtime.bf16 {
            DType::Bf16
        } else {
            DType::F32
        },
    }
}

/// What a configuration wants the network to learn from such data.
fn objective(loaded: &Loaded, data: &Description) -> Result<Objective, Error> {
    let config = &loaded.config;
    if let Some(choice) = &config.distill {
        let labelled = data.has_classes();
        if !labelled && choice.share < 1.0 {
            let expected = format!("1, since {} has no classes to learn from", data.name);
            return Err(Error::Config(loaded.bad("distill_share", expected)));
        }
        let classes = labelled.then_some(data.classes);
        return Ok(Objective::Distill {
            teacher: Arc::new(teacher(config, &choice.teacher, classes)?),
            temperature: choice.temperature,
            share: choice.share,
            labelled,
        });
    }
    if !config.finetune {
        return Ok(Objective::Pretrain {
            temperature: config.temperature,
            hidden_norm: config.hidden_norm,
        });
    }
    if !data.has_classes() {
        let name = data.name.clone();
        return Err(Error::NoClasses {
            name,
            purpose: "to be learned",
            remedy: super::OTHER_SET,
        });
    }
    let after_block = config.fine_tune_after_block;
    Ok(Objective::Finetune {
        freeze: Freeze {
            after_block,
            moving_statistics: after_block == 4 && config.frozen_bn == "moving",
        },
        projection_head: config.behaviour != Behaviour::V1,
    })
}

/// The network to imitate, which has to classify the same images into as many classes, if they have any.
fn teacher(config: &Config, path: &Path, classes: Option<usize>) -> Result<Trained, Error> {
    let teacher = trained::open(path)?;
    let wrong = |found: String, expected: String| {
        Err(Error::Teacher {
            path: teacher.checkpoint.clone(),
            found,
            expected,
        })
    };
    match (teacher.network.num_classes, classes) {
        (None, _) => {
            return wrong(
                "has no classifier".into(),
                "a fine-tuned network; run `simclr finetune` on it first".into(),
            );
        }
        (Some(found), Some(classes)) if found != classes => {
            return wrong(
                format!("tells {found} classes apart"),
                format!("the {classes} of `dataset` {}", config.dataset),
            );
        }
        (Some(_), _) => {}
    }
    let size = teacher.network.image_size;
    if (size > 32) != (config.image_size > 32) {
        return wrong(
            format!("has the stem for images of side {size}"),
            format!(
                "one that takes the student's `image_size` {}",
                config.image_size
            ),
        );
    }
    Ok(teacher)
}

/// Most steps of a launch when the program chooses: enough to make the launch itself cost nothing, few enough to stop soon.
const MOST_STEPS: usize = 20;

/// Most bytes of crops that a launch takes to a device, where a single step takes no more.
const MOST_CROPS: usize = 64 << 20;

fn most_steps(config: &Config, plan: &Plan, input: Input) -> usize {
    match input {
        Input::Resident { .. } | Input::Given => MOST_STEPS,
        Input::Streamed { views } => {
            let bytes = plan.per_replica * views * config.image_size * config.image_size * 3;
            (MOST_CROPS / bytes).clamp(1, MOST_STEPS)
        }
    }
}

/// Where examples come from: a set of small images of one size lies on the devices unless the user wants otherwise.
fn input(loaded: &Loaded, data: &Description, views: usize) -> Result<Input, Error> {
    let streamed = Input::Streamed { views };
    match (data.image, loaded.config.runtime.streamed) {
        (Some(image), None | Some(false)) => Ok(Input::Resident {
            examples: data.examples,
            image,
        }),
        (None, Some(false)) => Err(Error::Config(loaded.bad(
            "runtime.input",
            format!(
                "auto or streamed: images of {} have many sizes and are not held in memory",
                data.name
            ),
        ))),
        (_, _) => Ok(streamed),
    }
}

/// Everything that decides the step, checked against the data.
///
/// # Errors
/// If the configuration does not fit the data.
pub fn spec(loaded: &Loaded, data: &Description, plan: &Plan) -> Result<StepSpec, Error> {
    let config = &loaded.config;
    if let Some([height, width]) = data.image {
        if config.image_size <= 32 && [height, width] != [config.image_size; 2] {
            return Err(Error::Config(loaded.bad(
                "image_size",
                format!("{height}, the side of {}'s images", data.name),
            )));
        }
        if config.image_size > 32 && height <= 32 {
            return Err(Error::Config(loaded.bad(
                "image_size",
                format!("{height}: {} has no larger images", data.name),
            )));
        }
    }
    let objective = objective(loaded, data)?;
    let input = input(loaded, data, objective.views())?;
    let batch = config.train_batch_size;
    if matches!(input, Input::Streamed { .. }) && !batch.is_multiple_of(config.input_pipelines) {
        let expected = format!("a divisor of train_batch_size, {batch}");
        return Err(Error::Config(loaded.bad("input_pipelines", expected)));
    }
    let classes = match &objective {
        Objective::Distill { teacher, .. } => teacher.network.num_classes,
        Objective::Finetune { .. } => Some(data.classes),
        // Of one class there is nothing to learn.
        Objective::Pretrain { .. } => {
            (config.lineareval_while_pretraining && data.has_classes()).then_some(data.classes)
        }
    };
    Ok(StepSpec {
        network: network(config, classes),
        objective,
        augmentation: augmentation(config),
        optimizer: optimizer(config, plan),
        schedule: Schedule {
            scaled_rate: plan.scaled_rate,
            warmup_steps: plan.warmup_steps,
            total_steps: plan.total_steps,
        },
        weight_decay: config.weight_decay,
        settings: settings(config, plan.replicas),
        batch: config.train_batch_size,
        steps_per_launch: match config.runtime.steps_per_launch {
            0 => most_steps(config, plan, input).min(plan.total_steps as usize),
            steps => steps,
        },
        input,
    })
}

/// The passes of a configuration.
///
/// # Errors
/// If one is not known.
pub fn passes(loaded: &Loaded) -> Result<Selection, Error> {
    Selection::parse(&loaded.config.runtime.passes)
        .ok_or_else(|| Error::Config(loaded.bad("runtime.passes", Selection::expected())))
}

/// The compiler options of a configuration, with the types that compilers want.
///
/// # Errors
/// If one is not `NAME=VALUE`.
pub fn compiler_options(loaded: &Loaded) -> Result<Vec<(String, OptionValue)>, Error> {
    let option = |text: &String| {
        let (name, value) = text.split_once('=').filter(|(name, _)| !name.is_empty())?;
        let value = match (value.parse::<bool>(), value.parse::<i64>()) {
            (Ok(flag), _) => OptionValue::Bool(flag),
            (_, Ok(number)) => OptionValue::Int(number),
            _ => OptionValue::Str(value.into()),
        };
        Some((name.to_string(), value))
    };
    let options = &loaded.config.runtime.compiler_options;
    options
        .iter()
        .map(option)
        .collect::<Option<_>>()
        .ok_or_else(|| {
            let expected = "options such as xla_tpu_enable_latency_hiding_scheduler=true";
            Error::Config(loaded.bad("runtime.compiler_options", expected))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    /// Of a network with bottlenecks, whether two configurations make the same step.
    #[test]
    fn forms_of_the_step_are_chosen_by_their_keys() {
        let module = |more: &[&str]| {
            let mut keys: Vec<String> = [
                "image_size=32",
                "dataset=cifar10",
                "resnet_depth=50",
                "width_multiplier=0.125",
            ]
            .iter()
            .chain(more)
            .map(|key| key.to_string())
            .collect();
            keys.push("train_batch_size=8".into());
            let loaded = load(None, &keys).unwrap();
            let data = Description::published("cifar10", "train").unwrap();
            let plan = Plan::new(&loaded, data.examples, 1).unwrap();
            let spec = spec(&loaded, &data, &plan).unwrap();
            spec.module().unwrap().module.to_proto_bytes()
        };
        let forms = [
            module(&[]),
            module(&["runtime.bn_statistics=one_pass"]),
            module(&["runtime.bn_statistics=products"]),
            module(&["runtime.paired_views=true"]),
        ];
        for (i, one) in forms.iter().enumerate() {
            assert!(forms[..i].iter().all(|other| other != one), "form {i}");
        }
        let tuned = |more: &str| module(&["train_mode=finetune", more]);
        assert!(tuned("runtime.paired_views=true") == tuned("runtime.paired_views=false"));
    }

    #[test]
    fn compiler_options_get_their_types() {
        let options = |text: &str| {
            let given = format!("runtime.compiler_options={text}");
            compiler_options(&load(None, &[given]).unwrap())
        };
        let expected = [
            ("a".to_string(), OptionValue::Bool(true)),
            ("b".to_string(), OptionValue::Int(3)),
            ("c".to_string(), OptionValue::Str("x=y".into())),
        ];
        assert_eq!(options("['a=true', 'b=3', 'c=x=y']").unwrap(), expected);
        assert!(options("[]").unwrap().is_empty());
        for bad in ["['=1']", "[flag]"] {
            let error = options(bad).unwrap_err().to_string();
            assert!(error.contains("runtime.compiler_options"), "{error}");
        }
    }
}
