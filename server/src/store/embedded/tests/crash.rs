//! What a crash leaves: copies taken at any moment, ends torn anywhere, files from before and after.

use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

/// No overlay of these tests reaches it: everything stays in one journal file.
const LARGE: usize = 64 << 20;

fn journal_file(dir: &Path, number: u64) -> PathBuf {
    journal::path(&dir.join("store/journal"), number)
}

/// Ends a journal file as its writer would.
pub(super) fn end_journal(dir: &Path, number: u64) {
    let length = fs::metadata(journal_file(dir, number)).expect("metadata").len();
    let sync: journal::Sync = Arc::new(File::sync_data);
    let ended = journal::Journal::reopen(&dir.join("store/journal"), number, length, sync);
    ended.and_then(journal::Journal::finish).expect("end");
}

/// What a power cut leaves of the note: what was synced when the file was begun.
fn forget_note(dir: &Path, number: u64) {
    let store = dir.join("store");
    let note = journal::note::Note::create(&store);
    let durable = journal::note::Durable { number, end: 0 };
    note.and_then(|mut note| note.put_durably(durable)).expect("note");
}

/// Copies the directory again and again while groups are committed. Each copy opens, and holds all
/// that was confirmed before it was begun.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_any_moment_has_what_was_confirmed() {
    let root = tempfile::tempdir().expect("a directory");
    let store = Arc::new(open(&root.path().join("data"), LARGE).expect("open"));
    let main = main_gateway(&store).await;
    let (confirmed, writer) = (Arc::new(AtomicU64::new(0)), Arc::clone(&store));
    let counter = Arc::clone(&confirmed);
    let writes = tokio::spawn(async move {
        for number in 1..=400 {
            commit(&writer, main, number).await.durable().await.expect("durable");
            counter.store(number, Ordering::SeqCst);
        }
    });
    let mut copies = Vec::new();
    while !writes.is_finished() && copies.len() < 20 {
        let (before, copy) = (confirmed.load(Ordering::SeqCst), format!("copy-{}", copies.len()));
        copy_tree(&root.path().join("data"), &root.path().join(&copy));
        copies.push((before, copy));
        tokio::task::yield_now().await;
    }
    writes.await.expect("the writer");
    for (before, copy) in copies {
        let store = open(&root.path().join(&copy), LARGE).expect("open a copy");
        if before == 0 && store.gateways(None, 1).await.expect("list").is_empty() {
            continue;
        }
        let head = checked_head(&store, main).await.expect("sound");
        assert!(before <= head, "{copy}: {before} was confirmed, {head} is there");
    }
}

/// Cuts the newest journal file anywhere: what is left is a whole number of groups, all those whose
/// confirmation came before the cut among them, and the store goes on from there.
#[tokio::test]
async fn a_torn_end_takes_unconfirmed_groups_only() {
    let root = tempfile::tempdir().expect("a directory");
    let dir = root.path().join("data");
    let store = open(&dir, LARGE).expect("open");
    let main = main_gateway(&store).await;
    let mut ends = Vec::new();
    for number in 1..=12 {
        commit(&store, main, number).await.durable().await.expect("durable");
        ends.push(fs::metadata(journal_file(&dir, 1)).expect("metadata").len());
    }
    store.close().await.expect("close");
    let whole = fs::read(journal_file(&dir, 1)).expect("read");
    let first = ends[0] as usize;
    for cut in (first..whole.len()).step_by(11).chain(whole.len() - 3..whole.len()) {
        fs::write(journal_file(&dir, 1), &whole[..cut]).expect("cut");
        forget_note(&dir, 1);
        let store = open(&dir, LARGE).expect("open");
        let head = checked_head(&store, main).await.expect("sound");
        let confirmed = ends.iter().filter(|end| **end <= cut as u64).count() as u64;
        assert!(confirmed <= head, "cut at {cut}: {confirmed} confirmed, {head} there");
        put(&store, main, head + 1..=head + 1).await;
        store.close().await.expect("close");
        let store = open(&dir, LARGE).expect("open again");
        assert_eq!(checked_head(&store, main).await.expect("sound"), head + 1);
        store.close().await.expect("close");
    }
}

