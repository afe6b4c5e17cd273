//! Adopting: tables that an application has already become synced ones.
//!
//! The gateway is told first, then the file: an adoption that breaks off in between is simply made
//! again. Each table is judged by itself, so that one which can't be adopted stops no other.

use std::collections::BTreeMap;

use lakesync::error::{ErrorKind, Reason};
use lakesync::name::{ColumnName, TableName};
use lakesync::schema::{Proposal, TableSchema};
use lakesync::status::Problem;

use super::{Core, SyncError};
use crate::db::{Candidate, DbError};

/// Why a table can't be adopted. Others that were asked for together with it may have been.
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

impl From<DbError> for AdoptError {
    fn from(error: DbError) -> Self {
        Self::Sync(error.into())
    }
}

impl AdoptError {
    /// Why, for a reader who knows which table it is about.
    fn into_why(self) -> String {
        match self {
            Self::Refused { why, .. } => why,
            Self::OtherKey { declared, own, .. } => format!(
                "it exists at the gateway with the key ({declared}), here with ({own}); rename one \
                 of them"
            ),
            error => error.to_string(),
        }
    }
}

impl Core {
    /// Adopts these tables. What is wrong with one is told once the others are adopted.
    pub(super) async fn adopt(&self, tables: &[TableName]) -> Result<(), AdoptError> {
        let candidates = self.db.inspect().await?;
        let proposals = tables.iter().map(|table| proposal(&candidates, table));
        let refused = self.adopt_each(proposals.collect::<Result<Vec<_>, _>>()?).await?;
        refused.into_values().next().map_or(Ok(()), Err)
    }

    /// Adopts every table that can be. What became of each.
    pub(super) async fn adopt_all(&self) -> Result<Vec<Candidate>, SyncError> {
        let mut candidates = self.db.inspect().await?;
        let fit = candidates.iter().filter_map(|candidate| candidate.verdict.as_ref().ok());
        let proposals = fit.map(|adoptable| adoptable.proposal.clone()).collect();
        for (table, error) in self.adopt_each(proposals).await? {
            let same = |one: &&mut Candidate| is_named(&table, &one.table);
            if let Some(candidate) = candidates.iter_mut().find(same) {
                candidate.verdict = Err(error.into_why());
            }
        }
        Ok(candidates)
    }

    /// Adopts each table that can be. Why the others can't, by the names that the gateway has.
    async fn adopt_each(
        &self,
        proposals: Vec<Proposal>,
    ) -> Result<BTreeMap<TableName, AdoptError>, SyncError> {
        let declared = self.declared().await?;
        let (installed, _) = self.db.installed().await?;
        let (mut tables, mut wanted) = (Vec::new(), Vec::new());
        let mut refused = BTreeMap::new();
        for mut proposal in proposals {
            // A name is the same whatever its case; the gateway's spelling stays.
            let same = |known: &&TableSchema| is_named(&known.table, proposal.table.as_str());
            if let Some(known) = declared.iter().find(same) {
                proposal.table = known.table.clone();
            }
            let table = proposal.table.clone();
            match missing(&declared, as_before(&installed, proposal)) {
                Ok(lacks) => {
                    wanted.extend(lacks);
                    tables.push(table);
                }
                Err(error) => _ = refused.insert(table, error),
            }
        }
        self.declare(&wanted, &mut refused).await?;
        self.refresh_schema().await?;
        tables.retain(|table| !refused.contains_key(table));
        for table in tables {
            match self.db.adopt(&table).await {
                Err(DbError::Unadoptable { table, reason }) => {
                    refused.insert(table.clone(), AdoptError::Refused { table, why: reason });
                }
                outcome => outcome?,
            }
        }
        self.count().await?;
        Ok(refused)
    }

    /// Declares what the gateway lacks. If it refuses them together, each is offered by itself.
    async fn declare(
        &self,
        wanted: &[Proposal],
        refused: &mut BTreeMap<TableName, AdoptError>,
    ) -> Result<(), SyncError> {
        if wanted.is_empty() {
            return Ok(());
        }
        match self.transport.put_schema(&self.gateway, wanted).await {
            Err(problem) if problem.kind != ErrorKind::Invalid => return Err(problem.into()),
            Err(_) => {}
            Ok(_) => return Ok(()),
        }
        for proposal in wanted {
            match self.transport.put_schema(&self.gateway, std::slice::from_ref(proposal)).await {
                Err(problem) if problem.kind == ErrorKind::Invalid => {
                    let (table, why) = (proposal.table.clone(), problem.message);
                    refused.insert(table.clone(), AdoptError::Refused { table, why });
                }
                outcome => _ = outcome?,
            }
        }
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
    let found = candidates.iter().find(|candidate| is_named(table, &candidate.table));
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
/// Types that the gateway has chosen stay. Names are the same whatever their case.
fn missing(declared: &[TableSchema], proposal: Proposal) -> Result<Option<Proposal>, AdoptError> {
    let Some(known) = declared.iter().find(|known| known.table == proposal.table) else {
        return Ok(Some(proposal));
    };
    let (theirs, ours) = (&known.primary_key, &proposal.primary_key);
    if theirs.len() != ours.len() || theirs.iter().zip(ours).any(|(a, b)| !same(a, b)) {
        let (declared, own) = (words(&known.key, theirs), words(&proposal.key, ours));
        return Err(AdoptError::OtherKey { table: proposal.table, declared, own });
    }
    let grown = grown(known, proposal);
    Ok((known.columns.len() < grown.columns.len()).then_some(grown))
}

/// The table as it is known, and the columns that only the proposal has.
fn grown(known: &TableSchema, proposal: Proposal) -> Proposal {
    let mut columns: Vec<_> =
        known.columns.iter().map(|column| (column.name.clone(), column.kind)).collect();
    let lacks = |name: &ColumnName| known.columns.iter().all(|column| !same(&column.name, name));
    columns.extend(proposal.columns.into_iter().filter(|(name, _)| lacks(name)));
    let (key, primary_key) = (known.key.clone(), known.primary_key.clone());
    Proposal { table: proposal.table, key, columns, primary_key }
}

fn same(a: &ColumnName, b: &ColumnName) -> bool {
    a.as_str().eq_ignore_ascii_case(b.as_str())
}

fn is_named(table: &TableName, name: &str) -> bool {
    table.as_str().eq_ignore_ascii_case(name)
}

/// The columns that make up the row id, or the name of the one that is it.
fn words(key: &ColumnName, primary_key: &[ColumnName]) -> String {
    let columns = if primary_key.is_empty() { std::slice::from_ref(key) } else { primary_key };
    columns.iter().map(ColumnName::as_str).collect::<Vec<_>>().join(", ")
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
        assert_eq!(lacks(&known, &["B", "a"]), None, "SQLite tells no case");
        let grown = ["a any", "b any", "c int64"].map(str::to_owned).to_vec();
        assert_eq!(lacks(&known, &["c", "a"]), Some(grown));
        let new = ["a int64"].map(str::to_owned).to_vec();
        assert_eq!(lacks(&[], &["a"]), Some(new));
    }

    #[test]
    fn rows_that_are_told_apart_otherwise_are_not_mixed() {
        let known = [declared(&["a"], &["a"])];
        let error = missing(&known, wish(&["a"], &[])).expect_err("another key");
        assert!(error.to_string().contains("key (a), here with (id)"), "{error}");
        assert!(matches!(error, AdoptError::OtherKey { .. }), "{error}");
    }
}
