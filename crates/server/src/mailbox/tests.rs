//! In process, with the built-in letters.

use std::time::Duration;

use axum::body::Body;
use baton_core::Timestamp;
use baton_core::letter::{Letter, Mailer as _, Occasion};
use baton_mail::{TemplateSettings, Templates};
use baton_store::clock::ManualClock;
use http::Method;
use tower::ServiceExt as _;

use super::*;

const LINK: &str = "https://app.example/reset?token=a-b_c&state=%22x%22&lang='de'#top";

fn letter(occasion: Occasion, link: Option<&str>) -> Letter {
    Letter {
        occasion,
        realm: "user".to_owned(),
        to: "ada@example.com".to_owned(),
        name: Some("Ada".to_owned()),
        languages: "de".to_owned(),
        link: link.map(|link| link.to_owned().into()),
        link_lifetime: link.map(|_| Duration::from_secs(3600)),
        new_email: Some("lovelace@example.com".to_owned()),
    }
}

/// A mailbox with these letters, a second apart, and its routes.
async fn mailbox(letters: &[Letter]) -> (Arc<Mailbox>, Router) {
    let templates = Templates::load(&TemplateSettings::default()).unwrap();
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_795_305_600_000)));
    let mailbox = Arc::new(Mailbox::new(Arc::new(templates), clock.clone()));
    for letter in letters {
        mailbox.send(letter).await.unwrap();
        clock.advance(Duration::from_secs(1));
    }
    (mailbox.clone(), routes(mailbox))
}

struct Answer {
    status: StatusCode,
    headers: http::HeaderMap,
    body: String,
}

impl Answer {
    fn header(&self, name: impl http::header::AsHeaderName) -> &str {
        self.headers[name].to_str().unwrap()
    }

    fn json(&self) -> serde_json::Value {
        assert_eq!(self.header(CONTENT_TYPE), JSON);
        serde_json::from_str(&self.body).unwrap()
    }
}

async fn call(routes: &Router, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    if headers.iter().all(|(name, _)| *name != "host") {
        request = request.header(HOST, "localhost:3000");
    }
    for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
        request = request.header(*name, *value);
    }
    let response = routes.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    Answer { status: parts.status, headers: parts.headers, body: String::from_utf8(body.to_vec()).unwrap() }
}

async fn get(routes: &Router, path: &str) -> Answer {
    call(routes, Method::GET, path, &[]).await
}

/// What stands between the first `from` and the next `to`.
fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let (_, rest) = text.split_once(from).unwrap_or_else(|| panic!("no {from} in {text}"));
    rest.split_once(to).unwrap().0
}

/// Undoes the escaping of a template.
fn plain(html: &str) -> String {
    let entities = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#x27;", "'"), ("&#x2f;", "/"), ("&amp;", "&")];
    entities.iter().fold(html.to_owned(), |text, (entity, char)| text.replace(entity, char))
}

#[tokio::test]
async fn the_list_shows_the_newest_first() {
    let letters = [letter(Occasion::ResetPassword, Some(LINK)), letter(Occasion::PasswordChanged, None)];
    let (kept, routes) = mailbox(&letters).await;
    let page = get(&routes, "/dev/mailbox").await;
    assert_eq!((page.status, page.header(CONTENT_TYPE)), (StatusCode::OK, HTML));
    let rows: Vec<&str> = between(&page.body, "<tbody>", "</tbody>").split("</tr>").collect();
    assert_eq!(rows.len(), 3);
    for (row, kept) in rows.iter().zip(kept.list()) {
        assert_eq!(plain(between(row, "lang=\"de\" dir=\"auto\">", "</a>")), kept.mail.subject);
        assert!(row.contains(&format!("href=\"/dev/mailbox/{}\"", kept.id)), "{row}");
        assert!(row.contains("ada@example.com") && row.contains(kept.occasion.as_str()), "{row}");
    }
    assert!(rows[0].contains("2026-11-22 00:00:01") && rows[0].contains("2026-11-22T00:00:01.000Z"), "{}", rows[0]);
    assert!(!page.body.contains("app.example"), "a link belongs to its mail");

    assert!(page.body.contains("http-equiv=\"refresh\""));
    assert!(!get(&routes, "/dev/mailbox?refresh=off").await.body.contains("http-equiv=\"refresh\""));

    kept.clear();
    let page = get(&routes, "/dev/mailbox").await;
    assert!(page.body.contains("No mail yet") && !page.body.contains("<button"), "{}", page.body);
}

