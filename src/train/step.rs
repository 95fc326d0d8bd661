//! The training step as one module: augmentation, network, losses, gradients, collectives, optimizer, for several steps of a
//! while loop in one launch.

use crate::augment::{Augmentation, Key};
use crate::grad::gradients;
use crate::hlo::{self, DType, Graph, Module, Shape, Value};
use crate::model::{self, Network};
use crate::nn::{Builder, Remat, Settings, Variable};
use crate::optim::{Optimizer, Schedule, Slot};
use crate::train::objective::Objective;

/// Everything that decides what a step computes.
#[derive(Debug, Clone)]
pub struct StepSpec {
    /// The network.
    pub network: Network,
    /// What it learns.
    pub objective: Objective,
    /// The views.
    pub augmentation: Augmentation,
    /// The optimizer.
    pub optimizer: Optimizer,
    /// The learning rate.
    pub schedule: Schedule,
    /// Coefficient of the decay that is part of the loss.
    pub weight_decay: f64,
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
    /// The views themselves lie on the devices, the same for every step: for measurements of the step alone.
    Given,
}

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
/// - streamed: `crops` u8 [steps_per_launch, n, views, S, S, 3], `labels` s32 [steps_per_launch, n];
/// - given: `views` f32 [2n, S, S, 3], `labels` s32 [n];
///
/// then the variables of a teacher.
///
/// Results: the state arrays, which take over the arguments, then `metrics` f32 [steps_per_launch, metrics of the objective].
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
    /// Names of a step's figures, in order.
    pub fn metrics(&self) -> &'static [&'static str] {
        self.objective.metrics(self.network.num_classes.is_some())
    }

    /// Images per replica.
    pub fn per_replica(&self) -> usize {
        self.batch / self.settings.replicas.max(1)
    }

    /// Numbers of the variables that the optimizer trains: those which a gradient of the objective reaches.
    ///
    /// # Errors
    /// If the choices do not make a network.
    pub fn trained(&self) -> Result<Vec<usize>, Error> {
        self.network.check()?;
        let graph = Graph::new();
        let side = self.network.image_size as i64;
        let dtype = self.settings.dtype;
        let images = graph.zeros(&Shape::new(dtype, [2, side, side, 3]));
        let mut builder = Builder::collecting(
            &graph,
            Settings {
                replicas: 1,
                remat: Remat::None,
                ..self.settings.clone()
            },
        );
        let outputs = self.objective.forward(&self.network, &mut builder, images);
        let reached = gradients(self.objective.reads(&outputs), builder.values());
        let variables = builder.variables().iter().zip(reached).enumerate();
        Ok(variables
            .filter(|(_, (variable, reached))| {
                let kept = self.objective.keeps(variable) || !variable.kind.trainable();
                reached.is_some() && !kept
            })
            .map(|(number, _)| number)
            .collect())
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
        let trained = pick(&variables, &self.trained()?);
        state.extend(self.optimizer.slots(&trained).into_iter().map(
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
        let trained = self.trained()?;
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
            .chain(self.objective.teacher().map(|(variable, value)| {
                let name = format!("teacher/{}", variable.name);
                graph.parameter(name, value.shape().clone())
            }))
            .collect();
        let width = self.metrics().len() as i64;
        let metrics = graph.zeros(&Shape::new(DType::F32, [k, width]));
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
                let (state, metrics) = self.step(graph, &variables, &trained, s, fixed);
                let zero = graph.scalar(0i32);
                let row = metrics.reshape(&[1, width]);
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
            Input::Given => {
                let size = self.augmentation.image_size as i64;
                vec![
                    ("views", Shape::new(DType::F32, [2 * n, size, size, 3])),
                    ("labels", Shape::new(DType::S32, [n])),
                ]
            }
        }
    }

    /// One step inside the loop: `(new state, metrics)`.
    fn step<'g>(
        &self,
        graph: &'g Graph,
        variables: &[Variable],
        trained: &[usize],
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
                let views = self.objective.cut(&self.augmentation, images, key, place);
                (views, inputs[2].take_rows(chosen))
            }
            Input::Streamed { .. } => {
                let crops = row(inputs[0]);
                let views = self.objective.take(&self.augmentation, crops, key, place);
                (views, row(inputs[1]))
            }
            Input::Given => (inputs[0], inputs[1]),
        };
        let teacher = &inputs[self.inputs().len()..];
        let taught = self.objective.taught(&self.settings, teacher, views);
        let update = self.update_with(
            graph, variables, trained, values, slots, views, labels, taught, rate, step,
        );
        let mut next = update.values;
        next.extend(update.slots);
        next.push(step + 1.0);
        (next, update.metrics)
    }

    /// Forward, backward and update for given views `[views · n, S, S, 3]` and labels s32 `[n]`. `trained` as of [`Self::trained`],
    /// `slots` those of the trained variables.
    #[expect(clippy::too_many_arguments, reason = "the parts of a step, each once")]
    pub fn update<'g>(
        &self,
        graph: &'g Graph,
        variables: &[Variable],
        trained: &[usize],
        values: &[Value<'g>],
        slots: &[Value<'g>],
        views: Value<'g>,
        labels: Value<'g>,
        rate: Value<'g>,
        step: Value<'g>,
    ) -> Update<'g> {
        self.update_with(
            graph, variables, trained, values, slots, views, labels, None, rate, step,
        )
    }

    /// The same with the logits of a teacher.
    #[expect(clippy::too_many_arguments, reason = "the parts of a step, each once")]
    fn update_with<'g>(
        &self,
        graph: &'g Graph,
        variables: &[Variable],
        trained: &[usize],
        values: &[Value<'g>],
        slots: &[Value<'g>],
        views: Value<'g>,
        labels: Value<'g>,
        taught: Option<Value<'g>>,
        rate: Value<'g>,
        step: Value<'g>,
    ) -> Update<'g> {
        let dtype = self.settings.dtype;
        let replicas = self.settings.replicas;
        let mut builder = Builder::with_values(graph, self.settings.clone(), values.to_vec());
        let outputs = self.objective.forward(&self.network, &mut builder, views);
        let (own, own_values) = (pick(variables, trained), pick(values, trained));
        let decay =
            self.optimizer
                .weight_decay_loss(graph, &own, &own_values, self.weight_decay, dtype);
        let (loss, mut metrics) = self
            .objective
            .losses(&self.settings, &outputs, labels, taught);
        let loss = loss + decay;
        metrics.extend([decay, loss, rate]);

        let mut found = gradients(loss, &own_values);
        if replicas > 1 {
            average(graph, &mut found, &self.settings);
        }
        let (updated, new_slots) =
            self.optimizer
                .update(&own, &own_values, &found, slots, rate, step);
        let mut new_values = values.to_vec();
        let mut gradients = vec![None; variables.len()];
        for (k, &number) in trained.iter().enumerate() {
            new_values[number] = updated[k];
            gradients[number] = found[k];
        }
        for &(number, value) in builder.moving() {
            new_values[number] = value;
        }
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
            gradients,
            outputs,
        }
    }
}

