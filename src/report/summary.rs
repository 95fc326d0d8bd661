//! The closing words of a run: figures before and after, what was written, what to try next.

use std::path::PathBuf;

use serde::Serialize;

/// What a run has come to, as plain data; [`Summary::text`] and [`Summary::json`] say the same.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// One line: what ran, how long, how fast.
    pub headline: String,
    /// The figures, in the order to be shown.
    pub figures: Vec<Figure>,
    /// What a reader of the figures has to know, each one line.
    pub notes: Vec<String>,
    /// What was written.
    pub paths: Vec<Written>,
    /// What to do now.
    pub next: Vec<Next>,
}

/// One figure, before training and after it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// In what it is given.
    pub unit: Unit,
    /// Before the first step, where it was measured.
    pub before: Option<f64>,
    /// After the last step, where it was measured.
    pub after: Option<f64>,
}

/// How a figure is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// A fraction from 0 to 1, shown as percent.
    Share,
    /// A number without a unit, such as a loss.
    Number,
}

/// Something that the run has written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Written {
    /// What it is.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
}

/// A command to try next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Next {
    /// What for.
    pub purpose: String,
    /// As typed into a shell.
    pub command: String,
}

impl Summary {
    /// The summary for people: aligned columns, a line end after every line.
    pub fn text(&self) -> String {
        let mut text = format!("{}\n", self.headline);
        if !self.figures.is_empty() {
            let rows = self.figures.iter().map(Figure::row);
            let head = ["", "before", "after", "change"].map(str::to_owned);
            section(&mut text, "", std::iter::once(head).chain(rows).collect());
        }
        for note in &self.notes {
            text += &format!("  note: {note}\n");
        }
        let paths = self.paths.iter();
        let paths = paths.map(|written| [written.name.clone(), written.path.display().to_string()]);
        section(&mut text, "written", paths.collect());
        let next = self
            .next
            .iter()
            .map(|next| [next.purpose.clone(), next.command.clone()]);
        section(&mut text, "next", next.collect());
        text
    }

    /// The summary for machines: one JSON object.
    pub fn json(&self) -> String {
        // Strings, numbers and lists under fixed keys. A path that is not Unicode is the one thing JSON cannot hold.
        serde_json::to_string_pretty(self)
            .unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}"))
    }
}

impl Figure {
    fn row(&self) -> [String; 4] {
        let show = |value: Option<f64>| value.map_or("–".to_owned(), |v| self.unit.show(v));
        let change = match (self.before, self.after) {
            (Some(before), Some(after)) => self.unit.change(after - before),
            _ => String::new(),
        };
        [
            self.name.clone(),
            show(self.before),
            show(self.after),
            change,
        ]
    }
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Unit::Share => format!("{:.1} %", 100.0 * value),
            Unit::Number => format!("{value:.4}"),
        }
    }

    fn change(self, difference: f64) -> String {
        match self {
            Unit::Share => format!("{:+.1} points", 100.0 * difference),
            Unit::Number => format!("{difference:+.4}"),
        }
    }
}

/// Appends a block of aligned columns under a title, after an empty line; nothing for no rows.
/// The first column is flush left, as is the last of two; numbers are flush right.
fn section<const N: usize>(text: &mut String, title: &str, rows: Vec<[String; N]>) {
    if rows.is_empty() {
        return;
    }
    *text += "\n";
    if !title.is_empty() {
        *text += &format!("{title}\n");
    }
    let widths: [usize; N] = std::array::from_fn(|column| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    });
    for row in &rows {
        let mut line = String::from(" ");
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            line += &match (column, N) {
                (0, _) | (_, 2) => format!(" {cell:<width$} "),
                _ => format!(" {cell:>width$} "),
            };
        }
        *text += line.trim_end();
        *text += "\n";
    }
}
