//! What a plugin's profiler has recorded.

use crate::proto::xplane::{XSpace, x_stat::Value};
use prost::Message;
use serde_json::json;
use std::collections::BTreeMap;

/// Something that took time.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Device or host, such as `/device:GPU:0`.
    pub plane: String,
    /// Stream or thread, by name.
    pub line: String,
    /// Its number among all: names may be equal.
    pub thread: usize,
    /// A kernel, a copy, a call.
    pub name: String,
    /// The instruction of the optimised program that it belongs to, where the plugin says.
    pub instruction: Option<String>,
    /// Seconds from the beginning of the first span.
    pub start: f64,
    /// Seconds.
    pub seconds: f64,
}

/// Everything recorded.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Trace {
    /// In the order of the plugin.
    pub spans: Vec<Span>,
}

impl Trace {
    /// Reads a serialised `XSpace`.
    ///
    /// # Errors
    /// If the bytes are no such message.
    pub fn read(bytes: &[u8]) -> Result<Self, prost::DecodeError> {
        // Some plugins put a zero behind the message, as behind a C string.
        let space = XSpace::decode(bytes).or_else(|error| match bytes {
            [message @ .., 0] => XSpace::decode(message),
            _ => Err(error),
        })?;
        let (mut spans, mut threads) = (Vec::new(), 0..);
        for plane in space.planes {
            let stat_name = |id: i64| plane.stat_metadata.get(&id).map(|stat| stat.name.as_str());
            for (line, thread) in plane.lines.iter().zip(&mut threads) {
                for event in &line.events {
                    let name = plane.event_metadata.get(&event.metadata_id);
                    let instruction = event
                        .stats
                        .iter()
                        .find(|stat| stat_name(stat.metadata_id) == Some("hlo_op"))
                        .and_then(|stat| match stat.value.as_ref()? {
                            Value::StrValue(text) => Some(text.clone()),
                            Value::RefValue(id) => stat_name(*id as i64).map(String::from),
                            _ => None,
                        });
                    let span = Span {
                        plane: plane.name.clone(),
                        line: line.name.clone(),
                        thread,
                        name: name.map(|found| found.name.clone()).unwrap_or_default(),
                        instruction,
                        start: 0.0,
                        seconds: event.duration_ps as f64 * 1e-12,
                    };
                    // Since 1970: a double would hold quarters of a microsecond.
                    let picoseconds =
                        i128::from(line.timestamp_ns) * 1000 + i128::from(event.offset_ps);
                    spans.push((picoseconds, span));
                }
            }
        }
        let first = spans.iter().map(|&(start, _)| start).min().unwrap_or(0);
        let from_first = |(start, span)| Span {
            start: (start - first) as f64 * 1e-12,
            ..span
        };
        Ok(Trace {
            spans: spans.into_iter().map(from_first).collect(),
        })
    }

    /// As Chrome's trace events, for a viewer such as Perfetto: a process for each device and host, a thread for each of its streams and
    /// threads; times in µs.
    pub fn chrome(&self) -> Vec<serde_json::Value> {
        let mut planes: Vec<&str> = Vec::new();
        let mut threads = BTreeMap::new();
        let mut events = Vec::new();
        for span in &self.spans {
            let known = planes.iter().position(|name| *name == span.plane);
            let plane = known.unwrap_or_else(|| {
                planes.push(&span.plane);
                planes.len() - 1
            });
            threads.insert(span.thread, (plane, &span.line));
            events.push(json!({
                "ph": "X", "pid": plane, "tid": span.thread, "name": span.name,
                "ts": 1e6 * span.start, "dur": 1e6 * span.seconds,
                "args": {"instruction": span.instruction},
            }));
        }
        let named = |kind: &str, plane: usize, thread: usize, name: &str| json!({"ph": "M", "name": kind, "pid": plane, "tid": thread, "args": {"name": name}});
        for (plane, name) in planes.iter().enumerate() {
            events.push(named("process_name", plane, 0, name));
        }
        for (thread, (plane, name)) in threads {
            events.push(named("thread_name", plane, thread, name));
        }
        events
    }

    /// Spans of devices other than the host, if any were recorded.
    pub fn devices(&self) -> impl Iterator<Item = &Span> {
        self.spans
            .iter()
            .filter(|span| span.plane.starts_with("/device:"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::xplane::{XEvent, XEventMetadata, XLine, XPlane, XStat, XStatMetadata};

    #[test]
    fn names_times_and_instructions_come_out_of_the_message() {
        let meta = |id, name: &str| {
            (
                id,
                XEventMetadata {
                    id,
                    name: name.into(),
                },
            )
        };
        let stat = |id, name: &str| {
            (
                id,
                XStatMetadata {
                    id,
                    name: name.into(),
                },
            )
        };
        let event = |metadata_id, offset_ps, value| XEvent {
            metadata_id,
            offset_ps,
            duration_ps: 3_000_000,
            stats: vec![XStat {
                metadata_id: 1,
                value: Some(value),
            }],
        };
        let line = |event| XLine {
            name: "Stream".into(),
            timestamp_ns: 1_790_000_000_000_000_000,
            events: vec![event],
        };
        let plane = XPlane {
            name: "/device:GPU:0".into(),
            lines: vec![
                line(event(7, 2_000_000, Value::StrValue("fusion.1".into()))),
                line(event(8, 2_001_000, Value::RefValue(2))),
            ],
            event_metadata: [meta(7, "a kernel"), meta(8, "another")].into(),
            stat_metadata: [stat(1, "hlo_op"), stat(2, "fusion.2")].into(),
        };
        let mut bytes = XSpace {
            planes: vec![plane],
        }
        .encode_to_vec();
        let trace = Trace::read(&bytes).unwrap();
        let found: Vec<_> = trace
            .devices()
            .map(|span| (span.name.as_str(), span.instruction.as_deref().unwrap()))
            .collect();
        assert_eq!(found, [("a kernel", "fusion.1"), ("another", "fusion.2")]);
        assert!((trace.spans[0].seconds - 3e-6).abs() < 1e-12);
        // A nanosecond apart, half a century after the beginning of their clock.
        let starts = [trace.spans[0].start, trace.spans[1].start];
        assert!(
            starts[0] == 0.0 && (starts[1] - 1e-9).abs() < 1e-15,
            "{starts:?}"
        );
        let events = trace.chrome();
        assert_eq!(events[1]["args"]["instruction"], "fusion.2");
        assert_eq!(events[0]["dur"], 3.0);
        assert_eq!(
            (&events[0]["tid"], &events[1]["tid"]),
            (&0.into(), &1.into())
        );
        assert!((events[1]["ts"].as_f64().unwrap() - 1e-3).abs() < 1e-9);
        let named = |event: &serde_json::Value| event["args"]["name"].as_str().map(String::from);
        let names: Vec<_> = events.iter().filter_map(named).collect();
        assert_eq!(names, ["/device:GPU:0", "Stream", "Stream"]);
        bytes.push(0);
        assert_eq!(Trace::read(&bytes).unwrap(), trace);
        bytes.push(0);
        assert!(Trace::read(&bytes).is_err());
    }
}
