//! One HTML page about one or several runs: curves, figures, pairs of views, nearest neighbours, a map of the features. Everything is
//! inline, so that the file can be sent as it is; it follows the reader's light or dark setting and fits a phone.

mod chart;
pub mod map;

use super::{Picture, Scalars};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chart::Series;

/// What the page says of a run.
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// How it is called.
    pub name: String,
    /// One line: data set, network, steps.
    pub about: String,
    /// What makes it what it is.
    pub settings: Vec<Setting>,
    /// Its metrics.
    pub lines: Vec<Scalars>,
    /// Pairs of views as one picture.
    pub views: Option<Picture>,
    /// Nearest neighbours of some examples.
    pub neighbours: Vec<Neighbours>,
    /// Examples in the plane.
    pub map: Option<Map>,
}

/// A key of a run's configuration.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: String,
    /// Whether it is not the default.
    pub set: bool,
}

/// An example with those that are most like it, nearest first.
#[derive(Debug, Clone)]
pub struct Neighbours {
    /// The example: picture and class, which is empty in a set without classes.
    pub query: (Picture, String),
    /// The others.
    pub nearest: Vec<(Picture, String)>,
}

/// Features in the plane.
#[derive(Debug, Clone)]
pub struct Map {
    /// Of each example: place and class.
    pub points: Vec<([f32; 2], u32)>,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Parts of the variance along the two axes.
    pub shares: [f64; 2],
}

/// Curves of the page: tag, title, whether values are shares.
const CURVES: [(&str, &str, bool); 8] = [
    ("train/contrast_loss", "Contrastive loss", false),
    ("train/contrast_acc", "Contrastive accuracy", true),
    (
        "train/contrast_entropy",
        "Entropy over candidates, nats",
        false,
    ),
    ("train/supervised_loss", "Supervised loss", false),
    (
        "train/supervised_acc",
        "Supervised accuracy, training",
        true,
    ),
    ("eval/knn_20", "k-NN accuracy, k = 20", true),
    ("learning_rate", "Learning rate", false),
    ("perf/images_per_second", "Images per second", false),
];

/// Figures of the table: tag and name.
const FIGURES: [(&str, &str); 5] = [
    ("eval/label_top_1_accuracy", "top-1"),
    ("eval/label_top_5_accuracy", "top-5"),
    ("eval/knn_20", "k-NN, k = 20"),
    ("eval/knn_200", "k-NN, k = 200"),
    ("eval/linear_probe", "linear probe"),
];

/// Colours of runs, readable on light and dark.
const COLOURS: [&str; 6] = [
    "#2f7fd6", "#e0762a", "#2e9e5b", "#b5489a", "#8a7a1f", "#7a62d6",
];

/// The page.
pub fn page(runs: &[Run]) -> String {
    let title = match runs {
        [one] => format!("Run {}", one.name),
        many => format!("{} runs", many.len()),
    };
    let mut body = format!("<h1>{}</h1>\n", escape(&title));
    body.push_str("<div class=\"legend\">");
    for (number, run) in runs.iter().enumerate() {
        body.push_str(&format!(
            "<span><i style=\"background:{}\"></i><b>{}</b> {}</span>",
            colour(number),
            escape(&run.name),
            escape(&run.about)
        ));
    }
    body.push_str("</div>\n");
    body.push_str(&figures(runs));
    body.push_str(&curves(runs));
    for run in runs {
        body.push_str(&pictures(run, runs.len() > 1));
    }
    body.push_str(&settings(runs));
    body.push_str(concat!(
        "<p>Made by simclr ",
        env!("CARGO_PKG_VERSION"),
        ".</p>\n"
    ));
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<title>{}</title>\n<style>\n{}</style></head>\n<body><main>\n{body}</main></body></html>\n",
        escape(&title),
        include_str!("style.css")
    )
}

fn colour(run: usize) -> &'static str {
    COLOURS[run % COLOURS.len()]
}

fn figures(runs: &[Run]) -> String {
    let first_and_last = |run: &Run, tag: &str| {
        let mut found = run
            .lines
            .iter()
            .filter_map(|line| Some((line.step, line.get(tag)?)));
        let first = found.next();
        (first, found.next_back().or(first))
    };
    let mut rows = String::new();
    for (tag, name) in FIGURES {
        if runs.iter().all(|run| first_and_last(run, tag).0.is_none()) {
            continue;
        }
        rows.push_str(&format!("<tr><td>{name}</td>"));
        for run in runs {
            let share = |value: f64| format!("{:.1} %", 100.0 * value);
            let (before, after) = match first_and_last(run, tag) {
                (Some((0, first)), Some((step, last))) if step > 0 => (share(first), share(last)),
                (Some((0, first)), _) => (share(first), "–".into()),
                (_, Some((_, last))) => ("–".into(), share(last)),
                _ => ("–".into(), "–".into()),
            };
            rows.push_str(&format!("<td>{before}</td><td><b>{after}</b></td>"));
        }
        rows.push_str("</tr>\n");
    }
    if rows.is_empty() {
        return String::new();
    }
    let mut names = String::new();
    let mut heads = String::new();
    for run in runs {
        names.push_str(&format!("<th colspan=\"2\">{}</th>", escape(&run.name)));
        heads.push_str("<th>before</th><th>after</th>");
    }
    format!(
        "<h2>Accuracy on the evaluation split</h2>\n<div class=\"wide\"><table><tr><th></th>{names}</tr><tr><th></th>{heads}</tr>\n{rows}</table></div>\n"
    )
}

