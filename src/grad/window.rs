//! Gradients of reductions over windows.

use crate::hlo::{Monoid, Value, WindowDim};

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

/// Cotangent of the source of a select-and-scatter: for each window, the cotangent at its first maximum. (Of equal ones the plugin may have taken
/// another.)
pub(super) fn selected<'g>(window: &[WindowDim], x: Value<'g>, ct: Value<'g>) -> Value<'g> {
    let seen = x.cells(f64::NEG_INFINITY, window);
    let mut pairs = seen.into_iter().zip(ct.cells(0.0, window));
    let Some(first) = pairs.next() else {
        return x.graph().fail("gradient", "a window holds no element");
    };
    let (_, value) = pairs.fold(first, |(best, value), (candidate, own)| {
        let larger = candidate.gt(best);
        (larger.select(candidate, best), larger.select(own, value))
    });
    value
}
