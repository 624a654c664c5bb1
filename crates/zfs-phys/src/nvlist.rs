//! Name-value lists in their packed forms (module/nvpair/nvpair.c; XDR is RFC 4506).
//!
//! A packed list starts with one byte of encoding (0 native, 1 XDR), one of byte order (1 little), two of padding.
//! Lists nest; depth, counts and names are bounded by the input's own length, so a hostile list cannot make the
//! decoder allocate more than a small multiple of what was handed in.

use crate::error::Result;
use crate::read::{Endian, Reader};

/// Deepest nesting accepted.
const MAX_DEPTH: usize = 32;

/// One value.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum NvValue {
    Boolean,
    Byte(u8),
    Int8(i8),
    Uint8(u8),
    Int16(i16),
    Uint16(u16),
    Int32(i32),
    Uint32(u32),
    Int64(i64),
    Uint64(u64),
    Hrtime(i64),
    Double(f64),
    BooleanValue(bool),
    String(String),
    NvList(NvList),
    ByteArray(Vec<u8>),
    Int8Array(Vec<i8>),
    Uint8Array(Vec<u8>),
    Int16Array(Vec<i16>),
    Uint16Array(Vec<u16>),
    Int32Array(Vec<i32>),
    Uint32Array(Vec<u32>),
    Int64Array(Vec<i64>),
    Uint64Array(Vec<u64>),
    BooleanArray(Vec<bool>),
    StringArray(Vec<String>),
    NvListArray(Vec<NvList>),
}

/// A list of named values, in the order they were packed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NvList {
    /// Flags: 1 names are unique, 2 names with types are.
    pub flags: u32,
    /// The pairs.
    pub pairs: Vec<(String, NvValue)>,
}

impl NvList {
    /// An empty list with unique names.
    pub fn new() -> Self {
        Self { flags: 1, pairs: Vec::new() }
    }

    /// The last value under `name` (later pairs win, as with unique names).
    pub fn get(&self, name: &str) -> Option<&NvValue> {
        self.pairs.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v)
    }

    /// Replaces or adds a pair.
    pub fn set(&mut self, name: impl Into<String>, value: NvValue) {
        let name = name.into();
        self.pairs.retain(|(n, _)| *n != name);
        self.pairs.push((name, value));
    }

    /// Replaces or adds a pair, given as any type that is a value.
    pub fn put(&mut self, name: impl Into<String>, value: impl Into<NvValue>) -> &mut Self {
        self.set(name, value.into());
        self
    }

    /// The list with a pair more: for lists built in one expression.
    pub fn with(mut self, name: impl Into<String>, value: impl Into<NvValue>) -> Self {
        self.set(name, value.into());
        self
    }

    /// Removes the pairs of that name and gives the value that counted.
    pub fn remove(&mut self, name: &str) -> Option<NvValue> {
        let mut last = None;
        let pairs = std::mem::take(&mut self.pairs);
        for (n, v) in pairs {
            if n == name {
                last = Some(v);
            } else {
                self.pairs.push((n, v));
            }
        }
        last
    }

    /// Whether there is a pair of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// An unsigned 64-bit value.
    pub fn u64(&self, name: &str) -> Option<u64> {
        match self.get(name)? {
            NvValue::Uint64(v) => Some(*v),
            _ => None,
        }
    }

    /// A string value.
    pub fn str(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            NvValue::String(v) => Some(v),
            _ => None,
        }
    }

    /// A nested list.
    pub fn list(&self, name: &str) -> Option<&NvList> {
        match self.get(name)? {
            NvValue::NvList(v) => Some(v),
            _ => None,
        }
    }

    /// An array of nested lists; empty when absent.
    pub fn lists(&self, name: &str) -> &[NvList] {
        match self.get(name) {
            Some(NvValue::NvListArray(v)) => v,
            _ => &[],
        }
    }

    /// An array of unsigned 64-bit values.
    pub fn u64s(&self, name: &str) -> Option<&[u64]> {
        match self.get(name)? {
            NvValue::Uint64Array(v) => Some(v),
            _ => None,
        }
    }

    /// Decodes a packed list of either encoding; bytes behind its end are ignored.
    pub fn decode(buf: &[u8]) -> Result<Self> {
        let mut r = Reader::new(buf, Endian::Big, "nvlist");
        let [encoding, order, _, _] = r.array()?;
        match encoding {
            1 => xdr::list(&mut r, 0),
            0 => crate::nvlist_native::decode(buf, if order == 1 { Endian::Little } else { Endian::Big }),
            other => Err(r.err(format!("encoding {other} is neither native nor XDR"))),
        }
    }

    /// Packs the list in XDR with its 4-byte header.
    pub fn encode_xdr(&self) -> Vec<u8> {
        let mut out = vec![1, u8::from(Endian::NATIVE == Endian::Little), 0, 0];
        xdr::put_list(&mut out, self);
        out
    }

    /// Packs the list in the native encoding of a byte order, with its 4-byte header.
    pub fn encode_native(&self, endian: Endian) -> Vec<u8> {
        crate::nvlist_native::encode(self, endian)
    }

    /// Bytes that [`Self::encode_xdr`] gives: `nvlist_size` with `NV_ENCODE_XDR`.
    pub fn xdr_size(&self) -> usize {
        self.encode_xdr().len()
    }
}