fn curves(runs: &[Run]) -> String {
    let mut cards = String::new();
    for (tag, title, share) in CURVES {
        let series: Vec<Series> = runs
            .iter()
            .enumerate()
            .map(|(number, run)| Series {
                colour: colour(number),
                name: &run.name,
                points: run
                    .lines
                    .iter()
                    .filter_map(|line| Some((line.epoch, line.get(tag)?)))
                    .filter(|(_, y)| y.is_finite())
                    .collect(),
            })
            // What was never measured is a row of zeros, or nothing.
            .filter(|series| series.points.iter().any(|&(_, y)| y != 0.0))
            .collect();
        if series.iter().any(|series| series.points.len() > 1) {
            cards.push_str(&format!(
                "<div class=\"card\"><h3>{title}</h3>{}</div>\n",
                chart::lines(title, &series, share)
            ));
        }
    }
    if cards.is_empty() {
        return "<h2>Curves</h2><p>There are no curves yet: they need the metrics of two steps.</p>\n".into();
    }
    format!("<h2>Curves</h2><p>against epochs</p>\n<div class=\"grid\">\n{cards}</div>\n")
}

fn pictures(run: &Run, named: bool) -> String {
    let of = if named {
        format!(" · {}", escape(&run.name))
    } else {
        String::new()
    };
    let mut out = String::new();
    if let Some(views) = &run.views {
        out.push_str(&format!(
            "<h2>Pairs of views{of}</h2><p>Each image with two views of it, cut and coloured at random: a pair that the network learns to tell from all others.</p>\n<div class=\"card\">{}</div>\n",
            image(views, "views", "pairs of views")
        ));
    }
    if !run.neighbours.is_empty() {
        let classes = run.neighbours.iter().any(|row| !row.query.1.is_empty());
        let frames = if classes {
            " Green: the same class, red: another."
        } else {
            ""
        };
        out.push_str(&format!("<h2>Nearest neighbours{of}</h2><p>Examples of the evaluation split, and those whose features are most like theirs.{frames}</p>\n<div class=\"card wide\">\n"));
        for row in &run.neighbours {
            let (picture, class) = &row.query;
            out.push_str(&format!(
                "<div class=\"row\">{}",
                image(picture, "query", class)
            ));
            for (picture, other) in &row.nearest {
                let same = match classes {
                    false => "near",
                    true if other == class => "same",
                    true => "other",
                };
                out.push_str(&image(picture, same, other));
            }
            out.push_str("</div>\n");
        }
        out.push_str("</div>\n");
    }
    if let Some(map) = &run.map {
        out.push_str(&format!(
            "<h2>Map of the features{of}</h2><p>{} examples of the evaluation split on the first two principal components of their features, {:.0} and {:.0} % of the variance.</p>\n<div class=\"card map\">{}</div>\n",
            map.points.len(),
            100.0 * map.shares[0],
            100.0 * map.shares[1],
            chart::scatter(map)
        ));
    }
    out
}

/// The keys that are not at their defaults in one of the runs; what the runs do not have alike is bold.
fn settings(runs: &[Run]) -> String {
    let known: Vec<&Run> = runs.iter().filter(|run| !run.settings.is_empty()).collect();
    let mut keys: Vec<&str> = Vec::new();
    for setting in known.iter().flat_map(|run| &run.settings) {
        if setting.set && !keys.contains(&setting.key.as_str()) {
            keys.push(&setting.key);
        }
    }
    let mut rows = String::new();
    for key in keys {
        let value = |run: &&Run| {
            let setting = run.settings.iter().find(|setting| setting.key == key);
            setting.map_or("–".into(), |setting| escape(&setting.value))
        };
        let values: Vec<String> = known.iter().map(value).collect();
        let (open, close) = match values.iter().all(|value| *value == values[0]) {
            true => ("<td>", "</td>"),
            false => ("<td><b>", "</b></td>"),
        };
        rows.push_str(&format!("<tr><td>{}</td>", escape(key)));
        for value in values {
            rows.push_str(&format!("{open}{value}{close}"));
        }
        rows.push_str("</tr>\n");
    }
    if rows.is_empty() {
        return String::new();
    }
    let names: String = known
        .iter()
        .map(|run| format!("<th>{}</th>", escape(&run.name)))
        .collect();
    format!(
        "<h2>Settings</h2><p>All others have their defaults.</p>\n<div class=\"wide\"><table><tr><th></th>{names}</tr>\n{rows}</table></div>\n"
    )
}

fn image(picture: &Picture, class: &str, text: &str) -> String {
    format!(
        "<img class=\"{class}\" alt=\"{text}\" title=\"{text}\" width=\"{}\" height=\"{}\" src=\"data:image/png;base64,{}\">",
        picture.width,
        picture.height,
        STANDARD.encode(picture.png()),
        text = escape(text)
    )
}

/// Text that HTML takes as text.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
