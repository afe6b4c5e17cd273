//! Opening a file: is it a database, may we write it, is anybody else syncing it? Until all of
//! that is settled, nothing is changed.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lakesync::error::{Classify, Reason};
use lakesync::name::ClientId;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};

use super::sql::{Statement, script, text};
use super::{identity, layout};

/// How long a statement waits for another connection's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Statements kept prepared. Bulk statements come in few shapes per table.
const STATEMENTS_MAX: usize = 400;
/// How every SQLite file begins.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// What the lock file's name adds to the database's.
const LOCK_SUFFIX: &str = "-lakesync";
/// Where Linux keeps what tells machines apart.
const MACHINE_ID: &str = "/etc/machine-id";

/// Why a database can't be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process syncs this file.
    #[error("{path} is being synced by another process (it holds {path}{LOCK_SUFFIX})")]
    AlreadySynced {
        /// The database.
        path: String,
    },
    /// The file is something else.
    #[error("{path} is not an SQLite database")]
    NotADatabase {
        /// The file.
        path: String,
    },
    /// The file, or its directory, can't be written.
    #[error("{path} can't be written: {what}")]
    ReadOnly {
        /// The file.
        path: String,
        /// The system's word.
        what: String,
    },
    /// Another connection keeps the file locked.
    #[error("{path} is locked by another connection; waited {} s", BUSY_TIMEOUT.as_secs())]
    Locked {
        /// The file.
        path: String,
    },
    /// An encoding that can't be read here.
    #[error("{path} keeps its text as {encoding}; only UTF-8 can be synced")]
    Encoding {
        /// The file.
        path: String,
        /// Its encoding.
        encoding: String,
    },
    /// A newer version of LakeSync has written the file.
    #[error("{path} has format {found}; this version knows formats up to {known}")]
    Newer {
        /// The file.
        path: String,
        /// The format it has.
        found: String,
        /// The newest this version knows.
        known: i64,
    },
    /// The operating system refused.
    #[error("{path} can't be opened: {source}")]
    Io {
        /// The file.
        path: String,
        /// The system's word.
        source: io::Error,
    },
    /// SQLite refused.
    #[error("{path} can't be opened: {source}")]
    Sqlite {
        /// The file.
        path: String,
        /// SQLite's word.
        source: sqlx::Error,
    },
}

impl Classify for OpenError {
    fn reason(&self) -> Reason {
        match self {
            Self::AlreadySynced { .. } | Self::Locked { .. } => Reason::Overloaded,
            Self::Newer { .. } => Reason::ProtocolUnsupported,
            _ => Reason::InvalidRequest,
        }
    }
}

/// An open file: its connection, its lock and its identity.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) connection: SqliteConnection,
    pub(super) path: PathBuf,
    pub(super) lock: File,
    pub(super) client_id: ClientId,
}

/// Opens the file, creating it if there is none.
pub(super) async fn open(path: &Path) -> Result<Opened, OpenError> {
    check_magic(path)?;
    // Two names of one file must find the same lock.
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    // A lock that is there may be held, and then that is what to say.
    let held = lock_name(&path).exists().then(|| lock(&path)).transpose()?;
    check_usable(&path).await?;
    let lock = held.map_or_else(|| lock(&path), Ok)?;
    let mut connection = connect(&path).await.map_err(|error| refusal(&path, error))?;
    let client_id = prepare(&mut connection, &path).await?;
    Ok(Opened { connection, path, lock, client_id })
}

/// A connection for syncing: references are not enforced while applying, because what arrives may
/// be ordered differently; they are checked before the commit.
pub(super) async fn connect(path: &Path) -> Result<SqliteConnection, sqlx::Error> {
    connection_options(path).foreign_keys(false).connect().await
}

/// A connection as an application would have it.
pub(super) async fn connect_application(path: &Path) -> Result<SqliteConnection, sqlx::Error> {
    connection_options(path).foreign_keys(true).connect().await
}

fn connection_options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .busy_timeout(BUSY_TIMEOUT)
        .statement_cache_capacity(STATEMENTS_MAX)
        .disable_statement_logging()
}

