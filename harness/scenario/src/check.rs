// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a scenario may ask for.

use std::fmt::Debug;

use crate::named::Named;
use crate::parameter::Parameters;
use crate::question::Scenario;
use crate::throughput::SearchMatrix;
use crate::traffic::TrafficMatrix;
use mutexlab_model::limits::MAX_FLOWS;
use mutexlab_model::mode::Mode;
use mutexlab_model::subject::Subject;
use mutexlab_model::traffic::{Ends, Load, Part, Steering, Traffic, Unfit, Way};
use toml_mistake::{nearest, Mistake, Place};

impl Scenario {
    /// The first thing that cannot be meant.
    pub(super) fn check(&self) -> Result<(), Mistake> {
        check_list("kernels", &self.kernels)?;
        check_list("cpus", &self.cpus)?;
        check_list("subjects", &self.subjects)?;
        self.check_subjects()?;
        self.check_choices()?;
        if let Some(index) = self.cpus.iter().position(|&cpus| cpus == 0) {
            return Err(Mistake::at("cpus", "a guest needs at least one CPU").element(index));
        }
        if self.boots == 0 {
            return Err(Mistake::at("boots", "boots must be at least 1"));
        }
        self.check_seeds()?;
        self.check_lens()?;
        self.traffic.check()?;
        self.traffic.check_spread(&self.cpus)
    }

    /// Whether parameters have values, and are of subjects that are measured.
    fn check_choices(&self) -> Result<(), Mistake> {
        let Parameters { module, owned } = &self.parameters;
        for (name, values) in module {
            check_list(&format!("parameters.{name}"), values)?;
        }
        for (owner, choices) in owned {
            let key = format!("parameters.{owner}");
            let names = || self.subjects.iter().map(|named| named.subject.name());
            if Subject::OF_MODULE
                .iter()
                .any(|subject| subject.name() == owner)
            {
                let message = "the module's parameters stand in [parameters] itself";
                return Err(Mistake::at(&key, message));
            }
            if !names().any(|name| name == owner) {
                let hint = nearest(owner, names())
                    .map(|name| format!("; did you mean `{name}`?"))
                    .unwrap_or_default();
                let message = format!("subjects does not list `{owner}`{hint}");
                return Err(Mistake::at(&key, message));
            }
            for (name, values) in choices {
                check_list(&format!("{key}.{name}"), values)?;
            }
        }
        let measured = self.subjects.iter().any(|named| named.subject.is_module());
        if !module.is_empty() && !measured {
            let message =
                "parameters are the module's, but subjects does not list \"module\"; those of \
                           another subject stand in [parameters.SUBJECT]";
            return Err(Mistake::at("parameters", message));
        }
        Ok(())
    }

    /// Two directories may have one name, which would be that of both in results.
    fn check_subjects(&self) -> Result<(), Mistake> {
        for (index, Named { subject, directory }) in self.subjects.iter().enumerate() {
            let at = |message| Err(Mistake::at("subjects", message).element(index));
            let mut earlier = self.subjects.iter().take(index);
            if earlier.any(|earlier| earlier.subject == *subject) {
                return at(format!("there is another subject called {subject}"));
            }
            if directory.is_some() && (subject.is_module() || *subject == Subject::NONE) {
                return at(format!(
                    "{subject} is known already: call the directory otherwise"
                ));
            }
        }
        Ok(())
    }

    /// Whether seeds say which boots there are, and nothing else does.
    fn check_seeds(&self) -> Result<(), Mistake> {
        let Some(seeds) = &self.seeds else {
            return Ok(());
        };
        check_list("seeds", seeds)?;
        if self.mode != Mode::Virtual {
            let message =
                "in real time no two boots are the same, whatever their seed: ask for `boots`";
            return Err(Mistake::at("seeds", message));
        }
        if self.boots > 1 && seeds.len() > 1 {
            let message = "each seed is a boot of its own, and a second one of the same seed is the same boot: leave `boots` out";
            return Err(Mistake::at("boots", message));
        }
        Ok(())
    }

