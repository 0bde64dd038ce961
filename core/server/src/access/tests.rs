#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use headrace_types::ErrorCode;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use super::caller::{Caller, digest_of};
use super::decide::decide;
use super::identity::identity_of;
use super::jwks::parse;
use super::permit::{Peer, Permit};
use super::policy::Policy;
use super::rate::{Limiter, Limiters, Rate};
use super::scope::{Action, Scope, matches};
use super::state::{Access, Refusal, now_s};
use super::token::{Algorithm, Expected, Fault, VerifyingKey, base64_url, verify};

const SECRET: &str = "hr_canary_e7b1f0c2a9";

/// A folder of its own, gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("headrace-access-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn audit(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.0.join("access-audit.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn key(name: &str, secret: &str, more: &str) -> String {
    let hash = headrace_types::digest_bytes(secret.as_bytes());
    format!("[[keys]]\nname = \"{name}\"\nhash = \"{hash}\"\n{more}\n")
}

fn policy(text: &str) -> Result<Policy, headrace_types::Error> {
    let folder = Folder::new();
    Policy::load(&folder.write("access.toml", text), &Limiters::default(), None)
}

fn bearer(text: &str) -> HeaderMap {
    HeaderMap::from_iter([(AUTHORIZATION, format!("Bearer {text}").parse().unwrap())])
}

fn admit(access: &Arc<Access>, headers: &HeaderMap, peer: Peer) -> Result<Permit, Refusal> {
    access.admit(headers, &Arc::new(peer), Action::Predict, "fraud")
}

#[test]
fn patterns_match_whole_names() {
    for (pattern, text, fits) in [
        ("fraud", "fraud", true),
        ("fraud", "fraud2", false),
        ("fraud", "", false),
        ("*", "", true),
        ("*", "anything", true),
        ("risk_*", "risk_eu", true),
        ("risk_*", "old_risk_eu", false),
        ("*_eu", "risk_eu", true),
        ("a*b*c", "a1b2b3c", true),
        ("a*b*c", "a1b2b3", false),
        ("**", "x", true),
        ("*a", "aaaaab", false),
    ] {
        assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), fits, "{pattern} {text}");
    }
}

#[test]
fn scopes_that_are_none_are_refused() {
    for text in ["predict", "predict:", "write:x", ":x", "", "PREDICT:x"] {
        assert_eq!(Scope::parse(text).unwrap_err().code, ErrorCode::InvalidArgument, "{text}");
    }
    assert!(Scope::parse(&format!("predict:{}", "x".repeat(300))).is_err());
}

#[test]
fn what_no_scope_grants_is_refused() {
    let policy = policy(&key("batch", SECRET, "scopes = [\"predict:fraud*\", \"read_metadata:*\"]")).unwrap();
    let caller = &policy.keys[&digest_of(SECRET.as_bytes())];
    for (action, resource, allowed) in [
        (Action::Predict, "fraud", true),
        (Action::Predict, "fraud_eu", true),
        (Action::Predict, "other", false),
        (Action::Predict, "", false),
        (Action::ReadMetadata, "", true),
        (Action::ReadFeatures, "fraud", false),
        (Action::WriteFeatures, "fraud", false),
        (Action::ManageModels, "fraud", false),
    ] {
        let decision = decide(caller, action, resource);
        assert_eq!(decision.allowed, allowed, "{action:?} {resource}");
        assert_eq!(decision.rule, if allowed { "key:batch" } else { "" });
    }
    let nobody = Caller { subject: "jwt:x".to_owned(), granted: Vec::new(), limiter: None, expires_s: None };
    assert!(Action::ALL.iter().all(|action| !decide(&nobody, *action, "").allowed));
}

