//! Letters while the mail server is away, ends in the middle of a sentence, refuses, or cannot be trusted; and while baton
//! itself ends. None is lost, none is sent twice, and nothing is told to whom it does not concern.

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Held, Http, Mode, PASSWORD, Received, SMTP_PASSWORD, Site, Smtp, eventually, parameters};

const MINUTE: Duration = Duration::from_secs(60);
/// The pauses after the first attempts.
const PAUSES: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(10)];
const LANDING: &str = "https://app.example.com/welcome";

fn site(smtp: &Smtp) -> Site {
    Site::new(&smtp.settings(), "rate_limits.enabled = false")
}

fn register(http: Http, email: &str) {
    let form = json!({ "email": email, "password": PASSWORD, "confirm_success_url": LANDING });
    let answer = http.post("/auth", &form).send();
    assert_eq!((answer.status, answer.held()), (200, None), "{answer:?}");
}

fn ask(http: Http, path: &str, email: &str) {
    let answer = http.post(path, &json!({ "email": email, "redirect_url": LANDING })).send();
    assert_eq!(answer.status, 200, "{answer:?}");
}

fn sign_in(http: Http, email: &str) -> Held {
    let answer = http.post("/auth/sign_in", &json!({ "email": email, "password": PASSWORD })).send();
    answer.held().unwrap_or_else(|| panic!("{answer:?}"))
}

fn change(http: Http, held: &mut Held, path: &str, body: &Value) {
    let answer = http.put(path, body).held(held).send();
    assert_eq!(answer.status, 200, "{answer:?}");
    // Within the batch window it is blank.
    held.adopt(&answer);
}

/// Follows the link of a letter that confirms an address.
fn confirm(http: Http, letter: &Received) {
    let answer = http.get(&letter.link()).send();
    assert_eq!(answer.header("location"), format!("{LANDING}?account_confirmation_success=true"), "{answer:?}");
}

/// To whom, and about what.
fn addressed(letters: &[Received]) -> BTreeSet<(String, String)> {
    letters.iter().map(|letter| (letter.to().to_owned(), letter.subject().to_owned())).collect()
}

/// All kinds of letters are ordered while there is trouble. Each is answered at once, and arrives when the trouble is over.
fn every_letter_survives(trouble: impl Fn(&Smtp), cure: impl Fn(&Smtp)) {
    let smtp = Smtp::start();
    let site = site(&smtp);
    let here = site.start(Duration::ZERO);
    let http = here.http;

    // What takes letters before there can be more.
    register(http, "ann@example.com");
    register(http, "carl@example.com");
    smtp.wait_for_letters(2).iter().for_each(|letter| confirm(http, letter));
    let mut carl = sign_in(http, "carl@example.com");
    change(http, &mut carl, "/auth", &json!({ "email": "carl@example.org", "confirm_success_url": LANDING }));
    let letters = smtp.wait_for_letters(4);
    let carls = letters.iter().find(|letter| letter.to() == "carl@example.org").unwrap();
    let mut ann = sign_in(http, "ann@example.com");
    site.wait_for_empty_outbox();
    trouble(&smtp);

    register(http, "bob@example.com");
    register(http, "ann@example.com");
    let new = json!({ "password": "another battery staple", "password_confirmation": "another battery staple",
                      "current_password": PASSWORD });
    change(http, &mut ann, "/auth/password", &new);
    ask(http, "/auth/password", "ann@example.com");
    let wrong = json!({ "email": "ann@example.com", "password": "not the one at all" });
    for _ in 0..3 {
        let guess = http.post("/auth/sign_in", &wrong).header("x-forwarded-for", "203.0.113.9").send();
        assert_eq!(guess.status, 401, "{guess:?}");
    }
    change(http, &mut ann, "/auth", &json!({ "email": "ann@example.org", "confirm_success_url": LANDING }));
    confirm(http, carls);

    // Tried, and tried again after a pause.
    site.wait_for_attempts(8, 1);
    here.advance(PAUSES[0]);
    site.wait_for_attempts(8, 2);
    assert_eq!((smtp.letters().len(), site.one_time_tokens()), (4, 0), "a link that went nowhere is void");
    cure(&smtp);
    here.advance(PAUSES[1]);
    site.wait_for_empty_outbox();
    let letters = smtp.wait_for_letters(12).split_off(4);
    assert_eq!(site.one_time_tokens(), 4);
    letters.iter().for_each(Received::assert_in_order);
    let expected = [
        ("bob@example.com", "Confirm your e-mail address for baton"),
        ("ann@example.com", "You already have a baton account"),
        ("ann@example.com", "Your baton password has changed"),
        ("ann@example.com", "Reset your baton password"),
        ("ann@example.com", "Unlock your baton account"),
        ("ann@example.com", "Your e-mail address at baton is about to change"),
        ("ann@example.org", "Confirm your new e-mail address for baton"),
        ("carl@example.com", "Your e-mail address at baton has changed"),
    ];
    assert_eq!(addressed(&letters), expected.map(|(to, subject)| (to.to_owned(), subject.to_owned())).into());

    // And their links are good.
    let letter = |to: &str, subject: &str| {
        letters.iter().find(|letter| letter.to() == to && letter.subject().starts_with(subject)).unwrap()
    };
    confirm(http, letter("bob@example.com", "Confirm"));
    assert_eq!(http.get(&letter("ann@example.com", "Unlock").link()).send().status, 200);
    let opened = http.get(&letter("ann@example.com", "Reset").link()).send();
    assert!(parameters(opened.header("location")).contains_key("token"), "{opened:?}");
    confirm(http, letter("ann@example.org", "Confirm"));
    smtp.wait_for_letters(13);
    site.wait_for_empty_outbox();
    here.stop();
}

