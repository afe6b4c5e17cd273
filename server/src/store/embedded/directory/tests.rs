//! Whose a directory is, and whether it is the original: told without changing what is refused.

use std::collections::BTreeMap;

use super::*;

fn open(path: &Path) -> Result<Directory, OpenError> {
    Directory::open(path, &["secret".to_owned(), ".draft-*".to_owned()])
}

fn made(path: &Path) -> Directory {
    let mut directory = open(path).expect("open");
    directory.incarnation().expect("an identity");
    directory.make().expect("make");
    directory
}

/// Names and contents of a directory.
fn contents(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(path).expect("read").map(|entry| entry.expect("an entry"));
    let named =
        entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()));
    named.map(|(name, path)| (name, fs::read(path).unwrap_or_default())).collect()
}

#[test]
fn a_directory_has_one_holder() {
    let root = tempfile::tempdir().expect("a directory");
    let held = made(root.path());
    let second = open(root.path());
    assert!(matches!(second, Err(OpenError::Locked { .. })), "{second:?}");
    drop(held);
    assert!(open(root.path()).expect("free again").is_made());
}

#[test]
fn what_is_refused_stays_as_it_was() {
    for (name, content, expected) in [
        ("photo.jpg", "", "holds photo.jpg"),
        ("secret-plans", "", "holds secret-plans"),
        ("format", "lakesync data directory, format 2\n", "format 2"),
        ("format", "something else", "holds format"),
        ("format", "lakesync data directory, format x\n", "holds format"),
    ] {
        let root = tempfile::tempdir().expect("a directory");
        fs::write(root.path().join(name), content).expect("write");
        let before = contents(root.path());
        let error = open(root.path()).expect_err("refused").to_string();
        assert!(error.contains(expected), "{name}: {error}");
        assert!(
            !error.contains('\n') && error.contains(&*root.path().to_string_lossy()),
            "{error}"
        );
        assert_eq!(contents(root.path()), before, "{name}");
    }
}

#[test]
fn beginnings_companions_and_volumes_are_no_strangers() {
    let root = tempfile::tempdir().expect("a directory");
    fs::create_dir(root.path().join("lost+found")).expect("create");
    fs::write(root.path().join("secret"), "s").expect("write");
    fs::write(root.path().join(".draft-417"), "s").expect("write");
    let begun = open(root.path()).expect("open");
    begun.incarnation().expect("an identity");
    drop(begun); // Killed before it was made.
    assert!(!made(root.path()).path().join("format.new").exists());
}

#[test]
fn a_file_is_no_directory() {
    let root = tempfile::tempdir().expect("a directory");
    let file = root.path().join("file");
    fs::write(&file, "").expect("write");
    assert!(matches!(open(&file), Err(OpenError::Io { .. })));
}

/// The directories that must hold a new one durably.
#[test]
fn every_directory_that_is_made_is_made_durable_where_it_lies() {
    let root = tempfile::tempdir().expect("a directory");
    let path = root.path().join("a/b/c");
    let synced = std::cell::RefCell::new(Vec::new());
    let sync = |dir: &Path| {
        synced.borrow_mut().push(dir.to_owned());
        Ok(())
    };
    create_durably(&path, &sync).expect("created");
    let holders = ["", "a", "a/b"].map(|holder| root.path().join(holder));
    assert_eq!(synced.take(), holders);
    create_durably(&path, &sync).expect("there already");
    assert_eq!(synced.take(), [] as [PathBuf; 0]);
    fs::write(root.path().join("file"), "").expect("write");
    assert!(create_durably(&root.path().join("file"), &sync).is_err());
    for (path, expected) in [("data", "."), ("./data", "."), ("../data", ".."), ("/data", "/")] {
        assert_eq!(holder(Path::new(path)), Some(Path::new(expected)), "{path}");
    }
    assert_eq!(holder(Path::new("/")), None);
}
