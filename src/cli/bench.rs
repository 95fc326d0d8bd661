//! `simclr bench`.

use super::Configuration;
use super::ui::Ui;
use crate::pjrt::Profiler;
use crate::report;
use crate::train::{Profile, Row, dump, measure, profile, traced};
use anyhow::bail;
use clap::Args;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    configuration: Configuration,
    /// Steps to measure after the first launch
    #[arg(long, default_value_t = 20)]
    steps: usize,
    /// Take the program from the cache of compiled programs if it is there, as training does; otherwise it is compiled anew
    #[arg(long)]
    cached: bool,
    /// Leave out data and augmentation: the step alone, on made-up views
    #[arg(long)]
    step_only: bool,
    /// Instead of measuring, write the step of --step-only for other programs: initial variables, views and rates as safetensors
    #[arg(long, value_name = "FILE")]
    dump: Option<PathBuf>,
    /// Also say where the time goes: by kernels and layers as the plugin's profiler sees them; or, where the plugin has none (CPU), by
    /// families of operations and layers, taking the step apart and timing its parts (about a minute)
    #[arg(long)]
    profile: bool,
    /// Write what the plugin's profiler sees of three launches to this file, in Chrome's trace format, for a viewer such as Perfetto
    #[arg(long, value_name = "FILE", conflicts_with = "dump")]
    trace: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, ui: &Ui) -> anyhow::Result<u8> {
    let loaded = arguments.configuration.load()?;
    let (engine, devices) = super::pretrain::open(&loaded, ui)?;
    let engine = if arguments.cached {
        engine
    } else {
        engine.without_cache()
    };
    if let Some(path) = &arguments.dump {
        dump(&loaded, devices, path)?;
        return Ok(0);
    }
    // Before anything is measured that would be lost.
    let trace = match &arguments.trace {
        None => None,
        Some(path) if Profiler::is_in(&engine.client().plugin()) => {
            // An earlier trace stays until there is another.
            let mut options = OpenOptions::new();
            let file = options.write(true).create(true).truncate(false).open(path);
            Some((path, file.map_err(report::Error::io("write", path))?))
        }
        Some(path) => bail!(
            "--trace: the plugin of {} has no profiler, so there is nothing to write to {}; leave --trace out (--profile works without one)",
            engine.client().platform_name(),
            path.display()
        ),
    };
    let found = measure(
        &loaded,
        &engine,
        devices,
        arguments.steps.max(1),
        arguments.step_only,
        arguments.profile || arguments.trace.is_some(),
        ui.begin,
    )?;
    if let (Some((path, file)), Some(traced)) = (trace, &found.traced) {
        let events = traced.trace.chrome();
        write(file, &events).map_err(report::Error::io("write", path))?;
        ui.note(&format!(
            "wrote {} with {} events",
            path.display(),
            events.len()
        ));
    }
    let (low, median, high) = found.step_seconds();
    let images = found.batch as f64 / median;
    let recorded = found
        .traced
        .as_ref()
        .filter(|_| arguments.profile)
        .and_then(traced);
    let apart = recorded.is_none();
    let parts = match recorded {
        Some(parts) => Some(parts),
        None if arguments.profile => Some(profile(&engine, &found.module)?),
        None => None,
    };
    if arguments.json {
        ui.result(&serde_json::to_string_pretty(&serde_json::json!({
            "platform": engine.client().platform_name(),
            "devices": devices,
            "batch": found.batch,
            "compile_seconds": found.compile.as_secs_f64(),
            "from_cache": found.from_cache,
            "first_step_seconds": found.first_step.as_secs_f64(),
            "step_seconds": {"min": low, "median": median, "max": high},
            "images_per_second": images,
            "host_wait": found.host_wait,
            "losses": found.losses,
            "memory_bytes": found.memory.map(|m| serde_json::json!({
                "arguments": m.argument, "results": m.output, "taken_over": m.alias, "temporaries": m.temp,
            })),
            "peak_device_memory_bytes": found.peak_device_memory,
            "peak_memory_bytes": found.peak_memory,
            "cpu_seconds_per_image": found.cpu_seconds_per_image,
            "flops_per_launch": found.flops,
            "profile": parts.as_ref().map(|parts| serde_json::json!({
                "families": rows(&parts.families), "layers": rows(&parts.layers),
            })),
        }))?)?;
        return Ok(0);
    }
    let mut text = format!(
        "{} steps of {} images on {devices} {} device(s)\n",
        arguments.steps,
        found.batch,
        engine.client().platform_name()
    );
    text.push_str(&format!(
        "{:<22}{:.1} s\n",
        if found.from_cache {
            "load from the cache"
        } else {
            "compile"
        },
        found.compile.as_secs_f64()
    ));
    text.push_str(&format!(
        "start to first step   {:.1} s (from the start of the process to the end of the step)\n",
        found.first_step.as_secs_f64()
    ));
    text.push_str(&format!(
        "step                  {:.1} ms median ({:.1} to {:.1})\n",
        1e3 * median,
        1e3 * low,
        1e3 * high
    ));
    text.push_str(&format!("images per second     {images:.1}\n"));
    text.push_str(&format!(
        "host wait             {:.2} % of a step\n",
        100.0 * found.host_wait
    ));
    if let Some(memory) = found.memory {
        let mib = |bytes: i64| bytes as f64 / f64::from(1u32 << 20);
        text.push_str(&format!(
            "device memory         {:.0} MiB arguments, {:.0} MiB temporaries\n",
            mib(memory.argument),
            mib(memory.temp)
        ));
    }
    if let Some(peak) = found.peak_device_memory {
        text.push_str(&format!(
            "device memory in use  {} MiB at most\n",
            peak >> 20
        ));
    }
    if let Some(peak) = found.peak_memory {
        text.push_str(&format!(
            "process memory        {} MiB at most\n",
            peak >> 20
        ));
    }
    if let Some(seconds) = found.cpu_seconds_per_image {
        text.push_str(&format!(
            "processor time        {:.2} ms per image\n",
            1e3 * seconds
        ));
    }
    if let Some(parts) = &parts {
        let title = if apart { "operations" } else { "kernels" };
        text.push_str(&tables(title, parts, median));
    }
    ui.result(&text)?;
    Ok(0)
}

