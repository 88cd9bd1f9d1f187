//! Many at once, from several nodes where the store can be shared.

use std::sync::Arc;
use std::time::Duration;

use baton_core::Store;
use baton_core::error::{CreateAccountError, CreateSessionError, UpdateAccountError};
use baton_core::event::Trace;
use baton_core::session::{AccountUpdate, Swap, Swapped};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::{
    Harness, account, client, generation, hash, must_swap, new_account, new_session, rotation, signed_in, stored,
};

pub(super) const RIVALS: usize = 16;
pub(super) const NODES: usize = 2;

/// Starts `RIVALS` tasks at the same moment, spread over the nodes, and collects their answers in no order.
pub(super) async fn race<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    nodes: &[Arc<dyn Store>],
    task: impl Fn(Arc<dyn Store>, usize) -> F,
) -> Vec<T> {
    let barrier = Arc::new(Barrier::new(RIVALS));
    let mut tasks = JoinSet::new();
    for rival in 0..RIVALS {
        let run = task(nodes[rival % nodes.len()].clone(), rival);
        let barrier = barrier.clone();
        tasks.spawn(async move {
            barrier.wait().await;
            run.await
        });
    }
    tasks.join_all().await
}

/// The others are shown what the winner wrote (S3).
pub async fn one_of_many_swaps_wins(harness: &dyn Harness) {
    let nodes = harness.nodes(NODES).await;
    let (_, mut session) = signed_in(&*nodes[0], "ada", 1).await;
    for _ in 0..20 {
        harness.advance(Duration::from_millis(1)).await;
        // They differ in what they bring, so that it can be seen whose was made.
        let swap_of = {
            let base = rotation(&session);
            move |rival: usize| Swap {
                generation: generation(base.expect.generation.get() + 1 + rival as u32),
                confirmed: generation(rival as u32),
                ..base
            }
        };
        let answers = race(&nodes, |node, rival| async move {
            (rival, node.swap(client(1), &swap_of(rival), None).await.expect("swap"))
        })
        .await;

        let won: Vec<_> = answers
            .iter()
            .filter_map(|(rival, answer)| match answer {
                Swapped::Done(at) => Some((*rival, *at)),
                _ => None,
            })
            .collect();
        let [(winner, at)] = won[..] else { panic!("{} swaps were made: {answers:?}", won.len()) };
        session = session.swapped(&swap_of(winner), at).expect("the core makes it too");
        for (rival, answer) in answers {
            assert!(rival == winner || answer == Swapped::Moved(session.clone()), "{answer:?}");
        }
        for node in &nodes {
            assert_eq!(stored(&**node, client(1)).await, Some(session.clone()));
        }
    }
}

/// The others are told that it is taken, and leave no session.
pub async fn one_of_many_accounts_with_a_uid_is_made(harness: &dyn Harness) {
    let nodes = harness.nodes(NODES).await;
    let answers = race(&nodes, |node, rival| async move {
        node.create_account(new_account("ada"), Some(new_session(rival as u64)), &Trace::NONE).await
    })
    .await;
    let made: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().ok()).collect();
    assert_eq!(made.len(), 1);
    let taken = answers.iter().filter(|answer| matches!(answer, Err(CreateAccountError::Taken)));
    assert_eq!(taken.count(), RIVALS - 1, "{answers:?}");

    let login = nodes[0].find_login("user", "email", "ada").await.expect("find").expect("it exists");
    assert_eq!(login.account, made[0].0);
    let mut left = 0;
    for rival in 0..RIVALS {
        left += usize::from(stored(&*nodes[0], client(rival as u64)).await.is_some());
    }
    assert_eq!(left, 1);
}

/// Rotations and notes against a sign-out: when it has been answered, the session is gone for good (S4).
pub async fn nothing_brings_an_ended_session_back(harness: &dyn Harness) {
    let nodes = harness.nodes(NODES).await;
    let owner = account(&*nodes[0], "ada").await;
    for round in 0..10 {
        let session = nodes[0].create_session(owner.id, new_session(round), &Trace::NONE).await.expect("create");
        let name = session.client;
        let endings = race(&nodes, |node, rival| {
            let session = session.clone();
            async move {
                if rival % 8 == 0 {
                    let ended = node.end_session(session.account, name, &Trace::NONE).await.expect("end");
                    assert_eq!(stored(&*node, name).await, None, "ended, and still there");
                    return u32::from(ended);
                }
                let mut session = session;
                for _ in 0..5 {
                    match node.swap(name, &rotation(&session), None).await.expect("swap") {
                        Swapped::Done(at) => session = session.swapped(&rotation(&session), at).expect("made"),
                        Swapped::Moved(found) => session = found,
                        Swapped::Gone => {}
                    }
                }
                0
            }
        })
        .await;
        assert_eq!(endings.iter().sum::<u32>(), 1, "it ended once");
        for node in &nodes {
            assert_eq!(stored(&**node, name).await, None);
            assert_eq!(node.swap(name, &rotation(&session), None).await.expect("swap"), Swapped::Gone);
        }
    }
}

