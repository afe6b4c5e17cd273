//! A directory that is not what its last process left: cut, emptied, mixed, pulled away. It is refused
//! with what to do, or all of it is there.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

/// No overlay of these tests reaches it: everything stays in one journal file.
const LARGE: usize = 64 << 20;

fn journal_file(dir: &Path, number: u64) -> PathBuf {
    journal::path(&dir.join("store/journal"), number)
}

fn cut(path: &Path, bytes: u64) {
    let file = File::options().write(true).open(path).expect("open");
    let length = file.metadata().expect("metadata").len();
    file.set_len(length - bytes).expect("cut");
}

#[track_caller]
fn refused(dir: &Path) -> String {
    let error = open(dir, LARGE).expect_err("refused").to_string();
    assert!(error.contains("restore a backup") && !error.contains('\n'), "{error}");
    error
}

async fn log_id(store: &EmbeddedStore) -> lakesync::name::LogId {
    let name: Gateway = "main".parse().expect("a name");
    store.gateway(&name).await.expect("look up").expect("a gateway").log_id
}

/// After a clean stop, and after a kill: what was confirmed is noted either way.
#[tokio::test]
async fn a_journal_that_was_cut_short_is_refused_until_it_is_taken_as_a_copy() {
    for is_closed in [true, false] {
        let root = tempfile::tempdir().expect("a directory");
        let (dir, left) = (root.path().join("data"), root.path().join("left"));
        let store = open(&dir, LARGE).expect("open");
        let main = main_gateway(&store).await;
        put(&store, main, 1..=20).await;
        if is_closed {
            store.close().await.expect("close");
            copy_tree(&dir, &left);
        } else {
            copy_tree(&dir, &left);
            store.close().await.expect("close");
        }
        for bytes in [700, 100, 25] {
            let copy = root.path().join(format!("cut-{bytes}"));
            copy_tree(&left, &copy);
            cut(&journal_file(&copy, 1), bytes);
            let error = refused(&copy);
            assert!(error.contains("was durable through byte"), "{error}");
            assert_eq!(refused(&copy), error, "nothing was changed");
            let before = {
                let whole = root.path().join("whole");
                copy_tree(&left, &whole);
                let store = open(&whole, LARGE).expect("whole");
                assert_eq!(checked_head(&store, main).await.expect("sound"), 20);
                log_id(&store).await
            };
            fs::write(copy.join("RESTORED"), "").expect("mark");
            let store = open(&copy, LARGE).expect("what is left");
            assert!(checked_head(&store, main).await.expect("sound") < 20);
            assert_ne!(log_id(&store).await, before, "another life");
            store.close().await.expect("close");
            open(&copy, LARGE).expect("as any other from then on");
            fs::remove_dir_all(root.path().join("whole")).expect("remove");
        }
    }
}

/// The first opening of a copy ends right after the mark was removed.
#[tokio::test]
async fn a_copy_whose_first_opening_broke_off_is_opened_again() {
    let root = tempfile::tempdir().expect("a directory");
    let dir = root.path().join("data");
    let store = open(&dir, LARGE).expect("open");
    let main = main_gateway(&store).await;
    put(&store, main, 1..=20).await;
    store.close().await.expect("close");
    cut(&journal_file(&dir, 1), 100);
    fs::write(dir.join("RESTORED"), "").expect("mark");
    let free_bytes: disk::Probe = Arc::new(|_: &Path| Err(std::io::Error::other("killed here")));
    let seams = Seams { free_bytes, ..Seams::default() };
    EmbeddedStore::open_with(&dir, &options(LARGE), &seams).expect_err("broken off");
    assert!(!dir.join("RESTORED").exists(), "it came that far");
    let store = open(&dir, LARGE).expect("what is left");
    assert!(checked_head(&store, main).await.expect("sound") < 20);
}

