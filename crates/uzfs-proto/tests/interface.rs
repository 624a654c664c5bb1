//! The checked-in interface definition is what the code serves.

use uzfs_proto::contract::{METHODS, generate_interface};
use uzfs_proto::{INTERFACE_TEXT, U64, VdevNode};

/// Regenerate with `UZFS_WRITE_INTERFACE=1 cargo test -p uzfs-proto --test interface`.
#[test]
fn checked_in_text_is_what_the_code_generates() {
    let text = generate_interface();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/io.uzfs.Manage1.varlink");
    if std::env::var_os("UZFS_WRITE_INTERFACE").is_some() {
        std::fs::write(path, &text).unwrap();
        return;
    }
    assert!(text == INTERFACE_TEXT, "the contract changed: regenerate {path}");
}

#[test]
fn every_type_named_is_defined() {
    let text = generate_interface();
    let defined: Vec<&str> =
        text.lines().filter_map(|l| l.strip_prefix("type ")).filter_map(|l| l.split_whitespace().next()).collect();
    for line in text.lines().filter(|l| !l.trim_start().starts_with('#')) {
        let Some((_, spelling)) = line.trim().trim_end_matches(',').split_once(": ") else { continue };
        let base = spelling.trim_start_matches("?").trim_start_matches("[]");
        let base = base.trim_start_matches("[string]").trim_start_matches("?");
        let known = ["bool", "int", "float", "string"].contains(&base) || defined.contains(&base);
        assert!(known, "undefined type in: {line}");
    }
    for method in METHODS {
        assert!(text.contains(&format!("\nmethod {method}(")), "{method} is missing");
    }
}

/// The JSON of a struct has exactly the fields of its definition.
#[test]
fn json_has_the_defined_fields() {
    let node = serde_json::to_value(VdevNode::new("disk", 0, u64::MAX)).unwrap();
    let mut text = generate_interface();
    let at = text.find("type VdevNode (").unwrap();
    text = text.split_off(at);
    let body = text.split_once("\n)").unwrap().0;
    let mut defined: Vec<&str> = body
        .lines()
        .filter(|l| !l.trim_start().starts_with('#'))
        .filter_map(|l| l.trim().split_once(": "))
        .map(|p| p.0)
        .collect();
    let mut sent: Vec<&str> = node.as_object().unwrap().keys().map(String::as_str).collect();
    defined.sort_unstable();
    sent.sort_unstable();
    assert_eq!(defined, sent);
    assert_eq!(node["guid"], "18446744073709551615");
    let back: VdevNode = serde_json::from_value(node).unwrap();
    assert_eq!(back.guid, U64(u64::MAX));
}

/// Fields that may be left out can be left out, others cannot.
#[test]
fn optional_means_optional() {
    let raw: uzfs_proto::Raw = serde_json::from_str("{}").unwrap();
    assert_eq!(raw, uzfs_proto::Raw::default());
    assert!(serde_json::from_str::<uzfs_proto::ExportPoolArgs>("{\"pool\":\"p\"}").is_err());
}
