//! Shape inference: what an operation produces from what it is given, or one sentence on why it cannot.

use super::graph::Computation;
use super::op::{
    Binary, Conv, DotDims, GatherDims, Monoid, Op, Reducer, ScatterDims, Unary, WindowDim,
};
use super::shape::{DType, Shape, Type};

type Inferred<T> = Result<T, String>;

/// The type of `op` on operands of these types.
pub(super) fn infer(op: &Op, operands: &[&Type]) -> Inferred<Type> {
    let array = |i: usize| array(operands, i);
    match op {
        Op::Parameter { ty, .. } => Ok(ty.clone()),
        Op::Tuple => {
            let shapes = (0..operands.len()).map(|i| array(i).cloned());
            Ok(Type::Tuple(shapes.collect::<Inferred<_>>()?))
        }
        Op::GetTupleElement { index } => match operands {
            [Type::Tuple(shapes)] => match shapes.get(*index) {
                Some(shape) => Ok(Type::Array(shape.clone())),
                None => Err(format!("element {index} of a tuple of {}", shapes.len())),
            },
            _ => Err("needs one tuple".into()),
        },
        Op::While { condition, body } => {
            let [state] = exactly(operands)?;
            signature(
                condition,
                &[state],
                Some(&Type::Array(Shape::scalar(DType::Pred))),
            )
            .map_err(|e| format!("condition: {e}"))?;
            signature(body, &[state], Some(state)).map_err(|e| format!("body: {e}"))?;
            Ok(state.clone())
        }
        Op::Conditional { branches } => {
            let Some((index, arguments)) = operands.split_first() else {
                return Err("needs a branch index".into());
            };
            if **index != Type::Array(Shape::scalar(DType::S32)) {
                return Err(format!("the branch index is {index}, not a scalar s32"));
            }
            let Some(first) = branches.first() else {
                return Err("needs at least one branch".into());
            };
            if branches.len() != arguments.len() {
                return Err(format!(
                    "{} branches with {} arguments",
                    branches.len(),
                    arguments.len()
                ));
            }
            for (i, branch) in branches.iter().enumerate() {
                signature(branch, &arguments[i..=i], Some(first.result()))
                    .map_err(|e| format!("branch {i}: {e}"))?;
            }
            Ok(first.result().clone())
        }
        Op::Call(callee) => {
            signature(callee, operands, None)?;
            Ok(callee.result().clone())
        }
        Op::OptimizationBarrier => {
            let [only] = exactly(operands)?;
            Ok(only.clone())
        }
        Op::Sort { dim, less } => {
            let first = array(0)?;
            check_dim(*dim, first)?;
            let mut scalars = Vec::new();
            for i in 0..operands.len() {
                let shape = array(i)?;
                if shape.dims != first.dims {
                    return Err(format!("operands {first} and {shape} differ in dimensions"));
                }
                let scalar = Type::Array(Shape::scalar(shape.dtype));
                scalars.extend([scalar.clone(), scalar]);
            }
            let scalars: Vec<&Type> = scalars.iter().collect();
            signature(
                less,
                &scalars,
                Some(&Type::Array(Shape::scalar(DType::Pred))),
            )
            .map_err(|e| format!("comparison: {e}"))?;
            if operands.len() == 1 {
                return Ok(operands[0].clone());
            }
            let shapes = (0..operands.len()).map(|i| array(i).cloned());
            Ok(Type::Tuple(shapes.collect::<Inferred<_>>()?))
        }
        Op::Reduce { dims, reducer } => reduce(operands, dims, reducer),
        Op::RngBitGenerator {
            algorithm: _,
            shape,
        } => {
            let state = array(0)?;
            if state.dtype != DType::U64 || !matches!(state.dims[..], [2] | [3]) {
                return Err(format!("the state is {state}, not u64[2] or u64[3]"));
            }
            if !matches!(shape.dtype, DType::U8 | DType::U32 | DType::U64) {
                return Err(format!("bits come as u8, u32 or u64, not {}", shape.dtype));
            }
            Ok(Type::Tuple(vec![state.clone(), shape.clone()]))
        }
        Op::CustomVjp { index, .. } => operands
            .get(*index)
            .map(|ty| (*ty).clone())
            .ok_or_else(|| "no such output".into()),
        _ => infer_array(op, operands).map(Type::Array),
    }
}

