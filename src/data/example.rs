//! `tf.train.Example`, decoded by hand from the protobuf wire format so that the bytes of an image
//! are borrowed, not copied.
//!
//! The messages, with their field numbers: `Example { Features features = 1 }`, `Features {
//! map<string, Feature> feature = 1 }` (a map entry is a message with key 1 and value 2), `Feature
//! { oneof { BytesList = 1, FloatList = 2, Int64List = 3 } }`, each list with its repeated `value =
//! 1`. Unknown fields are skipped. Any bytes give an example or an error, never a panic.

use std::mem::take;
use std::ops::Range;

/// Why the bytes of a record are not the example that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExampleError {
    /// The bytes are not a `tf.train.Example`.
    #[error("byte {offset} of the record is no tf.train.Example: {reason}")]
    Malformed {
        /// Where in the record, in bytes.
        offset: usize,
        /// What is wrong there.
        reason: &'static str,
    },
    /// The example lacks a feature.
    #[error("the example has no feature `{key}`, only {found}")]
    Missing {
        /// The feature asked for.
        key: String,
        /// Those it has.
        found: String,
    },
    /// A feature is not one value of the expected kind.
    #[error("feature `{key}` holds {found}, expected one {expected}")]
    NotOne {
        /// The feature asked for.
        key: String,
        /// What it holds.
        found: String,
        /// The kind expected.
        expected: &'static str,
    },
}

/// The value of a feature.
#[derive(Debug, Clone, PartialEq)]
pub enum Feature<'a> {
    /// Byte strings, borrowed from the record.
    Bytes(Vec<&'a [u8]>),
    /// Floats.
    Floats(Vec<f32>),
    /// Integers.
    Ints(Vec<i64>),
    /// No list at all, as written for an absent value.
    Empty,
}

impl Feature<'_> {
    pub(crate) fn describe(&self) -> String {
        match self {
            Feature::Bytes(values) => format!("{} byte strings", values.len()),
            Feature::Floats(values) => format!("{} floats", values.len()),
            Feature::Ints(values) => format!("{} integers", values.len()),
            Feature::Empty => "no value".into(),
        }
    }
}

/// The named features of one example. Of a name given twice the last counts, as the wire format has
/// it.
#[derive(Debug, Clone, PartialEq)]
pub struct Example<'a> {
    features: Vec<(&'a str, Feature<'a>)>,
}

impl<'a> Example<'a> {
    /// Decodes a serialised `tf.train.Example`.
    pub fn parse(record: &'a [u8]) -> Result<Self, ExampleError> {
        let mut features = Vec::new();
        for_each_field(record, 0..record.len(), |field| {
            if field.number != 1 {
                return Ok(());
            }
            for_each_field(record, field.message()?, |field| {
                if field.number == 1 {
                    features.push(map_entry(record, field.message()?)?);
                }
                Ok(())
            })
        })?;
        Ok(Example { features })
    }

    /// All features with their names, as they come.
    pub fn features(&self) -> &[(&'a str, Feature<'a>)] {
        &self.features
    }

    /// The feature `key`, if the example has it.
    pub fn get(&self, key: &str) -> Option<&Feature<'a>> {
        self.features
            .iter()
            .rev()
            .find(|(name, _)| *name == key)
            .map(|(_, feature)| feature)
    }

    /// The single byte string of feature `key`.
    pub fn bytes(&self, key: &str) -> Result<&'a [u8], ExampleError> {
        match self.require(key)? {
            Feature::Bytes(values) if values.len() == 1 => Ok(values[0]),
            other => Err(not_one(key, other, "byte string")),
        }
    }

    /// The single integer of feature `key`.
    pub fn int(&self, key: &str) -> Result<i64, ExampleError> {
        match self.require(key)? {
            Feature::Ints(values) if values.len() == 1 => Ok(values[0]),
            other => Err(not_one(key, other, "integer")),
        }
    }

    fn require(&self, key: &str) -> Result<&Feature<'a>, ExampleError> {
        self.get(key).ok_or_else(|| {
            let names: Vec<_> = self
                .features
                .iter()
                .map(|(name, _)| format!("`{name}`"))
                .collect();
            let found = if names.is_empty() {
                "an empty list".into()
            } else {
                names.join(", ")
            };
            ExampleError::Missing {
                key: key.into(),
                found,
            }
        })
    }
}

