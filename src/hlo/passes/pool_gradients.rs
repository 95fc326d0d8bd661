//! Gradients of max-pooling without scattering.
//!
//! XLA makes a select-and-scatter on a GPU a window reduction that carries indices of 32 bits, and a scatter by atomic additions over an
//! array cleared before. Here every window notes in a byte which of its cells is the first that is largest, and every cell of the image
//! looks at the few windows that hold it: two loops that read and write each array once, and that the compiler joins with what stands
//! before and behind them.
//!
//! A window of nothing but −∞ at the border gives its gradient to the padding, and one that holds what is no number to none or another cell.

use super::is_zero;
use crate::hlo::{DType, Error, Literal, Module, Op, PadDim, Value, WindowDim};

/// No cell of a window.
const NONE: u8 = 255;
/// Such an offset is in no window.
const NOWHERE: u8 = 254;

pub(super) fn run(module: &Module) -> Result<Module, Error> {
    module.rewrite(&|_, node, operands| match &node.op {
        Op::SelectAndScatter { window } if applies(window) && is_zero(operands[2]) => {
            Some(gradient(window, operands[0], operands[1]))
        }
        _ => None,
    })
}

/// Windows over two dimensions of images, few enough cells for a byte.
fn applies(window: &[WindowDim]) -> bool {
    let [first, rows, columns, last] = window else {
        return false;
    };
    let plain = |w: &&WindowDim| w.base_dilation == 1 && w.window_dilation == 1;
    [first, last].iter().all(|w| **w == WindowDim::identity())
        && [rows, columns]
            .iter()
            .all(|w| plain(w) && w.low >= 0 && w.high >= 0)
        && rows.size * columns.size < i64::from(NOWHERE)
}

fn gradient<'g>(window: &[WindowDim], x: Value<'g>, dy: Value<'g>) -> Value<'g> {
    let graph = x.graph();
    let [rows, columns] = [1, 2].map(|d| Direction::new(&window[d], x.dim(d), dy.dim(d)));
    let (images, channels) = (x.dim(0), x.dim(3));
    let chosen = chosen(window, x);
    let dims = [
        images,
        rows.blocks,
        rows.stride,
        columns.blocks,
        columns.stride,
        channels,
    ];
    // Additions are as exact as those of the scatter, or more.
    let wide = if dy.dtype() == DType::Bf16 {
        DType::F32
    } else {
        dy.dtype()
    };
    let dy = dy.convert(wide);
    let mut sum: Option<Value> = None;
    for down in 0..rows.windows {
        for across in 0..columns.windows {
            let around = [
                PadDim::default(),
                rows.shifted(down),
                columns.shifted(across),
                PadDim::default(),
            ];
            let of_windows = |value: Value<'g>, fill: f64| {
                value
                    .pad(fill, &around)
                    .broadcast_in_dim(&dims, &[0, 1, 3, 5])
            };
            // The cell that each pixel of a block is in the window that begins so many blocks before.
            let mut own = Vec::new();
            for class in 0..rows.stride {
                for place in 0..columns.stride {
                    let (i, j) = (class + down * rows.stride, place + across * columns.stride);
                    let inside = i < rows.size && j < columns.size;
                    own.push(if inside {
                        (i * columns.size + j) as u8
                    } else {
                        NOWHERE
                    });
                }
            }
            let own = graph.constant(Literal::new(&[rows.stride, columns.stride], &own));
            let own = own.broadcast_in_dim(&dims, &[2, 4]);
            let here = of_windows(chosen, f64::from(NONE)).eq(own);
            let term = here.select(of_windows(dy, 0.0), 0.0);
            sum = Some(sum.map_or(term, |sum| sum + term));
        }
    }
    let all = [
        images,
        rows.blocks * rows.stride,
        columns.blocks * columns.stride,
        channels,
    ];
    let sum = sum
        .unwrap_or_else(|| graph.fail("gradient", "a window holds no cell"))
        .convert(x.dtype());
    sum.reshape(&all).slice(
        &[0, rows.low, columns.low, 0],
        &[
            images,
            rows.low + x.dim(1),
            columns.low + x.dim(2),
            channels,
        ],
        &[1; 4],
    )
}

/// For each window the first of its cells, row by row, that is its largest; [`NONE`] where none equals it.
fn chosen<'g>(window: &[WindowDim], x: Value<'g>) -> Value<'g> {
    let cells = x.cells(f64::NEG_INFINITY, window);
    let largest = cells.iter().copied().reduce(|a, b| a.max(b)).unwrap_or(x);
    let graph = x.graph();
    let code = |cell: u8| graph.scalar(cell).broadcast_scalar(&largest.dims());
    let numbered = cells.iter().enumerate().rev();
    numbered.fold(code(NONE), |found, (number, &cell)| {
        cell.eq(largest).select(code(number as u8), found)
    })
}

/// One direction of the windows. Pixel `p` is cell `(p + low) mod stride + stride·d` of window `⌊(p + low) / stride⌋ − d`.
struct Direction {
    size: i64,
    stride: i64,
    low: i64,
    outputs: i64,
    /// Windows that hold a pixel, at most.
    windows: i64,
    /// Blocks of `stride` pixels that hold the padding before the image, and the image.
    blocks: i64,
}

impl Direction {
    fn new(w: &WindowDim, pixels: i64, outputs: i64) -> Self {
        let up = |a: i64, b: i64| (a + b - 1) / b;
        Direction {
            size: w.size,
            stride: w.stride,
            low: w.low,
            outputs,
            windows: up(w.size, w.stride),
            blocks: up(pixels + w.low, w.stride),
        }
    }

    /// What gives each block the window that begins so many blocks before.
    fn shifted(&self, blocks: i64) -> PadDim {
        PadDim {
            low: blocks,
            high: self.blocks - self.outputs - blocks,
            interior: 0,
        }
    }
}
