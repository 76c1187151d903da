//! The little of PostgreSQL's protocol that is spoken here: a refusal, and a ping.

use std::collections::HashMap;
use std::io;

use bytes::BytesMut;
use postgres_protocol::authentication::{md5_hash, sasl};
use postgres_protocol::message::backend::{ErrorFields, Message};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::stream::Stream;

/// Codes that a client may send in place of its first message, to be answered with one byte: encryption by TLS, by GSSAPI.
const ENCRYPTION: [u32; 2] = [80_877_103, 80_877_104];
/// A first message is not longer (PostgreSQL's own limit).
const STARTUP_BYTES_MAX: u32 = 10_000;
/// Answers to a ping are short.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Reads the message that a client begins with, and tells one that asks for encryption before that there is none: nothing
/// leaves this machine here.
pub(crate) async fn beginning(client: &mut TcpStream) -> io::Result<Vec<u8>> {
    for _ in 0..=ENCRYPTION.len() {
        let length = client.read_u32().await?;
        if !(8..=STARTUP_BYTES_MAX).contains(&length) {
            return Err(io::Error::other("a client began with something that is no message of PostgreSQL's"));
        }
        let code = client.read_u32().await?;
        let mut message = vec![0; length as usize];
        message[..4].copy_from_slice(&length.to_be_bytes());
        message[4..8].copy_from_slice(&code.to_be_bytes());
        client.read_exact(&mut message[8..]).await?;
        if !ENCRYPTION.contains(&code) {
            return Ok(message);
        }
        client.write_all(b"N").await?;
    }
    Err(io::Error::other("a client asks for encryption again and again"))
}

/// Asks a server to speak TLS from here on.
///
/// # Errors
/// It does not offer to: nothing is said to it then.
pub(crate) async fn ask_for_encryption(server: &mut TcpStream) -> io::Result<()> {
    let mut message = 8_u32.to_be_bytes().to_vec();
    message.extend(ENCRYPTION[0].to_be_bytes());
    server.write_all(&message).await?;
    // One byte: what follows must be read by nobody but TLS.
    match server.read_u8().await? {
        b'S' => Ok(()),
        _ => Err(io::Error::other("it does not offer encryption")),
    }
}

/// Says a client's first message to a server over TLS; what the server answers, as it is for a client without TLS.
///
/// A server over TLS offers to bind the login to it (`SCRAM-SHA-256-PLUS`). Clients take that for an attack where they have no
/// TLS themselves, rightly as far as they can see, so it is left out.
pub(crate) async fn greet(server: &mut Stream, beginning: &[u8]) -> io::Result<Vec<u8>> {
    server.write_all(beginning).await?;
    let mut answer = Vec::new();
    loop {
        let mut head = [0; 5];
        if server.read(&mut head[..1]).await? == 0 {
            // What it was asked to cancel, it does not answer.
            return Ok(answer);
        }
        server.read_exact(&mut head[1..]).await?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if !(4..=ANSWER_BYTES_MAX).contains(&length) || answer.len() > ANSWER_BYTES_MAX {
            return Err(io::Error::other("its answer is too long"));
        }
        let mut body = vec![0; length - 4];
        server.read_exact(&mut body).await?;
        answer.extend(if head[0] == b'R' { unbound(body) } else { framed(head[0], &body) });
        // Notices, and the version that is spoken, come before it.
        if !matches!(head[0], b'N' | b'v') {
            return Ok(answer);
        }
    }
}

/// How a client may log in, without ways that are bound to TLS.
fn unbound(body: Vec<u8>) -> Vec<u8> {
    const SASL: [u8; 4] = [0, 0, 0, 10];
    let Some(ways) = body.strip_prefix(&SASL) else { return framed(b'R', &body) };
    let kept = ways.split(|byte| *byte == 0).filter(|way| !way.is_empty() && !way.ends_with(b"-PLUS"));
    let ways = kept.flat_map(|way| way.iter().copied().chain([0]));
    let body: Vec<u8> = SASL.into_iter().chain(ways).chain([0]).collect();
    framed(b'R', &body)
}

fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

/// A last message to a client.
pub(crate) fn fatal(name: &str, why: &str) -> Vec<u8> {
    let message = format!("dependency \"{name}\" is not available: {why}");
    let hint = "evenkeel keeps applications from waiting for it; see evenkeel status";
    let fields = [('S', "FATAL"), ('V', "FATAL"), ('C', "57P03"), ('M', &message), ('H', hint)];
    let mut body = Vec::new();
    for (kind, text) in fields {
        body.push(kind as u8);
        body.extend(text.bytes().filter(|byte| *byte != 0));
        body.push(0);
    }
    body.push(0);
    framed(b'E', &body)
}

/// Who logs in, and where.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) database: String,
    pub(crate) password: Option<String>,
}

/// A connection that is logged in, or was refused to.
pub(crate) struct Session {
    stream: Stream,
    read: BytesMut,
    /// It answers, and does not let us in: that much is known of it.
    is_shut_out: bool,
}

/// The server answered and says that it does not work.
#[derive(Debug)]
struct Told {
    code: String,
    message: String,
}

