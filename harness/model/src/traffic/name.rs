// SPDX-License-Identifier: MIT OR Apache-2.0

//! What traffic is called in ids.

use std::fmt::Write;

use super::{Cloned, Ends, Load, Popularity, Steering, Traffic, Usual as _};
use crate::rfc2544::throughput::Goal;

impl Traffic {
    /// The name in ids, such as `forward-v4-udp-64`; what is unlike the usual is added, such as
    /// `-1000flows`.
    pub fn name(&self) -> String {
        let mut name = format!(
            "{}-{}-{}-{}",
            self.way.name(),
            self.family.name(),
            self.protocol.name(),
            self.payload
        );
        for part in self.unusual() {
            // Writing to a string cannot fail.
            let _ = write!(name, "-{part}");
        }
        name
    }

    /// What is unlike one flow in a closed loop on the wire, in the words of [`Self::name`].
    pub fn unusual(&self) -> Vec<String> {
        let mut parts = Vec::new();
        if self.ends == Ends::Stack {
            parts.push("stack".to_owned());
        }
        match self.flows_per_cpu() {
            Some(flows) => parts.push(format!("{flows}percpu")),
            None if self.flows == 1 => {}
            None => parts.push(format!("{}flows", self.flows)),
        }
        if self.steering == Steering::Asymmetric {
            parts.push("asymmetric".to_owned());
        }
        if self.popularity == Popularity::Zipf {
            parts.push("zipf".to_owned());
        }
        if !self.checksum.is_usual() {
            parts.push(self.checksum.name().to_owned());
        }
        match self.cloned {
            Cloned::No => {}
            Cloned::Payload => parts.push("cloned".to_owned()),
            Cloned::Header => parts.push("header-cloned".to_owned()),
        }
        match self.load {
            Load::Closed { burst: 1, .. } => {}
            Load::Closed { burst, .. } => parts.push(format!("burst{burst}")),
            Load::Open { rate, churn, .. } => {
                parts.push(format!("{rate}pps"));
                if churn != 0 {
                    parts.push(format!("churn{churn}"));
                }
            }
            // Non-drop rate and partial-drop rate.
            Load::Search(Goal { loss_ppm: 0, .. }) => parts.push("ndr".to_owned()),
            Load::Search(Goal { loss_ppm, .. }) => {
                parts.push(format!("pdr{}", f64::from(loss_ppm) / 1e4));
            }
            Load::BackToBack(goal) => parts.push(format!("b2b{}", goal.rate)),
            Load::Bulk { .. } => parts.push("bulk".to_owned()),
        }
        parts
    }
}