#[test]
fn every_letter_survives_a_mail_server_that_is_down() {
    every_letter_survives(Smtp::kill, Smtp::restart);
}

#[test]
fn every_letter_survives_a_mail_server_that_wants_it_later() {
    every_letter_survives(|smtp| smtp.behave(Mode::Later), |smtp| smtp.behave(Mode::Normal));
}

#[test]
fn every_letter_survives_a_mail_server_that_hangs_up_in_the_middle_of_it() {
    every_letter_survives(|smtp| smtp.behave(Mode::Drop), |smtp| smtp.behave(Mode::Normal));
}

#[test]
fn every_letter_survives_a_mail_server_that_lets_nobody_in() {
    every_letter_survives(|smtp| smtp.behave(Mode::NoAuth), |smtp| smtp.behave(Mode::Normal));
}

/// In real time, with the real program.
#[test]
fn a_mail_server_may_start_after_baton() {
    let smtp = Smtp::start();
    smtp.kill();
    let site = site(&smtp);
    let baton = site.serve();
    let http = Http(baton.address);
    register(http, "ann@example.com");
    baton.wait_for_log("letter not sent yet");
    smtp.restart();
    confirm(http, &smtp.wait_for_letters(1)[0]);
    site.wait_for_empty_outbox();
    baton.stop();
    assert_eq!(smtp.letters().len(), 1);
}

#[test]
fn a_letter_survives_a_mail_server_that_is_killed_while_reading_it() {
    let smtp = Smtp::start();
    let site = site(&smtp);
    let here = site.start(Duration::ZERO);
    smtp.behave(Mode::Stall);
    register(here.http, "ann@example.com");
    smtp.wait_for("stalled", 1);
    smtp.kill();
    site.wait_for_attempts(1, 1);
    smtp.behave(Mode::Normal);
    smtp.restart();
    here.advance(PAUSES[0]);
    confirm(here.http, &smtp.wait_for_letters(1)[0]);
    site.wait_for_empty_outbox();
    here.stop();
    assert_eq!(smtp.events_of("rcpt").len(), 2, "two attempts, and no more");
    assert_eq!(smtp.letters().len(), 1);
}

