//! Asking for letters, and writing them when they are due.

use std::time::Duration;

use baton_core::event::Trace;
use baton_core::letter::{Letter, MailOrder, Occasion};
use baton_core::one_time::{OneTimeId, Purpose};
use baton_core::ports::{Login, NewOneTime};
use baton_core::{Account, StoreError};
use zeroize::Zeroizing;

use crate::Engine;
use crate::redirects::{Redirect, RedirectRefused};
use crate::register::{EMAIL_PROVIDER, normalize_email};
use crate::visitor::Visitor;

/// A request for a letter with a link.
#[derive(Debug, Clone, Default)]
pub struct LinkRequest {
    /// E-mail address as typed.
    pub email: String,
    /// Where the link leads on to. `None`: to the default.
    pub redirect_url: Option<String>,
    /// The front end's name for its configuration (`config_name`), handed back to it.
    pub config_name: Option<String>,
    /// Who asks.
    pub visitor: Visitor,
}

/// Why a letter was not asked for.
#[derive(Debug, thiserror::Error)]
pub enum LinkRequestError {
    /// No address was given.
    #[error("no e-mail address was given")]
    NoEmail,
    /// Neither was a URL given nor is there a default.
    #[error("no redirect_url was given, and there is no default")]
    NoRedirect,
    /// The URL is not on the list.
    #[error(transparent)]
    Refused(#[from] RedirectRefused),
    /// There is no such account. Told only where [`crate::Settings::paranoid`] is off.
    #[error("there is no such account")]
    Unknown,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Engine {
    /// Whether letters can be sent at all.
    #[must_use]
    pub fn sends_mail(&self) -> bool {
        self.mailer.is_some()
    }

    /// Asks for a letter with a link, in the name of whoever typed the address. Does the same whether there is such an
    /// account or not, as long as nobody is to be told: that is found out when the letter is written.
    pub(crate) async fn ask(&self, occasion: Occasion, request: LinkRequest) -> Result<(), LinkRequestError> {
        let redirect = self.asked_redirect(request.redirect_url.as_deref())?;
        if request.email.trim().is_empty() {
            return Err(LinkRequestError::NoEmail);
        }
        let uid = normalize_email(&request.email);
        if !self.settings.paranoid && self.store.find_login(&self.settings.realm, EMAIL_PROVIDER, &uid).await?.is_none()
        {
            return Err(LinkRequestError::Unknown);
        }
        let order = self.order(occasion, &uid, &request.visitor);
        let mail = leading_on(order, redirect, request.config_name);
        Ok(self.record(&Trace { mails: vec![mail], ..Trace::default() }).await?)
    }

    /// The URL that was asked for, if it is allowed.
    ///
    /// # Errors
    /// [`RedirectRefused`].
    pub fn asked_redirect(&self, asked: Option<&str>) -> Result<Option<Redirect>, RedirectRefused> {
        named(asked).map(|url| self.settings.redirects.allowlist.check(url)).transpose()
    }

    /// An order for a letter to the account of this uid, if there is one then.
    pub(crate) fn order(&self, occasion: Occasion, uid: &str, visitor: &Visitor) -> MailOrder {
        let order = MailOrder::new(occasion, &self.settings.realm, EMAIL_PROVIDER, uid);
        MailOrder { languages: visitor.languages.clone(), ..order }
    }

    /// An order for a notice to the address that the account has now, whatever becomes of it.
    pub(crate) fn notice(&self, occasion: Occasion, account: &Account, visitor: &Visitor) -> Option<MailOrder> {
        self.sends_mail().then(|| {
            let (name, languages) = addressee(account);
            let mut mail = self.order(occasion, &account.uid, visitor);
            mail.to = Some(account.email.clone());
            mail.name = name;
            mail.languages = languages.unwrap_or(mail.languages);
            mail
        })
    }

    /// The letter that was ordered, with a link that is good from now on. `None` if there is nobody to write to (any more).
    pub(crate) async fn write(&self, order: &MailOrder) -> Result<Option<Written>, StoreError> {
        let letter = |to: String| Letter {
            occasion: order.occasion,
            realm: order.realm.clone(),
            to,
            name: order.name.clone(),
            languages: order.languages.clone(),
            link: None,
            link_lifetime: None,
            new_email: order.new_email.clone(),
        };
        if let Some(to) = &order.to {
            return Ok(Some(Written { letter: letter(to.clone()), one_time: None }));
        }
        let Some(login) = self.store.find_login(&order.realm, &order.provider, &order.uid).await? else {
            return Ok(None);
        };
        let Some((occasion, to)) = self.addressed(order.occasion, &login) else { return Ok(None) };
        let Some((purpose, lifetime)) = self.link_of(occasion) else { return Ok(None) };

        let id = OneTimeId::from_bytes(self.draw()?);
        let account = login.account.id;
        let token = NewOneTime { id, account, purpose, email: to.clone(), lifetime };
        if !self.store.create_one_time(token).await? {
            return Ok(None);
        }
        let (name, languages) = addressee(&login.account);
        let mut letter = letter(to);
        letter.occasion = occasion;
        letter.name = name;
        letter.languages = languages.unwrap_or(letter.languages);
        letter.link = Some(self.link(purpose, id, order));
        letter.link_lifetime = Some(lifetime);
        Ok(Some(Written { letter, one_time: Some((id, login.account)) }))
    }

    /// Which letter an account in this state is to get, and at which of its addresses.
    fn addressed(&self, asked: Occasion, login: &Login) -> Option<(Occasion, String)> {
        let Login { account, confirmed_at, unconfirmed_email, .. } = login;
        match asked {
            // Whoever asks for the letter again may be waiting for either.
            Occasion::ConfirmEmail | Occasion::ConfirmNewEmail => match unconfirmed_email {
                Some(new) => Some((Occasion::ConfirmNewEmail, new.clone())),
                None => confirmed_at.is_none().then(|| (Occasion::ConfirmEmail, account.email.clone())),
            },
            other => Some((other, account.email.clone())),
        }
    }

    fn link_of(&self, occasion: Occasion) -> Option<(Purpose, Duration)> {
        let settings = &self.settings;
        match occasion {
            Occasion::ConfirmEmail | Occasion::ConfirmNewEmail => {
                Some((Purpose::Confirm, settings.confirmation.lifetime))
            }
            Occasion::ResetPassword => Some((Purpose::Reset, settings.reset.lifetime)),
            Occasion::UnlockAccount => settings.lockout.map(|lockout| (Purpose::Unlock, lockout.link_lifetime)),
            Occasion::EmailChangeRequested
            | Occasion::EmailChanged
            | Occasion::PasswordChanged
            | Occasion::AlreadyRegistered => None,
        }
    }

    /// With the names that the gem's links have.
    fn link(&self, purpose: Purpose, id: OneTimeId, order: &MailOrder) -> Zeroizing<String> {
        let (path, name) = match purpose {
            Purpose::Confirm => ("confirmation", "confirmation_token"),
            Purpose::Reset => ("password/edit", "reset_password_token"),
            Purpose::Unlock => ("unlock", "unlock_token"),
        };
        let token = self.keys.derive_one_time(purpose, id);
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("config", order.config_name.as_deref().unwrap_or("default"));
        if let Some(url) = &order.redirect_url {
            query.append_pair("redirect_url", url);
        }
        query.append_pair(name, token.expose());
        let query = Zeroizing::new(query.finish());
        Zeroizing::new(format!("{}/{path}?{}", self.settings.public_url.trim_end_matches('/'), *query))
    }
}

/// An order for a letter whose link leads on to there.
pub(crate) fn leading_on(order: MailOrder, to: Option<Redirect>, config_name: Option<String>) -> MailOrder {
    // The name goes into a link too, and servers take no link of any length.
    const MAX_BYTES: usize = 256;
    MailOrder {
        redirect_url: to.map(|to| to.as_str().to_owned()),
        config_name: config_name.filter(|name| name.len() <= MAX_BYTES),
        ..order
    }
}

/// A URL that was given, unless it is blank.
pub(crate) fn named(url: Option<&str>) -> Option<&str> {
    url.filter(|url| !url.trim().is_empty())
}

/// A letter, and the one-time token in it with the account that it is for.
pub(crate) struct Written {
    pub(crate) letter: Letter,
    pub(crate) one_time: Option<(OneTimeId, Account)>,
}

/// What the profile says about how to write to its owner: a name, and a language (`locale`) if it has one.
fn addressee(account: &Account) -> (Option<String>, Option<String>) {
    let fields = account.profile.fields();
    let text = |name: &str| fields.get(name)?.as_str().map(str::trim).filter(|text| !text.is_empty());
    (text("name").map(str::to_owned), text("locale").map(str::to_owned))
}
