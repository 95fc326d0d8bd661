//! A stream of training crops: threads of our own take examples in order, cut their views, and keep a bounded number ready.
//!
//! What comes out is a pure function of the seed and the position: not of the number of threads, nor of where a run was resumed.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::{Error, Examples, Order};
use crate::augment::ResizeKernel;
use crate::augment::host::{HostDraws, HostResize};

/// What a stream is to give.
#[derive(Debug, Clone, Copy)]
pub struct FeedSpec {
    /// The run's seed: of the order and of the boxes.
    pub seed: u64,
    /// Examples of a step.
    pub batch: usize,
    /// Views of an example.
    pub views: usize,
    /// Side of a crop.
    pub image_size: usize,
    /// How crops are resized.
    pub kernel: ResizeKernel,
    /// The first step.
    pub start: u64,
    /// Threads; 0: one per core.
    pub threads: usize,
}

/// The crops of an example, u8 `[views, S, S, 3]`, and its class.
#[derive(Debug)]
struct Crops {
    pixels: Vec<u8>,
    label: u32,
}

/// The stream. Dropped, it ends its threads.
pub struct Feed {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What the threads share.
struct Shared {
    spec: FeedSpec,
    examples: Arc<Examples>,
    resize: HostResize,
    /// Locked for as long as a thread takes the next example, so that examples are taken in order.
    reader: Mutex<Reader>,
    ring: Mutex<Ring>,
    /// Something was taken out of the ring.
    room: Condvar,
    /// Something was put into it.
    filled: Condvar,
}

/// What example comes next.
struct Reader {
    position: u64,
    order: Order,
}

/// Finished and expected crops, by position.
struct Ring {
    /// Position of the first place.
    first: u64,
    /// A place for every example that a thread has taken.
    places: VecDeque<Option<Result<Crops, Error>>>,
    /// Places at most.
    capacity: usize,
    closed: bool,
}

/// A thread that panicked holding the lock has left nothing half done that matters: its place stays empty.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Feed {
    /// Starts the threads.
    pub fn start(examples: Arc<Examples>, spec: FeedSpec) -> Self {
        let position = spec.start * spec.batch as u64;
        let threads = match spec.threads {
            0 => std::thread::available_parallelism().map_or(1, |cores| cores.get()),
            threads => threads,
        };
        let shared = Arc::new(Shared {
            resize: HostResize::new(spec.kernel, spec.image_size),
            reader: Mutex::new(Reader {
                position,
                order: Order::new(spec.seed, examples.description().examples),
            }),
            ring: Mutex::new(Ring {
                first: position,
                places: VecDeque::new(),
                // Two steps ahead, and work for every thread.
                capacity: (2 * spec.batch).max(2 * threads),
                closed: false,
            }),
            room: Condvar::new(),
            filled: Condvar::new(),
            examples,
            spec,
        });
        let threads = (0..threads)
            .map(|_| {
                let shared = shared.clone();
                std::thread::spawn(move || shared.work())
            })
            .collect();
        Feed { shared, threads }
    }

    /// Bytes of an example's crops.
    pub fn crop_bytes(&self) -> usize {
        let spec = &self.shared.spec;
        spec.views * spec.image_size * spec.image_size * 3
    }

    /// Writes the next examples: crops u8 `[labels, views, S, S, 3]`.
    ///
    /// # Errors
    /// What was wrong with one of them.
    pub fn take(&mut self, crops: &mut [u8], labels: &mut [i32]) -> Result<(), Error> {
        for (crops, label) in crops.chunks_exact_mut(self.crop_bytes()).zip(labels) {
            let found = self.shared.next()?;
            crops.copy_from_slice(&found.pixels);
            *label = found.label as i32;
        }
        Ok(())
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
    /// Waits for the example of the first place.
    fn next(&self) -> Result<Crops, Error> {
        let mut ring = lock(&self.ring);
        loop {
            if let Some(Some(_)) = ring.places.front() {
                let found = ring.places.pop_front().flatten();
                ring.first += 1;
                self.room.notify_one();
                if let Some(found) = found {
                    return found;
                }
            }
            ring = self
                .filled
                .wait(ring)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn work(&self) {
        while let Some((position, index)) = self.claim() {
            let crops = self.crops(position, index);
            let mut ring = lock(&self.ring);
            let place = (position - ring.first) as usize;
            ring.places[place] = Some(crops);
            self.filled.notify_one();
        }
    }

    /// The next example, with a place in the ring; none when the stream is closed.
    fn claim(&self) -> Option<(u64, usize)> {
        let mut reader = lock(&self.reader);
        let mut ring = lock(&self.ring);
        while !ring.closed && ring.places.len() == ring.capacity {
            ring = self.room.wait(ring).unwrap_or_else(PoisonError::into_inner);
        }
        if ring.closed {
            return None;
        }
        ring.places.push_back(None);
        drop(ring);
        let position = reader.position;
        reader.position += 1;
        let index = reader.order.indices(position, 1)[0];
        Some((position, index as usize))
    }

    fn crops(&self, position: u64, index: usize) -> Result<Crops, Error> {
        let spec = &self.spec;
        let (step, place) = (
            (position / spec.batch as u64) as u32,
            (position % spec.batch as u64) as u32,
        );
        let image = self.examples.image(index);
        let draws = HostDraws::new(spec.seed, step);
        let bytes = spec.image_size * spec.image_size * 3;
        let mut pixels = vec![0; spec.views * bytes];
        for (view, out) in pixels.chunks_exact_mut(bytes).enumerate() {
            let area = draws.crop(place, view as u32, image.height, image.width);
            self.resize.crop(image.pixels, image.width, area, out);
        }
        Ok(Crops {
            pixels,
            label: image.label,
        })
    }
}
