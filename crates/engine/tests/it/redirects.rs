//! Where redirects may lead, and how the landing URL is built.

use std::collections::BTreeSet;

use baton_engine::{Redirect, RedirectAllowlist, RedirectRefused};
use http::{HeaderValue, Uri};
use proptest::prelude::*;
use proptest::test_runner::Config;
use url::Url;

const ENTRIES: [&str; 8] = [
    "https://app.example.com",
    "https://admin.example.com:8443",
    "http://plain.example.com",
    "https://exact.example.com/landing",
    "https://below.example.com/app/*",
    "https://*.tenants.example.com",
    "http://[2001:db8::1]:8080",
    "myapp://callback",
];

fn list() -> RedirectAllowlist {
    RedirectAllowlist::parse(ENTRIES).expect("entries")
}

fn check(url: &str) -> Result<Redirect, RedirectRefused> {
    list().check(url)
}

#[test]
fn each_kind_of_entry_allows_what_it_says() {
    for (url, canonical) in [
        ("https://app.example.com", "https://app.example.com/"),
        ("https://app.example.com/", "https://app.example.com/"),
        ("https://app.example.com?a=1", "https://app.example.com/?a=1"),
        ("https://app.example.com#/route", "https://app.example.com/#/route"),
        ("https://app.example.com/a/b/?c=d/../e#/f?g=h", "https://app.example.com/a/b/?c=d/../e#/f?g=h"),
        (
            "https://app.example.com/?next=https://evil.example/@x",
            "https://app.example.com/?next=https://evil.example/@x",
        ),
        ("https://app.example.com/@ann/a:b", "https://app.example.com/@ann/a:b"),
        ("https://app.example.com/stra\u{df}e?\u{e9}#\u{e9}", "https://app.example.com/stra%C3%9Fe?%C3%A9#%C3%A9"),
        ("https://app.example.com/a%20b", "https://app.example.com/a%20b"),
        ("https://app.example.com/...", "https://app.example.com/..."),
        ("https://admin.example.com:8443/x", "https://admin.example.com:8443/x"),
        ("http://plain.example.com/x", "http://plain.example.com/x"),
        ("https://exact.example.com/landing", "https://exact.example.com/landing"),
        ("https://exact.example.com/landing?a#b", "https://exact.example.com/landing?a#b"),
        ("https://below.example.com/app", "https://below.example.com/app"),
        ("https://below.example.com/app?a", "https://below.example.com/app?a"),
        ("https://below.example.com/app/", "https://below.example.com/app/"),
        ("https://below.example.com/app/x/y#z", "https://below.example.com/app/x/y#z"),
        ("https://a.tenants.example.com/x", "https://a.tenants.example.com/x"),
        ("https://a-1.tenants.example.com", "https://a-1.tenants.example.com/"),
        ("https://xn--bcher-kva.tenants.example.com/", "https://xn--bcher-kva.tenants.example.com/"),
        ("http://[2001:db8::1]:8080/x", "http://[2001:db8::1]:8080/x"),
        ("myapp://callback", "myapp://callback"),
        ("myapp://callback?a=1#b", "myapp://callback?a=1#b"),
    ] {
        assert_eq!(check(url).as_ref().map(Redirect::as_str), Ok(canonical), "{url}");
    }
}

