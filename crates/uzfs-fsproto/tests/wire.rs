//! The bytes: frozen vectors, and whatever else may come.

mod common;

use proptest::prelude::*;
use uzfs_fsproto::wire::{self, Blob, List, ReplyHead, RequestHead};
use uzfs_fsproto::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn attr() -> Attr {
    let t = |n: i64| Time { sec: n, nsec: 0x0102_0304 };
    Attr {
        node: 0x0102_0304_0506_0708,
        ino: 34,
        generation: 7,
        mode: 0o100_644,
        nlink: 2,
        uid: 501,
        gid: 20,
        rdev_major: 259,
        rdev_minor: 70_000,
        size: 11,
        blocks: 1,
        blksize: 131_072,
        valid: attr_valid::BTIME,
        atime: t(1),
        mtime: t(2),
        ctime: t(3),
        btime: t(-1),
        flags: 0x10,
        projid: 42,
    }
}

fn sets() -> SetAttrs {
    SetAttrs { mask: set::MODE | set::SIZE, mode: 0o600, size: 5, ..SetAttrs::default() }
}

fn listing() -> Listing {
    let one = Listed { node: 34, ino: 34, kind: 4, next: 1, name: b".".to_vec(), attr: None };
    let two = Listed { node: 9, ino: 9, kind: 8, next: 3, name: b"hello".to_vec(), attr: Some(attr()) };
    Listing { verifier: 54, end: true, entries: List(vec![one, two]) }
}

fn volume_info() -> VolumeInfo {
    VolumeInfo { pool_guid: 1, dataset_guid: 2, root: 34, flags: 1, name: b"tank/a".to_vec() }
}

/// A message of every kind as it lies on the wire: its name and its bytes.
fn samples() -> Vec<(&'static str, Vec<u8>)> {
    let head = RequestHead {
        len: 8,
        op: Op::GetAttr as u16,
        id: 0x1122_3344_5566_7788,
        caller: Caller { uid: 501, gid: 20 },
        deadline_ms: 30_000,
    };
    vec![
        ("request head", head.encode().to_vec()),
        ("reply head", ReplyHead { len: 4, op: 22, code: 0, id: 9 }.encode().to_vec()),
        ("error head", ReplyHead { len: 0, op: 22, code: Code::NoSpace as u16, id: 9 }.encode().to_vec()),
        ("hello", wire::encode(Hello { magic: MAGIC, oldest: 1, newest: 1, token: [0xab; 32] }).head),
        ("welcome", wire::encode(Welcome { version: 1, volume: volume_info() }).head),
        ("claim", wire::encode(Claim { magic: MAGIC, oldest: 1, newest: 1, secret: [0xcd; 32], pool: 77 }).head),
        ("claimed", wire::encode(Claimed { token: [0xef; 32], volume: volume_info() }).head),
        ("mounted", wire::encode(Mounted { on: true }).head),
        ("lookup", wire::encode(Lookup { dir: 34, name: b"hello".to_vec() }).head),
        ("entry", wire::encode(Entry { attr: attr(), name: b"hello".to_vec() }).head),
        ("getattr", wire::encode(GetAttr { node: 34 }).head),
        ("attr", wire::encode(attr()).head),
        ("setattr", wire::encode(SetAttr { node: 34, attrs: sets() }).head),
        ("setdone", wire::encode(SetDone { attr: attr(), consumed: 9 }).head),
        ("readdir", wire::encode(ReadDir { dir: 34, cookie: 3, verifier: 54, room: 65536, attrs: true }).head),
        ("listing", wire::encode(listing()).head),
        ("readlink", wire::encode(ReadLink { node: 8 }).head),
        ("read", wire::encode(Read { node: 9, offset: 1 << 32, len: 1 << 20 }).head),
        ("write", wire::encode(Write { node: 9, offset: 5, data: Blob::from(b"abc".to_vec()) }).head),
        ("create", wire::encode(Create { dir: 34, name: b"n".to_vec(), attrs: sets(), rdev: 0 }).head),
        ("symlink", wire::encode(Symlink { dir: 34, name: b"n".to_vec(), target: b"/t".to_vec(), attrs: sets() }).head),
        ("link", wire::encode(Link { node: 9, dir: 34, name: b"n".to_vec() }).head),
        ("remove", wire::encode(Remove { dir: 34, name: b"n".to_vec(), node: 9, directory: false }).head),
        ("rename", wire::encode(Rename { from: 34, old: b"a".to_vec(), to: 35, new: b"b".to_vec(), flags: 1 }).head),
        ("statfs", wire::encode(StatFs { node: 34 }).head),
        (
            "figures",
            wire::encode(Statfs { bsize: 131_072, blocks: 80, bfree: 70, files: 9, ffree: 8, namelen: 255, fsid: 5 })
                .head,
        ),
        ("listxattr", wire::encode(ListXattr { node: 9, privileged: true }).head),
        ("names", wire::encode(List(vec![b"user.a".to_vec(), b"user.bc".to_vec()])).head),
        ("getxattr", wire::encode(GetXattr { node: 9, name: b"user.a".to_vec(), privileged: false }).head),
        (
            "setxattr",
            wire::encode(SetXattr {
                node: 9,
                name: b"user.a".to_vec(),
                policy: XattrPolicy::Replace,
                value: Blob::from(vec![1, 2]),
            })
            .head,
        ),
        ("removexattr", wire::encode(RemoveXattr { node: 9, name: b"user.a".to_vec() }).head),
        ("seek", wire::encode(Seek { node: 9, offset: 4096, what: SeekTo::Hole }).head),
        ("sync", wire::encode(SyncAll { mode: SyncMode::Durable }).head),
        ("fsync", wire::encode(Fsync { node: 9, data_only: true }).head),
        ("access", wire::encode(Access { node: 9, uid: 501, groups: List(vec![20, 80]), want: 4 }).head),
        ("reclaim", wire::encode(Reclaim { node: 9 }).head),
        ("clone", wire::encode(CloneRange { from: 1, from_offset: 2, to: 3, to_offset: 4, len: 5 }).head),
        ("allocate", wire::encode(Allocate { node: 9, offset: 1, len: 2, punch: true }).head),
        ("getfid", wire::encode(GetFid { node: 9 }).head),
        ("byfid", wire::encode(ByFid { fid: Fid { objset: 0, object: 9, generation: 7 } }).head),
        ("notice", wire::encode(Notice { node: 0 }).head),
        ("nothing", wire::encode(()).head),
    ]
}

