//! Profile fields: how they are declared, and which values they take.

use std::sync::Arc;

use baton_core::{Account, Key, KeyRing, Timestamp};
use baton_engine::{
    AccountChange, Attempt, Engine, FieldKind, Grant, OsRandom, ProfileField, RegisterError, Registered, Registration,
    SecretString, Settings, SignedIn, UpdateError, Visitor,
};
use baton_store::clock::ManualClock;
use baton_store::memory::MemoryStore;
use serde_json::{Map, Value, json};

const SAFE: i64 = 9_007_199_254_740_991;

#[test]
fn a_declaration_is_a_name_and_a_type() {
    for (declaration, name, kind, shown) in [
        ("name", "name", FieldKind::Text { max_chars: 255 }, "name"),
        ("name:text", "name", FieldKind::Text { max_chars: 255 }, "name"),
        ("name:text(255)", "name", FieldKind::Text { max_chars: 255 }, "name"),
        ("bio:text(500)", "bio", FieldKind::Text { max_chars: 500 }, "bio:text(500)"),
        ("b:text(1)", "b", FieldKind::Text { max_chars: 1 }, "b:text(1)"),
        ("b:text(65536)", "b", FieldKind::Text { max_chars: 65536 }, "b:text(65536)"),
        ("age:integer(0..150)", "age", FieldKind::Integer { min: 0, max: 150 }, "age:integer(0..150)"),
        ("t:integer(-5..-5)", "t", FieldKind::Integer { min: -5, max: -5 }, "t:integer(-5..-5)"),
        ("points:integer", "points", FieldKind::Integer { min: -SAFE, max: SAFE }, "points:integer"),
        ("newsletter:boolean", "newsletter", FieldKind::Boolean, "newsletter:boolean"),
        ("web-site_2:url", "web-site_2", FieldKind::Url, "web-site_2:url"),
        ("birthday:date", "birthday", FieldKind::Date, "birthday:date"),
    ] {
        let field = ProfileField::parse(declaration).unwrap();
        assert_eq!((field.name(), field.kind()), (name, kind), "{declaration}");
        assert_eq!(field.to_string(), shown);
        assert_eq!(ProfileField::parse(shown), Ok(field));
    }
    assert!(ProfileField::parse(&"x".repeat(64)).is_ok());
}

#[test]
fn what_is_no_declaration_is_refused_with_its_text() {
    let long = "x".repeat(65);
    for (declaration, why) in [
        ("", "1 to 64 letters"),
        (":text", "1 to 64 letters"),
        ("a b", "1 to 64 letters"),
        ("naïve", "1 to 64 letters"),
        ("a.b", "1 to 64 letters"),
        (&long, "1 to 64 letters"),
        ("a:", "has a type that is none of"),
        ("a:string", "has a type that is none of"),
        ("a:Text", "has a type that is none of"),
        ("a: text", "has a type that is none of"),
        ("a:text:url", "has a type that is none of"),
        ("a:number(3)", "has a type that is none of"),
        ("a:text(", "not closed at the end"),
        ("a:text(5", "not closed at the end"),
        ("a:text(5) ", "not closed at the end"),
        ("a:text()", "from 1 to 65536"),
        ("a:text(0)", "from 1 to 65536"),
        ("a:text(-1)", "from 1 to 65536"),
        ("a:text(65537)", "from 1 to 65536"),
        ("a:text(99999999999999999999)", "from 1 to 65536"),
        ("a:text(5))", "from 1 to 65536"),
        ("a:integer()", "the least and the greatest"),
        ("a:integer(5)", "the least and the greatest"),
        ("a:integer(5..)", "the least and the greatest"),
        ("a:integer(..5)", "the least and the greatest"),
        ("a:integer(6..5)", "the least and the greatest"),
        ("a:integer(0..=5)", "the least and the greatest"),
        ("a:integer(0..1.5)", "the least and the greatest"),
        ("a:integer(0..9007199254740992)", "the least and the greatest"),
        ("a:integer(-9007199254740992..0)", "the least and the greatest"),
        ("a:boolean(1)", "gives boolean a limit"),
        ("a:url(100)", "gives url a limit"),
        ("a:date()", "gives date a limit"),
    ] {
        let said = ProfileField::parse(declaration).unwrap_err().to_string();
        assert!(said.contains(why), "{declaration}: {said}");
        assert!(said.starts_with(&format!("{declaration:?} ")), "{said}");
    }
}

