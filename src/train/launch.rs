//! Launches of the step: the program with its state and data on the devices.

use super::Error;
use super::step::{METRICS, StepSpec};
use crate::data::{ImageSet, order::Order};
use crate::engine::{Engine, Program};
use crate::hlo::{DType, Literal, Shape};
use crate::pjrt::{Argument, Buffer};
use std::time::{Duration, Instant};

/// Arguments of every launch that never change: `[replica]`.
pub(super) struct Fixed {
    pub(super) seed: Vec<Buffer>,
    pub(super) images: Vec<Buffer>,
    pub(super) labels: Vec<Buffer>,
}

impl Fixed {
    pub(super) fn put(
        engine: &Engine,
        program: &Program,
        data: &ImageSet,
        seed: u64,
    ) -> Result<Self, Error> {
        let dims = [data.len() as i64, data.height as i64, data.width as i64, 3];
        let images = Literal::new(&dims, &data.images);
        let labels: Vec<i32> = data.labels.iter().map(|&label| label as i32).collect();
        let labels = Literal::new(&[data.len() as i64], &labels);
        let seed = Literal::new(&[2], &[seed as u32, (seed >> 32) as u32]);
        let everywhere = |literal: &Literal| -> Result<Vec<Buffer>, crate::engine::Error> {
            program
                .devices()
                .iter()
                .map(|device| engine.put(literal, device))
                .collect()
        };
        Ok(Fixed {
            seed: everywhere(&seed)?,
            images: everywhere(&images)?,
            labels: everywhere(&labels)?,
        })
    }
}

/// The program with its state and data: what a launch needs.
pub(super) struct Launcher<'a> {
    pub(super) engine: &'a Engine,
    pub(super) spec: &'a StepSpec,
    pub(super) program: Program,
    /// `[replica][array]`.
    pub(super) buffers: Vec<Vec<Buffer>>,
    pub(super) fixed: Fixed,
    pub(super) order: Order,
}

/// What a launch gave.
pub(super) struct Launch {
    /// A row per step.
    pub(super) metrics: Vec<[f32; METRICS.len()]>,
    /// Wall time of the whole launch.
    pub(super) total: Duration,
    /// The part in which the device had nothing to do.
    pub(super) host: Duration,
}

impl Launcher<'_> {
    /// Runs `count` steps from `step` on and waits for them.
    pub(super) fn launch(&mut self, step: u64, count: usize) -> Result<Launch, Error> {
        let begin = Instant::now();
        let (most, n) = (self.spec.steps_per_launch, self.spec.per_replica());
        let batch = self.spec.batch;
        let chosen = self.order.indices(step * batch as u64, count * batch);
        let mut arguments = Vec::new();
        for (replica, (device, state)) in self
            .program
            .devices()
            .iter()
            .zip(self.buffers.drain(..))
            .enumerate()
        {
            // Rows of this replica in each step's batch; steps that do not run read nothing.
            let mut indices = vec![0u32; most * n];
            for k in 0..count {
                let from = k * batch + replica * n;
                indices[k * n..(k + 1) * n].copy_from_slice(&chosen[from..from + n]);
            }
            let engine = self.engine;
            let count = engine.put(&Literal::scalar(count as i32), device)?;
            let indices = engine.put(&Literal::new(&[most as i64, n as i64], &indices), device)?;
            let mut list: Vec<Argument> = state.into_iter().map(Argument::Donate).collect();
            list.push(Argument::Keep(&self.fixed.seed[replica]));
            list.push(Argument::Donate(count));
            list.push(Argument::Donate(indices));
            list.push(Argument::Keep(&self.fixed.images[replica]));
            list.push(Argument::Keep(&self.fixed.labels[replica]));
            arguments.push(list);
        }
        let host = begin.elapsed();
        let mut results = self.program.launch(arguments)?;
        let mut metrics = Vec::new();
        for list in &mut results {
            metrics.extend(list.pop());
        }
        self.buffers = results;
        let bytes = metrics[0].to_host().map_err(crate::engine::Error::Pjrt)?;
        let shape = Shape::new(DType::F32, [most as i64, METRICS.len() as i64]);
        let table = Literal::from_bytes(shape.clone(), bytes)
            .unwrap_or_else(|| Literal::zeros(shape))
            .to_vec::<f32>();
        let rows = table.chunks_exact(METRICS.len()).take(count);
        Ok(Launch {
            metrics: rows
                .map(|row| {
                    let mut copy = [0.0; METRICS.len()];
                    copy.copy_from_slice(row);
                    copy
                })
                .collect(),
            total: begin.elapsed(),
            host,
        })
    }
}
