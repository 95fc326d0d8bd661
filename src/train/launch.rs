//! Launches of the step: the program with its state on the devices, and what feeds it. While a launch runs, the examples of the next
//! one cross to the devices.

use super::step::{Input, StepSpec};
use super::{Error, state};
use crate::config::Config;
use crate::data::{Examples, Feed, FeedSpec, Order, Stages, Task};
use crate::engine::{Engine, Program};
use crate::hlo::{DType, Literal, Shape};
use crate::pjrt::{Argument, Buffer, Device};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The program with its state and examples: what a launch needs.
pub(super) struct Launcher<'a> {
    pub(super) program: Program,
    /// `[replica][array]`.
    pub(super) buffers: Vec<Vec<Buffer>>,
    /// `[replica]`.
    seed: Vec<Buffer>,
    /// What stays on the devices: the set itself where it is resident, and a teacher's variables: `[replica][array]`.
    resident: Vec<Vec<Buffer>>,
    supply: Supply<'a>,
    /// The next launch's, made while this one ran.
    ready: Option<Ready>,
}

/// Makes the arguments of a launch.
struct Supply<'a> {
    engine: &'a Engine,
    spec: &'a StepSpec,
    devices: Vec<Device>,
    source: Source,
}

enum Source {
    /// The host only names examples.
    Order(Order),
    /// The host cuts them.
    Feed(Feed),
    /// They are on the devices.
    Nothing,
}

/// Arguments of a launch, on their devices.
struct Ready {
    count: usize,
    /// `[replica]`: the count and the examples, or why they could not be had.
    arguments: Result<Vec<Vec<Buffer>>, Error>,
}

/// What a launch gave.
pub(super) struct Launch {
    /// A row per step.
    pub(super) metrics: Vec<Vec<f32>>,
    /// Wall time of the whole launch.
    pub(super) total: Duration,
    /// The part in which the devices waited for their examples.
    pub(super) waited: Duration,
}

impl<'a> Launcher<'a> {
    /// Puts the state and, for a resident set, the examples on the devices; launches go on from `step`.
    pub(super) fn new(
        engine: &'a Engine,
        spec: &'a StepSpec,
        program: Program,
        values: &[Literal],
        examples: &Arc<Examples>,
        config: &Config,
        step: u64,
    ) -> Result<Self, Error> {
        let devices = program.devices().to_vec();
        let seed = config.runtime.seed;
        let mut resident: Vec<Vec<Buffer>> = devices.iter().map(|_| Vec::new()).collect();
        let source = match (spec.input, examples.memory()) {
            (Input::Resident { .. }, Some(set)) => {
                let dims = [set.len() as i64, set.height as i64, set.width as i64, 3];
                let images = Literal::new(&dims, &set.images);
                let labels: Vec<i32> = set.labels.iter().map(|&label| label as i32).collect();
                let labels = Literal::new(&[set.len() as i64], &labels);
                for (list, device) in resident.iter_mut().zip(&devices) {
                    list.push(engine.put(&images, device)?);
                    list.push(engine.put(&labels, device)?);
                }
                Source::Order(Order::new(seed, set.len()))
            }
            _ => Source::Feed(Feed::start(examples.clone(), spec.feed(config, step))),
        };
        Launcher::with(engine, spec, program, values, seed, resident, source)
    }

    /// The same on given views, `[2 · batch, S, S, 3]`, all first views before all second ones.
    pub(super) fn on_views(
        engine: &'a Engine,
        spec: &'a StepSpec,
        program: Program,
        values: &[Literal],
        views: &[f32],
        seed: u64,
    ) -> Result<Self, Error> {
        let shapes = spec.inputs();
        let (first, second) = views.split_at(views.len() / 2);
        let each = first.len() / program.devices().len();
        let mut resident = Vec::new();
        for (replica, device) in program.devices().iter().enumerate() {
            let rows = replica * each..(replica + 1) * each;
            let own = [&first[rows.clone()], &second[rows]].concat();
            resident.push(vec![
                engine.put(&Literal::new(&shapes[0].1.dims, &own), device)?,
                engine.put(&Literal::zeros(shapes[1].1.clone()), device)?,
            ]);
        }
        Launcher::with(
            engine,
            spec,
            program,
            values,
            seed,
            resident,
            Source::Nothing,
        )
    }

