//! Flags of the original's program, which are keys here.

use crate::config::schema::{self, Key, Kind, SECTION};
use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// What to say of an unknown flag that is the name of a key, to a command that takes keys.
pub(super) fn instead(
    error: &clap::Error,
    program: &Command,
    arguments: &[String],
) -> Option<String> {
    let (ErrorKind::UnknownArgument, Some(ContextValue::String(flag))) =
        (error.kind(), error.get(ContextKind::InvalidArg))
    else {
        return None;
    };
    let flag = flag.split('=').next().unwrap_or(flag);
    let name = flag.strip_prefix("--")?;
    let command = called(program, arguments);
    let argument = |id: &str| {
        command
            .get_arguments()
            .find(|argument| argument.get_id() == id)
    };
    // Words by themselves, or after a flag.
    let write = match argument("overrides")?.is_positional() {
        true => "write ",
        false => "write --set ",
    };
    if name == "config" && (argument("run").is_some() || argument("runs").is_some()) {
        let command = command.get_name();
        return Some(format!(
            "`simclr {command}` has no flag `--config`: the configuration is that of the run; {write}KEY=VALUE to change a value of it"
        ));
    }
    let (key, no) = meant(&name.replace('-', "_"))?;
    let value = match (given(flag, arguments), key.kind) {
        (Some(value), Kind::Bool) => match (truth(value), no) {
            (Some(value), false) => value,
            (_, no) => !no,
        }
        .to_string(),
        (None, Kind::Bool) => (!no).to_string(),
        (Some(value), _) => value.to_owned(),
        (None, _) => "VALUE".to_owned(),
    };
    let name = key.name;
    Some(format!(
        "`{flag}` is no flag but a key of the configuration; {write}{name}={value}"
    ))
}

/// What the original's flags take for true and false; none for another word, which stands behind a switch by chance.
fn truth(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "t" | "1" | "yes" | "y" => Some(true),
        "false" | "f" | "0" | "no" | "n" => Some(false),
        _ => None,
    }
}

/// The command that is called, of commands within commands the innermost.
fn called<'c>(program: &'c Command, arguments: &[String]) -> &'c Command {
    let step =
        |command: &'c Command, word: &String| command.find_subcommand(word).unwrap_or(command);
    arguments.iter().fold(program, step)
}

/// The key of a flag's name, and whether it is a switch turned off, as `nouse_blur` is.
fn meant(name: &str) -> Option<(&'static Key, bool)> {
    let find = |name: &str| {
        let inner = || schema::find(&format!("{SECTION}.{name}"));
        schema::find(name).or_else(inner)
    };
    let off = || {
        let key = name.strip_prefix("no").and_then(find);
        key.filter(|key| key.kind == Kind::Bool)
    };
    find(name)
        .map(|key| (key, false))
        .or_else(|| off().map(|key| (key, true)))
}

/// The value that stands with a flag or behind it.
fn given<'a>(flag: &str, arguments: &'a [String]) -> Option<&'a str> {
    let with = |argument: &'a String| argument.strip_prefix(flag)?.strip_prefix('=');
    if let Some(value) = arguments.iter().find_map(with) {
        return Some(value);
    }
    let at = arguments.iter().position(|argument| argument == flag)?;
    let next = arguments.get(at + 1)?;
    // A flag may stand there, but a number below zero is none.
    let flag = next.starts_with('-') && next.parse::<f64>().is_err();
    (!flag && !next.contains('=')).then_some(next)
}
