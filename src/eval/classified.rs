//! What logits are worth: accuracies, loss, and which class was taken for which.

/// Figures of a split (reference §4.3).
#[derive(Debug, Clone, PartialEq)]
pub struct Classified {
    /// Examples.
    pub examples: usize,
    /// Share whose largest logit is the label's; the first of equals counts.
    pub top1: f64,
    /// Share with fewer than five logits above the label's.
    pub top5: f64,
    /// Mean cross-entropy, nats.
    pub loss: f64,
    /// `[true class][class of the largest logit]`: number of examples.
    pub confusion: Vec<Vec<u32>>,
}

impl Classified {
    /// From logits `[examples, classes]` and labels below `classes`.
    pub fn new(logits: &[f32], labels: &[u32], classes: usize) -> Self {
        let mut confusion = vec![vec![0u32; classes]; classes];
        let (mut hits, mut in_five, mut loss) = (0usize, 0usize, 0.0);
        for (row, &label) in logits.chunks_exact(classes.max(1)).zip(labels) {
            let own = row[label as usize];
            let best = first_largest(row);
            confusion[label as usize][best] += 1;
            hits += usize::from(best == label as usize);
            in_five += usize::from(row.iter().filter(|&&x| x > own).count() < 5);
            let sum: f64 = row.iter().map(|&x| f64::from(x - row[best]).exp()).sum();
            loss += sum.ln() - f64::from(own - row[best]);
        }
        let share = |count: usize| count as f64 / labels.len().max(1) as f64;
        Classified {
            examples: labels.len(),
            top1: share(hits),
            top5: share(in_five),
            loss: loss / labels.len().max(1) as f64,
            confusion,
        }
    }
}

impl Classified {
    /// Of each class the share whose largest logit is its own; none where it has no examples.
    pub fn by_class(&self) -> Vec<Option<f64>> {
        let share = |(class, row): (usize, &Vec<u32>)| {
            let all: u32 = row.iter().sum();
            (all > 0).then(|| f64::from(row[class]) / f64::from(all))
        };
        self.confusion.iter().enumerate().map(share).collect()
    }
}

/// The place of the largest, the first of equals.
pub fn first_largest(row: &[f32]) -> usize {
    let mut best = 0;
    for (i, &x) in row.iter().enumerate() {
        if x > row[best] {
            best = i;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_a_small_table() {
        let logits = [
            [0.0f32, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0],
            // A tie of all: the first counts, and nothing is above.
            [2.0; 7],
            // Five above the label's.
            [9.0, 8.0, 7.0, 6.0, 5.0, 1.0, 0.0],
        ];
        let found = Classified::new(&logits.concat(), &[1, 2, 5], 7);
        assert_eq!(found.examples, 3);
        assert_eq!((found.top1 * 3.0).round() as u32, 1);
        assert_eq!((found.top5 * 3.0).round() as u32, 2);
        assert_eq!(found.confusion[1][1], 1);
        assert_eq!(found.confusion[2][0], 1);
        assert_eq!(found.confusion[5][0], 1);
        let right = [None, Some(1.0), Some(0.0), None, None, Some(0.0), None];
        assert_eq!(found.by_class(), right);
        let e = std::f64::consts::E;
        let first = (e + 6.0).ln() - 1.0;
        let third = [9.0f64, 8.0, 7.0, 6.0, 5.0, 1.0, 0.0]
            .map(f64::exp)
            .iter()
            .sum::<f64>()
            .ln()
            - 1.0;
        assert!((found.loss - (first + 7f64.ln() + third) / 3.0).abs() < 1e-6);
    }
}
