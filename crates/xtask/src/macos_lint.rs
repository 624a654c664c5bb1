//! Compares the methods of our Objective-C classes with the protocols of the bindings: a misspelt selector, a required
//! method that is missing, and a wrong but encodable argument type all compile.
//!
//! Both sides are text: `extern_protocol!` in the sources of `objc2-fs-kit`, `unsafe impl PROTOCOL for CLASS` in ours.
//! Types are compared as they are written, without blanks and paths. The handler protocols of macOS 27, and the
//! initializers of the results that they reply with, are in a table (`macos_handlers.txt`), because no bindings have them.

use crate::cargo;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A method: its argument types and what it returns.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Method {
    arguments: Vec<String>,
    returns: String,
    optional: bool,
    /// Defined so that the returned object is handed over with its count (`method_id`).
    id: bool,
}

type Methods = BTreeMap<String, Method>;

/// What the bindings lack.
const HANDLERS: &str = include_str!("macos_handlers.txt");
/// Handler protocols that a volume here has; the one of kernel-offloaded I/O is left out on purpose.
const HANDLER_PROTOCOLS: usize = 10;

/// The folder of the bindings' sources, as cargo has it.
pub fn bindings(root: &Path) -> Result<PathBuf, String> {
    let find = || {
        let out = Command::new(cargo())
            .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", "aarch64-apple-darwin"])
            .current_dir(root)
            .output()
            .ok()?;
        let text = String::from_utf8(out.stdout).ok()?;
        let at = text.match_indices("\"manifest_path\":\"").find_map(|(i, m)| {
            let path = text[i + m.len()..].split('"').next()?;
            path.contains("/objc2-fs-kit-").then(|| path.to_owned())
        })?;
        Path::new(&at).parent().map(|p| p.join("src/generated"))
    };
    find().filter(|f| f.is_dir()).ok_or_else(|| "cargo has no sources of objc2-fs-kit".to_owned())
}

/// Lints all classes.
pub fn lint_tree(root: &Path, bindings: &Path) -> Result<(), String> {
    let protocols = protocols(&sources(bindings)?);
    let ours = sources(&root.join("crates/uzfs-fskit/src/objc"))?;
    let (found, mut problems) = lint(&protocols, &ours);
    let (handlers, results) = table(HANDLERS)?;
    let (handled, wrong) = lint(&handlers, &ours);
    let (made, odd) = lint_results(&results, &ours);
    problems.extend(wrong.into_iter().chain(odd));
    if found < 8 || handled != HANDLER_PROTOCOLS {
        return Err(format!("{found} and {handled} protocols are implemented; the lint does not see all"));
    }
    if made.len() + REFUSED.len() != results.len() || REFUSED.iter().any(|r| made.contains(*r)) {
        return Err(format!("results are made of {made:?} only; the lint does not see all"));
    }
    if problems.is_empty() {
        println!("macos: {found} protocols are implemented as the bindings say");
        let results = made.len();
        println!("macos: {handled} handler protocols of macOS 27 and {results} results are as the table says");
        return Ok(());
    }
    Err(problems.join("\n"))
}

/// Results of what our class always refuses, and so never makes.
const REFUSED: [&str; 2] = ["FSPreallocateResult", "FSVolumeRenameResult"];

/// Initializers of result classes.
type Results = BTreeMap<String, String>;

