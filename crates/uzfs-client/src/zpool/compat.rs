//! Sets of features that other systems know, by the names of files (`compatibility` property, zpool-features(7)).

use crate::props;
use std::collections::BTreeSet;
use std::path::Path;

/// Where the files are; the administrator's come first, and must not name features that nobody knows.
const PLACES: [(&str, bool); 2] = [("/etc/zfs/compatibility.d", true), ("/usr/share/zfs/compatibility.d", false)];
/// Largest file that is read (`ZPOOL_COMPAT_MAXSIZE`).
const MAX_SIZE: usize = 16384;

/// The features of a compatibility property, nothing for all of them, and a warning. The error is the sentence.
pub fn load(value: &str) -> Result<(Option<BTreeSet<String>>, Option<String>), String> {
    match value {
        "" | "off" => return Ok((None, None)),
        "legacy" => return Ok((Some(BTreeSet::new()), None)),
        _ => {}
    }
    let (mut all, mut bad_files, mut unknown, mut strict) =
        (None::<BTreeSet<String>>, String::new(), String::new(), false);
    for file in value.split(',').filter(|f| !f.is_empty()) {
        let found = PLACES.iter().find_map(|(dir, strict)| Some((read(&Path::new(dir).join(file))?, *strict)));
        let Some((text, own)) = found else {
            bad_files.push_str(&format!("{file} "));
            continue;
        };
        let mut set = BTreeSet::new();
        for word in words(&text) {
            if props::FEATURES.contains(&word) {
                set.insert(word.to_owned());
            } else {
                let shown: String = word.chars().take(32).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect();
                unknown.push_str(&format!("{shown} "));
                strict |= own;
            }
        }
        all = Some(match all {
            Some(so_far) => so_far.intersection(&set).cloned().collect(),
            None => set,
        });
    }
    if !bad_files.is_empty() {
        return Err(format!("could not read/parse feature file(s): {bad_files}"));
    }
    let Some(all) = all else { return Err("no valid compatibility files specified".into()) };
    if strict {
        return Err(format!("invalid feature name(s) in local compatibility files: {unknown}"));
    }
    let warning = format!("unrecognized feature name(s) in distribution compatibility files: {unknown}");
    Ok((Some(all), Some(warning).filter(|_| !unknown.is_empty())))
}

fn read(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    (text.len() <= MAX_SIZE && text.ends_with('\n')).then_some(text)
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or(""));
    lines.flat_map(|line| line.split([',', ' ', '\t'])).filter(|w| !w.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets() {
        assert_eq!(load("off"), Ok((None, None)));
        assert_eq!(load("legacy"), Ok((Some(BTreeSet::new()), None)));
        assert_eq!(load("no-such-set").unwrap_err(), "could not read/parse feature file(s): no-such-set ");
        assert_eq!(words("a,b # c\n\td").collect::<Vec<_>>(), ["a", "b", "d"]);
    }
}
