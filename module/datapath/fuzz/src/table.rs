// SPDX-License-Identifier: GPL-2.0

//! Changes of a table of flows beside a map, some of them while the table grows.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Mutex;

use mutex_abi::proxy::Protocol;
use mutex_datapath::flow::{Direction, Flow, Owner};
use mutex_datapath::host::{self, Boxes, Sections};
use mutex_datapath::link::{Owned, Rcu};
use mutex_datapath::table::{FlowNode, Table, FAR};
use mutex_datapath::tuple::{Address, Ports, Tuple, V4, V6};

use super::input::Input;

// Clients and servers are few, so that tuples meet.
const NUMBERS: u8 = 64;

// What a flow was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    number: u8,
    port: u8,
}

fn host<A: Address>(number: u8) -> A {
    A::from_bytes([number; 16])
}

// Servers are hosts, too: a flow's upstream may be a client of another.
fn original<A: Address>(number: u8) -> Tuple<A> {
    let protocol = if number & 1 == 0 {
        Protocol::Tcp
    } else {
        Protocol::Udp
    };
    let ports = Ports::new(u16::from(number >> 1 & 3), u16::from(number >> 3 & 1));
    Tuple::new(protocol, host(number >> 4), host(number >> 5), ports)
}

impl Name {
    fn keys<A: Address>(self) -> [Tuple<A>; 2] {
        let original = original(self.number);
        [original, self.upstream().reverse()]
    }

    fn upstream<A: Address>(self) -> Tuple<A> {
        let upstream = host(self.port & 1);
        original(self.number).to(upstream, u16::from(self.port >> 1 & 1))
    }

    // The higher, the sooner it makes room; some never do.
    fn rank(self) -> Option<u32> {
        (!self.number.is_multiple_of(4)).then_some(u32::from(self.number))
    }

    fn of<A: Address>(flow: &FlowNode<A, Name>) -> Self {
        *flow.route(Direction::Original)
    }
}

impl Default for Name {
    fn default() -> Self {
        NEXT.get()
    }
}

thread_local! {
    // The name of the flow that is made next.
    static NEXT: Cell<Name> = const { Cell::new(Name { number: 0, port: 0 }) };
}

type Heads<A> = host::Heads<Tuple<A>, Flow<Name>>;

struct World<'a, A: Address> {
    input: RefCell<Input<'a>>,
    table: Table<A, Name, Heads<A>, Mutex<()>>,
    seed: A::Seed,
    // By the names of flows, since tuples have no order.
    model: RefCell<BTreeMap<Name, [Tuple<A>; 2]>>,
    resizing: Cell<bool>,
    steps: Cell<u8>,
}

fn heads<A: Address>(bits: usize) -> Heads<A> {
    Heads::new(1 << bits)
}