/// The elements of these numbers.
fn pick<T: Clone>(all: &[T], numbers: &[usize]) -> Vec<T> {
    numbers.iter().map(|&number| all[number].clone()).collect()
}

/// What a step makes.
pub struct Update<'g> {
    /// New variables, moving statistics among them.
    pub values: Vec<Value<'g>>,
    /// New optimizer slots.
    pub slots: Vec<Value<'g>>,
    /// Figures averaged over replicas, f32 `[metrics]`.
    pub metrics: Value<'g>,
    /// This replica's figures, f32 `[metrics]`.
    pub own_metrics: Value<'g>,
    /// Gradients of the mean loss, averaged over replicas.
    pub gradients: Vec<Option<Value<'g>>>,
    /// What the network gave for this replica's views.
    pub outputs: model::Outputs<'g>,
}

/// Averages gradients over replicas. One all-reduce for each: where a device gains by joining them, its compiler does.
fn average(graph: &Graph, gradients: &mut [Option<Value>], settings: &Settings) {
    let _scope = graph.scope("average_gradients");
    let share = 1.0 / settings.replicas as f64;
    for gradient in gradients.iter_mut().flatten() {
        // Vectors are small, and what they scale is large.
        *gradient = if settings.bf16_exchange && gradient.rank() > 1 {
            let own = (*gradient * share).convert(DType::Bf16);
            own.all_reduce_sum().convert(gradient.dtype())
        } else {
            gradient.all_reduce_sum() * share
        };
    }
}