#[tokio::test]
async fn a_mail_shows_its_link_and_its_parts() {
    let letters = [letter(Occasion::ResetPassword, Some(LINK)), letter(Occasion::PasswordChanged, None)];
    let (kept, routes) = mailbox(&letters).await;
    let reset = kept.get(1).unwrap();
    let page = get(&routes, "/dev/mailbox/1").await;
    assert_eq!((page.status, page.header(CONTENT_TYPE)), (StatusCode::OK, HTML));
    assert_eq!(plain(between(&page.body, "<h1 lang=\"de\" dir=\"auto\">", "</h1>")), reset.mail.subject);
    assert_eq!(plain(between(&page.body, "<pre lang=\"de\" dir=\"auto\">", "</pre>")), reset.mail.text);
    assert_eq!(plain(between(&page.body, "<p><a href=\"", "\"")), LINK);
    assert_eq!(plain(between(&page.body, "readonly value=\"", "\"")), LINK);
    assert!(page.body.contains("<iframe sandbox src=\"/dev/mailbox/1.html\" title="), "{}", page.body);

    let part = get(&routes, "/dev/mailbox/1.html").await;
    assert_eq!((part.header(CONTENT_TYPE), part.body.as_str()), (HTML, reset.mail.html.as_str()));
    let policy = part.header(CONTENT_SECURITY_POLICY);
    assert!(policy.starts_with("default-src 'none';") && policy.ends_with("; sandbox"), "{policy}");
    assert!(!policy.contains("script") && !policy.contains("allow-"), "{policy}");

    let page = get(&routes, "/dev/mailbox/2").await;
    assert!(!page.body.contains("id=\"link\"") && !page.body.contains("Links in it"), "{}", page.body);
}

#[tokio::test]
async fn scripts_get_json() {
    let letters = [letter(Occasion::ResetPassword, Some(LINK)), letter(Occasion::PasswordChanged, None)];
    let (kept, routes) = mailbox(&letters).await;
    let one = get(&routes, "/dev/mailbox/1.json").await.json();
    let mail = &kept.get(1).unwrap().mail;
    let expected = json!({
        "id": 1, "at": "2026-11-22T00:00:00.000Z", "to": "ada@example.com", "subject": mail.subject, "text": mail.text,
        "html": mail.html, "link": LINK, "locale": "de", "occasion": "reset_password", "realm": "user",
    });
    assert_eq!(one, expected);
    let all = get(&routes, "/dev/mailbox.json").await.json();
    assert_eq!(all["mails"][1], one);
    assert_eq!((&all["mails"][0]["id"], &all["mails"][0]["link"]), (&json!(2), &json!(null)));
    assert_eq!(all["mails"].as_array().unwrap().len(), 2);

    kept.clear();
    assert_eq!(get(&routes, "/dev/mailbox.json").await.json(), json!({ "mails": [] }));
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let (_, routes) = mailbox(&[letter(Occasion::PasswordChanged, None)]).await;
    for name in ["2", "0", "x", "+1", "-1", "1.", "1.txt", "1.json.html", ".json", "99999999999999999999", "%3Cb%3E"] {
        let answer = get(&routes, &format!("/dev/mailbox/{name}")).await;
        let expected = if name == "1." { StatusCode::OK } else { StatusCode::NOT_FOUND };
        assert_eq!(answer.status, expected, "{name}");
    }
}

#[tokio::test]
async fn what_strangers_chose_never_becomes_markup() {
    let hostile = "https://app.example/\"><script>alert(1)</script><a/href='x'onmouseover=\"y";
    let strange = Letter {
        to: "o'<b>\"x@example.com".to_owned(),
        name: Some("<img src=x onerror=alert(1)>".to_owned()),
        realm: "<i>realm</i>".to_owned(),
        ..letter(Occasion::ResetPassword, Some(hostile))
    };
    let plain_address = Letter { to: "o'b&c@example.com".to_owned(), ..strange.clone() };
    let (kept, routes) = mailbox(&[plain_address]).await;
    // An address with markup is not one.
    assert!(kept.send(&strange).await.is_err());
    for path in ["/dev/mailbox", "/dev/mailbox/1", "/dev/mailbox/1.html"] {
        let page = get(&routes, path).await.body;
        for tag in ["<script", "<img", "<i>", "<b>", "'x'onmouseover", "<a/"] {
            assert!(!page.contains(tag), "{path}: {tag} in {page}");
        }
        assert!(!page.contains("o'b") || path.ends_with("html"), "{page}");
    }
    assert_eq!(plain(between(&get(&routes, "/dev/mailbox/1").await.body, "readonly value=\"", "\"")), hostile);
    assert_eq!(get(&routes, "/dev/mailbox/1.json").await.json()["link"], hostile);
}

#[tokio::test]
async fn a_link_that_is_no_web_address_can_only_be_copied() {
    let (_, routes) = mailbox(&[letter(Occasion::ResetPassword, Some("javascript:alert(1)"))]).await;
    let page = get(&routes, "/dev/mailbox/1").await.body;
    assert!(!page.contains("href=\"javascript") && page.contains("value=\"javascript:alert(1)\""), "{page}");
    let (_, routes) = mailbox(&[letter(Occasion::ResetPassword, Some("HTTP://localhost:5173/x"))]).await;
    assert!(plain(&get(&routes, "/dev/mailbox/1").await.body).contains("<a href=\"HTTP://localhost:5173/x\""));
}