/// Reads the table of macOS 27's handlers.
fn table(text: &str) -> Result<(BTreeMap<String, Methods>, Results), String> {
    let (mut protocols, mut results) = (BTreeMap::<String, Methods>::new(), Results::new());
    let (mut protocol, mut class) = (String::new(), String::new());
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let bad = || format!("macos_handlers.txt: {line}");
        let (word, rest) = line.split_once(' ').ok_or_else(bad)?;
        let mut parts = rest.split('|').map(str::trim);
        let name = parts.next().unwrap_or_default().to_owned();
        let arguments = || -> Vec<String> {
            let types = rest.split('|').nth(1).unwrap_or_default();
            split(types).iter().map(|t| normal(t)).collect()
        };
        match word {
            "protocol" => {
                protocol = name;
                protocols.entry(protocol.clone()).or_default();
            }
            "required" | "optional" => {
                if arguments().len() != name.matches(':').count() {
                    return Err(bad());
                }
                let returns = normal(rest.split('|').nth(2).unwrap_or_default());
                let id = returns.contains("Retained<");
                let method = Method { arguments: arguments(), returns, optional: word == "optional", id };
                protocols.get_mut(&protocol).ok_or_else(bad)?.insert(name, method);
            }
            "result" => class = name,
            "init" if arguments().len() == name.matches(':').count() => {
                results.insert(class.clone(), name);
            }
            _ => return Err(bad()),
        }
    }
    Ok((protocols, results))
}

/// Compares initializers of results (`msg_send![CLASS::alloc(), first: a, second: b]`) with the table. Gives the
/// classes that are made, and what is wrong.
fn lint_results(results: &Results, ours: &str) -> (BTreeSet<String>, Vec<String>) {
    let (mut made, mut problems) = (BTreeSet::new(), Vec::new());
    for (at, mark) in ours.match_indices("msg_send!") {
        let Some(inside) = bracketed(&ours[at + mark.len()..]) else { continue };
        let parts = split(inside);
        let Some(class) = parts.first().and_then(|p| p.trim().strip_suffix("::alloc()")) else { continue };
        let selector: String = parts
            .iter()
            .skip(1)
            .filter_map(|p| p.split_once(':'))
            .map(|(word, _)| format!("{}:", word.trim()))
            .collect();
        match results.get(class) {
            None => problems.push(format!("{class} is made and not in the table")),
            Some(right) if *right != selector => problems.push(format!("{class}: {selector} must be {right}")),
            Some(_) => drop(made.insert(class.to_owned())),
        }
    }
    (made, problems)
}

fn sources(folder: &Path) -> Result<String, String> {
    let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
    let mut all = String::new();
    for file in std::fs::read_dir(folder).map_err(failed)? {
        let path = file.map_err(failed)?.path();
        if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).map_err(failed)?;
            // Comments can hold anything.
            text.lines().filter(|l| !l.trim_start().starts_with("//")).for_each(|l| {
                all.push_str(l);
                all.push('\n');
            });
        }
    }
    Ok(all)
}

/// The text between the bracket that `text` begins with and the one that closes it.
fn bracketed(text: &str) -> Option<&str> {
    let mut depth = 0usize;
    for (i, c) in text.char_indices() {
        match c {
            '(' | '{' | '[' => depth += 1,
            ')' | '}' | ']' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return text.get(1..i);
                }
            }
            _ => {}
        }
    }
    None
}

/// Splits at commas that stand in no bracket.
fn split(text: &str) -> Vec<String> {
    let (mut parts, mut depth, mut last) = (vec![String::new()], 0i32, ' ');
    for c in text.chars() {
        match c {
            '(' | '[' | '{' | '<' => depth += 1,
            // Not the arrow of a return type.
            '>' if last == '-' => {}
            ')' | ']' | '}' | '>' => depth -= 1,
            _ => {}
        }
        last = c;
        match parts.last_mut() {
            Some(part) if c != ',' || depth > 0 => part.push(c),
            _ => parts.push(String::new()),
        }
    }
    parts.retain(|p| !p.trim().is_empty());
    parts
}

fn normal(kind: &str) -> String {
    let plain: String = kind.chars().filter(|c| !c.is_whitespace()).collect();
    plain.replace("block2::", "").replace("objc2::runtime::", "").replace(",>", ">").replace(",)", ")")
}

