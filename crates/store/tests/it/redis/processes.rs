//! Several processes on one Redis, and on a cluster.

use std::path::Path;
use std::sync::Arc;

use baton_store::clock::SystemClock;
use baton_testkit::redis::{shared, shared_cluster};

use super::{Sessions, fresh_url};
use crate::fixture::must_open;
use crate::processes::{agree, take_part};

/// The URL, and the file with the accounts.
const STORES: &str = "BATON_TEST_REDIS_STORES";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_agree_on_who_rotates() {
    let cluster = format!("redis+cluster://127.0.0.1:{}", shared_cluster()[0]);
    for place in [format!("redis://127.0.0.1:{}", shared()), cluster] {
        for count in [2, 4] {
            let (url, (_folder, path)) = (fresh_url(&place), crate::fixture::file());
            let store = open(&url, &path).await;
            let stores = format!("{url} {}", path.display());
            agree(&store, count, "redis::processes::one_of_several", STORES, &stores).await;
        }
    }
}

/// What each of them does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the other test, in a process of its own"]
async fn one_of_several() {
    let stores = std::env::var(STORES).expect("where they are");
    let (url, path) = stores.split_once(' ').expect("both");
    take_part(&open(url, Path::new(path)).await).await;
}

async fn open(url: &str, path: &Path) -> Sessions {
    super::must_open(url, Arc::new(must_open(path, Arc::new(SystemClock::new()))), |_| {}).await
}
