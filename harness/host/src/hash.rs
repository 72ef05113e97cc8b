// SPDX-License-Identifier: MIT OR Apache-2.0

//! SHA-256: of text, of files, and as text.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::Path,
};

use anyhow::{ensure, Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::Digest;

/// A SHA-256 in lower-case hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256(#[schemars(regex(pattern = "^[0-9a-f]{64}$"))] String);

impl Sha256 {
    /// The 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// From the hash itself.
    pub fn from_bytes(bytes: [u8; 32]) -> Sha256 {
        Sha256(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Of a finished computation.
    pub fn digest(hash: sha2::Sha256) -> Sha256 {
        Self::from_bytes(hash.finalize().into())
    }

    /// Of what is in memory.
    pub fn of(content: impl AsRef<[u8]>) -> Sha256 {
        Self::from_bytes(sha2::Sha256::digest(content).into())
    }

    /// Of a file's content.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn of_file(path: &Path) -> Result<Sha256> {
        let read = || -> io::Result<sha2::Sha256> {
            let mut file = File::open(path)?;
            let mut hash = sha2::Sha256::new();
            let mut buffer = vec![0; 1 << 20];
            loop {
                match file.read(&mut buffer)? {
                    0 => return Ok(hash),
                    n => hash.update(&buffer[..n]),
                }
            }
        };
        let hash = read().with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self::digest(hash))
    }

    /// Enough of them to name a directory.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl TryFrom<String> for Sha256 {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        ensure!(
            text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')),
            "'{text}' is not a SHA-256 of 64 lower-case hexadecimal digits"
        );
        Ok(Sha256(text))
    }
}

impl std::str::FromStr for Sha256 {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        text.to_owned().try_into()
    }
}

impl From<Sha256> for String {
    fn from(hash: Sha256) -> String {
        hash.0
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_hash() {
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Sha256::of("abc").as_str(), expected);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "abc").unwrap();
        assert_eq!(Sha256::of_file(file.path()).unwrap().as_str(), expected);
    }

    #[test]
    fn a_hash_has_64_digits() {
        assert!("703E".parse::<Sha256>().is_err());
        assert!("g".repeat(64).parse::<Sha256>().is_err());
        assert!("0".repeat(64).parse::<Sha256>().is_ok());
    }
}
