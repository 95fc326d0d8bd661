//! Features of a split by a frozen encoder, and what they are worth.

use super::Error;
use super::step::{StepSpec, encoder_module};
use crate::config::Config;
use crate::data::{Examples, Feed, FeedSpec, ImageSet};
use crate::engine::Engine;
use crate::eval::{Features, Knn, Probe, knn, linear_probe};
use crate::hlo::Literal;
use crate::pjrt::Argument;
use std::sync::Arc;

/// Names of the figures, in the order of [`Worth::values`].
pub const FIGURES: [(&str, &str); 3] = [
    ("eval/knn_20", "k-NN, k = 20"),
    ("eval/knn_200", "k-NN, k = 200"),
    ("eval/linear_probe", "linear probe"),
];

/// What features are worth: accuracies on the evaluation split, as fractions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Worth {
    /// Weighted k-NN with 20 and with 200 neighbours (cosine, temperature 0.1), then the linear probe.
    pub values: [f64; 3],
}

/// Features `[examples, D]` of a split for given variables.
///
/// # Errors
/// If the encoder cannot be compiled or run, or an example cannot be had.
pub fn features(
    engine: &Engine,
    spec: &StepSpec,
    variables: &[Literal],
    examples: &Arc<Examples>,
    config: &Config,
) -> Result<Features, Error> {
    let batch = config.eval_batch_size.min(examples.description().examples);
    let module = encoder_module(
        &spec.network,
        &spec.augmentation,
        &spec.settings,
        batch,
        examples.memory().map(|set| [set.height, set.width]),
    )?;
    let program = engine.compile(&module)?;
    let device = &program.devices()[0];
    let mut weights = Vec::new();
    for variable in variables {
        weights.push(engine.put(variable, device)?);
    }
    let width = spec.network.features() as usize;
    let (_, shape) = &program.parameters()[variables.len()];
    let encode = |bytes: Vec<u8>| -> Result<Vec<f32>, Error> {
        let images = Literal::from_bytes(shape.clone(), bytes)
            .unwrap_or_else(|| Literal::zeros(shape.clone()));
        let images = engine.put(&images, device)?;
        let mut arguments: Vec<Argument> = weights.iter().map(Argument::Keep).collect();
        arguments.push(Argument::Keep(&images));
        let results = program.launch(vec![arguments])?;
        Ok(program.read(0, &results[0])?[0].to_vec::<f32>())
    };
    let mut values = Vec::with_capacity(examples.description().examples * width);
    let mut labels = Vec::new();
    if let Some(data) = examples.memory() {
        let mut start = 0;
        while start < data.len() {
            // The last batch reaches back, so that one program serves all; what was there already is dropped.
            let from = start.min(data.len() - batch);
            let bytes = data.image_bytes();
            let found = encode(data.images[from * bytes..(from + batch) * bytes].to_vec())?;
            values.extend_from_slice(&found[(start - from) * width..]);
            start = from + batch;
        }
        labels.clone_from(&data.labels);
    } else {
        let spec = FeedSpec {
            batch,
            ..spec.evaluation_feed(config)
        };
        let mut feed = Feed::start(examples.clone(), spec);
        loop {
            let step = feed.step()?;
            if step.is_empty() {
                break;
            }
            let mut bytes = Vec::with_capacity(batch * feed.crop_bytes());
            for crops in &step {
                bytes.extend_from_slice(&crops.pixels);
                labels.push(crops.label);
            }
            // The last batch is filled up with black.
            bytes.resize(batch * feed.crop_bytes(), 0);
            values.extend_from_slice(&encode(bytes)?[..step.len() * width]);
        }
    }
    Ok(Features {
        width,
        values,
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
    let settings = [20, 200].map(|k| Knn {
        k,
        temperature: 0.1,
    });
    let neighbours = knn(engine, train, test, &settings)?;
    let probe = linear_probe(engine, train, test, Probe::default())?;
    Ok(Worth {
        values: [neighbours[0], neighbours[1], probe],
    })
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
