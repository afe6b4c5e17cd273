//! Every way a cold copy comes back is another log; the original, opened as often as anybody likes,
//! is not.

use super::*;

/// A directory that was opened and closed, and the incarnation it had.
fn opened(path: &Path) -> Incarnation {
    let mut directory = Directory::open(path, &[]).expect("open");
    let incarnation = directory.incarnation().expect("an identity");
    directory.make().expect("make");
    incarnation
}

/// Copies file by file as `cp -r` does: what is there is written over and keeps its inode number.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("create");
    for entry in fs::read_dir(from).expect("read") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::write(target, fs::read(entry.path()).expect("read")).expect("write");
        }
    }
}

fn inode(dir: &Path) -> u64 {
    fs::metadata(dir.join(IDENTITY)).expect("an identity").ino()
}

/// Two births in the same tick of the file system's clock would be no difference.
fn await_tick(dir: &Path) {
    let probe = dir.join("probe");
    let born = || {
        fs::write(&probe, "").expect("write");
        let metadata = fs::metadata(&probe).expect("metadata");
        fs::remove_file(&probe).expect("remove");
        (Origin::of(&metadata).born_ns, changed_ns(&metadata))
    };
    let before = born();
    while born() == before {
        std::thread::yield_now();
    }
}

/// An original, and a cold copy of it.
fn original_and_copy(root: &Path) -> (std::path::PathBuf, std::path::PathBuf, Incarnation) {
    let (original, twin) = (root.join("a"), root.join("b"));
    let first = opened(&original);
    copy(&original, &twin);
    await_tick(root);
    (original, twin, first)
}

#[test]
fn the_original_keeps_its_incarnation_however_often_it_is_opened() {
    let root = tempfile::tempdir().expect("a directory");
    let (original, _, first) = original_and_copy(root.path());
    for _ in 0..70 {
        assert_eq!(opened(&original), first);
    }
    let moved = root.path().join("moved");
    fs::rename(&original, &moved).expect("move");
    assert_eq!(opened(&moved), first, "a move is no copy");
}

#[test]
fn a_copy_elsewhere_is_another_log_and_stays_that() {
    let root = tempfile::tempdir().expect("a directory");
    let (original, twin, first) = original_and_copy(root.path());
    let second = opened(&twin);
    assert_ne!(first, second);
    assert_eq!(opened(&twin), second);
    assert_eq!(opened(&original), first);
}

#[test]
fn a_copy_written_over_the_original_is_another_log() {
    let root = tempfile::tempdir().expect("a directory");
    // Inode numbers come back: after two openings it is often the one that the copy speaks of.
    for openings in 1..=4 {
        let (original, twin, first) = original_and_copy(&root.path().join(openings.to_string()));
        for _ in 0..openings {
            assert_eq!(opened(&original), first);
        }
        let before = inode(&original);
        copy(&twin, &original);
        assert_eq!(inode(&original), before, "not written in place");
        assert_ne!(opened(&original), first, "after {openings} openings");
    }
}

#[test]
fn a_copy_in_the_place_of_the_original_is_another_log() {
    for _ in 0..20 {
        let root = tempfile::tempdir().expect("a directory");
        let (original, twin, first) = original_and_copy(root.path());
        fs::remove_dir_all(&original).expect("remove");
        copy(&twin, &original);
        assert_ne!(opened(&original), first);
    }
}

/// Some tools leave alone what looks the same, and people restore what they think matters.
#[test]
fn a_store_and_an_identity_of_different_ages_are_another_log() {
    for part in [IDENTITY, "store", "store/opening"] {
        let root = tempfile::tempdir().expect("a directory");
        let (original, twin, first) = original_and_copy(root.path());
        assert_eq!(opened(&original), first);
        if twin.join(part).is_dir() {
            copy(&twin.join(part), &original.join(part));
        } else {
            fs::write(original.join(part), fs::read(twin.join(part)).expect("read"))
                .expect("write");
        }
        assert_ne!(opened(&original), first, "{part}");
    }
}

#[test]
fn openings_differ_in_length_from_each_other() {
    let root = tempfile::tempdir().expect("a directory");
    let length = || {
        opened(root.path());
        fs::metadata(root.path().join("store/opening")).expect("a count").len()
    };
    let (first, second, third) = (length(), length(), length());
    assert!(first != second && second != third && first != third);
}

#[test]
fn a_kill_between_the_steps_changes_nothing() {
    let root = tempfile::tempdir().expect("a directory");
    let (original, twin, first) = original_and_copy(root.path());
    for opening in [2, 3] {
        write_count(&original.join("store"), opening).expect("counted");
        fs::write(original.join("identity.new"), "half").expect("left behind");
        assert_eq!(opened(&original), first);
        // A copy of what the kill left is one all the same.
        write_count(&twin.join("store"), opening).expect("counted");
    }
    assert_ne!(opened(&twin), first);
}

#[test]
fn where_births_are_unknown_the_change_of_the_count_tells() {
    let origin = Origin { inode: 7, born_ns: None };
    let written = Identity { incarnation: [9; 16], opening: 3, origin, counted_ns: 1_000 };
    let count = |opening, changed_ns| Some(Count { opening, changed_ns });
    for (found, count, original) in [
        (7, count(3, 1_000), true),
        (7, count(4, 2_000), true),
        (7, count(3, 1_001), false),
        (8, count(3, 1_000), false),
        (7, count(2, 1_000), false),
        (7, count(5, 1_000), false),
        (7, None, false),
    ] {
        let found = Origin { inode: found, born_ns: None };
        assert_eq!(written.is_original(&found, count.as_ref()), original, "{found:?} {count:?}");
    }
    assert_eq!(Identity::parse(&written.encode()), Some(written));
    // Where they are known, a change of owner is no copy.
    let origin = Origin { inode: 7, born_ns: Some(5) };
    let written = Identity { origin, ..written };
    assert!(written.is_original(&origin, count(3, 1_001).as_ref()));
    assert_eq!(Identity::parse(&written.encode()), Some(written));
}

#[test]
fn a_marked_directory_takes_one_new_incarnation() {
    let root = tempfile::tempdir().expect("a directory");
    let first = opened(root.path());
    mark_restored(root.path()).expect("mark");
    let second = opened(root.path());
    assert_ne!(first, second);
    assert_eq!(opened(root.path()), second);
}

#[test]
fn a_lost_or_damaged_identity_is_told() {
    let root = tempfile::tempdir().expect("a directory");
    opened(root.path());
    let open = || Directory::open(root.path(), &[]).expect("open").incarnation();
    for name in [IDENTITY, "store/opening"] {
        let path = root.path().join(name);
        let text = fs::read_to_string(&path).expect("read");
        fs::write(&path, format!("x{text}")).expect("damage");
        let damaged = open();
        let refused = matches!(damaged, Err(OpenError::Corrupt { .. } | OpenError::Altered { .. }));
        assert!(refused, "{name}: {damaged:?}");
        fs::write(&path, text).expect("mend");
    }
    fs::remove_file(root.path().join(IDENTITY)).expect("remove");
    assert!(matches!(open(), Err(OpenError::Altered { .. })));
    mark_restored(root.path()).expect("mark");
    open().expect("another life needs no identity of before");
}
