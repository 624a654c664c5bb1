#!/bin/bash
# install-macos.sh [--identity NAME] [--dry-run] [APP]   installs the extension in APP (./uzfs.app) and registers it
# install-macos.sh --uninstall                           takes everything away again
#
# Every step is printed before it is done. A step that fails undoes those before it. Run it as the user who will mount
# (macOS enables file-system extensions for each user, and root cannot mount with them); it asks for sudo where it must.
#
# An extension signed ad hoc is loaded only with System Integrity Protection off and the boot argument
# amfi_get_out_of_my_way=1. With --identity "Apple Development: ..." the app is signed again with your identity; the
# entitlement com.apple.developer.fskit.fsmodule then needs a provisioning profile of that team.
#
# Everything goes below UZFS_INSTALL_ROOT, which is empty but in tests.
set -euo pipefail

name=uzfs root=${UZFS_INSTALL_ROOT:-}
app=$root/Applications/$name.app
extension=$app/Contents/Extensions/UzfsModule.appex
bundle=io.uzfs.app.fs
fs=$root/Library/Filesystems/zfs.fs
program=$root/usr/local/sbin/uzfsd
daemon=$root/Library/LaunchDaemons/io.uzfs.uzfsd.plist
agent=$HOME/Library/LaunchAgents/io.uzfs.agent.plist
services=$root/System/Library/Frameworks/CoreServices.framework/Frameworks/LaunchServices.framework/Support/lsregister
container="$HOME/Library/Group Containers/group.io.uzfs"
identity=- dry=no mode=install source=./$name.app undo=()

while [ $# -gt 0 ]; do
  case $1 in
    --identity) identity=${2:?--identity needs a name}; shift ;;
    --dry-run) dry=yes ;;
    --uninstall) mode=uninstall ;;
    -h | --help) sed -n '2,13s/^# \{0,1\}//p' "$0"; exit 0 ;;
    -*) echo "unknown option $1" >&2; exit 64 ;;
    *) source=$1 ;;
  esac
  shift
done
here=$(cd "$(dirname "$0")" && pwd)

