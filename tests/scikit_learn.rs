//! k-NN and linear probe against scikit-learn: `tests/scikit_learn/make.py` made the numbers, on features of the same formula.

mod common;

use serde_json::Value;
use simclr::eval::{Features, Knn, Probe, fit_probe, knn};

const WIDTH: usize = 24;
const CLASSES: usize = 7;

/// SplitMix64 of a number, as a multiple of 2⁻²⁴ in [0, 1).
fn uniform(number: u64) -> f64 {
    let step = 0x9E37_79B9_7F4A_7C15u64;
    let mut z = number.wrapping_mul(step).wrapping_add(step);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 40) as f64 / f64::from(1u32 << 24)
}

/// As `features` of the script.
fn features(first: usize, count: usize, spread: f64) -> Features {
    let mut values = Vec::new();
    let labels: Vec<u32> = (0..count).map(|i| ((first + i) % CLASSES) as u32).collect();
    for (i, &label) in labels.iter().enumerate() {
        for j in 0..WIDTH {
            let centre = uniform((1_000_000_000 + label as usize * WIDTH + j) as u64);
            let at = ((first + i) * WIDTH + j) * 4;
            let noise: f64 = (0..4).map(|k| uniform((at + k) as u64)).sum::<f64>() - 2.0;
            let value = (centre + spread * noise) * (1 + j % 5) as f64 + j as f64 / 8.0;
            values.push(value as f32);
        }
    }
    Features {
        width: WIDTH,
        values,
        labels,
    }
}

#[test]
fn knn_and_probe_agree_with_scikit_learn() {
    let numbers: Value = serde_json::from_str(include_str!("scikit_learn/numbers.json")).unwrap();
    let engine = common::engine(1);
    for case in numbers["cases"].as_array().unwrap() {
        let size = |key: &str| case[key].as_u64().unwrap() as usize;
        let (count, tested) = (size("train"), size("test"));
        let spread = case["spread"].as_f64().unwrap();
        let train = features(0, count, spread);
        let test = features(count, tested, spread);
        let hits = |share: f64| (share * tested as f64).round() as u64;

        let asked = case["knn"].as_array().unwrap();
        let settings: Vec<Knn> = asked
            .iter()
            .map(|one| Knn {
                k: one["k"].as_u64().unwrap() as usize,
                temperature: one["temperature"].as_f64().unwrap() as f32,
            })
            .collect();
        let found = knn(&engine, &train, &test, &settings).unwrap();
        for (one, &share) in asked.iter().zip(&found) {
            assert_eq!(hits(share), one["hits"].as_u64().unwrap(), "{one}");
        }
        for one in case["probe"].as_array().unwrap() {
            let settings = Probe {
                l2: one["l2"].as_f64().unwrap(),
                ..Probe::default()
            };
            let fitted = fit_probe(&engine, &train, &test, settings).unwrap();
            assert_eq!(
                hits(fitted.accuracy),
                one["hits"].as_u64().unwrap(),
                "{one}"
            );
            let least = one["objective"].as_f64().unwrap();
            let above = fitted.objective / least - 1.0;
            assert!(above.abs() < 1e-5, "{above} above the least of {one}");
        }
    }
}
