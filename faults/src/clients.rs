//! The clients: they follow the protocol, or do what has to be refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::join;

use crate::history::{Actor, Answer, Deed};
use crate::http::Credentials;
use crate::world::World;

/// Signs in and uses the session in one or two tabs, until the run ends.
///
/// It takes a token over only if that is newer, keeps what it has when an answer is blank, lost or 503, and signs in again only
/// when the token that it holds is refused. One that `signs_out` does so every so often; it then opens a session anew, and
/// presents the tokens of those that ended now and then.
pub(crate) async fn follow(world: Arc<World>, email: String, signs_out: bool, mut rng: Rng) {
    let mut ghosts: Vec<(usize, Credentials)> = Vec::new();
    while !world.is_ending() {
        let Some((session, credentials)) = world.sign_in(&email).await else {
            world.pause(&mut rng, 200..800).await;
            continue;
        };
        let browser = Browser::open(&world, session, credentials, signs_out);
        let pages = if signs_out { rng.usize(5..30) } else { usize::MAX };
        let second = if rng.bool() { pages } else { 0 };
        let mut other = rng.fork();
        let (end, _) = join!(browser.tab(pages, &ghosts, &mut rng), browser.tab(second, &[], &mut other));
        match end {
            End::SignsOut => {
                let held = browser.held.into_inner();
                sign_out(&world, session, &held, &mut rng).await;
                ghosts.push((session, held));
            }
            End::Refused => {}
            End::Run => {
                if !browser.gets_through(&mut rng).await {
                    world.write(|history| history.stuck.push(session));
                }
            }
        }
    }
    present_all(&world, &ghosts).await;
}

/// Has two sessions, uses the one and sets a new password with the other, which ends the first; then looks whether it stays so.
pub(crate) async fn renew_password(world: Arc<World>, email: String, mut rng: Rng) {
    let mut ghosts: Vec<(usize, Credentials)> = Vec::new();
    while !world.is_ending() {
        let (Some((session, used)), Some((own, mut held))) = (world.sign_in(&email).await, world.sign_in(&email).await)
        else {
            world.pause(&mut rng, 500..1_500).await;
            continue;
        };
        let browser = Browser::open(&world, session, used, true);
        browser.tab(5, &ghosts, &mut rng).await;
        for _ in 0..10 {
            let (answer, newer) = world.end_session(session, (own, &held), Deed::NewPassword).await;
            held = newer.unwrap_or(held);
            if matches!(answer, Answer::Said { status: 200 | 401, .. }) {
                break;
            }
            world.pause(&mut rng, 500..1_500).await;
        }
        ghosts.push((session, browser.held.into_inner()));
        sign_out(&world, own, &held, &mut rng).await;
        ghosts.push((own, held));
    }
    present_all(&world, &ghosts).await;
}

/// Presents superseded tokens of others.
pub(crate) async fn steal(world: Arc<World>, mut rng: Rng) {
    while !world.is_ending() {
        if let Some((session, credentials)) = world.find_token(&mut rng) {
            world.present(session, Actor::Thief, &credentials, Deed::Get(Duration::ZERO)).await;
        }
        world.pause(&mut rng, 50..250).await;
    }
}

/// A session in use.
struct Browser<'a> {
    world: &'a World,
    session: usize,
    /// Shared by the tabs.
    held: Mutex<Credentials>,
    /// Its token was refused, or one of the tabs is done.
    over: AtomicBool,
    /// Whether it is done when there is a rush.
    hurries: bool,
}

/// Why a tab was closed.
#[derive(PartialEq, Eq)]
enum End {
    Run,
    Refused,
    SignsOut,
}

/// What became of a page.
#[derive(PartialEq, Eq)]
enum Page {
    Fine,
    /// Some of it was not answered, or with 503.
    Trouble,
    /// The token that the client holds is no good.
    Refused,
}

impl<'a> Browser<'a> {
    fn open(world: &'a World, session: usize, credentials: Credentials, hurries: bool) -> Self {
        Self { world, session, held: Mutex::new(credentials), over: AtomicBool::new(false), hurries }
    }

    /// Opens so many pages, one after the other.
    async fn tab(&self, pages: usize, ghosts: &[(usize, Credentials)], rng: &mut Rng) -> End {
        for _ in 0..pages {
            if self.world.is_ending() {
                return End::Run;
            }
            if self.over.load(Ordering::Relaxed) {
                return End::Refused;
            }
            let rush = match self.page(rng).await {
                Page::Fine => self.world.pause(rng, 200..1_200).await,
                // As `Retry-After` asks for, or a little less.
                Page::Trouble => self.world.pause(rng, 300..2_000).await,
                Page::Refused => {
                    self.over.store(true, Ordering::Relaxed);
                    return End::Refused;
                }
            };
            if rush && self.hurries {
                break;
            }
            if let Some((session, credentials)) = rng.choice(ghosts.iter()) {
                self.world.present(*session, Actor::Owner, credentials, Deed::Get(Duration::ZERO)).await;
            }
        }
        if pages > 0 {
            self.over.store(true, Ordering::Relaxed);
        }
        End::SignsOut
    }

    /// Several requests at once, with one token.
    async fn page(&self, rng: &mut Rng) -> Page {
        let presented = self.held.lock().clone();
        let requests = (0..rng.usize(1..=4)).map(|_| {
            let slow = rng.u8(..6) == 0;
            let sleep = Duration::from_millis(if slow { rng.u64(50..250) } else { 0 });
            self.request(&presented, Deed::Get(sleep))
        });
        let answers = join_all(requests.collect::<Vec<_>>()).await;
        let refused = answers.iter().any(|answer| matches!(answer, Answer::Said { status: 401, .. }));
        if refused && self.held.lock().generation() == presented.generation() {
            return Page::Refused;
        }
        let fine = answers.iter().all(|answer| matches!(answer, Answer::Said { status: 200 | 401, .. }));
        if fine { Page::Fine } else { Page::Trouble }
    }

    async fn request(&self, presented: &Credentials, deed: Deed) -> Answer {
        let (answer, handed) = self.world.present(self.session, Actor::Owner, presented, deed).await;
        if let Some(newer) = handed {
            let mut held = self.held.lock();
            if newer.generation() > held.generation() {
                self.world.drop_token(self.session, std::mem::replace(&mut *held, newer));
            }
        }
        answer
    }

    /// When all is well, everybody gets through.
    async fn gets_through(&self, rng: &mut Rng) -> bool {
        for _ in 0..40 {
            // Refusals are the checker's, which knows what led to them.
            if self.page(rng).await != Page::Trouble {
                return true;
            }
            self.world.pause(rng, 300..600).await;
        }
        false
    }
}

/// Until it is known to be done.
async fn sign_out(world: &World, session: usize, held: &Credentials, rng: &mut Rng) {
    while !world.is_ending() {
        let (answer, _) = world.end_session(session, (session, held), Deed::SignOut).await;
        // 401 and 404: the one before has done it, and its answer was lost.
        if matches!(answer, Answer::Said { status: 200 | 401 | 404, .. }) {
            return;
        }
        world.pause(rng, 200..1_500).await;
    }
}

async fn present_all(world: &World, sessions: &[(usize, Credentials)]) {
    for (session, credentials) in sessions {
        world.present(*session, Actor::Owner, credentials, Deed::Get(Duration::ZERO)).await;
    }
}
