//! `cargo xtask macos check|bundle`: what can be known of the macOS extension without a Mac.
//!
//! `check` needs the standard library for the Apple targets (`rustup target add`, which it tries) and the sources of
//! the bindings, which cargo has once it resolved them; whatever cannot be had is said and skipped. No SDK is needed:
//! nothing is linked.

use crate::macos_plist::Plist;
use crate::{cargo, macos_bundle, macos_lint};
use std::path::Path;
use std::process::Command;

/// Targets of the extension.
pub const TARGETS: [&str; 2] = ["aarch64-apple-darwin", "x86_64-apple-darwin"];
/// Where plists and entitlements are.
pub const PACKAGING: &str = "packaging/macos";
/// Longest name of a file system type, with its zero byte (`MFSTYPENAMELEN`).
const TYPE_NAME: usize = 16;

/// `macos check` or `macos bundle`.
pub fn run_macos(root: &Path, args: &[String]) -> Result<(), String> {
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["check"] => check(root),
        ["bundle"] => macos_bundle::bundle(root),
        _ => Err("usage: cargo xtask macos check|bundle".into()),
    }
}

fn check(root: &Path) -> Result<(), String> {
    let problems = plists(root)?;
    if !problems.is_empty() {
        return Err(problems.join("\n"));
    }
    println!("macos: plists and entitlements are in order");
    for target in TARGETS {
        if let Err(why) = provide(target) {
            println!("SKIPPED: type-checking for {target}: {why}");
            continue;
        }
        let status = Command::new(cargo())
            .args(["clippy", "--quiet", "--locked", "-p", "uzfs-fskit", "-p", "uzfs-cli", "--lib", "--bins"])
            .args(["--target", target])
            .args(["--", "-D", "warnings"])
            .current_dir(root)
            .status()
            .map_err(|e| format!("cannot run cargo: {e}"))?;
        if !status.success() {
            return Err(format!("the extension and the tools do not type-check for {target}"));
        }
        println!("macos: the extension and the tools type-check for {target}");
    }
    check_daemon(root)?;
    match macos_lint::bindings(root) {
        Ok(folder) => macos_lint::lint_tree(root, &folder),
        Err(why) => {
            println!("SKIPPED: linting selectors: {why}");
            Ok(())
        }
    }
}

