//! Comparing what the tools print with what OpenZFS's tools printed, cell by cell.
//!
//! The tables of the corpus were printed while the pool was imported read-write, just before it was
//! exported. Cells that depend on that moment or on that host are listed in `volatile`, each with its
//! reason; everything else must be equal.

use crate::volatile::{self, Table};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// Cells by row and column.
pub type Cells = BTreeMap<(String, String), String>;

/// Columns of the corpus's `zfs-list`, as they were asked for.
pub const LIST_COLUMNS: &str = "name,type,guid,used,avail,refer,mountpoint,origin,createtxg";
/// Columns of `zfs-list` of pools that were never exported.
pub const SHORT_LIST_COLUMNS: &str = "name,type,guid";
/// Columns of `zpool list -Hpv`.
const POOL_COLUMNS: &str = "name,size,alloc,free,ckpoint,expandsz,frag,cap,dedup,health,altroot";

/// `zfs list -Hp -o COLUMNS`.
pub fn list(text: &str, columns: &str) -> Cells {
    let mut cells = Cells::new();
    for line in text.lines() {
        let values: Vec<&str> = line.split('\t').collect();
        let name = values.first().copied().unwrap_or_default();
        for (column, value) in columns.split(',').zip(&values) {
            cells.insert((name.to_owned(), column.to_owned()), (*value).to_owned());
        }
    }
    cells
}

/// `zfs get -Hp all` and `zpool get -Hp all`: value and source of every property.
pub fn get(text: &str) -> Cells {
    let mut cells = Cells::new();
    for line in text.lines() {
        let mut columns = line.splitn(3, '\t');
        if let (Some(name), Some(property), Some(rest)) = (columns.next(), columns.next(), columns.next()) {
            // The value itself may hold tabs; the source is behind the last one.
            let (value, source) = rest.rsplit_once('\t').unwrap_or((rest, ""));
            cells.insert((name.to_owned(), property.to_owned()), value.to_owned());
            cells.insert((name.to_owned(), format!("{property} (source)")), source.to_owned());
        }
    }
    cells
}

/// `zpool list -Hpv`: the pool and its devices. Class headers keep their blanks and are one cell.
pub fn pool_list(text: &str) -> Cells {
    let mut cells = Cells::new();
    let mut class = "";
    for line in text.lines() {
        let values: Vec<&str> = line.trim_start_matches('\t').split('\t').collect();
        if values.len() == 1 {
            class = line.split_whitespace().next().unwrap_or_default();
            // As wide as the longest path, which is another here.
            cells.insert((class.to_owned(), "header".to_owned()), crate::transcript::squeeze(line));
            continue;
        }
        // A device may be listed twice, as a member and as a spare in use.
        let row = if line.starts_with('\t') { format!("{class}/{}", values[0]) } else { values[0].to_owned() };
        for (column, value) in POOL_COLUMNS.split(',').zip(&values) {
            cells.insert((row.clone(), column.to_owned()), (*value).to_owned());
        }
    }
    cells
}

/// Lines as cells, for texts whose order matters: `zpool status`, `zpool history`.
pub fn lines(text: &str) -> Vec<String> {
    text.lines().map(crate::transcript::squeeze).collect()
}

/// Differences between two tables; `root` is where the pool is mounted now. Gives how many cells were
/// compared.
pub fn compare(table: Table, expected: &Cells, seen: &Cells, root: &Path) -> (Vec<String>, usize) {
    let mut problems = Vec::new();
    let mut compared = 0;
    for ((row, column), want) in expected {
        if volatile::reason(table, row, column, expected).is_some() {
            continue;
        }
        compared += 1;
        let want = volatile::below_root(table, column, want, root);
        match seen.get(&(row.clone(), column.clone())) {
            Some(have) if *have == want => {}
            Some(have) => problems.push(format!("{row}: {column} is '{have}', must be '{want}'")),
            None => problems.push(format!("{row}: {column} is absent, must be '{want}'")),
        }
    }
    for ((row, column), have) in seen {
        let known = expected.contains_key(&(row.clone(), column.clone()));
        if !known && volatile::reason(table, row, column, expected).is_none() {
            problems.push(format!("{row}: {column} is '{have}', must not be there"));
        }
    }
    (problems, compared)
}

