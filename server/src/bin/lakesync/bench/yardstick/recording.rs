//! Recorded answers in a file: each behind its length, four bytes big-endian.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use bytes::{Buf, Bytes};

const LENGTH_BYTES: usize = size_of::<u32>();

/// Writes `answers` to a new file.
pub(in super::super) fn write(path: &Path, answers: &[Bytes]) -> io::Result<()> {
    let mut file = BufWriter::new(File::create_new(path)?);
    for answer in answers {
        let length = u32::try_from(answer.len()).map_err(io::Error::other)?;
        file.write_all(&length.to_be_bytes())?;
        file.write_all(answer)?;
    }
    file.flush()
}

/// All answers of a file.
pub(super) fn read(path: &Path) -> io::Result<Vec<Bytes>> {
    let mut rest = Bytes::from(fs::read(path)?);
    let torn = || io::Error::other(format!("{}: a torn recording", path.display()));
    let mut answers = Vec::new();
    while rest.has_remaining() {
        if rest.remaining() < LENGTH_BYTES {
            return Err(torn());
        }
        let length = rest.get_u32() as usize;
        if rest.remaining() < length {
            return Err(torn());
        }
        answers.push(rest.split_to(length));
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_is_read_as_it_was_written_or_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("recording");
        let answers = [Bytes::from_static(b"one"), Bytes::new(), Bytes::from_static(b"three")];
        write(&path, &answers).expect("written");
        assert_eq!(read(&path).expect("read"), answers);
        let whole = fs::read(&path).expect("bytes");
        for cut in [whole.len() - 1, 2] {
            fs::write(&path, &whole[..cut]).expect("cut");
            assert!(read(&path).is_err(), "{cut} bytes");
        }
    }
}
