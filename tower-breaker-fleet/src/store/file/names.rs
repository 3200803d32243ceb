//! File names for the names of namespaces and circuits.

use std::fmt::Write;

/// The longest encoded text. File systems allow 255 bytes, and a suffix follows.
const LONGEST: usize = 180;

/// Returns a file name without a suffix for any text.
///
/// The name consists of lower-case ASCII letters, digits, `-`, `_`, `%` and `~`. So it cannot leave
/// the folder, is valid on each file system, and differs from the name of another text also where
/// the case does not count. Only two long texts can get the same name, with the same beginning and
/// the same hash; the content of a file therefore repeats the text.
pub(super) fn encode(text: &str) -> String {
    let mut name = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => name.push(char::from(byte)),
            _ => push(&mut name, format_args!("%{byte:02x}")),
        }
    }
    if name.is_empty() {
        name.push('%');
    } else if name.len() > LONGEST {
        name.truncate(LONGEST - "~0123456789abcdef".len());
        push(&mut name, format_args!("~{:016x}", fnv1a(text.as_bytes())));
    }
    name
}

/// Returns the text of a name, or `None` if the name is no complete encoding.
pub(super) fn decode(name: &str) -> Option<String> {
    let mut text = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let [first, after @ ..] = rest {
        if *first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            text.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            text.push(*first);
            rest = after;
        }
    }
    // A hash cannot be decoded, and a file with another name is not from this store.
    String::from_utf8(text).ok().filter(|text| encode(text) == name)
}

fn push(name: &mut String, part: std::fmt::Arguments<'_>) {
    name.write_fmt(part).expect("a `String` accepts all text");
}

/// The hash FNV-1a, which is the same in each version of Rust and of this crate.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_names_stay_readable() {
        assert_eq!(encode("payments-eu_1"), "payments-eu_1");
        assert_eq!(encode("../Ü"), "%2e%2e%2f%c3%9c");
        assert_eq!(encode(""), "%");
    }

    #[test]
    fn long_names_with_a_common_beginning_differ() {
        let [first, second] = ['a', 'b'].map(|end| encode(&format!("{}{end}", "x".repeat(255))));
        assert_ne!(first, second);
        assert_eq!((first.len(), decode(&first)), (LONGEST, None));
    }

    #[test]
    fn hash_stays_the_same_in_all_versions() {
        // The published test vectors of FNV-1a.
        assert_eq!(
            [fnv1a(b""), fnv1a(b"a"), fnv1a(b"foobar")],
            [0xcbf2_9ce4_8422_2325, 0xaf63_dc4c_8601_ec8c, 0x8594_4171_f739_67e8]
        );
    }

    proptest! {
        #[test]
        fn encoded_name_is_a_safe_file_name(text in "\\PC{0,256}|.{0,256}|[./\\\\A-Z~%]{0,100}") {
            let name = encode(&text);
            prop_assert!((1..=LONGEST).contains(&name.len()), "{}", name.len());
            prop_assert!(name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'%' | b'~')), "{name}");
            if !name.contains('~') && !text.is_empty() {
                prop_assert_eq!(decode(&name), Some(text));
            }
        }

        #[test]
        fn decoding_foreign_names_does_not_panic(name in ".{0,40}|[%a-f0-9é]{0,12}") {
            if let Some(text) = decode(&name) {
                prop_assert_eq!(encode(&text), name);
            }
        }
    }
}
