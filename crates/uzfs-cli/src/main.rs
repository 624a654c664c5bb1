//! uzfs-cli

fn main() {}
