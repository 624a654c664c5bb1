//! FUSE adapter: wire to Vfs
