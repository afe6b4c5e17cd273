//! A token's claims as sync rules see them: comparable texts, or nothing.

use serde_json::{Map, Value as Json};

use crate::schema::ColumnType;
use crate::value::Value;

/// What a token says, by claim.
pub type Claims = Map<String, Json>;

/// The name of a claim. Dots descend into objects, unless a claim has the whole name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim(String);

/// What a claim came to, for a column of some type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Resolved {
    /// The token does not have it.
    Missing,
    /// It is no value, nor a list of values, that the column could hold. What it is instead.
    Mistyped(String),
    /// Comparable texts.
    Texts(Vec<String>),
}

impl Claim {
    /// The claim of this name, unless it is empty.
    pub(super) fn parse(name: &str) -> Option<Self> {
        (!name.is_empty()).then(|| Self(name.to_owned()))
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What `claims` say. A claim of the whole name comes first: issuers that name theirs by URL
    /// have dots in them.
    fn find<'a>(&self, claims: &'a Claims) -> Option<&'a Json> {
        if let Some(whole) = claims.get(&self.0) {
            return Some(whole);
        }
        let mut parts = self.0.split('.');
        let first = claims.get(parts.next()?)?;
        parts.try_fold(first, |found, part| found.as_object()?.get(part))
    }

    /// What `claims` say, as texts that compare with those of a column of type `kind`. One bad
    /// value in a list spoils the list: a token is taken whole or not at all.
    pub(super) fn resolve(&self, claims: &Claims, kind: ColumnType) -> Resolved {
        let values = match self.find(claims) {
            None => return Resolved::Missing,
            Some(Json::Array(list)) => list.as_slice(),
            Some(single) => std::slice::from_ref(single),
        };
        let texts = values.iter().map(|value| text(value, kind).ok_or_else(|| value.to_string()));
        match texts.collect() {
            Ok(texts) => Resolved::Texts(texts),
            Err(value) => Resolved::Mistyped(value),
        }
    }

    /// Whether `claims` say `wanted`, or have it in a list.
    pub(super) fn says(&self, claims: &Claims, wanted: &str) -> bool {
        match self.resolve(claims, ColumnType::Any) {
            Resolved::Texts(texts) => texts.iter().any(|text| text == wanted),
            Resolved::Missing | Resolved::Mistyped(_) => false,
        }
    }

    /// What `claims` say, for people.
    pub(super) fn shown(&self, claims: &Claims) -> String {
        self.find(claims).map_or("nothing".to_owned(), Json::to_string)
    }
}

/// Identities are texts in most tokens, whatever the column's type: those are read as literals.
/// Numbers and booleans must be what the column holds.
fn text(value: &Json, kind: ColumnType) -> Option<String> {
    use ColumnType::{Any, Bool, Decimal, Double, Int64};
    match (value, kind) {
        (Json::String(_) | Json::Bool(_) | Json::Number(_), ColumnType::Json) => {
            Some(value.to_string())
        }
        (Json::String(text), kind) => kind.literal(text),
        (Json::Bool(value), Bool | Any) => Some(value.to_string()),
        (Json::Number(number), Int64 | Decimal { .. }) => kind.literal(&number.to_string()),
        (Json::Number(number), Any) if number.is_i64() => Some(number.to_string()),
        (Json::Number(number), Double | Any) => {
            Value::Double(number.as_f64()?).text().map(Into::into)
        }
        _ => None,
    }
}
