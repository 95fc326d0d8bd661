//! Features of a split by a frozen encoder, and what they are worth.

use super::Error;
use super::step::{StepSpec, encoder_module};
use crate::data::{Examples, ImageSet};
use crate::engine::Engine;
use crate::eval::{Features, Knn, Probe, knn, linear_probe};
use crate::hlo::{DType, Literal, Shape};
use crate::pjrt::Argument;

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
/// If the encoder cannot be compiled or run.
pub fn features(
    engine: &Engine,
    spec: &StepSpec,
    variables: &[Literal],
    examples: &Examples,
    batch: usize,
) -> Result<Features, Error> {
    let data = in_memory(examples)?;
    let batch = batch.min(data.len());
    let module = encoder_module(
        &spec.network,
        &spec.augmentation,
        &spec.settings,
        batch,
        [data.height, data.width],
    )?;
    let program = engine.compile(&module)?;
    let device = &program.devices()[0];
    let mut weights = Vec::new();
    for variable in variables {
        weights.push(engine.put(variable, device)?);
    }
    let width = spec.network.features() as usize;
    let mut values = Vec::with_capacity(data.len() * width);
    let mut start = 0;
    while start < data.len() {
        // The last batch reaches back, so that one program serves all; what was there already is dropped.
        let from = start.min(data.len() - batch);
        let bytes =
            data.images[from * data.image_bytes()..(from + batch) * data.image_bytes()].to_vec();
        let dims = [batch as i64, data.height as i64, data.width as i64, 3];
        let images = Literal::from_bytes(Shape::new(DType::U8, dims), bytes)
            .unwrap_or_else(|| Literal::zeros(Shape::new(DType::U8, dims)));
        let images = engine.put(&images, device)?;
        let mut arguments: Vec<Argument> = weights.iter().map(Argument::Keep).collect();
        arguments.push(Argument::Keep(&images));
        let results = program.launch(vec![arguments])?;
        let found = program.read(0, &results[0])?[0].to_vec::<f32>();
        values.extend_from_slice(&found[(start - from) * width..]);
        start = from + batch;
    }
    Ok(Features {
        width,
        values,
        labels: data.labels.clone(),
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
