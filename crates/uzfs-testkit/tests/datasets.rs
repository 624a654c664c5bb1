//! Datasets promoted, bookmarked, held, rolled back and destroyed through the programs, with volumes among them; OpenZFS's
//! own `zdb` finds nothing leaked and no sum wrong, where it is installed.

use std::fs::{self, File};
use std::path::Path;
use uzfs_testkit::session::Session;
use uzfs_testkit::{check, report};

/// Bytes of each image file; sparse.
const IMAGE: u64 = 192 << 20;

struct Bench {
    session: Session,
    dir: tempfile::TempDir,
}

impl Bench {
    fn new(test: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() || !Path::new("/dev/fuse").exists() {
            report::line(&format!("SKIPPED {test}: needs root and FUSE"));
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let session = Session::start().unwrap();
        let bench = Self { session, dir };
        let mut args = vec!["create".to_owned(), "-R".into(), bench.session.root().to_string_lossy().into_owned()];
        args.extend(["tank".into(), "raidz1".into()]);
        for n in 0..3 {
            let path = bench.dir.path().join(format!("d{n}"));
            File::create(&path).unwrap().set_len(IMAGE).unwrap();
            args.push(path.to_string_lossy().into_owned());
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        bench.session.ok("zpool", &args).unwrap();
        Some(bench)
    }

    /// Runs `zfs` with words; what it prints.
    fn zfs(&self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        self.session.ok("zfs", &words).unwrap_or_else(|e| panic!("zfs {line}: {e}")).stdout
    }

    /// Runs `zfs`, which is to fail; what it complains.
    fn refused(&self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let out = self.session.run("zfs", &words).unwrap();
        assert_ne!(out.code, Some(0), "zfs {line} works");
        out.stderr
    }

    fn write(&self, path: &str, seed: u32, len: usize) {
        let mut state = seed | 1;
        let step = |_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as u8
        };
        let data: Vec<u8> = (0..len).map(step).collect();
        fs::write(self.session.root().join(path), data).unwrap();
    }

    fn remove(&self, path: &str) {
        fs::remove_file(self.session.root().join(path)).unwrap();
    }

    /// Exports and imports the pool.
    fn again(&self) {
        let (root, place) = (self.session.root(), self.dir.path().to_string_lossy().into_owned());
        self.session.ok("zpool", &["export", "tank"]).unwrap();
        self.session.ok("zpool", &["import", "-R", &root.to_string_lossy(), "-d", &place, "tank"]).unwrap();
    }

    /// Exports the pool: the daemon has nothing of it open then, so that anybody may have it.
    fn finish(self) {
        self.session.ok("zpool", &["export", "tank"]).unwrap();
        let fds = format!("/proc/{}/fd", self.session.daemon_id().unwrap());
        let links = fs::read_dir(fds).unwrap().filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
        let open: Vec<_> = links.filter(|to| to.starts_with(self.dir.path())).collect();
        assert!(open.is_empty(), "still open: {open:?}");
        check::zdb_clean(self.dir.path(), "tank").unwrap();
        self.session.finish().unwrap();
    }
}

#[test]
fn clones_bookmarks_and_holds() {
    let Some(b) = Bench::new("clones, bookmarks and holds") else { return };
    b.zfs("create tank/a");
    b.zfs("create -p tank/a/b/c");
    for n in 1..=3 {
        b.write(&format!("tank/a/f{n}"), n, 900_000);
    }
    b.zfs("snapshot -r tank@one");
    b.remove("tank/a/f1");
    b.write("tank/a/f4", 4, 700_000);
    b.zfs("snapshot -r -o my:prop=x tank@two");
    b.write("tank/a/f2", 5, 400_000);
    b.zfs("snapshot tank/a@three");
    b.zfs("clone tank/a@two tank/clone");
    b.write("tank/clone/new", 6, 300_000);
    b.remove("tank/clone/f3");
    b.zfs("bookmark tank/a@two #mark2");
    b.zfs("bookmark tank/a@three tank/a#mark3");
    b.zfs("bookmark tank/a#mark3 tank/a#copy3");
    assert!(b.refused("bookmark tank/a@two tank/a#mark3").contains("bookmark exists"));
    assert!(b.refused("bookmark tank/a@two tank/a/b#x").contains("not an ancestor"));

    b.zfs("hold keep tank/a@one");
    b.zfs("hold -r all tank@two");
    assert_eq!(b.zfs("holds -Hr tank@two").lines().count(), 4);
    assert!(b.refused("hold keep tank/a@one").contains("tag already exists on this dataset"));
    assert!(b.refused("release other tank/a@one").contains("no such tag on this dataset"));
    assert!(b.refused("destroy tank/a@one").contains("it's being held. Run 'zfs holds -r tank/a@one' to see holders."));
    b.zfs("release -r all tank@two");
    b.zfs("destroy -d tank/a@one");
    b.zfs("release keep tank/a@one");
    assert!(!b.zfs("list -H -o name -t snap -r tank/a").contains("tank/a@one"));

    assert!(b.refused("promote tank/a").contains("not a cloned filesystem"));
    assert!(b.refused("destroy tank/a@two").contains("dependent clones"));
    b.zfs("promote tank/clone");
    assert_eq!(b.zfs("get -H -o value origin tank/a").trim(), "tank/clone@two");
    assert_eq!(b.zfs("list -H -o name -t bookmark -r tank/clone").trim(), "tank/clone#mark2");
    assert_eq!(b.zfs("destroy -nvp tank/a@three").lines().count(), 2);
    b.zfs("destroy tank/a@%");
    b.write("tank/a/f5", 7, 500_000);
    b.session.ok("zpool", &["sync"]).unwrap();
    let since = b.zfs("get -Hp -o value written#mark3 tank/a");
    assert!(since.trim().parse::<u64>().unwrap() > 500_000, "{since}");
    b.zfs("snapshot tank/a@four");
    b.zfs("bookmark tank/a@four tank/a#mark4");
    b.remove("tank/a/f5");
    b.zfs("rollback tank/a@four");
    assert!(b.session.root().join("tank/a/f5").exists());
    b.zfs("rename -r tank@two @deux");
    b.zfs("snapshot tank/clone@later");
    assert!(b.refused("rollback tank/clone@deux").contains("more recent snapshots"));
    b.zfs("clone tank/clone@later tank/of_later");
    assert!(b.refused("rollback -r tank/clone@deux").contains("clones of previous snapshots exist"));
    b.zfs("rollback -R tank/clone@deux");
    b.zfs("destroy tank/a#mark3");
    b.zfs("destroy -R tank/clone");
    let history = b.session.ok("zpool", &["history", "tank"]).unwrap().stdout;
    assert!(
        history.contains("zfs promote tank/clone") && history.contains("zfs bookmark tank/a@two #mark2"),
        "{history}"
    );
    b.finish();
}

#[test]
fn volumes_limits_and_promises() {
    let Some(b) = Bench::new("volumes, limits and promises") else { return };
    b.zfs("create tank/a");
    b.write("tank/a/f", 1, 3_000_000);
    b.zfs("create -V 20m tank/vol");
    b.zfs("create -s -V 10000000 -b 64k tank/sparse");
    assert_eq!(b.zfs("get -Hp -o value volsize tank/sparse").trim(), "10027008");
    b.zfs("snapshot tank/vol@v");
    b.zfs("clone tank/vol@v tank/vclone");
    let before: u64 = b.zfs("get -Hp -o value refreservation tank/vol").trim().parse().unwrap();
    b.zfs("set volsize=40m tank/vol");
    let after: u64 = b.zfs("get -Hp -o value refreservation tank/vol").trim().parse().unwrap();
    assert!(after > before + (20 << 20), "{before} {after}");
    assert!(b.refused("set volsize=1000 tank/vol").contains("multiple of volume block size"));

    b.session.ok("zpool", &["sync", "tank"]).unwrap();
    assert!(b.refused("set quota=1m tank/a").contains("size is less than current used or reserved space"));
    assert!(b.refused("set reservation=9t tank/a").contains("size is greater than available space"));
    b.zfs("set quota=50m refquota=40m reservation=20m refreservation=10m tank/a");
    b.zfs("set userquota@root=1g groupquota@1000=5m projectobjquota@7=9 tank/a");
    assert_eq!(b.zfs("get -Hp -o value userquota@root tank/a").trim(), "1073741824");
    b.zfs("set userquota@root=none tank/a");
    assert_eq!(b.zfs("get -Hp -o value userquota@root tank/a").trim(), "0");
    b.zfs("set filesystem_limit=50 tank");
    b.zfs("create tank/a/lim");
    b.zfs("snapshot -r tank/a@lim");
    assert_eq!(b.zfs("get -Hp -o value snapshot_count tank").trim(), "3");
    b.zfs("destroy -R tank/vol");
    b.zfs("destroy -r tank/a/lim");
    assert_eq!(b.zfs("get -Hp -o value filesystem_count,snapshot_count tank"), "2\n1\n");
    b.finish();
}

/// After an import all that is known of datasets was read from the disk.
#[test]
fn bookmarks_and_volumes_live_on_after_an_import() {
    let Some(bench) = Bench::new("bookmarks after an import") else { return };
    for line in ["create tank/a", "create -s -V 8M tank/v", "snapshot -r tank@s"] {
        bench.zfs(line);
    }
    for of in ["tank/a", "tank/v"] {
        bench.zfs(&format!("bookmark {of}@s {of}#b"));
    }
    bench.zfs("destroy tank/v@s");
    bench.again();
    bench.zfs("snapshot -r tank@t");
    bench.zfs("rename tank/v tank/w");
    bench.zfs("destroy -r tank@t");
    bench.zfs("destroy tank/w");
    bench.zfs("destroy -r tank/a");
    bench.finish();
}

#[test]
fn what_was_just_written_can_be_destroyed_and_rolled_back() {
    let Some(bench) = Bench::new("destroying what was just written") else { return };
    bench.zfs("create tank/a");
    bench.zfs("create tank/b");
    bench.zfs("snapshot tank/b@s");
    bench.write("tank/a/file", 5, 100_000);
    bench.write("tank/b/file", 6, 100_000);
    bench.zfs("destroy tank/a");
    bench.zfs("rollback tank/b@s");
    bench.finish();
}
