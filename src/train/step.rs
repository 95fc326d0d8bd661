//! The training step as one module: augmentation, network, losses, gradients, collectives, optimizer, for several steps of a
//! while loop in one launch.

use crate::augment::{Augmentation, Key};
use crate::grad::gradients;
use crate::hlo::{self, DType, Graph, Module, Shape, Value};
use crate::loss::{nt_xent, supervised};
use crate::model::{self, Network};
use crate::nn::{Builder, Settings, Variable};
use crate::optim::{Optimizer, Schedule, Slot};

/// Everything that decides what a step computes.
#[derive(Debug, Clone)]
pub struct StepSpec {
    /// The network; its supervised head, if any, is trained on stopped features beside the contrastive loss.
    pub network: Network,
    /// The views.
    pub augmentation: Augmentation,
    /// The optimizer.
    pub optimizer: Optimizer,
    /// The learning rate.
    pub schedule: Schedule,
    /// Coefficient of the decay that is part of the loss.
    pub weight_decay: f64,
    /// Temperature of the contrastive loss.
    pub temperature: f64,
    /// Whether projections are normalised.
    pub hidden_norm: bool,
    /// Layer settings, the number of replicas among them.
    pub settings: Settings,
    /// Images of one step over all replicas.
    pub batch: usize,
    /// Most steps of one launch.
    pub steps_per_launch: usize,
    /// Where its examples come from.
    pub input: Input,
}

/// Where the examples of a step come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The whole set lies on every device, which cuts the views; the host names the examples.
    Resident {
        /// Examples of the set.
        examples: usize,
        /// Height and width of its images.
        image: [usize; 2],
    },
    /// The host cuts the views and sends them, as bytes.
    Streamed {
        /// Views of an example: 2 for pretraining.
        views: usize,
    },
}

/// Figures of one step, averaged over replicas, in the order in which the program returns them.
pub const METRICS: [&str; 8] = [
    "train/contrast_loss",
    "train/contrast_acc",
    "train/contrast_entropy",
    "train/supervised_loss",
    "train/supervised_acc",
    "train/weight_decay",
    "train/total_loss",
    "learning_rate",
];

/// A state array: its name in checkpoints and its shape.
#[derive(Debug, Clone, PartialEq)]
pub struct StateArray {
    /// Name.
    pub name: String,
    /// Shape.
    pub shape: Shape,
}

/// The step's module with what its arguments mean.
///
/// Arguments: the state arrays; then `seed` u32 [2], `count` s32 (steps to run, at most `steps_per_launch`); then, n being the
/// examples of a step on this replica,
/// - resident: `indices` u32 [steps_per_launch, n], `images` u8 [examples, H, W, 3], `labels` s32 [examples];
/// - streamed: `crops` u8 [steps_per_launch, n, views, S, S, 3], `labels` s32 [steps_per_launch, n].
///
/// Results: the state arrays, which take over the arguments, then `metrics` f32 [steps_per_launch, METRICS].
pub struct StepModule {
    /// The module.
    pub module: Module,
    /// The state, in order: variables, optimizer slots, the step counter.
    pub state: Vec<StateArray>,
    /// The variables at the head of the state.
    pub variables: Vec<Variable>,
}

/// Why a step cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The network's choices.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// The graph.
    #[error(transparent)]
    Hlo(#[from] hlo::Error),
}

impl Error {
    /// What the caller can do about it.
    pub fn class(&self) -> crate::error::Class {
        match self {
            Error::Model(error) => error.class(),
            Error::Hlo(error) => error.class(),
        }
    }
}

impl StepSpec {
    /// Images per replica.
    pub fn per_replica(&self) -> usize {
        self.batch / self.settings.replicas.max(1)
    }

    /// The state's arrays, in order.
    ///
    /// # Errors
    /// If the choices do not make a network.
    pub fn state(&self) -> Result<(Vec<Variable>, Vec<StateArray>), Error> {
        let variables = self.network.variables()?;
        let dtype = self.settings.dtype;
        let mut state: Vec<StateArray> = variables
            .iter()
            .map(|v| StateArray {
                name: v.name.clone(),
                shape: Shape::new(dtype, v.dims.clone()),
            })
            .collect();
        state.extend(self.optimizer.slots(&variables).into_iter().map(
            |Slot { name, dims, .. }| StateArray {
                name,
                shape: Shape::new(dtype, dims),
            },
        ));
        state.push(StateArray {
            name: "global_step".into(),
            shape: Shape::scalar(DType::U32),
        });
        Ok((variables, state))
    }

