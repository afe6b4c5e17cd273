//! Where a migration stands, as a value and as a line of text.
//!
//! The text is `1 LOGS STAGE`. LOGS is `-` or a list of `ID:POSITION` with commas. STAGE is `begun`,
//! `rows TABLE ROW_ID DONE`, `history ID POSITION INDEX DONE`, `watermarks` or `copied`. Log ids and
//! row ids are in hexadecimal.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use lakesync::adapter::Place;
use lakesync::name::{LogId, Position, RowId, TableName};

pub(super) type Watermarks = BTreeMap<LogId, Position>;

/// Where a migration stands. To be kept by who runs it, as the text that `Display` makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// What the source had come to before anything was copied.
    pub(super) watermarks: Watermarks,
    pub(super) stage: Stage,
}

/// What is copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Begun,
    /// Tables before this one, and of this one the rows through `after`.
    Rows {
        table: TableName,
        after: RowId,
        done: u64,
    },
    /// All rows, and the history through `after`.
    History {
        after: Place,
        done: u64,
    },
    /// All but the watermarks.
    Watermarks,
    Copied,
}

/// A text that is no checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the checkpoint of a migration: {0} is missing or malformed")]
pub struct BadCheckpoint(&'static str);

impl Checkpoint {
    pub(super) fn first(watermarks: Watermarks) -> Self {
        Self { watermarks, stage: Stage::Begun }
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("1 ")?;
        for (nth, (log, position)) in self.watermarks.iter().enumerate() {
            write!(f, "{}{}:{position}", if nth == 0 { "" } else { "," }, Hex(&log.0))?;
        }
        if self.watermarks.is_empty() {
            f.write_str("-")?;
        }
        match &self.stage {
            Stage::Begun => f.write_str(" begun"),
            Stage::Rows { table, after, done } => {
                write!(f, " rows {table} {} {done}", Hex(after.as_str().as_bytes()))
            }
            Stage::History { after: Place { log, position, index }, done } => {
                write!(f, " history {} {position} {index} {done}", Hex(&log.0))
            }
            Stage::Watermarks => f.write_str(" watermarks"),
            Stage::Copied => f.write_str(" copied"),
        }
    }
}

impl FromStr for Checkpoint {
    type Err = BadCheckpoint;

    fn from_str(text: &str) -> Result<Self, BadCheckpoint> {
        let mut words = text.split_ascii_whitespace();
        if words.next() != Some("1") {
            return Err(BadCheckpoint("the version"));
        }
        let watermarks = match words.next() {
            None => return Err(BadCheckpoint("the list of logs")),
            Some("-") => Watermarks::new(),
            Some(list) => list.split(',').map(watermark).collect::<Result<_, _>>()?,
        };
        let stage = match words.next() {
            Some("begun") => Stage::Begun,
            Some("rows") => Stage::Rows {
                table: parsed(words.next(), "the table")?,
                after: row_id(words.next()).ok_or(BadCheckpoint("the row id"))?,
                done: parsed(words.next(), "the count")?,
            },
            Some("history") => Stage::History {
                after: Place {
                    log: log_id(words.next())?,
                    position: Position(parsed(words.next(), "the position")?),
                    index: parsed(words.next(), "the index")?,
                },
                done: parsed(words.next(), "the count")?,
            },
            Some("watermarks") => Stage::Watermarks,
            Some("copied") => Stage::Copied,
            _ => return Err(BadCheckpoint("the stage")),
        };
        match words.next() {
            None => Ok(Self { watermarks, stage }),
            Some(_) => Err(BadCheckpoint("the end")),
        }
    }
}

fn watermark(text: &str) -> Result<(LogId, Position), BadCheckpoint> {
    let (log, position) = text.split_once(':').ok_or(BadCheckpoint("a watermark"))?;
    Ok((log_id(Some(log))?, Position(parsed(Some(position), "a watermark")?)))
}

fn parsed<T: FromStr>(word: Option<&str>, what: &'static str) -> Result<T, BadCheckpoint> {
    word.and_then(|word| word.parse().ok()).ok_or(BadCheckpoint(what))
}

fn log_id(word: Option<&str>) -> Result<LogId, BadCheckpoint> {
    let raw = word.and_then(unhex).and_then(|raw| raw.try_into().ok());
    raw.map(LogId).ok_or(BadCheckpoint("a log id"))
}

fn row_id(word: Option<&str>) -> Option<RowId> {
    String::from_utf8(unhex(word?)?).ok()?.parse().ok()
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |sign: u8| char::from(sign).to_digit(16);
    let byte = |pair: &[u8]| {
        let [high, low] = *pair else { return None };
        u8::try_from(digit(high)? << 4 | digit(low)?).ok()
    };
    text.as_bytes().chunks(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stage() -> impl Strategy<Value = Stage> {
        let rows = ("[a-zA-Z_][a-z0-9]{0,9}", "[^\0]{1,20}", any::<u64>());
        let history = (any::<[u8; 16]>(), any::<u64>(), any::<u32>(), any::<u64>());
        prop_oneof![
            Just(Stage::Begun),
            rows.prop_map(|(table, after, done)| Stage::Rows {
                table: table.parse().expect("a legal name"),
                after: after.parse().expect("a legal id"),
                done,
            }),
            history.prop_map(|(log, at, index, done)| Stage::History {
                after: Place { log: LogId(log), position: Position(at), index },
                done,
            }),
            Just(Stage::Watermarks),
            Just(Stage::Copied),
        ]
    }

    fn checkpoint() -> impl Strategy<Value = Checkpoint> {
        let logs = proptest::collection::btree_map(any::<[u8; 16]>(), any::<u64>(), 0..3);
        (logs, stage()).prop_map(|(logs, stage)| {
            let logs = logs.into_iter().map(|(log, at)| (LogId(log), Position(at)));
            Checkpoint { watermarks: logs.collect(), stage }
        })
    }

    proptest! {
        #[test]
        fn text_and_back(checkpoint in checkpoint()) {
            let text = checkpoint.to_string();
            prop_assert!(!text.contains('\n'));
            prop_assert_eq!(text.parse(), Ok(checkpoint));
        }

        #[test]
        fn torn_text_is_another_checkpoint_or_none(checkpoint in checkpoint(), word in 0..6_usize) {
            let text = checkpoint.to_string();
            let words: Vec<_> = text.split(' ').collect();
            if word < words.len() {
                let torn = words[..word].join(" ").parse::<Checkpoint>();
                prop_assert!(torn.is_err(), "{torn:?}");
            }
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in "(1 )?([-0-9a-f:,é]{0,9} ?){0,5}") {
            let _ = text.parse::<Checkpoint>();
        }
    }

    #[test]
    fn the_form_is_kept() {
        let text = "1 07070707070707070707070707070707:42 rows todos c3a9 7";
        let checkpoint: Checkpoint = text.parse().expect("a checkpoint");
        assert_eq!(checkpoint.to_string(), text);
        let error = "2 - begun".parse::<Checkpoint>().expect_err("another version").to_string();
        assert_eq!(error, "not the checkpoint of a migration: the version is missing or malformed");
    }
}
