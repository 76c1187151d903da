//! Blocking framing, and file descriptors passed along.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::{Serialize, de::DeserializeOwned};

/// No message is longer: a table of some thousand services fits, a lying length does not take the memory away.
pub const FRAME_BYTES_MAX: u32 = 64 << 20;
/// Descriptors per `sendmsg`; Linux allows 253.
const DESCRIPTORS_PER_MESSAGE: usize = 64;

/// Writes one message.
///
/// # Errors
/// The socket's; `InvalidInput` when the message is longer than [`FRAME_BYTES_MAX`].
pub fn write(stream: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    stream.write_all(&encode(message)?)
}

/// Reads one message; `None` when the peer has closed between messages.
///
/// # Errors
/// The socket's; `InvalidData` when the length is above [`FRAME_BYTES_MAX`] or the message is not understood.
pub fn read<T: DeserializeOwned>(stream: &mut impl Read) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length) {
        Err(end) if end.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let mut body = vec![0; checked(u32::from_be_bytes(length))?];
    stream.read_exact(&mut body)?;
    decode(&body).map(Some)
}

/// A message with its length in front.
pub(crate) fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = u32::try_from(frame.len() - 4).ok().filter(|n| *n <= FRAME_BYTES_MAX);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "message too long"))?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(frame)
}

pub(crate) fn decode<T: DeserializeOwned>(body: &[u8]) -> io::Result<T> {
    serde_json::from_slice(body).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

pub(crate) fn checked(length: u32) -> io::Result<usize> {
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {length} bytes is too long")));
    }
    Ok(length as usize)
}

/// Sends descriptors, each message of them behind one byte.
///
/// # Errors
/// The socket's.
pub fn send_descriptors(stream: &UnixStream, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    for chunk in descriptors.chunks(DESCRIPTORS_PER_MESSAGE) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_PER_MESSAGE))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(chunk));
        rustix::net::sendmsg(stream, &[IoSlice::new(b"f")], &mut ancillary, SendFlags::NOSIGNAL)?;
    }
    Ok(())
}

/// Receives exactly `count` descriptors; they are closed on exec.
///
/// # Errors
/// The socket's; `UnexpectedEof` when the peer closed before all had come.
pub fn receive_descriptors(stream: &UnixStream, count: usize) -> io::Result<Vec<OwnedFd>> {
    let mut received = Vec::with_capacity(count);
    while received.len() < count {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_PER_MESSAGE))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let message =
            rustix::net::recvmsg(stream, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        if message.bytes == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "peer closed before all sockets had come"));
        }
        for part in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = part {
                received.extend(descriptors);
            }
        }
    }
    Ok(received)
}

/// A path to a socket that fits the kernel's 108 bytes however deep `directory` lies.
///
/// A long path goes through `/proc/self/fd`; the returned handle must live until bind or connect has happened.
///
/// # Errors
/// When the directory cannot be opened.
pub fn short_path(directory: &Path, name: &str) -> io::Result<(PathBuf, Option<std::fs::File>)> {
    use std::os::fd::AsRawFd;
    let plain = directory.join(name);
    if plain.as_os_str().len() < 100 {
        return Ok((plain, None));
    }
    let handle = std::fs::File::open(directory)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", handle.as_raw_fd()));
    Ok((path, Some(handle)))
}

/// Connects to the socket `name` in `directory`.
///
/// # Errors
/// The socket's: nobody listens, or the directory cannot be opened.
pub fn connect(directory: &Path, name: &str) -> io::Result<UnixStream> {
    let (path, _handle) = short_path(directory, name)?;
    UnixStream::connect(path)
}

/// Listens on the socket `name` in `directory` with mode 0600, taking the place of an earlier one in one step.
///
/// # Errors
/// The file system's or the socket's.
pub fn listen(directory: &Path, name: &str) -> io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    // Bound under a name of our own, made private, then renamed: nobody can connect before the mode is set, and a
    // successor takes over without a moment in which nobody listens.
    let fresh = format!("{name}.{}", std::process::id());
    let (path, _handle) = short_path(directory, &fresh)?;
    let _ = std::fs::remove_file(directory.join(&fresh));
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(directory.join(&fresh), std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(directory.join(&fresh), directory.join(name))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn descriptors_arrive_behind_their_message_and_lead_to_the_same_file() {
        let (mut here, mut there) = UnixStream::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        write(&mut here, &"take this").unwrap();
        send_descriptors(&here, &[file.as_fd(); 70]).unwrap();
        assert_eq!(read::<String>(&mut there).unwrap().as_deref(), Some("take this"));
        let received = receive_descriptors(&there, 70).unwrap();
        assert_eq!(received.len(), 70);
        std::fs::File::from(received.into_iter().next_back().unwrap()).write_all(b"hello").unwrap();
        io::Seek::rewind(&mut file).unwrap();
        assert_eq!(io::read_to_string(file).unwrap(), "hello");
    }

    #[test]
    fn a_lying_length_is_refused_before_memory_is_taken() {
        let mut lie: &[u8] = &[0xff, 0xff, 0xff, 0xff, b'{'];
        assert_eq!(read::<String>(&mut lie).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_socket_in_a_deep_directory_can_be_reached() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let listener = listen(&deep, "x.sock").unwrap();
        let mut client = connect(&deep, "x.sock").unwrap();
        write(&mut client, &7).unwrap();
        assert_eq!(read::<u32>(&mut listener.accept().unwrap().0).unwrap(), Some(7));
    }
}
