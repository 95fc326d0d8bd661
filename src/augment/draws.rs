//! The draws of one view of a batch of images.

use crate::hlo::{DType, Shape, Value};
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

/// Number of purposes.
const PURPOSES: u32 = 14;

/// Draws for one view of the images at `example` positions of the global batch.
pub struct Draws<'g> {
    /// One key per step: seed and step mixed.
    key: [Value<'g>; 2],
    example: Value<'g>,
    view: u32,
    /// Draw 0 of every purpose: u32 `[PURPOSES, n]`.
    first: Option<Value<'g>>,
}

impl<'g> Draws<'g> {
    /// For view 0 or 1.
    pub fn new(key: Key<'g>, example: Value<'g>, view: u32) -> Self {
        let graph = key.step.graph();
        let _scope = graph.scope("draws");
        let zero = graph.scalar(0u32);
        let key = threefry2x32_hlo(key.seed, [key.step, zero]);
        let n = example.dim(0);
        // One loop over the purposes: the generator is compiled once, and its results are stored. Left to itself the compiler
        // would draw an image's numbers again at every pixel.
        let table = graph.zeros(&Shape::new(DType::U32, [i64::from(PURPOSES), n]));
        let state = [zero, table, key[0], key[1], example];
        let result = graph.while_loop(
            &state,
            |_, s| s[0].lt(f64::from(PURPOSES)),
            |graph, s| {
                let draws = Draws {
                    key: [s[2], s[3]],
                    example: s[4],
                    view,
                    first: None,
                };
                let word = s[0] + f64::from(view * 256);
                let row = draws.word_bits(word).reshape(&[1, n]);
                let start = [s[0].convert(DType::S32), graph.scalar(0i32)];
                vec![
                    s[0] + 1.0,
                    s[1].dynamic_update_slice(row, &start),
                    s[2],
                    s[3],
                    s[4],
                ]
            },
        );
        Draws {
            key,
            example,
            view,
            first: Some(result[1]),
        }
    }

    /// The counter's second word: purpose, view and the number of the draw.
    fn word(&self, purpose: u32, number: Value<'g>) -> Value<'g> {
        number * 512.0 + f64::from(self.view * 256 + purpose)
    }

    fn word_bits(&self, word: Value<'g>) -> Value<'g> {
        let word = word.broadcast_scalar(&self.example.dims());
        threefry2x32_hlo(self.key, [self.example, word])[0]
    }

    /// 32 random bits per image, `[n]`: the first draw of a purpose.
    pub fn bits(&self, purpose: u32) -> Value<'g> {
        let n = self.example.dim(0);
        match self.first {
            Some(table) => table
                .slice_dim(0, i64::from(purpose), i64::from(purpose) + 1)
                .reshape(&[n]),
            None => self.bits_at(purpose, self.example.graph().scalar(0u32)),
        }
    }

    /// Draw `number` (u32 scalar) of a purpose.
    fn bits_at(&self, purpose: u32, number: Value<'g>) -> Value<'g> {
        self.word_bits(self.word(purpose, number))
    }

    /// Uniform f32 in [0, 1) per image, `[n]`.
    pub fn uniform(&self, purpose: u32) -> Value<'g> {
        uniform_hlo(self.bits(purpose))
    }

    /// One uniform f32 for the whole view: the same on every replica.
    pub fn shared_uniform(&self, purpose: u32) -> Value<'g> {
        let graph = self.example.graph();
        let all = graph.scalar(u32::MAX); // no example has this position
        let word = self.word(purpose, graph.scalar(0u32));
        uniform_hlo(threefry2x32_hlo(self.key, [all, word])[0])
    }

    /// What a loop body needs to make draws of its own.
    pub(super) fn parts(&self) -> [Value<'g>; 3] {
        [self.key[0], self.key[1], self.example]
    }

    /// Rebuilt from its parts inside a loop body.
    pub(super) fn from_parts<'a>(parts: &[Value<'a>], view: u32) -> Draws<'a> {
        Draws {
            key: [parts[0], parts[1]],
            example: parts[2],
            view,
            first: None,
        }
    }

    pub(super) fn view(&self) -> u32 {
        self.view
    }

    /// As [`Draws::uniform`] for draw `number` (u32 scalar).
    pub(super) fn uniform_at(&self, purpose: u32, number: Value<'g>) -> Value<'g> {
        uniform_hlo(self.bits_at(purpose, number))
    }

    /// Uniform s32 in {0, …, count − 1} per image for positive s32 counts: the high word of bits × count, whose bias is below
    /// count / 2³².
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
