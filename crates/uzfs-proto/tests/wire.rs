//! The socket against hostile and ordinary peers.

mod common;

use common::{Quiet, start};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use uzfs_proto::client::{CallError, Connection};
use uzfs_proto::wire::{Call, FrameReader, MAX_REQUEST, Reply, WireError, write_message};
use uzfs_proto::*;

fn raw(stream: &UnixStream, method: &str, parameters: Value, more: bool) -> Reply {
    let call = Call { method: method.into(), parameters: Some(parameters), oneway: false, more };
    write_message(stream, &call).unwrap();
    FrameReader::new(stream, 1 << 24).next_message().unwrap().unwrap()
}

#[test]
fn describes_itself() {
    let server = start(Quiet);
    let stream = UnixStream::connect(&server.path).unwrap();
    let info = raw(&stream, "org.varlink.service.GetInfo", json!({}), false).parameters.unwrap();
    assert_eq!(info["interfaces"], json!(["org.varlink.service", "io.uzfs.Manage1"]));
    let ask = json!({ "interface": "io.uzfs.Manage1" });
    let text = raw(&stream, "org.varlink.service.GetInterfaceDescription", ask, false);
    assert_eq!(text.parameters.unwrap()["description"], INTERFACE_TEXT);
    let ask = json!({ "interface": "no.such.Thing" });
    let text = raw(&stream, "org.varlink.service.GetInterfaceDescription", ask, false);
    assert_eq!(text.error.unwrap(), "org.varlink.service.InterfaceNotFound");
}

#[test]
fn calls_and_errors() {
    let server = start(Quiet);
    let mut c = Connection::open(&server.path).unwrap();
    let v = c.call::<method::GetVersion>(&Empty {}).unwrap();
    assert_eq!(v.protocol, PROTOCOL);
    match c.call::<method::ExportPool>(&ExportPoolArgs { pool: "x".into(), force: false, hard: false }) {
        Err(CallError::Failed(f)) => assert_eq!(f.code, FailureCode::NoSuchPool),
        other => panic!("{other:?}"),
    }
    let mut names = Vec::new();
    let args = ListDatasetsArgs::default();
    c.stream::<method::ListDatasets>(&args, &mut |part| {
        names.extend(part.datasets.into_iter().map(|d| d.name));
        true
    })
    .unwrap();
    assert_eq!(names.len(), 1000);
    assert_eq!(names[999], "pool/fs999");

    let stream = UnixStream::connect(&server.path).unwrap();
    let error = |m: &str, p: Value| raw(&stream, m, p, false).error.unwrap();
    assert_eq!(error("io.uzfs.Manage1.Nope", json!({})), "org.varlink.service.MethodNotFound");
    assert_eq!(error("nodots", json!({})), "org.varlink.service.MethodNotFound");
    assert_eq!(error("other.Iface.Get", json!({})), "org.varlink.service.InterfaceNotFound");
    let bad = json!({ "pool": 3 });
    assert_eq!(error("io.uzfs.Manage1.ExportPool", bad), "org.varlink.service.InvalidParameter");
    let all = serde_json::to_value(ListDatasetsArgs::default()).unwrap();
    assert_eq!(error("io.uzfs.Manage1.ListDatasets", all), "org.varlink.service.ExpectedMore");
}

#[test]
fn follower_that_leaves_ends_the_stream() {
    let backend = common::Follow::default();
    let (started, ended) = (backend.started.clone(), backend.ended.clone());
    let server = start(backend);
    let stream = UnixStream::connect(&server.path).unwrap();
    let args = serde_json::to_value(WatchEventsArgs { pool: None, follow: true }).unwrap();
    let call = Call { method: "io.uzfs.Manage1.WatchEvents".into(), parameters: Some(args), oneway: false, more: true };
    write_message(&stream, &call).unwrap();
    started.wait();
    drop(stream);
    ended.wait();
}

#[test]
fn endless_message_is_refused_early() {
    let server = start(Quiet);
    let mut stream = UnixStream::connect(&server.path).unwrap();
    let mut sent = 0usize;
    let block = [b'['; 65536];
    // The daemon closes while we write: far fewer bytes than we would send are accepted.
    while sent < 64 * MAX_REQUEST && stream.write_all(&block).is_ok() {
        sent += block.len();
    }
    assert!(sent < 4 * MAX_REQUEST, "{sent} bytes were taken");
}

#[test]
fn deep_json_is_an_error_and_not_a_crash() {
    let server = start(Quiet);
    let mut stream = UnixStream::connect(&server.path).unwrap();
    let mut text = b"{\"method\":\"a.B\",\"parameters\":".to_vec();
    text.extend(std::iter::repeat_n(b'[', 500_000));
    text.push(0);
    stream.write_all(&text).unwrap();
    let reply: Reply = FrameReader::new(&stream, 1 << 20).next_message().unwrap().unwrap();
    assert_eq!(reply.error.unwrap(), "org.varlink.service.InvalidParameter");
    // The daemon still serves others.
    let mut c = Connection::open(&server.path).unwrap();
    c.call::<method::GetVersion>(&Empty {}).unwrap();
}

