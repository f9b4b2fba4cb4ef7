//! [`DecimalColumn`], in which nearly all values travel. It is the message of `ingest.proto`, field for field, but read by hand: its
//! lists are as long as the bytes say that end a number, so that they are made once and filled without a look at their room.

use prost::DecodeError;
use prost::bytes::{Buf, BufMut};
use prost::encoding::{DecodeContext, WireType, decode_varint, sint64, skip_field, uint32};

/// Values that are decimal fractions, as differences, see `ingest.proto`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DecimalColumn {
    /// After the point, 0 to 9.
    pub digits: u32,
    /// Series: the first one, then the gap to the one before.
    pub refs: Vec<u32>,
    /// Differences of mantissas.
    pub deltas: Vec<i64>,
}

const DIGITS: u32 = 1;
const REFS: u32 = 2;
const DELTAS: u32 = 3;

/// A byte of a number that is followed by another.
const MORE: u8 = 0x80;

impl prost::Message for DecimalColumn {
    fn encode_raw(&self, out: &mut impl BufMut) {
        if self.digits != 0 {
            uint32::encode(DIGITS, &self.digits, out);
        }
        uint32::encode_packed(REFS, &self.refs, out);
        sint64::encode_packed(DELTAS, &self.deltas, out);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        bytes: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        match (tag, wire_type) {
            (DIGITS, _) => uint32::merge(wire_type, &mut self.digits, bytes, context),
            (REFS, WireType::LengthDelimited) => read_list(bytes, &mut self.refs, |number| number as u32),
            (DELTAS, WireType::LengthDelimited) => read_list(bytes, &mut self.deltas, unzigzag),
            // Number by number, as a writer may put them who does not know better.
            (REFS, _) => uint32::merge_repeated(wire_type, &mut self.refs, bytes, context),
            (DELTAS, _) => sint64::merge_repeated(wire_type, &mut self.deltas, bytes, context),
            _ => skip_field(wire_type, tag, bytes, context),
        }
    }

    fn encoded_len(&self) -> usize {
        let digits = if self.digits == 0 { 0 } else { uint32::encoded_len(DIGITS, &self.digits) };
        digits + uint32::encoded_len_packed(REFS, &self.refs) + sint64::encoded_len_packed(DELTAS, &self.deltas)
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

/// Adds the numbers of a packed list.
fn read_list<T>(bytes: &mut impl Buf, out: &mut Vec<T>, number: impl Fn(u64) -> T) -> Result<(), DecodeError> {
    let length = usize::try_from(decode_varint(bytes)?).unwrap_or(usize::MAX);
    if length > bytes.remaining() {
        // An error of prost's own: others cannot make one.
        return decode_varint(&mut &[][..]).map(drop);
    }
    // Mostly it lies in one piece.
    if bytes.chunk().len() >= length {
        read_numbers(&bytes.chunk()[..length], out, number)?;
        bytes.advance(length);
        return Ok(());
    }
    read_numbers(&bytes.copy_to_bytes(length), out, number)
}

fn read_numbers<T>(mut list: &[u8], out: &mut Vec<T>, number: impl Fn(u64) -> T) -> Result<(), DecodeError> {
    out.reserve_exact(list.iter().filter(|byte| **byte < MORE).count());
    while let Some((first, rest)) = list.split_first() {
        let next = if *first < MORE {
            list = rest;
            u64::from(*first)
        } else {
            decode_varint(&mut list)?
        };
        out.push(number(next));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    /// The message as it is generated.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Generated {
        #[prost(uint32, tag = "1")]
        digits: u32,
        #[prost(uint32, repeated, tag = "2")]
        refs: Vec<u32>,
        #[prost(sint64, repeated, tag = "3")]
        deltas: Vec<i64>,
    }

    /// The same, one number after the other.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Unpacked {
        #[prost(uint32, repeated, packed = "false", tag = "2")]
        refs: Vec<u32>,
        #[prost(sint64, repeated, packed = "false", tag = "3")]
        deltas: Vec<i64>,
        #[prost(string, tag = "9")]
        unknown: String,
    }

    fn fields(column: Result<DecimalColumn, DecodeError>) -> Option<(u32, Vec<u32>, Vec<i64>)> {
        column.ok().map(|column| (column.digits, column.refs, column.deltas))
    }

    proptest! {
        #[test]
        fn it_is_what_prost_would_make_of_it(digits in 0u32..20, refs: Vec<u32>, deltas: Vec<i64>, cut in 0usize..4096) {
            let generated = Generated { digits, refs, deltas };
            let Generated { digits, refs, deltas } = generated.clone();
            let bytes = generated.encode_to_vec();
            let column = DecimalColumn::decode(&*bytes).unwrap();
            prop_assert_eq!(&column, &DecimalColumn { digits, refs: refs.clone(), deltas: deltas.clone() });
            prop_assert_eq!(column.encode_to_vec(), bytes.clone());
            prop_assert_eq!(column.encoded_len(), bytes.len());
            // In two pieces, and twice: lists go on.
            let cut = cut % (bytes.len() + 1);
            let twice = DecimalColumn::decode(bytes[..cut].chain(&*[&bytes[cut..], &*bytes].concat())).unwrap();
            prop_assert_eq!((twice.refs, twice.deltas), (refs.repeat(2), deltas.repeat(2)));
            let unpacked = Unpacked { refs, deltas, unknown: "newer".into() };
            let column = DecimalColumn::decode(&*unpacked.encode_to_vec()).unwrap();
            prop_assert_eq!((column.refs, column.deltas), (unpacked.refs, unpacked.deltas));
        }

        #[test]
        fn of_garbage_it_makes_what_prost_does(bytes: Vec<u8>, length in 0u8..40, tag in prop::sample::select(vec![0x0au8, 0x12, 0x1a])) {
            for bytes in [bytes.clone(), [&[tag, length][..], &bytes].concat()] {
                let wanted = Generated::decode(&*bytes).ok().map(|wanted| (wanted.digits, wanted.refs, wanted.deltas));
                prop_assert_eq!(fields(DecimalColumn::decode(&*bytes)), wanted);
            }
        }
    }
}
