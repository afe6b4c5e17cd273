//! The backends of a file of settings: `[backends.NAME]` tables → [`Backends`], checked as a whole.
//!
//! A backend may be made of others, by name. There are no circles, and each database has one owner.
//! A fault is told before a server starts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use lakesync::name::TableName;

use super::parse::{self, Bounds};

/// The name of the backend that the setting `backend_url` makes.
pub const DEFAULT: &str = "default";
/// What stands for the gateway's name in a schema's name.
pub const GATEWAY: &str = "{gateway}";
/// How many backends there may be.
const BACKENDS_MAX: usize = 100;
/// Bytes of a name in Postgres; MySQL takes one more.
const SCHEMA_BYTES_MAX: usize = 63;

const AGE: Bounds = Bounds { min: "0s", max: "1d" };
// What holds unless it is set.
const AGE_DEFAULT: Duration = Duration::from_secs(1);
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
const CHECK_DEFAULT: Duration = Duration::from_secs(60);
const CALL: Bounds = Bounds { min: "5s", max: "1h" };
const CHECK: Bounds = Bounds { min: "100ms", max: "1d" };
/// One commit may hold 4 MiB; much more than this and a retry costs more than it saves.
const SIZE: Bounds = Bounds { min: "64KiB", max: "64MiB" };

/// All backends, by name, and those that gateways are flushed to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backends {
    /// Every backend.
    pub all: BTreeMap<String, Backend>,
    /// Which of them gateways are flushed to.
    pub flush_to: Vec<String>,
}

/// One backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// What it is.
    pub kind: Kind,
    /// After how many changes a batch is written.
    pub rows: u64,
    /// After how many bytes of commits.
    pub bytes: u64,
    /// How long the first change of a batch waits at most.
    pub age: Duration,
    /// How often a backend that has everything is asked how far it has come.
    pub check_every: Duration,
}

/// What a backend is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A Postgres server.
    Postgres(Sql),
    /// A MySQL or MariaDB server.
    MySql(Sql),
    /// Tables go to backends of their own.
    Route {
        /// Where tables go that are not named.
        default: String,
        /// Where the others go.
        tables: BTreeMap<TableName, String>,
    },
    /// One backend that counts, and others that follow it.
    FanOut {
        /// The one that counts.
        primary: String,
        /// The others.
        followers: Vec<String>,
    },
    /// Rows move from one backend to another as they age.
    Tier {
        /// Where new rows are.
        hot: String,
        /// Where old rows are.
        cold: String,
        /// How long a row stays after it was last written.
        after: Duration,
    },
}

/// A database server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sql {
    /// Where it is, and who we are there.
    pub url: Url,
    /// Which of its schemas holds a gateway's tables, with [`GATEWAY`] for the gateway's name.
    pub schema: String,
    /// Whether the changes are kept as well as the rows.
    pub history: bool,
    /// How long a call may take at first. It doubles after each that took longer.
    pub call_timeout: Duration,
}

/// A URL that may hold a password: it is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Url(pub String);

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Url(..)")
    }
}

impl Backend {
    fn new(kind: Kind) -> Self {
        Self { kind, rows: 10_000, bytes: 8 << 20, age: AGE_DEFAULT, check_every: CHECK_DEFAULT }
    }
}

impl Kind {
    /// What a URL names, with a gateway's tables in this schema.
    fn of_url(url: &str, schema: &str) -> Result<Self, String> {
        let sql = Sql {
            url: Url(url.to_owned()),
            schema: schema.to_owned(),
            history: true,
            call_timeout: CALL_TIMEOUT,
        };
        match url.split_once("://").map(|(scheme, _)| scheme) {
            Some("postgres" | "postgresql") => Ok(Self::Postgres(sql)),
            Some("mysql" | "mariadb") => Ok(Self::MySql(sql)),
            _ => Err("a postgres:// or mysql:// URL is needed".to_owned()),
        }
    }

    /// The backends that it is made of.
    fn parts(&self) -> Vec<&String> {
        match self {
            Self::Postgres(_) | Self::MySql(_) => Vec::new(),
            Self::Route { default, tables } => {
                [default].into_iter().chain(tables.values()).collect()
            }
            Self::FanOut { primary, followers } => [primary].into_iter().chain(followers).collect(),
            Self::Tier { hot, cold, .. } => vec![hot, cold],
        }
    }
}

