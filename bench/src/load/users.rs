//! Who sends the requests: accounts, and the tokens that they hold.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::clock::now;
use crate::http::{Answer, Connection, Target};
use crate::random::SplitMix;
use crate::{Failure, note};

pub(super) const PASSWORD: &str = "correct horse battery";
/// How many sign in at once. Passwords are hashed on half of the cores anyway.
const SIGNING_IN: usize = 8;

/// What a front end keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct User {
    pub(crate) uid: String,
    pub(crate) client: String,
    pub(crate) token: String,
    pub(crate) expiry: u64,
}

/// What an answer says about the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Issued {
    /// There are no auth headers.
    Nothing,
    /// They are blank: keep the token.
    Blank,
    New {
        token: String,
        expiry: u64,
    },
}

impl Issued {
    pub(crate) fn of(answer: &Answer<'_>) -> Self {
        match answer.header("access-token") {
            None => Self::Nothing,
            Some("") => Self::Blank,
            Some(token) => {
                let expiry = answer.header("expiry").and_then(|expiry| expiry.parse().ok()).unwrap_or(0);
                Self::New { token: token.to_owned(), expiry }
            }
        }
    }
}

impl User {
    /// Signed in to nothing: a token of the right form whose signature is drawn.
    pub(crate) fn made_up(seed: u32, number: usize, random: &mut SplitMix) -> Self {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut drawn = |length| (0..length).map(|_| char::from(ALPHABET[random.below(64)])).collect::<String>();
        // Version 1, key 0, generation 2; 16 bytes of client end in 4 bits that are 0.
        let (token, client) = (format!("EAAAAAI{}", drawn(21)), format!("{}A", drawn(21)));
        Self { uid: email(seed, number), client, token, expiry: 0 }
    }

    /// Takes the token of an answer as a front end does: not a blank one, and not one that expires before the one it holds.
    pub(crate) fn adopt(&mut self, issued: Issued) {
        if let Issued::New { token, expiry } = issued
            && expiry >= self.expiry
        {
            (self.token, self.expiry) = (token, expiry);
        }
    }

    /// Puts a request with the credentials into the buffer.
    pub(crate) fn get(&self, target: &Target, path: &str, request: &mut Vec<u8>) {
        request.clear();
        let parts = [
            "GET ",
            path,
            " HTTP/1.1\r\nhost: ",
            &target.authority,
            "\r\naccess-token: ",
            &self.token,
            "\r\nclient: ",
            &self.client,
            "\r\nuid: ",
            &self.uid,
            "\r\n\r\n",
        ];
        parts.iter().for_each(|part| request.extend_from_slice(part.as_bytes()));
    }
}

fn email(seed: u32, number: usize) -> String {
    format!("bench-{seed:08x}-{number:05}@example.com")
}

/// The users of an earlier run; none if there is no such file yet.
pub(crate) fn read(file: &Path) -> Result<Vec<User>, Failure> {
    let failed = |error| Failure::Io(file.display().to_string(), error);
    if !file.exists() {
        return Ok(Vec::new());
    }
    let text = fs::read(file).map_err(failed)?;
    serde_json::from_slice(&text).map_err(|error| failed(error.into()))
}

/// For the owner alone: these are credentials.
pub(crate) fn write(file: &Path, users: &[User]) -> Result<(), Failure> {
    let failed = |error| Failure::Io(file.display().to_string(), error);
    let text = serde_json::to_vec(users).map_err(|error| failed(error.into()))?;
    let opened = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file);
    opened.and_then(|mut opened| opened.write_all(&text)).map_err(failed)
}

