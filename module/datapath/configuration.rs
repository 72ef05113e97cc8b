// SPDX-License-Identifier: GPL-2.0

//! A context's groups, upstreams, sets and rules, as messages bring them.

use super::abi::netlink::attribute::{Attribute, Attributes};
use super::abi::netlink::configuration::{read_group, read_rule};
use super::abi::netlink::message::{kind, UNKNOWN};
use super::abi::netlink::refusal::Refusal;
use super::abi::netlink::set::{read_elements, SetPart};
use super::abi::proxy::{
    Action, Family, Group, Rule, Upstream, Values, MAX_ELEMENTS, MAX_GROUPS, MAX_MEMBERS,
    MAX_RULES, MAX_SETS, MAX_UPSTREAMS,
};
use super::allocate::Allocate;
use super::set::{NotAdded, Set, Staged};

/// Why a message could not be staged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StageError<E> {
    /// It is wrong.
    Refused(Refusal),
    /// There is no memory.
    Memory(E),
}

impl<E> From<Refusal> for StageError<E> {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// A group, and which of the configuration's upstreams are its own.
#[derive(Clone, Copy, Debug)]
struct Members {
    group: Group,
    // One behind the other.
    first: usize,
    count: usize,
    has_v4: bool,
    has_v6: bool,
}

impl Members {
    fn has(&self, family: Family) -> bool {
        match family {
            Family::V4 => self.has_v4,
            Family::V6 => self.has_v6,
        }
    }
}

/// How much of what counts for a namespace's limits there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Rules.
    pub rules: usize,
    /// Upstreams.
    pub upstreams: usize,
    /// Sets.
    pub sets: usize,
    /// Elements of sets.
    pub elements: usize,
}

impl Size {
    /// Of both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            rules: self.rules.wrapping_add(other.rules),
            upstreams: self.upstreams.wrapping_add(other.upstreams),
            sets: self.sets.wrapping_add(other.sets),
            elements: self.elements.wrapping_add(other.elements),
        }
    }
}

/// Groups, upstreams, sets and rules. Each rule that redirects does so to a group that is there and has an upstream of the rule's IP
/// version, each condition that names a set names one that is there and of the kind of the condition's field, and there are no more of
/// anything than one namespace may have.
pub struct Configuration<M: Allocate> {
    groups: M::Vec<Members>,
    // In the order of their groups.
    upstreams: M::Vec<Upstream>,
    sets: M::Vec<Staged<M>>,
    elements: usize,
    rules: M::Vec<Rule>,
}

