//! A bundle as one of the original's checkpoints: which key has which variable, slot or step.

use super::{Choice, Error};
use crate::interop::names::tf2_paths;
use crate::interop::object_graph::{GRAPH_KEY, Objects, VALUE};
use crate::interop::tensor_bundle::{Bundle, DataType};
use crate::model::Network;
use crate::nn::Variable;
use crate::train::checkpoint::Array;
use safetensors::Dtype;
use std::collections::BTreeSet;

/// Where the published SimCLRv2 checkpoints keep the moving average of their weights.
pub(super) const AVERAGE: &str = "ema_model/";
/// Names of slots.
pub(super) const SLOTS: [&str; 3] = ["Momentum", "Adam", "Adam_1"];
/// Ends of the names of variables, as opposed to slots and counters.
const PARTS: [&str; 6] = [
    "kernel",
    "bias",
    "gamma",
    "beta",
    "moving_mean",
    "moving_variance",
];

/// A bundle read as one of the original's checkpoints.
pub(super) struct Source<'a> {
    pub(super) bundle: &'a Bundle,
    /// Before all names of the first generation.
    pub(super) prefix: &'static str,
    /// Of the second generation.
    objects: Option<Objects>,
}

impl<'a> Source<'a> {
    pub(super) fn new(bundle: &'a Bundle, choice: Choice) -> Result<Self, Error> {
        let entries = bundle.entries();
        let objects = if entries.contains_key(GRAPH_KEY) {
            let graph = bundle.strings(GRAPH_KEY)?.concat();
            let objects = Objects::parse(&graph)
                .ok_or_else(|| Error::damaged(bundle.prefix(), "its object graph is unreadable"))?;
            Some(objects)
        } else {
            None
        };
        let source = Source {
            bundle,
            prefix: if choice.average { AVERAGE } else { "" },
            objects,
        };
        if choice.average && source.encoder_keys().is_empty() {
            let what = format!("moving average of the weights (`{AVERAGE}base_model/…`)");
            return Err(source.without(what, "--average"));
        }
        Ok(source)
    }

    pub(super) fn generation(&self) -> u8 {
        if self.objects.is_some() { 2 } else { 1 }
    }

    /// The key of each variable of a network, by our names; `None` where the file has none.
    pub(super) fn keys(&self, network: &Network, names: &[String]) -> Vec<Option<String>> {
        let there = |key: String| self.bundle.entries().contains_key(&key).then_some(key);
        match &self.objects {
            None => names
                .iter()
                .map(|name| there(format!("{}{name}", self.prefix)))
                .collect(),
            Some(objects) => tf2_paths(network, names)
                .into_iter()
                .map(|path| objects.key(&path?).and_then(there))
                .collect(),
        }
    }

    pub(super) fn dims(&self, key: &str) -> &[usize] {
        let entry = self.bundle.entries().get(key);
        entry.map_or(&[], |entry| entry.dims.as_slice())
    }

    /// Keys of all variables of the encoder.
    pub(super) fn encoder_keys(&self) -> BTreeSet<&str> {
        let keys = self.bundle.entries().keys().map(String::as_str);
        match &self.objects {
            None => keys
                .filter(|key| {
                    let own = key.strip_prefix(self.prefix);
                    own.is_some_and(|own| own.starts_with("base_model/") && is_variable(own))
                })
                .collect(),
            Some(_) => keys
                .filter(|key| {
                    let model = key.strip_prefix("model/").unwrap_or(key);
                    model.starts_with("resnet_model/") && !key.contains("/.OPTIMIZER_SLOT/")
                })
                .collect(),
        }
    }

    pub(super) fn unknown(&self, nearest: String, what: String) -> Error {
        Error::UnknownNetwork {
            path: self.bundle.prefix().to_owned(),
            nearest,
            what,
        }
    }

    pub(super) fn array(&self, variable: &Variable, key: &str) -> Result<Array, Error> {
        let entry = &self.bundle.entries()[key];
        if entry.dtype != DataType::Numbers(Dtype::F32) {
            return Err(Error::Unsupported {
                path: self.bundle.prefix().to_owned(),
                found: format!("has tensor `{key}` of {}", entry.dtype),
                expected: "f32".into(),
            });
        }
        Ok(Array {
            name: variable.name.clone(),
            dtype: Dtype::F32,
            dims: entry.dims.clone(),
            bytes: self.bundle.numbers(key)?,
        })
    }

