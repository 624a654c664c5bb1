#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| zfs_codec_fuzz::decompress(data));
