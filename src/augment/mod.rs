//! The views of an image, on the device (reference §2): crop, bicubic resize, flip, colour jitter, grey, blur.
//!
//! Every draw is a pure function of (seed, step, global position of the example in the batch, view, purpose), see [`draws`]: no
//! view depends on which replica makes it.

mod blur;
mod colour;
mod crop;
pub mod draws;
mod resize;

pub use blur::{blur, blur_half};
pub use colour::{
    Factors, Order, brightness_additive, brightness_multiplicative, contrast, grey, hue, jitter,
    saturation,
};
pub use crop::{Crop, centre_crop, crop_geometry, sample_crop};
pub use draws::{Draws, Key};
pub use resize::{ResizeKernel, crop_and_resize, resize};

use crate::hlo::{DType, Value};

/// Which brightness the jitter draws (reference O7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Brightness {
    /// Image times a factor: what both generations of the original run.
    Multiplicative,
    /// Image plus an offset: the first paper's.
    Additive,
}

/// The choices of the augmentation.
#[derive(Debug, Clone, PartialEq)]
pub struct Augmentation {
    /// Side length of the views.
    pub image_size: usize,
    /// Strength s of the colour jitter.
    pub color_jitter_strength: f64,
    /// Whether half of the views are blurred.
    pub use_blur: bool,
    /// Which brightness.
    pub brightness: Brightness,
    /// Which bicubic kernel.
    pub resize: ResizeKernel,
    /// Whether strength 0 still drops colour with probability 0.2 (the original's first version).
    pub drop_colour_at_zero_strength: bool,
}

/// uint8 to [0, 1]: times f32(1/255), not divided (reference O2).
pub fn to_float(images: Value) -> Value {
    images.convert(DType::F32) * f64::from(1.0f32 / 255.0)
}

impl Augmentation {
    /// Two views of each image: u8 `[n, H, W, 3]`, `example` u32 `[n]` (positions in the global batch) → f32 `[2n, S, S, 3]` in
    /// [0, 1], all first views before all second ones.
    pub fn two_views<'g>(&self, images: Value<'g>, key: Key<'g>, example: Value<'g>) -> Value<'g> {
        let graph = images.graph();
        let _scope = graph.scope("augment");
        let floats = to_float(images);
        let views = [0, 1].map(|view| {
            let _scope = graph.scope(format!("view_{}", view + 1));
            self.view(floats, &Draws::new(key, example, view))
        });
        graph.concatenate(&views, 0)
    }

    /// One view of each image for pretraining, from f32 images in [0, 1].
    fn view<'g>(&self, images: Value<'g>, draws: &Draws<'g>) -> Value<'g> {
        let s = self.color_jitter_strength;
        let mut x = self.crop_and_flip(images, draws);
        if s > 0.0 || self.drop_colour_at_zero_strength {
            x = colour::random(x, s, self.brightness, draws);
        }
        x = x.clamp(0.0, 1.0);
        if self.use_blur {
            x = blur::random(x, self.image_size, draws);
        }
        x
    }

    /// One view for supervised training: crop and flip, clipped.
    pub fn supervised_view<'g>(&self, images: Value<'g>, draws: &Draws<'g>) -> Value<'g> {
        self.crop_and_flip(to_float(images), draws).clamp(0.0, 1.0)
    }

    fn crop_and_flip<'g>(&self, images: Value<'g>, draws: &Draws<'g>) -> Value<'g> {
        let _scope = images.graph().scope("crop");
        let crop = sample_crop(draws, images.dim(1), images.dim(2), 1.0);
        let flip = draws.uniform(draws::FLIP).lt(0.5);
        crop_and_resize(
            images,
            &crop,
            Some(flip),
            [self.image_size as i64; 2],
            self.resize,
        )
    }

    /// What evaluation sees (reference §2.4, §2.5): u8 `[n, H, W, 3]` → f32 `[n, S, S, 3]`.
    pub fn evaluation<'g>(&self, images: Value<'g>) -> Value<'g> {
        let x = to_float(images);
        if self.image_size <= 32 {
            return x;
        }
        let size = self.image_size as i64;
        evaluation_view(x, size, size, self.resize)
    }
}

/// Centre crop, resize to `rows` × `columns`, clip (reference §2.4).
pub fn evaluation_view(x: Value, rows: i64, columns: i64, kernel: ResizeKernel) -> Value {
    let [top, left, height, width] = centre_crop(x.dim(1), x.dim(2), rows, columns);
    let cut = x
        .slice_dim(1, top, top + height)
        .slice_dim(2, left, left + width);
    resize(cut, rows, columns, kernel).clamp(0.0, 1.0)
}
