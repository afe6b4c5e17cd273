//! `lakesync import`: seed a gateway with tables that a Postgres or MySQL database has already.
//!
//! Rows are read in one snapshot, as one stream, and pushed in parts over the API that replicas use.
//! It may break off anywhere and be made again: what an import writes is stamped as of its first
//! run, so that it never wins over what devices wrote since.

mod calendar;
mod column;
mod json;
mod key;
mod mysql;
mod near;
mod postgres;
mod refused;
mod send;
mod source;
mod state;
mod widen;

use std::path::PathBuf;
use std::time::Duration;

use futures_util::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use lakesync::error::Reason;
use lakesync::name::{ClientId, ColumnName, Gateway};
use lakesync::schema::{Proposal, TableSchema};
use lakesync::value::Value;
use lakesync_client::Transport;
use lakesync_client::transport::{Remote, connect};

use self::column::Raw;
use self::key::Key;
use self::refused::{Refused, Tally};
use self::send::Sender;
use self::source::{Source, Table, Wanted};
use self::state::{Stamps, State};
use self::widen::Target;
use crate::exit::Exit;
use crate::serve;
use crate::show::{count, line};
use crate::sync::failed;
use crate::token::TOKEN_VARIABLE;

/// How often the bar moves while nothing happens.
const TICK: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The database to read: postgres://… or mysql://…; without it, the environment variable
    /// LAKESYNC_IMPORT_FROM, which no list of processes shows.
    #[arg(long)]
    from: Option<String>,
    /// A table of it, as TABLE or SCHEMA.TABLE; may be repeated.
    #[arg(long, required = true)]
    table: Vec<Wanted>,
    /// Where the server is, such as http://127.0.0.1:7461.
    #[arg(long, required_unless_present = "dry_run")]
    url: Option<String>,
    /// The gateway to seed; created if there is none.
    #[arg(long, default_value = "main")]
    gateway: String,
    /// A token with the scopes sync and admin; without it, the environment variable LAKESYNC_TOKEN.
    #[arg(long)]
    token: Option<String>,
    /// Where to keep the time of the first run; without it, lakesync-import-GATEWAY.json here. Keep
    /// it: without it, a repeated import overwrites what devices have edited.
    #[arg(long)]
    state: Option<PathBuf>,
    /// Print the tables it would declare, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(Exit::input_output)?.block_on(async {
        let stop = serve::stop_signal().map_err(Exit::input_output)?;
        tokio::select! {
            done = import(arguments) => done,
            () = stop => Err(Exit::interrupted("what was written stays, and the same command goes on")),
        }
    })
}

async fn import(arguments: Arguments) -> Result<(), Exit> {
    let Arguments { from, table: wanted, url, gateway, token, state, dry_run } = arguments;
    let from = from.or_else(|| std::env::var("LAKESYNC_IMPORT_FROM").ok());
    let from = from.ok_or_else(|| Exit::usage("what to read is needed: --from URL"))?;
    let gateway: Gateway = gateway.parse().map_err(Exit::usage)?;
    let Some(url) = url.filter(|_| !dry_run) else {
        let mut source = Source::open(&from).await?;
        return tables(&mut source, &wanted)
            .await?
            .iter()
            .try_for_each(|(table, proposal)| show(table, proposal));
    };
    let token = token.or_else(|| std::env::var(TOKEN_VARIABLE).ok()).ok_or_else(|| {
        Exit::usage(format!(
            "a token is needed: --token TOKEN, or {TOKEN_VARIABLE}; `lakesync token --scope \"sync \
             admin\"` makes one"
        ))
    })?;
    let server = connect(&url, Some(token.into())).map_err(Exit::usage)?;
    let path = state.unwrap_or_else(|| format!("lakesync-import-{gateway}.json").into());
    let mut state = State::load(path, gateway.as_str()).map_err(Exit::input_output)?;
    // Before the snapshot is taken: what is written at the gateway from now on is newer than that.
    let now = server.server_info().await.map_err(told)?.server_hlc;
    let mut source = Source::open(&from).await?;
    let tables = tables(&mut source, &wanted).await?;
    let declared = declare(&server, &gateway, &tables).await?;
    let mut total = Tally::default();
    for ((table, _), schema) in tables.iter().zip(&declared) {
        let stamps = state.begin(schema.table.as_str(), now).map_err(Exit::usage)?;
        state.save().map_err(Exit::input_output)?;
        let tally = copy(&mut source, table, schema, &server, &gateway, stamps).await?;
        line(format_args!("  {}: {tally}", schema.table))?;
        tally.list()?;
        total.add(&tally);
    }
    line(format_args!(
        "imported {} into gateway {gateway}: {total}",
        count(declared.len() as u64, "table")
    ))?;
    match total.refused {
        0 => Ok(()),
        refused => Err(Exit::data(format!(
            "{} refused; mend them where they are and import again",
            count(refused, "row")
        ))),
    }
}