#[test]
fn what_is_refused_is_refused_for_its_reason() {
    use RedirectRefused::{Character, NotAbsolute, NotAllowed, TooLong, UnusualOrigin, UnusualPath};
    let with_length = |length: usize| format!("https://app.example.com/{}", "x".repeat(length - 24));
    assert!(check(&with_length(2048)).is_ok());
    for (url, why) in [
        (&*with_length(2049), TooLong),
        // Another origin.
        ("http://app.example.com/", NotAllowed),
        ("https://plain.example.com/", NotAllowed),
        ("https://app.example.com:8443/", NotAllowed),
        ("https://app.example.com:0/", NotAllowed),
        ("https://admin.example.com/", NotAllowed),
        ("https://admin.example.com:844/", NotAllowed),
        ("https://example.com/", NotAllowed),
        ("https://xapp.example.com/", NotAllowed),
        ("https://x.app.example.com/", NotAllowed),
        ("https://app.example.com.evil.example/", NotAllowed),
        ("https://app.example.comevil.example/", NotAllowed),
        ("https://evil.example/https://app.example.com/", UnusualPath),
        ("https://evil.example/?https://app.example.com/", NotAllowed),
        ("https://evil.example#https://app.example.com/", NotAllowed),
        ("http://localhost:3000/", NotAllowed),
        // Another path.
        ("https://exact.example.com", NotAllowed),
        ("https://exact.example.com/landing/", NotAllowed),
        ("https://exact.example.com/landing/x", NotAllowed),
        ("https://exact.example.com/Landing", NotAllowed),
        ("https://exact.example.com/landin%67", NotAllowed),
        ("https://exact.example.com/landing;x", NotAllowed),
        ("https://exact.example.com/?/landing", NotAllowed),
        ("https://below.example.com/", NotAllowed),
        ("https://below.example.com/apple", NotAllowed),
        ("https://below.example.com/x/app/", NotAllowed),
        ("https://below.example.com/app%2Fx", UnusualPath),
        ("https://below.example.com/app/..", UnusualPath),
        ("https://below.example.com/app/../x", UnusualPath),
        ("https://below.example.com/app/./x", UnusualPath),
        ("https://below.example.com/app/%2e%2e/x", UnusualPath),
        ("https://below.example.com/app/%2E./x", UnusualPath),
        ("https://below.example.com/app/.%2e", UnusualPath),
        ("https://below.example.com/app/%252e%252e/x", UnusualPath),
        ("https://below.example.com/app/..%2f..%2fx", UnusualPath),
        ("https://below.example.com/app/..%5cx", UnusualPath),
        ("https://below.example.com/app/%00", UnusualPath),
        ("https://below.example.com/app/%0d%0aSet-Cookie:x", UnusualPath),
        ("https://below.example.com/app/%zz", UnusualPath),
        ("https://below.example.com/app//x", UnusualPath),
        ("https://app.example.com//evil.example", UnusualPath),
        ("https://app.example.com/..//evil.example", UnusualPath),
        // Hosts of a pattern.
        ("https://tenants.example.com/", NotAllowed),
        ("https://a.b.tenants.example.com/", NotAllowed),
        ("https://atenants.example.com/", NotAllowed),
        ("https://a_b.tenants.example.com/", NotAllowed),
        ("https://a.tenants.example.com.evil.example/", NotAllowed),
        ("http://a.tenants.example.com/", NotAllowed),
        ("https://a.tenants.example.com:8443/", NotAllowed),
        ("https://.tenants.example.com/", UnusualOrigin),
        // Other apps and pages.
        ("myapp://callback/", NotAllowed),
        ("myapp://callback/x", NotAllowed),
        ("myapp://callback:1", NotAllowed),
        ("myapp://other", NotAllowed),
        ("myapp2://callback", NotAllowed),
        ("myapp://Callback", NotAllowed),
        ("myapp://c%61llback", UnusualOrigin),
        ("MyApp://callback", UnusualOrigin),
        ("myapp:callback", NotAbsolute),
        ("myapp:/callback", NotAbsolute),
        ("myapp:///callback", NotAbsolute),
        ("javascript:alert(1)", NotAbsolute),
        ("javascript://app.example.com/%0aalert(1)", UnusualPath),
        ("data:text/html,x", NotAbsolute),
        ("about:blank", NotAbsolute),
        ("file:///etc/passwd", NotAbsolute),
        ("blob:https://app.example.com/1", NotAbsolute),
        ("view-source:https://app.example.com/", NotAbsolute),
        ("ftp://app.example.com/", NotAllowed),
        ("wss://app.example.com/", NotAllowed),
        // No origin, or one in another form.
        ("", NotAbsolute),
        ("/", NotAbsolute),
        ("/x", NotAbsolute),
        ("x", NotAbsolute),
        ("?x", NotAbsolute),
        ("//app.example.com/", NotAbsolute),
        ("///app.example.com/", NotAbsolute),
        ("app.example.com", NotAbsolute),
        ("app.example.com:443/", NotAbsolute),
        ("https", NotAbsolute),
        ("https:", NotAbsolute),
        ("https://", NotAbsolute),
        ("https://:443/", NotAbsolute),
        ("https://[app.example.com]/", NotAbsolute),
        ("https://app.example.com:99999/", NotAbsolute),
        ("https://app.example.com:x/", NotAbsolute),
        ("https://app%00.example.com/", NotAbsolute),
        ("https://app%2fexample.com/", NotAbsolute),
        ("https://xn--a.example.com/", NotAbsolute),
        ("https:app.example.com/", UnusualOrigin),
        ("https:/app.example.com/", UnusualOrigin),
        ("https:///app.example.com/", UnusualOrigin),
        ("https:////app.example.com/", UnusualOrigin),
        ("HTTPS://app.example.com/", UnusualOrigin),
        ("hTtps://app.example.com/", UnusualOrigin),
        ("https://APP.example.com/", UnusualOrigin),
        ("https://app.example.com./", UnusualOrigin),
        ("https://app..example.com/", UnusualOrigin),
        ("https://app.example.com:443/", UnusualOrigin),
        ("https://app.example.com:/", UnusualOrigin),
        ("https://admin.example.com:08443/", UnusualOrigin),
        ("http://plain.example.com:80/", UnusualOrigin),
        ("https://@app.example.com/", UnusualOrigin),
        ("https://:@app.example.com/", UnusualOrigin),
        ("https://x@app.example.com/", UnusualOrigin),
        ("https://x:y@app.example.com/", UnusualOrigin),
        ("https://app.example.com@evil.example/", UnusualOrigin),
        ("https://app.example.com:443@evil.example/", UnusualOrigin),
        ("https://app.example.com%40evil.example/", NotAbsolute),
        ("https://app%2eexample.com/", UnusualOrigin),
        ("https://%61pp.example.com/", UnusualOrigin),
        ("https://app\u{3002}example.com/", UnusualOrigin),
        ("https://app\u{ff0e}example.com/", UnusualOrigin),
        ("https://\u{ff41}pp.example.com/", UnusualOrigin),
        ("https://app.example.com\u{ff0f}evil.example/", NotAbsolute),
        ("https:\u{ff0f}\u{ff0f}app.example.com/", NotAbsolute),
        ("https://app\u{ad}.example.com/", UnusualOrigin),
        ("https://app\u{200b}.example.com/", UnusualOrigin),
        ("https://b\u{fc}cher.tenants.example.com/", UnusualOrigin),
        ("http://[2001:DB8::1]:8080/", UnusualOrigin),
        ("http://[2001:db8:0:0:0:0:0:1]:8080/", UnusualOrigin),
        ("http://0x7f.1/", UnusualOrigin),
        ("http://0177.0.0.1/", UnusualOrigin),
        ("http://2130706433/", UnusualOrigin),
        // What parsers drop or turn around.
        ("https://app.example.com\\@evil.example/", Character),
        ("https:\\\\app.example.com/", Character),
        ("https:/\\app.example.com/", Character),
        ("/\\evil.example", Character),
        ("https://app.example.com/\\evil.example", Character),
        ("https://app.example.com/#\\", Character),
        (" https://app.example.com/", Character),
        ("https://app.example.com/ ", Character),
        ("https://app.example.com/a b", Character),
        ("ht\ttps://app.example.com/", Character),
        ("https://app.example.com/\r\nSet-Cookie: a=b", Character),
        ("https://evil.example/\nhttps://app.example.com/", Character),
        ("https://app.example.com/\nhttps://evil.example/", Character),
        ("java\nscript:alert(1)", Character),
        ("https://app.example.com/\0", Character),
        ("\u{1}https://app.example.com/", Character),
        ("https://app.example.com/\u{7f}", Character),
        ("https://app.example.com/\u{85}", Character),
        ("https://app.example.com/\u{a0}", Character),
        ("https://app.example.com/\u{2028}", Character),
        ("\u{feff}https://app.example.com/", NotAbsolute),
    ] {
        assert_eq!(check(url), Err(why), "{url:?}");
    }
}

