//! `simclr data bench`.

use super::Place;
use crate::augment::ResizeKernel;
use crate::cli::ui::Ui;
use crate::data::bench::{Speeds, measure};
use crate::data::{Error, FeedSpec, Task};
use crate::report::progress::rate;
use crate::words::plural;
use clap::Args;
use std::sync::Arc;

#[derive(Args)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    place: Place,
    /// Side of the crops, two of each image
    #[arg(long, default_value_t = 224, value_parser = clap::value_parser!(u32).range(1..=4096))]
    image_size: u32,
    /// Threads; 0: one per core
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=4096))]
    threads: u32,
    /// Images of each measurement
    #[arg(short = 'n', long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    images: u32,
    /// Encoded images of the window that shuffles
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..))]
    shuffle_window: u32,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, ui: &Ui) -> anyhow::Result<u8> {
    let (found, examples) = arguments.place.open()?;
    if examples.memory().is_some() {
        let dataset = found.dataset;
        return Err(Error::InMemory { dataset }.into());
    }
    let spec = FeedSpec {
        task: Task::Train {
            views: 2,
            seed: 0,
            window: arguments.shuffle_window as usize,
            pipelines: 1,
            start: 0,
        },
        batch: 64,
        image_size: arguments.image_size as usize,
        kernel: ResizeKernel::V2HalfPixel,
        threads: arguments.threads as usize,
        skip_bad: false,
    };
    // As a run has it after its first launches.
    crate::pjrt::keep_memory();
    let speeds = measure(&Arc::new(examples), spec, arguments.images as usize)?;
    if arguments.json {
        ui.result(&serde_json::to_string_pretty(&speeds)?)?;
        return Ok(0);
    }
    let [read, decode, crop] = speeds.shares.map(|share| 100.0 * share);
    ui.result(&format!(
        "{} image{}, two crops of {} pixels each; each stage by itself, then the whole\n\
         stage      threads   images/s   share of the threads' time in the whole\n\
         reading    {:>7}   {:>8}   {read:.0} %\n\
         decoding   {threads:>7}   {:>8}   {decode:.0} %\n\
         cropping   {threads:>7}   {:>8}   {crop:.0} %\n\
         whole      {threads:>7}   {:>8}\n{}",
        speeds.images,
        plural(speeds.images),
        arguments.image_size,
        1,
        rate(speeds.read),
        rate(speeds.decode),
        rate(speeds.crop),
        rate(speeds.whole),
        disturbed(&speeds),
        threads = speeds.threads,
    ))?;
    Ok(0)
}

/// What to think of a whole that is faster than a part of it on as many threads, by more than pictures differ.
fn disturbed(speeds: &Speeds) -> &'static str {
    match speeds.whole > 1.1 * speeds.decode.min(speeds.crop) {
        true => {
            "the whole is faster than a stage of it on as many threads: other programs took turns with the measurement, or the first pictures are larger than most\n"
        }
        false => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_that_cannot_be_is_told() {
        let of = |decode, crop, whole| {
            disturbed(&Speeds {
                threads: 2,
                images: 1000,
                read: 1.0,
                decode,
                crop,
                whole,
                shares: [0.0; 3],
            })
        };
        // Reading alone has one thread, the whole more.
        assert_eq!(of(612.0, 2000.0, 451.0), "");
        assert_eq!(of(600.0, 2000.0, 620.0), "", "as good as alike");
        assert!(of(451.0, 2000.0, 612.0).contains("took turns"));
        assert!(of(4000.0, 500.0, 612.0).contains("took turns"));
    }
}
