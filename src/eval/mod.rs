//! What frozen features are worth: weighted k-nearest-neighbours and a linear probe.
//!
//! Both run on the engine: the similarities and the probe's objective are HLO like everything else; the host only picks
//! neighbours and steers the optimiser.

mod classified;
mod knn;
mod probe;

pub use classified::{Classified, first_largest};
pub use knn::{Knn, knn};
pub use probe::{Fitted, Probe, fit_probe, linear_probe};

use crate::hlo::{DType, Literal, Shape};

/// Features of a split with their labels.
#[derive(Debug, Clone)]
pub struct Features {
    /// Features per example.
    pub width: usize,
    /// `[examples, width]`, row-major.
    pub values: Vec<f32>,
    /// Class of each example.
    pub labels: Vec<u32>,
}

impl Features {
    /// Number of examples.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Pixels of u8 images as features in [0, 1].
    pub fn of_pixels(images: &[u8], labels: &[u32]) -> Self {
        Features {
            width: images.len() / labels.len().max(1),
            values: images.iter().map(|&p| f32::from(p) / 255.0).collect(),
            labels: labels.to_vec(),
        }
    }

    fn literal(&self) -> Literal {
        Literal::new(&[self.len() as i64, self.width as i64], &self.values)
    }

    fn shape(&self) -> Shape {
        Shape::new(DType::F32, [self.len() as i64, self.width as i64])
    }

    /// The mean of each feature.
    pub fn mean(&self) -> Vec<f32> {
        let mut sums = vec![0.0f64; self.width];
        for row in self.values.chunks_exact(self.width) {
            for (sum, &x) in sums.iter_mut().zip(row) {
                *sum += f64::from(x);
            }
        }
        sums.iter()
            .map(|sum| (sum / self.len() as f64) as f32)
            .collect()
    }

    /// Less a constant row.
    pub fn centred(&self, mean: &[f32]) -> Self {
        let mut out = self.clone();
        for row in out.values.chunks_exact_mut(self.width) {
            for (x, m) in row.iter_mut().zip(mean) {
                *x -= m;
            }
        }
        out
    }
}
