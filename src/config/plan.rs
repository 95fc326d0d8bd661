//! What follows from a configuration, the size of the data and the number of devices (reference §5.1, §6).

use super::{Config, Error, Loaded, Scaling};
use crate::words::counted;

/// Numbers of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Examples of the training split.
    pub examples: usize,
    /// Devices.
    pub replicas: usize,
    /// Images per step and device.
    pub per_replica: usize,
    /// Steps in all.
    pub total_steps: u64,
    /// Steps of an epoch, rounded.
    pub epoch_steps: u64,
    /// Steps of warm-up.
    pub warmup_steps: u64,
    /// Steps between checkpoints.
    pub checkpoint_steps: u64,
    /// Steps between lines of metrics.
    pub summary_steps: u64,
    /// The rate after warm-up.
    pub scaled_rate: f64,
}

impl Plan {
    /// Works the numbers out.
    ///
    /// # Errors
    /// If the batch does not divide among the devices, is larger than the data, or the warm-up outlasts training.
    pub fn new(loaded: &Loaded, examples: usize, replicas: usize) -> Result<Self, Error> {
        let config: &Config = &loaded.config;
        let batch = config.train_batch_size;
        if !batch.is_multiple_of(replicas) {
            return Err(loaded.bad(
                "train_batch_size",
                format!("a multiple of the number of devices, {replicas} (runtime.devices)"),
            ));
        }
        if batch > examples {
            return Err(loaded.bad(
                "train_batch_size",
                format!("at most {examples}, the examples of the training split"),
            ));
        }
        let total_steps = match config.train_steps {
            0 => examples as u64 * config.train_epochs / batch as u64 + 1,
            steps => steps,
        };
        let epoch_steps = (examples as f64 / batch as f64).round_ties_even().max(1.0) as u64;
        let warmup_steps = (config.warmup_epochs * examples as f64 / batch as f64).floor() as u64;
        if warmup_steps >= total_steps {
            return Err(loaded.bad(
                "warmup_epochs",
                format!(
                    "a warm-up shorter than training ({warmup_steps} of {total_steps} steps); lower it, or train longer"
                ),
            ));
        }
        let checkpoint_steps = match config.checkpoint_steps {
            0 => (config.checkpoint_epochs * epoch_steps).max(1),
            steps => steps,
        };
        let scaled_rate = match config.learning_rate_scaling {
            Scaling::Linear => config.learning_rate * batch as f64 / 256.0,
            Scaling::Sqrt => config.learning_rate * (batch as f64).sqrt(),
        };
        let summary_steps = match config.train_summary_steps {
            0 => checkpoint_steps,
            steps => steps,
        };
        Ok(Plan {
            examples,
            replicas,
            per_replica: batch / replicas,
            total_steps,
            epoch_steps,
            warmup_steps,
            checkpoint_steps,
            summary_steps,
            scaled_rate,
        })
    }

    /// Epochs after a number of steps.
    pub fn epoch(&self, step: u64) -> f64 {
        step as f64 * (self.per_replica * self.replicas) as f64 / self.examples as f64
    }

    /// One line for people.
    pub fn explain(&self, platform: &str) -> String {
        format!(
            "{} of {} ({} × {}), {} per epoch; warm-up {} to rate {:.4}; checkpoint every {}",
            counted(self.total_steps, "step"),
            counted((self.per_replica * self.replicas) as u64, "image"),
            counted(self.replicas as u64, &format!("{platform} device")),
            self.per_replica,
            self.epoch_steps,
            counted(self.warmup_steps, "step"),
            self.scaled_rate,
            self.checkpoint_steps
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    fn plan(overrides: &[&str], examples: usize) -> Plan {
        let overrides: Vec<String> = overrides.iter().map(|s| s.to_string()).collect();
        Plan::new(&load(None, &overrides).unwrap(), examples, 1).unwrap()
    }

    /// The table of reference §5.1 and the scaled rates of §6.
    #[test]
    fn step_counts_are_those_of_the_original() {
        let cifar = plan(
            &[
                "train_batch_size=512",
                "train_epochs=1000",
                "learning_rate=1.0",
            ],
            50_000,
        );
        assert_eq!(
            (cifar.total_steps, cifar.epoch_steps, cifar.warmup_steps),
            (97_657, 98, 976)
        );
        assert_eq!(cifar.scaled_rate, 2.0);
        let imagenet = plan(
            &[
                "train_batch_size=4096",
                "learning_rate=0.075",
                "learning_rate_scaling=sqrt",
            ],
            1_281_167,
        );
        assert_eq!(
            (
                imagenet.total_steps,
                imagenet.epoch_steps,
                imagenet.warmup_steps
            ),
            (31_279, 313, 3_127)
        );
        assert!((imagenet.scaled_rate - 4.8).abs() < 1e-12);
        let percent = plan(
            &[
                "train_batch_size=1024",
                "train_epochs=60",
                "warmup_epochs=0",
            ],
            12_811,
        );
        assert_eq!((percent.total_steps, percent.epoch_steps), (751, 13));
    }
}
