#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| uzfs_proto_fuzz::wire(data));