/// Type numbers of values (`data_type_t`, include/sys/nvpair.h).
pub(crate) mod ty {
    pub const BOOLEAN: u32 = 1;
    pub const BYTE: u32 = 2;
    pub const INT16: u32 = 3;
    pub const UINT16: u32 = 4;
    pub const INT32: u32 = 5;
    pub const UINT32: u32 = 6;
    pub const INT64: u32 = 7;
    pub const UINT64: u32 = 8;
    pub const STRING: u32 = 9;
    pub const BYTE_ARRAY: u32 = 10;
    pub const INT16_ARRAY: u32 = 11;
    pub const UINT16_ARRAY: u32 = 12;
    pub const INT32_ARRAY: u32 = 13;
    pub const UINT32_ARRAY: u32 = 14;
    pub const INT64_ARRAY: u32 = 15;
    pub const UINT64_ARRAY: u32 = 16;
    pub const STRING_ARRAY: u32 = 17;
    pub const HRTIME: u32 = 18;
    pub const NVLIST: u32 = 19;
    pub const NVLIST_ARRAY: u32 = 20;
    pub const BOOLEAN_VALUE: u32 = 21;
    pub const INT8: u32 = 22;
    pub const UINT8: u32 = 23;
    pub const BOOLEAN_ARRAY: u32 = 24;
    pub const INT8_ARRAY: u32 = 25;
    pub const UINT8_ARRAY: u32 = 26;
    pub const DOUBLE: u32 = 27;
}

mod xdr {
    use super::{MAX_DEPTH, NvList, NvValue, ty};
    use crate::error::Result;
    use crate::read::Reader;

    fn string(r: &mut Reader<'_>) -> Result<String> {
        let n = r.u32()? as usize;
        let s = String::from_utf8_lossy(r.bytes(n)?).into_owned();
        r.skip(n.wrapping_neg() % 4)?;
        Ok(s)
    }

    pub(super) fn list(r: &mut Reader<'_>, depth: usize) -> Result<NvList> {
        if depth > MAX_DEPTH {
            return Err(r.err("nested too deeply"));
        }
        let version = r.u32()?;
        if version != 0 {
            return Err(r.err(format!("version {version}")));
        }
        let mut out = NvList { flags: r.u32()?, pairs: Vec::new() };
        loop {
            // Neither size is needed to read the pair, and the first counts four bytes that empty arrays do not have.
            let (encoded, decoded) = (r.u32()?, r.u32()?);
            if encoded == 0 && decoded == 0 {
                return Ok(out);
            }
            let name = string(r)?;
            let (kind, count) = (r.u32()?, r.u32()? as usize);
            let value = value(r, kind, count, depth)?;
            out.pairs.push((name, value));
        }
    }

