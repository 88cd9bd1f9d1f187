//! An account from its registration to its end, as its owner meets it: over HTTP and by mail, with a real mail server, the
//! settings of a server in production, and a stranger who tries to get in between.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{Answer, Baton, Call, Held, Http, Received, SMTP_PASSWORD, Site, Smtp, parameters};

const FIRST: &str = "velvet-otter-pancake-91";
const SECOND: &str = "granite-lantern-oboe-38";
const WRONG: &str = "not-the-password-55-x";
/// Where the owner is …
const HOME: &str = "198.51.100.7";
/// … and where somebody else is.
const ELSEWHERE: &str = "203.0.113.9";
const LANDING: &str = "https://app.example.com/welcome";

struct Journey {
    smtp: Smtp,
    site: Site,
    baton: Baton,
    letters: usize,
    secrets: BTreeSet<String>,
}

impl Journey {
    fn begin() -> Self {
        let smtp = Smtp::start();
        // Each request rotates, and a stranger may guess as often as it takes here.
        let settings =
            "confirmable = \"auto\"\nbatch_request_buffer_throttle = 0\nrate_limits.sign_in_per_account = \"20/1m\"";
        let site = Site::new(&smtp.settings(), settings);
        let key_file = std::fs::read_to_string(site.folder().join("secret.key")).unwrap();
        let key = key_file.lines().find(|line| !line.starts_with('#')).unwrap();
        let secrets = [FIRST, SECOND, WRONG, SMTP_PASSWORD, key.split(' ').nth(1).unwrap()];
        let secrets = secrets.map(str::to_owned).into();
        let baton = site.serve();
        Self { smtp, site, baton, letters: 0, secrets }
    }

    fn request(&self, method: &str, path: &str, from: &str) -> Call {
        Http(self.baton.address).request(method, path).header("x-forwarded-for", from)
    }

    /// Sends it, and takes note of what is secret in the answer.
    fn send(&mut self, call: &Call) -> Answer {
        let answer = call.send();
        let bearer = answer.header("authorization").trim_start_matches("Bearer ");
        let location = parameters(answer.header("location"));
        let landed =
            ["token", "access-token", "reset_password_token"].map(|name| location.get(name).map(String::as_str));
        let all = [answer.header("access-token"), bearer].into_iter().chain(landed.into_iter().flatten());
        self.secrets.extend(all.filter(|secret| !secret.is_empty()).map(str::to_owned));
        answer
    }

    fn post(&mut self, path: &str, from: &str, body: &Value) -> Answer {
        self.send(&self.request("POST", path, from).json(body))
    }

    fn sign_in(&mut self, email: &str, password: &str, from: &str) -> Answer {
        self.post("/auth/sign_in", from, &json!({ "email": email, "password": password }))
    }

    /// One rotation: accepted, and with a new token.
    fn goes_on(&mut self, held: &mut Held, from: &str) -> Answer {
        let before = held.token.clone();
        let answer = self.send(&self.request("GET", "/auth/validate_token", from).held(held));
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(held.adopt(&answer) && held.token != before, "it rotates: {answer:?}");
        answer
    }

    fn is_signed_out(&mut self, held: &Held, from: &str) {
        let answer = self.send(&self.request("GET", "/auth/validate_token", from).held(held));
        assert_eq!(answer.status, 401, "{answer:?}");
    }

    /// The letters that came since the last time: this many, ordered by recipient and subject.
    fn mail(&mut self, count: usize) -> Vec<Received> {
        let mut letters = self.smtp.wait_for_letters(self.letters + count).split_off(self.letters);
        self.letters += count;
        self.site.wait_for_empty_outbox();
        for letter in &letters {
            letter.assert_in_order();
            if letter.text().contains("_token=") {
                self.secrets.insert(letter.token());
            }
        }
        letters.sort_by_key(|letter| (letter.to().to_owned(), letter.subject().to_owned()));
        letters
    }

    /// Follows a link from a letter, as a browser does up to the front end.
    fn follow(&mut self, link: &str, from: &str) -> Answer {
        self.send(&self.request("GET", link, from))
    }

