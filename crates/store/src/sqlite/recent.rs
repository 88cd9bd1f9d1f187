//! The sessions that were read lately, so that most requests need no transaction.
//!
//! A read in SQLite costs a few microseconds, half of them for locks: more than all else that a request needs. What is
//! remembered here is as good as a read, not merely recent: whoever looks first sees to it that no commit was made since, by
//! any process ([`WalIndex`]), but those of this process' writer, which says what they change.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use baton_core::clock::Timestamp;
use baton_core::session::{Account, Session, Swap};
use baton_core::token::ClientId;
use parking_lot::Mutex;

use super::wal_index::{Mark, WalIndex};

/// Threads that look at different sessions should hardly ever have to wait for each other.
const SHARDS: usize = 16;

pub(super) struct Recent {
    /// `None` if nothing is remembered.
    index: Option<WalIndex>,
    shards: [Mutex<Shard>; SHARDS],
    /// The commit that what is remembered is as of; none if it is not known.
    known: AtomicU64,
    /// What was remembered in an earlier one is forgotten. Always changed before `known`, and read after it.
    epoch: AtomicU64,
    /// A commit of the writer is under way: what was read before may be out of date, and must not be added.
    committing: AtomicBool,
    /// Held by whoever changes those three.
    control: Mutex<State>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Closed,
}

/// No mark is that.
const UNKNOWN: u64 = 0;

type ByName = BuildHasherDefault<Name>;

/// Names of sessions are drawn at random, and only those that exist are kept: there is nothing to mix.
#[derive(Default)]
struct Name(u64);

