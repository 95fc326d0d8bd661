//! YAML values with the place they stand at. The only file that knows the YAML crate.

use super::Error;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::Spanned;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// No configuration is longer.
const MOST_BYTES: u64 = 1 << 20;

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
            Value::Float(value) => format!("{} (a number)", digits(*value)),
            Value::Text(value) => format!("\"{value}\" (text)"),
            Value::List(items) => {
                let other = items.iter().find(|item| !matches!(item, Value::Text(_)));
                other.map_or("a list".into(), |item| {
                    format!("a list with {} in it", item.describe())
                })
            }
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
            Value::Float(value) => f.write_str(&digits(*value)),
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

/// A number as YAML, in few digits.
fn digits(value: f64) -> String {
    match value {
        _ if value.is_nan() => ".nan".into(),
        f64::INFINITY => ".inf".into(),
        f64::NEG_INFINITY => "-.inf".into(),
        _ => format!("{value:?}"),
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
    from_yaml(text)
}

fn from_yaml(text: &str) -> Result<Value, String> {
    // A key that takes no such number says so itself.
    let options = serde_yaml::options! {
        non_finite_float_policy: serde_yaml::NonFiniteFloatPolicy::PassThrough,
    };
    serde_yaml::from_str_with_options(text, options).map_err(|error| reason(&error))
}

/// Reads a YAML file whose top level is a map.
///
/// # Errors
/// If it cannot be read or is no YAML map; the place is named.
pub fn read(path: &Path) -> Result<BTreeMap<String, (Value, u64)>, Error> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|source| Error::Unreadable {
            path: path.into(),
            source,
        })?;
    let not_text = |found: String, expected| {
        Err(Error::NotText {
            path: path.into(),
            found,
            expected,
        })
    };
    const UTF8: &str = "UTF-8; save it in that encoding";
    if bytes.len() as u64 > MOST_BYTES {
        let expected = "lines of `key: value`; give the path of a configuration";
        return not_text("more than a mebibyte".into(), expected);
    }
    // Between letters of UTF-16 there are zero bytes, as in much that is no text.
    if bytes.contains(&0) {
        return not_text("UTF-16 text, or none".into(), UTF8);
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => read_text(text, path),
        Err(error) => {
            let before = &bytes[..error.valid_up_to()];
            let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
            not_text(format!("text in another encoding (line {line})"), UTF8)
        }
    }
}

/// The same of a text that stands in `path`.
pub fn read_text(text: &str, path: &Path) -> Result<BTreeMap<String, (Value, u64)>, Error> {
    if text.trim().is_empty() {
        return Ok(BTreeMap::new());
    }
    match from_yaml(text) {
        Ok(Value::Map(map)) => Ok(map),
        Ok(Value::Null) => Ok(BTreeMap::new()),
        Ok(other) => Err(Error::NotYaml {
            path: path.into(),
            reason: format!(
                "the file holds {}, expected lines of `key: value`",
                other.describe()
            ),
        }),
        Err(reason) => Err(Error::NotYaml {
            path: path.into(),
            reason,
        }),
    }
}

/// What is wrong, with its place, in words for who writes YAML rather than programs that read it.
fn reason(error: &serde_yaml::Error) -> String {
    use serde_yaml::Error as E;
    const DEEP: &str =
        "too many sections or lists within each other, expected `key: value` and one section";
    let words = match error.without_snippet() {
        E::MultipleDocuments { .. } => "a second document, expected one; leave out the line `---`",
        E::NullIntoString { .. } => "a key that is null, expected a name",
        E::Budget {
            breach: serde_yaml::budget::BudgetBreach::Depth { .. },
            ..
        } => DEEP,
        E::Budget { .. } => "too many values, expected some lines of `key: value`",
        E::Unexpected {
            expected: "string scalar",
            ..
        } => "a key that is a list or a section, expected a name",
        // As its parser says it.
        _ => return first_line(&error.to_string()).replace("recursion limit exceeded", DEEP),
    };
    match error.location() {
        Some(place) => format!("line {} column {}: {words}", place.line(), place.column()),
        None => words.into(),
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
