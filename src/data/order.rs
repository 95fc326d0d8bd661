//! What example comes when: a pure function of (seed, epoch, number of examples).
//!
//! Every epoch is a permutation of the whole set, and epochs follow one another without a gap: a
//! batch may straddle two of them, nothing is dropped and nothing comes twice within an epoch. That
//! is the law of the original's shuffle → repeat → batch (reference §9.1) with a shuffle buffer as
//! large as the set.
//!
//! The permutation of an epoch is the Fisher–Yates shuffle of 0, 1, …, n−1, from the last place
//! down, driven by SplitMix64 keyed by (seed, epoch). It is part of what a seed means: it never
//! changes between platforms or versions.

use super::rng::Stream;

/// Sets the streams of this module apart from others with the same seed ("ORDER").
const PURPOSE: u64 = 0x004f_5244_4552;

/// The examples of epoch `epoch` (from 0) in the order in which they come: a permutation of
/// `0..examples`.
pub fn epoch_permutation(seed: u64, epoch: u64, examples: u32) -> Vec<u32> {
    let mut stream = Stream::new([PURPOSE, seed, epoch]);
    let mut order: Vec<u32> = (0..examples).collect();
    for last in (1..order.len()).rev() {
        let chosen = stream.below(last as u64 + 1) as usize;
        order.swap(last, chosen);
    }
    order
}

/// The endless sequence of examples of a training run, addressed by position: position `p` is the
/// `p`-th example since the start of training, so the batch of step `s` begins at `s · batch`.
///
/// Access is random, and cheap while it stays within an epoch: the permutation last used is kept.
#[derive(Debug, Clone)]
pub struct Order {
    seed: u64,
    examples: u32,
    /// The epoch whose permutation is held.
    epoch: u64,
    permutation: Vec<u32>,
}

impl Order {
    /// The order that `seed` gives to a set of `examples` examples.
    ///
    /// # Panics
    /// If `examples` is 0 or above `u32::MAX`; a loaded [`ImageSet`](super::ImageSet) is never
    /// empty.
    pub fn new(seed: u64, examples: usize) -> Self {
        assert!(examples > 0, "an order needs at least one example");
        let examples = u32::try_from(examples).expect("at most 2^32 - 1 examples");
        Order {
            seed,
            examples,
            epoch: 0,
            permutation: epoch_permutation(seed, 0, examples),
        }
    }

    /// The `count` examples from position `start` on, as indices into the set.
    pub fn indices(&mut self, start: u64, count: usize) -> Vec<u32> {
        let examples = u64::from(self.examples);
        let mut indices = Vec::with_capacity(count);
        let mut epoch = start / examples;
        // Less than `examples`, which is a u32.
        let mut within = (start % examples) as usize;
        while indices.len() < count {
            if self.epoch != epoch {
                self.permutation = epoch_permutation(self.seed, epoch, self.examples);
                self.epoch = epoch;
            }
            let end = self.permutation.len().min(within + count - indices.len());
            indices.extend_from_slice(&self.permutation[within..end]);
            within = 0;
            epoch += 1;
        }
        indices
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_visits_each_example_once() {
        for examples in [1, 2, 3, 10, 1000] {
            for epoch in 0..3 {
                let mut order = epoch_permutation(5, epoch, examples);
                order.sort_unstable();
                assert_eq!(order, (0..examples).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn epochs_and_seeds_differ() {
        let reference = epoch_permutation(1, 0, 100);
        assert_ne!(reference, epoch_permutation(1, 1, 100));
        assert_ne!(reference, epoch_permutation(2, 0, 100));
        // Exchanging seed and epoch must not give the same stream.
        assert_ne!(epoch_permutation(1, 2, 100), epoch_permutation(2, 1, 100));
    }

    #[test]
    fn every_place_is_equally_likely() {
        let mut counts = [[0u32; 5]; 5];
        for seed in 0..10_000 {
            for (place, &example) in epoch_permutation(seed, 0, 5).iter().enumerate() {
                counts[place][example as usize] += 1;
            }
        }
        // Binomial(10000, 1/5): standard deviation 40.
        assert!(
            counts.iter().flatten().all(|&c| (1800..2200).contains(&c)),
            "{counts:?}"
        );
    }

    #[test]
    fn the_sequence_is_pinned() {
        // Values of a second implementation, written from the description at the top in another
        // language.
        assert_eq!(epoch_permutation(0, 0, 10), [1, 2, 5, 4, 7, 9, 0, 3, 6, 8]);
        assert_eq!(epoch_permutation(42, 7, 10), [8, 4, 0, 5, 9, 2, 3, 1, 6, 7]);
        assert_eq!(
            Order::new(42, 50_000).indices(49_998, 4),
            [24_802, 49_362, 31_454, 11_079]
        );
    }

    #[test]
    fn batches_straddle_epochs_and_drop_nothing() {
        let mut order = Order::new(3, 10);
        let expected: Vec<u32> = (0..4)
            .flat_map(|epoch| epoch_permutation(3, epoch, 10))
            .collect();
        for batch in [1, 3, 4, 7, 10, 23, 40] {
            let steps = 40 / batch;
            let got: Vec<u32> = (0..steps)
                .flat_map(|step| order.indices((step * batch) as u64, batch))
                .collect();
            assert_eq!(got, expected[..steps * batch], "batch {batch}");
        }
    }

    #[test]
    fn random_access_equals_sequential() {
        let sequential = Order::new(9, 17).indices(0, 500);
        let mut order = Order::new(9, 17);
        let mut stream = Stream::new([0, 0, 1]);
        for _ in 0..300 {
            let start = stream.below(450) as usize;
            let count = stream.below(50) as usize;
            assert_eq!(
                order.indices(start as u64, count),
                sequential[start..start + count]
            );
        }
    }

    #[test]
    fn far_positions_work() {
        let mut order = Order::new(9, 17);
        let far = (u64::MAX / 17 - 2) * 17;
        assert_eq!(
            order.indices(far, 17),
            epoch_permutation(9, u64::MAX / 17 - 2, 17)
        );
    }
}