#[tokio::test]
async fn text_takes_scalars_within_its_limit() {
    let owner = Owner::of(&["bio:text(5)"]).await;
    owner.keeps("bio", json!("Grüße"), json!("Grüße")).await;
    owner.keeps("bio", json!(""), json!("")).await;
    owner.keeps("bio", json!("a\tb\nc"), json!("a\tb\nc")).await;
    owner.keeps("bio", json!("ab\r\ncd"), json!("ab\ncd")).await;
    owner.keeps("bio", json!(5), json!("5")).await;
    owner.keeps("bio", json!(-1.5), json!("-1.5")).await;
    owner.keeps("bio", json!(true), json!("true")).await;
    for nothing in [json!(null), json!(["a"]), json!({ "a": 1 })] {
        owner.keeps("bio", nothing, Value::Null).await;
    }
    for long in [json!("Grüßen"), json!(123_456), json!("💩💩💩💩💩💩")] {
        owner.refuses("bio", long, "is too long (maximum is 5 characters)").await;
    }
    for control in ["a\0", "\u{1b}[2J", "\u{7f}", "\u{85}", "\u{9f}", "a\rb", "\u{b}", "\u{1}"] {
        owner.refuses("bio", json!(control), "must not contain control characters").await;
    }
}

#[tokio::test]
async fn an_integer_takes_whole_numbers_within_its_range() {
    let owner = Owner::of(&["age:integer(-1..150)", "points:integer"]).await;
    for (given, kept) in [
        (json!(0), json!(0)),
        (json!(150), json!(150)),
        (json!(-1), json!(-1)),
        (json!("150"), json!(150)),
        (json!("-1"), json!(-1)),
        (json!("007"), json!(7)),
        (json!(""), Value::Null),
        (json!(null), Value::Null),
    ] {
        owner.keeps("age", given, kept).await;
    }
    for given in [
        json!(151),
        json!(-2),
        json!("151"),
        json!(1.5),
        json!(1.0),
        json!(1e3),
        json!("1.0"),
        json!("1e2"),
        json!("+1"),
        json!("-"),
        json!(" 1"),
        json!("1\n"),
        json!("0x1"),
        json!("١"),
        json!("99999999999999999999"),
        json!(u64::MAX),
        json!(true),
        json!([1]),
        json!({ "a": 1 }),
    ] {
        owner.refuses("age", given, "has to be a whole number from -1 to 150").await;
    }
    owner.keeps("points", json!(SAFE), json!(SAFE)).await;
    owner.keeps("points", json!((-SAFE).to_string()), json!(-SAFE)).await;
    let fault = "has to be a whole number from -9007199254740991 to 9007199254740991";
    owner.refuses("points", json!(SAFE + 1), fault).await;
}

#[tokio::test]
async fn a_boolean_takes_what_forms_and_json_write() {
    let owner = Owner::of(&["newsletter:boolean"]).await;
    for (given, kept) in [
        (json!(true), json!(true)),
        (json!(false), json!(false)),
        (json!("true"), json!(true)),
        (json!("false"), json!(false)),
        (json!("1"), json!(true)),
        (json!("0"), json!(false)),
        (json!(""), Value::Null),
        (json!(null), Value::Null),
    ] {
        owner.keeps("newsletter", given, kept).await;
    }
    for given in [json!(1), json!(0), json!("yes"), json!("True"), json!(" true"), json!([true]), json!({})] {
        owner.refuses("newsletter", given, "has to be true or false").await;
    }
}

