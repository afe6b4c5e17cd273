//! Statements and their parameters. The one place that hands generated SQL to the driver: names in
//! it are quoted, and values are bound.
//!
//! The server keeps what it prepared, so statements over many rows come in few lengths.

use std::borrow::Cow;
use std::iter::Peekable;

use sqlx::mysql::{MySqlArguments, MySqlConnection, MySqlRow};
use sqlx::{Arguments, AssertSqlSafe, MySql, Type, encode::Encode};

use crate::sql::render::Rendered;

/// How many rows or ids a statement may have, longest first.
const LENGTHS: [usize; 4] = [512, 64, 8, 1];
/// How many parameters a statement may have.
pub(super) const PARAMETERS_MAX: usize = 65_535;
/// About how much a statement carries: half of what every server takes.
pub(super) const STATEMENT_BYTES: usize = 4 << 20;

/// A statement and its parameters.
pub(super) struct Statement {
    sql: String,
    arguments: MySqlArguments,
    is_kept: bool,
}

/// A value that is bound.
#[derive(Clone, Debug)]
pub(super) enum Parameter<'v> {
    Null,
    Number(u64),
    Text(Cow<'v, str>),
    Bytes(Cow<'v, [u8]>),
}

impl Statement {
    /// A statement without parameters yet, which is prepared anew each time.
    pub(super) fn new(sql: impl Into<String>) -> Self {
        Self { sql: sql.into(), arguments: MySqlArguments::default(), is_kept: false }
    }

    /// The same, which the server keeps for the next time.
    pub(super) fn kept(sql: impl Into<String>) -> Self {
        Self { is_kept: true, ..Self::new(sql) }
    }

    /// Binds the next parameter.
    pub(super) fn bind<'t>(mut self, value: impl Encode<'t, MySql> + Type<MySql>) -> Self {
        self.add(value);
        self
    }

    fn add<'t>(&mut self, value: impl Encode<'t, MySql> + Type<MySql>) {
        self.arguments.add(value).expect("BUG: numbers, text and bytes can be encoded");
    }

    /// Binds the next parameter.
    pub(super) fn add_parameter(&mut self, parameter: &Parameter<'_>) {
        match parameter {
            Parameter::Null => self.add(None::<&str>),
            Parameter::Number(number) => self.add(*number),
            Parameter::Text(text) => self.add(text.as_ref()),
            Parameter::Bytes(bytes) => self.add(bytes.as_ref()),
        }
    }

    /// Runs it.
    pub(super) async fn run(self, connection: &mut MySqlConnection) -> Result<(), sqlx::Error> {
        let query = sqlx::query_with(AssertSqlSafe(self.sql), self.arguments);
        query.persistent(self.is_kept).execute(connection).await?;
        Ok(())
    }

    /// Runs it, and collects its rows.
    pub(super) async fn rows(
        self,
        connection: &mut MySqlConnection,
    ) -> Result<Vec<MySqlRow>, sqlx::Error> {
        let query = sqlx::query_with(AssertSqlSafe(self.sql), self.arguments);
        query.persistent(self.is_kept).fetch_all(connection).await
    }

    /// Runs it, and takes its first row if there is one.
    pub(super) async fn row(
        self,
        connection: &mut MySqlConnection,
    ) -> Result<Option<MySqlRow>, sqlx::Error> {
        Ok(self.rows(connection).await?.into_iter().next())
    }
}

/// An INSERT of many rows, each of as many parameters as `width`.
pub(super) struct Insert {
    /// What stands before the rows.
    pub(super) head: String,
    /// What stands after them.
    pub(super) tail: String,
    pub(super) width: usize,
}

