//! What is safe where: in production, and while developing.

use std::time::Duration;

use baton_mail::Security;

use super::reader::{complaint, shown};
use super::{Config, Origin, Problem, Problems, RealmConfig};

/// The longest batch window in production. A superseded token is good for as long.
const MAX_WINDOW: Duration = Duration::from_secs(60);

impl Config {
    /// Refuses what is not safe in production.
    ///
    /// # Errors
    /// Everything that is not.
    pub fn check_production(&self) -> Result<(), Problems> {
        let mut problems = Problems::default();
        for (scope, realm) in self.scoped() {
            self.check_realm(scope, realm, &mut problems);
        }
        let mut refuse = |key: &str, why: &str| problems.add(complaint(&self.values, None, key, why));
        if let Some(smtp) = &self.mail.smtp {
            let here = matches!(&*smtp.host, "localhost" | "127.0.0.1" | "::1" | "[::1]");
            if smtp.security == Security::None && !here {
                refuse("mail.url", "sends letters, and the links in them, over connections that anybody can read");
            }
            if self.mail.public_url.is_empty() {
                refuse("mail.public_url", "is needed with mail.url: links in letters begin with it");
            } else if !is_safe_base(&self.mail.public_url) {
                refuse("mail.public_url", "has to begin with https://: its links carry one-time tokens");
            }
        }
        if self.sends_jwts() && self.jwt.issuer.is_empty() {
            refuse("jwt.issuer", "is needed where JWTs are sent, or mail.public_url: backends compare it");
        }
        problems.into_result()
    }

    fn check_realm(&self, scope: Option<&str>, realm: &RealmConfig, problems: &mut Problems) {
        let mut refuse = |key: &str, why: String| problems.add(complaint(&self.values, scope, key, why));
        let name = |key: &str| self.values.find(scope, key).0;
        let rules = &realm.engine.rules;

        if rules.batch_request_buffer_throttle > MAX_WINDOW {
            let why = format!("is longer than {}: a stolen token would stay good for as long", shown(MAX_WINDOW));
            refuse("batch_request_buffer_throttle", why);
        }
        if rules.batch_request_buffer_throttle >= rules.token_lifespan {
            let lifespan = name("token_lifespan");
            let why = format!("is not shorter than {lifespan}: sessions would end before their first rotation");
            refuse("batch_request_buffer_throttle", why);
        }
        if rules.session_max_lifetime < rules.token_lifespan {
            let (name, lifespan) = (name("token_lifespan"), shown(rules.token_lifespan));
            let why = format!("is shorter than {name} ({lifespan}); raise the one or lower the other");
            refuse("session_max_lifetime", why);
        }
        if let Some(cookie) = &realm.http.cookie {
            if !cookie.secure {
                refuse("cookie_attributes.secure", "sends tokens over connections that anybody can read".into());
            }
            if !cookie.http_only {
                refuse("cookie_attributes.http_only", "lets every script of the page read the token".into());
            }
        }
        if realm.http.origins.localhost {
            let why = "lets any program on a visitor's machine call; it is for `baton dev`";
            refuse("server.allowed_localhost_origins", why.into());
        }
        if realm.engine.confirmation.required && self.mail.smtp.is_none() {
            refuse("confirmable", "needs somebody who sends the letters: set mail.url".into());
        }
        if let Some(lockout) = realm.engine.lockout
            && lockout.unlock_after == Duration::MAX
            && !(lockout.by_mail && self.mail.smtp.is_some())
        {
            refuse("lockable.unlock_after", "leaves no way to lift a lock: set mail.url and lockable.by_mail".into());
        }
        if realm.engine.password_policy.min_length < 8 {
            refuse("password.min_length", "has to be at least 8 (NIST SP 800-63B-4)".into());
        }
        if realm.engine.redirects.allowlist.allows_localhost() {
            let why = "hands sessions to any program on a visitor's machine; it is for `baton dev`";
            refuse("redirect_allow_localhost", why.into());
        }
        if realm.engine.password_policy.max_length < 64 {
            refuse("password.max_length", "has to be at least 64, so that passphrases fit (NIST SP 800-63B-4)".into());
        }
    }

    /// Refuses what `baton dev` must not do: its secrets are made up and its origins lenient.
    ///
    /// # Errors
    /// A listening address that others can reach.
    pub fn check_dev(&self) -> Result<(), Problems> {
        let mut problems = Problems::default();
        if !self.server.listen.ip().is_loopback() {
            let why = "`baton dev` listens on loopback addresses only (127.0.0.1, [::1]); `baton serve` is for others";
            problems.add(complaint(&self.values, None, "server.listen", why));
        }
        problems.into_result()
    }

    /// What is allowed and yet worth a line in the log at the start.
    #[must_use]
    pub fn warnings(&self) -> Vec<Problem> {
        let mut warnings = Problems::default();
        for (scope, realm) in self.scoped() {
            self.warn_of_realm(scope, realm, &mut warnings);
        }
        if self.server.trusted_proxies.is_everybody() {
            let why = "whoever reaches this port can claim any address, and so escape rate_limits";
            warnings.add(complaint(&self.values, None, "server.trusted_proxies", why));
        }
        warnings.into_vec()
    }

    fn warn_of_realm(&self, scope: Option<&str>, realm: &RealmConfig, warnings: &mut Problems) {
        let mut warn = |key: &str, why: &str| warnings.add(complaint(&self.values, scope, key, why));
        let rules = &realm.engine.rules;
        if !rules.change_headers_on_each_request {
            warn("change_headers_on_each_request", "tokens do not rotate: a copied one is good until it expires");
        }
        if rules.batch_request_buffer_throttle.is_zero() {
            warn(
                "batch_request_buffer_throttle",
                "a front end that sends two requests at once is signed out by the second",
            );
        }
        if rules.session_max_lifetime < rules.token_lifespan {
            let lifespan = self.values.find(scope, "token_lifespan").0;
            warn("session_max_lifetime", &format!("is shorter than {lifespan}, which can never be reached"));
        }
        let preset = self.values.get(scope, "password.min_score").is_some_and(|entry| entry.origin == Origin::Preset);
        if realm.engine.password_strength.min_score == 0 && !preset {
            warn("password.min_score", "people may choose the passwords that are tried first");
        }
        let redirects = &realm.engine.redirects;
        if redirects.allowlist.allows_http() {
            warn("redirect_allowlist", "leads to http://, where anybody on the way can read the session in the URL");
        }
        for (key, url) in [
            ("default_confirm_success_url", &redirects.default_confirm_success_url),
            ("default_password_reset_url", &redirects.default_password_reset_url),
            ("default_unlock_success_url", &redirects.default_unlock_success_url),
        ] {
            if url.as_ref().is_some_and(|url| url.as_str().starts_with("http://")) {
                warn(key, "is http://, where anybody on the way can read the session in the URL");
            }
        }
        if realm.http.credentials_in_params {
            warn("credentials_in_params", "tokens may end up in the logs of proxies and in browsers' histories");
        }
    }

    /// Each realm with the scope that its settings are looked up in.
    fn scoped(&self) -> impl Iterator<Item = (Option<&str>, &RealmConfig)> {
        self.realms.iter().enumerate().map(|(index, realm)| ((index > 0).then(|| realm.name()), realm))
    }
}

/// Whether links that begin with this are sent over connections that nobody else can read.
fn is_safe_base(url: &str) -> bool {
    let host = url.strip_prefix("http://").map(|rest| rest.split(['/', ':']).next().unwrap_or_default());
    host.is_none_or(|host| matches!(host, "localhost" | "127.0.0.1"))
}
