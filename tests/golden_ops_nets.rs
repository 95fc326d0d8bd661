//! Operations of networks, losses and optimizers against numbers of the original (`ops*.json`).

mod golden_support;

use golden_support::*;

#[test]
fn golden_generators_and_fingerprints() {
    for case in ops("gen") {
        let found = tensor(&case["inputs"]["x"]);
        assert_eq!(found, tensor(&case["expect"]["x"]), "{}", id(&case));
    }
    for case in ops("fingerprint") {
        let found = tensor(&case["inputs"]["x"]).wide();
        let expected = &case["expect"]["x"];
        for (key, found) in [
            ("l2", norm(&found)),
            ("proj", projection(&found)),
            ("mean", found.iter().sum::<f64>() / found.len() as f64),
        ] {
            assert!(
                (found - number(&expected[key])).abs() < 1e-8 * number(&expected["l2"]),
                "{}: {key} {found}",
                id(&case)
            );
        }
        let samples = numbers(&expected["samples"]);
        let found: Vec<f32> = sampled(&found, samples.len())
            .iter()
            .map(|&x| x as f32)
            .collect();
        let samples: Vec<f32> = samples.iter().map(|&x| x as f32).collect();
        assert_eq!(found, samples, "{}", id(&case));
    }
}