#[test]
fn nothing_is_allowed_unless_it_is_listed() {
    let none = RedirectAllowlist::default();
    assert_eq!(none, RedirectAllowlist::parse([]).unwrap());
    for url in ["https://app.example.com/", "http://localhost/", "myapp://callback"] {
        assert_eq!(none.check(url), Err(RedirectRefused::NotAllowed));
    }
}

#[test]
fn localhost_is_three_hosts_on_every_port() {
    let list = list().with_localhost();
    for url in [
        "http://localhost/",
        "http://localhost:3000/x",
        "https://localhost",
        "http://127.0.0.1:5173/",
        "https://127.0.0.1:65535/",
        "http://[::1]:8080/",
        "https://app.example.com/",
    ] {
        assert!(list.check(url).is_ok(), "{url}");
    }
    for url in [
        "http://localhost.evil.example/",
        "http://evil.localhost/",
        "http://localhost./",
        "http://127.0.0.2/",
        "http://127.1/",
        "http://0/",
        "http://0.0.0.0/",
        "http://[::]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[0:0:0:0:0:0:0:1]/",
        "http://localhost@evil.example/",
        "ftp://localhost/",
        "myapp://localhost",
    ] {
        assert!(list.check(url).is_err(), "{url}");
    }
}

#[test]
fn entries_may_be_combined() {
    let list = RedirectAllowlist::parse([
        "https://*.example.com:8443/app/*",
        "https://b.example/*",
        "https://c.example/",
        "https://xn--bcher-kva.example",
        "com.example.app://login/done",
        "http://192.0.2.1:8080",
    ])
    .unwrap();
    for url in [
        "https://a.example.com:8443/app/x",
        "https://b.example",
        "https://b.example/x",
        "https://c.example/?x",
        "https://c.example",
        "https://xn--bcher-kva.example/x",
        "com.example.app://login/done#x",
        "http://192.0.2.1:8080/x",
    ] {
        assert!(list.check(url).is_ok(), "{url}");
    }
    for url in [
        "https://a.example.com/app/x",
        "https://a.example.com:8443/",
        "https://c.example/x",
        "com.example.app://login",
        "com.example.app://login/done/x",
    ] {
        assert_eq!(list.check(url), Err(RedirectRefused::NotAllowed), "{url}");
    }
}

