//! `lakesync verify`: whether a backend holds and shows the rows of a gateway, and its repair.

use std::io::Write;

use lakesync::proto::admin::v1::row_difference::Kind;
use lakesync::proto::admin::v1::{VerifyBackendRequest, VerifyBackendResponse};
use serde_json::json;

use crate::exit::Exit;
use crate::operator::{self, Operator, Server};
use crate::show;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The gateway.
    #[arg(long, default_value = "main")]
    gateway: String,
    /// The backend's name in the settings; may be left out if the gateway has one only.
    #[arg(long)]
    backend: Option<String>,
    /// Write rows anew that are missing, outdated or changed. Views, grants and the history stay.
    #[arg(long)]
    repair: bool,
    /// Remove rows that the gateway does not have: somebody put them there, or the gateway was restored
    /// from an older copy and nobody else has them. Rows that are newer at the backend stay. Asks first.
    #[arg(long)]
    remove_extra: bool,
    /// Remove without asking.
    #[arg(long, requires = "remove_extra")]
    yes: bool,
    #[command(flatten)]
    server: Server,
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Exit> {
    let Arguments { gateway, backend, repair, remove_extra, yes, server } = arguments;
    let (json, backend) = (server.json, backend.unwrap_or_default());
    if remove_extra {
        let question =
            format!("remove rows from the backend that gateway {gateway} does not have?");
        operator::confirm(&question, yes)?;
    }
    let request = VerifyBackendRequest { gateway, backend, repair, remove_extra };
    server.run(async move |operator| verify(operator, request, json).await)
}

async fn verify(
    mut operator: Operator,
    request: VerifyBackendRequest,
    json: bool,
) -> Result<(), Exit> {
    let refused = |status: tonic::Status| operator::refused(&status, Exit::usage);
    let VerifyBackendRequest { repair, remove_extra, .. } = request;
    let request = operator.request(request);
    let mut tables = operator.admin.verify_backend(request).await.map_err(refused)?.into_inner();
    let mut summary = Summary { repair, remove_extra, ..Summary::default() };
    let (mut left, mut told) = (None, Vec::new());
    while let Some(table) = tables.message().await.map_err(refused)? {
        if table.gateway_digest.is_empty() {
            left = Some(u64::from(table.tables_left) + 1);
            continue;
        }
        left = Some(table.tables_left.into());
        summary.add(&table);
        match json {
            true => told.push(as_json(&table)),
            false => say(&table)?,
        }
    }
    if json {
        show::line(json!({ "tables": told }))?;
    }
    match left {
        None if json => Ok(()),
        None => show::line("the gateway has no tables; there is nothing to compare"),
        Some(0) => summary.conclude(),
        Some(left) => Err(Exit::unavailable(format!(
            "the server ended the answer with {left} tables left; try again"
        ))),
    }
}

/// What differs in all tables, once what was ordered is done.
#[derive(Default)]
struct Summary {
    repair: bool,
    remove_extra: bool,
    differ: u64,
    extra: u64,
    newer: u64,
    unsettled: u64,
    repaired: u64,
    refused: u64,
}

impl Summary {
    fn add(&mut self, table: &VerifyBackendResponse) {
        self.differ += table.missing + table.outdated + table.changed;
        self.extra += table.extra;
        self.newer += table.newer;
        self.unsettled += table.unsettled;
        self.repaired += table.repaired;
        self.refused += table.refused;
    }

    fn conclude(&self) -> Result<(), Exit> {
        let left = (self.differ + self.extra + self.newer).saturating_sub(self.repaired);
        if 0 < left {
            return Err(Exit::data(format!("{left} rows differ; {}", self.hints().join("; "))));
        }
        match self.unsettled {
            0 => Ok(()),
            count => Err(Exit::data(format!(
                "{count} rows were written all the time and could not be compared; try again"
            ))),
        }
    }

    /// What can be done about the rows that still differ.
    fn hints(&self) -> Vec<String> {
        let mut hints = Vec::new();
        let is_left = (self.differ != 0 && !self.repair, self.extra != 0 && !self.remove_extra);
        let ways = match is_left {
            (true, true) => {
                Some("--repair writes rows anew, --remove-extra removes those that are extra")
            }
            (true, false) => Some("--repair writes them anew"),
            (false, true) => Some("--remove-extra removes rows that the gateway does not have"),
            (false, false) => None,
        };
        hints.extend(ways.map(str::to_owned));
        if self.refused != 0 {
            hints.push(format!(
                "the database refused {} of them; the backend's `troubles` in `lakesync status` say \
                 more",
                self.refused
            ));
        }
        if self.newer != 0 {
            hints.push(format!(
                "{} are newer at the backend, and are never overwritten",
                self.newer
            ));
        }
        hints
    }
}

fn say(table: &VerifyBackendResponse) -> Result<(), Exit> {
    let counts = [
        (table.missing, "missing"),
        (table.outdated, "outdated"),
        (table.changed, "changed"),
        (table.extra, "extra"),
        (table.newer, "newer at the backend"),
        (table.unsettled, "not compared"),
        (table.repaired, "repaired"),
        (table.refused, "refused by the database"),
    ];
    let counts = counts.into_iter().filter(|(count, _)| *count != 0);
    let counts: Vec<_> = counts.map(|(count, what)| format!("{count} {what}")).collect();
    let found = match counts.is_empty() {
        true => format!("the same, sha256 {}", hex(&table.gateway_digest)),
        false => counts.join(", "),
    };
    let mut out = std::io::stdout();
    writeln!(out, "{}  {} rows: {found}", table.table, table.rows).map_err(Exit::input_output)?;
    for example in &table.examples {
        let kind = word(example.kind());
        writeln!(out, "  {kind}: {}", example.row_id).map_err(Exit::input_output)?;
    }
    Ok(())
}

fn as_json(table: &VerifyBackendResponse) -> serde_json::Value {
    let example = |row: &lakesync::proto::admin::v1::RowDifference| json!({ "row_id": row.row_id, "kind": word(row.kind()) });
    json!({
        "table": table.table,
        "rows": table.rows,
        "missing": table.missing,
        "outdated": table.outdated,
        "changed": table.changed,
        "extra": table.extra,
        "newer": table.newer,
        "unsettled": table.unsettled,
        "repaired": table.repaired,
        "refused": table.refused,
        "examples": table.examples.iter().map(example).collect::<Vec<_>>(),
        "gateway_sha256": hex(&table.gateway_digest),
        "backend_sha256": hex(&table.backend_digest),
    })
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Missing => "missing",
        Kind::Outdated => "outdated",
        Kind::Changed => "changed",
        Kind::Extra => "extra",
        Kind::Newer => "newer",
        Kind::Unspecified => "differs",
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