#[tokio::test]
async fn a_url_is_an_absolute_web_address() {
    let owner = Owner::of(&["website:url"]).await;
    let longest = format!("https://example.com/{}", "é".repeat(2048 - 20));
    for url in [
        "https://example.com",
        "http://example.com:8080/a?b=c#d",
        "HTTPS://Example.com/",
        "https://bücher.example/",
        "http://[::1]/",
        &longest,
    ] {
        owner.keeps("website", json!(url), json!(url)).await;
    }
    owner.keeps("website", json!(""), Value::Null).await;
    owner.keeps("website", json!(null), Value::Null).await;
    for given in [
        json!("example.com"),
        json!("//example.com"),
        json!("/path"),
        json!("https:example.com"),
        json!("https:/example.com"),
        json!("https://"),
        json!("https://exa mple.com"),
        json!(" https://example.com"),
        json!("https://example.com\n"),
        json!("java\tscript:alert(1)"),
        json!("javascript:alert(1)"),
        json!("data:text/html,x"),
        json!("ftp://example.com"),
        json!("https:\\\\example.com"),
        json!("https://example.com\\@evil.example"),
        json!("https://example.com:99999"),
        json!("httpsé//"),
        json!(5),
        json!(["https://example.com"]),
    ] {
        owner.refuses("website", given, "has to be an address that begins with http:// or https://").await;
    }
    owner.refuses("website", json!(format!("{longest}x")), "is too long (maximum is 2048 characters)").await;
}

#[tokio::test]
async fn a_date_is_a_day_of_the_calendar() {
    let owner = Owner::of(&["birthday:date"]).await;
    for day in ["2026-12-31", "2024-02-29", "0001-01-01", "9999-12-31"] {
        owner.keeps("birthday", json!(day), json!(day)).await;
    }
    owner.keeps("birthday", json!(""), Value::Null).await;
    owner.keeps("birthday", json!(null), Value::Null).await;
    for given in [
        json!("2026-02-29"),
        json!("1900-02-29"),
        json!("2026-04-31"),
        json!("2026-13-01"),
        json!("2026-00-10"),
        json!("2026-01-00"),
        json!("2026-1-1"),
        json!("2026-01-1"),
        json!("2026-01-011"),
        json!("2026-01-"),
        json!("2026"),
        json!("20260101"),
        json!("2026-W01-1"),
        json!("2026-01-01T00:00"),
        json!("2026-01-01 "),
        json!("-002026-01-01"),
        json!("+02026-1-1"),
        json!("31.12.2026"),
        json!("２026-1-1"),
        json!(20_260_101),
        json!(true),
        json!(["2026-01-01"]),
    ] {
        owner.refuses("birthday", given, "has to be a date such as 2026-12-31").await;
    }
}

#[tokio::test]
async fn a_profile_is_registered_returned_and_changed_with_its_types() {
    let declarations = ["name", "age:integer(0..150)", "newsletter:boolean", "website:url", "birthday:date"];
    let engine = engine(&declarations).await;
    let sent = json!({ "name": "Ann", "age": "41", "newsletter": "1", "birthday": "1985-10-15", "admin": true });
    let signed_in = register(&engine, sent).await;
    let kept = json!({
        "name": "Ann", "age": 41, "newsletter": true, "birthday": "1985-10-15", "website": null,
    });
    assert_eq!(Value::Object(signed_in.account.profile.fields()), kept);

    let grant = grant(&engine, &signed_in).await;
    let profile = json!({ "age": null, "newsletter": "0", "website": "https://ann.example" });
    let change = AccountChange { profile: fields(profile), ..AccountChange::default() };
    let kept = json!({
        "name": "Ann", "age": null, "newsletter": false, "birthday": "1985-10-15", "website": "https://ann.example",
    });
    let changed = engine.update_account(&grant, change, &Visitor::default()).await.unwrap();
    assert_eq!(Value::Object(changed.profile.fields()), kept);
}

