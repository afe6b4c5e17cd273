//! Which programs make and run a database server, and with which words. Settings stay as they are:
//! what is committed is on the disk.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Kind, USER};
use crate::exit::Exit;

/// Where Debian keeps the programs of each version of PostgreSQL.
const VERSIONS: &str = "/usr/lib/postgresql";

/// The programs of a server.
pub(super) struct Programs {
    pub(super) create: PathBuf,
    pub(super) serve: PathBuf,
}

/// The programs, or what is to be installed.
pub(super) fn find(kind: Kind) -> Result<Programs, Exit> {
    let (create, serve, package) = match kind {
        Kind::Postgres => ("initdb", "postgres", "PostgreSQL: apt-get install postgresql"),
        Kind::MySql => {
            ("mariadb-install-db", "mariadbd", "MariaDB: apt-get install mariadb-server")
        }
    };
    let find = |name| {
        let missing =
            || Exit::unavailable(format!("{name} is missing, which comes with {package}"));
        program(name).ok_or_else(missing)
    };
    Ok(Programs { create: find(create)?, serve: find(serve)? })
}

/// What the file `secret` holds.
pub(super) fn secret(kind: Kind, password: &str) -> String {
    match kind {
        Kind::Postgres => password.to_owned(),
        Kind::MySql => format!(
            "CREATE OR REPLACE USER '{USER}'@'127.0.0.1' IDENTIFIED BY '{password}';\n\
             GRANT ALL ON *.* TO '{USER}'@'127.0.0.1';\n"
        ),
    }
}

/// How a server is made.
pub(super) fn create(kind: Kind, directory: &Path) -> Vec<String> {
    let (data, secret) = (directory.join("data"), directory.join("secret"));
    match kind {
        Kind::Postgres => vec![
            format!("--pgdata={}", data.display()),
            format!("--username={USER}"),
            format!("--pwfile={}", secret.display()),
            "--encoding=UTF8".to_owned(),
            "--locale=C.UTF-8".to_owned(),
            "--auth=scram-sha-256".to_owned(),
        ],
        Kind::MySql => vec![
            "--no-defaults".to_owned(),
            format!("--datadir={}", data.display()),
            "--auth-root-authentication-method=normal".to_owned(),
            "--skip-test-db".to_owned(),
        ],
    }
}

/// How it runs.
pub(super) fn serve(kind: Kind, directory: &Path, port: u16) -> Vec<String> {
    let data = directory.join("data");
    match kind {
        Kind::Postgres => {
            let settings = [
                format!("port={port}"),
                "listen_addresses=127.0.0.1".to_owned(),
                "unix_socket_directories=".to_owned(),
            ];
            let settings = settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]);
            ["-D".to_owned(), data.display().to_string()].into_iter().chain(settings).collect()
        }
        Kind::MySql => vec![
            "--no-defaults".to_owned(),
            format!("--datadir={}", data.display()),
            format!("--port={port}"),
            format!("--socket={}", directory.join("socket").display()),
            format!("--init-file={}", directory.join("secret").display()),
            "--bind-address=127.0.0.1".to_owned(),
            "--skip-name-resolve".to_owned(),
        ],
    }
}

/// A program in `PATH`, where administrators' programs are, or where Debian keeps PostgreSQL's.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let known = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    let dirs = std::env::split_paths(&path).chain(known).chain(versions());
    dirs.map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// The directories of PostgreSQL's versions, newest first.
fn versions() -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(VERSIONS) else { return Vec::new() };
    let version = |entry: fs::DirEntry| entry.file_name().to_str()?.parse::<u32>().ok();
    let mut versions: Vec<u32> = entries.flatten().filter_map(version).collect();
    versions.sort_by_key(|version| std::cmp::Reverse(*version));
    let dir = |version: u32| Path::new(VERSIONS).join(version.to_string()).join("bin");
    versions.into_iter().map(dir).collect()
}
