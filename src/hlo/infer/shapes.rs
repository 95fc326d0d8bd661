//! Results whose shape takes more than a line: windows, contractions, indices.

use super::checks::*;
use super::{Inferred, infer};
use crate::hlo::op::{Conv, DotDims, GatherDims, Monoid, Op, Reducer, ScatterDims, WindowDim};
use crate::hlo::shape::{DType, Shape, Type};

pub(super) fn broadcast(x: &Shape, dims: &[i64], mapping: &[i64]) -> Inferred<Shape> {
    let result = Shape::new(x.dtype, dims);
    if mapping.len() != x.rank() {
        return Err(format!("{x} into {result} by {mapping:?}"));
    }
    for (i, &to) in mapping.iter().enumerate() {
        check_dim(to, &result)?;
        if dims[to as usize] != x.dims[i] || (i > 0 && mapping[i - 1] >= to) {
            return Err(format!("{x} into {result} by {mapping:?}"));
        }
    }
    Ok(result)
}

pub(super) fn reduce(operands: &[&Type], dims: &[i64], reducer: &Reducer) -> Inferred<Type> {
    let count = operands.len() / 2;
    if count == 0 || !operands.len().is_multiple_of(2) {
        return Err(format!(
            "{} operands, expected values and initial values",
            operands.len()
        ));
    }
    let first = array(operands, 0)?;
    check_distinct(dims, first)?;
    let kept: Vec<i64> = (0..first.rank())
        .filter(|i| !dims.contains(&(*i as i64)))
        .map(|i| first.dims[i])
        .collect();
    let mut results = Vec::new();
    let mut scalars = Vec::new();
    for i in 0..count {
        let (x, init) = (array(operands, i)?, array(operands, count + i)?);
        if x.dims != first.dims || *init != Shape::scalar(x.dtype) {
            return Err(format!(
                "value {x} with initial value {init}, beside {first}"
            ));
        }
        results.push(Shape::new(x.dtype, kept.clone()));
        scalars.push(Type::Array(Shape::scalar(x.dtype)));
    }
    match reducer {
        Reducer::Monoid(_) if count > 1 => return Err("a monoid reduces one operand".into()),
        Reducer::Monoid(monoid) => check_monoid(*monoid, first.dtype)?,
        Reducer::General(body) => {
            let arguments: Vec<&Type> = scalars.iter().chain(&scalars).collect();
            let result = Type::Tuple(results.iter().map(|r| Shape::scalar(r.dtype)).collect());
            signature(body, &arguments, Some(&result)).map_err(|e| format!("reducer: {e}"))?;
        }
    }
    Ok(match (reducer, results.pop()) {
        (Reducer::Monoid(_), Some(only)) => Type::Array(only),
        (_, last) => {
            results.extend(last);
            Type::Tuple(results)
        }
    })
}

/// Whether a monoid's elementwise operation is defined for a type (lowering relies on it).
pub(super) fn check_monoid(monoid: Monoid, dtype: DType) -> Inferred<()> {
    let scalar = Type::Array(Shape::scalar(dtype));
    infer(&Op::Binary(monoid.binary()), &[&scalar, &scalar])
        .map(drop)
        .map_err(|message| format!("{monoid:?} {message}"))
}

pub(super) fn windowed(window: &[WindowDim], dims: &[i64]) -> Inferred<Vec<i64>> {
    if window.len() != dims.len() {
        return Err(format!(
            "a window of {} dimensions over {dims:?}",
            window.len()
        ));
    }
    let mut result = Vec::new();
    for (w, &d) in window.iter().zip(dims) {
        if w.size < 1 || w.stride < 1 || w.window_dilation < 1 || w.base_dilation < 1 {
            return Err(format!(
                "window {w:?} has a size, stride or dilation below 1"
            ));
        }
        result.push(w.output(d));
    }
    Ok(result)
}

pub(super) fn convolution(x: &Shape, kernel: &Shape, conv: &Conv) -> Inferred<Shape> {
    let n = &conv.dims;
    let spatial = conv.window.len();
    let numbered = |first: i64, second: i64, rest: &[i64], shape: &Shape| -> Inferred<()> {
        let all: Vec<i64> = [first, second].iter().chain(rest).copied().collect();
        check_distinct(&all, shape)?;
        if all.len() != shape.rank() || rest.len() != spatial {
            return Err(format!("dimension numbers {all:?} for {shape}"));
        }
        Ok(())
    };
    numbered(n.input_batch, n.input_feature, &n.input_spatial, x)?;
    numbered(n.kernel_input, n.kernel_output, &n.kernel_spatial, kernel)?;
    let at = |shape: &Shape, dim: i64| shape.dims[dim as usize];
    let (batch, feature) = (at(x, n.input_batch), at(x, n.input_feature));
    let (kernel_in, kernel_out) = (at(kernel, n.kernel_input), at(kernel, n.kernel_output));
    if x.dtype != kernel.dtype
        || feature != kernel_in * conv.feature_groups
        || kernel_out % conv.feature_groups != 0
        || conv.batch_groups < 1
        || batch % conv.batch_groups != 0
        || kernel_out % conv.batch_groups != 0
    {
        return Err(format!(
            "input {x} with {feature} features, kernel {kernel} with {kernel_in} inputs, {} feature groups, {} batch groups",
            conv.feature_groups, conv.batch_groups
        ));
    }
    let sizes: Vec<i64> = n.input_spatial.iter().map(|&d| at(x, d)).collect();
    for (i, w) in conv.window.iter().enumerate() {
        if w.size != at(kernel, n.kernel_spatial[i]) {
            return Err(format!("window size {} for kernel {kernel}", w.size));
        }
    }
    let output = windowed(&conv.window, &sizes)?;
    let mut result = Shape::new(x.dtype, vec![0; spatial + 2]);
    numbered(n.output_batch, n.output_feature, &n.output_spatial, &result)?;
    result.dims[n.output_batch as usize] = batch / conv.batch_groups;
    result.dims[n.output_feature as usize] = kernel_out;
    for (i, &d) in n.output_spatial.iter().enumerate() {
        result.dims[d as usize] = output[i];
    }
    Ok(result)
}

