//! `simclr data check`.

use super::Place;
use crate::cli::ui::Ui;
use crate::data::check::{Report, check, compare};
use crate::error::Class;
use crate::report::progress::count;
use clap::Args;

#[derive(Args)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    place: Place,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, ui: &Ui) -> anyhow::Result<u8> {
    let mut reports = Vec::new();
    for found in arguments.place.all()? {
        let bar = super::bar(ui, &format!("{} {}", found.dataset, found.split));
        reports.push(check(&found, &|examples| bar.inc(examples))?);
        bar.finish_and_clear();
    }
    compare(&mut reports);
    if arguments.json {
        ui.result(&serde_json::to_string_pretty(&reports)?)?;
    } else {
        let texts: Vec<String> = reports.iter().map(text).collect();
        ui.result(&texts.join("\n"))?;
    }
    let good = reports.iter().all(Report::good);
    Ok(if good { 0 } else { Class::Check.exit_code() })
}

fn text(report: &Report) -> String {
    let seen: Vec<u64> = report.labels.iter().copied().filter(|&n| n > 0).collect();
    let labels = match (seen.iter().min(), seen.iter().max()) {
        (Some(least), Some(most)) => format!(
            "{} of {} classes, {least} to {most} examples each",
            seen.len(),
            report.classes
        ),
        _ => "none".into(),
    };
    let formats: Vec<String> = report
        .formats
        .iter()
        .map(|(format, n)| format!("{} {format}", count(*n)))
        .collect();
    let ([low, high], [narrow, wide]) = (report.heights, report.widths);
    let mut text = format!(
        "{} {}  {}\n  files     {}\n  examples  {} of {}\n",
        report.dataset,
        report.split,
        report.dir.display(),
        count(report.files as u64),
        count(report.examples),
        count(report.promised),
    );
    if !report.features.is_empty() {
        text.push_str(&format!("  features  {}\n", report.features.join(", ")));
    }
    text.push_str(&format!(
        "  pictures  {}; {} bytes on average; {low} to {high} rows, {narrow} to {wide} columns\n  labels    {labels}\n",
        formats.join(", "),
        count(report.bytes / report.examples.max(1)),
    ));
    if let Some(note) = &report.passed_over {
        text.push_str(&format!("  note      {note}\n"));
    }
    if report.good() {
        text.push_str("  good      every CRC, record and picture\n");
    } else {
        text.push_str(&format!("  problems  {}\n", count(report.problem_count)));
        for problem in &report.problems {
            text.push_str(&format!("    {problem}\n"));
        }
        if report.problem_count > report.problems.len() as u64 {
            text.push_str("    …\n");
        }
    }
    text
}
