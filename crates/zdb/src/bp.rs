//! Block pointers as text: the long form of every OpenZFS tool, and zdb's compact form for listings.

use std::fmt::Write as _;
use zfs_phys::BlkPtr;
use zfs_phys::enums::DmuObjectType;

/// Name of an object type as block pointers show it (new types: data or metadata first, then the layout).
pub fn type_name(t: DmuObjectType) -> String {
    if t.0 & 0x80 == 0 {
        return t.name();
    }
    let full = t.name();
    let layout = full.split(' ').nth(1).unwrap_or("unknown").to_owned();
    format!("bswap {} {layout}", if t.is_metadata() { "metadata" } else { "data" })
}

fn compress_name(bp: &BlkPtr) -> String {
    bp.compress().map_or_else(|| format!("compress-{}", bp.compress_raw()), |c| c.name().to_owned())
}

/// The long form.
pub fn long(bp: &BlkPtr) -> String {
    let (level, kind, birth) = (bp.level(), type_name(bp.object_type()), bp.logical_birth());
    if bp.is_hole() {
        return format!("HOLE [L{level} {kind}] size={:x}L birth={birth}L", bp.lsize());
    }
    if bp.is_embedded() {
        let (et, l, p) = (bp.embedded_type(), bp.lsize(), bp.psize());
        return format!("EMBEDDED [L{level} {kind}] et={et} {} size={l:x}L/{p:x}P birth={birth}L", compress_name(bp));
    }
    let mut s = String::with_capacity(300);
    let ndvas = bp.ndvas();
    for d in 0..ndvas {
        let dva = bp.dva(d);
        let _ = write!(s, "DVA[{d}]=<{}:{:x}:{:x}> ", dva.vdev(), dva.offset(), dva.asize());
    }
    let crypt = if bp.is_encrypted() {
        let w = bp.dva(2).word;
        let _ = write!(s, "salt={:x} iv={:x}:{:x} ", w[0], w[1], bp.iv2());
        "encrypted"
    } else if bp.is_authenticated() {
        "authenticated"
    } else if bp.has_indirect_mac() {
        "indirect-MAC"
    } else {
        "unencrypted"
    };
    let order = if bp.endian() == zfs_phys::Endian::Big { "BE" } else { "LE" };
    let gang = if bp.is_gang() { "gang" } else { "contiguous" };
    let dedup = if bp.is_dedup() { "dedup" } else { "unique" };
    let copies = ["zero", "single", "double", "triple"].get(ndvas).copied().unwrap_or("zero");
    let sum = bp.checksum_kind().map_or_else(|| format!("checksum-{}", bp.checksum_raw()), |c| c.name().to_owned());
    let _ = write!(s, "[L{level} {kind}] {sum} {} {crypt} {order} {gang} {dedup} {copies} ", compress_name(bp));
    let _ = write!(s, "size={:x}L/{:x}P birth={birth}L/{}P ", bp.lsize(), bp.psize(), bp.physical_birth());
    let c = bp.checksum();
    let _ = write!(s, "fill={} cksum={:016x}:{:016x}:{:016x}:{:016x}", bp.fill(), c[0], c[1], c[2], c[3]);
    s
}

/// The compact form of listings of an object's blocks; `d` and `b` are the levels of those options.
pub fn compact(bp: &BlkPtr, freed: bool, d: u32, b: u32) -> String {
    if b >= 6 {
        return format!("{}{}", long(bp), if freed { " FREE" } else { "" });
    }
    if bp.is_embedded() {
        let (et, l, p) = (bp.embedded_type(), bp.lsize(), bp.psize());
        return format!("EMBEDDED et={et} {l:x}L/{p:x}P B={}", bp.logical_birth());
    }
    let mut s = String::with_capacity(200);
    let shown = if d > 5 { bp.ndvas() } else { 1 };
    for i in 0..shown {
        let dva = bp.dva(i);
        let _ = write!(s, "{}:{:x}:{:x} ", dva.vdev(), dva.offset(), dva.asize());
    }
    if bp.is_hole() {
        let _ = write!(s, "{:x}L B={}", bp.lsize(), bp.logical_birth());
        return s;
    }
    let (l, p, lb, pb) = (bp.lsize(), bp.psize(), bp.logical_birth(), bp.physical_birth());
    let _ = write!(s, "{l:x}L/{p:x}P F={} B={lb}/{pb}", bp.fill());
    let c = bp.checksum();
    let free = if freed { " FREE" } else { "" };
    let _ = write!(s, "{free} cksum={:016x}:{:016x}:{:016x}:{:016x}", c[0], c[1], c[2], c[3]);
    s
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_and_an_address() {
        let mut bp = BlkPtr::default();
        assert_eq!(long(&bp), "HOLE [L0 unallocated] size=200L birth=0L");
        bp.word[0] = 1;
        bp.word[1] = 0x38;
        bp.word[6] = (1 << 63) | (11 << 48) | (7 << 40) | (15 << 32) | 7;
        bp.word[10] = 4;
        bp.word[11] = 44;
        assert_eq!(
            long(&bp),
            "DVA[0]=<0:7000:200> [L0 DMU objset] fletcher4 lz4 unencrypted LE contiguous unique single \
             size=1000L/200P birth=4L/4P fill=44 \
             cksum=0000000000000000:0000000000000000:0000000000000000:0000000000000000"
        );
        let zeros = "0000000000000000:0000000000000000:0000000000000000:0000000000000000";
        assert_eq!(compact(&bp, true, 5, 0), format!("0:7000:200 1000L/200P F=44 B=4/4 FREE cksum={zeros}"));
    }
}
