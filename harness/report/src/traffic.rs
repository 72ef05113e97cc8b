// SPDX-License-Identifier: MIT OR Apache-2.0

//! The traffic of a cell by its name, which is the last part of the cell's id and has not changed
//! while the records did.

use mutexlab_draw::table::number;

/// Traffic, as its name tells it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Traffic {
    /// Way, family, protocol, payload, and what is unusual, in that order.
    words: Vec<String>,
}

/// A number that traffic has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dimension {
    /// Bytes of payload.
    Payload,
    /// Established flows.
    Flows,
    /// Packets that are sent in a second.
    Rate,
    /// Established flows on each CPU.
    FlowsPerCpu,
    /// New flows in a second.
    Churn,
    /// Packets that come at once.
    Burst,
}

/// Where the payload stands among the words.
const PAYLOAD: usize = 3;

impl Dimension {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Payload,
        Self::Flows,
        Self::FlowsPerCpu,
        Self::Rate,
        Self::Churn,
        Self::Burst,
    ];

    /// What it is called on an axis, and its unit.
    pub const fn name(self) -> (&'static str, &'static str) {
        match self {
            Self::Payload => ("payload", "bytes"),
            Self::Flows => ("established flows", "flows"),
            Self::FlowsPerCpu => ("established flows a CPU", "flows"),
            Self::Rate => ("rate", "packets/s"),
            Self::Churn => ("new flows", "flows/s"),
            Self::Burst => ("packets at once", "packets"),
        }
    }

    /// The number that a word of an id tells, if it is of this dimension.
    fn read(self, word: &str) -> Option<f64> {
        let digits = match self {
            Self::Payload => word,
            Self::Flows => word.strip_suffix("flows")?,
            Self::FlowsPerCpu => word.strip_suffix("percpu")?,
            Self::Rate => word.strip_suffix("pps")?,
            Self::Churn => word.strip_prefix("churn")?,
            Self::Burst => word.strip_prefix("burst")?,
        };
        digits.parse().ok()
    }

    /// What it is where an id does not say.
    const fn usual(self) -> Option<f64> {
        match self {
            Self::Flows | Self::Burst => Some(1.0),
            Self::Churn => Some(0.0),
            Self::Payload | Self::FlowsPerCpu | Self::Rate => None,
        }
    }
}

impl Traffic {
    /// Of the cell with this id.
    pub fn of(id: &str) -> Self {
        let name = id.rsplit('/').next().unwrap_or(id);
        Self {
            words: name.split('-').map(str::to_owned).collect(),
        }
    }

    /// Its number in a dimension.
    pub fn number(&self, dimension: Dimension) -> Option<f64> {
        match self.place(dimension) {
            Some(place) => self.words.get(place).and_then(|word| dimension.read(word)),
            None => dimension.usual(),
        }
    }

    /// The same, whatever its number in that dimension.
    pub fn without(&self, dimension: Dimension) -> Self {
        let mut words = self.words.clone();
        if let Some(place) = self.place(dimension) {
            words.remove(place);
        }
        Self { words }
    }

    fn place(&self, dimension: Dimension) -> Option<usize> {
        let numbered = |word: &String| dimension.read(word).is_some();
        match dimension {
            Dimension::Payload => self
                .words
                .get(PAYLOAD)
                .is_some_and(numbered)
                .then_some(PAYLOAD),
            _ => self.words.iter().position(numbered),
        }
    }

    /// For a person: `forward v4 udp 64 B, 1,000 flows`.
    pub fn label(&self) -> String {
        let mut text = String::new();
        for (place, word) in self.words.iter().enumerate() {
            let payload = place == PAYLOAD && word.bytes().all(|byte| byte.is_ascii_digit());
            let usual = place < PAYLOAD || payload;
            if place > 0 {
                text.push_str(if usual { " " } else { ", " });
            }
            let read = |dimension: Dimension| dimension.read(word).map(number);
            let told = if payload {
                format!("{word} B")
            } else if let Some(flows) = read(Dimension::Flows) {
                format!("{flows} flows")
            } else if let Some(flows) = read(Dimension::FlowsPerCpu) {
                let plural = if flows == "1" { "" } else { "s" };
                format!("{flows} flow{plural} a CPU")
            } else if let Some(rate) = read(Dimension::Rate) {
                format!("{rate} packets/s")
            } else if let Some(churn) = read(Dimension::Churn) {
                format!("{churn} new flows/s")
            } else if let Some(burst) = read(Dimension::Burst) {
                format!("{burst} at once")
            } else {
                word.clone()
            };
            text.push_str(&told);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_understood() {
        let traffic = Traffic::of("7.3/1cpu/module,a=1/forward-v4-udp-64-1000flows-zipf-churn100");
        assert_eq!(
            traffic.label(),
            "forward v4 udp 64 B, 1,000 flows, zipf, 100 new flows/s"
        );
        assert_eq!(traffic.number(Dimension::Flows), Some(1000.0));
        assert_eq!(traffic.number(Dimension::Churn), Some(100.0));
        assert_eq!(traffic.number(Dimension::Burst), Some(1.0));
        assert_eq!(traffic.number(Dimension::Rate), None);
        assert_eq!(
            traffic.without(Dimension::Flows).label(),
            "forward v4 udp 64 B, zipf, 100 new flows/s"
        );
        assert_eq!(
            Traffic::of("a/forward-v6-tcp-64").without(Dimension::Payload),
            Traffic::of("a/forward-v6-tcp-1400").without(Dimension::Payload)
        );
    }

    #[test]
    fn a_mix_of_sizes_is_no_number() {
        let traffic = Traffic::of("7.3/1cpu/none/forward-v4-udp-imix");
        assert_eq!(traffic.number(Dimension::Payload), None);
        assert_eq!(traffic.label(), "forward v4 udp, imix");
    }

    #[test]
    fn a_name_of_another_kind_is_shown_as_it_is() {
        assert_eq!(Traffic::of("what is this").label(), "what is this");
        assert_eq!(Traffic::of("").label(), "");
    }
}
