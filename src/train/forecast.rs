//! What a compiler says of a training step before anything runs: whether it fits, and how fast it could be.

use crate::engine::Collective;
use crate::report::progress::{count, duration};
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// The forecast of a step on some devices; every figure is of one device and one step unless it says otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// What it was compiled for, such as `v3:8x8`.
    pub target: String,
    /// How that is rented, such as `v3-128`.
    pub rented: Option<String>,
    /// The plugin's name of a device, such as `TPU v3`.
    pub device_kind: String,
    /// Version of the compiler.
    pub compiler: String,
    /// Devices of the step, all together.
    pub devices: usize,
    /// Hosts that drive them.
    pub hosts: usize,
    /// Images of a step over all devices.
    pub batch: usize,
    /// Images of a step on one device.
    pub per_device: usize,
    /// Most steps of a launch, whose examples lie on the device together.
    pub steps_per_launch: usize,
    /// Steps of the whole recipe.
    pub total_steps: u64,
    /// Type of activations.
    pub precision: String,
    /// What the backward pass computes again (`runtime.remat`).
    pub remat: String,
    /// Whether it fits into a device's memory.
    pub fits: bool,
    /// Memory, where the step was compiled and the compiler tells.
    pub memory: Option<Memory>,
    /// Bytes of memory of a device, where known.
    pub capacity: Option<u64>,
    /// Why it does not fit, in the compiler's words.
    pub refusal: Option<String>,
    /// Bytes that it would need, where that is all the compiler tells.
    pub needed: Option<f64>,
    /// Floating-point operations.
    pub flops: Option<f64>,
    /// Bytes to and from memory.
    pub bytes_accessed: Option<f64>,
    /// Seconds by the compiler's model of the chip: a lower bound, without waiting for other chips.
    pub optimal_seconds: Option<f64>,
    /// Operations per second that the device could do, by its maker.
    pub peak_flops: Option<f64>,
    /// Bytes per second to and from the device's memory, by its maker.
    pub bandwidth: Option<f64>,
    /// What replicas exchange.
    pub collectives: Vec<Collective>,
    /// Wall time of the compiler.
    pub compile_seconds: f64,
    /// Processor time of the compiler.
    pub compile_cpu_seconds: Option<f64>,
    /// SHA-256 of the module.
    pub module_hash: String,
}

/// Bytes of a device's memory that a step takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// State and examples.
    pub arguments: u64,
    /// Results.
    pub outputs: u64,
    /// Results that take over arguments.
    pub aliased: u64,
    /// Everything in between.
    pub temporaries: u64,
    /// The program itself.
    pub code: u64,
}

impl Memory {
    /// All of it together.
    pub fn total(&self) -> u64 {
        (self.arguments + self.outputs + self.temporaries + self.code).saturating_sub(self.aliased)
    }
}

impl Forecast {
    /// Steps per second at best.
    pub fn steps_per_second(&self) -> Option<f64> {
        self.optimal_seconds.filter(|s| *s > 0.0).map(|s| 1.0 / s)
    }

    /// Images per second over all devices at best.
    pub fn images_per_second(&self) -> Option<f64> {
        Some(self.steps_per_second()? * self.batch as f64)
    }

    /// Hours of the whole recipe at best.
    pub fn hours(&self) -> Option<f64> {
        Some(self.total_steps as f64 / self.steps_per_second()? / 3600.0)
    }

    /// Share of the device's peak that the operations come to.
    pub fn share_of_peak(&self) -> Option<f64> {
        Some(self.flops? * self.steps_per_second()? / self.peak_flops?)
    }

    /// An estimate of our own, coarser than the compiler's: the operations at the device's peak, or the bytes at its memory's bandwidth,
    /// whichever takes longer. No strict bound, since the compiler counts what stays in a chip's own memory as bytes, too. Seconds.
    pub fn roofline_seconds(&self) -> Option<f64> {
        let work = self.flops? / self.peak_flops?;
        let traffic = self.bytes_accessed? / self.bandwidth?;
        Some(work.max(traffic))
    }

