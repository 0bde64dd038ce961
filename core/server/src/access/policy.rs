//! The policy file, read strictly: what is not known is refused by its name.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use headrace_types::{Error, ErrorCode, Result};
use http::Uri;
use serde::Deserialize;

use super::caller::{ANONYMOUS, Caller, Digest, Granted, Remembered};
use super::jwks::{KeySet, Source};
use super::rate::{Limiters, Rate};
use super::scope::{Scope, matches};
use super::tls::{Tls, TlsFiles};
use super::token::{Algorithm, Claims, Expected};

const FILE_BYTES_MAX: usize = 4 << 20;
/// Where the audit goes unless the file says otherwise.
const AUDIT_FILE: &str = "access-audit.jsonl";
const SUBJECT_KINDS: [&str; 3] = ["jwt:", "group:", "mtls:"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    audit: Option<PathBuf>,
    tls: Option<TlsSection>,
    jwt: Option<JwtSection>,
    #[serde(default)]
    keys: Vec<KeySection>,
    #[serde(default)]
    rules: Vec<RuleSection>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsSection {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
    #[serde(default)]
    required: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JwtSection {
    issuer: String,
    audience: String,
    algorithms: Vec<String>,
    jwks: String,
    jwks_ca: Option<PathBuf>,
    refresh_seconds: Option<u64>,
    leeway_seconds: Option<u32>,
    subject_claim: Option<String>,
    groups_claim: Option<String>,
    scopes_claim: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeySection {
    name: String,
    hash: String,
    expires: Option<toml::value::Datetime>,
    #[serde(default)]
    scopes: Vec<String>,
    rate: Option<String>,
    burst: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleSection {
    name: String,
    subjects: Vec<String>,
    #[serde(default)]
    scopes: Vec<String>,
    rate: Option<String>,
    burst: Option<u64>,
}

/// What a file says, ready to be asked. It never changes; another file is another policy.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) keys: HashMap<Digest, Arc<Caller>>,
    rules: Vec<Rule>,
    pub(crate) jwt: Option<Jwt>,
    pub(crate) tls: Option<Tls>,
    pub(crate) audit: PathBuf,
    /// Who shows no credential, if a rule grants anything to such.
    pub(crate) anonymous: Option<Arc<Caller>>,
    /// Never one map with the next: a token must not be taken for a certificate of that name.
    pub(crate) by_token: Remembered,
    pub(crate) by_certificate: Remembered,
    /// What it was read from.
    pub(crate) files: Vec<PathBuf>,
    /// What one should know.
    pub(crate) warnings: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Jwt {
    pub(crate) expected: Expected,
    pub(crate) keys: Arc<KeySet>,
}

#[derive(Debug)]
struct Rule {
    name: Arc<str>,
    /// Patterns.
    subjects: Vec<String>,
    scopes: Vec<Scope>,
    rate: Option<Rate>,
}

fn wrong(message: impl Into<String>, hint: &str) -> Error {
    Error::new(ErrorCode::InvalidArgument, message, hint)
}

impl Policy {
    /// Reads a file and all that it names. Keys of an issuer that `before` knows are taken over.
    ///
    /// # Errors
    /// `io`, `invalid_argument`; the message names the file and the place.
    pub(crate) fn load(path: &Path, limiters: &Limiters, before: Option<&Policy>) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|error| Error::from(error).within(path.display()))?;
        Self::parse(path, &bytes, limiters, before).map_err(|error| error.within(path.display()))
    }

    fn parse(path: &Path, bytes: &[u8], limiters: &Limiters, before: Option<&Policy>) -> Result<Self> {
        if bytes.len() > FILE_BYTES_MAX {
            return Err(wrong(format!("it is larger than {FILE_BYTES_MAX} bytes"), "split the callers by deployment"));
        }
        let text = str::from_utf8(bytes).map_err(|_| wrong("it is not UTF-8", "write it as UTF-8"))?;
        let document: Document = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            wrong(format!("line {line}: {}", error.message()), "see core/server/access.md for what may stand there")
        })?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut files = vec![path.to_owned()];
        let mut warnings = Vec::new();
        let tls = document.tls.map(|section| tls_of(section, folder, &mut files, &mut warnings)).transpose()?;
        let jwt = document.jwt.map(|section| jwt_of(section, folder, &mut files, before)).transpose()?;
        let keys = keys_of(document.keys, limiters)?;
        let rules = document.rules.into_iter().map(Rule::of).collect::<Result<Vec<_>>>()?;
        let audit = folder.join(document.audit.unwrap_or_else(|| AUDIT_FILE.into()));
        let (by_token, by_certificate) = (Remembered::default(), Remembered::default());
        let mut policy =
            Self { keys, rules, jwt, tls, audit, anonymous: None, by_token, by_certificate, files, warnings };
        policy.check_names()?;
        let anonymous = policy.caller(ANONYMOUS.to_owned(), &[], &[], None, limiters);
        policy.anonymous = Some(anonymous).filter(|caller| !caller.granted.is_empty()).map(Arc::new);
        Ok(policy)
    }

    /// Each key and rule is named once: an audit row must tell which one it was.
    fn check_names(&self) -> Result<()> {
        let mut seen = HashSet::new();
        match self.rules.iter().find(|rule| !seen.insert(&rule.name)) {
            Some(twice) => Err(wrong(format!("two rules are named '{}'", twice.name), "give each a name of its own")),
            None => Ok(()),
        }
    }

    /// A subject with what the rules grant to it or to one of its groups. Its rate is that of the first rule that has one.
    fn caller(
        &self,
        subject: String,
        groups: &[String],
        own: &[String],
        expires_s: Option<i64>,
        limiters: &Limiters,
    ) -> Caller {
        let names: Vec<String> = groups.iter().map(|group| format!("group:{group}")).collect();
        let fits = |rule: &&Rule| {
            let mut all = names.iter().map(String::as_str).chain([subject.as_str()]);
            all.any(|name| rule.subjects.iter().any(|pattern| matches(pattern.as_bytes(), name.as_bytes())))
        };
        let rules: Vec<&Rule> = self.rules.iter().filter(fits).collect();
        let by_rules = rules.iter().flat_map(|rule| {
            rule.scopes.iter().map(|scope| Granted { scope: scope.clone(), rule: Arc::clone(&rule.name) })
        });
        // Words of other programs among a token's scopes are none of ours.
        let token: Arc<str> = "token".into();
        let by_token = own.iter().filter_map(|text| Scope::parse(text).ok());
        let granted = by_rules.chain(by_token.map(|scope| Granted { scope, rule: Arc::clone(&token) })).collect();
        let limiter = rules.iter().find_map(|rule| rule.rate).map(|rate| limiters.of(&subject, rate));
        Caller { subject, granted, limiter, expires_s }
    }

    pub(crate) fn of_token(&self, claims: &Claims, limiters: &Limiters) -> Arc<Caller> {
        let subject = format!("jwt:{}", claims.subject);
        Arc::new(self.caller(subject, &claims.groups, &claims.scopes, Some(claims.expires_s), limiters))
    }

    pub(crate) fn of_certificate(&self, identity: &str, limiters: &Limiters) -> Arc<Caller> {
        Arc::new(self.caller(format!("mtls:{identity}"), &[], &[], None, limiters))
    }
}

