//! What the gateway refused, made again or forgotten by command.

use std::str::FromStr;

use lakesync_client::Replica;

use crate::exit::Exit;
use crate::show::{count, line};

/// Which refused changes are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// All of them.
    All,
    /// The one of this number.
    One(i64),
}

impl FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self::All),
            number => number.parse().map(Self::One).map_err(|_| "a number, or all".to_owned()),
        }
    }
}

/// Makes these refused changes again, and forgets those.
pub(super) async fn settle(replica: &Replica, retry: &[Which], drop: &[Which]) -> Result<(), Exit> {
    let mut again = 0;
    for id in numbers(replica, retry).await? {
        again += u64::from(replica.retry_rejected(id).await.map_err(Exit::input_output)?);
    }
    let mut forgotten = 0;
    for id in numbers(replica, drop).await? {
        forgotten += u64::from(replica.drop_rejected(id).await.map_err(Exit::input_output)?);
    }
    for (number, what) in [(again, "made again"), (forgotten, "forgotten")] {
        if 0 < number {
            line(format_args!("  {} {what}", count(number, "refused change")))?;
        }
    }
    Ok(())
}

/// The numbers that are meant. One that nothing has is an error before anything is done; a change
/// that can't be sent at all simply stays.
async fn numbers(replica: &Replica, which: &[Which]) -> Result<Vec<i64>, Exit> {
    if which.is_empty() {
        return Ok(Vec::new());
    }
    let all = replica.rejected().await.map_err(Exit::input_output)?;
    let mut numbers = Vec::new();
    for which in which {
        match which {
            Which::All => numbers.extend(all.iter().map(|refused| refused.id)),
            Which::One(id) if all.iter().any(|refused| refused.id == *id) => numbers.push(*id),
            Which::One(id) => {
                return Err(Exit::usage(format!("there is no refused change #{id}")));
            }
        }
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_named_by_its_number_or_all_are() {
        assert_eq!("all".parse(), Ok(Which::All));
        assert_eq!("12".parse(), Ok(Which::One(12)));
        for wrong in ["", "#1", "All", "1,2"] {
            assert!(wrong.parse::<Which>().is_err(), "{wrong}");
        }
    }
}
