//! What a plugin's profiler has recorded.

use crate::proto::xplane::{XSpace, x_stat::Value};
use prost::Message;
use serde_json::json;

/// Something that took time.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Device or host, such as `/device:GPU:0`.
    pub plane: String,
    /// Stream or thread.
    pub line: String,
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
        let mut spans = Vec::new();
        for plane in space.planes {
            let stat_name = |id: i64| plane.stat_metadata.get(&id).map(|stat| stat.name.as_str());
            for line in &plane.lines {
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
        let (mut planes, mut lines) = (Vec::new(), Vec::new());
        let mut events: Vec<_> = self
            .spans
            .iter()
            .map(|span| {
                let plane = number(&mut planes, span.plane.as_str());
                let line = number(&mut lines, (plane, span.line.as_str()));
                json!({
                    "ph": "X", "pid": plane, "tid": line, "name": span.name, "ts": 1e6 * span.start, "dur": 1e6 * span.seconds,
                    "args": {"instruction": span.instruction},
                })
            })
            .collect();
        let named = |kind: &str, plane: usize, line: usize, name: &str| json!({"ph": "M", "name": kind, "pid": plane, "tid": line, "args": {"name": name}});
        for (plane, name) in planes.iter().enumerate() {
            events.push(named("process_name", plane, 0, name));
        }
        for (line, (plane, name)) in lines.iter().enumerate() {
            events.push(named("thread_name", *plane, line, name));
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

/// The place of a name among those known, behind which it comes if it is new.
fn number<T: PartialEq>(known: &mut Vec<T>, name: T) -> usize {
    known
        .iter()
        .position(|other| *other == name)
        .unwrap_or_else(|| {
            known.push(name);
            known.len() - 1
        })
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
        let plane = XPlane {
            name: "/device:GPU:0".into(),
            lines: vec![XLine {
                name: "Stream #1".into(),
                timestamp_ns: 1_790_000_000_000_000_000,
                events: vec![
                    event(7, 2_000_000, Value::StrValue("fusion.1".into())),
                    event(8, 2_001_000, Value::RefValue(2)),
                ],
            }],
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
        let named = |event: &serde_json::Value| event["args"]["name"].as_str().map(String::from);
        let names: Vec<_> = events.iter().filter_map(named).collect();
        assert_eq!(names, ["/device:GPU:0", "Stream #1"]);
        bytes.push(0);
        assert_eq!(Trace::read(&bytes).unwrap(), trace);
        bytes.push(0);
        assert!(Trace::read(&bytes).is_err());
    }
}