    fn many<T>(r: &mut Reader<'_>, count: usize, mut one: impl FnMut(&mut Reader<'_>) -> Result<T>) -> Result<Vec<T>> {
        if count > r.remaining() {
            return Err(r.err(format!("{count} elements in {} bytes", r.remaining())));
        }
        let mut out = Vec::with_capacity(count.min(r.remaining() / 4 + 1));
        for _ in 0..count {
            out.push(one(r)?);
        }
        Ok(out)
    }

    fn counted<T>(r: &mut Reader<'_>, count: usize, one: impl FnMut(&mut Reader<'_>) -> Result<T>) -> Result<Vec<T>> {
        // An empty array has no bytes at all, not even its own count.
        if count == 0 {
            return Ok(Vec::new());
        }
        let n = r.u32()? as usize;
        if n != count {
            return Err(r.err(format!("array of {n} in a pair of {count}")));
        }
        many(r, count, one)
    }

    fn opaque(r: &mut Reader<'_>, count: usize) -> Result<Vec<u8>> {
        let b = r.bytes(count)?.to_vec();
        r.skip(count.wrapping_neg() % 4)?;
        Ok(b)
    }

    fn value(r: &mut Reader<'_>, kind: u32, count: usize, depth: usize) -> Result<NvValue> {
        use NvValue as V;
        Ok(match kind {
            ty::BOOLEAN => V::Boolean,
            ty::BYTE => V::Byte(r.u32()? as u8),
            ty::INT8 => V::Int8(r.u32()? as i8),
            ty::UINT8 => V::Uint8(r.u32()? as u8),
            ty::INT16 => V::Int16(r.u32()? as i16),
            ty::UINT16 => V::Uint16(r.u32()? as u16),
            ty::INT32 => V::Int32(r.u32()? as i32),
            ty::UINT32 => V::Uint32(r.u32()?),
            ty::INT64 => V::Int64(r.u64()? as i64),
            ty::UINT64 => V::Uint64(r.u64()?),
            ty::HRTIME => V::Hrtime(r.u64()? as i64),
            ty::DOUBLE => V::Double(f64::from_bits(r.u64()?)),
            ty::BOOLEAN_VALUE => V::BooleanValue(r.u32()? != 0),
            ty::STRING => V::String(string(r)?),
            ty::NVLIST => V::NvList(list(r, depth + 1)?),
            ty::NVLIST_ARRAY => V::NvListArray(many(r, count, |r| list(r, depth + 1))?),
            ty::BYTE_ARRAY => V::ByteArray(opaque(r, count)?),
            ty::INT8_ARRAY => V::Int8Array(counted(r, count, |r| r.u32().map(|v| v as i8))?),
            ty::UINT8_ARRAY => V::Uint8Array(counted(r, count, |r| r.u32().map(|v| v as u8))?),
            ty::INT16_ARRAY => V::Int16Array(counted(r, count, |r| r.u32().map(|v| v as i16))?),
            ty::UINT16_ARRAY => V::Uint16Array(counted(r, count, |r| r.u32().map(|v| v as u16))?),
            ty::INT32_ARRAY => V::Int32Array(counted(r, count, |r| r.u32().map(|v| v as i32))?),
            ty::UINT32_ARRAY => V::Uint32Array(counted(r, count, |r| r.u32())?),
            ty::INT64_ARRAY => V::Int64Array(counted(r, count, |r| r.u64().map(|v| v as i64))?),
            ty::UINT64_ARRAY => V::Uint64Array(counted(r, count, |r| r.u64())?),
            ty::BOOLEAN_ARRAY => V::BooleanArray(counted(r, count, |r| r.u32().map(|v| v != 0))?),
            ty::STRING_ARRAY => V::StringArray(many(r, count, string)?),
            other => return Err(r.err(format!("value type {other} does not exist"))),
        })
    }

    fn put_u32(out: &mut Vec<u8>, v: u32) {
        out.extend(v.to_be_bytes());
    }

    fn put_bytes(out: &mut Vec<u8>, b: &[u8]) {
        out.extend(b);
        out.resize(out.len() + b.len().wrapping_neg() % 4, 0);
    }

    fn put_string(out: &mut Vec<u8>, s: &str) {
        put_u32(out, s.len() as u32);
        put_bytes(out, s.as_bytes());
    }

    fn put_array<T: Copy>(out: &mut Vec<u8>, a: &[T], put: impl Fn(&mut Vec<u8>, T)) {
        if a.is_empty() {
            return;
        }
        put_u32(out, a.len() as u32);
        for v in a {
            put(out, *v);
        }
    }

    pub(super) fn put_list(out: &mut Vec<u8>, list: &NvList) {
        put_u32(out, 0);
        put_u32(out, list.flags);
        for (name, value) in &list.pairs {
            let start = out.len();
            out.extend([0; 8]);
            put_string(out, name);
            let (kind, count) = value.kind_and_count();
            put_u32(out, kind);
            put_u32(out, count as u32);
            put_value(out, value);
            let encoded = (out.len() - start + value.xdr_size_excess()) as u32;
            let decoded = value.native_pair_size(name) as u32;
            let sizes = [encoded.to_be_bytes(), decoded.to_be_bytes()].concat();
            if let Some(dst) = out.get_mut(start..start + 8) {
                dst.copy_from_slice(&sizes);
            }
        }
        out.extend([0; 8]);
    }

    fn put_value(out: &mut Vec<u8>, value: &NvValue) {
        use NvValue as V;
        let put_u64 = |out: &mut Vec<u8>, v: u64| out.extend(v.to_be_bytes());
        match value {
            V::Boolean => {}
            V::Byte(v) | V::Uint8(v) => put_u32(out, u32::from(*v)),
            V::Int8(v) => put_u32(out, i32::from(*v) as u32),
            V::Int16(v) => put_u32(out, i32::from(*v) as u32),
            V::Uint16(v) => put_u32(out, u32::from(*v)),
            V::Int32(v) => put_u32(out, *v as u32),
            V::Uint32(v) => put_u32(out, *v),
            V::Int64(v) | V::Hrtime(v) => put_u64(out, *v as u64),
            V::Uint64(v) => put_u64(out, *v),
            V::Double(v) => put_u64(out, v.to_bits()),
            V::BooleanValue(v) => put_u32(out, u32::from(*v)),
            V::String(v) => put_string(out, v),
            V::NvList(v) => put_list(out, v),
            V::NvListArray(v) => v.iter().for_each(|l| put_list(out, l)),
            V::ByteArray(v) => put_bytes(out, v),
            V::Int8Array(v) => put_array(out, v, |o, x| put_u32(o, i32::from(x) as u32)),
            V::Uint8Array(v) => put_array(out, v, |o, x| put_u32(o, u32::from(x))),
            V::Int16Array(v) => put_array(out, v, |o, x| put_u32(o, i32::from(x) as u32)),
            V::Uint16Array(v) => put_array(out, v, |o, x| put_u32(o, u32::from(x))),
            V::Int32Array(v) => put_array(out, v, |o, x| put_u32(o, x as u32)),
            V::Uint32Array(v) => put_array(out, v, put_u32),
            V::Int64Array(v) => put_array(out, v, |o, x| put_u64(o, x as u64)),
            V::Uint64Array(v) => put_array(out, v, put_u64),
            V::BooleanArray(v) => put_array(out, v, |o, x| put_u32(o, u32::from(x))),
            V::StringArray(v) => v.iter().for_each(|s| put_string(out, s)),
        }
    }
}