/// A C compiler for type-checking: what it makes is empty, because nothing is linked. What it is asked without `-c` is
/// answered by the system's.
const NO_COMPILER: &str = "#!/bin/bash
out= compile=no previous=
for word in \"$@\"; do
  [ \"$previous\" = -o ] && out=$word
  [ \"$word\" = -c ] && compile=yes
  previous=$word
done
[ $compile = no ] || { echo | cc -x c -c -o \"$out\" -; exit $?; }
words=() skip=no
for word in \"$@\"; do
  case $skip$word in
    yes*) skip=no ;;
    no-arch) skip=yes ;;
    no-mmacosx-version-min=* | no--target=*) ;;
    *) words+=(\"$word\") ;;
  esac
done
exec cc \"${words[@]}\"
";

/// Type-checks the daemon with everything below it for macOS. Its C libraries are not compiled.
fn check_daemon(root: &Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    let (target, folder) = (TARGETS[0], crate::target(root).join("macos"));
    if provide(target).is_err() {
        return Ok(());
    }
    let compiler = folder.join("no-cc");
    let failed = |e: std::io::Error| format!("{}: {e}", compiler.display());
    std::fs::create_dir_all(&folder).map_err(failed)?;
    std::fs::write(&compiler, NO_COMPILER).map_err(failed)?;
    std::fs::set_permissions(&compiler, std::fs::Permissions::from_mode(0o755)).map_err(failed)?;
    let status = Command::new(cargo())
        .args(["check", "--quiet", "--locked", "-p", "uzfsd", "--target", target])
        .env(format!("CC_{}", target.replace('-', "_")), &compiler)
        .current_dir(root)
        .status()
        .map_err(|e| format!("cannot run cargo: {e}"))?;
    if !status.success() {
        return Err(format!("the daemon does not type-check for {target}"));
    }
    println!("macos: the daemon type-checks for {target} (its C libraries apart)");
    Ok(())
}

/// Makes sure that the standard library of a target is here.
pub fn provide(target: &str) -> Result<(), String> {
    let there = || {
        let out = Command::new("rustc").args(["--print", "target-libdir", "--target", target]).output().ok()?;
        let dir = String::from_utf8(out.stdout).ok()?;
        std::fs::read_dir(dir.trim()).ok()?.next().map(drop)
    };
    if there().is_some() {
        return Ok(());
    }
    let added = Command::new("timeout").args(["90", "rustup", "target", "add", target]).output();
    match added {
        Ok(out) if out.status.success() && there().is_some() => Ok(()),
        Ok(out) => Err(format!("rustup cannot add it: {}", String::from_utf8_lossy(&out.stderr).trim())),
        Err(e) => Err(format!("no rustup: {e}")),
    }
}

fn read(root: &Path, name: &str) -> Result<Plist, String> {
    let path = root.join(PACKAGING).join(name);
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    Plist::parse(&text).map_err(|e| format!("{}: {e}", path.display()))
}

/// What macOS demands of the property lists; gives what is wrong.
fn plists(root: &Path) -> Result<Vec<String>, String> {
    let (module, app) = (read(root, "module-Info.plist")?, read(root, "app-Info.plist")?);
    let (rights, app_rights) = (read(root, "module.entitlements")?, read(root, "app.entitlements")?);
    let fs = read(root, "zfs.fs/Contents/Info.plist")?;
    let (daemon, agent) = (read(root, "io.uzfs.uzfsd.plist")?, read(root, "io.uzfs.agent.plist")?);
    let class = std::fs::read_to_string(root.join("crates/uzfs-fskit/src/objc/file_system.rs")).unwrap_or_default();
    let mut problems = module_problems(&module, &rights, &class);
    let mut need = |fine: bool, text: &str| {
        if !fine {
            problems.push(text.to_owned());
        }
    };
    let id = |p: &Plist| p.text("CFBundleIdentifier").unwrap_or_default().to_owned();
    need(id(&module).starts_with(&(id(&app) + ".")), "the extension's identifier must begin with the app's");
    need(app.text("CFBundlePackageType") == Some("APPL"), "the app is no APPL");
    let version = |p: &Plist| p.text("LSMinimumSystemVersion").map(str::to_owned);
    need(version(&app) == version(&module), "app and extension want different systems");
    let group = |p: &Plist| p.get("com.apple.security.application-groups").cloned();
    need(group(&rights).is_some() && group(&rights) == group(&app_rights), "app and extension share no group");
    need(fs.get("FSPersonalities").is_some_and(Plist::is_filled), "zfs.fs has no personality");
    problems.extend(job_problems(&daemon, &agent));
    Ok(problems)
}

/// What launchd is told of the daemon and of the mount agent.
fn job_problems(daemon: &Plist, agent: &Plist) -> Vec<String> {
    let mut problems = Vec::new();
    let mut need = |fine: bool, text: &str| {
        if !fine {
            problems.push(text.to_owned());
        }
    };
    need(daemon.text("Label") == Some("io.uzfs.uzfsd"), "the daemon's label");
    need(agent.text("Label") == Some("io.uzfs.agent"), "the agent's label");
    let words = |p: &Plist| match p.get("ProgramArguments") {
        Some(Plist::Array(all)) => all.clone(),
        _ => Vec::new(),
    };
    let says = |all: &[Plist], word: &str| all.iter().any(|p| *p == Plist::Text(word.to_owned()));
    let (daemon_says, agent_says) = (words(daemon), words(agent));
    need(says(&daemon_says, "--fs-tcp") && says(&daemon_says, "@CONTAINER@"), "where the daemon serves extensions");
    need(says(&agent_says, "@APP@/Contents/MacOS/zfs") && says(&agent_says, "agent"), "the agent's program");
    let socket = agent.get("EnvironmentVariables").and_then(|e| e.text("UZFS_SOCKET")).unwrap_or_default();
    need(says(&daemon_says, socket), "the agent looks for the daemon somewhere else");
    for job in [daemon, agent] {
        need(job.get("KeepAlive") == Some(&Plist::Bool(true)), "a job that is not started again");
    }
    problems
}

fn module_problems(module: &Plist, rights: &Plist, class: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let mut need = |fine: bool, text: String| {
        if !fine {
            problems.push(text);
        }
    };
    need(module.text("CFBundlePackageType") == Some("XPC!"), "the extension is no XPC!".into());
    let none = Plist::Dict(Vec::new());
    let ex = module.get("EXAppExtensionAttributes").unwrap_or(&none);
    need(ex.text("EXExtensionPointIdentifier") == Some("com.apple.fskit.fsmodule"), "the extension point".into());
    for key in [
        "FSShortName",
        "FSMediaTypes",
        "FSPersonalities",
        "FSActivateOptionSyntax",
        "FSCheckOptionSyntax",
        "FSFormatOptionSyntax",
        "FSSupportsBlockResources",
        "FSSupportsPathURLs",
    ] {
        need(ex.get(key).is_some(), format!("{key} is missing in EXAppExtensionAttributes"));
        need(module.get(key).is_none(), format!("{key} stands outside EXAppExtensionAttributes"));
    }
    need(ex.get("FSPersonalities").is_some_and(Plist::is_filled), "FSPersonalities is empty".into());
    need(ex.get("FSSupportsGenericURLResources") == Some(&Plist::Bool(false)), "URLs bring fskitd down".into());
    let name = ex.text("FSShortName").unwrap_or_default();
    need(name == "zfs" && name.len() < TYPE_NAME, "FSShortName is not the name that statfs shows".into());
    let principal = ex.text("EXExtensionPrincipalClass").unwrap_or_default();
    need(class.contains(&format!("#[name = \"{principal}\"]")), format!("no class {principal} is defined"));
    for right in
        ["com.apple.developer.fskit.fsmodule", "com.apple.security.app-sandbox", "com.apple.security.network.client"]
    {
        need(rights.get(right) == Some(&Plist::Bool(true)), format!("the entitlement {right} is missing"));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_checked_in_is_in_order() {
        assert_eq!(plists(&crate::repository()), Ok(Vec::new()));
    }

    #[test]
    fn mistakes_are_found() {
        let root = crate::repository();
        let text = std::fs::read_to_string(root.join(PACKAGING).join("module-Info.plist")).unwrap();
        let rights = read(&root, "module.entitlements").unwrap();
        let class = "#[name = \"ZFSFileSystem\"]";
        let found = |from: &str, to: &str| {
            let wrong = Plist::parse(&text.replace(from, to)).unwrap();
            module_problems(&wrong, &rights, class)
        };
        assert_eq!(found("", ""), Vec::<String>::new());
        assert_eq!(found("XPC!", "APPL"), ["the extension is no XPC!"]);
        assert_eq!(found("ZFSFileSystem", "ZfsFileSystem"), ["no class ZfsFileSystem is defined"]);
        assert_eq!(found("FSMediaTypes", "FSMediaType").len(), 1);
        assert_eq!(module_problems(&Plist::parse(&text).unwrap(), &Plist::Dict(Vec::new()), class).len(), 3);
        let job = |name: &str, from: &str, to: &str| {
            let text = std::fs::read_to_string(root.join(PACKAGING).join(name)).unwrap();
            assert!(text.contains(from));
            Plist::parse(&text.replace(from, to)).unwrap()
        };
        let (daemon, agent) = ("io.uzfs.uzfsd.plist", "io.uzfs.agent.plist");
        let jobs = |from: &str, to: &str| job_problems(&job(daemon, "", ""), &job(agent, from, to));
        assert_eq!(jobs("", ""), Vec::<String>::new());
        assert_eq!(jobs("/var/run/uzfs", "/run/uzfs"), ["the agent looks for the daemon somewhere else"]);
        assert_eq!(jobs("<string>agent", "<string>mount"), ["the agent's program"]);
        assert_eq!(jobs("io.uzfs.agent", "io.uzfs.a").len(), 1);
    }
}
