//! The order of a set in shards, which is read as a stream: what arrives when, and what is given out when.
//!
//! An epoch is a pure function of (seed, epoch, the shards' lengths, window, pipeline), in three steps:
//!
//! 1. The shards are shuffled and laid end to end; each pipeline takes an equal stretch of the whole. Usually there is one.
//! 2. All pipelines together read [`OPEN`] shards side by side, each at least two, a record of each in turn. That is the order of arrival.
//! 3. A window of records, `window` in all pipelines together, lies between arrival and use: each time a random one of them goes out and
//!    the next arrival takes its place, as in the original's shuffle buffer (reference §9.1). At the end of an epoch the window runs
//!    empty.
//!
//! So an epoch visits each example once, in all pipelines together, and whoever resumes in its middle needs only what is still to
//! come. Like [`Order`](super::Order) it is part of what a seed means, and never changes.

use super::rng::Stream;

/// Shards read side by side by a single pipeline.
pub const OPEN: usize = 16;

/// Sets the streams of this module apart from others with the same seed ("SHARD", "WINDO").
const SHARDS: u64 = 0x0053_4841_5244;
const WINDOW: u64 = 0x0057_494e_444f;

/// One of the equal stretches of an epoch that are read side by side (`input_pipelines`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pipeline {
    /// Its number, from 0.
    pub number: usize,
    /// How many there are.
    pub count: usize,
}

impl Pipeline {
    /// The only one.
    pub const WHOLE: Pipeline = Pipeline {
        number: 0,
        count: 1,
    };
}

/// The order of every epoch of a set in shards.
#[derive(Debug, Clone)]
pub struct WindowOrder {
    seed: u64,
    /// Records of each shard.
    lengths: Vec<u64>,
    /// The example that each shard begins with; examples are numbered through all shards in the order of their files.
    starts: Vec<u64>,
    window: usize,
    pipeline: Pipeline,
}

/// One epoch of a pipeline; examples by their number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch {
    /// The order in which they are read.
    pub arrivals: Vec<u32>,
    /// The order in which they are used.
    pub order: Vec<u32>,
}

impl WindowOrder {
    /// The order that `seed` gives to shards of these lengths; `window` is that of all pipelines together.
    ///
    /// # Panics
    /// If there are more than `u32::MAX` examples, or none in the pipeline.
    pub fn new(seed: u64, lengths: &[u64], window: usize, pipeline: Pipeline) -> Self {
        let mut starts = Vec::with_capacity(lengths.len());
        let mut total = 0;
        for length in lengths {
            starts.push(total);
            total += length;
        }
        assert!(u32::try_from(total).is_ok(), "at most 2^32 - 1 examples");
        let order = WindowOrder {
            seed,
            lengths: lengths.to_vec(),
            starts,
            window: window.div_ceil(pipeline.count).max(1),
            pipeline,
        };
        assert!(order.len() > 0, "a pipeline needs at least one example");
        order
    }

    /// The stretch of the shards laid end to end that the pipeline takes.
    fn stretch(&self) -> [u64; 2] {
        let total: u64 = self.lengths.iter().sum();
        let (number, count) = (self.pipeline.number as u64, self.pipeline.count as u64);
        [number, number + 1].map(|edge| total * edge / count)
    }

    /// Shards that are read side by side.
    pub(super) fn side_by_side(&self) -> usize {
        (OPEN / self.pipeline.count).max(2)
    }

    /// Examples of an epoch of the pipeline; at least 1.
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> u64 {
        let [from, to] = self.stretch();
        to - from
    }

    /// How many shards there are.
    pub(super) fn shards(&self) -> usize {
        self.lengths.len()
    }

    /// Shard and place within it of an example.
    pub fn locate(&self, example: u32) -> (usize, usize) {
        let shard = self
            .starts
            .partition_point(|&start| start <= u64::from(example))
            - 1;
        // Empty shards begin where their successor does, which is the one found.
        (shard, (u64::from(example) - self.starts[shard]) as usize)
    }

    /// The examples of epoch `epoch`, from 0.
    pub fn epoch(&self, epoch: u64) -> Epoch {
        let arrivals = self.arrivals(epoch);
        let mut stream = Stream::new([WINDOW + self.pipeline.number as u64, self.seed, epoch]);
        let mut window: Vec<u32> = Vec::with_capacity(self.window);
        let mut order = Vec::with_capacity(arrivals.len());
        let mut arriving = arrivals.iter().copied();
        window.extend(arriving.by_ref().take(self.window));
        while !window.is_empty() {
            let chosen = stream.below(window.len() as u64) as usize;
            order.push(match arriving.next() {
                Some(next) => std::mem::replace(&mut window[chosen], next),
                None => window.swap_remove(chosen),
            });
        }
        Epoch { arrivals, order }
    }

