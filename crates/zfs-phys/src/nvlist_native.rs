//! The native encoding of packed nvlists: memory images of `nvpair_t` with the embedded pointers zeroed
//! (module/nvpair/nvpair.c). Found in boot environments and send streams.

use crate::error::Result;
use crate::nvlist::{NvList, NvValue, ty};
use crate::read::{Endian, Reader};
use crate::write::Writer;

const MAX_DEPTH: usize = 32;
/// `sizeof (nvlist_t)`: version, flags, 64-bit private pointer, flag, padding.
const NVLIST_T: usize = 24;

/// Packs a list, its 4-byte header included.
pub fn encode(list: &NvList, endian: Endian) -> Vec<u8> {
    let mut w = Writer::new(endian, "native nvlist", 256);
    w.bytes(&[0, u8::from(endian == Endian::Little), 0, 0]).u32(0).u32(list.flags);
    put_pairs(&mut w, list);
    w.finish()
}

fn put_pairs(w: &mut Writer, list: &NvList) {
    for (name, value) in &list.pairs {
        put_pair(w, name, value);
        match value {
            NvValue::NvList(l) => put_pairs(w, l),
            NvValue::NvListArray(ls) => ls.iter().for_each(|l| put_pairs(w, l)),
            _ => {}
        }
    }
    w.u32(0);
}

/// The image of one pair, all pointers zero. Pairs start at any multiple of 4, so padding counts from their start.
fn put_pair(w: &mut Writer, name: &str, value: &NvValue) {
    let size = value.native_pair_size(name);
    let (kind, count) = value.kind_and_count();
    let mut p = Writer::new(w.endian(), "native nvpair", size);
    p.u32(size as u32).u16((name.len() + 1) as u16).u16(0).u32(count as u32).u32(kind);
    p.bytes(name.as_bytes()).u8(0).align(8);
    put_value(&mut p, value);
    p.align(8);
    w.bytes(&p.finish());
}

fn cat<T: Copy, const N: usize>(items: &[T], one: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    items.iter().flat_map(|i| one(*i)).collect()
}

fn put_value(w: &mut Writer, value: &NvValue) {
    use NvValue as V;
    let e = w.endian();
    let nvlist_t = |l: &NvList| [&e.put_u32(0)[..], &e.put_u32(l.flags), &[0; NVLIST_T - 8]].concat();
    let bytes = match value {
        V::Boolean => Vec::new(),
        V::Byte(v) | V::Uint8(v) => vec![*v],
        V::Int8(v) => vec![*v as u8],
        V::Int16(v) => e.put_u16(*v as u16).to_vec(),
        V::Uint16(v) => e.put_u16(*v).to_vec(),
        V::Int32(v) => e.put_u32(*v as u32).to_vec(),
        V::Uint32(v) => e.put_u32(*v).to_vec(),
        V::Int64(v) | V::Hrtime(v) => e.put_u64(*v as u64).to_vec(),
        V::Uint64(v) => e.put_u64(*v).to_vec(),
        V::Double(v) => e.put_u64(v.to_bits()).to_vec(),
        V::BooleanValue(v) => e.put_u32((*v).into()).to_vec(),
        V::String(s) => [s.as_bytes(), &[0]].concat(),
        V::ByteArray(v) | V::Uint8Array(v) => v.clone(),
        V::Int8Array(v) => cat(v, |x| [x as u8]),
        V::Int16Array(v) => cat(v, |x| e.put_u16(x as u16)),
        V::Uint16Array(v) => cat(v, |x| e.put_u16(x)),
        V::Int32Array(v) => cat(v, |x| e.put_u32(x as u32)),
        V::Uint32Array(v) => cat(v, |x| e.put_u32(x)),
        V::Int64Array(v) => cat(v, |x| e.put_u64(x as u64)),
        V::Uint64Array(v) => cat(v, |x| e.put_u64(x)),
        V::BooleanArray(v) => cat(v, |x| e.put_u32(x.into())),
        V::StringArray(v) => {
            let strings = v.iter().flat_map(|s| [s.as_bytes(), &[0]].concat());
            [vec![0; 8 * v.len()], strings.collect()].concat()
        }
        V::NvList(l) => nvlist_t(l),
        V::NvListArray(v) => [vec![0; 8 * v.len()], v.iter().flat_map(nvlist_t).collect()].concat(),
    };
    w.bytes(&bytes);
}

/// Decodes a packed native list (its 4-byte header included).
pub fn decode(buf: &[u8], endian: Endian) -> Result<NvList> {
    let mut r = Reader::new(buf, endian, "native nvlist");
    r.skip(4)?;
    let (_version, flags) = (r.u32()?, r.u32()?);
    pairs(&mut r, flags, 0)
}

