//! Writes what evaluation sees of every example of a split, u8 `[n, S, S, 3]`, in the order of the set: for
//! `bench/evaluation_crops.py`, which compares it with TensorFlow.
//!
//!     cargo run --release --example evaluation_crops -- DATASET SPLIT DATA_DIR SIZE OUT [antialiased]

use simclr::augment::ResizeKernel;
use simclr::data::{Examples, Feed, FeedSpec, Task};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let ([dataset, split, dir, size, out], kernel) = (match arguments.as_slice() {
        [most @ .., kernel] if kernel == "antialiased" => (most, ResizeKernel::Antialiased),
        all => (all, ResizeKernel::V2HalfPixel),
    }) else {
        anyhow::bail!("usage: evaluation_crops DATASET SPLIT DATA_DIR SIZE OUT [antialiased]");
    };
    let examples = Arc::new(Examples::open(dataset, split, Some(Path::new(dir)))?);
    let spec = FeedSpec {
        task: Task::Evaluate,
        batch: 64,
        image_size: size.parse()?,
        kernel,
        threads: 0,
        skip_bad: false,
    };
    let mut feed = Feed::start(examples, spec);
    let mut out = std::io::BufWriter::new(std::fs::File::create(out)?);
    loop {
        let step = feed.step()?;
        if step.is_empty() {
            return Ok(out.flush()?);
        }
        for crops in step {
            out.write_all(&crops.pixels)?;
        }
    }
}