/// Killed after rows and log of an overlay went into the tables, and before the step that makes them
/// count: the overlay comes again from the journal, over what is there already.
#[tokio::test]
async fn a_half_ingested_overlay_is_ingested_again() {
    let root = tempfile::tempdir().expect("a directory");
    let (dir, before) = (root.path().join("data"), root.path().join("before"));
    let store = open(&dir, LARGE).expect("open");
    let main = main_gateway(&store).await;
    put(&store, main, 1..=20).await;
    store.close().await.expect("close");
    copy_tree(&dir, &before);
    end_journal(&before, 1);
    let store = open(&dir, 1).expect("open");
    put(&store, main, 21..=21).await;
    store.engine.all_settled().await;
    store.close().await.expect("close");
    assert!(!journal_file(&dir, 1).exists(), "the tables have not taken it over");
    let meta = Path::new("store/tables/keyspaces/2");
    fs::remove_dir_all(dir.join(meta)).expect("remove");
    copy_tree(&before.join(meta), &dir.join(meta));
    fs::copy(journal_file(&before, 1), journal_file(&dir, 1)).expect("copy");
    for overlay_bytes in [LARGE, 1] {
        let store = open(&dir, overlay_bytes).expect("open");
        assert_eq!(checked_head(&store, main).await.expect("sound"), 21);
        store.engine.all_settled().await;
        assert_eq!(checked_head(&store, main).await.expect("sound"), 21);
        store.close().await.expect("close");
    }
}

/// Killed after the tables took an overlay over and before its journal file was removed.
#[tokio::test]
async fn a_journal_file_that_the_tables_have_is_removed() {
    let root = tempfile::tempdir().expect("a directory");
    let (dir, before) = (root.path().join("data"), root.path().join("before"));
    let store = open(&dir, LARGE).expect("open");
    let main = main_gateway(&store).await;
    put(&store, main, 1..=20).await;
    store.close().await.expect("close");
    copy_tree(&dir, &before);
    let store = open(&dir, 1).expect("open");
    put(&store, main, 21..=30).await;
    store.engine.all_settled().await;
    store.close().await.expect("close");
    fs::copy(journal_file(&before, 1), journal_file(&dir, 1)).expect("copy");
    let store = open(&dir, LARGE).expect("open");
    assert_eq!(checked_head(&store, main).await.expect("sound"), 30);
    assert!(!journal_file(&dir, 1).exists());
}

/// Killed between the end of one journal file and the beginning of the next, or in the midst of it.
#[tokio::test]
async fn an_ended_journal_is_followed_by_another() {
    for beginning in [None, Some(&b""[..]), Some(b"lakesync jour")] {
        let root = tempfile::tempdir().expect("a directory");
        let dir = root.path().join("data");
        let store = open(&dir, LARGE).expect("open");
        let main = main_gateway(&store).await;
        put(&store, main, 1..=5).await;
        store.close().await.expect("close");
        end_journal(&dir, 1);
        if let Some(beginning) = beginning {
            fs::write(journal_file(&dir, 2), beginning).expect("begin");
        }
        let store = open(&dir, LARGE).expect("open");
        assert_eq!(checked_head(&store, main).await.expect("sound"), 5);
        put(&store, main, 6..=6).await;
        assert_eq!(checked_head(&store, main).await.expect("sound"), 6);
    }
}

