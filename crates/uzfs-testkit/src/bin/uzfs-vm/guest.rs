//! Scripts for the guest.

use super::host::{FIGURES, Layout};
use super::logged;
use std::fmt::Write as _;

/// What both scripts start with.
const COMMON: &str = r#"
set -u
fail() { echo "guest: $*" >&2; exit 1; }
# Compares and fills with uzfs's own programs of the host.
vm() { /host/bin/uzfs-vm "$@" || fail "uzfs-vm $*"; }
manifests() { # POOL FOLDER PREFIX
  for fs in $(zfs list -H -o name -t filesystem -r "$1"); do
    [ "$(zfs get -H -o value mounted "$fs")" = yes ] || continue
    /host/bin/manifest "/mnt/$fs" > "$2/$3.$(echo "$fs" | tr / %)" || fail "manifest of $fs"
  done
  for snap in $(zfs list -H -o name -t snapshot -r "$1"); do
    [ "$(zfs get -H -o value type "${snap%@*}")" = filesystem ] || continue
    /host/bin/manifest "/mnt/${snap%@*}/.zfs/snapshot/${snap#*@}" > "$2/$3.$(echo "$snap" | tr / %)" || fail "manifest of $snap"
  done
}
figures() { # POOL FILE
  zfs get -Hp -r -t filesystem,snapshot,volume -o name,property,value $FIGURES "$1" > "$2"
}
scrub() { # POOL FOLDER
  zpool scrub -w "$1" || fail "scrub of $1"
  zpool status -v "$1" > "$2/status"
  grep -q "with 0 errors" "$2/status" && grep -q "No known data errors" "$2/status" || { cat "$2/status"; fail "scrub of $1 found errors"; }
  awk 'NF>=5 && $2=="ONLINE" && ($3!=0 || $4!=0 || $5!=0) {exit 1}' "$2/status" || { cat "$2/status"; fail "$1 has errors"; }
}
# The block device of a volume; nobody names it here.
volume() { # VOLUME
  for n in $(seq 50); do
    for d in /sys/block/zd*; do
      d=/dev/${d##*/}
      [ -b "$d" ] && [ "$(/lib/udev/zvol_id "$d" 2>/dev/null)" = "$1" ] && { echo "$d"; return; }
    done
    sleep 0.2
  done
}
fill_own() { # POOL FOLDER
  local k=$1 device
  zfs create -o compression=zstd "$k/data" && zfs create -o recordsize=1M -o checksum=blake3 "$k/big" || fail "datasets of $k"
  zfs create -o acltype=posixacl -o xattr=sa -o dnodesize=auto -o copies=2 "$k/acl" || fail "$k/acl"
  zfs create -o xattr=dir -o compression=lz4 -o recordsize=8k -o normalization=formD "$k/small" || fail "$k/small"
  vm fill "/mnt/$k/data" 5; vm fill "/mnt/$k/big" 6; vm fill "/mnt/$k/acl" 7 acls; vm fill "/mnt/$k/small" 8
  zfs set quota=150M "$k/data" && zfs set refquota=140M "$k/data" && zfs set userquota@1234=8M "$k/data" || fail "quotas of $k"
  zfs set reservation=5M "$k/big" && zfs set refreservation=4M "$k/acl" || fail "reservations of $k"
  zfs create -V 16M "$k/vol" && zfs create -s -V 24M -b 4k "$k/thin" || fail "volumes of $k"
  device=$(volume "$k/vol"); [ -n "$device" ] || fail "no device of $k/vol"
  vm volume "$device" 31
  zfs snapshot -r "$k@one" || fail "snapshots of $k"
  zfs hold keep "$k/data@one" && zfs hold -r all "$k/big@one" || fail "holds of $k"
  rm -rf "/mnt/$k/big/many"; zfs snapshot "$k/big@two" && zfs bookmark "$k/big@two" "$k/big#two" || fail "$k/big@two"
  zfs clone "$k/data@one" "$k/copy" && vm change "/mnt/$k/copy" 32 && zfs snapshot "$k/copy@c" || fail "clone of $k"
  zfs clone "$k/data@one" "$k/other" && vm change "/mnt/$k/other" 33 || fail "clone of $k"
  zfs clone "$k/small@one" "$k/promoted" && vm change "/mnt/$k/promoted" 34 && zfs promote "$k/promoted" || fail "promotion in $k"
  vm change "/mnt/$k/acl" 35 && zfs rollback "$k/acl@one" || fail "rollback in $k"
  zfs rename "$k/acl" "$k/lists" || fail "renaming in $k"
  zfs snapshot "$k/lists@x" && zfs rename "$k/lists@x" y || fail "renames in $k"
  zfs create "$k/gone" && vm fill "/mnt/$k/gone" 9 && zfs destroy "$k/gone" || fail "destroying in $k"
}
"#;

/// The start of a script.
fn common() -> String {
    format!("FIGURES={FIGURES}\n{COMMON}")
}

/// The words of the layout's changes of devices, for the kernel.
fn changes(layout: Layout, when: usize, pool: &str, images: &[String]) -> String {
    let mut out = String::new();
    for words in layout.changes(when, pool, images) {
        let line = words.join(" ");
        let _ = writeln!(out, "zpool {line} && zpool wait -t resilver,replace {pool} || fail '{line}'");
    }
    out
}

/// Imports what uzfs made, judges and changes it.
fn forward(layout: Layout) -> String {
    let name = layout.name();
    format!(
        r#"
echo "guest: {name}"
zpool import -o readonly=on -N -f -d /host/{name} p{name} || fail "read-only import of {name}"
figures p{name} /host/{name}/get.kernel
zpool export p{name} || fail "export of {name}"
zpool import -f -d /host/{name} -R /mnt p{name} || fail "import of {name}"
manifests p{name} /host/{name} kernel
scrub p{name} /host/{name}
vm change /mnt/p{name}/data 77
zfs snapshot -r p{name}@kernel && zfs destroy p{name}/data@two && zfs create p{name}/fromkernel && cp --reflink=never /mnt/p{name}/data/sizes/* /mnt/p{name}/fromkernel || fail "changing {name}"
manifests p{name} /host/{name} kernel2
zpool export p{name} || fail "export of {name}"
"#
    )
}

/// Makes a pool of the kernel's own.
fn reverse(layout: Layout) -> String {
    let name = layout.name();
    let images: Vec<String> = (0..layout.disks()).map(|n| format!("/host/k{name}/d{n}")).collect();
    format!(
        r#"
echo "guest: making k{name}"
mkdir /host/k{name} && truncate -s 256M {all} || fail images
zpool create -f -R /mnt k{name} {words} || fail "making k{name}"
{first}
fill_own k{name}
{second}
{frozen}
manifests k{name} /host/k{name} kernel
zpool export k{name} || fail "export of k{name}"
zpool import -o readonly=on -N -f -d /host/k{name} k{name} || fail "read-only import of k{name}"
figures k{name} /host/k{name}/get.made
zpool export k{name} || fail "export of k{name}"
"#,
        all = images.join(" "),
        words = layout.words(&images).join(" "),
        first = changes(layout, 0, &format!("k{name}"), &images),
        second = changes(layout, 1, &format!("k{name}"), &images),
        frozen = if layout == Layout::Logged { logged::frozen(&format!("k{name}")) } else { String::new() },
    )
}

/// The first script.
pub fn judge(layouts: &[Layout], ours: bool, theirs: bool) -> String {
    let mut out = common();
    for layout in layouts {
        if ours {
            out.push_str(&forward(*layout));
        }
        if theirs {
            out.push_str(&reverse(*layout));
        }
    }
    out
}

/// Imports the kernel's own pools as uzfs changed them, and destroys everything in them.
pub fn judge_again(layouts: &[Layout]) -> String {
    let mut out = common();
    for layout in layouts {
        let name = layout.name();
        let _ = write!(
            out,
            r#"
echo "guest: k{name}"
zpool import -o readonly=on -N -f -d /host/k{name} k{name} || fail "read-only import of k{name}"
figures k{name} /host/k{name}/get.kernel
zpool export k{name} || fail "export of k{name}"
zpool import -f -d /host/k{name} -R /mnt k{name} || fail "import of k{name}"
manifests k{name} /host/k{name} kernel2
scrub k{name} /host/k{name}
for s in $(zfs list -H -o name -t snapshot -r k{name}); do
  for tag in $(zfs holds -H "$s" | cut -f2); do zfs release "$tag" "$s" || fail "release of $s"; done
done
for fs in $(zfs list -H -o name -d 1 -t filesystem,volume k{name} | tail -n +2); do
  zfs list -H "$fs" >/dev/null 2>&1 || continue
  zfs destroy -R "$fs" || fail "destroying $fs"
done
zpool sync k{name}; zpool wait -t free k{name} || fail "freeing in k{name}"
[ "$(zpool get -Hp -o value allocated k{name})" -lt 12000000 ] || {{ zpool list -v k{name}; fail "k{name} is not empty"; }}
zpool export k{name} || fail "export of k{name}"
"#
        );
    }
    out
}
