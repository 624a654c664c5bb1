//! uzfsd

fn main() {}
