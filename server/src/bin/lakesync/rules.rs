//! `lakesync rules`: sync rules kept as a file in a repository. Check them, rehearse them against the
//! rows of a gateway, put them into force, and ask why a token sees a row or does not.

mod file;
pub(crate) mod operator;

use std::io::Write;
use std::path::PathBuf;

use lakesync::proto::admin::v1::{
    AccessEffect, ExplainAccessRequest, PutSyncRulesRequest, SyncRules,
};
use lakesync::rules::Draft;
use lakesync::wire;

use crate::exit::Exit;
use operator::{Caller, Operator};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Check a file of rules: all that needs no tables and, with --url, whether they fit a gateway's.
    Check(Check),
    /// Put a file of rules into force, and wait until they are.
    Put(Put),
    /// Ask which buckets a token's claims open, and why it may see a row or may not.
    Explain(Explain),
}

#[derive(Debug, clap::Args)]
struct Check {
    /// The rules, as JSON or YAML.
    file: PathBuf,
    /// The claims of a token, as a JSON object: says how many rows it would gain and lose. Needs
    /// --url; may be repeated.
    #[arg(long, requires = "url")]
    claims: Vec<String>,
    /// Where the server is, such as http://127.0.0.1:7461; without it, none is asked.
    #[arg(long)]
    url: Option<String>,
    #[command(flatten)]
    caller: Caller,
}

#[derive(Debug, clap::Args)]
struct Put {
    /// The rules, as JSON or YAML.
    file: PathBuf,
    /// Where the server is, such as http://127.0.0.1:7461.
    #[arg(long)]
    url: String,
    #[command(flatten)]
    caller: Caller,
}

#[derive(Debug, clap::Args)]
struct Explain {
    /// The token's claims, as a JSON object.
    #[arg(long)]
    claims: String,
    /// The row, as TABLE/ROW_ID; without it, only the buckets are explained.
    row: Option<String>,
    /// Where the server is, such as http://127.0.0.1:7461.
    #[arg(long)]
    url: String,
    #[command(flatten)]
    caller: Caller,
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(Exit::input_output)?.block_on(async {
        match arguments.command {
            Command::Check(arguments) => check(arguments).await,
            Command::Put(arguments) => put(arguments).await,
            Command::Explain(arguments) => explain(arguments).await,
        }
    })
}

/// The rules of a file, as a message carries them, if they are right as far as can be told without
/// tables.
fn load(file: &std::path::Path) -> Result<SyncRules, Exit> {
    draft(file).map(|draft| wire::encode_rules(&draft))
}

/// The rules of a file, likewise, as they were written.
pub(crate) fn draft(file: &std::path::Path) -> Result<Draft, Exit> {
    let named = |what: &dyn std::fmt::Display| format!("{}: {what}", file.display());
    let text = std::fs::read_to_string(file).map_err(|error| Exit::input_output(named(&error)))?;
    let draft = file::parse(&text).map_err(|error| Exit::config(named(&error)))?;
    draft.check().map_err(|error| Exit::config(named(&error)))?;
    Ok(draft)
}

async fn check(Check { file, claims, url, caller }: Check) -> Result<(), Exit> {
    let rules = load(&file)?;
    let count = rules.buckets.len();
    let Some(url) = url else {
        return say(&format!(
            "{}: {count} buckets; whether they fit a gateway's tables, --url URL tells",
            file.display()
        ));
    };
    let mut operator = Operator::connect(url, caller).await?;
    let gateway = operator.gateway.clone();
    let claims_json = claims.clone();
    let request = PutSyncRulesRequest { gateway, rules: Some(rules), dry_run: true, claims_json };
    let request = operator.request(request);
    let answer = operator.admin.put_sync_rules(request).await;
    let effects = answer.map_err(|status| operator::told(&status))?.into_inner().effects;
    for (claims, effect) in claims.iter().zip(effects) {
        let AccessEffect { rows_lost, rows_gained, rows_seen } = effect;
        say(&format!(
            "{claims}: would gain {rows_gained} rows, lose {rows_lost}, see {rows_seen}"
        ))?;
    }
    say(&format!("{}: {count} buckets, which fit gateway {}", file.display(), operator.gateway))
}

async fn put(Put { file, url, caller }: Put) -> Result<(), Exit> {
    let rules = load(&file)?;
    let count = rules.buckets.len();
    let mut operator = Operator::connect(url, caller).await?;
    let (gateway, rules) = (operator.gateway.clone(), Some(rules));
    let request = PutSyncRulesRequest { gateway, rules, ..PutSyncRulesRequest::default() };
    let request = operator.request(request);
    let answer = operator.admin.put_sync_rules(request).await;
    answer.map_err(|status| operator::told(&status))?;
    say(&format!("{count} buckets in force at gateway {}", operator.gateway))
}

async fn explain(Explain { claims, row, url, caller }: Explain) -> Result<(), Exit> {
    let (table, row_id) = match row.as_deref().map(|row| row.split_once('/')) {
        None => (String::new(), String::new()),
        Some(Some((table, row_id))) => (table.to_owned(), row_id.to_owned()),
        Some(None) => return Err(Exit::usage("a row is named as TABLE/ROW_ID")),
    };
    let mut operator = Operator::connect(url, caller).await?;
    let gateway = operator.gateway.clone();
    let request = ExplainAccessRequest { gateway, claims_json: claims, table, row_id };
    let request = operator.request(request);
    let answer = operator.admin.explain_access(request).await;
    let explained = answer.map_err(|status| operator::told(&status))?.into_inner();
    explained.trace.iter().try_for_each(|line| say(line))?;
    let buckets = match explained.buckets.as_slice() {
        [] => "none".to_owned(),
        names => names.join(", "),
    };
    say(&format!("buckets opened: {buckets}"))?;
    if row.is_none() {
        return Ok(());
    }
    say(match (explained.readable, explained.writable) {
        (true, true) => "the token may read the row and write it",
        (true, false) => "the token may read the row and not write it",
        (false, _) => "the token may not see the row",
    })
}

fn say(line: &str) -> Result<(), Exit> {
    writeln!(std::io::stdout(), "{line}").map_err(Exit::input_output)
}
