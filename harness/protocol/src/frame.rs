// SPDX-License-Identifier: MIT OR Apache-2.0

//! What host and guest say to each other while somebody is in the guest: frames over one stream.
//!
//! A frame is a byte that says what it is, the length of what follows as 32 bits, little-endian, and
//! so many bytes.

use std::io::{self, Read, Write};

use super::visit::Size;

/// The most bytes that a frame carries; what is longer is cut.
pub const MAX: usize = 1 << 16;

const INPUT: u8 = 1;
const INPUT_END: u8 = 2;
const SIZE: u8 = 3;
const FAREWELL: u8 = 4;
const OUTPUT: u8 = 5;
const ERROR: u8 = 6;
const ENDED: u8 = 7;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// From the host: what was typed or came in.
    Input(Vec<u8>),
    /// From the host: no more comes in.
    InputEnd,
    /// From the host: the terminal has this size now.
    Size(Size),
    /// From the host, the last one: everything has come, and is written.
    Farewell,
    /// From the guest: standard output, or what a terminal shows.
    Output(Vec<u8>),
    /// From the guest: standard error.
    Error(Vec<u8>),
    /// From the guest, the last one: the command has ended with this exit code.
    Ended(i32),
}

impl Frame {
    /// Writes the frame, and has it sent.
    ///
    /// # Errors
    /// If the stream does not take it, or it carries more than [`MAX`] bytes.
    pub fn write(&self, stream: &mut impl Write) -> io::Result<()> {
        let (kind, body) = match self {
            Self::Input(bytes) => (INPUT, bytes.clone()),
            Self::InputEnd => (INPUT_END, Vec::new()),
            Self::Size(Size { rows, columns }) => {
                (SIZE, [rows.to_le_bytes(), columns.to_le_bytes()].concat())
            }
            Self::Farewell => (FAREWELL, Vec::new()),
            Self::Output(bytes) => (OUTPUT, bytes.clone()),
            Self::Error(bytes) => (ERROR, bytes.clone()),
            Self::Ended(code) => (ENDED, code.to_le_bytes().to_vec()),
        };
        let length = u32::try_from(body.len())
            .ok()
            .filter(|_| body.len() <= MAX)
            .ok_or_else(|| io::Error::other(format!("a frame of {} bytes", body.len())))?;
        // In one piece: each write is a request of its own to a virtual device.
        let mut bytes = vec![kind];
        bytes.extend(length.to_le_bytes());
        bytes.extend(body);
        stream.write_all(&bytes)?;
        stream.flush()
    }

    /// Reads the next frame; `None` if the stream ends before one begins.
    ///
    /// # Errors
    /// If the stream breaks, ends within a frame, or has something else than frames.
    pub fn read(stream: &mut impl Read) -> io::Result<Option<Self>> {
        let mut kind = [0];
        loop {
            match stream.read(&mut kind) {
                Ok(0) => return Ok(None),
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > MAX {
            return Err(unknown(format!("a frame of {length} bytes")));
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        Self::decode(kind[0], body)
            .map(Some)
            .ok_or_else(|| unknown(format!("a frame {} of {length} bytes", kind[0])))
    }

    fn decode(kind: u8, body: Vec<u8>) -> Option<Self> {
        Some(match (kind, body.as_slice()) {
            (INPUT, _) => Self::Input(body),
            (INPUT_END, []) => Self::InputEnd,
            (SIZE, &[a, b, c, d]) => Self::Size(Size {
                rows: u16::from_le_bytes([a, b]),
                columns: u16::from_le_bytes([c, d]),
            }),
            (FAREWELL, []) => Self::Farewell,
            (OUTPUT, _) => Self::Output(body),
            (ERROR, _) => Self::Error(body),
            (ENDED, &[a, b, c, d]) => Self::Ended(i32::from_le_bytes([a, b, c, d])),
            _ => return None,
        })
    }
}

fn unknown(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frames() -> impl Strategy<Value = Vec<Frame>> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..100);
        let frame = prop_oneof![
            bytes().prop_map(Frame::Input),
            Just(Frame::InputEnd),
            (any::<u16>(), any::<u16>())
                .prop_map(|(rows, columns)| Frame::Size(Size { rows, columns })),
            Just(Frame::Farewell),
            bytes().prop_map(Frame::Output),
            bytes().prop_map(Frame::Error),
            any::<i32>().prop_map(Frame::Ended),
        ];
        prop::collection::vec(frame, 1..5)
    }

    proptest! {
        #[test]
        fn frames_are_read_as_written(frames in frames()) {
            let mut stream = Vec::new();
            for frame in &frames {
                frame.write(&mut stream).unwrap();
            }
            let mut rest = stream.as_slice();
            for frame in &frames {
                let read = Frame::read(&mut rest).unwrap();
                prop_assert_eq!(read.as_ref(), Some(frame));
            }
            prop_assert_eq!(Frame::read(&mut rest).unwrap(), None);
            // A frame that is cut short is none.
            let mut cut = &stream[..stream.len() - 1];
            let whole = frames.len() - 1;
            for _ in 0..whole {
                prop_assert!(Frame::read(&mut cut).unwrap().is_some());
            }
            prop_assert!(!cut.is_empty() || matches!(Frame::read(&mut cut), Ok(None)));
            prop_assert!(cut.is_empty() || Frame::read(&mut cut).is_err());
        }

        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut rest = bytes.as_slice();
            while let Ok(Some(frame)) = Frame::read(&mut rest) {
                frame.write(&mut Vec::new()).unwrap();
            }
        }
    }

    #[test]
    fn what_is_too_long_is_refused() {
        let frame = Frame::Output(vec![0; MAX + 1]);
        assert!(frame.write(&mut Vec::new()).is_err());
        let mut long = vec![OUTPUT];
        long.extend(u32::MAX.to_le_bytes());
        assert!(Frame::read(&mut long.as_slice()).is_err());
    }
}
