//! How many connections there are, in all and from each address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many connections there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// In all.
    pub(crate) all: usize,
    /// From one address. The addresses of one IPv6 network (/64) count as one: whoever has one of
    /// them has all.
    pub(crate) each_address: usize,
}

/// The connections there are.
#[derive(Debug)]
pub(crate) struct Places {
    bounds: Bounds,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
    refused: u64,
}

/// The place of one connection. It is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    address: IpAddr,
}

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Crowded {
    /// There are as many as there may be.
    #[error("the server has as many connections as it may have; try again later")]
    All,
    /// There are as many from this address as there may be.
    #[error("the server has as many connections from this address as it may have; try again later")]
    Address,
}

impl Places {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, taken: Mutex::default() }
    }

    /// A place for a connection from `address`.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Result<Place, Crowded> {
        let address = network(address);
        let mut taken = self.lock();
        let crowded = if self.bounds.all <= taken.all {
            Some(Crowded::All)
        } else {
            let of_address = taken.by_address.get(&address).copied().unwrap_or(0);
            (self.bounds.each_address <= of_address).then_some(Crowded::Address)
        };
        if let Some(crowded) = crowded {
            taken.refused += 1;
            return Err(crowded);
        }
        taken.all += 1;
        *taken.by_address.entry(address).or_default() += 1;
        Ok(Place { places: Arc::clone(self), address })
    }

    /// How many connections there are, and how many were ever refused.
    pub(crate) fn count(&self) -> (usize, u64) {
        let taken = self.lock();
        (taken.all, taken.refused)
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.all -= 1;
        if let Some(count) = taken.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

/// What counts as one address.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(all: usize, each_address: usize) -> Arc<Places> {
        Arc::new(Places::new(Bounds { all, each_address }))
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn one_address_does_not_take_all_places() {
        let places = places(3, 2);
        let ann = address("192.0.2.1");
        let first = places.take(ann).expect("free");
        let _second = places.take(address("::ffff:192.0.2.1")).expect("free");
        assert_eq!(places.take(ann).expect_err("full"), Crowded::Address);
        let _bob = places.take(address("192.0.2.2")).expect("free");
        assert_eq!(places.take(address("192.0.2.3")).expect_err("full"), Crowded::All);
        assert_eq!(places.count(), (3, 2));
        drop(first);
        let _third = places.take(ann).expect("free again");
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let places = places(9, 1);
        let _one = places.take(address("2001:db8::1")).expect("free");
        assert_eq!(places.take(address("2001:db8::2")).expect_err("full"), Crowded::Address);
        let _other = places.take(address("2001:db8:0:1::1")).expect("another network");
    }

    #[test]
    fn nobody_is_remembered_who_left() {
        let places = places(9, 9);
        drop(places.take(address("192.0.2.1")).expect("free"));
        assert!(places.lock().by_address.is_empty());
    }
}
