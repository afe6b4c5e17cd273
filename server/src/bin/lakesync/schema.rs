//! `lakesync schema`: a gateway's tables, printed in the form in which `--put` takes them.
//!
//! The JSON form is protobuf's of `GetSchemaResponse`: what grpcurl prints can be put as it is.

use std::path::{Path, PathBuf};

use lakesync::proto::admin::v1::PutSchemaRequest;
use lakesync::proto::v1::{Column, ColumnType, GetSchemaRequest, TableSchema};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::exit::Exit;
use crate::operator::{self, Server};
use crate::show;

/// How protobuf names a column's type, before the type's own name.
const TYPE_PREFIX: &str = "COLUMN_TYPE_";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Declare or evolve the tables of this JSON file: {"tables": [{"table": "todos", "columns":
    /// [{"name": "title", "type": "string"}]}]}. Tables that it does not name stay.
    #[arg(long, value_name = "FILE")]
    put: Option<PathBuf>,
    /// With --put: check, and change nothing.
    #[arg(long, requires = "put")]
    dry_run: bool,
    /// The gateway.
    #[arg(long, default_value = "main")]
    gateway: String,
    #[command(flatten)]
    server: Server,
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Exit> {
    let Arguments { put, dry_run, gateway, server } = arguments;
    let json = server.json;
    // A file that can't be used needs no server to be refused.
    let tables = put.as_deref().map(load).transpose()?;
    server.run(async move |mut operator| {
        let tables = match tables {
            Some(tables) => {
                let request = operator.request(PutSchemaRequest { gateway, tables, dry_run });
                let answer = operator.admin.put_schema(request).await;
                answer
                    .map_err(|status| operator::refused(&status, Exit::config))?
                    .into_inner()
                    .tables
            }
            None => {
                let request = operator.request(GetSchemaRequest { gateway });
                let answer = operator.sync.get_schema(request).await;
                answer
                    .map_err(|status| operator::refused(&status, Exit::config))?
                    .into_inner()
                    .tables
            }
        };
        match json {
            true => show::line(document(&tables)),
            false => lines(&tables),
        }
    })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// As in a request for grpcurl. The flag says it here.
    #[serde(default, rename = "gateway")]
    _gateway: Option<String>,
    tables: Vec<Table>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    table: String,
    /// The server's to give.
    #[serde(default, rename = "version")]
    _version: u32,
    #[serde(default)]
    key: String,
    #[serde(default)]
    columns: Vec<Named>,
    #[serde(default, alias = "primaryKey")]
    primary_key: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
    r#type: String,
    #[serde(default)]
    precision: u32,
    #[serde(default)]
    scale: u32,
    /// The server's to give.
    #[serde(default, rename = "field_id", alias = "fieldId")]
    _field_id: u32,
}

/// The tables of a file.
fn load(file: &Path) -> Result<Vec<TableSchema>, Exit> {
    let named = |what: &dyn std::fmt::Display| format!("{}: {what}", file.display());
    let text = std::fs::read_to_string(file).map_err(|error| Exit::input_output(named(&error)))?;
    parse(&text).map_err(|error| Exit::config(named(&error)))
}

fn parse(text: &str) -> Result<Vec<TableSchema>, String> {
    let file: File = serde_json::from_str(text).map_err(|error| error.to_string())?;
    file.tables
        .into_iter()
        .map(|Table { table, key, columns, primary_key, .. }| {
            let columns = columns.into_iter().map(|column| {
                let Named { name, r#type, precision, scale, .. } = column;
                let kind = kind(&r#type).ok_or_else(|| {
                    format!("{table}.{name}: there is no type {type}", r#type = r#type)
                })?;
                Ok(Column { name, r#type: kind.into(), precision, scale, field_id: 0 })
            });
            let columns = columns.collect::<Result<_, String>>()?;
            Ok(TableSchema { table, version: 0, key, columns, primary_key })
        })
        .collect()
}

/// The type that a file names: `string`, or as protobuf has it.
fn kind(text: &str) -> Option<ColumnType> {
    let name = text.to_ascii_uppercase();
    let name = if name.starts_with(TYPE_PREFIX) { name } else { format!("{TYPE_PREFIX}{name}") };
    ColumnType::from_str_name(&name).filter(|kind| *kind != ColumnType::Unspecified)
}

/// The short name of a column's type.
fn short(column: &Column) -> String {
    let name = column.r#type().as_str_name();
    let name = name.strip_prefix(TYPE_PREFIX).unwrap_or(name).to_ascii_lowercase();
    match column.r#type() {
        ColumnType::Decimal => format!("{name}({}, {})", column.precision, column.scale),
        _ => name,
    }
}

fn document(tables: &[TableSchema]) -> Value {
    let column = |column: &Column| {
        json!({
            "name": column.name,
            "type": column.r#type().as_str_name(),
            "precision": column.precision,
            "scale": column.scale,
            "field_id": column.field_id,
        })
    };
    let table = |table: &TableSchema| {
        json!({
            "table": table.table,
            "version": table.version,
            "key": table.key,
            "columns": table.columns.iter().map(column).collect::<Vec<_>>(),
            "primary_key": table.primary_key,
        })
    };
    json!({ "tables": tables.iter().map(table).collect::<Vec<_>>() })
}

fn lines(tables: &[TableSchema]) -> Result<(), Exit> {
    if tables.is_empty() {
        return show::line("no tables; --put FILE or `lakesync sync FILE --adopt` declares some");
    }
    for table in tables {
        let key = match table.primary_key.as_slice() {
            [] => format!("row ids in {}", table.key),
            columns => format!("row ids made of {}", columns.join(", ")),
        };
        show::line(format_args!("{}  (version {}, {key})", table.table, table.version))?;
        let width = table.columns.iter().map(|column| column.name.len()).max().unwrap_or(0);
        for column in &table.columns {
            show::line(format_args!("  {:width$}  {}", column.name, short(column)))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> TableSchema {
        let column = |name: &str, kind: ColumnType, precision, scale| Column {
            name: name.to_owned(),
            r#type: kind.into(),
            precision,
            scale,
            field_id: 0,
        };
        TableSchema {
            table: "todos".to_owned(),
            version: 0,
            key: "id".to_owned(),
            columns: vec![
                column("title", ColumnType::String, 0, 0),
                column("cost", ColumnType::Decimal, 10, 2),
            ],
            primary_key: vec!["title".to_owned()],
        }
    }

    #[test]
    fn what_is_printed_can_be_put_again() {
        assert_eq!(parse(&document(&[table()]).to_string()), Ok(vec![table()]));
    }

    #[test]
    fn a_file_may_be_in_short_and_as_grpcurl_prints() {
        let short = r#"{"tables": [{"table": "todos", "key": "id", "primary_key": ["title"], "columns":
            [{"name": "title", "type": "string"},
             {"name": "cost", "type": "decimal", "precision": 10, "scale": 2}]}]}"#;
        let grpcurl = r#"{"tables": [{"table": "todos", "version": 3, "key": "id", "primaryKey":
            ["title"], "columns": [{"name": "title", "type": "COLUMN_TYPE_STRING", "fieldId": 1},
            {"name": "cost", "type": "COLUMN_TYPE_DECIMAL", "precision": 10, "scale": 2, "fieldId": 2}]}]}"#;
        for text in [short, grpcurl] {
            assert_eq!(parse(text), Ok(vec![table()]), "{text}");
        }
    }

    #[test]
    fn a_wrong_file_is_told_where() {
        for (text, wrong) in [
            (
                r#"{"tables": [{"table": "t", "columns": [{"name": "a", "type": "text"}]}]}"#,
                "t.a: ",
            ),
            (r#"{"tables": [{"table": "t", "colums": []}]}"#, "colums"),
            ("[]", "line 1"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(wrong), "{wrong}: {error}");
        }
    }
}
