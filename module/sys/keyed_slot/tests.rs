// SPDX-License-Identifier: GPL-2.0

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::Barrier;
use std::thread;

use super::{KeyedSlot, Lost, BUSY};

const KEYS: u64 = 2;

// A word of `key` in its upper half, and a version, as the words of IPv4's routes.
fn word(key: u64, old: u64) -> u64 {
    (key << 32) | ((old + 1) & 0xffff_ffff)
}

#[test]
fn an_empty_slot_gives_nothing() {
    let slot = KeyedSlot::<u64>::default();
    assert_eq!(slot.get(|_| true), None);
}

#[test]
fn a_slot_gives_what_is_of_the_word() {
    let mut value = 5;
    let mut slot = KeyedSlot::default();
    let before = slot.turn().unwrap().replace(7, &mut value);
    assert_eq!(before, Ok(ptr::null_mut()));
    assert_eq!(slot.get(|word| word == 8), None);
    let found = slot.get(|word| word == 7).unwrap();
    assert_eq!(found.as_ptr(), &raw mut value);
    assert_eq!(slot.take(), &raw mut value);
    assert_eq!(slot.get(|_| true), None);
}

#[test]
fn one_writer_at_a_time() {
    let (mut first, mut second) = (1, 2);
    let slot = KeyedSlot::default();
    let (one, other) = (slot.turn().unwrap(), slot.turn().unwrap());
    assert_eq!(one.replace(7, &mut first), Ok(ptr::null_mut()));
    assert_eq!(other.replace(8, &mut second), Err(Lost));
    assert_eq!(slot.get(|word| word == 7).unwrap().as_ptr(), &raw mut first);

    slot.word.store(BUSY, Ordering::Relaxed);
    assert!(slot.turn().is_none());
}

// Whoever asks for a key gets a value of that key, while two writers put in values of either.
#[test]
fn weak_nobody_gets_what_is_of_another_key() {
    const TIMES: usize = if cfg!(miri) { 8 } else { 500_000 };

    let mut values = [0, 1];
    let values = values.each_mut().map(|value| AtomicPtr::new(value));
    let value = |key: u64| values[usize::try_from(key).unwrap()].load(Ordering::Relaxed);
    let slot = KeyedSlot::<u64>::default();
    let begun = Barrier::new(4);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                begun.wait();
                for key in (0..KEYS).cycle().take(TIMES) {
                    let Some(turn) = slot.turn() else { continue };
                    let word = word(key, turn.word());
                    let _ = turn.replace(word, value(key));
                }
            });
        }
        for key in 0..KEYS {
            let (slot, begun, value) = (&slot, &begun, &value);
            scope.spawn(move || {
                begun.wait();
                for _ in 0..TIMES {
                    if let Some(found) = slot.get(|word| word >> 32 == key) {
                        assert_eq!(found.as_ptr(), value(key), "of key {key}");
                    }
                }
            });
        }
    });
}
