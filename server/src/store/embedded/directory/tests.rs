//! Whose a directory is, and whether it is the original: told without changing what is refused.

use std::collections::BTreeMap;

use super::identity::mark_restored;
use super::*;

fn open(path: &Path) -> Result<Directory, OpenError> {
    Directory::open(path, &["secret".to_owned()])
}

fn made(path: &Path) -> Directory {
    let mut directory = open(path).expect("open");
    directory.incarnation().expect("an identity");
    fs::create_dir_all(directory.store()).expect("create");
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

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("create");
    for (name, content) in contents(from) {
        fs::write(to.join(name), content).expect("copy");
    }
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

#[test]
fn the_original_keeps_its_incarnation_and_a_copy_does_not() {
    let root = tempfile::tempdir().expect("a directory");
    let (original, twin) = (root.path().join("a"), root.path().join("b"));
    let first = made(&original).incarnation().expect("an identity");
    assert_eq!(open(&original).expect("open").incarnation().expect("an identity"), first);
    copy(&original, &twin);
    let second = open(&twin).expect("open").incarnation().expect("an identity");
    assert_ne!(first, second);
    assert_eq!(open(&twin).expect("open").incarnation().expect("an identity"), second);
}

#[test]
fn a_marked_directory_takes_one_new_incarnation() {
    let root = tempfile::tempdir().expect("a directory");
    let first = made(root.path()).incarnation().expect("an identity");
    mark_restored(root.path()).expect("mark");
    let second = open(root.path()).expect("open").incarnation().expect("an identity");
    assert_ne!(first, second);
    assert_eq!(open(root.path()).expect("open").incarnation().expect("an identity"), second);
}

#[test]
fn a_lost_or_damaged_identity_is_told() {
    let root = tempfile::tempdir().expect("a directory");
    drop(made(root.path()));
    let path = root.path().join("identity");
    let text = fs::read_to_string(&path).expect("read");
    fs::write(&path, text.replacen("incarnation ", "incarnation f", 1)).expect("damage");
    let damaged = open(root.path()).expect("open").incarnation();
    assert!(matches!(damaged, Err(OpenError::Corrupt { .. })), "{damaged:?}");
    fs::remove_file(&path).expect("remove");
    assert!(open(root.path()).expect("open").incarnation().is_err());
}
