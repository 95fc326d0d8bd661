//! Layers and their variables.
//!
//! A network is an ordinary function that asks a [`Builder`] for layers. Run once on a scratch graph, it tells which variables it
//! wants ([`Builder::collecting`]); run again with their values ([`Builder::with_values`]), it computes. So the list of variables
//! and the computation cannot disagree.
//!
//! Activations are NHWC, convolution kernels HWIO, dense kernels (in, out) (reference §0).

mod batch_norm;
mod init;
mod layers;
mod normal;
mod pairs;
mod products;
mod recompute;

pub use batch_norm::Statistics;
pub use init::initial_value;
pub use layers::{global_mean, max_pool_same, relu, same_padding, shortcut_pool};
pub use recompute::Remat;

use crate::hlo::{DType, Graph, Shape, Value};

/// What a variable is for; weight decay and layer adaptation follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Kind {
    ConvKernel,
    DenseKernel,
    Bias,
    Gamma,
    Beta,
    MovingMean,
    MovingVariance,
}

impl Kind {
    /// Whether gradients train it (moving statistics follow the batches instead).
    pub fn trainable(self) -> bool {
        !matches!(self, Kind::MovingMean | Kind::MovingVariance)
    }

    /// Whether it belongs to a batch normalisation.
    pub fn batch_norm(self) -> bool {
        matches!(
            self,
            Kind::Gamma | Kind::Beta | Kind::MovingMean | Kind::MovingVariance
        )
    }
}

/// How a variable starts (reference §3.11).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// Variance 1/fan_in, values beyond two standard deviations redrawn.
    TruncatedNormal {
        /// kh·kw·cin.
        fan_in: i64,
    },
    /// Mean 0 and this standard deviation.
    Normal(f64),
    /// One value.
    Constant(f64),
}

/// One array of the state.
#[derive(Debug, Clone, PartialEq)]
pub struct Variable {
    /// The name in the original's checkpoints (reference §8.1).
    pub name: String,
    /// Dimensions.
    pub dims: Vec<i64>,
    /// What it is for.
    pub kind: Kind,
    /// How it starts.
    pub init: Init,
}

impl Variable {
    /// Whether it belongs to the supervised head, which LARS neither decays nor adapts (reference §7.1).
    pub fn supervised_head(&self) -> bool {
        self.name.starts_with("head_supervised")
    }

    /// Whether it belongs to the projection head.
    pub fn projection_head(&self) -> bool {
        self.name.starts_with("head_contrastive")
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.dims.iter().product::<i64>() as usize
    }
}

/// What layers need to know besides their inputs.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Batch statistics and moving averages (true), or the moving statistics (false).
    pub training: bool,
    /// Replicas that share the global batch.
    pub replicas: usize,
    /// Whether batch statistics are those of all replicas.
    pub global_bn: bool,
    /// How batch statistics are computed.
    pub statistics: Statistics,
    /// Momentum of the moving statistics.
    pub batch_norm_decay: f64,
    /// Whether the moving variance follows the unbiased batch variance (the original's first version, per-replica statistics).
    pub unbiased_moving_variance: bool,
    /// Type of variables and statistics: f32, or f64 in numerical checks.
    pub dtype: DType,
    /// Type of activations inside convolutions and dense layers.
    pub activations: DType,
    /// What the backward pass computes again.
    pub remat: Remat,
    /// Whether replicas exchange gradients of kernels rounded to bf16.
    pub bf16_exchange: bool,
    /// Whether, in training, images lie side by side in the channels where those are few.
    pub paired: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            training: true,
            replicas: 1,
            global_bn: true,
            statistics: Statistics::TwoPass,
            batch_norm_decay: 0.9,
            unbiased_moving_variance: false,
            dtype: DType::F32,
            activations: DType::F32,
            remat: Remat::None,
            bf16_exchange: false,
            paired: false,
        }
    }
}

/// Gives layers their variables, in creation order, and collects new moving statistics.
pub struct Builder<'g> {
    graph: &'g Graph,
    settings: Settings,
    /// Values in creation order; `None` while collecting.
    given: Option<Vec<Value<'g>>>,
    variables: Vec<Variable>,
    values: Vec<Value<'g>>,
    moving: Vec<(usize, Value<'g>)>,
    /// Mean and variance of the batch at each normalisation so far.
    statistics: Vec<(Value<'g>, Value<'g>)>,
    /// Those of the normalisations that come, the next one last, where they are known already.
    known: Vec<(Value<'g>, Value<'g>)>,
    convolutions: usize,
    normalisations: usize,
    prefix: String,
    /// Images that lie side by side in the channels: 1 or 2.
    beside: i64,
}

impl<'g> Builder<'g> {
    /// A builder that makes parameters of the graph and records what they are.
    pub fn collecting(graph: &'g Graph, settings: Settings) -> Self {
        Builder::new(graph, settings, None)
    }

    /// A builder that hands out these values, in creation order.
    pub fn with_values(graph: &'g Graph, settings: Settings, values: Vec<Value<'g>>) -> Self {
        Builder::new(graph, settings, Some(values))
    }

    fn new(graph: &'g Graph, settings: Settings, given: Option<Vec<Value<'g>>>) -> Self {
        Builder {
            graph,
            settings,
            given,
            variables: Vec::new(),
            values: Vec::new(),
            moving: Vec::new(),
            statistics: Vec::new(),
            known: Vec::new(),
            convolutions: 0,
            normalisations: 0,
            prefix: String::new(),
            beside: 1,
        }
    }

    /// The graph.
    pub fn graph(&self) -> &'g Graph {
        self.graph
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Chooses between batch statistics and moving statistics for the layers that follow.
    pub fn set_training(&mut self, training: bool) {
        self.settings.training = training;
    }

    /// Variables so far, in creation order.
    pub fn variables(&self) -> &[Variable] {
        &self.variables
    }

    /// Their values.
    pub fn values(&self) -> &[Value<'g>] {
        &self.values
    }

    /// New values of moving statistics: `(number of the variable, value)`.
    pub fn moving(&self) -> &[(usize, Value<'g>)] {
        &self.moving
    }

    /// Starts a part of the network whose layers are numbered by themselves under `prefix/`.
    pub fn part(&mut self, prefix: &str) {
        self.prefix = format!("{prefix}/");
        self.convolutions = 0;
        self.normalisations = 0;
    }

    /// The next variable.
    pub(crate) fn variable(
        &mut self,
        name: &str,
        dims: &[i64],
        kind: Kind,
        init: Init,
    ) -> (usize, Value<'g>) {
        let number = self.variables.len();
        let name = format!("{}{name}", self.prefix);
        let value = match &self.given {
            None => self
                .graph
                .parameter(name.clone(), Shape::new(self.settings.dtype, dims)),
            Some(values) => match values.get(number) {
                Some(value) if value.dims() == dims || value.is_invalid() => *value,
                Some(value) => self.graph.fail(
                    "variable",
                    format!(
                        "`{name}` is {}, expected dimensions {dims:?}",
                        value.shape()
                    ),
                ),
                None => self
                    .graph
                    .fail("variable", format!("`{name}` has no value")),
            },
        };
        self.variables.push(Variable {
            name,
            dims: dims.to_vec(),
            kind,
            init,
        });
        self.values.push(value);
        (number, value)
    }

    fn numbered(count: &mut usize, stem: &str) -> String {
        let name = if *count == 0 {
            stem.to_string()
        } else {
            format!("{stem}_{count}", count = *count)
        };
        *count += 1;
        name
    }
}