    /// As JSON, derived figures included.
    pub fn json(&self) -> String {
        let mut value = serde_json::json!(self);
        if let (Some(map), Some(memory)) = (value.as_object_mut(), &self.memory) {
            map.insert("memory_total".into(), memory.total().into());
        }
        for (name, figure) in [
            ("steps_per_second", self.steps_per_second()),
            ("images_per_second", self.images_per_second()),
            ("hours", self.hours()),
            ("share_of_peak", self.share_of_peak()),
            ("roofline_seconds", self.roofline_seconds()),
        ] {
            value[name] = figure.into();
        }
        if !self.fits {
            value["remedy"] = self.remedy().into();
        }
        format!("{value:#}\n")
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: String| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name:<15}{value}");
        };
        let rented = self
            .rented
            .as_ref()
            .map_or(String::new(), |name| format!(" ({name})"));
        let hosts = if self.hosts == 1 { "host" } else { "hosts" };
        line(
            "target",
            format!(
                "{}{rented}: {} × {}, {} {hosts}",
                self.target, self.devices, self.device_kind, self.hosts
            ),
        );
        line("compiler", self.compiler.clone());
        line(
            "batch",
            format!(
                "{} images, {} per device; activations {}; up to {} steps per launch",
                count(self.batch as u64),
                self.per_device,
                self.precision,
                self.steps_per_launch
            ),
        );
        line("memory", self.memory_text());
        if let Some(memory) = &self.memory {
            line(
                "",
                format!(
                    "arguments {}, results {} ({} over arguments), temporaries {}, code {}",
                    size(memory.arguments as f64),
                    size(memory.outputs as f64),
                    size(memory.aliased as f64),
                    size(memory.temporaries as f64),
                    size(memory.code as f64)
                ),
            );
        }
        if let Some(flops) = self.flops {
            let bytes = self.bytes_accessed.unwrap_or(0.0);
            line(
                "work",
                format!("{flops:.4e} operations, {} to and from memory", size(bytes)),
            );
        }
        for collective in &self.collectives {
            line(
                if collective.kind == self.collectives[0].kind {
                    "exchange"
                } else {
                    ""
                },
                format!(
                    "{} × {}, {} per step",
                    collective.count,
                    collective.kind,
                    size(collective.bytes as f64)
                ),
            );
        }
        if let Some(seconds) = self.optimal_seconds.filter(|s| *s > 0.0) {
            line("at best", self.rates(seconds));
            line(
                "",
                format!(
                    "{}; the compiler's bound, without exchange and input",
                    self.recipe(seconds)
                ),
            );
        } else if self.memory.is_some() {
            line("at best", "the compiler tells no time for this step".into());
        }
        if let Some(seconds) = self.roofline_seconds() {
            line("roofline", self.rates(seconds));
            line(
                "",
                format!(
                    "{}; our own estimate: operations at peak or bytes at the memory's bandwidth, whichever takes longer",
                    self.recipe(seconds)
                ),
            );
        }
        let cpu = self
            .compile_cpu_seconds
            .map_or(String::new(), |s| format!(" ({s:.1} s of processor time)"));
        line("compiled in", format!("{:.1} s{cpu}", self.compile_seconds));
        if !self.fits {
            line("", String::new());
            line("remedy", self.remedy());
        }
        text
    }

    /// What so many seconds per step come to.
    fn rates(&self, seconds: f64) -> String {
        let steps = 1.0 / seconds;
        let share =
            |(flops, peak): (f64, f64)| format!(", {:.0} % of peak", 100.0 * flops * steps / peak);
        format!(
            "{:.2} ms per step, {steps:.1} steps/s, {} images/s{}",
            1e3 * seconds,
            count((self.batch as f64 * steps).round() as u64),
            self.flops.zip(self.peak_flops).map_or(String::new(), share)
        )
    }

    /// How long the whole recipe takes then.
    fn recipe(&self, seconds: f64) -> String {
        format!(
            "{} for the recipe's {} steps",
            duration(seconds * self.total_steps as f64),
            count(self.total_steps)
        )
    }

    fn memory_text(&self) -> String {
        let of = |capacity: u64| format!("of {}", size(capacity as f64));
        match (&self.memory, self.capacity) {
            (Some(memory), Some(capacity)) => {
                let total = memory.total();
                let verdict = if self.fits { "fits" } else { "does NOT fit" };
                format!(
                    "{} {}: {verdict} ({:.0} %)",
                    size(total as f64),
                    of(capacity),
                    100.0 * total as f64 / capacity as f64
                )
            }
            (Some(memory), None) => size(memory.total() as f64),
            (None, capacity) => {
                let needed = self.needed.map_or("too much".into(), size);
                format!(
                    "{needed} {}: does NOT fit",
                    capacity.map_or("of what a device has".into(), of)
                )
            }
        }
    }

    /// What to change when it does not fit.
    pub fn remedy(&self) -> String {
        let mut remedies = Vec::new();
        if self.precision == "f32" {
            remedies.push("runtime.precision=bf16".to_string());
        }
        if self.remat == "none" {
            remedies.push("runtime.remat=block".into());
        }
        remedies.push(format!(
            "a larger slice (fewer than {} images per device)",
            self.per_device
        ));
        remedies.push("a smaller train_batch_size or width_multiplier".into());
        if self.steps_per_launch > 1 {
            remedies.push("runtime.steps_per_launch=1".into());
        }
        remedies.join(", or ")
    }
}

