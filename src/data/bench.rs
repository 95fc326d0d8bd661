//! How fast a split becomes crops on this machine: each stage by itself, and the whole as training uses it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

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
    /// Reading records in the order of training, with their checks.
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
    let per_second = |count: usize, begin: Instant| count as f64 / begin.elapsed().as_secs_f64();

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
    let begin = Instant::now();
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
    let read = per_second(images, begin);

    let begin = Instant::now();
    parallel(threads, images, |i, buffer| {
        examples.decode(&raws[i % raws.len()], buffer).map(drop)
    })?;
    let decode = per_second(images, begin);

    let mut buffers = vec![Vec::new(); raws.len()];
    let pictures: Vec<Picture> = raws
        .iter()
        .zip(&mut buffers)
        .map(|(raw, buffer): (&Raw, _)| examples.decode(raw, buffer))
        .collect::<Result<_, _>>()?;
    let resize = HostResize::new(spec.kernel, spec.image_size);
    let draws = HostDraws::new(seed, 0);
    let begin = Instant::now();
    parallel(threads, images, |i, _| {
        let picture = &pictures[i % pictures.len()];
        let mut out = vec![0; spec.image_size * spec.image_size * 3];
        for view in 0..2 {
            let area = draws.crop(i as u32, view, picture.height, picture.width);
            resize.crop(picture.pixels, picture.width, area, &mut out);
        }
        Ok(())
    })?;
    let crop = per_second(images, begin);
    drop(pictures);
    drop(buffers);

    let mut feed = Feed::start(examples.clone(), spec);
    // Threads and window are warm after a step.
    feed.step()?;
    let begin = Instant::now();
    let mut count = 0;
    while count < images {
        count += feed.step()?.len();
    }
    let whole = per_second(count, begin);
    // Of all that the threads did: a small measurement may have been prepared whole by the first step.
    let Stages {
        read: r,
        decode: d,
        crop: c,
    } = feed.stages();
    let sum = (r + d + c).as_secs_f64().max(1e-9);
    Ok(Speeds {
        threads,
        images,
        read,
        decode,
        crop,
        whole,
        shares: [r, d, c].map(|time| time.as_secs_f64() / sum),
    })
}

/// Does `count` pieces of work on threads, each with a buffer of its own; the first error found ends it.
fn parallel(
    threads: usize,
    count: usize,
    work: impl Fn(usize, &mut Vec<u8>) -> Result<(), Error> + Sync,
) -> Result<(), Error> {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut buffer = Vec::new();
                    loop {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        if i >= count {
                            return Ok(());
                        }
                        work(i, &mut buffer)?;
                    }
                })
            })
            .collect();
        running
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or(Ok(())))
    })
}
