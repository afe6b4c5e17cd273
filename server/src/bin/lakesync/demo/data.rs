//! The demo's database: a copy of the user's, or one made of the time-zone tables in
//! `examples/data`.

use std::fs::File;
use std::path::{Path, PathBuf};

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, Connection, Row};

use super::edit::quoted;

use crate::exit::Exit;

const ZONES: &str = include_str!("../../../../../examples/data/zone1970.tab");
const COUNTRIES: &str = include_str!("../../../../../examples/data/iso3166.tab");
const LEAP_SECONDS: &str = include_str!("../../../../../examples/data/leapseconds");

/// Copies a database as it is now, whoever else has it open. The original is only read. What makes
/// it a replica of another gateway is left out of the copy.
pub(super) async fn copy(from: &Path, to: &Path) -> Result<(), Exit> {
    let named =
        |error: &dyn std::fmt::Display| Exit::input_output(format!("{}: {error}", from.display()));
    let options = SqliteConnectOptions::new().filename(from).read_only(true);
    let mut connection =
        SqliteConnection::connect_with(&options).await.map_err(|error| named(&error))?;
    // While somebody reads, nobody moves what was committed before from the log to the pages, nor
    // changes pages. By files, because a copy by SQL needs the application's own collations.
    let read = "BEGIN; SELECT count(*) FROM sqlite_master";
    sqlx::raw_sql(read).execute(&mut connection).await.map_err(|error| named(&error))?;
    let log = beside(from, "-wal");
    if log.exists() {
        copy_bytes(&log, &beside(to, "-wal")).map_err(|error| named(&error))?;
    }
    copy_bytes(from, to).map_err(|error| named(&error))?;
    connection.close().await.map_err(|error| named(&error))?;
    forget_sync(to).await.map_err(|error| named(&error))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The bytes alone: a copy of a read-only file is to be written.
fn copy_bytes(from: &Path, to: &Path) -> std::io::Result<()> {
    std::io::copy(&mut File::open(from)?, &mut File::create(to)?)?;
    Ok(())
}

/// Drops what LakeSync keeps in a file that it syncs: its triggers, indexes and tables.
async fn forget_sync(file: &Path) -> Result<(), sqlx::Error> {
    let options = SqliteConnectOptions::new().filename(file);
    let mut connection = SqliteConnection::connect_with(&options).await?;
    let mut work = connection.begin().await?;
    // Tables last: what belongs to them goes with them.
    let own = "SELECT type, name FROM sqlite_master WHERE type IN ('trigger', 'index', 'table') \
               AND substr(lower(name), 1, 9) = '_lakesync' ORDER BY type = 'table'";
    for row in sqlx::query(own).fetch_all(&mut *work).await? {
        let (kind, name): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let drop = format!("DROP {kind} {}", quoted(&name));
        sqlx::query(AssertSqlSafe(drop)).execute(&mut *work).await?;
    }
    work.commit().await?;
    connection.close().await
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