    /// Whether the lens can look on as it is asked to.
    fn check_lens(&self) -> Result<(), Mistake> {
        let Some(machine) = &self.lens else {
            return Ok(());
        };
        if self.mode != Mode::Virtual {
            let message = "the lens sees instructions, and no time: it needs mode \"virtual\"";
            return Err(Mistake::at("lens", message));
        }
        match machine.mistake() {
            Some((cache, message)) => Err(Mistake::at(&format!("lens.{cache}"), message)),
            None => Ok(()),
        }
    }

    /// The first parameter that is none of those that the module has.
    pub fn check_parameters(&self, there: &[String]) -> Result<(), Mistake> {
        let excluded = self
            .exclude
            .iter()
            .enumerate()
            .flat_map(|(index, exclusion)| {
                let names = exclusion.parameters.keys();
                names.map(move |name| (vec![Place::from("exclude"), Place::from(index)], name))
            });
        let of_others = |name: &String| {
            let mut owned = self.parameters.owned.values();
            owned.any(|choices| choices.contains_key(name))
        };
        let excluded = excluded.filter(|(_, name)| !of_others(name));
        let matrix = self.parameters.module.keys().map(|name| (Vec::new(), name));
        for (mut at, name) in matrix.chain(excluded) {
            if there.contains(name) {
                continue;
            }
            let hint = nearest(name, there.iter().map(String::as_str))
                .map(|name| format!("; did you mean `{name}`?"))
                .unwrap_or_default();
            at.extend([Place::from("parameters"), Place::from(name.as_str())]);
            return Err(Mistake {
                at,
                message: format!("the module has no parameter `{name}`{hint}"),
            });
        }
        Ok(())
    }
}

impl TrafficMatrix {
    fn check(&self) -> Result<(), Mistake> {
        check_list("traffic.ends", &self.ends)?;
        check_list("traffic.ways", &self.ways)?;
        check_list("traffic.families", &self.families)?;
        check_list("traffic.protocols", &self.protocols)?;
        check_list("traffic.payloads", &self.payloads)?;
        for (key, flows) in [
            ("traffic.flows", &self.flows),
            ("traffic.flows-per-cpu", &self.flows_per_cpu),
        ] {
            flows
                .as_ref()
                .map_or(Ok(()), |flows| check_list(key, flows))?;
        }
        check_list("traffic.steering", &self.steering)?;
        check_list("traffic.popularity", &self.popularity)?;
        check_list("traffic.checksum", &self.checksum)?;
        check_list("traffic.cloned", &self.cloned)?;
        self.check_loads()
    }

    fn check_spread(&self, cpus: &[u32]) -> Result<(), Mistake> {
        let Some(per_cpu) = &self.flows_per_cpu else {
            return match *self.steering == [Steering::Symmetric] {
                true => Ok(()),
                false => Err(Mistake::at(
                    "traffic.steering",
                    "steering is of flows that are spread over CPUs: give flows-per-cpu",
                )),
            };
        };
        let most = cpus.iter().copied().max().unwrap_or(1);
        for (index, &flows) in per_cpu.iter().enumerate() {
            let max = MAX_FLOWS;
            if flows == 0 || flows.saturating_mul(most) > max {
                let message = format!(
                    "{flows} flows for each of {most} CPUs are not between 1 and {max} in all"
                );
                return Err(Mistake::at("traffic.flows-per-cpu", message).element(index));
            }
        }
        let others = self.rates.is_some() || self.search.is_some() || self.bulk.is_some();
        let wire = *self.ways == [Way::Forward] && *self.ends == [Ends::Wire];
        if others || !wire || self.burst != 1 {
            let message = "flows are spread over CPUs in closed loops of single packets only \
                           (round-trips), forwarded and on the wire";
            return Err(Mistake::at("traffic.flows-per-cpu", message));
        }
        match self.round_trips {
            Some(round_trips) if round_trips < most => {
                let message = format!("{round_trips} round trips do not reach each of {most} CPUs");
                Err(Mistake::at("traffic.round-trips", message))
            }
            _ => Ok(()),
        }
    }