#[test]
fn a_policy_that_is_wrong_is_refused_by_name() {
    let good = key("a", SECRET, "");
    let jwt = "[jwt]\nissuer = \"i\"\naudience = \"a\"\nalgorithms = [ALG]\njwks = \"JWKS\"\n";
    for (text, part) in [
        ("kees = 1".to_owned(), "kees"),
        (key("a", SECRET, "scope = []"), "scope"),
        (key("a", SECRET, "scopes = [\"predict\"]"), "key 'a': scope 'predict'"),
        ("[[keys]]\nname = \"a\"\nhash = \"sha256:12\"".to_owned(), "key 'a': its hash"),
        (format!("{good}{}", key("a", "hr_other", "")), "two keys are named 'a'"),
        (format!("{good}{}", key("b", SECRET, "")), "the same hash"),
        (key("a", SECRET, "expires = 2027-01-01T00:00:00"), "expires"),
        (key("a", SECRET, "rate = \"fast\""), "rate 'fast'"),
        (key("a", SECRET, "rate = \"0/s\""), "rate '0/s'"),
        (key("a", SECRET, "burst = 3"), "burst"),
        ("[[rules]]\nname = \"r\"\nsubjects = [\"alice\"]".to_owned(), "'alice' is no subject"),
        ("[[rules]]\nname = \"r\"\nsubjects = [\"jwt:\"]".to_owned(), "'jwt:' is no subject"),
        (jwt.replace("ALG", "\"HS256\"").replace("JWKS", "keys.json"), "'HS256'"),
        (jwt.replace("ALG", "\"none\"").replace("JWKS", "keys.json"), "'none'"),
        (jwt.replace("ALG", "").replace("JWKS", "keys.json"), "pin all three"),
        (jwt.replace("ALG", "\"RS256\"").replace("JWKS", "http://issuer.example/keys"), "others can change"),
        (jwt.replace("ALG", "\"RS256\"").replace("JWKS", "missing.json"), "missing.json"),
        ("[tls]\ncertificate = \"c\"\nkey = \"k\"\nrequired = true".to_owned(), "client_ca"),
        ("[tls]\ncertificate = \"c.pem\"\nkey = \"k\"".to_owned(), "c.pem"),
        ("[[keys]\n".to_owned(), "line 1"),
    ] {
        let error = policy(&text).unwrap_err();
        assert!(error.to_string().contains(part), "{part} is not in: {error}");
        assert!(error.message.contains("access.toml"), "{error}");
    }
}

#[test]
fn a_limiter_lets_a_burst_pass_and_then_the_rate() {
    let limiter = Limiter::new(Rate::parse("10/s", Some(3)).unwrap());
    let second = 1_000_000_000;
    for _ in 0..3 {
        limiter.take_at(second).unwrap();
    }
    assert_eq!(limiter.take_at(second).unwrap_err().as_millis(), 100);
    limiter.take_at(second + second / 10).unwrap();
    limiter.take_at(second + second / 10).unwrap_err();
    for _ in 0..3 {
        limiter.take_at(10 * second).unwrap();
    }
    limiter.take_at(10 * second).unwrap_err();
}

#[test]
fn threads_share_a_limit() {
    let limiter = Limiter::new(Rate::parse("1/h", Some(100)).unwrap());
    let passed: usize = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| (0..100).filter(|_| limiter.take_at(7).is_ok()).count())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(passed, 100);
}

#[test]
fn limits_survive_a_new_policy_and_are_bounded() {
    let limiters = Limiters::default();
    let rate = Rate::parse("1/h", None).unwrap();
    limiters.of("key:a", rate).take().unwrap();
    limiters.of("key:a", rate).take().unwrap_err();
    for number in 0..20_000 {
        limiters.of(&format!("jwt:{number}"), rate).take().ok();
    }
    limiters.of("key:a", rate).take().unwrap_err();
    limiters.of("jwt:one too many", rate).take().unwrap_err();
}

/// An issuer with a key of each kind that can be made here.
struct Issuer {
    ed: Ed25519KeyPair,
    ec: EcdsaKeyPair,
}

fn base64_of(bytes: &[u8]) -> String {
    headrace_types::base64::encode(bytes).trim_end_matches('=').replace('+', "-").replace('/', "_")
}