/// The one case in which a letter comes twice (RFC 5321 §4.5.3.2.6): nobody knows that it was taken.
#[test]
fn a_letter_whose_receipt_is_lost_comes_again_with_a_link_that_is_good() {
    let smtp = Smtp::start();
    let site = site(&smtp);
    let here = site.start(Duration::ZERO);
    smtp.behave(Mode::Lose);
    register(here.http, "ann@example.com");
    site.wait_for_attempts(1, 1);
    smtp.behave(Mode::Normal);
    here.advance(PAUSES[0]);
    let letters = smtp.wait_for_letters(2);
    site.wait_for_empty_outbox();
    assert_eq!((letters[0].to(), letters[0].subject()), (letters[1].to(), letters[1].subject()));
    let first = here.http.get(&letters[0].link()).send();
    assert!(first.header("location").ends_with("=false"), "the later link is the good one: {first:?}");
    confirm(here.http, &letters[1]);
    here.stop();
}

#[test]
fn a_mail_server_that_falls_silent_is_given_up_on() {
    let smtp = Smtp::start();
    let site = Site::new(&format!("timeout = \"2s\"\n{}", smtp.settings()), "rate_limits.enabled = false");
    let here = site.start(Duration::ZERO);
    smtp.behave(Mode::Stall);
    register(here.http, "ann@example.com");
    smtp.wait_for("stalled", 1);
    // Nobody waits for it meanwhile.
    assert_eq!(here.http.get("/readyz").send().status, 200);
    site.wait_for_attempts(1, 1);
    smtp.behave(Mode::Normal);
    here.advance(PAUSES[0]);
    confirm(here.http, &smtp.wait_for_letters(1)[0]);
    site.wait_for_empty_outbox();
    here.stop();
}

#[test]
fn a_letter_that_is_refused_for_good_is_dropped_and_said_once() {
    let smtp = Smtp::start();
    let site = site(&smtp);
    let baton = site.serve();
    let http = Http(baton.address);
    smtp.behave(Mode::Refuse);
    register(http, "ann@example.com");
    baton.wait_for_log("letter cannot be sent");
    site.wait_for_empty_outbox();
    // The next one goes out as if nothing had been.
    smtp.behave(Mode::Normal);
    ask(http, "/auth/confirmation", "ann@example.com");
    confirm(http, &smtp.wait_for_letters(1)[0]);
    site.wait_for_empty_outbox();
    baton.stop();
    let log = baton.log();
    let said: Vec<&str> = log.lines().filter(|line| line.contains("letter cannot be sent")).collect();
    assert!(matches!(said[..], [line] if line.contains("ERROR") && line.contains("RCPT TO: 550 5.1.1")), "{said:?}");
    // The mail server has quoted it.
    assert!(!log.contains("ann@example.com") && !log.contains("User unknown"), "{log}");
    assert_eq!((smtp.events_of("rcpt").len(), smtp.letters().len()), (2, 1));
}

#[test]
fn a_letter_survives_the_end_of_baton_in_the_middle_of_it() {
    let smtp = Smtp::start();
    let site = site(&smtp);
    let baton = site.serve();
    smtp.behave(Mode::Stall);
    register(Http(baton.address), "ann@example.com");
    smtp.wait_for("stalled", 1);
    baton.send(Signal::KILL);
    baton.wait();
    smtp.behave(Mode::Normal);

    // For a while it may still be under way.
    let here = site.start(MINUTE);
    register(here.http, "bob@example.com");
    assert_eq!(smtp.wait_for_letters(1)[0].to(), "bob@example.com");
    site.wait_for_the_leased_one();
    here.advance(5 * MINUTE);
    let letters = smtp.wait_for_letters(2);
    assert_eq!(letters[1].to(), "ann@example.com");
    letters.iter().for_each(|letter| confirm(here.http, letter));
    site.wait_for_empty_outbox();
    here.stop();
}

#[test]
fn an_orderly_end_waits_for_the_letter_under_way() {
    let smtp = Smtp::start();
    let site = site(&smtp);
    let baton = site.serve();
    smtp.behave(Mode::Hold);
    register(Http(baton.address), "ann@example.com");
    smtp.wait_for("holding", 1);
    baton.terminate();
    baton.wait_for_log("stopping");
    eventually("nobody accepts", || TcpStream::connect(baton.address).is_err().then_some(()));
    // Had baton gone, the mail server would have thrown the letter away.
    smtp.behave(Mode::Normal);
    assert!(baton.wait().success(), "{}", baton.log());
    assert!(!baton.log().contains("cut off"), "{}", baton.log());
    assert_eq!((smtp.wait_for_letters(1)[0].to(), site.outbox()), ("ann@example.com", vec![]));

    // What was sent stays sent.
    let here = site.start(10 * MINUTE);
    register(here.http, "bob@example.com");
    smtp.wait_for("letter", 2);
    site.wait_for_empty_outbox();
    assert_eq!(smtp.wait_for_letters(2)[1].to(), "bob@example.com");
    here.stop();
}