fn not_one(key: &str, found: &Feature, expected: &'static str) -> ExampleError {
    ExampleError::NotOne {
        key: key.into(),
        found: found.describe(),
        expected,
    }
}

fn map_entry(record: &[u8], range: Range<usize>) -> Result<(&str, Feature<'_>), ExampleError> {
    let (mut key, mut value) = ("", Feature::Empty);
    for_each_field(record, range, |field| {
        match field.number {
            1 => {
                let range = field.message()?;
                let offset = range.start;
                key = std::str::from_utf8(&record[range])
                    .or(malformed(offset, "the name of a feature is not UTF-8"))?;
            }
            2 => merge_feature(record, field.message()?, &mut value)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok((key, value))
}

/// Adds what a `Feature` message says to `feature`: a list of the same kind is continued, one of
/// another kind replaced.
fn merge_feature<'a>(
    record: &'a [u8],
    range: Range<usize>,
    feature: &mut Feature<'a>,
) -> Result<(), ExampleError> {
    for_each_field(record, range, |field| {
        match field.number {
            1 => {
                let mut values = if let Feature::Bytes(values) = feature {
                    take(values)
                } else {
                    Vec::new()
                };
                for_each_value(record, field.message()?, |field| {
                    values.push(&record[field.message()?]);
                    Ok(())
                })?;
                *feature = Feature::Bytes(values);
            }
            2 => {
                let mut values = if let Feature::Floats(values) = feature {
                    take(values)
                } else {
                    Vec::new()
                };
                for_each_value(record, field.message()?, |field| {
                    floats(record, field, &mut values)
                })?;
                *feature = Feature::Floats(values);
            }
            3 => {
                let mut values = if let Feature::Ints(values) = feature {
                    take(values)
                } else {
                    Vec::new()
                };
                for_each_value(record, field.message()?, |field| {
                    ints(record, field, &mut values)
                })?;
                *feature = Feature::Ints(values);
            }
            _ => {}
        }
        Ok(())
    })
}

/// Appends the floats of one field: packed (all values in one field) or not.
fn floats(record: &[u8], field: Field, values: &mut Vec<f32>) -> Result<(), ExampleError> {
    match field.value {
        Value::Fixed32(bits) => values.push(f32::from_bits(bits)),
        Value::Message(range) => {
            let (words, rest) = record[range.clone()].as_chunks::<4>();
            if !rest.is_empty() {
                return malformed(range.start, "packed floats are not a multiple of 4 bytes");
            }
            values.extend(words.iter().map(|&word| f32::from_le_bytes(word)));
        }
        _ => return malformed(field.offset, "a float has the wrong wire type"),
    }
    Ok(())
}

/// Appends the integers of one field: packed (all values in one field) or not.
fn ints(record: &[u8], field: Field, values: &mut Vec<i64>) -> Result<(), ExampleError> {
    match field.value {
        Value::Varint(bits) => values.push(bits as i64),
        Value::Message(range) => {
            let mut at = range.start;
            while at < range.end {
                values.push(varint(record, &mut at, range.end)? as i64);
            }
        }
        _ => return malformed(field.offset, "an integer has the wrong wire type"),
    }
    Ok(())
}

// The wire format: a message is a sequence of fields, each a key (number and wire type) and a
// value. Ranges and offsets count from the start of the record, so that an error can say where.

struct Field {
    number: u64,
    offset: usize,
    value: Value,
}

enum Value {
    Varint(u64),
    Fixed64,
    Fixed32(u32),
    /// Length-delimited: a sub-message, a string or packed numbers.
    Message(Range<usize>),
}

impl Field {
    fn message(self) -> Result<Range<usize>, ExampleError> {
        match self.value {
            Value::Message(range) => Ok(range),
            _ => malformed(self.offset, "a message or string has the wrong wire type"),
        }
    }
}

fn for_each_value(
    record: &[u8],
    range: Range<usize>,
    mut visit: impl FnMut(Field) -> Result<(), ExampleError>,
) -> Result<(), ExampleError> {
    for_each_field(record, range, |field| {
        if field.number == 1 {
            visit(field)
        } else {
            Ok(())
        }
    })
}

fn for_each_field(
    record: &[u8],
    range: Range<usize>,
    mut visit: impl FnMut(Field) -> Result<(), ExampleError>,
) -> Result<(), ExampleError> {
    let mut at = range.start;
    while at < range.end {
        let offset = at;
        let key = varint(record, &mut at, range.end)?;
        let number = key >> 3;
        if number == 0 || number >= 1 << 29 {
            return malformed(offset, "a field number is out of range");
        }
        let value = match key & 7 {
            0 => Value::Varint(varint(record, &mut at, range.end)?),
            1 => advance(&mut at, 8, range.end).map(|_| Value::Fixed64)?,
            2 => {
                let length = varint(record, &mut at, range.end)?;
                Value::Message(advance(&mut at, length, range.end)?)
            }
            5 => {
                let bytes = &record[advance(&mut at, 4, range.end)?];
                Value::Fixed32(
                    bytes
                        .iter()
                        .rev()
                        .fold(0, |word, &byte| word << 8 | u32::from(byte)),
                )
            }
            _ => return malformed(offset, "a field has an unknown wire type"),
        };
        visit(Field {
            number,
            offset,
            value,
        })?;
    }
    Ok(())
}

/// The next `length` bytes; `at` moves behind them.
fn advance(at: &mut usize, length: u64, end: usize) -> Result<Range<usize>, ExampleError> {
    let start = *at;
    if length > (end - start) as u64 {
        return malformed(start, "a field reaches beyond the end of its message");
    }
    *at += length as usize;
    Ok(start..*at)
}

/// A little-endian base-128 number of at most 64 bits; `at` moves behind it.
fn varint(record: &[u8], at: &mut usize, end: usize) -> Result<u64, ExampleError> {
    let start = *at;
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let Some(&byte) = record[..end].get(*at) else {
            return malformed(start, "a number reaches beyond the end of its message");
        };
        *at += 1;
        if shift == 63 && byte > 1 {
            break;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    malformed(start, "a number has more than 64 bits")
}

fn malformed<T>(offset: usize, reason: &'static str) -> Result<T, ExampleError> {
    Err(ExampleError::Malformed { offset, reason })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tfrecord::protobuf::{Example as Reference, feature::Kind};
    use tfrecord::{Feature as ReferenceFeature, Record};

    use super::super::rng::Stream;
    use super::*;

    /// An example with a feature of each kind, written by another implementation.
    fn written() -> Vec<u8> {
        let feature = HashMap::from([
            (
                "image".to_string(),
                ReferenceFeature::from_bytes_iter([b"pixels".to_vec()]),
            ),
            (
                "names".to_string(),
                ReferenceFeature::from_bytes_iter([b"a".to_vec(), b"".to_vec()]),
            ),
            ("label".to_string(), ReferenceFeature::from_i64_iter([-3])),
            (
                "sizes".to_string(),
                ReferenceFeature::from_i64_iter([0, 300, i64::MIN, i64::MAX]),
            ),
            (
                "box".to_string(),
                ReferenceFeature::from_f32_iter([0.5, -1.5e30]),
            ),
            ("none".to_string(), ReferenceFeature::empty()),
        ]);
        Record::to_bytes(Reference {
            features: Some(tfrecord::protobuf::Features { feature }),
        })
        .unwrap()
    }

    #[test]
    fn features_are_found_by_name() {
        let record = written();
        let example = Example::parse(&record).unwrap();
        assert_eq!(example.bytes("image").unwrap(), b"pixels");
        assert_eq!(example.int("label").unwrap(), -3);
        assert_eq!(example.get("names"), Some(&Feature::Bytes(vec![b"a", b""])));
        assert_eq!(
            example.get("sizes"),
            Some(&Feature::Ints(vec![0, 300, i64::MIN, i64::MAX]))
        );
        assert_eq!(
            example.get("box"),
            Some(&Feature::Floats(vec![0.5, -1.5e30]))
        );
        assert_eq!(example.get("none"), Some(&Feature::Empty));
        assert_eq!(example.get("absent"), None);
        let borrowed = example.bytes("image").unwrap().as_ptr();
        assert!(
            record.as_ptr_range().contains(&borrowed),
            "the image was copied"
        );
    }

    #[test]
    fn a_wrong_feature_is_named() {
        let record = written();
        let example = Example::parse(&record).unwrap();
        let message = example.int("image").unwrap_err().to_string();
        assert_eq!(
            message,
            "feature `image` holds 1 byte strings, expected one integer"
        );
        let message = example.int("sizes").unwrap_err().to_string();
        assert_eq!(
            message,
            "feature `sizes` holds 4 integers, expected one integer"
        );
        let message = example.bytes("none").unwrap_err().to_string();
        assert_eq!(
            message,
            "feature `none` holds no value, expected one byte string"
        );
        let message = example.bytes("absent").unwrap_err().to_string();
        assert!(
            message.contains("`absent`") && message.contains("`label`"),
            "{message}"
        );
        let message = Example::parse(&[])
            .unwrap()
            .bytes("image")
            .unwrap_err()
            .to_string();
        assert!(message.contains("an empty list"), "{message}");
    }

    #[test]
    fn unpacked_numbers_and_unknown_fields_are_read() {
        // Features { "a": Int64List { 7, 8 (each its own field) } }, with unknown fields of every
        // wire type beside.
        let list = [
            0x08, 7, 0x08, 8, 0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0x1d, 0, 0, 0, 0,
        ];
        let feature = [&[0x1a, list.len() as u8], &list[..], &[0x20, 0x85, 0x01]].concat();
        let entry = [&[0x0a, 1, b'a', 0x12, feature.len() as u8], &feature[..]].concat();
        let features = [&[0x12, 1, 0xff, 0x0a, entry.len() as u8], &entry[..]].concat();
        let record = [&[0x0a, features.len() as u8], &features[..]].concat();
        assert_eq!(
            Example::parse(&record).unwrap().get("a"),
            Some(&Feature::Ints(vec![7, 8]))
        );
    }

    #[test]
    fn a_list_given_twice_goes_on_and_another_kind_replaces_it() {
        let (bytes, float, int): (&[u8], &[u8], &[u8]) = (
            &[0x0a, 3, 0x0a, 1, b'x'],
            &[0x12, 5, 0x0d, 0, 0, 0x80, 0x3f],
            &[0x1a, 2, 0x08, 7],
        );
        for (feature, expected) in [
            ([bytes, bytes].concat(), Feature::Bytes(vec![b"x", b"x"])),
            ([float, float].concat(), Feature::Floats(vec![1.0, 1.0])),
            ([int, int].concat(), Feature::Ints(vec![7, 7])),
            ([int, bytes].concat(), Feature::Bytes(vec![b"x"])),
            ([bytes, int, float].concat(), Feature::Floats(vec![1.0])),
        ] {
            let entry = [&[0x0a, 1, b'a', 0x12, feature.len() as u8], &feature[..]].concat();
            let features = [&[0x0a, entry.len() as u8], &entry[..]].concat();
            let record = [&[0x0a, features.len() as u8], &features[..]].concat();
            assert_eq!(Example::parse(&record).unwrap().get("a"), Some(&expected));
            assert_eq!(ours(&record).unwrap(), reference(&record).unwrap());
        }
    }

    #[test]
    fn malformed_bytes_are_placed() {
        let cases: [(&[u8], usize, &str); 7] = [
            (&[0x0a, 5, 0], 2, "beyond the end"),
            (&[0x0a], 1, "beyond the end"),
            (&[0x02, 0], 0, "field number"),
            (&[0x0b], 0, "wire type"),
            (&[0x08, 1], 0, "wire type"),
            (&[0x80; 11], 0, "64 bits"),
            (&[0x0a, 5, 0x0a, 3, 0x0a, 1, 0xff], 6, "UTF-8"),
        ];
        for (record, place, words) in cases {
            let Err(ExampleError::Malformed { offset, reason }) = Example::parse(record) else {
                panic!("{record:x?}")
            };
            assert!(
                offset == place && reason.contains(words),
                "{record:x?}: {offset} {reason}"
            );
        }
    }

    /// What another decoder makes of the bytes, in our terms; floats as bits.
    fn reference(record: &[u8]) -> Result<HashMap<String, String>, String> {
        let example =
            <Reference as Record>::from_bytes(record.to_vec()).map_err(|e| e.to_string())?;
        let features = example
            .features
            .map(|features| features.feature)
            .unwrap_or_default();
        Ok(features
            .into_iter()
            .map(|(name, feature)| {
                (
                    name,
                    match feature.kind {
                        None => "none".into(),
                        Some(Kind::BytesList(list)) => format!("{:?}", list.value),
                        Some(Kind::FloatList(list)) => format!(
                            "f{:?}",
                            list.value.iter().map(|v| v.to_bits()).collect::<Vec<_>>()
                        ),
                        Some(Kind::Int64List(list)) => format!("i{:?}", list.value),
                    },
                )
            })
            .collect())
    }

    fn ours(record: &[u8]) -> Result<HashMap<String, String>, ExampleError> {
        let features = Example::parse(record)?.features;
        Ok(features
            .into_iter()
            .map(|(name, feature)| {
                (
                    name.to_string(),
                    match feature {
                        Feature::Empty => "none".into(),
                        Feature::Bytes(values) => format!("{values:?}"),
                        Feature::Floats(values) => format!(
                            "f{:?}",
                            values.iter().map(|v| v.to_bits()).collect::<Vec<_>>()
                        ),
                        Feature::Ints(values) => format!("i{values:?}"),
                    },
                )
            })
            .collect())
    }

    #[test]
    fn any_bytes_decode_as_another_decoder_does_or_fail() {
        let mut stream = Stream::new([1, 1, 1]);
        let good = written();
        let (mut decoded, mut refused) = (0, 0);
        for round in 0..40_000 {
            let record = if round % 4 == 0 {
                // Noise of small numbers, so that keys and lengths are plausible.
                (0..stream.below(60))
                    .map(|_| stream.below(if round % 8 == 0 { 256 } else { 32 }) as u8)
                    .collect()
            } else {
                let mut record = good.clone();
                for _ in 0..1 + stream.below(3) {
                    let at = stream.below(record.len() as u64) as usize;
                    match stream.below(4) {
                        0 => record[at] ^= 1 << stream.below(8),
                        1 => record[at] = stream.below(256) as u8,
                        2 => record.truncate(at + 1),
                        _ => drop(record.remove(at)),
                    }
                    if record.is_empty() {
                        break;
                    }
                }
                record
            };
            match (ours(&record), reference(&record)) {
                (Ok(ours), Ok(reference)) => {
                    assert_eq!(ours, reference, "{record:x?}");
                    decoded += 1;
                }
                (Err(_), Err(_)) => refused += 1,
                // Groups, long out of use, are the one thing that we refuse and others skip.
                (Err(ExampleError::Malformed { reason, .. }), Ok(_))
                    if reason.contains("wire type") =>
                {
                    refused += 1
                }
                (ours, reference) => panic!("{record:x?}: {ours:?}, {reference:?}"),
            }
        }
        assert!(decoded > 1000 && refused > 1000, "{decoded} {refused}");
    }
}
