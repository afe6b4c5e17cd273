//! One ordered view of several layers: of each key, the newest state.

use std::iter::Peekable;

use bytes::Bytes;

use super::record::Change;
use super::tables::Ordered;
use crate::store::StoreError;

/// The layers' keys in order, removed ones left out. Layers come newest first.
pub(super) struct Merged<'a> {
    layers: Vec<Peekable<Ordered<'a>>>,
}

impl<'a> Merged<'a> {
    pub(super) fn new(layers: Vec<Ordered<'a>>) -> Self {
        Self { layers: layers.into_iter().map(Iterator::peekable).collect() }
    }

    /// The newest state of the least key, which every layer then has passed.
    fn step(&mut self) -> Option<Result<Change, StoreError>> {
        let mut least: Option<(usize, Bytes)> = None;
        for (number, layer) in self.layers.iter_mut().enumerate() {
            match layer.peek() {
                Some(Ok((key, _))) if least.as_ref().is_none_or(|(_, least)| key < least) => {
                    least = Some((number, key.clone()));
                }
                Some(Err(_)) => return layer.next(),
                Some(Ok(_)) | None => {}
            }
        }
        let (newest, key) = least?;
        let state = self.layers[newest].next();
        for older in &mut self.layers[newest + 1..] {
            older.next_if(|item| item.as_ref().is_ok_and(|(other, _)| *other == key));
        }
        state
    }
}

impl Iterator for Merged<'_> {
    type Item = Result<(Bytes, Bytes), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.step()? {
                Ok((key, Some(value))) => return Some(Ok((key, value))),
                Ok((_, None)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(texts: &[&'static str]) -> Ordered<'static> {
        let changes = texts.iter().map(|text| match text.split_once('=') {
            Some((key, value)) => Ok((key.into(), Some(value.into()))),
            None => Ok(((*text).into(), None)),
        });
        Box::new(changes.collect::<Vec<_>>().into_iter())
    }

    #[test]
    fn the_newest_layer_that_knows_a_key_decides() {
        for (layers, expected) in [
            (vec![&["a=1"][..], &["a=0", "b=0"]], "a=1 b=0"),
            (vec![&["a", "c=2"], &["a=1", "b=1"], &["a=0", "b", "d=0"]], "b=1 c=2 d=0"),
            (vec![&[], &["a", "b"], &["a=0", "b=0", "c=0"]], "c=0"),
            (vec![&[], &[]], ""),
        ] {
            let merged = Merged::new(layers.iter().map(|texts| layer(texts)).collect());
            let text = |bytes: Bytes| String::from_utf8_lossy(&bytes).into_owned();
            let shown = merged.map(|item| item.expect("no error"));
            let shown: Vec<_> = shown.map(|(k, v)| format!("{}={}", text(k), text(v))).collect();
            assert_eq!(shown.join(" "), expected, "{layers:?}");
        }
    }

    #[test]
    fn an_error_is_not_passed_over() {
        let failing: Ordered<'_> = Box::new(std::iter::once(Err(StoreError::Closed)));
        let mut merged = Merged::new(vec![layer(&["a=1"]), failing]);
        assert!(merged.next().is_some_and(|item| item.is_err()));
    }
}