    fn with(
        engine: &'a Engine,
        spec: &'a StepSpec,
        program: Program,
        values: &[Literal],
        seed: u64,
        mut resident: Vec<Vec<Buffer>>,
        source: Source,
    ) -> Result<Self, Error> {
        let devices = program.devices().to_vec();
        for (list, device) in resident.iter_mut().zip(&devices) {
            for (_, value) in spec.teacher() {
                list.push(engine.put(value, device)?);
            }
        }
        let words = Literal::new(&[2], &[seed as u32, (seed >> 32) as u32]);
        Ok(Launcher {
            buffers: state::put(engine, &program, values)?,
            seed: devices
                .iter()
                .map(|device| engine.put(&words, device))
                .collect::<Result<_, _>>()?,
            program,
            resident,
            supply: Supply {
                engine,
                spec,
                devices,
                source,
            },
            ready: None,
        })
    }

    /// What the host's threads have spent their time on, and how many examples they could not have; none of a resident set.
    pub(super) fn stream(&self) -> Option<(Stages, usize)> {
        match &self.supply.source {
            Source::Order(_) | Source::Nothing => None,
            Source::Feed(feed) => Some((feed.stages(), feed.skipped())),
        }
    }

    /// Runs steps from `step` on and waits for them; meanwhile the arguments of the next launch are made. `steps` says how many a
    /// launch from a given step on should take; the number is fixed when the arguments are made.
    ///
    /// # Errors
    /// If the examples cannot be had, then the state is as it was; or if the launch fails.
    pub(super) fn launch(
        &mut self,
        step: u64,
        steps: &dyn Fn(u64) -> usize,
    ) -> Result<Launch, Error> {
        let begin = Instant::now();
        let (count, made) = match self.ready.take() {
            Some(ready) => (ready.count, ready.arguments?),
            None => (steps(step), self.supply.arguments(step, steps(step))?),
        };
        let after = step + count as u64;
        let next = steps(after);
        let mut arguments = Vec::new();
        for (replica, (made, state)) in made.into_iter().zip(self.buffers.drain(..)).enumerate() {
            let mut list: Vec<Argument> = state.into_iter().map(Argument::Donate).collect();
            list.push(Argument::Keep(&self.seed[replica]));
            list.extend(made.into_iter().map(Argument::Donate));
            list.extend(self.resident[replica].iter().map(Argument::Keep));
            arguments.push(list);
        }
        let mut waited = begin.elapsed();
        let batch = self.supply.spec.batch;
        let (program, supply) = (&self.program, &mut self.supply);
        let results = std::thread::scope(|scope| {
            let ahead = (next > 0).then(|| {
                scope.spawn(|| Ready {
                    count: next,
                    arguments: supply.arguments(after, next),
                })
            });
            let results = program.launch(arguments).and_then(|mut results| {
                let metrics = results[0].pop();
                let bytes = match metrics {
                    Some(metrics) => metrics.to_host()?,
                    None => Vec::new(),
                };
                results[1..].iter_mut().for_each(|list| drop(list.pop()));
                Ok((results, bytes))
            });
            let done = Instant::now();
            // A stream that broke down is somewhere else by now, so that the arguments cannot be made again.
            self.ready = ahead.map(|thread| {
                thread.join().unwrap_or_else(|_| Ready {
                    count: next,
                    arguments: Err(short_step(0, batch)),
                })
            });
            waited += done.elapsed();
            results
        });
        let (buffers, bytes) = results?;
        self.buffers = buffers;
        let most = self.supply.spec.steps_per_launch;
        let width = self.supply.spec.metrics().len();
        let shape = Shape::new(DType::F32, [most as i64, width as i64]);
        let table = Literal::from_bytes(shape.clone(), bytes)
            .unwrap_or_else(|| Literal::zeros(shape))
            .to_vec::<f32>();
        let rows = table.chunks_exact(width).take(count);
        Ok(Launch {
            metrics: rows.map(<[f32]>::to_vec).collect(),
            total: begin.elapsed(),
            waited,
        })
    }
}

