//! Schemas ⇄ protobuf.

use crate::name::{ColumnName, TableName};
use crate::proto::v1::{self as proto};
use crate::schema::{Column, ColumnType, Proposal, TableSchema};
use crate::wire::WireError;

/// The key column's name where none is given.
const DEFAULT_KEY: &str = "id";

/// The tables an operator proposes. Versions and field ids are the server's to give, and ignored.
pub fn decode_proposals(tables: &[proto::TableSchema]) -> Result<Vec<Proposal>, WireError> {
    let proposal = |(at, table)| {
        let TableSchema { table, key, columns, primary_key, .. } = decode_table(at, table)?;
        let columns = columns.into_iter().map(|column| (column.name, column.kind)).collect();
        Ok(Proposal { table, key, columns, primary_key })
    };
    tables.iter().enumerate().map(proposal).collect()
}

/// The tables a server, or a store, says there are.
pub fn decode_schema(tables: &[proto::TableSchema]) -> Result<Vec<TableSchema>, WireError> {
    tables.iter().enumerate().map(|(at, table)| decode_table(at, table)).collect()
}

fn decode_table(at: usize, table: &proto::TableSchema) -> Result<TableSchema, WireError> {
    let fault = |field: String, what: &dyn ToString| {
        WireError::new(format!("tables[{at}].{field}"), what.to_string())
    };
    let key = if table.key.is_empty() { DEFAULT_KEY } else { &table.key };
    let columns = table.columns.iter().enumerate().map(|(nth, column)| {
        let name = ColumnName::parse(&column.name);
        let kind = decode_type(column);
        Ok(Column {
            name: name.map_err(|error| fault(format!("columns[{nth}].name"), &error))?,
            kind: kind.ok_or_else(|| fault(format!("columns[{nth}].type"), &"unknown type"))?,
            field_id: column.field_id,
        })
    });
    Ok(TableSchema {
        table: TableName::parse(&table.table).map_err(|error| fault("table".into(), &error))?,
        version: table.version,
        key: ColumnName::parse(key).map_err(|error| fault("key".into(), &error))?,
        columns: columns.collect::<Result<_, WireError>>()?,
        primary_key: table
            .primary_key
            .iter()
            .map(|column| ColumnName::parse(column))
            .collect::<Result<_, _>>()
            .map_err(|error| fault("primary_key".into(), &error))?,
    })
}

fn decode_type(column: &proto::Column) -> Option<ColumnType> {
    Some(match proto::ColumnType::try_from(column.r#type).ok()? {
        proto::ColumnType::Unspecified => return None,
        proto::ColumnType::Bool => ColumnType::Bool,
        proto::ColumnType::Int64 => ColumnType::Int64,
        proto::ColumnType::Double => ColumnType::Double,
        proto::ColumnType::String => ColumnType::String,
        proto::ColumnType::Bytes => ColumnType::Bytes,
        proto::ColumnType::Json => ColumnType::Json,
        proto::ColumnType::Decimal => {
            ColumnType::Decimal { precision: column.precision, scale: column.scale }
        }
        proto::ColumnType::Timestamp => ColumnType::Timestamp,
        proto::ColumnType::Date => ColumnType::Date,
        proto::ColumnType::Uuid => ColumnType::Uuid,
        proto::ColumnType::Any => ColumnType::Any,
    })
}

/// A table as replicas, operators and stores read it.
pub fn encode_schema(table: &TableSchema) -> proto::TableSchema {
    let column = |column: &Column| {
        let (precision, scale) = match column.kind {
            ColumnType::Decimal { precision, scale } => (precision, scale),
            _ => (0, 0),
        };
        let (name, field_id) = (column.name.to_string(), column.field_id);
        proto::Column { name, r#type: encode_type(column.kind).into(), precision, scale, field_id }
    };
    proto::TableSchema {
        table: table.table.to_string(),
        version: table.version,
        key: table.key.to_string(),
        columns: table.columns.iter().map(column).collect(),
        primary_key: table.primary_key.iter().map(ColumnName::to_string).collect(),
    }
}

fn encode_type(kind: ColumnType) -> proto::ColumnType {
    match kind {
        ColumnType::Bool => proto::ColumnType::Bool,
        ColumnType::Int64 => proto::ColumnType::Int64,
        ColumnType::Double => proto::ColumnType::Double,
        ColumnType::String => proto::ColumnType::String,
        ColumnType::Bytes => proto::ColumnType::Bytes,
        ColumnType::Json => proto::ColumnType::Json,
        ColumnType::Decimal { .. } => proto::ColumnType::Decimal,
        ColumnType::Timestamp => proto::ColumnType::Timestamp,
        ColumnType::Date => proto::ColumnType::Date,
        ColumnType::Uuid => proto::ColumnType::Uuid,
        ColumnType::Any => proto::ColumnType::Any,
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn tables_round_trip() {
        let kinds = [
            ColumnType::Bool,
            ColumnType::Int64,
            ColumnType::Double,
            ColumnType::String,
            ColumnType::Bytes,
            ColumnType::Json,
            ColumnType::Decimal { precision: 12, scale: 4 },
            ColumnType::Timestamp,
            ColumnType::Date,
            ColumnType::Uuid,
            ColumnType::Any,
        ];
        let columns = (1..).zip(kinds).map(|(field_id, kind)| {
            let name = format!("c{field_id}").parse().expect("a legal name");
            Column { name, kind, field_id }
        });
        let table = TableSchema {
            table: "t".parse().expect("a legal name"),
            version: 3,
            key: "pk".parse().expect("a legal name"),
            columns: columns.collect(),
            primary_key: vec!["c2".parse().expect("a legal name")],
        };
        assert_eq!(decode_schema(&[encode_schema(&table)]), Ok(vec![table]));
    }

    #[test]
    fn no_table_is_larger_than_its_size() {
        let name = |nth: u32, bytes: usize| format!("{:x<bytes$}", format!("c{nth:04}"));
        for bytes in [5, 63] {
            let columns = (1..=1_000).map(|field_id| Column {
                name: name(field_id, bytes).parse().expect("a legal name"),
                kind: ColumnType::Decimal { precision: 38, scale: 38 },
                field_id,
            });
            let columns: Vec<_> = columns.collect();
            let table = TableSchema {
                table: name(0, bytes).parse().expect("a legal name"),
                version: u32::MAX,
                key: name(0, bytes).parse().expect("a legal name"),
                primary_key: columns.iter().map(|column| column.name.clone()).collect(),
                columns,
            };
            let size = crate::schema::size(&table);
            let tables = vec![encode_schema(&table)];
            let sent = proto::GetSchemaResponse { tables }.encoded_len();
            assert!(sent <= size, "{sent} bytes sent, {size} counted");
        }
    }

    #[test]
    fn an_error_names_the_field() {
        let column = proto::Column { name: "a".into(), ..Default::default() };
        let table =
            proto::TableSchema { table: "t".into(), columns: vec![column], ..Default::default() };
        let error = decode_proposals(&[table]).expect_err("no type");
        assert_eq!(error.field, "tables[0].columns[0].type");
    }
}
