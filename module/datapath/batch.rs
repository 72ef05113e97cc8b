// SPDX-License-Identifier: GPL-2.0

//! When packets are queued for each other, and when a queue is flushed.
//!
//! Packets that the same softirq round (NET_RX_SOFTIRQ, its NAPI polls) brings come at once: the second of
//! a round is the first to wait, and those after it wait with it until they are as many as may, or
//! the first has waited long enough, or the round is over. A packet that comes alone never waits.

/// How many packets may wait, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Packets of a batch. Below two none waits.
    pub size: u32,
    /// What may pass, in ticks of the clock that [`Gate::enqueue`] is given, until they are
    /// flushed with the next packet.
    pub time: u64,
}

/// Why a queue is flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushReason {
    /// They are as many as may wait.
    Full,
    /// The first has waited as long as it may.
    Late,
    /// The softirq round is over.
    Round,
    /// A packet came that cannot wait, and must not overtake them.
    Order,
}

impl FlushReason {
    /// How many there are.
    pub const COUNT: usize = Self::Order as usize + 1;
}

/// What the arrival of a packet that waits leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is the first: something has to see to it that the end of the softirq round is noticed.
    Begin,
    /// It waits with others.
    Wait,
    /// All are flushed, it as the last.
    Flush(FlushReason),
}

/// After batches of one only, how many packets do not wait: at most `2^MOST_PAUSE`.
const MOST_PAUSE: u32 = 10;

/// Decides for the packets of one queue.
#[derive(Debug, Default)]
pub struct Gate {
    queued: u32,
    // When the first of them came.
    first: u64,
    // In which softirq round the last packet came, whether it waited or not.
    round: Option<u32>,
    // How many batches in a row were of one packet.
    alone: u32,
    // How many packets that could wait do not, since waiting was in vain.
    pause: u32,
}

impl Gate {
    /// How many packets wait.
    pub fn queued(&self) -> u32 {
        self.queued
    }

    /// Whether a packet of `round`, a number that is another in each softirq round, should wait, if it can.
    #[inline]
    pub fn wants_to_queue(&mut self, round: u32, size: u32) -> bool {
        let comes_alone = self.round.replace(round) != Some(round);
        if self.queued != 0 {
            return true;
        }
        if comes_alone || size < 2 {
            return false;
        }
        let pauses = self.pause != 0;
        self.pause = self.pause.saturating_sub(1);
        !pauses
    }

    /// Takes in the packet for which [`Self::wants_to_queue`] just said yes.
    #[inline]
    pub fn enqueue(&mut self, clock: u64, limits: Limits) -> Step {
        self.queued = self.queued.saturating_add(1);
        if self.queued == 1 {
            self.first = clock;
            return Step::Begin;
        }
        if self.queued >= limits.size {
            Step::Flush(FlushReason::Full)
        } else if clock.wrapping_sub(self.first) > limits.time {
            Step::Flush(FlushReason::Late)
        } else {
            Step::Wait
        }
    }

    /// Takes note of that the queue was flushed; returns how many packets were in it.
    pub fn flushed(&mut self) -> u32 {
        let count = core::mem::take(&mut self.queued);
        if count == 1 {
            self.alone = self.alone.saturating_add(1).min(MOST_PAUSE);
            self.pause = 1 << self.alone;
        } else if count != 0 {
            self.alone = 0;
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits {
        size: 4,
        time: 1000,
    };

    /// What becomes of a packet; `None` if it does not wait.
    fn arrive(gate: &mut Gate, clock: u64, round: u32, limits: Limits) -> Option<Step> {
        let step = gate
            .wants_to_queue(round, limits.size)
            .then(|| gate.enqueue(clock, limits))?;
        if let Step::Flush(_) = step {
            gate.flushed();
        }
        Some(step)
    }

    #[test]
    fn a_packet_alone_in_its_round_never_waits() {
        let mut gate = Gate::default();
        for round in 0..100 {
            assert_eq!(arrive(&mut gate, 0, round, LIMITS), None);
        }
    }

    #[test]
    fn a_burst_waits_from_its_second_packet_on() {
        let mut gate = Gate::default();
        let steps: Vec<_> = (0..10).map(|n| arrive(&mut gate, n, 7, LIMITS)).collect();
        let batch = [
            Some(Step::Begin),
            Some(Step::Wait),
            Some(Step::Wait),
            Some(Step::Flush(FlushReason::Full)),
        ];
        assert_eq!(steps[0], None);
        assert_eq!(steps[1..5], batch);
        assert_eq!(steps[5..9], batch);
        assert_eq!(steps[9], Some(Step::Begin));
        assert_eq!(gate.flushed(), 1);
        assert_eq!(gate.flushed(), 0);
    }

    #[test]
    fn who_waited_long_enough_goes_on() {
        let mut gate = Gate::default();
        let limits = Limits { size: 64, ..LIMITS };
        assert_eq!(arrive(&mut gate, 0, 0, limits), None);
        assert_eq!(arrive(&mut gate, 500, 0, limits), Some(Step::Begin));
        // A new round changes nothing while packets wait: they came first.
        assert_eq!(arrive(&mut gate, 1500, 1, limits), Some(Step::Wait));
        let late = Some(Step::Flush(FlushReason::Late));
        assert_eq!(arrive(&mut gate, 1501, 1, limits), late);
    }

    #[test]
    fn batches_of_one_become_rare() {
        let mut gate = Gate::default();
        let mut waited = 0;
        for round in 0..10_000 {
            // Two packets a round: the second would wait for nobody.
            for clock in [0, 1] {
                waited += u32::from(arrive(&mut gate, clock, round, LIMITS).is_some());
            }
            gate.flushed();
        }
        assert!((10..25).contains(&waited), "{waited} waited");
        // And when there are more, all wait again, sooner or later.
        let mut begun = 0;
        for clock in 0..2000 {
            let step = arrive(&mut gate, clock, 1_000_000, LIMITS);
            begun += u32::from(step == Some(Step::Begin));
        }
        assert!(begun > 200, "{begun} batches");
    }

    proptest! {
        /// No more wait than may, none waits longer than it may once another comes, and what
        /// waits is what came and has not gone on.
        #[test]
        fn limits_hold(
            size in 1..=64_u32,
            time in 0..500_u64,
            packets in prop::collection::vec((0..200_u64, 0..8_u8, 0..10_u8), 0..300),
        ) {
            let limits = Limits { size, time };
            let mut gate = Gate::default();
            let (mut clock, mut round) = (0, 0);
            let mut queue: Vec<u64> = Vec::new();
            for (gap, new_round, ends) in packets {
                clock += gap;
                round += u32::from(new_round == 0);
                if gate.wants_to_queue(round, size) {
                    queue.push(clock);
                    match gate.enqueue(clock, limits) {
                        Step::Begin => prop_assert_eq!(queue.len(), 1),
                        Step::Wait => {
                            prop_assert!(queue.len() > 1 && queue.len() < size as usize);
                            prop_assert!(clock - queue[0] <= time);
                        }
                        Step::Flush(reason) => {
                            prop_assert_eq!(reason == FlushReason::Full, queue.len() == size as usize);
                            prop_assert_eq!(gate.flushed() as usize, queue.len());
                            queue.clear();
                        }
                    }
                } else {
                    prop_assert!(queue.is_empty(), "who does not wait overtakes nobody");
                }
                prop_assert_eq!(gate.queued() as usize, queue.len());
                prop_assert!(size > 1 || queue.is_empty());
                if ends == 0 {
                    prop_assert_eq!(gate.flushed() as usize, queue.len());
                    queue.clear();
                }
            }
        }
    }
}
