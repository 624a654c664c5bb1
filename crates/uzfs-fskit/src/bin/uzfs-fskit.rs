//! The extension's program. On macOS its entry point is `NSExtensionMain`, given to the linker; the classes are
//! registered by a constructor before that. Elsewhere it only says what it is, so that the workspace builds everywhere.
#![cfg_attr(target_os = "macos", no_main)]

#[cfg(target_os = "macos")]
mod entry {
    use std::ffi::{c_char, c_int};

    #[link(name = "Foundation", kind = "framework")]
    unsafe extern "C" {
        fn NSExtensionMain(argc: c_int, argv: *const *const c_char) -> c_int;
    }

    /// Keeps the symbol that the linker is told to enter at.
    #[used]
    static ENTRY: unsafe extern "C" fn(c_int, *const *const c_char) -> c_int = NSExtensionMain;

    extern "C" fn register() {
        uzfs_fskit::objc::register_classes();
    }

    // SAFETY: dyld calls every pointer of this section once, before the entry point, and `register` is such a function.
    #[used]
    #[unsafe(link_section = "__DATA,__mod_init_func")]
    static REGISTER: extern "C" fn() = register;
}

#[cfg(not(target_os = "macos"))]
fn main() {
    eprintln!("uzfs-fskit is the file-system extension of macOS; build it with `cargo xtask macos bundle`");
    std::process::exit(2);
}