fn pairs(r: &mut Reader<'_>, flags: u32, depth: usize) -> Result<NvList> {
    if depth > MAX_DEPTH {
        return Err(r.err("nested too deeply"));
    }
    let mut out = NvList { flags, pairs: Vec::new() };
    loop {
        let start = r.pos();
        let size = r.u32()? as usize;
        if size == 0 {
            return Ok(out);
        }
        let name_size = usize::from(r.u16()?);
        r.skip(2)?;
        let (count, kind) = (r.u32()? as usize, r.u32()?);
        let name = string(r.bytes(name_size)?);
        let head = (16 + name_size).div_ceil(8) * 8;
        if size < head {
            return Err(r.err(format!("pair of {size} bytes is shorter than its name")));
        }
        r.seek(start + head)?;
        let body = r.bytes(size - head)?;
        let mut v = Reader::new(body, r.endian(), "native nvpair");
        let value = match kind {
            ty::NVLIST => {
                v.skip(4)?;
                NvValue::NvList(pairs(r, v.u32()?, depth + 1)?)
            }
            ty::NVLIST_ARRAY => {
                if count > body.len() / NVLIST_T {
                    return Err(r.err(format!("{count} lists in {} bytes", body.len())));
                }
                v.skip(count * 8)?;
                let mut lists = Vec::with_capacity(count);
                for _ in 0..count {
                    let flags =
                        Reader::new(v.bytes(NVLIST_T)?.get(4..).unwrap_or_default(), r.endian(), "nvlist").u32()?;
                    lists.push(pairs(r, flags, depth + 1)?);
                }
                NvValue::NvListArray(lists)
            }
            _ => scalar_or_array(&mut v, kind, count)?,
        };
        out.pairs.push((name, value));
    }
}

fn string(b: &[u8]) -> String {
    String::from_utf8_lossy(b.split(|c| *c == 0).next().unwrap_or_default()).into_owned()
}

fn many<T>(r: &mut Reader<'_>, n: usize, mut one: impl FnMut(&mut Reader<'_>) -> Result<T>) -> Result<Vec<T>> {
    if n > r.remaining() {
        return Err(r.err(format!("{n} elements in {} bytes", r.remaining())));
    }
    (0..n).map(|_| one(r)).collect()
}

fn scalar_or_array(r: &mut Reader<'_>, kind: u32, n: usize) -> Result<NvValue> {
    use NvValue as V;
    Ok(match kind {
        ty::BOOLEAN => V::Boolean,
        ty::BYTE => V::Byte(r.u8()?),
        ty::INT8 => V::Int8(r.u8()? as i8),
        ty::UINT8 => V::Uint8(r.u8()?),
        ty::INT16 => V::Int16(r.u16()? as i16),
        ty::UINT16 => V::Uint16(r.u16()?),
        ty::INT32 => V::Int32(r.u32()? as i32),
        ty::UINT32 => V::Uint32(r.u32()?),
        ty::INT64 => V::Int64(r.u64()? as i64),
        ty::UINT64 => V::Uint64(r.u64()?),
        ty::HRTIME => V::Hrtime(r.u64()? as i64),
        ty::DOUBLE => V::Double(f64::from_bits(r.u64()?)),
        ty::BOOLEAN_VALUE => V::BooleanValue(r.u32()? != 0),
        ty::STRING => V::String(string(r.bytes(r.remaining())?)),
        ty::BYTE_ARRAY => V::ByteArray(r.bytes(n)?.to_vec()),
        ty::UINT8_ARRAY => V::Uint8Array(r.bytes(n)?.to_vec()),
        ty::INT8_ARRAY => V::Int8Array(many(r, n, |r| r.u8().map(|v| v as i8))?),
        ty::INT16_ARRAY => V::Int16Array(many(r, n, |r| r.u16().map(|v| v as i16))?),
        ty::UINT16_ARRAY => V::Uint16Array(many(r, n, |r| r.u16())?),
        ty::INT32_ARRAY => V::Int32Array(many(r, n, |r| r.u32().map(|v| v as i32))?),
        ty::UINT32_ARRAY => V::Uint32Array(many(r, n, |r| r.u32())?),
        ty::INT64_ARRAY => V::Int64Array(many(r, n, |r| r.u64().map(|v| v as i64))?),
        ty::UINT64_ARRAY => V::Uint64Array(many(r, n, |r| r.u64())?),
        ty::BOOLEAN_ARRAY => V::BooleanArray(many(r, n, |r| r.u32().map(|v| v != 0))?),
        ty::STRING_ARRAY => {
            if n > r.remaining() / 8 {
                return Err(r.err(format!("{n} strings in {} bytes", r.remaining())));
            }
            r.skip(8 * n)?;
            let mut rest = r.bytes(r.remaining())?.split(|c| *c == 0);
            V::StringArray((0..n).map(|_| string(rest.next().unwrap_or_default())).collect())
        }
        other => return Err(r.err(format!("value type {other} does not exist"))),
    })
}
