//! A stream of crops: threads of our own take examples in order, decode them once, cut their views, and keep a bounded number ready.
//!
//! What comes out is a pure function of the seed and the position: not of the number of threads, nor of where a run was resumed.
//! Memory: crops of two steps, a decoded picture per thread, and for sets in shards the window of the order.

use std::collections::VecDeque;
use std::ops::{Add, Range};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::examples::{Pipelines, Raw, Source};
use super::{Error, Examples};
use crate::augment::ResizeKernel;
use crate::augment::host::{HostDraws, HostResize, evaluated};

/// What a stream is to give.
#[derive(Debug, Clone, Copy)]
pub struct FeedSpec {
    /// What the crops are for.
    pub task: Task,
    /// Examples of a step.
    pub batch: usize,
    /// Side of a crop.
    pub image_size: usize,
    /// How crops are resized.
    pub kernel: ResizeKernel,
    /// Threads; 0: one per core.
    pub threads: usize,
    /// Whether an example that cannot be had is replaced by another one of its batch; in evaluation it is left out.
    pub skip_bad: bool,
}

/// What crops are for.
#[derive(Debug, Clone, Copy)]
pub enum Task {
    /// Random boxes in random order, without an end.
    Train {
        /// Views of an example.
        views: usize,
        /// The run's seed: of the order and of the boxes.
        seed: u64,
        /// Examples of the window that shuffles a set in shards.
        window: usize,
        /// Equal stretches of an epoch of a set in shards that are read side by side, each by one process; they divide the batch. With
        /// as many, a step is the same however many processes share it.
        pipelines: usize,
        /// The first step.
        start: u64,
    },
    /// What evaluation sees of every example (reference §2.4, §2.5), once, in the order of the set.
    Evaluate,
}

/// A process among those that share each step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Its number, from 0.
    pub process: usize,
    /// How many there are.
    pub processes: usize,
}

impl Share {
    /// The only process.
    pub const ALL: Share = Share {
        process: 0,
        processes: 1,
    };
}

/// The crops of an example.
#[derive(Debug, Clone)]
pub struct Crops {
    /// u8 `[views, S, S, 3]`.
    pub pixels: Vec<u8>,
    /// Its class.
    pub label: u32,
}

/// What the threads spent their time on, summed over them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stages {
    /// Waiting for the bytes of an example.
    pub read: Duration,
    /// Decoding.
    pub decode: Duration,
    /// Cutting and resizing.
    pub crop: Duration,
}

impl Stages {
    /// What was added since an earlier moment.
    pub fn since(&self, earlier: &Stages) -> Stages {
        Stages {
            read: self.read.saturating_sub(earlier.read),
            decode: self.decode.saturating_sub(earlier.decode),
            crop: self.crop.saturating_sub(earlier.crop),
        }
    }

    /// The stage that takes the most, in words, and its share.
    pub fn longest(&self) -> (&'static str, f64) {
        let all = [
            ("reading", self.read),
            ("decoding", self.decode),
            ("cropping", self.crop),
        ];
        let sum = all
            .iter()
            .fold(Duration::ZERO, |sum, (_, time)| sum.add(*time));
        let (name, most) = all
            .into_iter()
            .max_by_key(|(_, time)| *time)
            .unwrap_or_default();
        (name, most.as_secs_f64() / sum.as_secs_f64().max(1e-9))
    }
}

/// The stream. Dropped, it ends its threads.
pub struct Feed {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Examples replaced or left out so far.
    skipped: usize,
    /// How many of its own examples lie before the next one, from the first step on.
    own: u64,
    /// The epoch that it is in, and the examples of it that could not be had.
    epoch: (u64, usize),
}

/// What the threads share.
struct Shared {
    spec: FeedSpec,
    /// Of a step, the examples that this process cuts.
    rows: Range<u64>,
    examples: Arc<Examples>,
    resize: HostResize,
    /// Locked for as long as a thread takes the next example, so that examples are taken in order.
    source: Mutex<(u64, Source)>,
    ring: Mutex<Ring>,
    /// Something was taken out of the ring, or it was closed.
    room: Condvar,
    /// Something was put into it, or it ended.
    filled: Condvar,
    /// Nanoseconds of reading, decoding, cropping.
    spent: [AtomicU64; 3],
}

