//! `lakesync token`: a token for development, and nothing else on standard output.

use std::io::Write;
use std::path::{Path, PathBuf};

use lakesync::clock::{SystemClock, WallClock};
use lakesync::name::Gateway;
use lakesync_server::auth::{Grant, SECRET_FILE, Secret};
use lakesync_server::config;
use serde_json::{Map, Value};

use crate::exit::Exit;

/// The environment variable that holds the token of a command that needs one.
pub(crate) const TOKEN_VARIABLE: &str = "LAKESYNC_TOKEN";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The data directory of the server that will accept the token.
    #[arg(long)]
    data: PathBuf,
    /// Who the token speaks for.
    #[arg(long)]
    sub: String,
    /// What it may do: sync, sync:read and admin, separated by spaces.
    #[arg(long, default_value = "sync")]
    scope: String,
    /// A gateway that it opens; may be repeated. Without any it opens all.
    #[arg(long)]
    gateway: Vec<Gateway>,
    /// A further claim as NAME=VALUE; may be repeated. A value that parses as JSON is JSON.
    #[arg(long, value_parser = claim)]
    claim: Vec<(String, Value)>,
    /// For how long it is good: 30s, 10m, 1h, 90d.
    #[arg(long, default_value = "1h", value_parser = config::duration)]
    ttl: std::time::Duration,
}

/// A token's times are whole seconds.
const TTL_MIN: std::time::Duration = std::time::Duration::from_secs(1);
/// The claims that have a flag of their own.
const OWN_CLAIMS: [&str; 5] = ["sub", "scope", "gateways", "exp", "iat"];

pub(crate) fn run(arguments: Arguments) -> Result<(), Exit> {
    let Arguments { data, sub, scope, gateway, claim, ttl } = arguments;
    if sub.trim().is_empty() {
        return Err(Exit::usage("--sub must say who the token speaks for: it is empty"));
    }
    if data.as_os_str().is_empty() {
        return Err(Exit::usage("--data must name the server's data directory: it is empty"));
    }
    if ttl < TTL_MIN {
        return Err(Exit::usage("--ttl must be 1s at least: a token counts in seconds"));
    }
    let known = ["sync", "sync:read", "admin"];
    if scope.trim().is_empty() {
        return Err(Exit::usage(format!(
            "--scope is empty, and such a token opens nothing; known are {}",
            known.join(", ")
        )));
    }
    if let Some(word) = scope.split_ascii_whitespace().find(|word| !known.contains(word)) {
        return Err(Exit::usage(format!(
            "there is no scope \"{word}\"; known are {}",
            known.join(", ")
        )));
    }
    let mut claims = Map::new();
    for (name, value) in claim {
        if claims.insert(name.clone(), value).is_some() {
            return Err(Exit::usage(format!("the claim {name} is given twice")));
        }
    }
    if let Some(name) = OWN_CLAIMS.iter().find(|name| claims.contains_key(**name)) {
        return Err(Exit::usage(format!("the claim {name} has a flag of its own")));
    }
    let secret = secret(&data)?;
    let grant = Grant { subject: sub, scope, gateways: gateway, claims, ttl };
    let token = grant.sign(&secret, SystemClock.now_ms()).map_err(Exit::usage)?;
    writeln!(std::io::stdout(), "{token}").map_err(Exit::input_output)
}

/// The secret of a data directory. A fresh one is mentioned: the directory may be misspelt.
fn secret(data: &Path) -> Result<Secret, Exit> {
    if let Some(secret) = Secret::load(data).map_err(Exit::input_output)? {
        return Ok(secret);
    }
    let secret = Secret::load_or_create(data).map_err(Exit::input_output)?;
    let made = data.join(SECRET_FILE);
    // Nobody may be listening, and the token is good all the same.
    let _ = writeln!(std::io::stderr(), "made {}", made.display());
    Ok(secret)
}

fn claim(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("NAME=VALUE is needed")?;
    if name.trim().is_empty() {
        return Err("NAME=VALUE is needed, and the name is empty".to_owned());
    }
    let parsed = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
    Ok((name.to_owned(), parsed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_parses_as_json_is_json() {
        for (text, value) in [
            ("a=1", Value::from(1)),
            ("a=[1,\"x\"]", serde_json::json!([1, "x"])),
            ("a=true", Value::Bool(true)),
            ("a=x=y", Value::from("x=y")),
            ("a=", Value::from("")),
            ("a=\"1\"", Value::from("1")),
        ] {
            assert_eq!(claim(text), Ok(("a".to_owned(), value)), "{text}");
        }
        for bad in ["a", "", "=", "=x", " =x"] {
            assert!(claim(bad).is_err(), "{bad}");
        }
    }
}
