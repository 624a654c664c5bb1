//! zdb

fn main() {}
