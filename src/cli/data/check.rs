//! `simclr data check`.

use super::{Place, WORDS};
use crate::cli::ui::Ui;
use crate::data::check::{Report, check, compare};
use crate::error::Class;
use crate::report::progress::count;
use crate::words::plural;
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
        let report = check(&found, &|examples| bar.inc(examples));
        bar.finish_and_clear();
        reports.push(report.map_err(|error| error.in_words_of(&WORDS))?);
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

/// From the least to the most, once where they are the same.
fn range(least: u64, most: u64, noun: &str) -> String {
    match least == most {
        true => format!("{least} {noun}{}", plural(least)),
        false => format!("{least} to {most} {noun}s"),
    }
}

fn text(report: &Report) -> String {
    let seen: Vec<u64> = report.labels.iter().copied().filter(|&n| n > 0).collect();
    let labels = match (seen.iter().min(), seen.iter().max()) {
        (Some(&least), Some(&most)) => format!(
            "{} of {} class{}, {} each",
            seen.len(),
            report.classes,
            if report.classes == 1 { "" } else { "es" },
            range(least, most, "example")
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
        "  pictures  {}; {} bytes on average; {}, {}\n  labels    {labels}\n",
        formats.join(", "),
        count(report.bytes / report.examples.max(1)),
        range(low as u64, high as u64, "row"),
        range(narrow as u64, wide as u64, "column"),
    ));
    if let Some(note) = &report.passed_over {
        text.push_str(&format!("  note      {note}\n"));
    }
    if let Some(published) = report.published {
        let published = count(published as u64);
        text.push_str(&format!(
            "  note      the published split has {published} examples\n"
        ));
    }
    if report.good() {
        text.push_str(&format!("  good      every {}\n", report.checked));
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
