//! Our own tables, made once.

use lakesync::adapter::AdapterError;
use sqlx::Row;

use super::Postgres;
use super::names::{COLUMNS, HISTORY, META, ROWS, TABLES, WATERMARKS};
use super::session::Failure;
use super::statement::{Statement, script};

/// The form that our tables have. Another form has another number.
const FORMAT: i32 = 1;

/// The database's own time. Generations are times, so that none comes twice, not even after a backup
/// was put back.
pub(super) const NOW_MICROS: &str = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

/// Refuses tables of another form than ours.
pub(super) fn check_format(found: i32) -> Result<(), AdapterError> {
    match found == FORMAT {
        true => Ok(()),
        false => Err(AdapterError::Mismatch(format!(
            "its tables have format {found}, and this LakeSync knows {FORMAT}"
        ))),
    }
}

impl Postgres {
    /// Makes the schema and our own tables, as far as they are missing.
    pub(super) async fn install(&self) -> Result<(), Failure> {
        let mut session = self.session().await?;
        let sql = format!("SELECT format FROM {}", self.names.own(META));
        match Statement::new(sql).row(&mut session).await.map_err(Failure::from) {
            // Who may not create tables may use those that somebody else made.
            Ok(Some(row)) => {
                check_format(row.try_get(0)?)?;
                session.end();
                return Ok(());
            }
            Ok(None) => {}
            Err(failure) if failure.is_absence() => {}
            Err(failure) => return Err(failure),
        }
        drop(session);
        let mut session = self.begin(self.server.options.call_timeout).await?;
        // Two that create the same at once fail on each other's names otherwise.
        let lock = "SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended($1, 0))";
        let name = format!("lakesync {}", self.names.schema());
        Statement::new(lock).bind(name).rows(&mut session).await?;
        let known = "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = $1";
        let known = Statement::new(known).bind(self.names.schema()).row(&mut session).await?;
        if known.is_none() {
            script(&mut session, format!("CREATE SCHEMA {}", self.names.quoted_schema())).await?;
        }
        script(&mut session, self.own_tables()).await?;
        session.commit().await
    }

    fn own_tables(&self) -> String {
        let [meta, tables, columns, rows, watermarks, history] =
            [META, TABLES, COLUMNS, ROWS, WATERMARKS, HISTORY].map(|table| self.names.own(table));
        format!(
            r#"
CREATE TABLE IF NOT EXISTS {meta} (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    format integer NOT NULL,
    generation bigint NOT NULL
);
INSERT INTO {meta} (format, generation) VALUES ({FORMAT}, {NOW_MICROS}) ON CONFLICT DO NOTHING;
CREATE TABLE IF NOT EXISTS {tables} (
    id integer PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE,
    version bigint NOT NULL,
    key text COLLATE "C" NOT NULL,
    primary_key text COLLATE "C" NOT NULL
);
CREATE TABLE IF NOT EXISTS {columns} (
    table_id integer NOT NULL,
    ordinal integer NOT NULL,
    name text COLLATE "C" NOT NULL,
    type text COLLATE "C" NOT NULL,
    field_id bigint NOT NULL,
    PRIMARY KEY (table_id, ordinal)
);
CREATE TABLE IF NOT EXISTS {rows} (
    table_id integer NOT NULL,
    row_id text COLLATE "C" NOT NULL,
    state bytea NOT NULL,
    PRIMARY KEY (table_id, row_id)
);
CREATE TABLE IF NOT EXISTS {watermarks} (
    log bytea PRIMARY KEY,
    position bigint NOT NULL
);
CREATE TABLE IF NOT EXISTS {history} (
    log_id bytea NOT NULL,
    position bigint NOT NULL,
    index bigint NOT NULL,
    table_name text COLLATE "C" NOT NULL,
    row_id text COLLATE "C" NOT NULL,
    delta_id bytea NOT NULL,
    hlc bigint NOT NULL,
    happened_at timestamptz NOT NULL,
    client text COLLATE "C" NOT NULL,
    op text COLLATE "C" NOT NULL,
    cells json,
    exact bytea NOT NULL,
    PRIMARY KEY (log_id, position, index)
);"#
        )
    }
}