fn short_step(found: usize, expected: usize) -> Error {
    Error::Data(crate::data::Error::ShortStep { found, expected })
}

impl StepSpec {
    /// The stream that feeds these steps from `step` on.
    pub(super) fn feed(&self, config: &Config, step: u64) -> FeedSpec {
        FeedSpec {
            task: Task::Train {
                views: self.objective.views(),
                seed: config.runtime.seed,
                window: config.shuffle_window,
                start: step,
            },
            batch: self.batch,
            ..self.evaluation_feed(config)
        }
    }

    /// The stream of a whole split for evaluation, in steps of `eval_batch_size`.
    pub(super) fn evaluation_feed(&self, config: &Config) -> FeedSpec {
        FeedSpec {
            task: Task::Evaluate,
            batch: config.eval_batch_size,
            image_size: self.augmentation.image_size,
            kernel: self.augmentation.resize,
            threads: config.runtime.data_threads,
            skip_bad: config.skip_bad,
        }
    }
}

impl Supply<'_> {
    /// The arguments of `count` steps from `step` on that are made anew for each launch: `[replica]`.
    fn arguments(&mut self, step: u64, count: usize) -> Result<Vec<Vec<Buffer>>, Error> {
        let (n, replicas) = (self.spec.per_replica(), self.devices.len());
        let shapes = self.spec.inputs();
        // Per replica; steps that do not run read nothing.
        let mut examples: Vec<Vec<Literal>> = Vec::new();
        match &mut self.source {
            Source::Nothing => examples.resize_with(replicas, Vec::new),
            Source::Order(order) => {
                let batch = self.spec.batch;
                let chosen = order.indices(step * batch as u64, count * batch);
                for replica in 0..replicas {
                    let mut indices = vec![0u32; self.spec.steps_per_launch * n];
                    for k in 0..count {
                        let from = k * batch + replica * n;
                        indices[k * n..(k + 1) * n].copy_from_slice(&chosen[from..from + n]);
                    }
                    examples.push(vec![Literal::new(&shapes[0].1.dims, &indices)]);
                }
            }
            Source::Feed(feed) => {
                let most = self.spec.steps_per_launch;
                let bytes = feed.crop_bytes();
                let mut crops = vec![vec![0u8; most * n * bytes]; replicas];
                let mut labels = vec![vec![0i32; most * n]; replicas];
                for k in 0..count {
                    let given = feed.step()?;
                    if given.len() != self.spec.batch {
                        return Err(short_step(given.len(), self.spec.batch));
                    }
                    for (example, found) in given.iter().enumerate() {
                        let (replica, place) = (example / n, k * n + example % n);
                        crops[replica][place * bytes..][..bytes].copy_from_slice(&found.pixels);
                        labels[replica][place] = found.label as i32;
                    }
                }
                for (crops, labels) in crops.into_iter().zip(labels) {
                    let shape = shapes[0].1.clone();
                    examples.push(vec![
                        Literal::from_bytes(shape.clone(), crops)
                            .unwrap_or_else(|| Literal::zeros(shape)),
                        Literal::new(&shapes[1].1.dims, &labels),
                    ]);
                }
            }
        }
        let count = Literal::scalar(count as i32);
        let mut made = Vec::new();
        for (literals, device) in examples.iter().zip(&self.devices) {
            let mut list = vec![self.engine.put(&count, device)?];
            for literal in literals {
                list.push(self.engine.put(literal, device)?);
            }
            made.push(list);
        }
        Ok(made)
    }
}
