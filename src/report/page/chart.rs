//! Charts as inline SVG.

use super::{Map, escape};
use std::collections::BTreeSet;

/// A curve.
pub(super) struct Series<'a> {
    pub(super) colour: &'static str,
    pub(super) name: &'a str,
    pub(super) points: Vec<(f64, f64)>,
}

/// Size of a chart, and the frame of its curves within: left, top, right, bottom.
const SIZE: [f64; 2] = [380.0, 230.0];
const FRAME: [f64; 4] = [46.0, 8.0, 362.0, 204.0];
/// Points of a curve at most, and up to which each has a dot.
const MOST: usize = 400;
const DOTTED: usize = 30;
/// A curve's beginning is cut where it reaches so many times as high as all that follows.
const STEEP: f64 = 4.0;
/// Classes in a legend at most.
const LEGEND: usize = 20;

/// Curves over a common pair of axes.
pub(super) fn lines(title: &str, series: &[Series], share: bool) -> String {
    let all = || series.iter().flat_map(|s| s.points.iter().copied());
    let (low_x, high_x) = range(all().map(|p| p.0));
    let highest = all().map(|p| p.1).fold(f64::NEG_INFINITY, f64::max);
    let (low_y, high_y) = if share {
        (0.0, (1.05 * highest).clamp(0.05, 1.0))
    } else {
        let (low, high) = range(all().map(|p| p.1));
        // A curve of a few points has no beginning.
        let begins = |points: &[(f64, f64)]| match points.len() {
            0..5 => 0,
            n => n / 10 + 1,
        };
        let rest = series.iter().flat_map(|s| &s.points[begins(&s.points)..]);
        let rest = rest.map(|p| p.1).fold(f64::NEG_INFINITY, f64::max);
        let high = match rest > low && high - low > STEEP * (rest - low) {
            true => rest,
            false => high,
        };
        let room = 0.05 * (high - low);
        let low = match low >= 0.0 {
            true => (low - room).max(0.0),
            false => low - room,
        };
        (low, high + room)
    };
    let [left, top, right, bottom] = FRAME;
    let x = |value: f64| left + (value - low_x) / (high_x - low_x) * (right - left);
    let y = |value: f64| bottom - (value.min(high_y) - low_y) / (high_y - low_y) * (bottom - top);
    let mut out = open(SIZE, title);
    for tick in ticks(low_y, high_y) {
        let text = if share {
            format!("{:.0} %", 100.0 * tick)
        } else {
            short(tick)
        };
        out.push_str(&format!(
            "<line class=\"grid-line\" x1=\"{left}\" x2=\"{right}\" y1=\"{0:.1}\" y2=\"{0:.1}\"/><text x=\"{1}\" y=\"{2:.1}\" text-anchor=\"end\">{text}</text>",
            y(tick), left - 6.0, y(tick) + 4.0
        ));
    }
    for tick in ticks(low_x, high_x) {
        out.push_str(&format!(
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            x(tick),
            bottom + 17.0,
            short(tick)
        ));
    }
    for one in series {
        let path: Vec<String> = thinned(&one.points)
            .iter()
            .map(|&(a, b)| format!("{:.1} {:.1}", x(a), y(b)))
            .collect();
        out.push_str(&format!(
            "<path stroke=\"{}\" d=\"M{}\"><title>{}</title></path>",
            one.colour,
            path.join("L"),
            escape(one.name)
        ));
        for &(a, b) in one.points.iter().filter(|_| one.points.len() <= DOTTED) {
            out.push_str(&format!(
                "<circle class=\"dot\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.6\" fill=\"{}\"/>",
                x(a),
                y(b),
                one.colour
            ));
        }
    }
    if highest > high_y {
        out.push_str(&format!(
            "<text x=\"{right}\" y=\"{}\" text-anchor=\"end\">begins at {}</text>",
            top + 12.0,
            short(highest)
        ));
    }
    out + "</svg>"
}

/// Points in the plane, coloured by class, with a legend.
pub(super) fn scatter(map: &Map) -> String {
    let side = 560.0;
    let (low_x, high_x) = range(map.points.iter().map(|p| f64::from(p.0[0])));
    let (low_y, high_y) = range(map.points.iter().map(|p| f64::from(p.0[1])));
    let place = |value: f32, low: f64, high: f64| {
        8.0 + (f64::from(value) - low) / (high - low) * (side - 16.0)
    };
    // Of many classes few may be there.
    let classes: BTreeSet<u32> = map.points.iter().map(|point| point.1).collect();
    let colour = |class: u32| {
        let place = classes.range(..class).count();
        let hue = 360.0 * place as f64 / classes.len() as f64;
        format!("hsl({hue:.0} 65% 52%)")
    };
    let mut out = open([side, side], "map of the features");
    for (at, class) in &map.points {
        out.push_str(&format!(
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.6\" fill=\"{}\" fill-opacity=\".75\"/>",
            place(at[0], low_x, high_x),
            side - place(at[1], low_y, high_y),
            colour(*class)
        ));
    }
    out.push_str("</svg><div class=\"legend\">");
    // A legend of a thousand classes helps nobody.
    if classes.len() > LEGEND {
        return out
            + &format!(
                "{} classes, each in a colour of its own</div>",
                classes.len()
            );
    }
    for &class in &classes {
        if let Some(name) = map.classes.get(class as usize) {
            out.push_str(&format!(
                "<span><i style=\"background:{}\"></i>{}</span>",
                colour(class),
                escape(name)
            ));
        }
    }
    out + "</div>"
}

