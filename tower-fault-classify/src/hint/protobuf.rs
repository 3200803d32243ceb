//! A minimal reader of the protobuf wire format, which finds fields in a message of a known shape.
//!
//! It does not allocate or recurse: a nested message is returned as bytes, and the caller reads
//! those bytes in turn. Groups are malformed, because no message here has them and they nest.

/// The error of bytes that are not a valid message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// A field's value, by its wire type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// Any integer, `bool` or enum. A signed one is in two's complement.
    Varint(u64),
    /// A string, bytes or a message.
    Bytes(&'a [u8]),
    /// Four or eight bytes. No field here has this type.
    Fixed,
}

/// An iterator over the fields of a message with their numbers, up to the first malformed field.
#[derive(Clone, Debug)]
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn of(message: &'a [u8]) -> Self {
        Self(message)
    }

    fn field(&mut self) -> Result<(u32, Value<'a>), Malformed> {
        let tag = u32::try_from(self.varint()?).map_err(|_| Malformed)?;
        let (number, wire_type) = (tag >> 3, tag & 7);
        if number == 0 {
            return Err(Malformed);
        }
        let value = match wire_type {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return Err(Malformed),
        };
        Ok((number, value))
    }

    /// Reads a varint: seven bits for each byte, the lowest bits first. The tenth byte has one bit.
    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(Malformed)?;
            self.0 = rest;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return Err(Malformed);
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(message: &[u8]) -> Result<Vec<(u32, Value<'_>)>, Malformed> {
        Fields::of(message).collect()
    }

    #[test]
    fn fields_of_every_wire_type_are_read() {
        assert_eq!(read(b""), Ok(vec![]));
        assert_eq!(read(b"\x08\x96\x01"), Ok(vec![(1, Value::Varint(150))]));
        assert_eq!(read(b"\x12\x02hi"), Ok(vec![(2, Value::Bytes(b"hi"))]));
        assert_eq!(read(b"\x1900000000\x250000"), Ok(vec![(3, Value::Fixed), (4, Value::Fixed)]));
        assert_eq!(read(b"\xf8\xff\xff\xff\x0f\0"), Ok(vec![((1 << 29) - 1, Value::Varint(0))]));
    }

    #[test]
    fn fields_of_invalid_message_are_malformed() {
        for message in [
            &b"\x08"[..],
            b"\x08\x80",
            b"\x12\x03hi",
            b"\x19",
            b"\x25000",
            b"\x00\x00",
            b"\x0b\x0c",
            b"\x0e",
            b"\x0f",
            b"\x80\x80\x80\x80\x10\0",
            b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ] {
            assert_eq!(read(message), Err(Malformed), "{message:?}");
        }
    }

    #[test]
    fn varint_over_64_bits_is_malformed() {
        let longest = b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
        assert_eq!(read(longest), Ok(vec![(1, Value::Varint(u64::MAX))]));
        assert_eq!(read(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"), Err(Malformed));
        assert_eq!(read(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x81\x00"), Err(Malformed));
        assert_eq!(read(b"\x08\x81\x80\x00"), Ok(vec![(1, Value::Varint(1))]));
    }

    #[test]
    fn fields_stop_at_first_malformed() {
        let mut fields = Fields::of(b"\x08\x01\x0f\x08\x02");
        assert_eq!(fields.next(), Some(Ok((1, Value::Varint(1)))));
        assert_eq!(fields.next(), Some(Err(Malformed)));
        assert_eq!(fields.next(), None);
    }

    proptest! {
        #[test]
        fn fields_of_any_bytes_terminate(message in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Fields::of(&message).count() <= message.len());
        }

        #[test]
        fn prost_encoded_message_is_read(
            number in 1_u32..1 << 29,
            integer in any::<u64>(),
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let mut message = Vec::new();
            prost::encoding::uint64::encode(number, &integer, &mut message);
            prost::encoding::fixed32::encode(number, &7, &mut message);
            prost::encoding::bytes::encode(number, &bytes, &mut message);
            prost::encoding::fixed64::encode(number, &7, &mut message);
            let fields = [Value::Varint(integer), Value::Fixed, Value::Bytes(&bytes), Value::Fixed];
            prop_assert_eq!(read(&message), Ok(fields.map(|value| (number, value)).to_vec()));
        }
    }
}
