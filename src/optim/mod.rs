//! Optimizers, weight decay and the learning rate, as HLO (reference §4.4, §6, §7).

mod schedule;

pub use schedule::Schedule;

use crate::hlo::{DType, Graph, Value};
use crate::nn::Variable;

/// How variables follow their gradients.
#[derive(Debug, Clone, PartialEq)]
pub enum Optimizer {
    /// Layer-wise adaptive rates (reference §7.1).
    Lars(Lars),
    /// Nesterov momentum (reference §7.2).
    Momentum {
        /// Share of the old buffer.
        momentum: f64,
        /// Keras keeps the rate in the buffer, the original's first version does not.
        keras: bool,
    },
    /// Adam (reference §7.3).
    Adam {
        /// Added to the root of the second moment.
        epsilon: f64,
    },
}

/// Settings of LARS.
#[derive(Debug, Clone, PartialEq)]
pub struct Lars {
    /// Share of the old buffer.
    pub momentum: f64,
    /// Added to the gradients of kernels outside the supervised head.
    pub weight_decay: f64,
    /// Trust coefficient.
    pub eeta: f64,
    /// Whether the step looks ahead.
    pub nesterov: bool,
    /// Whether rate and trust enter the buffer (true in every program of the original).
    pub classic_momentum: bool,
    /// Factor on the rate of the supervised head, which has no adaptation (1 in the original).
    pub head_rate: f64,
}

impl Lars {
    /// The original's settings.
    pub fn new(momentum: f64, weight_decay: f64) -> Self {
        Lars {
            momentum,
            weight_decay,
            eeta: 0.001,
            nesterov: false,
            classic_momentum: true,
            head_rate: 1.0,
        }
    }
}

/// What an optimizer keeps for one variable: the variable's number and the slot's name.
pub struct Slot {
    /// Number of the variable.
    pub variable: usize,
    /// Name in checkpoints, such as `base_model/conv2d/kernel/Momentum`.
    pub name: String,
    /// Dimensions.
    pub dims: Vec<i64>,
}

impl Optimizer {
    /// Names of the slots of each trained variable.
    fn slot_names(&self) -> &'static [&'static str] {
        match self {
            Optimizer::Lars(_) | Optimizer::Momentum { .. } => &["Momentum"],
            Optimizer::Adam { .. } => &["Adam", "Adam_1"],
        }
    }

    /// The slots, all of which start at zero, in order.
    pub fn slots(&self, variables: &[Variable]) -> Vec<Slot> {
        let mut slots = Vec::new();
        for (number, variable) in variables.iter().enumerate() {
            for name in self
                .slot_names()
                .iter()
                .filter(|_| variable.kind.trainable())
            {
                slots.push(Slot {
                    variable: number,
                    name: format!("{}/{name}", variable.name),
                    dims: variable.dims.clone(),
                });
            }
        }
        slots
    }

    /// One step: `(new values, new slots)`. `rate` is a scalar of the variables' type, `step` the number of updates before this
    /// one. A variable without a gradient stays as it is, decay and slots included.
    pub fn update<'g>(
        &self,
        variables: &[Variable],
        values: &[Value<'g>],
        gradients: &[Option<Value<'g>>],
        slots: &[Value<'g>],
        rate: Value<'g>,
        step: Value<'g>,
    ) -> (Vec<Value<'g>>, Vec<Value<'g>>) {
        let graph = rate.graph();
        let _scope = graph.scope("optimizer");
        let mut new_values = values.to_vec();
        let mut new_slots = slots.to_vec();
        let per_variable = self.slot_names().len();
        let mut next = 0;
        for (number, variable) in variables.iter().enumerate() {
            if !variable.kind.trainable() {
                continue;
            }
            let own = next..next + per_variable;
            next += per_variable;
            let Some(gradient) = gradients[number] else {
                continue;
            };
            let value = values[number];
            match self {
                Optimizer::Lars(lars) => {
                    let (w, v) = lars.step(variable, value, gradient, slots[own.start], rate);
                    new_values[number] = w;
                    new_slots[own.start] = v;
                }
                Optimizer::Momentum { momentum, keras } => {
                    let old = slots[own.start];
                    let (w, v) = if *keras {
                        let v = old * *momentum - gradient * rate;
                        (value + v * *momentum - gradient * rate, v)
                    } else {
                        let v = old * *momentum + gradient;
                        (value - (gradient + v * *momentum) * rate, v)
                    };
                    new_values[number] = w;
                    new_slots[own.start] = v;
                }
                Optimizer::Adam { epsilon } => {
                    let (first, second) = (slots[own.start], slots[own.start + 1]);
                    let m = first + (gradient - first) * (1.0 - BETA_1);
                    let v = second + (gradient * gradient - second) * (1.0 - BETA_2);
                    let size = adam_step(graph, rate, step);
                    new_values[number] = value - m * size / (v.sqrt() + *epsilon);
                    new_slots[own.start] = m;
                    new_slots[own.start + 1] = v;
                }
            }
        }
        (new_values, new_slots)
    }

    /// Whether the decay of a trained variable is part of the loss (reference §4.4).
    pub fn in_loss(&self, variable: &Variable) -> bool {
        let lars = matches!(self, Optimizer::Lars(_));
        variable.kind.trainable()
            && !variable.kind.batch_norm()
            && (!lars || variable.supervised_head() && variable.kind != crate::nn::Kind::Bias)
    }

    /// The decay that is part of the loss: with LARS ½λ‖·‖² of the supervised kernel, otherwise of everything trained outside
    /// batch normalisation, biases included (reference §4.4).
    pub fn weight_decay_loss<'g>(
        &self,
        graph: &'g Graph,
        variables: &[Variable],
        values: &[Value<'g>],
        weight_decay: f64,
        dtype: DType,
    ) -> Value<'g> {
        let _scope = graph.scope("weight_decay");
        let mut total = graph.scalar_of(dtype, 0.0);
        for (variable, value) in variables.iter().zip(values) {
            if self.in_loss(variable) {
                total = total + (*value * *value).sum_all() * 0.5;
            }
        }
        total * weight_decay
    }
}