impl Hasher for Name {
    fn write(&mut self, bytes: &[u8]) {
        // Not the first half, of which a byte has chosen the shard, nor the length, which comes before.
        if let Some(half) = bytes.last_chunk() {
            self.0 = u64::from_ne_bytes(*half);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// What was used lately is in `young`. When that is full, it takes the place of `old`, which is forgotten.
#[derive(Default)]
struct Shard {
    young: HashMap<ClientId, Entry, ByName>,
    old: HashMap<ClientId, Entry, ByName>,
    /// Sessions in each of the two.
    room: usize,
}

struct Entry {
    session: Session,
    account: Arc<Account>,
    epoch: u64,
}

/// What a transaction does to a session.
pub(super) enum Change {
    /// This swap was made at this time.
    Swapped(ClientId, Swap, Timestamp),
    /// It, or its account, is not what it was.
    Changed(ClientId),
    /// Any session may have changed.
    All,
}

/// From when a read may be remembered: see [`Recent::add`].
#[derive(Clone, Copy)]
pub(super) struct Since {
    mark: Mark,
    epoch: u64,
}

impl Recent {
    /// Of a database that is open in this process; of up to `sessions`.
    pub(super) fn new(database: &Path, sessions: usize) -> Self {
        let room = sessions.div_ceil(2 * SHARDS);
        Self {
            index: (sessions > 0).then(|| WalIndex::of(database)).flatten(),
            shards: std::array::from_fn(|_| Mutex::new(Shard { room, ..Shard::default() })),
            known: AtomicU64::new(UNKNOWN),
            epoch: AtomicU64::new(0),
            committing: AtomicBool::new(false),
            control: Mutex::new(State::Open),
        }
    }

    /// The session as a read would find it now, or when it is to be looked for in the file, from when on.
    pub(super) fn find(&self, client: ClientId) -> Result<(Session, Arc<Account>), Option<Since>> {
        let Some(index) = &self.index else { return Err(None) };
        let known = self.known.load(Ordering::Acquire);
        let Some(mark) = index.mark() else { return Err(None) };
        if mark.get() != known {
            return Err(self.catch_up(index));
        }
        // In this order. No commit was made up to now, or it was the writer's, which changes what is remembered after it.
        let mut shard = self.shard(client).lock();
        let epoch = self.epoch.load(Ordering::Acquire);
        match shard.get(client) {
            Some(entry) if entry.epoch == epoch => Ok((entry.session.clone(), entry.account.clone())),
            _ => Err(Some(Since { mark, epoch })),
        }
    }

    /// Remembers what was read from the file, unless it may have changed since.
    pub(super) fn add(&self, since: Since, session: &Session, account: &Arc<Account>) {
        let mut shard = self.shard(session.client).lock();
        let Since { mark, epoch } = since;
        // Under the shard's lock: a commit that begins later finds the entry and changes it.
        if !self.committing.load(Ordering::Acquire)
            && self.known.load(Ordering::Acquire) == mark.get()
            && self.epoch.load(Ordering::Acquire) == epoch
        {
            shard.put(session.client, Entry { session: session.clone(), account: account.clone(), epoch });
        }
    }

    /// Forgets everything: somebody else has committed. Not while the writer does, who says what it changes.
    fn catch_up(&self, index: &WalIndex) -> Option<Since> {
        let state = self.control.try_lock()?;
        let mark = index.mark().filter(|_| *state == State::Open);
        self.move_to(mark)
    }

    /// To be called when the database is closed: others may delete the index then, and this process would not see it.
    pub(super) fn close(&self) {
        let mut state = self.control.lock();
        *state = State::Closed;
        self.move_to(None);
    }

    /// To be called by the writer, which holds the database's lock for writing: which commit it goes on from, if that can be
    /// told.
    pub(super) fn begin(&self) -> Option<Mark> {
        let mark = self.mark();
        let _control = self.control.lock();
        self.move_to(mark);
        mark
    }

    /// The commit that is the latest.
    pub(super) fn mark(&self) -> Option<Mark> {
        self.index.as_ref()?.mark()
    }

    /// Forgets everything, unless this is the commit that it is as of. Only with `control`.
    fn move_to(&self, mark: Option<Mark>) -> Option<Since> {
        let mut epoch = self.epoch.load(Ordering::Relaxed);
        if mark.map(Mark::get) != Some(self.known.load(Ordering::Relaxed)) {
            epoch += 1;
            self.epoch.store(epoch, Ordering::Release);
            self.known.store(mark.map_or(UNKNOWN, Mark::get), Ordering::Release);
        }
        mark.map(|mark| Since { mark, epoch })
    }

    /// Runs the writer's commit, and takes over what it has changed since it went on `from` there; `None` if it has changed
    /// nothing. If the commit fails, or it cannot be said what there is after it, everything is forgotten. Answers which
    /// commit that is.
    pub(super) fn around<E>(
        &self,
        from: Option<Mark>,
        changes: Option<impl IntoIterator<Item = Change>>,
        commit: impl FnOnce() -> Result<(), E>,
    ) -> Result<Option<Mark>, E> {
        let _control = self.control.lock();
        self.committing.store(true, Ordering::SeqCst);
        let committed = commit();
        // The lock is gone by now: somebody else may have been quick.
        let is_ours =
            |now: &Mark| from.is_some_and(|from| if changes.is_some() { now.follows(from) } else { *now == from });
        let mark = self.mark().filter(|now| committed.is_ok() && is_ours(now));
        if mark.is_some() && changes.into_iter().flatten().all(|change| self.take_over(&change)) {
            self.known.store(mark.map_or(UNKNOWN, Mark::get), Ordering::Release);
        } else {
            self.move_to(None);
        }
        self.committing.store(false, Ordering::SeqCst);
        committed.map(|()| mark)
    }

    /// False if that cannot be said of single sessions.
    fn take_over(&self, change: &Change) -> bool {
        match change {
            Change::Swapped(client, swap, at) => {
                let mut shard = self.shard(*client).lock();
                if let Some(entry) = shard.get_mut(*client) {
                    match entry.session.swapped(swap, *at) {
                        Some(session) => entry.session = session,
                        None => shard.remove(*client),
                    }
                }
            }
            Change::Changed(client) => self.shard(*client).lock().remove(*client),
            Change::All => return false,
        }
        true
    }

    fn shard(&self, client: ClientId) -> &Mutex<Shard> {
        // They are drawn at random.
        &self.shards[usize::from(client.as_bytes()[0]) % SHARDS]
    }
}

impl Shard {
    fn get(&mut self, client: ClientId) -> Option<&Entry> {
        if !self.young.contains_key(&client)
            && let Some(entry) = self.old.remove(&client)
        {
            self.put(client, entry);
        }
        self.young.get(&client)
    }

    fn get_mut(&mut self, client: ClientId) -> Option<&mut Entry> {
        if let Some(entry) = self.old.get_mut(&client) {
            return Some(entry);
        }
        self.young.get_mut(&client)
    }

    fn put(&mut self, client: ClientId, entry: Entry) {
        if self.young.len() >= self.room && !self.young.contains_key(&client) {
            self.old = std::mem::take(&mut self.young);
            self.young.reserve(self.room);
        }
        self.old.remove(&client);
        self.young.insert(client, entry);
    }

    fn remove(&mut self, client: ClientId) {
        self.old.remove(&client);
        self.young.remove(&client);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use baton_core::session::{AccountId, Profile, Renewal};
    use rusqlite::Connection;

    use super::*;
    use crate::sqlite::{SqliteOptions, file};

    const NOW: Timestamp = Timestamp::from_millis(1_000);
    const RENEWAL: Renewal = Renewal { lifespan: Duration::from_secs(60), max_lifetime: Duration::from_secs(120) };

    struct Bench {
        recent: Recent,
        writer: Connection,
        _folder: tempfile::TempDir,
    }

    fn bench(sessions: usize) -> Bench {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("baton.db");
        let writer = file::open_writer(&path, &SqliteOptions::default()).expect("open");
        Bench { recent: Recent::new(&path, sessions), writer, _folder: folder }
    }

    impl Bench {
        fn commit(&self, changes: Vec<Change>) {
            self.around(changes, || self.write()).expect("write");
        }

        fn around(&self, changes: Vec<Change>, commit: impl FnOnce() -> rusqlite::Result<()>) -> rusqlite::Result<()> {
            self.recent.around(self.recent.begin(), Some(changes), commit).map(drop)
        }

        fn write(&self) -> rusqlite::Result<()> {
            self.writer.execute("UPDATE meta SET value = value + 1", []).map(drop)
        }

        /// Looks for it and, as after a read from the file, remembers it.
        fn read(&self, number: u8) {
            let since = self.since(number).expect("it can be remembered");
            self.recent.add(since, &session(number), &account());
        }

        fn since(&self, number: u8) -> Option<Since> {
            match self.recent.find(client(number)) {
                Ok(_) => panic!("{number} is remembered"),
                Err(since) => since,
            }
        }

        fn remembered(&self, number: u8) -> Option<Session> {
            self.recent.find(client(number)).ok().map(|(session, _)| session)
        }
    }

    fn client(number: u8) -> ClientId {
        ClientId::from_bytes([number; 16])
    }

    fn session(number: u8) -> Session {
        Session::new(client(number), AccountId(1), NOW, RENEWAL)
    }

    fn rotation(session: &Session) -> Swap {
        Swap {
            expect: session.version(),
            generation: session.generation.next().expect("one"),
            confirmed: session.generation,
            hand_out: Some(RENEWAL),
        }
    }

    fn account() -> Arc<Account> {
        Arc::new(Account {
            id: AccountId(1),
            realm: "user".to_owned(),
            provider: "email".to_owned(),
            uid: "ada".to_owned(),
            email: String::new(),
            profile: Profile::default(),
            created_at: NOW,
            updated_at: NOW,
            permit: None,
        })
    }

    #[test]
    fn a_commit_of_the_writer_changes_what_it_says_and_keeps_the_rest() {
        let bench = bench(1_000);
        for number in 1..=4 {
            bench.read(number);
        }
        let swap = rotation(&session(1));
        let overtaken = Swap { generation: swap.generation.next().expect("one"), ..swap };
        let overtaken =
            Swap { expect: session(2).swapped(&overtaken, NOW).expect("it is at that").version(), ..overtaken };
        bench.commit(vec![
            Change::Swapped(client(1), swap, NOW),
            Change::Swapped(client(2), overtaken, NOW),
            Change::Changed(client(3)),
            Change::Changed(client(9)),
        ]);
        assert_eq!(bench.remembered(1), session(1).swapped(&swap, NOW));
        assert_eq!(bench.remembered(2), None, "it is not what it was taken for");
        assert_eq!(bench.remembered(3), None);
        assert_eq!(bench.remembered(4), Some(session(4)));

        bench.commit(vec![Change::All]);
        assert_eq!((bench.remembered(1), bench.remembered(4)), (None, None));
    }

    #[test]
    fn a_commit_by_anybody_else_makes_it_forget_everything() {
        let bench = bench(1_000);
        bench.read(1);
        bench.write().expect("write");
        assert_eq!(bench.remembered(1), None, "seen by a reader");
        bench.read(1);
        assert_eq!(bench.remembered(1), Some(session(1)));

        bench.write().expect("write");
        bench.commit(Vec::new());
        assert_eq!(bench.remembered(1), None, "seen by the writer");
    }

    #[test]
    fn a_commit_right_after_the_writers_is_not_taken_for_it() {
        let bench = bench(1_000);
        bench.read(1);
        bench.around(Vec::new(), || bench.write().and_then(|()| bench.write())).expect("write");
        assert_eq!(bench.remembered(1), None);

        bench.read(1);
        let nothing = || None::<Vec<Change>>;
        let ours = bench.recent.around(bench.recent.begin(), nothing(), || Ok::<_, ()>(()));
        assert!(ours.expect("it does nothing").is_some());
        assert_eq!(bench.remembered(1), Some(session(1)), "nothing was changed");
        let ours = bench.recent.around(bench.recent.begin(), nothing(), || bench.write()).expect("write");
        assert_eq!((ours, bench.remembered(1)), (None, None), "not by the writer");
    }

    #[test]
    fn a_failed_commit_makes_it_forget_everything() {
        let bench = bench(1_000);
        bench.read(1);
        let failed = bench.around(Vec::new(), || bench.write().and(Err(rusqlite::Error::InvalidQuery)));
        assert!(failed.is_err());
        assert_eq!(bench.remembered(1), None);
        bench.read(1);
        assert_eq!(bench.remembered(1), Some(session(1)));
    }

    #[test]
    fn what_was_read_before_a_commit_is_not_added_after_it() {
        let bench = bench(1_000);
        let since = bench.since(1).expect("it can be remembered");
        bench.commit(vec![Change::Changed(client(1))]);
        bench.recent.add(since, &session(1), &account());
        assert_eq!(bench.remembered(1), None, "after the writer's");

        let since = bench.since(1).expect("it can be remembered");
        bench.write().expect("write");
        bench.recent.add(since, &session(1), &account());
        assert_eq!(bench.remembered(1), None, "after another process'");

        let since = bench.since(1).expect("it can be remembered");
        let during = || {
            bench.recent.add(since, &session(1), &account());
            bench.write()
        };
        bench.around(Vec::new(), during).expect("write");
        assert_eq!(bench.remembered(1), None, "while the writer commits");
    }

    #[test]
    fn while_the_writer_commits_what_is_remembered_stays_good_until_it_is_seen() {
        let bench = bench(1_000);
        bench.read(1);
        let during = || {
            assert_eq!(bench.remembered(1), Some(session(1)));
            bench.write()?;
            assert!(bench.since(1).is_none(), "it is to be read, and not to be remembered");
            Ok(())
        };
        bench.around(vec![Change::Changed(client(1))], during).expect("write");
        assert_eq!(bench.remembered(1), None);
    }

    #[test]
    fn it_holds_no_more_than_it_may_and_keeps_what_is_used() {
        let bench = bench(2 * SHARDS * 2);
        // All in one shard, which has room for two young ones and two old ones.
        let number = |index: u8| 1 + index * SHARDS as u8;
        for index in 0..10 {
            bench.read(number(index));
            assert_eq!(bench.remembered(number(0)), Some(session(number(0))), "used again and again");
        }
        let kept = (1..10).filter(|index| bench.remembered(number(*index)).is_some()).count();
        assert!(kept <= 3, "{kept}");
        let nothing = self::bench(0);
        assert!(nothing.since(1).is_none());
    }
}
