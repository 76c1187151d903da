//! Event streams (`text/event-stream`) as they pass: did an event say that the answer failed?
//!
//! A service that has sent its head can only say so in the stream: `event: error`, or a JSON object with an `error` that is
//! not null, as OpenAI's interface and its likes have it.

use serde::Deserialize;
use serde::de::IgnoredAny;

/// Of one event, what is looked at; the rest passes unseen.
const EVENT_BYTES_MAX: usize = 64 << 10;

/// What was seen of a stream so far.
#[derive(Debug, Default)]
pub(crate) struct Events {
    line: Vec<u8>,
    name_is_error: bool,
    data: Vec<u8>,
    has_fields: bool,
    after_return: bool,
    /// Events that were complete; comments are none.
    pub(crate) seen: u64,
    /// Whether one of them told of an error.
    pub(crate) has_error: bool,
}

#[derive(Deserialize)]
struct Message {
    error: Option<IgnoredAny>,
}

impl Events {
    /// Takes what has come.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' if self.after_return => {}
                b'\n' | b'\r' => self.end_line(),
                _ if self.line.len() < EVENT_BYTES_MAX => self.line.push(*byte),
                _ => {}
            }
            self.after_return = *byte == b'\r';
        }
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        match &line[..] {
            [] => self.end_event(),
            // A comment, which keeps the connection alive.
            [b':', ..] => {}
            _ => self.field(&line),
        }
        self.line = line;
        self.line.clear();
    }

    fn field(&mut self, line: &[u8]) {
        self.has_fields = true;
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match &line[..colon] {
            b"event" => self.name_is_error = value == b"error",
            b"data" if self.data.len() + value.len() < EVENT_BYTES_MAX => {
                if !self.data.is_empty() {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(value);
            }
            _ => {}
        }
    }

    fn end_event(&mut self) {
        if self.has_fields {
            self.seen += 1;
            self.has_error |= self.name_is_error || tells_of_an_error(&self.data);
        }
        (self.has_fields, self.name_is_error) = (false, false);
        self.data.clear();
    }
}

fn tells_of_an_error(data: &[u8]) -> bool {
    data.first() == Some(&b'{') && serde_json::from_slice(data).is_ok_and(|message: Message| message.error.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Events, and whether one was an error; taken byte by byte, and as one.
    fn of(text: &str) -> (u64, bool) {
        let [mut whole, mut parts] = [Events::default(), Events::default()];
        whole.take(text.as_bytes());
        text.as_bytes().chunks(1).for_each(|part| parts.take(part));
        assert_eq!((whole.seen, whole.has_error), (parts.seen, parts.has_error));
        (whole.seen, whole.has_error)
    }

    #[test]
    fn events_are_counted_and_comments_are_not() {
        assert_eq!(of(": OPENROUTER PROCESSING\n\n: again\r\n\r\n"), (0, false));
        assert_eq!(of("data: {\"choices\":[]}\n\ndata: [DONE]\n\n"), (2, false));
        assert_eq!(of("data: one\r\n\r\ndata: two\r\n\r\ndata: unfinished"), (2, false));
    }

    #[test]
    fn an_error_is_seen_by_its_name_or_in_its_data() {
        assert_eq!(of("event: error\ndata: overloaded\n\n"), (1, true));
        assert_eq!(of("data: {\"id\":1,\ndata: \"error\":{\"code\":502,\"message\":\"down\"}}\n\n"), (1, true));
        for fine in
            ["{\"error\":null}", "{\"text\":\"error\"}", "\"error\"", "{\"a\":{\"error\":1}}", "{broken \"error\""]
        {
            assert_eq!(of(&format!("data: {fine}\n\n")), (1, false), "{fine}");
        }
        assert_eq!(of("event: error\n\nevent: ok\ndata: 1\n\n"), (2, true));
    }

    #[test]
    fn a_line_without_end_takes_no_more_room_than_it_may() {
        let mut events = Events::default();
        for _ in 0..100 {
            events.take(&[b'x'; 10_000]);
        }
        assert!(events.line.len() <= EVENT_BYTES_MAX);
    }
}