    /// Builds the module.
    ///
    /// # Errors
    /// If the choices do not make a network, or the graph is wrong.
    pub fn module(&self) -> Result<StepModule, Error> {
        let (variables, state) = self.state()?;
        let graph = Graph::new();
        let arguments: Vec<Value> = state
            .iter()
            .map(|array| graph.parameter(&array.name, array.shape.clone()))
            .collect();
        let k = self.steps_per_launch as i64;
        let seed = graph.parameter("seed", Shape::new(DType::U32, [2]));
        let count = graph.parameter("count", Shape::scalar(DType::S32));
        let inputs: Vec<Value> = self
            .inputs()
            .into_iter()
            .map(|(name, shape)| graph.parameter(name, shape))
            .collect();
        let metrics = graph.zeros(&Shape::new(DType::F32, [k, METRICS.len() as i64]));
        let dtype = self.settings.dtype;
        let rate = self
            .schedule
            .rate_hlo(arguments[arguments.len() - 1], dtype);
        let mut init = vec![
            graph.scalar(0i32),
            metrics,
            seed,
            count,
            // Part of the state, because a compiler may compute what is not stored again for each variable's update.
            rate,
        ];
        init.extend(inputs);
        let fixed = init.len();
        init.extend(arguments);
        let result = graph.while_loop(
            &init,
            |_, s| s[0].lt(s[3]),
            |graph, s| {
                let (state, metrics) = self.step(graph, &variables, s, fixed);
                let zero = graph.scalar(0i32);
                let row = metrics.reshape(&[1, METRICS.len() as i64]);
                let mut next = vec![s[0] + 1.0, s[1].dynamic_update_slice(row, &[s[0], zero])];
                next.extend_from_slice(&s[2..4]);
                next.push(self.schedule.rate_hlo(state[state.len() - 1], dtype));
                next.extend_from_slice(&s[5..fixed]);
                next.extend(state);
                next
            },
        );
        let mut outputs = result[fixed..].to_vec();
        outputs.push(result[1]);
        let aliases: Vec<(usize, usize)> = (0..state.len()).map(|i| (i, i)).collect();
        let module = graph
            .finish("simclr_step", &outputs)?
            .with_aliases(&aliases)?
            .with_replicas(self.settings.replicas)?;
        Ok(StepModule {
            module,
            state,
            variables,
        })
    }

    /// Names and shapes of the arguments that bring examples.
    pub fn inputs(&self) -> Vec<(&'static str, Shape)> {
        let (k, n) = (self.steps_per_launch as i64, self.per_replica() as i64);
        match self.input {
            Input::Resident { examples, image } => {
                let [height, width] = image.map(|side| side as i64);
                let examples = examples as i64;
                vec![
                    ("indices", Shape::new(DType::U32, [k, n])),
                    (
                        "images",
                        Shape::new(DType::U8, [examples, height, width, 3]),
                    ),
                    ("labels", Shape::new(DType::S32, [examples])),
                ]
            }
            Input::Streamed { views } => {
                let size = self.augmentation.image_size as i64;
                vec![
                    (
                        "crops",
                        Shape::new(DType::U8, [k, n, views as i64, size, size, 3]),
                    ),
                    ("labels", Shape::new(DType::S32, [k, n])),
                ]
            }
        }
    }