impl<M: Allocate> Configuration<M> {
    /// Without anything.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn new() -> Result<Self, M::Error> {
        Ok(Self {
            groups: M::collect(core::iter::empty())?,
            upstreams: M::collect(core::iter::empty())?,
            sets: M::collect(core::iter::empty())?,
            elements: 0,
            rules: M::collect(core::iter::empty())?,
        })
    }

    /// Adds the groups and rules of a message.
    ///
    /// # Errors
    /// If an attribute is malformed or unknown, or has no meaning; if there are too many of something; or if there is no
    /// memory. What came before the error has been added.
    pub fn stage(&mut self, attributes: Attributes<'_>) -> Result<(), StageError<M::Error>> {
        for attribute in attributes {
            let attribute = attribute.map_err(Refusal::from)?;
            let refused = |message| Refusal::of(&attribute, message).into();
            match attribute.kind {
                // Who has a configuration knows.
                kind::BEGIN => {}
                kind::GROUP => {
                    let number = u8::try_from(self.groups.len()).ok();
                    let number = number.filter(|&number| usize::from(number) < MAX_GROUPS);
                    let number = number.ok_or_else(|| refused(c"there are 256 groups already"))?;
                    let first = self.upstreams.len();
                    let (mut has_v4, mut has_v6) = (false, false);
                    let group = read_group(&attribute, number, |upstream| {
                        if self.upstreams.len().wrapping_sub(first) >= MAX_MEMBERS {
                            return Err(refused(c"a group has 256 upstreams at most"));
                        }
                        if self.upstreams.len() >= MAX_UPSTREAMS {
                            return Err(refused(c"there are 4096 upstreams already"));
                        }
                        match upstream.family {
                            Family::V4 => has_v4 = true,
                            Family::V6 => has_v6 = true,
                        }
                        M::push(&mut self.upstreams, upstream).map_err(StageError::Memory)
                    })?;
                    let members = Members {
                        group,
                        first,
                        count: self.upstreams.len().wrapping_sub(first),
                        has_v4,
                        has_v6,
                    };
                    M::push(&mut self.groups, members).map_err(StageError::Memory)?;
                }
                kind::RULE => {
                    if self.rules.len() >= MAX_RULES {
                        return Err(refused(c"there are 4096 rules already"));
                    }
                    let rule = read_rule(&attribute)?;
                    self.has_sets_of(&rule).map_err(refused)?;
                    if rule.action == Action::Redirect {
                        let group = self.groups.get(usize::from(rule.group)).ok_or_else(|| {
                            refused(c"the rule's group is not staged, at least not yet")
                        })?;
                        if !group.has(rule.family) {
                            return Err(refused(
                                c"the rule's group has no upstream of its IP version",
                            ));
                        }
                    }
                    M::push(&mut self.rules, rule).map_err(StageError::Memory)?;
                }
                kind::SET => self.stage_set(&attribute)?,
                _ => return Err(refused(UNKNOWN)),
            }
        }
        Ok(())
    }

    // Whether the sets that a rule's conditions name are there.
    fn has_sets_of(&self, rule: &Rule) -> Result<(), &'static core::ffi::CStr> {
        for condition in rule.conditions.iter() {
            let Values::Set(number) = condition.values else {
                continue;
            };
            match self.sets.get(usize::from(number)) {
                None => return Err(c"the condition's set is not staged, at least not yet"),
                Some(set) if set.set.kind != condition.field.kind() => {
                    return Err(c"the condition's set is not of what its field has");
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn stage_set(&mut self, attribute: &Attribute<'_>) -> Result<(), StageError<M::Error>> {
        let refused = |message| Refusal::of(attribute, message);
        let part = SetPart::read(attribute)?;
        let number = part.number as usize;
        match part.set {
            Some(_) if number != self.sets.len() => {
                return Err(refused(c"a set begins with the number of sets before it").into());
            }
            Some(_) if self.sets.len() >= MAX_SETS => {
                return Err(refused(c"there are 4096 sets already").into());
            }
            Some(set) => {
                let staged = Staged::new(set).map_err(StageError::Memory)?;
                M::push(&mut self.sets, staged).map_err(StageError::Memory)?;
            }
            None if number.wrapping_add(1) != self.sets.len() => {
                return Err(
                    refused(c"only the last set is added to; another one needs its kind").into(),
                );
            }
            None => {}
        }
        let (elements, set) = (&mut self.elements, self.sets.last_mut());
        let Some(set) = set else {
            return Ok(());
        };
        read_elements(attribute, |within, element| {
            let refused = |message| StageError::from(Refusal::of(within, message));
            if *elements >= MAX_ELEMENTS {
                return Err(refused(c"all sets together have 1048576 elements already"));
            }
            *elements = elements.wrapping_add(1);
            set.add(element).map_err(|why| match why {
                NotAdded::Kind => refused(c"the set is not of such elements"),
                NotAdded::Whole => refused(c"the set was tried, and is whole since"),
                NotAdded::Order => refused(
                    c"elements are in order, and there is some value between one and the next",
                ),
                NotAdded::Memory(error) => StageError::Memory(error),
            })
        })
    }

    /// Makes its sets whole, after which nothing is added to them.
    ///
    /// # Errors
    /// If there is no memory. It is of no use then.
    pub fn finish(&mut self) -> Result<(), M::Error> {
        self.sets.iter_mut().try_for_each(Staged::finish)
    }

    /// The sets in their order, as they are staged.
    pub fn sets(&self) -> &[Staged<M>] {
        &self.sets
    }

    /// The sets in their order; those that are whole, which all are after [`Self::finish`].
    pub fn whole_sets(&self) -> impl Iterator<Item = &M::Shared<Set<M>>> {
        self.sets.iter().filter_map(Staged::whole)
    }

    /// How much there is of what a namespace has limits for.
    pub fn size(&self) -> Size {
        Size {
            rules: self.rules.len(),
            upstreams: self.upstreams.len(),
            sets: self.sets.len(),
            elements: self.elements,
        }
    }

    /// Whether it has the same groups and upstreams as another one.
    pub fn has_upstreams_of(&self, other: &Self) -> bool {
        self.members().eq(other.members())
    }

    /// The groups in their order.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = Group> + '_ {
        self.groups.iter().map(|members| members.group)
    }

    /// The upstreams of all groups, in their order.
    pub fn upstreams(&self) -> &[Upstream] {
        &self.upstreams
    }

    /// The groups with their upstreams, of either IP version, in their order.
    pub fn members(&self) -> impl Iterator<Item = (Group, &[Upstream])> {
        self.groups.iter().map(|members| {
            let end = members.first.wrapping_add(members.count);
            let upstreams = self.upstreams.get(members.first..end);
            (members.group, upstreams.unwrap_or_default())
        })
    }

    /// The rules in their order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }
}

#[cfg(test)]
mod tests;
