//! Mail that stays here.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use baton_core::letter::{Letter, MailError, Mailer, Occasion};
use baton_core::{Clock, Timestamp};
use parking_lot::Mutex;
use zeroize::Zeroizing;

use crate::templates::{Mail, Templates};

/// A [`Mailer`] for development and tests: nothing leaves the process, and the last [`CAPACITY`](Self::CAPACITY) mails can be
/// read here. Whoever can read them can take over every account that they are about.
pub struct Mailbox {
    templates: Arc<Templates>,
    clock: Arc<dyn Clock>,
    shelf: Mutex<Shelf>,
}

#[derive(Default)]
struct Shelf {
    last_id: u64,
    kept: VecDeque<Arc<Kept>>,
}

/// A mail in a [`Mailbox`]. `Debug` hides what it says and to whom.
#[derive(Clone, PartialEq, Eq)]
pub struct Kept {
    /// Counted from 1, in the order of their coming.
    pub id: u64,
    /// When it came.
    pub at: Timestamp,
    /// Why it was written.
    pub occasion: Occasion,
    /// The kind of account.
    pub realm: String,
    /// Where its reader is to click.
    pub link: Option<Zeroizing<String>>,
    /// How it reads.
    pub mail: Mail,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept")
            .field("id", &self.id)
            .field("at", &self.at)
            .field("occasion", &self.occasion)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").field("kept", &self.shelf.lock().kept.len()).finish_non_exhaustive()
    }
}

impl Mailbox {
    /// How many mails are kept. The oldest goes when one more comes.
    pub const CAPACITY: usize = 200;

    /// An empty one.
    #[must_use]
    pub fn new(templates: Arc<Templates>, clock: Arc<dyn Clock>) -> Self {
        Self { templates, clock, shelf: Mutex::default() }
    }

    /// The mails, latest first.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Kept>> {
        self.shelf.lock().kept.iter().rev().cloned().collect()
    }

    /// The mail with this [`Kept::id`], if it is still kept.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<Arc<Kept>> {
        self.shelf.lock().kept.iter().find(|kept| kept.id == id).cloned()
    }

    /// Throws all mails away. Their ids are not used again.
    pub fn clear(&self) {
        self.shelf.lock().kept.clear();
    }
}

#[async_trait]
impl Mailer for Mailbox {
    async fn send(&self, letter: &Letter) -> Result<(), MailError> {
        let mail = self.templates.render(letter)?;
        let mut shelf = self.shelf.lock();
        shelf.last_id += 1;
        let kept = Kept {
            id: shelf.last_id,
            at: self.clock.now(),
            occasion: letter.occasion,
            realm: letter.realm.clone(),
            link: letter.link.clone(),
            mail,
        };
        shelf.kept.push_back(Arc::new(kept));
        if shelf.kept.len() > Self::CAPACITY {
            shelf.kept.pop_front();
        }
        Ok(())
    }
}