#[tokio::test]
async fn all_faults_come_together() {
    let engine = engine(&["name", "age:integer(0..150)", "newsletter:boolean", "website:url", "birthday:date"]).await;
    let sent = json!({
        "name": "x".repeat(256), "age": 151, "newsletter": "maybe", "website": "example.com", "birthday": "tomorrow",
    });
    let Err(RegisterError::Invalid(faults)) = engine.register(form("nobody", sent), &Visitor::default()).await else {
        panic!("it was accepted");
    };
    let expected = [
        ("email", "is not an e-mail address"),
        ("name", "is too long (maximum is 255 characters)"),
        ("age", "has to be a whole number from 0 to 150"),
        ("newsletter", "has to be true or false"),
        ("website", "has to be an address that begins with http:// or https://"),
        ("birthday", "has to be a date such as 2026-12-31"),
    ];
    assert_eq!(faults.iter().collect::<Vec<_>>(), expected);
}

/// Somebody who is signed in and changes one field after the other.
struct Owner {
    engine: Engine,
    grant: Grant,
}

impl Owner {
    async fn of(declarations: &[&str]) -> Self {
        let engine = engine(declarations).await;
        let signed_in = register(&engine, json!({})).await;
        let grant = grant(&engine, &signed_in).await;
        Self { engine, grant }
    }

    async fn keeps(&self, field: &str, given: Value, kept: Value) {
        let account = self.set(field, given.clone()).await.unwrap_or_else(|error| panic!("{given}: {error:?}"));
        assert_eq!(account.profile.fields()[field], kept, "{given}");
    }

    async fn refuses(&self, field: &str, given: Value, fault: &str) {
        match self.set(field, given.clone()).await {
            Err(UpdateError::Invalid(faults)) => {
                assert_eq!(faults.iter().collect::<Vec<_>>(), [(field, fault)], "{given}")
            }
            other => panic!("{given}: {other:?}"),
        }
    }

    async fn set(&self, field: &str, given: Value) -> Result<Account, UpdateError> {
        let change = AccountChange { profile: fields(json!({ field: given })), ..AccountChange::default() };
        self.engine.update_account(&self.grant, change, &Visitor::default()).await
    }
}

async fn register(engine: &Engine, profile: Value) -> SignedIn {
    match engine.register(form("ann@example.com", profile), &Visitor::default()).await {
        Ok(Registered::SignedIn(signed_in)) => signed_in,
        other => panic!("{other:?}"),
    }
}

async fn engine(declarations: &[&str]) -> Engine {
    let store = MemoryStore::new(Arc::new(ManualClock::new(Timestamp::from_millis(1_790_000_000_000))));
    let keys = KeyRing::new(vec![Key::new(0, *b"0123456789abcdef0123456789abcdef").expect("an id in range")]);
    let profile_fields = declarations.iter().map(|declaration| ProfileField::parse(declaration));
    let profile_fields = profile_fields.collect::<Result<_, _>>().expect("declarations");
    let settings = Settings { profile_fields, ..Settings::default() };
    Engine::open(Arc::new(store), keys.expect("a ring"), Arc::new(OsRandom), settings).await.expect("an engine")
}

async fn grant(engine: &Engine, signed_in: &SignedIn) -> Grant {
    let held = &signed_in.credentials;
    let client = held.client.to_string();
    let attempt = Attempt { token: held.token.expose(), client: &client, uid: &held.uid, unbatch: false, ip: None };
    engine.authenticate(attempt).await.expect("an accepted request")
}

fn form(email: &str, profile: Value) -> Registration {
    Registration {
        email: Some(email.into()),
        password: Some(SecretString::from("correct horse battery")),
        password_confirmation: None,
        profile: fields(profile),
        ..Registration::default()
    }
}

fn fields(object: Value) -> Map<String, Value> {
    object.as_object().cloned().unwrap_or_default()
}
