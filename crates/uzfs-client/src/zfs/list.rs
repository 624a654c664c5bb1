//! `zfs list` and `zfs get`.

use super::datasets::{self, Query, SortKey};
use crate::columns::{self, Entry, Table, Wanted};
use crate::getopt::Parsed;
use crate::getprint::{self, Field, Row};
use crate::json::{self, Object};
use crate::props::{self, Column, FS, MARK, SNAP, VOL};
use crate::session::{Run, Session, Stop, putln};
use uzfs_proto::{Dataset, PropertySource};

fn check_json(args: &Parsed) -> Result<(bool, bool), Stop> {
    let (json, as_int) = (args.has('j'), args.has_long("json-int"));
    if as_int && !json {
        return Err(Stop::Usage("'--json-int' only works with '-j' option".into()));
    }
    Ok((json, as_int))
}

fn depth(args: &Parsed) -> Result<Option<u64>, Stop> {
    args.value('d').map(datasets::parse_depth).transpose().map_err(Stop::Usage)
}

/// The name the daemon knows a property by.
fn asked_name(name: &str) -> String {
    if props::is_userquota(name) { crate::who::numeric(name) } else { name.to_owned() }
}

/// Names of the properties the daemon must send for a list and for sorting.
fn names(entries: &[Entry], keys: &[SortKey]) -> Vec<String> {
    let mut names: Vec<String> = entries.iter().map(|e| asked_name(e.column.name())).collect();
    names.extend(keys.iter().map(|k| k.column.name().to_owned()));
    names.sort_unstable();
    names.dedup();
    names.retain(|n| n != "name" && n != "type" && n != "guid" && n != "createtxg");
    names
}

fn sort_keys(args: &Parsed) -> Result<Vec<SortKey>, Stop> {
    let mut keys = Vec::new();
    for (letter, name) in args.ordered().filter(|(l, _)| matches!(l, 's' | 'S')) {
        let column = match props::dataset(name) {
            Some(def) => Column::Native(def),
            None if props::is_user(name) => Column::Named(name.to_owned()),
            None => return Err(Stop::Usage(format!("invalid property '{name}'"))),
        };
        keys.push(SortKey { column, reverse: letter == 'S' });
    }
    Ok(keys)
}

/// `zfs list`.
pub fn list(session: &mut Session, args: &Parsed) -> Run {
    let (json, as_int) = check_json(args)?;
    let exact = args.has('p') || as_int;
    let mut kinds = FS | VOL | SNAP;
    let typed = args.value('t').is_some();
    if let Some(list) = args.value('t') {
        kinds = datasets::parse_kinds(list).map_err(Stop::Usage)?;
    }
    let keys = sort_keys(args)?;
    let mut max_depth = depth(args)?;
    let mut recursive = args.has('r') || max_depth.is_some();
    let fields = args.value('o').unwrap_or("name,used,available,referenced,mountpoint");
    if fields == "space" && !typed {
        kinds &= !SNAP;
    }
    if (kinds == SNAP || kinds == MARK) && !args.operands.is_empty() && !recursive {
        (recursive, max_depth) = (true, Some(1));
    }
    let wanted = columns::parse(Table::Dataset, fields).map_err(Stop::Usage)?;
    let all = wanted == Wanted::All;
    let mut entries = match wanted {
        Wanted::These(entries) => entries,
        Wanted::All => {
            let name = props::dataset("name").map(Column::Native);
            let mut entries: Vec<Entry> = name.map(|c| Entry::new(c, true)).into_iter().collect();
            entries.extend(columns::all_native(Table::Dataset));
            entries
        }
    };
    let query = Query {
        roots: args.operands.clone(),
        recursive,
        depth: max_depth,
        kinds,
        listsnapshots: !typed,
        properties: (!all).then(|| names(&entries, &keys)),
    };
    let (mut rows, failed) = datasets::fetch(session, &query)?;
    datasets::sort(&mut rows, &keys);
    if all {
        datasets::add_user_properties(&mut entries, &rows);
    }
    if json {
        if !failed {
            putln!(session.out, "{}", list_json(&rows, &entries, exact, as_int));
            if rows.is_empty() {
                putln!(session.err, "no datasets available");
            }
        }
        return Ok(i32::from(failed));
    }
    print_list(session, &rows, &mut entries, exact, args.has('H'));
    if rows.is_empty() && !failed && !args.has('H') {
        putln!(session.err, "no datasets available");
    }
    Ok(i32::from(failed))
}

fn print_list(session: &mut Session, rows: &[Dataset], entries: &mut [Entry], exact: bool, scripted: bool) {
    let mut table = Vec::with_capacity(rows.len());
    for ds in rows {
        let mut cells = Vec::with_capacity(entries.len());
        for entry in entries.iter_mut() {
            let cell = datasets::row(ds, &entry.column, exact).map(|r| r.value);
            // Values of quotas and written do not widen their column in OpenZFS either.
            let named = entry.column.name();
            if let Some(value) = &cell
                && !props::is_userquota(named)
                && !props::is_written(named)
            {
                entry.fit(value, exact);
            }
            cells.push(cell.unwrap_or_else(|| "-".into()));
        }
        table.push(cells);
    }
    if !rows.is_empty() && !scripted {
        putln!(session.out, "{}", columns::header(entries));
    }
    for cells in &table {
        putln!(session.out, "{}", columns::row(entries, cells, scripted));
    }
}