fn infer_array(op: &Op, operands: &[&Type]) -> Inferred<Shape> {
    let array = |i: usize| array(operands, i);
    let same = |count: usize| -> Inferred<&Shape> {
        if operands.len() != count {
            return Err(format!("{} operands, expected {count}", operands.len()));
        }
        let first = array(0)?;
        for i in 1..count {
            let other = array(i)?;
            if other != first {
                return Err(format!("operands {first} and {other} differ"));
            }
        }
        Ok(first)
    };
    match op {
        Op::Constant(literal) => Ok(literal.shape().clone()),
        Op::Iota { shape, dim } => {
            check_dim(*dim, shape)?;
            Ok(shape.clone())
        }
        Op::Unary(unary) => {
            let x = same(1)?;
            let fits = match unary {
                Unary::Not => !x.dtype.is_float(),
                Unary::Abs | Unary::Negate | Unary::Sign => x.dtype != DType::Pred,
                _ => x.dtype.is_float(),
            };
            if !fits {
                return Err(format!("is not defined for {}", x.dtype));
            }
            Ok(if *unary == Unary::IsFinite {
                x.with_dtype(DType::Pred)
            } else {
                x.clone()
            })
        }
        Op::Binary(binary) => {
            let x = same(2)?;
            let fits = match binary {
                Binary::And | Binary::Or | Binary::Xor => !x.dtype.is_float(),
                Binary::ShiftLeft | Binary::ShiftRightArithmetic | Binary::ShiftRightLogical => {
                    x.dtype.is_integer()
                }
                Binary::Atan2 => x.dtype.is_float(),
                Binary::Maximum | Binary::Minimum => true,
                _ => x.dtype != DType::Pred,
            };
            if !fits {
                return Err(format!("is not defined for {}", x.dtype));
            }
            Ok(x.clone())
        }
        Op::Compare(_) => Ok(same(2)?.with_dtype(DType::Pred)),
        Op::Select => {
            let (condition, a, b) = (array(0)?, array(1)?, array(2)?);
            if condition.dtype != DType::Pred || condition.dims != a.dims || a != b {
                return Err(format!(
                    "condition {condition}, values {a} and {b} do not fit"
                ));
            }
            Ok(a.clone())
        }
        Op::Clamp => same(3).cloned(),
        Op::Convert(dtype) => Ok(array(0)?.with_dtype(*dtype)),
        Op::BitcastConvert(dtype) => {
            let x = array(0)?;
            if x.dtype.byte_size() != dtype.byte_size() {
                return Err(format!("{} and {dtype} differ in size", x.dtype));
            }
            Ok(x.with_dtype(*dtype))
        }
        Op::Broadcast { dims, mapping } => broadcast(array(0)?, dims, mapping),
        Op::Reshape { dims } => {
            let x = array(0)?;
            let shape = Shape::new(x.dtype, dims.clone());
            if dims.iter().any(|&d| d < 0) || shape.elements() != x.elements() {
                return Err(format!(
                    "{x} has {} elements, {shape} has {}",
                    x.elements(),
                    shape.elements()
                ));
            }
            Ok(shape)
        }
        Op::Transpose { permutation } => {
            let x = array(0)?;
            check_distinct(permutation, x)?;
            if permutation.len() != x.rank() {
                return Err(format!("permutation {permutation:?} of {x}"));
            }
            let dims: Vec<i64> = permutation.iter().map(|&i| x.dims[i as usize]).collect();
            Ok(Shape::new(x.dtype, dims))
        }
        Op::Slice {
            start,
            limit,
            stride,
        } => {
            let x = array(0)?;
            if [start.len(), limit.len(), stride.len()] != [x.rank(); 3] {
                return Err(format!(
                    "start {start:?}, limit {limit:?}, stride {stride:?} of {x}"
                ));
            }
            let mut dims = Vec::new();
            for (i, &size) in x.dims.iter().enumerate() {
                let (start, limit, stride) = (start[i], limit[i], stride[i]);
                if start < 0 || start > limit || limit > size || stride < 1 {
                    return Err(format!(
                        "{start}..{limit} step {stride} in dimension {i} of {x}"
                    ));
                }
                dims.push((limit - start + stride - 1) / stride);
            }
            Ok(Shape::new(x.dtype, dims))
        }
        Op::DynamicSlice { sizes } => {
            let x = array(0)?;
            check_starts(operands, 1, x)?;
            check_sizes(sizes, x)?;
            Ok(Shape::new(x.dtype, sizes.clone()))
        }
        Op::DynamicUpdateSlice => {
            let (x, update) = (array(0)?, array(1)?);
            check_starts(operands, 2, x)?;
            check_sizes(&update.dims, x)?;
            if update.dtype != x.dtype {
                return Err(format!("update {update} into {x}"));
            }
            Ok(x.clone())
        }
        Op::Gather(dims) => gather(array(0)?, array(1)?, dims),
        Op::Scatter { dims, monoid } => {
            check_monoid(*monoid, array(0)?.dtype)?;
            scatter(array(0)?, array(1)?, array(2)?, dims)
        }
        Op::Concatenate { dim } => {
            let mut result = array(0)?.clone();
            check_dim(*dim, &result)?;
            let at = *dim as usize;
            for i in 1..operands.len() {
                let next = array(i)?;
                let mut fitted = next.clone();
                if next.rank() == result.rank() {
                    fitted.dims[at] = result.dims[at];
                }
                if fitted != result {
                    return Err(format!("{result} and {next} along dimension {dim}"));
                }
                result.dims[at] += next.dims[at];
            }
            Ok(result)
        }
        Op::Pad(padding) => {
            let (x, value) = (array(0)?, array(1)?);
            if padding.len() != x.rank() || *value != Shape::scalar(x.dtype) {
                return Err(format!(
                    "{} paddings with value {value} of {x}",
                    padding.len()
                ));
            }
            let mut dims = Vec::new();
            for (p, &size) in padding.iter().zip(&x.dims) {
                let spread = size + (size - 1).max(0) * p.interior;
                let padded = spread + p.low + p.high;
                if padded < 0 || p.interior < 0 {
                    return Err(format!("{p:?} of {x} leaves less than nothing"));
                }
                dims.push(padded);
            }
            Ok(Shape::new(x.dtype, dims))
        }
        Op::Reverse { dims } => {
            let x = array(0)?;
            check_distinct(dims, x)?;
            // XLA takes a reverse without dimensions and does nothing; ours says so by refusing it.
            if dims.is_empty() {
                return Err("needs at least one dimension".into());
            }
            Ok(x.clone())
        }
        Op::ReduceWindow { window, monoid } => {
            let (x, init) = (array(0)?, array(1)?);
            check_monoid(*monoid, x.dtype)?;
            if *init != Shape::scalar(x.dtype) {
                return Err(format!("initial value {init} for {x}"));
            }
            Ok(Shape::new(x.dtype, windowed(window, &x.dims)?))
        }
        Op::SelectAndScatter { window } => {
            let (x, source, init) = (array(0)?, array(1)?, array(2)?);
            let expected = Shape::new(x.dtype, windowed(window, &x.dims)?);
            if *source != expected || *init != Shape::scalar(x.dtype) {
                return Err(format!(
                    "source {source}, expected {expected}; initial value {init}"
                ));
            }
            Ok(x.clone())
        }
        Op::Convolution(conv) => convolution(array(0)?, array(1)?, conv),
        Op::Dot(dims) => dot(array(0)?, array(1)?, dims),
        Op::AllReduce { groups, monoid } => {
            check_groups(groups, None)?;
            check_monoid(*monoid, array(0)?.dtype)?;
            same(1).cloned()
        }
        Op::AllGather { dim, size, groups } => {
            let mut x = array(0)?.clone();
            check_dim(*dim, &x)?;
            check_groups(groups, Some(*size))?;
            x.dims[*dim as usize] *= size;
            Ok(x)
        }
        Op::ReduceScatter { dim, size, groups } => {
            let mut x = array(0)?.clone();
            check_dim(*dim, &x)?;
            check_groups(groups, Some(*size))?;
            let length = &mut x.dims[*dim as usize];
            if *size < 1 || *length % size != 0 {
                return Err(format!(
                    "{size} replicas do not divide {length} in dimension {dim}"
                ));
            }
            *length /= size;
            Ok(x)
        }
        Op::CollectivePermute { .. } | Op::Fence | Op::StopGradient => same(1).cloned(),
        Op::ReplicaId => Ok(Shape::scalar(DType::U32)),
        Op::CustomCall { shape, .. } => Ok(shape.clone()),
        Op::Parameter { .. }
        | Op::Tuple
        | Op::GetTupleElement { .. }
        | Op::While { .. }
        | Op::Conditional { .. }
        | Op::Call(_)
        | Op::OptimizationBarrier
        | Op::Sort { .. }
        | Op::Reduce { .. }
        | Op::RngBitGenerator { .. }
        | Op::CustomVjp { .. } => Err("is inferred with its operands' types".into()),
    }
}