/// An empty file is a new database; anything else has to begin as one.
fn check_magic(path: &Path) -> Result<(), OpenError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(OpenError::Io { path: shown(path), source }),
    };
    let mut start = Vec::new();
    let read = file.take(MAGIC.len() as u64).read_to_end(&mut start);
    read.map_err(|source| OpenError::Io { path: shown(path), source })?;
    if start.is_empty() || start == MAGIC {
        return Ok(());
    }
    Err(OpenError::NotADatabase { path: shown(path) })
}

/// A file that can't be read or written now is refused before anything is put beside it.
async fn check_usable(path: &Path) -> Result<(), OpenError> {
    if !path.exists() {
        return Ok(());
    }
    let refused = |error| refusal(path, error);
    let mut connection = connect(path).await.map_err(refused)?;
    let encoding = Statement::new("PRAGMA encoding").row(&mut connection).await.map_err(refused)?;
    let encoding = encoding.map(|row| text(&row, 0)).transpose().map_err(refused)?;
    if let Some(encoding) = encoding.filter(|encoding| encoding != "UTF-8") {
        return Err(OpenError::Encoding { path: shown(path), encoding });
    }
    script(&mut connection, "BEGIN IMMEDIATE; ROLLBACK").await.map_err(refused)?;
    connection.close().await.map_err(refused)
}

fn lock_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(LOCK_SUFFIX);
    name.into()
}

/// Takes the lock beside the file. The system frees it when this process ends, however it ends.
fn lock(path: &Path) -> Result<File, OpenError> {
    let name = lock_name(path);
    let options = OpenOptions::new().create(true).truncate(false).write(true).open(&name);
    let file = options.map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            OpenError::ReadOnly { path: shown(path), what: error.to_string() }
        }
        _ => OpenError::Io { path: shown(path), source: error },
    })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::AlreadySynced { path: shown(path) }),
        Err(TryLockError::Error(source)) => Err(OpenError::Io { path: shown(path), source }),
    }
}

/// Creates LakeSync's tables if they are missing, and reads this replica's id.
async fn prepare(connection: &mut SqliteConnection, path: &Path) -> Result<ClientId, OpenError> {
    let refused = |error| refusal(path, error);
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(refused)?;
    if !layout::exists(&mut transaction).await.map_err(refused)? {
        layout::create(&mut transaction, &identity::random_id()).await.map_err(refused)?;
    }
    let format = layout::get(&mut transaction, "format").await.map_err(refused)?;
    let found = format.unwrap_or_default();
    if found != layout::FORMAT.to_string() {
        let path = shown(path);
        return Err(OpenError::Newer { path, found, known: layout::FORMAT });
    }
    layout::complete(&mut transaction).await.map_err(refused)?;
    if let Some(place) = place(path) {
        identity::settle(&mut transaction, &place).await.map_err(refused)?;
    }
    let client_id = layout::get(&mut transaction, "client_id").await.map_err(refused)?;
    transaction.commit().await.map_err(refused)?;
    ClientId::parse(&client_id.unwrap_or_default()).map_err(|error| OpenError::Io {
        path: shown(path),
        source: io::Error::new(io::ErrorKind::InvalidData, error),
    })
}

/// What tells a file from a copy of it, as far as the system can: where it lies, on which machine.
/// Copies on two machines may well have one inode number, or one path. A file that was only moved is
/// taken for a copy, which costs nothing but a new id.
fn place(path: &Path) -> Option<String> {
    // A file that was just made had no canonical path before.
    let path = std::fs::canonicalize(path).ok()?;
    #[cfg(unix)]
    let inode = {
        use std::os::unix::fs::MetadataExt;
        let metadata = std::fs::metadata(&path).ok()?;
        format!("{}:{}", metadata.dev(), metadata.ino())
    };
    #[cfg(not(unix))]
    let inode = String::new();
    let machine = std::fs::read_to_string(MACHINE_ID).unwrap_or_default();
    Some(format!("{inode} {} {}", machine.trim(), shown(&path)))
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// SQLite's refusal in the caller's terms.
fn refusal(path: &Path, source: sqlx::Error) -> OpenError {
    let path = shown(path);
    match super::error::primary_code(&source) {
        Some(5 | 6) => OpenError::Locked { path },
        Some(8) => OpenError::ReadOnly { path, what: source.to_string() },
        Some(11 | 26) => OpenError::NotADatabase { path },
        _ => OpenError::Sqlite { path, source },
    }
}
