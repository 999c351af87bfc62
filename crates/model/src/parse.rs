//! One error for text that is not the value it should be, and the serde glue of text values.

/// Text that could not be read as a domain value.
///
/// The text is cut to a bounded length, so a hostile input cannot flood a log line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct ParseError {
    text: String,
    expected: &'static str,
}

/// Longest quotation of bad input in an error, in characters.
const QUOTED_CHARS: usize = 80;

impl ParseError {
    /// Quotes `text` and says what was expected, with a good example, such as
    /// `"a PCI address such as 0000:3b:00.1"`.
    #[must_use]
    pub fn new(text: &str, expected: &'static str) -> Self {
        let mut quoted: String = text.chars().take(QUOTED_CHARS).collect();
        if quoted.len() < text.len() {
            quoted.push('…');
        }
        Self {
            text: quoted,
            expected,
        }
    }
}

/// Parses digits only: `u32::from_str_radix` alone would take `+3`.
pub(crate) fn digits(text: &str, radix: u32) -> Option<u32> {
    let plain = !text.is_empty() && text.chars().all(|c| c.is_digit(radix));
    if plain {
        u32::from_str_radix(text, radix).ok()
    } else {
        None
    }
}

/// Makes a `FromStr` + `Display` type a string in serde.
macro_rules! serde_as_text {
    ($($name:ty),+ $(,)?) => {$(
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}
pub(crate) use serde_as_text;
