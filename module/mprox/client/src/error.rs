// SPDX-License-Identifier: MIT OR Apache-2.0

//! What can go wrong.

use std::fmt;
use std::io;

/// A group, a set or a rule of a configuration, by its place there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// A group.
    Group(usize),
    /// A set.
    Set(usize),
    /// A rule.
    Rule(usize),
}

/// What the kernel says of a request that it did not do.
#[derive(Debug)]
pub struct Refused {
    /// Why, as a number of errno.
    pub errno: i32,
    /// Why, in a sentence, if it said one.
    pub message: Option<String>,
    /// Bytes from the request's first attribute to the one that is wrong, if it named one.
    pub offset: Option<usize>,
    /// What of a configuration that is in.
    pub item: Option<Item>,
}

/// Why something was not done.
#[derive(Debug)]
pub enum Error {
    /// The kernel has no family of this name: the module is not loaded.
    NoModule,
    /// The kernel refused it.
    Refused(Refused),
    /// The socket failed.
    Io(io::Error),
    /// What the kernel said makes no sense here: it is of another version.
    Protocol(&'static str),
}

impl Error {
    /// The number of errno that the kernel gave, if it did.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused(refused) => Some(refused.errno),
            Self::Io(error) => error.raw_os_error(),
            Self::NoModule | Self::Protocol(_) => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoModule => f.write_str(
                "the kernel has no Generic Netlink family mutex-proxy: mutex_proxy.ko is not loaded",
            ),
            Self::Refused(refused) => {
                match refused.item {
                    Some(Item::Group(place)) => write!(f, "group {place}: ")?,
                    Some(Item::Set(place)) => write!(f, "set {place}: ")?,
                    Some(Item::Rule(place)) => write!(f, "rule {place}: ")?,
                    None => {}
                }
                let errno = io::Error::from_raw_os_error(refused.errno);
                match &refused.message {
                    Some(message) => write!(f, "{message} ({errno})"),
                    None => write!(f, "{errno}"),
                }
            }
            Self::Io(error) => write!(f, "the netlink socket failed: {error}"),
            Self::Protocol(what) => write!(f, "the kernel's answer makes no sense here: {what}"),
        }
    }
}

// What it is due to is in its own text, and so is no source, which would be told once more behind it.
impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_told_once() {
        let error: &dyn std::error::Error = &Error::Io(io::Error::from_raw_os_error(105));
        assert_eq!(
            error.to_string(),
            "the netlink socket failed: No buffer space available (os error 105)"
        );
        assert!(error.source().is_none());
    }
}
