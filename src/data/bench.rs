//! How fast a split becomes crops on this machine: each stage by itself, and the whole as training uses it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::examples::{Picture, Pipelines, Raw};
use super::feed::{Feed, FeedSpec, Stages, Task};
use super::{Error, Examples};
use crate::augment::host::{HostDraws, HostResize};

/// Images per second.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Speeds {
    /// Threads of all stages but reading.
    pub threads: usize,
    /// Images of each measurement.
    pub images: usize,
    /// Reading records in the order of training, with their checks, in one thread.
    pub read: f64,
    /// Decoding alone.
    pub decode: f64,
    /// Cutting and resizing two views alone.
    pub crop: f64,
    /// Everything, as in training.
    pub whole: f64,
    /// Shares of the threads' time in the whole: reading, decoding, cropping.
    pub shares: [f64; 3],
}

/// Encoded and decoded pictures held for the measurement of single stages.
const HELD: usize = 256;

/// Turns that decoding, cropping and the whole take at most, so that what else the machine does falls on all of them alike.
const ROUNDS: usize = 4;

/// Measures with about `images` images (the set is gone through again as often as that takes).
///
/// # Errors
/// What is wrong with an example.
pub fn measure(examples: &Arc<Examples>, spec: FeedSpec, images: usize) -> Result<Speeds, Error> {
    let threads = match spec.threads {
        0 => std::thread::available_parallelism().map_or(1, |cores| cores.get()),
        threads => threads,
    };
    let (seed, window) = match spec.task {
        Task::Train { seed, window, .. } => (seed, window),
        Task::Evaluate => (0, 1),
    };
    let whole = Pipelines {
        count: 1,
        batch: 1,
        rows: 0..1,
    };
    let mut source = examples.training(seed, window, 0, whole);
    let mut raws = Vec::new();
    // The window is filled before the clock starts.
    if let Some(raw) = source.next(0).transpose()? {
        raws.push(examples.fetch(raw)?);
    }
    let mut reading = Spent::default();
    // In one go, since a thread reads ahead.
    reading.add(|| {
        for _ in 0..images {
            let Some(raw) = source.next(0).transpose()? else {
                break;
            };
            // One after the other; the threads of the whole read files side by side.
            let raw = examples.fetch(raw)?;
            if raws.len() < HELD {
                raws.push(raw);
            }
        }
        Ok(images)
    })?;
    drop(source);
    let mut buffers = vec![Vec::new(); raws.len()];
    let pictures: Vec<Picture> = raws
        .iter()
        .zip(&mut buffers)
        .map(|(raw, buffer): (&Raw, _)| examples.decode(raw, buffer))
        .collect::<Result<_, _>>()?;
    let resize = HostResize::new(spec.kernel, spec.image_size);
    let draws = HostDraws::new(seed, 0);

    let decode =
        |i: usize, buffer: &mut Vec<u8>| examples.decode(&raws[i % raws.len()], buffer).map(drop);
    let crop = |i: usize, out: &mut Vec<u8>| {
        let picture = &pictures[i % pictures.len()];
        out.resize(spec.image_size * spec.image_size * 3, 0);
        for view in 0..2 {
            let area = draws.crop(i as u32, view, picture.height, picture.width);
            resize.crop(picture.pixels, picture.width, area, out);
        }
        Ok(())
    };
    let mut feed = Feed::start(examples.clone(), spec);
    let workers = Workers::start(threads)?;
    // Window, memory and processor are warm after these.
    feed.step()?;
    workers.run(raws.len(), decode)?;
    workers.run(raws.len(), crop)?;

    let rounds = (images / spec.batch).clamp(1, ROUNDS);
    let mut spent = [Spent::default(); 3];
    for round in 0..rounds {
        let [from, to] = [round, round + 1].map(|edge| images * edge / rounds);
        rest(&feed);
        spent[0].add(|| workers.run(to - from, decode))?;
        spent[1].add(|| workers.run(to - from, crop))?;
        // Those that were prepared before are no measure.
        for _ in 0..3 {
            feed.step()?;
        }
        spent[2].add(|| {
            let mut count = 0;
            while count < to - from {
                count += feed.step()?.len();
            }
            Ok(count)
        })?;
    }
    // Of all that the threads did.
    let Stages {
        read: r,
        decode: d,
        crop: c,
    } = feed.stages();
    let sum = (r + d + c).as_secs_f64().max(1e-9);
    let [decode, crop, whole] = spent.map(|spent| spent.rate());
    Ok(Speeds {
        threads,
        images,
        read: reading.rate(),
        decode,
        crop,
        whole,
        shares: [r, d, c].map(|time| time.as_secs_f64() / sum),
    })
}

/// Waits until a stream has prepared as much as it may, so that a stage has the machine for itself.
fn rest(feed: &Feed) {
    const QUIET: Duration = Duration::from_millis(100);
    let mut before = feed.stages();
    loop {
        std::thread::sleep(QUIET);
        let now = feed.stages();
        if now == before {
            return;
        }
        before = now;
    }
}

/// Images and the time for them.
#[derive(Clone, Copy, Default)]
struct Spent {
    images: usize,
    time: Duration,
}

impl Spent {
    fn add(&mut self, work: impl FnOnce() -> Result<usize, Error>) -> Result<(), Error> {
        let begin = Instant::now();
        self.images += work()?;
        self.time += begin.elapsed();
        Ok(())
    }

    fn rate(&self) -> f64 {
        self.images as f64 / self.time.as_secs_f64().max(1e-9)
    }
}

/// Threads that stay, each with a buffer of its own, as those of a [`Feed`]: new ones would begin with memory that nobody has touched.
struct Workers {
    pool: rayon::ThreadPool,
    buffers: Vec<Mutex<Vec<u8>>>,
}

impl Workers {
    fn start(threads: usize) -> Result<Self, Error> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        Ok(Workers {
            pool: pool.build().map_err(|cause| Error::Threads {
                threads,
                cause: cause.to_string(),
            })?,
            buffers: (0..threads).map(|_| Mutex::default()).collect(),
        })
    }

    /// Does `count` pieces of work; the first error found ends it.
    fn run(
        &self,
        count: usize,
        work: impl Fn(usize, &mut Vec<u8>) -> Result<(), Error> + Sync,
    ) -> Result<usize, Error> {
        let next = AtomicUsize::new(0);
        let ends = self.pool.broadcast(|thread| {
            let buffer = &self.buffers[thread.index()];
            let mut buffer = buffer.lock().unwrap_or_else(PoisonError::into_inner);
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= count {
                    return Ok(());
                }
                work(i, &mut buffer)?;
            }
        });
        ends.into_iter().collect::<Result<(), _>>()?;
        Ok(count)
    }
}
