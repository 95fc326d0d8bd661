//! `simclr topologies`.

use super::isolated::{self, run_again};
use super::ui::Ui;
use crate::cluster::slice::{Slice, every};
use crate::pjrt::{Platform, Plugin, Topology, WITHOUT_TPU, find};
use anyhow::Context;
use clap::Args;
use serde::{Deserialize, Serialize};

#[derive(Args)]
pub(super) struct Arguments {
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Ask the plugin in this very process
    #[arg(long, hide = true)]
    here: bool,
}

/// What a child found.
#[derive(Serialize, Deserialize)]
struct Answer {
    rows: Vec<Row>,
    /// Why slices are missing.
    notes: Vec<String>,
}

/// A slice as libtpu knows it.
#[derive(Serialize, Deserialize)]
struct Row {
    topology: String,
    rented: Option<String>,
    chips: usize,
    cores_per_chip: usize,
    devices: usize,
    hosts: usize,
    kind: String,
    memory_per_device: Option<i64>,
    peak_flops_per_chip: f64,
    bandwidth_per_chip: f64,
}

pub(super) fn run(arguments: &Arguments, ui: &Ui) -> anyhow::Result<u8> {
    if arguments.here {
        isolated::end_with_parent();
        ui.result(&serde_json::to_string(&ask()?)?)?;
        return Ok(0);
    }
    find(Platform::Tpu, None)?;
    let ended = run_again(&["--here"], &WITHOUT_TPU)?;
    if ended.code != 0 {
        ui.relay(&ended.words);
        return Ok(ended.code);
    }
    let Answer { rows, notes } =
        serde_json::from_str(&ended.output).context("the child's answer is no list of slices")?;
    for note in &notes {
        ui.note(note);
    }
    if arguments.json {
        ui.result(&serde_json::to_string_pretty(&rows)?)?;
        return Ok(0);
    }
    let mut text = format!(
        "{:<14} {:<14} {:>6} {:>6} {:>8} {:>6}  {:<12} {:>10} {:>13}\n",
        "topology",
        "rented as",
        "chips",
        "cores",
        "devices",
        "hosts",
        "kind",
        "GiB/device",
        "TFLOP/s/chip"
    );
    for row in rows {
        let memory = row.memory_per_device.map_or("–".into(), |bytes| {
            format!("{:.2}", bytes as f64 / f64::from(1u32 << 30))
        });
        text.push_str(&format!(
            "{:<14} {:<14} {:>6} {:>6} {:>8} {:>6}  {:<12} {:>10} {:>13.0}\n",
            row.topology,
            row.rented.as_deref().unwrap_or("–"),
            row.chips,
            row.chips * row.cores_per_chip,
            row.devices,
            row.hosts,
            row.kind,
            memory,
            row.peak_flops_per_chip / 1e12
        ));
    }
    ui.result(&text)?;
    Ok(0)
}

/// Every rented slice, as the installed libtpu describes it.
fn ask() -> anyhow::Result<Answer> {
    let plugin = Plugin::load(&find(Platform::Tpu, None)?.path)?;
    let (mut rows, mut notes) = (Vec::new(), Vec::new());
    for slice in every() {
        match row(&plugin, &slice) {
            Ok(row) => rows.push(row),
            // A plugin of another version may not know a slice.
            Err(error) => notes.push(format!(
                "{} is not known to this plugin: {error}",
                slice.topology()
            )),
        }
    }
    Ok(Answer { rows, notes })
}

fn row(plugin: &Plugin, slice: &Slice) -> Result<Row, crate::pjrt::Error> {
    let target = super::target::tpu(slice);
    let topology = Topology::new(plugin, &target.topology, &target.options)?;
    let first = topology.devices().first();
    Ok(Row {
        topology: slice.topology(),
        rented: slice.rented(),
        chips: slice.chips(),
        cores_per_chip: slice.generation.cores,
        devices: topology.devices().len(),
        hosts: topology.processes(),
        kind: first.map_or(String::new(), |device| device.kind.clone()),
        memory_per_device: first.and_then(|d| d.number("device_memory_bytes_limit")),
        peak_flops_per_chip: slice.generation.peak_flops,
        bandwidth_per_chip: slice.generation.bandwidth,
    })
}