/// Bytes for people.
fn size(bytes: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut bytes = bytes;
    let mut unit = 0;
    while bytes >= 1024.0 && unit + 1 < units.len() {
        bytes /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{bytes:.0} {}", units[unit])
    } else {
        format!("{bytes:.2} {}", units[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forecast() -> Forecast {
        Forecast {
            target: "v3:8x8".into(),
            rented: Some("v3-128".into()),
            device_kind: "TPU v3".into(),
            compiler: "libtpu".into(),
            devices: 128,
            hosts: 16,
            batch: 4096,
            per_device: 32,
            steps_per_launch: 4,
            total_steps: 36_000,
            precision: "f32".into(),
            remat: "none".into(),
            fits: true,
            memory: Some(Memory {
                arguments: 3 << 30,
                outputs: 2 << 30,
                aliased: 2 << 30,
                temporaries: 4 << 30,
                code: 1 << 30,
            }),
            capacity: Some(16 << 30),
            refusal: None,
            needed: None,
            flops: Some(1.5375e12),
            bytes_accessed: Some(20e9),
            optimal_seconds: Some(0.05),
            peak_flops: Some(61.5e12),
            bandwidth: Some(450e9),
            collectives: vec![Collective {
                kind: "all-reduce".into(),
                count: 3,
                bytes: 1 << 20,
            }],
            compile_seconds: 10.0,
            compile_cpu_seconds: Some(12.0),
            module_hash: "ab".into(),
        }
    }

    #[test]
    fn derived_figures() {
        let found = forecast();
        assert_eq!(found.memory.unwrap().total(), 8 << 30);
        assert_eq!(found.images_per_second(), Some(81_920.0));
        assert_eq!(found.hours(), Some(0.5));
        assert!((found.share_of_peak().unwrap() - 0.5).abs() < 1e-12);
        // 20e9 bytes at 450e9 a second take longer than the operations.
        let roofline = 20.0 / 450.0;
        assert_eq!(found.roofline_seconds(), Some(roofline));
        let json: serde_json::Value = serde_json::from_str(&found.json()).unwrap();
        assert_eq!(json["roofline_seconds"], roofline);
        assert_eq!(json["memory_total"], 8u64 << 30);
        assert_eq!(json["hours"], 0.5);
        assert!(json.get("remedy").is_none());
        let back: Forecast = serde_json::from_str(&found.json()).unwrap();
        assert_eq!(back, found);
        let busy = Forecast {
            flops: Some(61.5e12),
            ..found
        };
        assert_eq!(busy.roofline_seconds(), Some(1.0));
    }

    #[test]
    fn the_text_says_what_people_ask() {
        let mut found = forecast();
        let text = found.text();
        for words in [
            "v3:8x8 (v3-128): 128 × TPU v3, 16 hosts",
            "8.00 GiB of 16.00 GiB: fits (50 %)",
            "50.00 ms per step, 20.0 steps/s, 81,920 images/s, 50 % of peak",
            "30 min 00 s for the recipe's 36,000 steps",
            "3 × all-reduce, 1.00 MiB per step",
            "roofline       44.44 ms per step, 22.5 steps/s, 92,160 images/s, 56 % of peak",
            "26 min 40 s for the recipe's 36,000 steps; our own estimate",
        ] {
            assert!(text.contains(words), "`{words}` is missing in:\n{text}");
        }
        found.optimal_seconds = None;
        let text = found.text();
        assert!(
            text.contains("at best        the compiler tells no time"),
            "{text}"
        );
        assert!(text.contains("roofline       44.44 ms"), "{text}");
        found.bandwidth = None;
        assert!(!found.text().contains("roofline"), "{}", found.text());
        found.fits = false;
        found.memory = None;
        found.needed = Some(24.0 * (1u64 << 30) as f64);
        let text = found.text();
        assert!(
            text.contains("24.00 GiB of 16.00 GiB: does NOT fit"),
            "{text}"
        );
        assert!(
            text.contains(
                "remedy         runtime.precision=bf16, or runtime.remat=block, or a larger slice"
            ),
            "{text}"
        );
        let json: serde_json::Value = serde_json::from_str(&found.json()).unwrap();
        assert_eq!(json["remedy"], found.remedy());
    }
}
