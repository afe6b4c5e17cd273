//! Random tables, values and histories: Postgres = MariaDB = the gateway, value for value.

use lakesync::delta::Delta;
use lakesync::proto::v1::{Column, ColumnType, TableSchema};
use lakesync::value::Value;

use super::cells::{canonical, exactly, printed};
use super::servers::Database;
use crate::harness::changes::{at, delete, write};
use crate::harness::{Client, Replica, Setup, is_required};
use crate::replicas::dice::Dice;

const KINDS: [ColumnType; 10] = [
    ColumnType::Bool,
    ColumnType::Int64,
    ColumnType::Double,
    ColumnType::String,
    ColumnType::Bytes,
    ColumnType::Json,
    ColumnType::Decimal,
    ColumnType::Timestamp,
    ColumnType::Date,
    ColumnType::Uuid,
];
/// Names that are words of SQL, or that only quoting keeps apart.
const NAMES: [&str; 8] = ["select", "Order", "a", "_b", "TABLE", "x1", "group", "Zz"];

/// How many histories there are.
fn histories() -> u64 {
    let wished = std::env::var("LAKESYNC_TEST_HISTORIES").ok();
    let default = if is_required() { 40 } else { 8 };
    wished.map_or(default, |text| text.parse().expect("LAKESYNC_TEST_HISTORIES is a number"))
}