impl Insert {
    /// Inserts `rows`, however many there are. While the server works on some of them, the next are
    /// made ready.
    pub(super) async fn run<'v>(
        &self,
        connection: &mut MySqlConnection,
        rows: impl Iterator<Item = Vec<Parameter<'v>>> + Send,
    ) -> Result<(), sqlx::Error> {
        let mut pieces = Pieces::new(self, Box::new(rows));
        let mut next = pieces.next();
        while let Some(statement) = next {
            let (done, ready) = tokio::join!(statement.run(connection), async { pieces.next() });
            done?;
            next = ready;
        }
        Ok(())
    }

    fn statement(&self, rows: &[Vec<Parameter<'_>>]) -> Statement {
        let row = format!("({})", marks(self.width));
        let values = vec![row.as_str(); rows.len()].join(", ");
        let mut statement = Statement::kept(format!("{} VALUES {values} {}", self.head, self.tail));
        rows.iter().flatten().for_each(|parameter| statement.add_parameter(parameter));
        statement
    }
}

type Rows<'v, 'i> = Box<dyn Iterator<Item = Vec<Parameter<'v>>> + Send + 'i>;

/// The statements that insert some rows: as few as the lengths and sizes of statements allow.
struct Pieces<'v, 'i> {
    insert: &'i Insert,
    rows: Peekable<Rows<'v, 'i>>,
    rows_max: usize,
    /// Rows that no statement had yet, and about how much they carry.
    waiting: Vec<Vec<Parameter<'v>>>,
    bytes: usize,
}

impl<'v, 'i> Pieces<'v, 'i> {
    fn new(insert: &'i Insert, rows: Rows<'v, 'i>) -> Self {
        let rows_max = length_within(PARAMETERS_MAX / insert.width.max(1));
        Self { insert, rows: rows.peekable(), rows_max, waiting: Vec::new(), bytes: 0 }
    }

    fn next(&mut self) -> Option<Statement> {
        while self.waiting.len() < self.rows_max {
            let (room, is_first) = (STATEMENT_BYTES - self.bytes, self.waiting.is_empty());
            let Some(row) = self.rows.next_if(|row| is_first || size(row) <= room) else { break };
            self.bytes = (self.bytes + size(&row)).min(STATEMENT_BYTES);
            self.waiting.push(row);
        }
        if self.waiting.is_empty() {
            return None;
        }
        let rest = self.waiting.split_off(length_within(self.waiting.len()));
        let rows = std::mem::replace(&mut self.waiting, rest);
        self.bytes = self.waiting.iter().map(|row| size(row)).sum();
        Some(self.insert.statement(&rows))
    }
}

fn size(row: &[Parameter<'_>]) -> usize {
    row.iter().map(Parameter::size).sum()
}

/// Statements over some of `ids` each, which stand between `head` and a closing parenthesis. They
/// begin with the parameters `first`.
pub(super) fn over<'i>(
    head: &'i str,
    first: &'i [Parameter<'i>],
    ids: &'i [Parameter<'i>],
) -> impl Iterator<Item = Statement> + 'i {
    ids.chunks(LENGTHS[0]).map(move |chunk| {
        // The last id once more does nothing, and makes the statement as long as others.
        let longer = LENGTHS.into_iter().rev().find(|length| chunk.len() <= *length);
        let count = longer.unwrap_or(chunk.len());
        let mut statement = Statement::kept(format!("{head}{})", marks(count)));
        first.iter().for_each(|parameter| statement.add_parameter(parameter));
        let last = chunk.last().into_iter().cycle();
        let padded = chunk.iter().chain(last).take(count);
        padded.for_each(|id| statement.add_parameter(id));
        statement
    })
}

impl<'v> Parameter<'v> {
    /// What a column shows.
    pub(super) fn shown(rendered: Option<Rendered<'v>>) -> Self {
        match rendered {
            None => Self::Null,
            Some(Rendered::Text(text)) => Self::Text(text),
            Some(Rendered::Bytes(bytes)) => Self::Bytes(bytes.into()),
        }
    }

    /// About how many bytes it takes in a statement.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Null | Self::Number(_) => 9,
            Self::Text(text) => 9 + text.len(),
            Self::Bytes(bytes) => 9 + bytes.len(),
        }
    }
}

fn length_within(count: usize) -> usize {
    LENGTHS.into_iter().find(|length| *length <= count).unwrap_or(1)
}

fn marks(count: usize) -> String {
    vec!["?"; count].join(", ")
}