/// A peer who sends a byte now and then is given up; one who is only silent can go on.
#[test]
fn a_message_has_a_limited_time() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let patience = Duration::from_millis(150);
    ours.set_read_timeout(Some(patience)).unwrap();
    let mut frames = FrameReader::new(&ours, 1 << 20).within(patience);
    match frames.next_frame() {
        Err(WireError::Io(e)) => assert_eq!(e.kind(), std::io::ErrorKind::WouldBlock),
        other => panic!("{other:?}"),
    }
    (&theirs).write_all(b"{}\0").unwrap();
    assert_eq!(frames.next_frame().unwrap().unwrap(), b"{}");
    let dripping = std::thread::spawn(move || {
        while (&theirs).write_all(b"{").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    assert!(matches!(frames.next_frame(), Err(WireError::Slow)));
    drop(ours);
    dripping.join().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// However the bytes are cut into reads, the same messages come out.
    #[test]
    fn framing_does_not_depend_on_reads(
        frames in prop::collection::vec(prop::collection::vec(1u8..=255, 0..200), 0..8),
        step in 1usize..97,
    ) {
        struct Steps<'a>(&'a [u8], usize);
        impl Read for Steps<'_> {
            fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
                let n = self.0.len().min(self.1).min(buf.len());
                buf[..n].copy_from_slice(&self.0[..n]);
                self.0 = &self.0[n..];
                Ok(n)
            }
        }
        let mut bytes = Vec::new();
        for f in &frames {
            bytes.extend(f);
            bytes.push(0);
        }
        let mut reader = FrameReader::new(Steps(&bytes, step), 200);
        for f in &frames {
            prop_assert_eq!(reader.next_frame().unwrap().unwrap(), f.clone());
        }
        prop_assert!(reader.next_frame().unwrap().is_none());
    }

    /// A message over the limit is refused, however it is cut.
    #[test]
    fn limit_holds(len in 0usize..300_000, limit in 0usize..200_000, ended: bool) {
        let mut bytes = vec![b'x'; len];
        if ended { bytes.push(0); }
        match FrameReader::new(&bytes[..], limit).next_frame() {
            Ok(Some(f)) => prop_assert!(ended && f.len() == len && len <= limit),
            Ok(None) => prop_assert!(len == 0 && !ended),
            Err(WireError::TooLong(_)) => prop_assert!(len > limit),
            Err(WireError::Cut) => prop_assert!(!ended),
            Err(e) => prop_assert!(false, "{}", e),
        }
    }

    /// Arbitrary bytes decode to an error or a message, never to a panic.
    #[test]
    fn decoder_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let mut reader = FrameReader::new(&bytes[..], 1000);
        while let Ok(Some(call)) = reader.next_message::<Call>() {
            let p = call.parameters.unwrap_or_default();
            let _ = serde_json::from_value::<ImportPoolArgs>(p);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Rubbish on the socket is answered or the connection ends; the daemon goes on.
    #[test]
    fn daemon_survives_rubbish(mut bytes in prop::collection::vec(any::<u8>(), 1..4000)) {
        let server = start(Quiet);
        bytes.push(0);
        let mut stream = UnixStream::connect(&server.path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        let mut c = Connection::open(&server.path).unwrap();
        let answer = c.call::<method::GetVersion>(&Empty {});
        prop_assert!(answer.is_ok());
    }
}

/// The key that the backend saw, or why there was none.
fn key_seen(c: &mut Connection, key_descriptor: Option<u64>) -> (FailureCode, String) {
    let args = LoadKeyArgs { dataset: "a".into(), key: Secret(b"plain".to_vec()), key_descriptor, dry_run: false };
    match c.call::<method::LoadKey>(&args) {
        Err(CallError::Failed(f)) => (f.code, f.message),
        other => panic!("{other:?}"),
    }
}

#[test]
fn descriptors_go_with_their_call() {
    let server = start(Quiet);
    let mut c = Connection::open(&server.path).unwrap();
    let seen = |text: &str| (FailureCode::KeyIncorrect, text.to_owned());
    assert_eq!(key_seen(&mut c, None), seen("plain"));
    for text in ["through a pipe", ""] {
        assert_eq!(c.pass(passing::holding(text.as_bytes()).unwrap()), 0);
        assert_eq!(key_seen(&mut c, Some(0)), seen(text));
    }
    // Several, by index; those of a call are gone with it.
    for text in ["first", "second"] {
        c.pass(passing::holding(text.as_bytes()).unwrap());
    }
    assert_eq!(key_seen(&mut c, Some(1)), seen("second"));
    for index in [0, 1, 2, u64::MAX] {
        let (code, why) = key_seen(&mut c, Some(index));
        assert_eq!((code, why.as_str()), (FailureCode::InvalidArgument, "no descriptor came with the call"));
    }
    // A file does as well, and what is too long does not.
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"in a file").unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    c.pass(file.into());
    assert_eq!(key_seen(&mut c, Some(0)), seen("in a file"));
    c.pass(passing::holding(&[b'x'; 1025]).unwrap());
    assert_eq!(key_seen(&mut c, Some(0)).0, FailureCode::InvalidArgument);
    c.pass(std::fs::File::open("/dev/zero").unwrap().into());
    assert_eq!(key_seen(&mut c, Some(0)).0, FailureCode::InvalidArgument);
    assert_eq!(key_seen(&mut c, None), seen("plain"));
}

#[test]
fn descriptors_nobody_takes_are_closed() {
    let server = start(Quiet);
    let mut c = Connection::open(&server.path).unwrap();
    let open = || std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    c.call::<method::GetVersion>(&Empty {}).unwrap();
    let before = open();
    for _ in 0..50 {
        for _ in 0..6 {
            c.pass(passing::holding(b"unused").unwrap());
        }
        c.call::<method::GetVersion>(&Empty {}).unwrap();
    }
    // Other tests open some too, meanwhile.
    assert!(open() < before + 100, "{} descriptors, {before} before", open());
}

#[test]
fn a_key_that_does_not_come_is_not_waited_for_long() {
    let (from, into) = std::io::pipe().unwrap();
    let waited = passing::read_all(from.into(), 10, Duration::from_millis(50));
    assert_eq!(waited.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    drop(into);
}
