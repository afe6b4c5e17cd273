//! Two images of a row → what happened between them.

use std::collections::BTreeMap;

use super::{Cell, Op};
use crate::name::ColumnName;
use crate::value::Value;

/// A row as an application sees it: a value per column.
pub type Image = BTreeMap<ColumnName, Value>;

/// What turns `before` into `after`, where `None` is a row that does not exist; `None` if they are
/// the same.
///
/// A new row carries all of its columns, NULLs too: the cells of an older life of the row would
/// otherwise show through. A column that `after` lacks became NULL.
pub fn diff(before: Option<&Image>, after: Option<&Image>) -> Option<Op> {
    let cell = |(column, value): (&ColumnName, &Value)| Cell {
        column: column.clone(),
        value: value.clone(),
    };
    match (before, after) {
        (None, None) => None,
        (Some(_), None) => Some(Op::Delete),
        (None, Some(after)) => Some(Op::Upsert(after.iter().map(cell).collect())),
        (Some(before), Some(after)) => {
            let changed =
                after.iter().filter(|(column, value)| before.get(*column) != Some(*value));
            let gone = before.keys().filter(|column| !after.contains_key(*column));
            let nulls = gone.map(|column| Cell { column: column.clone(), value: Value::Null });
            let cells: Vec<_> = changed.map(cell).chain(nulls).collect();
            (!cells.is_empty()).then_some(Op::Upsert(cells))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing;

    /// Applies an operation to an image, the way a replica's table would.
    fn apply(image: Option<Image>, op: Option<Op>) -> Option<Image> {
        match op {
            None => image,
            Some(Op::Delete) => None,
            Some(Op::Upsert(cells)) => {
                let mut image = image.unwrap_or_default();
                image.extend(cells.into_iter().map(|cell| (cell.column, cell.value)));
                Some(image)
            }
        }
    }

    /// NULL and absent mean the same to an application.
    fn shown(image: Option<Image>) -> Option<Image> {
        image.map(|image| image.into_iter().filter(|(_, value)| *value != Value::Null).collect())
    }

    proptest! {
        #[test]
        fn a_diff_turns_the_first_image_into_the_second(
            before in testing::image(), after in testing::image(),
        ) {
            let op = diff(before.as_ref(), after.as_ref());
            prop_assert_eq!(shown(apply(before, op)), shown(after));
        }

        #[test]
        fn equal_images_have_no_diff(image in testing::image()) {
            prop_assert_eq!(diff(image.as_ref(), image.as_ref()), None);
        }
    }
}
