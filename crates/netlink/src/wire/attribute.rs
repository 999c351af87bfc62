//! Reading attributes.

use super::{ATTRIBUTE_HEADER, align, array, u16_at, u32_at};

/// Bits of `nla_type` that are the type: the upper two say "nested" and "network order".
const TYPE_MASK: u16 = 0x3fff;

/// One attribute: a type and its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attribute<'a> {
    /// Type, without the flag bits.
    pub(crate) kind: u16,
    /// Payload, without padding.
    pub(crate) payload: &'a [u8],
}

impl<'a> Attribute<'a> {
    pub(crate) fn u8(self) -> Option<u8> {
        self.payload.first().copied()
    }

    pub(crate) fn u16(self) -> Option<u16> {
        u16_at(self.payload, 0)
    }

    pub(crate) fn u32(self) -> Option<u32> {
        u32_at(self.payload, 0)
    }

    pub(crate) fn u64(self) -> Option<u64> {
        array(self.payload, 0).map(u64::from_ne_bytes)
    }

    /// Returns the text before the first NUL; `None` when it is not UTF-8.
    pub(crate) fn text(self) -> Option<&'a str> {
        let end = self.payload.iter().position(|byte| *byte == 0);
        let bytes = self.payload.get(..end.unwrap_or(self.payload.len()))?;
        std::str::from_utf8(bytes).ok()
    }

    /// Returns a copy of the text; `None` when it is empty or not UTF-8.
    pub(crate) fn string(self) -> Option<String> {
        self.text()
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    }

    pub(crate) fn nested(self) -> Attributes<'a> {
        Attributes::new(self.payload)
    }
}

/// The attributes of a message or of a nest, in order.
///
/// It ends at the first attribute that is cut short; [`Attributes::rest`] then tells where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Returns the bytes that were not consumed.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Returns the type of the next attribute, whether or not its length makes sense.
    pub(crate) fn next_kind(&self) -> Option<u16> {
        u16_at(self.rest, 2).map(|kind| kind & TYPE_MASK)
    }

    /// Returns the first attribute of type `kind`.
    pub(crate) fn find(mut self, kind: u16) -> Option<Attribute<'a>> {
        Iterator::find(&mut self, |attribute| attribute.kind == kind)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        let length = usize::from(u16_at(self.rest, 0)?);
        let kind = u16_at(self.rest, 2)? & TYPE_MASK;
        let payload = self.rest.get(ATTRIBUTE_HEADER..length)?;
        // The last attribute of a nest may lack its padding.
        self.rest = self.rest.get(align(length)..).unwrap_or_default();
        Some(Attribute { kind, payload })
    }
}