/// Share of the old first moment in Adam.
pub const BETA_1: f64 = 0.9;
/// Share of the old second moment in Adam.
pub const BETA_2: f64 = 0.999;

/// η·√(1−β₂ᵏ)/(1−β₁ᵏ) with k = step + 1.
fn adam_step<'g>(graph: &'g Graph, rate: Value<'g>, step: Value<'g>) -> Value<'g> {
    let dtype = rate.dtype();
    let k = step.convert(dtype) + 1.0;
    let power = |base: f64| graph.scalar_of(dtype, base).pow(k);
    rate * (1.0 - power(BETA_2)).sqrt() / (1.0 - power(BETA_1))
}

impl Lars {
    fn step<'g>(
        &self,
        variable: &Variable,
        value: Value<'g>,
        gradient: Value<'g>,
        slot: Value<'g>,
        rate: Value<'g>,
    ) -> (Value<'g>, Value<'g>) {
        // Batch normalisation, biases and the supervised head get neither decay nor adaptation (reference §7.1, §12-40).
        let plain = variable.kind.batch_norm()
            || variable.kind == crate::nn::Kind::Bias
            || variable.supervised_head();
        let rate = match variable.supervised_head() && self.head_rate != 1.0 {
            true => rate * self.head_rate,
            false => rate,
        };
        let mut gradient = gradient;
        if !plain && self.weight_decay != 0.0 {
            gradient = gradient + value * self.weight_decay;
        }
        let trust = |direction: Value<'g>| {
            if plain {
                return rate;
            }
            let norm = |x: Value<'g>| (x * x).sum_all().sqrt();
            let (w, g) = (norm(value), norm(direction));
            let both = w.gt(0.0).and(g.gt(0.0));
            let safe = both.select(g, 1.0);
            rate * both.select(w * self.eeta / safe, 1.0)
        };
        if self.classic_momentum {
            let scaled = gradient * trust(gradient);
            let v = slot * self.momentum + scaled;
            let update = if self.nesterov {
                v * self.momentum + scaled
            } else {
                v
            };
            (value - update, v)
        } else {
            let v = slot * self.momentum + gradient;
            let update = if self.nesterov {
                v * self.momentum + gradient
            } else {
                v
            };
            (value - update * trust(update), v)
        }
    }
}
