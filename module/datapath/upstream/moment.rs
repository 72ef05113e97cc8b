// SPDX-License-Identifier: GPL-2.0

//! When a connection comes, and from whom.

/// What a selection may depend on beside the upstreams.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The time; it may wrap.
    pub now: u32,
    /// A second, in the unit of `now`.
    pub second: u32,
    /// How long after it failed an upstream is tried again, in the unit of `now`.
    pub retry: u32,
    /// Any number, for a selection at random.
    pub random: u32,
    /// A keyed hash of the client's address: nobody can choose an address that is taken for another.
    pub client: u32,
}

impl Moment {
    // How long after a try that was not answered another client may try: a probe by a client that
    // itself is at fault must not cost everybody a whole `retry`.
    pub(super) fn soon(&self) -> u32 {
        (self.retry / 8).max(self.second).min(self.retry)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::at;
    use super::*;

    #[test]
    fn soon_is_a_second_at_least_and_no_later_than_retry() {
        let soon = |retry, second| {
            Moment {
                retry,
                second,
                ..at(0)
            }
            .soon()
        };
        assert_eq!(soon(30_000, 1000), 3750);
        assert_eq!(soon(4000, 1000), 1000);
        assert_eq!(soon(500, 1000), 500);
        assert_eq!(soon(u32::MAX, 1000), u32::MAX / 8);
    }
}
