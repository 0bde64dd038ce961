//! JSON Web Tokens: read strictly, verified by keys of the issuer alone.
//!
//! The algorithm is the key's, and must be one that the policy pins: what a token says of itself selects a key and nothing else.

use std::fmt;

use ring::signature;
use serde::Deserialize;
use serde_json::{Map, Value};

/// Bytes of a token.
pub(crate) const TOKEN_BYTES_MAX: usize = 8 << 10;
/// Bytes of a subject, a group or a key id.
const NAME_BYTES_MAX: usize = 256;
/// Groups, or scopes, of a token.
const LIST_MAX: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Rs256,
    Es256,
    EdDsa,
}

impl Algorithm {
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        match name {
            "RS256" => Some(Algorithm::Rs256),
            "ES256" => Some(Algorithm::Es256),
            "EdDSA" => Some(Algorithm::EdDsa),
            _ => None,
        }
    }
}

/// A public key of the issuer.
pub(crate) struct VerifyingKey {
    pub(crate) id: Option<String>,
    pub(crate) algorithm: Algorithm,
    pub(crate) public: Public,
}

pub(crate) enum Public {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// An uncompressed point, or an Ed25519 key.
    Bytes(Vec<u8>),
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyingKey").field("id", &self.id).field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl VerifyingKey {
    fn verifies(&self, message: &[u8], signed: &[u8]) -> bool {
        match (&self.public, self.algorithm) {
            (Public::Rsa { n, e }, Algorithm::Rs256) => signature::RsaPublicKeyComponents { n, e }
                .verify(&signature::RSA_PKCS1_2048_8192_SHA256, message, signed)
                .is_ok(),
            (Public::Bytes(key), Algorithm::Es256) => {
                signature::UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, key)
                    .verify(message, signed)
                    .is_ok()
            }
            (Public::Bytes(key), Algorithm::EdDsa) => {
                signature::UnparsedPublicKey::new(&signature::ED25519, key).verify(message, signed).is_ok()
            }
            _ => false,
        }
    }
}

/// What a token must say.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    pub(crate) issuer: String,
    pub(crate) audience: String,
    pub(crate) algorithms: Vec<Algorithm>,
    pub(crate) leeway_s: f64,
    pub(crate) subject_claim: String,
    pub(crate) groups_claim: Option<String>,
    pub(crate) scopes_claim: Option<String>,
}

/// What a token that holds says.
#[derive(Debug, PartialEq)]
pub(crate) struct Claims {
    pub(crate) subject: String,
    pub(crate) groups: Vec<String>,
    pub(crate) scopes: Vec<String>,
    pub(crate) expires_s: i64,
}

/// Why a token does not hold. Nothing of the token is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Malformed(&'static str),
    /// The issuer may have a newer key.
    UnknownKey,
    Algorithm,
    Signature,
    Issuer,
    Audience,
    Expired,
    TooEarly,
}

impl Fault {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Fault::Malformed(what) => what,
            Fault::UnknownKey => "the token is signed by a key that the issuer has not published",
            Fault::Algorithm => "the token's algorithm is not one of the policy's",
            Fault::Signature => "the token's signature is wrong",
            Fault::Issuer => "the token is of another issuer",
            Fault::Audience => "the token is for another audience",
            Fault::Expired => "the token has expired",
            Fault::TooEarly => "the token is not valid yet",
        }
    }
}

#[derive(Deserialize)]
struct Head {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

/// # Errors
/// Why the token does not hold.
pub(crate) fn verify(token: &str, keys: &[VerifyingKey], expected: &Expected, now_s: i64) -> Result<Claims, Fault> {
    let malformed = Fault::Malformed("the token is none");
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Fault::Malformed("the token is too long"));
    }
    let mut parts = token.split('.');
    let (Some(head), Some(claims), Some(signed), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(malformed);
    };
    let message = &token.as_bytes()[..head.len() + 1 + claims.len()];
    let parsed: Head = serde_json::from_slice(&base64_url(head).ok_or(malformed)?).map_err(|_| malformed)?;
    if parsed.crit.is_some() {
        return Err(Fault::Malformed("the token has extensions that are not known"));
    }
    let algorithm = Algorithm::of_name(&parsed.alg).filter(|known| expected.algorithms.contains(known));
    let algorithm = algorithm.ok_or(Fault::Algorithm)?;
    let signed = base64_url(signed).ok_or(malformed)?;
    let key = chosen(keys, parsed.kid.as_deref(), algorithm)?;
    if !key.verifies(message, &signed) {
        return Err(Fault::Signature);
    }
    let claims: Map<String, Value> =
        serde_json::from_slice(&base64_url(claims).ok_or(malformed)?).map_err(|_| malformed)?;
    claims_of(&claims, expected, now_s)
}

