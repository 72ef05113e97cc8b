// SPDX-License-Identifier: MIT OR Apache-2.0

//! The lines of something that may not have ended yet.

use std::io::{self, BufRead, BufReader, Read};

/// Lines without their ends, as text as far as they are.
pub struct Lines<R> {
    reader: BufReader<R>,
    /// The begin of a line whose end was not there yet.
    begun: Vec<u8>,
}

impl<R: Read> Lines<R> {
    /// The lines of `reader`.
    pub fn of(reader: R) -> Self {
        Self {
            reader: BufReader::new(reader),
            begun: Vec::new(),
        }
    }

    /// The next line, with or without an end; none at the end of all.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn next(&mut self) -> io::Result<Option<String>> {
        Ok(self.next_whole()?.or_else(|| self.rest()))
    }

    /// The next line that has an end; none if there is none yet.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn next_whole(&mut self) -> io::Result<Option<String>> {
        self.reader.read_until(b'\n', &mut self.begun)?;
        Ok(if self.begun.ends_with(b"\n") {
            self.rest()
        } else {
            None
        })
    }

    /// What was read of a line that has no end; none if there is none.
    pub fn rest(&mut self) -> Option<String> {
        let bytes = std::mem::take(&mut self.begun);
        (!bytes.is_empty()).then(|| String::from_utf8_lossy(&bytes).trim_end().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;

    #[test]
    fn a_line_is_whole_when_its_end_is_there() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("log");
        let mut writer = File::create(&path).unwrap();
        let mut lines = Lines::of(File::open(&path).unwrap());
        assert_eq!(lines.next_whole().unwrap(), None);
        writer.write_all(b"one\r\ntw").unwrap();
        assert_eq!(lines.next_whole().unwrap().as_deref(), Some("one"));
        assert_eq!(lines.next_whole().unwrap(), None);
        writer.write_all(b"o\n\nthr").unwrap();
        assert_eq!(lines.next_whole().unwrap().as_deref(), Some("two"));
        assert_eq!(lines.next_whole().unwrap().as_deref(), Some(""));
        assert_eq!(lines.next_whole().unwrap(), None);
        assert_eq!(lines.rest().as_deref(), Some("thr"));
        assert_eq!(lines.rest(), None);
    }

    #[test]
    fn the_last_line_need_not_have_an_end() {
        let mut lines = Lines::of(&b"a\nb"[..]);
        assert_eq!(lines.next().unwrap().as_deref(), Some("a"));
        assert_eq!(lines.next().unwrap().as_deref(), Some("b"));
        assert_eq!(lines.next().unwrap(), None);
    }
}
