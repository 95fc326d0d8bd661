//! Reading numbers that the original produced: cases, generated inputs, fingerprints, error measures.
//!
//! A folder holds `ops*.json` and `model*.json`, each `{"format":"simclr-golden/1","file",…,"cases":[…]}`. `SIMCLR_GOLDEN_DIR`
//! names another folder with files of the same format; every test takes all the cases of its kinds that it finds there.
#![allow(dead_code)] // each test binary uses its part

use serde_json::Value as Json;
use simclr::hlo::{DType, Literal};
use std::path::PathBuf;

const FORMAT: &str = "simclr-golden/1";

/// The folder of the golden files.
pub fn folder() -> PathBuf {
    std::env::var_os("SIMCLR_GOLDEN_DIR")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden"))
}

/// All cases of all files of one sort, `ops` or `model`.
pub fn cases(file: &str) -> Vec<Json> {
    let folder = folder();
    let list = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("golden folder {}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = list
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(file) && name.ends_with(".json")
        })
        .collect();
    paths.sort();
    if paths.is_empty() {
        // Another folder may hold one sort only; a folder with neither is a mistake.
        let other = if file == "ops" { "model" } else { "ops" };
        let there = std::fs::read_dir(&folder)
            .into_iter()
            .flatten()
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().starts_with(other));
        let elsewhere = std::env::var_os("SIMCLR_GOLDEN_DIR").is_some();
        assert!(
            elsewhere && there,
            "no {file}*.json in {}",
            folder.display()
        );
        eprintln!("SKIPPED: no {file}*.json in {}", folder.display());
        return Vec::new();
    }
    let mut cases = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("a readable file");
        let mut content: Json = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(
            content["format"],
            FORMAT,
            "{}: the format of the file",
            path.display()
        );
        assert_eq!(content["file"], file, "{}", path.display());
        match content["cases"].take() {
            Json::Array(list) => cases.extend(list),
            _ => panic!("{}: no cases", path.display()),
        }
    }
    cases
}

/// The cases of one kind in `ops*.json`. Our own folder has every kind; another one may lack some, which is said.
pub fn ops(kind: &str) -> Vec<Json> {
    let found: Vec<Json> = cases("ops")
        .into_iter()
        .filter(|case| case["kind"] == kind)
        .collect();
    if found.is_empty() {
        assert!(
            std::env::var_os("SIMCLR_GOLDEN_DIR").is_some(),
            "no case of kind {kind}"
        );
        eprintln!("SKIPPED: no case of kind {kind} in {}", folder().display());
    }
    found
}

/// Where a case says what it is.
pub fn id(case: &Json) -> &str {
    case["id"].as_str().unwrap_or("?")
}

/// A number, also one written as a string because JSON has no infinities.
pub fn number(value: &Json) -> f64 {
    match value {
        Json::String(text) => text.parse().expect("a number in a string"),
        Json::Bool(flag) => f64::from(u8::from(*flag)),
        other => other
            .as_f64()
            .unwrap_or_else(|| panic!("a number, not {other}")),
    }
}

/// A list of numbers.
pub fn numbers(value: &Json) -> Vec<f64> {
    list(value).iter().map(number).collect()
}

/// A list.
pub fn list(value: &Json) -> &[Json] {
    value
        .as_array()
        .unwrap_or_else(|| panic!("a list, not {value}"))
}

/// A whole number.
pub fn integer(value: &Json) -> i64 {
    let found = number(value);
    assert_eq!(found.fract(), 0.0, "a whole number");
    found as i64
}

/// A word.
pub fn word(value: &Json) -> &str {
    value
        .as_str()
        .unwrap_or_else(|| panic!("a word, not {value}"))
}

/// A yes or no.
pub fn flag(value: &Json) -> bool {
    value
        .as_bool()
        .unwrap_or_else(|| panic!("true or false, not {value}"))
}

/// An array of the golden files: f32 values, or integers kept as such.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    pub dims: Vec<i64>,
    pub data: Vec<f32>,
}

impl Tensor {
    /// As an argument of this type.
    pub fn literal(&self, dtype: DType) -> Literal {
        Literal::from_f64s(dtype, &self.dims, &self.wide())
    }

    pub fn wide(&self) -> Vec<f64> {
        self.data.iter().map(|&x| f64::from(x)).collect()
    }
}

