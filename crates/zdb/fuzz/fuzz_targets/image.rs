#![no_main]
//! The image to damage is named by `UZFS_FUZZ_IMAGE`: a pool of one disk.
use std::sync::{Arc, OnceLock};

static IMAGE: OnceLock<Arc<Vec<u8>>> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let image = IMAGE.get_or_init(|| {
        let path = std::env::var_os("UZFS_FUZZ_IMAGE").expect("UZFS_FUZZ_IMAGE names a pool image");
        Arc::new(std::fs::read(path).expect("the image can be read"))
    });
    zdb_fuzz::run(image, 9, data);
});