step() { printf '==> %s\n' "$*"; }
# Prints a command and runs it.
go() {
  printf '    %s\n' "$*"
  [ "$dry" = yes ] || "$@"
}
fail() { printf 'install-macos: %s\n' "$*" >&2; exit 1; }
roll_back() {
  status=$?
  [ "$status" -eq 0 ] && return
  [ ${#undo[@]} -eq 0 ] && return
  echo "==> undoing what was done" >&2
  for ((i = ${#undo[@]} - 1; i >= 0; i--)); do
    printf '    %s\n' "${undo[i]}" >&2
    [ "$dry" = yes ] || eval "${undo[i]}" || true
  done
}
trap roll_back EXIT
# Writes a launchd job: its template, where it goes, and what puts it there.
write_job() {
  printf '    write %s\n' "$2"
  [ "$dry" = yes ] || sed "s|@CONTAINER@|$container|; s|@APP@|$app|; s|@HOME@|$HOME|" "$here/$1" | "${@:3}" "$2" >/dev/null
}

check_system() {
  step "checking this Mac"
  [ "$(uname -s)" = Darwin ] || { [ "$dry" = yes ] || fail "this is not macOS"; return 0; }
  [ "$(id -u)" -ne 0 ] || fail "run this as the user who will mount, not as root"
  version=$(sw_vers -productVersion)
  major=${version%%.*}
  minor=${version#*.}; minor=${minor%%.*}
  [ "$major" -gt 15 ] || { [ "$major" -eq 15 ] && [ "$minor" -ge 4 ]; } || fail "macOS 15.4 or newer is needed for FSKit; this is $version"
  [ "$major" -ge 26 ] || echo "    macOS $version mounts devices only; mounting datasets by ticket needs macOS 26"
  if [ "$identity" = - ]; then
    csrutil status | grep -q 'disabled' || fail "the app is signed ad hoc: System Integrity Protection must be off (in recovery: csrutil disable), or give --identity"
    nvram boot-args 2>/dev/null | grep -q 'amfi_get_out_of_my_way=1' || fail "the app is signed ad hoc: sudo nvram boot-args=amfi_get_out_of_my_way=1 and restart, or give --identity"
  else
    security find-identity -v -p codesigning | grep -qF "$identity" || fail "no signing identity '$identity' in the keychain"
  fi
}

install() {
  check_system
  [ -d "$source" ] || [ "$dry" = yes ] || fail "$source is not there; build it with: cargo xtask macos bundle"
  step "copying the app"
  for there in "$app" "$fs"; do
    [ ! -e "$there" ] || [ "$dry" = yes ] || fail "$there is there already; run with --uninstall first (or take OpenZFS's away)"
  done
  undo+=("rm -rf '$app'")
  go cp -R "$source" "$app"
  go xattr -dr com.apple.quarantine "$app"
  if [ "$identity" != - ]; then
    step "signing as $identity"
    go codesign --force --sign "$identity" --entitlements "$here/module.entitlements" --options runtime "$extension"
    go codesign --force --sign "$identity" --entitlements "$here/app.entitlements" --options runtime "$app"
  fi
  go codesign --verify --deep --strict "$app"
  step "registering the extension"
  undo+=("pluginkit -r '$extension'")
  go "$services" -f "$app"
  go pluginkit -a "$extension"
  go pluginkit -e use -i "$bundle"
  step "installing zfs.fs for mount -t zfs"
  undo+=("sudo rm -rf '$fs'")
  go sudo cp -R "$here/zfs.fs" "$fs"
  go sudo chown -R root:wheel "$fs"
  step "starting the daemon"
  undo+=("rmdir '$container' 2>/dev/null")
  go mkdir -p "$container"
  if [ -x "$program" ]; then
    undo+=("sudo rm -f '$daemon'")
    write_job io.uzfs.uzfsd.plist "$daemon" sudo tee
    undo+=("sudo launchctl bootout system/io.uzfs.uzfsd")
    go sudo launchctl bootstrap system "$daemon"
  else
    echo "    $program is not there: start the daemon yourself with --socket /var/run/uzfs/uzfsd.sock --fs-dir \"$container\""
  fi
  step "starting the mount agent, which mounts for root in your name"
  go mkdir -p "$(dirname "$agent")"
  undo+=("rm -f '$agent'")
  write_job io.uzfs.agent.plist "$agent" tee
  undo+=("launchctl bootout gui/$(id -u)/io.uzfs.agent")
  go launchctl bootstrap "gui/$(id -u)" "$agent"
  undo=()
  step "done. Enable it once: System Settings > General > Login Items & Extensions > File System Extensions"
  cat <<'T'
    Then:
      sudo mkdir /Volumes/tank
      mount -F -t zfs /dev/disk4 /Volumes/tank
      ls -la /Volumes/tank
      cat /Volumes/tank/file.txt
    or everything of all pools:
T
  echo "      $app/Contents/MacOS/zfs mount -a"
}

uninstall() {
  [ "$(uname -s)" = Darwin ] || [ "$dry" = yes ] || fail "this is not macOS"
  if mount | grep -q '(zfs,'; then fail "ZFS file systems are mounted; unmount them first"; fi
  step "stopping the mount agent"
  [ ! -e "$agent" ] || { go launchctl bootout "gui/$(id -u)/io.uzfs.agent" || true; go rm -f "$agent"; }
  step "stopping the daemon"
  [ ! -e "$daemon" ] || { go sudo launchctl bootout system/io.uzfs.uzfsd || true; go sudo rm -f "$daemon"; }
  step "taking the extension away"
  [ ! -e "$extension" ] || go pluginkit -r "$extension" || true
  go rm -rf "$app"
  [ ! -e "$fs" ] || go sudo rm -rf "$fs"
  go rm -rf "$container"
  step "done"
}

$mode
