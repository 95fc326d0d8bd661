//! From a file and `key=value` to values with their origins, each checked as its key's type.

use super::schema::{self, KEYS, Key, Kind};
use super::typed::Config;
use super::value::{self, Value};
use super::{Error, Origin};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Every key with its value and where that comes from.
pub(super) type Values = BTreeMap<&'static str, (Value, Origin)>;

/// A configuration with the origin of every value.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The struct.
    pub config: Config,
    values: Values,
}

impl Loaded {
    /// Where a value comes from.
    pub fn origin(&self, key: &str) -> Origin {
        self.values
            .get(key)
            .map_or(Origin::Default, |(_, origin)| origin.clone())
    }

    /// The same configuration with `key=value` overrides, of which the last wins.
    ///
    /// # Errors
    /// As [`load`].
    pub fn with(&self, overrides: &[String]) -> Result<Loaded, Error> {
        let mut values = self.values.clone();
        apply(&mut values, overrides)?;
        let config = Config::from_values(&values)?;
        Ok(Loaded { config, values })
    }

    /// The same configuration, where those of `keys` that nobody has set have the values of another one.
    ///
    /// # Errors
    /// As [`load`].
    pub fn inherit(&self, from: &Loaded, keys: &[&str]) -> Result<Loaded, Error> {
        let mut values = self.values.clone();
        for (key, entry) in &mut values {
            if keys.contains(key) && entry.1 == Origin::Default {
                entry.clone_from(&from.values[key]);
            }
        }
        let config = Config::from_values(&values)?;
        Ok(Loaded { config, values })
    }

    /// A value, as YAML; `null` for a key that there is not.
    pub fn value(&self, key: &str) -> String {
        self.values
            .get(key)
            .map_or("null".into(), |(value, _)| value.to_string())
    }

    /// An error about a value of this configuration.
    pub fn bad(&self, key: &'static str, expected: impl Into<String>) -> Error {
        Error::BadValue {
            key,
            origin: self.origin(key),
            found: self.values[key].0.to_string(),
            expected: expected.into(),
        }
    }

    /// The whole configuration as YAML that loads to the same, with the origin of each value as a comment.
    pub fn to_yaml(&self) -> String {
        let mut text = String::new();
        let mut section = "";
        // The table has the keys of `runtime` last.
        for key in KEYS {
            let (value, origin) = &self.values[key.name];
            let (within, name) = key.name.rsplit_once('.').unwrap_or(("", key.name));
            if within != section {
                text.push_str(&format!("{within}:\n"));
                section = within;
            }
            let indent = if within.is_empty() { "" } else { "  " };
            let line = format!("{indent}{name}: {value}");
            text.push_str(&format!("{line:<48} # {origin}\n"));
        }
        text
    }

    /// Keys with value and origin, in the table's order.
    pub fn entries(&self) -> impl Iterator<Item = (&'static Key, &Value, &Origin)> {
        KEYS.iter().map(|key| {
            let (value, origin) = &self.values[key.name];
            (key, value, origin)
        })
    }

    /// The values that make a run what it is: two runs may share a folder only if these agree.
    pub fn identity(&self) -> Vec<(String, String)> {
        self.entries()
            .filter(|(key, _, _)| key.identity)
            .map(|(key, value, _)| (key.name.to_string(), value.to_string()))
            .collect()
    }
}

/// Reads a file (or only defaults) and applies `key=value` overrides, of which the last wins.
///
/// # Errors
/// The first problem, with its place.
pub fn load(path: Option<&Path>, overrides: &[String]) -> Result<Loaded, Error> {
    match path {
        Some(path) => resolve(value::read(path)?, path, overrides, place),
        None => resolve(BTreeMap::new(), Path::new(""), overrides, place),
    }
}

/// The same of a configuration that is kept as text in the file `path`, such as that of a checkpoint; its paths are taken to the letter.
///
/// # Errors
/// As [`load`].
pub fn load_text(text: &str, path: &Path, overrides: &[String]) -> Result<Loaded, Error> {
    let as_kept = |_: &'static Key, value, _: &Origin| Ok(value);
    resolve(value::read_text(text, path)?, path, overrides, as_kept)
}