fn exactly<'a, const N: usize>(operands: &[&'a Type]) -> Inferred<[&'a Type; N]> {
    operands
        .try_into()
        .map_err(|_| format!("{} operands, expected {N}", operands.len()))
}

fn array<'a>(operands: &[&'a Type], i: usize) -> Inferred<&'a Shape> {
    match operands.get(i) {
        Some(Type::Array(shape)) => Ok(shape),
        Some(other) => Err(format!("operand {i} is {other}, not an array")),
        None => Err(format!("operand {i} of {} is missing", operands.len())),
    }
}

fn check_dim(dim: i64, shape: &Shape) -> Inferred<()> {
    if dim < 0 || dim as usize >= shape.rank() {
        return Err(format!("dimension {dim} of {shape}"));
    }
    Ok(())
}

fn check_distinct(dims: &[i64], shape: &Shape) -> Inferred<()> {
    for (i, &dim) in dims.iter().enumerate() {
        check_dim(dim, shape)?;
        if dims[..i].contains(&dim) {
            return Err(format!("dimension {dim} is named twice in {dims:?}"));
        }
    }
    Ok(())
}

fn check_starts(operands: &[&Type], from: usize, x: &Shape) -> Inferred<()> {
    if operands.len() != from + x.rank() {
        return Err(format!(
            "{} start indices for {x}",
            operands.len().saturating_sub(from)
        ));
    }
    for i in from..operands.len() {
        let start = array(operands, i)?;
        if start.rank() != 0 || !start.dtype.is_integer() {
            return Err(format!("start index {start} is no integer scalar"));
        }
    }
    Ok(())
}