/// The tables that are wanted, and how each is to be declared. One that can't be imported stops all,
/// before anything is written.
async fn tables(source: &mut Source, wanted: &[Wanted]) -> Result<Vec<(Table, Proposal)>, Exit> {
    let mut tables: Vec<(Table, Proposal)> = Vec::new();
    for wanted in wanted {
        let table = source.table(wanted).await?;
        let name = table.target.as_str();
        if tables.iter().any(|(other, _)| other.target.as_str().eq_ignore_ascii_case(name)) {
            return Err(Exit::usage(format!("two tables are called {name}: import one of them")));
        }
        let proposal = key::proposal(&table);
        let proposal =
            proposal.map_err(|why| Exit::usage(format!("{name} can't be imported: {why}")))?;
        tables.push((table, proposal));
    }
    Ok(tables)
}

/// Prints how a table would be declared.
fn show(table: &Table, proposal: &Proposal) -> Result<(), Exit> {
    let Proposal { key, primary_key, columns, .. } = proposal;
    let names: Vec<_> = primary_key.iter().map(ColumnName::as_str).collect();
    match names.as_slice() {
        [] => line(format_args!("{}: rows are named by {key}", proposal.table))?,
        names => {
            line(format_args!("{}: rows are named by ({})", proposal.table, names.join(", ")))?
        }
    }
    for (name, kind) in columns {
        let same = table.columns.iter().find(|column| column.name == *name);
        match same.and_then(|column| column.as_text.as_ref()) {
            Some(shown) => line(format_args!("  {name} {kind} (the text of {shown})"))?,
            None => line(format_args!("  {name} {kind}"))?,
        }
    }
    left_out(table)
}

fn left_out(table: &Table) -> Result<(), Exit> {
    table.left_out.iter().try_for_each(|column| {
        line(format_args!("  {}: without {column:?}, which is no legal name", table.target))
    })
}

/// Declares the tables beside those that the gateway has; makes the gateway if there is none.
async fn declare(
    server: &Remote,
    gateway: &Gateway,
    tables: &[(Table, Proposal)],
) -> Result<Vec<TableSchema>, Exit> {
    let known = match server.schema(gateway).await {
        Err(problem) if problem.reason == Some(Reason::GatewayNotFound) => {
            server.create_gateway(gateway).await.map_err(told)?;
            Vec::new()
        }
        known => known.map_err(told)?,
    };
    let mut proposals = Vec::new();
    for (table, proposal) in tables {
        left_out(table)?;
        let same =
            |known: &&TableSchema| known.table.as_str().eq_ignore_ascii_case(table.target.as_str());
        let beside = key::beside(known.iter().find(same), proposal.clone());
        proposals.push(beside.map_err(Exit::config)?);
    }
    let installed = server.put_schema(gateway, &proposals).await.map_err(told)?;
    let find = |proposal: &Proposal| {
        let found = installed.iter().find(|table| table.table == proposal.table).cloned();
        found.ok_or_else(|| Exit::software(format!("{} was declared in vain", proposal.table)))
    };
    proposals.iter().map(find).collect()
}

