//! Scripts for the guest.

use super::host::Layout;
use std::fmt::Write as _;

/// What both scripts start with.
const COMMON: &str = r#"
set -u
fail() { echo "guest: $*" >&2; exit 1; }
manifests() { # POOL FOLDER PREFIX
  for fs in $(zfs list -H -o name -t filesystem -r "$1"); do
    [ "$(zfs get -H -o value mounted "$fs")" = yes ] || continue
    /host/bin/manifest "/mnt/$fs" > "$2/$3.$(echo "$fs" | tr / %)" || fail "manifest of $fs"
  done
  for snap in $(zfs list -H -o name -t snapshot -r "$1"); do
    /host/bin/manifest "/mnt/${snap%@*}/.zfs/snapshot/${snap#*@}" > "$2/$3.$(echo "$snap" | tr / %)" || fail "manifest of $snap"
  done
}
scrub() { # POOL FOLDER
  zpool scrub -w "$1" || fail "scrub of $1"
  zpool status -v "$1" > "$2/status"
  grep -q "with 0 errors" "$2/status" && grep -q "No known data errors" "$2/status" || { cat "$2/status"; fail "scrub of $1 found errors"; }
  awk 'NF>=5 && $2=="ONLINE" && ($3!=0 || $4!=0 || $5!=0) {exit 1}' "$2/status" || { cat "$2/status"; fail "$1 has errors"; }
}
"#;

/// Imports what uzfs made, judges and changes it; makes pools of its own.
pub fn judge(layouts: &[Layout]) -> String {
    let mut out = COMMON.to_owned();
    for layout in layouts {
        let name = layout.name();
        let images: Vec<String> = (0..layout.disks()).map(|n| format!("/host/k{name}/d{n}")).collect();
        let _ = write!(
            out,
            r#"
echo "guest: {name}"
zpool import -o readonly=on -N -f -d /host/{name} p{name} || fail "read-only import of {name}"
zfs get -Hp -r -t filesystem,snapshot,volume -o name,property,value {figures} p{name} > /host/{name}/get.kernel
zpool export p{name} || fail "export of {name}"
zpool import -f -d /host/{name} -R /mnt p{name} || fail "import of {name}"
manifests p{name} /host/{name} kernel
scrub p{name} /host/{name}
/host/bin/uzfs-vm change /mnt/p{name}/data 77 || fail "changing {name}"
zfs snapshot -r p{name}@kernel && zfs destroy p{name}/data@two && zfs create p{name}/fromkernel && cp --reflink=never /mnt/p{name}/data/sizes/* /mnt/p{name}/fromkernel
manifests p{name} /host/{name} kernel2
zpool export p{name} || fail "export of {name}"
mkdir /host/k{name} && truncate -s 256M {images} || fail images
zpool create -f -R /mnt k{name} {words} || fail "making k{name}"
zfs create -o compression=zstd k{name}/data && zfs create -o recordsize=1M k{name}/big
/host/bin/uzfs-vm fill /mnt/k{name}/data 5 && /host/bin/uzfs-vm fill /mnt/k{name}/big 6 || fail "filling k{name}"
zfs snapshot -r k{name}@one; rm -rf /mnt/k{name}/big/many; zfs snapshot k{name}/big@two
manifests k{name} /host/k{name} kernel
zpool export k{name} || fail "export of k{name}"
"#,
            figures = super::host::FIGURES,
            images = images.join(" "),
            words = layout.words(&images).join(" "),
        );
    }
    out
}

/// Imports the kernel's own pools as uzfs changed them.
pub fn judge_again(layouts: &[Layout]) -> String {
    let mut out = COMMON.to_owned();
    for layout in layouts {
        let name = layout.name();
        let _ = write!(
            out,
            r#"
echo "guest: k{name}"
zpool import -f -d /host/k{name} -R /mnt k{name} || fail "import of k{name}"
manifests k{name} /host/k{name} kernel2
scrub k{name} /host/k{name}
zpool export k{name} || fail "export of k{name}"
"#
        );
    }
    out
}