impl Session {
    /// Logs in. A server that does not let us in answers all the same: that is no failure.
    pub(crate) async fn open(stream: Stream, login: &Login) -> io::Result<Self> {
        let mut session = Self { stream, read: BytesMut::new(), is_shut_out: false };
        let parameters = HashMap::from([
            ("user", login.user.as_str()),
            ("database", login.database.as_str()),
            ("application_name", "evenkeel"),
        ]);
        session.send(|out| frontend::startup_message(parameters, out)).await?;
        loop {
            match session.next().await? {
                Message::ReadyForQuery(_) => return Ok(session),
                Message::AuthenticationCleartextPassword => {
                    let Some(password) = &login.password else { return Ok(session.shut_out()) };
                    session.send(|out| frontend::password_message(password.as_bytes(), out)).await?;
                }
                Message::AuthenticationMd5Password(body) => {
                    let Some(password) = &login.password else { return Ok(session.shut_out()) };
                    let hash = md5_hash(login.user.as_bytes(), password.as_bytes(), body.salt());
                    session.send(|out| frontend::password_message(hash.as_bytes(), out)).await?;
                }
                Message::AuthenticationSasl(_) => {
                    let Some(password) = &login.password else { return Ok(session.shut_out()) };
                    if !session.scram(password.as_bytes()).await? {
                        return Ok(session.shut_out());
                    }
                }
                Message::ErrorResponse(body) => {
                    let told = told(body.fields());
                    return if told.is_about_us() { Ok(session.shut_out()) } else { Err(told.into()) };
                }
                _ => {}
            }
        }
    }

    /// Has it work: `SELECT 1`.
    pub(crate) async fn ping(&mut self) -> io::Result<()> {
        if self.is_shut_out {
            // Whether it still answers, the next one finds out.
            return Err(io::Error::other("not logged in"));
        }
        self.send(|out| frontend::query("SELECT 1", out)).await?;
        loop {
            match self.next().await? {
                Message::ReadyForQuery(_) => return Ok(()),
                Message::ErrorResponse(body) => return Err(told(body.fields()).into()),
                _ => {}
            }
        }
    }

    /// Whether nothing more than an answer can be had of it.
    pub(crate) fn is_shut_out(&self) -> bool {
        self.is_shut_out
    }

    fn shut_out(self) -> Self {
        Self { is_shut_out: true, ..self }
    }

    /// SCRAM-SHA-256; `false` when the server does not take the password.
    async fn scram(&mut self, password: &[u8]) -> io::Result<bool> {
        let mut scram = sasl::ScramSha256::new(password, sasl::ChannelBinding::unsupported());
        self.send(|out| frontend::sasl_initial_response(sasl::SCRAM_SHA_256, scram.message(), out)).await?;
        loop {
            match self.next().await? {
                Message::AuthenticationSaslContinue(body) => {
                    scram.update(body.data())?;
                    self.send(|out| frontend::sasl_response(scram.message(), out)).await?;
                }
                Message::AuthenticationSaslFinal(body) => return scram.finish(body.data()).map(|()| true),
                Message::ErrorResponse(body) => {
                    let told = told(body.fields());
                    return if told.is_about_us() { Ok(false) } else { Err(told.into()) };
                }
                _ => {}
            }
        }
    }

    async fn send(&mut self, write: impl FnOnce(&mut BytesMut) -> io::Result<()>) -> io::Result<()> {
        let mut out = BytesMut::new();
        write(&mut out)?;
        self.stream.write_all(&out).await
    }

    async fn next(&mut self) -> io::Result<Message> {
        loop {
            if let Some(message) = Message::parse(&mut self.read)? {
                return Ok(message);
            }
            if self.read.len() > ANSWER_BYTES_MAX {
                return Err(io::Error::other("its answer is too long"));
            }
            if self.stream.read_buf(&mut self.read).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

impl Told {
    /// Of class 28 (invalid authorization), or a database that is not there: the server works.
    fn is_about_us(&self) -> bool {
        self.code.starts_with("28") || self.code == "3D000"
    }
}

impl From<Told> for io::Error {
    fn from(told: Told) -> Self {
        Self::other(format!("it says {} ({})", told.message, told.code))
    }
}

fn told(mut fields: ErrorFields<'_>) -> Told {
    use postgres_protocol::message::backend::ErrorField;
    let mut told = Told { code: String::new(), message: String::new() };
    while let Ok(Some(field)) = postgres_fields(&mut fields) {
        let field: ErrorField<'_> = field;
        let text = String::from_utf8_lossy(field.value_bytes());
        match field.type_() {
            b'C' => told.code = text.into_owned(),
            b'M' => told.message = text.chars().filter(|c| !c.is_control()).take(200).collect(),
            _ => {}
        }
    }
    told
}

fn postgres_fields<'a>(
    fields: &mut ErrorFields<'a>,
) -> io::Result<Option<postgres_protocol::message::backend::ErrorField<'a>>> {
    fallible_iterator::FallibleIterator::next(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_to_log_in_that_are_bound_to_tls_are_left_out() {
        let offered = |ways: &[u8]| unbound([&[0, 0, 0, 10], ways].concat());
        let left = b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0";
        assert_eq!(offered(b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"), left);
        assert_eq!(offered(b"SCRAM-SHA-256\0\0"), left);
        assert_eq!(unbound(vec![0, 0, 0, 0]), b"R\0\0\0\x08\0\0\0\0");
    }

    #[test]
    fn the_last_message_is_one_that_a_client_understands() {
        let mut bytes = BytesMut::from(&fatal("database", "it is down")[..]);
        let Some(Message::ErrorResponse(body)) = Message::parse(&mut bytes).unwrap() else { panic!() };
        let told = told(body.fields());
        assert_eq!(told.code, "57P03");
        assert_eq!(told.message, "dependency \"database\" is not available: it is down");
        assert!(bytes.is_empty());
    }
}
