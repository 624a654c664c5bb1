//! Client and server over real sockets: overlap, deadlines, death, tokens.

mod common;

use common::{Door, Fake, HANGS, SECRET, TOKEN, serve};
use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use uzfs_fsproto::*;

fn who() -> Caller {
    Caller { uid: 501, gid: 20 }
}

#[test]
fn every_kind_of_answer() {
    let fake = Arc::new(Fake::default());
    let (_dir, server) = serve(&fake);
    let c = Client::connect(&[server.endpoint().clone()], TOKEN).unwrap();
    assert_eq!(c.volume().name, b"tank");
    assert_eq!(c.call(&who(), GetAttr { node: 5 }), Ok(common::attr(5)));
    assert_eq!(c.call(&who(), Lookup { dir: 1, name: b"no".to_vec() }), Err(Code::NotFound));
    assert_eq!(c.call(&who(), SyncAll { mode: SyncMode::Wait }), Err(Code::ReadOnly));
    let data = c.call(&who(), Read { node: 1, offset: 3, len: 1 << 20 }).unwrap().into_vec();
    assert!(data.len() == 1 << 20 && data.iter().enumerate().all(|(i, b)| *b == (i + 3) as u8));
    let data = c.call(&who(), Read { node: 7, offset: 0, len: 1001 }).unwrap().into_vec();
    assert!(data.len() == 1001 && data[499] == 1 && data[500] == 2);
    assert_eq!(c.write(&who(), 1, 0, &vec![9; 1 << 20]), Ok(1 << 20));
    assert_eq!(c.call(&who(), ReadLink { node: 1 }), Ok(b"target".to_vec()));
}

#[test]
fn tcp_works_and_the_system_chooses_the_port() {
    let fake = Arc::new(Fake::default());
    let server = Server::start(Arc::new(Door(fake)), &"tcp:127.0.0.1:0".parse().unwrap()).unwrap();
    assert_ne!(server.endpoint().to_string(), "tcp:127.0.0.1:0");
    // An endpoint where nobody listens is passed over.
    let nobody = Endpoint::Unix("/nonexistent/socket".into());
    let c = Client::connect(&[nobody, server.endpoint().clone()], TOKEN).unwrap();
    assert_eq!(c.call(&who(), Ping {}), Ok(()));
}

#[test]
fn a_wrong_token_gets_nothing() {
    let fake = Arc::new(Fake::default());
    let (_dir, server) = serve(&fake);
    let at = [server.endpoint().clone()];
    assert_eq!(Client::connect(&at, [0; 32]).unwrap_err(), Code::Access);
    assert_eq!(Client::claim(&at, [0; 32], 1).unwrap_err(), Code::Access);
    assert_eq!(Client::claim(&at, SECRET, 2).unwrap_err(), Code::NotFound);
    assert_eq!(Client::claim(&at, SECRET, 1).unwrap().token, TOKEN);
}

#[test]
fn nothing_is_served_before_the_greeting() {
    let fake = Arc::new(Fake::default());
    let (_dir, server) = serve(&fake);
    let Endpoint::Unix(path) = server.endpoint() else { unreachable!() };
    let body = wire::encode(GetAttr { node: 1 }).head;
    let head = wire::RequestHead { len: 8, op: Op::GetAttr as u16, id: 1, caller: who(), deadline_ms: 1000 };
    let mut s = std::os::unix::net::UnixStream::connect(path).unwrap();
    s.write_all(&head.encode()).unwrap();
    s.write_all(&body).unwrap();
    let mut all = Vec::new();
    s.read_to_end(&mut all).unwrap();
    let reply = wire::ReplyHead::decode(all.as_slice().try_into().unwrap()).unwrap();
    assert_eq!((reply.code, reply.id), (Code::Access as u16, 1));
    // A body that is longer than any greeting ends the connection at once, before it is read.
    let mut s = std::os::unix::net::UnixStream::connect(path).unwrap();
    let long = wire::RequestHead { len: 1 << 20, op: Op::Hello as u16, ..head };
    s.write_all(&long.encode()).unwrap();
    assert_eq!(s.read(&mut [0; 16]).unwrap(), 0);
    // So does a version from the future.
    let hello = Hello { magic: MAGIC, oldest: 900, newest: 901, token: TOKEN };
    let body = wire::encode(hello).head;
    let mut s = std::os::unix::net::UnixStream::connect(path).unwrap();
    s.write_all(&wire::RequestHead { len: body.len() as u32, op: 1, ..head }.encode()).unwrap();
    s.write_all(&body).unwrap();
    let mut all = Vec::new();
    s.read_to_end(&mut all).unwrap();
    assert_eq!(wire::ReplyHead::decode(all.as_slice().try_into().unwrap()).unwrap().code, Code::Version as u16);
}