fn seed() -> u64 {
    let given = std::env::var("LAKESYNC_TEST_SEED").ok();
    given.map_or(1, |text| text.parse().expect("LAKESYNC_TEST_SEED is a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stderr, reason = "a run that failed can be had again")]
async fn databases_hold_what_the_gateway_holds_value_for_value() {
    let databases = Database::all().await;
    if databases.is_empty() {
        return;
    }
    for seed in seed()..seed() + histories() {
        eprintln!("LAKESYNC_TEST_SEED={seed}");
        let dice = Dice::new(seed);
        let schemas: Vec<String> = databases.iter().map(|database| database.fresh()).collect();
        let setup = flushing(&databases, &schemas);
        let server = setup.start().await;
        let mut operator = server.client("operator").await;
        operator.create_gateway("main").await.expect("created");
        let mut tables = random_tables(&dice);
        operator.put_schema(tables.clone()).await.expect("installed");
        let clients = [server.client("ann").await, server.client("bob").await];
        for round in 0..6 {
            push(&dice, &clients, &tables, round).await;
            if dice.one_in(2) {
                grow(&dice, &mut tables);
                operator.put_schema(tables.clone()).await.expect("grown");
            }
            operator.flush().await.expect("flushed");
            for (database, schema) in databases.iter().zip(&schemas) {
                compare(*database, schema, &tables, &operator).await;
            }
        }
        server.stop().await.expect("stopped");
    }
}

/// A server that flushes to a schema of each database.
fn flushing(databases: &[Database], schemas: &[String]) -> Setup {
    let each = databases.iter().zip(schemas);
    let settings = each
        .map(|(database, schema)| database.settings(database.kind(), schema, database.address()));
    Setup::new().flush_to_settings(&settings.collect::<String>())
}

fn random_tables(dice: &Dice) -> Vec<TableSchema> {
    let count = 1 + dice.below(3) as usize;
    let table = |name: &&str| {
        let mut table = TableSchema {
            table: format!("t_{name}"),
            key: "id".to_owned(),
            ..TableSchema::default()
        };
        for _ in 0..=dice.below(5) {
            add_column(dice, &mut table);
        }
        table
    };
    NAMES[..count].iter().map(table).collect()
}

fn add_column(dice: &Dice, table: &mut TableSchema) {
    let Some(name) = NAMES.get(table.columns.len()) else { return };
    let kind = KINDS[dice.below(KINDS.len() as u64) as usize];
    let scale = dice.below(5) as u32;
    let (precision, scale) = match kind {
        ColumnType::Decimal => (20 + scale, scale),
        _ => (0, 0),
    };
    table.columns.push(Column {
        name: (*name).to_owned(),
        r#type: kind.into(),
        precision,
        scale,
        ..Column::default()
    });
}

/// A column more, and where it can be, a wider type.
fn grow(dice: &Dice, tables: &mut [TableSchema]) {
    let table = &mut tables[0];
    add_column(dice, table);
    for column in &mut table.columns {
        let wider = match column.r#type() {
            ColumnType::Int64 if dice.one_in(3) => ColumnType::Double,
            ColumnType::Date if dice.one_in(3) => ColumnType::Timestamp,
            _ => continue,
        };
        column.set_type(wider);
    }
}

async fn push(dice: &Dice, clients: &[Client], tables: &[TableSchema], round: u64) {
    for nth in 0..10 {
        let client = &clients[dice.below(2) as usize];
        let changes = (0..=dice.below(12)).map(|at_most| {
            // Some come late.
            let hlc = at((round * 1_000 + nth * 20 + at_most).saturating_sub(dice.below(300)));
            change(dice, client, tables, hlc)
        });
        // What a database can't hold is refused, change by change.
        client.push(changes.collect::<Vec<_>>()).await.expect("answered");
    }
}

fn change(dice: &Dice, client: &Client, tables: &[TableSchema], hlc: lakesync::hlc::Hlc) -> Delta {
    let table = &tables[dice.below(tables.len() as u64) as usize];
    let row_id = dice.pick(&["r1", "r2", "R1", "é", "a'b\"c`d\\", "  ", "🦀", "r3", "r4", "%_"]);
    let row = format!("{}/{row_id}", table.table);
    if dice.one_in(6) {
        return delete(&client.id, hlc, &row);
    }
    let written = table.columns.iter().filter(|_| !dice.one_in(3));
    let cells = written.map(|column| (column.name.as_str(), random_value(dice, column)));
    write(&client.id, hlc, &row, cells.collect::<Vec<_>>())
}

fn random_value(dice: &Dice, column: &Column) -> Value {
    if dice.one_in(8) {
        return Value::Null;
    }
    let text = |texts: &[&str]| dice.pick(texts).to_owned();
    match column.r#type() {
        ColumnType::Bool => Value::Bool(dice.one_in(2)),
        ColumnType::Int64 => {
            let ends = [i64::MIN, i64::MAX, 0, -1];
            let one = ends.get(dice.below(6) as usize);
            Value::Int64(one.copied().unwrap_or(dice.next().cast_signed()))
        }
        ColumnType::Double => {
            let ends = [0.0, -0.0, 5e-324, f64::MAX, f64::MIN, 0.1, f64::NAN, f64::INFINITY, 1e22];
            let one = ends.get(dice.below(12) as usize);
            Value::Double(one.copied().unwrap_or(dice.next() as f64 / 1e5))
        }
        ColumnType::String => Value::String(text(&[
            "",
            " ",
            "trailing ",
            "🦀é日本",
            "a\r\n\tb\\'\"`;--\u{feff}\u{7f}",
            "NULL",
            "\\N",
            "\\.",
            "∅",
        ])),
        ColumnType::Bytes => {
            let length = dice.below(40) as usize;
            Value::Bytes((0..length).map(|_| dice.next() as u8).collect::<Vec<u8>>().into())
        }
        ColumnType::Json => Value::Json(text(&[
            "null",
            "[]",
            "{}",
            r#"{"é":[1,2.5,"x\n"]}"#,
            r#""🦀""#,
            "true",
            "-0.5",
            r#"{"a":{"b":[[]]}}"#,
            "1e400",
            r#"["\u0000"]"#,
        ])),
        ColumnType::Decimal => {
            let (whole, fraction) = (dice.below(1 << 40), dice.below(10_u64.pow(column.scale)));
            let sign = if dice.one_in(2) { "-" } else { "" };
            match column.scale {
                0 => Value::Decimal(format!("{sign}{whole}")),
                scale => Value::Decimal(format!(
                    "{sign}{whole}.{fraction:0width$}",
                    width = scale as usize
                )),
            }
        }
        ColumnType::Timestamp => {
            let ends = [
                0,
                -1,
                1_700_000_000_123_456,
                -62_135_596_800_000_000,
                253_402_300_799_999_999,
                i64::MIN,
            ];
            Value::Timestamp(ends[dice.below(ends.len() as u64) as usize])
        }
        ColumnType::Date => {
            let ends = [0, -1, -719_162, 2_932_896, 19_000, i32::MAX];
            Value::Date(ends[dice.below(ends.len() as u64) as usize])
        }
        _ => Value::Uuid(std::array::from_fn(|_| dice.next() as u8)),
    }
}

/// Every table of a database, as its own client prints it, is what the gateway's rows should print.
async fn compare(database: Database, schema: &str, tables: &[TableSchema], client: &Client) {
    let replica = Replica::by_checkpoint(client).await.expect("rows");
    for table in tables {
        let key = exactly(database, ColumnType::String, &table.key);
        let columns = table.columns.iter().map(|c| exactly(database, c.r#type(), &c.name));
        let columns: Vec<_> = [key].into_iter().chain(columns).collect();
        let from = format!("{}.{}", database.quoted(schema), database.quoted(&table.table));
        let lines = database.ask(&format!("SELECT {} FROM {from}", columns.join(", "))).await;
        let mut found: Vec<Vec<String>> = lines.iter().map(|line| cells(table, line)).collect();
        found.sort();
        let mut expected: Vec<Vec<String>> = Vec::new();
        for (row_id, row) in replica.rows_of(&table.table) {
            let id = Value::String(row_id.to_string());
            let mut cells = vec![printed(database, ColumnType::String, Some(&id))];
            for column in &table.columns {
                let cell = row.cell(&column.name.parse().expect("a name")).map(|cell| &cell.value);
                cells.push(printed(database, column.r#type(), widened(column, cell).as_ref()));
            }
            expected.push(cells);
        }
        expected.sort();
        assert_eq!(found, expected, "{} of {}", table.table, database.kind());
    }
}

/// A value from before its column was widened, as the column holds it.
fn widened(column: &Column, value: Option<&Value>) -> Option<Value> {
    const DAY_US: i64 = 24 * 60 * 60 * 1_000_000;
    Some(match (column.r#type(), value?) {
        (ColumnType::Double, Value::Int64(number)) => Value::Double(*number as f64),
        (ColumnType::Timestamp, Value::Date(days)) => Value::Timestamp(i64::from(*days) * DAY_US),
        (_, value) => value.clone(),
    })
}

/// The cells of a printed line.
fn cells(table: &TableSchema, line: &str) -> Vec<String> {
    let kinds = table.columns.iter().map(Column::r#type);
    let kinds = [ColumnType::String].into_iter().chain(kinds);
    let cells: Vec<&str> = line.split('|').collect();
    assert_eq!(cells.len(), table.columns.len() + 1, "{line:?}");
    cells.into_iter().zip(kinds).map(|(cell, kind)| canonical(kind, cell)).collect()
}
