//! What somebody sends who means no good.

use std::collections::BTreeSet;

use baton_core::letter::Occasion;
use baton_engine::Settings;
use http::Method;
use serde_json::{Value, json};
use url::Url;

use crate::letterbox::{ANN, APP, HOST, Link, Mailed, Parts, confirming, everything, held, landing, settings};
use crate::support::{Answer, Held, PASSWORD, agent};

const OTHERS: [&str; 6] = [
    "https://app.example.com/a?b=c#d",
    "https://app.example.com",
    "https://app.example.com.evil.example/",
    "https://evil.example/?u=https://app.example.com/",
    "//app.example.com/evil.example",
    "javascript:alert(1)//app.example.com",
];

const MUTATIONS: [&str; 62] = [
    "\n",
    "\r",
    "\r\n",
    "\t",
    "\0",
    " ",
    "\u{b}",
    "\u{7f}",
    "\u{85}",
    "\u{a0}",
    "\u{2028}",
    "\u{2029}",
    "\u{feff}",
    "/",
    "//",
    "///",
    "\\",
    "\\\\",
    "/\\",
    "\\/",
    "@",
    ":@",
    "user:pass@",
    "@evil.example/",
    "evil.example@",
    "\\@evil.example/",
    "%40",
    "#@evil.example/",
    "?@evil.example/",
    ":",
    ":443",
    ":8443",
    ":99999",
    ".",
    "..",
    "/../",
    "/..;/",
    "%2e",
    "%252e",
    "%2f",
    "%5c",
    "%00",
    "%0d%0a",
    "%",
    "%zz",
    "\u{ff0e}",
    "\u{3002}",
    "\u{ff0f}",
    "\u{2044}",
    "\u{ff20}",
    "\u{200b}",
    "\u{ad}",
    "\u{202e}",
    "\u{430}",
    "A",
    "*",
    ".evil.example",
    "evil.",
    "[::1]",
    "127.0.0.1",
    "\r\nLocation: https://evil.example/",
    "\r\n\r\n<script>",
];

/// Good and bad targets, each with each mutation at each place where it could matter.
fn hostile_targets() -> Vec<String> {
    let mut targets = BTreeSet::new();
    for base in OTHERS {
        for at in 0..=base.len() {
            let beside = |at: usize| base.as_bytes().get(at).is_none_or(|byte| !byte.is_ascii_alphanumeric());
            if at != 0 && !beside(at) && !beside(at - 1) && at % 7 != 0 {
                continue;
            }
            for mutation in MUTATIONS {
                targets.insert(format!("{}{mutation}{}", &base[..at], &base[at..]));
                targets.insert(format!("{}{mutation}{}", &base[..at], base.get(at + 1..).unwrap_or_default()));
            }
        }
    }
    targets.into_iter().collect()
}

/// Where a browser goes from here, if it goes anywhere, is allowed. Nothing broke.
#[track_caller]
fn assert_harmless(answer: &Answer, what: &str) {
    assert!(answer.status < 500, "{what:?}: {answer:?}");
    assert!(answer.header("set-cookie").is_none() && answer.all("location").len() < 2, "{what:?}: {answer:?}");
    if let Some(location) = answer.header("location") {
        assert_allowed(location, what);
    }
}

#[track_caller]
fn assert_allowed(location: &str, what: &str) {
    let page = Url::parse("http://api.example.com/auth/confirmation?x").expect("a page");
    let url = page.join(location).unwrap_or_else(|error| panic!("{what:?}: {error}"));
    assert_eq!(url.origin().ascii_serialization(), "https://app.example.com", "{what:?}: {location}");
    assert!(url.username().is_empty() && location.bytes().all(|byte| byte.is_ascii_graphic()), "{location}");
}

fn path(at: &str, params: &[(&str, &str)]) -> String {
    format!("{at}?{}", form_urlencoded::Serializer::new(String::new()).extend_pairs(params).finish())
}

