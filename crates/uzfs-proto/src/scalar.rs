//! Scalars that JSON or varlink cannot carry as they are.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// A number that uses all 64 bits, sent as a decimal string: varlink integers are signed, and many
/// JSON readers keep only 53 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct U64(pub u64);

impl Serialize for U64 {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for U64 {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map(U64).map_err(|_| D::Error::custom("not a decimal 64-bit number"))
    }
}

impl From<u64> for U64 {
    fn from(n: u64) -> Self {
        U64(n)
    }
}

impl std::fmt::Display for U64 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl crate::schema::VarlinkType for U64 {
    fn spelling() -> String {
        "string".into()
    }
}

/// Secret bytes (an encryption key or passphrase), sent as lower-case hexadecimal. Wiped when
/// dropped and never printed.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(pub Vec<u8>);

impl Drop for Secret {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(self.0.len().saturating_mul(2));
        for b in &self.0 {
            text.push(char::from_digit(u32::from(b >> 4), 16).unwrap_or('0'));
            text.push(char::from_digit(u32::from(b & 15), 16).unwrap_or('0'));
        }
        let done = s.serialize_str(&text);
        zeroize::Zeroize::zeroize(&mut text);
        done
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = zeroize::Zeroizing::new(String::deserialize(d)?);
        let digit = |b: u8| char::from(b).to_digit(16).and_then(|n| u8::try_from(n).ok());
        text.as_bytes()
            .chunks(2)
            .map(|pair| match pair {
                [hi, lo] => Some(digit(*hi)? << 4 | digit(*lo)?),
                _ => None,
            })
            .collect::<Option<Vec<u8>>>()
            .map(Secret)
            .ok_or_else(|| D::Error::custom("not hexadecimal bytes"))
    }
}

impl crate::schema::VarlinkType for Secret {
    fn spelling() -> String {
        "string".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_all_bits() {
        let text = serde_json::to_string(&U64(u64::MAX)).unwrap();
        assert_eq!(text, "\"18446744073709551615\"");
        assert_eq!(serde_json::from_str::<U64>(&text).unwrap(), U64(u64::MAX));
        assert!(serde_json::from_str::<U64>("\"18446744073709551616\"").is_err());
        assert!(serde_json::from_str::<U64>("\"-1\"").is_err());
    }

    #[test]
    fn secrets_round_trip_and_stay_hidden() {
        let secret = Secret(vec![0, 1, 0xab, 0xff]);
        let text = serde_json::to_string(&secret).unwrap();
        assert_eq!(text, "\"0001abff\"");
        assert_eq!(serde_json::from_str::<Secret>(&text).unwrap(), secret);
        assert!(serde_json::from_str::<Secret>("\"abc\"").is_err());
        assert!(serde_json::from_str::<Secret>("\"é0\"").is_err());
        assert_eq!(format!("{secret:?}"), "Secret(4 bytes)");
    }
}
