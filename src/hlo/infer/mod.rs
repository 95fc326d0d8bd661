//! Shape inference: what an operation produces from what it is given, or one sentence on why it cannot.

mod checks;
mod shapes;

use super::op::{Binary, Op, Unary};
use super::shape::{DType, Shape, Type};
use checks::*;
use shapes::*;

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
        Op::CustomCall {
            results, aliases, ..
        } => {
            for &(result, operand) in aliases {
                if results.get(result) != Some(array(operand)?) {
                    return Err(format!(
                        "result {result} and operand {operand} cannot share memory: shapes differ"
                    ));
                }
            }
            Ok(match &results[..] {
                [one] => Type::Array(one.clone()),
                all => Type::Tuple(all.to_vec()),
            })
        }
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
        | Op::CustomCall { .. }
        | Op::CustomVjp { .. } => Err("is inferred with its operands' types".into()),
    }
}