#[test]
fn what_is_no_entry_is_refused_with_its_text() {
    let long = format!("https://app.example.com/{}", "x".repeat(2048));
    for (entry, why) in [
        ("", "has to be an origin"),
        ("*", "has to be an origin"),
        ("app.example.com", "has to be an origin"),
        ("//app.example.com", "has to be an origin"),
        ("https:app.example.com", "has to be an origin"),
        ("javascript:alert(1)", "has to be an origin"),
        ("https://", "is not an absolute URL"),
        ("https://*", "has a * elsewhere"),
        ("https://*.", "is not an absolute URL with a host, or has an origin in an unusual form"),
        ("https://*.com", "at least two labels"),
        ("https://*.localhost", "at least two labels"),
        ("https://*..com", "unusual form"),
        ("https://*.0.0.1", "is not an absolute URL"),
        ("https://*.*.example.com", "has a * elsewhere"),
        ("https://app.*.com", "has a * elsewhere"),
        ("https://a*.example.com", "has a * elsewhere"),
        ("https://*example.com", "has a * elsewhere"),
        ("https://app.example.com:*", "has a * elsewhere"),
        ("https://app.example.com*", "has a * elsewhere"),
        ("https://app.example.com/*/x", "has a * elsewhere"),
        ("https://app.example.com/app*", "has a * elsewhere"),
        ("https://app.example.com/**", "has a * elsewhere"),
        ("https://app.example.com/*?x", "has a * elsewhere"),
        ("*://app.example.com", "is not an absolute URL"),
        ("myapp://*", "has a * elsewhere"),
        ("myapp://callback/*", "has a * elsewhere"),
        ("myapp://*.example.com", "has a * elsewhere"),
        ("https://app.example.com?x", "has a query or a fragment"),
        ("https://app.example.com/#/x", "has a query or a fragment"),
        ("javascript://callback", "not an app's own"),
        ("data://callback", "not an app's own"),
        ("file://callback", "not an app's own"),
        ("blob://callback", "not an app's own"),
        ("vbscript://callback", "not an app's own"),
        ("about://callback", "not an app's own"),
        ("ws://callback", "not an app's own"),
        ("wss://callback", "not an app's own"),
        ("ftp://callback", "not an app's own"),
        ("intent://callback", "not an app's own"),
        ("view-source://callback", "not an app's own"),
        ("JavaScript://callback", "unusual form"),
        ("myapp://", "is not an absolute URL"),
        ("myapp:///x", "is not an absolute URL"),
        ("HTTPS://app.example.com", "unusual form"),
        ("https://App.example.com", "unusual form"),
        ("https://app.example.com.", "unusual form"),
        ("https://app.example.com:443", "unusual form"),
        ("https://x@app.example.com", "unusual form"),
        ("https://bücher.example", "unusual form"),
        ("http://127.1", "unusual form"),
        ("https://app.example.com/stra\u{df}e", "write differently"),
        ("https://app.example.com/app//*", "write differently"),
        ("https://app.example.com/a/../b", "has a path with"),
        ("https://app.example.com//b", "has a path with"),
        (" https://app.example.com", "white space"),
        ("https://app.example.com\n", "white space"),
        (&long, "is longer than 2048"),
    ] {
        let said = RedirectAllowlist::parse(["https://good.example", entry]).unwrap_err().to_string();
        let found = why.split(", or ").any(|why| said.contains(why.trim_start_matches("has an origin in an ")));
        assert!(found, "{entry}: {said}");
        assert!(said.starts_with(&format!("{entry:?} ")), "{said}");
    }
}