/// Sign-ins, rotations and password changes against the deletion of the account.
pub async fn nothing_is_left_of_an_account_deleted_meanwhile(harness: &dyn Harness) {
    let nodes = harness.nodes(NODES).await;
    let (owner, session) = signed_in(&*nodes[0], "ada", 1_000).await;
    let deletions = race(&nodes, |node, rival| {
        let session = session.clone();
        let new_password = AccountUpdate { password: Some(hash("new")), ..AccountUpdate::default() };
        async move {
            match rival % 4 {
                0 => return u32::from(node.delete_account(owner.id, &Trace::NONE).await.expect("delete")),
                1 => match node.create_session(owner.id, new_session(rival as u64), &Trace::NONE).await {
                    Ok(_) | Err(CreateSessionError::NoAccount) => {}
                    Err(error) => panic!("{error}"),
                },
                2 => drop(node.swap(session.client, &rotation(&session), None).await.expect("swap")),
                _ => match node.update_account(owner.id, new_password.clone(), &Trace::NONE).await {
                    Ok(_) | Err(UpdateAccountError::Gone) => {}
                    Err(error) => panic!("{error}"),
                },
            }
            0
        }
    })
    .await;
    assert_eq!(deletions.iter().sum::<u32>(), 1, "it was deleted once");
    for node in &nodes {
        assert_eq!(node.find_login("user", "email", "ada").await.expect("find"), None);
        assert_eq!(node.sessions(owner.id).await.expect("list").1, []);
        for number in (0..RIVALS as u64).chain([1_000]) {
            assert_eq!(stored(&**node, client(number)).await, None);
        }
    }
}

/// However many sign in at once, the limit holds afterwards.
pub async fn the_device_limit_holds(harness: &dyn Harness) {
    let nodes = harness.nodes(NODES).await;
    let owner = account(&*nodes[0], "ada").await;
    race(&nodes, |node, rival| async move {
        let new = baton_core::session::NewSession { max_devices: 3, ..new_session(rival as u64) };
        node.create_session(owner.id, new, &Trace::NONE).await.expect("create");
    })
    .await;
    for node in &nodes {
        assert_eq!(node.sessions(owner.id).await.expect("list").1.len(), 3);
    }
}

/// On every node, and while others write.
pub async fn a_read_sees_every_answered_swap(harness: &dyn Harness) {
    let nodes = harness.nodes(NODES).await;
    let owner = account(&*nodes[0], "ada").await;
    for number in 0..RIVALS {
        let new = baton_core::session::NewSession { max_devices: 1_000, ..new_session(number as u64) };
        nodes[0].create_session(owner.id, new, &Trace::NONE).await.expect("create");
    }
    let all: Arc<[Arc<dyn Store>]> = nodes.clone().into();
    race(&nodes, |node, rival| {
        let all = all.clone();
        async move {
            let mut session = stored(&*node, client(rival as u64)).await.expect("it exists");
            for _ in 0..15 {
                session = must_swap(&*node, &session, &rotation(&session)).await;
                for other in all.iter() {
                    assert_eq!(stored(&**other, session.client).await, Some(session.clone()));
                }
            }
        }
    })
    .await;
}

/// `now` is not before a time in the record that comes with it, or the rule would see a window that opens in the future.
pub async fn a_read_is_not_before_what_it_shows(harness: &dyn Harness) {
    let nodes = harness.nodes(NODES).await;
    let (owner, session) = signed_in(&*nodes[0], "ada", 1).await;
    let (done, reading) = tokio::sync::watch::channel(false);
    let readers: Vec<_> = (0..4)
        .map(|reader| {
            let (node, done) = (nodes[reader % NODES].clone(), reading.clone());
            tokio::spawn(async move {
                let mut last = session.created_at;
                while !*done.borrow() {
                    let found = node.find(client(1)).await.expect("find").expect("it exists");
                    let (listed, entries) = node.sessions(owner.id).await.expect("list");
                    for (now, session) in [(found.now, &found.session), (listed, &entries[0].session)] {
                        assert!(now >= last);
                        assert!(now >= session.last_seen_at);
                        assert!(session.handed_out_at.is_none_or(|at| now >= at), "{now:?} {session:?}");
                        last = now;
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let mut session = session;
    for round in 0..300 {
        if round % 10 == 0 {
            harness.advance(Duration::from_millis(1)).await;
        }
        session = must_swap(&*nodes[round % NODES], &session, &rotation(&session)).await;
    }
    done.send_replace(true);
    for reader in readers {
        reader.await.expect("a reader");
    }
}