/// The product of dimensions.
fn count(dims: &[i64]) -> usize {
    dims.iter().product::<i64>() as usize
}

fn dims(tensor: &Json) -> Vec<i64> {
    list(&tensor["shape"]).iter().map(integer).collect()
}

/// An input: full, generated, or a variation of one.
pub fn tensor(value: &Json) -> Tensor {
    if !value["base"].is_null() {
        return variant(tensor(&value["base"]), word(&value["variant"]));
    }
    let dims = dims(value);
    let data = if value["gen"].is_null() {
        numbers(&value["data"]).iter().map(|&x| x as f32).collect()
    } else {
        generate(&value["gen"], &dims)
    };
    assert_eq!(data.len(), count(&dims), "elements of {value}");
    Tensor { dims, data }
}

fn variant(mut base: Tensor, name: &str) -> Tensor {
    let rows = base.dims[0] as usize;
    let width = base.data.len() / rows;
    let half = rows / 2 * width;
    let x = &mut base.data;
    match name {
        "correlated" => {
            for i in 0..half {
                x[half + i] = (f64::from(x[i]) + 0.5 * f64::from(x[half + i])) as f32;
            }
        }
        "identical_pairs" => x.copy_within(..half, half),
        "zero_row" => x[width..2 * width].fill(0.0),
        "all_equal" => (1..rows).for_each(|row| x.copy_within(..width, row * width)),
        "big" => x
            .iter_mut()
            .for_each(|x| *x = (50.0 * f64::from(*x)) as f32),
        "ties" => x.iter_mut().for_each(|x| *x = x.round_ties_even()),
        "tie_all" => x.fill(0.25),
        other => panic!("unknown variant {other}"),
    }
    base
}

fn mix(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(0x7feb_352d);
    x ^= x >> 15;
    x = x.wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

/// The hash of element `i` under a seed.
pub fn hash(i: usize, seed: u64) -> u32 {
    mix((i as u32).wrapping_add((seed as u32).wrapping_mul(0x9E37_79B9)))
}

/// The hash as a number in [0, 1).
pub fn uniform(i: usize, seed: u64) -> f64 {
    f64::from(hash(i, seed) >> 8) / f64::from(1u32 << 24)
}

/// A ramp that goes up and down between 0 and 255.
fn triangle(t: u64) -> u64 {
    let t = t % 512;
    if t < 256 { t } else { 511 - t }
}

fn generate(form: &Json, dims: &[i64]) -> Vec<f32> {
    let get = |key: &str| number(&form[key]);
    let seed = form["seed"].as_u64().unwrap_or(0);
    let n = count(dims);
    let each = |f: &dyn Fn(usize) -> f64| (0..n).map(|i| f(i) as f32).collect();
    let sides: Vec<u64> = dims.iter().map(|&d| d as u64).collect();
    // Coordinate of a flat index, counted from the last dimension.
    let coordinate = |i: usize, from_last: usize| {
        let place = sides.len() - 1 - from_last;
        let step: u64 = sides[place + 1..].iter().product();
        i as u64 / step % sides[place]
    };
    match word(&form["fn"]) {
        "hash" => {
            let (low, range) = (get("lo"), get("hi") - get("lo"));
            each(&|i| low + range * uniform(i, seed))
        }
        "signed" => {
            let (low, range) = (get("lo"), get("hi") - get("lo"));
            each(&|i| {
                let t = 2.0 * uniform(i, seed) - 1.0;
                let size = low + range * t.abs();
                if t < 0.0 { -size } else { size }
            })
        }
        "wave" => {
            let [a, b, amp, off] = ["a", "b", "amp", "off"].map(get);
            each(&|i| off + amp * (a * i as f64 + b).sin())
        }
        "const" => {
            let value = get("value");
            each(&|_| value)
        }
        "u8hash" => each(&|i| f64::from(hash(i, seed) >> 24)),
        "u8img" => each(&|i| {
            let (y, x, c) = (coordinate(i, 2), coordinate(i, 1), coordinate(i, 0));
            let t = (5 + seed % 7) * y + (3 + seed % 5) * x + 97 * c + 31 * seed;
            ((7 * triangle(t) + 3 * u64::from(hash(i, seed) >> 24)) / 10) as f64
        }),
        "views" => each(&|i| {
            let (n, y) = (coordinate(i, 3), coordinate(i, 2));
            let (x, c) = (coordinate(i, 1), coordinate(i, 0));
            let t = (7 + 5 * (n % 11)) * y + (11 + 3 * (n % 7)) * x + 97 * c + 53 * n + 31 * seed;
            0.7 * triangle(t) as f64 / 255.0 + 0.3 * uniform(i, seed)
        }),
        other => panic!("unknown generator {other}"),
    }
}

/// √Σx².
pub fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// A dot product with fixed pseudo-random numbers.
pub fn projection(x: &[f64]) -> f64 {
    x.iter()
        .enumerate()
        .map(|(i, x)| x * (2.0 * uniform(i, 999) - 1.0))
        .sum()
}

/// The elements that a fingerprint of `samples` elements holds.
pub fn sampled(x: &[f64], samples: usize) -> Vec<f64> {
    if x.len() <= samples {
        return x.to_vec();
    }
    (0..samples)
        .map(|k| x[hash(k, 7777) as usize % x.len()])
        .collect()
}

/// `‖a − b‖ / ‖b‖`, 0 where both vanish.
pub fn relative(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len(), "number of elements");
    let difference: Vec<f64> = found.iter().zip(expected).map(|(a, b)| a - b).collect();
    ratio(norm(&difference), norm(expected))
}

