//! Through PgBouncer, which hands its connections out by the transaction.

use std::sync::Arc;

use baton_core::Store;
use baton_store::conformance::{Harness, accounts, attempts, model, one_time, races, sessions, swaps, time, traces};
use baton_store::postgres::{Pooler, PostgresStore};
use baton_testkit::postgres::{PgBouncer, shared};

use super::Schema;
use super::suite::InPostgres;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_suite_passes_through_a_pooler_that_is_noticed_without_being_told() {
    let pooler = PgBouncer::before(shared().port);
    let harness = InPostgres::through(Pooler::Auto, pooler.port);
    let harness: &dyn Harness = &harness;
    races::one_of_many_swaps_wins(harness).await;
    races::one_of_many_accounts_with_a_uid_is_made(harness).await;
    races::nothing_brings_an_ended_session_back(harness).await;
    races::nothing_is_left_of_an_account_deleted_meanwhile(harness).await;
    races::the_device_limit_holds(harness).await;
    races::a_read_sees_every_answered_swap(harness).await;
    races::a_read_is_not_before_what_it_shows(harness).await;
    attempts::of_many_attempts_no_more_pass_than_the_rule_says(harness).await;
    traces::many_traces_at_once_are_all_left(harness).await;
    traces::a_message_is_claimed_by_one_of_many(harness).await;
    one_time::one_of_many_redemptions_is_made(harness).await;
    accounts::odd_strings_survive(harness).await;
    swaps::a_rotation_is_as_the_core_makes_it(harness).await;
    sessions::purge_stops_at_its_limit(harness).await;
    time::time_never_goes_back(harness).await;
    model::answers_are_those_of_the_model(harness).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_may_be_announced() {
    let schema = Arc::new(Schema::fresh());
    let pooler = PgBouncer::before(schema.server.port);
    let mut options = schema.options_through(pooler.port);
    for told in [Pooler::Auto, Pooler::Yes] {
        options.pooler = told;
        PostgresStore::open(options.clone()).await.expect("open").check().await.expect("it works");
    }
    // It knows better than its users what it refuses.
    options.pooler = Pooler::No;
    PostgresStore::open(options).await.expect_err("PgBouncer takes no settings");
}
