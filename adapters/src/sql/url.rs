//! What a URL says, as far as an error may repeat it: never its user or password.

/// Whether each of the parameters `names` has one of these values, in any case.
pub(crate) fn has_legal(url: &str, names: &[&str], values: &[&str]) -> bool {
    let parameters = url.split_once('?').map_or("", |(_, parameters)| parameters);
    let mut named = parameters.split('&').filter_map(|parameter| parameter.split_once('='));
    named.all(|(name, value)| {
        !names.contains(&name) || values.iter().any(|legal| legal.eq_ignore_ascii_case(value))
    })
}
