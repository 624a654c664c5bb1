//! The table of `zfs get` and `zpool get`.

use crate::columns::{Entry, width_of};
use crate::session::{Session, putln};
use uzfs_proto::PropertySource;

/// A column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// What has the property.
    Name,
    /// The property.
    Property,
    /// Its value.
    Value,
    /// The value that was received.
    Received,
    /// Where the value comes from.
    Source,
}

/// One property of one thing.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// What has it.
    pub name: String,
    /// The property.
    pub property: String,
    /// Its value as printed.
    pub value: String,
    /// Where it comes from.
    pub source: PropertySource,
    /// Ancestor it is inherited from.
    pub from: Option<String>,
    /// Received value as printed.
    pub received: Option<String>,
}

/// Reads the value of `-o`. The error is the sentence to print.
pub fn parse_fields(list: &str, with_received: bool) -> Result<Vec<Field>, String> {
    let most = if with_received { 5 } else { 4 };
    let everything = |with: bool| {
        let mut all = vec![Field::Name, Field::Property, Field::Value];
        if with {
            all.push(Field::Received);
        }
        all.push(Field::Source);
        all
    };
    let mut fields = Vec::new();
    for word in list.split(',') {
        if fields.len() == most {
            return Err("too many fields given to -o option".into());
        }
        fields.push(match word {
            "name" => Field::Name,
            "property" => Field::Property,
            "value" => Field::Value,
            "received" if with_received => Field::Received,
            "source" => Field::Source,
            "all" if fields.is_empty() => {
                fields = everything(with_received);
                continue;
            }
            "all" => {
                return Err("\"all\" conflicts with specific fields given to -o option".into());
            }
            _ => return Err(format!("invalid column name '{word}'")),
        });
    }
    Ok(fields)
}

/// Reads the value of `-s`. The error is the sentence to print.
pub fn parse_sources(list: &str) -> Result<Vec<PropertySource>, String> {
    let word = |w: &str| PropertySource::from_word(w).ok_or_else(|| format!("invalid source '{w}'"));
    list.split(',').map(word).collect()
}

fn source_text(row: &Row) -> String {
    match row.source {
        PropertySource::None => "-".into(),
        PropertySource::Inherited => {
            format!("inherited from {}", row.from.as_deref().unwrap_or_default())
        }
        other => other.word().into(),
    }
}

fn cell(row: &Row, field: Field) -> String {
    match field {
        Field::Name => row.name.clone(),
        Field::Property => row.property.clone(),
        Field::Value => row.value.clone(),
        Field::Received => row.received.clone().unwrap_or_else(|| "-".into()),
        Field::Source => source_text(row),
    }
}

fn title(field: Field) -> &'static str {
    match field {
        Field::Name => "NAME",
        Field::Property => "PROPERTY",
        Field::Value => "VALUE",
        Field::Received => "RECEIVED",
        Field::Source => "SOURCE",
    }
}

/// Prints the table. `entries` give the widths, `longest_name` is that of the longest name of
/// everything asked for, shown or not.
pub fn print(
    session: &mut Session,
    fields: &[Field],
    rows: &[Row],
    entries: &[Entry],
    longest_name: usize,
    scripted: bool,
) {
    if rows.is_empty() {
        return;
    }
    let widest = |f: fn(&Entry) -> usize| entries.iter().map(f).max().unwrap_or(0);
    let width = |field: Field| -> usize {
        let least = title(field).len();
        match field {
            Field::Name => least.max(longest_name),
            Field::Property => least.max(widest(|e| width_of(e.column.name()))),
            Field::Value => least.max(widest(|e| e.width)),
            Field::Received => least.max(widest(|e| e.received_width)),
            Field::Source if longest_name > 4 => longest_name + "inherited from".len(),
            Field::Source => least,
        }
    };
    let line = |cell: &dyn Fn(Field) -> String| -> String {
        let mut out = String::new();
        for (i, &field) in fields.iter().enumerate() {
            let text = cell(field);
            out.push_str(&text);
            if i + 1 == fields.len() {
                break;
            }
            if scripted {
                out.push('\t');
            } else {
                let pad = width(field).saturating_sub(width_of(&text)) + 2;
                out.extend(std::iter::repeat_n(' ', pad));
            }
        }
        out
    };
    if !scripted {
        putln!(session.out, "{}", line(&|f| title(f).to_owned()));
    }
    for row in rows {
        putln!(session.out, "{}", line(&|f| cell(row, f)));
    }
}