impl Issuer {
    fn new() -> Self {
        let random = SystemRandom::new();
        let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let ec = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        Self {
            ed: Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap(),
            ec: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, ec.as_ref(), &random).unwrap(),
        }
    }

    fn jwks(&self) -> String {
        let point = self.ec.public_key().as_ref();
        let (x, y) = (base64_of(&point[1..33]), base64_of(&point[33..]));
        json!({"keys": [
            {"kty": "oct", "kid": "shared", "k": "AAAA"},
            {"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": base64_of(self.ed.public_key().as_ref())},
            {"kty": "EC", "crv": "P-256", "kid": "ec", "alg": "ES256", "use": "sig", "x": x, "y": y},
            {"kty": "EC", "crv": "P-256", "kid": "enc", "use": "enc", "x": x, "y": y},
        ]})
        .to_string()
    }

    fn keys(&self) -> Vec<VerifyingKey> {
        parse(self.jwks().as_bytes()).unwrap()
    }

    fn token(&self, head: &Value, claims: &Value) -> String {
        let text = format!("{}.{}", base64_of(head.to_string().as_bytes()), base64_of(claims.to_string().as_bytes()));
        let signed = match head["alg"].as_str() {
            Some("ES256") => self.ec.sign(&SystemRandom::new(), text.as_bytes()).unwrap().as_ref().to_vec(),
            _ => self.ed.sign(text.as_bytes()).as_ref().to_vec(),
        };
        format!("{text}.{}", base64_of(&signed))
    }
}

fn expected() -> Expected {
    Expected {
        issuer: "https://issuer".to_owned(),
        audience: "headrace".to_owned(),
        algorithms: vec![Algorithm::EdDsa, Algorithm::Es256],
        leeway_s: 30.0,
        subject_claim: "sub".to_owned(),
        groups_claim: Some("groups".to_owned()),
        scopes_claim: Some("scope".to_owned()),
    }
}

fn claims() -> Value {
    json!({"iss": "https://issuer", "aud": ["other", "headrace"], "sub": "alice", "exp": 2000, "nbf": 1000,
        "groups": ["analysts"], "scope": "openid predict:fraud"})
}

#[test]
fn tokens_of_the_issuer_hold() {
    let issuer = Issuer::new();
    for (alg, kid) in [("EdDSA", Some("ed")), ("ES256", Some("ec")), ("ES256", None)] {
        let mut head = json!({"alg": alg, "typ": "JWT"});
        if let Some(kid) = kid {
            head["kid"] = kid.into();
        }
        let found = verify(&issuer.token(&head, &claims()), &issuer.keys(), &expected(), 1500).unwrap();
        assert_eq!((found.subject.as_str(), found.expires_s), ("alice", 2030));
        assert_eq!(
            (found.groups, found.scopes),
            (vec!["analysts".to_owned()], vec!["openid".to_owned(), "predict:fraud".to_owned()])
        );
    }
}

