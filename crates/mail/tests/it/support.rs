//! What the tests share.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use baton_core::Random;
use baton_core::letter::{Letter, Occasion};
use baton_core::ports::RandomError;
use baton_mail::{TemplateSettings, Templates};

pub const LINK: &str = "https://app.example/confirm?token=a-b_c&state=%22x%22&lang='de'#top";

pub fn has_link(occasion: Occasion) -> bool {
    use Occasion::*;
    matches!(occasion, ConfirmEmail | ConfirmNewEmail | ResetPassword | UnlockAccount)
}

/// A letter to Ada with everything that there is.
pub fn letter(occasion: Occasion) -> Letter {
    Letter {
        occasion,
        realm: "user".to_owned(),
        to: "ada@example.com".to_owned(),
        name: Some("Ada".to_owned()),
        languages: String::new(),
        link: has_link(occasion).then(|| LINK.to_owned().into()),
        link_lifetime: has_link(occasion).then_some(Duration::from_secs(3600)),
        new_email: Some("lovelace@example.com".to_owned()),
    }
}

pub fn templates() -> Arc<Templates> {
    static BUILT_IN: LazyLock<Arc<Templates>> =
        LazyLock::new(|| Arc::new(Templates::load(&TemplateSettings::default()).expect("sound templates")));
    BUILT_IN.clone()
}

/// Bytes that are as random as a test can bear.
pub struct Sevens;

impl Random for Sevens {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomError> {
        bytes.fill(7);
        Ok(())
    }
}
