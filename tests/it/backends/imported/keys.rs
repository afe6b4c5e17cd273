//! Keys of databases: the same rows under the same ids, whatever the database calls their types.

use lakesync::value::Value;

use super::{Office, assert_done, made};
use crate::backends::servers::Database;

fn decimal(text: &str) -> Value {
    Value::Decimal(text.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_are_integers_are_imported_as_integers() {
    for database in Database::all().await {
        let office = Office::open(None).await;
        let wide = match database {
            Database::Postgres(_) => "numeric(20,0)",
            Database::MariaDb(_) => "bigint unsigned",
        };
        let tables = [
            format!("CREATE TABLE HERE.orders (id {wide} PRIMARY KEY, total {wide})"),
            format!(
                "CREATE TABLE HERE.lines (id {wide}, nth decimal(3,0), owner {wide}, \
                 PRIMARY KEY (id, nth), FOREIGN KEY (owner) REFERENCES HERE.orders (id))"
            ),
            format!("CREATE TABLE HERE.huge (id {wide} PRIMARY KEY)"),
            "CREATE TABLE HERE.prices (id decimal(6,2) PRIMARY KEY)".to_owned(),
            "CREATE TABLE HERE.floats (id double precision PRIMARY KEY)".to_owned(),
        ];
        let rows = [
            "INSERT INTO HERE.orders VALUES (1, 1), (9223372036854775807, 2)",
            "INSERT INTO HERE.lines VALUES (1, 7, 1), (2, 7, 9223372036854775807)",
            "INSERT INTO HERE.huge VALUES (1), (18446744073709551615)",
            "INSERT INTO HERE.prices VALUES (1.00), (1.50), (-0.25)",
            "INSERT INTO HERE.floats VALUES (1), (0.5), (1e300)",
        ];
        let sql: Vec<&str> = tables.iter().map(String::as_str).chain(rows).collect();
        let schema = made(database, &sql).await;
        let names = ["orders", "lines", "huge", "prices", "floats"];
        let named: Vec<_> = names.iter().map(|name| format!("{schema}.{name}")).collect();
        assert_done(&office.import(database, &named).await);

        let orders = office.rows("orders").await;
        assert_eq!(orders.keys().collect::<Vec<_>>(), ["1", "9223372036854775807"]);
        assert_eq!(orders["1"]["id"], Value::Int64(1));
        assert_eq!(orders["1"]["total"], decimal("1"), "it names no row");
        let lines = office.rows("lines").await;
        assert_eq!(lines.keys().collect::<Vec<_>>(), ["[1,7]", "[2,7]"]);
        let second = &lines["[2,7]"];
        assert_eq!(second["nth"], Value::Int64(7));
        assert_eq!(second["owner"], Value::Int64(i64::MAX), "it refers to a row");
        let huge = office.rows("huge").await;
        assert_eq!(huge.keys().collect::<Vec<_>>(), ["1", "18446744073709551615"]);
        assert_eq!(huge["1"]["id"], decimal("1"), "one of its values is no 64-bit integer");
        let prices = office.rows("prices").await;
        assert_eq!(prices.keys().collect::<Vec<_>>(), ["-0.25", "1", "1.5"]);
        let floats = office.rows("floats").await;
        let real = |mantissa: i64, exponent: i32| format!(r#"[{{"r":[{mantissa},{exponent}]}}]"#);
        let wanted = ["1".to_owned(), real(1 << 52, -53), real(6_724_873_095_247_260, 944)];
        assert_eq!(floats.len(), wanted.len(), "{floats:?}");
        for id in &wanted {
            assert!(floats.contains_key(id), "{id} of {floats:?}");
        }
    }
}
