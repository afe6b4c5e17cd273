//! Every type that the databases have, its extremes and NULL: written down as SQL on one side and as
//! our values on the other.

use lakesync::value::Value;

use super::{Office, assert_done, made};
use crate::backends::servers::Database;

/// A column: its name, its type, an SQL literal and what it becomes.
type Case = (&'static str, &'static str, &'static str, Value);

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn json(text: &str) -> Value {
    Value::Json(text.to_owned())
}

fn decimal(text: &str) -> Value {
    Value::Decimal(text.to_owned())
}

fn bytes(bytes: &'static [u8]) -> Value {
    Value::Bytes(bytes.into())
}

fn postgres() -> Vec<Case> {
    vec![
        ("yes", "bool", "true", Value::Bool(true)),
        ("no", "boolean", "false", Value::Bool(false)),
        ("small", "int2", "-32768", Value::Int64(-32_768)),
        ("int", "int4", "2147483647", Value::Int64(2_147_483_647)),
        ("low", "int8", "-9223372036854775808", Value::Int64(i64::MIN)),
        ("high", "int8", "9223372036854775807", Value::Int64(i64::MAX)),
        ("single", "float4", "0.1", Value::Double(f64::from(0.1_f32))),
        ("tiny", "float8", "5e-324", Value::Double(5e-324)),
        ("huge", "float8", "1.7976931348623157e308", Value::Double(f64::MAX)),
        ("minus_zero", "float8", "'-0'", Value::Double(-0.0)),
        ("nan", "float8", "'NaN'", Value::Double(f64::NAN)),
        ("inf", "float8", "'-Infinity'", Value::Double(f64::NEG_INFINITY)),
        ("price", "numeric(10,2)", "-12345678.90", decimal("-12345678.90")),
        (
            "widest",
            "numeric(38,0)",
            "99999999999999999999999999999999999999",
            decimal("99999999999999999999999999999999999999"),
        ),
        ("cents", "numeric(3,5)", "0.00123", decimal("0.00123")),
        ("free", "numeric", "1e-40", text("0.0000000000000000000000000000000000000001")),
        ("note", "text", "E'a\\t🦀''\\\\'", text("a\t🦀'\\")),
        ("none", "text", "''", text("")),
        ("short", "varchar(5)", "'é '", text("é ")),
        ("padded", "char(5)", "'ab'", text("ab")),
        ("blob", "bytea", "'\\x00ff10'", bytes(&[0, 0xff, 0x10])),
        (
            "doc",
            "jsonb",
            "'{\"b\": 1.50, \"a\": [true, null]}'",
            json(r#"{"a":[true,null],"b":1.5}"#),
        ),
        ("raw", "json", "'{ \"z\" : 1e2 , \"z\":2}'", json(r#"{"z":2}"#)),
        (
            "at",
            "timestamptz",
            "'2024-02-29 12:00:00.123456+02'",
            Value::Timestamp(1_709_200_800_123_456),
        ),
        (
            "ancient",
            "timestamptz",
            "'0001-01-01 00:00:00+00'",
            Value::Timestamp(-62_135_596_800_000_000),
        ),
        ("wall", "timestamp", "'1969-12-31 23:59:59.999999'", Value::Timestamp(-1)),
        ("day", "date", "'1969-12-31'", Value::Date(-1)),
        ("far", "date", "'5874897-12-31'", Value::Date(2_145_042_905)),
        (
            "uid",
            "uuid",
            "'00112233-4455-6677-8899-AABBCCDDEEFF'",
            Value::Uuid([
                0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd,
                0xee, 0xff,
            ]),
        ),
        ("mood", "HERE.mood", "'so so'", text("so so")),
        ("age", "HERE.age", "42", Value::Int64(42)),
        ("list", "int[]", "'{1,NULL,3}'", text("{1,NULL,3}")),
        ("host", "inet", "'10.0.0.1/8'", text("10.0.0.1/8")),
        ("span", "interval", "'1 day 2 hours'", text("1 day 02:00:00")),
    ]
}

fn mariadb() -> Vec<Case> {
    vec![
        ("yes", "tinyint(1)", "1", Value::Bool(true)),
        ("bit_one", "bit(1)", "b'0'", Value::Bool(false)),
        ("bits", "bit(9)", "b'100000001'", Value::Int64(257)),
        ("tiny", "tinyint", "-128", Value::Int64(-128)),
        ("utiny", "tinyint unsigned", "255", Value::Int64(255)),
        ("uint", "int unsigned", "4294967295", Value::Int64(4_294_967_295)),
        ("low", "bigint", "-9223372036854775808", Value::Int64(i64::MIN)),
        ("ubig", "bigint unsigned", "18446744073709551615", decimal("18446744073709551615")),
        ("year", "year", "2155", Value::Int64(2_155)),
        ("price", "decimal(10,2)", "-12345678.90", decimal("-12345678.90")),
        ("wide", "decimal(65,30)", "1.5", text("1.500000000000000000000000000000")),
        ("single", "float", "0.1", Value::Double(f64::from(0.1_f32))),
        ("huge", "double", "1.7976931348623157e308", Value::Double(f64::MAX)),
        ("small", "double", "2.2250738585072014e-308", Value::Double(f64::MIN_POSITIVE)),
        ("padded", "char(5)", "'ab'", text("ab")),
        (
            "uid",
            "char(36)",
            "'00112233-4455-6677-8899-AABBCCDDEEFF'",
            text("00112233-4455-6677-8899-AABBCCDDEEFF"),
        ),
        ("short", "varchar(9) character set latin1", "'é '", text("é ")),
        ("note", "longtext", "'a\\t🦀\\'\\\\'", text("a\t🦀'\\")),
        ("fixed", "binary(3)", "x'00ff'", bytes(&[0, 0xff, 0])),
        ("blob", "mediumblob", "x'00ff10'", bytes(&[0, 0xff, 0x10])),
        (
            "doc",
            "json",
            "'{\"b\": 1.50, \"a\": [true, null]}'",
            json(r#"{"a":[true,null],"b":1.5}"#),
        ),
        ("at", "datetime(6)", "'1969-12-31 23:59:59.999999'", Value::Timestamp(-1)),
        ("ancient", "datetime", "'1000-01-01 00:00:00'", Value::Timestamp(-30_610_224_000_000_000)),
        (
            "stamp",
            "timestamp(3) null",
            "'2024-02-29 12:00:00.125'",
            Value::Timestamp(1_709_208_000_125_000),
        ),
        ("day", "date", "'9999-12-31'", Value::Date(2_932_896)),
        ("clock", "time", "'-12:00:01'", text("-12:00:01")),
        ("mood", "enum('ok','so so')", "'so so'", text("so so")),
        ("tags", "set('a','b')", "'a,b'", text("a,b")),
        ("place", "point", "point(1, 2)", text("POINT(1 2)")),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_arrives_value_for_value() {
    for database in Database::all().await {
        let office = Office::open(None).await;
        let (cases, types): (_, &[&str]) = match database {
            Database::Postgres(_) => (
                postgres(),
                &[
                    "CREATE TYPE HERE.mood AS ENUM ('ok', 'so so')",
                    "CREATE DOMAIN HERE.age AS int CHECK (0 <= VALUE)",
                ],
            ),
            Database::MariaDb(_) => (mariadb(), &["SELECT 1"]),
        };
        let columns =
            cases.iter().map(|(name, kind, _, _)| format!("{} {kind}", database.quoted(name)));
        let columns = columns.collect::<Vec<_>>().join(", ");
        let literals: Vec<_> = cases.iter().map(|(_, _, literal, _)| *literal).collect();
        let create = format!("CREATE TABLE HERE.kinds (id int PRIMARY KEY, {columns})");
        let zone = match database {
            Database::Postgres(_) => "",
            Database::MariaDb(_) => "SET time_zone = '+00:00'; ",
        };
        let full = format!("{zone}INSERT INTO HERE.kinds VALUES (1, {})", literals.join(", "));
        let empty = "INSERT INTO HERE.kinds (id) VALUES (2)";
        let sql: Vec<_> = types.iter().copied().chain([create.as_str(), &full, empty]).collect();
        let schema = made(database, &sql).await;
        let ended = office.import(database, &[format!("{schema}.kinds")]).await;
        assert_done(&ended);
        let rows = office.rows("kinds").await;
        for (name, kind, literal, expected) in &cases {
            assert_eq!(&rows["1"][*name], expected, "{literal} of {kind}");
            assert_eq!(rows["2"][*name], Value::Null, "{kind}");
        }
        assert_eq!(rows["1"]["id"], Value::Int64(1));
        assert!(ended.stdout.contains("2 rows read, 2 written"), "{ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_every_type_name_their_rows() {
    for database in Database::all().await {
        let office = Office::open(None).await;
        let uuid = "00112233-4455-6677-8899-aabbccddeeff";
        let (tables, expected): (Vec<String>, _) = match database {
            Database::Postgres(_) => (
                vec![
                    "CREATE TABLE HERE.a (id uuid PRIMARY KEY, v int)".to_owned(),
                    format!("INSERT INTO HERE.a VALUES ('{uuid}', 1)"),
                    "CREATE TABLE HERE.b (k bytea, d date, o bool, PRIMARY KEY (k, d, o))".to_owned(),
                    "INSERT INTO HERE.b VALUES ('\\x00ff', '1970-01-03', true)".to_owned(),
                    "CREATE TABLE HERE.c (n numeric(5,2) PRIMARY KEY)".to_owned(),
                    "INSERT INTO HERE.c VALUES (1.5)".to_owned(),
                ],
                [uuid, r#"[{"b":"00ff"},2,1]"#, "1.5"],
            ),
            Database::MariaDb(_) => (
                vec![
                    "CREATE TABLE HERE.a (id char(36) PRIMARY KEY, v int)".to_owned(),
                    format!("INSERT INTO HERE.a VALUES ('{uuid}', 1)"),
                    "CREATE TABLE HERE.b (k varbinary(9), d date, o tinyint(1), PRIMARY KEY (k, d, o))"
                        .to_owned(),
                    "INSERT INTO HERE.b VALUES (x'00ff', '1970-01-03', 1)".to_owned(),
                    "CREATE TABLE HERE.c (n decimal(5,2) PRIMARY KEY)".to_owned(),
                    "INSERT INTO HERE.c VALUES (1.5)".to_owned(),
                ],
                [uuid, r#"[{"b":"00ff"},2,1]"#, "1.5"],
            ),
        };
        let sql: Vec<_> = tables.iter().map(String::as_str).collect();
        let schema = made(database, &sql).await;
        let tables = ["a", "b", "c"].map(|table| format!("{schema}.{table}"));
        assert_done(&office.import(database, &tables).await);
        for (table, id) in ["a", "b", "c"].into_iter().zip(expected) {
            let ids: Vec<_> = office.rows(table).await.into_keys().collect();
            assert_eq!(ids, [id], "{table} of {}", database.kind());
        }
    }
}
