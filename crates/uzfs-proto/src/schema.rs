//! One definition for every type of the contract: Rust type, JSON form and varlink text.
//!
//! The macros below turn a struct, enum or method into the Rust item with its serde derives and
//! into the line of the interface definition that describes it, so that the two cannot drift. The
//! checked-in `io.uzfs.Manage1.varlink` is compared with what this module generates by a test.
//!
//! Rules of the mapping (kept small on purpose, so that any varlink library can speak it):
//! * `u64`, `u32`, `i64` are varlink `int`. A varlink `int` is signed, so a value that uses all 64
//!   bits (guids, raw property numbers) is a [`crate::U64`], which travels as a decimal string.
//! * `Option<T>` is `?T` and may be left out or `null`; everything else must be present. New fields
//!   are only ever added as `Option`, which keeps old and new programs talking.
//! * Enum names are the `snake_case` words given beside each variant.

use std::collections::BTreeMap;

/// A Rust type that can stand in the interface definition.
pub trait VarlinkType {
    /// The varlink spelling of the type, such as `[]string`.
    fn spelling() -> String;
}

/// A struct of the contract: its fields as (documentation, name, varlink type).
pub trait VarlinkStruct {
    /// Documentation lines of the struct.
    const DOC: &'static [&'static str];
    /// Fields in declaration order.
    fn fields() -> Vec<Field>;
}

/// One field of a contract struct.
pub struct Field {
    /// Documentation lines.
    pub doc: &'static [&'static str],
    /// JSON name.
    pub name: &'static str,
    /// Varlink spelling of its type.
    pub spelling: String,
}

macro_rules! spelled {
    ($($t:ty => $s:literal),* $(,)?) => {$(
        impl VarlinkType for $t {
            fn spelling() -> String { $s.into() }
        }
    )*};
}
spelled! { bool => "bool", u64 => "int", u32 => "int", i64 => "int", f64 => "float", String => "string" }

impl<T: VarlinkType> VarlinkType for Option<T> {
    fn spelling() -> String {
        format!("?{}", T::spelling())
    }
}
impl<T: VarlinkType> VarlinkType for Vec<T> {
    fn spelling() -> String {
        format!("[]{}", T::spelling())
    }
}
impl<T: VarlinkType> VarlinkType for BTreeMap<String, T> {
    fn spelling() -> String {
        format!("[string]{}", T::spelling())
    }
}
impl<T: VarlinkType> VarlinkType for Box<T> {
    fn spelling() -> String {
        T::spelling()
    }
}

fn comment(out: &mut String, indent: &str, doc: &[&str]) {
    for line in doc {
        out.push_str(indent);
        out.push('#');
        out.push_str(line.trim_end());
        out.push('\n');
    }
}

fn field_list(out: &mut String, fields: &[Field]) {
    if fields.is_empty() {
        out.push_str("()");
        return;
    }
    out.push_str("(\n");
    for (i, f) in fields.iter().enumerate() {
        comment(out, "  ", f.doc);
        out.push_str(&format!("  {}: {}", f.name, f.spelling));
        out.push_str(if i + 1 < fields.len() { ",\n" } else { "\n" });
    }
    out.push(')');
}

/// Appends `type NAME (…)` to an interface definition.
pub fn write_struct<T: VarlinkStruct>(out: &mut String, name: &str) {
    out.push('\n');
    comment(out, "", T::DOC);
    out.push_str(&format!("type {name} "));
    field_list(out, &T::fields());
    out.push('\n');
}

/// Appends an enumeration to an interface definition.
pub fn write_enum(out: &mut String, name: &str, doc: &[&str], words: &[&str]) {
    out.push('\n');
    comment(out, "", doc);
    out.push_str(&format!("type {name} (\n  {}\n)\n", words.join(",\n  ")));
}

/// Appends a method with its in and out parameters to an interface definition.
pub fn write_method<A: VarlinkStruct, R: VarlinkStruct>(out: &mut String, name: &str, doc: &[&str]) {
    out.push('\n');
    comment(out, "", doc);
    out.push_str(&format!("method {name}"));
    field_list(out, &A::fields());
    out.push_str(" -> ");
    field_list(out, &R::fields());
    out.push('\n');
}

/// Defines structs of the contract.
macro_rules! contract_structs {
    ($( $(#[doc = $d:literal])* $(#[derive($($extra:ident),*)])? pub struct $name:ident {
        $( $(#[doc = $fd:literal])* pub $f:ident : $t:ty ),* $(,)?
    } )*) => {$(
        $(#[doc = $d])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize $(, $($extra),*)?)]
        pub struct $name { $( $(#[doc = $fd])* pub $f: $t ),* }

        impl $crate::schema::VarlinkType for $name {
            fn spelling() -> String { stringify!($name).into() }
        }
        impl $crate::schema::VarlinkStruct for $name {
            const DOC: &'static [&'static str] = &[$($d),*];
            fn fields() -> Vec<$crate::schema::Field> {
                vec![$( $crate::schema::Field {
                    doc: &[$($fd),*],
                    name: stringify!($f),
                    spelling: <$t as $crate::schema::VarlinkType>::spelling(),
                } ),*]
            }
        }
    )*};
}

/// Defines enumerations of the contract; the literal is the word on the wire.
macro_rules! contract_enums {
    ($( $(#[doc = $d:literal])* pub enum $name:ident {
        $( $(#[doc = $vd:literal])* $v:ident = $w:literal ),* $(,)?
    } )*) => {$(
        $(#[doc = $d])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name { $( $(#[doc = $vd])* #[serde(rename = $w)] $v ),* }

        impl $name {
            /// Documentation lines, for the interface definition.
            pub const DOC: &'static [&'static str] = &[$($d),*];
            /// Every word, in order.
            pub const WORDS: &'static [&'static str] = &[$($w),*];
            /// The word on the wire.
            pub fn word(self) -> &'static str {
                match self { $( Self::$v => $w ),* }
            }
            /// The variant of a word.
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $( $w => Some(Self::$v), )* _ => None }
            }
        }
        impl $crate::schema::VarlinkType for $name {
            fn spelling() -> String { stringify!($name).into() }
        }
    )*};
}

pub(crate) use {contract_enums, contract_structs};
