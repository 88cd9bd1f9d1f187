//! Showing that an address is one's own (Devise's `confirmable`), and what all links in letters have in common.

use std::time::Duration;

use baton_core::event::{EventKind, Trace};
use baton_core::letter::{MailOrder, Occasion};
use baton_core::one_time::{OneTime, OneTimeId, Purpose};
use baton_core::ports::FoundOneTime;
use baton_core::session::{AccountUpdate, NewSession};
use baton_core::{Account, ClientId, RedeemError as StoreRedeemError, StoreError};

use crate::letters::{LinkRequest, LinkRequestError};
use crate::register::EMAIL_PROVIDER;
use crate::visitor::Visitor;
use crate::{Engine, SignedIn};

/// Confirming addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confirmation {
    /// Whether an account can be used only when its address has been confirmed. Off by default.
    pub required: bool,
    /// Whether a new address replaces the one so far only when it has been confirmed (`reconfirmable`), and the one so far is
    /// told. On by default; has no effect where no letters can be sent.
    pub reconfirmable: bool,
    /// How long a link is good; 3 days by default.
    pub lifetime: Duration,
}

impl Default for Confirmation {
    fn default() -> Self {
        Self { required: false, reconfirmable: true, lifetime: Duration::from_secs(3 * 24 * 60 * 60) }
    }
}

/// Why the token of a link was not redeemed.
#[derive(Debug, thiserror::Error)]
pub enum RedeemError {
    /// Malformed, forged, for something else, used already, too old, or sent to an address that is not the account's.
    #[error("the token is not good (any more)")]
    Invalid,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Engine {
    /// Whether an account can be used only when its address has been confirmed.
    #[must_use]
    pub fn requires_confirmation(&self) -> bool {
        self.settings.confirmation.required && self.sends_mail()
    }

    /// Whether there are letters with confirmation links at all.
    #[must_use]
    pub fn confirms(&self) -> bool {
        self.requires_confirmation() || self.reconfirms()
    }

    /// Whether a new address has to be confirmed before it replaces the one so far.
    pub(crate) fn reconfirms(&self) -> bool {
        self.settings.confirmation.reconfirmable && self.sends_mail()
    }

    /// Asks for the letter with the confirmation link once more.
    ///
    /// # Errors
    /// [`LinkRequestError`].
    pub async fn request_confirmation(&self, request: LinkRequest) -> Result<(), LinkRequestError> {
        self.ask(Occasion::ConfirmEmail, request).await
    }

    /// Confirms the address that a letter with this token went to: the account's, or the one that is to become it.
    ///
    /// # Errors
    /// [`RedeemError`].
    pub async fn confirm(&self, token: &str, visitor: &Visitor) -> Result<Account, RedeemError> {
        let FoundOneTime { one_time, login, .. } = self.find_one_time(Purpose::Confirm, token).await?;
        let account = login.account;
        let mut trace;
        let update = if one_time.email == account.email {
            trace = self.trace(EventKind::Confirmed, &account, None, &visitor.device);
            AccountUpdate { confirm: true, ..AccountUpdate::default() }
        } else if login.unconfirmed_email.as_ref() == Some(&one_time.email) {
            trace = self.trace(EventKind::EmailChanged, &account, None, &visitor.device);
            trace.mails.extend(self.address_notice(Occasion::EmailChanged, &account, &one_time.email, visitor));
            let mut update = AccountUpdate { confirm: true, void_one_time: true, ..AccountUpdate::default() };
            give_address(&mut update, &account, one_time.email);
            update
        } else {
            return Err(RedeemError::Invalid);
        };
        let (account, _) = self.redeem(one_time.id, update, None, &trace).await?;
        Ok(account)
    }

    /// A notice about a new address to the one so far.
    pub(crate) fn address_notice(
        &self,
        occasion: Occasion,
        account: &Account,
        new: &str,
        visitor: &Visitor,
    ) -> Option<MailOrder> {
        let mut notice = self.notice(occasion, account, visitor)?;
        notice.new_email = Some(new.to_owned());
        Some(notice)
    }

    /// A one-time token that is good for this, in this realm.
    pub(crate) async fn find_one_time(&self, purpose: Purpose, token: &str) -> Result<FoundOneTime, RedeemError> {
        let id = self.keys.verify_one_time(purpose, token).map_err(|_| RedeemError::Invalid)?;
        let found = self.store.find_one_time(id).await?.ok_or(RedeemError::Invalid)?;
        let FoundOneTime { one_time: OneTime { email, .. }, login, .. } = &found;
        // A confirmation may have gone to an address that is yet to become the account's; it looks for itself.
        let reaches_owner = purpose == Purpose::Confirm || *email == login.account.email;
        if found.one_time.purpose != purpose || login.account.realm != self.settings.realm || !reaches_owner {
            return Err(RedeemError::Invalid);
        }
        Ok(found)
    }

    pub(crate) async fn redeem(
        &self,
        id: OneTimeId,
        update: AccountUpdate,
        session: Option<NewSession>,
        trace: &Trace,
    ) -> Result<(Account, Option<baton_core::Session>), RedeemError> {
        match self.store.redeem(id, update, session, trace).await {
            Ok(redeemed) => {
                self.left(trace, None);
                Ok(redeemed)
            }
            // Somebody registered with the address meanwhile. To say so would tell who has an account.
            Err(StoreRedeemError::Gone | StoreRedeemError::Taken) => Err(RedeemError::Invalid),
            Err(StoreRedeemError::Store(error)) => Err(error.into()),
        }
    }

    /// Redeems a token for a session.
    pub(crate) async fn open_session(
        &self,
        id: OneTimeId,
        update: AccountUpdate,
        session: NewSession,
        trace: Trace,
    ) -> Result<SignedIn, RedeemError> {
        let (account, session) = self.redeem(id, update, Some(session), &trace).await?;
        let session = session.ok_or_else(|| StoreError::Unusable {
            store: "accounts",
            cause: format!("a token of account {} was redeemed without its session", account.id).into(),
        })?;
        // Whoever reads the owner's mail is the owner.
        self.forget_failures(&account.uid).await;
        Ok(SignedIn { credentials: self.credentials(&account, &session), account })
    }

    /// One more event of a change: that it signs in.
    pub(crate) fn add_sign_in(&self, trace: &mut Trace, account: &Account, client: ClientId, visitor: &Visitor) {
        self.add_event(trace, self.event_of(EventKind::SignedIn, account, Some(client), &visitor.device));
    }
}

/// The account gets this address, and is called by it if it signs in with it.
pub(crate) fn give_address(update: &mut AccountUpdate, account: &Account, email: String) {
    update.uid = (account.provider == EMAIL_PROVIDER).then(|| email.clone());
    (update.email, update.unconfirmed_email) = (Some(email), Some(None));
}
