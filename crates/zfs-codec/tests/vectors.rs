//! Known answers: blocks taken from pools that OpenZFS made (`vectors.txt` says how a line is read).

use std::collections::HashMap;
use zfs_codec::checksum;
use zfs_codec::compress;
use zfs_codec::crypto::{BlockParams, DatasetKey, WrappedKey, WrappingKey};
use zfs_phys::Endian;
use zfs_phys::enums::{ChecksumKind, CompressKind, CryptSuite, DmuObjectType};

fn unhex(s: &str) -> Vec<u8> {
    (0..s.len() / 2).map(|i| u8::from_str_radix(&s[2 * i..2 * i + 2], 16).unwrap()).collect()
}

fn bytes<const N: usize>(s: &str) -> [u8; N] {
    unhex(s).try_into().unwrap()
}

fn words(s: &str) -> [u64; 4] {
    std::array::from_fn(|i| u64::from_str_radix(&s[16 * i..16 * i + 16], 16).unwrap())
}

/// Fields of all lines of one kind.
fn lines(kind: &str) -> Vec<Vec<&'static str>> {
    let all = include_str!("vectors.txt").lines().map(|l| l.split(' ').collect::<Vec<_>>());
    let found: Vec<Vec<&str>> = all.filter(|f| f[0] == kind).map(|f| f[1..].to_vec()).collect();
    assert!(!found.is_empty(), "no vectors of kind {kind}");
    found
}

#[test]
fn checksums() {
    let mut kinds = 0;
    for f in lines("checksum") {
        let kind = ChecksumKind::from_raw(f[0].parse().unwrap()).unwrap();
        let salt = (f[1] != "-").then(|| bytes::<32>(f[1]));
        let mut block = unhex(f[3]);
        let check = |block: &[u8]| checksum::verify(kind, block, Endian::Little, salt.as_ref(), words(f[2]), false);
        assert_eq!(check(&block), Ok(()), "{kind:?}");
        block[511] ^= 0x80;
        assert!(check(&block).is_err(), "{kind:?}");
        kinds += 1;
    }
    assert_eq!(kinds, 7);
}

#[test]
fn compressed_payloads() {
    let mut levels = Vec::new();
    for f in lines("compressed") {
        let kind = CompressKind::from_raw(f[0].parse().unwrap()).unwrap();
        let src = unhex(f[3]);
        let mut dst = vec![0u8; f[1].parse().unwrap()];
        compress::decompress(kind, &src, &mut dst).unwrap();
        let sha = checksum::compute(ChecksumKind::Sha256, &dst, Endian::Little, None);
        assert_eq!(sha, Some(words(f[2])), "{kind:?}");
        if kind == CompressKind::Zstd {
            let header = compress::zstd_header(&src).unwrap();
            assert_eq!(header.version, 10405, "OpenZFS 2.3 bundles 1.4.5");
            levels.push(compress::zstd_level(header.level).unwrap());
        }
        let mut longer = vec![0u8; dst.len() + 1];
        assert!(compress::decompress(kind, &src, &mut longer).is_err(), "{kind:?}");
    }
    levels.sort_unstable();
    assert_eq!(levels, [-10, 3, 19]);
}

fn keys() -> HashMap<&'static str, DatasetKey> {
    let open = |f: Vec<&'static str>| {
        let secret = unhex(f[2]);
        let wrapping = match f[1] {
            "raw" => WrappingKey::from_raw(&secret),
            "hex" => WrappingKey::from_hex(&secret),
            _ => WrappingKey::from_passphrase(&secret, f[3].parse().unwrap(), f[4].parse().unwrap()),
        };
        let wrapped = WrappedKey {
            suite: CryptSuite::from_raw(f[5].parse().unwrap()).unwrap(),
            version: f[6].parse().unwrap(),
            guid: f[0].parse().unwrap(),
            iv: bytes(f[7]),
            mac: bytes(f[8]),
            master_key: bytes(f[9]),
            hmac_key: bytes(f[10]),
        };
        (f[0], DatasetKey::unwrap(&wrapped, &wrapping.unwrap()).unwrap())
    };
    lines("key").into_iter().map(open).collect()
}

#[test]
fn encrypted_blocks() {
    let keys = keys();
    let mut suites = Vec::new();
    for f in lines("block") {
        let key = &keys[f[0]];
        let ot = DmuObjectType(f[1].parse().unwrap());
        let params = BlockParams { salt: bytes(f[2]), iv: bytes(f[3]), mac: bytes(f[4]) };
        let (src, want) = (unhex(f[5]), unhex(f[6]));
        let mut plain = vec![0u8; src.len()];
        key.decrypt(ot, Endian::Little, &params, &src, &mut plain).unwrap();
        assert_eq!(plain, want, "{:?}", key.suite());
        let mut again = vec![0u8; src.len()];
        let mac = key.encrypt(ot, Endian::Little, &params.salt, &params.iv, &plain, &mut again).unwrap();
        assert_eq!((again, mac), (src, params.mac), "{:?}", key.suite());
        suites.push(key.suite());
    }
    suites.sort_unstable();
    suites.dedup();
    assert_eq!(suites.len(), 6);
}

#[test]
fn object_set_macs() {
    let keys = keys();
    for f in lines("objset") {
        let mut header = unhex(f[1]);
        let sealed = header.clone();
        assert_eq!(keys[f[0]].verify_objset(&header, Endian::Little), Ok(()));
        header[720..784].fill(0);
        assert!(keys[f[0]].verify_objset(&header, Endian::Little).is_err());
        keys[f[0]].seal_objset(&mut header, Endian::Little).unwrap();
        assert_eq!(header, sealed);
    }
}
