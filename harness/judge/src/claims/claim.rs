// SPDX-License-Identifier: MIT OR Apache-2.0

//! A claim, what was measured of it, and what follows.

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;

use mutexlab_draw::table::number;

/// One of the five claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Claim {
    /// Looking a connection up.
    Lookup,
    /// Memory for a connection.
    Creation,
    /// What a packet waits for while it is processed.
    Latency,
    /// How many packets get through.
    Throughput,
    /// What more CPUs bring.
    Scaling,
}

impl Claim {
    /// What branch 13 says.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Lookup => "lookups are 3-10x faster by cache hits",
            Self::Creation => "allocation is 10-20x faster than by kmalloc()",
            Self::Latency => "packet processing has 20-30 % less latency",
            Self::Throughput => "bulk traffic has 2-3x the throughput, by batching and zero copy",
            Self::Scaling => "scaling is near-linear up to 16 cores",
        }
    }

    /// The least that would make it true.
    pub const fn wanted(self) -> Gain {
        match self {
            Self::Lookup => Gain::Times(3.0),
            Self::Creation => Gain::Times(10.0),
            Self::Latency => Gain::Less(20.0),
            Self::Throughput => Gain::Times(2.0),
            // So many CPUs do nine tenths at least of so many times what one does: a packet takes no more than
            // 1.11 times as long.
            Self::Scaling => Gain::Times(0.9),
        }
    }
}

/// How much better one of two variants is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Gain {
    /// The other takes so many times as much.
    Times(f64),
    /// It takes so many per cent less than the other.
    Less(f64),
}

impl Gain {
    /// What a comparison shows, in the same words as `self`.
    fn of(self, pair: &Pair) -> f64 {
        match self {
            Self::Times(_) => pair.off / pair.on,
            Self::Less(_) => 100.0 * (1.0 - pair.on / pair.off),
        }
    }

    const fn least(self) -> f64 {
        match self {
            Self::Times(least) | Self::Less(least) => least,
        }
    }

    /// A range of such gains as text.
    pub fn range(self, (least, most): (f64, f64)) -> String {
        let (digits, unit) = match self {
            Self::Times(_) => (2, "x"),
            Self::Less(_) => (0, " % less"),
        };
        let (least, most) = (format!("{least:.digits$}"), format!("{most:.digits$}"));
        if least == most {
            format!("{least}{unit}")
        } else {
            format!("{least} to {most}{unit}")
        }
    }
}

/// What is to be thought of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Holds {
    /// It is true wherever it was measured, and what instructions do not see would not change that.
    Held,
    /// It is not, and what instructions do not see would not change that.
    NotHeld,
    /// What instructions do not see decides.
    CannotTell,
}

impl fmt::Display for Holds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Held => "held",
            Self::NotHeld => "not held",
            Self::CannotTell => "cannot tell",
        })
    }
}

/// What time would show that instructions do not: misses of caches, and CPUs that wait for each
/// other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Unseen {
    /// It could make the gain so much larger that a claim that seems wrong is true.
    pub could_help: bool,
    /// It could make it so much smaller that one that seems true is wrong.
    pub could_hurt: bool,
}

impl Holds {
    /// What gains between these mean for a claim that wants `wanted`.
    pub fn of(wanted: Gain, (least, most): (f64, f64), unseen: Unseen) -> Self {
        let everywhere = least >= wanted.least();
        let somewhere = most >= wanted.least();
        match (everywhere, somewhere) {
            (true, _) if unseen.could_hurt => Self::CannotTell,
            (true, _) => Self::Held,
            (false, _) if unseen.could_help => Self::CannotTell,
            (false, _) => Self::NotHeld,
        }
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub enum Unit {
    /// Executed instructions.
    #[serde(rename = "instructions")]
    Instructions,
    /// Executed instructions, of one packet.
    #[serde(rename = "instructions/packet")]
    InstructionsPerPacket,
    /// Cycles that the lens estimates, for one packet.
    #[serde(rename = "cycles/packet")]
    CyclesPerPacket,
    /// How often it happened, for each packet.
    #[serde(rename = "1/packet")]
    PerPacket,
}

impl fmt::Display for Unit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Instructions => "instructions",
            Self::InstructionsPerPacket => "instructions a packet",
            Self::CyclesPerPacket => "cycles a packet",
            Self::PerPacket => "times a packet",
        })
    }
}

/// The same work done in two ways.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Pair {
    /// Where: a place, a size, a cell.
    pub at: String,
    /// What it takes without the optimization.
    pub off: f64,
    /// What it takes with it.
    pub on: f64,
}