/// The `Location` headers recorded from devise_token_auth 1.3.0, with the values of the run shortened.
#[test]
fn landings_are_those_that_the_gem_was_recorded_with() {
    let list = RedirectAllowlist::parse(["http://x.example", "http://y.example", "http://d.example"]).unwrap();
    let session = |config, more: &[(&'static str, &'static str)]| {
        let mut params = vec![
            ("uid", "{email}"),
            ("token", "vgQC58wPHUYel7OxjlNRaQ"),
            ("expiry", "1796499841"),
            ("config", config),
            ("client_id", "-GUn75fUu4HJSY8oIG4nxg"),
            ("client", "-GUn75fUu4HJSY8oIG4nxg"),
            ("access-token", "vgQC58wPHUYel7OxjlNRaQ"),
        ];
        params.extend(more);
        params
    };
    let reset = [("reset_password", "true"), ("reset_password_token", "{token}")];
    let renamed = [
        ("X-Token", "Glzlv4J1qKr3FhlOqeKwRQ"),
        ("X-Client", "EgaZe5jt8l9Z4EkVMoWByw"),
        ("client_id", "EgaZe5jt8l9Z4EkVMoWByw"),
        ("expiry", "1796499928"),
        ("token", "Glzlv4J1qKr3FhlOqeKwRQ"),
    ];
    for (target, params, location) in [
        (
            "http://x.example/r?a=1#frag",
            session("cfg", &reset),
            "http://x.example/r?a=1&access-token=vgQC58wPHUYel7OxjlNRaQ&client=-GUn75fUu4HJSY8oIG4nxg&client_id=-GUn75fUu4HJSY8oIG4nxg&config=cfg&expiry=1796499841&reset_password=true&reset_password_token={token}&token=vgQC58wPHUYel7OxjlNRaQ&uid={email}\
             #frag?a=1&access-token=vgQC58wPHUYel7OxjlNRaQ&client=-GUn75fUu4HJSY8oIG4nxg&client_id=-GUn75fUu4HJSY8oIG4nxg&config=cfg&expiry=1796499841&reset_password=true&reset_password_token={token}&token=vgQC58wPHUYel7OxjlNRaQ&uid={email}",
        ),
        (
            "http://y.example/z",
            session("", &reset),
            "http://y.example/z?access-token=vgQC58wPHUYel7OxjlNRaQ&client=-GUn75fUu4HJSY8oIG4nxg&client_id=-GUn75fUu4HJSY8oIG4nxg&config=&expiry=1796499841&reset_password=true&reset_password_token={token}&token=vgQC58wPHUYel7OxjlNRaQ&uid={email}",
        ),
        (
            "http://x.example/r",
            session("default", &reset),
            "http://x.example/r?access-token=vgQC58wPHUYel7OxjlNRaQ&client=-GUn75fUu4HJSY8oIG4nxg&client_id=-GUn75fUu4HJSY8oIG4nxg&config=default&expiry=1796499841&reset_password=true&reset_password_token={token}&token=vgQC58wPHUYel7OxjlNRaQ&uid={email}",
        ),
        (
            "http://d.example/reset",
            session("default", &reset),
            "http://d.example/reset?access-token=vgQC58wPHUYel7OxjlNRaQ&client=-GUn75fUu4HJSY8oIG4nxg&client_id=-GUn75fUu4HJSY8oIG4nxg&config=default&expiry=1796499841&reset_password=true&reset_password_token={token}&token=vgQC58wPHUYel7OxjlNRaQ&uid={email}",
        ),
        (
            // The gem writes the host of this one as "http://host:///", which no browser opens.
            "http://x.example/",
            session("default", &[("unlock", "true")]),
            "http://x.example/?access-token=vgQC58wPHUYel7OxjlNRaQ&client=-GUn75fUu4HJSY8oIG4nxg&client_id=-GUn75fUu4HJSY8oIG4nxg&config=default&expiry=1796499841&token=vgQC58wPHUYel7OxjlNRaQ&uid={email}&unlock=true",
        ),
        (
            "http://x.example/r",
            [renamed.to_vec(), vec![("config", "default"), ("uid", "{email}")], reset.to_vec()].concat(),
            "http://x.example/r?X-Client=EgaZe5jt8l9Z4EkVMoWByw&X-Token=Glzlv4J1qKr3FhlOqeKwRQ&client_id=EgaZe5jt8l9Z4EkVMoWByw&config=default&expiry=1796499928&reset_password=true&reset_password_token={token}&token=Glzlv4J1qKr3FhlOqeKwRQ&uid={email}",
        ),
        (
            "http://x.example/r?a=1#frag",
            vec![("reset_password_token", "{token}")],
            "http://x.example/r?a=1&reset_password_token={token}#frag?a=1&reset_password_token={token}",
        ),
        (
            "http://y.example/z",
            vec![("reset_password_token", "{token}")],
            "http://y.example/z?reset_password_token={token}",
        ),
        (
            "http://x.example/ok",
            vec![("account_confirmation_success", "false")],
            "http://x.example/ok?account_confirmation_success=false",
        ),
        (
            "http://x.example/ok?z=1",
            vec![("account_confirmation_success", "true")],
            "http://x.example/ok?z=1&account_confirmation_success=true",
        ),
        (
            "http://x.example/ok?z=1",
            vec![("account_confirmation_success", "false")],
            "http://x.example/ok?z=1&account_confirmation_success=false",
        ),
        (
            "http://x.example/ok2",
            vec![("account_confirmation_success", "false")],
            "http://x.example/ok2?account_confirmation_success=false",
        ),
        (
            "http://d.example/c",
            vec![("account_confirmation_success", "true")],
            "http://d.example/c?account_confirmation_success=true",
        ),
    ] {
        // The recording has these two in place of what they were.
        let location = location.replace('{', "%7B").replace('}', "%7D");
        assert_eq!(list.check(target).unwrap().with_params(&params), location, "{target}");
    }
}

