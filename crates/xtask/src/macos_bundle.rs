//! `cargo xtask macos bundle`: the app with the extension in it, built, linked, signed and checked without a Mac.
//!
//! Linking needs an SDK only for the names in the system's libraries, so stubs are made here: those of FSKit,
//! Foundation and the Objective-C runtime are known; that of libSystem lists exactly what a first attempt to link
//! finds missing. Nothing of Apple's is needed or copied. The linker is the one that comes with Rust; the signature is ad
//! hoc, by `rcodesign` of apple-codesign (`cargo install apple-codesign`, half an hour once).

use crate::macos::{PACKAGING, provide};
use crate::macos_macho::{Program, check_bundle, check_tool};
use crate::{cargo, run, target};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Programs in the app beside its own.
const TOOLS: [&str; 2] = ["zfs", "zpool"];
const TARGET: &str = "aarch64-apple-darwin";
/// Oldest macOS that the extension runs on: the first with FSKit.
const DEPLOYMENT: &str = "15.4";
const SYSTEM: &str = "/usr/lib/libSystem.B.dylib";

/// A stub: path in the SDK, name at run time, symbols.
type Stub = (&'static str, &'static str, &'static [&'static str]);

const STUBS: [Stub; 9] = [
    (
        "System/Library/Frameworks/FSKit.framework/FSKit.tbd",
        "/System/Library/Frameworks/FSKit.framework/Versions/A/FSKit",
        &["_FSKitErrorDomain", "_FSDirectoryCookieInitial", "_FSDirectoryVerifierInitial"],
    ),
    (
        "System/Library/Frameworks/Foundation.framework/Foundation.tbd",
        "/System/Library/Frameworks/Foundation.framework/Versions/C/Foundation",
        &["_NSExtensionMain", "_NSPOSIXErrorDomain"],
    ),
    (
        "System/Library/Frameworks/CoreFoundation.framework/CoreFoundation.tbd",
        "/System/Library/Frameworks/CoreFoundation.framework/Versions/A/CoreFoundation",
        &["_CFRetain", "_CFRelease"],
    ),
    ("usr/lib/libiconv.tbd", "/usr/lib/libiconv.2.dylib", &["_iconv", "_iconv_open", "_iconv_close"]),
    (
        "usr/lib/libobjc.tbd",
        "/usr/lib/libobjc.A.dylib",
        &[
            "_objc_msgSend",
            "_objc_msgSendSuper",
            "_objc_alloc",
            "_objc_allocWithZone",
            "_objc_retain",
            "_objc_release",
            "_objc_autorelease",
            "_objc_autoreleaseReturnValue",
            "_objc_retainAutorelease",
            "_objc_retainAutoreleasedReturnValue",
            "_objc_autoreleasePoolPush",
            "_objc_autoreleasePoolPop",
            "_objc_getClass",
            "_objc_getProtocol",
            "_objc_allocateClassPair",
            "_objc_registerClassPair",
            "_objc_disposeClassPair",
            "_objc_initWeak",
            "_objc_copyWeak",
            "_objc_moveWeak",
            "_objc_loadWeakRetained",
            "_objc_destroyWeak",
            "_objc_opt_self",
            "_objc_opt_class",
            "_sel_registerName",
            "_sel_getName",
            "_class_addMethod",
            "_class_addIvar",
            "_class_addProtocol",
            "_class_getName",
            "_class_getSuperclass",
            "_class_getInstanceSize",
            "_class_getInstanceMethod",
            "_class_getInstanceVariable",
            "_class_getClassMethod",
            "_class_conformsToProtocol",
            "_class_isMetaClass",
            "_ivar_getOffset",
            "_ivar_getName",
            "_ivar_getTypeEncoding",
            "_method_getTypeEncoding",
            "_method_getName",
            "_method_copyReturnType",
            "_method_copyArgumentType",
            "_method_getNumberOfArguments",
            "_object_getClass",
            "_protocol_getName",
            "_protocol_getMethodDescription",
            "_protocol_copyMethodDescriptionList",
            "_protocol_copyProtocolList",
        ],
    ),
    // Parts of libSystem that are named apart.
    ("usr/lib/libm.tbd", SYSTEM, &["_uzfs_no_such_symbol_m"]),
    ("usr/lib/libc.tbd", SYSTEM, &["_uzfs_no_such_symbol_c"]),
    ("usr/lib/libpthread.tbd", SYSTEM, &["_uzfs_no_such_symbol_p"]),
    ("usr/lib/libSystem.tbd", SYSTEM, &["dyld_stub_binder"]),
];

fn write_stub(sdk: &Path, path: &str, name: &str, symbols: &[&str]) -> Result<(), String> {
    let file = sdk.join(path);
    let failed = |e: std::io::Error| format!("{}: {e}", file.display());
    let quoted: Vec<String> = symbols.iter().map(|s| format!("'{s}'")).collect();
    let text = format!(
        "--- !tapi-tbd\ntbd-version: 4\ntargets: [ arm64-macos, x86_64-macos ]\ninstall-name: '{name}'\n\
         current-version: 1\ncompatibility-version: 1\nexports:\n  - targets: [ arm64-macos, x86_64-macos ]\n    \
         symbols: [ {} ]\n...\n",
        quoted.join(", ")
    );
    fs::create_dir_all(file.parent().unwrap_or(sdk)).map_err(failed)?;
    fs::write(&file, text).map_err(failed)
}

/// A program: its package and its name.
type Binary = (&'static str, &'static str);

