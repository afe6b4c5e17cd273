//! The demo's database: a copy of the user's, or one made of the time-zone tables in
//! `examples/data`.

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, Connection};

use crate::exit::Exit;

const ZONES: &str = include_str!("../../../../../examples/data/zone1970.tab");
const COUNTRIES: &str = include_str!("../../../../../examples/data/iso3166.tab");
const LEAP_SECONDS: &str = include_str!("../../../../../examples/data/leapseconds");

/// Copies a database as it is now, whoever else has it open. The original is only read.
pub(super) async fn copy(from: &Path, to: &Path) -> Result<(), Exit> {
    let named =
        |error: &dyn std::fmt::Display| Exit::input_output(format!("{}: {error}", from.display()));
    let to = to
        .to_str()
        .ok_or_else(|| Exit::input_output("the temporary directory's name is no text"))?;
    let options = SqliteConnectOptions::new().filename(from).read_only(true);
    let mut connection =
        SqliteConnection::connect_with(&options).await.map_err(|error| named(&error))?;
    let copied = sqlx::query("VACUUM INTO ?").bind(to).execute(&mut connection).await;
    copied.map_err(|error| named(&error))?;
    connection.close().await.map_err(|error| named(&error))
}

/// Makes a database of countries, zones and leap seconds: a text key, a composite key, a generated
/// one, and a foreign key.
pub(super) async fn time_zones(to: &Path) -> Result<(), Exit> {
    let options = SqliteConnectOptions::new().filename(to).create_if_missing(true);
    let mut connection =
        SqliteConnection::connect_with(&options).await.map_err(Exit::input_output)?;
    let made = fill(&mut connection).await;
    made.map_err(Exit::input_output)?;
    connection.close().await.map_err(Exit::input_output)
}

async fn fill(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let mut work = connection.begin().await?;
    sqlx::raw_sql(AssertSqlSafe(
        "CREATE TABLE country (code TEXT NOT NULL PRIMARY KEY, name TEXT NOT NULL);
         CREATE TABLE zone (name TEXT NOT NULL PRIMARY KEY, coordinates TEXT NOT NULL, comments TEXT);
         CREATE TABLE zone_country (
             zone TEXT NOT NULL REFERENCES zone, country TEXT NOT NULL REFERENCES country,
             PRIMARY KEY (zone, country)
         );
         CREATE TABLE leap_second (
             id INTEGER PRIMARY KEY AUTOINCREMENT, day TEXT NOT NULL, correction INTEGER NOT NULL
         );
         CREATE VIEW zones_of_country AS
             SELECT country.name AS country, zone FROM zone_country JOIN country ON code = country;",
    ))
    .execute(&mut *work)
    .await?;
    for fields in rows(COUNTRIES) {
        if let [code, name, ..] = fields[..] {
            let insert = sqlx::query("INSERT INTO country VALUES (?, ?)");
            insert.bind(code).bind(name).execute(&mut *work).await?;
        }
    }
    for fields in rows(ZONES) {
        if let [codes, coordinates, name, comments @ ..] = &fields[..] {
            let insert = sqlx::query("INSERT INTO zone VALUES (?, ?, ?)");
            let insert = insert.bind(*name).bind(*coordinates).bind(comments.first().copied());
            insert.execute(&mut *work).await?;
            for code in codes.split(',') {
                let insert = sqlx::query("INSERT INTO zone_country VALUES (?, ?)");
                insert.bind(*name).bind(code).execute(&mut *work).await?;
            }
        }
    }
    for fields in rows(LEAP_SECONDS) {
        if let ["Leap", year, month, day, _, correction, ..] = fields[..] {
            let insert = sqlx::query("INSERT INTO leap_second (day, correction) VALUES (?, ?)");
            let correction = if correction == "+" { 1 } else { -1 };
            insert
                .bind(format!("{year} {month} {day}"))
                .bind(correction)
                .execute(&mut *work)
                .await?;
        }
    }
    work.commit().await
}

/// The rows of a table of tab-separated fields, comments left out.
fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split('\t').collect())
}