fn open([width, height]: [f64; 2], title: &str) -> String {
    format!(
        "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{}\">",
        escape(title)
    )
}

/// Least and largest, apart from each other.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    match high - low {
        span if span.is_finite() && span > 1e-12 => (low, high),
        _ if low.is_finite() => (low - 0.5, low + 0.5),
        _ => (0.0, 1.0),
    }
}

/// Round numbers from `low` to `high`: three to six of them.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let rough = (high - low) / 4.0;
    let scale = 10f64.powf(rough.log10().floor());
    let steps = [0.5, 1.0, 2.0, 5.0, 10.0].map(|factor| factor * scale);
    let fitting = steps.iter().position(|&step| step >= rough).unwrap_or(4);
    let within = |step: f64| (high / step).floor() - (low / step).ceil() + 1.0;
    // The next finer ones where too few are within.
    let step = match within(steps[fitting]) < 3.0 && fitting > 0 {
        true => steps[fitting - 1],
        false => steps[fitting],
    };
    let first = (low / step).ceil() as i64;
    (first..first + 8)
        .map(|k| k as f64 * step)
        .take_while(|&tick| tick <= high + 1e-9 * step)
        .collect()
}

/// A number for an axis.
fn short(value: f64) -> String {
    let size = value.abs();
    if size >= 10_000.0 {
        return format!("{:.0}k", value / 1000.0);
    }
    if size != 0.0 && size < 1e-3 {
        return format!("{value:.0e}");
    }
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0" } else { text }.to_owned()
}

/// Means of neighbours where a curve has more points than a screen shows; the last point stays.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let size = points.len().div_ceil(MOST).max(1);
    let mean = |part: &[(f64, f64)]| {
        let n = part.len() as f64;
        let sum = part.iter().fold((0.0, 0.0), |s, p| (s.0 + p.0, s.1 + p.1));
        (sum.0 / n, sum.1 / n)
    };
    points.chunks(size).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within() {
        assert_eq!(ticks(0.0, 20.0), [0.0, 5.0, 10.0, 15.0, 20.0]);
        assert_eq!(ticks(7.7, 11.9), [8.0, 9.0, 10.0, 11.0]);
        assert_eq!(
            ticks(4900.0, 5900.0),
            [5000.0, 5200.0, 5400.0, 5600.0, 5800.0]
        );
        assert_eq!(ticks(5010.0, 7020.0), [5500.0, 6000.0, 6500.0, 7000.0]);
        let small = ticks(0.0, 3e-4);
        assert!(
            small.len() >= 3 && small.iter().all(|&t| t <= 3.1e-4),
            "{small:?}"
        );
        assert_eq!(short(0.5), "0.5");
        assert_eq!(short(12_000.0), "12k");
    }

    #[test]
    fn long_curves_are_thinned_to_means() {
        let long: Vec<(f64, f64)> = (0..1000).map(|i| (f64::from(i), 1.0)).collect();
        let thin = thinned(&long);
        assert!(thin.len() <= MOST && thin.iter().all(|p| p.1 == 1.0));
        assert_eq!(thin[0].0, 1.0, "the mean of 0, 1, 2");
        assert_eq!(thinned(&long[..3]).len(), 3);
    }

    fn one(points: &[(f64, f64)]) -> String {
        let series = Series {
            colour: "red",
            name: "run",
            points: points.to_vec(),
        };
        lines("title", &[series], false)
    }

    #[test]
    fn few_points_are_dots_and_a_steep_beginning_is_cut_and_told() {
        let flat: Vec<(f64, f64)> = (0..40)
            .map(|i| (f64::from(i), 1.0 + f64::from(i % 5) / 10.0))
            .collect();
        assert!(!one(&flat).contains("<circle") && !one(&flat).contains("begins at"));
        assert_eq!(one(&flat[..3]).matches("<circle").count(), 3);
        let mut steep = flat;
        steep[0].1 = 30.0;
        let chart = one(&steep);
        assert!(
            chart.contains(">begins at 30<") && chart.contains(">1.4<"),
            "{chart}"
        );
        assert!(!chart.contains("\"end\">20<"), "{chart}");
        // Of two runs, one of which was measured once, nothing is cut.
        let of = |points: &[(f64, f64)]| Series {
            colour: "red",
            name: "run",
            points: points.to_vec(),
        };
        let both = lines("title", &[of(&[(0.0, 30.0)]), of(&steep[1..])], false);
        assert!(!both.contains("begins at"), "{both}");
    }

    #[test]
    fn classes_that_are_there_have_colours_far_apart() {
        let map = |classes: std::ops::Range<u32>, of: usize| Map {
            points: classes.map(|class| ([class as f32, 1.0], class)).collect(),
            classes: (0..of).map(|class| format!("class {class}")).collect(),
            shares: [0.5, 0.2],
        };
        let few = scatter(&map(500..503, 1000));
        for hue in [0, 120, 240] {
            assert_eq!(few.matches(&format!("hsl({hue} ")).count(), 2, "{few}");
        }
        assert!(
            few.contains("class 501") && !few.contains("class 1<"),
            "{few}"
        );
        let many = scatter(&map(0..30, 1000));
        assert!(many.contains("30 classes, each in a colour"), "{many}");
    }
}
