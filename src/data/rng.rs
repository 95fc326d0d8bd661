//! The generator behind the order of examples and the pictures of `shapes32`: SplitMix64 (Steele,
//! Lea and Flood 2014).
//!
//! Written out here because its numbers are part of what a run is: they must be the same on every
//! platform and in every later version.

const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// A stream of numbers that depends on its key alone.
pub(super) struct Stream(u64);

impl Stream {
    /// The stream of `key`; different keys give unrelated streams.
    pub(super) fn new(key: [u64; 3]) -> Self {
        Stream(key.into_iter().fold(0, |state, word| {
            mix((state ^ word).wrapping_add(GOLDEN_GAMMA))
        }))
    }

    /// 64 random bits.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN_GAMMA);
        mix(self.0)
    }

    /// An integer below `bound`, uniform up to a bias of `bound`/2⁶⁴; 0 if `bound` is 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// A number in [0, 1) on the grid 2⁻²⁴.
    pub(super) fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 * (1.0 / 16_777_216.0)
    }

    /// A number in [`low`, `high`).
    pub(super) fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }
}

fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_the_published_vector() {
        let mut stream = Stream(1_234_567);
        let expected = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        assert_eq!([(); 5].map(|()| stream.next()), expected);
    }

    #[test]
    fn every_word_of_the_key_counts() {
        let first = |key| Stream::new(key).next();
        let all = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]].map(first);
        for (i, a) in all.iter().enumerate() {
            assert!(all[..i].iter().all(|b| a != b), "{all:?}");
        }
    }

    #[test]
    fn bounded_draws_are_uniform_and_in_range() {
        let mut stream = Stream::new([1, 2, 3]);
        let mut counts = [0; 7];
        (0..70_000).for_each(|_| counts[stream.below(7) as usize] += 1);
        assert!(
            counts.iter().all(|&c| (9_500..10_500).contains(&c)),
            "{counts:?}"
        );
        let mean = (0..10_000)
            .map(|_| stream.between(2.0, 4.0))
            .inspect(|x| assert!((2.0..4.0).contains(x)))
            .sum::<f32>()
            / 1e4;
        assert!((mean - 3.0).abs() < 0.02, "{mean}");
    }
}
