//! Accounts, their passwords, and where their routes are.

use std::fs::File;

use baton_core::password::PasswordPolicy;
use baton_engine::{
    Blocklist, BlocklistError, CurrentPassword, Hashing, PasswordStrength, ProfileField, SecretString, Settings,
};

use super::reader::Reader;
use super::{links, rotation};

/// What the routes themselves put into an account's JSON or read from a form: no profile field may take their place.
const RESERVED_FIELDS: [&str; 20] = [
    "id",
    "uid",
    "email",
    "provider",
    "password",
    "password_confirmation",
    "current_password",
    "allow_password_change",
    "created_at",
    "updated_at",
    "confirm_success_url",
    "redirect_url",
    "config_name",
    "confirmed_at",
    "unconfirmed_email",
    "reset_password_token",
    "confirmation_token",
    "unlock_token",
    "tokens",
    "realm",
];

pub(super) fn read(reader: &mut Reader<'_>) -> Settings {
    Settings {
        rules: rotation::read(reader),
        realm: realm(reader),
        max_number_of_devices: reader.number("max_number_of_devices", 1..=100_000),
        password_policy: policy(reader),
        password_strength: strength(reader),
        hashing: hashing(reader),
        bcrypt_pepper: bcrypt_pepper(reader),
        check_current_password_before_update: check_current_password(reader),
        remove_tokens_after_password_reset: reader.flag("remove_tokens_after_password_reset"),
        profile_fields: profile_fields(reader),
        registerable: reader.flag("registerable"),
        paranoid: reader.flag("paranoid"),
        redirects: links::redirects(reader),
        confirmation: links::confirmation(reader),
        reset: links::reset(reader),
        lockout: links::lockout(reader),
        // The same for all realms, and known when the server is: see `Config::load`.
        public_url: String::new(),
        webhooks: Vec::new(),
    }
}

/// Where the auth routes are.
pub(super) fn mount(reader: &mut Reader<'_>) -> String {
    const KEY: &str = "mount";
    if !reader.is_own(KEY) {
        let name = reader.own_name(KEY);
        reader.refuse_other(&name, "is missing; each realm has routes of its own, such as \"/admin_auth\"");
        return String::new();
    }
    let mount = reader.text(KEY);
    let segment = |segment: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
        !matches!(segment, "" | "." | "..") && segment.chars().all(plain) && !segment.ends_with(".json")
    };
    let first = mount.split('/').nth(1).unwrap_or_default();
    if !mount.strip_prefix('/').is_some_and(|rest| rest.split('/').all(segment)) {
        reader.refuse(KEY, "has to be a path such as \"/auth\": a slash first, none last; letters, digits and -._~");
    } else if matches!(first, "demo" | "dev" | "healthz" | "readyz") {
        reader.refuse(KEY, "/demo, /dev, /healthz and /readyz are taken");
    }
    mount
}

fn check_current_password(reader: &mut Reader<'_>) -> CurrentPassword {
    const KEY: &str = "check_current_password_before_update";
    // As the gem writes it.
    if reader.is_false(KEY) {
        return CurrentPassword::Never;
    }
    let words = [
        ("password", CurrentPassword::Password),
        ("attributes", CurrentPassword::Attributes),
        ("never", CurrentPassword::Never),
    ];
    reader.choice(KEY, words)
}

/// The name of the realm. A further one has it from its table.
fn realm(reader: &mut Reader<'_>) -> String {
    const SHAPE: &str = "has to be 1 to 64 letters, digits, dashes and underscores";
    let name = reader.realm().map_or_else(|| reader.text("realm"), str::to_owned);
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if (1..=64).contains(&name.len()) && name.chars().all(plain) {
        return name;
    }
    match reader.realm() {
        Some(_) => reader.refuse_other(&format!("realms.{name}"), format!("the name {SHAPE}")),
        None => reader.refuse("realm", SHAPE),
    }
    name
}

fn profile_fields(reader: &mut Reader<'_>) -> Vec<ProfileField> {
    const KEY: &str = "profile_fields";
    let mut fields: Vec<ProfileField> = Vec::new();
    for declaration in reader.list(KEY) {
        match ProfileField::parse(&declaration) {
            Err(error) => reader.refuse(KEY, error),
            Ok(field) if RESERVED_FIELDS.contains(&field.name()) => {
                reader
                    .refuse(KEY, format!("{:?} has a meaning of its own and cannot be a profile field", field.name()));
            }
            Ok(field) if fields.iter().any(|other| other.name() == field.name()) => {
                reader.refuse(KEY, format!("{:?} is there twice", field.name()));
            }
            Ok(field) => fields.push(field),
        }
    }
    fields
}

fn policy(reader: &mut Reader<'_>) -> PasswordPolicy {
    let policy = PasswordPolicy {
        min_length: length(reader, "password.min_length"),
        max_length: length(reader, "password.max_length"),
    };
    if policy.max_length < policy.min_length {
        let min_length = reader.name("password.min_length");
        reader.refuse("password.max_length", format!("is below {min_length}"));
    }
    policy
}

fn length(reader: &mut Reader<'_>, key: &str) -> usize {
    usize::from(reader.number::<u16>(key, 1..=4096))
}

fn strength(reader: &mut Reader<'_>) -> PasswordStrength {
    const LIST: &str = "password.blocklist_file";
    let min_score = reader.number("password.min_score", 0..=4);
    let path = reader.text(LIST);
    let list = match &*path {
        "" => Ok(Blocklist::default()),
        path => File::open(path).map_err(BlocklistError::from).and_then(Blocklist::read),
    };
    let blocklist = list.unwrap_or_else(|error| {
        reader.refuse(LIST, error);
        Blocklist::default()
    });
    PasswordStrength { min_score, blocklist }
}

/// What no complaint and no `Debug` may show.
pub(super) const PEPPER: &str = "password.bcrypt_pepper";

fn bcrypt_pepper(reader: &mut Reader<'_>) -> SecretString {
    let pepper = reader.secret(PEPPER);
    // As Devise has it (`pepper.present?`), where a template left nothing but white space.
    if pepper.trim().is_empty() { SecretString::default() } else { pepper.into() }
}

fn hashing(reader: &mut Reader<'_>) -> Hashing {
    const CONCURRENT: &str = "password.concurrent";
    let auto = reader.is(CONCURRENT, "auto");
    Hashing {
        memory_kib: reader.number("password.memory_kib", 19 * 1024..=4 * 1024 * 1024),
        iterations: reader.number("password.iterations", 2..=100),
        parallelism: reader.number("password.parallelism", 1..=64),
        concurrent: if auto {
            reader.text(CONCURRENT);
            Hashing::default().concurrent
        } else {
            reader.number(CONCURRENT, 1..=1024)
        },
        waiting: reader.number("password.waiting", 0..=100_000),
    }
}