/// So many users with tokens that are good: the saved ones, signed in again where need be, and new ones.
pub(crate) fn sign_in(target: &Target, seed: u32, count: usize, saved: Vec<User>) -> Result<Vec<User>, Failure> {
    if saved.len() < count {
        note(&format!("signing in {} users", count - saved.len()));
    }
    let mut saved: Vec<Option<User>> = saved.into_iter().map(Some).collect();
    saved.resize(count, None);
    let mut jobs: Vec<(usize, Option<User>)> = saved.into_iter().enumerate().collect();
    let mut parts = Vec::new();
    while !jobs.is_empty() {
        let rest = jobs.split_off(jobs.len().min(count.div_ceil(SIGNING_IN)));
        parts.push(std::mem::replace(&mut jobs, rest));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Io("the runtime".into(), error))?;
    let signed_in =
        runtime.block_on(try_join_all(parts.into_iter().map(|part| sign_in_one_by_one(target, seed, part))));
    Ok(signed_in?.concat())
}

async fn sign_in_one_by_one(
    target: &Target,
    seed: u32,
    part: Vec<(usize, Option<User>)>,
) -> Result<Vec<User>, Failure> {
    let mut connection = Connection::new(target.address, now());
    let mut users = Vec::with_capacity(part.len());
    for (number, saved) in part {
        users.push(sign_in_one(target, &mut connection, seed, number, saved).await?);
    }
    Ok(users)
}

async fn sign_in_one(
    target: &Target,
    connection: &mut Connection,
    seed: u32,
    number: usize,
    saved: Option<User>,
) -> Result<User, Failure> {
    let mut requests = Vec::new();
    if let Some(saved) = &saved {
        let mut request = Vec::new();
        saved.get(target, "/auth/validate_token", &mut request);
        requests.push(request);
    }
    let email = saved.as_ref().map_or_else(|| email(seed, number), |saved| saved.uid.clone());
    let account = json!({ "email": email, "password": PASSWORD }).to_string();
    requests.extend(["/auth", "/auth/sign_in"].map(|path| target.post(path, &account)));

    let mut refused = String::new();
    for request in requests {
        let exchanged = connection.exchange(&request, now(), |answer| {
            let header = |name| answer.header(name).unwrap_or_default().to_owned();
            (answer.status, Issued::of(answer), header("client"), header("uid"), answer.summary())
        });
        let exchanged = exchanged.await.map_err(|error| Failure::Io(target.authority.clone(), error))?;
        match (exchanged, &saved) {
            ((200, issued @ Issued::New { .. }, client, uid, _), _) => {
                let mut user = User { uid, client, token: String::new(), expiry: 0 };
                user.adopt(issued);
                return Ok(user);
            }
            // The saved token is good, and was handed out so recently that it stays.
            ((200, Issued::Blank, ..), Some(saved)) => return Ok(saved.clone()),
            ((.., summary), _) => refused = summary,
        }
    }
    Err(Failure::Server(format!("{email} could not sign in: {refused}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> User {
        User::made_up(1, 0, &mut SplitMix::new(1))
    }

    #[test]
    fn a_blank_or_older_token_is_not_adopted() {
        let new = |token: &str, expiry| Issued::New { token: token.to_owned(), expiry };
        let mut user = user();
        user.adopt(new("second", 20));
        for older in [Issued::Blank, Issued::Nothing, new("first", 19)] {
            user.adopt(older);
            assert_eq!((user.token.as_str(), user.expiry), ("second", 20));
        }
        // Rotations within a second expire at the same time.
        user.adopt(new("third", 20));
        assert_eq!(user.token, "third");
    }

    #[test]
    fn made_up_credentials_have_the_right_form() {
        let user = user();
        assert_eq!((user.token.len(), user.client.len()), (28, 22));
        let target = Target::parse("http://127.0.0.1:1").unwrap();
        let mut request = Vec::new();
        user.get(&target, "/x", &mut request);
        let text = String::from_utf8(request).unwrap();
        assert!(text.starts_with("GET /x HTTP/1.1\r\nhost: 127.0.0.1:1\r\naccess-token: EAAAAAI"), "{text}");
        assert!(text.ends_with("\r\nuid: bench-00000001-00000@example.com\r\n\r\n"), "{text}");
    }

    #[test]
    fn credentials_are_kept_for_the_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("credentials");
        assert_eq!(read(&file).unwrap(), []);
        write(&file, &[user()]).unwrap();
        assert_eq!(read(&file).unwrap(), [user()]);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