/// The bytes never change within a version. `UZFS_FREEZE=1` writes them down; that is for a new version only.
#[test]
fn bytes_are_frozen() {
    let seen: String = samples().iter().map(|(name, bytes)| format!("{name}: {}\n", hex(bytes))).collect();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors.txt");
    if std::env::var_os("UZFS_FREEZE").is_some() {
        std::fs::write(path, &seen).unwrap();
    }
    assert_eq!(seen, std::fs::read_to_string(path).unwrap());
}

/// Written by hand from docs/FSPROTO.md, so that a mistake frozen above does not stay.
#[test]
fn bytes_are_those_of_the_document() {
    let find = |name: &str| samples().into_iter().find(|s| s.0 == name).unwrap().1;
    assert_eq!(
        hex(&find("request head")),
        "08000000 1100 0000 8877665544332211 f5010000 14000000 30750000 00000000".replace(' ', "")
    );
    assert_eq!(hex(&find("error head")), "00000000 1600 0d00 0900000000000000".replace(' ', ""));
    assert_eq!(hex(&find("lookup")), "2200000000000000 05000000 68656c6c6f".replace(' ', ""));
    assert_eq!(hex(&find("write")), "0900000000000000 0500000000000000 616263".replace(' ', ""));
    assert_eq!(hex(&find("names")), "02000000 06000000 757365722e61 07000000 757365722e6263".replace(' ', ""));
    assert_eq!(find("hello")[..8], *b"uzfs-fs\0");
    assert_eq!(find("attr").len(), 8 + 8 + 4 * 7 + 8 + 8 + 4 + 4 + 4 * 12 + 8 + 8);
}

#[test]
fn counts_are_not_believed() {
    let mut body = wire::encode(listing()).head;
    // The count of entries stands behind verifier and end.
    body[9..13].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(wire::decode::<Listing>(body).is_err());
    let lie = [0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
    assert!(wire::decode::<Lookup>(lie.to_vec()).is_err());
    let mut long = wire::encode(GetAttr { node: 1 }).head;
    long.push(0);
    assert!(wire::decode::<GetAttr>(long).is_err(), "bytes are left over");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    /// Whatever comes is refused, or is what encoding gives back.
    #[test]
    fn decoding_is_exact(op in 0u16..70, body in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Some(again) = recode(op, body.clone()) {
            prop_assert_eq!(&again, &body);
        }
        if let Some(again) = recode_reply(op, body.clone()) {
            prop_assert_eq!(&again, &body);
        }
    }

    #[test]
    fn headers_are_exact(bytes in any::<[u8; 32]>()) {
        if let Ok(head) = RequestHead::decode(&bytes) {
            prop_assert_eq!(head.encode(), bytes);
        }
        let short: [u8; 16] = bytes[..16].try_into().unwrap();
        if let Ok(head) = ReplyHead::decode(&short) {
            prop_assert_eq!(head.encode(), short);
        }
    }

    #[test]
    fn entries_go_round(names in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..20)) {
        let entries = names.iter().enumerate().map(|(i, name)| Listed {
            node: i as u64, ino: 5, kind: 8, next: i as u64 + 1, name: name.clone(),
            attr: (i % 2 == 0).then(attr),
        });
        let all = Listing { verifier: 1, end: false, entries: List(entries.collect()) };
        prop_assert_eq!(wire::decode::<Listing>(wire::encode(all.clone()).head), Ok(all));
    }

    #[test]
    fn tickets_are_never_trusted(text in "(uzfs-volume 1\n|uzfs-daemon 1\n)?([a-z-]{1,12} [ -~]{0,80}\n){0,9}") {
        if let Ok(ticket) = Ticket::parse(text.as_bytes()) {
            prop_assert_eq!(Ticket::parse(ticket.to_text().as_bytes()), Ok(ticket));
        }
    }
}
