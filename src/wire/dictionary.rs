//! Names that travel once, in front of what refers to them by their place.

use std::collections::HashMap;
use std::fmt::Display;
use std::hash::Hash;

use crate::proto::v1::TableChanges;

/// Up to this many names are found by looking at each, which is faster than hashing.
const SEARCHED_MAX: usize = 16;

/// Distinct names in the order they were first used.
#[derive(Debug)]
pub(super) struct Dictionary<N> {
    names: Vec<N>,
    /// The places of all names, once they are too many to look at each.
    places: HashMap<N, usize>,
}

impl<N> Default for Dictionary<N> {
    fn default() -> Self {
        Self { names: Vec::new(), places: HashMap::new() }
    }
}

impl<N: Clone + Eq + Hash> Dictionary<N> {
    /// The place of a name, where it is put if it is new. Changes of one table mostly list the same
    /// columns in the same order, so the place in the change, `hint`, is tried first.
    pub(super) fn place(&mut self, name: &N, hint: usize) -> u32 {
        let at = match self.names.get(hint) {
            Some(known) if known == name => hint,
            _ => self.find(name).unwrap_or_else(|| self.add(name)),
        };
        u32::try_from(at).expect("BUG: names are bounded")
    }

    /// The names, each at its place.
    pub(super) fn names(&self) -> &[N] {
        &self.names
    }

    fn find(&self, name: &N) -> Option<usize> {
        if self.names.len() <= SEARCHED_MAX {
            return self.names.iter().position(|known| known == name);
        }
        self.places.get(name).copied()
    }

    fn add(&mut self, name: &N) -> usize {
        let at = self.names.len();
        self.names.push(name.clone());
        if at == SEARCHED_MAX {
            self.places.extend(self.names.iter().cloned().zip(0..));
        } else if SEARCHED_MAX < at {
            self.places.insert(name.clone(), at);
        }
        at
    }
}

impl<N: Display> Dictionary<N> {
    /// The names as a message carries them.
    pub(super) fn into_texts(self) -> Vec<String> {
        self.names.iter().map(N::to_string).collect()
    }
}

/// Leaves out of `changes` the names that none of their rows refers to any more: whoever may not have a
/// row is not to learn who wrote it.
pub fn forget_unused_names(changes: &mut TableChanges) {
    let (mut columns, mut clients) = (Dictionary::default(), Dictionary::default());
    for row in &mut changes.rows {
        let cells = row.cells.iter_mut().enumerate();
        let own = cells.filter_map(|(hint, cell)| {
            cell.column = columns.place(&cell.column, hint);
            cell.stamp.as_mut()
        });
        for stamp in own.chain(row.stamp.as_mut()) {
            stamp.client = clients.place(&stamp.client, 0);
        }
    }
    let used = |names: &[String], places: &Dictionary<u32>| {
        let name = |place: &u32| names.get(*place as usize).cloned();
        places.names().iter().filter_map(name).collect()
    };
    changes.columns = used(&changes.columns, &columns);
    changes.clients = used(&changes.clients, &clients);
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::testing;
    use crate::wire::encode_rows;

    proptest! {
        #[test]
        fn each_name_has_the_place_of_its_first_use(used in vec((0..40_u8, 0..40_usize), 0..200)) {
            let (mut dictionary, mut first) = (Dictionary::default(), Vec::new());
            for (name, hint) in used {
                if !first.contains(&name) {
                    first.push(name);
                }
                let place = dictionary.place(&name, hint) as usize;
                prop_assert_eq!(first.get(place), Some(&name));
            }
            prop_assert_eq!(dictionary.names(), &first);
        }
    }

    #[test]
    fn names_of_rows_that_were_taken_out_go_with_them() {
        let table = testing::id("todos");
        let rows = ["ann@1 title=milk", "bob@2 done=yes", "cyd@3 done=no"].map(testing::delta);
        let rows = rows.map(|delta| (testing::id("r"), testing::fold(&[delta])));
        let all = || encode_rows(&table, 3, rows.iter().map(|(id, row)| (id, row)));
        let mut fewer = all();
        fewer.rows.remove(0);
        forget_unused_names(&mut fewer);
        assert_eq!(
            (fewer.columns.len(), &fewer.clients[..]),
            (1, &["bob".into(), "cyd".into()][..])
        );
        let left = encode_rows(&table, 3, rows[1..].iter().map(|(id, row)| (id, row)));
        assert_eq!(fewer, left);
        let mut whole = all();
        forget_unused_names(&mut whole);
        assert_eq!(whole, all());
    }
}
