// SPDX-License-Identifier: MIT OR Apache-2.0

//! Who is compared: each thing has the same style all over the page.

/// The subject that this project is about, which the others are compared with.
pub const OURS: &str = "module";

/// Styles by name, given in the order in which names are first seen; ours is the first.
#[derive(Debug)]
pub struct Styles(Vec<String>);

impl Styles {
    /// For the names of subjects.
    pub fn new<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let mut styles = Self(vec![OURS.to_owned()]);
        for name in names {
            styles.of(name);
        }
        styles
    }

    /// A name's style.
    pub fn of(&mut self, name: &str) -> usize {
        if let Some(style) = self.0.iter().position(|known| known == name) {
            return style;
        }
        self.0.push(name.to_owned());
        self.0.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use mutexlab_model::subject::Subject;

    use super::*;

    #[test]
    fn ours_is_the_module() {
        assert_eq!(Subject::MODULE.name(), OURS);
    }
}