/// The key that a token names; one that names none is verified by the only key of its algorithm.
fn chosen<'a>(keys: &'a [VerifyingKey], id: Option<&str>, algorithm: Algorithm) -> Result<&'a VerifyingKey, Fault> {
    let mut fitting = keys.iter().filter(|key| key.algorithm == algorithm);
    match id {
        Some(id) if id.len() > NAME_BYTES_MAX => Err(Fault::Malformed("the token's key id is too long")),
        Some(id) => fitting.find(|key| key.id.as_deref() == Some(id)).ok_or(Fault::UnknownKey),
        None => match (fitting.next(), fitting.next()) {
            (Some(only), None) => Ok(only),
            (None, _) => Err(Fault::UnknownKey),
            _ => Err(Fault::Malformed("the token does not say which key has signed it")),
        },
    }
}

fn claims_of(claims: &Map<String, Value>, expected: &Expected, now_s: i64) -> Result<Claims, Fault> {
    if claims.get("iss").and_then(Value::as_str) != Some(&expected.issuer) {
        return Err(Fault::Issuer);
    }
    let audience = match claims.get("aud") {
        Some(Value::String(one)) => *one == expected.audience,
        Some(Value::Array(many)) => many.iter().any(|one| one.as_str() == Some(&expected.audience)),
        _ => false,
    };
    if !audience {
        return Err(Fault::Audience);
    }
    #[allow(clippy::cast_precision_loss)] // seconds since 1970 are exact for 285 million years
    let now = now_s as f64;
    let expires = claims.get("exp").and_then(Value::as_f64).ok_or(Fault::Malformed("the token does not expire"))?;
    if now >= expires + expected.leeway_s {
        return Err(Fault::Expired);
    }
    for name in ["nbf", "iat"] {
        let Some(from) = claims.get(name) else { continue };
        let from = from.as_f64().ok_or(Fault::Malformed("a time of the token is none"))?;
        if now + expected.leeway_s < from {
            return Err(Fault::TooEarly);
        }
    }
    let subject = claims.get(&expected.subject_claim).and_then(Value::as_str).unwrap_or_default();
    if subject.is_empty() || subject.len() > NAME_BYTES_MAX || subject.chars().any(char::is_control) {
        return Err(Fault::Malformed("the token names no subject"));
    }
    #[allow(clippy::cast_possible_truncation)] // saturates
    let expires_s = (expires + expected.leeway_s) as i64;
    Ok(Claims {
        subject: subject.to_owned(),
        groups: listed(claims, expected.groups_claim.as_deref()),
        scopes: listed(claims, expected.scopes_claim.as_deref()),
        expires_s,
    })
}

/// A list of texts, or one text of words.
fn listed(claims: &Map<String, Value>, name: Option<&str>) -> Vec<String> {
    let kept = |text: &&str| !text.is_empty() && text.len() <= NAME_BYTES_MAX;
    match name.and_then(|name| claims.get(name)) {
        Some(Value::String(words)) => words.split(' ').filter(kept).take(LIST_MAX).map(str::to_owned).collect(),
        Some(Value::Array(texts)) => {
            texts.iter().filter_map(Value::as_str).filter(kept).take(LIST_MAX).map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}

/// Base64 for URLs, without padding; one form for each content only.
pub(crate) fn base64_url(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for chunk in text.as_bytes().chunks(4) {
        let mut group = 0u32;
        for &byte in chunk {
            let sextet = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'-' => 62,
                b'_' => 63,
                _ => return None,
            };
            group = group << 6 | u32::from(sextet);
        }
        group <<= 6 * (4 - chunk.len());
        let kept = match chunk.len() {
            1 => return None,
            count => count - 1,
        };
        let [_, three @ ..] = group.to_be_bytes();
        if three[kept..].iter().any(|rest| *rest != 0) {
            return None;
        }
        bytes.extend_from_slice(&three[..kept]);
    }
    Some(bytes)
}
