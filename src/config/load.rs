//! From a file and `key=value` to values with their origins, each checked as its key's type.

use super::schema::{self, KEYS, Key, Kind};
use super::typed::Config;
use super::value::{self, Value};
use super::{Error, Origin};
use std::collections::BTreeMap;
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
        Some(path) => resolve(value::read(path)?, path, overrides),
        None => resolve(BTreeMap::new(), Path::new(""), overrides),
    }
}

/// The same of a configuration that is kept as text in the file `path`, such as that of a checkpoint.
///
/// # Errors
/// As [`load`].
pub fn load_text(text: &str, path: &Path, overrides: &[String]) -> Result<Loaded, Error> {
    resolve(value::read_text(text, path)?, path, overrides)
}

fn resolve(
    file: BTreeMap<String, (Value, u64)>,
    path: &Path,
    overrides: &[String],
) -> Result<Loaded, Error> {
    let mut values = Values::new();
    for key in KEYS {
        let default = value::parse(key.default).unwrap_or(Value::Null);
        let default = checked(key, default, &Origin::Default)?;
        values.insert(key.name, (default, Origin::Default));
    }
    for (name, (value, line)) in file {
        let origin = Origin::File(path.into(), line);
        match value {
            Value::Map(section) if name == schema::SECTION => {
                for (inner, (value, line)) in section {
                    let origin = Origin::File(path.into(), line);
                    set(&mut values, &format!("runtime.{inner}"), value, origin)?;
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
            value => set(&mut values, &name, value, origin)?,
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
        set(values, name.trim(), value, Origin::Argument)?;
    }
    Ok(())
}

fn set(values: &mut Values, name: &str, value: Value, origin: Origin) -> Result<(), Error> {
    let (name, value) = schema::as_of_today(name, value);
    let Some(key) = schema::find(name) else {
        return Err(Error::UnknownKey {
            key: name.into(),
            origin,
            nearest: schema::nearest(name),
        });
    };
    let value = checked(key, value, &origin)?;
    values.insert(key.name, (value, origin));
    Ok(())
}

fn is_text(name: &str) -> bool {
    schema::find(name).is_some_and(|key| key.kind == Kind::Text)
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
        (Kind::Text, Value::Text(_) | Value::Null) => Ok(value),
        (Kind::Text, Value::Int(v)) => Ok(Value::Text(v.to_string())),
        (Kind::Text, _) => wrong("text; write it in quotes".into()),
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
