//! YAML values with the place they stand at. The only file that knows the YAML crate.

use super::Error;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::Spanned;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// A YAML value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`, `~`, nothing.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// Text.
    Text(String),
    /// `[a, b]`.
    List(Vec<Value>),
    /// A section, with the line of each value.
    Map(BTreeMap<String, (Value, u64)>),
}

impl Value {
    /// What a reader would call it, with the value.
    pub fn describe(&self) -> String {
        match self {
            Value::Null => "nothing".into(),
            Value::Bool(value) => format!("{value} (true or false)"),
            Value::Int(value) => format!("{value} (a whole number)"),
            Value::Float(value) => format!("{value} (a number)"),
            Value::Text(value) => format!("\"{value}\" (text)"),
            Value::List(_) => "a list".into(),
            Value::Map(_) => "a section".into(),
        }
    }
}

impl Value {
    /// As JSON.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Int(value) => (*value).into(),
            Value::Float(value) => (*value).into(),
            Value::Text(text) => text.as_str().into(),
            Value::List(values) => values.iter().map(Value::to_json).collect(),
            Value::Map(section) => section
                .iter()
                .map(|(key, (value, _))| (key.clone(), value.to_json()))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        }
    }
}

impl fmt::Display for Value {
    /// As YAML that reads back the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("null"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Int(value) => write!(f, "{value}"),
            Value::Float(value) => write!(f, "{value:?}"),
            Value::Text(text) => {
                let plain = text
                    .starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || c == '.')
                    && text
                        .chars()
                        .all(|c| c.is_ascii_alphanumeric() || "_-./+".contains(c))
                    && parse(text).is_ok_and(|value| matches!(value, Value::Text(_)));
                if plain {
                    f.write_str(text)
                } else {
                    // JSON strings are YAML strings.
                    f.write_str(&serde_json::Value::from(text.as_str()).to_string())
                }
            }
            Value::List(values) => {
                let texts: Vec<String> = values.iter().map(Value::to_string).collect();
                write!(f, "[{}]", texts.join(", "))
            }
            Value::Map(_) => f.write_str("{…}"),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a YAML value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or(Value::Float(value as f64), Value::Int))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.into()))
    }
    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Value>()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = BTreeMap::new();
        while let Some(key) = entries.next_key::<String>()? {
            let value: Spanned<Value> = entries.next_value()?;
            let line = value.referenced.line();
            map.insert(key, (value.value, line));
        }
        Ok(Value::Map(map))
    }
}

/// Parses one value, as on the right of `key=value`.
pub fn parse(text: &str) -> Result<Value, String> {
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    serde_yaml::from_str(text).map_err(|error| first_line(&error.to_string()))
}

/// Reads a YAML file whose top level is a map.
///
/// # Errors
/// If it cannot be read or is no YAML map; the place is named.
pub fn read(path: &Path) -> Result<BTreeMap<String, (Value, u64)>, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Unreadable {
        path: path.into(),
        source,
    })?;
    read_text(&text, path)
}

/// The same of a text that stands in `path`.
pub fn read_text(text: &str, path: &Path) -> Result<BTreeMap<String, (Value, u64)>, Error> {
    if text.trim().is_empty() {
        return Ok(BTreeMap::new());
    }
    match serde_yaml::from_str::<Value>(text) {
        Ok(Value::Map(map)) => Ok(map),
        Ok(Value::Null) => Ok(BTreeMap::new()),
        Ok(other) => Err(Error::NotYaml {
            path: path.into(),
            reason: format!(
                "the file holds {}, expected lines of `key: value`",
                other.describe()
            ),
        }),
        Err(error) => Err(Error::NotYaml {
            path: path.into(),
            reason: first_line(&error.to_string()),
        }),
    }
}

/// The crate's message, without its advice to programs that use it.
fn first_line(text: &str) -> String {
    text.lines()
        .next()
        .unwrap_or("no reason given")
        .trim_start_matches("error: ")
        .replace(
            ", set DuplicateKeyPolicy in Options if acceptable",
            "; keep one of the two lines",
        )
        .replace(
            "recursive references require weak recursion types",
            "an alias (*) that stands inside of what it refers to; write the value out",
        )
}
