//! Drawing a class-balanced part of a data set, for learning from few labels.

use sha2::{Digest, Sha256};

/// How much to draw.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Size {
    /// So many examples of each class.
    PerClass(usize),
    /// This share of the whole set, rounded to whole examples; classes differ by one at most, as in the original's lists, but for those
    /// that have fewer: what they lack the others give.
    Percent(f64),
}

/// Draws from `examples`, names with classes below `classes`, and gives the names in their order, sorted. A class that has fewer
/// examples than its share gives all it has.
///
/// What is drawn is a function of the names and the seed alone, not of the order of the set. Of one seed a smaller part lies within a
/// larger one.
pub fn draw(examples: &[(String, u32)], classes: usize, size: Size, seed: u64) -> Vec<String> {
    let mut of_class: Vec<Vec<&str>> = vec![Vec::new(); classes];
    for (name, class) in examples {
        if let Some(own) = of_class.get_mut(*class as usize) {
            own.push(name);
        }
    }
    let key = |what: &str, name: &str| {
        Sha256::digest(format!("simclr subset {seed} {what} {name}").as_bytes())
    };
    let shares = match size {
        Size::PerClass(count) => vec![count; classes],
        Size::Percent(percent) => {
            let total = (examples.len() as f64 * percent / 100.0).round() as usize;
            let sizes: Vec<usize> = of_class.iter().map(Vec::len).collect();
            let mut order: Vec<usize> = (0..classes).collect();
            order.sort_by_cached_key(|class| key("class", &class.to_string()));
            shared_out(total, &sizes, &order)
        }
    };
    let mut chosen = Vec::new();
    for (mut own, share) in of_class.into_iter().zip(shares) {
        own.sort_by_cached_key(|name| key("example", name));
        chosen.extend(own.into_iter().take(share).map(String::from));
    }
    chosen.sort();
    chosen
}

/// Shares of a total, as even as the sizes allow: up to one level all alike, then one more each in this order.
fn shared_out(total: usize, sizes: &[usize], order: &[usize]) -> Vec<usize> {
    let given = |level: usize| -> usize { sizes.iter().map(|&size| size.min(level)).sum() };
    // The highest level that the total reaches.
    let (mut level, mut above) = (0, sizes.iter().max().map_or(1, |most| most + 1));
    while above - level > 1 {
        let middle = level + (above - level) / 2;
        match given(middle) <= total {
            true => level = middle,
            false => above = middle,
        }
    }
    let mut shares: Vec<usize> = sizes.iter().map(|&size| size.min(level)).collect();
    let larger = order.iter().filter(|&&class| sizes[class] > level);
    let more = total - given(level);
    larger.take(more).for_each(|&class| shares[class] += 1);
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// 40 examples of class 0, 40 of class 1, 3 of class 2.
    fn set() -> Vec<(String, u32)> {
        let name = |class: u32, i: usize| (format!("{class}_{i}"), class);
        let all = [40, 40, 3].into_iter().enumerate();
        all.flat_map(|(class, count)| (0..count).map(move |i| name(class as u32, i)))
            .collect()
    }

    fn counts(drawn: &[String]) -> [usize; 3] {
        ["0_", "1_", "2_"].map(|class| drawn.iter().filter(|n| n.starts_with(class)).count())
    }

    #[test]
    fn classes_are_balanced_and_seeds_decide() {
        let set = set();
        assert_eq!(counts(&draw(&set, 3, Size::PerClass(2), 1)), [2, 2, 2]);
        // The rare class gives all it has.
        assert_eq!(counts(&draw(&set, 3, Size::PerClass(5), 1)), [5, 5, 3]);
        // 10 % of 83 are 8: shares of 3, 3 and 2, the odd ones by the seed.
        let mut smaller = HashSet::new();
        for seed in 0..20 {
            let mut found = counts(&draw(&set, 3, Size::Percent(10.0), seed));
            smaller.insert(found.iter().position(|&count| count == 2));
            found.sort();
            assert_eq!(found, [2, 3, 3]);
        }
        assert_eq!(smaller.len(), 3, "any class may be the smaller one");
        let once = draw(&set, 3, Size::PerClass(10), 7);
        assert_ne!(once, draw(&set, 3, Size::PerClass(10), 8));
        // The order of the set does not matter.
        let mut other: Vec<_> = set.clone();
        other.reverse();
        assert_eq!(once, draw(&other, 3, Size::PerClass(10), 7));
    }

    /// Every share of it: as many as it is, and classes that have more to give alike up to one.
    #[test]
    fn what_small_classes_lack_the_others_give() {
        let set = set();
        for percent in 0..=100 {
            let found = counts(&draw(&set, 3, Size::Percent(percent.into()), 2));
            let expected = (83.0 * f64::from(percent) / 100.0).round() as usize;
            assert_eq!(found.iter().sum::<usize>(), expected, "{percent} %");
            let most = found.into_iter().max().unwrap_or(0);
            for (count, size) in found.into_iter().zip([40, 40, 3]) {
                assert!(count == size || count + 1 >= most, "{percent} %: {found:?}");
            }
        }
        // Classes of which there is none.
        assert_eq!(draw(&set, 1000, Size::Percent(100.0), 2).len(), 83);
    }

    #[test]
    fn a_smaller_part_lies_within_a_larger_one() {
        let set = set();
        for (small, large) in [
            (Size::Percent(5.0), Size::Percent(10.0)),
            (Size::Percent(10.0), Size::Percent(30.0)),
            (Size::Percent(30.0), Size::Percent(31.0)),
            (Size::Percent(31.0), Size::Percent(90.0)),
            (Size::PerClass(3), Size::PerClass(4)),
        ] {
            let large: HashSet<String> = draw(&set, 3, large, 3).into_iter().collect();
            let small = draw(&set, 3, small, 3);
            assert!(small.iter().all(|name| large.contains(name)));
        }
    }

    /// Each example of a class is as likely as another: chi-square over many seeds.
    #[test]
    fn examples_are_drawn_uniformly() {
        let set = set();
        let mut hits = [0f64; 40];
        let seeds = 2000;
        for seed in 0..seeds {
            for name in draw(&set, 3, Size::PerClass(4), seed) {
                if let Some(i) = name.strip_prefix("0_") {
                    hits[i.parse::<usize>().unwrap()] += 1.0;
                }
            }
        }
        let expected = seeds as f64 * 4.0 / 40.0;
        let chi: f64 = hits.iter().map(|h| (h - expected).powi(2) / expected).sum();
        // 39 degrees of freedom; fixed seeds, so that it cannot fail by chance.
        assert!(chi < 72.0, "{chi}");
    }
}
