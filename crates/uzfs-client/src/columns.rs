//! Lists of properties (`-o`) and the widths of their columns.

use crate::props::{self, Column, Def};

/// One entry of a property list.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Which property.
    pub column: Column,
    /// Width of its column so far.
    pub width: usize,
    /// Width of its received values so far.
    pub received_width: usize,
    /// The width does not grow with the values.
    pub fixed: bool,
    /// Came in by `all`: left out where it does not apply.
    pub from_all: bool,
}

impl Entry {
    /// An entry with its starting width.
    pub fn new(column: Column, from_all: bool) -> Entry {
        let (width, fixed) = match &column {
            Column::Native(def) => (def.width(), !def.flex),
            Column::Named(name) => (name.len(), false),
        };
        Entry { column, width, received_width: 0, fixed, from_all }
    }

    /// Makes room for a value.
    pub fn fit(&mut self, value: &str, exact: bool) {
        if !self.fixed || exact {
            self.width = self.width.max(width_of(value));
        }
    }
}

/// Bytes of a text, which is how the C library counts columns.
pub fn width_of(text: &str) -> usize {
    text.len()
}

/// Which table names are looked up in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// Dataset properties.
    Dataset,
    /// Pool properties.
    Pool,
    /// Vdev properties.
    Vdev,
}

impl Table {
    fn native(self, name: &str) -> Option<&'static Def> {
        match self {
            Table::Dataset => props::dataset(name),
            Table::Pool => props::pool(name),
            Table::Vdev => props::vdev(name),
        }
    }

    fn allows(self, name: &str) -> bool {
        match self {
            Table::Dataset => props::is_user(name) || props::is_userquota(name) || props::is_written(name),
            Table::Pool => props::is_user(name) || props::is_feature(name),
            Table::Vdev => props::is_user(name),
        }
    }

    /// Every native property.
    pub fn all(self) -> &'static [Def] {
        match self {
            Table::Dataset => props::DATASET,
            Table::Pool => props::POOL,
            Table::Vdev => props::VDEV,
        }
    }
}

/// What a property list says.
#[derive(Debug, Clone, PartialEq)]
pub enum Wanted {
    /// Everything.
    All,
    /// These.
    These(Vec<Entry>),
}

/// Reads a comma-separated list of properties. The error is the sentence to print.
pub fn parse(table: Table, fields: &str) -> Result<Wanted, String> {
    if fields == "all" {
        return Ok(Wanted::All);
    }
    let fields = match (table, fields) {
        (Table::Dataset, "space") => "name,avail,used,usedsnap,usedds,usedrefreserv,usedchild",
        _ => fields,
    };
    if fields.is_empty() {
        return Err("no properties specified".into());
    }
    let mut entries = Vec::new();
    for field in fields.split(',') {
        if field.is_empty() {
            return Err("bad property list: empty property name".into());
        }
        if table == Table::Dataset && field == "space" {
            if let Wanted::These(more) = parse(table, "space")? {
                entries.extend(more);
            }
            continue;
        }
        let column = match table.native(field) {
            Some(def) => Column::Native(def),
            None if table.allows(field) => Column::Named(field.to_owned()),
            None => return Err(format!("bad property list: invalid property '{field}'")),
        };
        entries.push(Entry::new(column, false));
    }
    Ok(Wanted::These(entries))
}

/// The visible native properties as a list made by `all`.
pub fn all_native(table: Table) -> Vec<Entry> {
    let visible = table.all().iter().filter(|d| d.visible);
    visible.map(|d| Entry::new(Column::Native(d), true)).collect()
}

/// One line of a list: header, row or line of dashes.
pub fn line(entries: &[Entry], cells: &[String], right: impl Fn(&Entry) -> bool, scripted: bool) -> String {
    let mut out = String::new();
    for (i, (entry, cell)) in entries.iter().zip(cells).enumerate() {
        if i > 0 {
            out.push_str(if scripted { "\t" } else { "  " });
        }
        let right = right(entry);
        let last = i + 1 == entries.len();
        let pad = entry.width.saturating_sub(width_of(cell));
        match (scripted || last && !right, right) {
            (true, _) => out.push_str(cell),
            (false, true) => {
                out.extend(std::iter::repeat_n(' ', pad));
                out.push_str(cell);
            }
            (false, false) => {
                out.push_str(cell);
                out.extend(std::iter::repeat_n(' ', pad));
            }
        }
    }
    out
}

/// The header line.
pub fn header(entries: &[Entry]) -> String {
    let titles: Vec<String> = entries.iter().map(|e| e.column.title()).collect();
    let right = |e: &Entry| matches!(&e.column, Column::Native(d) if d.right);
    line(entries, &titles, right, false)
}

/// A row of values.
pub fn row(entries: &[Entry], cells: &[String], scripted: bool) -> String {
    line(entries, cells, |e| e.column.right_value(), scripted)
}