/// Differences between two texts, by lines; the order counts. Lines that are JSON are compared by value.
pub fn compare_lines(want: &[String], have: &[String]) -> Vec<String> {
    if want == have {
        return Vec::new();
    }
    if let ([want], [have]) = (want, have)
        && let (Ok(want), Ok(have)) = (serde_json::from_str(want), serde_json::from_str(have))
    {
        let mut found = Vec::new();
        compare_json("", &want, &have, &mut found);
        return found;
    }
    let count = |list: &[String], line: &String| list.iter().filter(|l| *l == line).count();
    let only = |a: &[String], b: &[String], sign: char| -> Vec<String> {
        let mut seen: Vec<&String> = Vec::new();
        let mut found = Vec::new();
        for line in a.iter().filter(|l| count(a, l) > count(b, l)) {
            if !seen.contains(&line) {
                seen.push(line);
                found.push(format!("{sign} {line}"));
            }
        }
        found
    };
    let mut found = only(want, have, '-');
    found.extend(only(have, want, '+'));
    if found.is_empty() {
        let at = want.iter().zip(have).position(|(a, b)| a != b).unwrap_or(0);
        found.push(format!("the lines are in another order from line {} on", at + 1));
    }
    found
}

fn compare_json(path: &str, want: &Value, have: &Value, found: &mut Vec<String>) {
    if let (Value::Object(want), Value::Object(have)) = (want, have) {
        let more = have.keys().filter(|k| !want.contains_key(*k));
        for key in want.keys().chain(more) {
            let (want, have) = (want.get(key), have.get(key));
            let (want, have) = (want.unwrap_or(&Value::Null), have.unwrap_or(&Value::Null));
            compare_json(&format!("{path}/{key}"), want, have, found);
        }
    } else if want != have && !volatile::json_is_volatile(path) {
        found.push(format!("{path} is {have}, must be {want}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_read() {
        let cells = get("a\tused\t1\t-\na\tnote\tx\ty\tlocal\n");
        assert_eq!(cells[&("a".into(), "note".into())], "x\ty");
        assert_eq!(cells[&("a".into(), "note (source)".into())], "local");
        let cells = pool_list("p\t1\t2\nlogs   -\n\tmirror-0\t3\t4\n");
        assert_eq!(cells[&("logs/mirror-0".into(), "alloc".into())], "4");
    }

    #[test]
    fn differences_are_found() {
        let root = Path::new("/r");
        let want = list("p\tfilesystem\t7\n", SHORT_LIST_COLUMNS);
        let have = list("p\tfilesystem\t8\nq\tvolume\t9\n", SHORT_LIST_COLUMNS);
        let (problems, compared) = compare(Table::ZfsList, &want, &have, root);
        assert_eq!(compared, 3);
        assert_eq!(problems[0], "p: guid is '8', must be '7'");
        assert_eq!(problems.len(), 4);
        let s = |t: &str| lines(t);
        assert_eq!(compare_lines(&s("a\nb\n"), &s("a\nc\n")), ["- b", "+ c"]);
        assert_eq!(compare_lines(&s("a\nb\n"), &s("b\na\n")).len(), 1);
        assert!(compare_lines(&s("a  b\n"), &s("a b\n")).is_empty());
        let json = compare_lines(&s("{\"a\":{\"b\":1}}"), &s("{\"a\":{\"b\":2,\"c\":3}}"));
        assert_eq!(json, ["/a/b is 2, must be 1", "/a/c is 3, must be null"]);
    }
}
