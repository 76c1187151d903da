//! A front's word about whom a connection is from: the PROXY protocol, versions 1 and 2, read by the crate `ppp`.

use std::io;
use std::net::IpAddr;

use ppp::{PartialResult, v1, v2};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::limits::ANNOUNCEMENT_BYTES_MAX;

/// How version 1 begins, and its longest line (section 2.1 of its specification).
const TEXT_START: &[u8] = b"PROXY ";
const TEXT_BYTES_MAX: usize = 107;

/// What a front has said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Announced {
    /// It speaks for this client.
    Client(IpAddr),
    /// It speaks for itself, as for a check of its own, or does not know.
    Itself,
}

/// What a beginning of a connection holds.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// The header, in so many bytes.
    Whole(Announced, usize),
    /// All of it belongs to the header, and more is to come.
    Part,
    Nothing,
}

/// Reads the header, and not a byte of what follows.
///
/// # Errors
/// There is none, or the connection ended.
pub(crate) async fn read(tcp: &mut TcpStream) -> io::Result<Announced> {
    let mut come: Vec<u8> = Vec::new();
    let mut seen = vec![0; 256];
    loop {
        let before = come.len();
        let more = tcp.peek(&mut seen).await?;
        if more == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        come.extend_from_slice(&seen[..more]);
        let (announced, whole) = match parse(&come) {
            Found::Whole(announced, length) => (Some(announced), length),
            Found::Part if come.len() <= ANNOUNCEMENT_BYTES_MAX => (None, come.len()),
            Found::Part | Found::Nothing => return Err(io::Error::other("no header of the PROXY protocol")),
        };
        // What was looked at and belongs to the header is taken from the socket.
        tcp.read_exact(&mut seen[..whole - before]).await?;
        if let Some(announced) = announced {
            return Ok(announced);
        }
    }
}

fn parse(bytes: &[u8]) -> Found {
    let start = bytes.len().min(TEXT_START.len());
    if bytes[..start] == TEXT_START[..start] {
        let longest = bytes.len().min(TEXT_BYTES_MAX);
        return match memchr::memchr(b'\n', &bytes[..longest]) {
            Some(end) => text(&bytes[..=end]),
            None if bytes.len() < TEXT_BYTES_MAX => Found::Part,
            None => Found::Nothing,
        };
    }
    match v2::Header::try_from(bytes) {
        Ok(header) => {
            let announced = match (header.command, header.addresses) {
                (v2::Command::Proxy, v2::Addresses::IPv4(ip)) => Announced::Client(ip.source_address.into()),
                (v2::Command::Proxy, v2::Addresses::IPv6(ip)) => Announced::Client(ip.source_address.into()),
                _ => Announced::Itself,
            };
            Found::Whole(announced, header.len())
        }
        Err(error) if error.is_incomplete() => Found::Part,
        Err(_) => Found::Nothing,
    }
}

/// Looks without a connection.
#[cfg(fuzzing)]
pub(crate) fn look(bytes: &[u8]) {
    if let Found::Whole(_, length) = parse(bytes) {
        assert!(length <= bytes.len());
    }
}

/// Reads a whole line: of a part, `ppp` does not always know that it is one.
fn text(line: &[u8]) -> Found {
    match v1::Header::try_from(line) {
        Ok(header) => {
            let announced = match header.addresses {
                v1::Addresses::Tcp4(ip) => Announced::Client(ip.source_address.into()),
                v1::Addresses::Tcp6(ip) => Announced::Client(ip.source_address.into()),
                v1::Addresses::Unknown => Announced::Itself,
            };
            Found::Whole(announced, line.len())
        }
        Err(_) => Found::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

    fn second(command_and_family: [u8; 2], content: &[u8]) -> Vec<u8> {
        let length = (content.len() as u16).to_be_bytes();
        [SIGNATURE, &command_and_family, &length, content].concat()
    }

    fn whole() -> Vec<(Vec<u8>, Announced)> {
        let four = |a| Announced::Client(IpAddr::from([192, 0, 2, a]));
        let addresses = [192, 0, 2, 9, 10, 0, 0, 1, 0x1f, 0x90, 1, 187];
        let with_more = [&addresses[..], &[0x04, 0, 2, 1, 1]].concat();
        let six = [&[0x20; 16][..], &[0; 16], &[0, 1, 0, 2]].concat();
        vec![
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n".to_vec(), four(7)),
            (b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n".to_vec(), Announced::Client("2001:db8::1".parse().unwrap())),
            (b"PROXY UNKNOWN\r\n".to_vec(), Announced::Itself),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), Announced::Itself),
            (second([0x21, 0x11], &addresses), four(9)),
            (second([0x21, 0x11], &with_more), four(9)),
            (second([0x21, 0x21], &six), Announced::Client(IpAddr::from([0x20; 16]))),
            (second([0x20, 0x00], &[]), Announced::Itself),
        ]
    }

    #[test]
    fn a_header_is_found_behind_whatever_part_of_it_has_come_and_takes_nothing_of_what_follows() {
        for (header, announced) in whole() {
            for end in 1..header.len() {
                assert_eq!(parse(&header[..end]), Found::Part, "{:?}", header[..end].escape_ascii().to_string());
            }
            let length = header.len();
            for rest in [&b""[..], b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"\x16\x03\x01\0\n"] {
                let come = [&header[..], rest].concat();
                assert_eq!(parse(&come), Found::Whole(announced, length), "{:?}", come.escape_ascii().to_string());
            }
        }
    }

    #[test]
    fn what_is_no_header_is_known_at_once() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"\x16\x03\x01\x02\0",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 4711\r\n",
            b"PROXY TCP4 192.0.2.700 10.0.0.1 1 2\r\n",
            b"PROXY TCP4 ::1 ::1 1 2\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 65536 2\r\n",
            b"PROXY \r\n",
            b"PROXY TCP4\n",
            &second([0x11, 0x11], &[0; 12]),
            &second([0x21, 0x11], &[0; 4]),
        ] {
            assert_eq!(parse(bytes), Found::Nothing, "{:?}", bytes.escape_ascii().to_string());
        }
        assert_eq!(parse(&[b"PROXY TCP6 ".to_vec(), vec![b'a'; 200]].concat()), Found::Nothing, "too long a line");
    }

    proptest! {
        #[test]
        fn any_bytes_are_looked_at_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            parse(&bytes);
            parse(&[SIGNATURE, &bytes[..]].concat());
            parse(&[&b"PROXY "[..], &bytes[..]].concat());
        }
    }
}
