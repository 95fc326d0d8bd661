//! Where features lie: neighbours by cosine, and the plane of the first two principal components.

/// The `k` rows most like row `query` by cosine, nearest first, itself left out; ties by number. `values` f32 `[rows, width]`.
pub fn nearest(values: &[f32], width: usize, query: usize, k: usize) -> Vec<usize> {
    let row = |i: usize| &values[i * width..(i + 1) * width];
    let dot =
        |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(x, y)| f64::from(x * y)).sum() };
    let own = row(query);
    let mut all: Vec<(f64, usize)> = (0..values.len() / width.max(1))
        .filter(|&i| i != query)
        .map(|i| (dot(own, row(i)) / dot(row(i), row(i)).sqrt().max(1e-12), i))
        .collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    all.into_iter().take(k).map(|(_, i)| i).collect()
}

/// Coordinates of rows f32 `[rows, width]` on their first two principal components, by power iteration; and the components' parts of the
/// variance.
pub fn principal(values: &[f32], width: usize) -> (Vec<[f32; 2]>, [f64; 2]) {
    let rows = values.len() / width.max(1);
    let mut mean = vec![0f64; width];
    for row in values.chunks_exact(width.max(1)) {
        for (m, &x) in mean.iter_mut().zip(row) {
            *m += f64::from(x) / rows as f64;
        }
    }
    let centred: Vec<f64> = values
        .chunks_exact(width.max(1))
        .flat_map(|row| row.iter().zip(&mean).map(|(&x, m)| f64::from(x) - m))
        .collect();
    let project = |axis: &[f64]| -> Vec<f64> {
        centred
            .chunks_exact(width.max(1))
            .map(|row| row.iter().zip(axis).map(|(x, a)| x * a).sum())
            .collect()
    };
    let mut axes: Vec<Vec<f64>> = Vec::new();
    for number in 0..2 {
        let mut axis: Vec<f64> = (0..width)
            .map(|i| if i % 2 == number { 1.0 } else { 0.5 })
            .collect();
        for _ in 0..100 {
            let seen = project(&axis);
            let mut next = vec![0f64; width];
            for (row, s) in centred.chunks_exact(width.max(1)).zip(seen) {
                for (n, x) in next.iter_mut().zip(row) {
                    *n += s * x;
                }
            }
            for other in &axes {
                let along: f64 = next.iter().zip(other).map(|(a, b)| a * b).sum();
                for (n, o) in next.iter_mut().zip(other) {
                    *n -= along * o;
                }
            }
            let length = next.iter().map(|x| x * x).sum::<f64>().sqrt();
            if length < 1e-12 {
                break;
            }
            axis = next.into_iter().map(|x| x / length).collect();
        }
        axes.push(axis);
    }
    let (a, b) = (project(&axes[0]), project(&axes[1]));
    let squares = |values: &[f64]| values.iter().map(|x| x * x).sum::<f64>();
    let all = squares(&centred).max(1e-12);
    let shares = [squares(&a) / all, squares(&b) / all];
    let places = a
        .into_iter()
        .zip(b)
        .map(|(a, b)| [a as f32, b as f32])
        .collect();
    (places, shares)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn principal_axes_are_those_of_a_stretched_cloud() {
        // Long along (1, 1, 0), shorter along (1, −1, 0), nothing along the third.
        let mut values = Vec::new();
        for i in -5..=5 {
            for j in -2..=2 {
                let (a, b) = (i as f32, 0.5 * j as f32);
                values.extend_from_slice(&[a + b + 3.0, a - b, 7.0]);
            }
        }
        let (found, shares) = principal(&values, 3);
        let variance =
            |k: usize| found.iter().map(|p| p[k] * p[k]).sum::<f32>() / found.len() as f32;
        assert!((variance(0) - 20.0).abs() < 1e-3, "{}", variance(0));
        assert!((variance(1) - 1.0).abs() < 1e-3, "{}", variance(1));
        assert!(
            (shares[0] - 20.0 / 21.0).abs() < 1e-6 && (shares[0] + shares[1] - 1.0).abs() < 1e-6
        );
    }

    #[test]
    fn neighbours_are_by_angle() {
        let values = [1.0f32, 0.0, 10.0, 1.0, 0.0, 1.0, 1.0, 1.0];
        assert_eq!(nearest(&values, 2, 0, 3), [1, 3, 2]);
    }
}