/// Links one of the programs; gives its path, or what the linker said.
fn link(root: &Path, sdk: &Path, (package, name): Binary, extension: bool) -> Result<PathBuf, String> {
    let mut command = Command::new(cargo());
    command
        .args(["rustc", "--quiet", "--release", "--locked", "-p", package, "--bin", name, "--target", TARGET, "--"])
        .args(["-Clinker=rust-lld", "-Clinker-flavor=ld64.lld", "-Clink-arg=--error-limit=0"])
        .env("SDKROOT", sdk)
        .env("MACOSX_DEPLOYMENT_TARGET", DEPLOYMENT)
        .env("CARGO_PROFILE_RELEASE_STRIP", "none")
        .current_dir(root);
    if extension {
        command.args(["-Clink-arg=-e", "-Clink-arg=_NSExtensionMain"]);
    }
    let out = command.output().map_err(|e| format!("cannot run cargo: {e}"))?;
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    if out.status.success() { Ok(target(root).join(TARGET).join("release").join(name)) } else { Err(said) }
}

/// Links, after learning from a first attempt what libSystem must have.
fn link_with_stubs(root: &Path, sdk: &Path, name: Binary, extension: bool) -> Result<PathBuf, String> {
    for (path, at, symbols) in STUBS {
        write_stub(sdk, path, at, symbols)?;
    }
    let said = match link(root, sdk, name, extension) {
        Ok(program) => return Ok(program),
        Err(said) => said,
    };
    let missing: BTreeSet<&str> = said
        .lines()
        .filter_map(|l| l.split_once("undefined symbol: ").map(|(_, s)| s.trim()))
        .chain(["dyld_stub_binder"])
        .collect();
    // A misspelt name of another library would be taken for one of libSystem's.
    let odd =
        |s: &&&str| s.starts_with("_objc_") || s.starts_with("_FS") || s.starts_with("_NS") || s.starts_with("__R");
    let odd: Vec<_> = missing.iter().filter(odd).collect();
    if missing.len() < 2 || !odd.is_empty() {
        return Err(format!("{said}\nnot in the stubs: {odd:?}"));
    }
    let symbols: Vec<&str> = missing.into_iter().collect();
    write_stub(sdk, "usr/lib/libSystem.tbd", SYSTEM, &symbols)?;
    link(root, sdk, name, extension)
}

fn place(from: &Path, to: &Path) -> Result<(), String> {
    fs::create_dir_all(to.parent().unwrap_or(to)).map_err(|e| format!("{}: {e}", to.display()))?;
    fs::copy(from, to).map(drop).map_err(|e| format!("{}: {e}", from.display()))
}

/// Builds `target/macos/uzfs.app`.
pub fn bundle(root: &Path) -> Result<(), String> {
    provide(TARGET)?;
    let home = target(root).join("macos");
    let (sdk, app) = (home.join("sdk"), home.join("uzfs.app"));
    let packaging = root.join(PACKAGING);
    let _ = fs::remove_dir_all(&app);
    let module = link_with_stubs(root, &sdk, ("uzfs-fskit", "uzfs-fskit"), true)?;
    let extension = app.join("Contents/Extensions/UzfsModule.appex");
    place(&module, &extension.join("Contents/MacOS/UzfsModule"))?;
    place(&packaging.join("module-Info.plist"), &extension.join("Contents/Info.plist"))?;
    // The tools are in the app: `zfs agent` is started from there, for the user who has it.
    for binary in [("uzfs-fskit", "uzfs-app")].into_iter().chain(TOOLS.map(|t| ("uzfs-cli", t))) {
        let name = if binary.1 == "uzfs-app" { "uzfs" } else { binary.1 };
        place(&link_with_stubs(root, &sdk, binary, false)?, &app.join("Contents/MacOS").join(name))?;
    }
    place(&packaging.join("app-Info.plist"), &app.join("Contents/Info.plist"))?;
    for library in Program::read(&extension.join("Contents/MacOS/UzfsModule"))?.libraries {
        println!("macos: the extension is linked to {library}");
    }
    sign(root, &app, &extension)?;
    let mut wrong = check_bundle(&extension, true)?;
    wrong.extend(check_bundle(&app, false)?);
    for tool in TOOLS {
        wrong.extend(check_tool(&app.join("Contents/MacOS").join(tool), DEPLOYMENT)?);
    }
    if !wrong.is_empty() {
        return Err(wrong.join("\n"));
    }
    for name in
        ["install-macos.sh", "module.entitlements", "app.entitlements", "io.uzfs.uzfsd.plist", "io.uzfs.agent.plist"]
    {
        place(&packaging.join(name), &home.join(name))?;
    }
    for name in ["zfs.fs/Contents/Info.plist", "zfs.fs/Contents/Resources/mount_zfs"] {
        place(&packaging.join(name), &home.join(name))?;
    }
    println!("macos: {} is linked for {DEPLOYMENT}, signed ad hoc, and every page has its hash", app.display());
    Ok(())
}

/// Signs the extension, then the app around it.
fn sign(root: &Path, app: &Path, extension: &Path) -> Result<(), String> {
    let packaging = root.join(PACKAGING);
    let tool = std::env::var("UZFS_RCODESIGN").unwrap_or_else(|_| "rcodesign".into());
    if Command::new(&tool).arg("--version").output().is_err() {
        return Err("rcodesign is not installed: cargo install apple-codesign --locked (or set UZFS_RCODESIGN)".into());
    }
    for (bundle, rights) in [(extension, "module.entitlements"), (app, "app.entitlements")] {
        let rights = packaging.join(rights).to_string_lossy().into_owned();
        let shown = bundle.to_string_lossy().into_owned();
        // The extension is signed already when the app around it is.
        let shallow = if bundle == app { vec!["--exclude", "Contents/Extensions/**"] } else { Vec::new() };
        let mut args = vec!["sign", "--entitlements-xml-path", &rights];
        args.extend(shallow);
        args.push(&shown);
        run(root, &tool, &args)?;
    }
    Ok(())
}
