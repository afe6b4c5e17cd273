//! Followers that come back to another state than they were left in.

use std::time::Duration;

use lakesync::adapter::Adapter;
use lakesync::testing::id;

use crate::fan_out::{House, in_step};
use crate::flaky::Mode;
use crate::texts::{batch, contents, rows, shown};

/// While a follower was away a row was deleted, its delete was let go of, and it was made anew.
#[tokio::test]
async fn one_that_missed_a_forgotten_delete_has_nothing_of_before_it() {
    let house = House::default();
    let fan_out = house.prepared().await;
    let old = ["todos/a@1 a=1 b=1", "todos/b@1 a=1", "notes/n@1 a=1"];
    fan_out.write(&batch(1, &old)).await.expect("write");
    in_step(&fan_out).await;
    house.faults.set(Mode::Away);
    fan_out.write(&batch(2, &["todos/a@2 delete", "todos/b@2 delete"])).await.expect("write");
    let tombstones = rows(&house.primary, "todos").await;
    fan_out.forget(&id("todos"), &tombstones).await.expect("forget");
    fan_out.write(&batch(3, &["todos/a@9 a=2"])).await.expect("write");
    house.faults.set(Mode::Working);
    in_step(&fan_out).await;
    house.check("after it was away").await;
    assert_eq!(shown(&house.follower, "todos").await, ["a: a=2"]);
}

/// Nothing is written, and somebody empties the follower: it is filled again all the same.
#[tokio::test]
async fn one_that_is_emptied_while_idle_is_refilled() {
    let house = House::default();
    let fan_out = house.prepared().await;
    fan_out.write(&batch(1, &["todos/a@1 a=1", "notes/n@1 a=1"])).await.expect("write");
    in_step(&fan_out).await;
    house.follower.clear();
    let refilled = async {
        while contents(&house.follower).await != contents(&house.primary).await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), refilled).await.expect("it is noticed");
}
