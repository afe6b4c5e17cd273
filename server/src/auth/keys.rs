//! The secret that signs development tokens, kept in the data directory and nowhere else.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The secret's name in the data directory.
pub const SECRET_FILE: &str = "token-secret";
/// HS256 wants as many bytes as its hash has.
const SECRET_BYTES: usize = 32;
/// How the names of secrets begin that are still being written; the process follows.
const DRAFT_PREFIX: &str = ".token-secret-";
/// What a data directory may hold of ours before a store is made in it. A name that ends with `*` is
/// the beginning of others: drafts that a killed process left.
pub const SECRET_FILES: [&str; 2] = [SECRET_FILE, ".token-secret-*"];
/// What to do about a file that holds no secret.
const WAY_OUT: &str = "put the right one back, or remove the file: a new one is made, and no old token is good any more";

/// A secret for HS256. Never shown, not even in debug output.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
#[error("{}: {what}", .path.display())]
pub struct KeyError {
    path: PathBuf,
    what: String,
}

impl Secret {
    /// Reads the secret of a data directory, if it has one.
    pub fn load(data: &Path) -> Result<Option<Self>, KeyError> {
        let path = data.join(SECRET_FILE);
        read(&path).map_err(|error| KeyError { path, what: error.to_string() })
    }

    /// Reads the secret of a data directory, which is created with a fresh one if it has none.
    pub fn load_or_create(data: &Path) -> Result<Self, KeyError> {
        let path = data.join(SECRET_FILE);
        let failed =
            |what: &dyn fmt::Display| KeyError { path: path.clone(), what: what.to_string() };
        match read(&path).map_err(|error| failed(&error))? {
            Some(secret) => Ok(secret),
            None => {
                create_private(data).map_err(|error| failed(&error))?;
                create(data, &path).map_err(|error| failed(&error))?;
                // Whoever was first wins: two processes that start at once agree on one secret.
                let secret = read(&path).map_err(|error| failed(&error))?;
                secret.ok_or_else(|| failed(&"it vanished while it was being written"))
            }
        }
    }

    /// The secret's bytes.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

fn read(path: &Path) -> io::Result<Option<Secret>> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text?,
    };
    let bytes = STANDARD.decode(text.trim());
    let bytes = bytes.map_err(|error| io::Error::other(format!("{error}; {WAY_OUT}")))?;
    if bytes.len() < SECRET_BYTES {
        let length = bytes.len();
        return Err(io::Error::other(format!(
            "a secret has {SECRET_BYTES} bytes at least, in base64; this has {length}; {WAY_OUT}"
        )));
    }
    Ok(Some(Secret(bytes)))
}

/// Creates a data directory that only its owner may use, if there is none yet.
fn create_private(data: &Path) -> io::Result<()> {
    if data.is_dir() {
        return Ok(());
    }
    if let Some(above) = data.parent() {
        fs::create_dir_all(above)?;
    }
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(data) {
        // Another process was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        created => created,
    }
}

/// Writes a whole secret under another name first, so that nobody ever reads half of one.
fn create(data: &Path, path: &Path) -> io::Result<()> {
    let mut bytes = [0; SECRET_BYTES];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    let draft = data.join(format!("{DRAFT_PREFIX}{}", std::process::id()));
    write_private(&draft, &format!("{}\n", STANDARD.encode(bytes)))?;
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => File::open(data)?.sync_all(),
    }
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_made_once_and_kept_private() {
        let dir = tempfile::tempdir().expect("a directory");
        let data = dir.path().join("new");
        let first = Secret::load_or_create(&data).expect("created");
        let second = Secret::load_or_create(&data).expect("read");
        assert_eq!(first.as_bytes(), second.as_bytes());
        assert_eq!(first.as_bytes().len(), SECRET_BYTES);
        assert_eq!(fs::read_dir(&data).expect("readable").count(), 1, "no draft stays behind");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(data.join(SECRET_FILE)).expect("a file").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            let mode = fs::metadata(&data).expect("a directory").permissions().mode();
            assert_eq!(mode & 0o777, 0o700);
        }
        assert!(!format!("{first:?}").contains(&STANDARD.encode(first.as_bytes())));
    }

    #[test]
    fn a_bad_secret_is_named_and_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(SECRET_FILE);
        for bad in ["short", "c2hvcnQ=", "§"] {
            fs::write(&path, bad).expect("written");
            let error = Secret::load_or_create(dir.path()).expect_err("refused").to_string();
            assert!(error.contains(SECRET_FILE) && error.contains("or remove"), "{error}");
            assert_eq!(fs::read_to_string(&path).expect("still there"), bad);
        }
    }
}