fn resolve(
    file: BTreeMap<String, (Value, u64)>,
    path: &Path,
    overrides: &[String],
    meant: impl Fn(&'static Key, Value, &Origin) -> Result<Value, Error>,
) -> Result<Loaded, Error> {
    let mut values = Values::new();
    for key in KEYS {
        let default = value::parse(key.default).unwrap_or(Value::Null);
        let default = checked(key, default, &Origin::Default)?;
        values.insert(key.name, (default, Origin::Default));
    }
    let mut lines = HashMap::new();
    let mut set_once = |name: &str, value, line| {
        let origin = Origin::File(path.into(), line);
        let key = set(&mut values, name, value, origin, &meant)?;
        match lines.insert(key, line) {
            // In two spellings; of one the reader says it itself.
            Some(other) => Err(Error::Twice {
                key,
                origin: Origin::File(path.into(), line.max(other)),
                before: line.min(other),
            }),
            None => Ok(()),
        }
    };
    for (name, (value, line)) in file {
        let origin = Origin::File(path.into(), line);
        match value {
            Value::Map(section) if name == schema::SECTION => {
                for (inner, (value, line)) in section {
                    set_once(&format!("runtime.{inner}"), value, line)?;
                }
            }
            Value::Null if name == schema::SECTION => {}
            value if name == schema::SECTION => {
                return Err(Error::WrongType {
                    key: schema::SECTION,
                    origin,
                    found: value.describe(),
                    expected: "a section of indented lines, such as `platform: cpu`".into(),
                });
            }
            Value::Map(_) if schema::find(&name).is_none() => {
                let nearest = schema::nearest_section(&name);
                return Err(Error::UnknownSection {
                    section: name,
                    origin,
                    nearest,
                });
            }
            value => set_once(&name, value, line)?,
        }
    }
    apply(&mut values, overrides)?;
    let config = Config::from_values(&values)?;
    Ok(Loaded { config, values })
}

fn apply(values: &mut Values, overrides: &[String]) -> Result<(), Error> {
    for argument in overrides {
        let not = || Error::NotAnOverride {
            argument: argument.clone(),
        };
        let (name, text) = argument.split_once('=').ok_or_else(not)?;
        let quoted = text.starts_with(['"', '\'']);
        let value = match value::parse(text) {
            // Text is what was typed, also where YAML would read a number or a comment in it.
            Ok(value) if !quoted && value != Value::Null && is_text(name.trim()) => {
                Value::Text(text.into())
            }
            Ok(value) => value,
            Err(_) => Value::Text(text.into()),
        };
        set(values, name.trim(), value, Origin::Argument, place)?;
    }
    Ok(())
}

/// Sets a value, as `meant` takes it, and gives the name of its key.
fn set(
    values: &mut Values,
    name: &str,
    value: Value,
    origin: Origin,
    meant: impl Fn(&'static Key, Value, &Origin) -> Result<Value, Error>,
) -> Result<&'static str, Error> {
    let (name, value) = schema::as_of_today(name, value);
    let Some(key) = schema::find(name) else {
        return Err(Error::UnknownKey {
            key: name.into(),
            origin,
            nearest: schema::nearest(name),
        });
    };
    let value = meant(key, checked(key, value, &origin)?, &origin)?;
    values.insert(key.name, (value, origin));
    Ok(key.name)
}

fn is_text(name: &str) -> bool {
    schema::find(name).is_some_and(|key| matches!(key.kind, Kind::Text | Kind::Path))
}

/// A path as a shell and the user mean it: `~/` is the home folder, and an address is not the name of a local folder.
fn place(key: &'static Key, value: Value, origin: &Origin) -> Result<Value, Error> {
    let (Kind::Path, Value::Text(text)) = (key.kind, &value) else {
        return Ok(value);
    };
    let bad = |expected: &str| {
        Err(Error::BadValue {
            key: key.name,
            origin: origin.clone(),
            found: value.to_string(),
            expected: expected.into(),
        })
    };
    if let Some((scheme, rest)) = text.split_once(':')
        && (scheme == "gs") != rest.starts_with("//")
        && (scheme == "gs" || is_scheme(scheme))
    {
        return bad("a local path or gs://BUCKET/…; no other scheme is known");
    }
    let Some(rest) = text.strip_prefix('~') else {
        return Ok(value);
    };
    if !rest.is_empty() && !rest.starts_with('/') {
        return bad(
            "a path that is written out: only shells know ~NAME; ./~NAME is a file or folder here",
        );
    }
    match std::env::var("HOME") {
        Ok(home) if !home.is_empty() => {
            let home = home.trim_end_matches('/');
            Ok(Value::Text(format!("{home}{rest}")))
        }
        _ => {
            bad("a path that is written out, since HOME, the folder that ~ stands for, is not set")
        }
    }
}

/// Whether the word before a colon is such as the schemes of addresses are.
fn is_scheme(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_alphabetic())
        && word
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

/// The value as its key's type, within its bounds.
fn checked(key: &'static Key, value: Value, origin: &Origin) -> Result<Value, Error> {
    let wrong = |expected: String| {
        Err(Error::WrongType {
            key: key.name,
            origin: origin.clone(),
            found: value.describe(),
            expected,
        })
    };
    let outside = |expected: String| {
        Err(Error::BadValue {
            key: key.name,
            origin: origin.clone(),
            found: value.to_string(),
            expected,
        })
    };
    match (key.kind, &value) {
        (Kind::Int(low, high), Value::Int(v)) => {
            if (low..=high).contains(v) {
                Ok(value)
            } else {
                outside(format!("a whole number from {low} to {high}"))
            }
        }
        (Kind::Int(..), Value::Float(v)) if v.fract() == 0.0 && v.abs() < 9e15 => {
            checked(key, Value::Int(*v as i64), origin)
        }
        // Too large to be one of ours.
        (Kind::Int(low, high), Value::Float(v)) if v.fract() == 0.0 => {
            outside(format!("a whole number from {low} to {high}"))
        }
        (Kind::Int(..), _) => wrong("a whole number".into()),
        (Kind::Float(low, high), Value::Float(_) | Value::Int(_)) => {
            let v = number(&value);
            if v >= low && v <= high {
                Ok(Value::Float(v))
            } else {
                outside(format!("a number from {low} to {high}"))
            }
        }
        (Kind::Float(..), _) => wrong("a number".into()),
        (Kind::Bool, Value::Bool(_)) => Ok(value),
        (Kind::Bool, _) => wrong("true or false".into()),
        (Kind::Text | Kind::Path, Value::Text(_) | Value::Null) => Ok(value),
        (Kind::Text | Kind::Path, Value::Int(v)) => Ok(Value::Text(v.to_string())),
        (Kind::Text | Kind::Path, _) => wrong("text; write it in quotes".into()),
        (Kind::Choice(words), Value::Text(text)) => {
            if words.contains(&text.as_str()) {
                Ok(value)
            } else {
                outside(one_of(key.kind))
            }
        }
        (Kind::Choice(_), _) => wrong(one_of(key.kind)),
        (Kind::Words, Value::List(items)) if items.iter().all(|i| matches!(i, Value::Text(_))) => {
            Ok(value)
        }
        (Kind::Words, Value::Text(text)) => Ok(Value::List(vec![Value::Text(text.clone())])),
        (Kind::Words, _) => wrong("a list of names, such as [a, b]".into()),
    }
}

fn one_of(kind: Kind) -> String {
    format!("one of {}", kind.words().unwrap_or_default())
}

pub(super) fn number(value: &Value) -> f64 {
    match value {
        Value::Int(v) => *v as f64,
        Value::Float(v) => *v,
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_a_legal_value() {
        for key in KEYS {
            let value = value::parse(key.default).unwrap();
            let expected = checked(key, value, &Origin::Default);
            assert!(expected.is_ok(), "{}: {expected:?}", key.name);
            if let Some(before) = key.before {
                let value = checked(key, value::parse(before).unwrap(), &Origin::Default);
                assert_eq!(value.unwrap().to_string(), before, "{}", key.name);
            }
        }
        load(None, &[]).unwrap();
    }

    /// A run of before, in a folder `s3:`, can be opened.
    #[test]
    fn kept_paths_are_taken_to_the_letter() {
        let text = "model_dir: s3://bucket/run\ncheckpoint: \"~/a\"\n";
        let loaded = load_text(text, Path::new("config.yaml"), &[]).unwrap();
        let path = |path: &str| Some(std::path::PathBuf::from(path));
        assert_eq!(loaded.config.model_dir, path("s3://bucket/run"));
        assert_eq!(loaded.config.checkpoint, path("~/a"));
        assert!(
            loaded
                .with(&["model_dir=s3://bucket/other".into()])
                .is_err()
        );
    }

    #[test]
    fn passes_of_older_configurations_are_those_of_today() {
        let passes = |text: &str| {
            let loaded = load_text(text, Path::new("config.yaml"), &[]).unwrap();
            // As a run keeps it.
            let again = load_text(&loaded.to_yaml(), Path::new("config.yaml"), &[]).unwrap();
            assert_eq!(loaded.config, again.config, "{}", loaded.to_yaml());
            again.config.runtime.passes
        };
        assert_eq!(passes("runtime:\n  disable_passes: []\n"), ["all"]);
        let two = "runtime:\n  disable_passes: [tiny-maps, column-sums]\n";
        assert_eq!(passes(two), ["-tiny-maps", "-column-sums"]);
        assert_eq!(passes("runtime:\n  passes: [-tiny-maps]\n"), ["-tiny-maps"]);
        assert_eq!(passes("runtime:\n  passes: none\n"), ["none"]);
        let loaded = load(None, &["runtime.passes=-tiny-maps".into()]).unwrap();
        assert_eq!(loaded.config.runtime.passes, ["-tiny-maps"]);
    }
}
