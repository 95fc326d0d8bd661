//! The views of an image, on the device (reference §2): crop, bicubic resize, flip, colour jitter, grey, blur.
//!
//! Every draw is a pure function of (seed, step, global position of the example in the batch, view, purpose), see [`draws`]: no
//! view depends on which replica makes it.

mod blur;
mod colour;
mod crop;
pub mod draws;
pub mod host;
mod resize;

pub use blur::{blur, blur_half};
pub use colour::{
    ColourDraws, Factors, Order, brightness_additive, brightness_multiplicative, contrast, grey,
    hue, jitter, saturation,
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

/// Mirrors those images `[n, H, W, C]` whose `mirrored`, pred `[n]`, is set.
pub fn flip<'g>(images: Value<'g>, mirrored: Value<'g>) -> Value<'g> {
    mirrored
        .broadcast_leading(&images.dims())
        .select(images.reverse(&[2]), images)
}

/// Everything drawn for a batch of views: drawing is apart from applying, so that the laws and the operations can each be tested.
#[derive(Clone, Copy)]
pub struct ViewDraws<'g> {
    /// The box.
    pub crop: Crop<'g>,
    /// Whether it is mirrored, pred `[n]`.
    pub flip: Value<'g>,
    /// Colours.
    pub colour: ColourDraws<'g>,
    /// Whether it is blurred, pred `[n]`.
    pub blurred: Value<'g>,
    /// Width of the blur, f32 `[n]`: one value for all first views of a step and one for all second ones.
    pub sigma: Value<'g>,
}

impl Augmentation {
    /// Two views of each image: u8 `[n, H, W, 3]`, `example` u32 `[n]` (positions in the global batch) → f32 `[2n, S, S, 3]` in
    /// [0, 1], all first views before all second ones.
    pub fn two_views<'g>(&self, images: Value<'g>, key: Key<'g>, example: Value<'g>) -> Value<'g> {
        let graph = images.graph();
        let _scope = graph.scope("augment");
        let drawn = self.draw(
            &Draws::both_views(key, example),
            [images.dim(1), images.dim(2)],
        );
        self.view(graph.concatenate(&[images, images], 0), &drawn)
    }

    /// The same of crops that the host has cut (see [`host`]): u8 `[n, 2, S, S, 3]` → f32 `[2n, S, S, 3]`.
    pub fn two_views_of_crops<'g>(
        &self,
        crops: Value<'g>,
        key: Key<'g>,
        example: Value<'g>,
    ) -> Value<'g> {
        let _scope = crops.graph().scope("augment");
        let [n, size] = [crops.dim(0), self.image_size as i64];
        let crops = crops
            .transpose(&[1, 0, 2, 3, 4])
            .reshape(&[2 * n, size, size, 3]);
        let draws = Draws::both_views(key, example);
        let x = flip(to_float(crops), draws.happens(draws::FLIP, 0.5));
        let colour = ColourDraws::new(&draws, self.color_jitter_strength, self.brightness);
        let blurred = draws.happens(draws::BLUR, 0.5);
        self.colour_and_blur(x, &colour, draws.between(draws::SIGMA, 0.1, 2.0), blurred)
    }

    /// One view of each image for supervised training: u8 `[n, H, W, 3]` → f32 `[n, S, S, 3]` in [0, 1].
    pub fn one_view<'g>(&self, images: Value<'g>, key: Key<'g>, example: Value<'g>) -> Value<'g> {
        let graph = images.graph();
        let _scope = graph.scope("augment");
        let first = graph.scalar(0u32).broadcast_scalar(&example.dims());
        let drawn = self.draw(
            &Draws::new(key, example, first),
            [images.dim(1), images.dim(2)],
        );
        self.supervised_view(images, &drawn)
    }

    /// The same of a crop that the host has cut: u8 `[n, 1, S, S, 3]` → f32 `[n, S, S, 3]`.
    pub fn one_view_of_crops<'g>(
        &self,
        crops: Value<'g>,
        key: Key<'g>,
        example: Value<'g>,
    ) -> Value<'g> {
        let graph = crops.graph();
        let _scope = graph.scope("augment");
        let [n, size] = [crops.dim(0), self.image_size as i64];
        let first = graph.scalar(0u32).broadcast_scalar(&example.dims());
        let mirrored = Draws::new(key, example, first).happens(draws::FLIP, 0.5);
        flip(to_float(crops.reshape(&[n, size, size, 3])), mirrored)
    }

    /// Draws for images of `height` and `width`, with the laws of reference §2.3.
    pub fn draw<'g>(&self, draws: &Draws<'g>, [height, width]: [i64; 2]) -> ViewDraws<'g> {
        ViewDraws {
            crop: sample_crop(draws, height, width, 1.0),
            flip: draws.happens(draws::FLIP, 0.5),
            colour: ColourDraws::new(draws, self.color_jitter_strength, self.brightness),
            blurred: draws.happens(draws::BLUR, 0.5),
            sigma: draws.between(draws::SIGMA, 0.1, 2.0),
        }
    }

    /// A view of each image for pretraining: u8 `[n, H, W, 3]` → f32 `[n, S, S, 3]` in [0, 1].
    pub fn view<'g>(&self, images: Value<'g>, drawn: &ViewDraws<'g>) -> Value<'g> {
        let x = self.crop_and_flip(images, drawn);
        self.colour_and_blur(x, &drawn.colour, drawn.sigma, drawn.blurred)
    }

    fn colour_and_blur<'g>(
        &self,
        mut x: Value<'g>,
        colour: &ColourDraws<'g>,
        sigma: Value<'g>,
        blurred: Value<'g>,
    ) -> Value<'g> {
        let s = self.color_jitter_strength;
        if s > 0.0 || self.drop_colour_at_zero_strength {
            x = colour::jitter_and_grey(x, colour, s, self.brightness);
        }
        x = x.clamp(0.0, 1.0);
        if self.use_blur {
            let _scope = x.graph().scope("blur");
            x = blur_half(x, sigma, blurred, self.image_size);
        }
        x
    }

    /// A view of each image for supervised training: crop and flip, clipped.
    pub fn supervised_view<'g>(&self, images: Value<'g>, drawn: &ViewDraws<'g>) -> Value<'g> {
        self.crop_and_flip(images, drawn).clamp(0.0, 1.0)
    }

    fn crop_and_flip<'g>(&self, images: Value<'g>, drawn: &ViewDraws<'g>) -> Value<'g> {
        let _scope = images.graph().scope("crop");
        let size = [self.image_size as i64; 2];
        let flip = Some(drawn.flip);
        crop_and_resize(to_float(images), &drawn.crop, flip, size, self.resize)
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
