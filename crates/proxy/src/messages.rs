//! Where does one message of a WebSocket end? (RFC 6455, section 5.2)
//!
//! Only follows along: a word of our own may stand between two frames and nowhere else.

/// Longest head of a frame: two bytes, a length of eight, a mask of four.
const HEAD_BYTES_MAX: usize = 14;
/// The opcode of a close frame.
const CLOSE: u8 = 8;
/// Says that the server goes away (RFC 6455, section 7.4.1).
const GOING_AWAY: [u8; 2] = 1001_u16.to_be_bytes();

/// One direction of a WebSocket, part of which has passed.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    head: [u8; HEAD_BYTES_MAX],
    /// Bytes of the current head that have come.
    come: u8,
    /// Bytes of the current frame's content to come.
    left: u64,
    state: State,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// A close frame has passed: nothing may follow.
    Closed,
    /// It is no WebSocket, or not one of this grammar.
    Lost,
}

impl Messages {
    /// Follows the direction through `bytes`.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) {
        while let (State::Open | State::Closed, [first, rest @ ..]) = (self.state, bytes) {
            if self.left > 0 {
                let now = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
                self.left -= now as u64;
                bytes = &bytes[now..];
                continue;
            }
            self.head[usize::from(self.come)] = *first;
            self.come += 1;
            bytes = rest;
            if usize::from(self.come) == self.head_bytes() {
                self.end_head();
            }
        }
    }

    /// Tells whether a close frame may be put in here.
    pub(crate) fn may_close(&self) -> bool {
        self.state == State::Open && self.come == 0 && self.left == 0
    }

    /// Tells whether it can still come to a place where that is so.
    pub(crate) fn can_end(&self) -> bool {
        self.state == State::Open
    }

    fn head_bytes(&self) -> usize {
        if self.come < 2 {
            return 2;
        }
        let length = match self.head[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        2 + length + if self.head[1] & 0x80 == 0 { 0 } else { 4 }
    }

    fn end_head(&mut self) {
        let long = |bytes: &[u8]| bytes.iter().fold(0, |sum: u64, byte| sum << 8 | u64::from(*byte));
        self.left = match self.head[1] & 0x7f {
            126 => long(&self.head[2..4]),
            127 => long(&self.head[2..10]),
            short => u64::from(short),
        };
        self.come = 0;
        if self.left >> 63 == 1 {
            self.state = State::Lost;
        } else if self.head[0] & 0x0f == CLOSE {
            self.state = State::Closed;
        }
    }
}

/// A close frame as a server sends it.
pub(crate) fn close_to_client() -> [u8; 4] {
    let [high, low] = GOING_AWAY;
    [0x80 | CLOSE, 2, high, low]
}

/// A close frame as a client sends it, under a mask.
pub(crate) fn close_to_server(mask: [u8; 4]) -> [u8; 8] {
    let ([high, low], [a, b, c, d]) = (GOING_AWAY, mask);
    [0x80 | CLOSE, 0x80 | 2, a, b, c, d, high ^ a, low ^ b]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(opcode: u8, length: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut frame = vec![0x80 | opcode];
        match length {
            0..126 => frame.push(mask | length as u8),
            126..65_536 => {
                frame.push(mask | 126);
                frame.extend((length as u16).to_be_bytes());
            }
            _ => {
                frame.push(mask | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        if masked {
            frame.extend([1, 2, 3, 4]);
        }
        frame.extend(vec![0x88; length]);
        frame
    }

    #[test]
    fn a_close_frame_is_followed_by_nothing_and_has_its_form() {
        let mut messages = Messages::default();
        messages.feed(&close_to_client());
        assert!(!messages.may_close() && !messages.can_end());
        let mut messages = Messages::default();
        messages.feed(&close_to_server([1, 2, 3, 4]));
        assert!(!messages.may_close());
        assert_eq!(close_to_client(), [0x88, 2, 3, 0xe9]);
        assert_eq!(close_to_server([0, 0, 0, 0]), [0x88, 0x82, 0, 0, 0, 0, 3, 0xe9]);
    }

    #[test]
    fn a_length_that_cannot_be_is_not_followed() {
        let mut messages = Messages::default();
        messages.feed(&[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert!(!messages.may_close() && !messages.can_end());
    }

    proptest! {
        #[test]
        fn only_between_frames_may_one_be_put_however_the_bytes_are_cut(
            frames in prop::collection::vec((0_u8..8, prop_oneof![0..10_usize, 120..130_usize, 65_530..65_540_usize], any::<bool>()), 1..5),
            cut in 1..70_000_usize,
        ) {
            let whole: Vec<Vec<u8>> = frames.iter().map(|(opcode, length, masked)| frame(*opcode, *length, *masked)).collect();
            let mut ends = vec![0];
            for frame in &whole {
                ends.push(ends[ends.len() - 1] + frame.len());
            }
            let (mut messages, mut fed) = (Messages::default(), 0);
            for part in whole.concat().chunks(cut) {
                messages.feed(part);
                fed += part.len();
                prop_assert_eq!(messages.may_close(), ends.contains(&fed), "after {} of {:?}", fed, &ends);
            }
        }

        #[test]
        fn any_bytes_are_followed_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut messages = Messages::default();
            messages.feed(&bytes);
        }
    }
}
