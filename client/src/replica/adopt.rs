//! Adopting: tables that an application has already become synced ones.
//!
//! The gateway is told first, then the file: an adoption that breaks off in between is simply made
//! again.

use lakesync::error::Reason;
use lakesync::name::{ColumnName, TableName};
use lakesync::schema::{Proposal, TableSchema};
use lakesync::status::Problem;

use super::{Core, SyncError};
use crate::db::{Candidate, DbError};

/// Why tables can't be adopted. Those of them that were adopted before still are.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// There is no such table in the file.
    #[error("there is no table {table} in the database")]
    NoSuchTable {
        /// What was asked for.
        table: TableName,
    },
    /// The table can't be synced.
    #[error("table {table} can't be synced: {why}")]
    Refused {
        /// Which.
        table: TableName,
        /// Its reason.
        why: String,
    },
    /// The gateway has a table of this name whose rows are told apart otherwise.
    #[error(
        "table {table} exists at the gateway with the key ({declared}), here with ({own}); rename \
         one of them"
    )]
    OtherKey {
        /// Which.
        table: TableName,
        /// The gateway's key.
        declared: String,
        /// The file's.
        own: String,
    },
    /// The gateway's word, or the local database's.
    #[error(transparent)]
    Sync(#[from] SyncError),
}

impl From<Problem> for AdoptError {
    fn from(problem: Problem) -> Self {
        Self::Sync(problem.into())
    }
}

impl From<DbError> for AdoptError {
    fn from(error: DbError) -> Self {
        Self::Sync(error.into())
    }
}

impl Core {
    pub(super) async fn adopt(&self, tables: &[TableName]) -> Result<(), AdoptError> {
        let candidates = self.db.inspect().await?;
        let proposals = tables.iter().map(|table| proposal(&candidates, table));
        let proposals = proposals.collect::<Result<Vec<_>, _>>()?;
        let declared = self.declared().await?;
        let (installed, _) = self.db.installed().await?;
        let mut wanted = Vec::new();
        for proposal in proposals {
            wanted.extend(missing(&declared, as_before(&installed, proposal))?);
        }
        if !wanted.is_empty() {
            self.transport.put_schema(&self.gateway, &wanted).await?;
        }
        self.refresh_schema().await?;
        self.db.adopt(tables).await?;
        self.count().await?;
        Ok(())
    }

    /// The tables of the gateway, which is created if there is none.
    async fn declared(&self) -> Result<Vec<TableSchema>, Problem> {
        match self.transport.schema(&self.gateway).await {
            Err(problem) if problem.reason == Some(Reason::GatewayNotFound) => {
                self.transport.create_gateway(&self.gateway).await?;
                Ok(Vec::new())
            }
            outcome => outcome,
        }
    }
}

fn proposal(candidates: &[Candidate], table: &TableName) -> Result<Proposal, AdoptError> {
    let found = candidates.iter().find(|candidate| candidate.table == table.as_str());
    match found.map(|candidate| &candidate.verdict) {
        None => Err(AdoptError::NoSuchTable { table: table.clone() }),
        Some(Err(why)) => Err(AdoptError::Refused { table: table.clone(), why: why.clone() }),
        Some(Ok(adoptable)) => Ok(adoptable.proposal.clone()),
    }
}

/// The table as it was declared once, with what the file has beside that: a gateway that was made
/// anew is told all that replicas hold of it.
fn as_before(installed: &[TableSchema], proposal: Proposal) -> Proposal {
    match installed.iter().find(|known| known.table == proposal.table) {
        Some(known) if known.primary_key == proposal.primary_key => grown(known, proposal),
        _ => proposal,
    }
}

/// What the gateway lacks of a table: nothing, or the table with all that it has and will have.
/// Types that the gateway has chosen stay.
fn missing(declared: &[TableSchema], proposal: Proposal) -> Result<Option<Proposal>, AdoptError> {
    let Some(known) = declared.iter().find(|known| known.table == proposal.table) else {
        return Ok(Some(proposal));
    };
    if known.primary_key != proposal.primary_key {
        let (declared, own) = (words(&known.primary_key), words(&proposal.primary_key));
        return Err(AdoptError::OtherKey { table: proposal.table, declared, own });
    }
    let grown = grown(known, proposal);
    Ok((known.columns.len() < grown.columns.len()).then_some(grown))
}

/// The table as it is known, and the columns that only the proposal has.
fn grown(known: &TableSchema, proposal: Proposal) -> Proposal {
    let mut columns: Vec<_> =
        known.columns.iter().map(|column| (column.name.clone(), column.kind)).collect();
    let lacks = |name: &ColumnName| known.column(name).is_none();
    columns.extend(proposal.columns.into_iter().filter(|(name, _)| lacks(name)));
    Proposal { key: known.key.clone(), columns, ..proposal }
}

fn words(key: &[ColumnName]) -> String {
    let words: Vec<_> = key.iter().map(ColumnName::as_str).collect();
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use lakesync::schema::{Column, ColumnType};

    use super::*;

    fn name(text: &str) -> ColumnName {
        text.parse().expect("a legal name")
    }

    fn wish(columns: &[&str], key: &[&str]) -> Proposal {
        Proposal {
            table: "t".parse().expect("a legal name"),
            key: name("id"),
            columns: columns.iter().map(|text| (name(text), ColumnType::Int64)).collect(),
            primary_key: key.iter().map(|text| name(text)).collect(),
        }
    }

    fn declared(columns: &[&str], key: &[&str]) -> TableSchema {
        let Proposal { table, key, primary_key, .. } = wish(&[], key);
        let column = |(field_id, text): (u32, &&str)| Column {
            name: name(text),
            kind: ColumnType::Any,
            field_id,
        };
        let columns = (1..).zip(columns).map(column).collect();
        TableSchema { table, version: 1, key, columns, primary_key }
    }

    #[test]
    fn the_gateway_is_told_only_what_it_lacks() {
        let lacks = |known: &[TableSchema], columns: &[&str]| {
            let wanted = missing(known, wish(columns, &["a"])).expect("the same key");
            wanted.map(|wanted| {
                let types = wanted.columns.into_iter();
                types.map(|(name, kind)| format!("{name} {kind}")).collect::<Vec<_>>()
            })
        };
        let known = [declared(&["a", "b"], &["a"])];
        assert_eq!(lacks(&known, &["a"]), None);
        assert_eq!(lacks(&known, &["b", "a"]), None);
        let grown = ["a any", "b any", "c int64"].map(str::to_owned).to_vec();
        assert_eq!(lacks(&known, &["c", "a"]), Some(grown));
        let new = ["a int64"].map(str::to_owned).to_vec();
        assert_eq!(lacks(&[], &["a"]), Some(new));
    }

    #[test]
    fn rows_that_are_told_apart_otherwise_are_not_mixed() {
        let known = [declared(&["a"], &["a"])];
        let error = missing(&known, wish(&["a"], &[])).expect_err("another key");
        assert!(matches!(error, AdoptError::OtherKey { .. }), "{error}");
    }
}