pub(super) fn dot(x: &Shape, y: &Shape, dims: &DotDims) -> Inferred<Shape> {
    let side = |shape: &Shape, batch: &[i64], contracting: &[i64]| -> Inferred<Vec<i64>> {
        let all: Vec<i64> = batch.iter().chain(contracting).copied().collect();
        check_distinct(&all, shape)?;
        Ok((0..shape.rank())
            .filter(|i| !all.contains(&(*i as i64)))
            .map(|i| shape.dims[i])
            .collect())
    };
    let free_x = side(x, &dims.lhs_batch, &dims.lhs_contracting)?;
    let free_y = side(y, &dims.rhs_batch, &dims.rhs_contracting)?;
    let sizes = |shape: &Shape, dims: &[i64]| -> Vec<i64> {
        dims.iter().map(|&d| shape.dims[d as usize]).collect()
    };
    let batch = sizes(x, &dims.lhs_batch);
    if x.dtype != y.dtype
        || batch != sizes(y, &dims.rhs_batch)
        || sizes(x, &dims.lhs_contracting) != sizes(y, &dims.rhs_contracting)
    {
        return Err(format!("{x} and {y} by {dims:?}"));
    }
    let all: Vec<i64> = batch.into_iter().chain(free_x).chain(free_y).collect();
    Ok(Shape::new(x.dtype, all))
}

/// The dimensions of `indices` without the one that holds index vectors.
pub(super) fn index_batch(indices: &Shape, index_vector_dim: i64) -> Vec<i64> {
    (0..indices.rank())
        .filter(|&i| i as i64 != index_vector_dim)
        .map(|i| indices.dims[i])
        .collect()
}

pub(super) fn index_length(indices: &Shape, index_vector_dim: i64) -> i64 {
    indices
        .dims
        .get(index_vector_dim as usize)
        .copied()
        .unwrap_or(1)
}

pub(super) fn gather(x: &Shape, indices: &Shape, dims: &GatherDims) -> Inferred<Shape> {
    check_sizes(&dims.slice_sizes, x)?;
    check_distinct(&dims.collapsed_slice_dims, x)?;
    check_distinct(&dims.start_index_map, x)?;
    let collapsed_to_one = dims
        .collapsed_slice_dims
        .iter()
        .all(|&d| dims.slice_sizes[d as usize] == 1);
    if !indices.dtype.is_integer()
        || dims.index_vector_dim > indices.rank() as i64
        || index_length(indices, dims.index_vector_dim) != dims.start_index_map.len() as i64
        || !collapsed_to_one
    {
        return Err(format!("{x} at {indices} by {dims:?}"));
    }
    let window: Vec<i64> = (0..x.rank())
        .filter(|i| !dims.collapsed_slice_dims.contains(&(*i as i64)))
        .map(|i| dims.slice_sizes[i])
        .collect();
    let batch = index_batch(indices, dims.index_vector_dim);
    if window.len() != dims.offset_dims.len() {
        return Err(format!(
            "{} offset dimensions for {} kept",
            dims.offset_dims.len(),
            window.len()
        ));
    }
    let rank = window.len() + batch.len();
    let (mut window, mut batch) = (window.into_iter(), batch.into_iter());
    let result: Vec<i64> = (0..rank as i64)
        .filter_map(|i| {
            if dims.offset_dims.contains(&i) {
                window.next()
            } else {
                batch.next()
            }
        })
        .collect();
    if result.len() != rank {
        return Err(format!(
            "offset dimensions {:?} in a result of rank {rank}",
            dims.offset_dims
        ));
    }
    Ok(Shape::new(x.dtype, result))
}

pub(super) fn scatter(
    x: &Shape,
    indices: &Shape,
    updates: &Shape,
    dims: &ScatterDims,
) -> Inferred<Shape> {
    check_distinct(&dims.inserted_window_dims, x)?;
    check_distinct(&dims.scatter_dims_to_operand_dims, x)?;
    check_distinct(&dims.update_window_dims, updates)?;
    let batch = index_batch(indices, dims.index_vector_dim);
    let update_batch: Vec<i64> = (0..updates.rank())
        .filter(|i| !dims.update_window_dims.contains(&(*i as i64)))
        .map(|i| updates.dims[i])
        .collect();
    let kept: Vec<i64> = (0..x.rank())
        .filter(|i| !dims.inserted_window_dims.contains(&(*i as i64)))
        .map(|i| x.dims[i])
        .collect();
    let window: Vec<i64> = dims
        .update_window_dims
        .iter()
        .map(|&d| updates.dims[d as usize])
        .collect();
    if x.dtype != updates.dtype
        || !indices.dtype.is_integer()
        || index_length(indices, dims.index_vector_dim)
            != dims.scatter_dims_to_operand_dims.len() as i64
        || batch != update_batch
        || window.len() != kept.len()
        || window.iter().zip(&kept).any(|(w, k)| w > k)
    {
        return Err(format!(
            "updates {updates} into {x} at {indices} by {dims:?}"
        ));
    }
    Ok(x.clone())
}
