//! What people see of a table: which of its columns, and under which names. Pure.
//!
//! A table may be older than the backend, and then have what the database can't show: a column's name
//! that the database keeps for itself, or more columns than fit. Neither stops a flush. The column has
//! another name there, or none; the exact state has all of them.

use std::borrow::Cow;

use lakesync::adapter::{Capacity, Reserved};
use lakesync::name::{ColumnName, TableName};
use lakesync::schema::{ColumnType, TableSchema};

/// What stands before a name that is reserved. No synced column begins so.
const PREFIX: &str = "_lakesync_";

/// A table as the database shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown<'t> {
    pub(crate) table: &'t TableName,
    /// The name of the key column there.
    pub(crate) key: Cow<'t, str>,
    pub(crate) columns: Vec<ShownColumn<'t>>,
    /// How many more the table has.
    pub(crate) left_out: usize,
}

/// One of its columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShownColumn<'t> {
    /// The column that it shows.
    pub(crate) column: &'t ColumnName,
    /// Its name there.
    pub(crate) name: Cow<'t, str>,
    pub(crate) kind: ColumnType,
}

impl<'t> Shown<'t> {
    /// What a database of this capacity shows of `table`. Tables grow at their end: so a column that
    /// was shown once is shown always.
    pub(crate) fn of(table: &'t TableSchema, capacity: &Capacity) -> Self {
        let count = table.columns.len().min(capacity.columns_max);
        let columns = table.columns[..count].iter().map(|column| ShownColumn {
            column: &column.name,
            name: name(column.name.as_str(), capacity.reserved),
            kind: column.kind,
        });
        Self {
            table: &table.table,
            key: name(table.key.as_str(), capacity.reserved),
            columns: columns.collect(),
            left_out: table.columns.len() - count,
        }
    }

    /// The column that shows this one.
    pub(crate) fn column(&self, column: &ColumnName) -> Option<&ShownColumn<'t>> {
        self.columns.iter().find(|shown| shown.column == column)
    }

    /// The same with one column only, by its place.
    pub(crate) fn only(&self, at: usize) -> Self {
        Self { columns: vec![self.columns[at].clone()], ..self.clone() }
    }

    /// What is not shown as it was declared, for people; nothing if all is.
    pub(crate) fn troubles(&self) -> Vec<String> {
        let table = self.table;
        let renamed = self.columns.iter().filter(|column| *column.name != *column.column.as_str());
        let mut troubles: Vec<_> = renamed
            .map(|column| {
                let (own, name) = (column.column, &column.name);
                format!(
                    "table {table}: column {own} stands under the name {name}, since the database \
                     keeps the other for itself"
                )
            })
            .collect();
        if 0 < self.left_out {
            troubles.push(format!(
                "table {table}: its last {} columns are not shown, since a table has {} there at \
                 most; _lakesync_rows keeps them",
                self.left_out,
                self.columns.len()
            ));
        }
        troubles
    }
}

fn name(name: &str, reserved: Reserved) -> Cow<'_, str> {
    match reserved.find(name) {
        Some(_) => format!("{PREFIX}{name}").into(),
        None => name.into(),
    }
}

#[cfg(test)]
mod tests {
    use lakesync::schema::Column;

    use super::*;

    #[test]
    fn what_can_t_be_shown_is_told() {
        let columns = ["a", "Xmin", "c"];
        let table = TableSchema {
            table: "t".parse().expect("legal"),
            version: 1,
            key: "ctid".parse().expect("legal"),
            columns: (1..)
                .zip(columns)
                .map(|(field_id, name)| Column {
                    name: name.parse().expect("legal"),
                    kind: ColumnType::Int64,
                    field_id,
                })
                .collect(),
            primary_key: Vec::new(),
        };
        let all = Shown::of(&table, &Capacity::ALL);
        let names = |shown: &Shown<'_>| {
            shown.columns.iter().map(|column| column.name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!((&*all.key, names(&all)), ("ctid", columns.map(str::to_owned).to_vec()));
        assert_eq!(all.troubles(), Vec::<String>::new());
        let narrow = Capacity { columns_max: 2, reserved: Reserved::POSTGRES, ..Capacity::ALL };
        let some = Shown::of(&table, &narrow);
        assert_eq!((&*some.key, some.left_out), ("_lakesync_ctid", 1));
        assert_eq!(names(&some), ["a", "_lakesync_Xmin"]);
        assert_eq!(names(&some.only(1)), ["_lakesync_Xmin"]);
        let troubles = some.troubles();
        assert_eq!(troubles.len(), 2, "{troubles:?}");
        assert!(troubles[0].contains("column Xmin stands under the name _lakesync_Xmin"));
        assert!(troubles[1].contains("last 1 columns are not shown"));
    }
}
