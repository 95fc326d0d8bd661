//! `simclr data bench`.

use super::Place;
use crate::augment::ResizeKernel;
use crate::cli::ui::Ui;
use crate::data::bench::measure;
use crate::data::{Examples, FeedSpec, Task};
use crate::report::progress::rate;
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
    let found = arguments.place.one()?;
    let examples = Examples::open(&found.dataset, &found.split, Some(&found.dir))?;
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
        "{} images, two crops of {} pixels each, {} threads\n\
         stage      images/s alone   share of the threads' time in the whole\n\
         reading    {:>14}   {read:.0} %\n\
         decoding   {:>14}   {decode:.0} %\n\
         cropping   {:>14}   {crop:.0} %\n\
         whole      {:>14}\n",
        speeds.images,
        arguments.image_size,
        speeds.threads,
        rate(speeds.read),
        rate(speeds.decode),
        rate(speeds.crop),
        rate(speeds.whole),
    ))?;
    Ok(0)
}