fn write(file: File, events: &[serde_json::Value]) -> io::Result<()> {
    file.set_len(0)?;
    let mut file = BufWriter::new(file);
    serde_json::to_writer(&mut file, events)?;
    file.flush()
}

fn rows(rows: &[Row]) -> Vec<serde_json::Value> {
    let row = |row: &Row| serde_json::json!({"name": row.name, "count": row.count, "seconds": row.seconds, "flops": row.flops});
    rows.iter().map(row).collect()
}

/// Rows of the first table that are printed; there are hundreds of kernels.
const MOST_ROWS: usize = 12;
/// Letters of a name that are printed.
const NAME: usize = 60;

/// Both tables of a profile; shares are of the measured step.
fn tables(title: &str, parts: &Profile, step: f64) -> String {
    let mut text = String::new();
    let families = &parts.families[..parts.families.len().min(MOST_ROWS)];
    for (title, rows) in [(title, families), ("layer", &parts.layers)] {
        text.push_str(&format!(
            "\n{title:<NAME$}{:>6}{:>10}{:>8}{:>10}\n",
            "count", "ms", "share", "GFLOP/s"
        ));
        for row in rows {
            let speed = if row.flops > 0.0 {
                format!("{:.0}", row.flops / row.seconds * 1e-9)
            } else {
                String::new()
            };
            text.push_str(&format!(
                "{:<NAME$.NAME$}{:>6}{:>10.2}{:>6.1} %{speed:>10}\n",
                row.name,
                row.count,
                1e3 * row.seconds,
                100.0 * row.seconds / step
            ));
        }
    }
    let parts = parts.seconds();
    text.push_str(&format!(
        "\nparts together        {:.1} ms, {:.0} % of the step's median\n",
        1e3 * parts,
        100.0 * parts / step
    ));
    text
}
