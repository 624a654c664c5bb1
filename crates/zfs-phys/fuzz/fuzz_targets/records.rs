#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| zfs_phys_fuzz::records(data));
