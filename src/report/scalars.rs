//! The named numbers of one step.

use std::collections::BTreeMap;

use serde::ser::{Serialize, SerializeMap, Serializer};

/// The tags under which the original's TF2 version logs (R §5.5), and ours beside them.
pub mod tags {
    /// NT-Xent loss, mean over the logged steps.
    pub const CONTRAST_LOSS: &str = "train/contrast_loss";
    /// Share of views whose partner has the highest logit, 0 to 1.
    pub const CONTRAST_ACC: &str = "train/contrast_acc";
    /// Entropy of the softmax over candidates, in nats.
    pub const CONTRAST_ENTROPY: &str = "train/contrast_entropy";
    /// The weight decay term of the loss.
    pub const WEIGHT_DECAY: &str = "train/weight_decay";
    /// Everything that is minimised.
    pub const TOTAL_LOSS: &str = "train/total_loss";
    /// Cross-entropy of the linear head that is trained beside.
    pub const SUPERVISED_LOSS: &str = "train/supervised_loss";
    /// Its accuracy, 0 to 1.
    pub const SUPERVISED_ACC: &str = "train/supervised_acc";
    /// The learning rate of the next step.
    pub const LEARNING_RATE: &str = "learning_rate";
    /// The image summary of augmented pairs.
    pub const IMAGE: &str = "image";
    /// Seconds per step.
    pub const STEP_TIME: &str = "perf/step_time";
    /// Original images (not views) per second.
    pub const IMAGES_PER_SECOND: &str = "perf/images_per_second";
    /// Seconds per step that the device waited for its examples.
    pub const INPUT_WAIT: &str = "perf/input_wait";
    /// Share of a step that the device waited for the host, 0 to 1.
    pub const HOST_WAIT: &str = "perf/host_wait";
}

/// The numbers of one step, by tag. Written as one flat JSON object: `step`, `epoch`, then the tags in order.
///
/// A number that is not finite is `null` in JSON, which has no word for it; TensorBoard gets it as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Scalars {
    /// Optimizer steps done so far.
    pub step: u64,
    /// Passes over the training set so far.
    pub epoch: f64,
    /// Value by tag.
    pub values: BTreeMap<String, f64>,
}

impl Scalars {
    /// No numbers yet.
    pub fn new(step: u64, epoch: f64) -> Scalars {
        Scalars {
            step,
            epoch,
            values: BTreeMap::new(),
        }
    }

    /// Sets one number; `f32` values are written with their own short digits.
    pub fn set(&mut self, tag: &str, value: impl Into<f64>) -> &mut Scalars {
        self.values.insert(tag.to_owned(), value.into());
        self
    }

    /// The same, for building in one expression.
    pub fn with(mut self, tag: &str, value: impl Into<f64>) -> Scalars {
        self.set(tag, value);
        self
    }

    /// The number under a tag.
    pub fn get(&self, tag: &str) -> Option<f64> {
        self.values.get(tag).copied()
    }
}

impl Serialize for Scalars {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2 + self.values.len()))?;
        map.serialize_entry("step", &self.step)?;
        map.serialize_entry("epoch", &self.epoch)?;
        for (tag, &value) in &self.values {
            // Most values come from the device as f32: 0.3 should not read 0.30000001192092896.
            let short = value as f32;
            if f64::from(short) == value {
                map.serialize_entry(tag, &short)?;
            } else {
                map.serialize_entry(tag, &value)?;
            }
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_flat_short_and_ordered() {
        let scalars = Scalars::new(120, 1.25)
            .with(tags::LEARNING_RATE, 0.3_f32)
            .with(tags::CONTRAST_LOSS, 4.125_f32)
            .with("eval/knn", 1.0 / 3.0)
            .with("train/nan", f64::NAN);
        assert_eq!(
            serde_json::to_string(&scalars).unwrap(),
            r#"{"step":120,"epoch":1.25,"eval/knn":0.3333333333333333,"learning_rate":0.3,"train/contrast_loss":4.125,"train/nan":null}"#
        );
    }
}