/// Finished and expected crops, by their number among the process's own.
struct Ring {
    /// Number of the first place.
    first: u64,
    /// A place for every example that a thread has taken.
    places: VecDeque<Option<Result<Crops, Error>>>,
    /// Places at most.
    capacity: usize,
    /// Nobody wants more.
    closed: bool,
    /// There is no more.
    ended: bool,
}

/// A thread that panicked holding the lock has left nothing half done that matters.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Feed {
    /// Starts the threads.
    pub fn start(examples: Arc<Examples>, spec: FeedSpec) -> Self {
        Self::of_share(examples, spec, Share::ALL)
    }

    /// Starts the threads of one process of several that share each step in equal parts: every process follows the same order, of several
    /// pipelines that of its own, and decodes and cuts its own rows of each step. So a step is the same however many share it (but that
    /// a bad example is replaced by one of the same process).
    ///
    /// # Panics
    /// If the pipelines do not divide the batch.
    pub fn of_share(examples: Arc<Examples>, spec: FeedSpec, share: Share) -> Self {
        if let Task::Train { pipelines, .. } = spec.task {
            let divide = pipelines > 0 && spec.batch.is_multiple_of(pipelines);
            assert!(divide, "{pipelines} pipelines, a batch of {}", spec.batch);
        }
        let part = (spec.batch / share.processes) as u64;
        let rows = part * share.process as u64..part * (share.process + 1) as u64;
        let position = match spec.task {
            Task::Train { start, .. } => start * spec.batch as u64,
            Task::Evaluate => 0,
        };
        let source = spec.source(&examples, position, rows.clone());
        let own = position / spec.batch as u64 * part;
        let threads = match spec.threads {
            0 => std::thread::available_parallelism().map_or(1, |cores| cores.get()),
            threads => threads,
        };
        let shared = Arc::new(Shared {
            resize: HostResize::new(spec.kernel, spec.image_size),
            source: Mutex::new((position, source)),
            ring: Mutex::new(Ring {
                first: own,
                places: VecDeque::new(),
                // Two steps ahead, and work for every thread.
                capacity: (2 * part as usize).max(2 * threads),
                closed: false,
                ended: false,
            }),
            room: Condvar::new(),
            filled: Condvar::new(),
            spent: Default::default(),
            rows,
            examples,
            spec,
        });
        let threads = (0..threads)
            .map(|_| {
                let shared = shared.clone();
                std::thread::spawn(move || shared.work())
            })
            .collect();
        Feed {
            shared,
            threads,
            skipped: 0,
            own,
            epoch: (0, 0),
        }
    }

    /// Bytes of an example's crops.
    pub fn crop_bytes(&self) -> usize {
        let spec = &self.shared.spec;
        spec.views() * spec.image_size * spec.image_size * 3
    }

    /// The crops of the next step; fewer, and at last none, when every example was given.
    ///
    /// # Errors
    /// What was wrong with one of them, or with too many.
    pub fn step(&mut self) -> Result<Vec<Crops>, Error> {
        let rows = self.shared.rows.clone();
        let batch = (rows.end - rows.start) as usize;
        let examples = self.shared.examples.description().examples;
        let most = most_skipped(&self.shared.examples);
        let evaluate = matches!(self.shared.spec.task, Task::Evaluate);
        let mut found: Vec<Option<Crops>> = Vec::with_capacity(batch);
        let mut last = None;
        while found.len() < batch {
            let Some(next) = self.shared.next() else {
                break;
            };
            // The same example is bad in every epoch, so that each epoch counts anew.
            let position = self.own / batch as u64 * self.shared.spec.batch as u64
                + rows.start
                + self.own % batch as u64;
            let epoch = position / examples as u64;
            if epoch != self.epoch.0 {
                self.epoch = (epoch, 0);
            }
            self.own += 1;
            match next {
                Ok(crops) => found.push(Some(crops)),
                Err(error) if self.shared.spec.skip_bad && error.spoils_one_example() => {
                    tracing::warn!("skipped: {}", error.where_skipped());
                    self.skipped += 1;
                    self.epoch.1 += 1;
                    if self.epoch.1 > most {
                        return Err(self.too_many(most, error));
                    }
                    last = Some(error);
                    // Evaluation counts no example twice.
                    if !evaluate {
                        found.push(None);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        let none = if evaluate {
            // The last examples of a set may all be bad, but not all there are.
            found.is_empty() && self.skipped as u64 == self.own
        } else {
            found.iter().all(Option::is_none)
        };
        if let Some(last) = last
            && none
        {
            return Err(self.too_many(most, last));
        }
        Ok(replaced(found))
    }

    fn too_many(&self, most: usize, last: Error) -> Error {
        Error::TooManyBad {
            skipped: self.epoch.1,
            most,
            last: Box::new(last),
        }
    }

    /// Examples that were replaced or left out so far.
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// What the threads have spent their time on.
    pub fn stages(&self) -> Stages {
        let [read, decode, crop] = [0, 1, 2]
            .map(|i: usize| Duration::from_nanos(self.shared.spent[i].load(Ordering::Relaxed)));
        Stages { read, decode, crop }
    }
}

/// The first examples that a training stream takes, uncut but for the centre square that evaluation sees; none for a bad one, where the
/// specification skips those.
///
/// # Errors
/// What is wrong with one of them, or with too many.
pub fn originals(
    examples: &Examples,
    spec: &FeedSpec,
    count: usize,
) -> Result<Vec<Option<Crops>>, Error> {
    let mut source = spec.source(examples, 0, 0..count.min(spec.batch) as u64);
    let resize = HostResize::new(spec.kernel, spec.image_size);
    let most = most_skipped(examples);
    let (mut found, mut buffer, mut skipped) = (Vec::new(), Vec::new(), 0);
    while found.len() < count
        && let Some(raw) = source.next((found.len() % spec.batch) as u64)
    {
        match raw.and_then(|raw| centred(examples, raw, &resize, &mut buffer)) {
            Ok(crops) => found.push(Some(crops)),
            Err(error) if spec.skip_bad && error.spoils_one_example() => {
                skipped += 1;
                if skipped > most || skipped == count {
                    return Err(Error::TooManyBad {
                        skipped,
                        most,
                        last: Box::new(error),
                    });
                }
                tracing::warn!("skipped: {}", error.where_skipped());
                found.push(None);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn centred(
    examples: &Examples,
    raw: Raw,
    resize: &HostResize,
    buffer: &mut Vec<u8>,
) -> Result<Crops, Error> {
    let raw = examples.fetch(raw)?;
    let image = examples.decode(&raw, buffer)?;
    let mut pixels = vec![0; resize.size() * resize.size() * 3];
    let area = evaluated(image.height, image.width, resize.size());
    resize.crop(image.pixels, image.width, area, &mut pixels);
    Ok(Crops {
        pixels,
        label: image.label,
    })
}

/// Bad examples of an epoch that may be skipped.
fn most_skipped(examples: &Examples) -> usize {
    (examples.description().examples / 100).max(10)
}

/// A step without its bad examples. The place of each goes to the good one before it, at the beginning of a step to the one after: a
/// function of the step alone, so that resuming changes nothing.
pub fn replaced(mut found: Vec<Option<Crops>>) -> Vec<Crops> {
    for place in 1..found.len() {
        if found[place].is_none() {
            found[place] = found[place - 1].clone();
        }
    }
    for place in (1..found.len()).rev() {
        if found[place - 1].is_none() {
            found[place - 1] = found[place].clone();
        }
    }
    found.into_iter().flatten().collect()
}

impl FeedSpec {
    /// The examples from a position on, the beginning of a step; of a step at least those `rows`.
    fn source(&self, examples: &Examples, position: u64, rows: Range<u64>) -> Source {
        match self.task {
            Task::Train {
                seed,
                window,
                pipelines,
                ..
            } => {
                let pipelines = Pipelines {
                    count: pipelines,
                    batch: self.batch as u64,
                    rows,
                };
                examples.training(seed, window, position, pipelines)
            }
            Task::Evaluate => examples.straight(),
        }
    }

    fn views(&self) -> usize {
        match self.task {
            Task::Train { views, .. } => views,
            Task::Evaluate => 1,
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        lock(&self.shared.ring).closed = true;
        self.shared.room.notify_all();
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

impl Shared {
    /// Waits for the example of the first place; none after the last.
    fn next(&self) -> Option<Result<Crops, Error>> {
        let mut ring = lock(&self.ring);
        loop {
            match ring.places.front() {
                Some(Some(_)) => {
                    let found = ring.places.pop_front().flatten();
                    ring.first += 1;
                    self.room.notify_one();
                    return found;
                }
                None if ring.ended => return None,
                _ => {
                    ring = self
                        .filled
                        .wait(ring)
                        .unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    fn work(&self) {
        let mut buffer = Vec::new();
        while let Some((number, position, raw)) = self.claim() {
            // A decoder that panics has met a picture that it cannot read, and ends neither the thread nor the run.
            let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                raw.and_then(|raw| self.crops(position, raw, &mut buffer))
            }));
            let crops = made.unwrap_or(Err(Error::DecoderPanicked { position }));
            let mut ring = lock(&self.ring);
            let place = (number - ring.first) as usize;
            ring.places[place] = Some(crops);
            self.filled.notify_one();
        }
    }

    /// The next of this process's examples, its number among them and its position among all, with a place in the ring; none when the
    /// stream has ended or is closed.
    fn claim(&self) -> Option<(u64, u64, Result<Raw, Error>)> {
        let mut source = lock(&self.source);
        let mut ring = lock(&self.ring);
        while !ring.closed && ring.places.len() == ring.capacity {
            ring = self.room.wait(ring).unwrap_or_else(PoisonError::into_inner);
        }
        if ring.closed || ring.ended {
            return None;
        }
        drop(ring);
        let begin = Instant::now();
        // What is wrong with another process's example is for that process to say.
        // After an error that is not of one example nothing comes; that is for everybody to say.
        let over = |raw: &Option<Result<Raw, Error>>| match raw {
            Some(Err(error)) => !error.spoils_one_example(),
            other => other.is_none(),
        };
        let raw = loop {
            let row = source.0 % self.spec.batch as u64;
            if source.1.reads(row) {
                let raw = source.1.next(row);
                if self.rows.contains(&row) || over(&raw) {
                    break raw;
                }
            }
            source.0 += 1;
        };
        self.spend(0, begin);
        let mut ring = lock(&self.ring);
        match raw {
            Some(raw) => {
                ring.places.push_back(None);
                let position = source.0;
                source.0 += 1;
                let number = ring.first + ring.places.len() as u64 - 1;
                Some((number, position, raw))
            }
            None => {
                ring.ended = true;
                self.filled.notify_one();
                None
            }
        }
    }

    fn spend(&self, stage: usize, begin: Instant) {
        let time = begin.elapsed().as_nanos() as u64;
        self.spent[stage].fetch_add(time, Ordering::Relaxed);
    }

    fn crops(&self, position: u64, raw: Raw, buffer: &mut Vec<u8>) -> Result<Crops, Error> {
        let spec = &self.spec;
        let begin = Instant::now();
        let raw = self.examples.fetch(raw)?;
        self.spend(0, begin);
        let begin = Instant::now();
        let image = self.examples.decode(&raw, buffer)?;
        self.spend(1, begin);
        let begin = Instant::now();
        let (step, place) = (
            (position / spec.batch as u64) as u32,
            (position % spec.batch as u64) as u32,
        );
        let bytes = spec.image_size * spec.image_size * 3;
        let mut pixels = vec![0; spec.views() * bytes];
        for (view, out) in pixels.chunks_exact_mut(bytes).enumerate() {
            let area = match spec.task {
                Task::Train { seed, .. } => {
                    HostDraws::new(seed, step).crop(place, view as u32, image.height, image.width)
                }
                Task::Evaluate => evaluated(image.height, image.width, spec.image_size),
            };
            self.resize.crop(image.pixels, image.width, area, out);
        }
        self.spend(2, begin);
        Ok(Crops {
            pixels,
            label: image.label,
        })
    }
}