fn none_row(ds: &Dataset, column: &Column) -> Row {
    Row {
        name: ds.name.clone(),
        property: column.name().to_owned(),
        value: "-".into(),
        source: PropertySource::None,
        from: None,
        received: None,
    }
}

fn finish(command: &str, datasets: Object) -> String {
    let mut top = json::envelope(command);
    top.insert("datasets".into(), datasets.into());
    serde_json::Value::Object(top).to_string()
}

fn list_json(rows: &[Dataset], entries: &[Entry], exact: bool, as_int: bool) -> String {
    let mut all = Object::new();
    for ds in rows {
        let mut properties = Object::new();
        for entry in entries.iter().filter(|e| e.column.name() != "name") {
            let row = datasets::row(ds, &entry.column, exact);
            let row = row.unwrap_or_else(|| none_row(ds, &entry.column));
            properties.insert(row.property.clone(), json::property(&row, as_int));
        }
        let mut object = json::dataset(ds, as_int);
        object.insert("properties".into(), properties.into());
        all.insert(ds.name.clone(), object.into());
    }
    finish("zfs list", all)
}

/// `zfs get`.
pub fn get(session: &mut Session, args: &Parsed) -> Run {
    let mut fields = vec![Field::Name, Field::Property, Field::Value, Field::Source];
    if let Some(list) = args.value('o') {
        fields = getprint::parse_fields(list, true).map_err(Stop::Usage)?;
    }
    let sources = args.value('s').map(getprint::parse_sources).transpose().map_err(Stop::Usage)?;
    let mut kinds = FS | VOL | SNAP | MARK;
    if let Some(list) = args.value('t') {
        kinds = datasets::parse_kinds(list).map_err(Stop::Usage)?;
    }
    let mut max_depth = depth(args)?;
    let mut recursive = args.has('r') || max_depth.is_some();
    let Some((list, roots)) = args.operands.split_first() else {
        return Err(Stop::Usage("missing property argument".into()));
    };
    let (json, as_int) = check_json(args)?;
    let exact = args.has('p') || as_int;
    if (kinds == SNAP || kinds == MARK) && !roots.is_empty() && !recursive {
        (recursive, max_depth) = (true, Some(1));
    }
    let wanted = columns::parse(Table::Dataset, list).map_err(Stop::Usage)?;
    let all = wanted == Wanted::All;
    let mut entries = match wanted {
        Wanted::These(entries) => entries,
        Wanted::All => columns::all_native(Table::Dataset),
    };
    let query = Query {
        roots: roots.to_vec(),
        recursive,
        depth: max_depth,
        kinds,
        listsnapshots: false,
        properties: (!all).then(|| names(&entries, &[])),
    };
    let (mut datasets, failed) = datasets::fetch(session, &query)?;
    datasets::sort(&mut datasets, &[]);
    if all {
        datasets::add_user_properties(&mut entries, &datasets);
    }
    let wanted = |row: &Row| sources.as_ref().is_none_or(|s| s.contains(&row.source));
    if json {
        if !failed {
            putln!(session.out, "{}", get_json(&datasets, &entries, exact, as_int, &wanted));
        }
        return Ok(i32::from(failed));
    }
    let mut rows = Vec::new();
    for ds in &datasets {
        for entry in &mut entries {
            let row = match datasets::row(ds, &entry.column, exact) {
                Some(row) => row,
                None if entry.from_all => continue,
                None => none_row(ds, &entry.column),
            };
            entry.fit(&row.value, exact);
            if let Some(received) = &row.received {
                entry.received_width = entry.received_width.max(received.len());
            }
            rows.push(row);
        }
    }
    rows.retain(wanted);
    let longest = datasets.iter().map(|d| d.name.len()).max().unwrap_or(0);
    getprint::print(session, &fields, &rows, &entries, longest, args.has('H'));
    Ok(i32::from(failed))
}

fn get_json(rows: &[Dataset], entries: &[Entry], exact: bool, as_int: bool, wanted: &dyn Fn(&Row) -> bool) -> String {
    let mut all = Object::new();
    for ds in rows {
        let mut properties = Object::new();
        for entry in entries {
            let row = match datasets::row(ds, &entry.column, exact) {
                Some(row) => row,
                None if entry.from_all => continue,
                None => none_row(ds, &entry.column),
            };
            if wanted(&row) {
                properties.insert(row.property.clone(), json::property(&row, as_int));
            }
        }
        if !properties.is_empty() {
            let mut object = json::dataset(ds, as_int);
            object.insert("properties".into(), properties.into());
            all.insert(ds.name.clone(), object.into());
        }
    }
    finish("zfs get", all)
}
