//! The draws of one view of a batch of images.

use crate::hlo::{DType, Value};
use crate::random::{threefry2x32_hlo, uniform_hlo};

/// What a step's draws start from: u32 scalars.
#[derive(Clone, Copy)]
pub struct Key<'g> {
    /// The run's seed, low and high word.
    pub seed: [Value<'g>; 2],
    /// Updates before this one.
    pub step: Value<'g>,
}

/// Purposes of draws; the counter's low byte. A purpose takes several draws by their number.
pub const ASPECT: u32 = 0;
/// Height of the crop.
pub const HEIGHT: u32 = 1;
/// Vertical offset of the crop.
pub const TOP: u32 = 2;
/// Horizontal offset of the crop.
pub const LEFT: u32 = 3;
/// Mirror.
pub const FLIP: u32 = 4;
/// Whether colours are jittered.
pub const JITTER: u32 = 5;
/// Order of the four colour operations.
pub const ORDER: u32 = 6;
/// Brightness.
pub const BRIGHTNESS: u32 = 7;
/// Contrast.
pub const CONTRAST: u32 = 8;
/// Saturation.
pub const SATURATION: u32 = 9;
/// Hue.
pub const HUE: u32 = 10;
/// Whether colour is dropped.
pub const GREY: u32 = 11;
/// Whether an image is blurred.
pub const BLUR: u32 = 12;
/// Width of the blur, one draw for a whole view of a step.
pub const SIGMA: u32 = 13;

/// Draws for one view of the images at `example` positions of the global batch.
pub struct Draws<'g> {
    /// One key per step: seed and step mixed.
    key: [Value<'g>; 2],
    example: Value<'g>,
    view: u32,
}

impl<'g> Draws<'g> {
    /// For view 0 or 1.
    pub fn new(key: Key<'g>, example: Value<'g>, view: u32) -> Self {
        let zero = key.step.graph().scalar(0u32);
        Draws {
            key: threefry2x32_hlo(key.seed, [key.step, zero]),
            example,
            view,
        }
    }

    /// Counter's second word: purpose, view and the number of the draw.
    fn word(&self, purpose: u32, number: Value<'g>) -> Value<'g> {
        number * 512.0 + f64::from(self.view * 256 + purpose)
    }

    /// 32 random bits per image, `[n]`.
    pub fn bits(&self, purpose: u32, number: u32) -> Value<'g> {
        self.bits_at(purpose, self.example.graph().scalar(number))
    }

    fn bits_at(&self, purpose: u32, number: Value<'g>) -> Value<'g> {
        let word = self
            .word(purpose, number)
            .broadcast_scalar(&self.example.dims());
        threefry2x32_hlo(self.key, [self.example, word])[0]
    }

    /// Uniform f32 in [0, 1) per image, `[n]`.
    pub fn uniform(&self, purpose: u32, number: u32) -> Value<'g> {
        uniform_hlo(self.bits(purpose, number))
    }

    /// One uniform f32 for the whole view: the same on every replica.
    pub fn shared_uniform(&self, purpose: u32) -> Value<'g> {
        let graph = self.example.graph();
        let all = graph.scalar(u32::MAX); // no example has this position
        let word = self.word(purpose, graph.scalar(0u32));
        uniform_hlo(threefry2x32_hlo(self.key, [all, word])[0])
    }

    /// The same draws with other values for what a loop body may not capture.
    pub(super) fn parts(&self) -> [Value<'g>; 3] {
        [self.key[0], self.key[1], self.example]
    }

    /// Rebuilt inside a loop body.
    pub(super) fn from_parts<'a>(parts: &[Value<'a>], view: u32) -> Draws<'a> {
        Draws {
            key: [parts[0], parts[1]],
            example: parts[2],
            view,
        }
    }

    pub(super) fn view(&self) -> u32 {
        self.view
    }

    /// As [`Draws::uniform`] with a computed number (u32 scalar).
    pub(super) fn uniform_at(&self, purpose: u32, number: Value<'g>) -> Value<'g> {
        uniform_hlo(self.bits_at(purpose, number))
    }

    /// Uniform s32 in {0, …, count − 1} per image for positive s32 counts: the high word of bits × count, whose bias is
    /// below count / 2³².
    pub(super) fn integer_at(
        &self,
        purpose: u32,
        number: Value<'g>,
        count: Value<'g>,
    ) -> Value<'g> {
        scaled(self.bits_at(purpose, number), count)
    }
}

/// ⌊bits · count / 2³²⌋ as s32, through 64-bit integers.
pub(super) fn scaled<'g>(bits: Value<'g>, count: Value<'g>) -> Value<'g> {
    let product = bits.convert(DType::U64) * count.convert(DType::U64);
    product.shift_right(32.0).convert(DType::S32)
}