macro_rules! from {
    ($($t:ty => $variant:ident),* $(,)?) => {
        $(impl From<$t> for NvValue {
            fn from(v: $t) -> Self {
                NvValue::$variant(v.into())
            }
        })*
    };
}

from! {
    u8 => Uint8, i32 => Int32, u32 => Uint32, i64 => Int64, u64 => Uint64, bool => BooleanValue,
    &str => String, String => String, NvList => NvList, Vec<NvList> => NvListArray,
    Vec<u64> => Uint64Array, &[u64] => Uint64Array, Vec<String> => StringArray,
}

impl NvValue {
    /// Bytes by which OpenZFS's size word of an XDR pair exceeds the pair: the missing count of an empty array.
    fn xdr_size_excess(&self) -> usize {
        let (kind, count) = self.kind_and_count();
        let counted = matches!(kind, 11..=16 | 24..=26);
        if counted && count == 0 { 4 } else { 0 }
    }

    /// Type number and element count as packed.
    pub(crate) fn kind_and_count(&self) -> (u32, usize) {
        use NvValue as V;
        match self {
            V::Boolean => (ty::BOOLEAN, 0),
            V::Byte(_) => (ty::BYTE, 1),
            V::Int8(_) => (ty::INT8, 1),
            V::Uint8(_) => (ty::UINT8, 1),
            V::Int16(_) => (ty::INT16, 1),
            V::Uint16(_) => (ty::UINT16, 1),
            V::Int32(_) => (ty::INT32, 1),
            V::Uint32(_) => (ty::UINT32, 1),
            V::Int64(_) => (ty::INT64, 1),
            V::Uint64(_) => (ty::UINT64, 1),
            V::Hrtime(_) => (ty::HRTIME, 1),
            V::Double(_) => (ty::DOUBLE, 1),
            V::BooleanValue(_) => (ty::BOOLEAN_VALUE, 1),
            V::String(_) => (ty::STRING, 1),
            V::NvList(_) => (ty::NVLIST, 1),
            V::ByteArray(v) => (ty::BYTE_ARRAY, v.len()),
            V::Int8Array(v) => (ty::INT8_ARRAY, v.len()),
            V::Uint8Array(v) => (ty::UINT8_ARRAY, v.len()),
            V::Int16Array(v) => (ty::INT16_ARRAY, v.len()),
            V::Uint16Array(v) => (ty::UINT16_ARRAY, v.len()),
            V::Int32Array(v) => (ty::INT32_ARRAY, v.len()),
            V::Uint32Array(v) => (ty::UINT32_ARRAY, v.len()),
            V::Int64Array(v) => (ty::INT64_ARRAY, v.len()),
            V::Uint64Array(v) => (ty::UINT64_ARRAY, v.len()),
            V::BooleanArray(v) => (ty::BOOLEAN_ARRAY, v.len()),
            V::StringArray(v) => (ty::STRING_ARRAY, v.len()),
            V::NvListArray(v) => (ty::NVLIST_ARRAY, v.len()),
        }
    }

