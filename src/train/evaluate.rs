//! Features of a split by a frozen encoder, and what they are worth.

use super::Error;
use super::inference::{Inference, Reach};
use crate::config::Config;
use crate::data::{Examples, ImageSet};
use crate::engine::Engine;
use crate::eval::{Features, Knn, Probe, knn, linear_probe};
use std::sync::Arc;

/// Names of the figures, in the order of [`Worth::values`].
pub const FIGURES: [(&str, &str); 3] = [
    ("eval/knn_20", "k-NN, k = 20"),
    ("eval/knn_200", "k-NN, k = 200"),
    ("eval/linear_probe", "linear probe"),
];

/// What features are worth: accuracies on the evaluation split, as fractions.
#[derive(Debug, Clone, PartialEq)]
pub struct Worth {
    /// Of features: weighted k-NN with 20 and with 200 neighbours (cosine, temperature 0.1), where there are as many training examples, then
    /// the linear probe. Of a supervised head: top-1 and top-5.
    pub values: Vec<Option<f64>>,
}

impl Worth {
    /// Those of `figures` that were measured, each with its value.
    pub fn of<'a, T>(&self, figures: &'a [T]) -> impl Iterator<Item = (&'a T, f64)> {
        let pairs = figures.iter().zip(&self.values);
        pairs.filter_map(|(figure, value)| Some((figure, (*value)?)))
    }
}

/// Features `[examples, D]` of a split.
///
/// # Errors
/// If the encoder cannot be run, or an example cannot be had.
pub fn features(
    inference: &Inference,
    examples: &Arc<Examples>,
    config: &Config,
    reach: Reach,
) -> Result<Features, Error> {
    let (seen, labels) = inference.see(examples, config, reach)?;
    Ok(Features {
        width: inference.width,
        values: seen.features,
        labels,
    })
}

fn in_memory(examples: &Examples) -> Result<&ImageSet, Error> {
    examples.memory().ok_or_else(|| Error::NotInMemory {
        name: examples.description().name.clone(),
    })
}

/// Measures features.
///
/// # Errors
/// If a program cannot be compiled or run.
pub fn worth(engine: &Engine, train: &Features, test: &Features) -> Result<Worth, Error> {
    let mut values = neighbours(engine, train, test)?;
    values.push(Some(linear_probe(engine, train, test, Probe::default())?));
    Ok(Worth { values })
}

/// The first two figures alone.
///
/// # Errors
/// As [`worth`].
pub fn neighbours(
    engine: &Engine,
    train: &Features,
    test: &Features,
) -> Result<Vec<Option<f64>>, Error> {
    const NEIGHBOURS: [usize; 2] = [20, 200];
    let settings = NEIGHBOURS.map(|k| Knn {
        k,
        temperature: 0.1,
    });
    let fitting = settings.partition_point(|setting| setting.k <= train.len());
    let mut values = vec![None; settings.len()];
    if fitting > 0 {
        let found = knn(engine, train, test, &settings[..fitting])?;
        for (value, found) in values.iter_mut().zip(found) {
            *value = Some(found);
        }
    }
    Ok(values)
}

/// Measures raw pixels: neighbours after subtracting the mean training image, which is what makes their cosine mean something.
///
/// # Errors
/// As [`worth`].
pub fn worth_of_pixels(engine: &Engine, train: &Examples, test: &Examples) -> Result<Worth, Error> {
    let (train, test) = (in_memory(train)?, in_memory(test)?);
    let pixels = |set: &ImageSet| Features::of_pixels(&set.images, &set.labels);
    let (train, test) = (pixels(train), pixels(test));
    let mean = train.mean();
    worth(engine, &train.centred(&mean), &test.centred(&mean))
}
