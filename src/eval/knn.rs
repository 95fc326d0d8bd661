//! Weighted k-nearest-neighbours on cosine similarity (Wu et al. 2018, §3.4): each of the k nearest training examples votes for
//! its class with weight exp(similarity / temperature).

use super::Features;
use crate::engine::{Engine, Error};
use crate::hlo::{DType, Graph, Literal, Module, Shape, Value};
use crate::pjrt::Argument;
use rayon::prelude::*;

/// How to vote.
#[derive(Debug, Clone, Copy)]
pub struct Knn {
    /// Number of neighbours.
    pub k: usize,
    /// Temperature of the weights.
    pub temperature: f32,
}

/// Test examples per launch: bounds the similarity matrix.
const BLOCK: usize = 500;

/// Accuracy on `test` (a fraction) for each setting, with `train` as the neighbours.
///
/// # Errors
/// If the similarity program cannot be compiled or run.
pub fn knn(
    engine: &Engine,
    train: &Features,
    test: &Features,
    settings: &[Knn],
) -> Result<Vec<f64>, Error> {
    let classes = 1 + train
        .labels
        .iter()
        .chain(&test.labels)
        .max()
        .copied()
        .unwrap_or(0) as usize;
    let most = settings
        .iter()
        .map(|s| s.k)
        .max()
        .unwrap_or(1)
        .min(train.len());
    let block = BLOCK.min(test.len());
    let program = engine.compile(&similarities(train, block)?)?;
    let device = &program.devices()[0];
    let bank = engine.put(&train.literal(), device)?;
    let mut hits = vec![0usize; settings.len()];
    let mut start = 0;
    while start < test.len() {
        // The last block reaches back so that every launch has one shape; rows already counted are skipped.
        let from = start.min(test.len() - block);
        let rows = &test.values[from * test.width..(from + block) * test.width];
        let queries = engine.put(
            &Literal::new(&[block as i64, test.width as i64], rows),
            device,
        )?;
        let results =
            program.launch(vec![vec![Argument::Keep(&bank), Argument::Keep(&queries)]])?;
        let similarity = program.read(0, &results[0])?[0].to_vec::<f32>();
        let found: Vec<Vec<bool>> = (start - from..block)
            .into_par_iter()
            .map(|row| {
                let row_values = &similarity[row * train.len()..(row + 1) * train.len()];
                let nearest = nearest(row_values, most);
                let truth = test.labels[from + row];
                settings
                    .iter()
                    .map(|s| vote(&nearest, &train.labels, s, classes) == truth)
                    .collect()
            })
            .collect();
        for row in found {
            for (hit, correct) in hits.iter_mut().zip(row) {
                *hit += usize::from(correct);
            }
        }
        start = from + block;
    }
    Ok(hits
        .iter()
        .map(|&hit| hit as f64 / test.len() as f64)
        .collect())
}

/// `(bank [N, D], queries [B, D])` → cosine similarities `[B, N]`.
fn similarities(train: &Features, block: usize) -> Result<Module, Error> {
    let graph = Graph::new();
    let bank = graph.parameter("bank", train.shape());
    let queries = graph.parameter(
        "queries",
        Shape::new(DType::F32, [block as i64, train.width as i64]),
    );
    let similarity = normalised(queries).precise_matmul(normalised(bank).transpose(&[1, 0]));
    Ok(graph.finish("knn", &[similarity])?)
}

fn normalised(x: Value) -> Value {
    let norm = (x * x).sum(&[1]).max(1e-24).rsqrt();
    x * norm.broadcast_leading(&x.dims())
}

/// The `k` largest, largest first; ties by index.
fn nearest(similarity: &[f32], k: usize) -> Vec<(f32, usize)> {
    let mut all: Vec<(f32, usize)> = similarity.iter().copied().zip(0..).collect();
    let order =
        |a: &(f32, usize), b: &(f32, usize)| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1));
    if k < all.len() {
        all.select_nth_unstable_by(k, order);
        all.truncate(k);
    }
    all.sort_unstable_by(order);
    all
}

fn vote(nearest: &[(f32, usize)], labels: &[u32], setting: &Knn, classes: usize) -> u32 {
    let mut votes = vec![0.0f64; classes];
    for &(similarity, index) in nearest.iter().take(setting.k) {
        votes[labels[index] as usize] += f64::from(similarity / setting.temperature).exp();
    }
    // The first of equals wins.
    let mut best = 0;
    for (class, &weight) in votes.iter().enumerate() {
        if weight > votes[best] {
            best = class;
        }
    }
    best as u32
}