#[test]
fn a_landing_keeps_what_the_target_has() {
    let params = [("p", "a b+c&d=e#f/\u{e9}\r\n"), ("m", "ann@example.com"), ("q", "")];
    let query = "m=ann%40example.com&p=a+b%2Bc%26d%3De%23f%2F%C3%A9%0D%0A&q=";
    for (target, landing) in [
        ("https://app.example.com", format!("https://app.example.com/?{query}")),
        ("https://app.example.com/?", format!("https://app.example.com/?{query}")),
        ("https://app.example.com/#", format!("https://app.example.com/?{query}#?{query}")),
        ("https://app.example.com/#/in", format!("https://app.example.com/?{query}#/in?{query}")),
        ("https://app.example.com/#/in?t=1", format!("https://app.example.com/?{query}#/in?t=1&{query}")),
        ("https://app.example.com/x?b=2&a=%20", format!("https://app.example.com/x?b=2&a=%20&{query}")),
        ("https://app.example.com/\u{e9}?\u{e9}", format!("https://app.example.com/%C3%A9?%C3%A9&{query}")),
        ("myapp://callback", format!("myapp://callback?{query}")),
        ("myapp://callback?a#b", format!("myapp://callback?a&{query}#b?a&{query}")),
    ] {
        assert_eq!(check(target).unwrap().with_params(&params), landing);
    }
    for target in ["https://app.example.com/x", "https://app.example.com/#x"] {
        assert_eq!(check(target).unwrap().with_params(&[]), target);
    }
}

