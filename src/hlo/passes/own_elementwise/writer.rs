//! Programs: from the nodes of a call to numbers.

use super::code::{Code, ELEMENTWISE_LOOP, WORDS, code};
use super::plan::{Leaf, Plan, Planned, shape};
use crate::hlo::graph::Graph;
use crate::hlo::{Binary, Comparison, Op, Shape, Unary, Value};
use std::collections::HashMap;

/// A value of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ref {
    Operand(usize),
    Constant(usize),
    /// What a step makes.
    Step(usize),
}

/// An operation of a program; it makes a result, or what later ones take.
struct Step {
    code: Code,
    takes: Vec<Ref>,
    result: Option<usize>,
}

/// Writes the program of a call.
struct Writer<'a> {
    plan: &'a Plan<'a>,
    call: &'a Planned,
    operands: Vec<usize>,
    /// By their bits.
    constants: Vec<u32>,
    steps: Vec<Step>,
    made: HashMap<usize, Ref>,
    /// Whether everything needed was found.
    complete: bool,
}

impl Planned {
    /// The values of the results, in a new graph that has all leaves.
    pub(super) fn build<'g>(
        &self,
        graph: &'g Graph,
        plan: &Plan,
        value: &dyn Fn(usize) -> Option<Value<'g>>,
    ) -> Vec<Value<'g>> {
        let mut writer = Writer {
            plan,
            call: self,
            operands: self.region.leaves.iter().copied().collect(),
            constants: Vec::new(),
            steps: Vec::new(),
            made: HashMap::new(),
            complete: true,
        };
        for (k, &result) in self.results.iter().enumerate() {
            writer.result(k, result);
        }
        writer.join();
        let operands: Option<Vec<Value>> =
            (writer.operands.iter()).map(|&leaf| value(leaf)).collect();
        let Some(operands) = operands.filter(|_| writer.complete) else {
            let lost = || graph.fail("custom-call", "a program was not written whole");
            return self.results.iter().map(|_| lost()).collect();
        };
        let first = plan.node(self.results[0]);
        let results = self.results.iter();
        let results: Vec<Shape> = results
            .filter_map(|&result| shape(plan.node(result)).cloned())
            .collect();
        let call = Op::CustomCall {
            target: ELEMENTWISE_LOOP.into(),
            config: writer.config(),
            aliases: writer.aliases(),
            results,
        };
        let called = graph.push_scoped(call, &operands, first.scope.clone());
        if self.results.len() == 1 {
            return vec![called];
        }
        let element = |index| {
            let op = Op::GetTupleElement { index };
            graph.push_scoped(op, &[called], first.scope.clone())
        };
        (0..self.results.len()).map(element).collect()
    }
}