    /// Nothing secret is in any file of the database or in the log. Looked at more than once: what is written over is gone.
    fn nothing_leaks(&self) {
        let mut places = vec![("the log".to_owned(), self.baton.log())];
        for entry in std::fs::read_dir(self.site.folder()).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name.starts_with("baton.db") {
                // What is searched for is ASCII, so bytes that are not UTF-8 are none of it.
                places.push((name, String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned()));
            }
        }
        assert!(places.len() >= 2, "the log and the database; its write-ahead log while the server runs");
        let (log, database) = (&places[0].1, places[1..].iter().map(|(_, text)| text.as_str()).collect::<String>());
        // It would find what there is.
        assert!(log.contains("signed_in") && database.contains("signed_in") && database.contains("ann@example.com"));
        for secret in &self.secrets {
            for (place, text) in &places {
                assert!(!text.contains(secret.as_str()), "{secret:?} is in {place}");
            }
        }
        for personal in ["ann@example.com", "ann.b@example.org"] {
            assert!(!log.contains(personal), "{personal} is in the log");
        }
    }
}

/// What an answer says, apart from its date and its id.
fn said(answer: &Answer) -> (u16, String, BTreeSet<(String, String)>) {
    let headers = answer.headers.iter().filter(|(name, _)| !matches!(name.as_str(), "date" | "x-request-id"));
    let headers =
        headers.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
    (answer.status, answer.body.clone(), headers.collect())
}

/// The session in the parameters that a link leads on with.
fn landed(answer: &Answer, expected: &str) -> Held {
    assert_eq!(answer.status, 302, "{answer:?}");
    assert_eq!((answer.header("cache-control"), answer.header("referrer-policy")), ("no-store", "no-referrer"));
    let location = answer.header("location");
    assert_eq!(location.split('?').next(), Some(expected), "{location}");
    let found = parameters(location);
    assert_eq!((&found["client"], &found["access-token"]), (&found["client_id"], &found["token"]), "{location}");
    Held { token: found["token"].clone(), client: found["client"].clone(), uid: found["uid"].clone() }
}

