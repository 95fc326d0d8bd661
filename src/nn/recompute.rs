//! Parts of a network that the backward pass computes again instead of keeping what is in them.
//!
//! What is kept of such a part: its input, its variables and the batch statistics of its normalisations, so that nothing is exchanged
//! twice. Its operations are the same again, and so are its numbers, up to how a compiler fuses them.

use super::{Builder, Settings};
use crate::grad;
use crate::hlo::{Value, Vjp};

/// What of the encoder is computed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Remat {
    /// Nothing.
    #[default]
    None,
    /// Each residual block, from its input.
    Block,
    /// The stem and each group of blocks, from its input; within a group then each block.
    Full,
}

/// Where a part begins.
#[derive(Debug, Clone)]
pub struct Begin {
    variables: usize,
    statistics: usize,
    names: Names,
    beside: i64,
}

/// Where the numbering of layers stands: the prefix, convolutions and normalisations so far.
type Names = (String, usize, usize);

impl<'g> Builder<'g> {
    /// Marks the beginning of a part that [`Builder::again`] may end.
    pub fn begin(&self) -> Begin {
        Begin {
            variables: self.variables.len(),
            statistics: self.statistics.len(),
            names: (self.prefix.clone(), self.convolutions, self.normalisations),
            beside: self.beside,
        }
    }

    /// `y` = `part(x)`, all of whose variables were made since `begin`; its gradient runs `part` again.
    pub fn again(
        &self,
        begin: Begin,
        x: Value<'g>,
        y: Value<'g>,
        part: impl for<'a> Fn(&mut Builder<'a>, Value<'a>) -> Value<'a> + 'static,
    ) -> Value<'g> {
        let own = begin.variables..self.variables.len();
        let trained: Vec<bool> = self.variables[own.clone()]
            .iter()
            .map(|variable| variable.kind.trainable())
            .collect();
        let (mut inputs, mut saved) = (vec![x], Vec::new());
        for (&value, &trained) in self.values[own].iter().zip(&trained) {
            if trained {
                inputs.push(value);
            } else {
                saved.push(value);
            }
        }
        for &(mean, variance) in &self.statistics[begin.statistics..] {
            saved.extend([mean, variance]);
        }
        let kept = Kept {
            settings: self.settings.clone(),
            names: begin.names,
            beside: begin.beside,
            trained,
        };
        let again = self.graph.custom_vjp(&inputs, &[y], &saved, move |vjp| {
            kept.cotangents(vjp, &part)
        });
        again[0]
    }
}

/// What it takes to run a part again beside values.
struct Kept {
    settings: Settings,
    names: Names,
    beside: i64,
    /// Which of its variables are trained, in their order.
    trained: Vec<bool>,
}

impl Kept {
    /// The cotangents of the inputs: of x and of the trained variables. Saved are the other variables and the statistics.
    fn cotangents<'a>(
        &self,
        vjp: &Vjp<'a>,
        part: &dyn Fn(&mut Builder<'a>, Value<'a>) -> Value<'a>,
    ) -> Vec<Value<'a>> {
        // To the compiler nothing of it is the same as before, nor can it be done before the cotangent is there.
        let mut inputs = [&vjp.inputs[..], &vjp.saved, &vjp.cotangents].concat();
        inputs = vjp.graph.optimization_barrier(&inputs);
        let cotangent = inputs.split_off(vjp.inputs.len() + vjp.saved.len());
        let saved = inputs.split_off(vjp.inputs.len());
        // Where a compiler takes barriers away.
        inputs[0] = inputs[0].fence();
        let (mut of_trained, mut others) = (inputs[1..].iter(), saved.iter());
        let values = self.trained.iter().filter_map(|&trained| {
            let from = if trained {
                &mut of_trained
            } else {
                &mut others
            };
            from.next().copied()
        });
        let mut builder = Builder::with_values(vjp.graph, self.settings.clone(), values.collect());
        (builder.prefix, builder.convolutions, builder.normalisations) = self.names.clone();
        builder.beside = self.beside;
        let statistics: Vec<Value> = others.copied().collect();
        let pairs = statistics.chunks_exact(2).rev();
        builder.known = pairs.map(|pair| (pair[0], pair[1])).collect();
        let y = part(&mut builder, inputs[0]);
        grad::vjp(&[(y, cotangent[0])], &inputs)
            .into_iter()
            .zip(&inputs)
            .map(|(found, value)| found.unwrap_or_else(|| vjp.graph.zeros(&value.shape())))
            .collect()
    }
}
