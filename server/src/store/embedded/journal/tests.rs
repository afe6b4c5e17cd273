//! Laws of the journal: what was appended comes back; an end may be torn anywhere; damage to what
//! had been durable is never mistaken for a torn end.

use std::fs;

use super::replay::{End, ReplayError, replay};
use super::*;

fn syncs() -> Sync {
    Arc::new(|file: &File| file.sync_data())
}

/// A journal of three frames, and where each of them ended.
fn sample(dir: &Path) -> (Journal, Vec<u64>) {
    let mut journal = Journal::create(dir, 7, syncs()).expect("create");
    let mut ends = vec![journal.end];
    for records in [&["a", "bb"][..], &[""], &["ccc", "d", "e"]] {
        let records: Vec<Bytes> = records.iter().map(|text| Bytes::from(*text)).collect();
        journal.append(&records).expect("append");
        ends.push(journal.end);
    }
    (journal, ends)
}

fn read(dir: &Path) -> Result<(Vec<String>, End), ReplayError> {
    let mut records = Vec::new();
    let end = replay(&path(dir, 7), 7, |record| {
        records.push(String::from_utf8_lossy(&record).into_owned());
        Ok(())
    })?;
    Ok((records, end))
}

const ALL: [&str; 6] = ["a", "bb", "", "ccc", "d", "e"];

#[test]
fn what_was_appended_comes_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut journal, ends) = sample(dir.path());
    assert_eq!(
        read(dir.path()).expect("read"),
        (ALL.map(str::to_owned).to_vec(), End::Open(ends[3]))
    );
    journal.confirm().expect("confirm");
    let (records, end) = read(dir.path()).expect("read");
    assert_eq!((records.len(), end), (6, End::Open(ends[3] + FRAME_HEADER_BYTES as u64)));
    journal.append(&[Bytes::from("f")]).expect("append over the confirmation");
    journal.finish().expect("finish");
    let (records, end) = read(dir.path()).expect("read");
    assert_eq!((records.len(), records[6].as_str(), end), (7, "f", End::Finished));
}

#[test]
fn a_file_cut_anywhere_opens_with_its_whole_frames() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_, ends) = sample(dir.path());
    let whole = fs::read(path(dir.path(), 7)).expect("read");
    for cut in 0..=whole.len() {
        fs::write(path(dir.path(), 7), &whole[..cut]).expect("cut");
        let (records, end) = read(dir.path()).expect("a torn end is no damage");
        let frames = ends.iter().filter(|end| **end <= cut as u64).count();
        let expected = [0, 0, 2, 3, 6][frames];
        assert_eq!(records, ALL[..expected], "cut at {cut}");
        match frames {
            0 => assert_eq!(end, End::Unborn),
            _ => assert_eq!(end, End::Open(ends[frames - 1]), "cut at {cut}"),
        }
    }
}

#[test]
fn writing_goes_on_after_a_torn_end() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_, ends) = sample(dir.path());
    let whole = fs::read(path(dir.path(), 7)).expect("read");
    fs::write(path(dir.path(), 7), &whole[..whole.len() - 1]).expect("cut");
    let mut journal = Journal::reopen(dir.path(), 7, ends[2], syncs()).expect("reopen");
    journal.append(&[Bytes::from("new")]).expect("append");
    let (records, _) = read(dir.path()).expect("read");
    assert_eq!(records, ["a", "bb", "", "new"]);
}

/// A torn write may leave any part of the last frame unwritten, not only its end.
#[test]
fn holes_in_the_last_frame_are_a_torn_end() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_, ends) = sample(dir.path());
    let whole = fs::read(path(dir.path(), 7)).expect("read");
    for at in ends[2] as usize..whole.len() {
        let mut torn = whole.clone();
        torn[at] ^= 0xff;
        fs::write(path(dir.path(), 7), &torn).expect("tear");
        let (records, end) = read(dir.path()).expect("a torn end is no damage");
        assert_eq!((records.len(), end), (3, End::Open(ends[2])), "byte {at}");
    }
}

#[test]
fn damage_to_what_was_durable_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut journal, ends) = sample(dir.path());
    journal.confirm().expect("confirm");
    let whole = fs::read(path(dir.path(), 7)).expect("read");
    for at in 0..ends[3] as usize {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        fs::write(path(dir.path(), 7), &damaged).expect("damage");
        let outcome = read(dir.path());
        assert!(
            matches!(outcome, Err(ReplayError::Damaged { .. } | ReplayError::Header(_))),
            "byte {at}: {outcome:?}"
        );
    }
}

#[test]
fn a_frame_in_a_wrong_place_is_no_frame() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_, ends) = sample(dir.path());
    let whole = fs::read(path(dir.path(), 7)).expect("read");
    let (second, third) = (ends[1] as usize..ends[2] as usize, ends[2] as usize..);
    let swapped = [&whole[..ends[1] as usize], &whole[third], &whole[second]].concat();
    fs::write(path(dir.path(), 7), swapped).expect("swap");
    let (records, _) = read(dir.path()).expect("read");
    assert_eq!(records, ["a", "bb"]);
}

#[test]
fn a_failed_sync_is_an_error() {
    let dir = tempfile::tempdir().expect("a directory");
    let fails: Sync = Arc::new(|_| Err(io::Error::other("unplugged")));
    let mut journal = Journal::create(dir.path(), 7, fails).expect("create");
    let error = journal.append(&[Bytes::from("a")]).expect_err("the sync failed");
    assert_eq!(error.to_string(), "unplugged");
}
