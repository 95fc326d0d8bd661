//! Gradients of reductions over windows.

use crate::hlo::{Monoid, PadDim, Value, WindowDim};

/// Cotangent of the operand of a reduce-window.
pub(super) fn reduce_window<'g>(
    monoid: Monoid,
    window: &[WindowDim],
    x: Value<'g>,
    ct: Value<'g>,
) -> Value<'g> {
    let dilated = window
        .iter()
        .any(|w| w.window_dilation != 1 || w.base_dilation != 1);
    match monoid {
        Monoid::Maximum | Monoid::Minimum if dilated => x.graph().fail(
            "gradient",
            "an extreme over dilated windows has no gradient; use windows without dilation",
        ),
        Monoid::Maximum => x.select_and_scatter(ct, window),
        // The first minimum is the first maximum of the negative.
        Monoid::Minimum => (-x).select_and_scatter(ct, window),
        Monoid::Add | Monoid::Multiply | Monoid::And | Monoid::Or => {
            // Each input element sums the cotangents of the windows that hold it: a window sum over the spread cotangents.
            let back: Vec<WindowDim> = window
                .iter()
                .zip(x.dims().iter().zip(ct.dims()))
                .map(|(w, (&inputs, outputs))| {
                    let spread = (inputs - 1).max(0) * w.base_dilation + 1;
                    let reach = (w.size - 1) * w.window_dilation;
                    let low = reach - w.low;
                    WindowDim {
                        size: w.size,
                        stride: w.base_dilation,
                        low,
                        high: spread - (outputs - 1) * w.stride - 1 - low + reach,
                        window_dilation: w.window_dilation,
                        base_dilation: w.stride,
                    }
                })
                .collect();

            ct.reduce_window(Monoid::Add, &back)
        }
    }
}

/// Cotangent of the source of a select-and-scatter: for each window, the cotangent at its first maximum.
pub(super) fn selected<'g>(window: &[WindowDim], x: Value<'g>, ct: Value<'g>) -> Value<'g> {
    let pad: Vec<PadDim> = window
        .iter()
        .map(|w| PadDim {
            low: w.low,
            high: w.high,
            interior: 0,
        })
        .collect();
    let padded = x.pad(f64::NEG_INFINITY, &pad);
    let values = ct.pad(0.0, &pad);
    let outputs: Vec<i64> = window
        .iter()
        .zip(x.dims())
        .map(|(w, d)| w.output(d))
        .collect();
    let stride: Vec<i64> = window.iter().map(|w| w.stride).collect();
    let taken = |source: Value<'g>, offset: &[i64]| {
        let limit: Vec<i64> = (0..offset.len())
            .map(|i| offset[i] + (outputs[i] - 1) * stride[i] + 1)
            .collect();
        source.slice(offset, &limit, &stride)
    };
    let mut offset = vec![0; window.len()];
    let mut best = taken(padded, &offset);
    let mut value = taken(values, &offset);
    loop {
        // The next place in the window, last dimension fastest.
        let Some(place) = (0..window.len())
            .rev()
            .find(|&i| offset[i] + 1 < window[i].size)
        else {
            return value;
        };
        offset[place] += 1;
        offset[place + 1..].fill(0);
        let candidate = taken(padded, &offset);
        let larger = candidate.gt(best);
        best = larger.select(candidate, best);
        value = larger.select(taken(values, &offset), value);
    }
}
