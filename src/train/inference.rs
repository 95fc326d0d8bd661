//! A network in evaluation mode on the devices: images in, features and logits out, exact for any number of images.

use super::step::Error as StepError;
use super::{Error, setup};
use crate::config::Config;
use crate::data::{Examples, Feed, FeedSpec, Task, originals};
use crate::engine::{Engine, Program};
use crate::hlo::{DType, Graph, Literal, Module, Shape, Value};
use crate::model::Network;
use crate::nn::{Builder, Settings};
use crate::pjrt::{Argument, Buffer};
use std::sync::Arc;

/// The compiled network with its values.
pub struct Inference<'a> {
    engine: &'a Engine,
    program: Program,
    /// `[replica][variable]`.
    weights: Vec<Vec<Buffer>>,
    /// Images per launch and replica.
    per_replica: usize,
    /// Side of an image.
    side: usize,
    /// Features per image.
    pub width: usize,
    /// Logits per image; 0 without a supervised head.
    pub classes: usize,
}

/// How much of a split to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// All of it.
    Whole,
    /// Its first `eval_steps` batches of `eval_batch_size`; all of it where that is 0.
    EvalSteps,
}

/// What a network says of images, row by row.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Seen {
    /// f32 `[images, width]`.
    pub features: Vec<f32>,
    /// f32 `[images, classes]`.
    pub logits: Vec<f32>,
}

/// What it says of images of a split, with them.
pub struct Glance {
    /// Rows of each image.
    pub seen: Seen,
    /// Their classes.
    pub labels: Vec<u32>,
    /// As the network saw them, u8 `[images, S, S, 3]`.
    pub pixels: Vec<u8>,
}

impl<'a> Inference<'a> {
    /// Compiles a network for launches of at most `batch` images over `replicas` devices, and puts its values there.
    ///
    /// # Errors
    /// If the network is none, or the plugin refuses it.
    pub fn new(
        engine: &'a Engine,
        config: &Config,
        network: &Network,
        values: &[Literal],
        replicas: usize,
        batch: usize,
    ) -> Result<Self, Error> {
        let replicas = replicas.clamp(1, batch.max(1));
        let per_replica = batch.max(1).div_ceil(replicas);
        let module = module(config, network, replicas, per_replica)?;
        let mut inference = Inference {
            engine,
            program: engine.compile(&module)?,
            weights: Vec::new(),
            per_replica,
            side: network.image_size,
            width: network.features() as usize,
            classes: network.num_classes.unwrap_or(0),
        };
        inference.load(values)?;
        Ok(inference)
    }

    /// Puts other values of its variables on the devices.
    ///
    /// # Errors
    /// If the plugin refuses.
    pub fn load(&mut self, values: &[Literal]) -> Result<(), Error> {
        self.weights.clear();
        for device in self.program.devices() {
            let put = values.iter().map(|value| self.engine.put(value, device));
            self.weights.push(put.collect::<Result<Vec<_>, _>>()?);
        }
        Ok(())
    }

    /// Runs any number of images u8 `[images, S, S, 3]`. The last launch is filled up with black, and what that gives is dropped: with
    /// moving statistics no row depends on another.
    ///
    /// # Errors
    /// If the plugin fails.
    pub fn run(&self, images: &[u8]) -> Result<Seen, Error> {
        let bytes = self.side * self.side * 3;
        let dims = [
            self.per_replica as i64,
            self.side as i64,
            self.side as i64,
            3,
        ];
        let shape = Shape::new(DType::U8, dims);
        let mut seen = Seen::default();
        let at_once = self.per_replica * self.weights.len();
        for part in images.chunks(at_once * bytes) {
            let mut arguments = Vec::new();
            let mut given = Vec::new();
            for (replica, device) in self.program.devices().iter().enumerate() {
                let from = (replica * self.per_replica * bytes).min(part.len());
                let to = (from + self.per_replica * bytes).min(part.len());
                let mut own = part[from..to].to_vec();
                own.resize(self.per_replica * bytes, 0);
                let literal = Literal::from_bytes(shape.clone(), own)
                    .unwrap_or_else(|| Literal::zeros(shape.clone()));
                given.push(self.engine.put(&literal, device)?);
            }
            for (weights, given) in self.weights.iter().zip(&given) {
                let mut list: Vec<Argument> = weights.iter().map(Argument::Keep).collect();
                list.push(Argument::Keep(given));
                arguments.push(list);
            }
            let results = self.program.launch(arguments)?;
            let mut left = part.len() / bytes;
            for (replica, buffers) in results.iter().enumerate() {
                let rows = left.min(self.per_replica);
                left -= rows;
                let found = self.program.read(replica, buffers)?;
                let features = found[0].to_vec::<f32>();
                seen.features
                    .extend_from_slice(&features[..rows * self.width]);
                if let Some(logits) = found.get(1) {
                    let logits = logits.to_vec::<f32>();
                    seen.logits
                        .extend_from_slice(&logits[..rows * self.classes]);
                }
            }
        }
        Ok(seen)
    }
}