#[test]
fn of_many_hostile_targets_none_is_led_to() {
    let mut settings = everything();
    settings.reset.require_client_token = true;
    let app = Mailed::with(settings);
    app.enrol(ANN);
    app.letters();
    // Good for as long as nobody sets a password with it.
    let reset = app.asked("/auth/password", ANN);
    let targets = hostile_targets();
    assert!(targets.len() > 10_000, "only {}", targets.len());
    let agent = agent();
    let (mut led, mut accepted) = (0, 0);
    for (number, target) in targets.iter().enumerate() {
        // Which of them differs from base to base.
        let call = match number % 7 {
            0 => app.get(&path("/auth/confirmation", &[("confirmation_token", "x"), ("redirect_url", target)])),
            1 => app.get(&path("/auth/unlock", &[("unlock_token", "x"), ("redirect_url", target)])),
            2 => app.post_to("/auth/password", &json!({ "email": ANN, "redirect_url": target })),
            3 => app.post_to("/auth/confirmation", &json!({ "email": ANN, "redirect_url": target })),
            // Short: what is refused for that costs no hash.
            4 => app.post_to("/auth", &json!({ "email": ANN, "password": "short", "confirm_success_url": target })),
            _ => app.get(&reset.set("redirect_url", target).path()),
        };
        let answer = call.send_on(&agent);
        assert_harmless(&answer, target);
        assert!(matches!(answer.status, 200 | 302 | 401 | 404 | 422), "{target:?}: {answer:?}");
        led += usize::from(answer.status == 302);
        accepted += usize::from(answer.status == 200);
    }
    assert!(led > 100 && led < targets.len() / 2, "{led} of {}", targets.len());
    assert!(accepted > 50, "{accepted}");
    // Those that were accepted are in letters now.
    app.mailbox.clear();
    app.post_office();
    for letter in app.mailbox.list() {
        if let Some(target) = Link::of(&letter).params.get("redirect_url") {
            assert_allowed(target, target);
        }
        assert!(letter.link.as_ref().is_some_and(|link| link.starts_with(HOST)));
    }
}

/// Everything that could begin a line of its own somewhere.
const BREAKS: [&str; 9] = ["\r\n", "\n", "\r", "\0", "\u{b}", "\u{85}", "\u{2028}", "\u{2029}", "\u{202e}"];

#[test]
fn nothing_that_was_typed_begins_a_line_of_its_own() {
    let app = Mailed::with(confirming());
    for (number, at) in BREAKS.iter().enumerate() {
        let injected = format!("x{at}Bcc: eve@evil.example{at}Set-Cookie: a=b{at}{at}<script>");
        let email = format!("ann{number}@example.com");
        let mut body = json!({
            "email": email, "password": PASSWORD, "name": injected, "nickname": injected, "image": injected,
            "confirm_success_url": APP, "config_name": injected,
        });
        let mut answer = app.post_to("/auth", &body).header("accept-language", "de\u{85}, en").send();
        if answer.status == 422 {
            assert!(answer.json()["errors"]["name"].is_array(), "{answer:?}");
            assert_eq!(app.post(), []);
            body["name"] = "Ann".into();
            (body["nickname"], body["image"]) = (Value::Null, Value::Null);
            answer = app.post_to("/auth", &body).send();
        }
        assert_eq!(answer.status, 200, "{answer:?}");
        let letters = app.letters();
        let [letter] = &*letters else { panic!("one letter: {letters:?}") };
        assert_eq!((&letter.mail.to, letter.mail.subject.lines().count()), (&email, 1));
        assert!(!letter.mail.subject.contains("Bcc") && !letter.mail.html.contains("<script>"), "{}", letter.mail.html);
        assert!(!letter.mail.text.lines().any(|line| line.starts_with("Bcc")), "{}", letter.mail.text);
        assert!(letter.link.as_ref().is_some_and(|link| link.bytes().all(|byte| byte.is_ascii_graphic())));

        let link = Link::of(letter);
        assert_eq!(link.params["config"], injected, "handed back as it was");
        landing(&app.follow(&link));
        let request = json!({ "email": email, "redirect_url": APP, "config_name": injected });
        assert_eq!(app.post_to("/auth/password", &request).send().status, 200);
        let answer = app.follow(&app.link(Occasion::ResetPassword));
        let (to, params) = landing(&answer);
        assert_eq!((&*to, &params["config"]), (APP, &injected));
        assert!(answer.header("set-cookie").is_none() && answer.header("bcc").is_none(), "{answer:?}");
        assert!(app.works(&held(&params)));
    }
}

