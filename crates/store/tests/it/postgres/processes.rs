//! Several processes on one database.

use baton_store::postgres::{PostgresOptions, PostgresStore};

use super::Schema;
use crate::processes::{agree, take_part};

const URL: &str = "BATON_TEST_POSTGRES_URL";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_agree_on_who_rotates() {
    for count in [2, 4] {
        let schema = Schema::fresh();
        let store = schema.must_open().await;
        let url = schema.server.url(&schema.name);
        agree(&store, count, "postgres::processes::one_of_several", URL, &url).await;
    }
}

/// What each of them does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the other test, in a process of its own"]
async fn one_of_several() {
    let url = std::env::var(URL).expect("a URL");
    let options = PostgresOptions::from_url(&url).expect("a good URL");
    take_part(&PostgresStore::open(options).await.expect("open")).await;
}
