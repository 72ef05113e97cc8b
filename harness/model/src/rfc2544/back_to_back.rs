// SPDX-License-Identifier: MIT OR Apache-2.0

//! The longest burst of frames that gets through without a loss, and what it says of buffers: the
//! back-to-back frame benchmark of RFC 2544, section 26.4, as RFC 9004 updates it. Nothing here sends
//! anything.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rfc2544::throughput::{Goal, Search, Step, Trial};

/// How often a burst is sent again that was not sent at its rate, before that counts.
const LATE_AT_MOST: u32 = 5;

/// What is looked for, and how.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BackToBack {
    /// Frames a second within a burst: the Max Theoretical Frame Rate of RFC 9004, which these links do
    /// not have by themselves.
    #[schemars(range(min = 1))]
    pub rate: u32,
    /// The longest burst that is tried, in frames.
    #[schemars(range(min = 1))]
    pub longest: u32,
    /// How near the result is to the longest burst, in frames (section 6.2: the minimum step size).
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    pub step: u32,
    /// How many searches there are, each independent of the others (section 6.3: N).
    #[serde(default = "fifty")]
    #[schemars(range(min = 1))]
    pub tests: u32,
    /// How long nothing is sent before each burst, in milliseconds of the guest's time, so that buffers
    /// are empty (section 6.2: at least 2,000).
    #[serde(default = "two_seconds")]
    pub pause_ms: u32,
    /// How long a trial of the rate without loss takes, in milliseconds of the guest's time.
    #[serde(default = "a_second")]
    #[schemars(range(min = 1))]
    pub trial_ms: u32,
}

const fn one() -> u32 {
    1
}

/// RFC 2544, section 26.4.
const fn fifty() -> u32 {
    50
}

const fn two_seconds() -> u32 {
    2_000
}

const fn a_second() -> u32 {
    1_000
}

impl BackToBack {
    /// The search of the rate without loss that the correction needs (section 5), up to the rate of
    /// bursts.
    pub fn throughput(&self) -> Goal {
        Goal {
            from: (self.rate / 100).max(1),
            to: self.rate,
            resolution: (self.rate / 200).max(1),
            loss_ppm: 0,
            repeats: 3,
            trial_ms: self.trial_ms,
        }
    }

    /// What cannot be meant, if anything.
    pub fn mistake(&self) -> Option<String> {
        [
            self.rate,
            self.longest,
            self.step,
            self.tests,
            self.trial_ms,
        ]
        .contains(&0)
        .then(|| "rate, longest, step, tests and trial-ms are at least 1".to_owned())
    }

    /// How long all of it may take, of the host's time.
    pub fn patience_in_all(&self) -> Duration {
        // What is waited for a packet that is lost, and what one takes under an emulator.
        const LOST: Duration = Duration::from_secs(2);
        const FRAME: Duration = Duration::from_millis(1);
        let each =
            |frames: u32| LOST + FRAME.max(Duration::from_secs(1) / self.rate.max(1)) * frames;
        let trials = |range: u32, step: u32| (range / step.max(1)).max(1).ilog2() + 3;
        let goal = self.throughput();
        let rate = each(goal.packets(goal.to)) * (trials(goal.to, goal.resolution) + goal.repeats);
        let burst = each(self.longest) + Duration::from_millis(self.pause_ms.into());
        rate + burst * trials(self.longest, self.step) * self.tests
    }

    /// By how much a frame of a burst of `length` may be sent too late, in nanoseconds: the time between
    /// two of them, or a hundredth of the burst if that is more.
    pub fn patience(&self, length: u32) -> u64 {
        let period = 1_000_000_000 / u64::from(self.rate.max(1));
        period.max(period * u64::from(length) / 100)
    }
}

/// What came of a burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Burst {
    /// All of it came through.
    Whole,
    /// So many frames did not.
    Lost(u64),
    /// Frames were sent later than at its rate: it was no such burst.
    Late,
}

/// Why a longer burst than the result is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    /// Frames of it were lost.
    Loss,
    /// None was tried (section 6.2: such a result is likely invalid).
    Longest,
    /// It could not be sent at its rate.
    Generator,
}

/// How one search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Test {
    /// Frames of the longest burst without a loss; 0 if even one frame alone was lost.
    pub longest: u32,
    /// Why not more.
    pub bound: Bound,
}

/// All searches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Found {
    /// What was looked for.
    pub goal: BackToBack,
    /// The rate without loss, in frames a second; `None` if none was found.
    pub throughput: Option<u32>,
    /// The searches, in order; none if the throughput is the rate of bursts, since then no burst fills a
    /// buffer (section 6.1).
    pub tests: Vec<Test>,
}

