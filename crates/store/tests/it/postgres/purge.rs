//! Removing what has expired, in a table where most has not.

use baton_core::Store;
use baton_core::event::Trace;
use baton_core::session::Swapped;
use baton_store::postgres::PostgresStore;

use super::Schema;
use crate::fixture::{client, new_account, new_session, rotation};

/// A store with sessions 1 to 5, and 20000 that nobody uses and that do not expire.
async fn crowded(schema: &Schema) -> PostgresStore {
    let store = schema.must_open().await;
    let (account, _) = store.create_account(new_account("ada"), None, &Trace::NONE).await.expect("create");
    for number in 1..=5 {
        store.create_session(account.id, new_session(number), &Trace::NONE).await.expect("create");
    }
    let far = 9_000_000_000_000_i64;
    schema
        .execute(&format!(
            "INSERT INTO baton.sessions (client, account, generation, confirmed, created_at, expires_at, last_seen_at, purge_at)
             SELECT gen_random_uuid(), {0}, 1, 0, 0, {far}, 0, {far} + n FROM generate_series(1, 20000) n",
            account.id.0
        ))
        .await;
    store
}

/// What the statistics of the transaction say of all that its functions did.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_scans_no_table_and_looks_at_little_more_than_it_removes() {
    for analyzed in [false, true] {
        let schema = Schema::fresh();
        crowded(&schema).await.close().await;
        schema
            .execute(
                "UPDATE baton.sessions SET purge_at = n, expires_at = CASE WHEN n % 2 = 0 THEN 1 ELSE expires_at END
                 FROM (SELECT client AS c, row_number() OVER () AS n FROM baton.sessions WHERE created_at = 0 LIMIT 400) x
                 WHERE client = c",
            )
            .await;
        if analyzed {
            schema.execute("ANALYZE baton.sessions").await;
        }
        let mut client = schema.server.client().await;
        let counts = schema.text(
            "SELECT seq_scan, seq_tup_read, idx_tup_fetch FROM pg_stat_xact_all_tables
             WHERE relid = 'baton.sessions'::regclass",
        );
        // So often that a plan without the values might be made, and once when nothing is left to be done.
        for round in 0..11 {
            let due = if round < 10 { 40 } else { 0 };
            let tx = client.transaction().await.expect("begin");
            let before = tx.query_one(&counts, &[]).await.expect("look");
            let purged = tx.query_one(&schema.text("SELECT baton.purge(20)"), &[]).await.expect("purge");
            assert_eq!(purged.get::<_, i64>(0), due / 2);
            let after = tx.query_one(&counts, &[]).await.expect("look");
            let [scans, read, fetched] =
                [0, 1, 2].map(|column| after.get::<_, i64>(column) - before.get::<_, i64>(column));
            assert_eq!((scans, read), (0, 0), "analyzed: {analyzed}");
            // Those to be removed and as many to be put off, each found by one index and taken by another.
            assert!((due..=3 * due).contains(&fetched), "analyzed: {analyzed}, round {round}: {fetched}");
            tx.commit().await.expect("commit");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_goes_on_while_a_purge_is_under_way_and_a_purge_while_a_row_is_held() {
    let schema = Schema::fresh();
    let store = crowded(&schema).await;
    let expire =
        "UPDATE baton.sessions SET purge_at = 1, expires_at = 1 WHERE created_at > 0 AND client::text NOT LIKE '01%'";
    schema.execute(expire).await;
    let mut probe = schema.server.client().await;
    let tx = probe.transaction().await.expect("begin");
    let purged = tx.query_one(&schema.text("SELECT baton.purge(3)"), &[]).await.expect("purge");
    assert_eq!(purged.get::<_, i64>(0), 3);

    // Nobody has committed that. A statement that waited would be given up by the server.
    let session = store.find(client(1)).await.expect("find").expect("there").session;
    let swapped = store.swap(client(1), &rotation(&session), None).await.expect("swap");
    assert!(matches!(swapped, Swapped::Done(_)), "{swapped:?}");
    // A second one takes what the first has left.
    assert_eq!(store.purge(10).await.expect("purge"), 1);
    tx.rollback().await.expect("rollback");
    assert_eq!(store.purge(10).await.expect("purge"), 3);
    assert!(store.find(client(1)).await.expect("find").is_some());
}