/// A power cut takes what was not synced: the end of a file must not be lost once another follows.
#[tokio::test]
async fn an_end_that_may_not_be_durable_is_synced_before_another_file_begins() {
    let root = tempfile::tempdir().expect("a directory");
    let dir = root.path().join("data");
    let store = open(&dir, LARGE).expect("open");
    let main = main_gateway(&store).await;
    put(&store, main, 1..=5).await;
    store.close().await.expect("close");
    end_journal(&dir, 1);
    let inode = |number| fs::metadata(journal_file(&dir, number)).expect("metadata").ino();
    let (first, second) = (inode(1), journal_file(&dir, 2));
    let synced_alone = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&synced_alone);
    let sync: journal::Sync = Arc::new(move |file: &File| {
        let is_first = file.metadata()?.ino() == first;
        counter.fetch_add(u64::from(is_first && !second.exists()), Ordering::SeqCst);
        file.sync_data()
    });
    let seams = Seams { sync, ..Seams::default() };
    let store = EmbeddedStore::open_with(&dir, &options(LARGE), &seams).expect("open");
    assert_eq!(synced_alone.load(Ordering::SeqCst), 1);
    assert_eq!(checked_head(&store, main).await.expect("sound"), 5);
}

/// A damaged byte is an error, or makes no difference. Never another answer.
#[tokio::test]
async fn a_damaged_byte_is_never_another_answer() {
    let root = tempfile::tempdir().expect("a directory");
    let dir = root.path().join("data");
    let store = open(&dir, 2_000).expect("open");
    let main = main_gateway(&store).await;
    put(&store, main, 1..=100).await;
    store.engine.all_settled().await;
    store.close().await.expect("close");
    let (mut told, mut tried) = (0, 0);
    for path in files(&dir.join("store")) {
        let length = fs::metadata(&path).expect("metadata").len();
        let sound_bytes = match path.parent().and_then(Path::file_name) {
            Some(parent) if parent == "journal" => length,
            // The end of a table tells how much memory to ask for before it is checked: damage there
            // is told by a failed allocation, which ends the process.
            Some(parent) if parent == "tables" && 0 < length => length / 2,
            _ => continue,
        };
        for at in (0..sound_bytes).step_by(sound_bytes as usize / 8 + 1) {
            let copy = root.path().join(format!("damaged-{tried}"));
            copy_tree(&dir, &copy);
            damage(&copy.join(path.strip_prefix(&dir).expect("within")), at);
            tried += 1;
            let outcome = match open(&copy, LARGE) {
                Ok(store) => checked_head(&store, main).await.ok(),
                Err(error) => {
                    let words = error.to_string();
                    // For operators: what it is and what to do, and no other project's innards.
                    let plain = !words.contains("Fjall") && !words.contains('\n');
                    assert!(plain && words.contains("restore a backup"), "{words}");
                    None
                }
            };
            match outcome {
                Some(head) => assert_eq!(head, 100, "byte {at} of {}", path.display()),
                None => told += 1,
            }
            fs::remove_dir_all(copy).expect("remove");
        }
    }
    assert!(10 < told, "only {told} of {tried} damaged bytes were told");
}

fn damage(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).expect("open");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("read");
    file.write_all_at(&[byte[0] ^ 0x40], at).expect("damage");
}

#[tokio::test]
async fn a_missing_journal_file_is_told() {
    let root = tempfile::tempdir().expect("a directory");
    let dir = root.path().join("data");
    let store = open(&dir, LARGE).expect("open");
    let main = main_gateway(&store).await;
    put(&store, main, 1..=5).await;
    store.close().await.expect("close");
    let kept = fs::read(journal_file(&dir, 1)).expect("read");
    fs::remove_file(journal_file(&dir, 1)).expect("remove");
    let error = open(&dir, LARGE).expect_err("journal 1 is missing").to_string();
    assert!(error.contains("journal 1 is missing") && !error.contains('\n'), "{error}");
    fs::write(journal_file(&dir, 1), &kept).expect("restore");
    fs::write(dir.join("store/journal/notes.txt"), "").expect("write");
    assert!(matches!(open(&dir, LARGE), Err(OpenError::Corrupt { .. })));
}