    fn arrivals(&self, epoch: u64) -> Vec<u32> {
        let mut stream = Stream::new([SHARDS, self.seed, epoch]);
        let mut shards: Vec<usize> = (0..self.lengths.len()).collect();
        for last in (1..shards.len()).rev() {
            shards.swap(last, stream.below(last as u64 + 1) as usize);
        }
        // The parts of shards that fall into the stretch.
        let [from, to] = self.stretch();
        let mut before = 0;
        let mut parts = Vec::new();
        for shard in shards {
            let after = before + self.lengths[shard];
            let (low, high) = (from.max(before), to.min(after));
            if low < high {
                let start = self.starts[shard];
                parts.push(start + (low - before)..start + (high - before));
            }
            before = after;
        }
        let mut arrivals = Vec::with_capacity((to - from) as usize);
        let mut waiting = parts.into_iter();
        let mut open: Vec<_> = waiting.by_ref().take(self.side_by_side()).collect();
        while !open.is_empty() {
            open.retain_mut(|part| {
                if let Some(example) = part.next() {
                    arrivals.push(example as u32);
                }
                if part.is_empty() {
                    match waiting.next() {
                        Some(next) => *part = next,
                        None => return false,
                    }
                }
                true
            });
        }
        arrivals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTHS: [u64; 7] = [5, 40, 0, 17, 33, 1, 24];

    fn sorted(mut list: Vec<u32>) -> Vec<u32> {
        list.sort_unstable();
        list
    }

    #[test]
    fn every_example_comes_once_in_all_pipelines_together() {
        for count in [1, 2, 3, 7] {
            for epoch in 0..3 {
                let mut all = Vec::new();
                for number in 0..count {
                    let pipeline = Pipeline { number, count };
                    let order = WindowOrder::new(9, &LENGTHS, 8, pipeline);
                    let found = order.epoch(epoch);
                    assert_eq!(found.order.len() as u64, order.len());
                    assert_eq!(sorted(found.arrivals), sorted(found.order.clone()));
                    all.extend(found.order);
                }
                assert_eq!(sorted(all), (0..120).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn what_is_used_has_arrived_and_the_window_holds_the_rest() {
        for window in [1, 2, 10, 119, 500] {
            let epoch = WindowOrder::new(1, &LENGTHS, window, Pipeline::WHOLE).epoch(4);
            for (place, example) in epoch.order.iter().enumerate() {
                let arrival = epoch.arrivals.iter().position(|x| x == example).unwrap();
                assert!(arrival < place + window, "window {window}, place {place}");
            }
            // Of three pipelines each has a third of it.
            let pipeline = Pipeline {
                number: 1,
                count: 3,
            };
            let third = WindowOrder::new(1, &LENGTHS, window, pipeline).epoch(4);
            for (place, example) in third.order.iter().enumerate() {
                let arrival = third.arrivals.iter().position(|x| x == example).unwrap();
                assert!(arrival < place + window.div_ceil(3), "a third of {window}");
            }
        }
    }

    #[test]
    fn examples_are_found_in_their_shards() {
        let order = WindowOrder::new(1, &LENGTHS, 4, Pipeline::WHOLE);
        let mut example = 0;
        for (shard, &length) in LENGTHS.iter().enumerate() {
            for place in 0..length as usize {
                assert_eq!(order.locate(example), (shard, place));
                example += 1;
            }
        }
    }

    #[test]
    fn epochs_and_seeds_differ() {
        let of = |seed, epoch| {
            WindowOrder::new(seed, &LENGTHS, 16, Pipeline::WHOLE)
                .epoch(epoch)
                .order
        };
        assert_ne!(of(1, 0), of(1, 1));
        assert_ne!(of(1, 2), of(2, 1));
        assert_ne!(of(1, 0), (0..120).collect::<Vec<_>>());
    }

    /// A window as large as the set shuffles it whole: every place is equally likely for every example.
    #[test]
    fn a_large_window_is_a_whole_shuffle() {
        let mut counts = [[0u32; 5]; 5];
        for seed in 0..10_000 {
            let epoch = WindowOrder::new(seed, &[2, 3], 5, Pipeline::WHOLE).epoch(0);
            for (place, &example) in epoch.order.iter().enumerate() {
                counts[place][example as usize] += 1;
            }
        }
        // Binomial(10000, 1/5): standard deviation 40.
        assert!(
            counts.iter().flatten().all(|&c| (1800..2200).contains(&c)),
            "{counts:?}"
        );
    }

    /// How far an example moves by the window alone, as the original's buffer does: backwards without a bound, and
    /// forwards by less than the window.
    #[test]
    fn the_window_moves_examples_as_far_as_a_shuffle_buffer() {
        let (total, window) = (40_000u64, 1000);
        let epoch = WindowOrder::new(3, &[total], window, Pipeline::WHOLE).epoch(0);
        let delays: Vec<f64> = epoch
            .order
            .iter()
            .enumerate()
            .map(|(place, &example)| place as f64 - f64::from(example))
            .collect();
        // In the buffer an example waits for a geometric time of mean `window`, and it entered it `window` places early.
        let middle = &delays[5000..35_000];
        let mean = middle.iter().sum::<f64>() / middle.len() as f64;
        let spread =
            (middle.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / middle.len() as f64).sqrt();
        assert!(mean.abs() < 60.0, "{mean}");
        assert!((spread - window as f64).abs() < 60.0, "{spread}");
        assert!(delays.iter().all(|&d| d > -(window as f64)));
    }
}