/// Two variants, compared in one place or in several.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Evidence {
    /// What was counted.
    pub metric: String,
    /// In what.
    pub unit: Unit,
    /// Without the optimization.
    pub off: String,
    /// With it.
    pub on: String,
    /// Where they were compared; not empty.
    pub pairs: Vec<Pair>,
}

impl Evidence {
    /// The least and the greatest gain, in the words of `gain`.
    pub fn gains(&self, gain: Gain) -> (f64, f64) {
        let all = self.pairs.iter().map(|pair| gain.of(pair));
        all.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), one| {
            (least.min(one), most.max(one))
        })
    }

    /// The range of one side's numbers.
    pub fn range(&self, side: impl Fn(&Pair) -> f64) -> String {
        let all = self.pairs.iter().map(side);
        let (least, most) = all.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), one| {
            (least.min(one), most.max(one))
        });
        let (least, most) = (number(least), number(most));
        if least == most {
            least
        } else {
            format!("{least} to {most}")
        }
    }
}

/// A claim that was judged.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Judged {
    /// Which.
    pub claim: Claim,
    /// What it says.
    pub text: &'static str,
    /// The verdict.
    pub verdict: Holds,
    /// The gain that was measured, as text.
    pub measured: String,
    /// The same as numbers: least and greatest.
    pub gains: (f64, f64),
    /// What instructions do not see.
    pub unseen: Unseen,
    /// Why the verdict is what it is.
    pub why: Vec<String>,
    /// What it was taken from: the first decides, the others explain.
    pub evidence: Vec<Evidence>,
}

impl Judged {
    /// Judges by the first of `evidence`; `why` is told in paragraphs.
    pub fn new(
        claim: Claim,
        decisive: Evidence,
        others: Vec<Evidence>,
        unseen: Unseen,
        why: Vec<String>,
    ) -> Self {
        let wanted = claim.wanted();
        let gains = decisive.gains(wanted);
        let mut evidence = vec![decisive];
        evidence.extend(others);
        Self {
            claim,
            text: claim.text(),
            verdict: Holds::of(wanted, gains, unseen),
            measured: wanted.range(gains),
            gains,
            unseen,
            why,
            evidence,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEN: Unseen = Unseen {
        could_help: false,
        could_hurt: false,
    };

    #[test]
    fn a_claim_holds_only_where_it_does_everywhere() {
        let wanted = Gain::Times(3.0);
        for (gains, verdict) in [
            ((3.0, 4.0), Holds::Held),
            ((2.9, 4.0), Holds::NotHeld),
            ((1.0, 2.9), Holds::NotHeld),
        ] {
            assert_eq!(Holds::of(wanted, gains, SEEN), verdict, "{gains:?}");
        }
    }

    #[test]
    fn what_is_not_seen_decides_only_against_what_is() {
        let wanted = Gain::Less(20.0);
        let help = Unseen {
            could_help: true,
            ..SEEN
        };
        let hurt = Unseen {
            could_hurt: true,
            ..SEEN
        };
        assert_eq!(Holds::of(wanted, (25.0, 30.0), help), Holds::Held);
        assert_eq!(Holds::of(wanted, (25.0, 30.0), hurt), Holds::CannotTell);
        assert_eq!(Holds::of(wanted, (5.0, 30.0), help), Holds::CannotTell);
        assert_eq!(Holds::of(wanted, (5.0, 30.0), hurt), Holds::NotHeld);
    }

    #[test]
    fn gains_are_of_the_worst_and_the_best_pair() {
        let pair = |off, on| Pair {
            at: String::new(),
            off,
            on,
        };
        let evidence = Evidence {
            metric: String::new(),
            unit: Unit::Instructions,
            off: String::new(),
            on: String::new(),
            pairs: vec![pair(100.0, 50.0), pair(100.0, 80.0)],
        };
        assert_eq!(evidence.gains(Gain::Times(1.0)), (1.25, 2.0));
        let (least, most) = evidence.gains(Gain::Less(1.0));
        assert!((least - 20.0).abs() < 1e-9 && (most - 50.0).abs() < 1e-9);
        assert_eq!(evidence.range(|pair| pair.on), "50 to 80");
        assert_eq!(evidence.range(|pair| pair.off), "100");
        assert_eq!(Gain::Less(1.0).range((20.2, 20.4)), "20 % less");
        assert_eq!(Gain::Times(1.0).range((0.5, 2.0)), "0.50 to 2.00x");
    }
}
