//! A transport of a node in memory that keeps what is written to it, and takes no more than it is told to.

#![allow(dead_code, reason = "each test or target that includes it uses a part")]

use std::io::{self, IoSlice};

use umbel::internals::net::byte_stream::ByteStream;

/// The peer's side of a connection.
pub struct Recorder {
    /// Bytes to be read; those that were read are gone from it.
    pub input: Vec<u8>,
    /// The peer's side ends behind `input`.
    pub is_ended: bool,
    /// Bytes that were written, and not taken out by the test yet.
    pub written: Vec<u8>,
    /// Bytes that it still takes.
    pub room: usize,
    /// What the next read fails by.
    pub error: Option<io::Error>,
}

impl Recorder {
    /// One that has `input` to be read, and takes everything.
    pub fn new(input: Vec<u8>) -> Recorder {
        Recorder {
            input,
            is_ended: false,
            written: Vec::new(),
            room: usize::MAX,
            error: None,
        }
    }
}

impl ByteStream for Recorder {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        if self.input.is_empty() && !self.is_ended {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = self.input.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.input[..count]);
        self.input.drain(..count);
        Ok(count)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = bytes.len().min(self.room);
        self.room -= count;
        self.written.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut written = 0;
        for piece in pieces {
            match self.write(piece) {
                Ok(count) => written += count,
                Err(error) if written == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(written)
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        Ok(())
    }
}