/// `difference / size`, but 0 for no difference, so that zeros equal zeros. Not a number is infinitely wrong.
fn ratio(difference: f64, size: f64) -> f64 {
    if difference == 0.0 {
        0.0
    } else if difference.is_finite() {
        difference / size
    } else {
        f64::INFINITY
    }
}

/// What is expected of an output: all elements or a fingerprint.
pub struct Expected<'a>(pub &'a Json);

impl Expected<'_> {
    /// The oracle's own rounding noise, relative; 0 where none is given.
    pub fn noise(&self) -> f64 {
        self.0["e"].as_f64().unwrap_or(0.0)
    }

    /// Whether nothing at all is expected to happen: a difference of exactly 0.
    pub fn unchanged(&self) -> bool {
        self.0.as_f64() == Some(0.0)
    }

    /// The l2 norm.
    pub fn l2(&self) -> f64 {
        if self.unchanged() {
            return 0.0;
        }
        match self.0["l2"].as_f64() {
            Some(l2) => l2,
            None => norm(&self.full().expect("elements or a norm")),
        }
    }

    /// All elements, where they are given.
    pub fn full(&self) -> Option<Vec<f64>> {
        (!self.0["data"].is_null()).then(|| numbers(&self.0["data"]))
    }

    /// The elements that are given: all, or samples.
    pub fn given(&self) -> Vec<f64> {
        self.full().unwrap_or_else(|| numbers(&self.0["samples"]))
    }

    /// Whether the dimensions are those expected, where those are given.
    pub fn shape_fits(&self, found: &[i64]) -> bool {
        self.0["shape"].is_null() || dims(self.0) == found
    }

    /// The relative error of the golden README: norm, projection and samples, each against the norm.
    pub fn error(&self, found: &[f64]) -> f64 {
        if self.unchanged() {
            return ratio(norm(found), 0.0);
        }
        if let Some(expected) = self.full() {
            return relative(found, &expected);
        }
        let l2 = self.l2();
        let mut error = ratio((norm(found) - l2).abs(), l2);
        if let Some(expected) = self.0["proj"].as_f64() {
            error = error.max(ratio((projection(found) - expected).abs(), l2));
        }
        if !self.0["samples"].is_null() {
            let expected = numbers(&self.0["samples"]);
            let found = sampled(found, expected.len());
            error = error.max(relative(&found, &expected));
        }
        error
    }

    /// The relative error of the norm alone.
    pub fn error_of_norm(&self, found: &[f64]) -> f64 {
        let l2 = self.l2();
        ratio((norm(found) - l2).abs(), l2)
    }

    /// The largest absolute error of the elements that are given.
    pub fn largest_error(&self, found: &[f64]) -> f64 {
        let expected = self.given();
        let found = if self.full().is_some() {
            found.to_vec()
        } else {
            sampled(found, expected.len())
        };
        largest_difference(&found, &expected)
    }
}

