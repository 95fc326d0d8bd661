//! How well an epoch of ImageNet is mixed: our order of shards, against the original's pipelines.
//!
//!     cargo run --release --example shuffle_quality

use simclr::data::window::{Epoch, Pipeline, WindowOrder};

/// ImageNet as TFDS writes it: 1,281,167 examples in 1,024 shards.
const SHARDS: usize = 1024;
const EXAMPLES: u64 = 1_281_167;
const BATCH: usize = 4096;

fn main() {
    let shard = |n: u64| EXAMPLES * (n + 1) / SHARDS as u64 - EXAMPLES * n / SHARDS as u64;
    let lengths: Vec<u64> = (0..SHARDS as u64).map(shard).collect();
    println!(
        "{:<58} {:>9} {:>8} {:>8}",
        "", "moved by", "shards", "largest"
    );
    for (count, window) in [(1, 4096), (1, 40_960), (16, 4096), (16, 65_536)] {
        let pipelines: Vec<WindowOrder> = (0..count)
            .map(|number| WindowOrder::new(1, &lengths, window, Pipeline { number, count }))
            .collect();
        let epochs: Vec<Epoch> = pipelines.iter().map(|order| order.epoch(0)).collect();
        let moved: Vec<f64> = epochs
            .iter()
            .flat_map(|epoch| moves(&epoch.arrivals, &epoch.order))
            .map(|places| places * count as f64)
            .collect();
        // Each batch has equally many of every pipeline.
        let each = BATCH / count;
        let shards: Vec<usize> = (0..EXAMPLES as usize / BATCH)
            .flat_map(|step| {
                let part =
                    move |epoch: &Epoch| epoch.order[step * each..(step + 1) * each].to_vec();
                epochs.iter().flat_map(part)
            })
            .map(|example| pipelines[0].locate(example).0)
            .collect();
        let name = format!("ours, {count} pipelines, window {window} in all");
        report(&name, &moved, &shards);
    }
    let order = WindowOrder::new(1, &lengths, 1, Pipeline::WHOLE);
    for (name, side_by_side, buffer) in [
        (
            "second generation, 32 files, buffer of 10 × 32 (128 cores)",
            32,
            320,
        ),
        (
            "second generation, 32 files, buffer of 10 × 512 (8 cores)",
            32,
            5120,
        ),
        (
            "first generation, 16 files, buffer of 10 × 4096 (1 host)",
            16,
            40_960,
        ),
        ("everything shuffled", 32, EXAMPLES as usize),
    ] {
        let arrivals = interleaved(&lengths, side_by_side);
        let used = buffered(&arrivals, buffer);
        let shards: Vec<usize> = used.iter().map(|&x| order.locate(x).0).collect();
        report(name, &moves(&arrivals, &used), &shards);
    }
}

/// Small and good enough for this (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

/// Files in random order, an example of each of some in turn.
fn interleaved(lengths: &[u64], side_by_side: usize) -> Vec<u32> {
    let mut random = Random(7);
    let mut starts = vec![0; lengths.len()];
    for n in 1..lengths.len() {
        starts[n] = starts[n - 1] + lengths[n - 1];
    }
    let mut files: Vec<usize> = (0..lengths.len()).collect();
    for last in (1..files.len()).rev() {
        files.swap(last, random.below(last + 1));
    }
    let mut waiting = files.into_iter().map(|n| starts[n]..starts[n] + lengths[n]);
    let mut open: Vec<_> = waiting.by_ref().take(side_by_side).collect();
    let mut found = Vec::new();
    while !open.is_empty() {
        open.retain_mut(|file| {
            found.extend(file.next().map(|example| example as u32));
            if file.is_empty() {
                match waiting.next() {
                    Some(next) => *file = next,
                    None => return false,
                }
            }
            true
        });
    }
    found
}

/// A shuffle buffer.
fn buffered(arrivals: &[u32], size: usize) -> Vec<u32> {
    let mut random = Random(11);
    let mut arriving = arrivals.iter().copied();
    let mut buffer: Vec<u32> = arriving.by_ref().take(size).collect();
    let mut used = Vec::new();
    while !buffer.is_empty() {
        let chosen = random.below(buffer.len());
        used.push(match arriving.next() {
            Some(next) => std::mem::replace(&mut buffer[chosen], next),
            None => buffer.swap_remove(chosen),
        });
    }
    used
}

/// How many places each example is moved between its arrival and its use.
fn moves(arrivals: &[u32], used: &[u32]) -> Vec<f64> {
    let last = arrivals.iter().max().map_or(0, |&last| last as usize);
    let mut arrived = vec![0usize; last + 1];
    for (place, &example) in arrivals.iter().enumerate() {
        arrived[example as usize] = place;
    }
    used.iter()
        .enumerate()
        .map(|(place, &example)| place as f64 - arrived[example as usize] as f64)
        .collect()
}

fn report(name: &str, moves: &[f64], shards: &[usize]) {
    let count = moves.len() as f64;
    let mean = moves.iter().sum::<f64>() / count;
    let spread = (moves.iter().map(|m| (m - mean).powi(2)).sum::<f64>() / count).sqrt();
    let (mut different, mut largest) = (0, 0);
    let batches = shards.chunks_exact(BATCH);
    let number = batches.len();
    for batch in batches {
        let mut counts = [0usize; SHARDS];
        batch.iter().for_each(|&shard| counts[shard] += 1);
        different += counts.iter().filter(|&&count| count > 0).count();
        largest += counts.iter().max().unwrap();
    }
    println!(
        "{name:<58} {spread:>9.0} {:>8.0} {:>7.1}%",
        different as f64 / number as f64,
        100.0 * largest as f64 / (number * BATCH) as f64
    );
}