impl<A: Address> World<'_, A> {
    fn u8(&self) -> u8 {
        self.input.borrow_mut().u8()
    }

    fn find_in_model(&self, tuple: &Tuple<A>) -> Option<(Name, Direction)> {
        self.model.borrow().iter().find_map(|(name, keys)| {
            let direction = keys.iter().position(|key| key == tuple)?;
            Some((*name, Direction::from_index(direction)))
        })
    }

    fn insert(&self) {
        let name = Name {
            number: self.u8() % NUMBERS,
            port: self.u8() & 3,
        };
        let keys = name.keys::<A>();
        let taken = keys.iter().any(|key| self.find_in_model(key).is_some());
        if taken || keys[0] == keys[1] {
            return;
        }
        let owner = Owner {
            context: 0,
            upstream: Owner::NOBODY.upstream,
        };
        NEXT.set(name);
        let (made, flow) = Flow::<Name>::new(&keys[0], &name.upstream(), owner, 0);
        assert_eq!(made, keys);
        let flow = Owned::new(&Boxes, made, flow).expect("memory");
        Sections::read(|guard| {
            self.table.edit(|edit| {
                edit.insert(guard, flow);
            });
        });
        self.model.borrow_mut().insert(name, keys);
    }

    fn remove(&self, tuple: &Tuple<A>) {
        let expected = self.find_in_model(tuple);
        let removed = Sections::read(|guard| {
            let (flow, direction) = self.table.lookup(guard, tuple)?;
            let remove = || {
                self.table
                    .edit(|edit| edit.remove(guard, &Boxes, flow).is_some())
            };
            assert!(remove());
            assert!(!remove(), "twice");
            Some((Name::of(flow), direction))
        });
        assert_eq!(removed, expected);
        if let Some((name, _)) = removed {
            self.model.borrow_mut().remove(&name);
        }
    }

    // Takes some flows out of one bucket, or off all: a flow is on that of its original direction.
    fn sweep(&self, how: u8) {
        let goes = |name: Name| name.number & 3 != how & 3;
        Sections::read(|guard| {
            let buckets = self.table.buckets(guard);
            let first = usize::from(how >> 3) % buckets;
            let range = if how & 4 == 0 {
                first..first + 1
            } else {
                0..buckets
            };
            for bucket in range {
                let mut gone = Vec::new();
                let swept = self.table.edit(|edit| {
                    edit.sweep(guard, &Boxes, bucket, |flow| {
                        let name = Name::of(flow);
                        gone.extend(goes(name).then_some(name));
                        goes(name)
                    })
                });
                assert_eq!(swept, gone.len());
                gone.sort_unstable();
                let here = |keys: &[Tuple<A>; 2]| {
                    (keys[0].hash(&self.seed) as usize * buckets) >> 32 == bucket
                };
                let mut model = self.model.borrow_mut();
                let expected = model
                    .iter()
                    .filter(|(name, keys)| goes(**name) && here(keys));
                assert!(expected.map(|(name, _)| name).eq(&gone));
                model.retain(|name, _| !gone.contains(name));
            }
        });
    }

    fn early_drop(&self, number: u8) {
        let made_room = Sections::read(|guard| {
            let rank = |flow: &FlowNode<A, Name>| Name::of(flow).rank();
            let near = original(number % NUMBERS);
            self.table
                .edit(|edit| edit.early_drop(guard, &Boxes, &near, FAR, rank))
        });
        let mut model = self.model.borrow_mut();
        let left = Sections::read(|guard| {
            let is_left = |keys: &[Tuple<A>; 2]| self.table.lookup(guard, &keys[0]).is_some();
            let left: Vec<Name> = model
                .iter()
                .filter(|(_, keys)| is_left(keys))
                .map(|(name, _)| *name)
                .collect();
            (left, self.table.buckets(guard))
        });
        let (left, buckets) = left;
        let ranks: Vec<_> = model.keys().filter_map(|name| name.rank()).collect();
        // There are never more buckets here than it looks at.
        assert_eq!(made_room, !ranks.is_empty());
        assert_eq!(left.len() + usize::from(made_room), model.len());
        let gone = model.keys().copied().find(|name| !left.contains(name));
        if let Some(name) = gone {
            assert!(name.rank().is_some());
            // In a few buckets it looks at all.
            assert!(buckets > 8 || name.rank() == ranks.into_iter().max());
            model.remove(&name);
        }
    }

    fn resize(&self, bits: usize) {
        if self.resizing.replace(true) {
            return;
        }
        let between = || {
            for _ in 0..4 {
                self.step();
            }
        };
        let old = self.table.resize::<Sections>(heads(bits), between);
        self.resizing.set(false);
        assert!(old.is_some());
        assert_eq!(Sections::read(|guard| self.table.buckets(guard)), 1 << bits);
    }

    fn step(&self) {
        if self.input.borrow().is_empty() {
            return;
        }
        let how = self.u8();
        match how & 15 {
            0..8 => self.insert(),
            8 | 9 => {
                let name = Name {
                    number: self.u8() % NUMBERS,
                    port: how >> 4,
                };
                self.remove(&name.keys()[usize::from(how >> 7)]);
            }
            10 | 11 => self.sweep(self.u8()),
            12 => self.early_drop(self.u8()),
            13 | 14 => self.resize(usize::from(how >> 4) % 9),
            _ => Sections::synchronize(),
        }
        self.check();
    }

    fn check(&self) {
        let model = self.model.borrow();
        assert_eq!(self.table.flows(), model.len());
        Sections::read(|guard| {
            let named =
                |(flow, direction): (&FlowNode<A, Name>, Direction)| (Name::of(flow), direction);
            for (name, keys) in model.iter() {
                for direction in Direction::ALL {
                    let key = &keys[direction as usize];
                    let found = self.table.lookup(guard, key).map(named);
                    assert_eq!(found, Some((*name, direction)));
                }
            }
            let buckets = 0..self.table.buckets(guard);
            let entries: usize = buckets.map(|bucket| self.table.length(guard, bucket)).sum();
            assert_eq!(entries, 2 * model.len());
        });
        drop(model);
        // Nobody finds what is not there: one a step.
        let number = self.steps.get() % NUMBERS;
        self.steps.set(number + 1);
        self.check_one(&original(number));
    }

    fn check_one(&self, tuple: &Tuple<A>) {
        let found = Sections::read(|guard| {
            let (flow, direction) = self.table.lookup(guard, tuple)?;
            Some((Name::of(flow), direction))
        });
        assert_eq!(found, self.find_in_model(tuple));
    }
}

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    if input.u8() & 1 == 0 {
        change::<V4>(input);
    } else {
        change::<V6>(input);
    }
}

fn change<A: Address>(mut input: Input<'_>) {
    let seed = A::Seed::from(u32::from(input.u8()));
    let table = Table::new(heads(2), Mutex::new(()), seed).expect("a power of two");
    let world = World::<A> {
        input: RefCell::new(input),
        table,
        seed,
        model: RefCell::default(),
        resizing: Cell::new(false),
        steps: Cell::new(0),
    };
    while !world.input.borrow().is_empty() {
        world.step();
    }
    for number in 0..NUMBERS {
        world.check_one(&original(number));
    }
    for number in 0..NUMBERS {
        world.remove(&original(number));
    }
    world.check();
    Sections::synchronize();
}