/// Largest `|x|`.
pub fn largest(x: &[f64]) -> f64 {
    x.iter().fold(0.0, |m, x| m.max(x.abs()))
}

/// Largest `|a − b|`; infinite where one side is not a number.
pub fn largest_difference(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len(), "number of elements");
    found.iter().zip(expected).fold(0.0, |worst: f64, (a, b)| {
        let difference = (a - b).abs();
        worst.max(if a == b {
            0.0
        } else if difference.is_nan() {
            f64::INFINITY
        } else {
            difference
        })
    })
}

/// Collects failures, so that one run shows all of them, and how close the closest came.
#[derive(Default)]
pub struct Report {
    failures: Vec<String>,
    checks: usize,
    worst: Option<(f64, String)>,
}

impl Report {
    /// Notes a comparison: `error` may be at most `tolerance`.
    pub fn check(&mut self, what: impl FnOnce() -> String, error: f64, tolerance: f64) {
        self.checks += 1;
        let share = error / tolerance;
        let fine = error <= tolerance;
        if fine && self.worst.as_ref().is_none_or(|(worst, _)| share > *worst) {
            self.worst = Some((share, what()));
        } else if !fine {
            self.failures.push(format!(
                "{}: error {error:.3e}, allowed {tolerance:.1e}",
                what()
            ));
        }
    }

    /// Notes a fact.
    pub fn expect(&mut self, what: impl FnOnce() -> String, holds: bool) {
        self.checks += 1;
        if !holds {
            self.failures.push(what());
        }
    }

    /// Ends the test.
    pub fn finish(self, title: &str) {
        if let Some((share, what)) = &self.worst {
            eprintln!(
                "{title}: {} checks, closest to its tolerance ({:.0} %): {what}",
                self.checks,
                100.0 * share
            );
        }
        assert!(
            self.failures.is_empty(),
            "{title}: {} of {} checks failed:\n  {}",
            self.failures.len(),
            self.checks,
            self.failures
                .iter()
                .take(60)
                .cloned()
                .collect::<Vec<_>>()
                .join("\n  ")
        );
    }
}

/// The names that our layers give to variables of the original's second version, which counts convolutions and batch
/// normalisations over the whole process: `resnet/…/conv2d_17/kernel` of the third convolution is `base_model/conv2d_2/kernel`.
/// Names of the first version stay.
pub fn creation_names(names: &[&str]) -> Vec<String> {
    let encoder = |name: &str| !name.starts_with("projection_head/") && !name.starts_with("head_");
    // `(stem, number)` of the layer that owns an encoder's variable.
    let owner = |name: &str| {
        let layer = name.rsplit('/').nth(1).unwrap_or_default();
        let (stem, number) = match layer.rsplit_once('_') {
            Some((stem, digits)) if digits.parse::<usize>().is_ok() => {
                (stem, digits.parse().unwrap_or(0))
            }
            _ => (layer, 0),
        };
        (stem.trim_start_matches("sync_").to_string(), number)
    };
    let mut layers: Vec<(String, usize)> = names
        .iter()
        .filter(|name| encoder(name))
        .map(|name| owner(name))
        .collect();
    layers.sort();
    layers.dedup();
    names
        .iter()
        .map(|name| {
            let mut parts = name.split('/');
            let leaf = name.rsplit('/').next().unwrap_or_default();
            match parts.next() {
                Some("projection_head") => {
                    let layer = parts.next().unwrap_or_default();
                    if name.contains("batch_norm") {
                        format!("head_contrastive/{layer}/batch_normalization/{leaf}")
                    } else {
                        format!("head_contrastive/{layer}/dense/{leaf}")
                    }
                }
                Some("head_supervised") => format!("head_supervised/linear_layer/dense/{leaf}"),
                Some("base_model" | "head_contrastive") => name.to_string(),
                first => {
                    let (stem, number) = owner(name);
                    let of_stem = || layers.iter().filter(|layer| layer.0 == stem);
                    let rank = of_stem().position(|layer| layer.1 == number).unwrap_or(0);
                    let layer = if rank == 0 {
                        stem.clone()
                    } else {
                        format!("{stem}_{rank}")
                    };
                    let prefix = if first == Some("resnet") {
                        "base_model/"
                    } else {
                        ""
                    };
                    format!("{prefix}{layer}/{leaf}")
                }
            }
        })
        .collect()
}