impl Writer<'_> {
    fn result(&mut self, k: usize, result: usize) {
        let Some(x) = self.plan.sum(result) else {
            let made = self.write(result);
            if let Ref::Step(step) = made {
                self.steps[step].result = Some(k);
            }
            return;
        };
        let (code, takes) = match self.once(x, Binary::Multiply) {
            Some([a, b]) => (Code::SumProduct, vec![self.write(a), self.write(b)]),
            None => (Code::Sum, vec![self.write(x)]),
        };
        self.steps.push(Step {
            code,
            takes,
            result: Some(k),
        });
    }

    /// The operands of a node that is such an operation and that nothing else here needs.
    fn once(&self, i: usize, op: Binary) -> Option<[usize; 2]> {
        let node = self.plan.node(i);
        if !matches!(node.op, Op::Binary(found) if found == op) {
            return None;
        }
        let inside = &self.call.region.inside;
        let users = self.plan.users[i].iter();
        let here = users.filter(|&user| {
            let compares = matches!(self.plan.node(*user).op, Op::Compare(_));
            inside.contains(user) || compares || self.call.results.contains(user)
        });
        let own = inside.contains(&i)
            && !self.call.results.contains(&i)
            && !self.made.contains_key(&i)
            && here.count() == 1;
        own.then(|| [node.operands[0].index(), node.operands[1].index()])
    }

    /// The value of a node.
    fn write(&mut self, i: usize) -> Ref {
        if let Some(&made) = self.made.get(&i) {
            return made;
        }
        let made = if self.call.region.inside.contains(&i) {
            let (code, takes) = self.operation(i);
            self.steps.push(Step {
                code,
                takes,
                result: None,
            });
            Ref::Step(self.steps.len() - 1)
        } else {
            match self.plan.spread(i) {
                Leaf::Constant(number) => self.constant(number),
                // A result of this call is known by its node.
                Leaf::Value(leaf) => match self.made.get(&leaf) {
                    Some(&made) => made,
                    None => {
                        let place = self.operands.iter().position(|&o| o == leaf);
                        self.complete &= place.is_some();
                        Ref::Operand(place.unwrap_or(0))
                    }
                },
            }
        };
        self.made.insert(i, made);
        made
    }

    fn constant(&mut self, number: f32) -> Ref {
        let bits = number.to_bits();
        let known = self.constants.iter().position(|&b| b == bits);
        Ref::Constant(known.unwrap_or_else(|| {
            self.constants.push(bits);
            self.constants.len() - 1
        }))
    }

    fn operation(&mut self, i: usize) -> (Code, Vec<Ref>) {
        let node = self.plan.node(i);
        let operand = |k: usize| node.operands[k].index();
        match node.op {
            Op::Unary(Unary::Negate) => {
                let x = self.write(operand(0));
                (Code::Multiply, vec![x, self.constant(-1.0)])
            }
            Op::Unary(Unary::Sqrt) => (Code::SquareRoot, vec![self.write(operand(0))]),
            Op::Unary(Unary::Rsqrt) => (Code::InverseRoot, vec![self.write(operand(0))]),
            Op::Select => {
                let compared = self.plan.node(operand(0));
                let [mut x, mut y] = [operand(1), operand(2)];
                let [mut a, mut b] = [0, 1].map(|k| compared.operands[k].index());
                let code = match compared.op {
                    Op::Compare(Comparison::Gt) => Code::WhereGreater,
                    Op::Compare(Comparison::Ge) => Code::WhereAtLeast,
                    Op::Compare(Comparison::Lt) => {
                        (a, b) = (b, a);
                        Code::WhereGreater
                    }
                    Op::Compare(Comparison::Le) => {
                        (a, b) = (b, a);
                        Code::WhereAtLeast
                    }
                    Op::Compare(Comparison::Ne) => {
                        (x, y) = (y, x);
                        Code::WhereEqual
                    }
                    _ => Code::WhereEqual,
                };
                (code, [a, b, x, y].map(|value| self.write(value)).to_vec())
            }
            Op::Binary(op) => {
                let [a, b] = [operand(0), operand(1)];
                let joined = match op {
                    Binary::Add => [[a, b], [b, a]].iter().find_map(|&[product, c]| {
                        let [a, b] = self.once(product, Binary::Multiply)?;
                        Some((Code::MultiplyAdd, [a, b, c]))
                    }),
                    Binary::Subtract => (self.once(b, Binary::Multiply))
                        .map(|[x, y]| (Code::SubtractProduct, [x, y, a])),
                    Binary::Multiply => [[a, b], [b, a]].iter().find_map(|&[difference, c]| {
                        let [a, b] = self.once(difference, Binary::Subtract)?;
                        Some((Code::SubtractMultiply, [a, b, c]))
                    }),
                    _ => None,
                };
                match joined {
                    Some((code, takes)) => (code, takes.map(|value| self.write(value)).to_vec()),
                    None => {
                        let takes = vec![self.write(a), self.write(b)];
                        self.complete &= code(op).is_some();
                        (code(op).unwrap_or(Code::Add), takes)
                    }
                }
            }
            // Nothing else is known (`is_known`).
            _ => {
                self.complete = false;
                (Code::Add, Vec::new())
            }
        }
    }

    /// Makes one operation of two where there is one for both and nothing else needs the first.
    fn join(&mut self) {
        let mut gone = vec![false; self.steps.len()];
        for second in 0..self.steps.len() {
            while let Some((first, place, code)) = self.joined(second) {
                let takes = self.steps[first].takes.clone();
                self.steps[second].takes.splice(place..=place, takes);
                self.steps[second].code = code;
                self.steps[first].takes.clear();
                gone[first] = true;
            }
        }
        let mut left = 0;
        let place = |gone: &bool| {
            left += usize::from(!gone);
            usize::saturating_sub(left, 1)
        };
        let places: Vec<usize> = gone.iter().map(place).collect();
        let mut steps = std::mem::take(&mut self.steps);
        for taken in steps.iter_mut().flat_map(|step| &mut step.takes) {
            if let Ref::Step(step) = taken {
                *step = places[*step];
            }
        }
        let kept = steps.into_iter().zip(gone).filter(|(_, gone)| !gone);
        self.steps = kept.map(|(step, _)| step).collect();
    }

    /// A step that can be made one with this one, its place in what this one takes, and the operation that both are.
    fn joined(&self, second: usize) -> Option<(usize, usize, Code)> {
        let step = &self.steps[second];
        step.takes.iter().enumerate().find_map(|(place, &taken)| {
            let Ref::Step(first) = taken else {
                return None;
            };
            let all = self.steps.iter().flat_map(|step| &step.takes);
            let once = all.filter(|&&other| other == taken).count() == 1;
            let code = Code::joined(self.steps[first].code, step.code, place)?;
            (once && self.steps[first].result.is_none()).then_some((first, place, code))
        })
    }

    /// The call's attributes.
    fn config(&self) -> String {
        let (registers, places) = self.registers();
        let first = self.operands.len() + self.constants.len();
        let value = |taken: Ref| match taken {
            Ref::Operand(k) => k,
            Ref::Constant(k) => self.operands.len() + k,
            Ref::Step(step) => match self.steps[step].result {
                Some(k) => first + registers + k,
                None => first + places[step],
            },
        };
        let mut words: Vec<usize> = Vec::new();
        for (i, step) in self.steps.iter().enumerate() {
            let end = words.len() + WORDS;
            words.extend([step.code as usize, value(Ref::Step(i))]);
            words.extend(step.takes.iter().map(|&taken| value(taken)));
            words.resize(end, 0);
        }
        let list = |numbers: &mut dyn Iterator<Item = String>| {
            let numbers: Vec<String> = numbers.collect();
            match numbers.is_empty() {
                true => "array<i64>".to_string(),
                false => format!("array<i64: {}>", numbers.join(", ")),
            }
        };
        format!(
            "{{code = {}, columns = {} : i64, constants = {}, registers = {registers} : i64, size = {} : i64}}",
            list(&mut words.iter().map(usize::to_string)),
            self.columns(),
            list(&mut self.constants.iter().map(u32::to_string)),
            self.size(),
        )
    }

    /// Elements of what is computed.
    fn size(&self) -> usize {
        let result = self.call.results[0];
        let of = self.plan.sum(result).unwrap_or(result);
        shape(self.plan.node(of)).map_or(0, Shape::elements)
    }

    /// Length of the last dimension, or 1 where it means nothing.
    fn columns(&self) -> i64 {
        let result = self.call.results[0];
        let of = self.plan.sum(result).unwrap_or(result);
        let elements = |i: usize| shape(self.plan.node(i)).map_or(0, Shape::elements);
        let rows = self.operands.iter().map(|&leaf| elements(leaf));
        let row = |count: usize| count != 1 && count != elements(of);
        let matters = self.plan.sum(result).is_some() || { rows }.any(row);
        let last = shape(self.plan.node(of)).and_then(|shape| shape.dims.last().copied());
        if matters { last.unwrap_or(1) } else { 1 }
    }

    /// How many registers there are, and which one each step that makes no result has.
    fn registers(&self) -> (usize, Vec<usize>) {
        let mut last = vec![0; self.steps.len()];
        for (i, step) in self.steps.iter().enumerate() {
            for &taken in &step.takes {
                if let Ref::Step(made) = taken {
                    last[made] = i;
                }
            }
        }
        let (mut free, mut count) = (Vec::new(), 0);
        let mut places = vec![0; self.steps.len()];
        for (i, step) in self.steps.iter().enumerate() {
            let mut over: Vec<usize> = Vec::new();
            for &taken in &step.takes {
                if let Ref::Step(made) = taken
                    && last[made] == i
                    && self.steps[made].result.is_none()
                    && !over.contains(&made)
                {
                    over.push(made);
                }
            }
            // What is taken here for the last time can be written over.
            free.extend(over.into_iter().map(|made| places[made]));
            if step.result.is_none() {
                places[i] = free.pop().unwrap_or_else(|| {
                    count += 1;
                    count - 1
                });
            }
        }
        (count, places)
    }

    /// Results over operands that nothing reads later.
    fn aliases(&self) -> Vec<(usize, usize)> {
        let aliases = self.call.aliases.iter();
        let found = aliases.filter_map(|&(k, leaf)| {
            let operand = self.operands.iter().position(|&o| o == leaf)?;
            let stored = self.steps.iter().position(|step| step.result == Some(k))?;
            let later = self.steps[stored + 1..].iter();
            let read = later
                .flat_map(|step| &step.takes)
                .any(|&taken| taken == Ref::Operand(operand));
            (!read).then_some((k, operand))
        });
        found.collect()
    }
}