#[tokio::test]
async fn a_newest_journal_file_that_was_removed_is_missed() {
    let root = tempfile::tempdir().expect("a directory");
    let dir = root.path().join("data");
    let store = open(&dir, LARGE).expect("open");
    let main = main_gateway(&store).await;
    put(&store, main, 1..=5).await;
    store.close().await.expect("close");
    let first = fs::read(journal_file(&dir, 1)).expect("read");
    super::crash::end_journal(&dir, 1);
    let ended = fs::read(journal_file(&dir, 1)).expect("read");
    assert!(first.len() < ended.len());
    let store = open(&dir, LARGE).expect("open");
    put(&store, main, 6..=7).await;
    store.close().await.expect("close");
    // Killed before the tables had the first.
    fs::write(journal_file(&dir, 1), &ended).expect("write");
    fs::remove_file(journal_file(&dir, 2)).expect("remove");
    let error = refused(&dir);
    assert!(error.contains("journal 2 is missing"), "{error}");
}

/// Removes each file and each folder of a directory in turn.
#[tokio::test]
async fn whatever_is_removed_is_missed_or_makes_no_difference() {
    let root = tempfile::tempdir().expect("a directory");
    let dir = root.path().join("data");
    let store = open(&dir, 2_000).expect("open");
    let main = main_gateway(&store).await;
    put(&store, main, 1..=100).await;
    store.engine.all_settled().await;
    put(&store, main, 101..=103).await;
    store.close().await.expect("close");
    let (mut missed, mut faults, mut tried) = (Vec::new(), Vec::new(), 0);
    for path in entries(&dir) {
        let copy = root.path().join(format!("copy-{tried}"));
        copy_tree(&dir, &copy);
        let part = path.strip_prefix(&dir).expect("within");
        let (removed, aside) = (copy.join(part), root.path().join("aside"));
        fs::rename(&removed, &aside).expect("move away");
        tried += 1;
        match open(&copy, LARGE) {
            Ok(store) => {
                let head = checked_head(&store, main).await.expect("sound");
                assert_eq!(head, 103, "without {}", part.display());
                store.close().await.expect("close");
            }
            Err(error) => {
                let error = error.to_string();
                if !error.contains("restore a backup") {
                    faults.push(format!("without {}: {error}", part.display()));
                }
                // Whoever puts it back has lost nothing by the attempt.
                if removed.is_dir() {
                    fs::remove_dir_all(&removed).expect("remove what was made anew");
                }
                fs::rename(&aside, &removed).expect("put back");
                match open(&copy, LARGE) {
                    Ok(store) => {
                        assert_eq!(checked_head(&store, main).await.expect("sound"), 103);
                        store.close().await.expect("close");
                    }
                    Err(error) => faults.push(format!("with {} back: {error}", part.display())),
                }
                missed.push(part.to_owned());
            }
        }
        if aside.is_dir() {
            fs::remove_dir_all(&aside).expect("clear");
        } else if aside.exists() {
            fs::remove_file(&aside).expect("clear");
        }
        fs::remove_dir_all(copy).expect("clear");
    }
    assert!(faults.is_empty(), "{faults:#?}");
    for needed in ["store", "store/journal", "store/tables", "store/durable", "identity"] {
        assert!(missed.contains(&PathBuf::from(needed)), "{needed} was not missed: {missed:?}");
    }
    let currents = missed.iter().filter(|path| path.ends_with("current")).count();
    assert_eq!(currents, 4, "{missed:?}");
}