    /// Bytes the pair takes unpacked in memory (`NVP_SIZE_CALC`), which the XDR form records beside its own size.
    pub(crate) fn native_pair_size(&self, name: &str) -> usize {
        use NvValue as V;
        let value = match self {
            V::Boolean => 0,
            V::Byte(_) | V::Int8(_) | V::Uint8(_) => 1,
            V::Int16(_) | V::Uint16(_) => 2,
            V::Int32(_) | V::Uint32(_) | V::BooleanValue(_) => 4,
            V::Int64(_) | V::Uint64(_) | V::Hrtime(_) | V::Double(_) => 8,
            V::String(s) => s.len() + 1,
            V::NvList(_) => 24,
            V::ByteArray(v) | V::Uint8Array(v) => v.len(),
            V::Int8Array(v) => v.len(),
            V::Int16Array(v) => 2 * v.len(),
            V::Uint16Array(v) => 2 * v.len(),
            V::Int32Array(v) => 4 * v.len(),
            V::Uint32Array(v) => 4 * v.len(),
            V::BooleanArray(v) => 4 * v.len(),
            V::Int64Array(v) => 8 * v.len(),
            V::Uint64Array(v) => 8 * v.len(),
            V::StringArray(v) => v.iter().map(|s| 8 + s.len() + 1).sum(),
            V::NvListArray(v) => v.len() * (8 + 24),
        };
        let align8 = |n: usize| n.div_ceil(8) * 8;
        align8(16 + name.len() + 1) + align8(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn leaf() -> impl Strategy<Value = NvValue> {
        prop_oneof![
            Just(NvValue::Boolean),
            any::<u64>().prop_map(NvValue::Uint64),
            any::<i32>().prop_map(NvValue::Int32),
            any::<bool>().prop_map(NvValue::BooleanValue),
            "[ -~]{0,20}".prop_map(NvValue::String),
            proptest::collection::vec(any::<u64>(), 0..5).prop_map(NvValue::Uint64Array),
            proptest::collection::vec(any::<u8>(), 0..9).prop_map(NvValue::ByteArray),
            proptest::collection::vec("[a-z]{0,7}", 0..4).prop_map(NvValue::StringArray),
        ]
    }

    fn tree() -> impl Strategy<Value = NvValue> {
        leaf().prop_recursive(4, 24, 4, |inner| {
            let list = proptest::collection::btree_map("[a-z]{1,9}", inner, 0..4)
                .prop_map(|m| NvList { flags: 1, pairs: m.into_iter().collect() });
            prop_oneof![
                list.clone().prop_map(NvValue::NvList),
                proptest::collection::vec(list, 0..3).prop_map(NvValue::NvListArray)
            ]
        })
    }

    proptest! {
        #[test]
        fn xdr_round_trip(value in tree()) {
            let list = NvList { flags: 1, pairs: vec![("top".into(), value)] };
            prop_assert_eq!(NvList::decode(&list.encode_xdr()).unwrap(), list);
        }

        #[test]
        fn native_round_trip(value in tree(), big: bool, flags in 0u32..3) {
            let list = NvList { flags, pairs: vec![("top".into(), value)] };
            let packed = list.encode_native(if big { Endian::Big } else { Endian::Little });
            prop_assert_eq!(NvList::decode(&packed).unwrap(), list);
        }

        #[test]
        fn no_input_panics(mut buf in proptest::collection::vec(any::<u8>(), 4..400), native: bool) {
            buf[0] = u8::from(!native);
            let _ = NvList::decode(&buf);
        }
    }

    #[test]
    fn lists_are_built_in_order() {
        let mut l = NvList::new().with("a", 1u64).with("b", "text").with("c", true).with("a", vec![1u64, 2]);
        assert_eq!(l.pairs.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(), ["b", "c", "a"]);
        assert_eq!((l.remove("a"), l.remove("a")), (Some(NvValue::Uint64Array(vec![1, 2])), None));
        l.put("empty", Vec::<u64>::new()).put("after", 7u64);
        let packed = l.encode_xdr();
        assert_eq!((NvList::decode(&packed).unwrap(), packed.len()), (l.clone(), l.xdr_size()));
    }
}