/// The mail server cannot be given the letter in this state of things; what baton says about it. Nothing reaches it that it
/// must not see, and the letter goes out when things are well.
fn is_not_given_away(smtp: &Smtp, site: Site, password: &str, expected: &str, cure: impl FnOnce()) {
    let site = site.with_password(password);
    let baton = site.serve();
    register(Http(baton.address), "ann@example.com");
    baton.wait_for_log("letter not sent yet");
    site.wait_for_attempts(1, 1);
    baton.stop();
    let log = baton.log();
    let said: Vec<&str> = log.lines().filter(|line| line.contains("letter not sent yet")).collect();
    assert!(said.iter().all(|line| line.contains("WARN") && line.contains(expected)), "{said:?}");
    assert!(!log.contains(password) && !log.contains("ann@example.com"), "{log}");
    let clear = smtp.heard_in_the_clear();
    assert!(clear.lines().all(|line| ["EHLO example.com", "STARTTLS", "QUIT"].contains(&line)), "{clear:?}");
    assert_eq!((smtp.events_of("rcpt").len(), smtp.letters().len()), (0, 0));

    cure();
    let here = site.with_password(SMTP_PASSWORD).start(MINUTE);
    let letters = smtp.wait_for_letters(1);
    letters[0].assert_in_order();
    confirm(here.http, &letters[0]);
    here.stop();
}

#[test]
fn a_wrong_password_is_said_and_not_shown() {
    let smtp = Smtp::start();
    is_not_given_away(&smtp, site(&smtp), "not-the-password-of-postman", "refused AUTH: 535 5.7.8", || {});
}

#[test]
fn a_mail_server_with_a_certificate_of_its_own_making_learns_nothing() {
    let smtp = Smtp::start();
    smtp.forge(true);
    is_not_given_away(&smtp, site(&smtp), SMTP_PASSWORD, "STARTTLS: invalid peer certificate", || smtp.forge(false));
}

#[test]
fn a_mail_server_without_starttls_learns_nothing() {
    let smtp = Smtp::start();
    smtp.behave(Mode::NoStartTls);
    is_not_given_away(&smtp, site(&smtp), SMTP_PASSWORD, "STARTTLS", || smtp.behave(Mode::Normal));
}

#[test]
fn a_crowd_of_letters_that_piled_up_goes_out_once() {
    const PEOPLE: usize = 4;
    const LETTERS: usize = 200;
    let smtp = Smtp::start();
    let site = site(&smtp);
    let here = site.start(Duration::ZERO);
    let people: Vec<String> = (0..PEOPLE).map(|number| format!("p{number}@example.com")).collect();
    people.iter().for_each(|email| register(here.http, email));
    smtp.wait_for_letters(PEOPLE).iter().for_each(|letter| confirm(here.http, letter));
    site.wait_for_empty_outbox();

    smtp.kill();
    (0..LETTERS).for_each(|number| ask(here.http, "/auth/password", &people[number % PEOPLE]));
    site.wait_for_attempts(LETTERS, 1);
    smtp.restart();
    here.advance(PAUSES[0]);
    smtp.wait_for("letter", PEOPLE + LETTERS);
    site.wait_for_empty_outbox();
    let letters = smtp.wait_for_letters(PEOPLE + LETTERS).split_off(PEOPLE);
    for email in &people {
        assert_eq!(letters.iter().filter(|letter| letter.to() == email).count(), LETTERS / PEOPLE, "{email}");
    }
    let tokens: BTreeSet<String> = letters.iter().map(Received::token).collect();
    assert_eq!(tokens.len(), LETTERS);
    let opened = here.http.get(&letters[LETTERS - 1].link()).send();
    assert!(parameters(opened.header("location")).contains_key("token"), "{opened:?}");
    here.stop();
}