/// Cuts each file in turn, as an interrupted copy or a file system without room does.
#[tokio::test]
async fn whatever_is_cut_short_is_told_or_makes_no_difference() {
    let root = tempfile::tempdir().expect("a directory");
    let (dir, copy) = (root.path().join("data"), root.path().join("copy"));
    let store = open(&dir, 2_000).expect("open");
    let main = main_gateway(&store).await;
    put(&store, main, 1..=60).await;
    store.engine.all_settled().await;
    put(&store, main, 61..=62).await;
    store.close().await.expect("close");
    let mut told = 0;
    for path in files(&dir) {
        let length = fs::metadata(&path).expect("metadata").len();
        let part = path.strip_prefix(&dir).expect("within").to_owned();
        for left in [0, length / 2, length.saturating_sub(1)] {
            copy_tree(&dir, &copy);
            let file = File::options().write(true).open(copy.join(&part)).expect("open");
            file.set_len(left).expect("cut");
            let outcome = match open(&copy, LARGE) {
                Ok(store) => checked_head(&store, main).await.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            let what = format!("{} cut to {left} of {length} bytes", part.display());
            match outcome {
                Ok(head) => assert_eq!(head, 62, "{what}"),
                Err(error) => {
                    let plain = error.contains("restore a backup")
                        || error.contains("corrupt")
                        || error.contains("lakesync data directory");
                    assert!(plain, "{what}: {error}");
                    told += 1;
                }
            }
            fs::remove_dir_all(&copy).expect("clear");
        }
    }
    assert!(20 < told, "only {told} cuts were told");
}

/// Every file and folder below a directory.
fn entries(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("read") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(entries(&path));
        }
        found.push(path);
    }
    found
}

/// Rows of an earlier day among a log and figures of today.
#[tokio::test]
async fn rows_of_another_age_are_refused() {
    let root = tempfile::tempdir().expect("a directory");
    let (dir, before) = (root.path().join("data"), root.path().join("before"));
    let rounds = [1..=20, 21..=40];
    for numbers in rounds {
        let store = open(&dir, 1).expect("open");
        let main = main_gateway(&store).await;
        let is_first = *numbers.start() == 1;
        put(&store, main, numbers).await;
        store.engine.all_settled().await;
        store.close().await.expect("close");
        if is_first {
            copy_tree(&dir, &before);
        }
    }
    let rows = Path::new("store/tables/keyspaces/1");
    fs::remove_dir_all(dir.join(rows)).expect("remove");
    copy_tree(&before.join(rows), &dir.join(rows));
    let error = refused(&dir);
    assert!(error.contains("the rows are those of journal"), "{error}");
}

/// A file in no directory can be written and synced, and is gone when the process ends.
#[tokio::test]
async fn a_store_that_was_taken_away_under_a_running_server_stops_it() {
    for how in ["removed", "moved", "replaced"] {
        let root = tempfile::tempdir().expect("a directory");
        let dir = root.path().join("data");
        let store = open(&dir, LARGE).expect("open");
        let main = main_gateway(&store).await;
        put(&store, main, 1..=3).await;
        let (kept, copy) = (dir.join("store"), root.path().join("copy"));
        copy_tree(&kept, &copy);
        match how {
            "removed" => fs::remove_dir_all(&kept).expect("remove"),
            _ => fs::rename(&kept, root.path().join("elsewhere")).expect("move"),
        }
        if how == "replaced" {
            fs::rename(&copy, &kept).expect("replace");
        }
        let told = commit(&store, main, 4).await.durable().await.expect_err("nothing keeps it");
        let text = told.to_string();
        assert!(text.contains(if how == "replaced" { how } else { "removed" }), "{text}");
        assert!(matches!(told, StoreError::Failed(_)), "{told:?}");
        assert!(matches!(store.failed().await, StoreError::Failed(_)));
        assert!(matches!(store.head(main).await, Err(StoreError::Failed(_))), "it goes on");
    }
}

#[tokio::test]
async fn new_directories_and_copies_are_their_owners_alone() {
    let root = tempfile::tempdir().expect("a directory");
    let (dir, copy) = (root.path().join("above/data"), root.path().join("copy"));
    let store = open(&dir, LARGE).expect("open");
    store.backup(&copy).await.expect("copied");
    for path in [dir, copy] {
        let mode = fs::metadata(&path).expect("metadata").permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{}", path.display());
    }
}
