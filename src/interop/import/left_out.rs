//! What a checkpoint holds besides what was taken of it.

use super::Choice;
use super::source::{AVERAGE, Source, is_slot, is_variable, of_keras, of_memory};
use crate::interop::object_graph::GRAPH_KEY;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Tensors of one kind that were not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// What they are.
    pub what: What,
    /// How many.
    pub count: usize,
    /// The name of the first.
    pub first: String,
    /// The flag of `simclr import` that takes them too.
    pub flag: Option<&'static str>,
}

/// What a tensor is that is no variable of the network taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)] // their words say what they are
pub enum What {
    Average,
    Weights,
    Slots,
    KerasSlots,
    Powers,
    Memory,
    Bookkeeping,
    Unknown,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            What::Average => "moving average of the weights",
            What::Weights => "weights (their moving average was taken)",
            What::Slots => "optimizer slots",
            What::KerasSlots => "slots of an optimizer of Keras, which no step here goes on from",
            What::Powers => "powers of Adam's decays, which follow from the step",
            What::Memory => "memory of negatives, which no training here reads",
            What::Bookkeeping => "bookkeeping of TensorFlow",
            What::Unknown => "unknown to this program",
        })
    }
}

impl Source<'_> {
    /// What was not used, by what it is.
    pub(super) fn left_out(&self, used: &BTreeSet<String>, choice: Choice) -> Vec<LeftOut> {
        let mut groups: BTreeMap<What, LeftOut> = BTreeMap::new();
        let keys = self.bundle.entries().keys();
        for key in keys.filter(|key| !used.contains(*key)) {
            let what = self.what(key);
            let group = groups.entry(what).or_insert_with(|| LeftOut {
                what,
                count: 0,
                first: key.clone(),
                flag: flag(what, choice),
            });
            group.count += 1;
        }
        groups.into_values().collect()
    }

    fn what(&self, key: &str) -> What {
        if key == GRAPH_KEY || key.starts_with("save_counter") {
            What::Bookkeeping
        } else if of_keras(key) {
            What::KerasSlots
        } else if is_slot(key) {
            What::Slots
        } else if matches!(key, "beta1_power" | "beta2_power") {
            What::Powers
        } else if of_memory(key) {
            What::Memory
        } else if key.starts_with(AVERAGE) {
            What::Average
        } else if !self.prefix.is_empty() && is_variable(key) {
            What::Weights
        } else {
            What::Unknown
        }
    }
}

/// The flag that would have taken something. Slots are those of the weights, so that they and the average exclude each other.
fn flag(what: What, choice: Choice) -> Option<&'static str> {
    match what {
        What::Average if !choice.slots => Some("--average"),
        What::Slots if !choice.slots && !choice.average => Some("--slots"),
        What::Memory if !choice.memory => Some("--memory"),
        _ => None,
    }
}