    /// Slots of the variables, under our names.
    pub(super) fn slots(
        &self,
        variables: &[Variable],
        keys: &[Option<String>],
        arrays: &mut Vec<Array>,
        used: &mut BTreeSet<String>,
    ) -> Result<usize, Error> {
        let before = arrays.len();
        for (variable, key) in variables.iter().zip(keys) {
            let Some(key) = key else { continue };
            for slot in SLOTS {
                let slot_key = match key.strip_suffix(VALUE) {
                    Some(path) => format!("{path}/.OPTIMIZER_SLOT/optimizer/{slot}{VALUE}"),
                    None => format!("{key}/{slot}"),
                };
                if self.bundle.entries().contains_key(&slot_key) {
                    let mut array = self.array(variable, &slot_key)?;
                    array.name = format!("{}/{slot}", variable.name);
                    arrays.push(array);
                    used.insert(slot_key);
                }
            }
        }
        if arrays.len() > before {
            return Ok(arrays.len() - before);
        }
        let mut names = self.bundle.entries().keys();
        Err(self.without(match names.find(|name| of_keras(name)) {
            Some(name) => format!(
                "optimizer slots but those of one of Keras (`{name}`, …), which no step of this program goes on from"
            ),
            None => "optimizer slots".into(),
        }, "--slots"))
    }

    /// The memory of negatives: its tensors under their own names.
    pub(super) fn memory(&self, used: &mut BTreeSet<String>) -> Result<Vec<Array>, Error> {
        let mut arrays = Vec::new();
        for (name, entry) in self.bundle.entries() {
            if let (true, DataType::Numbers(dtype)) = (of_memory(name), entry.dtype) {
                arrays.push(Array {
                    name: name.clone(),
                    dtype,
                    dims: entry.dims.clone(),
                    bytes: self.bundle.numbers(name)?,
                });
                used.insert(name.clone());
            }
        }
        if arrays.is_empty() {
            let what = "memory of negatives (no variable has `memory` in its name)";
            return Err(self.without(what.into(), "--memory"));
        }
        Ok(arrays)
    }

    /// What was asked for is not there.
    fn without(&self, what: String, flag: &str) -> Error {
        Error::Unsupported {
            path: self.bundle.prefix().to_owned(),
            found: format!("has no {what}"),
            expected: format!("some; leave {flag} out"),
        }
    }

    /// The step, as a number and as our state's array.
    pub(super) fn step(&self) -> Result<(u64, Vec<Array>, BTreeSet<String>), Error> {
        let key = match self.objects {
            None => "global_step".to_owned(),
            Some(_) => format!("global_step{VALUE}"),
        };
        let mut used = BTreeSet::new();
        let mut step = 0;
        if let Some(entry) = self.bundle.entries().get(&key)
            && entry.dtype == DataType::Numbers(Dtype::I64)
            && entry.dims.is_empty()
        {
            let bytes = self.bundle.numbers(&key)?;
            // Eight bytes, as the entry was checked to have.
            let value = bytes.try_into().map_or(0, i64::from_le_bytes);
            step = u32::try_from(value).unwrap_or(0);
            used.insert(key);
        }
        let array = Array {
            name: "global_step".into(),
            dtype: Dtype::U32,
            dims: Vec::new(),
            bytes: step.to_le_bytes().to_vec(),
        };
        Ok((u64::from(step), vec![array], used))
    }
}

/// Whether a name ends as those of variables do.
pub(super) fn is_variable(name: &str) -> bool {
    let last = name.rsplit('/').next().unwrap_or(name);
    PARTS.contains(&last)
}

/// Whether a name is that of a slot.
pub(super) fn is_slot(name: &str) -> bool {
    let (_, last) = name.rsplit_once('/').unwrap_or(("", name));
    name.contains("/.OPTIMIZER_SLOT/") || SLOTS.contains(&last)
}

/// Whether Keras's own optimizers keep something under this name: all their variables in one list, or, of older ones, slots under
/// names of their own (`momentum`, `m`, `v`).
pub(super) fn of_keras(name: &str) -> bool {
    let slot = name.split_once("/.OPTIMIZER_SLOT/").map(|(_, slot)| slot);
    let slot = slot.and_then(|slot| slot.trim_end_matches(VALUE).rsplit('/').next());
    name.starts_with("optimizer/") || slot.is_some_and(|slot| !SLOTS.contains(&slot))
}

/// Whether a name is one of the queue of negatives that SimCLRv2 was pretrained with.
pub(super) fn of_memory(name: &str) -> bool {
    name.contains("memory") && !is_slot(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_under_other_names_are_those_of_keras() {
        let of = |slot: &str| format!("model/dense/kernel/.OPTIMIZER_SLOT/optimizer/{slot}{VALUE}");
        assert!(
            of_keras(&of("momentum")) && of_keras(&of("v")) && of_keras("optimizer/_variables/3")
        );
        assert!(!of_keras(&of("Momentum")) && !of_keras(&of("Adam_1")));
        assert!(!of_keras("base_model/conv2d/kernel/Momentum"));
    }
}
