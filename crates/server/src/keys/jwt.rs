//! The keys that JWTs for backends are signed with: Ed25519 (RFC 8032), in a file of PEM blocks as `openssl genpkey` writes them.
//!
//! The first one signs; all of them are published, so that what an older one signed is still verified.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use baton_core::Random as _;
use baton_engine::OsRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{KeysError, MOST, file, load_with};
use crate::config::KeySource;

/// The keys, of which there is at least one. `Debug` shows their names alone.
pub struct JwtKeys {
    signing: Ed25519KeyPair,
    /// The header of everything that is signed, in base64url.
    header: String,
    /// The names of all of them (`kid`): their thumbprints (RFC 7638).
    kids: Vec<String>,
    set: String,
}

/// Why a text holds no keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JwtKeysError {
    /// There is none in it.
    #[error("it holds no private key in PEM form (PKCS#8)")]
    Empty,
    /// A block cannot be read.
    #[error("it is no PEM")]
    Pem,
    /// A key, counted from 1, is of another kind.
    #[error("key {0} is no Ed25519 key")]
    Kind(usize),
    /// A key, counted from 1, is there twice.
    #[error("key {0} is there twice")]
    Twice(usize),
    /// There are more than sixteen.
    #[error("it holds more than sixteen keys")]
    TooMany,
}

impl JwtKeys {
    /// The keys in a text of PEM blocks. What stands between them is passed over.
    ///
    /// # Errors
    /// [`JwtKeysError`], which never shows a key.
    pub fn parse(text: &str) -> Result<Self, JwtKeysError> {
        let mut pairs = Vec::new();
        for (der, number) in PrivatePkcs8KeyDer::pem_slice_iter(text.as_bytes()).zip(1..) {
            let der = Zeroizing::new(der.map_err(|_| JwtKeysError::Pem)?.secret_pkcs8_der().to_vec());
            // Unchecked: openssl writes the private half alone.
            pairs.push(Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map_err(|_| JwtKeysError::Kind(number))?);
        }
        let public: Vec<String> = pairs.iter().map(|pair| URL_SAFE_NO_PAD.encode(pair.public_key().as_ref())).collect();
        if let Some(twice) = (1..public.len()).find(|at| public[..*at].contains(&public[*at])) {
            return Err(JwtKeysError::Twice(twice + 1));
        }
        if pairs.len() > MOST {
            return Err(JwtKeysError::TooMany);
        }
        let signing = pairs.into_iter().next().ok_or(JwtKeysError::Empty)?;
        let kids: Vec<String> = public.iter().map(|x| thumbprint(x)).collect();
        let header = json!({ "typ": "JWT", "alg": "EdDSA", "kid": kids[0] });
        let jwk = |(x, kid): (&String, &String)| json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid, "use": "sig", "alg": "EdDSA" });
        let set = json!({ "keys": public.iter().zip(&kids).map(jwk).collect::<Vec<_>>() });
        Ok(Self { signing, header: URL_SAFE_NO_PAD.encode(header.to_string()), kids, set: set.to_string() })
    }

    /// The public halves as a JWK Set (RFC 7517 §5, RFC 8037 §2).
    #[must_use]
    pub fn set(&self) -> &str {
        &self.set
    }

    /// The names of the keys. The first is of the one that signs.
    #[must_use]
    pub fn kids(&self) -> &[String] {
        &self.kids
    }

    /// A JWT with these claims, a JSON object, in its compact form (RFC 7515 §3.1, RFC 8037 §3.1).
    #[must_use]
    pub(crate) fn sign(&self, claims: &[u8]) -> String {
        let mut jwt = format!("{}.{}", self.header, URL_SAFE_NO_PAD.encode(claims));
        let signature = self.signing.sign(jwt.as_bytes());
        jwt.push('.');
        URL_SAFE_NO_PAD.encode_string(signature.as_ref(), &mut jwt);
        jwt
    }
}

impl fmt::Debug for JwtKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("JwtKeys").field(&self.kids).finish()
    }
}

/// The keys that the configuration names.
///
/// # Errors
/// [`KeysError`].
pub fn load(source: &KeySource<Arc<JwtKeys>>) -> Result<Arc<JwtKeys>, KeysError> {
    load_with(source, KeysError::MissingJwt, |text| JwtKeys::parse(text).map(Arc::new))
}

/// Makes a file with one fresh key unless there is a file already, which is left alone. True if it was made.
///
/// # Errors
/// [`KeysError`].
pub fn ensure(path: &Path) -> Result<bool, KeysError> {
    file::make(path, || Ok(Zeroizing::new(format!("{FILE_HEAD}{}", *fresh()?))))
}

