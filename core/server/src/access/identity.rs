//! The name in a client's certificate, whose chain has been verified before: the first URI of its alternative names, else the first DNS
//! name, else the common name.

use std::str;

/// Longer names are no identity.
const NAME_BYTES_MAX: usize = 256;

const SEQUENCE: u8 = 0x30;
const OBJECT_ID: u8 = 0x06;
const OCTETS: u8 = 0x04;
/// Tags of a certificate's content: its version and its extensions.
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const DNS_NAME: u8 = 0x82;
const URI_NAME: u8 = 0x86;
const COMMON_NAME_ID: &[u8] = &[0x55, 4, 3];
const ALTERNATIVE_NAMES_ID: &[u8] = &[0x55, 0x1d, 17];

pub(crate) fn identity_of(certificate: &[u8]) -> Option<String> {
    let (_, whole, _) = element(certificate)?;
    let (_, mut content, _) = element(whole)?;
    if content.first() == Some(&VERSION) {
        content = element(content)?.2;
    }
    // The serial number, the algorithm, the issuer and the validity come before the subject, its key after it.
    for _ in 0..4 {
        content = element(content)?.2;
    }
    let (_, subject, rest) = element(content)?;
    let alternative = alternative_names(rest);
    let named = |wanted: u8| {
        let names = Elements(alternative.unwrap_or_default());
        names.filter(|(tag, _)| *tag == wanted).find_map(|(_, name)| sound(name))
    };
    named(URI_NAME).or_else(|| named(DNS_NAME)).or_else(|| sound(common_name(subject)?))
}

fn sound(name: &[u8]) -> Option<String> {
    let name = str::from_utf8(name).ok()?;
    let fits = !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control);
    fits.then(|| name.to_owned())
}

/// The content of the extension that holds them.
fn alternative_names(after_subject: &[u8]) -> Option<&[u8]> {
    let (_, tagged) = Elements(after_subject).find(|(tag, _)| *tag == EXTENSIONS)?;
    let (_, extensions, _) = element(tagged)?;
    for (_, extension) in Elements(extensions) {
        let mut parts = Elements(extension);
        if parts.next() != Some((OBJECT_ID, ALTERNATIVE_NAMES_ID)) {
            continue;
        }
        // Whether it is critical may stand between.
        let (_, value) = parts.find(|(tag, _)| *tag == OCTETS)?;
        return element(value).map(|(_, names, _)| names);
    }
    None
}

fn common_name(subject: &[u8]) -> Option<&[u8]> {
    for (_, set) in Elements(subject) {
        for (_, attribute) in Elements(set).filter(|(tag, _)| *tag == SEQUENCE) {
            let mut parts = Elements(attribute);
            if parts.next() == Some((OBJECT_ID, COMMON_NAME_ID)) {
                return parts.next().map(|(_, value)| value);
            }
        }
    }
    None
}

/// The elements that stand one after the other; it ends at what is none.
struct Elements<'a>(&'a [u8]);

impl<'a> Iterator for Elements<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (tag, content, rest) = element(self.0)?;
        self.0 = rest;
        Some((tag, content))
    }
}

/// A DER element: its tag, its content, and what follows.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, length], rest) = bytes.split_first_chunk::<2>()?;
    let (length, rest) = if length < 0x80 {
        (usize::from(length), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
        if digits.is_empty() || digits.len() > 4 {
            return None;
        }
        (digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit)), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}