#[test]
fn requests_overlap() {
    let fake = Arc::new(Fake::default());
    let (_dir, server) = serve(&fake);
    let c = Client::connect(&[server.endpoint().clone()], TOKEN).unwrap();
    let begun = Instant::now();
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| c.call(&who(), GetAttr { node: HANGS }).unwrap());
        }
        // Short ones overtake long ones when a thread is left; here they wait, and still all are answered.
        for n in 0..50 {
            assert_eq!(c.call(&who(), GetAttr { node: n }).unwrap().node, n);
        }
    });
    assert!(begun.elapsed() < Duration::from_millis(350), "four waits of 100 ms took {:?}", begun.elapsed());
    assert!(fake.most.load(Ordering::SeqCst) >= 3);
}

#[test]
fn many_threads_get_their_own_answers() {
    let fake = Arc::new(Fake::default());
    let (_dir, server) = serve(&fake);
    let c = Client::connect(&[server.endpoint().clone()], TOKEN).unwrap();
    std::thread::scope(|s| {
        for t in 0..8u64 {
            let c = &c;
            s.spawn(move || {
                for i in 0..500 {
                    let node = t * 10_000 + i;
                    assert_eq!(c.call(&who(), GetAttr { node }).unwrap().node, node);
                    if i % 50 == 0 {
                        let data = c.call(&who(), Read { node, offset: node, len: 100_000 }).unwrap().into_vec();
                        assert_eq!((data.len(), data[0]), (100_000, node as u8));
                    }
                }
            });
        }
    });
}

#[test]
fn a_call_ends_at_its_deadline_and_the_connection_goes_on() {
    let fake = Arc::new(Fake::default());
    let (_dir, server) = serve(&fake);
    let c = Client::connect(&[server.endpoint().clone()], TOKEN).unwrap().with_patience(Duration::from_millis(80));
    let begun = Instant::now();
    assert_eq!(c.call(&who(), Read { node: HANGS, offset: 0, len: 1 }).unwrap_err(), Code::TimedOut);
    assert!((80..600).contains(&begun.elapsed().as_millis()));
    assert_eq!(c.call(&who(), Ping {}), Ok(()));
    // The late answer comes and is for nobody.
    fake.stop.store(true, Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(c.call(&who(), GetAttr { node: 3 }).unwrap().node, 3);
}

#[test]
fn everything_fails_at_once_when_the_daemon_dies() {
    let fake = Arc::new(Fake::default());
    let (_dir, server) = serve(&fake);
    let c = Client::connect(&[server.endpoint().clone()], TOKEN).unwrap();
    let begun = Instant::now();
    std::thread::scope(|s| {
        let waiting: Vec<_> =
            (0..3).map(|_| s.spawn(|| c.call(&who(), Read { node: HANGS, offset: 0, len: 1 }))).collect();
        std::thread::sleep(Duration::from_millis(50));
        server.disconnect(&TOKEN);
        for w in waiting {
            assert_eq!(w.join().unwrap().unwrap_err(), Code::Io);
        }
    });
    assert!(begun.elapsed() < Duration::from_millis(500));
    assert!(c.is_dead());
    assert_eq!(c.call(&who(), Ping {}), Err(Code::Io));
    fake.stop.store(true, Ordering::SeqCst);
    drop(server);
}

#[test]
fn whoever_listens_is_told() {
    let fake = Arc::new(Fake::default());
    let (_dir, server) = serve(&fake);
    let c = Client::connect(&[server.endpoint().clone()], TOKEN).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::scope(|s| {
        s.spawn(|| c.listen(move |n| tell.send(n.node).unwrap()));
        while server.notify(&TOKEN, &Notice { node: 17 }) == 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(told.recv_timeout(Duration::from_secs(5)), Ok(17));
        assert_eq!(server.notify(&[0; 32], &Notice { node: 1 }), 0);
        server.disconnect(&TOKEN);
    });
}

#[test]
fn a_peer_that_talks_nonsense_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let thread = std::thread::spawn(move || {
        let (mut s, _) = listener.accept().unwrap();
        let mut request = [0; 32];
        s.read_exact(&mut request).unwrap();
        // A body of 4 GiB.
        s.write_all(&[0xff; 16]).unwrap();
    });
    assert_eq!(Client::connect(&[Endpoint::Unix(path)], TOKEN).unwrap_err(), Code::Io);
    thread.join().unwrap();
}