/// The benchmark (section 6.4).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Benchmark {
    /// Mean of the longest bursts, in frames.
    pub mean: f64,
    /// The shortest of them.
    pub min: u32,
    /// The longest.
    pub max: u32,
    /// Their standard deviation, of the sample; 0 of one alone.
    pub deviation: f64,
    /// Implied DUT Buffer Time, in nanoseconds: what the mean burst takes at its rate.
    pub implied: f64,
    /// Corrected DUT Buffer Time, in nanoseconds: the same without the frames that were passed on while
    /// the burst was sent.
    pub corrected: f64,
}

impl Found {
    /// The benchmark; `None` if it is not known what a longer burst would have met, or how fast buffers
    /// are emptied.
    pub fn benchmark(&self) -> Option<Benchmark> {
        if !self.tests.iter().all(|test| test.bound == Bound::Loss) {
            return None;
        }
        let lengths = || self.tests.iter().map(|test| test.longest);
        let (min, max) = (lengths().min()?, lengths().max()?);
        let count = self.tests.len() as f64;
        let mean = lengths().map(f64::from).sum::<f64>() / count;
        let squares: f64 = lengths()
            .map(|length| (f64::from(length) - mean).powi(2))
            .sum();
        let rate = f64::from(self.goal.rate);
        let implied = mean / rate * 1e9;
        let passed_on = f64::from(self.throughput?) / rate;
        Some(Benchmark {
            mean,
            min,
            max,
            deviation: (squares / (count - 1.0).max(1.0)).sqrt(),
            implied,
            corrected: implied - implied * passed_on,
        })
    }
}

/// One search, by bisection. A burst that was late is sent again some times, since it says nothing.
#[derive(Clone, Debug)]
pub struct LengthSearch {
    search: Search,
    // The shortest burst that did not come through, and why.
    bad: Option<(u32, Bound)>,
    late: u32,
}

impl LengthSearch {
    /// One that knows nothing yet.
    pub fn new(goal: &BackToBack) -> Self {
        Self {
            search: Search::new(Goal {
                from: 1,
                to: goal.longest,
                resolution: goal.step,
                loss_ppm: 0,
                repeats: 1,
                trial_ms: 1,
            }),
            bad: None,
            late: 0,
        }
    }

    /// The length of the burst to send next, or how the search ended.
    pub fn next(&self) -> Result<u32, Test> {
        match self.search.next() {
            Step::Try(length) => Ok(length),
            Step::Done(longest) => Err(Test {
                longest: longest.unwrap_or(0),
                bound: self.bad.map_or(Bound::Longest, |(_, bound)| bound),
            }),
        }
    }

