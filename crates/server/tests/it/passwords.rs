//! New passwords and those of Devise, with the real program.

use serde_json::{Value, json};

use crate::support::{Answer, Baton, PASSWORD, command, run};

const PEPPER: &str = "pepper of the old application";
/// Made with the Python package `bcrypt` 5.0.0.
const PEPPERED: &str = "$2a$04$0123456789ABCDEFGHIJKeQCfH9g6BtJBK6rz5gbVTP0g3KtvoPa6";

fn register(baton: &Baton, email: &str, password: &str) -> Answer {
    baton.post("/auth", &json!({ "email": email, "password": password, "name": "Annabel Hathersage" })).send()
}

#[test]
fn a_weak_password_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("passwords.txt");
    std::fs::write(&list, "Acme Corp Wien\r\n\nanother one of ours\n").unwrap();
    let list = format!("--set=password.blocklist_file={}", list.display());
    let baton = Baton::dev(&["--set=password.min_score=3", &list]);
    for (password, fault) in [
        ("password", "is too common"),
        ("acme corp wien", "is too common"),
        ("Annabel Hathersage", "must not be taken from the e-mail address or the profile"),
        ("qwertyuiop1", "is too easy to guess"),
        ("short", "is too short (minimum is 8 characters)"),
    ] {
        let answer = register(&baton, "ann@example.com", password);
        assert_eq!(answer.status, 422, "{answer:?}");
        let errors = &answer.json()["errors"];
        assert_eq!(errors["password"], json!([fault]), "{errors}");
        assert_eq!(errors["full_messages"].as_array().map(Vec::len), Some(1), "{errors}");
        assert!(answer.held().is_none());
    }
    // Together with what else is wrong.
    let errors = register(&baton, "nobody", "qwertyuiop1").json()["errors"].clone();
    assert!(errors["email"].is_array() && errors["password"].is_array(), "{errors}");

    let held = register(&baton, "ann@example.com", PASSWORD).held().expect("a session");
    let change = |password: &str| {
        let body = json!({ "password": password, "current_password": PASSWORD });
        baton.request("PUT", "/auth").json(&body).held(&held).send()
    };
    let answer = change("annabel hathersage");
    assert_eq!(answer.status, 422, "{answer:?}");
    let fault = json!(["must not be taken from the e-mail address or the profile"]);
    assert_eq!(answer.json()["errors"]["password"], fault, "{answer:?}");
    assert!(!baton.log().contains("qwertyuiop1") && !baton.log().contains("hathersage"), "{}", baton.log());
}

#[test]
fn while_developing_any_password_of_the_right_length_will_do() {
    let baton = Baton::dev(&[]);
    assert_eq!(register(&baton, "ann@example.com", "secret123").status, 200);
    assert!(!baton.log().contains("min_score"), "{}", baton.log());
}

#[test]
fn an_account_of_devise_signs_in_and_its_pepper_is_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let baton = Baton::dev_in(folder.path(), &[]).unwrap();
    baton.register("ann@example.com");
    baton.stop();
    let database = rusqlite::Connection::open(folder.path().join("baton.db")).unwrap();
    assert_eq!(database.execute("UPDATE accounts SET password = ?1", [PEPPERED]).unwrap(), 1);
    drop(database);

    let mut dev = command(&["dev", "--listen", "127.0.0.1:0", "--set", "log.level=trace", "--data-dir"]);
    dev.arg(folder.path()).env("BATON_PASSWORD__BCRYPT_PEPPER", PEPPER);
    let baton = Baton::of_command(dev, folder.path()).unwrap();
    assert_eq!(
        baton.post("/auth/sign_in", &json!({ "email": "ann@example.com", "password": "wrong" })).send().status,
        401
    );
    baton.sign_in("ann@example.com");
    baton.stop();
    let log = baton.log();
    assert!(!log.contains("pepper of") && !log.contains("$2a$"), "{log}");

    // It has been hashed anew, and needs no pepper any more.
    let baton = Baton::dev_in(folder.path(), &[]).unwrap();
    let answer = baton.sign_in_call("ann@example.com").send();
    assert_eq!((answer.status, &answer.json()["data"]["email"]), (200, &Value::from("ann@example.com")));
}

#[test]
fn a_list_that_cannot_be_read_is_named_at_the_start() {
    let checked = run(&["config", "check", "--set", "password.blocklist_file=/nowhere/passwords.txt"]);
    assert_eq!(checked.code(), Some(2));
    let expected = "password.blocklist_file = \"/nowhere/passwords.txt\" (--set): it cannot be read: No such file";
    assert!(checked.stderr.contains(expected), "{}", checked.stderr);
}