/// The backends of these settings: the tables under `backends`, the names of `flush_to`, and a URL.
/// An error says which setting is wrong.
pub(super) fn parse(
    tables: &toml::Table,
    flush_to: &[String],
    url: Option<&str>,
) -> Result<Backends, String> {
    let mut all = BTreeMap::new();
    for (name, table) in tables {
        let wrong = |what: String| format!("backends.{name}: {what}");
        let toml::Value::Table(table) = table else {
            return Err(wrong("a table is needed, as [backends.NAME]".to_owned()));
        };
        if !is_name(name) {
            return Err(wrong("a name is 1 to 63 letters, digits, - and _".to_owned()));
        }
        all.insert(name.clone(), backend(Fields(table.clone())).map_err(wrong)?);
    }
    if let Some(url) = url {
        let kind = Kind::of_url(url, GATEWAY).map_err(|what| format!("backend_url: {what}"))?;
        if all.insert(DEFAULT.to_owned(), Backend::new(kind)).is_some() {
            return Err(format!(
                "backend_url: it is the backend {DEFAULT}, which is there already"
            ));
        }
    }
    if BACKENDS_MAX < all.len() {
        return Err(format!("backends: there may be {BACKENDS_MAX} at most"));
    }
    let flush_to = chosen(&all, flush_to)?;
    let backends = Backends { all, flush_to };
    backends.check()?;
    Ok(backends)
}

/// Where gateways are flushed to: to what is named, or else to what is no part of another.
fn chosen(all: &BTreeMap<String, Backend>, named: &[String]) -> Result<Vec<String>, String> {
    if named.is_empty() {
        let parts: BTreeSet<&String> =
            all.values().flat_map(|backend| backend.kind.parts()).collect();
        return Ok(all.keys().filter(|name| !parts.contains(name)).cloned().collect());
    }
    match named.iter().find(|name| !all.contains_key(*name)) {
        Some(name) => Err(format!("flush_to: there is no backend {name}")),
        None => Ok(named.to_vec()),
    }
}

impl Backends {
    /// One backend, which a URL names, with a gateway's tables in this schema.
    pub fn of_url(name: &str, url: &str, schema: &str) -> Result<Self, String> {
        check_schema(schema)?;
        let backend = Backend::new(Kind::of_url(url, schema)?);
        Ok(Self { all: BTreeMap::from([(name.to_owned(), backend)]), flush_to: Vec::new() })
    }

    /// Every part is there, and each backend is a part of one other at most, or flushed to once.
    fn check(&self) -> Result<(), String> {
        let mut uses: BTreeMap<&String, &str> = BTreeMap::new();
        for name in &self.flush_to {
            if uses.insert(name, "flush_to").is_some() {
                return Err(format!("flush_to: {name} is named twice"));
            }
        }
        for (name, backend) in &self.all {
            let parts: BTreeSet<&String> = backend.kind.parts().into_iter().collect();
            let distinct = match &backend.kind {
                Kind::Route { .. } => parts.len(),
                _ => backend.kind.parts().len(),
            };
            if parts.len() < distinct {
                return Err(format!("backends.{name}: a backend can't be two of its parts"));
            }
            for part in parts {
                if !self.all.contains_key(part) {
                    return Err(format!("backends.{name}: there is no backend {part}"));
                }
                if let Some(other) = uses.insert(part, name) {
                    return Err(format!(
                        "backends.{name}: {part} is used by {other} already; a backend keeps one \
                         watermark, so it has one use"
                    ));
                }
            }
        }
        for name in &self.flush_to {
            self.descend(name, &mut Vec::new())?;
        }
        // What nothing is flushed to is kept for a migration: where it goes to, or where it came from.
        let kept = self.all.keys().filter(|name| !uses.contains_key(name));
        let reached: usize = self.flush_to.iter().chain(kept).map(|name| self.count(name)).sum();
        match reached == self.all.len() {
            true => Ok(()),
            false => Err("backends: some are made of each other, in a circle".to_owned()),
        }
    }

    fn descend<'a>(&'a self, name: &'a String, above: &mut Vec<&'a String>) -> Result<(), String> {
        if above.contains(&name) {
            return Err(format!("backends.{name}: it is made of itself"));
        }
        above.push(name);
        for part in self.all[name].kind.parts().into_iter().collect::<BTreeSet<_>>() {
            self.descend(part, above)?;
        }
        above.pop();
        Ok(())
    }

    /// How many backends one is made of, itself included.
    fn count(&self, name: &String) -> usize {
        let parts: BTreeSet<&String> = self.all[name].kind.parts().into_iter().collect();
        1 + parts.into_iter().map(|part| self.count(part)).sum::<usize>()
    }
}

/// The settings of one backend, which are taken out as they are read.
struct Fields(toml::Table);

