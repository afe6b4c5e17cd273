//! What somebody may have meant: names near the one that is not there.

/// Names that are listed.
const SHOWN_MAX: usize = 20;

/// What to say of tables that are there instead of `wanted`.
pub(super) fn hint(wanted: &str, names: &[String]) -> String {
    let lower = wanted.to_lowercase();
    let mut near: Vec<_> = names
        .iter()
        .map(|name| (distance(&lower, &name.to_lowercase()), name.as_str()))
        .filter(|(distance, name)| {
            let name = name.to_lowercase();
            distance * 3 <= lower.chars().count().max(3)
                || name.contains(&lower)
                || lower.contains(&name)
        })
        .collect();
    near.sort_unstable();
    if !near.is_empty() {
        let names: Vec<_> = near.into_iter().take(3).map(|(_, name)| name).collect();
        return format!("there is {}", names.join(", "));
    }
    match names {
        [] => "there are no tables at all".to_owned(),
        names if names.len() <= SHOWN_MAX => format!("there are {}", names.join(", ")),
        names => {
            let more = names.len() - SHOWN_MAX;
            format!("there are {} and {more} more", names[..SHOWN_MAX].join(", "))
        }
    }
}

/// How many characters must be put in, left out or changed.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (at, one) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, other) in b.iter().enumerate() {
            let changed = diagonal + usize::from(one != *other);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_near_come_first() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(hint("todo", &names(&["notes", "todos"])), "there is todos");
        assert_eq!(hint("Todos", &names(&["todos", "x"])), "there is todos");
        assert_eq!(hint("zzzz", &names(&["a", "bcd"])), "there are a, bcd");
        assert_eq!(hint("x", &[]), "there are no tables at all");
        let many: Vec<_> = (0..25).map(|n| format!("some_table_{n}")).collect();
        assert!(hint("zzzz", &many).ends_with("and 5 more"));
    }
}