#[tokio::test]
async fn pages_load_nothing_and_run_nothing() {
    let (_, routes) = mailbox(&[letter(Occasion::ResetPassword, Some(LINK))]).await;
    for path in ["/dev/mailbox", "/dev/mailbox/1"] {
        let page = get(&routes, path).await;
        let style = STANDARD.encode(Sha256::digest(between(&page.body, "<style>", "</style>")));
        assert_eq!(
            page.header(CONTENT_SECURITY_POLICY),
            format!(
                "default-src 'none'; style-src 'sha256-{style}'; frame-src 'self'; base-uri 'none'; form-action \
                 'self'; frame-ancestors 'none'"
            )
        );
        assert!(!page.body.contains(" style=") && !page.body.contains("<script") && !page.body.contains("<link"));
        assert!(page.body.contains("color-scheme: light dark") && page.body.contains("name=\"viewport\""));
        assert!(page.body.contains("<html lang=\"en\">") && page.body.contains("<main>") && page.body.contains("<h1"));
    }
    for path in ["/dev/mailbox", "/dev/mailbox/1", "/dev/mailbox/1.html", "/dev/mailbox/1.json", "/dev/mailbox.json"] {
        let answer = get(&routes, path).await;
        assert_eq!(answer.header(CACHE_CONTROL), "no-store", "{path}");
        assert_eq!(answer.header(X_CONTENT_TYPE_OPTIONS), "nosniff", "{path}");
        assert_eq!(answer.header(REFERRER_POLICY), "same-origin", "{path}");
        assert_eq!(answer.header("cross-origin-resource-policy"), "same-origin", "{path}");
        assert!(answer.header(CONTENT_SECURITY_POLICY).starts_with("default-src 'none';"), "{path}");
    }
}

#[tokio::test]
async fn only_its_own_page_and_scripts_empty_it() {
    let (kept, routes) = mailbox(&[]).await;
    let own = ("origin", "http://localhost:3000");
    for (headers, may) in [
        (&[][..], true),
        (&[("sec-fetch-site", "same-origin"), own], true),
        (&[("sec-fetch-site", "none")], true),
        (&[own], true),
        (&[("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")], false),
        (&[("sec-fetch-site", "same-site"), ("origin", "http://localhost:5173")], false),
        (&[("origin", "https://evil.example")], false),
        (&[("origin", "http://localhost:5173")], false),
        (&[("origin", "null")], false),
    ] {
        for (method, done) in [(Method::DELETE, StatusCode::NO_CONTENT), (Method::POST, StatusCode::SEE_OTHER)] {
            kept.send(&letter(Occasion::PasswordChanged, None)).await.unwrap();
            let answer = call(&routes, method, "/dev/mailbox", headers).await;
            assert_eq!(answer.status, if may { done } else { StatusCode::FORBIDDEN }, "{headers:?}");
            assert_eq!(kept.list().is_empty(), may, "{headers:?}");
            if !may {
                assert_eq!(answer.json()["code"], "cross_site");
            } else if done == StatusCode::SEE_OTHER {
                assert_eq!(answer.header("location"), "/dev/mailbox");
            }
        }
    }
}

#[tokio::test]
async fn only_names_of_this_machine_reach_it() {
    let (kept, routes) = mailbox(&[letter(Occasion::ResetPassword, Some(LINK))]).await;
    let paths = ["/dev/mailbox", "/dev/mailbox.json", "/dev/mailbox/1", "/dev/mailbox/1.json", "/dev/mailbox/1.html"];
    for host in ["localhost", "localhost:3000", "LocalHost:1", "127.0.0.1:3000", "127.0.0.1", "[::1]:3000", "[::1]"] {
        for path in paths {
            let answer = call(&routes, Method::GET, path, &[("host", host)]).await;
            assert_eq!(answer.status, StatusCode::OK, "{host} {path}");
        }
    }
    let foreign = [
        "",
        "evil.example",
        "evil.example:3000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.1@evil.example",
        "localhost:3000@evil.example",
        "192.168.0.2:3000",
        "0.0.0.0",
        "[::2]",
        "::1",
        "localhost localhost",
    ];
    for host in foreign {
        for path in paths {
            let answer = call(&routes, Method::GET, path, &[("host", host)]).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{host} {path}");
            assert!(!answer.body.contains("app.example"), "{host} {path}");
        }
        for method in [Method::POST, Method::DELETE] {
            let answer = call(&routes, method, "/dev/mailbox", &[("host", host)]).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{host}");
        }
    }
    for headers in
        [&[("host", "localhost"), ("host", "evil.example")], &[("host", "evil.example"), ("host", "localhost")]]
    {
        assert_eq!(call(&routes, Method::GET, "/dev/mailbox", headers).await.status, StatusCode::FORBIDDEN);
    }
    // As HTTP/2 has it.
    let named = |uri: &str, host| {
        let (routes, uri) = (routes.clone(), uri.to_owned());
        async move { call(&routes, Method::GET, &uri, &[("host", host)]).await.status }
    };
    assert_eq!(named("http://localhost:3000/dev/mailbox", "").await, StatusCode::OK);
    assert_eq!(named("http://evil.example/dev/mailbox", "").await, StatusCode::FORBIDDEN);
    assert_eq!(named("http://evil.example/dev/mailbox", "localhost").await, StatusCode::FORBIDDEN);
    assert_eq!(named("http://localhost/dev/mailbox", "evil.example").await, StatusCode::FORBIDDEN);
    assert_eq!(kept.list().len(), 1);
}