#[test]
#[expect(clippy::too_many_lines, reason = "it is one journey")]
fn from_the_registration_to_the_end_of_an_account() {
    let mut journey = Journey::begin();
    let ann = "ann@example.com";

    // Registers: no session yet, and the answer is the same for an address that has an account.
    let form =
        json!({ "email": ann, "password": FIRST, "password_confirmation": FIRST, "confirm_success_url": LANDING });
    let registered = journey.post("/auth", HOME, &form);
    assert_eq!(
        (registered.status, registered.held(), registered.json()["data"]["id"].clone()),
        (200, None, Value::Null)
    );
    let [letter] = &journey.mail(1)[..] else { panic!() };
    assert_eq!((letter.to(), letter.subject()), (ann, "Confirm your e-mail address for baton"));
    let confirmation = letter.link();
    let again = journey.post("/auth", HOME, &form);
    assert_eq!(said(&again), said(&registered));
    let [letter] = &journey.mail(1)[..] else { panic!() };
    assert_eq!((letter.to(), letter.subject()), (ann, "You already have a baton account"));
    assert!(!letter.text().contains("://"), "{}", letter.text());

    // Cannot be used before the link was followed.
    let refused = journey.sign_in(ann, FIRST, HOME);
    assert_eq!((refused.status, refused.code()), (401, "unconfirmed".into()), "{refused:?}");
    // A program that looks whether the link is good does not use it up.
    assert_eq!(journey.send(&journey.request("HEAD", &confirmation, ELSEWHERE)).status, 200);
    let confirmed = journey.follow(&confirmation, HOME);
    assert_eq!((confirmed.status, confirmed.held()), (302, None));
    assert_eq!(confirmed.header("location"), format!("{LANDING}?account_confirmation_success=true"));
    let twice = journey.follow(&confirmation, HOME);
    assert_eq!(twice.header("location"), format!("{LANDING}?account_confirmation_success=false"));

    // Signs in on two devices, and the tokens rotate.
    let mut phone = journey.sign_in(ann, FIRST, HOME).held().unwrap();
    let mut laptop = journey.sign_in(ann, FIRST, HOME).held().unwrap();
    for _ in 0..2 {
        journey.goes_on(&mut phone, HOME);
        journey.goes_on(&mut laptop, HOME);
    }
    journey.nothing_leaks();

    // Forgets the password. The answer is the same for an address without an account, which gets no letter.
    let forgot = json!({ "email": ann, "redirect_url": "https://app.example.com/reset" });
    let asked = journey.request("POST", "/auth/password", HOME).header("accept-language", "fi, de-CH;q=0.8, en;q=0.5");
    let asked = journey.send(&asked.json(&forgot));
    assert_eq!(asked.status, 200, "{asked:?}");
    let nobody = json!({ "email": "bob@example.com", "redirect_url": "https://app.example.com/reset" });
    assert_eq!(said(&journey.post("/auth/password", HOME, &nobody)), said(&asked));
    let astray = json!({ "email": ann, "redirect_url": "https://app.example.com.evil.example/reset" });
    assert_eq!(journey.post("/auth/password", HOME, &astray).status, 422);
    let [letter] = &journey.mail(1)[..] else { panic!() };
    assert_eq!((letter.to(), letter.subject()), (ann, "Setzen Sie Ihr Passwort für baton zurück"));
    let reset = letter.link();

    // The link signs in; that session sets a password without knowing the one so far, and all others end.
    let mut tablet = landed(&journey.follow(&reset, HOME), "https://app.example.com/reset");
    assert_eq!(journey.follow(&reset, ELSEWHERE).status, 404);
    let body = json!({ "password": SECOND, "password_confirmation": SECOND });
    let without = journey.request("PUT", "/auth/password", HOME).held(&phone).json(&body);
    let without = journey.send(&without);
    assert_eq!(without.status, 422, "another session needs the password so far: {without:?}");
    phone.adopt(&without);
    let changed = journey.send(&journey.request("PUT", "/auth/password", HOME).held(&tablet).json(&body));
    assert_eq!(changed.status, 200, "{changed:?}");
    assert!(tablet.adopt(&changed), "{changed:?}");
    journey.is_signed_out(&phone, HOME);
    journey.is_signed_out(&laptop, HOME);
    journey.goes_on(&mut tablet, HOME);
    let [letter] = &journey.mail(1)[..] else { panic!() };
    assert_eq!((letter.to(), letter.subject()), (ann, "Your baton password has changed"));
    // Good for one password.
    let body = json!({ "password": FIRST, "password_confirmation": FIRST });
    let second = journey.send(&journey.request("PUT", "/auth/password", HOME).held(&tablet).json(&body));
    assert_eq!(second.status, 422, "{second:?}");
    tablet.adopt(&second);
    journey.nothing_leaks();

    // Somebody guesses. The third attempt locks, for the right password too, and the owner gets a letter.
    for _ in 0..3 {
        assert_eq!(journey.sign_in(ann, WRONG, ELSEWHERE).status, 401);
    }
    let wrong = journey.sign_in(ann, WRONG, ELSEWHERE);
    assert_eq!(said(&journey.sign_in(ann, SECOND, ELSEWHERE)), said(&wrong));
    let [letter] = &journey.mail(1)[..] else { panic!() };
    assert_eq!((letter.to(), letter.subject()), (ann, "Unlock your baton account"));
    // The link lifts the lock, for everybody; it leads to a page, as nobody said where else.
    let unlocked = journey.follow(&letter.link(), HOME);
    assert_eq!((unlocked.status, unlocked.held()), (200, None), "{unlocked:?}");
    assert_eq!(journey.follow(&letter.link(), HOME).status, 404);
    let travelling = journey.sign_in(ann, SECOND, ELSEWHERE).held().unwrap();
    let gone = journey.send(&journey.request("DELETE", "/auth/sign_out", ELSEWHERE).held(&travelling));
    assert_eq!(gone.status, 200, "{gone:?}");

    // Once more: the lock does not hold where the owner is signed in.
    for _ in 0..3 {
        assert_eq!(journey.sign_in(ann, WRONG, ELSEWHERE).status, 401);
    }
    assert_eq!(journey.sign_in(ann, SECOND, ELSEWHERE).status, 401);
    journey.mail(1);
    // A letter that was asked for leads on, signed in.
    let ask = json!({ "email": ann, "redirect_url": "https://app.example.com/unlocked" });
    assert_eq!(journey.post("/auth/unlock", ELSEWHERE, &ask).status, 200);
    let [letter] = &journey.mail(1)[..] else { panic!() };
    let mut desk = journey.sign_in(ann, SECOND, HOME).held().expect("the owner gets in");
    journey.goes_on(&mut desk, HOME);
    let mut away = landed(&journey.follow(&letter.link(), ELSEWHERE), "https://app.example.com/unlocked");
    journey.goes_on(&mut away, ELSEWHERE);

    // Moves to another address: the old one hears of it, and stays until the new one was confirmed.
    let moved = "ann.b@example.org";
    let body = json!({ "email": moved, "confirm_success_url": LANDING });
    let asked = journey.send(&journey.request("PUT", "/auth", HOME).held(&desk).json(&body));
    assert_eq!((asked.status, asked.json()["data"]["email"].as_str()), (200, Some(ann)), "{asked:?}");
    assert!(desk.adopt(&asked));
    let [link, notice] = &journey.mail(2)[..] else { panic!() };
    assert_eq!((notice.to(), notice.subject()), (ann, "Your e-mail address at baton is about to change"));
    assert!(notice.text().contains(moved) && !notice.text().contains("://"), "{}", notice.text());
    assert_eq!((link.to(), link.subject()), (moved, "Confirm your new e-mail address for baton"));
    assert_eq!(journey.goes_on(&mut desk, HOME).json()["data"]["uid"], ann);
    let confirmed = journey.follow(&link.link(), HOME);
    assert_eq!(confirmed.header("location"), format!("{LANDING}?account_confirmation_success=true"));
    let [notice] = &journey.mail(1)[..] else { panic!() };
    assert_eq!((notice.to(), notice.subject()), (ann, "Your e-mail address at baton has changed"));
    assert_eq!(journey.sign_in(ann, SECOND, HOME).status, 401);
    let found = journey.sign_in(moved, SECOND, HOME);
    assert_eq!((found.status, found.header("uid")), (200, moved));
    // The session that was there before goes on, under the new name.
    desk.uid = moved.into();
    assert_eq!(journey.goes_on(&mut desk, HOME).json()["data"]["uid"], moved);
    journey.nothing_leaks();

    // And goes.
    let deleted = journey.send(&journey.request("DELETE", "/auth", HOME).held(&desk));
    assert_eq!((deleted.status, deleted.held()), (200, None), "{deleted:?}");
    for held in [&desk, &away, &tablet, &found.held().unwrap()] {
        journey.is_signed_out(held, HOME);
    }
    assert_eq!(journey.sign_in(moved, SECOND, HOME).status, 401);
    assert_eq!(journey.sign_in(ann, SECOND, HOME).status, 401);

    let expected = [
        // Registered and confirmed.
        "registered sign_in_failed confirmed signed_in signed_in",
        // The reset.
        "password_reset_requested signed_in password_changed",
        // The first lock.
        "sign_in_failed sign_in_failed sign_in_failed locked sign_in_failed sign_in_failed unlocked signed_in signed_out",
        // The second.
        "sign_in_failed sign_in_failed sign_in_failed locked sign_in_failed signed_in unlocked signed_in",
        // The other address, and the end.
        "email_change_requested email_changed sign_in_failed signed_in account_deleted sign_in_failed sign_in_failed",
    ];
    assert_eq!(journey.site.events().join(" "), expected.join(" "));
    journey.nothing_leaks();
    journey.baton.stop();
    journey.nothing_leaks();
    assert_eq!(journey.smtp.letters().len(), journey.letters, "no letter came twice");
    assert!(journey.secrets.len() > 30, "{}", journey.secrets.len());
}