    /// One step inside the loop: `(new state, metrics)`.
    fn step<'g>(
        &self,
        graph: &'g Graph,
        variables: &[Variable],
        s: &[Value<'g>],
        fixed: usize,
    ) -> (Vec<Value<'g>>, Value<'g>) {
        let (i, seed, rate, inputs) = (s[0], s[2], s[4], &s[5..fixed]);
        let state = &s[fixed..];
        let step = state[state.len() - 1];
        let (values, slots) = state[..state.len() - 1].split_at(variables.len());
        let n = self.per_replica() as i64;
        let word = |at: i64| seed.slice_dim(0, at, at + 1).reshape(&[]);
        let key = Key {
            seed: [word(0), word(1)],
            step,
        };
        // The place in the global batch, not on this replica: draws do not depend on how the batch is split.
        let first = graph.replica_id() * n as f64;
        let place = graph.iota(DType::U32, &[n], 0) + first;
        // Row `i` of an array of a launch.
        let row = |array: Value<'g>| {
            let mut sizes = array.dims();
            sizes[0] = 1;
            let mut start = vec![graph.scalar(0i32); sizes.len()];
            start[0] = i;
            array.dynamic_slice(&start, &sizes).reshape(&sizes[1..])
        };
        let (views, labels) = match self.input {
            Input::Resident { .. } => {
                let chosen = row(inputs[0]);
                let images = inputs[1].take_rows(chosen);
                let views = self.augmentation.two_views(images, key, place);
                (views, inputs[2].take_rows(chosen))
            }
            Input::Streamed { .. } => {
                let crops = row(inputs[0]);
                let views = self.augmentation.two_views_of_crops(crops, key, place);
                (views, row(inputs[1]))
            }
        };
        let update = self.update(graph, variables, values, slots, views, labels, rate, step);
        let mut next = update.values;
        next.extend(update.slots);
        next.push(step + 1.0);
        (next, update.metrics)
    }

    /// Forward, backward and update for given views `[2n, S, S, 3]` and labels s32 `[n]`.
    #[expect(clippy::too_many_arguments, reason = "the parts of a step, each once")]
    pub fn update<'g>(
        &self,
        graph: &'g Graph,
        variables: &[Variable],
        values: &[Value<'g>],
        slots: &[Value<'g>],
        views: Value<'g>,
        labels: Value<'g>,
        rate: Value<'g>,
        step: Value<'g>,
    ) -> Update<'g> {
        let dtype = self.settings.dtype;
        let replicas = self.settings.replicas;
        let mut builder = Builder::with_values(graph, self.settings.clone(), values.to_vec());
        let outputs = self.network.forward(&mut builder, views);
        let contrast = nt_xent(outputs.z(), self.temperature, self.hidden_norm, replicas);
        let decay =
            self.optimizer
                .weight_decay_loss(graph, variables, values, self.weight_decay, dtype);
        let nothing = graph.scalar_of(dtype, 0.0);
        let (supervised_loss, supervised_accuracy) = match outputs.logits {
            Some(logits) => {
                let both = graph.concatenate(&[labels, labels], 0);
                let found = supervised(logits, both, None);
                (found.loss, found.top1)
            }
            None => (nothing, nothing),
        };
        let loss = contrast.loss + supervised_loss + decay;
        let trained: Vec<usize> = (0..variables.len())
            .filter(|&i| variables[i].kind.trainable())
            .collect();
        let wanted: Vec<Value> = trained.iter().map(|&i| values[i]).collect();
        let mut found = vec![None; variables.len()];
        for (&i, gradient) in trained.iter().zip(gradients(loss, &wanted)) {
            found[i] = gradient;
        }
        if replicas > 1 {
            average(graph, &mut found, replicas);
        }
        let (mut new_values, new_slots) = self
            .optimizer
            .update(variables, values, &found, slots, rate, step);
        for &(number, value) in builder.moving() {
            new_values[number] = value;
        }
        let mut metrics = vec![
            contrast.loss,
            contrast.accuracy,
            contrast.entropy,
            supervised_loss,
            supervised_accuracy,
            decay,
            loss,
            rate,
        ];
        for metric in &mut metrics {
            *metric = metric.convert(DType::F32).reshape(&[1]);
        }
        let own_metrics = graph.concatenate(&metrics, 0);
        let mut metrics = own_metrics;
        if replicas > 1 {
            metrics = metrics.all_reduce_sum() * (1.0 / replicas as f64);
        }
        Update {
            values: new_values,
            slots: new_slots,
            metrics,
            own_metrics,
            gradients: found,
            outputs,
        }
    }
}

/// What a step makes.
pub struct Update<'g> {
    /// New variables, moving statistics among them.
    pub values: Vec<Value<'g>>,
    /// New optimizer slots.
    pub slots: Vec<Value<'g>>,
    /// Figures averaged over replicas, f32 `[METRICS]`.
    pub metrics: Value<'g>,
    /// This replica's figures, f32 `[METRICS]`.
    pub own_metrics: Value<'g>,
    /// Gradients of the mean loss, averaged over replicas.
    pub gradients: Vec<Option<Value<'g>>>,
    /// What the network gave for this replica's views.
    pub outputs: model::Outputs<'g>,
}

/// Averages gradients over replicas. One all-reduce for each: where a device gains by joining them, its compiler does.
fn average(graph: &Graph, gradients: &mut [Option<Value>], replicas: usize) {
    let _scope = graph.scope("average_gradients");
    for gradient in gradients.iter_mut().flatten() {
        *gradient = gradient.all_reduce_sum() * (1.0 / replicas as f64);
    }
}

/// The features of images, with moving statistics: variables, then u8 `[batch, H, W, 3]`, to f32 `[batch, D]`.
///
/// # Errors
/// If the choices do not make a network.
pub fn encoder_module(
    network: &Network,
    augmentation: &Augmentation,
    settings: &Settings,
    batch: usize,
    image: [usize; 2],
) -> Result<Module, Error> {
    let variables = network.variables()?;
    let settings = Settings {
        training: false,
        replicas: 1,
        ..settings.clone()
    };
    let graph = Graph::new();
    let values: Vec<Value> = variables
        .iter()
        .map(|v| graph.parameter(&v.name, Shape::new(settings.dtype, v.dims.clone())))
        .collect();
    let [height, width] = image.map(|side| side as i64);
    let images = graph.parameter(
        "images",
        Shape::new(DType::U8, [batch as i64, height, width, 3]),
    );
    let mut builder = Builder::with_values(&graph, settings, values);
    let h = network
        .forward(&mut builder, augmentation.evaluation(images))
        .h;
    Ok(graph.finish("simclr_encoder", &[h])?)
}