impl Inference<'_> {
    /// Runs the examples of a split as evaluation sees them; with their labels.
    ///
    /// # Errors
    /// If an example cannot be had, or the plugin fails.
    pub fn see(
        &self,
        examples: &Arc<Examples>,
        config: &Config,
        reach: Reach,
    ) -> Result<(Seen, Vec<u32>), Error> {
        let most = match (reach, config.eval_steps) {
            (Reach::Whole, _) | (_, 0) => usize::MAX,
            (Reach::EvalSteps, steps) => steps.saturating_mul(config.eval_batch_size),
        };
        if let Some(set) = examples.memory() {
            if [set.height, set.width] != [self.side; 2] {
                return Err(Error::ImageSide {
                    name: set.name.clone(),
                    height: set.height,
                    width: set.width,
                    side: self.side,
                });
            }
            let count = set.len().min(most);
            let seen = self.run(&set.images[..count * set.image_bytes()])?;
            return Ok((seen, set.labels[..count].to_vec()));
        }
        let spec = FeedSpec {
            task: Task::Evaluate,
            batch: self.per_replica * self.weights.len(),
            image_size: self.side,
            kernel: setup::augmentation(config).resize,
            threads: config.runtime.data_threads,
            skip_bad: config.skip_bad,
        };
        let mut feed = Feed::start(examples.clone(), spec);
        let (mut seen, mut labels) = (Seen::default(), Vec::new());
        while labels.len() < most {
            let mut step = feed.step()?;
            step.truncate(most - labels.len());
            if step.is_empty() {
                break;
            }
            let mut pixels = Vec::with_capacity(step.len() * feed.crop_bytes());
            for crops in &step {
                pixels.extend_from_slice(&crops.pixels);
                labels.push(crops.label);
            }
            let found = self.run(&pixels)?;
            seen.features.extend(found.features);
            seen.logits.extend(found.logits);
        }
        Ok((seen, labels))
    }

    /// Examples of a split as evaluation sees them: all of a set that is in memory, else `most` of them, drawn by the seed.
    ///
    /// # Errors
    /// As [`see`](Self::see).
    pub fn glance(
        &self,
        examples: &Arc<Examples>,
        config: &Config,
        most: usize,
    ) -> Result<Glance, Error> {
        if let Some(set) = examples.memory() {
            let (seen, labels) = self.see(examples, config, Reach::Whole)?;
            let pixels = set.images.to_vec();
            return Ok(Glance {
                seen,
                labels,
                pixels,
            });
        }
        let count = most.min(examples.description().examples);
        let spec = FeedSpec {
            task: Task::Train {
                views: 1,
                seed: config.runtime.seed,
                window: count,
                pipelines: 1,
                start: 0,
            },
            batch: count,
            image_size: self.side,
            kernel: setup::augmentation(config).resize,
            threads: config.runtime.data_threads,
            skip_bad: config.skip_bad,
        };
        let found = originals(examples, &spec, count)?;
        let found: Vec<_> = found.into_iter().flatten().collect();
        let pixels: Vec<u8> = found
            .iter()
            .flat_map(|crops| crops.pixels.iter().copied())
            .collect();
        Ok(Glance {
            seen: self.run(&pixels)?,
            labels: found.iter().map(|crops| crops.label).collect(),
            pixels,
        })
    }
}

/// Variables, then images u8 `[n, S, S, 3]`, to features f32 `[n, D]` and logits f32 `[n, C]`.
fn module(
    config: &Config,
    network: &Network,
    replicas: usize,
    n: usize,
) -> Result<Module, StepError> {
    let variables = network.variables()?;
    let settings = Settings {
        training: false,
        ..setup::settings(config, 1)
    };
    let graph = Graph::new();
    let values: Vec<Value> = variables
        .iter()
        .map(|v| graph.parameter(&v.name, Shape::new(settings.dtype, v.dims.clone())))
        .collect();
    let side = network.image_size as i64;
    let images = graph.parameter("images", Shape::new(DType::U8, [n as i64, side, side, 3]));
    let mut builder = Builder::with_values(&graph, settings, values);
    let outputs = network.forward(&mut builder, crate::augment::to_float(images));
    let mut results = vec![outputs.h];
    results.extend(outputs.logits);
    Ok(graph
        .finish("simclr_inference", &results)?
        .with_replicas(replicas)?)
}