#[test]
fn hostile_tokens_do_not_hold() {
    let issuer = Issuer::new();
    let keys = issuer.keys();
    let head = json!({"alg": "EdDSA", "kid": "ed"});
    let with = |name: &str, value: Value| {
        let mut changed = claims();
        changed[name] = value;
        issuer.token(&head, &changed)
    };
    let good = issuer.token(&head, &claims());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let unsigned = |alg: &str, signature: &str| {
        let head = base64_of(json!({"alg": alg, "kid": "ed"}).to_string().as_bytes());
        format!("{head}.{}.{signature}", base64_of(claims().to_string().as_bytes()))
    };
    // What a verifier signs that takes the public key for a secret one.
    let hmac_key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, issuer.ed.public_key().as_ref());
    let body = unsigned("HS256", "");
    let hmac = ring::hmac::sign(&hmac_key, body.trim_end_matches('.').as_bytes());
    let other = Issuer::new();
    for (what, token, fault) in [
        ("alg none", unsigned("none", ""), Fault::Algorithm),
        ("alg None", unsigned("None", signature), Fault::Algorithm),
        ("HS256 with the public key", format!("{body}{}", base64_of(hmac.as_ref())), Fault::Algorithm),
        ("an algorithm that is not pinned", unsigned("RS256", signature), Fault::Algorithm),
        ("the key of another algorithm", unsigned("ES256", signature), Fault::UnknownKey),
        ("no signature", format!("{signed}."), Fault::Signature),
        ("another's signature", other.token(&head, &claims()), Fault::Signature),
        ("an unknown key", issuer.token(&json!({"alg": "EdDSA", "kid": "x"}), &claims()), Fault::UnknownKey),
        ("a key for encryption", issuer.token(&json!({"alg": "ES256", "kid": "enc"}), &claims()), Fault::UnknownKey),
        ("another issuer", with("iss", json!("https://issuer/")), Fault::Issuer),
        ("issuers", with("iss", json!(["https://issuer"])), Fault::Issuer),
        ("another audience", with("aud", json!("headrace2")), Fault::Audience),
        ("no audience", with("aud", Value::Null), Fault::Audience),
        ("expired", with("exp", json!(1470)), Fault::Expired),
        ("too early", with("nbf", json!(1531)), Fault::TooEarly),
        ("issued later", with("iat", json!(9e15)), Fault::TooEarly),
    ] {
        assert_eq!(verify(&token, &keys, &expected(), 1500).unwrap_err(), fault, "{what}");
    }
    for (what, token) in [
        ("never expires", with("exp", Value::Null)),
        ("expires at a text", with("exp", json!("2000"))),
        ("no subject", with("sub", json!(""))),
        ("a subject of a number", with("sub", json!(7))),
        ("a subject with a line break", with("sub", json!("a\nb"))),
        ("extensions", issuer.token(&json!({"alg": "EdDSA", "kid": "ed", "crit": ["x"]}), &claims())),
        ("alg twice", format!("{}.e30.", base64_of(br#"{"alg":"EdDSA","alg":"none"}"#))),
        ("oversized", with("sub", json!("x".repeat(9000)))),
        ("a long key id", issuer.token(&json!({"alg": "EdDSA", "kid": "k".repeat(300)}), &claims())),
        ("two parts", signed.to_owned()),
        ("four parts", format!("{good}.e30")),
        ("padding", format!("{good}=")),
        ("white space", format!("{signed}. {signature}")),
        ("nothing", String::new()),
        ("dots", "..".to_owned()),
    ] {
        let fault = verify(&token, &keys, &expected(), 1500).unwrap_err();
        assert!(matches!(fault, Fault::Malformed(_)), "{what}: {fault:?}");
    }
}

#[test]
fn base64_has_one_form() {
    assert_eq!(base64_url("-_8").as_deref(), Some(&[0xfb, 0xff][..]));
    for text in ["A", "AB", "AAB", "+/8", "AA==", "AAAAA", "ä"] {
        assert_eq!(base64_url(text), None, "{text}");
    }
}

/// A running policy of one key, one rule for tokens and one for a certificate.
fn opened(folder: &Folder, issuer: &Issuer, more: &str) -> Arc<Access> {
    folder.write("keys.json", &issuer.jwks());
    let text = format!(
        "{}{}{more}\n[[rules]]\nname = \"people\"\nsubjects = [\"group:analysts\", \"mtls:spiffe://corp/*\"]\nscopes = [\"predict:fraud\"]\n\
         [jwt]\nissuer = \"https://issuer\"\naudience = \"headrace\"\nalgorithms = [\"EdDSA\"]\njwks = \"keys.json\"\ngroups_claim = \"groups\"\n",
        key("batch", SECRET, "scopes = [\"predict:fraud\", \"write_features:*\"]"),
        key("old", "hr_old", "expires = 2020-01-01T00:00:00Z\nscopes = [\"*:*\"]"),
    );
    Access::open(&folder.write("access.toml", &text)).unwrap()
}

#[test]
fn one_credential_of_each_kind_is_taken() {
    let (folder, issuer) = (Folder::new(), Issuer::new());
    let access = opened(&folder, &issuer, "");
    let mut alive = claims();
    alive["exp"] = (now_s() + 60).into();
    let token = issuer.token(&json!({"alg": "EdDSA", "kid": "ed"}), &alive);
    let api_key = HeaderMap::from_iter([("x-api-key".parse().unwrap(), SECRET.parse().unwrap())]);
    for headers in [bearer(SECRET), api_key.clone(), bearer(&token), bearer(&token)] {
        let permit = admit(&access, &headers, Peer::default()).unwrap();
        permit.permit(Action::Predict, "fraud").unwrap();
        assert_eq!(permit.permit(Action::Predict, "other").unwrap_err().code, ErrorCode::PermissionDenied);
    }
    assert_eq!(access.policy().by_token.len(), 1);
    let identity = "spiffe://corp/batch";
    let peer = || Peer { addr: None, identity: Some(identity.to_owned()) };
    admit(&access, &HeaderMap::new(), peer()).unwrap().permit(Action::Predict, "fraud").unwrap();
    let mut both = bearer(SECRET);
    both.extend(api_key);
    let mut twice = bearer(SECRET);
    twice.append(AUTHORIZATION, "Bearer hr_x".parse().unwrap());
    let basic = HeaderMap::from_iter([(AUTHORIZATION, "Basic aGk6aGk=".parse().unwrap())]);
    // A certificate's name, once it is known, is no token.
    for headers in
        [HeaderMap::new(), bearer("hr_old"), bearer("hr_wrong"), bearer(identity), both, twice, basic, bearer("")]
    {
        let refusal = admit(&access, &headers, Peer::default()).unwrap_err();
        assert_eq!(refusal.error.code, ErrorCode::Unauthenticated);
    }
    // A wrong credential is not mended by a certificate.
    assert!(admit(&access, &bearer("hr_wrong"), peer()).is_err());
}

#[test]
fn who_shows_nothing_may_do_what_is_granted_to_anybody() {
    let (folder, issuer) = (Folder::new(), Issuer::new());
    let rule = "[[rules]]\nname = \"public\"\nsubjects = [\"anonymous\"]\nscopes = [\"read_metadata:*\"]\n";
    let access = opened(&folder, &issuer, rule);
    let permit = admit(&access, &HeaderMap::new(), Peer::default()).unwrap();
    permit.permit(Action::ReadMetadata, "").unwrap();
    assert_eq!(permit.permit(Action::Predict, "fraud").unwrap_err().code, ErrorCode::Unauthenticated);
}

#[test]
fn the_audit_is_a_chain_that_goes_on_and_holds_no_secret() {
    let (folder, issuer) = (Folder::new(), Issuer::new());
    for _ in 0..2 {
        let access = opened(&folder, &issuer, "");
        let permit = admit(&access, &bearer(SECRET), Peer::default()).unwrap();
        permit.permit(Action::Predict, "fraud").unwrap();
        permit.permit(Action::WriteFeatures, "weather").unwrap();
        permit.permit(Action::ManageModels, "fraud").unwrap_err();
        let wrong = format!("{SECRET}-wrong");
        let refusal = admit(&access, &bearer(&wrong), Peer::default()).unwrap_err();
        assert!(!format!("{:?} {access:?}", refusal.error).contains(SECRET));
        access.close();
    }
    let path = folder.0.join("access-audit.jsonl");
    // What a crash has left of a row is taken away.
    let mut cut = std::fs::read(&path).unwrap();
    cut.extend_from_slice(b"{\"decision_id\": \"");
    std::fs::write(&path, &cut).unwrap();
    let access = opened(&folder, &issuer, "");
    drop(admit(&access, &HeaderMap::new(), Peer::default()));
    access.close();
    let rows = folder.audit();
    let told: Vec<_> =
        rows.iter().map(|row| (row["action"].as_str().unwrap(), row["allowed"].as_bool().unwrap())).collect();
    let each = [("write_features", true), ("manage_models", false), ("predict", false)];
    assert_eq!(told, [&each[..], &each, &[("predict", false)]].concat());
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains("canary"));
    let mut prev = String::new();
    for (row, line) in rows.iter().zip(text.lines()) {
        assert_eq!(row["prev"], prev);
        prev = headrace_types::digest_bytes(line.as_bytes());
    }
    std::fs::write(&path, "not a row\n").unwrap();
    let error = Access::open(&folder.0.join("access.toml")).unwrap_err();
    assert_eq!(error.code, ErrorCode::CorruptStore);
}

#[test]
fn a_flood_of_refusals_is_bounded_and_counted() {
    let (folder, issuer) = (Folder::new(), Issuer::new());
    let access = opened(&folder, &issuer, "");
    for _ in 0..10_000 {
        drop(admit(&access, &bearer("hr_wrong"), Peer::default()));
    }
    access.close();
    let mut page = crate::counters::Page::default();
    access.write(&mut page);
    let count = |name: &str| {
        let text = page.text();
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<usize>().ok()).unwrap()
    };
    let (written, dropped) = (count("headrace_audit_rows_total "), count("headrace_audit_rows_dropped_total "));
    assert_eq!(written + dropped, 10_000);
    assert!(dropped > 0 && written == folder.audit().len(), "{written} {dropped}");
    assert_eq!(count("headrace_access_unauthenticated_total "), 10_000);
}

#[test]
fn a_certificate_that_is_none_has_no_name() {
    for bytes in [&b""[..], b"\x30", b"\x30\x84\xff\xff\xff\xff", b"\x30\x80", &[0x30; 500], &[0xa0; 64]] {
        assert_eq!(identity_of(bytes), None);
    }
}
