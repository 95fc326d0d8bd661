//! Evaluation of a supervised head on a split.

use super::Error;
use super::inference::{Inference, Reach};
use crate::config::Config;
use crate::data::Examples;
use crate::engine::Engine;
use crate::eval::Classified;
use crate::hlo::Literal;
use crate::model::Network;
use std::sync::Arc;

/// Names of the figures (reference §5.5): those of [`Classified`] that a run keeps.
pub const CLASSIFIED: [(&str, &str); 2] = [
    ("eval/label_top_1_accuracy", "top-1"),
    ("eval/label_top_5_accuracy", "top-5"),
];

/// What a network's supervised head is worth on a split.
///
/// # Errors
/// If there is no such head, the split has other classes, or a program cannot be compiled or run.
pub fn classify(
    engine: &Engine,
    config: &Config,
    network: &Network,
    values: &[Literal],
    replicas: usize,
    examples: &Arc<Examples>,
) -> Result<Classified, Error> {
    let described = examples.description();
    let classes = network.num_classes.unwrap_or(0);
    if described.classes != classes {
        return Err(Error::Classes {
            name: described.name.clone(),
            found: described.classes,
            expected: classes,
        });
    }
    let batch = config.eval_batch_size.min(described.examples);
    let inference = Inference::new(engine, config, network, values, replicas, batch)?;
    let (seen, labels) = inference.see(examples, config, Reach::EvalSteps)?;
    Ok(Classified::new(&seen.logits, &labels, classes))
}