/// Puts a fresh key in front of the keys of a file, or makes the file. What was done, in words.
///
/// # Errors
/// [`KeysError`].
pub fn add(path: &Path) -> Result<String, KeysError> {
    if ensure(path)? {
        return Ok(format!("made {} with one key", path.display()));
    }
    let text = file::read(path)?.ok_or_else(|| KeysError::MissingJwt(path.to_owned()))?;
    let keys = JwtKeys::parse(&text).map_err(|error| KeysError::Malformed(path.to_owned(), error.to_string()))?;
    let count = keys.kids().len();
    if count == MOST {
        return Err(KeysError::Full(path.to_owned()));
    }
    let is_key = |line: &str| line.starts_with("-----BEGIN ");
    file::replace(path, &Zeroizing::new(file::with_in_front(&text, is_key, &fresh()?)))?;
    Ok(format!(
        "put a key in front of {}, which now holds {}. Restart the server to sign with it. Remove the older keys no sooner \
         than jwt.lifetime from then",
        path.display(),
        count + 1
    ))
}

/// A fresh key as a PEM block (RFC 8410 §7).
///
/// # Errors
/// [`KeysError::Random`].
pub fn fresh() -> Result<Zeroizing<String>, KeysError> {
    /// Everything of a PKCS#8 structure that comes before the 32 bytes of an Ed25519 key. Not as ring writes it: with the public
    /// half, openssl does not read it.
    const PKCS8: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    let mut der = Zeroizing::new([0; PKCS8.len() + 32]);
    der[..PKCS8.len()].copy_from_slice(&PKCS8);
    OsRandom.fill(&mut der[PKCS8.len()..]).map_err(|error| KeysError::Random(error.to_string()))?;
    let base64 = Zeroizing::new(STANDARD.encode(der.as_slice()));
    Ok(Zeroizing::new(format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", *base64)))
}

const FILE_HEAD: &str = "\
# The keys that baton signs JWTs for backends with. Whoever has one can claim to be anybody: it is for the server alone. The first
# key signs, all of them are published at /.well-known/jwks.json. `baton keys new --jwt --file` puts a new one in front.
";

/// RFC 7638 §3, RFC 8037 §2: the required members in the order of their names, without a space.
fn thumbprint(x: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    /// RFC 8037 appendix A.1.
    const EXAMPLE: &str = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A";

    fn pem(seed: &[u8]) -> String {
        let mut der = vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
        der.extend_from_slice(seed);
        format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der))
    }

    #[test]
    fn the_example_of_the_standard_comes_out() {
        let keys = JwtKeys::parse(&pem(&URL_SAFE_NO_PAD.decode(EXAMPLE).unwrap())).unwrap();
        // Appendices A.2 and A.3.
        let set: serde_json::Value = serde_json::from_str(keys.set()).unwrap();
        assert_eq!(set["keys"][0]["x"], "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        assert_eq!(keys.kids(), ["kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"]);
        // Appendix A.4, whose header is another one.
        let input = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
        let signature = URL_SAFE_NO_PAD.encode(keys.signing.sign(input.as_bytes()).as_ref());
        assert_eq!(signature, "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg");
        let jwt = keys.sign(b"Example of Ed25519 signing");
        let parts: Vec<&str> = jwt.split('.').collect();
        assert_eq!(parts[1], "RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc");
        let header: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[0]).unwrap()).unwrap();
        assert_eq!(header, json!({ "typ": "JWT", "alg": "EdDSA", "kid": keys.kids()[0] }));
        assert!(!format!("{keys:?}").contains(EXAMPLE));
    }

    #[test]
    fn new_keys_go_in_front_until_the_file_is_full() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jwt.keys");
        add(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        let kids = || load(&KeySource::File(path.clone())).unwrap().kids().to_vec();
        let first = kids();
        for count in 2..=MOST {
            let before = kids();
            add(&path).unwrap();
            assert_eq!((kids().len(), &kids()[1..]), (count, &before[..]));
        }
        assert_eq!(kids().last(), first.last());
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("# The keys"));
        assert!(matches!(add(&path), Err(KeysError::Full(_))));
    }

    #[test]
    fn what_is_no_ring_of_keys_is_refused() {
        let key = pem(&[7; 32]);
        let parse = |text: &str| JwtKeys::parse(text).unwrap_err();
        assert_eq!(parse("# nothing"), JwtKeysError::Empty);
        assert_eq!(parse(&key.replace("END", "ENDE")), JwtKeysError::Pem);
        assert_eq!(parse(&format!("{key}{}{key}", pem(&[8; 32]))), JwtKeysError::Twice(3));
        assert_eq!(parse(&format!("{key}{}", pem(&[8; 31]))), JwtKeysError::Kind(2));
        let many: String = (0..17).map(|byte| pem(&[byte; 32])).collect();
        assert_eq!(parse(&many), JwtKeysError::TooMany);
    }
}
