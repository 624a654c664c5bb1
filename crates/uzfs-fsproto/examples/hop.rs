//! Measures what the hop to the daemon costs: two processes, nothing computed behind the protocol.
//!
//! `cargo run --release -p uzfs-fsproto --example hop` prints microseconds for a small operation and the speed of reads
//! of 1 MiB, over a Unix socket and over TCP, for one caller and for four.

#[path = "../tests/common/mod.rs"]
mod common;

use common::{Door, Fake, TOKEN};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use uzfs_fsproto::*;

const SMALL: u32 = 100_000;
const LARGE: u32 = 2_000;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let Some(path) = args.get(2) {
        return echo(path);
    }
    if let Some(at) = args.get(1) {
        let server = Server::start(Arc::new(Door(Arc::new(Fake::default()))), &at.parse().unwrap()).unwrap();
        println!("{}", server.endpoint());
        let mut line = String::new();
        // Ends with its parent.
        std::io::stdin().read_line(&mut line).unwrap();
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    raw(&args[0], &dir.path().join("raw"));
    for at in [format!("unix:{}", dir.path().join("s").display()), "tcp:127.0.0.1:0".to_owned()] {
        let mut child = Command::new(&args[0]).arg(&at).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
        let client = Client::connect(&[line.trim().parse().unwrap()], TOKEN).unwrap();
        measure(line.split(':').next().unwrap(), &client);
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}

/// What two processes pay for 40 bytes there and 16 bytes back, without any protocol.
fn raw(program: &str, path: &std::path::Path) {
    use std::io::{Read, Write};
    let listener = std::os::unix::net::UnixListener::bind(path).unwrap();
    let mut child = Command::new(program).arg("raw").arg(path).spawn().unwrap();
    let (mut s, _) = listener.accept().unwrap();
    let begun = Instant::now();
    for _ in 0..SMALL {
        s.write_all(&[0; 40]).unwrap();
        s.read_exact(&mut [0; 16]).unwrap();
    }
    println!("raw socket: {:.1} us each", begun.elapsed().as_secs_f64() * 1e6 / f64::from(SMALL));
    drop(s);
    child.wait().unwrap();
}

fn echo(path: &str) {
    use std::io::{Read, Write};
    let mut s = std::os::unix::net::UnixStream::connect(path).unwrap();
    while s.read_exact(&mut [0; 40]).is_ok() {
        s.write_all(&[0; 16]).unwrap();
    }
}

fn measure(name: &str, client: &Client) {
    let who = Caller::default();
    for callers in [1u32, 4] {
        let small = timed(callers, SMALL, &|i| {
            client.call(&who, GetAttr { node: u64::from(i) }).unwrap();
        });
        let large = timed(callers, LARGE, &|_| {
            assert_eq!(client.call(&who, Read { node: 7, offset: 0, len: 1 << 20 }).unwrap().len(), 1 << 20);
        });
        println!(
            "{name}, {callers} callers: getattr {:.1} us each, {:.0} a second; read 1M {:.0} us each, {:.2} GB/s",
            small.as_secs_f64() * 1e6 * f64::from(callers) / f64::from(SMALL),
            f64::from(SMALL) / small.as_secs_f64(),
            large.as_secs_f64() * 1e6 * f64::from(callers) / f64::from(LARGE),
            f64::from(LARGE) * 1.048_576e6 / large.as_secs_f64() / 1e9,
        );
    }
}

fn timed(callers: u32, count: u32, call: &(dyn Fn(u32) + Sync)) -> Duration {
    let begun = Instant::now();
    std::thread::scope(|s| {
        for c in 0..callers {
            s.spawn(move || (0..count / callers).for_each(|i| call(i + c)));
        }
    });
    begun.elapsed()
}