/// The methods of a block of code, by selector.
fn methods(block: &str) -> Methods {
    let mut all = Methods::new();
    let mut from = 0;
    for (at, mark) in block.match_indices("#[unsafe(method") {
        let (id, rest) = match block[at + mark.len()..].strip_prefix("_id(") {
            Some(rest) => (true, rest),
            None => match block[at + mark.len()..].strip_prefix('(') {
                Some(rest) => (false, rest),
                // `method_family`
                None => continue,
            },
        };
        let Some((selector, rest)) = rest.split_once(')') else { continue };
        let selector = selector.trim();
        let Some((_, rest)) = rest.split_once("fn ") else { continue };
        let Some(open) = rest.find('(') else { continue };
        let Some(arguments) = bracketed(&rest[open..]) else { continue };
        let after = &rest[open + arguments.len() + 2..];
        let returns = after.split(['{', ';']).next().unwrap_or_default().trim().trim_start_matches("->");
        let types = split(arguments).iter().filter_map(|a| a.split_once(':').map(|(_, t)| normal(t))).collect();
        let optional = block[from..at].contains("#[optional]");
        from = at + mark.len();
        let method = Method { arguments: types, returns: normal(returns), optional, id };
        let (selector, method) = with_error(selector, method);
        all.insert(selector, method);
    }
    all
}

/// The bindings turn a last argument for an error into a result; the selector then ends with an underscore.
fn with_error(selector: &str, mut method: Method) -> (String, Method) {
    let Some(selector) = selector.strip_suffix('_') else { return (selector.to_owned(), method) };
    method.arguments.push("*mut*mutNSError".into());
    let inner = method.returns.strip_prefix("Result<").and_then(|r| r.strip_suffix(",Retained<NSError>>"));
    method.returns = inner.map_or("bool".into(), |r| if r == "()" { "bool".into() } else { format!("Option<{r}>") });
    (selector.to_owned(), method)
}

fn protocols(text: &str) -> BTreeMap<String, Methods> {
    let mut all = BTreeMap::new();
    for (at, mark) in text.match_indices("extern_protocol!") {
        let Some(block) = bracketed(&text[at + mark.len()..]) else { continue };
        let Some((_, rest)) = block.split_once("unsafe trait ") else { continue };
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric()).collect();
        all.insert(name, methods(block));
    }
    all
}