impl Rule {
    fn of(section: RuleSection) -> Result<Self> {
        let place = format!("rule '{}'", section.name);
        for subject in &section.subjects {
            if subject != ANONYMOUS
                && !SUBJECT_KINDS.iter().any(|kind| subject.starts_with(kind) && subject.len() > kind.len())
            {
                let hint = "write jwt:SUBJECT, group:NAME, mtls:IDENTITY or anonymous; * is any text";
                return Err(wrong(format!("{place}: '{subject}' is no subject"), hint));
            }
        }
        let scopes = scopes_of(&section.scopes).map_err(|error| error.within(&place))?;
        let rate = rate_of(section.rate.as_deref(), section.burst).map_err(|error| error.within(&place))?;
        Ok(Self { name: section.name.into(), subjects: section.subjects, scopes, rate })
    }
}

fn scopes_of(texts: &[String]) -> Result<Vec<Scope>> {
    texts.iter().map(|text| Scope::parse(text)).collect()
}

fn rate_of(rate: Option<&str>, burst: Option<u64>) -> Result<Option<Rate>> {
    match (rate, burst) {
        (Some(rate), burst) => Rate::parse(rate, burst).map(Some),
        (None, Some(_)) => Err(wrong("a burst without a rate", "give a rate, such as 100/s")),
        (None, None) => Ok(None),
    }
}

fn keys_of(sections: Vec<KeySection>, limiters: &Limiters) -> Result<HashMap<Digest, Arc<Caller>>> {
    let mut names = HashSet::new();
    let mut keys = HashMap::with_capacity(sections.len());
    for section in sections {
        let place = format!("key '{}'", section.name);
        if !names.insert(section.name.clone()) {
            return Err(wrong(format!("two keys are named '{}'", section.name), "give each a name of its own"));
        }
        let digest = digest_of_text(&section.hash).ok_or_else(|| {
            wrong(format!("{place}: its hash is none"), "`headrace keys create NAME` prints one: sha256: and 64 digits")
        })?;
        let expires_s =
            section.expires.map(|time| seconds_of(&time).map_err(|error| error.within(&place))).transpose()?;
        let rule: Arc<str> = format!("key:{}", section.name).into();
        let scopes = scopes_of(&section.scopes).map_err(|error| error.within(&place))?;
        let granted = scopes.into_iter().map(|scope| Granted { scope, rule: Arc::clone(&rule) }).collect();
        let rate = rate_of(section.rate.as_deref(), section.burst).map_err(|error| error.within(&place))?;
        let limiter = rate.map(|rate| limiters.of(&rule, rate));
        let caller = Caller { subject: rule.to_string(), granted, limiter, expires_s };
        if keys.insert(digest, Arc::new(caller)).is_some() {
            return Err(wrong(format!("{place}: another key has the same hash"), "make a key for each caller"));
        }
    }
    Ok(keys)
}

