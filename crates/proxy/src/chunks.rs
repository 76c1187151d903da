//! Where does a chunked body end?
//!
//! Only follows along beside hyper, which decodes; sizes are read by httparse.

/// A size line or trailer longer than this is not followed.
const LINE_BYTES_MAX: usize = 16 << 10;

/// A chunked body, part of which has come.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    at: At,
    /// The part of the current line that has come.
    line: Vec<u8>,
}

#[derive(Debug, Default)]
enum At {
    #[default]
    Size,
    /// This many bytes of data and line end to come.
    Data(u64),
    Trailers,
}

/// The body breaks the grammar.
#[derive(Debug)]
pub(crate) struct Malformed;

impl Chunks {
    /// Follows the body through `bytes`; returns the index behind its end once that has come.
    ///
    /// # Errors
    /// [`Malformed`] when the place in the body is no longer known.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        let mut at = 0;
        while at < bytes.len() {
            if let At::Data(left) = &mut self.at {
                let now = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len() - at);
                *left -= now as u64;
                at += now;
                if *left == 0 {
                    self.at = At::Size;
                }
                continue;
            }
            let Some(end) = memchr::memchr(b'\n', &bytes[at..]) else {
                return self.keep(&bytes[at..]).map(|()| None);
            };
            self.keep(&bytes[at..=at + end])?;
            at += end + 1;
            if self.end_line()? {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    fn keep(&mut self, part: &[u8]) -> Result<(), Malformed> {
        if self.line.len() + part.len() > LINE_BYTES_MAX {
            return Err(Malformed);
        }
        self.line.extend_from_slice(part);
        Ok(())
    }

    /// Takes a whole line; true at the end of the body.
    fn end_line(&mut self) -> Result<bool, Malformed> {
        let line = std::mem::take(&mut self.line);
        if matches!(self.at, At::Trailers) {
            return Ok(line == b"\r\n" || line == b"\n");
        }
        self.at = match httparse::parse_chunk_size(&line) {
            Ok(httparse::Status::Complete((_, 0))) => At::Trailers,
            Ok(httparse::Status::Complete((_, size))) => At::Data(size.checked_add(2).ok_or(Malformed)?),
            _ => return Err(Malformed),
        };
        Ok(false)
    }
}
