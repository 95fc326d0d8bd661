//! What many rules ask of operands, dimensions and callees.

use super::Inferred;
use crate::hlo::graph::Computation;
use crate::hlo::shape::{Shape, Type};

pub(super) fn exactly<'a, const N: usize>(operands: &[&'a Type]) -> Inferred<[&'a Type; N]> {
    operands
        .try_into()
        .map_err(|_| format!("{} operands, expected {N}", operands.len()))
}

pub(super) fn array<'a>(operands: &[&'a Type], i: usize) -> Inferred<&'a Shape> {
    match operands.get(i) {
        Some(Type::Array(shape)) => Ok(shape),
        Some(other) => Err(format!("operand {i} is {other}, not an array")),
        None => Err(format!("operand {i} of {} is missing", operands.len())),
    }
}

pub(super) fn check_dim(dim: i64, shape: &Shape) -> Inferred<()> {
    if dim < 0 || dim as usize >= shape.rank() {
        return Err(format!("dimension {dim} of {shape}"));
    }
    Ok(())
}

pub(super) fn check_distinct(dims: &[i64], shape: &Shape) -> Inferred<()> {
    for (i, &dim) in dims.iter().enumerate() {
        check_dim(dim, shape)?;
        if dims[..i].contains(&dim) {
            return Err(format!("dimension {dim} is named twice in {dims:?}"));
        }
    }
    Ok(())
}

pub(super) fn check_starts(operands: &[&Type], from: usize, x: &Shape) -> Inferred<()> {
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

pub(super) fn check_sizes(sizes: &[i64], x: &Shape) -> Inferred<()> {
    if sizes.len() != x.rank() || sizes.iter().zip(&x.dims).any(|(s, d)| *s < 0 || s > d) {
        return Err(format!("a slice of {sizes:?} does not fit {x}"));
    }
    Ok(())
}

pub(super) fn check_groups(groups: &[Vec<i64>], size: Option<i64>) -> Inferred<()> {
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
pub(super) fn signature(
    callee: &Computation,
    arguments: &[&Type],
    result: Option<&Type>,
) -> Inferred<()> {
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