/// Each would be two recipients, another one or a header to somebody.
const TRICKS: [&str; 26] = [
    r#""a" <b@c.de>"#,
    "Ann <ann@example.com>",
    "<ann@example.com>",
    "a@b.cc,d@e.ff",
    "a@b.cc, d@e.ff",
    "a@b.cc;d@e.ff",
    "a@b.cc d@e.ff",
    "a@b.cc\nBcc: x@y.zz",
    "a@b.cc\r\nBcc: x@y.zz",
    "a@b.cc\r\n\r\nhello",
    "a\r\n@b.cc",
    "a@b\0.cc",
    "a\0@b.cc",
    "a@b.cc\u{2028}Bcc: x@y.zz",
    "a\u{2028}b@c.de",
    "a\u{200b}b@c.de",
    "a\u{202e}b@c.de",
    "a@b@c.de",
    "@b.cc:a@d.ee",
    "a@[127.0.0.1]",
    "a(comment)@b.cc",
    r#""a b"@c.de"#,
    r#""a@b.cc,x"@c.de"#,
    r#""a\"b"@c.de"#,
    "a@localhost",
    "a@b.cc?subject=x",
];

#[test]
fn an_address_is_one_address() {
    for app in [Mailed::with(confirming()), Mailed::with(settings())] {
        for email in TRICKS {
            let answer = app.enrol(email);
            assert!(answer.status == 422 && answer.json()["errors"]["email"].is_array(), "{email:?} {answer:?}");
        }
        assert_eq!(app.hashed(), 0);
    }
    let app = Mailed::with(settings());
    let held = app.settled(ANN);
    for email in TRICKS {
        let answer = app.put("/auth", &json!({ "email": email })).held(&held).send();
        assert!(answer.status == 422 && answer.json()["errors"]["email"].is_array(), "{email:?} {answer:?}");
        // Here it is an address without an account, and that is not told.
        assert_eq!(app.ask("/auth/password", email).status, 200, "{email:?}");
    }
    assert_eq!(app.post(), []);
    for email in ["a.b+c@d-e.example.com", "o'neill@example.com", "j\u{f6}rg@b\u{fc}cher.example"] {
        let answer = app.put("/auth", &json!({ "email": email })).held(&held).send();
        assert_eq!(answer.status, 200, "{email}: {answer:?}");
    }
}

#[test]
fn what_is_huge_is_refused_or_does_no_harm() {
    let app = Mailed::with(everything());
    app.enrol(ANN);
    app.letters();
    let huge = "x".repeat(60_000);
    for field in ["email", "password", "password_confirmation", "name", "config_name", "confirm_success_url"] {
        let mut body = json!({ "email": ANN, "password": "short", "confirm_success_url": APP });
        body[field] = huge.clone().into();
        let answer = app.post_to("/auth", &body).send();
        assert_eq!(answer.status, 422, "{field}: {answer:?}");
    }
    for path in ["/auth/password", "/auth/confirmation", "/auth/unlock"] {
        let status = |body: &Value| app.post_to(path, body).send().status;
        assert_eq!(status(&json!({ "email": huge, "redirect_url": APP })), 200);
        assert_eq!(status(&json!({ "email": ANN, "redirect_url": format!("{APP}/{huge}") })), 422);
        assert_eq!(status(&json!({ "email": ANN, "redirect_url": APP, "x": huge.repeat(2) })), 413);
        assert_eq!(status(&json!({ "email": ANN, "redirect_url": APP, "config_name": huge })), 200);
    }
    let letters = app.letters();
    assert_eq!(letters.len(), 3);
    for letter in letters {
        let link = letter.link.as_ref().expect("a link");
        assert!(link.len() < 4096, "no server takes a link of {} bytes", link.len());
    }
}

