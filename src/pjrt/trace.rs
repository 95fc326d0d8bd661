//! What a plugin's profiler has recorded.

use crate::proto::xplane::{XSpace, x_stat::Value};
use prost::Message;

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
    /// Seconds from some beginning.
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
        let mut spans = Vec::new();
        for plane in XSpace::decode(bytes)?.planes {
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
                    spans.push(Span {
                        plane: plane.name.clone(),
                        line: line.name.clone(),
                        name: name.map(|found| found.name.clone()).unwrap_or_default(),
                        instruction,
                        start: line.timestamp_ns as f64 * 1e-9 + event.offset_ps as f64 * 1e-12,
                        seconds: event.duration_ps as f64 * 1e-12,
                    });
                }
            }
        }
        Ok(Trace { spans })
    }

    /// Spans of devices other than the host, if any were recorded.
    pub fn devices(&self) -> impl Iterator<Item = &Span> {
        self.spans
            .iter()
            .filter(|span| span.plane.starts_with("/device:"))
    }
}
