//! `lakesync rules`: sync rules kept as a file in a repository. Check them, rehearse them against the
//! rows of a gateway, put them into force or take them away, print them, and ask why a token sees a
//! row or does not.

mod file;

use std::path::PathBuf;

use lakesync::proto::admin::v1::{
    AccessEffect, DeleteSyncRulesRequest, ExplainAccessRequest, GetSyncRulesRequest,
    PutSyncRulesRequest, SyncRules,
};
use lakesync::rules::Draft;
use lakesync::wire;

use crate::exit::Exit;
use crate::operator::{self, Caller, Operator, Server};
use crate::show::{count, line};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Check a file of rules: all that needs no tables and, with --url, whether they fit a gateway's.
    Check(Check),
    /// Put a file of rules into force, and wait until they are. Asks first if your own token, or one
    /// without claims, would lose rows.
    Put(Put),
    /// Print the rules in force, in a form that `put` takes.
    Get(Get),
    /// Take the rules out of force: every token sees and writes every row again.
    Delete(Delete),
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
    /// Put them into force without asking.
    #[arg(long)]
    yes: bool,
    /// Where the server is, such as http://127.0.0.1:7461.
    #[arg(long)]
    url: String,
    #[command(flatten)]
    caller: Caller,
}

#[derive(Debug, clap::Args)]
struct Get {
    /// The gateway.
    #[arg(long, default_value = "main")]
    gateway: String,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, clap::Args)]
struct Delete {
    /// Take them out of force without asking.
    #[arg(long)]
    yes: bool,
    /// The gateway.
    #[arg(long, default_value = "main")]
    gateway: String,
    #[command(flatten)]
    server: Server,
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
    match arguments.command {
        Command::Check(arguments) => operator::run(check(arguments)),
        Command::Put(arguments) => operator::run(put(arguments)),
        Command::Get(Get { gateway, server }) => {
            let json = server.json;
            server.run(async move |operator| get(operator, gateway, json).await)
        }
        Command::Delete(Delete { yes, gateway, server }) => {
            let json = server.json;
            server.run(async move |operator| delete(operator, gateway, yes, json).await)
        }
        Command::Explain(arguments) => operator::run(explain(arguments)),
    }
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
        return line(format_args!(
            "{}: {count} buckets; whether they fit a gateway's tables, --url URL tells",
            file.display()
        ));
    };
    let Caller { gateway, token } = caller;
    let mut operator = Operator::connect(url, token).await?;
    let effects = rehearse(&mut operator, &gateway, rules, claims.clone()).await?;
    for (claims, effect) in claims.iter().zip(effects) {
        let AccessEffect { rows_lost, rows_gained, rows_seen } = effect;
        line(format_args!(
            "{claims}: would gain {rows_gained} rows, lose {rows_lost}, see {rows_seen}"
        ))?;
    }
    line(format_args!("{}: {count} buckets, which fit gateway {gateway}", file.display()))
}

/// What the rules would change for each of the claims. They change nothing yet.
async fn rehearse(
    operator: &mut Operator,
    gateway: &str,
    rules: SyncRules,
    claims_json: Vec<String>,
) -> Result<Vec<AccessEffect>, Exit> {
    let (gateway, rules) = (gateway.to_owned(), Some(rules));
    let request = PutSyncRulesRequest { gateway, rules, dry_run: true, claims_json };
    let request = operator.request(request);
    let answer = operator.admin.put_sync_rules(request).await;
    Ok(answer.map_err(refused)?.into_inner().effects)
}

async fn put(Put { file, yes, url, caller }: Put) -> Result<(), Exit> {
    let rules = load(&file)?;
    let count = rules.buckets.len();
    let Caller { gateway, token } = caller;
    let mut operator = Operator::connect(url, token).await?;
    if warn_of_losses(&mut operator, &gateway, &rules).await? {
        operator::confirm("put these rules into force?", yes)?;
    }
    let request = PutSyncRulesRequest {
        gateway: gateway.clone(),
        rules: Some(rules),
        ..PutSyncRulesRequest::default()
    };
    let request = operator.request(request);
    operator.admin.put_sync_rules(request).await.map_err(refused)?;
    line(format_args!("{count} buckets in force at gateway {gateway}"))
}