/// Good and bad targets, each with each mutation at each place where it could matter.
#[test]
fn of_many_hostile_targets_only_allowed_ones_get_through() {
    let list = list();
    let mut tried = BTreeSet::new();
    let mut accepted = 0;
    for base in BASES {
        let boundaries: Vec<usize> = (0..=base.len())
            .filter(|at| {
                let beside = |at: usize| base.as_bytes().get(at).is_none_or(|byte| !byte.is_ascii_alphanumeric());
                at == &0 || beside(*at) || beside(*at - 1) || at % 5 == 0
            })
            .collect();
        for (mutation, at) in MUTATIONS.iter().flat_map(|mutation| boundaries.iter().map(move |at| (mutation, *at))) {
            let inserted = format!("{}{mutation}{}", &base[..at], &base[at..]);
            let replaced = format!("{}{mutation}{}", &base[..at], base.get(at + 1..).unwrap_or_default());
            for target in [inserted, replaced] {
                if tried.insert(target.clone()) {
                    accepted += usize::from(assert_safe(&list, &target));
                }
            }
        }
    }
    assert!(tried.len() > 10_000, "only {}", tried.len());
    // Those whose query, fragment or path alone was touched.
    assert!(accepted > 500 && accepted < tried.len() / 2, "{accepted} of {}", tried.len());
}

proptest! {
    #![proptest_config(Config { cases: 2_000, failure_persistence: None, ..Config::default() })]

    #[test]
    fn of_random_targets_only_allowed_ones_get_through(
        base in prop::sample::select(&BASES[..]),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..3, prop::sample::select(&MUTATIONS[..])), 1..4),
    ) {
        let mut target: Vec<char> = base.chars().collect();
        for (at, removed, mutation) in edits {
            let at = at.index(target.len() + 1);
            let end = (at + removed).min(target.len());
            target.splice(at..end, mutation.chars());
        }
        assert_safe(&list(), &target.into_iter().collect::<String>());
    }

    #[test]
    fn of_arbitrary_text_nothing_breaks(target in "\\PC*", params in prop::collection::vec((".*", ".*"), 0..4)) {
        assert_safe(&list(), &target);
        assert_safe(&list(), &format!("https://app.example.com/{target}"));
        let params: Vec<(&str, &str)> = params.iter().map(|(name, value)| (&**name, &**value)).collect();
        let landing = check("https://app.example.com/#/x").unwrap().with_params(&params);
        assert!(landing.bytes().all(|byte| byte.is_ascii_graphic()), "{landing}");
    }
}

