use sha2::{Digest, Sha256};

use crate::{Error, ErrorCode, Result};

/// `sha256:<hex>` of the bytes: the only form of a content hash in headrace, computed only here.
pub fn digest_bytes(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(7 + 64);
    text.push_str("sha256:");
    for byte in Sha256::digest(bytes) {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
    }
    text
}

/// The same JSON with sorted keys, without white space, in UTF-8.
///
/// # Errors
/// `invalid_json` with the position of the first fault.
pub fn canonical_json(json: &str) -> Result<String> {
    // serde_json's map is a BTreeMap (the feature `preserve_order` is off), so keys come out sorted.
    let value: serde_json::Value = serde_json::from_str(json)
        .map_err(|error| Error::new(ErrorCode::InvalidJson, error.to_string(), "correct the JSON at that position"))?;
    Ok(value.to_string())
}

/// The digest of the canonical form.
///
/// # Errors
/// `invalid_json`, as [`canonical_json`].
pub fn digest_json(json: &str) -> Result<String> {
    Ok(digest_bytes(canonical_json(json)?.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_does_not_depend_on_order_or_space() {
        let one = digest_json(r#"{"b": [1, 2.5], "a": "x"}"#);
        let two = digest_json(r#"{"a":"x","b":[1,2.5]}"#);
        assert_eq!(one.ok(), two.ok());
    }

    #[test]
    fn the_digest_is_sha256() {
        let abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest_bytes(b"abc"), abc);
    }
}