/// Says whether the operator's own token, or one without claims, would lose rows, and how many. A
/// replica that syncs with such a token removes them from its file.
async fn warn_of_losses(
    operator: &mut Operator,
    gateway: &str,
    rules: &SyncRules,
) -> Result<bool, Exit> {
    let mut whose = vec![("a token without claims", "{}".to_owned())];
    whose.extend(operator.claims().map(|claims| ("your own token", claims)));
    let claims = whose.iter().map(|(_, claims)| claims.clone()).collect();
    let effects = rehearse(operator, gateway, rules.clone(), claims).await?;
    let mut loses = false;
    for ((who, _), effect) in whose.iter().zip(effects) {
        let AccessEffect { rows_lost, rows_gained, rows_seen } = effect;
        if 0 < rows_lost {
            loses = true;
            let seen = count(rows_seen + rows_lost - rows_gained, "row");
            line(format_args!(
                "{who} would lose {rows_lost} of the {seen} that it sees; a replica that syncs with \
                 it removes them from its file"
            ))?;
        }
    }
    Ok(loses)
}

async fn get(mut operator: Operator, gateway: String, json: bool) -> Result<(), Exit> {
    let request = operator.request(GetSyncRulesRequest { gateway: gateway.clone() });
    let answer = operator.admin.get_sync_rules(request).await.map_err(refused)?;
    match answer.into_inner().rules {
        Some(rules) => {
            let draft = wire::decode_rules(rules).map_err(Exit::software)?;
            line(file::print(&draft))
        }
        None if json => line("null"),
        None => line(format_args!(
            "gateway {gateway} has no rules: every token sees and writes every row"
        )),
    }
}

async fn delete(
    mut operator: Operator,
    gateway: String,
    yes: bool,
    json: bool,
) -> Result<(), Exit> {
    let question = format!(
        "every token that opens gateway {gateway} will see and write every row of it; go on?"
    );
    operator::confirm(&question, yes)?;
    let request = operator.request(DeleteSyncRulesRequest { gateway: gateway.clone() });
    operator.admin.delete_sync_rules(request).await.map_err(refused)?;
    match json {
        true => line(serde_json::json!({ "gateway": gateway, "rules": null })),
        false => line(format_args!("gateway {gateway} has no rules any more")),
    }
}

async fn explain(Explain { claims, row, url, caller }: Explain) -> Result<(), Exit> {
    let (table, row_id) = match row.as_deref().map(|row| row.split_once('/')) {
        None => (String::new(), String::new()),
        Some(Some((table, row_id))) => (table.to_owned(), row_id.to_owned()),
        Some(None) => return Err(Exit::usage("a row is named as TABLE/ROW_ID")),
    };
    let Caller { gateway, token } = caller;
    let mut operator = Operator::connect(url, token).await?;
    let request = ExplainAccessRequest { gateway, claims_json: claims, table, row_id };
    let request = operator.request(request);
    let answer = operator.admin.explain_access(request).await;
    let explained = answer.map_err(refused)?.into_inner();
    explained.trace.iter().try_for_each(line)?;
    let buckets = match explained.buckets.as_slice() {
        [] => "none".to_owned(),
        names => names.join(", "),
    };
    line(format_args!("buckets opened: {buckets}"))?;
    if row.is_none() {
        return Ok(());
    }
    line(match (explained.readable, explained.writable) {
        (true, true) => "the token may read the row and write it",
        (true, false) => "the token may read the row and not write it",
        (false, _) => "the token may not see the row",
    })
}

/// What the server said. Wrong rules are wrong whoever finds it out.
fn refused(status: tonic::Status) -> Exit {
    operator::refused(&status, Exit::config)
}