fn check_sizes(sizes: &[i64], x: &Shape) -> Inferred<()> {
    if sizes.len() != x.rank() || sizes.iter().zip(&x.dims).any(|(s, d)| *s < 0 || s > d) {
        return Err(format!("a slice of {sizes:?} does not fit {x}"));
    }
    Ok(())
}

fn check_groups(groups: &[Vec<i64>], size: Option<i64>) -> Inferred<()> {
    let mut seen = Vec::new();
    for group in groups {
        if let Some(size) = size
            && group.len() as i64 != size
        {
            return Err(format!("group {group:?} does not hold {size} replicas"));
        }
        for &replica in group {
            if replica < 0 || seen.contains(&replica) {
                return Err(format!("replica {replica} in groups {groups:?}"));
            }
            seen.push(replica);
        }
    }
    Ok(())
}

/// Checks that a computation takes these arguments (and gives this result).
fn signature(callee: &Computation, arguments: &[&Type], result: Option<&Type>) -> Inferred<()> {
    let parameters = callee.parameter_types();
    if parameters != arguments {
        let list = |types: &[&Type]| {
            types
                .iter()
                .map(|t| t.to_string())
                .collect::<Vec<_>>()
                .join(", ")
        };
        return Err(format!(
            "takes ({}), given ({})",
            list(&parameters),
            list(arguments)
        ));
    }
    match result {
        Some(expected) if expected != callee.result() => {
            Err(format!("gives {}, expected {expected}", callee.result()))
        }
        _ => Ok(()),
    }
}

fn broadcast(x: &Shape, dims: &[i64], mapping: &[i64]) -> Inferred<Shape> {
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

fn reduce(operands: &[&Type], dims: &[i64], reducer: &Reducer) -> Inferred<Type> {
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
fn check_monoid(monoid: Monoid, dtype: DType) -> Inferred<()> {
    let scalar = Type::Array(Shape::scalar(dtype));
    infer(&Op::Binary(monoid.binary()), &[&scalar, &scalar])
        .map(drop)
        .map_err(|message| format!("{monoid:?} {message}"))
}

fn windowed(window: &[WindowDim], dims: &[i64]) -> Inferred<Vec<i64>> {
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

fn convolution(x: &Shape, kernel: &Shape, conv: &Conv) -> Inferred<Shape> {
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

fn dot(x: &Shape, y: &Shape, dims: &DotDims) -> Inferred<Shape> {
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
fn index_batch(indices: &Shape, index_vector_dim: i64) -> Vec<i64> {
    (0..indices.rank())
        .filter(|&i| i as i64 != index_vector_dim)
        .map(|i| indices.dims[i])
        .collect()
}

fn index_length(indices: &Shape, index_vector_dim: i64) -> i64 {
    indices
        .dims
        .get(index_vector_dim as usize)
        .copied()
        .unwrap_or(1)
}

fn gather(x: &Shape, indices: &Shape, dims: &GatherDims) -> Inferred<Shape> {
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

fn scatter(x: &Shape, indices: &Shape, updates: &Shape, dims: &ScatterDims) -> Inferred<Shape> {
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