/// None of these is text.
fn no_texts() -> Vec<Value> {
    vec![
        Value::Null,
        json!(7),
        json!(-1.5e300),
        json!(true),
        json!([]),
        json!(["a", ANN]),
        json!({}),
        json!({ "a": { "b": [ANN] } }),
        json!(""),
        json!("\0"),
    ]
}

#[test]
fn fields_of_the_wrong_type_break_nothing() {
    let by_token = Mailed::with({
        let mut settings = everything();
        settings.reset.require_client_token = true;
        settings
    });
    let by_session = Mailed::with(Settings { paranoid: false, ..settings() });
    let session: Held = by_session.settled(ANN);
    let full = json!({
        "email": ANN, "password": "short", "password_confirmation": "short", "current_password": null,
        "redirect_url": APP, "confirm_success_url": APP, "config_name": "x", "reset_password_token": "x",
        "name": "x", "nickname": "x", "image": "x",
    });
    let routes = [
        (Method::POST, "/auth"),
        (Method::PUT, "/auth"),
        (Method::PATCH, "/auth"),
        (Method::POST, "/auth/password"),
        (Method::PUT, "/auth/password"),
        (Method::PATCH, "/auth/password"),
        (Method::POST, "/auth/confirmation"),
        (Method::POST, "/auth/unlock"),
    ];
    let agent = agent();
    for (method, path) in &routes {
        for field in full.as_object().expect("an object").keys() {
            for value in no_texts() {
                let mut body = full.clone();
                body[field] = value.clone();
                for (app, session) in [(&by_token, None), (&by_session, Some(&session))] {
                    let call = app.request(method.clone(), path).json(&body);
                    let answer = session.map_or(call.clone(), |session| call.held(session)).send_on(&agent);
                    assert!(answer.status < 500, "{method} {path} {field}={value}: {answer:?}");
                }
            }
        }
        for body in ["null", "7", "[]", "{", "\"x\"", "", "{\"email\":\"\\ud800\"}"] {
            let call = by_token.request(method.clone(), path).header("content-type", "application/json");
            let answer = call.body(body).send();
            assert!((400..500).contains(&answer.status), "{method} {path} {body}: {answer:?}");
        }
    }
    for query in ["", "?", "?redirect_url", "?redirect_url=%ff%fe", "?reset_password_token=%00", "?a=1&a=2&%&=&&"] {
        for at in ["/auth/password/edit", "/auth/confirmation", "/auth/unlock"] {
            let answer = by_token.get(&format!("{at}{query}")).send();
            assert!((400..500).contains(&answer.status), "{at}{query}: {answer:?}");
        }
    }
}

#[test]
fn of_a_parameter_that_is_there_twice_the_first_counts() {
    let app = Parts { settings: Some(settings()), ..Parts::default() }.start();
    app.register(ANN);
    let link = app.asked("/auth/password", ANN);
    let twice = format!("{}&redirect_url=https%3A%2F%2Fevil.example", link.path());
    let (to, _) = landing(&app.get(&twice).send());
    assert_eq!(to, APP);
    let link = app.asked("/auth/password", ANN);
    let (at, query) = (link.at.clone(), link.path().split_once('?').expect("a query").1.to_owned());
    let answer = app.get(&format!("{at}?redirect_url=https%3A%2F%2Fevil.example&{query}")).send();
    assert_eq!(answer.refusal(), (422, "redirect_refused".into()), "{answer:?}");
}