const BASES: [&str; 14] = [
    "https://app.example.com/a?b=c#d",
    "https://app.example.com",
    "https://admin.example.com:8443/a",
    "http://plain.example.com/",
    "https://exact.example.com/landing",
    "https://below.example.com/app/x",
    "https://a.tenants.example.com/",
    "http://[2001:db8::1]:8080/",
    "myapp://callback",
    "https://evil.example/https://app.example.com/",
    "https://evil.example/?u=https://app.example.com/",
    "https://app.example.com.evil.example/",
    "//app.example.com/evil.example",
    "javascript:alert(1)//app.example.com",
];

const MUTATIONS: [&str; 72] = [
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
    "@@",
    "user:pass@",
    "@evil.example/",
    "evil.example@",
    "\\@evil.example/",
    "%40",
    "#@evil.example/",
    "?@evil.example/",
    ":",
    ":443",
    ":80",
    ":8443",
    ":0",
    ":99999",
    ":-1",
    ".",
    "..",
    "/../",
    "/..;/",
    "%2e",
    "%2E%2e",
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
    "\u{ff3c}",
    "\u{ff1a}",
    "\u{ff20}",
    "\u{200b}",
    "\u{ad}",
    "\u{202e}",
    "\u{df}",
    "\u{430}",
    "\u{212a}",
    "A",
    "*",
    ".evil.example",
    "evil",
    "evil.",
    "-",
    "[::1]",
    "127.0.0.1",
    "javascript:",
    "data:text/html,",
];

/// Whether a target is accepted; if so, it has to lead where it may for each who reads it.
fn assert_safe(list: &RedirectAllowlist, target: &str) -> bool {
    let Ok(redirect) = list.check(target) else { return false };
    let landing = redirect.with_params(&[("access-token", "t"), ("uid", "ann@example.com")]);
    let header = HeaderValue::from_str(&landing).expect("a header value");
    assert!(header.as_bytes().iter().all(u8::is_ascii_graphic), "{target:?}: {landing}");
    // As a browser resolves what was given, and what it is given.
    let page = Url::parse("https://auth.example.net/auth/password/edit?x=y").expect("a page");
    for reference in [target, &landing] {
        let url = page.join(reference).expect("a link");
        let host = url.host_str().unwrap_or_default();
        assert!(leads_where_it_may(url.scheme(), host, url.port_or_known_default(), url.path()), "{target:?}: {url}");
    }
    // As a parser of the other school reads it (RFC 3986), which mends nothing; so it may refuse what was given.
    let uris = [target.parse::<Uri>().ok(), Some(landing.parse().expect("a URI"))];
    for uri in uris.into_iter().flatten() {
        let (scheme, host) = (uri.scheme_str().unwrap_or_default(), uri.host().unwrap_or_default());
        let port = uri.port_u16().or(match scheme {
            "https" => Some(443),
            "http" => Some(80),
            _ => None,
        });
        let path = if scheme == "myapp" { uri.path().trim_end_matches('/') } else { uri.path() };
        assert!(leads_where_it_may(scheme, host, port, path), "{target:?}: {uri}");
    }
    true
}

/// [`ENTRIES`], written out.
fn leads_where_it_may(scheme: &str, host: &str, port: Option<u16>, path: &str) -> bool {
    match (scheme, host, port) {
        ("https", "app.example.com", Some(443))
        | ("https", "admin.example.com", Some(8443))
        | ("http", "plain.example.com", Some(80))
        | ("http", "[2001:db8::1]", Some(8080)) => true,
        ("https", "exact.example.com", Some(443)) => path == "/landing",
        ("https", "below.example.com", Some(443)) => path == "/app" || path.starts_with("/app/"),
        ("myapp", "callback", None) => path.is_empty(),
        ("https", host, Some(443)) => {
            let labels: Vec<&str> = host.split('.').collect();
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            labels.len() == 4 && labels[1..] == ["tenants", "example", "com"] && labels[0].chars().all(plain)
        }
        _ => false,
    }
}
