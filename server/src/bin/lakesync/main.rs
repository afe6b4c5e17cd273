//! The command line: the one place that knows server and client.
//!
//! What a command found out goes to standard output, what went wrong to standard error as one line,
//! and how it ended into the exit code.

mod backup;
mod bench;
mod demo;
mod exit;
mod flush;
mod gateways;
mod import;
mod migrate;
mod operator;
mod place;
mod restore;
mod revoke;
mod rules;
mod schema;
mod serve;
mod show;
mod status;
mod sync;
mod token;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use exit::Exit;

/// Local-first sync: SQLite replicas, a gateway, and the backend of your choice.
#[derive(Debug, Parser)]
#[command(name = "lakesync", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Copy the data directory of a stopped server, consistently and synced.
    Backup(backup::Arguments),
    /// Measure pushes, pulls and checkpoints against a bare server of the same work.
    Bench(bench::Arguments),
    /// Show the main job, start to end, on a copy of a real database.
    Demo(demo::Arguments),
    /// Hand everything durable so far to a gateway's backends, and wait until they have it.
    Flush(flush::Arguments),
    /// List a server's gateways, make one, or delete one.
    Gateways(gateways::Arguments),
    /// Seed a gateway with tables that a Postgres or MySQL database has already.
    Import(import::Arguments),
    /// Copy all of one backend to another of any kind, and prove that both hold the same.
    Migrate(migrate::Arguments),
    /// Make a gateway anew from a backend, where its data directory is gone.
    Restore(restore::Arguments),
    /// End a subject's streams at a gateway, and refuse its tokens of before now.
    Revoke(revoke::Arguments),
    /// Check sync rules kept in a file, put them into force, or ask what they mean for a token.
    Rules(rules::Arguments),
    /// Show a gateway's tables, or declare and evolve them.
    Schema(schema::Arguments),
    /// Run a gateway server.
    Serve(serve::Arguments),
    /// Show what a gateway holds, who follows it, and how far its backends have come.
    Status(status::Arguments),
    /// Keep any SQLite file in step with a gateway.
    Sync(sync::Arguments),
    /// Print a token that the server of a data directory accepts, and nothing else.
    Token(token::Arguments),
    /// Compare a backend with the rows of a gateway, and repair it on request.
    Verify(verify::Arguments),
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return exit::of_arguments(&error),
    };
    match run(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => exit.report(),
    }
}

fn run(command: Command) -> Result<(), Exit> {
    match command {
        Command::Backup(arguments) => backup::run(arguments),
        Command::Bench(arguments) => bench::run(arguments),
        Command::Demo(arguments) => demo::run(arguments),
        Command::Flush(arguments) => flush::run(arguments),
        Command::Gateways(arguments) => gateways::run(arguments),
        Command::Import(arguments) => import::run(arguments),
        Command::Migrate(arguments) => migrate::run(arguments),
        Command::Restore(arguments) => restore::run(arguments),
        Command::Revoke(arguments) => revoke::run(arguments),
        Command::Rules(arguments) => rules::run(arguments),
        Command::Schema(arguments) => schema::run(arguments),
        Command::Serve(arguments) => serve::run(arguments),
        Command::Status(arguments) => status::run(arguments),
        Command::Sync(arguments) => sync::run(arguments),
        Command::Token(arguments) => token::run(arguments),
        Command::Verify(arguments) => verify::run(arguments),
    }
}
