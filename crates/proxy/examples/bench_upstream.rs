//! The upstream of `bench/`: answers every request on every given address with 1 KiB, as fast as can be.
//!
//! `bench_upstream LISTEN…`; on SIGTERM it prints how many requests came to each address.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a tool for benchmarks")]

use std::cell::Cell;
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())?;
    runtime.block_on(async {
        let mut counted = Vec::new();
        for address in std::env::args().skip(1) {
            let (listener, hits) = (TcpListener::bind(&address).await?, Rc::new(Cell::new(0_u64)));
            counted.push((address, hits.clone()));
            tokio::task::spawn_local(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::task::spawn_local(serve(stream, hits.clone()));
                }
            });
        }
        signal(SignalKind::terminate())?.recv().await;
        for (address, hits) in counted {
            println!("{address} {}", hits.get());
        }
        Ok(())
    })
}

/// Requests have no body, so a head's empty line ends them.
async fn serve(mut stream: TcpStream, hits: Rc<Cell<u64>>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let answer = format!(
        "HTTP/1.1 200 OK\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\nserver: bench\r\ncontent-type: text/plain\r\n\
         content-length: 1024\r\ncache-control: no-store\r\nx-request-id: 0123456789abcdef\r\nvary: accept\r\n\r\n{}",
        "x".repeat(1024)
    );
    let (mut bytes, mut filled) = (vec![0; 16 << 10], 0);
    loop {
        let read = stream.read(&mut bytes[filled..]).await?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        if bytes[..filled].ends_with(b"\r\n\r\n") {
            let requests = bytes[..filled].windows(4).filter(|four| four == b"\r\n\r\n").count();
            hits.set(hits.get() + requests as u64);
            for _ in 0..requests {
                stream.write_all(answer.as_bytes()).await?;
            }
            filled = 0;
        }
    }
}
