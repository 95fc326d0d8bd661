//! Initial values, the same on every platform: element `i` of variable `number` depends on the seed, the number and `i` alone.

use pulp::Arch;

use super::normal::Draws;
use super::{Init, Variable};

/// Standard deviation of a unit normal cut at ±2; dividing by it restores unit variance (reference §3.11).
const TRUNCATED_DEVIATION: f64 = 0.879_625_661_034_239_8;

/// The initial elements of a variable, row-major.
pub fn initial_value(variable: &Variable, number: usize, seed: u64) -> Vec<f32> {
    drawn(variable, key(number, seed), Arch::new())
}

fn key(number: usize, seed: u64) -> [u32; 2] {
    // The constant keeps this stream apart from that of the augmentations, which also start from the seed.
    [
        seed as u32 ^ 0x696e_6974,
        (seed >> 32) as u32 ^ number as u32,
    ]
}

/// With these vectors; what is drawn does not depend on them.
fn drawn(variable: &Variable, key: [u32; 2], arch: Arch) -> Vec<f32> {
    let (scale, limit) = match variable.init {
        Init::Constant(value) => return vec![value as f32; variable.elements()],
        Init::Normal(deviation) => (deviation, f64::INFINITY),
        Init::TruncatedNormal { fan_in } => {
            ((1.0 / fan_in as f64).sqrt() / TRUNCATED_DEVIATION, 2.0)
        }
    };
    let mut values = vec![0.0; variable.elements()];
    arch.dispatch(Draws {
        key,
        scale,
        limit,
        out: &mut values,
    });
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::Kind;
    use crate::random::{open_uniform, threefry2x32};

    fn variable(init: Init, dims: &[i64]) -> Variable {
        Variable {
            name: "x".into(),
            dims: dims.to_vec(),
            kind: Kind::ConvKernel,
            init,
        }
    }

    fn statistics(init: Init, dims: &[i64]) -> (f64, f64, f64) {
        let values = initial_value(&variable(init, dims), 3, 7);
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

    /// Box–Muller as it is written down, an element at a time.
    fn plain(init: Init, key: [u32; 2], element: u32) -> f32 {
        let normal = |attempt| {
            let [a, b] = threefry2x32(key, [element, attempt]);
            let radius = (-2.0 * open_uniform(a).ln()).sqrt();
            radius * (std::f64::consts::TAU * open_uniform(b)).cos()
        };
        match init {
            Init::Constant(value) => value as f32,
            Init::Normal(deviation) => (deviation * normal(0)) as f32,
            Init::TruncatedNormal { fan_in } => {
                let scale = (1.0 / fan_in as f64).sqrt() / TRUNCATED_DEVIATION;
                let value = (0..).map(normal).find(|value| value.abs() <= 2.0);
                (scale * value.expect("one of them")) as f32
            }
        }
    }

    /// With the widest vectors and with none, and where the last part is not full.
    #[test]
    fn initial_values_are_those_of_the_definition() {
        const MANY: u32 = 300_001;
        for init in [
            Init::Normal(0.01),
            Init::TruncatedNormal { fan_in: 576 },
            Init::Constant(0.1),
        ] {
            let key = key(3, 7 << 32 | 11);
            let expected: Vec<f32> = (0..MANY).map(|i| plain(init, key, i)).collect();
            for arch in [Arch::new(), Arch::Scalar] {
                let found = drawn(&variable(init, &[MANY.into()]), key, arch);
                assert_eq!(found.len(), expected.len());
                let mut others = 0;
                for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                    // Of one sign, neighbours have neighbouring bits.
                    let apart = found.to_bits().abs_diff(expected.to_bits());
                    assert!(apart <= 1, "{init:?} {arch:?} {i}: {found}, not {expected}");
                    others += apart;
                }
                assert!(others <= MANY / 100_000, "{init:?} {arch:?}: {others}");
                let others = &drawn(&variable(init, &[MANY.into()]), key, Arch::Scalar);
                assert!(
                    found == *others,
                    "{init:?} {arch:?}: not as without vectors"
                );
                for few in [0, 1, 31, 32, 33, 2047, 2048, 2049] {
                    let few_found = drawn(&variable(init, &[few as i64]), key, arch);
                    assert_eq!(few_found, found[..few], "{init:?} {arch:?}");
                }
            }
        }
    }
}
