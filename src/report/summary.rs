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
            let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
            section(&mut text, "", Last::Number, with_content(&rows));
        }
        for note in &self.notes {
            text += &format!("  note: {note}\n");
        }
        let paths = self.paths.iter();
        let paths =
            paths.map(|written| vec![written.name.clone(), written.path.display().to_string()]);
        section(&mut text, "written", Last::Text, paths.collect());
        let next = self
            .next
            .iter()
            .map(|next| vec![next.purpose.clone(), next.command.clone()]);
        section(&mut text, "next", Last::Text, next.collect());
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
        let show = |value: Option<f64>| value.map_or(NOTHING.to_owned(), |v| self.unit.show(v));
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

/// What stands for a figure that was not measured.
const NOTHING: &str = "–";

/// A table without the columns that hold nothing below their head.
fn with_content<const N: usize>(rows: &[[String; N]]) -> Vec<Vec<String>> {
    let holds = |column: usize| {
        let mut cells = rows.iter().skip(1).map(|row| row[column].as_str());
        cells.any(|cell| !matches!(cell, "" | NOTHING))
    };
    let columns: Vec<usize> = (0..N).filter(|&column| holds(column)).collect();
    let chosen = |row: &[String; N]| columns.iter().map(|&column| row[column].clone()).collect();
    rows.iter().map(chosen).collect()
}

/// What the last column of a block holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Text,
    Number,
}

/// Appends a block of aligned columns under a title, after an empty line; nothing for no rows.
/// The first column is flush left, as is a last one of text; numbers are flush right.
fn section(text: &mut String, title: &str, last: Last, rows: Vec<Vec<String>>) {
    if rows.is_empty() {
        return;
    }
    *text += "\n";
    if !title.is_empty() {
        *text += &format!("{title}\n");
    }
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in &rows {
        let mut line = String::from(" ");
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            line += &match (column, last) {
                (0, _) | (_, Last::Text) => format!(" {cell:<width$} "),
                _ => format!(" {cell:>width$} "),
            };
        }
        *text += line.trim_end();
        *text += "\n";
    }
}
