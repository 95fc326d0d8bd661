//! Pictures of views, to be looked at.

use super::step::{Input, StepSpec};
use super::{Error, setup};
use crate::augment::Key;
use crate::config::{Config, Loaded, Plan};
use crate::data::{Examples, Feed, Order, Share, originals, replaced};
use crate::engine::Engine;
use crate::hlo::{DType, Graph, Literal, Shape};
use crate::report::Picture;
use crate::report::picture::{Layout, contact_sheet};
use std::sync::Arc;

/// Examples of a sheet.
pub const MOST: usize = 16;

/// Examples of a training split, each with the views that the first step of a configuration makes of it: two, or one with labels. The sheet shows
/// `train_batch_size` of them, 16 at most.
///
/// # Errors
/// Bad configuration or data, a plugin that refuses.
pub fn show(loaded: &Loaded, engine: &Engine, examples: &Arc<Examples>) -> Result<Picture, Error> {
    let config = &loaded.config;
    let description = examples.description();
    let plan = Plan::new(loaded, description.examples, 1)?;
    let spec = setup::spec(loaded, description, &plan)?;
    let found = originals(examples, &spec.feed(config, 0), spec.batch.min(MOST))?;
    // As in the step beside it.
    let found = replaced(found);
    let pixels: Vec<f32> = found
        .iter()
        .flat_map(|crops| crops.pixels.iter().map(|&byte| f32::from(byte) / 255.0))
        .collect();
    sheet(engine, config, &spec, examples, 0, Some(&pixels))
}

/// A picture of the first pairs of views that a start at `step` trains on, 16 at most; `originals` f32 `[n, S, S, 3]` come before them.
///
/// # Errors
/// If an example cannot be had, or the views cannot be made.
pub(super) fn sheet(
    engine: &Engine,
    config: &Config,
    spec: &StepSpec,
    examples: &Arc<Examples>,
    step: u64,
    originals: Option<&[f32]>,
) -> Result<Picture, Error> {
    let n = spec.batch.min(MOST);
    let seed = config.runtime.seed;
    let graph = Graph::new();
    let key = Key {
        seed: [graph.scalar(seed as u32), graph.scalar((seed >> 32) as u32)],
        step: graph.scalar(step as u32),
    };
    let place = graph.iota(DType::U32, &[n as i64], 0);
    let side = spec.augmentation.image_size;
    let (views, bytes) = match (spec.input, examples.memory()) {
        (Input::Resident { .. }, Some(set)) => {
            let chosen = Order::new(seed, set.len()).indices(step * spec.batch as u64, n);
            let mut bytes = Vec::new();
            for index in chosen {
                bytes.extend_from_slice(set.image(index as usize));
            }
            let dims = [n as i64, set.height as i64, set.width as i64, 3];
            let images = graph.parameter("images", Shape::new(DType::U8, dims));
            let views = spec.objective.cut(&spec.augmentation, images, key, place);
            (views, Literal::new(&dims, &bytes))
        }
        _ => {
            // Of a step no more than the first rows, where they are a part of it that a process could have.
            let share = Share {
                process: 0,
                processes: match spec.batch.is_multiple_of(n) {
                    true => spec.batch / n,
                    false => 1,
                },
            };
            let mut feed = Feed::of_share(examples.clone(), spec.feed(config, step), share);
            let count = spec.objective.views();
            let dims = [n as i64, count as i64, side as i64, side as i64, 3];
            let found = feed.step()?;
            let bytes: Vec<u8> = found[..n]
                .iter()
                .flat_map(|crops| crops.pixels.iter().copied())
                .collect();
            let crops = graph.parameter("crops", Shape::new(DType::U8, dims));
            let views = spec.objective.take(&spec.augmentation, crops, key, place);
            (views, Literal::new(&dims, &bytes))
        }
    };
    let module = graph
        .finish("views", &[views])
        .map_err(crate::engine::Error::Hlo)?;
    let program = engine.compile(&module)?;
    let views = program.run(engine, &[vec![bytes]])?[0][0].to_vec::<f32>();
    // All first views, then all second ones where there are any.
    let each = views.chunks_exact(n * side * side * 3);
    let pictures: Vec<&[f32]> = originals.into_iter().chain(each).collect();
    let layout = Layout {
        columns: if originals.is_some() { 2 } else { 4 },
        ..Layout::for_side(side)
    };
    Ok(contact_sheet(&pictures, [n, side, side, 3], layout)?)
}
