//! Initial values, the same on every platform: element `i` of variable `number` depends on the seed, the number and `i` alone.

use super::{Init, Variable};
use crate::random::{open_uniform, threefry2x32};

/// Standard deviation of a unit normal cut at ±2; dividing by it restores unit variance (reference §3.11).
const TRUNCATED_DEVIATION: f64 = 0.879_625_661_034_239_8;

/// The initial elements of a variable, row-major.
pub fn initial_value(variable: &Variable, number: usize, seed: u64) -> Vec<f32> {
    // The constant keeps this stream apart from that of the augmentations, which also start from the seed.
    let key = [
        seed as u32 ^ 0x696e_6974,
        (seed >> 32) as u32 ^ number as u32,
    ];
    (0..variable.elements())
        .map(|element| match variable.init {
            Init::Constant(value) => value as f32,
            Init::Normal(deviation) => (deviation * normal(key, element as u32, 0)) as f32,
            Init::TruncatedNormal { fan_in } => {
                let scale = (1.0 / fan_in as f64).sqrt() / TRUNCATED_DEVIATION;
                let mut attempt = 0;
                loop {
                    let value = normal(key, element as u32, attempt);
                    if value.abs() <= 2.0 {
                        return (scale * value) as f32;
                    }
                    attempt += 1;
                }
            }
        })
        .collect()
}

/// A standard normal draw (Box–Muller).
fn normal(key: [u32; 2], element: u32, attempt: u32) -> f64 {
    let [a, b] = threefry2x32(key, [element, attempt]);
    let radius = (-2.0 * open_uniform(a).ln()).sqrt();
    radius * (std::f64::consts::TAU * open_uniform(b)).cos()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::Kind;

    fn statistics(init: Init, dims: &[i64]) -> (f64, f64, f64) {
        let variable = Variable {
            name: "x".into(),
            dims: dims.to_vec(),
            kind: Kind::ConvKernel,
            init,
        };
        let values = initial_value(&variable, 3, 7);
        let n = values.len() as f64;
        let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let variance = values
            .iter()
            .map(|&x| (f64::from(x) - mean).powi(2))
            .sum::<f64>()
            / n;
        let largest = values
            .iter()
            .fold(0.0f64, |m, &x| m.max(f64::from(x).abs()));
        (mean, variance.sqrt(), largest)
    }

    #[test]
    fn initial_values_have_the_stated_laws() {
        let (mean, deviation, largest) =
            statistics(Init::TruncatedNormal { fan_in: 576 }, &[3, 3, 64, 128]);
        let expected = (1.0f64 / 576.0).sqrt();
        assert!(
            mean.abs() < 4.0 * expected / (73_728f64).sqrt(),
            "mean {mean}"
        );
        assert!(
            (deviation / expected - 1.0).abs() < 0.01,
            "deviation {deviation} of {expected}"
        );
        assert!(
            largest <= 2.0 * expected / TRUNCATED_DEVIATION,
            "largest {largest}"
        );
        let (mean, deviation, largest) = statistics(Init::Normal(0.01), &[512, 128]);
        assert!(mean.abs() < 2e-4 && (deviation / 0.01 - 1.0).abs() < 0.01);
        assert!(largest > 0.03, "a plain normal is not cut: {largest}");
    }
}
