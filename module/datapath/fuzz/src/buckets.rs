// SPDX-License-Identifier: GPL-2.0

//! Changes of buckets beside a map that has to say the same, some of them while the table is
//! being resized. What was unlinked is really freed, after a grace period.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use mutex_datapath::host::{Boxes, Heads, Sections};
use mutex_datapath::link::{Buckets, Editor, Found, Owned, Rcu};

use super::input::Input;

const KEYS: u32 = 48;

#[derive(Clone, Copy, Debug, PartialEq)]
struct Place {
    keys: [u32; 2],
    direction: usize,
}

// Something that is freed with its node.
struct Value(Box<[u32; 2]>, #[allow(dead_code)] Arc<()>);

struct World<'a> {
    input: RefCell<Input<'a>>,
    buckets: Buckets<u32, Value, Heads<u32, Value>, Mutex<()>>,
    model: RefCell<BTreeMap<u32, Place>>,
    spread: usize,
    alive: Arc<()>,
    resizing: Cell<bool>,
    steps: Cell<usize>,
}

fn heads(bits: usize) -> Heads<u32, Value> {
    Heads::new(1 << bits)
}

impl World<'_> {
    fn hash(&self, key: u32) -> usize {
        let hash = (key as usize).wrapping_mul(self.spread) >> 4;
        (hash as u32).reverse_bits() as usize
    }

    // By the highest bits of a hash.
    fn bucket(hash: usize, count: usize) -> usize {
        hash.wrapping_mul(count) >> 32
    }

    fn key(&self) -> u32 {
        u32::from(self.input.borrow_mut().u8()) % KEYS
    }

    fn insert(&self) {
        let keys = [self.key(), self.key()];
        let mut model = self.model.borrow_mut();
        if keys[0] == keys[1] || keys.iter().any(|key| model.contains_key(key)) {
            return;
        }
        let value = Value(Box::new(keys), self.alive.clone());
        let node = Owned::new(&Boxes, keys, value).expect("memory");
        let hashes = keys.map(|key| self.hash(key));
        Sections::read(|guard| {
            self.buckets.edit(|editor| {
                editor.publish(guard, node, hashes);
            });
        });
        for direction in 0..2 {
            model.insert(keys[direction], Place { keys, direction });
        }
    }

    fn forget(&self, keys: &[u32; 2]) {
        let mut model = self.model.borrow_mut();
        for key in keys {
            assert!(model.remove(key).is_some());
        }
    }

    fn remove(&self, key: u32) {
        let known = self.model.borrow().get(&key).copied();
        let removed = Sections::read(|guard| {
            let node = self.buckets.lookup(guard, self.hash(key), &key)?.node;
            let [first, second] = [0, 1].map(|direction| self.hash(*node.key(direction)));
            let unlink = |hashes| {
                let unlinked = |editor: &mut Editor<'_, _, _, _, _>| {
                    editor.unlink(guard, &Boxes, node, hashes).is_some()
                };
                self.buckets.edit(unlinked)
            };
            let count = self.buckets.count(guard);
            if Self::bucket(first, count) != Self::bucket(second, count) {
                assert!(!unlink([second, first]), "from buckets that it is not on");
            }
            assert!(unlink([first, second]));
            assert!(!unlink([first, second]), "twice");
            // Who has found it may still look.
            Some(*node.0)
        });
        assert_eq!(removed, known.map(|place| place.keys));
        if let Some(keys) = removed {
            self.forget(&keys);
        }
    }

    // Unlinks what is in one bucket, in part.
    fn sweep(&self, how: u8) {
        let gone = RefCell::new(Vec::new());
        Sections::read(|guard| {
            let bucket = usize::from(how) & (self.buckets.count(guard) - 1);
            self.buckets.edit(|editor| {
                editor.walk(guard, bucket, |editor, found| {
                    let keys = *found.node.0;
                    if keys[0] % 3 == u32::from(how) % 3 {
                        return;
                    }
                    let hashes = keys.map(|key| self.hash(key));
                    let unlinked = editor.unlink(guard, &Boxes, found.node, hashes);
                    let first = !gone.borrow().contains(&keys);
                    assert_eq!(unlinked.is_some(), first);
                    if first {
                        gone.borrow_mut().push(keys);
                    }
                });
            });
            let count = self.buckets.count(guard);
            let on_it = |key: &u32| Self::bucket(self.hash(*key), count) == bucket;
            let model = self.model.borrow();
            let expected = model
                .iter()
                .filter(|(key, place)| on_it(key) && place.keys[0] % 3 != u32::from(how) % 3);
            let mut expected: Vec<_> = expected.map(|(_, place)| place.keys).collect();
            expected.sort_unstable();
            expected.dedup();
            gone.borrow_mut().sort_unstable();
            assert_eq!(*gone.borrow(), expected);
        });
        for keys in gone.into_inner() {
            self.forget(&keys);
        }
    }

    fn resize(&self, bits: usize) {
        let heads = heads(bits);
        let count = heads.len();
        if self.resizing.replace(true) {
            let back = self.buckets.resize::<Sections>(heads, |_| 0, || {});
            assert_eq!(back.map(|heads| heads.len()), Some(count), "one at a time");
            return;
        }
        let before = Sections::read(|guard| self.buckets.count(guard));
        let hash = |key: &u32| self.hash(*key);
        let between = || {
            for _ in 0..2 {
                self.step();
            }
        };
        let old = self.buckets.resize::<Sections>(heads, hash, between);
        self.resizing.set(false);
        assert_eq!(old.map(|heads| heads.len()), Some(before));
        assert_eq!(Sections::read(|guard| self.buckets.count(guard)), count);
    }

    fn step(&self) {
        if self.input.borrow().is_empty() {
            return;
        }
        let how = self.input.borrow_mut().u8();
        match how & 15 {
            0..7 => self.insert(),
            7..10 => self.remove(self.key()),
            10 | 11 => self.sweep(how >> 4),
            12 | 13 => self.resize(usize::from(how >> 4) % 10),
            14 => Sections::synchronize(),
            _ => {
                let odd = Heads::new(usize::from(how >> 4));
                let length = odd.len();
                if !length.is_power_of_two() {
                    let back = self.buckets.resize::<Sections>(odd, |_| 0, || {});
                    assert_eq!(back.map(|heads| heads.len()), Some(length));
                }
            }
        }
        self.check();
    }

    fn check(&self) {
        let model = self.model.borrow();
        Sections::read(|guard| {
            for key in 0..KEYS {
                let expected = model.get(&key).copied();
                let place = |found: Found<'_, u32, Value>| {
                    assert_eq!(*found.key(), key);
                    assert_eq!(found.node.key(found.direction), found.key());
                    Place {
                        keys: *found.node.0,
                        direction: found.direction,
                    }
                };
                let hash = self.hash(key);
                let found = self.buckets.lookup(guard, hash, &key).map(place);
                assert_eq!(found, expected);
            }
        });
        // Now and then: there may be many buckets.
        let steps = self.steps.get();
        self.steps.set(steps + 1);
        if steps.is_multiple_of(8) {
            assert_eq!(self.entries(), model.len());
        }
    }

    fn entries(&self) -> usize {
        let mut entries = 0;
        Sections::read(|guard| {
            for bucket in 0..self.buckets.count(guard) {
                entries += self.buckets.entries(guard, bucket).count();
            }
        });
        entries
    }
}

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    // From all in one bucket to all on different ones.
    let spread = usize::from(input.u8());
    let world = World {
        input: RefCell::new(input),
        buckets: Buckets::new(heads(2), Mutex::new(())).expect("a power of two"),
        model: RefCell::default(),
        spread,
        alive: Arc::new(()),
        resizing: Cell::new(false),
        steps: Cell::new(0),
    };
    while !world.input.borrow().is_empty() {
        world.step();
    }
    assert_eq!(world.entries(), world.model.borrow().len());
    for key in 0..KEYS {
        world.remove(key);
    }
    assert_eq!(world.entries(), 0);
    Sections::synchronize();
    assert_eq!(Arc::strong_count(&world.alive), 1, "all are given back");
}