/// Gives the number of protocols that are implemented and what is wrong with them.
fn lint(protocols: &BTreeMap<String, Methods>, ours: &str) -> (usize, Vec<String>) {
    let (mut found, mut problems) = (0, Vec::new());
    for (at, mark) in ours.match_indices("unsafe impl ") {
        let rest = &ours[at + mark.len()..];
        let Some((head, body)) = rest.split_once('{') else { continue };
        let Some((protocol, class)) = head.trim().split_once(" for ") else { continue };
        let Some(wanted) = protocols.get(protocol) else { continue };
        let Some(block) = bracketed(&rest[rest.len() - body.len() - 1..]) else { continue };
        found += 1;
        let have = methods(block);
        for (selector, method) in &have {
            let Some(right) = wanted.get(selector) else {
                problems.push(format!("{class}: {protocol} has no method {selector}"));
                continue;
            };
            if method.arguments != right.arguments || method.returns != right.returns {
                let shown = |m: &Method| format!("({}) -> {}", m.arguments.join(", "), m.returns);
                problems.push(format!("{class}: {selector} is {}, must be {}", shown(method), shown(right)));
            }
            if method.id != method.returns.contains("Retained<") {
                problems.push(format!("{class}: {selector} hands its object over with the wrong count"));
            }
        }
        for (selector, method) in wanted {
            if !method.optional && !have.contains_key(selector) {
                problems.push(format!("{class}: {protocol} demands {selector}"));
            }
        }
    }
    (found, problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BINDINGS: &str = "extern_protocol!(
        pub unsafe trait P: NSObjectProtocol {
            #[unsafe(method(a:b:))]
            #[unsafe(method_family = none)]
            unsafe fn a_b(&self, a: &FSItem, b: &block2::DynBlock<dyn Fn(*mut A, *mut NSError)>);
            #[optional]
            #[unsafe(method(c))]
            #[unsafe(method_family = none)]
            unsafe fn c(&self) -> Retained<NSString>;
            #[unsafe(method(d:error:_))]
            unsafe fn d(&self, t: &FSTask) -> Result<Retained<NSProgress>, Retained<NSError>>;
        }
    );";
    const OURS: &str = "define_class!(
        unsafe impl P for C {
            #[unsafe(method(a:b:))]
            fn a(
                &self,
                item: &FSItem,
                b: &DynBlock<dyn Fn(*mut A, *mut NSError)>,
            ) { x(); }
            #[unsafe(method_id(c))]
            fn c(&self) -> Retained<NSString> { y }
            #[unsafe(method_id(d:error:))]
            fn d(&self, t: &FSTask, e: *mut *mut NSError) -> Option<Retained<NSProgress>> { None }
        }
    );";

    const TABLE: &str = "# source\nprotocol P\nrequired a:b: | &FSItem, &DynBlock<dyn Fn(*mut A, *mut NSError)> |\n\
                         optional c | | Retained<NSString>\nresult A\ninit initWithX:y: | usize, Option<&FSItem>\n";

    #[test]
    fn the_table_of_handlers_is_read_and_compared() {
        let (protocols, results) = table(TABLE).unwrap();
        let ours = OURS.replace("#[unsafe(method_id(d:error:))]", "#[unsafe(method_id(c))]");
        let d = ours.find("fn d(").unwrap();
        let ours = format!("{}fn c(&self) -> Retained<NSString> {{ y }} }} )", &ours[..d]);
        assert_eq!(lint(&protocols, &ours), (1, Vec::new()));
        assert_eq!(lint(&protocols, &ours.replace("*mut A", "*mut B")).1.len(), 1);
        assert_eq!(lint(&protocols, &ours.replace("a:b:", "a:c:")).1.len(), 2);
        let made = "msg_send![A::alloc(), initWithX: 1, y: f(a, b)]";
        assert_eq!(lint_results(&results, made), (BTreeSet::from(["A".to_owned()]), Vec::new()));
        assert_eq!(lint_results(&results, &made.replace("y:", "z:")).1.len(), 1);
        assert_eq!(lint_results(&results, &made.replace("A::", "B::")).1.len(), 1);
        assert!(table("required a:").is_err() && table(&TABLE.replace(", Option<&FSItem>", "")).is_err());
        let (all, results) = table(HANDLERS).unwrap();
        assert_eq!((all.len(), results.len()), (HANDLER_PROTOCOLS, 23));
    }

    fn check(from: &str, to: &str) -> Vec<String> {
        assert!(OURS.contains(from));
        lint(&protocols(BINDINGS), &OURS.replace(from, to)).1
    }

    #[test]
    fn what_is_right_passes() {
        assert_eq!(lint(&protocols(BINDINGS), OURS), (1, Vec::new()));
    }

    #[test]
    fn what_the_compiler_does_not_see_is_found() {
        // A misspelt selector is unknown, and the right one is missing.
        assert_eq!(check("a:b:", "a:c:").len(), 2);
        // An optional method may be missing, not be misspelt.
        assert_eq!(check("method_id(c)", "method_id(cc)"), ["C: P has no method cc"]);
        // A wrong type that has an encoding.
        assert_eq!(check("item: &FSItem", "item: usize").len(), 1);
        assert_eq!(check("*mut A", "*mut B").len(), 1);
        assert_eq!(check("-> Option<Retained<NSProgress>>", "-> bool").len(), 2);
        // An object that is handed over with one count too few.
        assert_eq!(check("method_id(c)", "method(c)").len(), 1);
    }
}
