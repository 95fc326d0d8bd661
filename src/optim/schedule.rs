//! The learning rate (reference §6).

use crate::hlo::{DType, Value};

/// Linear warm-up, then a cosine to zero.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// The rate at the end of the warm-up, already scaled by the batch.
    pub scaled_rate: f64,
    /// Steps of warm-up; with warm-up the first update has rate 0.
    pub warmup_steps: u64,
    /// Steps of training; from there on the rate is 0.
    pub total_steps: u64,
}

impl Schedule {
    /// The rate of the update that `step` updates precede.
    pub fn rate(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.scaled_rate * step as f64 / self.warmup_steps as f64;
        }
        let length = self.total_steps - self.warmup_steps;
        let at = (step - self.warmup_steps).min(length);
        let cosine = (std::f64::consts::PI * at as f64 / length as f64).cos();
        self.scaled_rate * 0.5 * (1.0 + cosine)
    }

    /// The same in HLO: `step` an integer scalar, the result a scalar of `dtype`.
    pub fn rate_hlo<'g>(&self, step: Value<'g>, dtype: DType) -> Value<'g> {
        let _scope = step.graph().scope("learning_rate");
        let step = step.convert(DType::S32);
        let length = self.total_steps.saturating_sub(self.warmup_steps).max(1) as f64;
        let warmup = self.warmup_steps as f64;
        // Integers are subtracted before they become floats: exact up to 2²⁴ steps also in f32.
        let at = (step - warmup).max(0.0).min(length).convert(dtype);
        let cosine = (at * (std::f64::consts::PI / length)).cos();
        let decayed = (cosine + 1.0) * (0.5 * self.scaled_rate);
        if self.warmup_steps == 0 {
            return decayed;
        }
        let rising = step.convert(dtype) * (self.scaled_rate / warmup);
        step.lt(warmup).select(rising, decayed)
    }
}
