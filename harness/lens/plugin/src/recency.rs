// SPDX-License-Identifier: MIT OR Apache-2.0

//! One set of many ways: what a fully associative cache holds. Its lines are chained in the order of their
//! last use, so that no access takes longer for their number.

use super::line::LineId;

/// No place.
const NONE: u32 = u32::MAX;

/// A place for a line.
#[derive(Clone, Copy, Debug)]
struct Place {
    line: LineId,
    /// The place of the line that was used next after this one.
    newer: u32,
    /// The place of the line that was used last before this one; of a free place, the next free one.
    older: u32,
}

/// Lines, as many as there are ways at most, of which the least recently used makes room.
#[derive(Clone, Debug)]
pub struct Recency {
    ways: usize,
    /// Those that were ever taken.
    places: Vec<Place>,
    /// Where each line is, by its id, as far as lines with such ids have been here.
    place_of: Vec<u32>,
    newest: u32,
    oldest: u32,
    free: u32,
}

impl Recency {
    /// One for so many lines, at least one, which holds none.
    pub fn new(ways: usize) -> Self {
        Self {
            ways,
            places: Vec::new(),
            place_of: Vec::new(),
            newest: NONE,
            oldest: NONE,
            free: NONE,
        }
    }

    /// Empties it.
    pub fn clear(&mut self) {
        *self = Self::new(self.ways);
    }

    fn find(&self, line: LineId) -> Option<u32> {
        let place = self.place_of.get(line as usize).copied();
        place.filter(|&place| place != NONE)
    }

    /// Whether it holds the line; changes nothing.
    pub fn holds(&self, line: LineId) -> bool {
        self.find(line).is_some()
    }

    /// Whether it holds the line. If so, the line is the most recently used from now on.
    pub fn touch(&mut self, line: LineId) -> bool {
        let Some(place) = self.find(line) else {
            return false;
        };
        if place != self.newest {
            self.unchain(place);
            self.chain(place);
        }
        true
    }

    /// Takes in a line that it does not hold; which one had to go for that, if it was full.
    pub fn insert(&mut self, line: LineId) -> Option<LineId> {
        let (place, evicted) = self.vacate();
        self.places[place as usize].line = line;
        if self.place_of.len() <= line as usize {
            self.place_of.resize(line as usize + 1, NONE);
        }
        self.place_of[line as usize] = place;
        self.chain(place);
        evicted
    }

    /// Gives up a line, if it holds it.
    pub fn remove(&mut self, line: LineId) {
        if let Some(place) = self.find(line) {
            self.place_of[line as usize] = NONE;
            self.unchain(place);
            self.places[place as usize].older = self.free;
            self.free = place;
        }
    }

    // A place that is on no chain, and whose line had to go for that.
    fn vacate(&mut self) -> (u32, Option<LineId>) {
        if self.free != NONE {
            let place = self.free;
            self.free = self.places[place as usize].older;
            return (place, None);
        }
        if self.places.len() < self.ways {
            self.places.push(Place {
                line: LineId::MAX,
                newer: NONE,
                older: NONE,
            });
            return (self.places.len() as u32 - 1, None);
        }
        let place = self.oldest;
        let evicted = self.places[place as usize].line;
        self.place_of[evicted as usize] = NONE;
        self.unchain(place);
        (place, Some(evicted))
    }

    // Makes a place that is on no chain the newest.
    fn chain(&mut self, place: u32) {
        let older = std::mem::replace(&mut self.newest, place);
        let this = &mut self.places[place as usize];
        (this.newer, this.older) = (NONE, older);
        match older {
            NONE => self.oldest = place,
            older => self.places[older as usize].newer = place,
        }
    }

    fn unchain(&mut self, place: u32) {
        let Place { newer, older, .. } = self.places[place as usize];
        match newer {
            NONE => self.newest = older,
            newer => self.places[newer as usize].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.places[older as usize].newer = newer,
        }
    }
}
