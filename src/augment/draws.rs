//! The random numbers of a batch of views.

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

/// Number of purposes of the crop, the first ones, which are drawn again in each attempt.
pub const CROP: i64 = 4;

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

/// Draws for rows of images: row r is view `view[r]` of the image at place `example[r]` of the global batch.
pub struct Draws<'g> {
    /// One key per step: seed and step mixed.
    key: [Value<'g>; 2],
    example: Value<'g>,
    view: Value<'g>,
    /// Draw 0 of every purpose: u32 `[PURPOSES, rows]`; none inside a loop's body.
    first: Option<Value<'g>>,
}

impl<'g> Draws<'g> {
    /// For rows `example` and `view` (0 or 1), u32 `[rows]` each.
    pub fn new(key: Key<'g>, example: Value<'g>, view: Value<'g>) -> Self {
        let graph = key.step.graph();
        let _scope = graph.scope("draws");
        let zero = graph.scalar(0u32);
        let key = threefry2x32_hlo(key.seed, [key.step, zero]);
        let rows = example.dim(0);
        // One loop over the purposes: the generator is compiled once, and its results are stored. Left to itself the compiler
        // would draw an image's numbers again at every pixel.
        let table = graph.zeros(&Shape::new(DType::U32, [i64::from(PURPOSES), rows]));
        let state = [zero, table, key[0], key[1], example, view];
        let result = graph.while_loop(
            &state,
            |_, s| s[0].lt(f64::from(PURPOSES)),
            |graph, s| {
                // No example has the place that draws for a whole view are made with.
                let whole = s[0].eq(f64::from(SIGMA)).broadcast_scalar(&[rows]);
                let everywhere = graph.scalar(u32::MAX).broadcast_scalar(&[rows]);
                let draws = Draws {
                    key: [s[2], s[3]],
                    example: whole.select(everywhere, s[4]),
                    view: s[5],
                    first: None,
                };
                let row = draws.bits_at(s[0], graph.scalar(0u32)).reshape(&[1, rows]);
                let start = [s[0].convert(DType::S32), graph.scalar(0i32)];
                let mut next = s.to_vec();
                next[0] = s[0] + 1.0;
                next[1] = s[1].dynamic_update_slice(row, &start);
                next
            },
        );
        Draws {
            key,
            example,
            view,
            first: Some(result[1]),
        }
    }

    /// For both views of the images at `example`, u32 `[n]`: `2n` rows, all first views before all second ones.
    pub fn both_views(key: Key<'g>, example: Value<'g>) -> Self {
        let graph = example.graph();
        let n = example.dims();
        let view = |number: u32| graph.scalar(number).broadcast_scalar(&n);
        Draws::new(
            key,
            graph.concatenate(&[example, example], 0),
            graph.concatenate(&[view(0), view(1)], 0),
        )
    }

    /// 32 random bits per row: draw `number` of `purpose`, u32 scalars. The counter's words are the place, and number, view and
    /// purpose side by side.
    fn bits_at(&self, purpose: Value<'g>, number: Value<'g>) -> Value<'g> {
        let draw = number * 512.0 + purpose;
        let word = self.view * 256.0 + draw.broadcast_scalar(&self.view.dims());
        threefry2x32_hlo(self.key, [self.example, word])[0]
    }

    /// The first draw of a purpose: 32 random bits per row.
    pub fn bits(&self, purpose: u32) -> Value<'g> {
        let rows = self.example.dim(0);
        match self.first {
            Some(table) => table
                .slice_dim(0, i64::from(purpose), i64::from(purpose) + 1)
                .reshape(&[rows]),
            None => self.bits_at(
                self.example.graph().scalar(purpose),
                self.example.graph().scalar(0u32),
            ),
        }
    }

    /// Uniform f32 in [0, 1) per row; of [`SIGMA`] one value for all rows of a view.
    pub fn uniform(&self, purpose: u32) -> Value<'g> {
        uniform_hlo(self.bits(purpose))
    }

    /// Uniform f32 in [low, high) per row.
    pub fn between(&self, purpose: u32, low: f64, high: f64) -> Value<'g> {
        self.uniform(purpose) * (high - low) + low
    }

    /// Whether an event of this probability happens, pred per row.
    pub fn happens(&self, purpose: u32, probability: f64) -> Value<'g> {
        self.uniform(purpose).lt(probability)
    }

    /// What a loop body needs to make draws of its own.
    pub(super) fn parts(&self) -> [Value<'g>; 4] {
        [self.key[0], self.key[1], self.example, self.view]
    }

    /// Rebuilt from its parts inside a loop body.
    pub(super) fn from_parts<'a>(parts: &[Value<'a>]) -> Draws<'a> {
        Draws {
            key: [parts[0], parts[1]],
            example: parts[2],
            view: parts[3],
            first: None,
        }
    }

    /// The draws of the crop's first attempt, u32 `[CROP, rows]`.
    pub(super) fn crop_bits(&self) -> Value<'g> {
        match self.first {
            Some(table) => table.slice_dim(0, 0, CROP),
            None => self.crop_bits_at(self.example.graph().scalar(0u32)),
        }
    }

    /// Those of attempt `number` (u32 scalar).
    pub(super) fn crop_bits_at(&self, number: Value<'g>) -> Value<'g> {
        let grid = [CROP, self.example.dim(0)];
        let graph = number.graph();
        let purpose = graph.iota(DType::U32, &grid, 0);
        let draw = number * 512.0;
        let word = (self.view * 256.0 + draw.broadcast_scalar(&self.view.dims()))
            .broadcast_trailing(&grid);
        threefry2x32_hlo(
            self.key,
            [self.example.broadcast_trailing(&grid), word + purpose],
        )[0]
    }
}

/// Uniform s32 in {0, …, count − 1} for positive s32 counts: ⌊bits · count / 2³²⌋, through 64-bit integers; the bias is below
/// count / 2³².
pub(super) fn scaled<'g>(bits: Value<'g>, count: Value<'g>) -> Value<'g> {
    let product = bits.convert(DType::U64) * count.convert(DType::U64);
    product.shift_right(32.0).convert(DType::S32)
}