    fn check_loads(&self) -> Result<(), Mistake> {
        let fault = |key: &str, message: &str| Err(Mistake::at(&format!("traffic.{key}"), message));
        if self.round_trips == Some(0) {
            return fault("round-trips", "round-trips must be at least 1");
        }
        if self.bulk == Some(0) {
            return fault("bulk", "bulk must be at least 1 byte");
        }
        if let Some(message) = self.search.as_ref().and_then(SearchMatrix::mistake) {
            return fault("search", &message);
        }
        if self.loads().is_empty() {
            return Err(Mistake::at(
                "traffic",
                "there is no load: give round-trips, rates with packets, search, or bulk",
            ));
        }
        if self.burst != 1 && self.round_trips.is_none() {
            return fault("burst", "bursts are a closed loop's: give round-trips, too");
        }
        match &self.rates {
            Some(rates) => {
                check_list("traffic.rates", rates)?;
                if let Some(index) = rates.iter().position(|&rate| rate == 0) {
                    let message = "a rate of 0 packets a second sends nothing";
                    return Err(Mistake::at("traffic.rates", message).element(index));
                }
                if self.packets.unwrap_or(0) == 0 {
                    return fault("rates", "rates need packets, at least 1");
                }
            }
            None if self.packets.is_some() => {
                return fault(
                    "packets",
                    "packets are those of an open loop: give rates, too",
                );
            }
            None => {}
        }
        if let Some(churn) = &self.churn {
            check_list("traffic.churn", churn)?;
            if self.rates.is_none() {
                return fault("churn", "churn is an open loop's: give rates, too");
            }
        }
        match self.back_to_back.and_then(|goal| goal.mistake()) {
            Some(mistake) => fault("back-to-back", &mistake),
            None => Ok(()),
        }
    }

    /// Where a scenario asks for what `traffic` cannot have.
    fn place(&self, part: Part, traffic: &Traffic) -> (&'static str, Option<usize>) {
        match part {
            Part::Payload => {
                let mut payloads = self.payloads.iter();
                let index = payloads.position(|&payload| payload == traffic.payload);
                ("traffic.payloads", index)
            }
            Part::Flows => match traffic.flows_per_cpu() {
                Some(_) => ("traffic.flows-per-cpu", None),
                None => {
                    let mut flows = self.flows.iter().flatten();
                    let index = flows.position(|&flows| flows == traffic.flows);
                    ("traffic.flows", index)
                }
            },
            Part::Burst => ("traffic.burst", None),
            Part::Load => match traffic.load {
                Load::Closed { .. } => ("traffic.round-trips", None),
                Load::Open { rate, .. } => {
                    let mut rates = self.rates.iter().flatten();
                    ("traffic.rates", rates.position(|&one| one == rate))
                }
                Load::Search(_) => ("traffic.search", None),
                Load::BackToBack(_) => ("traffic.back-to-back", None),
                Load::Bulk { .. } => ("traffic.bulk", None),
            },
            Part::Checksum => ("traffic.checksum", None),
            Part::Cloned => ("traffic.cloned", None),
        }
    }
}

impl Scenario {
    /// What there can be no cell of, where the scenario asks for it.
    pub fn check_cell(&self, traffic: &Traffic) -> Result<(), Mistake> {
        if let Err(Unfit { part, why }) = traffic.check() {
            let (key, index) = self.traffic.place(part, traffic);
            let fault = Mistake::at(key, format!("{why} (or [[exclude]] it)"));
            return Err(match index {
                Some(index) => fault.element(index),
                None => fault,
            });
        }
        let is_seen = traffic.ends == Ends::Wire
            && matches!(traffic.load, Load::Closed { .. } | Load::Open { .. });
        if self.lens.is_some() && !is_seen {
            let message = format!(
                "the lens looks at packets on the wire at a rate or one after another, and not at {} (or [[exclude]] it)",
                traffic.name()
            );
            return Err(Mistake::at("lens", message));
        }
        Ok(())
    }
}

fn check_list<T: PartialEq + Debug>(key: &str, values: &[T]) -> Result<(), Mistake> {
    if values.is_empty() {
        let message = format!("{key} is empty, so there is nothing to measure");
        return Err(Mistake::at(key, message));
    }
    for (index, value) in values.iter().enumerate() {
        if values.iter().take(index).any(|earlier| earlier == value) {
            return Err(Mistake::at(key, format!("{key} lists {value:?} twice")).element(index));
        }
    }
    Ok(())
}