fn backend(mut fields: Fields) -> Result<Backend, String> {
    let named = fields.text("kind")?;
    let kind = match named.as_str() {
        "postgres" => Kind::Postgres(sql(&mut fields)?),
        "mysql" | "mariadb" => Kind::MySql(sql(&mut fields)?),
        "route" => Kind::Route { default: fields.text("default")?, tables: fields.tables()? },
        "fan_out" => {
            Kind::FanOut { primary: fields.text("primary")?, followers: fields.texts("followers")? }
        }
        "tier" => Kind::Tier {
            hot: fields.text("hot")?,
            cold: fields.text("cold")?,
            after: parse::duration(&fields.text("after")?)
                .map_err(|what| format!("after: {what}"))?,
        },
        other => {
            return Err(format!(
                "kind = {other:?}: postgres, mysql, route, fan_out or tier is needed"
            ));
        }
    };
    let mut backend = Backend::new(kind);
    if let Some(text) = fields.optional_text("flush_age")? {
        backend.age = AGE.duration(&text).map_err(|what| format!("flush_age: {what}"))?;
    }
    if let Some(text) = fields.optional_text("check_every")? {
        backend.check_every =
            CHECK.duration(&text).map_err(|what| format!("check_every: {what}"))?;
    }
    if let Some(text) = fields.optional_text("flush_size")? {
        backend.bytes = SIZE.size(&text).map_err(|what| format!("flush_size: {what}"))?;
    }
    if let Some(text) = fields.optional_text("flush_rows")? {
        backend.rows = match parse::count(&text).map_err(|what| format!("flush_rows: {what}"))? {
            0 => return Err("flush_rows: it must be 1 at least".to_owned()),
            rows => rows,
        };
    }
    let Some(unknown) = fields.0.keys().next() else { return Ok(backend) };
    let own = match &backend.kind {
        Kind::Postgres(_) | Kind::MySql(_) => "url, url_file, schema, history, call_timeout",
        Kind::Route { .. } => "default, tables",
        Kind::FanOut { .. } => "primary, followers",
        Kind::Tier { .. } => "hot, cold, after",
    };
    Err(format!(
        "there is no setting {unknown} of the kind {named}; there are {own}, flush_age, flush_rows, \
         flush_size and check_every"
    ))
}

fn sql(fields: &mut Fields) -> Result<Sql, String> {
    let url = match (fields.optional_text("url")?, fields.optional_text("url_file")?) {
        (Some(url), None) => url,
        (None, Some(path)) => {
            let text = std::fs::read_to_string(&path);
            text.map_err(|error| format!("url_file: {path}: {error}"))?.trim().to_owned()
        }
        _ => return Err("either url or url_file is needed".to_owned()),
    };
    let schema = fields.optional_text("schema")?.unwrap_or_else(|| GATEWAY.to_owned());
    check_schema(&schema)?;
    let history = fields.optional_text("history")?.unwrap_or_else(|| "true".to_owned());
    let history = parse::truth(&history).map_err(|what| format!("history: {what}"))?;
    let call_timeout = match fields.optional_text("call_timeout")? {
        Some(text) => CALL.duration(&text).map_err(|what| format!("call_timeout: {what}"))?,
        None => CALL_TIMEOUT,
    };
    Ok(Sql { url: Url(url), schema, history, call_timeout })
}

fn check_schema(schema: &str) -> Result<(), String> {
    let fixed = schema.replace(GATEWAY, "");
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if schema.is_empty() || SCHEMA_BYTES_MAX < fixed.len() || !fixed.chars().all(legal) {
        return Err(format!(
            "schema = {schema:?}: up to {SCHEMA_BYTES_MAX} letters, digits, - and _ are needed, and \
             {GATEWAY} for the gateway's name"
        ));
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    (1..=63).contains(&name.len()) && name.chars().all(legal)
}

impl Fields {
    fn text(&mut self, name: &str) -> Result<String, String> {
        self.optional_text(name)?.ok_or_else(|| format!("{name} is needed"))
    }

    /// A text, number or truth value as text.
    fn optional_text(&mut self, name: &str) -> Result<Option<String>, String> {
        self.0
            .remove(name)
            .map(|value| text(&value).ok_or_else(|| format!("{name}: a text is needed")))
            .transpose()
    }

    fn texts(&mut self, name: &str) -> Result<Vec<String>, String> {
        let wanted = || format!("{name} is needed: a list of backends' names, as [\"a\", \"b\"]");
        let Some(toml::Value::Array(items)) = self.0.remove(name) else { return Err(wanted()) };
        let texts: Option<Vec<String>> = items.iter().map(text).collect();
        texts.filter(|texts| !texts.is_empty()).ok_or_else(wanted)
    }

    /// Which backend each table goes to.
    fn tables(&mut self) -> Result<BTreeMap<TableName, String>, String> {
        let wanted = || "tables is needed: as { TABLE = \"BACKEND\" }".to_owned();
        let Some(toml::Value::Table(table)) = self.0.remove("tables") else { return Err(wanted()) };
        let route = |(name, backend): (String, toml::Value)| {
            let name = TableName::parse(&name).map_err(|error| format!("tables: {error}"))?;
            Ok((name, text(&backend).ok_or_else(wanted)?))
        };
        table.into_iter().map(route).collect()
    }
}

/// A setting's text, if it is one value.
pub(super) fn text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(truth) => Some(truth.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