/// Copies the rows of a table.
async fn copy(
    source: &mut Source,
    table: &Table,
    schema: &TableSchema,
    server: &Remote,
    gateway: &Gateway,
    stamps: Stamps,
) -> Result<Tally, Exit> {
    let key = Key::of(schema, table);
    let columns: Vec<_> = table.columns.iter().map(|column| named(schema, &column.name)).collect();
    let client = ClientId::parse(&format!("import-{}", schema.table));
    let client = client.map_err(Exit::software)?;
    let mut sender = Sender::new(server, gateway, client, schema.table.clone(), stamps);
    let bar = bar(table);
    let mut rows = source.rows(table);
    while let Some(row) = rows.next().await {
        let row = row.map_err(|error| source::failed(&error).with(AGAIN))?;
        let read = read(table, &key, row).and_then(|(row_id, values)| {
            let cells = send::cells(&columns, values)
                .map_err(|(column, why)| Refused::cell(row_id.to_string(), column.as_str(), why))?;
            Ok((row_id, cells))
        });
        match read {
            Ok((row_id, cells)) => sender.add(row_id, cells).await?,
            Err(refused) => sender.tally.refuse(refused),
        }
        bar.set_position(sender.tally.rows());
    }
    sender.flush().await?;
    bar.finish_and_clear();
    Ok(sender.tally)
}

const AGAIN: &str = "; made again, the same command goes on";

/// The column as the gateway has it; none for the one that is the row id.
fn named(schema: &TableSchema, name: &ColumnName) -> Option<Target> {
    let same = |other: &ColumnName| other.as_str().eq_ignore_ascii_case(name.as_str());
    let found = schema.columns.iter().find(|column| same(&column.name));
    found.map(|column| Target { name: column.name.clone(), kind: column.kind })
}

/// The id and the values of a row, or why it is refused.
fn read(
    table: &Table,
    key: &Key,
    row: Vec<Raw>,
) -> Result<(lakesync::name::RowId, Vec<Value>), Refused> {
    let parsed: Vec<_> =
        table.columns.iter().zip(row).map(|(column, raw)| column.form.value(raw)).collect();
    let plain: Vec<_> = parsed.iter().map(|value| value.clone().unwrap_or(Value::Null)).collect();
    let row_id = key.row_id(&plain);
    for (column, value) in table.columns.iter().zip(&parsed) {
        if let Err(why) = value {
            let id = row_id.as_ref().map_or_else(|_| "?".to_owned(), ToString::to_string);
            return Err(Refused::cell(id, column.name.as_str(), why.clone()));
        }
    }
    match row_id {
        Ok(row_id) => Ok((row_id, plain)),
        Err(why) => Err(Refused::row("?", format!("its primary key names no row: {why}"))),
    }
}

fn bar(table: &Table) -> ProgressBar {
    // The database only guesses how many rows there are.
    let style = ProgressStyle::with_template("  {msg} [{bar:30}] {pos} of about {len} rows");
    let bar = ProgressBar::new(table.rows).with_message(table.target.to_string());
    bar.set_style(style.expect("BUG: a template that does not parse"));
    bar.enable_steady_tick(TICK);
    bar
}

/// What the server said.
fn told(problem: lakesync::status::Problem) -> Exit {
    let advice = advice(&problem);
    failed(problem.into()).with(advice)
}

/// What to do where a token may not do all that an import does.
fn advice(problem: &lakesync::status::Problem) -> &'static str {
    match problem.reason {
        Some(Reason::ScopeMissing) => {
            "; an import declares tables and writes rows: `lakesync token --data DIR --sub NAME \
             --scope \"sync admin\"` makes a token that may"
        }
        Some(Reason::OutOfScope) => "; use a token that opens this gateway",
        _ => "",
    }
}
