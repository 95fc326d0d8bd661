//! Gradients through calls and conditionals: the backward pass is a call or conditional of its own, whose body runs the forward
//! body again and walks it backwards.

use super::vjp;
use crate::hlo::{Branch, Computation, Graph, Value};
use std::rc::Rc;

/// Cotangents of a call's results that were given, by element.
fn given<'g>(cotangents: &[Option<Value<'g>>]) -> Vec<(usize, Value<'g>)> {
    cotangents
        .iter()
        .enumerate()
        .filter_map(|(element, cotangent)| cotangent.map(|cotangent| (element, cotangent)))
        .collect()
}

/// Cotangents of `wanted`, zeros where nothing flows, for cotangents of some elements of `result`.
fn walk_back<'g>(
    graph: &'g Graph,
    result: Value<'g>,
    elements: &[usize],
    cotangents: &[Value<'g>],
    wanted: &[Value<'g>],
) -> Vec<Value<'g>> {
    let outputs: Vec<(Value, Value)> = elements
        .iter()
        .zip(cotangents)
        .map(|(&element, &cotangent)| (result.element(element), cotangent))
        .collect();
    vjp(&outputs, wanted)
        .into_iter()
        .zip(wanted)
        .map(|(found, value)| found.unwrap_or_else(|| graph.zeros(&value.shape())))
        .collect()
}

/// `(operand, its cotangent)` of a call.
pub(super) fn call<'g>(
    callee: &Computation,
    operands: &[Value<'g>],
    wanted: &[bool],
    cotangents: &[Option<Value<'g>>],
) -> Vec<(usize, Value<'g>)> {
    let given = given(cotangents);
    let Some(&(_, first)) = given.first() else {
        return Vec::new();
    };
    let elements: Vec<usize> = given.iter().map(|(element, _)| *element).collect();
    let places: Vec<usize> = (0..operands.len()).filter(|&i| wanted[i]).collect();
    let arguments: Vec<Value> = operands
        .iter()
        .copied()
        .chain(given.iter().map(|(_, cotangent)| *cotangent))
        .collect();
    let found = first.graph().call(&arguments, |graph, p| {
        let (inputs, cotangents) = p.split_at(operands.len());
        let result = graph.inline(callee, inputs);
        let wanted: Vec<Value> = places.iter().map(|&place| inputs[place]).collect();
        walk_back(graph, result, &elements, cotangents, &wanted)
    });
    places.into_iter().zip(found).collect()
}

/// `(branch, element of its argument tuple, cotangent)` of a conditional on `index` with one tuple of arguments per branch.
pub(super) fn conditional<'g>(
    branches: &[Rc<Computation>],
    index: Value<'g>,
    tuples: &[Value<'g>],
    cotangents: &[Option<Value<'g>>],
) -> Vec<(usize, usize, Value<'g>)> {
    let given = given(cotangents);
    if given.is_empty() {
        return Vec::new();
    }
    let elements: Vec<usize> = given.iter().map(|(element, _)| *element).collect();
    let arguments: Vec<Vec<Value>> = tuples.iter().map(|tuple| tuple.unpack()).collect();
    // All branches give the same results: the cotangents of every branch's arguments, zeros for those of the others.
    let places: Vec<(usize, usize)> = arguments
        .iter()
        .enumerate()
        .flat_map(|(branch, values)| {
            let float = |(i, value): (usize, &Value)| value.dtype().is_float().then_some(i);
            let floats: Vec<usize> = values.iter().enumerate().filter_map(float).collect();
            floats.into_iter().map(move |element| (branch, element))
        })
        .collect();
    let shapes: Vec<_> = places
        .iter()
        .map(|&(branch, element)| arguments[branch][element].shape())
        .collect();
    let builds: Vec<Box<Branch>> = (0..branches.len())
        .map(|branch| {
            let (places, shapes, elements) = (&places, &shapes, &elements);
            let (body, count) = (&branches[branch], arguments[branch].len());
            let build: Box<Branch> = Box::new(move |graph, p| {
                let (inputs, cotangents) = p.split_at(count);
                let result = graph.inline(body, &[graph.tuple(inputs)]);
                let wanted: Vec<Value> = places
                    .iter()
                    .filter(|(of, _)| *of == branch)
                    .map(|&(_, element)| inputs[element])
                    .collect();
                let mut own = walk_back(graph, result, elements, cotangents, &wanted).into_iter();
                places
                    .iter()
                    .zip(shapes)
                    .map(|(&(of, _), shape)| match of == branch {
                        true => own.next().unwrap_or_else(|| graph.zeros(shape)),
                        false => graph.zeros(shape),
                    })
                    .collect()
            });
            build
        })
        .collect();
    let calls: Vec<(Vec<Value>, &Branch)> = arguments
        .iter()
        .zip(&builds)
        .map(|(values, build)| {
            let cotangents = given.iter().map(|(_, cotangent)| *cotangent);
            (values.iter().copied().chain(cotangents).collect(), &**build)
        })
        .collect();
    let found = index.graph().conditional(index, &calls);
    places
        .iter()
        .zip(found)
        .map(|(&(branch, element), cotangent)| (branch, element, cotangent))
        .collect()
}