fn digest_of_text(text: &str) -> Option<Digest> {
    let digits = text.strip_prefix("sha256:").filter(|digits| digits.len() == 64)?;
    let mut digest = Digest::default();
    for (byte, pair) in digest.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *byte = u8::try_from(digit(0)? << 4 | digit(1)?).ok()?;
    }
    Some(digest)
}

fn seconds_of(time: &toml::value::Datetime) -> Result<i64> {
    let parsed = time.to_string().parse::<jiff::Timestamp>();
    let hint = "write it with its zone: 2027-01-31T00:00:00Z";
    Ok(parsed.map_err(|_| wrong(format!("expires is {time}"), hint))?.as_second())
}

fn tls_of(section: TlsSection, folder: &Path, files: &mut Vec<PathBuf>, warnings: &mut Vec<String>) -> Result<Tls> {
    if section.required && section.client_ca.is_none() {
        return Err(wrong(
            "[tls] requires certificates of clients and names no client_ca",
            "name their authority's file",
        ));
    }
    let found = TlsFiles {
        certificate: folder.join(section.certificate),
        key: folder.join(section.key),
        client_ca: section.client_ca.map(|path| folder.join(path)),
        required: section.required,
    };
    files.extend([found.certificate.clone(), found.key.clone()].into_iter().chain(found.client_ca.clone()));
    if is_open_to_others(&found.key) {
        warnings.push(format!("others may read {}: chmod 600", found.key.display()));
    }
    Tls::load(&found)
}

fn is_open_to_others(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o004 != 0)
}

fn jwt_of(section: JwtSection, folder: &Path, files: &mut Vec<PathBuf>, before: Option<&Policy>) -> Result<Jwt> {
    let mut algorithms = Vec::new();
    for name in &section.algorithms {
        let known = Algorithm::of_name(name);
        let hint = "RS256, ES256 and EdDSA are: a key that also signs, as of HS256, is none for a verifier";
        algorithms.push(known.ok_or_else(|| wrong(format!("[jwt] algorithm '{name}' is not offered"), hint))?);
    }
    if section.issuer.is_empty() || section.audience.is_empty() || algorithms.is_empty() {
        return Err(wrong("[jwt] leaves issuer, audience or algorithms empty", "pin all three"));
    }
    let source = source_of(&section.jwks, section.jwks_ca.map(|path| folder.join(path)), folder)?;
    match &source {
        Source::File(path) => files.push(path.clone()),
        Source::Url { ca, .. } => files.extend(ca.clone()),
    }
    let refresh = Duration::from_secs(section.refresh_seconds.unwrap_or(600).clamp(10, 86_400));
    let known = before.and_then(|before| before.jwt.as_ref()).map(|jwt| &jwt.keys);
    let keys = match known.filter(|keys| keys.source == source && matches!(source, Source::Url { .. })) {
        Some(keys) => Arc::clone(keys),
        None => Arc::new(KeySet::open(source, refresh)?),
    };
    let expected = Expected {
        issuer: section.issuer,
        audience: section.audience,
        algorithms,
        leeway_s: f64::from(section.leeway_seconds.unwrap_or(30).min(300)),
        subject_claim: section.subject_claim.unwrap_or_else(|| "sub".to_owned()),
        groups_claim: section.groups_claim,
        scopes_claim: section.scopes_claim,
    };
    Ok(Jwt { expected, keys })
}

fn source_of(jwks: &str, ca: Option<PathBuf>, folder: &Path) -> Result<Source> {
    if !jwks.contains("://") {
        return Ok(Source::File(folder.join(jwks)));
    }
    let hint = "give a file, or an address that begins with https://";
    let url: Uri = jwks.parse().map_err(|_| wrong("[jwt] jwks is no address", hint))?;
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_local = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match url.scheme_str() {
        Some("https") if !host.is_empty() => Ok(Source::Url { url, ca }),
        Some("http") if is_local => Ok(Source::Url { url, ca }),
        _ => Err(wrong("[jwt] jwks would be fetched in a way that others can change", hint)),
    }
}