    /// Takes note of what came of a burst of the length that was to be sent.
    pub fn take(&mut self, length: u32, burst: Burst) {
        if burst == Burst::Late && self.late < LATE_AT_MOST {
            self.late += 1;
            return;
        }
        self.late = 0;
        let (lost, bound) = match burst {
            Burst::Whole => (0, None),
            Burst::Lost(frames) => (frames.max(1), Some(Bound::Loss)),
            Burst::Late => (1, Some(Bound::Generator)),
        };
        if let Some(bound) = bound
            && self.bad.is_none_or(|(shortest, _)| length <= shortest)
        {
            self.bad = Some((length, bound));
        }
        self.search.take(&Trial {
            rate: length,
            sent: length.into(),
            lost,
            in_time: true,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The model of RFC 9004, section 4: frames wait in a buffer for a step that takes them one by one.
    #[derive(Clone, Copy, Debug)]
    struct Device {
        /// Frames that it has room for, that which is being passed on included.
        buffer: u32,
        /// Frames a second that it passes on.
        rate: u32,
    }

    impl Device {
        /// Frames that are lost of a burst at `rate`, frame by frame.
        fn lose(self, length: u32, rate: u32) -> u64 {
            // In units of which `self.rate` times `rate` are a second.
            let (arrival, service) = (u64::from(self.rate), u64::from(rate));
            let mut departures = std::collections::VecDeque::new();
            let mut lost = 0;
            let mut last = 0;
            for frame in 0..u64::from(length) {
                let now = frame * arrival;
                while departures.front().is_some_and(|&time| time <= now) {
                    departures.pop_front();
                }
                if departures.len() < self.buffer as usize {
                    last = last.max(now) + service;
                    departures.push_back(last);
                } else {
                    lost += 1;
                }
            }
            lost
        }
    }

    fn test(goal: &BackToBack, mut burst: impl FnMut(u32) -> Burst) -> Test {
        let mut search = LengthSearch::new(goal);
        for _ in 0..1_000 {
            match search.next() {
                Ok(length) => search.take(length, burst(length)),
                Err(test) => return test,
            }
        }
        panic!("the search does not end");
    }

    fn of_device(device: Device, rate: u32) -> impl Fn(u32) -> Burst {
        move |length| match device.lose(length, rate) {
            0 => Burst::Whole,
            lost => Burst::Lost(lost),
        }
    }

    const GOAL: BackToBack = BackToBack {
        rate: 10_000,
        longest: 4_000,
        step: 1,
        tests: 3,
        pause_ms: 2_000,
        trial_ms: 1_000,
    };

    proptest! {
        #[test]
        fn the_corrected_time_is_that_of_the_buffer(
            buffer in 1_u32..300,
            rate in 1_000_u32..2_000_000,
            share in 1_u32..90,
            step in 1_u32..20,
        ) {
            let device = Device { buffer, rate: (u64::from(rate) * u64::from(share) / 100) as u32 };
            let goal = BackToBack { rate, step, ..GOAL };
            let tests = vec![test(&goal, of_device(device, rate)); 2];
            let found = Found { goal, throughput: Some(device.rate), tests };
            let benchmark = found.benchmark().unwrap();
            // A frame that has just left, and the step of the search.
            let kept = 1.0 - f64::from(device.rate) / f64::from(rate);
            let frames = benchmark.corrected * f64::from(rate) / 1e9;
            prop_assert!(frames <= f64::from(buffer) + 1e-6, "{} of {}", frames, buffer);
            let least = f64::from(buffer) - 1.0 - f64::from(step) * kept - 1e-6;
            prop_assert!(frames >= least, "{} of {}", frames, buffer);
            // Without the correction it would be greater, by what was passed on.
            let uncorrected = benchmark.implied * kept;
            prop_assert!((uncorrected - benchmark.corrected).abs() <= 1e-6 * benchmark.implied);
            prop_assert_eq!(benchmark.deviation, 0.0);
        }

        #[test]
        fn a_device_that_keeps_up_has_no_benchmark(buffer in 1_u32..300, extra in 0_u32..9_000) {
            let device = Device { buffer, rate: GOAL.rate + extra };
            let test = test(&GOAL, of_device(device, GOAL.rate));
            prop_assert_eq!(test, Test { longest: GOAL.longest, bound: Bound::Longest });
            let found = Found { goal: GOAL, throughput: Some(GOAL.rate), tests: vec![test] };
            prop_assert_eq!(found.benchmark(), None);
        }

        #[test]
        fn a_generator_that_is_too_slow_is_told_from_a_loss(
            buffer in 1_u32..300,
            late_from in 1_u32..4_000,
        ) {
            let device = Device { buffer, rate: GOAL.rate / 2 };
            let of_device = of_device(device, GOAL.rate);
            let alone = test(&GOAL, &of_device);
            let with = test(&GOAL, |length| {
                if length >= late_from { Burst::Late } else { of_device(length) }
            });
            if late_from > alone.longest + 1 {
                prop_assert_eq!(with, alone);
            } else {
                let longest = late_from - 1;
                prop_assert_eq!(with, Test { longest, bound: Bound::Generator });
            }
        }

        #[test]
        fn now_and_then_a_late_burst_changes_nothing(buffer in 1_u32..300, one_in in 2_u32..9) {
            let of_device = of_device(Device { buffer, rate: 3_000 }, GOAL.rate);
            let mut bursts = 0;
            let with = test(&GOAL, |length| {
                bursts += 1;
                if bursts % one_in == 0 { Burst::Late } else { of_device(length) }
            });
            prop_assert_eq!(with, test(&GOAL, &of_device));
        }
    }

    #[test]
    fn the_example_of_the_rfc_s_formula() {
        let test = |longest| Test {
            longest,
            bound: Bound::Loss,
        };
        let found = Found {
            goal: GOAL,
            throughput: Some(7_500),
            tests: vec![test(90), test(100), test(110)],
        };
        let benchmark = found.benchmark().unwrap();
        // 100 frames take 10 ms, in which 75 are passed on.
        let expected = Benchmark {
            mean: 100.0,
            min: 90,
            max: 110,
            deviation: 10.0,
            implied: 1e7,
            corrected: 2.5e6,
        };
        assert_eq!(benchmark, expected);
        let unknown = Found {
            throughput: None,
            ..found
        };
        assert_eq!(unknown.benchmark(), None);
    }

    #[test]
    fn patience_is_for_all_searches() {
        let one = BackToBack { tests: 1, ..GOAL };
        let (one, three) = (one.patience_in_all(), GOAL.patience_in_all());
        // 14 bursts of 4,000 frames, each after 2 seconds and waited for as long.
        assert_eq!(three - one, Duration::from_secs(2 * 14 * 8));
    }

    #[test]
    fn a_device_that_loses_everything_has_no_burst() {
        let none = test(&GOAL, |length| Burst::Lost(length.into()));
        assert_eq!((none.longest, none.bound), (0, Bound::Loss));
    }
}
