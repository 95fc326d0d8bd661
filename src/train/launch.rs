//! Launches of the step: the program with its state on the devices, and what feeds it. While a launch runs, the examples of the next
//! one cross to the devices.

use super::step::{Input, StepSpec};
use super::{Error, state};
use crate::config::Config;
use crate::data::{Examples, Feed, FeedSpec, Order, Share, Stages, Task};
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
    /// This process's.
    devices: Vec<Device>,
    /// The replica of each of them.
    replicas: Vec<usize>,
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

impl Source {
    /// For a process that has these replicas.
    fn of(
        spec: &StepSpec,
        examples: &Arc<Examples>,
        config: &Config,
        step: u64,
        replicas: &[usize],
    ) -> Result<Self, Error> {
        let share = share(replicas, spec.settings.replicas)?;
        Ok(match (spec.input, examples.memory()) {
            (Input::Resident { .. }, Some(set)) => {
                Source::Order(Order::new(config.runtime.seed, set.len()))
            }
            _ => {
                let feed = spec.feed(config, step);
                Source::Feed(Feed::of_share(examples.clone(), feed, share))
            }
        })
    }
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
        if let (Input::Resident { .. }, Some(set)) = (spec.input, examples.memory()) {
            let dims = [set.len() as i64, set.height as i64, set.width as i64, 3];
            let images = Literal::new(&dims, &set.images);
            let labels: Vec<i32> = set.labels.iter().map(|&label| label as i32).collect();
            let labels = Literal::new(&[set.len() as i64], &labels);
            for (list, device) in resident.iter_mut().zip(&devices) {
                list.push(engine.put(&images, device)?);
                list.push(engine.put(&labels, device)?);
            }
        }
        let source = Source::of(spec, examples, config, step, program.replicas())?;
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
            for (_, value) in spec.objective.teacher() {
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
            supply: Supply {
                engine,
                spec,
                replicas: program.replicas().to_vec(),
                devices,
                source,
            },
            program,
            resident,
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

/// The part of each step that the process of these replicas, of so many in all, has to give.
fn share(replicas: &[usize], all: usize) -> Result<Share, Error> {
    let mut sorted = replicas.to_vec();
    sorted.sort_unstable();
    let own = sorted.len();
    let first = sorted.first().copied().unwrap_or(0);
    let even = own > 0 && all.is_multiple_of(own) && first.is_multiple_of(own);
    if !even || sorted.iter().enumerate().any(|(i, &at)| at != first + i) {
        return Err(Error::Uneven {
            replicas: sorted,
            all,
        });
    }
    Ok(Share {
        process: first / own,
        processes: all / own,
    })
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
                pipelines: config.input_pipelines,
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
        let (n, devices) = (self.spec.per_replica(), self.devices.len());
        let shapes = self.spec.inputs();
        // Per replica; steps that do not run read nothing.
        let mut examples: Vec<Vec<Literal>> = Vec::new();
        match &mut self.source {
            Source::Nothing => examples.resize_with(devices, Vec::new),
            Source::Order(order) => {
                let batch = self.spec.batch;
                let chosen = order.indices(step * batch as u64, count * batch);
                for replica in &self.replicas {
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
                let mut crops = vec![vec![0u8; most * n * bytes]; devices];
                let mut labels = vec![vec![0i32; most * n]; devices];
                // The rows of a step come in the order of the replicas.
                let first = self.replicas.iter().min().copied().unwrap_or(0);
                for k in 0..count {
                    let given = feed.step()?;
                    if given.len() != devices * n {
                        return Err(short_step(given.len(), devices * n));
                    }
                    for (device, replica) in self.replicas.iter().enumerate() {
                        let own = &given[(replica - first) * n..][..n];
                        for (row, found) in own.iter().enumerate() {
                            let place = k * n + row;
                            crops[device][place * bytes..][..bytes].copy_from_slice(&found.pixels);
                            labels[device][place] = found.label as i32;
                        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Plan, load};
    use crate::engine::{Choice, open};
    use crate::train::{setup, state};

    const DEVICES: usize = 8;
    const LAUNCHES: usize = 3;
    const STEPS: usize = 2;

    #[test]
    fn processes_take_equal_parts_that_follow_each_other() {
        let part = |process, processes| Share { process, processes };
        assert_eq!(share(&[0, 1, 2, 3], 4).unwrap(), Share::ALL);
        assert_eq!(share(&[2, 3], 8).unwrap(), part(1, 4));
        assert_eq!(share(&[5, 4, 7, 6], 8).unwrap(), part(1, 2));
        for (replicas, all) in [(&[1, 2][..], 4), (&[0, 2], 4), (&[0, 1, 2], 8), (&[], 8)] {
            let error = share(replicas, all).unwrap_err().to_string();
            assert!(error.contains("equally many devices"), "{error}");
        }
    }

    /// Eight devices, driven by one process, or as two or four processes would that know only their own: the plugin for the CPU has no
    /// several processes, but who makes which arguments for which device is all that several processes change.
    #[test]
    fn processes_that_share_the_devices_make_the_batches_and_losses_of_one() {
        for input in ["resident", "streamed"] {
            let one = run(input, 1);
            assert_eq!(one.1.len(), LAUNCHES * STEPS);
            assert!(one.1.iter().flatten().all(|x| x.is_finite()));
            // Batches differ from step to step and from device to device.
            assert!(one.0[0][0] != one.0[1][0] && one.0[0][0] != one.0[0][1]);
            for processes in [2, 4] {
                let several = run(input, processes);
                assert!(one.0 == several.0, "batches, {input}, {processes}");
                assert_eq!(one.1, several.1, "losses, {input}, {processes}");
            }
        }
    }

    /// The bytes of every launch's arguments, `[launch][device][argument]`, and every step's figures.
    type Found = (Vec<Vec<Vec<Vec<u8>>>>, Vec<Vec<f32>>);

    fn run(input: &str, processes: usize) -> Found {
        let keys = [
            "dataset=shapes32",
            "resnet_depth=10",
            "width_multiplier=0.125",
            "stem_stride=2",
            "image_size=32",
            "train_batch_size=64",
            "warmup_epochs=0",
            "num_proj_layers=1",
            "proj_out_dim=16",
            "use_blur=false",
            "color_jitter_strength=0.5",
        ];
        let mut keys: Vec<String> = keys.map(String::from).to_vec();
        keys.push(format!("runtime.steps_per_launch={STEPS}"));
        keys.push(format!("runtime.input={input}"));
        let loaded = load(None, &keys).unwrap();
        let config = &loaded.config;
        let choice = Choice {
            platform: "cpu",
            plugin: None,
            devices: DEVICES,
            cpu_devices: DEVICES,
            passes: &crate::hlo::passes::Selection::All,
            compiler_options: &[],
            executable_cache: true,
            preallocate: true,
            node: None,
        };
        let (engine, devices) = open(choice, &mut |_| {}).unwrap();
        let examples = Arc::new(setup::examples(config, &config.train_split).unwrap());
        let plan = Plan::new(&loaded, examples.description().examples, devices).unwrap();
        let spec = setup::spec(&loaded, examples.description(), &plan).unwrap();
        let module = spec.module().unwrap();
        let program = engine.compile(&module.module).unwrap();
        let own = DEVICES / processes;
        let mut supplies = Vec::new();
        for process in 0..processes {
            let replicas: Vec<usize> = (process * own..(process + 1) * own).collect();
            supplies.push(Supply {
                engine: &engine,
                spec: &spec,
                devices: program.devices()[replicas.clone()[0]..][..own].to_vec(),
                source: Source::of(&spec, &examples, config, 0, &replicas).unwrap(),
                replicas,
            });
        }
        let values = state::initial(&module.state, &module.variables, config.runtime.seed);
        let mut launcher =
            Launcher::new(&engine, &spec, program, &values, &examples, config, 0).unwrap();
        let (mut batches, mut figures) = (Vec::new(), Vec::new());
        for launch in 0..LAUNCHES {
            let step = (launch * STEPS) as u64;
            let mut made = Vec::new();
            for supply in &mut supplies {
                made.extend(supply.arguments(step, STEPS).unwrap());
            }
            let bytes = |list: &Vec<Buffer>| list.iter().map(|b| b.to_host().unwrap()).collect();
            batches.push(made.iter().map(bytes).collect());
            launcher.ready = Some(Ready {
                count: STEPS,
                arguments: Ok(made),
            });
            // Nothing is made ahead.
            let steps = |from: u64| if from == step { STEPS } else { 0 };
            figures.extend(launcher.launch(step, &steps).unwrap().metrics);
        }
        (batches, figures)
    }
}
